package keeper

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"

	"github.com/pembadb/pemba/datastore"
)

// How many changes are read at once: few at first, because one may be large,
// and more while a page stays small.
const (
	firstPage   = 16
	historyPage = 256
	pageBytes   = 4 << 20
)

// nextPage is how many changes to read after a page of that many.
func nextPage(page int, entries []datastore.Entry) int {
	size := 0
	for _, e := range entries {
		size += len(e.Payload)
	}
	if size > pageBytes {
		return max(1, page/2)
	}
	return min(2*page, historyPage)
}

// History implements [datastore.Datastore].
func (k *Keeper) History(ctx context.Context, id datastore.StoreID, from datastore.Revision) iter.Seq2[datastore.Change, error] {
	return func(yield func(datastore.Change, error) bool) {
		page := firstPage
		var line datastore.Incarnation
		for next := max(from, 1); ; {
			head, entries, err := k.log.After(ctx, id, next-1, page)
			if err == nil && line != (datastore.Incarnation{}) && line != head.Incarnation {
				err = fmt.Errorf("store %d: %w", id, datastore.ErrForked)
			}
			if err != nil {
				yield(datastore.Change{}, err)
				return
			}
			line, page = head.Incarnation, nextPage(page, entries)
			for _, e := range entries {
				c, err := datastore.Open(e)
				if !yield(c, err) || err != nil {
					return
				}
			}
			next += datastore.Revision(len(entries))
			if next > head.Revision || len(entries) == 0 {
				return
			}
		}
	}
}

// Head implements [datastore.Datastore].
func (k *Keeper) Head(ctx context.Context, id datastore.StoreID) (datastore.Head, error) {
	return k.log.Head(ctx, id)
}

// Oldest implements [datastore.Datastore].
func (k *Keeper) Oldest(ctx context.Context, id datastore.StoreID) (datastore.Revision, error) {
	anchor, err := k.log.Anchor(ctx, id)
	return anchor.Revision + 1, err
}

// HeadAt implements [datastore.Datastore].
func (k *Keeper) HeadAt(ctx context.Context, id datastore.StoreID, r datastore.Revision) (datastore.Head, error) {
	s, err := k.open(id)
	if err != nil {
		return datastore.Head{}, err
	}
	st, err := s.recent(ctx)
	if err == nil && r > st.head.Revision {
		st, err = s.atHead(ctx)
	}
	if err != nil {
		return datastore.Head{}, err
	}
	if r > st.head.Revision {
		return datastore.Head{}, datastore.Ahead(r, st.head.Revision)
	}
	head := st.head
	head.Revision = r
	head.Hash, err = s.hashAt(ctx, st, r)
	return head, err
}

// Verify implements [datastore.Datastore].
func (k *Keeper) Verify(ctx context.Context, id datastore.StoreID, report func(datastore.Verification) error) (datastore.Verification, error) {
	head, err := k.log.Head(ctx, id)
	if err != nil {
		return datastore.Verification{}, err
	}
	anchor, err := k.log.Anchor(ctx, id)
	if err != nil {
		return datastore.Verification{}, err
	}
	v := datastore.Verification{Head: head, Anchor: anchor, Verified: anchor.Revision, Hash: anchor.Hash}
	page := firstPage
	for v.Verified < head.Revision {
		_, entries, err := k.log.After(ctx, id, v.Verified, page)
		if errors.Is(err, datastore.ErrCompacted) { // it was trimmed meanwhile: begin anew
			return k.Verify(ctx, id, report)
		}
		if err != nil {
			return v, fmt.Errorf("read the history behind revision %d: %w", v.Verified, err)
		}
		if err := walk(&v, entries); err != nil {
			return v, err
		}
		if report != nil {
			if err := report(v); err != nil {
				return v, err
			}
		}
		page = nextPage(page, entries)
	}
	if v.Hash != head.Hash {
		return v, broken(head.Revision, fmt.Errorf("%w: the head's hash is not that of change %d", datastore.ErrCorrupt, head.Revision))
	}
	return v, nil
}

// walk verifies entries that follow v, up to v's head.
func walk(v *datastore.Verification, entries []datastore.Entry) error {
	if len(entries) == 0 {
		return broken(v.Verified+1, fmt.Errorf("%w: change %d is missing", datastore.ErrCorrupt, v.Verified+1))
	}
	for _, e := range entries {
		if v.Verified == v.Head.Revision {
			return nil // made meanwhile
		}
		if e.Revision != v.Verified+1 {
			return broken(v.Verified+1, fmt.Errorf("%w: change %d is missing", datastore.ErrCorrupt, v.Verified+1))
		}
		if err := datastore.VerifyLink(v.Hash, e); err != nil {
			return broken(e.Revision, err)
		}
		v.Verified, v.Hash = e.Revision, e.Hash
	}
	return nil
}

// broken names the revision at which a chain is broken.
func broken(at datastore.Revision, err error) error {
	return datastore.With(err, "revision", strconv.FormatUint(uint64(at), 10))
}
