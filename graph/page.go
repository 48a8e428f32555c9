package graph

import (
	"container/heap"
	"iter"
	"slices"
	"strings"

	"github.com/pembadb/pemba/datastore"
)

// entry is a possible result: certain, or in doubt until it is judged.
type entry struct {
	id     string
	object datastore.ID
	doubt  bool
}

// page gathers the entries of an ordered list. With a limit it keeps as many
// certain ones as may be shown, and one to know whether more follow; of those in
// doubt it keeps what may come before them.
type page struct {
	limit   int
	after   string
	certain highestFirst
	doubts  []entry
}

// highestFirst is a heap of certain entries.
type highestFirst []entry

func (h highestFirst) Len() int           { return len(h) }
func (h highestFirst) Less(i, j int) bool { return h[i].id > h[j].id }
func (h highestFirst) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *highestFirst) Push(x any)        { *h = append(*h, x.(entry)) }
func (h *highestFirst) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func (p *page) full() bool { return p.limit > 0 && len(p.certain) > p.limit }

func (p *page) add(e entry) {
	switch {
	case p.full() && e.id > p.certain[0].id:
	case e.doubt:
		p.doubts = append(p.doubts, e)
	case p.full():
		p.certain[0] = e
		heap.Fix(&p.certain, 0)
	case p.limit > 0:
		heap.Push(&p.certain, e)
	default:
		p.certain = append(p.certain, e)
	}
}

// all yields the entries in order of their ids, each id once: an entry in doubt
// that turned out certain is certain.
func (p *page) all() iter.Seq[entry] {
	byID := func(a, b entry) int { return strings.Compare(a.id, b.id) }
	slices.SortFunc(p.certain, byID)
	slices.SortFunc(p.doubts, byID)
	return func(yield func(entry) bool) {
		certain, doubts, last := []entry(p.certain), p.doubts, ""
		for len(certain)+len(doubts) > 0 {
			var next entry
			if len(doubts) == 0 || len(certain) > 0 && certain[0].id <= doubts[0].id {
				next, certain = certain[0], certain[1:]
			} else {
				next, doubts = doubts[0], doubts[1:]
			}
			if next.id == last {
				continue
			}
			last = next.id
			if !yield(next) {
				return
			}
		}
	}
}

// idSet is a set of object ids, a bit each where they lie close together.
type idSet struct {
	pages map[uint32]*[idPage / 64]uint64
	last  *[idPage / 64]uint64
	at    uint32
	len   int
}

const idPage = 4096

// add reports whether id is new to the set.
func (s *idSet) add(id datastore.ID) bool {
	p := s.find(id)
	if p == nil {
		if s.pages == nil {
			s.pages = map[uint32]*[idPage / 64]uint64{}
		}
		p = new([idPage / 64]uint64)
		s.at, s.last = uint32(id)/idPage, p
		s.pages[s.at] = p
	}
	word, bit := &p[id%idPage/64], uint64(1)<<(id%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	s.len++
	return true
}

func (s *idSet) has(id datastore.ID) bool {
	p := s.find(id)
	return p != nil && p[id%idPage/64]&(uint64(1)<<(id%64)) != 0
}

func (s *idSet) find(id datastore.ID) *[idPage / 64]uint64 {
	at := uint32(id) / idPage
	if s.last != nil && s.at == at {
		return s.last
	}
	p := s.pages[at]
	if p != nil {
		s.at, s.last = at, p
	}
	return p
}

// all yields the ids of the set, in no particular order.
func (s *idSet) all() iter.Seq[datastore.ID] {
	return func(yield func(datastore.ID) bool) {
		for at, p := range s.pages {
			for w, word := range p {
				for b := 0; word != 0; b, word = b+1, word>>1 {
					if word&1 != 0 && !yield(datastore.ID(at*idPage+uint32(w*64+b))) {
						return
					}
				}
			}
		}
	}
}
