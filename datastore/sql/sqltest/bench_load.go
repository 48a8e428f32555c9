package sqltest

import (
	"flag"
	"fmt"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/sql"
	"github.com/pembadb/pemba/tuple"
)

var (
	loadSize    = flag.Int("load", 100_000, "how many relationships the benchmark of cold loads reads")
	catchUpSize = flag.Int("catch-up", 20_000, "how many changes the benchmark of catch-ups follows")
)

// peak samples the live and garbage bytes of the heap while f runs, and reports
// by how much they rose, with the seconds.
func peak(b *testing.B, prefix string, f func()) {
	b.Helper()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	heap := func() uint64 {
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	runtime.GC()
	before := heap()
	highest := before
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-time.After(2 * time.Millisecond):
				highest = max(highest, heap())
			case <-stop:
				return
			}
		}
	}()
	began := time.Now()
	f()
	took := time.Since(began)
	close(stop)
	<-stopped
	runtime.GC()
	b.ReportMetric(took.Seconds(), prefix+"-s")
	b.ReportMetric(float64(highest-before)/(1<<20), prefix+"-peak-MiB")
	b.ReportMetric((float64(heap())-float64(before))/(1<<20), prefix+"-kept-MiB")
}

// alone hides what other nodes tell, so that a node catches up only when asked.
type alone struct{ datastore.Log }

func (target Target) lonely(b *testing.B, uri string) *keeper.Keeper {
	b.Helper()
	log, err := target.Open(bg, uri, sql.Options{})
	if err != nil {
		b.Fatal(err)
	}
	k, err := keeper.Open(alone{log}, keeper.Options{MaxStaleness: time.Hour, SweepEvery: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	return k
}

// resident waits until a store is answered from memory at its head.
func resident(b *testing.B, k *keeper.Keeper) datastore.Head {
	b.Helper()
	for {
		s, err := k.At(bg, datastore.Default, datastore.Consistency{Level: datastore.FullyConsistent})
		if err != nil {
			b.Fatal(err)
		}
		head, width := s.Head(), s.Width()
		s.Close()
		if width == 1 {
			return head
		}
		time.Sleep(time.Millisecond)
	}
}

// loads measures a cold load.
func (target Target) loads(b *testing.B) {
	uri := target.Empty(b)
	k := target.benchNode(b, uri)
	applySchema(b, k)
	const each = 1000
	parallel(b, 4, *loadSize/each, func(_, n int) error {
		r := datastore.Request{Actor: "ada"}
		for i := range each {
			r.Updates = append(r.Updates, datastore.Update{Kind: datastore.Touch, Relationship: loadRelationship(n*each + i)})
		}
		_, err := k.Write(bg, datastore.Default, r)
		return err
	})
	k.Close()
	for range b.N {
		node := target.lonely(b, uri)
		peak(b, "load", func() {
			began := time.Now()
			s, err := node.At(bg, datastore.Default, datastore.Consistency{})
			if err != nil {
				b.Fatal(err)
			}
			s.Close()
			b.ReportMetric(time.Since(began).Seconds(), "first-answer-s")
			resident(b, node)
		})
		node.Close()
	}
}

func loadRelationship(i int) tuple.Relationship {
	return tuple.Relationship{Key: tuple.Key{
		Object: tuple.Object{Type: "document", ID: fmt.Sprintf("document-%011d", i*7919%(*loadSize+1))}, Relation: "viewer",
		Subject: tuple.Subject{Object: tuple.Object{Type: "user", ID: fmt.Sprintf("user-%015d", i%max(1, *loadSize/10))}}}}
}

// catchUps measures a catch-up of many changes, each of one relationship.
func (target Target) catchUps(b *testing.B) {
	for range b.N {
		uri := target.Empty(b)
		writer := target.benchNode(b, uri)
		applySchema(b, writer)
		node := target.lonely(b, uri)
		before := resident(b, node)
		parallel(b, 256, *catchUpSize, func(_, i int) error {
			_, err := writer.Write(bg, datastore.Default, datastore.Request{Actor: "ada",
				Updates: []datastore.Update{{Kind: datastore.Touch, Relationship: loadRelationship(i)}}})
			return err
		})
		writer.Close()
		peak(b, "catch-up", func() {
			if head := resident(b, node); int(head.Revision-before.Revision) != *catchUpSize {
				b.Errorf("it followed %d changes, want %d", head.Revision-before.Revision, *catchUpSize)
			}
		})
		node.Close()
	}
}
