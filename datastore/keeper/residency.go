package keeper

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/pembadb/pemba/datastore"
)

// residency says which stores are in memory, and how much they take.
type residency struct {
	mu    sync.Mutex
	sizes map[*store]int64
}

// use notes that a store is asked or written to.
func (s *store) use(now int64) {
	const precision = int64(50 * time.Millisecond)
	if now-s.used.Load() > precision {
		s.used.Store(now)
	}
}

// bounded reports whether memory is bounded at all.
func (k *Keeper) bounded() bool {
	return k.opts.ResidentMemory > 0 || k.opts.ResidentMaxRelationships > 0
}

func (k *Keeper) memory() int64 {
	if k.opts.ResidentMemory == 0 {
		return math.MaxInt64
	}
	return k.opts.ResidentMemory
}

func (k *Keeper) maxRelationships() int {
	if k.opts.ResidentMaxRelationships == 0 {
		return math.MaxInt
	}
	return k.opts.ResidentMaxRelationships
}

// displaceable reports whether a store may make room for another: not system,
// and not one that is in use.
func (s *store) displaceable(now int64) bool {
	return s.id != datastore.System && now-s.used.Load() >= int64(s.keeper.opts.ResidentIdle)
}

// room is how many bytes a store may take, others displaced where they may be.
func (k *Keeper) room(s *store) int64 {
	k.resident.mu.Lock()
	defer k.resident.mu.Unlock()
	left, now := k.memory(), sinceStart()
	for other, size := range k.resident.sizes {
		if other != s && !other.displaceable(now) {
			left -= size
		}
	}
	return left
}

// admit notes that a state takes its place in memory, and displaces the least
// recently used stores for it; false if there is no room all the same.
func (k *Keeper) admit(s *store, st *state) bool {
	if !k.bounded() {
		return true
	}
	size, now := st.size(), sinceStart()
	s.size.Store(size)
	var displaced []*store
	k.resident.mu.Lock()
	k.resident.sizes[s] = size
	total := int64(0)
	for _, n := range k.resident.sizes {
		total += n
	}
	fits := s.id == datastore.System || st.forward.len() <= k.maxRelationships()
	for fits && total > k.memory() {
		var victim *store
		for other := range k.resident.sizes {
			if other != s && other.displaceable(now) && (victim == nil || other.used.Load() < victim.used.Load()) {
				victim = other
			}
		}
		if victim == nil {
			fits = s.id == datastore.System
			break
		}
		total -= k.resident.sizes[victim]
		delete(k.resident.sizes, victim)
		displaced = append(displaced, victim)
	}
	if !fits {
		delete(k.resident.sizes, s)
	}
	k.resident.mu.Unlock()
	for _, victim := range displaced {
		victim.leaveMemory()
	}
	return fits
}

// ResidentBytes is about how many bytes the stores in memory take; zero where
// nothing bounds them.
func (k *Keeper) ResidentBytes() (total int64) {
	k.resident.mu.Lock()
	defer k.resident.mu.Unlock()
	for _, n := range k.resident.sizes {
		total += n
	}
	return total
}

// release notes that a store is no longer in memory.
func (k *Keeper) release(s *store) {
	k.resident.mu.Lock()
	defer k.resident.mu.Unlock()
	delete(k.resident.sizes, s)
}

// leaveMemory puts a state that reads from the Log in the place of the one in
// memory, at the same revision. Snapshots of the old one live as long as they
// are held.
func (s *store) leaveMemory() {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	if old := s.current.Load(); old != nil && old.far == nil {
		s.replace(old, s.farState(old.state))
	}
}

// enterMemory loads a store that is read from the Log, in the background, if
// there seems to be room for it; at most one attempt for each ResidentIdle.
func (s *store) enterMemory() {
	now := sinceStart()
	last := s.tried.Load()
	if s.loading.Load() != nil || now-last < int64(s.keeper.opts.ResidentIdle) || !s.tried.CompareAndSwap(last, now) {
		return
	}
	if size := s.size.Load(); size > s.keeper.room(s) {
		return
	}
	s.keeper.begin(func() {
		if err := s.moveToMemory(s.keeper.ctx); err != nil && s.keeper.ctx.Err() == nil {
			slog.Warn("a store could not be read into memory; it is read directly, and tried again", "store", s.id, "error", err)
		}
	})
}

// moveToMemory begins to load the state at the current head, in the place of one
// that reads from the Log.
func (s *store) moveToMemory(ctx context.Context) error {
	s.reading.Lock()
	defer s.reading.Unlock()
	p := s.current.Load()
	if p == nil || p.far == nil || s.loading.Load() != nil {
		return nil
	}
	st := newState(s.id, p.head)
	st.line = s.newLine(p.head)
	if err := s.loadSchema(ctx, st); err != nil {
		return err
	}
	if err := s.loadWithheld(ctx, st); err != nil {
		return err
	}
	_, err := s.beginLoad(st, true)
	return err
}

// enter follows what came after a loaded state until it can take the place of the
// current one, if there is room for it.
func (s *store) enter(ctx context.Context, st *state) error {
	if !s.keeper.admit(s, st) {
		return nil
	}
	for !s.takeOver(st) {
		head, entries, err := s.log.After(ctx, s.id, st.head.Revision, catchUpPage)
		if err != nil {
			return err
		}
		if head.Incarnation != st.head.Incarnation {
			return datastore.ErrForked
		}
		if err := st.follow(entries); err != nil {
			return err
		}
		st.head.Floor = head.Floor
	}
	return nil
}

// takeOver publishes st in the place of a state that reads from the Log, if it
// is at least as new; true if there is nothing left to do.
func (s *store) takeOver(st *state) bool {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	old := s.current.Load()
	if old == nil || old.far == nil || old.head.Incarnation != st.head.Incarnation {
		return true // it is in memory by other means, or another line
	}
	if st.head.Revision < old.head.Revision {
		return false
	}
	s.replace(old, st)
	return true
}
