package graph

// table finds small numbers by key: open addressing, emptied at no cost.
type table struct {
	slots []slot // a power of two of them
	stamp uint32 // of the slots in use
	count int
}

type slot struct {
	key   uint64
	stamp uint32
	at    int32
}

// reset empties the table.
func (t *table) reset() {
	if t.stamp++; t.stamp == 0 { // once in four billion
		clear(t.slots)
		t.stamp = 1
	}
	t.count = 0
}

// place returns the slot of a key and whether it is in use. The slot is the
// caller's to fill, with put, before the next call.
func (t *table) place(key uint64) (*slot, bool) {
	if 4*t.count >= 3*len(t.slots) {
		t.grow()
	}
	mask := uint64(len(t.slots) - 1)
	for i := key * 0x9e3779b97f4a7c15 >> 32 & mask; ; i = (i + 1) & mask {
		s := &t.slots[i]
		if s.stamp != t.stamp {
			return s, false
		}
		if s.key == key {
			return s, true
		}
	}
}

func (t *table) put(s *slot, key uint64, at int32) {
	if s.stamp != t.stamp {
		t.count++
	}
	*s = slot{key, t.stamp, at}
}

func (t *table) grow() {
	old, stamp := t.slots, t.stamp
	t.slots, t.stamp, t.count = make([]slot, max(64, 2*len(old))), 1, 0
	for _, o := range old {
		if o.stamp == stamp {
			s, _ := t.place(o.key)
			t.put(s, o.key, o.at)
		}
	}
}
