package datastore

import (
	"context"
	"time"
)

// ManyReader is a Log that answers many queries in one round trip.
type ManyReader interface {
	// Read is Rows for many queries: f gets the place of a row's query, and false
	// ends that query only. Rows of different queries come in any order, those of
	// one in its own.
	Read(ctx context.Context, store StoreID, at Revision, qs []RowQuery, f func(q int, r Row) bool) error
}

// HeadsReader is a Log that reads many heads in one round trip.
type HeadsReader interface {
	// Heads returns the heads of stores; those that have no line of history are
	// left out.
	Heads(ctx context.Context, stores []StoreID) (map[StoreID]Head, error)
}

// Leaser is a Log that several nodes share, and that tells which of them does what
// one does for all. A lease saves double work and nothing else: two that hold it
// do no harm.
type Leaser interface {
	// Lease takes or renews the lease of a name for a while, and reports whether
	// holder has it.
	Lease(ctx context.Context, name, holder string, ttl time.Duration) (bool, error)
}

// ReadMany answers many queries: in one round trip where the Log is a
// [ManyReader], and one after another otherwise.
func ReadMany(ctx context.Context, log Log, store StoreID, at Revision, qs []RowQuery, f func(q int, r Row) bool) error {
	if many, ok := log.(ManyReader); ok {
		return many.Read(ctx, store, at, qs, f)
	}
	for i, q := range qs {
		if err := log.Rows(ctx, store, at, q, func(r Row) bool { return f(i, r) }); err != nil {
			return err
		}
	}
	return nil
}
