package keeper

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
)

// Whatever is set and removed, in copies of copies some of which are left behind,
// edges are the set that a map of them is, read from wherever.
func TestEdgesAreASet(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 5))
		backward := seed%2 == 1
		identity := func(e edge) edge { e.trait = 0; return e }
		compare := func(a, b edge) int {
			if backward {
				return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.userset, b.userset), cmp.Compare(a.relation, b.relation), cmp.Compare(a.to, b.to))
			}
			return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.relation, b.relation), cmp.Compare(a.userset, b.userset), cmp.Compare(a.to, b.to))
		}
		drawn := func() edge {
			return edge{from: datastore.ID(1 + r.IntN(200)), relation: schema.Name(1 + r.IntN(3)), userset: schema.Name(r.IntN(3)), to: datastore.ID(1 + r.IntN(20+int(seed)*100))}
		}
		type version struct {
			set   *edges
			model map[edge]edge
		}
		check := func(v version) {
			t.Helper()
			want := slices.SortedFunc(maps.Values(v.model), compare)
			var got []edge
			v.set.scan(func(e edge) bool { got = append(got, e); return true })
			if !slices.Equal(got, want) || v.set.len() != len(want) {
				t.Fatalf("seed %d: %d edges (%d in order), want %d", seed, v.set.len(), len(got), len(want))
			}
			for range 50 {
				start, most := drawn(), r.IntN(40)
				at, _ := slices.BinarySearchFunc(want, start, compare)
				rest := want[at:]
				got = nil
				v.set.ascend(start, func(e edge) bool { got = append(got, e); return len(got) <= most })
				if !slices.Equal(got, rest[:min(len(rest), most+1)]) {
					t.Fatalf("seed %d: from %v %v, want %v", seed, start, got, rest[:min(len(rest), most+1)])
				}
				if list, ok := v.set.of(start); ok {
					n := 0
					for n < len(rest) && rest[n].from == start.from {
						n++
					}
					if !slices.Equal(list, rest[:n]) {
						t.Fatalf("seed %d: of %v %v, want %v", seed, start, list, rest[:n])
					}
				}
				e, ok := v.set.get(start)
				if is, want := v.model[start]; ok != want || e != is {
					t.Fatalf("seed %d: get %v: %v %v, want %v %v", seed, start, e, ok, is, want)
				}
			}
		}
		now := version{newEdges(backward), map[edge]edge{}}
		var left []version
		remade := 0
		for i := range 8000 {
			if r.IntN(8) == 0 {
				if r.IntN(100) == 0 {
					left = append(left, now)
				}
				was := now.set
				now = version{was.copy(), maps.Clone(now.model)}
				if now.set.changed.Len() == 0 && was.changed.Len() > 0 {
					remade++
				}
				if r.IntN(20) == 0 { // a copy that nobody keeps
					abandoned := now.set.copy()
					abandoned.set(drawn())
					abandoned.remove(drawn())
				}
			}
			e := drawn()
			e.trait = uint32(r.IntN(3))
			is, held := now.model[identity(e)]
			if r.IntN(3) > 0 {
				if old, replaced := now.set.set(e); replaced != held || old != is {
					t.Fatalf("seed %d: set %v replaced %v %v, want %v %v", seed, e, old, replaced, is, held)
				}
				now.model[identity(e)] = e
			} else {
				if old, removed := now.set.remove(e); removed != held || old != is {
					t.Fatalf("seed %d: remove %v: %v %v, want %v %v", seed, e, old, removed, is, held)
				}
				delete(now.model, identity(e))
			}
			if i%500 == 0 {
				check(now)
			}
		}
		for _, v := range append(left, now) {
			check(v)
		}
		if remade == 0 || len(left) == 0 {
			t.Errorf("seed %d: the array was made anew %d times, %d old sets were kept: this shows too little", seed, remade, len(left))
		}
	}
}
