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
	Line(log Log, store StoreID) RowLine
}

// RowLine remembers rows of one line of a store's history. What it is told of
// changes says for which snapshots they hold.
type RowLine interface {
	// Changed notes that a change, or several, altered the relationships of keys. It
	// is called before any snapshot holds them, in the order of history or more
	// often, and returns the stamp of the snapshots that do.
	Changed(keys iter.Seq[tuple.Key]) Stamp
	// Read is Read of [ManyReader], of a snapshot. Its errors may wrap
	// [ErrOverloaded].
	Read(ctx context.Context, at Position, qs []RowQuery, f func(q int, r Row) bool) error
}

// Stamp is the place of a snapshot among the changes that a [RowLine] was told.
// Zero stands for a snapshot of the past, of which nothing of that kind is known.
type Stamp uint64

// Position says what a snapshot holds.
type Position struct {
	Revision Revision
	Stamp    Stamp
}
