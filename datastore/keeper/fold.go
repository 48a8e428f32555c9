package keeper

import (
	"fmt"
	"hash/maphash"
	"math"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// verifiedAtOnce is how many relationships a verification holds in memory, at
// some 50 bytes each. Where a store has more, it goes through the history more
// than once.
const verifiedAtOnce = 2 << 20

// fold is what a history comes to, for the relationships whose hashes lie in a
// range: it shrinks until they fit, and the next fold goes on behind it. Hashes
// are keyed anew each time, so that nobody can choose what looks the same.
type fold struct {
	from, to uint64
	anchor   datastore.Revision
	most     int
	seeds    [2]maphash.Seed
	facts    map[[2]uint64]fact
	found    *difference // the first in the order of objects
}

// fact is what is known of one relationship.
type fact struct {
	created datastore.Revision
	traits  uint64 // hash of its caveat and expiration
	seen    [2]bool
	gone    bool // deleted after the anchor: no older row of it may live
	older   bool // known by its row in the order of objects only
}

// difference is a relationship that is not everywhere the same.
type difference struct {
	key  tuple.Key
	what string
}

func newFold(from uint64, anchor datastore.Revision, most int) *fold {
	return &fold{from: from, to: math.MaxUint64, anchor: anchor, most: most, facts: map[[2]uint64]fact{}, seeds: verifySeeds}
}

// verifySeeds are those of all folds of this process: the ranges of one
// verification must fit together.
var verifySeeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

// last reports whether nothing is left behind this fold's range.
func (f *fold) last() bool { return f.to == math.MaxUint64 }

func (f *fold) hash(k tuple.Key) (h [2]uint64, inside bool) {
	h[0] = maphash.Comparable(f.seeds[0], k)
	if h[0] < f.from || h[0] > f.to {
		return h, false
	}
	h[1] = maphash.Comparable(f.seeds[1], k)
	return h, true
}

func (f *fold) traits(r *tuple.Relationship) uint64 {
	t := trait{caveat: r.Caveat}
	if !r.Expiration.IsZero() {
		t.expiration = r.Expiration.UnixMicro()
	}
	if t == (trait{}) {
		return 0
	}
	return maphash.Comparable(f.seeds[0], t)
}

func (f *fold) set(h [2]uint64, is fact) {
	f.facts[h] = is
	for len(f.facts) > f.most && f.to > f.from {
		f.to = f.from + (f.to-f.from)/2
		for h := range f.facts {
			if h[0] > f.to {
				delete(f.facts, h)
			}
		}
	}
}

// apply carries out an operation of the change at a revision.
func (f *fold) apply(at datastore.Revision, o datastore.Operation) {
	switch o.Kind {
	case datastore.Create, datastore.Touch:
		if h, inside := f.hash(o.Relationship.Key); inside {
			f.set(h, fact{created: at, traits: f.traits(&o.Relationship)})
		}
	case datastore.Delete, datastore.Expire:
		if h, inside := f.hash(o.Relationship.Key); inside && f.anchor > 0 {
			f.set(h, fact{gone: true})
		} else if inside {
			delete(f.facts, h)
		}
	}
}

// row compares a row of one of the two orders. Rows older than the anchor are
// taken from the first order, to be compared with the second.
func (f *fold) row(order int, r datastore.Row) {
	h, inside := f.hash(r.Key)
	if !inside {
		return
	}
	traits, name := f.traits(&r.Relationship), rowOrders[order].name
	is, known := f.facts[h]
	switch {
	case !known && r.Created > f.anchor:
		f.differs(r.Key, "is among the rows %s, since revision %d, and not in the history", name, r.Created)
		return
	case !known && order > 0:
		f.differs(r.Key, "is among the rows %s, since revision %d, and not among those %s", name, r.Created, rowOrders[0].name)
		return
	case !known:
		is = fact{created: r.Created, traits: traits, older: true}
	case is.gone:
		f.differs(r.Key, "is among the rows %s, since revision %d, and was deleted in the history", name, r.Created)
		return
	case is.seen[order]:
		f.differs(r.Key, "is twice among the rows %s", name)
		return
	case is.created != r.Created:
		f.differs(r.Key, "is among the rows %s since revision %d, and %s since %d", name, r.Created, is.origin(), is.created)
	case is.traits != traits:
		f.differs(r.Key, "has, among the rows %s, another caveat or expiration (%s) than %s", name, r.Relationship, is.origin())
	}
	is.seen[order] = true
	f.set(h, is)
}

// origin is where a fact was found.
func (is fact) origin() string {
	if is.older {
		return "among those " + rowOrders[0].name
	}
	return "in the history"
}

func (f *fold) differs(k tuple.Key, format string, args ...any) {
	if f.found == nil || k.Compare(f.found.key) < 0 {
		f.found = &difference{k, fmt.Sprintf(format, args...)}
	}
}

func (is fact) lacking() bool { return !is.gone && is.seen != [2]bool{true, true} }

// compared counts the relationships that both orders hold, and those of them
// that are older than the anchor.
func (f *fold) compared() (rows, older int) {
	for _, is := range f.facts {
		if !is.gone {
			rows++
		}
		if is.older {
			older++
		}
	}
	return rows, older
}

// missing reports whether an order lacks relationships that the history wrote,
// or older ones.
func (f *fold) missing() (written, older bool) {
	for _, is := range f.facts {
		if is.lacking() {
			written, older = written || !is.older, older || is.older
		}
	}
	return written, older
}

// lacks notes r as a difference if it is one that an order lacks.
func (f *fold) lacks(r datastore.Row) {
	h, inside := f.hash(r.Key)
	if !inside {
		return
	}
	is, known := f.facts[h]
	if !known || !is.lacking() || is.created != r.Created {
		return
	}
	where := rowOrders[0].name
	if is.seen[0] {
		where = rowOrders[1].name
	}
	f.differs(r.Key, "is %s, since revision %d, and not among the rows %s", is.origin(), is.created, where)
}
