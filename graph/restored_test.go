package graph_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/file"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/datastore/sql"
	"github.com/pembadb/pemba/datastore/sql/cockroach"
	"github.com/pembadb/pemba/datastore/sql/postgres"
	"github.com/pembadb/pemba/datastore/sql/sqltest"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/tuple"
)

// place is a datastore on which worlds are backed up and restored.
type place struct {
	name   string
	keeper *keeper.Keeper
}

// places are all the datastores there are here; one that is missing is skipped, and
// the test says which.
func places(t *testing.T) (list []place) {
	t.Helper()
	add := func(name string, log datastore.Log, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		k, err := keeper.Open(log, keeper.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { k.Close() })
		list = append(list, place{name, k})
	}
	add("memory", memory.New(), nil)
	log, err := file.Open(filepath.Join(t.TempDir(), "pemba.db"), file.Options{})
	add("file", log, err)
	for _, d := range []struct {
		dialect *sql.Dialect
		empty   func(testing.TB) string
	}{{postgres.Dialect, sqltest.Postgres}, {cockroach.Dialect, sqltest.Cockroach}} {
		here := false
		t.Run("there is "+d.dialect.Name, func(t *testing.T) {
			d.empty(t)
			here = true
		})
		if !here {
			continue
		}
		uri := d.empty(t)
		if err := sql.Migrate(t.Context(), d.dialect, uri, sql.Options{}, 0, func(sql.Step) {}); err != nil {
			t.Fatal(err)
		}
		log, err := sql.Open(t.Context(), d.dialect, uri, sql.Options{})
		add(d.dialect.Name, log, err)
	}
	return list
}

// store makes a store with a world, written in several changes.
func (p place) store(t *testing.T, name string, w *world) datastore.Store {
	t.Helper()
	write := func(store datastore.StoreID, r datastore.Request) datastore.Outcome {
		t.Helper()
		r.Actor = "ada"
		o, err := p.keeper.Write(t.Context(), store, r)
		if err != nil {
			t.Fatalf("on %s: %v", p.name, err)
		}
		return o
	}
	st := *write(datastore.System, datastore.Request{CreateStore: &datastore.Store{Name: name}}).Store
	write(st.ID, datastore.Request{Schema: &datastore.SchemaUpdate{Text: w.schema}})
	for i, text := range w.relationships {
		r, err := tuple.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		// Some come twice, or go and come back, so that the history is more than they.
		if i%3 == 0 {
			write(st.ID, datastore.Request{Updates: []datastore.Update{{Kind: datastore.Touch, Relationship: r}}})
		}
		if i%6 == 0 {
			write(st.ID, datastore.Request{Updates: []datastore.Update{{Kind: datastore.Delete, Relationship: r}}})
		}
		write(st.ID, datastore.Request{Updates: []datastore.Update{{Kind: datastore.Touch, Relationship: r}}})
	}
	return st
}

// answers are all that can be asked of a world.
func (p place) answers(t *testing.T, store datastore.StoreID, w *world, each func(q graph.Question, at atom, answer string)) {
	t.Helper()
	s, err := p.keeper.At(t.Context(), store, datastore.Consistency{Level: datastore.FullyConsistent})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, subject := range w.subjects {
		for _, resource := range w.resources {
			q := graph.Question{Resource: resource.object, Permission: resource.relation, Subject: subject, Context: w.context}
			a, err := graph.Check(t.Context(), s, q, w.now, graph.Limits{})
			answer := show(a, err)
			if err != nil {
				answer = "error"
			}
			each(q, resource, answer)
		}
	}
}

// A backup of a random world on any datastore, restored on any, has the same
// history hash and gives the answers that the reference says; who follows the
// history goes on behind its end.
func TestARestoredWorldGivesTheSameAnswersOnEveryDatastore(t *testing.T) {
	all := places(t)
	worlds := 2
	if *soak {
		worlds = 40
	}
	asked := 0
	for seed := range worlds {
		for i, from := range all {
			w := newWorld(rand.New(rand.NewPCG(uint64(seed*len(all)+i), 23)))
			name := fmt.Sprintf("world-%d-%d", seed, i)
			st := from.store(t, name, w)
			var image bytes.Buffer
			b, _, err := from.keeper.Backup(t.Context(), st, nil, &image)
			if err != nil {
				t.Fatalf("back up on %s: %v", from.name, err)
			}
			for _, to := range all {
				restored, err := to.keeper.Restore(t.Context(), bytes.NewReader(image.Bytes()), datastore.RestoreOptions{Name: name + "-from-" + from.name, Actor: "eve"})
				if err != nil {
					t.Fatalf("of %s, restore on %s: %v", from.name, to.name, err)
				}
				if head, err := to.keeper.Head(t.Context(), restored.Store.ID); err != nil || head.Hash != b.Head.Hash || head.Revision != b.Head.Revision {
					t.Fatalf("of %s on %s the head is %+v, %v; it was %+v", from.name, to.name, head, err, b.Head)
				}
				asked += compareWithReference(t, w, from, to, restored.Store.ID)
				goesOn(t, to, restored.Store.ID, b.Head.Revision)
			}
		}
	}
	t.Logf("%d questions over %d datastores", asked, len(all))
}

func compareWithReference(t *testing.T, w *world, from, to place, store datastore.StoreID) (asked int) {
	t.Helper()
	s, err := to.keeper.At(t.Context(), store, datastore.Consistency{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ref, want := newReference(t, s, w), map[tuple.Subject]map[atom]string{}
	for _, subject := range w.subjects {
		want[subject] = ref.solve(subject)
	}
	to.answers(t, store, w, func(q graph.Question, at atom, answer string) {
		if asked++; answer != want[q.Subject][at] {
			t.Fatalf("of %s, restored on %s: %s: %s, the reference says %s\n%s", from.name, to.name, q, answer, want[q.Subject][at], w)
		}
	})
	return asked
}

// goesOn writes to a store, and sees the change behind a revision.
func goesOn(t *testing.T, p place, store datastore.StoreID, last datastore.Revision) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	heard := make(chan datastore.Head, 1)
	go func() {
		if head, err := p.keeper.Wait(ctx, store, last); err == nil {
			heard <- head
		}
		close(heard)
	}()
	if _, err := p.keeper.Write(ctx, store, datastore.Request{Actor: "eve", Updates: []datastore.Update{
		{Kind: datastore.Touch, Relationship: tuple.Relationship{Key: tuple.Key{Object: tuple.Object{Type: "t0", ID: "new"}, Relation: "up", Subject: tuple.Subject{Object: tuple.Object{Type: "t0", ID: "1"}}}}}}}); err != nil {
		t.Fatalf("on %s: %v", p.name, err)
	}
	if head := <-heard; head.Revision != last+1 {
		t.Errorf("on %s a watch hears of %+v", p.name, head)
	}
	for c, err := range p.keeper.History(ctx, store, last+1) {
		if err != nil || c.Actor != "eve" || c.Revision != last+1 {
			t.Errorf("on %s the history goes on with %+v, %v", p.name, c, err)
		}
	}
}
