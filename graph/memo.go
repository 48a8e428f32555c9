package graph

import "sync/atomic"

// memo finds values by key; it is read without a lock, and only grows.
type memo[T any] struct{ table atomic.Pointer[memoTable[T]] }

// memoTable is a table with open addressing; nil is free.
type memoTable[T any] struct {
	slots []atomic.Pointer[memoEntry[T]]
	count int
}

type memoEntry[T any] struct {
	key   uint64
	value T
}

func newMemo[T any](m *memo[T]) {
	m.table.Store(&memoTable[T]{slots: make([]atomic.Pointer[memoEntry[T]], 64)})
}

// get returns the value of a key, or nil.
func (m *memo[T]) get(key uint64) *T {
	if e := m.table.Load().place(key).Load(); e != nil {
		return &e.value
	}
	return nil
}

func (t *memoTable[T]) place(key uint64) *atomic.Pointer[memoEntry[T]] {
	mask := uint64(len(t.slots) - 1)
	for i := key * 0x9e3779b97f4a7c15 >> 32 & mask; ; i = (i + 1) & mask {
		if e := t.slots[i].Load(); e == nil || e.key == key {
			return &t.slots[i]
		}
	}
}

// add makes a value known under a key that has none. Only one may add at a time.
func (m *memo[T]) add(key uint64, value T) *T {
	t := m.table.Load()
	if 2*t.count >= len(t.slots) {
		larger := &memoTable[T]{slots: make([]atomic.Pointer[memoEntry[T]], 2*len(t.slots)), count: t.count}
		for i := range t.slots {
			if e := t.slots[i].Load(); e != nil {
				larger.place(e.key).Store(e)
			}
		}
		m.table.Store(larger)
		t = larger
	}
	e := &memoEntry[T]{key, value}
	t.place(key).Store(e)
	t.count++
	return &e.value
}
