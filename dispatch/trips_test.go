package dispatch_test

import (
	"context"
	"fmt"
	"iter"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/dispatch"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/tuple"
)

// counting is a Log that counts what would be round trips to a database.
type counting struct {
	*memory.Log
	trips atomic.Int64
}

func (l *counting) Head(ctx context.Context, s datastore.StoreID) (datastore.Head, error) {
	l.trips.Add(1)
	return l.Log.Head(ctx, s)
}

func (l *counting) After(ctx context.Context, s datastore.StoreID, from datastore.Revision, limit int) (datastore.Head, []datastore.Entry, error) {
	l.trips.Add(1)
	return l.Log.After(ctx, s, from, limit)
}

func (l *counting) Rows(ctx context.Context, s datastore.StoreID, at datastore.Revision, q datastore.RowQuery, f func(datastore.Row) bool) error {
	l.trips.Add(1)
	return l.Log.Rows(ctx, s, at, q, f)
}

func (l *counting) Read(ctx context.Context, s datastore.StoreID, at datastore.Revision, qs []datastore.RowQuery, f func(int, datastore.Row) bool) error {
	l.trips.Add(1)
	for i, q := range qs {
		if err := l.Log.Rows(ctx, s, at, q, func(r datastore.Row) bool { return f(i, r) }); err != nil {
			return err
		}
	}
	return nil
}

const nested = `definition user {}
definition group { relation member: user | group#member }
definition folder { relation parent: folder  relation viewer: user | group#member  permission view = viewer + parent->view }
definition document { relation parent: folder  relation owner: user  relation viewer: user | group#member  permission view = owner + viewer + parent->view }
`

// far opens a keeper that reads everything from a counting Log.
func far(t testing.TB, cache datastore.RowCache, relationships iter.Seq[string]) (*counting, *keeper.Keeper) {
	t.Helper()
	log := &counting{Log: memory.New()}
	write(t, log, relationships)
	k, err := keeper.Open(log, keeper.Options{ResidentMaxRelationships: 1, ResidentIdle: time.Hour, MaxStaleness: time.Hour, SweepEvery: time.Hour, Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	if s, err := k.At(bg, datastore.Default, datastore.Consistency{}); err != nil || s.Width() == 1 {
		t.Fatalf("it is in memory, or: %v", err)
	}
	return log, k
}

// keptOpen is a Log that the Keeper does not close.
type keptOpen struct{ datastore.Log }

func (keptOpen) Close() error { return nil }

func write(t testing.TB, log datastore.Log, relationships iter.Seq[string]) {
	t.Helper()
	k, err := keeper.Open(keptOpen{log}, keeper.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if _, err := k.Write(bg, datastore.Default, datastore.Request{Schema: &datastore.SchemaUpdate{Text: nested}}); err != nil {
		t.Fatal(err)
	}
	all := []string{"folder:elsewhere#viewer@user:eve", "folder:elsewhere#viewer@user:bob"}
	for r := range relationships {
		if all = append(all, r); len(all) == 1000 {
			touch(t, k, all...)
			all = all[:0]
		}
	}
	touch(t, k, all...)
}

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
		t.Fatal(err)
	}
}

// trips asks and returns the answer and the round trips it took.
func trips(t *testing.T, log *counting, k *keeper.Keeper, level datastore.Level, text string) (yes bool, n int64) {
	t.Helper()
	r, err := tuple.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	before := log.trips.Load()
	s, err := k.At(bg, datastore.Default, datastore.Consistency{Level: level})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a, err := graph.Check(bg, s, graph.Question{Resource: r.Object, Permission: r.Relation, Subject: r.Subject}, time.Now(), graph.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return a.Outcome == graph.Yes, log.trips.Load() - before
}

func TestRoundTripsFollowTheDepthOfTheAnswer(t *testing.T) {
	const wide = 10_000
	for name, c := range map[string]struct {
		relationships iter.Seq[string]
		question      string
		yes           bool
		depth         int64 // relationships on the way to the answer, or to the last place where it could be
	}{
		"an owner": {func(yield func(string) bool) { yield("document:d#owner@user:ada") }, "document:d#view@user:ada", true, 1},
		"a viewer of a folder five levels up": {func(yield func(string) bool) {
			yield("document:d#parent@folder:0")
			for i := range 5 {
				yield(fmt.Sprintf("folder:%d#parent@folder:%d", i, i+1))
			}
			yield("folder:5#viewer@user:ada")
		}, "document:d#view@user:ada", true, 7},
		"a member of one of 10,000 groups": {func(yield func(string) bool) {
			for i := range wide {
				yield(fmt.Sprintf("document:d#viewer@group:%d#member", i))
			}
			yield("group:7777#member@user:ada")
		}, "document:d#view@user:ada", true, 2},
		"nobody in three levels of 10,000 groups": {func(yield func(string) bool) {
			for i := range wide {
				yield(fmt.Sprintf("document:d#viewer@group:a%d#member", i))
				yield(fmt.Sprintf("group:a%d#member@group:b%d#member", i, i))
				yield(fmt.Sprintf("group:b%d#member@user:%d", i, i))
			}
		}, "document:d#view@user:ada", false, 3},
	} {
		log, k := far(t, dispatch.New(dispatch.Options{Bytes: 1 << 30}), c.relationships)
		yes, cold := trips(t, log, k, datastore.MinimizeLatency, c.question)
		if yes != c.yes || cold > c.depth+1 {
			t.Errorf("%s: %t after %d round trips, the depth is %d", name, yes, cold, c.depth)
		}
		if yes, n := trips(t, log, k, datastore.MinimizeLatency, c.question); yes != c.yes || n != 0 {
			t.Errorf("%s: repeated: %t after %d round trips", name, yes, n)
		}
		touch(t, k, "document:other#viewer@user:ada", "group:other#member@user:eve")
		if yes, n := trips(t, log, k, datastore.MinimizeLatency, c.question); yes != c.yes || n != 0 {
			t.Errorf("%s: after an unrelated write: %t after %d round trips", name, yes, n)
		}
		if yes, n := trips(t, log, k, datastore.FullyConsistent, c.question); yes != c.yes || n != 1 {
			t.Errorf("%s: fully consistent: %t after %d round trips", name, yes, n)
		}
		touch(t, k, "document:d#owner@user:ada")
		if yes, n := trips(t, log, k, datastore.MinimizeLatency, c.question); !yes || n != 0 {
			t.Errorf("%s: after it was granted: %t after %d round trips", name, yes, n)
		}
		t.Logf("%s: %d round trips, depth %d", name, cold, c.depth)
	}
}
