package graph

import (
	"container/heap"
	"iter"
	"slices"
	"strings"

	"github.com/pembadb/pemba/datastore"
)

// entry is a possible result: judged, or in doubt until it is.
type entry struct {
	id     string
	object datastore.ID
	doubt  bool
	answer Answer // if judged
	err    error  // if judged, why there is no answer
}

// page gathers the entries of an ordered list. With a limit it keeps as many
// judged ones as may be shown, and one to know whether more follow; of those in
// doubt it keeps what may come before them.
type page struct {
	limit  int
	judged highestFirst
	doubts []entry
}

// highestFirst is a heap of entries.
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

func (p *page) full() bool { return p.limit > 0 && len(p.judged) > p.limit }

// beyond reports whether an id surely comes after all that will be shown.
func (p *page) beyond(id string) bool { return p.full() && id > p.judged[0].id }

func (p *page) add(e entry) {
	switch {
	case p.beyond(e.id):
	case e.doubt:
		p.doubts = append(p.doubts, e)
	case p.full():
		p.judged[0] = e
		heap.Fix(&p.judged, 0)
	case p.limit > 0:
		heap.Push(&p.judged, e)
	default:
		p.judged = append(p.judged, e)
	}
}

// all yields the entries in order of their ids, each id once, the judged ones
// before those in doubt.
func (p *page) all() iter.Seq[entry] {
	byID := func(a, b entry) int { return strings.Compare(a.id, b.id) }
	slices.SortFunc(p.judged, byID)
	slices.SortFunc(p.doubts, byID)
	return func(yield func(entry) bool) {
		judged, doubts, last := []entry(p.judged), p.doubts, ""
		for len(judged)+len(doubts) > 0 {
			var next entry
			if len(doubts) == 0 || len(judged) > 0 && judged[0].id <= doubts[0].id {
				next, judged = judged[0], judged[1:]
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
