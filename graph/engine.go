package graph

import (
	"context"
	"runtime"
	"sync"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// engine answers questions about one subject at a time over one view. It keeps a
// table of AND/OR nodes, explores them depth first from a root with an explicit
// stack, and gathers up to Width reads a round. What one question learns serves
// the next about the same subject. Engines are pooled: the slices keep their room.
type engine struct {
	view    *view
	own     view // what view points to in an engine that prepare made
	schema  *schema.Schema
	plan    *blueprint
	now     int64 // evaluation time, Unix microseconds
	context schema.Context
	limits  Limits

	subject  datastore.ID
	userset  schema.Name // the subject's relation; zero: a concrete subject
	kind     *kind
	wildcard datastore.ID // zero if the subject cannot match one

	nodes       []node
	table       table // key to node
	links       []link
	waiters     []waiter
	run         int32 // counts walks, to tell what an earlier one left half explored
	roots       []int32
	stack       []int32
	pending     []int32 // nodes that became final and did not yet tell
	queue       []int32 // nodes whose reads wait for the round
	early       bool    // a node became final before all its links since the last round
	steps       int
	passes      int  // parts of objects that searches passed
	doubtful    bool // a search was given up
	search      search
	reader      reader
	origins     origins
	memberships memberships

	containers *containers // nil where the snapshot remembers none
}

// key is what a node is about: a relation or permission of an object, or a part
// of a permission's expression.
type key struct {
	object datastore.ID
	part   *part
}

func (k key) number() uint64 { return uint64(k.object)<<32 | uint64(k.part.id) }

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
	sum     value
	value   value // once final
	run     int32
	cursor  int32 // links before it were looked at in this run
	left    int32 // links not yet counted
	links   span
	waiters int32 // the first one's place, plus one
	missing []string
	err     error // why the value stays open, once final
}

// span is a part of a slice that many share.
type span struct{ first, count int32 }

// link leads to a node on which the value depends, through the caveat of a
// relationship where there is one.
type link struct {
	to      int32
	counted bool
	waiting bool
	guard   *guard
}

// guard is what a caveat came to.
type guard struct {
	value   value
	missing []string
	err     error
}

// waiter is a link that waits for its node; next is the place of another one for
// the same node, plus one.
type waiter struct{ node, link, next int32 }

// Nodes that every table begins with.
const (
	never  int32 = 0
	always int32 = 1
)

// linksOf are the links of a node; none once it is final.
func (e *engine) linksOf(n *node) []link {
	return e.links[n.links.first : n.links.first+n.links.count]
}

// engines are those not in use.
var engines = sync.Pool{New: func() any {
	e := new(engine)
	e.newReader()
	e.newSearch()
	e.newOrigins()
	return e
}}

// newEngine returns an engine that answers about q's subject over v. Released, it
// serves again; one that is not is garbage.
func newEngine(v *view, q *Question, now int64, l Limits) *engine {
	e := engines.Get().(*engine)
	e.over(v, now, l)
	e.about(q)
	return e
}

// over makes e answer over a view.
func (e *engine) over(v *view, now int64, l Limits) {
	e.view, e.now, e.limits = v, now, l
	e.schema = v.Schema()
	e.plan = blueprintOf(e.schema)
	e.containers = containersOf(v.Snapshot)
	e.reader.forget()
}

// about makes e answer about q's subject with q's context. What it learned about
// another is forgotten.
func (e *engine) about(q *Question) {
	e.forget()
	e.context = q.Context
	e.subject, e.userset, e.wildcard = e.view.id(q.Subject.Object), 0, 0
	if q.Subject.Relation != "" {
		e.userset, _ = e.view.Names().ID(q.Subject.Relation)
	} else {
		e.wildcard = e.view.id(tuple.Object{Type: q.Subject.Type, ID: tuple.Wildcard})
	}
	e.kind = e.plan.kind(subjectKind{e.schema.Definition(q.Subject.Type), e.userset})
	e.nodes = append(e.nodes, node{state: final, value: isNo}, node{state: final, value: isYes})
}

// forget empties the table, and what only it can lead to.
func (e *engine) forget() {
	clear(e.nodes)
	clear(e.links)
	e.nodes, e.links, e.waiters = e.nodes[:0], e.links[:0], e.waiters[:0]
	e.table.reset()
	e.run, e.steps, e.early, e.passes, e.doubtful = 0, 0, false, 0, false
	clear(e.origins.list)
	e.origins.list, e.origins.state, e.origins.nests = e.origins.list[:0], unasked, nil
	e.memberships.forget()
}

// maxPooled is how large an engine's slices may be to be kept for the next
// question.
const maxPooled = 1 << 14

// release gives an engine back. Its answers stay valid.
func (e *engine) release() {
	if max(cap(e.nodes), cap(e.links), len(e.table.slots), cap(e.search.todo), cap(e.search.passed), cap(e.reader.edges), len(e.reader.objects.slots)) > 4*maxPooled {
		return
	}
	e.forget()
	e.reader.forget()
	clear(e.reader.found)
	e.reader.ctx, e.reader.failed = nil, nil
	e.search.ctx, e.search.part = nil, nil
	e.own.lay(nil, nil)
	e.view, e.schema, e.plan, e.kind, e.containers, e.context = nil, nil, nil, nil, nil, schema.Context{}
	engines.Put(e)
}

// ask answers for a relation or permission of an object.
func (e *engine) ask(ctx context.Context, object datastore.ID, r *schema.Relation) (Answer, error) {
	if withheld, err := e.withheld(ctx); withheld || err != nil {
		return Answer{}, err
	}
	root, err := e.relationNode(object, r)
	if err != nil {
		return Answer{}, err
	}
	if e.nodes[root].state != final {
		if err := e.explore(ctx, root); err != nil {
			return Answer{}, err
		}
		if e.nodes[root].state != final {
			e.resolve(root)
		}
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

// withheld reports whether the subject is a suspended or removed user, who has
// nothing whatever relationships say.
func (e *engine) withheld(ctx context.Context) (bool, error) {
	if e.userset != 0 {
		return false, nil
	}
	w, err := e.view.Withheld(ctx)
	return err == nil && w.Has(e.view.Object(e.subject)), err
}

// relationNode returns the node of a relation or permission of an object.
func (e *engine) relationNode(object datastore.ID, r *schema.Relation) (int32, error) {
	return e.nodeOf(object, e.plan.atoms[r])
}

// nodeOf returns the node of a part for an object; one that the schema, or the
// question, decides has none of its own.
func (e *engine) nodeOf(object datastore.ID, p *part) (int32, error) {
	if object == e.subject {
		if p.form == itself && e.userset == 0 {
			return always, nil
		}
		if e.userset != 0 && p.relation != nil && p.relation.Name == e.userset {
			return always, nil // a userset is in itself
		}
	}
	if p.form == itself || !e.kind.can(p) {
		return never, nil
	}
	k := key{object, p}
	if slot, ok := e.table.place(k.number()); ok && slot.at != absent {
		return slot.at, nil
	}
	if p.nested && e.outside(object, p) {
		return never, nil
	}
	slot, _ := e.table.place(k.number())
	if err := e.full(); err != nil {
		return 0, err
	}
	i := int32(len(e.nodes))
	e.nodes = append(e.nodes, node{key: k})
	e.table.put(slot, k.number(), i)
	return i, nil
}

// explore walks from the root until it is final or nothing is left to look at.
func (e *engine) explore(ctx context.Context, root int32) error {
	e.roots = append(e.roots[:0], root)
	e.restart()
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
		if err := e.count(ctx); err != nil {
			return err
		}
		if err := e.step(ctx, e.stack[len(e.stack)-1]); err != nil {
			return err
		}
	}
	return nil
}

// restart begins to walk from the roots; what is known stays known.
func (e *engine) restart() {
	e.run++
	e.stack = append(e.stack[:0], e.roots...)
}

// count counts a step, and ends the work of a caller who left. Work of many steps
// lets others run in between: they need not wait for the scheduler's time slice,
// which is a hundred times what a check takes.
func (e *engine) count(ctx context.Context) error {
	if e.steps++; e.steps%512 == 0 {
		runtime.Gosched()
		return ctx.Err()
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
		if e.searches(n) {
			if done, err := e.find(ctx, i); done || err != nil {
				return err
			}
		}
		if n.part.reads() {
			return e.read(ctx, i)
		}
		return e.expand(i)
	}
	if n.run != e.run {
		n.run, n.cursor = e.run, 0
	}
	links := e.linksOf(n)
	for int(n.cursor) < len(links) {
		at := n.cursor
		n.cursor++
		l := &links[at]
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
			e.waiters = append(e.waiters, waiter{i, at, c.waiters})
			c.waiters = int32(len(e.waiters))
		}
		if c.state == fresh || c.state == open && c.run != e.run {
			e.stack = append(e.stack, l.to)
			return nil
		}
	}
	e.pop()
	return nil
}

// expand opens a fresh node that is computed from its parts.
func (e *engine) expand(i int32) error {
	e.begin(i)
	n := &e.nodes[i]
	object, p, first := n.object, n.part, len(e.links)
	for _, c := range p.children {
		to, err := e.nodeOf(object, c)
		if err != nil {
			e.links = e.links[:first]
			return err
		}
		e.links = append(e.links, link{to: to})
	}
	e.nodes[i].links = span{int32(first), int32(len(e.links) - first)}
	e.opened(i)
	return nil
}

// begin prepares a fresh node to take links.
func (e *engine) begin(i int32) {
	n := &e.nodes[i]
	n.op, n.links, n.missing, n.err = n.part.op, span{int32(len(e.links)), 0}, nil, nil
	n.sum = [...]value{anyOf: isNo, allOf: isYes, butNot: unknown}[n.op]
}

// opened marks a node whose links are all known.
func (e *engine) opened(i int32) {
	n := &e.nodes[i]
	n.state, n.run, n.cursor, n.left = open, e.run, 0, n.links.count
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
	links := e.linksOf(n)
	n.missing, n.err = nil, nil
	for j := range parts {
		parts[j] = unknown
		if l := &links[j]; l.counted {
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
	for e.pending = append(e.pending[:0], i); len(e.pending) > 0; {
		c := &e.nodes[e.pending[len(e.pending)-1]]
		e.pending = e.pending[:len(e.pending)-1]
		next := c.waiters
		c.waiters = 0
		for next != 0 {
			w := e.waiters[next-1]
			if next = w.next; e.inform(w.node, w.link) {
				e.pending = append(e.pending, w.node)
			}
		}
	}
}

// inform counts a link whose node became final and reports whether that makes
// the one who waited final too.
func (e *engine) inform(i, at int32) bool {
	n := &e.nodes[i]
	if n.state != open {
		return false
	}
	l := &e.linksOf(n)[at]
	if l.counted {
		return false
	}
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
	e.early = e.early || n.left > 0
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
	n.links.count = 0
}
