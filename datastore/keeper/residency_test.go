package keeper_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/tuple"
)

// tenant is a store with what it should hold, used by one goroutine.
type tenant struct {
	id    datastore.StoreID
	holds map[tuple.Key]bool
}

func newTenant(t testing.TB, k *keeper.Keeper, name string) *tenant {
	t.Helper()
	o, err := k.Write(bg, datastore.System, datastore.Request{CreateStore: &datastore.Store{Name: name}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Write(bg, o.Store.ID, applying(testSchema)); err != nil {
		t.Fatal(err)
	}
	return &tenant{o.Store.ID, map[tuple.Key]bool{}}
}

// step makes a random write, and says what must be there after it.
func (n *tenant) step(r *rand.Rand, k *keeper.Keeper, size int) (datastore.Outcome, error) {
	key := func() tuple.Relationship {
		return tuple.Relationship{Key: tuple.Key{
			Object: tuple.Object{Type: "document", ID: fmt.Sprintf("d%d", r.IntN(size/4+1))}, Relation: "viewer",
			Subject: tuple.Subject{Object: tuple.Object{Type: "user", ID: fmt.Sprintf("u%d", r.IntN(size))}},
		}}
	}
	if r.IntN(8) == 0 {
		object := key().Object
		o, err := k.Write(bg, n.id, datastore.Request{DeleteWhere: &tuple.Filter{ObjectType: object.Type, ObjectID: object.ID}})
		want := 0
		for held := range n.holds {
			if held.Object == object {
				want++
				delete(n.holds, held)
			}
		}
		if err == nil && o.Deleted != want {
			err = fmt.Errorf("deleted %d, want %d", o.Deleted, want)
		}
		return o, err
	}
	var q datastore.Request
	want := 0
	for range 1 + r.IntN(5) {
		u := datastore.Update{Kind: datastore.Touch, Relationship: key()}
		if slices.ContainsFunc(q.Updates, func(o datastore.Update) bool { return o.Relationship.Key == u.Relationship.Key }) {
			continue
		}
		if r.IntN(4) == 0 {
			u.Kind = datastore.Delete
			delete(n.holds, u.Relationship.Key)
		} else {
			if !n.holds[u.Relationship.Key] {
				want++
			}
			n.holds[u.Relationship.Key] = true
		}
		q.Updates = append(q.Updates, u)
	}
	o, err := k.Write(bg, n.id, q)
	if err == nil && o.Created != want {
		err = fmt.Errorf("created %d, want %d", o.Created, want)
	}
	return o, err
}

// check reads all of a store in both ways and returns the width of the snapshot.
func (n *tenant) check(k *keeper.Keeper, zookie string) (int, error) {
	s, err := k.At(bg, n.id, datastore.Consistency{Level: datastore.AtLeastAsFresh, Zookie: zookie})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	rows := 0
	if err := s.Rows(bg, datastore.RowQuery{}, time.Now(), func(r datastore.Row) bool {
		rows++
		if !n.holds[r.Key] {
			err = fmt.Errorf("%s should not be there", r.Key)
		}
		return true
	}); err != nil || rows != len(n.holds) {
		return 0, fmt.Errorf("%d rows, want %d: %w", rows, len(n.holds), err)
	}
	viewer, _ := s.Names().ID("viewer")
	for key := range n.holds {
		document, ok := s.ID(key.Object)
		person, ok2 := s.ID(key.Subject.Object)
		found := 0
		if err := s.Read(bg, []datastore.Query{{Object: document, Relation: viewer, Subject: person}}, func(int, datastore.Edge) bool { found++; return true }); err != nil {
			return 0, err
		}
		if !ok || !ok2 || found != 1 {
			return 0, fmt.Errorf("%s is read %d times", key, found)
		}
		break // one at random
	}
	return s.Width(), err
}

func TestStoresEnterAndLeaveMemoryWhileTheyAreWrittenAndNobodyNotices(t *testing.T) {
	const tenants = 5
	k := open(t, memory.New(), keeper.Options{ResidentMemory: 40_000, ResidentIdle: time.Millisecond, MaxStaleness: 20 * time.Millisecond})
	var far, near atomic.Int64
	var work sync.WaitGroup
	end := time.Now().Add(1500 * time.Millisecond)
	for i := range tenants {
		n := newTenant(t, k, fmt.Sprintf("tenant-%d", i))
		work.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for round := 0; time.Now().Before(end); round++ {
				for range 20 {
					o, err := n.step(r, k, 60*(i+1))
					if err != nil {
						t.Errorf("tenant %d, round %d: %v", i, round, err)
						return
					}
					width, err := n.check(k, o.Zookie)
					if err != nil {
						t.Errorf("tenant %d, round %d, width %d: %v", i, round, width, err)
						return
					}
					if width == 1 {
						near.Add(1)
					} else {
						far.Add(1)
					}
				}
				time.Sleep(time.Duration(r.IntN(10)) * time.Millisecond) // others may displace it
			}
			if v, err := k.Verify(bg, n.id, nil); err != nil || v.Verified == 0 {
				t.Errorf("tenant %d: verified %d, %v", i, v.Verified, err)
			}
		})
	}
	work.Wait()
	if far.Load() == 0 || near.Load() == 0 {
		t.Errorf("%d answers came from memory and %d from the log; want both", near.Load(), far.Load())
	}
	t.Logf("%d answers came from memory and %d from the log", near.Load(), far.Load())
}

// width tells where a store is read: 1 in memory.
func width(t *testing.T, k *keeper.Keeper, id datastore.StoreID) int {
	t.Helper()
	s, err := k.At(bg, id, datastore.Consistency{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return s.Width()
}

func filled(t *testing.T, k *keeper.Keeper, name string, count int) *tenant {
	t.Helper()
	n := newTenant(t, k, name)
	for at := 0; at < count; {
		var r datastore.Request
		for ; at < count && len(r.Updates) < 1000; at++ {
			r.Updates = append(r.Updates, datastore.Update{Kind: datastore.Touch, Relationship: rel(t, fmt.Sprintf("document:d%d#viewer@user:u%d", at/3, at))})
		}
		if _, err := k.Write(bg, n.id, r); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func TestTheLeastRecentlyUsedStoreMakesRoom(t *testing.T) {
	const idle = 300 * time.Millisecond
	k := open(t, memory.New(), keeper.Options{ResidentMemory: 500_000, ResidentIdle: idle})
	old := filled(t, k, "old", 2000) // about 240,000 bytes each
	recent := filled(t, k, "recent", 2000)
	used := time.Now()
	if width(t, k, old.id) != 1 || width(t, k, recent.id) != 1 {
		t.Fatal("two stores that fit are not in memory")
	}
	newer := filled(t, k, "newer", 2000)
	if width(t, k, newer.id) == 1 && time.Since(used) < idle {
		t.Error("a third store is in memory, though those there are in use and leave no room")
	}
	for end := time.Now().Add(idle + idle/2); time.Now().Before(end); time.Sleep(idle / 20) {
		width(t, k, recent.id)
		width(t, k, newer.id) // it tries to come in
	}
	for end := time.Now().Add(5 * time.Second); width(t, k, newer.id) != 1; time.Sleep(idle / 10) {
		width(t, k, recent.id)
		if time.Now().After(end) {
			t.Fatal("the third store is not in memory, though one was idle")
		}
	}
	if width(t, k, recent.id) != 1 {
		t.Error("the store in use left memory")
	}
	if width(t, k, old.id) == 1 {
		t.Error("the idle store is in memory, and so are two others that leave it no room")
	}
}

func TestAStoreThatDoesNotFitIsWrittenReadAndSweptWithoutBeingLoaded(t *testing.T) {
	c := newClock()
	log := memory.New()
	k := open(t, log, keeper.Options{ResidentMaxRelationships: 10, Now: c.Now})
	n := filled(t, k, "large", 3000)
	if width(t, k, n.id) == 1 {
		t.Fatal("a store over the bound is in memory")
	}
	ends := c.Now().Add(time.Minute)
	one := "document:soon#viewer@user:a[expiration:" + ends.UTC().Format(time.RFC3339) + "]"
	if _, err := k.Write(bg, n.id, updating(t, datastore.Create, one)); err != nil {
		t.Fatal(err)
	}
	refused(t, k, n.id, updating(t, datastore.Create, "document:soon#viewer@user:a"), datastore.ErrAlreadyExists)
	refused(t, k, n.id, datastore.Request{Preconditions: []datastore.Precondition{{Filter: tuple.Filter{ObjectType: "group"}, MustMatch: true}}}, datastore.ErrPrecondition)
	refused(t, k, n.id, applying("definition user {}"), datastore.ErrOrphans, "3001 stored relationships")
	c.add(2 * time.Minute)
	if err := k.Tidy(bg); err != nil {
		t.Fatal(err)
	}
	kinds := ""
	for change, err := range k.History(bg, n.id, 5) {
		if err != nil {
			t.Fatal(err)
		}
		kinds += fmt.Sprint(change.Operations[0].Kind, " ")
	}
	if want := fmt.Sprint(datastore.Create, " ", datastore.Expire, " "); kinds != want {
		t.Errorf("the last changes are %s, want %s", kinds, want)
	}
	o, err := k.Write(bg, n.id, datastore.Request{DeleteWhere: &tuple.Filter{ObjectType: "document", ObjectIDPrefix: "d1"}})
	if err != nil || o.Deleted == 0 {
		t.Errorf("deleted %d, %v", o.Deleted, err)
	}
	// A store is loaded no further than to find out that it does not fit.
	again := open(t, keptOpen{log}, keeper.Options{ResidentMaxRelationships: 10})
	if width(t, again, n.id) == 1 {
		t.Error("a second node holds it in memory")
	}
}

func TestTheSizeOfAStoreIsAboutWhatItTakes(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures the heap")
	}
	log := memory.New()
	writer := open(t, log, keeper.Options{})
	filled(t, writer, "measured", 60_000)
	living := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	st, err := writer.StoreByName(bg, "measured")
	if err != nil {
		t.Fatal(err)
	}
	before := living()
	reader := open(t, keptOpen{log}, keeper.Options{ResidentMemory: 1 << 40, LoadPatience: time.Hour})
	if width(t, reader, st.ID) != 1 {
		t.Fatal("it is not in memory")
	}
	took, said := int64(living()-before), reader.ResidentBytes()
	runtime.KeepAlive(reader)
	if said < took*6/10 || said > took*16/10 {
		t.Errorf("60,000 relationships take %d bytes, and are said to take %d", took, said)
	}
	t.Logf("60,000 relationships take %d bytes, and are said to take %d", took, said)
}
