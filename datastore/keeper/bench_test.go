package keeper_test

import (
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/tuple"
)

// relationships makes n relationships over 0.3 n objects with ids of 20 bytes.
func relationships(n int) []tuple.Relationship {
	rs := make([]tuple.Relationship, n)
	for i := range rs {
		rs[i].Object = tuple.Object{Type: "document", ID: fmt.Sprintf("document-%011d", i/5)}
		rs[i].Relation = "viewer"
		rs[i].Subject = tuple.Subject{Object: tuple.Object{Type: "user", ID: fmt.Sprintf("user-%015d", (i*7919)%(n/10+1))}}
	}
	return rs
}

func load(b *testing.B, k *keeper.Keeper, rs []tuple.Relationship) {
	b.Helper()
	for len(rs) > 0 {
		n := min(len(rs), 1000)
		var r datastore.Request
		for _, rel := range rs[:n] {
			r.Updates = append(r.Updates, datastore.Update{Kind: datastore.Touch, Relationship: rel})
		}
		write(b, k, r)
		rs = rs[n:]
	}
}

func BenchmarkSingleWrites(b *testing.B) {
	for _, callers := range []int{1, 16, 128} {
		b.Run(strconv.Itoa(callers)+" callers", func(b *testing.B) {
			k := openWithSchema(b, memory.New(), keeper.Options{})
			load(b, k, relationships(100_000))
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for range callers {
				wg.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						r := tuple.Relationship{Key: tuple.Key{Object: tuple.Object{Type: "document", ID: strconv.FormatInt(i, 10)},
							Relation: "viewer", Subject: tuple.Subject{Object: tuple.Object{Type: "user", ID: "ada"}}}}
						if _, err := k.Write(bg, datastore.Default, datastore.Request{Updates: []datastore.Update{{Kind: datastore.Touch, Relationship: r}}}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// BenchmarkLoad opens a store of a million relationships, and tells what one of
// them costs in live heap.
func BenchmarkLoad(b *testing.B) {
	const n = 1_000_000
	log := memory.New()
	k := openWithSchema(b, log, keeper.Options{})
	load(b, k, relationships(n))
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for b.Loop() {
		before := heap()
		start := time.Now()
		fresh := open(b, keptOpen{log}, keeper.Options{LoadPatience: time.Hour})
		s := at(b, fresh, datastore.FullyConsistent, "")
		b.ReportMetric(time.Since(start).Seconds(), "s/load")
		b.ReportMetric(float64(heap()-before)/n, "B/relationship")
		runtime.KeepAlive(s)
	}
}

func BenchmarkRead(b *testing.B) {
	k := openWithSchema(b, memory.New(), keeper.Options{})
	rs := relationships(100_000)
	load(b, k, rs)
	s := at(b, k, datastore.FullyConsistent, "")
	viewer, _ := s.Names().ID("viewer")
	object, _ := s.ID(rs[500].Object)
	subject, _ := s.ID(rs[500].Subject.Object)
	for name, q := range map[string]datastore.Query{
		"exact":    {Object: object, Relation: viewer, Subject: subject},
		"usersets": {Object: object, Relation: viewer, UsersetsOnly: true},
		"all":      {Object: object, Relation: viewer},
		"reverse":  {Subject: subject, Relation: viewer},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			qs := []datastore.Query{q}
			count := 0
			f := func(int, datastore.Edge) bool { count++; return true }
			for b.Loop() {
				if err := s.Read(bg, qs, f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("snapshot", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s, err := k.At(bg, datastore.Default, datastore.Consistency{})
			if err != nil {
				b.Fatal(err)
			}
			s.Close()
		}
	})
}

// BenchmarkCatchUp answers at the head on a node that did not write what it has to
// catch up with: one change of one relationship, or of 1,000.
func BenchmarkCatchUp(b *testing.B) {
	for _, n := range []int{0, 1, 1000} {
		b.Run(fmt.Sprint(n, " relationships behind"), func(b *testing.B) {
			log := memory.New()
			writer := openWithSchema(b, log, keeper.Options{})
			load(b, writer, relationships(20_000))
			reader := open(b, keptOpen{log}, keeper.Options{})
			at(b, reader, datastore.FullyConsistent, "")
			change := datastore.Request{}
			for _, r := range relationships(n) {
				r.Object.ID += "-new"
				change.Updates = append(change.Updates, datastore.Update{Kind: datastore.Touch, Relationship: r})
			}
			b.ReportAllocs()
			for b.Loop() {
				if n > 0 {
					b.StopTimer()
					write(b, writer, change)
					b.StartTimer()
				}
				s, err := reader.At(bg, datastore.Default, datastore.Consistency{Level: datastore.FullyConsistent})
				if err != nil {
					b.Fatal(err)
				}
				s.Close()
			}
		})
	}
}
