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

// NestingReader is a Snapshot in memory that keeps what is derived from its
// relationships between usersets: all Snapshots between two changes of them give
// the same Memo, and so the same ids.
type NestingReader interface {
	// Nesting is the Memo of the relationships that hold a userset and whose own
	// relation the schema uses as a userset: those by which groups lie in groups.
	Nesting() *Memo
}
