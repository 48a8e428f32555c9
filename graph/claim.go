package graph

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// claim says what a relation, a permission or a part of an expression comes to,
// and what that may rest on: any one of its options.
type claim struct {
	claimKey
	kind    TreeKind
	value   value
	missing []string
	steps   []ReasonStep
	options []option
	// uncounted are relationships beyond maxEdges, that say the same.
	uncounted int

	turn   int // when it was proved; those of a circle of denials share one
	cost   int // relationships in its proof
	chosen int
	proved bool
}

// claimKey is what a claim is about; relation is nil for a part of an expression.
type claimKey struct {
	object   datastore.ID
	relation *schema.Relation
	expr     *schema.Expr
}

// option is a set of needs that together bear a claim.
type option struct{ needs []need }

// need is a claim, a relationship, or a relationship that leads to a claim.
type need struct {
	claim    int // -1: none
	step     int // -1: none
	excluded bool
}

const (
	// maxClaims is how many claims are followed; those beyond are taken from the
	// engine's word.
	maxClaims = 50_000
	// maxEdges is how many relationships of one claim are looked at.
	maxEdges = 2000
)

// explainer finds the reasons of what its engine says.
type explainer struct {
	*engine
	claims []claim
	at     map[claimKey]int
}

func newExplainer(e *engine) *explainer {
	return &explainer{engine: e, at: map[claimKey]int{}}
}

// gather makes the claims that the first may rest on, the nearest first.
func (x *explainer) gather(ctx context.Context, o datastore.ID, r *schema.Relation) error {
	if _, err := x.atom(ctx, o, r); err != nil {
		return err
	}
	for i := 0; i < len(x.claims) && i < maxClaims; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := x.open(ctx, i); err != nil {
			return err
		}
	}
	for i := maxClaims; i < len(x.claims); i++ {
		x.claims[i].options, x.claims[i].uncounted = []option{{}}, 1
	}
	return nil
}

// valueOf is what the engine says of a relation or permission.
func (x *explainer) valueOf(ctx context.Context, o datastore.ID, r *schema.Relation) (value, []string, error) {
	root, err := x.relationNode(o, r)
	if err != nil {
		return unknown, nil, err
	}
	if x.nodes[root].state != final {
		if err := x.explore(ctx, root); err != nil {
			return unknown, nil, err
		}
		if x.nodes[root].state != final {
			x.resolve(root)
		}
	}
	return x.nodes[root].value, x.nodes[root].missing, nil
}

// atom returns the claim about a relation or permission of an object.
func (x *explainer) atom(ctx context.Context, o datastore.ID, r *schema.Relation) (int, error) {
	k := claimKey{o, r, r.Expr}
	if i, ok := x.at[k]; ok {
		return i, nil
	}
	v, missing, err := x.valueOf(ctx, o, r)
	if err != nil {
		return 0, err
	}
	kind := TreeRelation
	switch {
	case o == x.subject && x.userset != 0 && r.Name == x.userset:
		kind = TreeItself
	case r.Expr != nil:
		kind = kindOf(r.Expr)
	}
	return x.add(claim{claimKey: k, kind: kind, value: v, missing: missing}), nil
}

func kindOf(e *schema.Expr) TreeKind {
	return map[schema.ExprKind]TreeKind{
		schema.Nil: TreeNil, schema.Self: TreeSelf, schema.Ref: TreeUnion, schema.Arrow: TreeAny, schema.ArrowAll: TreeAll,
		schema.Union: TreeUnion, schema.Intersection: TreeIntersection, schema.Exclusion: TreeExclusion,
	}[e.Kind]
}

func (x *explainer) add(c claim) int {
	i := len(x.claims)
	x.at[c.claimKey] = i
	x.claims = append(x.claims, c)
	return i
}

// part returns the claim about a part of an expression.
func (x *explainer) part(ctx context.Context, o datastore.ID, e *schema.Expr) (int, error) {
	if e.Kind == schema.Ref {
		return x.atom(ctx, o, e.Relation)
	}
	k := claimKey{o, nil, e}
	if i, ok := x.at[k]; ok {
		return i, nil
	}
	v, missing, err := x.compute(ctx, o, e)
	if err != nil {
		return 0, err
	}
	return x.add(claim{claimKey: k, kind: kindOf(e), value: v, missing: missing}), nil
}

// compute is the value of a part of an expression.
func (x *explainer) compute(ctx context.Context, o datastore.ID, e *schema.Expr) (value, []string, error) {
	switch e.Kind {
	case schema.Nil:
		return isNo, nil, nil
	case schema.Self:
		if o == x.subject && x.userset == 0 {
			return isYes, nil, nil
		}
		return isNo, nil, nil
	case schema.Ref:
		return x.valueOf(ctx, o, e.Relation)
	case schema.Arrow, schema.ArrowAll:
		return x.computeArrow(ctx, o, e)
	}
	var total value
	var missing []string
	for i, c := range e.Children {
		v, lacks, err := x.compute(ctx, o, c)
		if err != nil {
			return unknown, nil, err
		}
		if !v.settled() {
			missing = merge(missing, lacks)
		}
		switch {
		case i == 0:
			total = v
		case e.Kind == schema.Union:
			total = total.or(v)
		case e.Kind == schema.Intersection:
			total = total.and(v)
		default:
			total = total.without(v)
		}
	}
	return total, missing, nil
}

func (x *explainer) computeArrow(ctx context.Context, o datastore.ID, e *schema.Expr) (value, []string, error) {
	edges, err := x.edges(ctx, []datastore.Query{{Object: o, Relation: e.Tupleset.Name}})
	if err != nil || len(edges) == 0 {
		return isNo, nil, err
	}
	total := isNo
	if e.Kind == schema.ArrowAll {
		total = isYes
	}
	var missing []string
	for i := range edges {
		v, lacks, err := x.through(ctx, &edges[i], e)
		if err != nil {
			return unknown, nil, err
		}
		if !v.settled() {
			missing = merge(missing, lacks)
		}
		if e.Kind == schema.ArrowAll {
			total = total.and(v)
		} else {
			total = total.or(v)
		}
	}
	return total, missing, nil
}

// through is the value of what an edge leads to, through its caveat. e is nil for
// an edge of a relation.
func (x *explainer) through(ctx context.Context, edge *datastore.Edge, e *schema.Expr) (value, []string, error) {
	v, missing, target := isNo, []string(nil), x.lead(edge, e)
	switch {
	case target != nil:
		var err error
		if v, missing, err = x.valueOf(ctx, edge.Subject, target); err != nil {
			return unknown, nil, err
		}
	case e == nil:
		v = isYes
	}
	if g := x.guard(ctx, edge); g != nil {
		if v = v.and(g.value); !v.settled() {
			missing = merge(g.missing, missing)
		}
	}
	return v, missing, nil
}

// lead is the relation or permission that an edge leads to; nil if it names the
// subject or the wildcard, or leads nowhere.
func (x *explainer) lead(edge *datastore.Edge, e *schema.Expr) *schema.Relation {
	name := edge.SubjectRelation
	if e != nil {
		name = e.TargetName
	}
	d := x.schema.DefinitionByName(x.view.Type(edge.Subject))
	if name == 0 || d == nil {
		return nil
	}
	return d.RelationByName(name)
}

// edges reads relationships that have not expired, in order of their subjects.
func (x *explainer) edges(ctx context.Context, qs []datastore.Query) (edges []datastore.Edge, err error) {
	err = x.view.Read(ctx, qs, func(_ int, e datastore.Edge) bool {
		if !expired(&e, x.now) {
			edges = append(edges, e)
		}
		return len(edges) <= x.limits.nodes()
	})
	if err == nil && len(edges) > x.limits.nodes() {
		err = fmt.Errorf("%w: a relation has more than %d subjects to look at; ask a narrower question", ErrTooManyNodes, x.limits.nodes())
	}
	slices.SortFunc(edges, func(a, b datastore.Edge) int {
		return cmp.Or(x.view.Object(a.Subject).Compare(x.view.Object(b.Subject)), cmp.Compare(a.SubjectRelation, b.SubjectRelation))
	})
	return slices.CompactFunc(edges, sameEdge), err // a userset may be the subject itself
}

// step is an edge as a reason shows it.
func (x *explainer) step(ctx context.Context, e *datastore.Edge) (ReasonStep, value) {
	s := ReasonStep{Caveat: Yes}
	s.Contextual = slices.ContainsFunc(x.view.edges, func(o datastore.Edge) bool { return sameEdge(o, *e) })
	s.Relationship = x.relationship(e)
	if !s.Contextual {
		s.Relationship.Caveat.Context = ""
	}
	g := x.guard(ctx, e)
	if g == nil {
		return s, isYes
	}
	s.Caveat, s.CaveatOpen, s.Missing = outcomeOf(g.value), !g.value.decided(), g.missing
	return s, g.value
}

// relationship gives an edge its words.
func (e *engine) relationship(edge *datastore.Edge) tuple.Relationship {
	names := e.view.Names()
	r := tuple.Relationship{
		Key:    tuple.Key{Object: e.view.Object(edge.Object), Relation: names.Text(edge.Relation), Subject: tuple.Subject{Object: e.view.Object(edge.Subject)}},
		Caveat: tuple.Caveat{Name: edge.Caveat, Context: edge.Context},
	}
	if edge.SubjectRelation != 0 {
		r.Subject.Relation = names.Text(edge.SubjectRelation)
	}
	if edge.Expiration != 0 {
		r.Expiration = time.UnixMicro(edge.Expiration).UTC()
	}
	return r
}

// open finds what a claim may rest on.
func (x *explainer) open(ctx context.Context, i int) error {
	c := x.claims[i]
	var needs []need
	var values []value
	var err error
	switch c.kind {
	case TreeItself, TreeSelf, TreeNil:
		x.claims[i].options = []option{{}}
		return nil
	case TreeRelation, TreeAny, TreeAll:
		needs, values, err = x.openEdges(ctx, i)
	default:
		parts := c.expr.Children
		if c.expr.Kind == schema.Ref {
			parts = []*schema.Expr{c.expr}
		}
		for j, p := range parts {
			at, err := x.part(ctx, c.object, p)
			if err != nil {
				return err
			}
			needs = append(needs, need{claim: at, step: -1, excluded: c.kind == TreeExclusion && j == 1})
			values = append(values, x.claims[at].value)
		}
	}
	if err == nil {
		x.claims[i].options = optionsOf(c.kind, c.value, needs, values)
	}
	return err
}

// openEdges makes the steps of a relation or an arrow, with the claims that they
// lead to where these matter.
func (x *explainer) openEdges(ctx context.Context, i int) ([]need, []value, error) {
	c := x.claims[i]
	var arrow *schema.Expr
	qs := []datastore.Query{}
	if c.kind == TreeRelation {
		n := node{key: key{object: c.object, part: x.plan.atoms[c.relation]}}
		qs = x.reads(&n, qs)
	} else {
		arrow = c.expr
		qs = append(qs, datastore.Query{Object: c.object, Relation: arrow.Tupleset.Name})
	}
	edges, err := x.edges(ctx, qs)
	if err != nil {
		return nil, nil, err
	}
	var needs []need
	var values []value
	var steps []ReasonStep
	for j := range edges {
		v, _, err := x.through(ctx, &edges[j], arrow)
		if err != nil {
			return nil, nil, err
		}
		if len(steps) >= maxEdges && (v != isYes || slices.Contains(values, isYes)) {
			x.claims[i].uncounted++
			continue
		}
		s, guard := x.step(ctx, &edges[j])
		n := need{claim: -1, step: len(steps)}
		if target := x.lead(&edges[j], arrow); target != nil && guard != isNo {
			if n.claim, err = x.atom(ctx, edges[j].Subject, target); err != nil {
				return nil, nil, err
			}
		}
		steps, needs, values = append(steps, s), append(needs, n), append(values, v)
	}
	x.claims[i].steps = steps
	return needs, values, nil
}

// optionsOf says which sets of needs bear a value.
func optionsOf(kind TreeKind, v value, needs []need, values []value) []option {
	each := func(keep func(value) bool) (out []option) {
		for i, n := range needs {
			if keep(values[i]) {
				out = append(out, option{[]need{n}})
			}
		}
		return out
	}
	all := func(keep func(value) bool) []option {
		var o option
		for i, n := range needs {
			if keep(values[i]) {
				o.needs = append(o.needs, n)
			}
		}
		return []option{o}
	}
	is := func(want value) func(value) bool { return func(v value) bool { return v == want } }
	isNot := func(other value) func(value) bool { return func(v value) bool { return v != other } }
	every := func(value) bool { return true }
	switch {
	case kind == TreeExclusion:
		return exclusionOptions(v, needs, values)
	case kind == TreeIntersection || kind == TreeAll:
		switch {
		case v == isNo && len(needs) == 0:
			return []option{{}}
		case v == isNo:
			return each(is(isNo))
		case v == isYes:
			return all(every)
		}
		return all(isNot(isYes))
	case v == isYes:
		return each(is(isYes))
	case v == isNo:
		return all(every)
	}
	return all(isNot(isNo))
}

func exclusionOptions(v value, needs []need, values []value) (out []option) {
	switch v {
	case isYes:
		return []option{{needs}}
	case isNo:
		if values[0] == isNo {
			out = append(out, option{needs[:1]})
		}
		if values[1] == isYes {
			out = append(out, option{needs[1:]})
		}
		return out
	}
	var o option
	if values[0] != isYes {
		o.needs = append(o.needs, needs[0])
	}
	if values[1] != isNo {
		o.needs = append(o.needs, needs[1])
	}
	return []option{o}
}
