package keeper

import (
	"context"
	"iter"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// tellEvery is how often the log says how far long work on a store has come.
const tellEvery = 5 * time.Second

// load is the reading of a store's relationships into memory. Who began it waits
// for it for a while; then the store is read directly, and the load, when it is
// done, takes its place in memory by itself.
type load struct {
	store  *store
	head   datastore.Head
	begun  time.Time
	count  atomic.Int64 // relationships read so far
	cancel context.CancelFunc

	left     atomic.Bool   // who began it no longer waits, or it is done: who is first
	finished chan struct{} // closed when state and err are set
	state    *state
	err      error
}

// Load is a store that is being read into memory.
type Load struct {
	Store         datastore.StoreID
	Revision      datastore.Revision
	Relationships int64 // read so far
	Begun         time.Time
}

// Loads returns the stores that are being read into memory. Questions to them are
// answered from the Log meanwhile.
func (k *Keeper) Loads() (loads []Load) {
	k.stores.Range(func(_, v any) bool {
		if l := v.(*store).loading.Load(); l != nil {
			loads = append(loads, Load{l.store.id, l.head.Revision, l.count.Load(), l.begun})
		}
		return true
	})
	return loads
}

// load returns the state at a committed head: one in memory if it fits and is
// read soon, and otherwise one that reads from the Log.
func (s *store) load(ctx context.Context, head datastore.Head) (*state, error) {
	st := newState(s.id, head)
	if s.id == datastore.System {
		return st, s.loadRegistry(ctx, st)
	}
	if err := s.loadSchema(ctx, st); err != nil {
		return nil, err
	}
	if err := s.loadWithheld(ctx, st); err != nil {
		return nil, err
	}
	if s.keeper.bounded() && s.size.Load() > s.keeper.room(s) {
		return s.farState(st), nil
	}
	st.line = s.newLine(head)
	direct := s.farState(st)
	l, err := s.beginLoad(st, false)
	if err != nil {
		return nil, err
	}
	patience := time.NewTimer(s.keeper.opts.LoadPatience)
	defer patience.Stop()
	select {
	case <-l.finished:
	case <-patience.C:
		if l.left.CompareAndSwap(false, true) {
			return direct, nil
		}
		<-l.finished
	}
	return l.state, l.err
}

// loadRegistry follows the history of the store system, which is all it has.
func (s *store) loadRegistry(ctx context.Context, st *state) error {
	head := st.head
	for c, err := range s.keeper.History(ctx, s.id, 1) {
		if err != nil {
			return err
		}
		if c.Revision > head.Revision {
			break
		}
		if err := st.apply(c); err != nil {
			return err
		}
	}
	st.head = head
	return nil
}

// beginLoad reads a store's relationships into st, in the background; left tells
// that nobody will wait for it. It ends a load that is still under way: that is of
// a state of before. reading is held.
func (s *store) beginLoad(st *state, left bool) (*load, error) {
	ctx, cancel := context.WithCancel(s.keeper.ctx)
	l := &load{store: s, head: st.head, begun: time.Now(), cancel: cancel, finished: make(chan struct{})}
	l.left.Store(left)
	if old := s.loading.Swap(l); old != nil {
		old.cancel()
	}
	if s.keeper.begin(func() { l.run(ctx, st) }) {
		return l, nil
	}
	cancel()
	return nil, datastore.ErrClosed
}

func (l *load) run(ctx context.Context, st *state) {
	s := l.store
	defer l.cancel()
	l.state, l.err = l.rows(ctx, st)
	if l.left.CompareAndSwap(false, true) {
		s.loading.CompareAndSwap(l, nil)
		close(l.finished)
		return
	}
	defer s.loading.CompareAndSwap(l, nil)
	s.reading.Lock()
	//lint:ignore SA2001 whoever left publishes a state that reads from the Log first
	s.reading.Unlock()
	err := l.err
	if err == nil && l.state.far == nil {
		err = s.enter(ctx, l.state)
	}
	if err != nil {
		if p := s.current.Load(); p == nil || p.far != nil {
			s.keeper.release(s) // it is tried again
		}
		if ctx.Err() == nil {
			slog.Warn("a store could not be read into memory; it is read directly, and tried again", "store", s.id, "error", err)
		}
		return
	}
	if time.Since(l.begun) < time.Second {
		return
	}
	slog.Info("a store is in memory", "store", s.id, "revision", l.head.Revision, "relationships", l.count.Load(),
		"seconds", time.Since(l.begun).Round(time.Millisecond).Seconds())
}

// rows reads a store's relationships into st, or gives up when they turn out to
// be more than there is room for.
func (l *load) rows(ctx context.Context, st *state) (*state, error) {
	s := l.store
	room, most, tooLarge := s.keeper.room(s), s.keeper.maxRelationships(), false
	told := l.begun
	var failed error
	rows := iter.Seq[tuple.Relationship](func(yield func(tuple.Relationship) bool) {
		failed = s.log.Rows(ctx, s.id, st.head.Revision, datastore.RowQuery{}, func(r datastore.Row) bool {
			count := l.count.Add(1)
			if count > int64(most) {
				tooLarge = true
				s.size.Store(math.MaxInt64)
			} else if count%1024 == 0 {
				if size := count*edgeBytes + st.dict.weight(); size > room {
					tooLarge = true
					s.size.Store(size)
				}
				if time.Since(told) >= tellEvery {
					told = time.Now()
					slog.Info("reading a store into memory", "store", s.id, "revision", st.head.Revision, "relationships", count)
				}
			}
			return !tooLarge && yield(r.Relationship)
		})
	})
	if err := st.load(rows); err != nil {
		return nil, err
	}
	if failed == nil && tooLarge {
		return s.farState(st), nil
	}
	return st, failed
}

// loadSchema gives st the store's names and the schema in force at its revision.
func (s *store) loadSchema(ctx context.Context, st *state) error {
	names, err := s.log.Names(ctx, s.id)
	if err != nil {
		return err
	}
	text, err := s.log.Schema(ctx, s.id, st.head.Revision)
	if err != nil {
		return err
	}
	if text != nil {
		if c, ok := s.schemas.Get(text.Text); ok {
			st.text, st.schema, st.names = text, c.schema, c.names
			return nil
		}
	}
	for _, n := range names {
		if _, err := st.names.Add(n); err != nil {
			return err
		}
	}
	if text == nil {
		return nil
	}
	if err := st.applySchema(&datastore.SchemaText{Text: text.Text, Hash: text.Hash}); err != nil {
		return err
	}
	s.schemas.Add(text.Text, compiled{st.schema, st.names})
	return nil
}
