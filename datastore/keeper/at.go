package keeper

import (
	"context"
	"errors"
	"fmt"

	"github.com/pembadb/pemba/datastore"
)

// At implements [datastore.Datastore].
func (k *Keeper) At(ctx context.Context, id datastore.StoreID, c datastore.Consistency) (datastore.Snapshot, error) {
	s, err := k.open(id)
	if err != nil {
		return nil, err
	}
	snapshot, err := s.at(ctx, c)
	if errors.Is(err, datastore.ErrNoStore) {
		k.forget(id)
	}
	return snapshot, err
}

func (s *store) at(ctx context.Context, c datastore.Consistency) (datastore.Snapshot, error) {
	switch c.Level {
	case datastore.MinimizeLatency:
		st, err := s.recent(ctx)
		return s.snapshot(ctx, st, err)
	case datastore.FullyConsistent:
		st, err := s.atHead(ctx)
		return s.snapshot(ctx, st, err)
	case datastore.AtLeastAsFresh:
		st, err := s.recent(ctx)
		if err != nil {
			return nil, err
		}
		if _, st, err = s.reach(ctx, st, c.Zookie); st != nil && errors.Is(err, datastore.ErrCompacted) {
			err = nil // older than what is kept is older than st
		}
		return s.snapshot(ctx, st, err)
	case datastore.AtExactSnapshot:
		st, err := s.recent(ctx)
		if err != nil {
			return nil, err
		}
		head, st, err := s.reach(ctx, st, c.Zookie)
		if err != nil {
			return nil, err
		}
		if head.Revision == st.head.Revision {
			return s.snapshot(ctx, st, nil)
		}
		return s.direct(ctx, head, st.line)
	}
	return nil, fmt.Errorf("%w: consistency level %d is unknown", datastore.ErrInvalid, c.Level)
}

func (s *store) snapshot(ctx context.Context, st *state, err error) (datastore.Snapshot, error) {
	if err != nil {
		return nil, err
	}
	if s.keeper.opts.Direct {
		return s.direct(ctx, st.head, nil)
	}
	if st.far != nil {
		return s.directAt(st), nil
	}
	return st.resident, nil
}

// reach checks a zookie and returns its head, with a state at least as new: st,
// or one caught up. ErrCompacted, with a state, says that the zookie's change is
// no longer kept; its incarnation is the right one.
func (s *store) reach(ctx context.Context, st *state, text string) (datastore.Head, *state, error) {
	z, err := datastore.ParseZookie(text)
	if err != nil {
		return datastore.Head{}, nil, err
	}
	if z.Store != s.id {
		return datastore.Head{}, nil, fmt.Errorf("%w: it is of another store", datastore.ErrZookie)
	}
	if z.Revision > st.head.Revision || z.Incarnation != st.head.Incarnation {
		if st, err = s.atHead(ctx); err != nil {
			return datastore.Head{}, nil, err
		}
	}
	if z.Incarnation != st.head.Incarnation {
		return datastore.Head{}, nil, fmt.Errorf("%w (the store was restored or made anew); drop it", datastore.ErrForeignZookie)
	}
	if z.Revision > st.head.Revision {
		return datastore.Head{}, nil, fmt.Errorf("%w, or of changes that were lost: %w", datastore.ErrForeignZookie, datastore.Ahead(z.Revision, st.head.Revision))
	}
	hash, err := s.hashAt(ctx, st, z.Revision)
	if err != nil {
		return datastore.Head{}, st, err
	}
	if hash.Tag() != z.Tag {
		return datastore.Head{}, nil, fmt.Errorf("%w (the store was restored); drop it", datastore.ErrForeignZookie)
	}
	head := st.head
	head.Revision, head.Hash = z.Revision, hash
	return head, st, nil
}

// hashAt returns the hash of a revision at or below st's, with one read where it
// is not remembered. ErrCompacted if it lies below the anchor.
func (s *store) hashAt(ctx context.Context, st *state, r datastore.Revision) (datastore.Hash, error) {
	if r == st.head.Revision {
		return st.head.Hash, nil
	}
	if r == 0 {
		return datastore.Hash{}, nil
	}
	if h, ok := s.hashes.Get(r); ok {
		return h, nil
	}
	_, entries, err := s.log.After(ctx, s.id, r-1, 1)
	if errors.Is(err, datastore.ErrCompacted) {
		if anchor, failed := s.log.Anchor(ctx, s.id); failed == nil && anchor.Revision == r {
			return anchor.Hash, nil
		}
	}
	if err != nil {
		return datastore.Hash{}, err
	}
	if len(entries) == 0 {
		return datastore.Hash{}, fmt.Errorf("revision %d: %w", r, datastore.ErrForked)
	}
	s.publishing.Lock()
	defer s.publishing.Unlock()
	if p := s.current.Load(); p != nil && p.head.Incarnation == st.head.Incarnation {
		s.hashes.Add(r, entries[0].Hash)
	}
	return entries[0].Hash, nil
}

// Zookie implements [datastore.Datastore].
func (k *Keeper) Zookie(ctx context.Context, id datastore.StoreID, text string) (datastore.Revision, error) {
	s, err := k.open(id)
	if err != nil {
		return 0, err
	}
	st, err := s.recent(ctx)
	if err != nil {
		return 0, err
	}
	head, _, err := s.reach(ctx, st, text)
	return head.Revision, err
}
