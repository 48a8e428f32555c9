package keeper

import (
	"context"
	"fmt"
	"iter"

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
		for e, err := range k.Entries(ctx, id, from) {
			var c datastore.Change
			if err == nil {
				c, err = datastore.Open(e)
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

// Entries implements [datastore.Datastore].
func (k *Keeper) Entries(ctx context.Context, id datastore.StoreID, from datastore.Revision) iter.Seq2[datastore.Entry, error] {
	return func(yield func(datastore.Entry, error) bool) {
		page := firstPage
		var line datastore.Incarnation
		for next := max(from, 1); ; {
			var head datastore.Head
			var entries []datastore.Entry
			err := k.settled(ctx, id, func() (err error) {
				head, entries, err = k.log.After(ctx, id, next-1, page)
				return err
			})
			if err == nil && line != (datastore.Incarnation{}) && line != head.Incarnation {
				err = fmt.Errorf("store %d: %w", id, datastore.ErrForked)
			}
			if err != nil {
				yield(datastore.Entry{}, err)
				return
			}
			line, page = head.Incarnation, nextPage(page, entries)
			for _, e := range entries {
				if e.Revision != next {
					break
				}
				if !yield(e, nil) {
					return
				}
				next++
			}
			if next > head.Revision {
				return
			}
			if len(entries) == 0 || entries[len(entries)-1].Revision >= next {
				yield(datastore.Entry{}, datastore.MissingChange(id, next))
				return
			}
		}
	}
}

// Head implements [datastore.Datastore].
func (k *Keeper) Head(ctx context.Context, id datastore.StoreID) (head datastore.Head, err error) {
	err = k.settled(ctx, id, func() error {
		head, err = k.log.Head(ctx, id)
		return err
	})
	return head, err
}

// Oldest implements [datastore.Datastore].
func (k *Keeper) Oldest(ctx context.Context, id datastore.StoreID) (datastore.Revision, error) {
	anchor, err := k.Anchor(ctx, id)
	return anchor.Revision + 1, err
}

// Anchor implements [datastore.Datastore].
func (k *Keeper) Anchor(ctx context.Context, id datastore.StoreID) (anchor datastore.Anchor, err error) {
	err = k.settled(ctx, id, func() (err error) {
		anchor, err = k.log.Anchor(ctx, id)
		return err
	})
	return anchor, err
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
