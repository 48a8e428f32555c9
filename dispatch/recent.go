package dispatch

import (
	"iter"
	"slices"
	"sync"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// recent are the last changes of a line. What was remembered before them is
// brought up to date by them, instead of being read again.
type recent struct {
	mu        sync.Mutex
	steps     []step
	size      int // changes in steps
	positions []datastore.Position
}

// step is what the changes after a revision, up to another, made of relationships.
type step struct {
	from, to datastore.Revision
	changes  []change
}

type change struct {
	key tuple.Key
	now *tuple.Relationship // nil: it is there no more
}

const (
	// maxRecent is how many changes are kept for each line, and maxSteps in how many
	// steps.
	maxRecent = 512
	maxSteps  = 256
	// maxPositions is how many of the last revisions peers can ask about.
	maxPositions = 1024
)

// position returns what is known of a revision; false if it is not one of the
// last.
func (r *recent) position(at datastore.Revision, hash datastore.Hash) (datastore.Position, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.positions) - 1; i >= 0; i-- {
		if p := r.positions[i]; p.Revision == at && p.Hash == hash {
			return p, true
		}
	}
	return datastore.Position{}, false
}

func (r *recent) add(from datastore.Revision, to datastore.Position, relationships iter.Seq2[tuple.Key, *tuple.Relationship]) {
	s := step{from: from, to: to.Revision}
	for k, now := range relationships {
		if s.changes = append(s.changes, change{k, now}); len(s.changes) > maxRecent {
			break
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.positions) == maxPositions {
		r.positions = slices.Delete(r.positions, 0, maxPositions/2)
	}
	r.positions = append(r.positions, to)
	if len(s.changes) > maxRecent || from == to.Revision {
		r.steps, r.size = nil, 0
		return
	}
	r.steps = append(r.steps, s)
	r.size += len(s.changes)
	drop := 0
	for ; r.size > maxRecent || len(r.steps)-drop > maxSteps; drop++ {
		r.size -= len(r.steps[drop].changes)
	}
	r.steps = slices.Delete(r.steps, 0, drop)
}

// between returns the changes of a query's relationships that lead from one
// revision to a later one, in their order; false if they are not kept.
func (r *recent) between(from, to datastore.Revision, k *key) (out []change, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// Steps may overlap where several found out about the same changes: any chain of
	// them from the one revision to the other tells all.
	for _, s := range r.steps {
		if s.from != from || s.to > to {
			continue
		}
		for _, c := range s.changes {
			if k.selects(&c.key) {
				out = append(out, c)
			}
		}
		from = s.to
	}
	return out, from == to
}

// selects reports whether a relationship is one of those a query is about.
func (k *key) selects(r *tuple.Key) bool {
	is := func(want, got string) bool { return want == "" || want == got }
	subjectRelation := k.subjectRelation == "" || k.subjectRelation == r.Subject.Relation ||
		k.subjectRelation == tuple.Ellipsis && r.Subject.Relation == ""
	return subjectRelation && is(k.objectType, r.Object.Type) && is(k.objectID, r.Object.ID) && is(k.relation, r.Relation) &&
		is(k.subjectType, r.Subject.Type) && is(k.subjectID, r.Subject.ID)
}

// brought returns an entry at a later position than it was read at, by the
// changes since; nil if they do not tell.
func (l *line) brought(e *entry, k *key, at datastore.Position) *entry {
	if e.more || e.at.Stamp == 0 || at.Stamp <= e.at.Stamp {
		return nil
	}
	changes, ok := l.recent.between(e.at.Revision, at.Revision, k)
	if !ok {
		return nil
	}
	compare := tuple.Key.Compare
	if k.bySubject {
		compare = tuple.Key.CompareBySubject
	}
	rows := slices.Clone(e.rows)
	for _, c := range changes {
		i, found := slices.BinarySearchFunc(rows, c.key, func(r datastore.Row, k tuple.Key) int { return compare(r.Key, k) })
		switch {
		case c.now == nil && found:
			rows = slices.Delete(rows, i, i+1)
		case c.now != nil && found:
			rows[i] = datastore.Row{Relationship: *c.now}
		case c.now != nil:
			rows = slices.Insert(rows, i, datastore.Row{Relationship: *c.now})
		}
	}
	return l.cache.entryFor(k, at, rows, false)
}
