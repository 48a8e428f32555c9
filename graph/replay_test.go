package graph_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// replay is an independent checker of explanations: from the relationships, the
// schema and the rules of its language alone it judges whether the reasons that
// are given bear the answer.
type replay struct {
	t       *testing.T
	s       *schema.Schema
	rels    []tuple.Relationship // in force
	written map[tuple.Key]tuple.Relationship
	subject tuple.Subject
	context schema.Context
	reasons []graph.Reason
	seen    map[string]bool
	needs   map[uint32][]uint32
}

func newReplay(t *testing.T, s *schema.Schema, w *world, subject tuple.Subject, reasons []graph.Reason) *replay {
	p := &replay{t: t, s: s, subject: subject, context: w.context, reasons: reasons, seen: map[string]bool{}, needs: map[uint32][]uint32{}, written: map[tuple.Key]tuple.Relationship{}}
	for _, text := range w.relationships {
		if r, err := tuple.Parse(text); err == nil && !r.Expired(w.now) {
			p.rels = append(p.rels, r)
			p.written[r.Key] = r
		}
	}
	return p
}

// proves returns why the reasons do not bear the first, or nil.
func (p *replay) proves(o tuple.Object, permission string) error {
	if err := p.atom(0, o, permission); err != nil {
		return err
	}
	for i, r := range p.reasons {
		if r.Outcome != graph.Yes {
			continue
		}
		seen, todo := map[uint32]bool{}, slices.Clone(p.needs[uint32(i)])
		for len(todo) > 0 {
			n := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if n == uint32(i) {
				return fmt.Errorf("reason %d is a yes that rests on itself", i)
			}
			if !seen[n] {
				seen[n] = true
				todo = append(todo, p.needs[n]...)
			}
		}
	}
	return nil
}

// atom checks the reason about a relation or permission.
func (p *replay) atom(i uint32, o tuple.Object, name string) error {
	r := p.reasons[i]
	def := p.s.Definition(o.Type).Relation(name)
	if r.Object != o || r.Relation != name || def == nil {
		return fmt.Errorf("reason %d is about %s#%s, not %s#%s", i, r.Object, r.Relation, o, name)
	}
	if p.subject.Relation != "" && p.subject.Object == o && p.subject.Relation == name {
		if r.Kind != graph.TreeItself || r.Outcome != graph.Yes {
			return fmt.Errorf("reason %d: a userset is in itself", i)
		}
		return nil
	}
	if def.Expr != nil {
		return p.expr(i, o, def.Expr)
	}
	return p.once(i, "relation", func() error { return p.relation(i, o, name) })
}

// once checks a reason once, and circles not at all: proves looks at those.
func (p *replay) once(i uint32, as string, check func() error) error {
	k := fmt.Sprint(i, as)
	if p.seen[k] {
		return nil
	}
	p.seen[k] = true
	return check()
}

func (p *replay) caveat(r tuple.Relationship) graph.Outcome {
	if r.Caveat.Name == "" {
		return graph.Yes
	}
	res, err := p.s.Caveat(r.Caveat.Name).Eval(p.t.Context(), r.Caveat.Context, p.context, 0)
	switch {
	case err != nil || res.Truth == schema.Unknown:
		return graph.Conditional // or open: neither yes nor no
	case res.Truth == schema.True:
		return graph.Yes
	}
	return graph.No
}

// step checks that a relationship is in force, and how it is with its caveat.
func (p *replay) step(i uint32, s graph.ReasonStep) (tuple.Relationship, error) {
	r, ok := p.written[s.Relationship.Key]
	if !ok || !r.Expiration.Equal(s.Relationship.Expiration) || r.Caveat.Name != s.Relationship.Caveat.Name {
		return r, fmt.Errorf("reason %d: relationship %s is not in force", i, s.Relationship)
	}
	if !s.Contextual && s.Relationship.Caveat.Context != "" {
		return r, fmt.Errorf("reason %d tells the written context of %s", i, s.Relationship)
	}
	if got := p.caveat(r); got != s.Caveat && !s.CaveatOpen {
		return r, fmt.Errorf("reason %d: the caveat of %s comes to %d, not %d", i, r, got, s.Caveat)
	}
	return r, nil
}

func (p *replay) rest(i uint32, on uint32) { p.needs[i] = append(p.needs[i], on) }

// relation checks a reason against the relationships of a relation.
func (p *replay) relation(i uint32, o tuple.Object, name string) error {
	r := p.reasons[i]
	refuted := map[tuple.Key]bool{}
	granted := false
	for _, s := range r.Steps {
		rel, err := p.step(i, s)
		if err != nil {
			return err
		}
		if rel.Object != o || rel.Relation != name {
			return fmt.Errorf("reason %d: relationship %s is of something else", i, rel)
		}
		holds := s.Caveat
		if s.Node != nil {
			p.rest(i, *s.Node)
			if err := p.atom(*s.Node, rel.Subject.Object, rel.Subject.Relation); err != nil {
				return err
			}
			holds = least(holds, p.reasons[*s.Node].Outcome)
		} else if s.Caveat == graph.Yes && !p.names(rel.Subject) {
			return fmt.Errorf("reason %d: relationship %s does not name the subject", i, rel)
		}
		granted = granted || holds == graph.Yes && !s.CaveatOpen
		refuted[rel.Key] = holds == graph.No
	}
	switch r.Outcome {
	case graph.Yes:
		if !granted {
			return fmt.Errorf("reason %d: no relationship grants it", i)
		}
	case graph.No:
		for _, rel := range p.rels {
			if rel.Object == o && rel.Relation == name && !refuted[rel.Key] && (p.names(rel.Subject) || rel.Subject.Relation != "" && p.leads(i, rel)) && !r.Open {
				return fmt.Errorf("reason %d: relationship %s is not refuted", i, rel)
			}
		}
	}
	return nil
}

// leads reports whether a userset matters: one of a kind that, by the schema,
// never holds the subject, need not be shown.
func (p *replay) leads(i uint32, rel tuple.Relationship) bool {
	return possible(p.s, rel.Subject.Type, rel.Subject.Relation, p.subject)
}

// possible reports whether subjects of that kind can have a relation by the
// schema, taking every caveat for true and nothing for excluded.
func possible(s *schema.Schema, typ, relation string, subject tuple.Subject) bool {
	can := map[*schema.Relation]bool{}
	var expr func(d *schema.Definition, x *schema.Expr) bool
	expr = func(d *schema.Definition, x *schema.Expr) bool {
		switch x.Kind {
		case schema.Self:
			return subject.Relation == "" && d.Type == subject.Type
		case schema.Ref:
			return can[x.Relation]
		case schema.Arrow, schema.ArrowAll:
			return slices.ContainsFunc(x.Tupleset.Allowed, func(a schema.AllowedSubject) bool { return can[a.Definition.Relation(x.Target)] })
		case schema.Union:
			return slices.ContainsFunc(x.Children, func(c *schema.Expr) bool { return expr(d, c) })
		case schema.Intersection:
			return !slices.ContainsFunc(x.Children, func(c *schema.Expr) bool { return !expr(d, c) })
		case schema.Exclusion:
			return expr(d, x.Children[0])
		}
		return false
	}
	for changed := true; changed; {
		changed = false
		for _, d := range s.Definitions {
			for _, r := range d.Relations {
				now := subject.Relation != "" && d.Type == subject.Type && r.Text == subject.Relation || r.Expr != nil && expr(d, r.Expr)
				for _, a := range r.Allowed {
					own := a.Definition.Type == subject.Type && (a.Relation == nil && subject.Relation == "" || a.Relation != nil && a.Relation.Text == subject.Relation)
					now = now || own || a.Relation != nil && can[a.Relation]
				}
				if now && !can[r] {
					can[r], changed = true, true
				}
			}
		}
	}
	return can[s.Definition(typ).Relation(relation)]
}

// names reports whether a relationship's subject is the one asked about, or
// stands for it.
func (p *replay) names(s tuple.Subject) bool {
	return s == p.subject || s.IsWildcard() && p.subject.Relation == "" && s.Type == p.subject.Type
}

func least(a, b graph.Outcome) graph.Outcome {
	if a == graph.No || b == graph.No {
		return graph.No
	}
	if a == graph.Conditional || b == graph.Conditional {
		return graph.Conditional
	}
	return graph.Yes
}

// expr checks a reason against an expression.
func (p *replay) expr(i uint32, o tuple.Object, x *schema.Expr) error {
	return p.once(i, fmt.Sprintf("%p", x), func() error {
		r := p.reasons[i]
		if r.Object != o {
			return fmt.Errorf("reason %d is about %s, not %s", i, r.Object, o)
		}
		switch x.Kind {
		case schema.Nil:
			return p.says(i, false)
		case schema.Self:
			return p.says(i, p.subject == tuple.Subject{Object: o})
		case schema.Arrow, schema.ArrowAll:
			return p.arrow(i, o, x)
		}
		children := x.Children
		if x.Kind == schema.Ref {
			children = []*schema.Expr{x}
		}
		outcomes := make([][]graph.Outcome, len(children))
		for _, part := range r.Parts {
			p.rest(i, part.Node)
			at := -1
			for j, c := range children {
				if part.Excluded == (x.Kind == schema.Exclusion && j == 1) && p.child(part.Node, o, c) == nil {
					at = j
					outcomes[j] = append(outcomes[j], p.reasons[part.Node].Outcome)
				}
			}
			if at < 0 {
				return fmt.Errorf("reason %d: part %d is none of the expression", i, part.Node)
			}
		}
		return p.judge(i, x.Kind, outcomes)
	})
}

func (p *replay) says(i uint32, yes bool) error {
	if (p.reasons[i].Outcome == graph.Yes) != yes {
		return fmt.Errorf("reason %d comes to the other outcome", i)
	}
	return nil
}

// child checks a part of an expression; a reference is the reason of its name.
func (p *replay) child(i uint32, o tuple.Object, x *schema.Expr) error {
	if x.Kind == schema.Ref {
		return p.atom(i, o, x.Relation.Text)
	}
	kinds := map[schema.ExprKind]graph.TreeKind{schema.Nil: graph.TreeNil, schema.Self: graph.TreeSelf, schema.Arrow: graph.TreeAny, schema.ArrowAll: graph.TreeAll,
		schema.Union: graph.TreeUnion, schema.Intersection: graph.TreeIntersection, schema.Exclusion: graph.TreeExclusion}
	if r := p.reasons[i]; r.Relation != "" || r.Kind != kinds[x.Kind] {
		return fmt.Errorf("reason %d is of another kind", i)
	}
	return p.expr(i, o, x)
}

// judge applies the rule of an operator to the outcomes of its shown parts.
func (p *replay) judge(i uint32, kind schema.ExprKind, parts [][]graph.Outcome) error {
	r := p.reasons[i]
	has := func(j int, o graph.Outcome) bool { return slices.Contains(parts[j], o) }
	some := func(o graph.Outcome) bool {
		return slices.ContainsFunc(parts, func(p []graph.Outcome) bool { return slices.Contains(p, o) })
	}
	every := func(o graph.Outcome) bool {
		return !slices.ContainsFunc(parts, func(p []graph.Outcome) bool { return !slices.Contains(p, o) })
	}
	ok := true
	switch {
	case r.Outcome == graph.Conditional || r.Open:
	case kind == schema.Exclusion && r.Outcome == graph.Yes:
		ok = has(0, graph.Yes) && has(1, graph.No)
	case kind == schema.Exclusion:
		ok = has(0, graph.No) || has(1, graph.Yes)
	case (kind == schema.Intersection) == (r.Outcome == graph.Yes):
		ok = every(r.Outcome)
	default:
		ok = some(r.Outcome)
	}
	if !ok {
		return fmt.Errorf("reason %d does not follow from its parts %v", i, parts)
	}
	return nil
}

// arrow checks a reason against the relationships of an arrow's left side.
func (p *replay) arrow(i uint32, o tuple.Object, x *schema.Expr) error {
	r := p.reasons[i]
	outcomes := map[tuple.Key]graph.Outcome{}
	for _, s := range r.Steps {
		rel, err := p.step(i, s)
		if err != nil {
			return err
		}
		if rel.Object != o || rel.Relation != x.Tupleset.Text {
			return fmt.Errorf("reason %d: relationship %s is of something else", i, rel)
		}
		holds := s.Caveat
		if s.Node != nil {
			p.rest(i, *s.Node)
			if err := p.atom(*s.Node, rel.Subject.Object, x.Target); err != nil {
				return err
			}
			holds = least(holds, p.reasons[*s.Node].Outcome)
		} else if p.s.Definition(rel.Subject.Type).Relation(x.Target) == nil {
			holds = graph.No
		}
		outcomes[rel.Key] = holds
	}
	if r.Outcome == graph.Conditional || r.Open {
		return nil
	}
	var parts [][]graph.Outcome
	for _, rel := range p.rels {
		if rel.Object == o && rel.Relation == x.Tupleset.Text {
			outcome, shown := outcomes[rel.Key]
			if !shown {
				parts = append(parts, nil)
			} else {
				parts = append(parts, []graph.Outcome{outcome})
			}
		}
	}
	if x.Kind == schema.ArrowAll && len(parts) == 0 {
		return p.says(i, false)
	}
	kind := schema.Union
	if x.Kind == schema.ArrowAll {
		kind = schema.Intersection
	}
	return p.judge(i, kind, parts)
}
