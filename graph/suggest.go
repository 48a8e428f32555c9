package graph

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// Suggestion is a whole set of changes after which Check says yes.
type Suggestion struct {
	// Writes are to be written, or to take the place of what stands there. Objects
	// whose id begins with "new-" are mentioned nowhere yet.
	Writes []tuple.Relationship
	// Deletes are to be deleted, or, if they are contextual, left out. The contexts
	// written with them are not told.
	Deletes []tuple.Relationship
	// Context says which caveats the question's context has to satisfy.
	Context []ContextNeed
}

// ContextNeed is a caveat that has to hold.
type ContextNeed struct {
	// Relationship carries the caveat; the context written with it is left out.
	Relationship tuple.Relationship
	// Fields that the question has to give, sorted; those it gave have to change.
	Fields []string
}

// Suggestions are what [Suggest] found.
type Suggestions struct {
	// Found holds the smallest sets of changes first.
	Found []Suggestion
	// Impossible: by the schema, a subject of this kind never has the permission.
	// Where it is false and nothing was found, a set of changes may exist that is
	// larger than what is searched.
	Impossible bool
	// Withheld: the subject is a suspended or removed user, and has nothing until it
	// is reactivated or created again; nothing else was looked for.
	Withheld bool
}

// Suggest proposes what would have to change for a no or a conditional answer to
// become yes. Each suggestion was tried: with its changes, and with whatever
// values for its context fields satisfy its caveats, Check says yes. Errors are
// those of [Check].
func Suggest(ctx context.Context, s datastore.Snapshot, q Question, now time.Time, l Limits, most int) (Suggestions, error) {
	e, err := prepare(s, &q, now, l)
	if err != nil {
		return Suggestions{}, err
	}
	defer e.release()
	r, err := relation(s.Schema(), q.Resource.Type, q.Permission)
	if err != nil {
		return Suggestions{}, err
	}
	if withheld, err := e.withheld(ctx); err != nil || withheld {
		return Suggestions{Withheld: withheld}, err
	}
	target := e.plan.atoms[r]
	if !e.kind.can(target) {
		return Suggestions{Impossible: true}, nil
	}
	g := &suggester{explainer: newExplainer(e), question: q, granting: map[claimKey]bool{}, denying: map[claimKey]bool{}}
	object := e.view.id(q.Resource)
	// Deeper and deeper, so that a vast graph yields the near suggestions, and a
	// small one all.
	var out Suggestions
	var all []changes
	for _, g.deepest = range []int{2, 4, 7, 12, 30} {
		g.goals, g.short = 0, false
		sets, err := g.grant(ctx, object, r)
		if err != nil {
			return Suggestions{}, err
		}
		all = append(all, sets...)
		if out, err = g.choose(ctx, object, r, most, all); err != nil {
			return Suggestions{}, err
		}
		if !g.short || g.goals > maxGoals && len(out.Found) > 0 {
			break
		}
	}
	if len(out.Found) > 0 {
		return out, nil
	}
	steps := cheapest(g.steps, maxSteps)
	return g.choose(ctx, object, r, most, steps, pairs(steps, steps))
}

// changes is a set of changes; the order of edges does not matter.
type changes struct {
	writes  []datastore.Edge
	deletes []datastore.Edge
	needs   []contextNeed
	cost    int
}

// contextNeed is an edge whose caveat must hold by fields of the question.
type contextNeed struct {
	edge   datastore.Edge
	fields []string
}

// What changes cost: a suggestion is the better, the less it touches.
const (
	costWrite    = 10
	costDelete   = 14
	costField    = 6
	costWildcard = 200
	costNew      = 25 // an object that does not exist yet
)

const (
	// maxSets is how many sets of changes are kept for one goal, the cheapest.
	maxSets = 12
	// maxGoals is how many goals are followed to one depth.
	maxGoals = 4000
	// maxDenials is how many relationships of one relation are taken away.
	maxDenials = 50
	// maxNew is how deep objects that do not exist yet refer to each other.
	maxNew = 3
	// maxSteps is how many single changes are remembered.
	maxSteps = 100
	// maxTried is how many sets are tried out.
	maxTried = 500
)

// suggester looks for sets of changes, goal by goal: to grant or to deny a
// relation or permission of an object, or a part of an expression.
type suggester struct {
	*explainer
	question          Question
	granting, denying map[claimKey]bool // goals under way
	goals, deepest    int
	short             bool      // a goal was too deep, or one too many
	fresh             int       // how many new objects are under way
	steps             []changes // every single change that came up
}

// note remembers a single change for when the sets of goals do not hold, for
// goals may stand in each other's way.
func (g *suggester) note(s changes) {
	if len(g.steps) < maxSteps && !slices.ContainsFunc(g.steps, s.same) {
		g.steps = append(g.steps, s)
	}
}

// cheapest sorts sets, drops those that are there twice, and keeps the best.
func cheapest(sets []changes, most int) []changes {
	slices.SortStableFunc(sets, func(a, b changes) int { return cmp.Compare(a.cost, b.cost) })
	var out []changes
	for _, s := range sets {
		if len(out) < most && !slices.ContainsFunc(out, s.same) {
			out = append(out, s)
		}
	}
	return out
}

func (s changes) same(o changes) bool {
	return s.cost == o.cost && sameEdges(s.writes, o.writes) && sameEdges(s.deletes, o.deletes) && len(s.needs) == len(o.needs) &&
		!slices.ContainsFunc(s.needs, func(n contextNeed) bool {
			return !slices.ContainsFunc(o.needs, func(m contextNeed) bool { return sameEdge(n.edge, m.edge) })
		})
}

// within reports whether o asks for all that s does, and perhaps for more.
func (s changes) within(o changes) bool {
	some := func(a, b []datastore.Edge) bool {
		return !slices.ContainsFunc(a, func(e datastore.Edge) bool { return !hasEdge(b, e) })
	}
	return some(s.writes, o.writes) && some(s.deletes, o.deletes) && !slices.ContainsFunc(s.needs, func(n contextNeed) bool {
		return !slices.ContainsFunc(o.needs, func(m contextNeed) bool { return sameEdge(n.edge, m.edge) })
	})
}

func sameEdges(a, b []datastore.Edge) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(e datastore.Edge) bool { return !hasEdge(b, e) })
}

func hasEdge(edges []datastore.Edge, e datastore.Edge) bool {
	return slices.ContainsFunc(edges, func(o datastore.Edge) bool { return sameEdge(o, e) })
}

// with joins two sets; false if they contradict each other.
func (s changes) with(o changes) (changes, bool) {
	out := changes{writes: slices.Clone(s.writes), deletes: slices.Clone(s.deletes), needs: slices.Clone(s.needs), cost: s.cost}
	for _, e := range o.writes {
		if !hasEdge(out.writes, e) {
			out.writes = append(out.writes, e)
		}
	}
	for _, e := range o.deletes {
		if !hasEdge(out.deletes, e) {
			out.deletes = append(out.deletes, e)
		}
	}
	for _, n := range o.needs {
		if !slices.ContainsFunc(out.needs, func(m contextNeed) bool { return sameEdge(n.edge, m.edge) }) {
			out.needs = append(out.needs, n)
		}
	}
	for _, e := range out.deletes {
		if hasEdge(out.writes, e) || slices.ContainsFunc(out.needs, func(n contextNeed) bool { return sameEdge(n.edge, e) }) {
			return out, false
		}
	}
	out.cost += o.cost
	return out, true
}

// both are the sets that reach two goals.
func both(a, b []changes) []changes {
	var out []changes
	for _, s := range a {
		for _, o := range b {
			if joined, ok := s.with(o); ok {
				out = append(out, joined)
			}
		}
	}
	return cheapest(out, maxSets)
}

var nothing = []changes{{}}

// enter begins a goal; false if it is under way already, or too much was looked
// at.
func (g *suggester) enter(ctx context.Context, under map[claimKey]bool, k claimKey) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if under[k] {
		return false, nil
	}
	if g.goals++; g.goals > maxGoals || len(g.granting)+len(g.denying) >= g.deepest {
		g.short = true
		return false, nil
	}
	under[k] = true
	return true, nil
}

// grant finds sets that make a relation or permission of an object yes.
func (g *suggester) grant(ctx context.Context, o datastore.ID, r *schema.Relation) ([]changes, error) {
	v, _, err := g.valueOf(ctx, o, r)
	if err != nil || v == isYes {
		return nothing, err
	}
	if !g.kind.can(g.plan.atoms[r]) {
		return nil, nil
	}
	k := claimKey{o, r, nil}
	if ok, err := g.enter(ctx, g.granting, k); !ok {
		return nil, err
	}
	defer delete(g.granting, k)
	if r.Expr != nil {
		return g.grantExpr(ctx, o, r.Expr)
	}
	return g.grantRelation(ctx, o, r)
}

func (g *suggester) grantExpr(ctx context.Context, o datastore.ID, x *schema.Expr) ([]changes, error) {
	switch x.Kind {
	case schema.Nil:
		return nil, nil
	case schema.Self:
		if o == g.subject && g.userset == 0 {
			return nothing, nil
		}
		return nil, nil
	case schema.Ref:
		return g.grant(ctx, o, x.Relation)
	case schema.Arrow:
		return g.grantArrow(ctx, o, x)
	case schema.ArrowAll:
		return g.grantAll(ctx, o, x)
	case schema.Union:
		return g.anyOf(x.Children, func(c *schema.Expr) ([]changes, error) { return g.grantExpr(ctx, o, c) })
	case schema.Intersection:
		return g.allOf(x.Children, func(c *schema.Expr) ([]changes, error) { return g.grantExpr(ctx, o, c) })
	}
	left, err := g.grantExpr(ctx, o, x.Children[0])
	if err != nil || len(left) == 0 {
		return nil, err
	}
	right, err := g.denyExpr(ctx, o, x.Children[1])
	return both(left, right), err
}

func (g *suggester) anyOf(parts []*schema.Expr, goal func(*schema.Expr) ([]changes, error)) ([]changes, error) {
	var out []changes
	for _, c := range parts {
		sets, err := goal(c)
		if err != nil {
			return nil, err
		}
		out = append(out, sets...)
	}
	return cheapest(out, maxSets), nil
}

func (g *suggester) allOf(parts []*schema.Expr, goal func(*schema.Expr) ([]changes, error)) ([]changes, error) {
	out := nothing
	for _, c := range parts {
		sets, err := goal(c)
		if err != nil || len(sets) == 0 {
			return nil, err
		}
		out = both(out, sets)
	}
	return out, nil
}

// grantRelation writes the subject, satisfies the caveats of what is written, or
// makes the subject a member of a userset that is there.
func (g *suggester) grantRelation(ctx context.Context, o datastore.ID, r *schema.Relation) ([]changes, error) {
	var out []changes
	n := node{key: key{object: o, part: g.plan.atoms[r]}}
	edges, err := g.edges(ctx, g.reads(&n, nil))
	if err != nil {
		return nil, err
	}
	for i := range edges {
		sets, err := g.follow(ctx, &edges[i], g.lead(&edges[i], nil), edges[i].SubjectRelation == 0)
		if err != nil {
			return nil, err
		}
		out = append(out, sets...)
	}
	for i := range r.Allowed {
		a := &r.Allowed[i]
		edge := datastore.Edge{Object: o, Relation: r.Name}
		switch {
		case a.Wildcard:
			if a.Definition == g.kindOf().typ && g.userset == 0 {
				edge.Subject = g.wildcard
				sets := g.write(ctx, edge, a, nothing)
				for j := range sets {
					sets[j].cost += costWildcard
				}
				out = append(out, sets...)
			}
			continue
		case a.Definition == g.kindOf().typ && a.Relation == nil && g.userset == 0, a.Relation != nil && a.Definition == g.kindOf().typ && a.Relation.Name == g.userset:
			edge.Subject, edge.SubjectRelation = g.subject, g.userset
			out = append(out, g.write(ctx, edge, a, nothing)...)
		}
		if a.Relation != nil {
			sets, err := g.connect(ctx, edge, a, a.Relation)
			if err != nil {
				return nil, err
			}
			out = append(out, sets...)
		}
	}
	return cheapest(out, maxSets), nil
}

func (g *suggester) kindOf() subjectKind {
	return subjectKind{g.schema.Definition(g.question.Subject.Type), g.userset}
}

// follow makes an edge that is there carry a yes: its caveat must hold, and what
// it leads to must be granted; direct edges lead to the subject itself.
func (g *suggester) follow(ctx context.Context, edge *datastore.Edge, target *schema.Relation, direct bool) ([]changes, error) {
	sets := nothing
	if guard := g.guard(ctx, edge); guard != nil {
		need, ok := g.need(ctx, *edge)
		if !ok {
			return nil, nil
		}
		g.note(need)
		sets = []changes{need}
	}
	if direct {
		return sets, nil
	}
	if target == nil {
		return nil, nil
	}
	inner, err := g.grant(ctx, edge.Subject, target)
	return both(sets, inner), err
}

// need is the set that satisfies the caveat of an edge by the question's context;
// false if what is written with it cannot be satisfied.
func (g *suggester) need(ctx context.Context, edge datastore.Edge) (changes, bool) {
	c := g.schema.Caveat(edge.Caveat)
	if c == nil {
		return changes{}, false
	}
	r, err := c.Eval(ctx, edge.Context, g.context, g.limits.CaveatCost)
	if err != nil || r.Truth == schema.False {
		var all []string
		for _, p := range c.Parameters {
			all = append(all, p.Name)
		}
		r, err = c.Eval(ctx, edge.Context, g.context.Without(all), g.limits.CaveatCost)
	}
	if err != nil || r.Truth == schema.False {
		return changes{}, false
	}
	if r.Truth == schema.True {
		return changes{}, true
	}
	return changes{needs: []contextNeed{{edge, r.Missing}}, cost: costField * len(r.Missing)}, true
}

// write adds a relationship of an alternative to sets.
func (g *suggester) write(ctx context.Context, edge datastore.Edge, a *schema.AllowedSubject, sets []changes) []changes {
	if a.Expiration {
		edge.Expiration = g.now + (30 * 24 * time.Hour).Microseconds()
	}
	set := changes{writes: []datastore.Edge{edge}, cost: costWrite}
	if a.Caveat != nil {
		set.writes[0].Caveat = a.Caveat.Name
		need, ok := g.need(ctx, set.writes[0])
		if !ok {
			return nil
		}
		set.needs, set.cost = need.needs, set.cost+need.cost+1
	}
	g.note(set)
	return both([]changes{set}, sets)
}

// connect writes an edge to an object that has, or is given, what it leads to:
// the subject's own object, or one that does not exist yet.
func (g *suggester) connect(ctx context.Context, edge datastore.Edge, a *schema.AllowedSubject, target *schema.Relation) ([]changes, error) {
	if !g.kind.can(g.plan.atoms[target]) {
		return nil, nil
	}
	if a.Relation != nil {
		edge.SubjectRelation = a.Relation.Name
	}
	var out []changes
	if a.Definition.Type == g.question.Subject.Type {
		edge.Subject = g.subject
		sets, err := g.grant(ctx, edge.Subject, target)
		if err != nil {
			return nil, err
		}
		out = append(out, g.write(ctx, edge, a, sets)...)
	}
	if g.fresh >= maxNew {
		return out, nil
	}
	g.fresh++
	defer func() { g.fresh-- }()
	var err error
	if edge.Subject, err = g.newObject(ctx, a.Definition); err != nil {
		return nil, err
	}
	sets, err := g.grant(ctx, edge.Subject, target)
	if err != nil {
		return nil, err
	}
	sets = g.write(ctx, edge, a, sets)
	for i := range sets {
		sets[i].cost += costNew
	}
	return append(out, sets...), nil
}

// newObject names an object of a type that nothing mentions; as many nest, as
// many different ones there are.
func (g *suggester) newObject(ctx context.Context, d *schema.Definition) (datastore.ID, error) {
	name := "new-" + d.Type[strings.LastIndexByte(d.Type, '/')+1:]
	for left := g.fresh; ; name += "-2" {
		id := g.view.id(tuple.Object{Type: d.Type, ID: name})
		mentioned := false
		qs := []datastore.Query{{Object: id}, {Subject: id, AnySubjectRelation: true}}
		if err := g.view.Read(ctx, qs, func(int, datastore.Edge) bool { mentioned = true; return false }); err != nil {
			return 0, err
		}
		if mentioned {
			continue
		}
		if left--; left == 0 {
			return id, nil
		}
	}
}

// grantArrow grants what an arrow leads to, or leads it elsewhere.
func (g *suggester) grantArrow(ctx context.Context, o datastore.ID, x *schema.Expr) ([]changes, error) {
	edges, err := g.edges(ctx, []datastore.Query{{Object: o, Relation: x.Tupleset.Name}})
	if err != nil {
		return nil, err
	}
	out, err := g.lengthen(ctx, o, x)
	if err != nil {
		return nil, err
	}
	for i := range edges {
		sets, err := g.follow(ctx, &edges[i], g.lead(&edges[i], x), false)
		if err != nil {
			return nil, err
		}
		out = append(out, sets...)
	}
	return cheapest(out, maxSets), nil
}

// lengthen gives an arrow another relationship, through which it grants.
func (g *suggester) lengthen(ctx context.Context, o datastore.ID, x *schema.Expr) ([]changes, error) {
	var out []changes
	var failed error
	targets(x, func(a *schema.AllowedSubject, t *schema.Relation) {
		if failed != nil {
			return
		}
		var sets []changes
		sets, failed = g.connect(ctx, datastore.Edge{Object: o, Relation: x.Tupleset.Name}, a, t)
		out = append(out, sets...)
	})
	return out, failed
}

// grantAll grants what every relationship of an arrow leads to, or deletes those
// that stand in the way.
func (g *suggester) grantAll(ctx context.Context, o datastore.ID, x *schema.Expr) ([]changes, error) {
	edges, err := g.edges(ctx, []datastore.Query{{Object: o, Relation: x.Tupleset.Name}})
	if err != nil || len(edges) > maxDenials {
		return nil, err
	}
	kept, emptied := nothing, nothing
	for i := range edges {
		granted, err := g.follow(ctx, &edges[i], g.lead(&edges[i], x), false)
		if err != nil {
			return nil, err
		}
		gone := []changes{{deletes: edges[i : i+1], cost: costDelete}}
		g.note(gone[0])
		// One relationship at least must stay: with the last one kept every set
		// is good, with all deleted another has to come.
		kept = cheapest(append(both(kept, append(slices.Clone(granted), gone...)), both(emptied, granted)...), 2*maxSets)
		emptied = both(emptied, gone)
	}
	another, err := g.lengthen(ctx, o, x)
	if err != nil {
		return nil, err
	}
	out := both(emptied, another)
	if len(edges) > 0 {
		out = append(out, slices.DeleteFunc(kept, func(s changes) bool { return len(s.deletes) >= len(edges) && sameEdges(s.deletes, edges) })...)
	}
	return cheapest(out, maxSets), nil
}
