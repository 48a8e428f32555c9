package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/sql"
	"github.com/pembadb/pemba/dispatch"
)

// observed is a node's HTTP listener for those who watch over it; nil for a node
// without one.
type observed struct {
	registry *prometheus.Registry
	pprof    bool
	listen   net.Listener
	server   *http.Server
}

// observe listens for scrapes, in plain text on loopback, and elsewhere as the
// other listeners do; nowhere without an address.
func observe(s *serving) (*observed, error) {
	addr := s.metricsAddr
	if addr == "" {
		return nil, nil
	}
	l, err := listenTo("metrics", "metrics-addr", addr)
	if err != nil {
		return nil, err
	}
	if s.tls != nil && !loopback(addr) {
		l = tls.NewListener(l, s.tls.Config("http/1.1"))
	}
	o := &observed{registry: prometheus.NewRegistry(), pprof: s.pprof || loopback(addr), listen: l}
	o.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return o, nil
}

// registerer is where a server registers what it counts; nil for none.
func (o *observed) registerer() prometheus.Registerer {
	if o == nil {
		return nil
	}
	return o.registry
}

// serve answers scrapes until close.
func (o *observed) serve(l datastore.Log, k *keeper.Keeper, c *dispatch.Cache, log *slog.Logger) {
	if o == nil {
		return
	}
	o.registry.MustRegister(&state{keeper: k, cache: c, log: l})
	o.server = &http.Server{Handler: o.handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 2 * time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	go o.server.Serve(o.listen)
}

// handler answers scrapes, and hands out profiles where it may.
func (o *observed) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.registry, promhttp.HandlerOpts{Registry: o.registry, MaxRequestsInFlight: 4}))
	if o.pprof {
		profiles(mux)
	}
	return mux
}

// profiles serves what `go tool pprof` reads, but not the command line, which may
// hold a token.
func profiles(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.Handle("GET /debug/pprof/cmdline", http.NotFoundHandler())
}

func (o *observed) close() {
	if o == nil {
		return
	}
	if o.server != nil {
		limit, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		o.server.Shutdown(limit)
	}
	o.listen.Close()
}

// state is what a node is like at the moment it is asked.
type state struct {
	keeper *keeper.Keeper
	cache  *dispatch.Cache
	log    datastore.Log
}

var (
	poolConnections = prometheus.NewDesc("pemba_pool_connections", "Connections with the database, in use and idle, and the most there may be.", []string{"pool", "state"}, nil)
	poolWaits       = prometheus.NewDesc("pemba_pool_waits_total", "How often a connection with the database had to be waited for.", []string{"pool"}, nil)
)

// gauge is one number of a node's state.
type gauge struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(dispatch.Stats, keeper.Stats) float64
}

func measure(kind prometheus.ValueType, name, help string, value func(dispatch.Stats, keeper.Stats) float64) gauge {
	return gauge{prometheus.NewDesc("pemba_"+name, help, nil, nil), kind, value}
}

var gauges = []gauge{
	measure(prometheus.CounterValue, "cache_hits_total", "Queries of stores out of memory that this node knew.", func(c dispatch.Stats, _ keeper.Stats) float64 { return float64(c.Hits) }),
	measure(prometheus.CounterValue, "cache_misses_total", "Queries of stores out of memory that this node did not know.", func(c dispatch.Stats, _ keeper.Stats) float64 { return float64(c.Misses) }),
	measure(prometheus.CounterValue, "cache_shared_total", "Misses that waited for the read of another request.", func(c dispatch.Stats, _ keeper.Stats) float64 { return float64(c.Shared) }),
	measure(prometheus.CounterValue, "peer_queries_total", "Queries that another node answered.", func(c dispatch.Stats, _ keeper.Stats) float64 { return float64(c.Asked) }),
	measure(prometheus.CounterValue, "peer_declined_total", "Queries that another node was asked and did not answer; the database was read.", func(c dispatch.Stats, _ keeper.Stats) float64 { return float64(c.Declined) }),
	measure(prometheus.CounterValue, "datastore_reads_total", "Reads of the datastore for stores out of memory, each of many queries.", func(c dispatch.Stats, _ keeper.Stats) float64 { return float64(c.Reads) }),
	measure(prometheus.GaugeValue, "cache_bytes", "Bytes of what is remembered.", func(c dispatch.Stats, _ keeper.Stats) float64 { return float64(c.Bytes) }),
	measure(prometheus.GaugeValue, "cache_entries", "Queries that are remembered.", func(c dispatch.Stats, _ keeper.Stats) float64 { return float64(c.Entries) }),
	measure(prometheus.GaugeValue, "datastore_reads_running", "Reads of the datastore under way.", func(c dispatch.Stats, _ keeper.Stats) float64 { return float64(c.Reading) }),
	measure(prometheus.GaugeValue, "datastore_reads_waiting", "Reads of the datastore that wait for their turn.", func(c dispatch.Stats, _ keeper.Stats) float64 { return float64(c.Waiting) }),
	measure(prometheus.GaugeValue, "stores_in_memory", "Stores that are answered from memory.", func(_ dispatch.Stats, k keeper.Stats) float64 { return float64(k.Resident) }),
	measure(prometheus.GaugeValue, "stores_direct", "Stores in use that are read from the datastore.", func(_ dispatch.Stats, k keeper.Stats) float64 { return float64(k.Direct) }),
	measure(prometheus.GaugeValue, "stores_loading", "Stores that are being read into memory.", func(_ dispatch.Stats, k keeper.Stats) float64 { return float64(k.Loading) }),
	measure(prometheus.GaugeValue, "loading_relationships", "Relationships read so far of the stores that are being read into memory.", func(_ dispatch.Stats, k keeper.Stats) float64 { return float64(k.Loaded) }),
	measure(prometheus.GaugeValue, "resident_bytes", "About what the stores in memory take; zero where --resident-memory bounds nothing.", func(_ dispatch.Stats, k keeper.Stats) float64 { return float64(k.ResidentBytes) }),
	measure(prometheus.GaugeValue, "staleness_seconds", "How long ago the least recently confirmed store in use was known to be current.", func(_ dispatch.Stats, k keeper.Stats) float64 { return k.Staleness.Seconds() }),
	measure(prometheus.GaugeValue, "behind_changes", "How many changes the store that is furthest behind has to follow yet, as far as this node knows.", func(_ dispatch.Stats, k keeper.Stats) float64 { return float64(k.Behind) }),
	measure(prometheus.CounterValue, "catch_ups_total", "Reads of what is new in a store that reached its head.", func(_ dispatch.Stats, k keeper.Stats) float64 { return float64(k.CatchUps) }),
	measure(prometheus.CounterValue, "changes_followed_total", "Changes that catching up brought; a node's own are not among them.", func(_ dispatch.Stats, k keeper.Stats) float64 { return float64(k.Followed) }),
	measure(prometheus.GaugeValue, "changes", "Changes in the histories of the stores that this node follows: their revisions added up.", func(_ dispatch.Stats, k keeper.Stats) float64 { return float64(k.Changes) }),
}

// Describe implements [prometheus.Collector].
func (s *state) Describe(out chan<- *prometheus.Desc) {
	for _, g := range gauges {
		out <- g.desc
	}
	out <- poolConnections
	out <- poolWaits
}

// Collect implements [prometheus.Collector].
func (s *state) Collect(out chan<- prometheus.Metric) {
	c, k := s.cache.Stats(), s.keeper.Stats()
	for _, g := range gauges {
		out <- prometheus.MustNewConstMetric(g.desc, g.kind, g.value(c, k))
	}
	pools := []sql.Pool{{Name: "reads"}, {Name: "writes"}} // without a database they are empty
	if l, ok := s.log.(interface{ Pools() []sql.Pool }); ok {
		pools = l.Pools()
	}
	for _, p := range pools {
		for state, n := range map[string]int32{"in_use": p.InUse, "idle": p.Idle, "most": p.Most} {
			out <- prometheus.MustNewConstMetric(poolConnections, prometheus.GaugeValue, float64(n), p.Name, state)
		}
		out <- prometheus.MustNewConstMetric(poolWaits, prometheus.CounterValue, float64(p.Waits), p.Name)
	}
}
