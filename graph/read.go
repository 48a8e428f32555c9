package graph

import (
	"context"
	"fmt"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
)

// reads appends the queries that tell a node's links: the subject itself and the
// wildcard of its type, where the schema allows them, and the usersets; for an
// arrow everything its left side holds. The first two come first because they
// decide most often.
func (e *engine) reads(n *node, qs []datastore.Query) []datastore.Query {
	if n.expr != nil || n.relation.Expr != nil {
		x := n.expr
		if x == nil {
			x = n.relation.Expr
		}
		return append(qs, datastore.Query{Object: n.object, Relation: x.Tupleset.Name})
	}
	var direct, wildcard, usersets bool
	for i := range n.relation.Allowed {
		a := &n.relation.Allowed[i]
		switch {
		case a.Wildcard:
			wildcard = wildcard || a.Definition == e.typ && e.userset == 0
		case a.Relation != nil:
			usersets = true
			direct = direct || a.Definition == e.typ && a.Relation.Name == e.userset
		default:
			direct = direct || a.Definition == e.typ && e.userset == 0
		}
	}
	if direct {
		qs = append(qs, datastore.Query{Object: n.object, Relation: n.relation.Name, Subject: e.subject, SubjectRelation: e.userset})
	}
	if wildcard {
		qs = append(qs, datastore.Query{Object: n.object, Relation: n.relation.Name, Subject: e.wildcard})
	}
	if usersets {
		qs = append(qs, datastore.Query{Object: n.object, Relation: n.relation.Name, UsersetsOnly: true})
	}
	return qs
}

// read makes a node's reads at once where one at a time is as good as many, and
// queues them otherwise.
func (e *engine) read(ctx context.Context, i int32) error {
	if e.view.Width() > 1 {
		e.nodes[i].state = reading
		e.pop()
		if e.queue = append(e.queue, i); len(e.queue) >= e.view.Width() {
			return e.flush(ctx)
		}
		return nil
	}
	e.begin(i)
	var few [3]datastore.Query
	qs := e.reads(&e.nodes[i], few[:0])
	for j := range qs {
		var failed error
		err := e.view.Read(ctx, qs[j:j+1], func(_ int, edge datastore.Edge) bool {
			failed = e.edge(ctx, i, &qs[j], edge)
			return failed == nil
		})
		if err != nil {
			return err
		}
		if failed != nil {
			return failed
		}
		if n := &e.nodes[i]; n.op == anyOf && n.sum == isYes {
			break
		}
	}
	e.gathered(i)
	return nil
}

// gathered opens a node that has read its edges. What `.all()` asks of nobody is
// denied.
func (e *engine) gathered(i int32) {
	if n := &e.nodes[i]; n.op == allOf && len(n.links) == 0 {
		n.sum = isNo
	}
	e.opened(i)
}

// begin prepares a node to gather the edges it reads.
func (e *engine) begin(i int32) {
	n := &e.nodes[i]
	n.links, n.missing, n.err = nil, nil, nil
	n.op, n.sum = anyOf, isNo
	if x := n.arrow(); x != nil && x.Kind == schema.ArrowAll {
		n.op, n.sum = allOf, isYes
	}
}

// arrow is the arrow that a node stands for, or nil.
func (n *node) arrow() *schema.Expr {
	if n.expr != nil {
		return n.expr
	}
	return n.relation.Expr
}

// flush makes all queued reads that are still needed in one round, and puts
// their nodes back on the stack.
func (e *engine) flush(ctx context.Context) error {
	var qs []datastore.Query
	var owner []int32
	nodes := e.queue
	e.queue = nil
	for _, i := range nodes {
		e.begin(i)
		qs = e.reads(&e.nodes[i], qs)
		for len(owner) < len(qs) {
			owner = append(owner, i)
		}
	}
	var failed error
	err := e.view.Read(ctx, qs, func(q int, edge datastore.Edge) bool {
		if failed == nil {
			failed = e.edge(ctx, owner[q], &qs[q], edge)
		}
		return failed == nil
	})
	if err == nil {
		err = failed
	}
	for _, i := range nodes {
		if err != nil {
			e.nodes[i].state = fresh
			continue
		}
		e.gathered(i)
		e.stack = append(e.stack, i)
	}
	return err
}

// edge adds a relationship to the node that read it.
func (e *engine) edge(ctx context.Context, i int32, q *datastore.Query, edge datastore.Edge) error {
	if edge.Expiration != 0 && edge.Expiration <= e.now {
		return nil
	}
	if e.steps++; e.steps%512 == 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	g := e.guard(ctx, &edge)
	n := &e.nodes[i]
	if q.Subject != 0 { // the subject itself, or the wildcard
		v := isYes
		if g != nil {
			v = g.value
			if !v.settled() {
				n.missing, n.err = merge(n.missing, g.missing), first(n.err, g.err)
			}
		}
		n.sum = n.sum.or(v)
		return nil
	}
	name, all := edge.SubjectRelation, false
	if x := n.arrow(); x != nil {
		name, all = x.TargetName, x.Kind == schema.ArrowAll
	} else if edge.SubjectRelation == e.userset && edge.Subject == e.subject {
		return nil // already matched as the subject itself
	}
	var target *schema.Relation
	if d := e.schema.DefinitionByName(e.view.Type(edge.Subject)); d != nil {
		target = d.RelationByName(name)
	}
	l := link{to: never, guard: g}
	if target != nil {
		var err error
		if l.to, err = e.relationNode(edge.Subject, target); err != nil {
			return err
		}
	}
	n = &e.nodes[i] // relationNode may have moved the table
	if all || l.to != never && (g == nil || g.value != isNo) {
		n.links = append(n.links, l)
	}
	return nil
}

// guard evaluates the caveat of a relationship; nil where it has none.
func (e *engine) guard(ctx context.Context, edge *datastore.Edge) *guard {
	if edge.Caveat == "" {
		return nil
	}
	c := e.schema.Caveat(edge.Caveat)
	if c == nil {
		return &guard{value: unknown, err: fmt.Errorf("caveat %q of a stored relationship is %w", edge.Caveat, ErrUnknown)}
	}
	r, err := c.Eval(ctx, edge.Context, e.context, e.limits.CaveatCost)
	switch {
	case err != nil:
		return &guard{value: unknown, err: err}
	case r.Truth == schema.True:
		return nil
	case r.Truth == schema.False:
		return &guard{value: isNo}
	}
	return &guard{value: isMaybe, missing: r.Missing}
}
