package keeper

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// catchUpPage is how many changes one read of a catch-up brings.
const catchUpPage = 1000

// store keeps one store current.
type store struct {
	keeper *Keeper
	id     datastore.StoreID
	log    datastore.Log

	current atomic.Pointer[published]

	publishing sync.Mutex // held to copy the current state and to replace it
	reading    sync.Mutex // held by the catch-up under way

	mu         sync.Mutex
	next       *catchUp // the catch-up that has not begun; callers may still join
	queue      []*pending
	committing bool

	hashes *lru.Cache[datastore.Revision, datastore.Hash]
}

// published is a state with when it was known to be the head's, and a channel
// that is closed when another takes its place.
type published struct {
	*state
	confirmed atomic.Int64 // Unix nanoseconds of the start of the confirming read
	replaced  chan struct{}
}

type catchUp struct {
	done chan struct{}
	err  error
}

func newStore(k *Keeper, id datastore.StoreID) *store {
	hashes, err := lru.New[datastore.Revision, datastore.Hash](4096)
	if err != nil {
		panic(err) // the size is positive
	}
	return &store{keeper: k, id: id, log: k.log, hashes: hashes}
}

// recent returns a state that was the head's at most MaxStaleness ago.
func (s *store) recent(ctx context.Context) (*state, error) {
	if p := s.current.Load(); p != nil && time.Since(time.Unix(0, p.confirmed.Load())) < s.keeper.opts.MaxStaleness {
		return p.state, nil
	}
	return s.atHead(ctx)
}

// atHead returns a state that was the head's at some time after the call began.
func (s *store) atHead(ctx context.Context) (*state, error) {
	s.mu.Lock()
	c := s.next
	if c == nil {
		c = &catchUp{done: make(chan struct{})}
		if !s.keeper.begin(func() { s.run(c) }) {
			s.mu.Unlock()
			return nil, datastore.ErrClosed
		}
		s.next = c
	}
	s.mu.Unlock()
	select {
	case <-c.done:
		if c.err != nil {
			return nil, c.err
		}
		return s.current.Load().state, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *store) run(c *catchUp) {
	s.reading.Lock()
	defer s.reading.Unlock()
	s.mu.Lock()
	s.next = nil
	s.mu.Unlock()
	c.err = s.catchUp(s.keeper.ctx)
	if errors.Is(c.err, datastore.ErrForked) || errors.Is(c.err, datastore.ErrAhead) || errors.Is(c.err, datastore.ErrCompacted) {
		c.err = s.reload(s.keeper.ctx) // the history is another, or goes on too far ahead
	}
	close(c.done)
}

func (s *store) catchUp(ctx context.Context) error {
	for {
		p := s.current.Load()
		if p == nil {
			return s.reload(ctx)
		}
		begun := time.Now()
		head, entries, err := s.log.After(ctx, s.id, p.head.Revision, catchUpPage)
		if err != nil {
			return err
		}
		if head.Incarnation != p.head.Incarnation || head.Revision == p.head.Revision && head.Hash != p.head.Hash {
			return datastore.ErrForked
		}
		if len(entries) > 0 {
			next := s.copy(p.state)
			if err := next.follow(entries); err != nil {
				return err
			}
			next.head.Floor = head.Floor
			p = s.publish(next)
		}
		if p.head.Revision >= head.Revision {
			p.confirmed.Store(begun.UnixNano())
			return nil
		}
	}
}

func (s *store) copy(st *state) *state {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	return st.copy()
}

// publish makes st the current state unless a later one already is, and returns
// the current one.
func (s *store) publish(st *state) *published {
	if st.crowded() {
		if smaller, err := st.compacted(); err == nil {
			st = smaller
		}
	}
	s.publishing.Lock()
	defer s.publishing.Unlock()
	old := s.current.Load()
	if old != nil && old.head.Incarnation == st.head.Incarnation && old.head.Revision >= st.head.Revision {
		return old
	}
	return s.replace(old, st)
}

func (s *store) replace(old *published, st *state) *published {
	p := &published{state: st, replaced: make(chan struct{})}
	s.hashes.Add(st.head.Revision, st.head.Hash)
	if old != nil {
		p.confirmed.Store(old.confirmed.Load())
	}
	s.current.Store(p)
	if old != nil {
		close(old.replaced)
	}
	return p
}

// reload builds the current state anew from the Log.
func (s *store) reload(ctx context.Context) error {
	begun := time.Now()
	head, err := s.log.Head(ctx, s.id)
	if err != nil {
		return err
	}
	st, err := s.load(ctx, head)
	if err != nil {
		return fmt.Errorf("load store %d at revision %d: %w", s.id, head.Revision, err)
	}
	s.publishing.Lock()
	defer s.publishing.Unlock()
	old := s.current.Load()
	if old != nil && old.head.Incarnation != head.Incarnation {
		s.hashes.Purge()
	}
	s.replace(old, st).confirmed.Store(begun.UnixNano())
	return nil
}

func (s *store) load(ctx context.Context, head datastore.Head) (*state, error) {
	st := newState(s.id, head)
	if s.id == datastore.System {
		for c, err := range s.keeper.History(ctx, s.id, 1) {
			if err != nil {
				return nil, err
			}
			if c.Revision > head.Revision {
				break
			}
			if err := st.apply(c); err != nil {
				return nil, err
			}
		}
		st.head = head
		return st, nil
	}
	if err := s.loadSchema(ctx, st); err != nil {
		return nil, err
	}
	var failed error
	rows := iter.Seq[tuple.Relationship](func(yield func(tuple.Relationship) bool) {
		failed = s.log.Rows(ctx, s.id, head.Revision, datastore.RowQuery{}, func(r datastore.Row) bool { return yield(r.Relationship) })
	})
	if err := st.load(rows); err != nil {
		return nil, err
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
	for _, n := range names {
		if _, err := st.names.Add(n); err != nil {
			return err
		}
	}
	if text == nil {
		return nil
	}
	return st.applySchema(&datastore.SchemaText{Text: text.Text, Hash: text.Hash})
}

// Wait implements [datastore.Datastore]. It wakes at once for what this node
// commits, and every half MaxStaleness for what others do.
func (k *Keeper) Wait(ctx context.Context, id datastore.StoreID, beyond datastore.Revision) (datastore.Head, error) {
	s, err := k.open(id)
	if err != nil {
		return datastore.Head{}, err
	}
	if _, err := s.recent(ctx); err != nil {
		return datastore.Head{}, err
	}
	poll := time.NewTicker(k.opts.MaxStaleness / 2)
	defer poll.Stop()
	for {
		p := s.current.Load()
		if p.head.Revision > beyond {
			return p.head, nil
		}
		select {
		case <-p.replaced:
		case <-poll.C:
			if _, err := s.atHead(ctx); err != nil {
				return datastore.Head{}, err
			}
		case <-ctx.Done():
			return p.head, ctx.Err()
		case <-k.ctx.Done():
			return p.head, datastore.ErrClosed
		}
	}
}
