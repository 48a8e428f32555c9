package graph

import (
	"context"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
)

// deny finds sets that make a relation or permission of an object no.
func (g *suggester) deny(ctx context.Context, o datastore.ID, r *schema.Relation) ([]changes, error) {
	v, _, err := g.valueOf(ctx, o, r)
	if err != nil || v == isNo {
		return nothing, err
	}
	if o == g.subject && g.userset != 0 && r.Name == g.userset {
		return nil, nil // a userset is in itself
	}
	k := claimKey{o, r, nil}
	if g.denying[k] {
		return nothing, nil // going round adds nothing
	}
	if ok, err := g.enter(ctx, g.denying, k); !ok {
		return nil, err
	}
	defer delete(g.denying, k)
	if r.Expr != nil {
		return g.denyExpr(ctx, o, r.Expr)
	}
	n := node{key: key{object: o, part: g.plan.atoms[r]}}
	edges, err := g.edges(ctx, g.reads(&n, nil))
	if err != nil {
		return nil, err
	}
	return g.denyEdges(ctx, edges, nil)
}

func (g *suggester) denyExpr(ctx context.Context, o datastore.ID, x *schema.Expr) ([]changes, error) {
	goal := func(c *schema.Expr) ([]changes, error) { return g.denyExpr(ctx, o, c) }
	switch x.Kind {
	case schema.Nil:
		return nothing, nil
	case schema.Self:
		if o == g.subject && g.userset == 0 {
			return nil, nil
		}
		return nothing, nil
	case schema.Ref:
		return g.deny(ctx, o, x.Relation)
	case schema.Arrow:
		edges, err := g.edges(ctx, []datastore.Query{{Object: o, Relation: x.Tupleset.Name}})
		if err != nil {
			return nil, err
		}
		return g.denyEdges(ctx, edges, x)
	case schema.ArrowAll:
		return g.denyAll(ctx, o, x)
	case schema.Union:
		return g.allOf(x.Children, goal)
	case schema.Intersection:
		return g.anyOf(x.Children, goal)
	}
	left, err := g.denyExpr(ctx, o, x.Children[0])
	if err != nil {
		return nil, err
	}
	right, err := g.grantExpr(ctx, o, x.Children[1])
	return cheapest(append(left, right...), maxSets), err
}

// denyEdges takes away every edge that is not a no, or denies what it leads to.
// x is the arrow that the edges are of; nil for those of a relation.
func (g *suggester) denyEdges(ctx context.Context, edges []datastore.Edge, x *schema.Expr) ([]changes, error) {
	out := nothing
	denied := 0
	for i := range edges {
		v, _, err := g.through(ctx, &edges[i], x)
		if err != nil {
			return nil, err
		}
		if v == isNo {
			continue
		}
		if denied++; denied > maxDenials {
			return nil, nil
		}
		sets, err := g.cut(ctx, &edges[i], x)
		if err != nil {
			return nil, err
		}
		out = both(out, sets)
	}
	return out, nil
}

// cut deletes an edge, or denies what it leads to.
func (g *suggester) cut(ctx context.Context, edge *datastore.Edge, x *schema.Expr) ([]changes, error) {
	sets := []changes{{deletes: []datastore.Edge{*edge}, cost: costDelete}}
	g.note(sets[0])
	target := g.lead(edge, x)
	if target == nil {
		return sets, nil
	}
	inner, err := g.deny(ctx, edge.Subject, target)
	return cheapest(append(sets, inner...), maxSets), err
}

// denyAll denies what one relationship of an arrow leads to, adds one that leads
// to nothing, or deletes all.
func (g *suggester) denyAll(ctx context.Context, o datastore.ID, x *schema.Expr) ([]changes, error) {
	edges, err := g.edges(ctx, []datastore.Query{{Object: o, Relation: x.Tupleset.Name}})
	if err != nil || len(edges) == 0 {
		return nothing, err
	}
	var out []changes
	if len(edges) <= maxDenials {
		out = append(out, changes{deletes: edges, cost: costDelete * len(edges)})
	}
	for i := range edges {
		if i == maxDenials {
			break
		}
		v, _, err := g.through(ctx, &edges[i], x)
		if err != nil {
			return nil, err
		}
		if v == isNo {
			return nothing, nil
		}
		if target := g.lead(&edges[i], x); target != nil {
			sets, err := g.deny(ctx, edges[i].Subject, target)
			if err != nil {
				return nil, err
			}
			out = append(out, sets...)
		}
	}
	if g.fresh >= maxNew {
		return cheapest(out, maxSets), nil
	}
	g.fresh++
	defer func() { g.fresh-- }()
	for i := range x.Tupleset.Allowed {
		a := &x.Tupleset.Allowed[i]
		edge := datastore.Edge{Object: o, Relation: x.Tupleset.Name}
		if a.Relation != nil {
			edge.SubjectRelation = a.Relation.Name
		}
		if edge.Subject, err = g.newObject(ctx, a.Definition); err != nil {
			return nil, err
		}
		for _, s := range g.write(ctx, edge, a, nothing) {
			s.cost += costNew
			out = append(out, s)
		}
	}
	return cheapest(out, maxSets), nil
}
