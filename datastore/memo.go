package datastore

import "sync/atomic"

// Memo is a place for what package graph derives from a snapshot. The zero value
// is empty.
type Memo struct{ kept atomic.Pointer[any] }

// Load returns what is kept; nil if nothing is.
func (m *Memo) Load() any {
	if v := m.kept.Load(); v != nil {
		return *v
	}
	return nil
}

// Keep keeps v unless something is kept already, and returns what is.
func (m *Memo) Keep(v any) any {
	m.kept.CompareAndSwap(nil, &v)
	return m.Load()
}

// MemoReader is a Snapshot in memory that keeps what is derived from some of its
// relationships: all Snapshots between two changes of those give the same Memo,
// and the same ids.
type MemoReader interface {
	// Nesting is the Memo of the relationships that hold a userset and whose own
	// relation the schema uses as a userset: those by which groups lie in groups.
	Nesting() *Memo
	// Containers is the Memo of all relationships of objects that the left side of
	// some arrow may hold: see schema.Schema.IsContainer.
	Containers() *Memo
}
