package graph

import (
	"context"
	"fmt"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// engine answers questions about one subject over one view. It keeps a table of
// AND/OR nodes, explores them depth first from a root with an explicit stack, and
// gathers up to Width reads a round. What one question learns serves the next.
type engine struct {
	view    *view
	schema  *schema.Schema
	now     int64 // evaluation time, Unix microseconds
	context schema.Context
	limits  Limits

	subject  datastore.ID
	userset  schema.Name // the subject's relation; zero: a concrete subject
	typ      *schema.Definition
	wildcard datastore.ID // zero if the subject cannot match one

	nodes []node
	table map[key]int32
	run   int32 // counts roots, to tell what an earlier one left half explored
	stack []int32
	queue []int32 // nodes whose reads wait for the round
	steps int
}

// key is what a node is about: a relation or permission of an object, or a part
// of a permission's expression.
type key struct {
	object   datastore.ID
	relation *schema.Relation
	expr     *schema.Expr
}

type operator uint8

const (
	anyOf operator = iota
	allOf
	butNot // of two links
)

type progress uint8

const (
	fresh   progress = iota
	reading          // its read waits in the queue
	open             // its links are known
	final
)

// node is an AND/OR node. sum gathers what is known: its own direct matches and
// the links already counted.
type node struct {
	key
	op      operator
	state   progress
	run     int32
	cursor  int32 // links before it were looked at in this run
	left    int32 // links not yet counted
	links   []link
	waiters []waiter
	sum     value
	missing []string
	err     error // why the value stays open, once final
	value   value // once final
}

// link leads to a node on which the value depends, through the caveat of a
// relationship where there is one.
type link struct {
	to      int32
	guard   *guard
	counted bool
	waiting bool
}

// guard is what a caveat came to.
type guard struct {
	value   value
	missing []string
	err     error
}

type waiter struct{ node, link int32 }

// Nodes that every table begins with.
const (
	never  int32 = 0
	always int32 = 1
)

func newEngine(v *view, q *Question, now int64, l Limits) *engine {
	e := &engine{view: v, schema: v.Schema(), now: now, context: q.Context, limits: l, table: map[key]int32{}}
	e.nodes = append(make([]node, 0, 16), node{state: final, value: isNo}, node{state: final, value: isYes})
	e.subject = v.id(q.Subject.Object)
	e.typ = e.schema.Definition(q.Subject.Type)
	if q.Subject.Relation != "" {
		e.userset, _ = v.Names().ID(q.Subject.Relation)
	} else if id, ok := v.ID(tuple.Object{Type: q.Subject.Type, ID: tuple.Wildcard}); ok {
		e.wildcard = id
	} else {
		e.wildcard = v.id(tuple.Object{Type: q.Subject.Type, ID: tuple.Wildcard})
	}
	return e
}

// ask answers for a relation or permission of an object.
func (e *engine) ask(ctx context.Context, object datastore.ID, r *schema.Relation) (Answer, error) {
	root, err := e.relationNode(object, r)
	if err != nil {
		return Answer{}, err
	}
	if err := e.explore(ctx, root); err != nil {
		return Answer{}, err
	}
	if e.nodes[root].state != final {
		e.resolve(root)
	}
	n := &e.nodes[root]
	switch n.value {
	case isNo:
		return Answer{}, nil
	case isYes:
		return Answer{Outcome: Yes}, nil
	case isMaybe:
		return Answer{Outcome: Conditional, Missing: n.missing}, nil
	}
	return Answer{}, n.err
}

func (e *engine) relationNode(object datastore.ID, r *schema.Relation) (int32, error) {
	if object == e.subject && e.userset != 0 && r.Name == e.userset {
		return always, nil // a userset is in itself
	}
	return e.node(key{object: object, relation: r})
}

func (e *engine) node(k key) (int32, error) {
	if i, ok := e.table[k]; ok {
		return i, nil
	}
	if len(e.nodes) >= e.limits.nodes() {
		return 0, fmt.Errorf("%w: %d nodes; ask a narrower question", ErrTooManyNodes, e.limits.nodes())
	}
	i := int32(len(e.nodes))
	e.nodes = append(e.nodes, node{key: k})
	e.table[k] = i
	return i, nil
}

// explore walks from the root until it is final or nothing is left to look at.
func (e *engine) explore(ctx context.Context, root int32) error {
	e.run++
	e.stack = append(e.stack[:0], root)
	defer e.abandon()
	for e.nodes[root].state != final {
		if len(e.stack) == 0 {
			if len(e.queue) == 0 {
				return nil
			}
			if err := e.flush(ctx); err != nil {
				return err
			}
			continue
		}
		if e.steps++; e.steps%512 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if err := e.step(ctx, e.stack[len(e.stack)-1]); err != nil {
			return err
		}
	}
	return nil
}

// abandon forgets reads that were never made.
func (e *engine) abandon() {
	for _, i := range e.queue {
		if e.nodes[i].state == reading {
			e.nodes[i].state = fresh
		}
	}
	e.queue = e.queue[:0]
}

func (e *engine) pop() { e.stack = e.stack[:len(e.stack)-1] }

// step takes the node on top of the stack one step further.
func (e *engine) step(ctx context.Context, i int32) error {
	n := &e.nodes[i]
	switch n.state {
	case final, reading:
		e.pop()
		return nil
	case fresh:
		reads, err := e.expand(i)
		if err != nil {
			return err
		}
		if reads {
			return e.read(ctx, i)
		}
		e.opened(i)
		return nil
	}
	if n.run != e.run {
		n.run, n.cursor = e.run, 0
	}
	for int(n.cursor) < len(n.links) {
		at := n.cursor
		n.cursor++
		l := &n.links[at]
		if l.counted {
			continue
		}
		c := &e.nodes[l.to]
		if c.state == final {
			if e.inform(i, at) {
				e.announce(i)
				e.pop()
				return nil
			}
			continue
		}
		if !l.waiting {
			l.waiting = true
			c.waiters = append(c.waiters, waiter{i, at})
		}
		if c.state == fresh || c.state == open && c.run != e.run {
			e.stack = append(e.stack, l.to)
			return nil
		}
	}
	e.pop()
	return nil
}

// expand makes a fresh node's operator and links, or says that it must read.
func (e *engine) expand(i int32) (reads bool, err error) {
	n := &e.nodes[i]
	n.sum, n.op = isNo, anyOf
	x := n.expr
	if x == nil {
		if x = n.relation.Expr; x == nil {
			return true, nil
		}
	}
	object := n.object
	switch x.Kind {
	case schema.Arrow, schema.ArrowAll:
		return true, nil
	case schema.Intersection:
		n.op, n.sum = allOf, isYes
	case schema.Exclusion:
		n.op, n.sum = butNot, unknown
	}
	parts := x.Children
	if len(parts) == 0 {
		parts = []*schema.Expr{x}
	}
	links := make([]link, len(parts))
	for j, part := range parts {
		if links[j].to, err = e.part(object, part); err != nil {
			return false, err
		}
	}
	e.nodes[i].links = links
	return false, nil
}

// part returns the node of a part of an expression.
func (e *engine) part(object datastore.ID, x *schema.Expr) (int32, error) {
	switch x.Kind {
	case schema.Nil:
		return never, nil
	case schema.Self:
		if object == e.subject && e.userset == 0 {
			return always, nil
		}
		return never, nil
	case schema.Ref:
		return e.relationNode(object, x.Relation)
	}
	return e.node(key{object: object, expr: x})
}

// opened marks a node whose links are all known.
func (e *engine) opened(i int32) {
	n := &e.nodes[i]
	n.state, n.run, n.cursor, n.left = open, e.run, 0, int32(len(n.links))
	if v := n.known(); n.op != butNot && (v.settled() || n.left == 0) {
		e.finish(i, v, n.missing, n.err)
	}
}

// known is what the links counted so far leave possible.
func (n *node) known() value {
	v := n.sum
	if n.left > 0 {
		if n.op == anyOf {
			v.hi = yes
		} else {
			v.lo = no
		}
	}
	return v
}

// through is the value of a final node as seen through a link.
func (e *engine) through(l *link) (value, []string, error) {
	c := &e.nodes[l.to]
	if l.guard == nil {
		return c.value, c.missing, c.err
	}
	v := c.value.and(l.guard.value)
	if v.settled() {
		return v, nil, nil
	}
	return v, merge(l.guard.missing, c.missing), first(l.guard.err, c.err)
}

// first chooses between errors by their text, so that the choice does not depend
// on the order in which they were met.
func first(a, b error) error {
	if a == nil || b != nil && b.Error() < a.Error() {
		return b
	}
	return a
}

func (e *engine) difference(n *node) value {
	var parts [2]value
	n.missing, n.err = nil, nil
	for j := range parts {
		parts[j] = unknown
		if l := &n.links[j]; l.counted {
			var missing []string
			var err error
			parts[j], missing, err = e.through(l)
			n.missing, n.err = merge(n.missing, missing), first(n.err, err)
		}
	}
	return parts[0].without(parts[1])
}

// finish makes a node final and tells those that wait for it.
func (e *engine) finish(i int32, v value, missing []string, err error) {
	e.settle(i, v, missing, err)
	e.announce(i)
}

// announce tells those that wait for a final node, and so on upward.
func (e *engine) announce(i int32) {
	for pending := []int32{i}; len(pending) > 0; {
		c := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		waiters := e.nodes[c].waiters
		e.nodes[c].waiters = nil
		for _, w := range waiters {
			if e.inform(w.node, w.link) {
				pending = append(pending, w.node)
			}
		}
	}
}

// inform counts a link whose node became final and reports whether that makes
// the one who waited final too.
func (e *engine) inform(i, at int32) bool {
	n := &e.nodes[i]
	if n.state != open || n.links[at].counted {
		return false
	}
	l := &n.links[at]
	l.counted = true
	n.left--
	var v value
	if n.op == butNot {
		v = e.difference(n)
	} else {
		w, missing, err := e.through(l)
		n.missing, n.err = merge(n.missing, missing), first(n.err, err)
		if n.op == anyOf {
			n.sum = n.sum.or(w)
		} else {
			n.sum = n.sum.and(w)
		}
		v = n.known()
	}
	if !v.settled() && n.left > 0 {
		return false
	}
	e.settle(i, v, n.missing, n.err)
	return true
}

func (e *engine) settle(i int32, v value, missing []string, err error) {
	n := &e.nodes[i]
	n.state, n.value, n.missing, n.err = final, v, missing, err
	if v.settled() {
		n.missing = nil
	}
	if v.decided() {
		n.err = nil
	}
	n.links = nil
}
