package keeper_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/tuple"
)

// slow is a Log that reads a whole store slowly: after some rows it waits until
// it is let go on.
type slow struct {
	*memory.Log
	goOn chan struct{}
	fail atomic.Bool
}

var errSlow = errors.New("the reading of a whole store fails")

func (l *slow) Rows(ctx context.Context, store datastore.StoreID, at datastore.Revision, q datastore.RowQuery, f func(datastore.Row) bool) error {
	if !q.Filter.IsZero() {
		return l.Log.Rows(ctx, store, at, q, f)
	}
	rows := 0
	err := l.Log.Rows(ctx, store, at, q, func(r datastore.Row) bool {
		if rows++; rows == 3 {
			select {
			case <-l.goOn:
			case <-ctx.Done():
			}
		}
		return ctx.Err() == nil && f(r)
	})
	if l.fail.Load() {
		return errSlow
	}
	return errors.Join(err, ctx.Err())
}

// cold is a Keeper over a Log that has n relationships and reads them slowly.
func cold(t *testing.T, n int, opts keeper.Options) (*slow, *keeper.Keeper) {
	t.Helper()
	log := &slow{Log: memory.New(), goOn: make(chan struct{})}
	first, err := keeper.Open(keptOpen{log.Log}, keeper.Options{})
	if err != nil {
		t.Fatal(err)
	}
	write(t, first, applying(testSchema))
	for i := range n {
		write(t, first, updating(t, datastore.Touch, fmt.Sprintf("document:%d#viewer@user:a", i)))
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	return log, open(t, log, opts)
}

// viewers reads the viewers of documents, and the width of the snapshot.
func viewers(t *testing.T, k *keeper.Keeper, c datastore.Consistency, documents ...string) (found, width int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(bg, 5*time.Second)
	defer cancel()
	s, err := k.At(ctx, datastore.Default, c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, d := range documents {
		if id, ok := s.ID(tuple.Object{Type: "document", ID: d}); ok {
			if err := s.Read(ctx, []datastore.Query{{Object: id}}, func(int, datastore.Edge) bool { found++; return true }); err != nil {
				t.Fatal(err)
			}
		}
	}
	return found, s.Width()
}

func inMemory(t *testing.T, k *keeper.Keeper) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		if _, width := viewers(t, k, datastore.Consistency{}); width == 1 {
			return
		}
		if time.Since(began) > 10*time.Second {
			t.Fatal("the store does not come into memory")
		}
	}
}

// While a store is read into memory it is answered and written directly, and what
// is written meanwhile is there when it is in memory.
func TestAStoreIsOfUseWhileItIsLoaded(t *testing.T) {
	log, k := cold(t, 10, keeper.Options{LoadPatience: 10 * time.Millisecond, ResidentIdle: time.Hour})
	for _, level := range []datastore.Level{datastore.MinimizeLatency, datastore.FullyConsistent} {
		if found, width := viewers(t, k, datastore.Consistency{Level: level}, "0", "9", "10"); found != 2 || width == 1 {
			t.Errorf("level %d: %d viewers at width %d", level, found, width)
		}
	}
	loads := k.Loads()
	if len(loads) != 1 || loads[0].Store != datastore.Default || loads[0].Revision != 11 || loads[0].Relationships != 2 || time.Since(loads[0].Begun) > time.Minute {
		t.Errorf("loads: %+v", loads)
	}
	write(t, k, updating(t, datastore.Create, "document:10#viewer@user:a"))
	write(t, k, updating(t, datastore.Delete, "document:0#viewer@user:a"))
	refused(t, k, datastore.Default, updating(t, datastore.Create, "document:9#viewer@user:a"), datastore.ErrAlreadyExists)
	if found, width := viewers(t, k, datastore.Consistency{}, "0", "9", "10"); found != 2 || width == 1 {
		t.Errorf("after writes: %d viewers at width %d", found, width)
	}
	close(log.goOn)
	inMemory(t, k)
	if found, _ := viewers(t, k, datastore.Consistency{}, "0", "1", "9", "10"); found != 3 {
		t.Errorf("in memory: %d viewers", found)
	}
	if loads := k.Loads(); len(loads) != 0 {
		t.Errorf("loads after that: %+v", loads)
	}
}

// A question that has less time than a load waits no longer than that.
func TestAQuestionWaitsForALoadAsItsDeadlineAllows(t *testing.T) {
	log, k := cold(t, 10, keeper.Options{LoadPatience: time.Minute})
	ctx, cancel := context.WithTimeout(bg, 20*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := k.At(ctx, datastore.Default, datastore.Consistency{}); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	close(log.goOn)
	if found, width := viewers(t, k, datastore.Consistency{}, "9"); found != 1 || width != 1 {
		t.Errorf("one that waits: %d viewers at width %d", found, width)
	}
}

// A load that fails when nobody waits for it any more leaves the store as it was,
// and is tried again.
func TestALoadThatFailsIsTriedAgain(t *testing.T) {
	log, k := cold(t, 10, keeper.Options{LoadPatience: time.Millisecond, ResidentIdle: 5 * time.Millisecond, ResidentMemory: 1 << 20})
	viewers(t, k, datastore.Consistency{})
	log.fail.Store(true)
	close(log.goOn)
	for range 20 {
		if found, width := viewers(t, k, datastore.Consistency{}, "9"); found != 1 || width == 1 {
			t.Fatalf("%d viewers at width %d", found, width)
		}
		time.Sleep(time.Millisecond)
	}
	log.fail.Store(false)
	inMemory(t, k)
	if k.ResidentBytes() == 0 {
		t.Error("it takes no memory")
	}
}

// A Keeper that closes does not wait for a load.
func TestALoadEndsWithItsKeeper(t *testing.T) {
	_, k := cold(t, 10, keeper.Options{LoadPatience: time.Millisecond})
	viewers(t, k, datastore.Consistency{})
	ended := make(chan error, 1)
	go func() { ended <- k.Close() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not close")
	}
}
