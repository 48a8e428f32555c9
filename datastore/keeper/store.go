package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
)

// catchUpPage is how many changes one read of a catch-up brings.
const catchUpPage = 1000

// store keeps one store current.
type store struct {
	keeper *Keeper
	id     datastore.StoreID
	log    datastore.Log

	current atomic.Pointer[published]
	used    atomic.Int64 // sinceStart of about the last question or write
	size    atomic.Int64 // about what it took in memory, or would
	tried   atomic.Int64 // sinceStart of the last attempt to enter memory
	loading atomic.Pointer[load]
	swept   atomic.Int64  // sinceStart of the last search for what expired, out of memory
	asked   atomic.Bool   // since it was last confirmed together with others
	behind  atomic.Uint64 // changes known to be there and not followed yet

	publishing sync.Mutex // held to copy the current state and to replace it
	reading    sync.Mutex // held by the catch-up under way

	mu         sync.Mutex
	next       *catchUp // the catch-up that has not begun; callers may still join
	queue      []*pending
	committing bool

	hashes  *lru.Cache[datastore.Revision, datastore.Hash]
	schemas *lru.Cache[string, compiled] // by text
}

// compiled is a schema with the names it was compiled with. Names are only ever
// added, so it serves every revision at which its text is in force.
type compiled struct {
	schema *schema.Schema
	names  *schema.Names
}

// Sizes of what a store remembers of other revisions.
const (
	rememberedHashes  = 4096
	rememberedSchemas = 8
)

// started is what times of confirmation are counted from, by the monotonic clock.
var started = time.Now()

// sinceStart is the monotonic time; never zero.
func sinceStart() int64 { return max(1, int64(time.Since(started))) }

// published is a state with when it was known to be the head's, and a channel
// that is closed when another takes its place.
type published struct {
	*state
	confirmed atomic.Int64 // sinceStart when the confirming read began; zero: never
	replaced  chan struct{}
}

// confirm notes that p held all that was committed at a time.
func (p *published) confirm(at int64) {
	for old := p.confirmed.Load(); old < at && !p.confirmed.CompareAndSwap(old, at); old = p.confirmed.Load() {
	}
}

type catchUp struct {
	done chan struct{}
	err  error
}

func newStore(k *Keeper, id datastore.StoreID) *store {
	hashes, err := lru.New[datastore.Revision, datastore.Hash](rememberedHashes)
	if err != nil {
		panic(err) // the size is positive
	}
	schemas, err := lru.New[string, compiled](rememberedSchemas)
	if err != nil {
		panic(err)
	}
	return &store{keeper: k, id: id, log: k.log, hashes: hashes, schemas: schemas}
}

// recent returns a state that was the head's at most MaxStaleness ago.
func (s *store) recent(ctx context.Context) (*state, error) {
	if p := s.current.Load(); p != nil {
		at := p.confirmed.Load()
		if !s.asked.Load() {
			s.asked.Store(true)
		}
		now := sinceStart()
		s.use(now)
		if p.far != nil {
			s.enterMemory()
		}
		if age := time.Duration(now - at); at != 0 && age < s.keeper.opts.MaxStaleness {
			// So that nobody has to wait on a store in use. Where one read confirms
			// many, it comes first.
			if age > s.keeper.opts.MaxStaleness*3/4 || age > s.keeper.opts.MaxStaleness/2 && !s.keeper.confirming {
				s.join()
			}
			return p.state, nil
		}
	}
	return s.atHead(ctx)
}

// unasked is recent for upkeep, which is no use of the store: it keeps nothing in
// memory that nobody asks for.
func (s *store) unasked(ctx context.Context) (*state, error) {
	if p := s.current.Load(); p != nil {
		if at := p.confirmed.Load(); at != 0 && time.Duration(sinceStart()-at) < s.keeper.opts.MaxStaleness {
			return p.state, nil
		}
	}
	return s.atHead(ctx)
}

// atHead returns a state that was the head's at some time after the call began.
func (s *store) atHead(ctx context.Context) (*state, error) {
	c := s.join()
	if c == nil {
		return nil, datastore.ErrClosed
	}
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

// join returns the catch-up that has not begun yet, and sees to it that there is
// one; nil if the Keeper is closed.
func (s *store) join() *catchUp {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		c := &catchUp{done: make(chan struct{})}
		if !s.keeper.begin(func() { s.run(c) }) {
			return nil
		}
		s.next = c
	}
	return s.next
}

func (s *store) run(c *catchUp) {
	s.reading.Lock()
	defer s.reading.Unlock()
	s.mu.Lock()
	s.next = nil
	s.mu.Unlock()
	defer close(c.done)
	stale := s.current.Load()
	c.err = s.catchUp(s.keeper.ctx)
	if anotherLine(c.err) {
		c.err = s.reload(s.keeper.ctx, stale)
	}
	if errors.Is(c.err, datastore.ErrUnknownOperation) {
		c.err = s.keeper.steppedAside(s.id, c.err)
	}
	c.err = s.keeper.closing(c.err)
}

// steppedAside names the store whose history this node does not understand.
func (k *Keeper) steppedAside(id datastore.StoreID, err error) error {
	name := "system"
	if v, ok := k.stores.Load(datastore.System); ok && id != datastore.System {
		if p := v.(*store).current.Load(); p != nil {
			for _, st := range p.registry.stores {
				if st.ID == id {
					name = st.Name
				}
			}
		}
	}
	return datastore.With(fmt.Errorf("store %q: %w", name, err), "store", name)
}

// anotherLine reports whether an error says that the history is not the one
// known, or goes on too far ahead to be followed.
func anotherLine(err error) bool {
	return errors.Is(err, datastore.ErrForked) || errors.Is(err, datastore.ErrAhead) || errors.Is(err, datastore.ErrCompacted)
}

// closing gives the errors of work that Close cut off their name.
func (k *Keeper) closing(err error) error {
	if err != nil && k.ctx.Err() != nil {
		return datastore.ErrClosed
	}
	return err
}

// renew reloads unless the current state is no longer the stale one.
func (s *store) renew(stale *published) error {
	s.reading.Lock()
	defer s.reading.Unlock()
	if s.current.Load() != stale {
		return nil
	}
	return s.reload(s.keeper.ctx, stale)
}

func (s *store) catchUp(ctx context.Context) error {
	told := time.Now()
	for {
		p := s.current.Load()
		if p == nil {
			return s.reload(ctx, nil)
		}
		begun := sinceStart()
		head, entries, err := s.log.After(ctx, s.id, p.head.Revision, catchUpPage)
		if err != nil {
			return err
		}
		if head.Incarnation != p.head.Incarnation || head.Revision == p.head.Revision && head.Hash != p.head.Hash {
			return datastore.ErrForked
		}
		s.behind.Store(uint64(head.Revision - min(p.head.Revision, head.Revision)))
		if len(entries) > 0 {
			s.keeper.followed.Add(uint64(len(entries)))
			next := s.copy(p.state)
			if err := next.follow(entries); err != nil {
				return err
			}
			next.head.Floor = head.Floor
			p = s.publish(next)
			s.remember(p, entries)
			if time.Since(told) >= tellEvery {
				told = time.Now()
				slog.Info("following the history of a store", "store", s.id, "revision", p.head.Revision, "head", head.Revision)
			}
		}
		if p.head.Revision >= head.Revision {
			s.behind.Store(0)
			s.keeper.catchUps.Add(1)
			p.confirm(begun)
			return nil
		}
		if len(entries) == 0 {
			return fmt.Errorf("%w: change %d of store %d is missing", datastore.ErrCorrupt, p.head.Revision+1, s.id)
		}
	}
}

func (s *store) copy(st *state) *state {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	return st.copy()
}

// publish makes st the current state unless a later one already is, and returns
// the one that is current then.
func (s *store) publish(st *state) *published {
	if st.far != nil {
		st.far = st.far.published(st.head)
	} else if st.crowded() {
		if smaller, err := st.compacted(); err == nil {
			st = smaller
		}
	}
	p := s.advance(st)
	if p.state == st && st.far == nil && !s.keeper.admit(s, st) {
		s.leaveMemory()
	}
	return p
}

// advance is publish without looking at the room it takes. A state that is in
// memory where the current one no longer is, or the other way round, does not
// take its place: who made it catches up.
func (s *store) advance(st *state) *published {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	old := s.current.Load()
	if old != nil && old.head.Incarnation == st.head.Incarnation &&
		(old.head.Revision >= st.head.Revision || (old.far == nil) != (st.far == nil)) {
		return old
	}
	return s.replace(old, st)
}

func (s *store) replace(old *published, st *state) *published {
	st.resident = newResident(st, s.log)
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

// remember keeps the hashes of committed entries, unless the store has left
// their line meanwhile.
func (s *store) remember(p *published, entries []datastore.Entry) {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	if s.current.Load() != p {
		return // whoever needs one reads it
	}
	for _, e := range entries {
		s.hashes.Add(e.Revision, e.Hash)
	}
}

// reload builds the current state anew from the Log, in place of a stale one
// (nil: there is none). reading is held.
func (s *store) reload(ctx context.Context, stale *published) error {
	begun := sinceStart()
	head, err := s.keeper.Head(ctx, s.id)
	if err != nil {
		return err
	}
	if stale != nil {
		s.schemas.Purge() // another line may give names other ids
	}
	st, err := s.load(ctx, head)
	if err != nil {
		return fmt.Errorf("load store %d at revision %d: %w", s.id, head.Revision, err)
	}
	if st.far == nil && !s.keeper.admit(s, st) {
		st = s.farState(st)
	}
	s.publishing.Lock()
	defer s.publishing.Unlock()
	old := s.current.Load()
	if old != stale && old.head.Incarnation == head.Incarnation && old.head.Revision >= head.Revision {
		old.confirm(begun) // a commit of this node was faster
		return nil
	}
	s.hashes.Purge()
	s.replace(old, st).confirm(begun)
	return nil
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
	poll := time.NewTicker(max(k.opts.MaxStaleness/2, time.Millisecond))
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
