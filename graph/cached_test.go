package graph_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/dispatch"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/tuple"
)

// keptOpen is a Log that several Keepers use and none closes.
type keptOpen struct{ *memory.Log }

func (keptOpen) Close() error { return nil }

// With a cache that the history keeps true every answer, at every revision, is
// what it is without.
func TestRandomWorldsAgreeWhateverIsRemembered(t *testing.T) {
	worlds, changes := 60, 6
	if *soak {
		worlds = 3000
	}
	var asked int
	var hits int64
	for seed := range worlds {
		r := rand.New(rand.NewPCG(uint64(seed), 11))
		w := newWorld(r)
		log := keptOpen{memory.New()}
		// Now and then there is room for next to nothing.
		cache := dispatch.New(dispatch.Options{Bytes: []int64{1 << 16, 1 << 24}[seed%2]})
		far, err := keeper.Open(log, keeper.Options{ResidentMaxRelationships: 1, MaxStaleness: time.Minute, Cache: cache})
		if err != nil {
			t.Fatal(err)
		}
		plain, err := keeper.Open(log, keeper.Options{Direct: true, DirectWidth: 1 + r.IntN(100)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := far.Write(t.Context(), datastore.Default, datastore.Request{Schema: &datastore.SchemaUpdate{Text: w.schema}}); err != nil {
			t.Fatalf("%v\n%s", err, w.schema)
		}
		change := func(kind func() datastore.Kind, texts ...string) datastore.Snapshot {
			t.Helper()
			var request datastore.Request
			for _, text := range texts {
				rel, err := tuple.Parse(text)
				if err != nil {
					t.Fatal(err)
				}
				request.Updates = append(request.Updates, datastore.Update{Kind: kind(), Relationship: rel})
			}
			if _, err := far.Write(t.Context(), datastore.Default, request); err != nil {
				t.Fatal(err)
			}
			s, err := far.At(t.Context(), datastore.Default, datastore.Consistency{})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		touch := func() datastore.Kind { return datastore.Touch }
		either := func() datastore.Kind { return []datastore.Kind{datastore.Touch, datastore.Delete}[r.IntN(2)] }
		var held []datastore.Snapshot
		if len(w.relationships) > 0 {
			held = append(held, change(touch, w.relationships...))
		}
		for n := range changes {
			if n > 0 && len(w.relationships) > 0 {
				held = append(held, change(either, w.relationships[r.IntN(len(w.relationships))]))
			}
			for _, s := range []datastore.Snapshot{held[len(held)-1], held[r.IntN(len(held))]} {
				same, err := plain.At(t.Context(), datastore.Default, datastore.Consistency{Level: datastore.AtExactSnapshot, Zookie: s.Zookie()})
				if err != nil {
					t.Fatal(err)
				}
				var qs []graph.Question
				var wants []string
				for _, subject := range w.subjects {
					for _, resource := range w.resources {
						q := graph.Question{Resource: resource.object, Permission: resource.relation, Subject: subject, Context: w.context}
						want := show(graph.Check(t.Context(), same, q, w.now, graph.Limits{}))
						if got := show(graph.Check(t.Context(), s, q, w.now, graph.Limits{})); got != want {
							t.Fatalf("seed %d: %s at revision %d: %s, without the cache %s\n%s", seed, q, s.Head().Revision, got, want, w)
						}
						asked++
						qs, wants = append(qs, q), append(wants, want)
					}
				}
				answers, errs := graph.CheckBulk(t.Context(), s, qs, w.now, graph.Limits{})
				for i := range qs {
					if got := show(answers[i], errs[i]); got != wants[i] {
						t.Fatalf("seed %d: %s at revision %d: %s in bulk, alone without the cache %s\n%s", seed, qs[i], s.Head().Revision, got, wants[i], w)
					}
				}
			}
		}
		hits += cache.Stats().Hits
		for _, k := range []*keeper.Keeper{far, plain} {
			if err := k.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d questions, %d reads remembered", asked, hits)
	if hits == 0 {
		t.Error("nothing was remembered: this shows nothing")
	}
}
