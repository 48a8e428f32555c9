package schema

import (
	"fmt"
	"slices"
)

// lintNobody finds permissions that no subject can ever have, whatever is
// written: those made of nil, those that only go round in circles, those that
// intersect subjects of different kinds.
//
// It computes which kinds of subjects each relation and permission can hold: a
// least fixpoint over small sets. A kind is a type or a userset.
func (c *compiler) lintNobody() {
	a := &kindAnalysis{left: maxSteps, number: map[any]int32{}, sets: map[*Relation]kinds{}, users: map[*Relation][]*Relation{}}
	for _, r := range c.order {
		a.listen(r)
	}
	if !a.solve(c.order) {
		return // too large to say
	}
	for _, r := range c.order {
		if d := c.permissions[r]; d != nil && a.sets[r].none() {
			c.warn(d, r.Pos, r.Text, "nobody", fmt.Sprintf("nobody can ever have permission %s", quote(r.Text)), why(r))
		}
	}
}

func why(r *Relation) string {
	switch r.Expr.Kind {
	case Nil:
		return "it is `nil`; remove it, or give it a relation"
	case Intersection:
		return "its sides hold no subject in common; use `+`, or correct the types of the relations"
	case Ref:
		if r.Expr.Relation == r {
			return "it is itself; name a relation instead"
		}
	}
	return "whatever it is made of is empty; name a relation that can hold somebody"
}

// maxKinds bounds the sets. A larger one counts as everything.
const maxKinds = 32

// kinds is a sorted set of kinds of subjects.
type kinds struct {
	all  bool
	list []int32
}

func (k kinds) none() bool { return !k.all && len(k.list) == 0 }

func (k kinds) union(o kinds) kinds {
	if k.all || o.all {
		return kinds{all: true}
	}
	if len(o.list) == 0 {
		return k
	}
	out := slices.Concat(k.list, o.list)
	slices.Sort(out)
	out = slices.Compact(out)
	if len(out) > maxKinds {
		return kinds{all: true}
	}
	return kinds{list: out}
}

func (k kinds) intersection(o kinds) kinds {
	switch {
	case k.all:
		return o
	case o.all:
		return k
	}
	var out []int32
	for _, n := range k.list {
		if _, ok := slices.BinarySearch(o.list, n); ok {
			out = append(out, n)
		}
	}
	return kinds{list: out}
}

func (k kinds) equal(o kinds) bool { return k.all == o.all && slices.Equal(k.list, o.list) }

type kindAnalysis struct {
	left   int // steps
	number map[any]int32
	sets   map[*Relation]kinds
	users  map[*Relation][]*Relation // whose sets are made from this one's
}

// kind gives the kind of a *Definition or, for a userset, of a *Relation.
func (a *kindAnalysis) kind(of any) kinds {
	n, ok := a.number[of]
	if !ok {
		n = int32(len(a.number))
		a.number[of] = n
	}
	return kinds{list: []int32{n}}
}

// listen notes which sets r's set is made from.
func (a *kindAnalysis) listen(r *Relation) {
	for _, s := range r.Allowed {
		if a.left--; a.left >= 0 && s.Relation != nil {
			a.users[s.Relation] = append(a.users[s.Relation], r)
		}
	}
	if r.Expr != nil {
		a.listenTo(r.Expr, r)
	}
}

func (a *kindAnalysis) listenTo(e *Expr, r *Relation) {
	if a.left--; a.left < 0 {
		return
	}
	if e.Kind == Ref {
		a.users[e.Relation] = append(a.users[e.Relation], r)
	}
	a.eachTarget(e, func(target *Relation) { a.users[target] = append(a.users[target], r) })
	for _, child := range e.Children {
		a.listenTo(child, r)
	}
}

// eachTarget calls do for what an arrow leads to.
func (a *kindAnalysis) eachTarget(e *Expr, do func(*Relation)) {
	if e.Kind != Arrow && e.Kind != ArrowAll {
		return
	}
	for _, s := range e.Tupleset.Allowed {
		if a.left--; a.left < 0 {
			return
		}
		if target := s.Definition.Relation(e.Target); target != nil {
			do(target)
		}
	}
}

// solve computes all sets. It returns false if that takes too many steps.
func (a *kindAnalysis) solve(order []*Relation) bool {
	queue := slices.Clone(order)
	queued := make(map[*Relation]bool, len(queue))
	for _, r := range queue {
		queued[r] = true
	}
	for len(queue) > 0 && a.left >= 0 {
		r := queue[0]
		queue = queue[1:]
		queued[r] = false
		set := a.evaluate(r)
		if set.equal(a.sets[r]) {
			continue
		}
		a.sets[r] = set
		for _, user := range a.users[r] {
			if a.left--; !queued[user] {
				queued[user] = true
				queue = append(queue, user)
			}
		}
	}
	return a.left >= 0
}

func (a *kindAnalysis) evaluate(r *Relation) kinds {
	if r.Expr != nil {
		return a.expression(r, r.Expr)
	}
	var out kinds
	for _, s := range r.Allowed {
		if a.left--; a.left < 0 {
			break
		}
		if s.Relation == nil {
			out = out.union(a.kind(s.Definition))
		} else {
			out = out.union(a.kind(s.Relation)).union(a.sets[s.Relation])
		}
	}
	return out
}

func (a *kindAnalysis) expression(r *Relation, e *Expr) kinds {
	if a.left--; a.left < 0 {
		return kinds{}
	}
	var out kinds
	switch e.Kind {
	case Self:
		return a.kind(r.Definition)
	case Ref:
		return a.sets[e.Relation]
	case Arrow, ArrowAll:
		a.eachTarget(e, func(target *Relation) { out = out.union(a.sets[target]) })
	case Exclusion:
		return a.expression(r, e.Children[0])
	case Union:
		for _, child := range e.Children {
			out = out.union(a.expression(r, child))
		}
	case Intersection:
		out.all = true
		for _, child := range e.Children {
			out = out.intersection(a.expression(r, child))
		}
	}
	return out
}
