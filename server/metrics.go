package server

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/dispatch"
	"github.com/pembadb/pemba/graph"
)

// metrics are what a server counts; nil counts nothing.
type metrics struct {
	calls   map[string]*callMetrics // by method; made once, read without a lock
	answers [3]prometheus.Counter   // by graph.Outcome
	reads   [4][2]prometheus.Counter
	http    *prometheus.CounterVec // by part and status
	took    *prometheus.HistogramVec
}

type callMetrics struct {
	ok      prometheus.Counter
	failed  *prometheus.CounterVec // by code
	seconds prometheus.Observer
}

// levels names the consistencies, and paths how a snapshot is read.
var (
	levels = [4]string{"minimize_latency", "at_least_as_fresh", "at_exact_snapshot", "fully_consistent"}
	paths  = [2]string{"memory", "direct"}
)

// newMetrics registers what a server counts.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	calls := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pemba_calls_total", Help: "Calls that ended, by method and gRPC code.",
	}, []string{"method", "code"})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "pemba_call_seconds", Help: "How long calls took of those who may make them, from their headers to their answer; streams to their end.",
		Buckets: []float64{50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1, 2.5, 5, 10, 60},
	}, []string{"method"})
	answers := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pemba_answers_total", Help: "Answers of checks, single and in bulk, by what they said.",
	}, []string{"answer"})
	reads := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pemba_snapshots_total", Help: "Snapshots that were asked for, by consistency and by whether the store is in memory or read directly.",
	}, []string{"consistency", "path"})
	http := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pemba_http_requests_total", Help: "Requests over HTTP that ended, by what they were for (api, scim, other) and status.",
	}, []string{"part", "status"})
	took := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "pemba_http_seconds", Help: "How long requests over HTTP took, by what they were for; streams to their end.",
		Buckets: []float64{1e-3, 5e-3, 25e-3, 100e-3, 500e-3, 1, 2.5, 5, 10, 60},
	}, []string{"part"})
	for _, c := range []prometheus.Collector{calls, seconds, answers, reads, http, took} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	m := &metrics{calls: map[string]*callMetrics{}, http: http, took: took}
	for method := range methods {
		if method == scimMethod { // those are requests, not calls
			continue
		}
		name := strings.TrimPrefix(method, "/")
		m.calls[method] = &callMetrics{
			ok: calls.WithLabelValues(name, codes.OK.String()), failed: calls.MustCurryWith(prometheus.Labels{"method": name}), seconds: seconds.WithLabelValues(name),
		}
	}
	for _, part := range []string{"api", "scim", "other"} {
		http.WithLabelValues(part, "200")
		took.WithLabelValues(part)
	}
	for i, name := range []string{"no", "yes", "conditional"} {
		m.answers[i] = answers.WithLabelValues(name)
	}
	for i := range levels {
		for j := range paths {
			m.reads[i][j] = reads.WithLabelValues(levels[i], paths[j])
		}
	}
	return m, nil
}

// called counts a call that ended.
func (m *metrics) called(method string, began time.Time, err error) {
	if m == nil {
		return
	}
	if c := m.calls[method]; c != nil {
		if err == nil {
			c.ok.Inc()
		} else {
			code := status.Code(err)
			c.failed.WithLabelValues(code.String()).Inc()
			if code == codes.Unauthenticated || code == codes.PermissionDenied {
				return // strangers must not make calls look fast
			}
		}
		c.seconds.Observe(time.Since(began).Seconds())
	}
}

// requested counts a request over HTTP that ended.
func (m *metrics) requested(part string, code int, began time.Time) {
	if m == nil {
		return
	}
	m.http.WithLabelValues(part, strconv.Itoa(code)).Inc()
	m.took.WithLabelValues(part).Observe(time.Since(began).Seconds())
}

// answered counts answers; errs, where there are any, stand beside them.
func (m *metrics) answered(answers []graph.Answer, errs []error) {
	if m == nil {
		return
	}
	var n [3]int
	for i := range answers {
		if i >= len(errs) || errs[i] == nil {
			n[answers[i].Outcome]++
		}
	}
	for outcome, c := range m.answers {
		if n[outcome] > 0 {
			c.Add(float64(n[outcome]))
		}
	}
}

// read counts a snapshot.
func (m *metrics) read(level datastore.Level, s datastore.Snapshot) {
	if m == nil || int(level) >= len(m.reads) {
		return
	}
	path := 0
	if s.Width() > 1 {
		path = 1
	}
	m.reads[level][path].Inc()
}

// debugKey is the metadata with which a caller asks where what its answer rests
// on came from. The trailer of the same name tells in sum, and that of debugReadKey
// of each query.
const (
	debugKey     = "pemba-debug"
	debugReadKey = "pemba-debug-read"
	// debugBytes bounds what trailers tell: clients bound the size of headers.
	debugBytes = 6 << 10
)

// debug tells a caller who asked where what a call read came from.
func (c *call) debug(ctx context.Context) {
	if !c.traced {
		return
	}
	text := "memory"
	if s := c.account.Sources(); s != (dispatch.Sources{}) {
		text = fmt.Sprintf("remembered=%d shared=%d peers=%d database=%d trips=%d", s.Remembered, s.Shared, s.Peers, s.Database, s.Trips)
	}
	md := metadata.Pairs(debugKey, text)
	var queries []dispatch.Traced
	more := 0
	if c.caller.may(c.caller.store, mayRead) { // they name relationships
		queries, more = c.account.Traced()
	}
	size := 0
	for i, q := range queries {
		line := strings.Trim(strconv.QuoteToASCII(q.String()), `"`)
		if size += len(line) + len(debugReadKey) + 32; size > debugBytes {
			more += len(queries) - i
			break
		}
		md.Append(debugReadKey, line)
	}
	if more > 0 {
		md.Append(debugReadKey, fmt.Sprintf("and %d more", more))
	}
	grpc.SetTrailer(ctx, md)
}

func wantsDebug(ctx context.Context) bool {
	return len(metadata.ValueFromIncomingContext(ctx, debugKey)) > 0
}
