package graph_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// atom is a relation or permission of an object.
type atom struct {
	object   tuple.Object
	relation string
}

// world is a random schema with relationships, and the questions to ask of it.
type world struct {
	schema        string
	relationships []string
	subjects      []tuple.Subject
	resources     []atom
	context       schema.Context
	now           time.Time
}

func (w *world) String() string {
	return w.schema + "\n" + strings.Join(w.relationships, "\n")
}

func newWorld(r *rand.Rand) *world {
	w := &world{now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	const types, permissions, objects = 2, 4, 3
	pick := func(options ...string) string { return options[r.IntN(len(options))] }
	var b strings.Builder
	b.WriteString("use expiration\nuse self\ncaveat c0(x int) { x > 0 }\ncaveat c1(y int, x int) { y > 0 && x > 0 }\ncaveat c2(z int) { 10 / z > 1 }\ndefinition user {}\n")
	var allowed = map[string][]string{}
	for typ := range types {
		name := fmt.Sprintf("t%d", typ)
		fmt.Fprintf(&b, "definition %s {\n", name)
		for rel := range 2 {
			options := []string{"user", "user with c0", "user with c1", "user with c2", "user with expiration", "t0#p0", "t1#p1", "t0#r0", "t1#r0 with c0", "t0#p2 with c2"}
			if rel == 1 && typ == 0 { // nothing refers to t0#r1 as a userset
				options = append(options, "user:*")
			}
			r.Shuffle(len(options), func(i, j int) { options[i], options[j] = options[j], options[i] })
			options = options[:2+r.IntN(5)]
			key := fmt.Sprintf("%s#r%d", name, rel)
			allowed[key] = options
			fmt.Fprintf(&b, "  relation r%d: %s\n", rel, strings.Join(options, " | "))
		}
		b.WriteString("  relation up: t0 | t1\n")
		allowed[name+"#up"] = []string{"t0", "t1"}
		var expr func(depth int) string
		expr = func(depth int) string {
			if depth == 0 || r.IntN(4) == 0 {
				return pick("r0", "r1", "r0", "r1", "p0", "p1", "p2", "p3", "up->p0", "up->r1", "up.all(p1)", "up.all(r0)", "up.any(p3)", "self", "nil")
			}
			return "(" + expr(depth-1) + pick(" + ", " + ", " & ", " - ") + expr(depth-1) + ")"
		}
		for p := range permissions {
			fmt.Fprintf(&b, "  permission p%d = %s\n", p, expr(2))
		}
		b.WriteString("}\n")
		for o := range objects {
			for _, rel := range []string{"r0", "r1", "up", "p0", "p1", "p2", "p3"} {
				w.resources = append(w.resources, atom{tuple.Object{Type: name, ID: fmt.Sprint(o)}, rel})
			}
		}
	}
	w.schema = b.String()
	seen := map[string]bool{}
	for range 14 {
		name, rel := fmt.Sprintf("t%d", r.IntN(types)), pick("r0", "r0", "r1", "up")
		option := allowed[name+"#"+rel][r.IntN(len(allowed[name+"#"+rel]))]
		subject, trait, _ := strings.Cut(option, " with ")
		typ, relation, userset := strings.Cut(subject, "#")
		id := fmt.Sprint(r.IntN(objects))
		switch {
		case typ == "user:*":
			typ, id = "user", "*"
		case userset:
			id += "#" + relation
		}
		k := fmt.Sprintf("%s:%d#%s@%s:%s", name, r.IntN(objects), rel, typ, id)
		if seen[k] {
			continue
		}
		seen[k] = true
		switch trait {
		case "":
		case "expiration":
			k += pick("[expiration:2029-12-31T00:00:00Z]", "[expiration:2030-01-01T00:00:00Z]", "[expiration:2031-01-01T00:00:00Z]")
		case "c2":
			k += pick("[c2]", `[c2:{"z":0}]`, `[c2:{"z":2}]`)
		default:
			k += "[" + trait + pick("", "", `:{"x":1}`, `:{"x":-1}`) + "]"
		}
		w.relationships = append(w.relationships, k)
	}
	for u := range 2 {
		w.subjects = append(w.subjects, tuple.Subject{Object: tuple.Object{Type: "user", ID: fmt.Sprint(u)}})
	}
	w.subjects = append(w.subjects, tuple.Subject{Object: tuple.Object{Type: "t0", ID: "1"}, Relation: "p0"}, tuple.Subject{Object: tuple.Object{Type: "t0", ID: "0"}})
	w.context, _ = schema.ParseContext(pick(`{}`, `{}`, `{"y":1}`, `{"y":-1}`, `{"x":1}`))
	return w
}

// reference is the meaning written down without regard to cost: all atoms of all
// objects at once, by alternating fixpoints over the whole system.
type reference struct {
	t     *testing.T
	s     *schema.Schema
	w     *world
	rels  []tuple.Relationship
	lo    map[atom]int
	hi    map[atom]int
	lacks map[atom]map[string]bool
}

func newReference(t *testing.T, s datastore.Snapshot, w *world) *reference {
	ref := &reference{t: t, s: s.Schema(), w: w}
	for _, text := range w.relationships {
		r, err := tuple.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if !r.Expired(w.now) {
			ref.rels = append(ref.rels, r)
		}
	}
	return ref
}

// known is the value of a caveat as two bounds, with the fields it lacks.
func (ref *reference) caveat(r tuple.Relationship) (lo, hi int, lacks []string) {
	if r.Caveat.Name == "" {
		return 2, 2, nil
	}
	res, err := ref.s.Caveat(r.Caveat.Name).Eval(ref.t.Context(), r.Caveat.Context, ref.w.context, 0)
	switch {
	case err != nil:
		return 0, 2, nil
	case res.Truth == schema.True:
		return 2, 2, nil
	case res.Truth == schema.False:
		return 0, 0, nil
	}
	return 1, 1, res.Missing
}

func (ref *reference) solve(subject tuple.Subject) map[atom]string {
	bottom, top := map[atom]int{}, map[atom]int{}
	for _, a := range ref.w.resources {
		top[a] = 2
	}
	ref.lo, ref.hi = bottom, top
	for {
		lo := ref.least(subject, 0, [2]map[atom]int{ref.lo, ref.hi})
		hi := ref.least(subject, 1, [2]map[atom]int{lo, ref.hi})
		same := equal(lo, ref.lo, ref.w.resources) && equal(hi, ref.hi, ref.w.resources)
		ref.lo, ref.hi = lo, hi
		if same {
			break
		}
	}
	ref.lacks = map[atom]map[string]bool{}
	for changed := true; changed; {
		changed = false
		for _, a := range ref.w.resources {
			_, _, lacks := ref.meaning(subject, a)
			for _, f := range lacks {
				if ref.lacks[a] == nil {
					ref.lacks[a] = map[string]bool{}
				}
				changed = changed || !ref.lacks[a][f]
				ref.lacks[a][f] = true
			}
		}
	}
	out := map[atom]string{}
	for _, a := range ref.w.resources {
		switch {
		case ref.lo[a] != ref.hi[a]:
			out[a] = "error"
		case ref.lo[a] == 1:
			var fields []string
			for f := range ref.lacks[a] {
				fields = append(fields, f)
			}
			slices.Sort(fields)
			out[a] = strings.TrimSpace("conditional " + strings.Join(fields, " "))
		default:
			out[a] = []string{"no", "", "yes"}[ref.lo[a]]
		}
	}
	return out
}

func equal(a, b map[atom]int, atoms []atom) bool {
	for _, x := range atoms {
		if a[x] != b[x] {
			return false
		}
	}
	return true
}

func (ref *reference) least(subject tuple.Subject, end int, bounds [2]map[atom]int) map[atom]int {
	at := map[atom]int{}
	for changed := true; changed; {
		changed = false
		for _, a := range ref.w.resources {
			e := evaluation{ref: ref, subject: subject, end: end, at: at, bounds: bounds}
			if v := e.atom(a); v != at[a] {
				at[a], changed = v, true
			}
		}
	}
	return at
}

// evaluation computes one end of the bounds. What stands behind a minus is taken
// from the bounds found so far, the other way round; so is what stands behind
// two: an exclusion means the same inside an expression and under a name.
type evaluation struct {
	ref     *reference
	subject tuple.Subject
	end     int
	at      map[atom]int
	bounds  [2]map[atom]int
}

func (e *evaluation) value(a atom) int {
	if e.subject.Relation != "" && a.object == e.subject.Object && a.relation == e.subject.Relation {
		return 2
	}
	return e.at[a]
}

func (e *evaluation) guard(r tuple.Relationship) int {
	lo, hi, _ := e.ref.caveat(r)
	return []int{lo, hi}[e.end]
}

func (e *evaluation) atom(a atom) int {
	if e.subject.Relation != "" && a.object == e.subject.Object && a.relation == e.subject.Relation {
		return 2
	}
	rel := e.ref.s.Definition(a.object.Type).Relation(a.relation)
	if rel.Expr != nil {
		return e.expr(a.object, rel.Expr)
	}
	v := 0
	for _, r := range e.ref.rels {
		if r.Object != a.object || r.Relation != a.relation {
			continue
		}
		switch {
		case r.Subject == e.subject, r.Subject.IsWildcard() && r.Subject.Type == e.subject.Type && e.subject.Relation == "":
			v = max(v, e.guard(r))
		case r.Subject.Relation != "":
			v = max(v, min(e.guard(r), e.value(atom{r.Subject.Object, r.Subject.Relation})))
		}
	}
	return v
}

func (e *evaluation) expr(o tuple.Object, x *schema.Expr) int {
	switch x.Kind {
	case schema.Self:
		if e.subject.Relation == "" && o == e.subject.Object {
			return 2
		}
		return 0
	case schema.Ref:
		return e.value(atom{o, x.Relation.Text})
	case schema.Arrow, schema.ArrowAll:
		return e.arrow(o, x)
	case schema.Union:
		v := 0
		for _, c := range x.Children {
			v = max(v, e.expr(o, c))
		}
		return v
	case schema.Intersection:
		v := 2
		for _, c := range x.Children {
			v = min(v, e.expr(o, c))
		}
		return v
	case schema.Exclusion:
		other := evaluation{ref: e.ref, subject: e.subject, end: 1 - e.end, at: e.bounds[1-e.end], bounds: e.bounds}
		return min(e.expr(o, x.Children[0]), 2-other.expr(o, x.Children[1]))
	}
	return 0
}

func (e *evaluation) arrow(o tuple.Object, x *schema.Expr) int {
	some, all, any := 0, 2, false
	for _, r := range e.ref.rels {
		if r.Object != o || r.Relation != x.Tupleset.Text {
			continue
		}
		any = true
		v := 0
		if e.ref.s.Definition(r.Subject.Type).Relation(x.Target) != nil {
			v = min(e.guard(r), e.value(atom{r.Subject.Object, x.Target}))
		}
		some, all = max(some, v), min(all, v)
	}
	switch {
	case x.Kind == schema.Arrow:
		return some
	case any:
		return all
	}
	return 0
}

// meaning gives the final bounds of an atom and the fields that a conditional
// part of it lacks, from the final bounds of all atoms.
func (ref *reference) meaning(subject tuple.Subject, a atom) (lo, hi int, lacks []string) {
	m := meaning{ref: ref, subject: subject}
	if m.itself(a) {
		return 2, 2, nil
	}
	rel := ref.s.Definition(a.object.Type).Relation(a.relation)
	if rel.Expr != nil {
		return closed(m.expr(a.object, rel.Expr))
	}
	for _, r := range ref.rels {
		if r.Object != a.object || r.Relation != a.relation {
			continue
		}
		direct := r.Subject == subject || r.Subject.IsWildcard() && r.Subject.Type == subject.Type && subject.Relation == ""
		if !direct && r.Subject.Relation == "" {
			continue
		}
		l, h, f := ref.caveat(r)
		if !direct {
			l, h, f = m.through(r, atom{r.Subject.Object, r.Subject.Relation})
		}
		lo, hi, lacks = max(lo, l), max(hi, h), append(lacks, f...)
	}
	return closed(lo, hi, lacks)
}

// closed drops what a decided yes or no lacks: nothing.
func closed(lo, hi int, lacks []string) (int, int, []string) {
	if lo == hi && lo != 1 {
		return lo, hi, nil
	}
	return lo, hi, lacks
}

type meaning struct {
	ref     *reference
	subject tuple.Subject
}

func (m meaning) itself(a atom) bool {
	return m.subject.Relation != "" && a.object == m.subject.Object && a.relation == m.subject.Relation
}

func (m meaning) value(a atom) (int, int, []string) {
	if m.itself(a) {
		return 2, 2, nil
	}
	var fields []string
	for f := range m.ref.lacks[a] {
		fields = append(fields, f)
	}
	return closed(m.ref.lo[a], m.ref.hi[a], fields)
}

func (m meaning) through(r tuple.Relationship, a atom) (int, int, []string) {
	gl, gh, gf := m.ref.caveat(r)
	l, h, f := m.value(a)
	return closed(min(gl, l), min(gh, h), append(slices.Clone(gf), f...))
}

func (m meaning) expr(o tuple.Object, x *schema.Expr) (int, int, []string) {
	switch x.Kind {
	case schema.Self:
		if m.subject.Relation == "" && o == m.subject.Object {
			return 2, 2, nil
		}
	case schema.Ref:
		return m.value(atom{o, x.Relation.Text})
	case schema.Arrow, schema.ArrowAll:
		lo, hi, lacks, any := 0, 0, []string(nil), false
		for _, r := range m.ref.rels {
			if r.Object != o || r.Relation != x.Tupleset.Text {
				continue
			}
			l, h, f := 0, 0, []string(nil)
			if m.ref.s.Definition(r.Subject.Type).Relation(x.Target) != nil {
				l, h, f = m.through(r, atom{r.Subject.Object, x.Target})
			}
			switch {
			case x.Kind == schema.Arrow, !any:
				lo, hi = max(lo, l), max(hi, h)
			default:
				lo, hi = min(lo, l), min(hi, h)
			}
			lacks, any = append(lacks, f...), true
		}
		return closed(lo, hi, lacks)
	case schema.Union, schema.Intersection:
		lo, hi, lacks := m.expr(o, x.Children[0])
		for _, c := range x.Children[1:] {
			l, h, f := m.expr(o, c)
			if x.Kind == schema.Union {
				lo, hi = max(lo, l), max(hi, h)
			} else {
				lo, hi = min(lo, l), min(hi, h)
			}
			lacks = append(slices.Clone(lacks), f...)
		}
		return closed(lo, hi, lacks)
	case schema.Exclusion:
		l, h, f := m.expr(o, x.Children[0])
		l2, h2, f2 := m.expr(o, x.Children[1])
		return closed(min(l, 2-h2), min(h, 2-l2), append(slices.Clone(f), f2...))
	}
	return 0, 0, nil
}
