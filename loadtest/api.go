package loadtest

import (
	"context"
	"iter"

	"google.golang.org/grpc"

	"github.com/pembadb/pemba/tuple"
)

// Level is a consistency that a load asks at.
type Level string

const (
	MinimizeLatency Level = "minimize_latency"
	FullyConsistent Level = "fully_consistent"
	// AtLeastAsFresh asks with the newest zookie that the caller has seen.
	AtLeastAsFresh Level = "at_least_as_fresh"
)

// Levels are all there are.
var Levels = []Level{MinimizeLatency, FullyConsistent, AtLeastAsFresh}

// Consistency is a level with a zookie where it needs one; without one,
// AtLeastAsFresh is MinimizeLatency.
type Consistency struct {
	Level  Level
	Zookie string
}

// API is how a server is spoken to. Its methods are safe for concurrent use.
type API interface {
	// Prepare makes the store where it is missing and applies a schema.
	Prepare(ctx context.Context, schema string) error
	// Holds reports whether a relationship is there.
	Holds(ctx context.Context, r tuple.Relationship) (bool, error)
	// Import writes relationships and tells how far it has come.
	Import(ctx context.Context, all iter.Seq[tuple.Relationship], progress func(written int)) error
	Check(ctx context.Context, c Consistency, q Question) (has bool, zookie string, err error)
	// Bulk asks many questions in one call; answers are in their order.
	Bulk(ctx context.Context, c Consistency, qs []Question) ([]bool, error)
	// Lookup calls first when the first result is there, and returns the ids as they
	// came.
	Lookup(ctx context.Context, c Consistency, l Lookup, first func()) ([]string, error)
	// Share and Unshare write one relationship between a place and a subject, or
	// delete it.
	Share(ctx context.Context, p Place, s tuple.Subject) (zookie string, err error)
	Unshare(ctx context.Context, p Place, s tuple.Subject) (zookie string, err error)
	// Watch yields the zookie of each change from now on until ctx ends. started is
	// called once nothing that follows can be missed.
	Watch(ctx context.Context, started func()) iter.Seq2[string, error]
}

// Dialect makes an API of a connection and the name of a store.
type Dialect func(conn *grpc.ClientConn, store string) API

// Dialects are the APIs by name.
var Dialects = map[string]Dialect{"pemba": newPemba, "authzed": newAuthzed}

// importBatch is how many relationships one message of an import holds.
const importBatch = 1000

// relationship is the one that shares p with s.
func (p Place) relationship(s tuple.Subject) tuple.Relationship {
	return tuple.Relationship{Key: tuple.Key{Object: p.Resource, Relation: p.Relation, Subject: s}}
}

// batches calls send with relationships, some at a time.
func batches[M any](all iter.Seq[tuple.Relationship], wire func(tuple.Relationship) M, send func([]M) error) error {
	batch := make([]M, 0, importBatch)
	for r := range all {
		if batch = append(batch, wire(r)); len(batch) == importBatch {
			if err := send(batch); err != nil {
				return err
			}
			batch = make([]M, 0, importBatch)
		}
	}
	if len(batch) == 0 {
		return nil
	}
	return send(batch)
}
