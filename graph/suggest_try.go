package graph

import (
	"context"
	"errors"
	"slices"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// choose tries sets out, the next round of them only where nothing of one before
// holds, and returns those that hold without what they do not need.
func (g *suggester) choose(ctx context.Context, o datastore.ID, r *schema.Relation, most int, rounds ...[]changes) (Suggestions, error) {
	var good []changes
	tried := 0
	offer := func(s changes) error {
		beyond := func(g changes) bool { return g.within(s) }
		if s.empty() || tried > maxTried || len(good) >= most || slices.ContainsFunc(good, beyond) {
			return nil
		}
		tried++
		ok, err := g.try(ctx, o, r, s)
		if err != nil || !ok {
			return err
		}
		if s, err = g.reduce(ctx, o, r, s); err == nil && !slices.ContainsFunc(good, beyond) {
			good = append(good, s)
		}
		return err
	}
	for _, round := range rounds {
		if len(good) > 0 {
			break
		}
		for _, s := range cheapest(round, maxTried) {
			if err := offer(s); err != nil {
				return Suggestions{}, err
			}
		}
	}
	var out Suggestions
	for _, s := range cheapest(good, most) {
		out.Found = append(out.Found, g.suggestion(s))
	}
	return out, nil
}

// pairs are the sets of one list joined with those of another.
func pairs(a, b []changes) []changes {
	var out []changes
	for _, s := range a {
		for _, o := range b {
			if joined, ok := s.with(o); ok && len(out) < maxSteps*maxSteps {
				out = append(out, joined)
			}
		}
	}
	return out
}

func (s changes) empty() bool { return len(s.writes)+len(s.deletes)+len(s.needs) == 0 }

// try asks the question with a set of changes made. The caveats that are to hold
// hold; what others come to that read the same fields is taken as unknown, so
// that a yes stands whatever the fields will be.
func (g *suggester) try(ctx context.Context, o datastore.ID, r *schema.Relation, s changes) (bool, error) {
	v := &view{Snapshot: g.view.Snapshot, foreign: g.view.foreign, found: g.view.found, edges: slices.Clone(g.view.edges)}
	lay := func(e datastore.Edge) {
		v.edges = append(slices.DeleteFunc(v.edges, func(o datastore.Edge) bool { return sameEdge(o, e) }), e)
	}
	for _, e := range s.deletes {
		e.Expiration = 1
		lay(e)
	}
	for _, e := range s.writes {
		lay(e)
	}
	q := g.question
	var fields []string
	for _, n := range s.needs {
		e := n.edge
		e.Caveat, e.Context = "", ""
		lay(e)
		fields = append(fields, n.fields...)
	}
	if len(fields) > 0 {
		q.Context = q.Context.Without(fields)
	}
	e := newEngine(v, &q, g.now, g.limits)
	defer e.release()
	a, err := e.ask(ctx, o, r)
	if err != nil {
		if fatal(ctx, err) && !errors.Is(err, ErrTooManyNodes) {
			return false, err
		}
		return false, nil
	}
	return a.Outcome == Yes, nil
}

// reduce leaves out what a set does without.
func (g *suggester) reduce(ctx context.Context, o datastore.ID, r *schema.Relation, s changes) (changes, error) {
	tryWithout := func(smaller changes, cost int) (bool, error) {
		ok, err := g.try(ctx, o, r, smaller)
		if ok {
			smaller.cost -= cost
			s = smaller
		}
		return ok, err
	}
	for i := 0; i < len(s.writes); i++ {
		smaller, edge := s, s.writes[i]
		smaller.writes = slices.Delete(slices.Clone(s.writes), i, i+1)
		smaller.needs = slices.DeleteFunc(slices.Clone(s.needs), func(n contextNeed) bool { return sameEdge(n.edge, edge) })
		if ok, err := tryWithout(smaller, costWrite); err != nil {
			return s, err
		} else if ok {
			i--
		}
	}
	for i := 0; i < len(s.deletes); i++ {
		smaller := s
		smaller.deletes = slices.Delete(slices.Clone(s.deletes), i, i+1)
		if ok, err := tryWithout(smaller, costDelete); err != nil {
			return s, err
		} else if ok {
			i--
		}
	}
	for i := 0; i < len(s.needs); i++ {
		if hasEdge(s.writes, s.needs[i].edge) {
			continue // it comes with its write
		}
		smaller := s
		smaller.needs = slices.Delete(slices.Clone(s.needs), i, i+1)
		if ok, err := tryWithout(smaller, costField*len(s.needs[i].fields)); err != nil {
			return s, err
		} else if ok {
			i--
		}
	}
	return s, nil
}

// suggestion gives a set its words.
func (g *suggester) suggestion(s changes) Suggestion {
	var out Suggestion
	byKey := func(a, b tuple.Relationship) int { return a.Key.Compare(b.Key) }
	for i := range s.writes {
		out.Writes = append(out.Writes, g.relationship(&s.writes[i]))
	}
	for i := range s.deletes {
		r := g.relationship(&s.deletes[i])
		r.Caveat.Context = ""
		out.Deletes = append(out.Deletes, r)
	}
	slices.SortFunc(out.Writes, byKey)
	slices.SortFunc(out.Deletes, byKey)
	for i := range s.needs {
		r := g.relationship(&s.needs[i].edge)
		r.Caveat.Context = ""
		out.Context = append(out.Context, ContextNeed{Relationship: r, Fields: s.needs[i].fields})
	}
	slices.SortFunc(out.Context, func(a, b ContextNeed) int { return byKey(a.Relationship, b.Relationship) })
	return out
}
