package graph_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/loadtest"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

var size = flag.Int("size", 100_000, "relationships in the worlds of benchmarks")

// loaded returns a snapshot in memory that holds relationships.
func loaded(b *testing.B, text string, relationships func(func(tuple.Relationship) bool)) datastore.Snapshot {
	b.Helper()
	k, err := keeper.Open(memory.New(), keeper.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { k.Close() })
	ctx := context.Background()
	write := func(r datastore.Request) {
		if _, err := k.Write(ctx, datastore.Default, r); err != nil {
			b.Fatal(err)
		}
	}
	write(datastore.Request{Schema: &datastore.SchemaUpdate{Text: text}})
	var r datastore.Request
	for rel := range relationships {
		if r.Updates = append(r.Updates, datastore.Update{Kind: datastore.Touch, Relationship: rel}); len(r.Updates) == 1000 {
			write(r)
			r.Updates = nil
		}
	}
	write(r)
	s, err := k.At(ctx, datastore.Default, datastore.Consistency{Level: datastore.FullyConsistent})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func questions(w *loadtest.World, n int) []graph.Question {
	r := rand.New(rand.NewPCG(1, 2))
	qs := make([]graph.Question, n)
	for i := range qs {
		q := w.Question(r)
		qs[i].Resource, qs[i].Permission, qs[i].Subject = q.Resource, q.Permission, q.Subject
	}
	return qs
}

// ask benchmarks checks, one after the other.
func ask(b *testing.B, s datastore.Snapshot, qs []graph.Question) {
	b.Helper()
	b.ReportAllocs()
	now, yes, i := time.Now(), 0, 0
	for b.Loop() {
		a, err := graph.Check(b.Context(), s, qs[i%len(qs)], now, graph.Limits{})
		if err != nil {
			b.Fatal(err)
		}
		if i++; a.Outcome == graph.Yes {
			yes++
		}
	}
	b.ReportMetric(float64(yes)/float64(b.N), "yes/op")
}

// BenchmarkWorld asks in the worlds of package loadtest: one question at a time,
// a hundred at a time, and for all permissions.
func BenchmarkWorld(b *testing.B) {
	for _, shape := range []loadtest.Shape{loadtest.Flat, loadtest.Deep} {
		b.Run(string(shape), func(b *testing.B) {
			w, err := loadtest.NewWorld(shape, *size, 1)
			if err != nil {
				b.Fatal(err)
			}
			s := loaded(b, w.Schema(), w.Relationships())
			qs := questions(w, 10_000)
			b.Run("check", func(b *testing.B) { ask(b, s, qs) })
			b.Run("bulk of 100", func(b *testing.B) {
				b.ReportAllocs()
				now, i := time.Now(), 0
				for b.Loop() {
					at := i % (len(qs) / 100) * 100
					i++
					_, errs := graph.CheckBulk(b.Context(), s, qs[at:at+100], now, graph.Limits{})
					if errs[0] != nil {
						b.Fatal(errs[0])
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(100*b.N), "ns/answer")
			})
			b.Run("permissions", func(b *testing.B) {
				b.ReportAllocs()
				now, i := time.Now(), 0
				for b.Loop() {
					q := &qs[i%len(qs)]
					i++
					if _, err := graph.Permissions(b.Context(), s, q.Resource, q.Subject, schema.Context{}, nil, now, graph.Limits{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkWide asks where one side is very large: a group of 100,000 people, a
// person in 10,000 groups, an object shared with 10,000 groups.
func BenchmarkWide(b *testing.B) {
	s := loaded(b, documentSchema(b), func(yield func(tuple.Relationship) bool) {
		put := func(format string, args ...any) bool {
			r, err := tuple.Parse(fmt.Sprintf(format, args...))
			if err != nil {
				b.Fatal(err)
			}
			return yield(r)
		}
		for i := range 100_000 {
			if !put("group:all#member@user:%d", i) {
				return
			}
		}
		for i := range 10_000 {
			if !put("group:%d#member@user:busy", i) || !put("document:shared#viewer@group:%d#member", i) || !put("document:to-%d#viewer@group:%d#member", i, i) {
				return
			}
		}
		put("document:all#viewer@group:all#member")
	})
	for _, c := range []struct{ name, question string }{
		{"member of a group of 100,000", "document:all#view@user:77777"},
		{"not in a group of 100,000", "document:all#view@user:busy"},
		{"in 10,000 groups, yes", "document:to-7777#view@user:busy"},
		{"in 10,000 groups, no", "document:all#view@user:busy"},
		{"shared with 10,000 groups, yes", "document:shared#view@user:busy"},
		{"shared with 10,000 groups, no", "document:shared#view@user:5"},
	} {
		b.Run(c.name, func(b *testing.B) { ask(b, s, []graph.Question{question(b, c.question)}) })
	}
}

// documentSchema is the schema of documents in folders.
func documentSchema(b *testing.B) string {
	b.Helper()
	w, err := loadtest.NewWorld(loadtest.Flat, 0, 1)
	if err != nil {
		b.Fatal(err)
	}
	return w.Schema()
}
