package keeper_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/tuple"
)

// counting counts the calls of a Log that cost a round trip on others.
type counting struct {
	*memory.Log
	reads, rows, afters, heads atomic.Int64
}

func (l *counting) Read(ctx context.Context, store datastore.StoreID, at datastore.Revision, qs []datastore.RowQuery, f func(q int, r datastore.Row) bool) error {
	l.reads.Add(1)
	return l.Log.Read(ctx, store, at, qs, f)
}

func (l *counting) Rows(ctx context.Context, store datastore.StoreID, at datastore.Revision, q datastore.RowQuery, f func(datastore.Row) bool) error {
	l.rows.Add(1)
	return l.Log.Rows(ctx, store, at, q, f)
}

func (l *counting) After(ctx context.Context, store datastore.StoreID, from datastore.Revision, limit int) (datastore.Head, []datastore.Entry, error) {
	if store != datastore.System {
		l.afters.Add(1)
	}
	return l.Log.After(ctx, store, from, limit)
}

func (l *counting) Heads(ctx context.Context, stores []datastore.StoreID) (map[datastore.StoreID]datastore.Head, error) {
	l.heads.Add(1)
	return l.Log.Heads(ctx, stores)
}

func TestADirectReadOfManyQueriesIsOneCallOfTheLog(t *testing.T) {
	log := &counting{Log: memory.New()}
	k := openWithSchema(t, log, keeper.Options{Direct: true})
	write(t, k, updating(t, datastore.Touch, "document:1#viewer@user:a", "document:2#viewer@user:b", "document:2#viewer@group:g#member", "group:g#member@user:c"))
	s, err := k.At(bg, datastore.Default, datastore.Consistency{Level: datastore.FullyConsistent})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	id := func(typ, id string) datastore.ID {
		n, _ := s.ID(tuple.Object{Type: typ, ID: id})
		return n
	}
	viewer, _ := s.Names().ID("viewer")
	member, _ := s.Names().ID("member")
	qs := []datastore.Query{
		{Object: id("document", "1"), Relation: viewer},
		{Object: id("document", "2"), Relation: viewer},
		{Object: id("document", "2"), Relation: viewer, UsersetsOnly: true},
		{Subject: id("user", "c")},
		{Object: id("document", "2"), Relation: viewer, Subject: id("group", "g"), SubjectRelation: member},
		{Object: id("document", "3"), Relation: viewer},
	}
	before := log.reads.Load() + log.rows.Load()
	got := make([]int, len(qs))
	if err := s.Read(bg, qs, func(q int, e datastore.Edge) bool { got[q]++; return true }); err != nil {
		t.Fatal(err)
	}
	if calls := log.reads.Load() + log.rows.Load() - before; calls != 1 {
		t.Errorf("%d calls of the log, want 1", calls)
	}
	if want := []int{1, 2, 1, 1, 1, 0}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("edges by query: %v, want %v", got, want)
	}
	got = make([]int, len(qs))
	if err := s.Read(bg, qs, func(q int, e datastore.Edge) bool { got[q]++; return false }); err != nil {
		t.Fatal(err)
	}
	if want := []int{1, 1, 1, 1, 1, 0}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("edges by query, each ended by its first: %v, want %v", got, want)
	}
}

func TestOneReadConfirmsAllStoresThatAreInUse(t *testing.T) {
	log := &counting{Log: memory.New()}
	const staleness = 200 * time.Millisecond
	k := open(t, log, keeper.Options{MaxStaleness: staleness})
	var ids []datastore.StoreID
	for i := range 20 {
		o, err := k.Write(bg, datastore.System, datastore.Request{CreateStore: &datastore.Store{Name: fmt.Sprintf("s%d", i)}})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, o.Store.ID)
	}
	ask := func() {
		for _, id := range ids {
			s, err := k.At(bg, id, datastore.Consistency{})
			if err != nil {
				t.Fatal(err)
			}
			s.Close()
		}
	}
	ask()
	afters, heads := log.afters.Load(), log.heads.Load()
	for end := time.Now().Add(5 * staleness); time.Now().Before(end); time.Sleep(staleness / 20) {
		ask()
	}
	// A tick that comes late costs some stores a read of their own.
	if n := log.afters.Load() - afters; n > 40 {
		t.Errorf("%d reads of single stores in five times the staleness bound, for 20 stores", n)
	}
	if n := log.heads.Load() - heads; n < 3 || n > 15 {
		t.Errorf("%d reads of all heads in five times the staleness bound", n)
	}
	// What another node writes is seen within the bound.
	other := open(t, keptOpen{log}, keeper.Options{})
	if _, err := other.Write(bg, ids[7], applying(testSchema)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(staleness + staleness/2)
	s, err := k.At(bg, ids[7], datastore.Consistency{})
	if err != nil || s.Head().Revision != 1 {
		t.Errorf("after the bound the revision is %d, %v", s.Head().Revision, err)
	}
}
