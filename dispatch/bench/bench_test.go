// Package bench measures stores that are not in memory, on real databases.
package bench_test

import (
	"context"
	"flag"
	"fmt"
	"iter"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/sql"
	"github.com/pembadb/pemba/datastore/sql/cockroach"
	"github.com/pembadb/pemba/datastore/sql/postgres"
	"github.com/pembadb/pemba/datastore/sql/sqltest"
	"github.com/pembadb/pemba/dispatch"
	"github.com/pembadb/pemba/dispatch/peers"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/tuple"
)

var bg = context.Background()

func TestMain(m *testing.M) { sqltest.Main(m) }

var size = flag.Int("size", 20_000, "how many relationships the benchmarks' store has")

const schemaText = `definition user {}
definition group { relation member: user | group#member }
definition folder { relation parent: folder  relation viewer: user | group#member  permission view = viewer + parent->view }
definition document { relation parent: folder  relation owner: user  relation viewer: user | group#member  permission view = owner + viewer + parent->view }
`

func touch(t testing.TB, k *keeper.Keeper, texts ...string) {
	t.Helper()
	var r datastore.Request
	for _, text := range texts {
		rel, err := tuple.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		r.Updates = append(r.Updates, datastore.Update{Kind: datastore.Touch, Relationship: rel})
	}
	if _, err := k.Write(bg, datastore.Default, r); err != nil {
		t.Error(err)
	}
}

// fill writes a store's schema and relationships.
func fill(t testing.TB, log datastore.Log, relationships iter.Seq[string]) {
	t.Helper()
	k, err := keeper.Open(log, keeper.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if _, err := k.Write(bg, datastore.Default, datastore.Request{Schema: &datastore.SchemaUpdate{Text: schemaText}}); err != nil {
		t.Fatal(err)
	}
	var all []string
	for r := range relationships {
		if all = append(all, r); len(all) == 1000 {
			touch(t, k, all...)
			all = all[:0]
		}
	}
	if len(all) > 0 {
		touch(t, k, all...)
	}
}

// bench is a store of folders in folders and groups in groups, on a database.
type bench struct {
	log                        func() datastore.Log
	documents, users, elements int
}

func (b *bench) relationships(yield func(string) bool) {
	for i := range b.documents {
		for _, r := range []string{
			fmt.Sprintf("document:%d#parent@folder:%d", i, i%b.elements), fmt.Sprintf("document:%d#viewer@group:%d#member", i, i*7%b.elements),
			fmt.Sprintf("document:%d#owner@user:%d", i, i%b.users),
		} {
			if !yield(r) {
				return
			}
		}
	}
	for i := range b.elements {
		for _, r := range []string{
			fmt.Sprintf("folder:%d#parent@folder:%d", i, i/4), fmt.Sprintf("folder:%d#viewer@group:%d#member", i, i*13%b.elements),
			fmt.Sprintf("group:%d#member@group:%d#member", i, min(b.elements-1, 2*i+1)), fmt.Sprintf("group:%d#member@user:%d", i, i*31%b.users),
		} {
			if !yield(r) {
				return
			}
		}
	}
}

func (b *bench) question(r *rand.Rand, zipf *rand.Zipf) graph.Question {
	return graph.Question{
		Resource: tuple.Object{Type: "document", ID: fmt.Sprint(zipf.Uint64())}, Permission: "view",
		Subject: tuple.Subject{Object: tuple.Object{Type: "user", ID: fmt.Sprint(r.IntN(b.users))}},
	}
}

// measure lets callers ask for a while on nodes, and reports what it saw.
func (b *bench) measure(t *testing.B, nodes []*keeper.Keeper, writes float64) {
	const callers = 16
	var asked atomic.Int64
	var mu sync.Mutex
	var times []time.Duration
	var wg sync.WaitGroup
	began := time.Now()
	for c := range callers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(c), 5))
			zipf := rand.NewZipf(r, 1.1, 10, uint64(b.documents-1))
			var own []time.Duration
			for asked.Add(1) <= int64(t.N) {
				k := nodes[r.IntN(len(nodes))]
				if r.Float64() < writes {
					touch(t, k, fmt.Sprintf("document:%d#viewer@user:%d", r.IntN(b.documents), r.IntN(b.users)))
					continue
				}
				start := time.Now()
				s, err := k.At(context.Background(), datastore.Default, datastore.Consistency{})
				if err == nil {
					_, err = graph.Check(context.Background(), s, b.question(r, zipf), time.Now(), graph.Limits{})
				}
				if err != nil {
					t.Error(err)
					return
				}
				own = append(own, time.Since(start))
			}
			mu.Lock()
			times = append(times, own...)
			mu.Unlock()
		})
	}
	wg.Wait()
	took := time.Since(began)
	if len(times) == 0 {
		return
	}
	slices.Sort(times)
	t.ReportMetric(float64(len(times))/took.Seconds(), "checks/s")
	t.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
	t.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
}

// meet makes nodes peers of one another, each with a port of its own; their caches
// must not have been used.
func meet(t *testing.B, caches []*dispatch.Cache, node func(i int) *keeper.Keeper) {
	t.Helper()
	var c peers.Config
	var listeners []net.Listener
	for range caches {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners, c.Peers = append(listeners, l), append(c.Peers, l.Addr().String())
	}
	var rings []*peers.Ring
	for i, cache := range caches {
		ring, err := peers.New(c)
		if err != nil {
			t.Fatal(err)
		}
		cache.Join(ring)
		s := peers.NewServer(ring, cache, func(ctx context.Context, store datastore.StoreID) error {
			s, err := node(i).At(ctx, store, datastore.Consistency{})
			if err == nil {
				s.Close()
			}
			return err
		})
		go s.GRPC().Serve(listeners[i])
		t.Cleanup(func() { ring.Close(); s.GRPC().Stop() })
		rings = append(rings, ring)
	}
	for began := time.Now(); slices.ContainsFunc(rings, func(r *peers.Ring) bool { return r.Members() < len(rings) }); time.Sleep(time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatal("the nodes do not find one another")
		}
	}
}

func (b *bench) run(t *testing.B) {
	for _, cluster := range []struct {
		nodes int
		peers bool
	}{{1, false}, {3, false}, {3, true}} {
		n := cluster.nodes
		open := func(cache func() *dispatch.Cache, resident int) (nodes []*keeper.Keeper, caches []*dispatch.Cache) {
			for range n {
				if c := cache(); c != nil {
					caches = append(caches, c)
				}
			}
			if cluster.peers && len(caches) == n {
				meet(t, caches, func(i int) *keeper.Keeper { return nodes[i] })
			}
			for i := range n {
				o := keeper.Options{ResidentMaxRelationships: resident, ResidentIdle: time.Hour, LoadPatience: time.Hour}
				if len(caches) == n {
					o.Cache = caches[i]
				}
				k, err := keeper.Open(b.log(), o)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := k.At(bg, datastore.Default, datastore.Consistency{}); err != nil {
					t.Fatal(err)
				}
				nodes = append(nodes, k)
			}
			return nodes, caches
		}
		remember := func() *dispatch.Cache { return dispatch.New(dispatch.Options{}) }
		nothing := func() *dispatch.Cache { return dispatch.New(dispatch.Options{Bytes: -1}) }
		for _, c := range []struct {
			name     string
			cache    func() *dispatch.Cache
			resident int
			warm     bool
			writes   float64
		}{
			{"resident", func() *dispatch.Cache { return nil }, 0, true, 0},
			{"unremembered", nothing, *size / 10, false, 0},
			{"cold", remember, *size / 10, false, 0},
			{"warm", remember, *size / 10, true, 0},
			{"warm-1%-writes", remember, *size / 10, true, 0.01},
		} {
			if cluster.peers && (c.name == "resident" || c.name == "unremembered") {
				continue // no peer is asked
			}
			t.Run(fmt.Sprintf("nodes=%d/peers=%t/%s", n, cluster.peers, c.name), func(t *testing.B) {
				nodes, caches := open(c.cache, c.resident)
				if c.warm {
					for _, k := range nodes {
						b.warm(t, k)
					}
				}
				var before dispatch.Stats
				for _, c := range caches {
					s := c.Stats()
					before.Hits, before.Misses, before.Reads = before.Hits+s.Hits, before.Misses+s.Misses, before.Reads+s.Reads
				}
				t.ResetTimer()
				b.measure(t, nodes, c.writes)
				var hits, misses, reads int64
				for _, c := range caches {
					s := c.Stats()
					hits, misses, reads = hits+s.Hits, misses+s.Misses, reads+s.Reads
				}
				if hits+misses > before.Hits+before.Misses {
					t.ReportMetric(float64(hits-before.Hits)/float64(hits+misses-before.Hits-before.Misses), "hit-ratio")
					t.ReportMetric(float64(reads-before.Reads)/float64(t.N), "reads/op")
				}
				for _, k := range nodes {
					k.Close()
				}
			})
		}
	}
}

func (b *bench) warm(t *testing.B, k *keeper.Keeper) {
	t.Helper()
	r := rand.New(rand.NewPCG(99, 5))
	zipf := rand.NewZipf(r, 1.1, 10, uint64(b.documents-1))
	s, err := k.At(bg, datastore.Default, datastore.Consistency{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3000 {
		if _, err := graph.Check(bg, s, b.question(r, zipf), time.Now(), graph.Limits{}); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkDirect asks a store of ten times the size that may be in memory, and
// one that is in memory, in one run.
func BenchmarkDirect(b *testing.B) {
	for name, c := range map[string]struct {
		uri     func(testing.TB) string
		dialect *sql.Dialect
		open    func(context.Context, string, sql.Options) (*sql.Log, error)
	}{"postgres": {sqltest.Postgres, postgres.Dialect, postgres.Open}, "cockroachdb": {sqltest.Cockroach, cockroach.Dialect, cockroach.Open}} {
		b.Run(name, func(b *testing.B) {
			uri := c.uri(b)
			if err := sql.Migrate(bg, c.dialect, uri, sql.Options{}, 0, func(sql.Step) {}); err != nil {
				b.Fatal(err)
			}
			open := func() datastore.Log {
				log, err := c.open(bg, uri, sql.Options{})
				if err != nil {
					b.Fatal(err)
				}
				return log
			}
			x := &bench{log: open, documents: *size / 4, users: *size / 20, elements: *size / 16}
			fill(b, open(), x.relationships)
			x.run(b)
		})
	}
}

// BenchmarkChecksBesideALookup compares the latency of steady checks alone with
// that beside lookups of 100,000 results, one after the other, in one run.
func BenchmarkChecksBesideALookup(b *testing.B) {
	uri := sqltest.Postgres(b)
	if err := sql.Migrate(bg, postgres.Dialect, uri, sql.Options{}, 0, func(sql.Step) {}); err != nil {
		b.Fatal(err)
	}
	open := func() datastore.Log {
		log, err := postgres.Open(bg, uri, sql.Options{})
		if err != nil {
			b.Fatal(err)
		}
		return log
	}
	x := &bench{log: open, documents: *size / 4, users: *size / 20, elements: *size / 16}
	fill(b, open(), func(yield func(string) bool) {
		x.relationships(yield)
		for i := range 100_000 {
			if !yield(fmt.Sprintf("document:wide-%d#owner@user:wide", i)) {
				return
			}
		}
	})
	cache := dispatch.New(dispatch.Options{})
	k, err := keeper.Open(open(), keeper.Options{ResidentMaxRelationships: 100, ResidentIdle: time.Hour, Cache: cache})
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	x.warm(b, k)
	steady := func(ended func() bool) (times []time.Duration) {
		r := rand.New(rand.NewPCG(1, 5))
		zipf := rand.NewZipf(r, 1.1, 10, uint64(x.documents-1))
		for range time.Tick(2 * time.Millisecond) {
			if ended() {
				break
			}
			start := time.Now()
			s, err := k.At(dispatch.WithRequest(bg), datastore.Default, datastore.Consistency{})
			if err == nil {
				_, err = graph.Check(dispatch.WithRequest(bg), s, x.question(r, zipf), time.Now(), graph.Limits{})
			}
			if err != nil {
				b.Error(err)
				break
			}
			times = append(times, time.Since(start))
		}
		slices.Sort(times)
		return times
	}
	for b.Loop() {
		began := time.Now()
		alone := steady(func() bool { return time.Since(began) > 3*time.Second })
		var lookups atomic.Int64
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for range 30 {
				found := 0
				s, err := k.At(bg, datastore.Default, datastore.Consistency{})
				if err == nil {
					q := graph.ResourcesQuestion{Type: "document", Permission: "view", Subject: tuple.Subject{Object: tuple.Object{Type: "user", ID: "wide"}}}
					_, err = graph.LookupResources(dispatch.WithRequest(bg), s, q, time.Now(), graph.Limits{}, graph.LookupOptions{}, func(graph.Found) bool { found++; return true })
				}
				if err != nil || found < 100_000 {
					b.Errorf("%d results, %v", found, err)
				}
				lookups.Add(1)
			}
		}()
		beside := steady(func() bool {
			select {
			case <-ended:
				return true
			default:
				return false
			}
		})
		p99 := func(t []time.Duration) float64 { return float64(t[len(t)*99/100].Microseconds()) }
		b.ReportMetric(p99(alone), "alone-p99-µs")
		b.ReportMetric(p99(beside), "beside-p99-µs")
		b.ReportMetric(p99(beside)/p99(alone), "ratio")
		b.ReportMetric(float64(len(beside)), "checks-beside")
	}
}
