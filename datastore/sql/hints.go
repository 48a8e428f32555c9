package sql

import (
	"context"
	"iter"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pembadb/pemba/datastore"
)

// announcements tell other nodes of new heads. What comes while one is under way
// goes out with the next, each store once.
type announcements struct {
	mu      sync.Mutex
	waiting map[datastore.StoreID]bool
	wake    chan struct{}
	cancel  context.CancelFunc
	done    chan struct{}
}

func (a *announcements) start(l *Log) {
	if l.dialect.Announce == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.waiting, a.wake, a.cancel, a.done = map[datastore.StoreID]bool{}, make(chan struct{}, 1), cancel, make(chan struct{})
	go func() {
		defer close(a.done)
		for {
			select {
			case <-a.wake:
				l.announce(ctx, a.take())
			case <-ctx.Done():
				return
			}
		}
	}()
}

func (a *announcements) stop() {
	if a.cancel != nil {
		a.cancel()
		<-a.done
	}
}

func (a *announcements) add(store datastore.StoreID) {
	if a.cancel == nil {
		return
	}
	a.mu.Lock()
	a.waiting[store] = true
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *announcements) take() (stores []datastore.StoreID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for s := range a.waiting {
		stores = append(stores, s)
	}
	clear(a.waiting)
	return stores
}

// announce tells once; what is lost here, polling finds.
func (l *Log) announce(ctx context.Context, stores []datastore.StoreID) {
	if len(stores) == 0 {
		return // the one before took them along
	}
	c, err := l.acquire(ctx, l.reads)
	if err != nil {
		return
	}
	defer c.Release()
	limit, cancel := context.WithTimeout(ctx, l.options.Commit)
	defer cancel()
	_ = l.dialect.Announce(limit, c.Conn(), stores)
}

// longestSilence bounds the wait before listening again after a failure.
const longestSilence = time.Second

// Hints implements [datastore.Hinter].
func (l *Log) Hints(ctx context.Context) iter.Seq2[datastore.StoreID, error] {
	return func(yield func(datastore.StoreID, error) bool) {
		going := true
		for failures := 0; going && ctx.Err() == nil; failures++ {
			listening, stop := context.WithCancel(ctx)
			tell := func(s datastore.StoreID) {
				if failures = 0; going && !yield(s, nil) {
					going = false
					stop()
				}
			}
			err := l.listen(listening, func() { tell(0) }, tell)
			stop()
			if !going || ctx.Err() != nil || l.closed.Load() {
				return
			}
			if !yield(0, l.named(ctx, err)) {
				return
			}
			select {
			case <-time.After(min(longestSilence, 10*time.Millisecond<<min(failures, 10))):
			case <-ctx.Done():
			}
		}
	}
}

// listen listens on a connection of its own, outside of the pools: it may be
// silent for as long as nothing happens.
func (l *Log) listen(ctx context.Context, ready func(), hint func(datastore.StoreID)) error {
	c, err := pgx.ConnectConfig(ctx, l.alone)
	if err != nil {
		return err
	}
	defer func() {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		c.Close(limit)
	}()
	return l.dialect.Listen(ctx, c, ready, hint)
}
