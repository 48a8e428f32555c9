package graph

import (
	"context"
	"fmt"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// fewBelow is how many candidates under an ancestor are asked about one by one,
// rather than walking back from a subject that may have a permission on a million
// others.
const fewBelow = 256

// descend gathers what lies under an ancestor, and reports whether it holds so
// few objects of the wanted type that asking about each is the shorter way.
func (w *resourceWalk) descend(ctx context.Context, ancestor tuple.Object) (few bool, err error) {
	if err := ancestor.Check(); err != nil {
		return false, fmt.Errorf("%w: under: %w", ErrInvalid, err)
	}
	if _, err := definition(w.schema, ancestor.Type); err != nil {
		return false, err
	}
	walked, hops := inheritance(w.schema)
	w.below = &idSet{}
	typ := w.plan.target.relation.Definition.Name
	wanted := 0
	for todo := []datastore.ID{w.view.id(ancestor)}; len(todo) > 0; {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n := min(len(todo), max(1, w.view.Width()))
		var qs []datastore.Query
		for _, o := range todo[len(todo)-n:] {
			for _, h := range hops[w.view.Type(o)] {
				qs = append(qs, h.query(o))
			}
		}
		todo = todo[:len(todo)-n]
		if len(qs) == 0 {
			continue
		}
		err := w.view.Read(ctx, qs, func(_ int, e datastore.Edge) bool {
			if w.steps++; w.steps%512 == 0 && ctx.Err() != nil {
				return false
			}
			d := w.schema.DefinitionByName(w.view.Type(e.Object))
			if expired(&e, w.now) || d == nil || !walked[d.RelationByName(e.Relation)] {
				return true
			}
			if g := w.judge.engine.guard(ctx, &e); g != nil && g.value == isNo {
				return true
			}
			if w.below.add(e.Object) {
				todo = append(todo, e.Object)
				if w.view.Type(e.Object) == typ {
					wanted++
				}
			}
			return true
		})
		if err != nil {
			return false, err
		}
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	return wanted <= fewBelow, nil
}

// inheritance returns the relations that arrows of the schema walk, and by the
// type at their far end the reads that go back through them.
func inheritance(s *schema.Schema) (walked map[*schema.Relation]bool, hops map[schema.Name][]hop) {
	walked, hops = map[*schema.Relation]bool{}, map[schema.Name][]hop{}
	for _, d := range s.Definitions {
		for _, r := range d.Relations {
			needs(r, func(*schema.Relation) {}, func(x *schema.Expr) { walked[x.Tupleset] = true })
		}
	}
	for r := range walked {
		for i := range r.Allowed {
			a := &r.Allowed[i]
			userset := schema.Name(0)
			if a.Relation != nil {
				userset = a.Relation.Name
			}
			hops[a.Definition.Name] = addHop(hops[a.Definition.Name], r.Name, userset, step{})
		}
	}
	return walked, hops
}

// askBelow asks about everything of the wanted type under the ancestor.
func (w *resourceWalk) askBelow(ctx context.Context) error {
	target := w.plan.target.relation
	for o := range w.below.all() {
		if w.list.stopped {
			return nil
		}
		if w.view.Type(o) != target.Definition.Name || !w.wanted(o) {
			continue
		}
		if w.list.options.ordered() {
			w.result(o, entry{doubt: true})
			continue
		}
		a, err := w.judge.ask(ctx, o, target)
		switch {
		case err != nil && fatal(ctx, err):
			return err
		case err != nil || a.Outcome != No:
			w.result(o, entry{answer: a, err: err})
		}
	}
	return nil
}
