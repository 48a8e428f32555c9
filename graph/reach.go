package graph

import (
	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
)

// reach knows which relations and permissions a kind of subject can come to by
// the schema, and how far away they are: zero is never. Everything that a
// permission is made of is known, what stands behind a minus too.
type reach struct {
	typ     *schema.Definition
	userset schema.Name // zero: an object
	cost    map[*schema.Relation]int
}

// farthest bounds the guess of how costly it is to find who has a relation;
// recursive ones come to it.
const farthest = 100

// newReach follows the schema from a relation or permission.
func newReach(root *schema.Relation, typ *schema.Definition, userset schema.Name) *reach {
	r := &reach{typ: typ, userset: userset, cost: map[*schema.Relation]int{}}
	var order []*schema.Relation
	seen := map[*schema.Relation]bool{root: true}
	for todo := []*schema.Relation{root}; len(todo) > 0; {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		order = append(order, next)
		needs(next, func(p *schema.Relation) {
			if !seen[p] {
				seen[p] = true
				todo = append(todo, p)
			}
		}, func(*schema.Expr) {})
	}
	for changed := true; changed; {
		changed = false
		for i := len(order) - 1; i >= 0; i-- {
			if c := min(r.compute(order[i]), farthest); c > r.cost[order[i]] {
				r.cost[order[i]], changed = c, true
			}
		}
	}
	return r
}

// needs calls f for what a relation or permission is made of, and arrow for the
// arrows in it.
func needs(r *schema.Relation, f func(*schema.Relation), arrow func(*schema.Expr)) {
	for i := range r.Allowed {
		if a := &r.Allowed[i]; a.Relation != nil {
			f(a.Relation)
		}
	}
	if r.Expr == nil {
		return
	}
	for todo := []*schema.Expr{r.Expr}; len(todo) > 0; {
		x := todo[len(todo)-1]
		todo = append(todo[:len(todo)-1], x.Children...)
		switch x.Kind {
		case schema.Ref:
			f(x.Relation)
		case schema.Arrow, schema.ArrowAll:
			f(x.Tupleset)
			arrow(x)
			targets(x, func(_ *schema.AllowedSubject, t *schema.Relation) { f(t) })
		}
	}
}

// targets calls f for each alternative of an arrow's left side that has the
// arrow's target.
func targets(x *schema.Expr, f func(*schema.AllowedSubject, *schema.Relation)) {
	for i := range x.Tupleset.Allowed {
		a := &x.Tupleset.Allowed[i]
		if t := a.Definition.Relation(x.Target); t != nil {
			f(a, t)
		}
	}
}

// is reports whether the subjects asked about are those of a userset.
func (r *reach) is(s *schema.Relation) bool {
	return r.userset != 0 && s.Definition == r.typ && s.Name == r.userset
}

// direct reports whether a relation may hold the subject itself by way of a, or
// the wildcard that matches it.
func (r *reach) direct(a *schema.AllowedSubject) bool {
	if a.Definition != r.typ || a.Wildcard && r.userset != 0 {
		return false
	}
	return a.Relation == nil && r.userset == 0 || a.Relation != nil && a.Relation.Name == r.userset
}

func (r *reach) compute(s *schema.Relation) int {
	if s.Expr != nil {
		c := r.expr(s.Definition, s.Expr)
		if r.is(s) {
			c = max(c, 1)
		}
		return c
	}
	best := 0
	if r.is(s) {
		best = 1
	}
	for i := range s.Allowed {
		a := &s.Allowed[i]
		switch {
		case r.direct(a) && a.Wildcard:
			best = max(best, 40)
		case r.direct(a):
			best = max(best, 1)
		}
		if a.Relation != nil && r.cost[a.Relation] > 0 {
			best = max(best, 2+r.cost[a.Relation])
		}
	}
	return best
}

// expr is zero if the subject can never come to x, and grows with the number of
// steps on the longest way.
func (r *reach) expr(d *schema.Definition, x *schema.Expr) int {
	switch x.Kind {
	case schema.Self:
		if r.userset == 0 && d == r.typ {
			return 1
		}
	case schema.Ref:
		return r.cost[x.Relation]
	case schema.Arrow, schema.ArrowAll:
		best := 0
		targets(x, func(_ *schema.AllowedSubject, t *schema.Relation) {
			if r.cost[t] > 0 {
				best = max(best, 5+r.cost[t])
			}
		})
		return best
	case schema.Union:
		best := 0
		for _, c := range x.Children {
			best = max(best, r.expr(d, c))
		}
		return best
	case schema.Intersection:
		best := farthest
		for _, c := range x.Children {
			best = min(best, r.expr(d, c))
		}
		return best
	case schema.Exclusion:
		return r.expr(d, x.Children[0])
	}
	return 0
}

// nearest is the part of an intersection whose members are the easiest to find;
// those of the intersection are among them.
func (r *reach) nearest(d *schema.Definition, x *schema.Expr) *schema.Expr {
	best := x.Children[0]
	for _, c := range x.Children[1:] {
		if r.expr(d, c) < r.expr(d, best) {
			best = c
		}
	}
	return best
}

// plan says how to go from a subject back to the objects of a permission: what
// follows for other objects once an object has a relation.
type plan struct {
	*reach
	stations map[*schema.Relation]*station
	target   *station
	direct   []hop // from the subject itself
	wildcard []hop // from the wildcard of its type
	self     []step
}

// station is a relation or permission on the way.
type station struct {
	relation *schema.Relation
	steps    []step     // to the same object's permissions
	from     []*station // of the same object, from which steps lead here
	certain  bool       // some way here is sure
	hops     []hop      // to other objects
	sure     idSet      // objects that have it
	doubt    idSet      // objects that may have it
}

// step leads to a station; sure tells that who has the one has the other.
type step struct {
	to   *station
	sure bool
}

// hop is one read backwards, and where the objects that it finds stand then.
type hop struct {
	relation schema.Name
	userset  schema.Name
	leads    []step
}

func newPlan(root *schema.Relation, typ *schema.Definition, userset schema.Name) *plan {
	p := &plan{reach: newReach(root, typ, userset), stations: map[*schema.Relation]*station{}}
	todo := []*station{}
	at := func(r *schema.Relation) *station {
		s := p.stations[r]
		if s == nil {
			s = &station{relation: r}
			p.stations[r] = s
			todo = append(todo, s)
		}
		return s
	}
	p.target = at(root)
	for len(todo) > 0 {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if p.cost[s.relation] == 0 {
			continue
		}
		if x := s.relation.Expr; x != nil {
			p.permission(s, x, true, at)
		} else {
			p.relation(s, at)
		}
	}
	return p
}

func (p *plan) relation(s *station, at func(*schema.Relation) *station) {
	s.certain = true
	for i := range s.relation.Allowed {
		a := &s.relation.Allowed[i]
		switch {
		case a.Relation != nil:
			if p.cost[a.Relation] > 0 {
				from := at(a.Relation)
				from.hops = addHop(from.hops, s.relation.Name, a.Relation.Name, step{s, true})
			}
		case p.reach.direct(a) && a.Wildcard:
			p.wildcard = addHop(p.wildcard, s.relation.Name, 0, step{s, true})
		case p.reach.direct(a):
			p.direct = addHop(p.direct, s.relation.Name, 0, step{s, true})
		}
	}
}

func (p *plan) permission(s *station, x *schema.Expr, sure bool, at func(*schema.Relation) *station) {
	d := s.relation.Definition
	if p.expr(d, x) == 0 {
		return
	}
	switch x.Kind {
	case schema.Self:
		p.self = append(p.self, step{s, sure})
		s.certain = s.certain || sure
	case schema.Ref:
		from := at(x.Relation)
		from.steps = append(from.steps, step{s, sure})
		s.from = append(s.from, from)
		s.certain = s.certain || sure
	case schema.Arrow, schema.ArrowAll:
		targets(x, func(a *schema.AllowedSubject, t *schema.Relation) {
			if p.cost[t] > 0 {
				userset := schema.Name(0)
				if a.Relation != nil {
					userset = a.Relation.Name
				}
				from := at(t)
				from.hops = addHop(from.hops, x.Tupleset.Name, userset, step{s, sure && x.Kind == schema.Arrow})
				s.certain = s.certain || sure && x.Kind == schema.Arrow
			}
		})
	case schema.Union:
		for _, c := range x.Children {
			p.permission(s, c, sure, at)
		}
	case schema.Intersection:
		p.permission(s, p.nearest(d, x), false, at)
	case schema.Exclusion:
		p.permission(s, x.Children[0], false, at)
	}
}

// addHop adds a lead to the hop of that read; a sure one outranks another.
func addHop(hops []hop, relation, userset schema.Name, lead step) []hop {
	for i := range hops {
		if hops[i].relation != relation || hops[i].userset != userset {
			continue
		}
		for j := range hops[i].leads {
			if l := &hops[i].leads[j]; l.to == lead.to {
				l.sure = l.sure || lead.sure
				return hops
			}
		}
		hops[i].leads = append(hops[i].leads, lead)
		return hops
	}
	return append(hops, hop{relation, userset, []step{lead}})
}

// query is the read of a hop from an object.
func (h *hop) query(from datastore.ID) datastore.Query {
	return datastore.Query{Subject: from, SubjectRelation: h.userset, Relation: h.relation}
}
