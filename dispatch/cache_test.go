package dispatch_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/datastoretest"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/dispatch"
	"github.com/pembadb/pemba/tuple"
)

var soak = flag.Bool("soak", false, "raise the counts of random tests")

var bg = context.Background()

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheCacheUnderTheKeeper(t *testing.T) {
	datastoretest.RunCache(t, func(*testing.T) datastore.Log { return memory.New() }, func() datastore.RowCache {
		return dispatch.New(dispatch.Options{})
	})
}

func TestASmallCacheUnderTheKeeper(t *testing.T) {
	datastoretest.RunCache(t, func(*testing.T) datastore.Log { return memory.New() }, func() datastore.RowCache {
		return dispatch.New(dispatch.Options{Bytes: 200_000, Reads: 1})
	})
}

// fake is a Log that gives rows of its own making, when it is let.
type fake struct {
	datastore.Log
	reads atomic.Int64
	rows  func(q datastore.RowQuery) int // how many a query has
	gate  chan struct{}                  // nil: open
}

func (l *fake) Read(ctx context.Context, _ datastore.StoreID, _ datastore.Revision, qs []datastore.RowQuery, f func(int, datastore.Row) bool) error {
	l.reads.Add(1)
	if l.gate != nil {
		select {
		case <-l.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for i, q := range qs {
		first := 0
		if q.After != nil {
			fmt.Sscanf(q.After.Subject.ID, "%d", &first)
			first++
		}
		for n := first; n < l.rows(q) && (q.Limit == 0 || n < first+q.Limit); n++ {
			if !f(i, row(q.Filter.ObjectID, n)) {
				break
			}
		}
	}
	return nil
}

func row(object string, n int) datastore.Row {
	return datastore.Row{Relationship: tuple.Relationship{Key: tuple.Key{
		Object: tuple.Object{Type: "document", ID: object}, Relation: "viewer",
		Subject: tuple.Subject{Object: tuple.Object{Type: "user", ID: fmt.Sprintf("%08d", n)}}}}}
}

func nothing(func(tuple.Key, *tuple.Relationship) bool) {}

func viewersOf(object string) datastore.RowQuery {
	return datastore.RowQuery{Filter: tuple.Filter{ObjectType: "document", ObjectID: object, Relation: "viewer"}}
}

func TestTheCacheStaysInsideItsBytes(t *testing.T) {
	const budget = 8 << 20
	steps := 20_000
	if *soak {
		steps = 1_000_000
	}
	log := &fake{rows: func(q datastore.RowQuery) int { return len(q.Filter.ObjectID) * 3 }}
	var before, after runtime.MemStats
	cache := dispatch.New(dispatch.Options{Bytes: budget})
	runtime.GC()
	runtime.ReadMemStats(&before)
	line := cache.Line(log, 1, datastore.Incarnation{1})
	stamp := line.Changed(0, datastore.Head{}, nothing)
	r := rand.New(rand.NewPCG(1, 2))
	for n := range steps {
		q := viewersOf(fmt.Sprintf("%0*d", 1+r.IntN(20), r.IntN(1+n)))
		want, got := log.rows(q), 0
		if err := line.Read(bg, datastore.Position{Revision: datastore.Revision(stamp), Stamp: stamp}, []datastore.RowQuery{q}, func(int, datastore.Row) bool { got++; return true }); err != nil || got != want {
			t.Fatalf("%d rows, want %d, %v", got, want, err)
		}
		if n%10 == 0 {
			from := datastore.Revision(stamp)
			stamp = line.Changed(from, datastore.Head{Revision: from + 1}, func(yield func(tuple.Key, *tuple.Relationship) bool) {
				r := row(q.Filter.ObjectID, 0).Relationship
				yield(r.Key, &r)
			})
		}
		if s := cache.Stats(); s.Bytes > budget {
			t.Fatalf("%d bytes after %d reads", s.Bytes, n)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	s := cache.Stats()
	if s.Bytes < budget/2 {
		t.Errorf("only %d of %d bytes are in use: this shows nothing", s.Bytes, budget)
	}
	if took := int64(after.HeapAlloc) - int64(before.HeapAlloc); took > s.Bytes*5/4 || took < s.Bytes/2 {
		t.Errorf("it says that it takes %d bytes, and takes %d", s.Bytes, took)
	}
	t.Logf("%+v", s)
}

// read reads the viewers of documents and returns how many there are.
func read(ctx context.Context, line datastore.RowLine, objects ...string) (n int, err error) {
	var qs []datastore.RowQuery
	for _, o := range objects {
		qs = append(qs, viewersOf(o))
	}
	err = line.Read(ctx, datastore.Position{Revision: 1, Stamp: 1}, qs, func(int, datastore.Row) bool { n++; return true })
	return n, err
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for began := time.Now(); !is(); time.Sleep(time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatalf("it does not come to this: %s", what)
		}
	}
}

func TestReadsAreSharedAndEndWithTheLastWhoWaits(t *testing.T) {
	log := &fake{rows: func(datastore.RowQuery) int { return 3 }, gate: make(chan struct{})}
	cache := dispatch.New(dispatch.Options{})
	line := cache.Line(log, 1, datastore.Incarnation{1})
	first, leave := context.WithCancel(bg)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := read(first, line, "a", "b"); !errors.Is(err, context.Canceled) {
			t.Errorf("who left: %v", err)
		}
	})
	eventually(t, "one read runs", func() bool { return cache.Stats().Reading == 1 })
	for range 8 {
		wg.Go(func() {
			if n, err := read(bg, line, "a", "b", "a"); n != 9 || err != nil {
				t.Errorf("who waits: %d rows, %v", n, err)
			}
		})
	}
	eventually(t, "eight wait for it", func() bool { return cache.Stats().Shared == 24 })
	leave()
	time.Sleep(5 * time.Millisecond)
	close(log.gate)
	wg.Wait()
	if n := log.reads.Load(); n != 1 {
		t.Errorf("%d reads", n)
	}
	if n, err := read(bg, line, "b"); n != 3 || err != nil || log.reads.Load() != 1 {
		t.Errorf("again: %d rows, %v, %d reads", n, err, log.reads.Load())
	}
	// Nobody waits: the read is cut off, and the next one begins anew.
	log.gate = make(chan struct{})
	alone, leave := context.WithTimeout(bg, 5*time.Millisecond)
	defer leave()
	if _, err := read(alone, line, "c"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("who left: %v", err)
	}
	eventually(t, "nothing runs", func() bool { return cache.Stats().Reading == 0 })
	close(log.gate)
	if n, err := read(bg, line, "c"); n != 3 || err != nil {
		t.Errorf("after that: %d rows, %v", n, err)
	}
}

func TestMoreReadsThanMayWaitAreRefused(t *testing.T) {
	log := &fake{rows: func(datastore.RowQuery) int { return 1 }, gate: make(chan struct{})}
	cache := dispatch.New(dispatch.Options{Reads: 2, Waiting: 3})
	line := cache.Line(log, 1, datastore.Incarnation{1})
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			if n, err := read(bg, line, fmt.Sprint(i)); n != 1 || err != nil {
				t.Errorf("%d rows, %v", n, err)
			}
		})
	}
	eventually(t, "two run and three wait", func() bool { s := cache.Stats(); return s.Reading == 2 && s.Waiting == 3 })
	if _, err := read(bg, line, "x"); !errors.Is(err, datastore.ErrOverloaded) {
		t.Errorf("the sixth: %v", err)
	}
	close(log.gate)
	wg.Wait()
	if n, err := read(bg, line, "x"); n != 1 || err != nil {
		t.Errorf("afterwards: %d rows, %v", n, err)
	}
}

// A query with more rows than are remembered is read a part at a time, whole or
// as far as somebody wants it.
func TestWhatIsTooLongToRememberIsReadAPartAtATime(t *testing.T) {
	log := &fake{rows: func(q datastore.RowQuery) int { return map[string]int{"long": 25_000, "short": 7}[q.Filter.ObjectID] }}
	line := dispatch.New(dispatch.Options{}).Line(log, 1, datastore.Incarnation{1})
	for range 2 {
		if n, err := read(bg, line, "short", "long", "none", "long"); n != 50_007 || err != nil {
			t.Fatalf("%d rows, %v", n, err)
		}
	}
	before, n := log.reads.Load(), 0
	err := line.Read(bg, datastore.Position{Revision: 1, Stamp: 1}, []datastore.RowQuery{viewersOf("long")}, func(int, datastore.Row) bool { n++; return n < 50 })
	if n != 50 || err != nil || log.reads.Load() != before {
		t.Errorf("fifty of them: %d rows, %v, %d reads", n, err, log.reads.Load()-before)
	}
}
