package keeper

import (
	"slices"
	"sync/atomic"

	"github.com/tidwall/btree"

	"github.com/pembadb/pemba/datastore"
)

// edges is a set of edges in one of two orders. Most stand in one sorted array,
// with the place where each object's begin: to read those of an object touches two
// or three lines of memory, where a tree of a million touches a dozen. What changed
// since the array was made stands in a tree beside it, and now and then both become
// a new array.
//
// A copy shares the array, and can be changed without the other noticing.
type edges struct {
	backward bool     // the order: backwardLess, otherwise forwardLess
	array    []edge   // never changed
	first    []uint32 // by edge.from: where its edges begin in array; at the end, where they end
	count    int
	changed  *btree.BTreeG[changedEdge]
	// touched has a bit for each object that first knows: set, changed may have
	// edges of it. All copies over one array share it; what one of them sets, another
	// looks for in vain.
	touched []uint64
}

// changedEdge is an edge that came, or went, after the array was made.
type changedEdge struct {
	edge
	gone bool
}

// An array is made anew when this many changes have come, and a thirty-second of
// the edges.
const fewChanges = 1024

func newEdges(backward bool) *edges {
	s := &edges{backward: backward}
	s.fill(nil)
	return s
}

// fill makes s hold edges in their order.
func (s *edges) fill(sorted []edge) {
	less := forwardLess
	if s.backward {
		less = backwardLess
	}
	s.array, s.count = sorted, len(sorted)
	s.changed = btree.NewBTreeGOptions(func(a, b changedEdge) bool { return less(a.edge, b.edge) }, btree.Options{NoLocks: true})
	objects := 0
	if len(sorted) > 0 {
		objects = int(sorted[len(sorted)-1].from) + 1
	}
	s.first, s.touched = make([]uint32, objects+1), make([]uint64, objects/64+1)
	next := 0
	for i := range sorted {
		for ; next <= int(sorted[i].from); next++ {
			s.first[next] = uint32(i)
		}
	}
	s.first[objects] = uint32(len(sorted))
}

// copy returns a set that can be changed without s noticing. Copies of one set
// must not be made concurrently.
func (s *edges) copy() *edges {
	c := *s
	if n := s.changed.Len(); n > fewChanges && n > len(s.array)/32 {
		c.fill(s.merged())
		return &c
	}
	c.changed = s.changed.Copy()
	return &c
}

// merged returns all edges in their order.
func (s *edges) merged() []edge {
	out, from := make([]edge, 0, s.count), 0
	s.changed.Scan(func(c changedEdge) bool {
		at, found := s.seek(c.edge)
		out = append(out, s.array[from:at]...)
		if from = at; found {
			from++
		}
		if !c.gone {
			out = append(out, c.edge)
		}
		return true
	})
	return append(out, s.array[from:]...)
}

func (s *edges) len() int { return s.count }

// rank orders the edges of one object.
func (s *edges) rank(e edge) uint64 {
	if s.backward {
		return uint64(e.userset)<<48 | uint64(e.relation)<<32 | uint64(e.to)
	}
	return uint64(e.relation)<<48 | uint64(e.userset)<<32 | uint64(e.to)
}

// span is where an object's edges stand in the array.
func (s *edges) span(id datastore.ID) (from, to int) {
	if int(id)+1 >= len(s.first) {
		return len(s.array), len(s.array)
	}
	return int(s.first[id]), int(s.first[id+1])
}

// after returns how many of some edges of one object stand before those of a rank.
func (s *edges) after(list []edge, rank uint64) int {
	if len(list) <= 16 {
		for i := range list {
			if s.rank(list[i]) >= rank {
				return i
			}
		}
		return len(list)
	}
	low, high := 0, len(list)
	for low < high {
		if mid := int(uint(low+high) / 2); s.rank(list[mid]) < rank {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

// seek returns the place of an edge in the array, or of the first one behind it.
func (s *edges) seek(e edge) (at int, found bool) {
	from, to := s.span(e.from)
	rank := s.rank(e)
	at = from + s.after(s.array[from:to], rank)
	return at, at < to && s.rank(s.array[at]) == rank
}

// touch notes that changed has edges of an object.
func (s *edges) touch(id datastore.ID) {
	if w := int(id) / 64; w < len(s.touched) {
		atomic.OrUint64(&s.touched[w], 1<<(id%64))
	}
}

// untouched reports whether all edges of an object stand in the array.
func (s *edges) untouched(id datastore.ID) bool {
	w := int(id) / 64
	return w < len(s.touched) && atomic.LoadUint64(&s.touched[w])>>(id%64)&1 == 0 || s.changed.Len() == 0
}

// get returns the edge of that identity.
func (s *edges) get(e edge) (edge, bool) {
	if !s.untouched(e.from) {
		if c, ok := s.changed.Get(changedEdge{edge: e}); ok {
			if c.gone {
				return edge{}, false
			}
			return c.edge, true
		}
	}
	if at, found := s.seek(e); found {
		return s.array[at], true
	}
	return edge{}, false
}

// set adds an edge, and returns the one of its identity that it replaces.
func (s *edges) set(e edge) (old edge, replaced bool) {
	if old, replaced = s.get(e); !replaced {
		s.count++
	}
	s.touch(e.from)
	s.changed.Set(changedEdge{edge: e})
	return old, replaced
}

// remove takes the edge of that identity away, and returns it.
func (s *edges) remove(e edge) (old edge, removed bool) {
	if old, removed = s.get(e); !removed {
		return old, false
	}
	s.count--
	if _, found := s.seek(e); found {
		s.touch(e.from)
		s.changed.Set(changedEdge{edge: old, gone: true})
	} else {
		s.changed.Delete(changedEdge{edge: e})
	}
	return old, true
}

// of returns the edges of an object from a rank on, which must not be changed;
// false if some stand outside the array.
func (s *edges) of(start edge) ([]edge, bool) {
	if !s.untouched(start.from) {
		return nil, false
	}
	from, to := s.span(start.from)
	list := s.array[from:to]
	if rank := s.rank(start); rank > 0 {
		list = list[s.after(list, rank):]
	}
	return list, true
}

// ascend calls f for the edges from one on, those of later objects after it, until
// f returns false.
func (s *edges) ascend(start edge, f func(edge) bool) {
	at, _ := s.seek(start)
	more := true
	s.changed.Ascend(changedEdge{edge: start}, func(c changedEdge) bool {
		end, found := s.seek(c.edge)
		for ; at < end && more; at++ {
			more = f(s.array[at])
		}
		if !more {
			return false
		}
		if found {
			at++
		}
		if !c.gone {
			more = f(c.edge)
		}
		return more
	})
	for ; more && at < len(s.array); at++ {
		more = f(s.array[at])
	}
}

// scan calls f for all edges in their order until f returns false.
func (s *edges) scan(f func(edge) bool) { s.ascend(edge{}, f) }

// sort puts edges into the order of s.
func (s *edges) sort(list []edge) {
	slices.SortFunc(list, func(a, b edge) int {
		if s.backward {
			return order(backwardLess, a, b)
		}
		return order(forwardLess, a, b)
	})
}
