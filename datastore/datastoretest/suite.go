// Package datastoretest is the suite that every [datastore.Log] must pass.
package datastoretest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

var bg = context.Background()

// Run tests a Log. open gives an empty one and closes it when the test ends.
func Run(t *testing.T, open func(t *testing.T) datastore.Log) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, datastore.Log)
	}{
		{"HoldsWhatANaiveModelHolds", holdsWhatTheModelHolds},
		{"AJudgeThatRefusesLeavesNothing", judgeRefuses},
		{"UpdatesOfOneStoreAreSerial", updatesAreSerial},
		{"AnotherLineIsToldFromThisOne", anotherLine},
		{"LinesComeAndGo", linesComeAndGo},
		{"ReadersMayTakeTheirTime", slowReaders},
		{"AnEndedContextEndsTheWork", endedContext},
		{"ManyVersionsOfOneKey", manyVersions},
		{"ChangesOfManyRows", changesOfManyRows},
		{"LongestNames", longestNames},
		{"IdentitiesAreKept", identitiesAreKept},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// line makes a new store in the Log.
func line(t rapid.TB, log datastore.Log) (datastore.StoreID, *model) {
	t.Helper()
	store := datastore.StoreID(lastStore.Add(1))
	incarnation := datastore.Incarnation{byte(store), byte(store >> 8), 7}
	if err := log.CreateLine(bg, store, incarnation); err != nil {
		t.Fatal(err)
	}
	return store, newModel(incarnation)
}

var lastStore atomic.Uint64

// commit appends a change to the Log and the model.
func commit(t rapid.TB, log datastore.Log, store datastore.StoreID, m *model, id string, operations ...datastore.Operation) {
	t.Helper()
	e, err := m.seal(operations, id)
	if err != nil {
		t.Fatal(err)
	}
	head, err := log.Update(bg, store, m.head, func(datastore.Tail) ([]datastore.Entry, error) { return []datastore.Entry{e}, nil })
	if err != nil {
		t.Fatalf("change %d: %v", e.Revision, err)
	}
	m.append(e)
	if head != m.head {
		t.Fatalf("head %+v, want %+v", head, m.head)
	}
}

func create(text string) datastore.Operation {
	r, err := tuple.Parse(text)
	if err != nil {
		panic(err)
	}
	return datastore.Operation{Kind: datastore.Create, Relationship: r}
}

// rows reads what a query selects.
func rows(log datastore.Log, store datastore.StoreID, at datastore.Revision, q datastore.RowQuery) (found []datastore.Row, err error) {
	err = log.Rows(bg, store, at, q, func(r datastore.Row) bool {
		found = append(found, r)
		return true
	})
	return found, err
}

func holdsWhatTheModelHolds(t *testing.T, log datastore.Log) {
	rapid.Check(t, func(t *rapid.T) {
		store, m := line(t, log)
		t.Repeat(map[string]func(*rapid.T){
			"change":        func(t *rapid.T) { change(t, log, store, m) },
			"change again":  func(t *rapid.T) { change(t, log, store, m) },
			"raise floor":   func(t *rapid.T) { raiseFloor(t, log, store, m) },
			"collect":       func(t *rapid.T) { collect(t, log, store, m) },
			"trim":          func(t *rapid.T) { trim(t, log, store, m) },
			"read rows":     func(t *rapid.T) { readRows(t, log, store, m) },
			"read at once":  func(t *rapid.T) { readManyRows(t, log, store, m) },
			"read heads":    func(t *rapid.T) { readHeads(t, log, store, m) },
			"read a schema": func(t *rapid.T) { readSchema(t, log, store, m) },
			"read history":  func(t *rapid.T) { readHistory(t, log, store, m) },
			"find requests": func(t *rapid.T) { findRequests(t, log, store, m) },
			"":              func(t *rapid.T) { checkHead(t, log, store, m) },
		})
	})
}

// change commits one to three changes in one update, as a group commit does.
func change(t *rapid.T, log datastore.Log, store datastore.StoreID, m *model) {
	// A judge that is behind sees what it missed.
	have := datastore.Head{Incarnation: m.head.Incarnation, Revision: m.anchor.Revision, Hash: m.anchor.Hash}
	if behind := datastore.Revision(rapid.Uint64Range(uint64(m.anchor.Revision), uint64(m.head.Revision)).Draw(t, "have")); behind > m.anchor.Revision {
		have.Revision, have.Hash = behind, m.entries[behind-1].Hash
	}
	count := rapid.IntRange(1, 3).Draw(t, "changes")
	head, err := log.Update(bg, store, have, func(tail datastore.Tail) ([]datastore.Entry, error) {
		if tail.Head != m.head {
			t.Fatalf("the judge sees head %+v, want %+v", tail.Head, m.head)
		}
		if diff := sameEntries(tail.Changes, m.entries[have.Revision:]); diff != "" {
			t.Fatalf("the judge sees %s", diff)
		}
		var entries []datastore.Entry
		for range count {
			e, err := m.seal(m.genOperations(t), rapid.SampledFrom([]string{"", fmt.Sprintf("request %d", m.head.Revision)}).Draw(t, "request id"))
			if err != nil {
				t.Fatal(err)
			}
			m.append(e)
			entries = append(entries, e)
		}
		return entries, nil
	})
	if err != nil || head != m.head {
		t.Fatalf("head %+v, %v; want %+v", head, err, m.head)
	}
}

func raiseFloor(t *rapid.T, log datastore.Log, store datastore.StoreID, m *model) {
	floor := datastore.Revision(rapid.Uint64Range(0, uint64(m.head.Revision)+1).Draw(t, "floor"))
	err := log.SetFloor(bg, store, floor)
	if floor > m.head.Revision {
		if !errors.Is(err, datastore.ErrAhead) {
			t.Fatalf("floor %d beyond head %d: %v", floor, m.head.Revision, err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	m.head.Floor = max(m.head.Floor, floor)
}

func collect(t *rapid.T, log datastore.Log, store datastore.StoreID, m *model) {
	want := m.collectable()
	for _, limit := range []int{1, 2, 1000} {
		n, err := log.Collect(bg, store, limit)
		if err != nil || n != min(want, limit) {
			t.Fatalf("collected %d of %d, limit %d: %v", n, want, limit, err)
		}
		want -= n
	}
	m.collect()
}

func trim(t *rapid.T, log datastore.Log, store datastore.StoreID, m *model) {
	upTo := datastore.Revision(rapid.Uint64Range(0, uint64(m.head.Revision)).Draw(t, "up to"))
	err := log.Trim(bg, store, upTo)
	if upTo > m.head.Floor {
		if err == nil {
			t.Fatalf("trimmed up to %d, above the floor %d", upTo, m.head.Floor)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	m.trim(upTo)
}

func judgeRefuses(t *testing.T, log datastore.Log) {
	store, m := line(t, log)
	commit(t, log, store, m, "first", create("document:1#viewer@user:a"))
	refusal := errors.New("no")
	if _, err := log.Update(bg, store, m.head, func(datastore.Tail) ([]datastore.Entry, error) { return nil, refusal }); !errors.Is(err, refusal) {
		t.Errorf("the judge's error: %v", err)
	}
	gap, err := datastore.Seal(m.head.Hash, datastore.Change{Revision: m.head.Revision + 2, Operations: []datastore.Operation{create("document:2#viewer@user:a")}})
	if err != nil {
		t.Fatal(err)
	}
	next, err := m.seal([]datastore.Operation{create("document:3#viewer@user:a")}, "second")
	if err != nil {
		t.Fatal(err)
	}
	for _, entries := range [][]datastore.Entry{{gap}, {next, next}} {
		if _, err := log.Update(bg, store, m.head, func(datastore.Tail) ([]datastore.Entry, error) { return entries, nil }); err == nil {
			t.Errorf("a change that does not follow the head was taken")
		}
	}
	if head, err := log.Head(bg, store); err != nil || head != m.head {
		t.Errorf("head %+v, %v; want %+v", head, err, m.head)
	}
	if got, err := rows(log, store, m.head.Revision, datastore.RowQuery{}); err != nil || len(got) != 1 {
		t.Errorf("rows %v, %v", got, err)
	}
	commit(t, log, store, m, "second", create("document:2#viewer@user:a"))
}

// updatesAreSerial lets writers of two stores meet: each store's history is
// gapless, and no writer of a store saw it half changed.
func updatesAreSerial(t *testing.T, log datastore.Log) {
	const writers, each = 4, 20
	var stores []datastore.StoreID
	for range 2 {
		store, _ := line(t, log)
		stores = append(stores, store)
	}
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			store := stores[w%len(stores)]
			first, err := log.Head(bg, store)
			if err != nil {
				t.Error(err)
				return
			}
			have := datastore.Head{Incarnation: first.Incarnation}
			for i := range each {
				_, err := log.Update(bg, store, have, func(tail datastore.Tail) ([]datastore.Entry, error) {
					if len(tail.Changes) > 0 {
						last := tail.Changes[len(tail.Changes)-1]
						if last.Revision != tail.Head.Revision || last.Hash != tail.Head.Hash {
							return nil, fmt.Errorf("the changes end at %d, the head is %d", last.Revision, tail.Head.Revision)
						}
					}
					have = tail.Head
					e, err := datastore.Seal(tail.Head.Hash, datastore.Change{Revision: tail.Head.Revision + 1, Time: start,
						Operations: []datastore.Operation{create(fmt.Sprintf("document:%d-%d#viewer@user:a", w, i))}})
					return []datastore.Entry{e}, err
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	for _, store := range stores {
		want := writers / len(stores) * each
		head, entries, err := log.After(bg, store, 0, 10*want)
		if err != nil || int(head.Revision) != want || len(entries) != want {
			t.Fatalf("head %d, %d entries, %v; want %d", head.Revision, len(entries), err, want)
		}
		var previous datastore.Hash
		for _, e := range entries {
			if err := datastore.VerifyLink(previous, e); err != nil {
				t.Fatal(err)
			}
			previous = e.Hash
		}
		if got, err := rows(log, store, head.Revision, datastore.RowQuery{}); err != nil || len(got) != want {
			t.Errorf("%d rows, %v; want %d", len(got), err, want)
		}
	}
}

func anotherLine(t *testing.T, log datastore.Log) {
	store, m := line(t, log)
	for i := range 3 {
		commit(t, log, store, m, "", create(fmt.Sprintf("document:%d#viewer@user:a", i)))
	}
	for _, have := range []datastore.Head{
		{Incarnation: datastore.Incarnation{1, 2, 3}},
		{Incarnation: m.head.Incarnation, Revision: 4},
		{Incarnation: m.head.Incarnation, Revision: 2, Hash: m.entries[0].Hash},
		{Incarnation: m.head.Incarnation, Hash: m.entries[0].Hash},
	} {
		_, err := log.Update(bg, store, have, func(datastore.Tail) ([]datastore.Entry, error) {
			t.Errorf("the judge was called for %+v", have)
			return nil, nil
		})
		if !errors.Is(err, datastore.ErrForked) {
			t.Errorf("%+v: %v", have, err)
		}
	}
	if err := errors.Join(log.SetFloor(bg, store, 2), log.Trim(bg, store, 2)); err != nil {
		t.Fatal(err)
	}
	_, err := log.Update(bg, store, datastore.Head{Incarnation: m.head.Incarnation, Revision: 1, Hash: m.entries[0].Hash},
		func(datastore.Tail) ([]datastore.Entry, error) { return nil, nil })
	if !errors.Is(err, datastore.ErrCompacted) {
		t.Errorf("a head that was trimmed: %v", err)
	}
}

func linesComeAndGo(t *testing.T, log datastore.Log) {
	a, m := line(t, log)
	b, other := line(t, log)
	commit(t, log, a, m, "same id", create("document:1#viewer@user:a"))
	commit(t, log, b, other, "same id", create("document:2#viewer@user:b"))
	if err := log.CreateLine(bg, a, datastore.Incarnation{9}); err != nil {
		t.Fatal(err)
	}
	if head, err := log.Head(bg, a); err != nil || head != m.head {
		t.Errorf("creating an existing line changed it: %+v, %v", head, err)
	}
	if err := log.DropLine(bg, a); err != nil {
		t.Fatal(err)
	}
	if lines, err := log.Lines(bg); err != nil || !slices.Equal(lines, []datastore.StoreID{b}) {
		t.Errorf("lines %v, %v", lines, err)
	}
	if got, err := rows(log, b, other.head.Revision, datastore.RowQuery{}); err != nil || len(got) != 1 {
		t.Errorf("the other store: %v, %v", got, err)
	}
	for name, err := range missing(log, a) {
		if !errors.Is(err, datastore.ErrNoStore) {
			t.Errorf("%s of a dropped store: %v", name, err)
		}
	}
	if err := log.DropLine(bg, a); err != nil {
		t.Errorf("dropping it again: %v", err)
	}
}

// missing calls every method for a store.
func missing(log datastore.Log, store datastore.StoreID) map[string]error {
	errs := map[string]error{}
	_, errs["Head"] = log.Head(bg, store)
	_, _, errs["After"] = log.After(bg, store, 0, 1)
	_, errs["Update"] = log.Update(bg, store, datastore.Head{}, func(datastore.Tail) ([]datastore.Entry, error) { return nil, nil })
	_, errs["Rows"] = rows(log, store, 0, datastore.RowQuery{})
	_, errs["Schema"] = log.Schema(bg, store, 0)
	_, errs["Names"] = log.Names(bg, store)
	_, errs["Anchor"] = log.Anchor(bg, store)
	errs["SetFloor"] = log.SetFloor(bg, store, 0)
	_, errs["Collect"] = log.Collect(bg, store, 1)
	errs["Trim"] = log.Trim(bg, store, 0)
	return errs
}

// slowReaders writes, and grows the store, while a reader is half through: the
// reader goes on at its revision, and nobody waits for it.
func slowReaders(t *testing.T, log datastore.Log) {
	const count = 300
	store, m := line(t, log)
	var operations []datastore.Operation
	for i := range count {
		operations = append(operations, create(fmt.Sprintf("document:%04d#viewer@user:a", i)))
	}
	commit(t, log, store, m, "", operations...)
	at, seen := m.head.Revision, 0
	err := log.Rows(bg, store, at, datastore.RowQuery{}, func(r datastore.Row) bool {
		if seen%100 == 0 {
			commit(t, log, store, m, "",
				datastore.Operation{Kind: datastore.Delete, Relationship: create(fmt.Sprintf("document:%04d#viewer@user:a", count-1-seen/100)).Relationship},
				create(fmt.Sprintf("document:%04d#viewer@user:%d", seen, seen)))
			if inner, err := rows(log, store, at, datastore.RowQuery{Limit: 5}); err != nil || len(inner) != 5 {
				t.Errorf("a reader inside a reader: %d rows, %v", len(inner), err)
			}
		}
		seen++
		return true
	})
	if err != nil || seen != count {
		t.Errorf("%d rows, %v; want %d", seen, err, count)
	}
	seen = 0
	if err := log.Rows(bg, store, at, datastore.RowQuery{}, func(datastore.Row) bool { seen++; return seen < 7 }); err != nil || seen != 7 {
		t.Errorf("a reader that stops: %d, %v", seen, err)
	}
}

func endedContext(t *testing.T, log datastore.Log) {
	store, m := line(t, log)
	commit(t, log, store, m, "", create("document:1#viewer@user:a"))
	ended, end := context.WithCancel(bg)
	end()
	_, err := log.Update(ended, store, m.head, func(datastore.Tail) ([]datastore.Entry, error) {
		e, err := m.seal(nil, "late")
		return []datastore.Entry{e}, err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("an update under an ended context: %v", err)
	}
	if head, err := log.Head(bg, store); err != nil || head != m.head {
		t.Errorf("head %+v, %v", head, err)
	}
}

// manyVersions touches one relationship often: each revision keeps its own.
func manyVersions(t *testing.T, log datastore.Log) {
	const count = 50
	store, m := line(t, log)
	for i := range count {
		o := create(fmt.Sprintf(`document:1#viewer@user:a[on_day:{"day":"%d"}]`, i))
		if i > 0 {
			o.Kind, o.Previous = datastore.Touch, &m.entries[i-1].Operations[0].Relationship
		}
		commit(t, log, store, m, "", o)
	}
	for at := datastore.Revision(0); at <= count; at++ {
		for _, bySubject := range []bool{false, true} {
			q := datastore.RowQuery{BySubject: bySubject, Filter: tuple.Filter{ObjectType: "document", ObjectID: "1"}}
			got, err := rows(log, store, at, q)
			if want := m.at(at, q); err != nil || render(got) != render(want) {
				t.Fatalf("at %d: %s, %v; want %s", at, render(got), err, render(want))
			}
		}
	}
}

// changesOfManyRows writes a thousand relationships of all kinds in one change, and
// then replaces them in another and ends some.
func changesOfManyRows(t *testing.T, log datastore.Log) {
	const count = 1000
	store, m := line(t, log)
	var first, second []datastore.Operation
	for i := range count {
		o := create(fmt.Sprintf("document:d%d#viewer@user:u%d", i%7, i) + []string{"", `[on_day:{"day":"日\t\\N"}]`, "[expiration:2999-01-01T00:00:00.000001Z]", "[on_day]"}[i%4])
		first = append(first, o)
		next := create(fmt.Sprintf("document:d%d#viewer@user:u%d[on_day:{\"day\":\"%d\"}]", i%7, i, i))
		if next.Kind, next.Previous = datastore.Touch, &o.Relationship; i%10 == 0 {
			next.Kind, next.Relationship, next.Previous = datastore.Delete, o.Relationship, &o.Relationship
		}
		second = append(second, next)
	}
	commit(t, log, store, m, "first", first...)
	commit(t, log, store, m, "second", second...)
	for at := range datastore.Revision(3) {
		q := datastore.RowQuery{Filter: tuple.Filter{ObjectType: "document"}}
		got, err := rows(log, store, at, q)
		if want := m.at(at, q); err != nil || render(got) != render(want) {
			t.Errorf("at %d: %d rows, %v; want %d", at, len(got), err, len(want))
		}
	}
}

// longestNames writes what is at the limits of package tuple.
func longestNames(t *testing.T, log datastore.Log) {
	long := func(letter string, n int) string {
		b := make([]byte, 0, n)
		for len(b)+len(letter) <= n {
			b = append(b, letter...)
		}
		return string(b)
	}
	store, m := line(t, log)
	r := tuple.Relationship{Key: tuple.Key{
		Object:   tuple.Object{Type: long("a/", tuple.MaxType-1) + "b", ID: long("日", tuple.MaxID)},
		Relation: long("r", tuple.MaxRelation),
		Subject:  tuple.Subject{Object: tuple.Object{Type: long("s", tuple.MaxRelation), ID: long("~", tuple.MaxID)}, Relation: long("m", tuple.MaxRelation)},
	}, Caveat: tuple.Caveat{Name: "big", Context: `{"text":"` + long("x", 64<<10) + `"}`}}
	commit(t, log, store, m, long("i", 256), datastore.Operation{Kind: datastore.Create, Relationship: r})
	for _, bySubject := range []bool{false, true} {
		got, err := rows(log, store, 1, datastore.RowQuery{BySubject: bySubject, Filter: tuple.Filter{ObjectType: r.Object.Type, ObjectID: r.Object.ID}})
		if err != nil || len(got) != 1 || !got[0].Equal(r) {
			t.Errorf("%d rows, %v", len(got), err)
		}
	}
}
