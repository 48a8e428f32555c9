package graph_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/tuple"
)

const shared = `
use self
definition user {}
definition group { relation member: user | group#member }
definition folder { relation parent: folder  relation viewer: user | group#member  permission view = viewer + parent->view }
definition document {
  relation parent: folder
  relation viewer: user | user:* | group#member
  relation banned: user
  permission view = viewer + parent->view
  permission read = view - banned
}`

// bigWorld is a world in which one user sees nearly everything: a quarter of the
// documents directly, a quarter by a group, the others through folders.
func bigWorld(tb testing.TB, relationships int) (resident, direct datastore.Snapshot) {
	rels := []string{"group:all#member@user:ada", "folder:f0#viewer@group:all#member", "group:crowd#member@group:all#member"}
	for i := 1; len(rels) < relationships; i++ {
		doc := fmt.Sprintf("document:d%019d", i)
		switch i % 4 {
		case 0:
			rels = append(rels, doc+"#viewer@user:ada")
		case 1:
			rels = append(rels, doc+"#viewer@group:crowd#member")
		default:
			rels = append(rels, fmt.Sprintf("%s#parent@folder:f%d", doc, i/100))
			if i%100 == 2 {
				rels = append(rels, fmt.Sprintf("folder:f%d#parent@folder:f%d", i/100+1, i/1000))
			}
		}
		if i%1000 == 0 {
			rels = append(rels, doc+"#banned@user:ada")
		}
	}
	return newStore(tb, shared, rels)
}

func ada(permission string) graph.ResourcesQuestion {
	return graph.ResourcesQuestion{Type: "document", Permission: permission, Subject: tuple.Subject{Object: tuple.Object{Type: "user", ID: "ada"}}}
}

// BenchmarkLookupResources looks up a million resources; it reports when the
// first came, and how many came each second.
func BenchmarkLookupResources(b *testing.B) {
	resident, _ := bigWorld(b, 1_000_000)
	for _, permission := range []string{"view", "read"} {
		for name, o := range map[string]graph.LookupOptions{"streamed": {}, "counted": {CountOnly: true}, "page of 100": {Limit: 100}} {
			b.Run(permission+" "+name, func(b *testing.B) {
				b.ReportAllocs()
				var first time.Duration
				results := 0
				for b.Loop() {
					start, got := time.Now(), 0
					end, err := graph.LookupResources(b.Context(), resident, ada(permission), start, graph.Limits{}, o, func(graph.Found) bool {
						if got++; got == 1 {
							first += time.Since(start)
						}
						return true
					})
					if err != nil {
						b.Fatal(err)
					}
					results += end.Yes
				}
				b.ReportMetric(float64(first.Microseconds())/float64(b.N), "µs-to-first")
				b.ReportMetric(float64(results)/b.Elapsed().Seconds(), "results/s")
			})
		}
	}
}

func TestALookupStreamsAtOnceAndEndsWithItsReceiver(t *testing.T) {
	resident, _ := bigWorld(t, 50_000)
	whole := time.Now()
	end, err := graph.LookupResources(t.Context(), resident, ada("view"), whole, graph.Limits{}, graph.LookupOptions{}, func(graph.Found) bool { return true })
	all := time.Since(whole)
	if err != nil || end.Yes < 40_000 {
		t.Fatalf("%+v, %v", end, err)
	}
	start, first := time.Now(), time.Duration(0)
	end, err = graph.LookupResources(t.Context(), resident, ada("view"), start, graph.Limits{}, graph.LookupOptions{}, func(graph.Found) bool {
		first = time.Since(start)
		return false
	})
	if took := time.Since(start); err != nil || end.Complete || first > all/2 || took > all/2 {
		t.Errorf("the first of %v came after %v, and the end %v after nobody wanted more: %+v, %v", all, first, took, end, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	got := 0
	_, err = graph.LookupResources(ctx, resident, ada("view"), time.Now(), graph.Limits{}, graph.LookupOptions{}, func(graph.Found) bool {
		if got++; got == 10 {
			cancel()
		}
		return true
	})
	if !errors.Is(err, context.Canceled) || got > 2000 {
		t.Errorf("cancelled after 10 results: %d came, %v", got, err)
	}
}

// A lookup in which every resource must be asked about still holds little memory.
func TestALookupEndsInBoundedMemory(t *testing.T) {
	resident, _ := bigWorld(t, 100_000)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, most, got := heap(), uint64(0), 0
	_, err := graph.LookupResources(t.Context(), resident, ada("read"), time.Now(), graph.Limits{}, graph.LookupOptions{}, func(graph.Found) bool {
		if got++; got%20_000 == 0 {
			most = max(most, heap())
		}
		return true
	})
	if err != nil || got < 80_000 {
		t.Fatalf("%d results, %v", got, err)
	}
	if most > before+64<<20 {
		t.Errorf("the lookup holds %d MiB", (most-before)>>20)
	}
	t.Logf("%d results, %d KiB held", got, (int64(most)-int64(before))>>10)
}

// BenchmarkLookupSubjects looks up the members of a group of 200,000, once all of
// them and once without those who are banned.
func BenchmarkLookupSubjects(b *testing.B) {
	rels := []string{"document:d#viewer@group:crowd#member", "document:d#banned@user:u7"}
	for i := range 200_000 {
		rels = append(rels, fmt.Sprintf("group:crowd#member@user:u%d", i))
	}
	resident, _ := newStore(b, shared, rels)
	for _, permission := range []string{"view", "read"} {
		b.Run(permission, func(b *testing.B) {
			results := 0
			for b.Loop() {
				q := graph.SubjectsQuestion{Resource: tuple.Object{Type: "document", ID: "d"}, Permission: permission, Type: "user"}
				end, err := graph.LookupSubjects(b.Context(), resident, q, time.Now(), graph.Limits{}, graph.LookupOptions{}, func(graph.Found) bool { return true })
				if err != nil {
					b.Fatal(err)
				}
				results += end.Yes
			}
			b.ReportMetric(float64(results)/b.Elapsed().Seconds(), "results/s")
		})
	}
}
