package datastore

import (
	"strings"

	"github.com/pembadb/pemba/tuple"
)

// Readable returns nil if a store with head h can be read directly at a
// revision, and otherwise an error that wraps ErrAhead or ErrCompacted.
func Readable(h Head, at Revision) error {
	switch {
	case at > h.Revision:
		return Ahead(at, h.Revision)
	case at < h.Floor:
		return Compacted(at, h.Floor)
	}
	return nil
}

// Compare orders keys as q does.
func (q RowQuery) Compare(a, b tuple.Key) int {
	if q.BySubject {
		return a.CompareBySubject(b)
	}
	return a.Compare(b)
}

// Bounds returns the first key that q's filter can select in q's order, and a
// function that tells of a key whether it and all that follow cannot be
// selected.
func (q RowQuery) Bounds() (start tuple.Key, stop func(tuple.Key) bool) {
	f := q.Filter
	if q.BySubject {
		s := f.Subject
		start.Subject.Type, start.Subject.ID = s.Type, s.ID+s.IDPrefix
		return start, func(k tuple.Key) bool { return outside(s.Type, s.ID, s.IDPrefix, k.Subject.Object) }
	}
	start.Object.Type, start.Object.ID = f.ObjectType, f.ObjectID+f.ObjectIDPrefix
	if f.ObjectID != "" {
		start.Relation = f.Relation
	}
	return start, func(k tuple.Key) bool {
		return outside(f.ObjectType, f.ObjectID, f.ObjectIDPrefix, k.Object) ||
			f.ObjectID != "" && f.Relation != "" && k.Relation > f.Relation
	}
}

// outside tells whether o, at or behind the first that can be selected, is
// behind the last.
func outside(typ, id, prefix string, o tuple.Object) bool {
	return typ != "" && (o.Type != typ || id != "" && o.ID != id || !strings.HasPrefix(o.ID, prefix))
}
