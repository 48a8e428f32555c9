package schema

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Dependencies are the relations and permissions that r is made of, in whole or
// in part: those of its expression and of the usersets it allows, and theirs in
// turn, sorted by type, then name. r is among them only if it is made of itself.
func (r *Relation) Dependencies() []*Relation {
	return closure(r, func(r *Relation, add func(*Relation)) {
		for i := range r.Allowed {
			if userset := r.Allowed[i].Relation; userset != nil {
				add(userset)
			}
		}
		if r.Expr != nil {
			r.Expr.dependencies(add)
		}
	})
}

func (e *Expr) dependencies(add func(*Relation)) {
	switch e.Kind {
	case Ref:
		add(e.Relation)
	case Arrow, ArrowAll:
		add(e.Tupleset)
		for i := range e.Tupleset.Allowed {
			if target := e.Tupleset.Allowed[i].Definition.Relation(e.Target); target != nil {
				add(target)
			}
		}
	}
	for _, child := range e.Children {
		child.dependencies(add)
	}
}

// Dependents are the relations and permissions that have any of some in their
// Dependencies, sorted by type, then name.
func (s *Schema) Dependents(some ...*Relation) []*Relation {
	direct := map[*Relation][]*Relation{}
	for _, d := range s.Definitions {
		for _, r := range d.Relations {
			for i := range r.Allowed {
				if userset := r.Allowed[i].Relation; userset != nil {
					direct[userset] = append(direct[userset], r)
				}
			}
			if r.Expr != nil {
				r.Expr.dependencies(func(part *Relation) { direct[part] = append(direct[part], r) })
			}
		}
	}
	next := func(r *Relation, add func(*Relation)) {
		for _, dependent := range direct[r] {
			add(dependent)
		}
	}
	found := map[*Relation]bool{}
	for _, r := range some {
		for _, dependent := range closure(r, next) {
			found[dependent] = true
		}
	}
	return sorted(found)
}

// closure is everything that can be reached from r by one step or more.
func closure(r *Relation, next func(*Relation, func(*Relation))) []*Relation {
	found := map[*Relation]bool{}
	queue := []*Relation{r}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		next(at, func(to *Relation) {
			if !found[to] {
				found[to] = true
				queue = append(queue, to)
			}
		})
	}
	return sorted(found)
}

func sorted(set map[*Relation]bool) []*Relation {
	out := slices.Collect(maps.Keys(set))
	slices.SortFunc(out, func(a, b *Relation) int {
		return cmp.Or(strings.Compare(a.Definition.Type, b.Definition.Type), strings.Compare(a.Text, b.Text))
	})
	return out
}
