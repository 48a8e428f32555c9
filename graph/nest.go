package graph

import (
	"context"
	"math/bits"
	"slices"
	"sync"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
)

// nests knows which usersets lie in which, at any depth, whatever caveats and
// expirations say: where a subject is in none of those that lie in a group, it is
// not in the group, and nobody need look. It learns of a userset when it is first
// asked about it, by looking at all that lie in it, and serves every snapshot
// between two changes of what usersets hold usersets.
//
// Zanzibar (§3.2.4) keeps such an index, Leopard, beside its servers.
type nests struct {
	known memo[nest]

	mu      sync.Mutex // held to learn
	number  uint32     // of the last one
	words   int        // held by all sets
	tired   int        // how often learning led too far
	scratch []uint64
}

const (
	// maxNestWords bounds the memory of what nests remember (64 MB).
	maxNestWords = 8 << 20
	// maxNestLearned is how many relationships are read to learn of one userset.
	maxNestLearned = 200_000
	// maxTired is how often learning may lead too far before it is given up.
	maxTired = 3
)

// nest is a userset and the numbers of those that lie in it, its own included:
// a sorted list, or bits from a word on, whichever is shorter.
type nest struct {
	number  uint32
	circle  bool // it lies in itself
	unknown bool // anything may lie in it
	list    []uint32
	from    int
	bits    []uint64
}

func nestKey(object datastore.ID, relation schema.Name) uint64 {
	return uint64(object)<<16 | uint64(relation)
}

// holds reports whether o is n or may lie in it.
func (n *nest) holds(o *nest) bool {
	switch {
	case n.unknown || n == o:
		return true
	case o.unknown:
		return false // all that lie in n are known
	case n.bits != nil:
		word := int(o.number>>6) - n.from
		return uint(word) < uint(len(n.bits)) && n.bits[word]>>(o.number&63)&1 != 0
	}
	_, found := slices.BinarySearch(n.list, o.number)
	return found
}

// nestsOf returns what is known of a snapshot's usersets; nil for one that keeps
// no such thing.
func nestsOf(s datastore.Snapshot) *nests {
	keeps, ok := s.(datastore.MemoReader)
	if !ok {
		return nil
	}
	memo := keeps.Nesting()
	if n, ok := memo.Load().(*nests); ok {
		return n
	}
	n := &nests{}
	newMemo(&n.known)
	return memo.Keep(n).(*nests)
}

// of returns the nest of a userset of s; nil while others learn.
func (n *nests) of(s datastore.Snapshot, object datastore.ID, relation schema.Name) *nest {
	key := nestKey(object, relation)
	if found := n.known.get(key); found != nil {
		return found
	}
	if !n.mu.TryLock() {
		return nil
	}
	defer n.mu.Unlock()
	if found := n.known.get(key); found != nil {
		return found
	}
	if n.tired >= maxTired {
		return nil
	}
	l := &learner{nests: n, snapshot: s, at: map[uint64]int32{}}
	if !l.learn(key) {
		n.tired++
		if n.known.get(key) == nil {
			n.known.add(key, nest{unknown: true})
		}
	}
	return n.known.get(key)
}

// learner looks at everything that lies in a userset. Usersets that go in a
// circle lie in one another; the circles are found as they close (Tarjan 1972,
// without recursion).
type learner struct {
	nests    *nests
	snapshot datastore.Snapshot
	at       map[uint64]int32 // where a userset stands in usersets
	usersets []learned
	open     []int32 // usersets whose circle is not closed
	inside   []uint64
	read     int
}

// learned is a userset under way. Those inside it are a part of learner.inside.
type learned struct {
	key    uint64
	inside span
	next   int32 // the one inside to look at
	low    int32 // the first userset that it is known to lie in a circle with
	closed *nest
}

func (l *learner) learn(key uint64) bool {
	path := []int32{l.enter(key)}
	for len(path) > 0 {
		if l.read > maxNestLearned {
			return false
		}
		i := path[len(path)-1]
		u := &l.usersets[i]
		if u.next == u.inside.count {
			if path = path[:len(path)-1]; len(path) > 0 {
				above := &l.usersets[path[len(path)-1]]
				above.low = min(above.low, u.low)
			}
			if u.low == i && !l.close(i) {
				return false
			}
			continue
		}
		inner := l.inside[u.inside.first+u.next]
		u.next++
		if at, seen := l.at[inner]; !seen {
			if l.nests.known.get(inner) == nil {
				path = append(path, l.enter(inner))
			}
		} else if l.usersets[at].closed == nil {
			u.low = min(u.low, at)
		}
	}
	return true
}

func (l *learner) enter(key uint64) int32 {
	i, first := int32(len(l.usersets)), len(l.inside)
	l.at[key] = i
	l.open = append(l.open, i)
	q := []datastore.Query{{Object: datastore.ID(key >> 16), Relation: schema.Name(key), UsersetsOnly: true}}
	// A read in memory cannot fail, and is too short to be cut off.
	_ = l.snapshot.Read(context.Background(), q, func(_ int, e datastore.Edge) bool {
		l.inside = append(l.inside, nestKey(e.Subject, e.SubjectRelation))
		return len(l.inside)-first <= maxNestLearned
	})
	count := len(l.inside) - first
	l.read += 1 + count
	l.usersets = append(l.usersets, learned{key: key, inside: span{int32(first), int32(count)}, low: i})
	return i
}

// close makes the nests of a circle, or of a single userset, whose first is i.
func (l *learner) close(i int32) bool {
	at := len(l.open) - 1
	for l.open[at] != i {
		at--
	}
	circle := l.open[at:]
	l.open = l.open[:at]
	n := l.nests
	whole := nest{circle: len(circle) > 1}
	if words := int(n.number+uint32(len(circle)))/64 + 1; len(n.scratch) < words {
		n.scratch = append(n.scratch, make([]uint64, words)...)
	}
	own := n.number
	for range circle {
		n.number++
		n.scratch[n.number>>6] |= 1 << (n.number & 63)
	}
	for _, j := range circle {
		u := &l.usersets[j]
		for _, inner := range l.inside[u.inside.first : u.inside.first+u.inside.count] {
			whole.circle = whole.circle || inner == u.key
			if o := n.known.get(inner); o != nil {
				whole.unknown = whole.unknown || o.unknown
				o.fill(n.scratch)
			}
		}
	}
	n.gather(&whole)
	for _, j := range circle {
		own++
		o := whole
		o.number = own
		l.usersets[j].closed = n.known.add(l.usersets[j].key, o)
	}
	return n.words <= maxNestWords
}

// fill adds n's numbers to a set.
func (n *nest) fill(set []uint64) {
	for i, w := range n.bits {
		set[n.from+i] |= w
	}
	for _, m := range n.list {
		set[m>>6] |= 1 << (m & 63)
	}
}

// gather moves the numbers in scratch to a nest.
func (n *nests) gather(o *nest) {
	first, last, count := -1, 0, 0
	for i, w := range n.scratch {
		if w != 0 {
			if first < 0 {
				first = i
			}
			last = i
			count += bits.OnesCount64(w)
		}
	}
	used := n.scratch[first : last+1]
	switch words := len(used); {
	case o.unknown:
	case count <= 2*words:
		o.list = make([]uint32, 0, count)
		for i, w := range used {
			for ; w != 0; w &= w - 1 {
				o.list = append(o.list, uint32((first+i)<<6+bits.TrailingZeros64(w)))
			}
		}
		n.words += count/2 + 12
	default:
		o.from, o.bits = first, slices.Clone(used)
		n.words += words + 12
	}
	clear(used)
}
