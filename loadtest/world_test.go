package loadtest_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/loadtest"
	"github.com/pembadb/pemba/tuple"
)

// kept returns a keeper whose default store holds a world.
func kept(t *testing.T, w *loadtest.World) *keeper.Keeper {
	t.Helper()
	k, err := keeper.Open(memory.New(), keeper.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	write(t, k, datastore.Request{Schema: &datastore.SchemaUpdate{Text: w.Schema()}})
	for some := range slices.Chunk(slices.Collect(w.Relationships()), 1000) {
		var r datastore.Request
		for _, rel := range some {
			// Create: each is there once.
			r.Updates = append(r.Updates, datastore.Update{Kind: datastore.Create, Relationship: rel})
		}
		write(t, k, r)
	}
	return k
}

func write(t *testing.T, k *keeper.Keeper, r datastore.Request) {
	t.Helper()
	if _, err := k.Write(t.Context(), datastore.Default, r); err != nil {
		t.Fatal(err)
	}
}

func head(t *testing.T, k *keeper.Keeper) datastore.Snapshot {
	t.Helper()
	s, err := k.At(t.Context(), datastore.Default, datastore.Consistency{Level: datastore.FullyConsistent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// TestAWorldKnowsItsAnswers: what a world says about itself is what Pemba answers,
// before and after it was shared with strangers.
func TestAWorldKnowsItsAnswers(t *testing.T) {
	for _, shape := range loadtest.Shapes {
		t.Run(string(shape), func(t *testing.T) {
			w, err := loadtest.NewWorld(shape, 6000, 7)
			if err != nil {
				t.Fatal(err)
			}
			k := kept(t, w)
			r := rand.New(rand.NewPCG(1, 2))
			checks(t, w, head(t, k), r)
			for range 10 {
				p := w.Place(r, loadtest.Uniform)
				s := head(t, k)
				if got := has(t, s, loadtest.Question{Resource: p.Resource, Permission: p.Permission, Subject: loadtest.Stranger(1)}); got != p.Everybody {
					t.Fatalf("%v: a stranger has it: %v", p, got)
				}
				key := tuple.Key{Object: p.Resource, Relation: p.Relation, Subject: loadtest.Stranger(1)}
				write(t, k, datastore.Request{Updates: []datastore.Update{{Kind: datastore.Touch, Relationship: tuple.Relationship{Key: key}}}})
				if !has(t, head(t, k), loadtest.Question{Resource: p.Resource, Permission: p.Permission, Subject: loadtest.Stranger(1)}) {
					t.Fatalf("%v, shared with a stranger, is closed to him", p)
				}
			}
			checks(t, w, head(t, k), r)
		})
	}
}

func has(t *testing.T, s datastore.Snapshot, q loadtest.Question) bool {
	t.Helper()
	a, err := graph.Check(t.Context(), s, graph.Question{Resource: q.Resource, Permission: q.Permission, Subject: q.Subject}, time.Now(), graph.Limits{})
	if err != nil {
		t.Fatalf("%v: %v", q, err)
	}
	return a.Outcome == graph.Yes
}

func checks(t *testing.T, w *loadtest.World, s datastore.Snapshot, r *rand.Rand) {
	t.Helper()
	yes := 0
	zipf := loadtest.Zipf(1.1)
	for i := range 3000 {
		q := w.Question(r)
		if i%2 == 0 {
			q = w.QuestionAbout(r, zipf)
		}
		if got := has(t, s, q); got != q.Has {
			t.Fatalf("%s#%s@%s: Pemba says %v, the world %v", q.Resource, q.Permission, q.Subject, got, q.Has)
		}
		if q.Has {
			yes++
		}
	}
	if yes < 300 || yes > 2700 {
		t.Errorf("%d of 3000 answers are yes; questions should have both", yes)
	}
	for range 5 {
		l := w.Lookup(r)
		var got []string
		question := graph.ResourcesQuestion{Type: l.ResourceType, Permission: l.Permission, Subject: l.Subject}
		if _, err := graph.LookupResources(t.Context(), s, question, time.Now(), graph.Limits{}, graph.LookupOptions{Ordered: true}, func(f graph.Found) bool {
			got = append(got, f.ID)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, l.Resources) {
			t.Fatalf("lookup of %s: %d resources, the world says %d", l.Subject, len(got), len(l.Resources))
		}
	}
}

// TestAWorldIsTheSameForTheSameSeed: sizes are as asked, and everything can be
// made again.
func TestAWorldIsTheSameForTheSameSeed(t *testing.T) {
	for _, shape := range loadtest.Shapes {
		a, _ := loadtest.NewWorld(shape, 20_000, 3)
		b, _ := loadtest.NewWorld(shape, 20_000, 3)
		c, _ := loadtest.NewWorld(shape, 20_000, 4)
		rels := slices.Collect(a.Relationships())
		if n := len(rels); n < 20_000 || n > 23_000 {
			t.Errorf("%s: %d relationships", shape, n)
		}
		if !slices.Equal(rels, slices.Collect(b.Relationships())) {
			t.Errorf("%s is another world with the same seed", shape)
		}
		if slices.Equal(rels, slices.Collect(c.Relationships())) {
			t.Errorf("%s is the same world with another seed", shape)
		}
		q, again := a.Question(rand.New(rand.NewPCG(5, 6))), b.Question(rand.New(rand.NewPCG(5, 6)))
		if q != again {
			t.Errorf("%s: %v and %v", shape, q, again)
		}
	}
}
