package keeper

import (
	"context"
	"maps"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// far is what a state knows whose relationships are not in memory: where to read
// them, and what changed since. Writes are judged by it as by a state in memory,
// at the price of reads while the head is held.
type far struct {
	ctx   context.Context // ends with the Keeper
	log   datastore.Log
	store datastore.StoreID
	at    datastore.Revision
	line  datastore.RowLine // nil: nothing is remembered
	stamp datastore.Stamp
	// known are relationships read at that revision, changed those written after
	// it; nil stands for one that is not there.
	known, changed map[tuple.Key]*tuple.Relationship
	// err is the first read that failed. What was found since means nothing.
	err error
}

// farState returns a state at a committed head that reads from the Log, with
// the schema and names of st.
func (s *store) farState(st *state) *state {
	f := newState(s.id, st.head)
	f.schema, f.text, f.names, f.withheld = st.schema, st.text, st.names, st.withheld.Copy()
	f.far = &far{ctx: s.keeper.ctx, log: s.log, store: s.id, at: st.head.Revision}
	f.line = s.newLine(st.head)
	if f.far.line = f.line; f.line != nil {
		f.far.stamp = f.line.Changed(st.head.Revision, st.head, maps.All(f.far.changed))
	}
	return f
}

// newLine begins to remember what is read of the store; nil if nothing is to be
// remembered.
func (s *store) newLine(head datastore.Head) datastore.RowLine {
	if s.keeper.opts.Cache == nil || s.keeper.opts.Direct {
		return nil
	}
	return s.keeper.opts.Cache.Line(s.log, s.id, head.Incarnation)
}

// published is f for what follows a state that is about to be published: what
// changed is told to those who remember, before any snapshot holds it.
func (f *far) published(head datastore.Head) *far {
	next := f.after(head.Revision)
	if f.line != nil && f.at < head.Revision {
		next.stamp = f.line.Changed(f.at, head, maps.All(f.changed))
	}
	return next
}

// after is f for changes that follow a committed revision.
func (f *far) after(at datastore.Revision) *far {
	return &far{ctx: f.ctx, log: f.log, store: f.store, at: at, line: f.line, stamp: f.stamp,
		known: map[tuple.Key]*tuple.Relationship{}, changed: map[tuple.Key]*tuple.Relationship{}}
}

func (f *far) fail(err error) {
	if err != nil && f.err == nil {
		f.err = err
	}
}

// exactly selects one relationship by its identity.
func exactly(k tuple.Key) tuple.Filter {
	s := tuple.SubjectFilter{Type: k.Subject.Type, ID: k.Subject.ID, Relation: k.Subject.Relation}
	if s.Relation == "" {
		s.Relation = tuple.Ellipsis
	}
	return tuple.Filter{ObjectType: k.Object.Type, ObjectID: k.Object.ID, Relation: k.Relation, Subject: s}
}

// prefetch reads, in one round trip, what requests will look for.
func (f *far) prefetch(batch []*pending) {
	var qs []datastore.RowQuery
	var keys []tuple.Key
	want := func(k tuple.Key) {
		if _, ok := f.known[k]; !ok {
			f.known[k] = nil
			keys, qs = append(keys, k), append(qs, datastore.RowQuery{Filter: exactly(k), Limit: 1})
		}
	}
	for _, p := range batch {
		for _, u := range p.request.Updates {
			want(u.Relationship.Key)
		}
		for _, s := range p.request.Sets {
			for _, r := range s.Relationships {
				want(r.Key)
			}
		}
	}
	if len(qs) == 0 {
		return
	}
	f.fail(datastore.ReadMany(f.ctx, f.log, f.store, f.at, qs, func(q int, r datastore.Row) bool {
		f.known[keys[q]] = &r.Relationship
		return true
	}))
}

func (f *far) find(k tuple.Key) (tuple.Relationship, bool) {
	r, ok := f.changed[k]
	if !ok {
		if r, ok = f.known[k]; !ok {
			f.fail(f.log.Rows(f.ctx, f.store, f.at, datastore.RowQuery{Filter: exactly(k), Limit: 1}, func(row datastore.Row) bool {
				r = &row.Relationship
				return true
			}))
			f.known[k] = r
		}
	}
	if r == nil {
		return tuple.Relationship{}, false
	}
	return *r, true
}

func (f *far) match(filter tuple.Filter, each func(tuple.Relationship) bool) {
	q := datastore.QueryFor(filter)
	more := true
	f.fail(f.log.Rows(f.ctx, f.store, f.at, q, func(row datastore.Row) bool {
		if _, changed := f.changed[row.Key]; !changed {
			more = each(row.Relationship)
		}
		return more
	}))
	for _, r := range f.changed {
		if more && r != nil && filter.Matches(*r) {
			more = each(*r)
		}
	}
}

// sweepFarEvery is how often a store that is not in memory is searched for
// expired relationships, which takes reading all that expire.
const sweepFarEvery = 10 * time.Minute

// expired reports whether a far state may have relationships that expired.
func (s *state) expired(now time.Time) bool {
	yes, found := true, false
	filter := tuple.Filter{Expires: &yes}
	if s.schema == nil || len(s.kinds(filter)) == 0 {
		return false
	}
	s.far.match(filter, func(r tuple.Relationship) bool {
		found = r.Expired(now)
		return !found
	})
	return found
}
