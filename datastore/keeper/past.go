package keeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pembadb/pemba/datastore"
)

// HeadBefore implements [datastore.Datastore].
func (k *Keeper) HeadBefore(ctx context.Context, id datastore.StoreID, at time.Time) (head datastore.Head, err error) {
	err = k.settled(ctx, id, func() (err error) {
		head, err = headBefore(ctx, k.log, id, at)
		return err
	})
	return head, err
}

// headBefore searches a history by halves: the times of changes never decrease.
func headBefore(ctx context.Context, log datastore.Log, id datastore.StoreID, at time.Time) (datastore.Head, error) {
	head, err := log.Head(ctx, id)
	if err != nil || head.Revision == 0 || !head.Time.After(at) {
		return head, err
	}
	anchor, err := log.Anchor(ctx, id)
	if err != nil {
		return datastore.Head{}, err
	}
	found, high := head, head.Revision
	found.Revision, found.Hash, found.Time = anchor.Revision, anchor.Hash, time.Time{}
	for high-found.Revision > 1 {
		middle := found.Revision + (high-found.Revision)/2
		c, err := changeAt(ctx, log, id, middle)
		if err != nil {
			return datastore.Head{}, err
		}
		if c.Time.After(at) {
			high = middle
		} else {
			found.Revision, found.Hash, found.Time = c.Revision, c.Hash, c.Time
		}
	}
	if found.Revision == anchor.Revision && anchor.Revision > 0 {
		// When the change at the anchor was made, nobody knows any more.
		return datastore.Head{}, fmt.Errorf("the history begins after %s: %w", at.UTC().Format(time.RFC3339Nano), datastore.Compacted(anchor.Revision, anchor.Revision+1))
	}
	return found, nil
}

// changeAt reads one change.
func changeAt(ctx context.Context, log datastore.Log, id datastore.StoreID, at datastore.Revision) (datastore.Change, error) {
	_, entries, err := log.After(ctx, id, at-1, 1)
	if err != nil {
		return datastore.Change{}, err
	}
	if len(entries) == 0 || entries[0].Revision != at {
		return datastore.Change{}, datastore.MissingChange(id, at)
	}
	return datastore.Open(entries[0])
}

// AtRevision implements [datastore.Datastore].
func (k *Keeper) AtRevision(ctx context.Context, id datastore.StoreID, r datastore.Revision) (datastore.Snapshot, error) {
	s, err := k.open(id)
	if err != nil {
		return nil, err
	}
	st, err := s.recent(ctx)
	if err == nil && r > st.head.Revision {
		st, err = s.atHead(ctx)
	}
	switch {
	case errors.Is(err, datastore.ErrNoStore):
		k.forget(id)
		return nil, err
	case err != nil:
		return nil, err
	case r > st.head.Revision:
		return nil, datastore.Ahead(r, st.head.Revision)
	case r == st.head.Revision:
		return s.snapshot(ctx, st, nil)
	}
	if r >= st.head.Floor {
		head := st.head
		head.Revision = r
		if head.Hash, err = s.hashAt(ctx, st, r); err != nil {
			return nil, err
		}
		snapshot, err := s.direct(ctx, head, st.line)
		if !errors.Is(err, datastore.ErrCompacted) {
			return snapshot, err
		}
	}
	return s.replay(ctx, st.head, r)
}

// replayKept is how long a replayed state waits for the next question about it.
const replayKept = time.Minute

// replays are the states of the past that a Keeper made by following a history
// from its first change: one is made at a time, and the last is kept for a while.
type replays struct {
	turn chan struct{} // holds one while a state is made
	kept *state        // by whoever has the turn, and by the timer
	drop *time.Timer
}

func newReplays() *replays { return &replays{turn: make(chan struct{}, 1)} }

func (r *replays) begin(ctx context.Context) error {
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *replays) end() { <-r.turn }

// keep remembers a state for a while; who calls has the turn.
func (r *replays) keep(st *state) {
	if r.drop != nil {
		r.drop.Stop()
	}
	r.kept = st
	r.drop = time.AfterFunc(replayKept, func() {
		r.turn <- struct{}{}
		defer r.end()
		if r.kept == st {
			r.kept = nil
		}
	})
}

// from is where to begin to follow a history up to a revision: at the kept state
// if it lies on the way.
func (r *replays) from(id datastore.StoreID, line datastore.Incarnation, upTo datastore.Revision) *state {
	if k := r.kept; k != nil && k.store == id && k.head.Incarnation == line && k.head.Revision <= upTo {
		if k.head.Revision == upTo {
			return k
		}
		return k.copy()
	}
	return newState(id, datastore.Head{Incarnation: line})
}

// replay returns a snapshot of a revision below the floor: what its history says
// from the first change on. Its rows for listing are gone.
func (s *store) replay(ctx context.Context, head datastore.Head, r datastore.Revision) (datastore.Snapshot, error) {
	replays := s.keeper.replays
	if err := replays.begin(ctx); err != nil {
		return nil, err
	}
	defer replays.end()
	st := replays.from(s.id, head.Incarnation, r)
	defer func() { replays.keep(st) }() // who gave up and asks again goes on from here
	for size := firstPage; st.head.Revision < r; {
		now, entries, err := s.log.After(ctx, s.id, st.head.Revision, min(size, int(r-st.head.Revision)))
		switch {
		case errors.Is(err, datastore.ErrCompacted):
			return nil, datastore.With(fmt.Errorf("revision %d lies before the retention window, and the history that led to it was trimmed: %w", r, err),
				"oldest", fmt.Sprint(head.Floor))
		case err != nil:
			return nil, err
		case now.Incarnation != head.Incarnation:
			return nil, fmt.Errorf("store %d: %w", s.id, datastore.ErrForked)
		case len(entries) == 0:
			return nil, datastore.MissingChange(s.id, st.head.Revision+1)
		}
		next, err := s.replayed(st, entries)
		if err != nil {
			st = nil // it is halfway between two changes, or too large to keep
			return nil, err
		}
		st, size = next, nextPage(size, entries)
	}
	return newResident(st, s.log), nil
}

// replayed carries out entries, each of which must link to the one before.
func (s *store) replayed(st *state, entries []datastore.Entry) (*state, error) {
	for _, e := range entries {
		if e.Revision != st.head.Revision+1 {
			return nil, datastore.MissingChange(s.id, st.head.Revision+1)
		}
		if err := datastore.VerifyLink(st.head.Hash, e); err != nil {
			return nil, datastore.BrokenAt(e.Revision, err)
		}
		c, err := datastore.Open(e)
		if err != nil {
			return nil, datastore.BrokenAt(e.Revision, err)
		}
		if err := st.apply(c); err != nil {
			return nil, err
		}
	}
	if st.crowded() {
		var err error
		if st, err = st.compacted(); err != nil {
			return nil, err
		}
	}
	if most := s.keeper.opts.ReplayMemory; st.size() > most {
		return nil, datastore.With(fmt.Errorf("%w: at revision %d already more than %d bytes (replay-memory); raise the limit, or ask about a time inside the retention window",
			datastore.ErrReplay, st.head.Revision, most), "limit", "replay-memory", "maximum", fmt.Sprint(most))
	}
	return st, nil
}
