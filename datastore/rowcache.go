package datastore

import (
	"context"
	"iter"

	"github.com/pembadb/pemba/tuple"
)

// RowCache remembers rows of stores that are read from their Log. One serves all
// stores of a process.
type RowCache interface {
	// Line begins to remember a line of a store's history.
	Line(log Log, store StoreID, incarnation Incarnation) RowLine
}

// RowLine remembers rows of one line of a store's history. What it is told of
// changes says for which snapshots they hold.
type RowLine interface {
	// Changed notes what the changes after a revision, up to a head, made of the
	// relationships of keys: nil stands for one that is there no more. It is called
	// before any snapshot holds them, each time from a revision that was given
	// before, perhaps more than once for the same changes, and returns the stamp of
	// the snapshots that hold them. The first call is from the line's first head to
	// itself.
	Changed(from Revision, to Head, relationships iter.Seq2[tuple.Key, *tuple.Relationship]) Stamp
	// Read is Read of [ManyReader], of a snapshot. Its errors may wrap
	// [ErrOverloaded]. It does not tell in which revision a row was created.
	Read(ctx context.Context, at Position, qs []RowQuery, f func(q int, r Row) bool) error
}

// Stamp is the place of a snapshot among the changes that a [RowLine] was told.
// Zero stands for a snapshot of the past, of which nothing of that kind is known.
type Stamp uint64

// Position says what a snapshot holds.
type Position struct {
	Revision Revision
	Hash     Hash // of the change at Revision
	Stamp    Stamp
}
