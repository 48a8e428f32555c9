package graph

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
)

// reader makes the reads of an engine.
type reader struct {
	ctx    context.Context // of the read under way
	qs     []datastore.Query
	owner  []int32     // the nodes that ask qs
	found  []discovery // links of a round, in the order in which they came
	failed error
	// These take edges: for one node, for those of a round, and of a scan.
	visit, gather, keep func(q int, e datastore.Edge) bool

	objects table // to scans, by object
	scans   []scan
	edges   []datastore.Edge
	few     [1]datastore.Query
	from    int // where the scan under way began
}

// discovery is a link of a node.
type discovery struct {
	node int32
	link link
}

// scan is what was read of an object at once: all its edges, or nothing if there
// are too many.
type scan struct {
	edges span
	whole bool
}

const (
	// maxScan is how many edges of an object are read to learn all of them, before
	// its relations are asked one by one.
	maxScan = 32
	// maxScanned is how many edges are remembered.
	maxScanned = 1 << 16
	// maxAgain is how many nodes are walked again to leave out reads that nobody
	// needs any more.
	maxAgain = 1 << 16
)

// reads appends the queries that tell a node's links: the subject itself and the
// wildcard of its type, where the schema allows them, and the usersets; for an
// arrow everything its left side holds. The first two come first because they
// decide most often.
func (e *engine) reads(n *node, qs []datastore.Query) []datastore.Query {
	return e.readsWith(n, qs, true)
}

// readsWith is reads, with or without the query for the subject itself.
func (e *engine) readsWith(n *node, qs []datastore.Query, itself bool) []datastore.Query {
	q := datastore.Query{Object: n.object, Relation: n.part.tuples}
	if n.part.form == arrow {
		return append(qs, q)
	}
	wants := e.kind.wants[n.part.id]
	if wants&direct != 0 && itself {
		q.Subject, q.SubjectRelation = e.subject, e.userset
		qs = append(qs, q)
	}
	if wants&wildcard != 0 {
		q.Subject, q.SubjectRelation = e.wildcard, 0
		qs = append(qs, q)
	}
	if wants&usersets != 0 {
		q.Subject, q.SubjectRelation, q.UsersetsOnly = 0, 0, true
		qs = append(qs, q)
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
	if e.nodes[i].part.nested && e.located() {
		return e.readNested(ctx, i)
	}
	if e.nodes[i].part.scan {
		edges, whole, err := e.scan(ctx, e.nodes[i].key)
		if err != nil {
			return err
		}
		if whole {
			return e.take(ctx, i, edges)
		}
	}
	e.reader.qs = e.reads(&e.nodes[i], e.reader.qs[:0])
	return e.readEach(ctx, i)
}

// readEach makes a node's reads one after the other, until one decides.
func (e *engine) readEach(ctx context.Context, i int32) error {
	r := &e.reader
	r.ctx, r.failed, r.owner = ctx, nil, append(r.owner[:0], i)
	for j := range r.qs {
		if err := e.view.Read(ctx, r.qs[j:j+1], r.visit); err != nil {
			return err
		}
		if r.failed != nil {
			return r.failed
		}
		if n := &e.nodes[i]; n.op == anyOf && n.sum == isYes {
			break
		}
	}
	e.gathered(i)
	return nil
}

// take gives a node the edges of its object.
func (e *engine) take(ctx context.Context, i int32, edges []datastore.Edge) error {
	tuples := e.nodes[i].part.tuples
	for j := range edges {
		if edges[j].Relation != tuples {
			continue
		}
		l, ok, err := e.edge(ctx, i, &edges[j])
		if err != nil {
			return err
		}
		if n := &e.nodes[i]; ok {
			e.links = append(e.links, l)
			n.links.count++
		} else if n.op == anyOf && n.sum == isYes {
			break
		}
	}
	e.gathered(i)
	return nil
}

// scan returns all edges of an object, or false if they are too many to read at
// once. They are valid until the next scan.
func (e *engine) scan(ctx context.Context, k key) ([]datastore.Edge, bool, error) {
	r, object := &e.reader, k.object
	slot, known := r.objects.place(uint64(object))
	if !known {
		if len(r.edges) > maxScanned {
			r.forget()
			slot, _ = r.objects.place(uint64(object))
		}
		first := len(r.edges)
		if err := e.readAll(ctx, k); err != nil {
			r.edges = r.edges[:first]
			return nil, false, err
		}
		s := scan{span{int32(first), int32(len(r.edges) - first)}, true}
		if s.edges.count > maxScan {
			r.edges, s = r.edges[:first], scan{}
		}
		r.objects.put(slot, uint64(object), int32(len(r.scans)))
		r.scans = append(r.scans, s)
		return r.edges[first:], s.whole, nil
	}
	s := r.scans[slot.at]
	return r.edges[s.edges.first : s.edges.first+s.edges.count], s.whole, nil
}

// readAll appends the edges of an object to those scanned, or more of them than
// make a scan.
func (e *engine) readAll(ctx context.Context, k key) error {
	r := &e.reader
	r.from = len(r.edges)
	remembers := e.containers != nil && k.part.container && len(e.view.edges) == 0
	if remembers {
		var known bool
		if r.edges, known = e.containers.of(k.object, r.edges); known {
			return nil
		}
	}
	r.qs = append(r.qs[:0], datastore.Query{Object: k.object})
	err := e.view.Read(ctx, r.qs, r.keep)
	if found := r.edges[r.from:]; err == nil && remembers && len(found) <= maxScan {
		e.containers.keep(k.object, found)
	}
	return err
}

// forget drops what was scanned.
func (r *reader) forget() {
	r.objects.reset()
	clear(r.edges)
	r.scans, r.edges = r.scans[:0], r.edges[:0]
}

// gathered opens a node that has read its edges. What `.all()` asks of nobody is
// denied.
func (e *engine) gathered(i int32) {
	if n := &e.nodes[i]; n.op == allOf && n.links.count == 0 {
		n.sum = isNo
	}
	e.opened(i)
}

// flush makes all queued reads in one round, and puts their nodes back on the
// stack. Where something was decided early since the last round, it first walks
// again from the roots to queue only what is still needed.
func (e *engine) flush(ctx context.Context) error {
	if e.early && len(e.nodes) <= maxAgain {
		e.early = false
		e.abandon()
		e.restart()
		return nil
	}
	r := &e.reader
	r.ctx, r.failed, r.qs, r.owner, r.found = ctx, nil, r.qs[:0], r.owner[:0], r.found[:0]
	for _, i := range e.queue {
		e.begin(i)
	}
	asks := e.askMemberships()
	for _, i := range e.queue {
		if e.memberships.state == known {
			if err := e.matchMemberships(ctx, i); err != nil {
				return err
			}
			if n := &e.nodes[i]; n.op == anyOf && n.sum == isYes {
				continue
			}
		}
		e.enqueue(i, e.readsWith(&e.nodes[i], r.qs, e.memberships.state == unknowable))
	}
	if err := e.readRound(ctx); err != nil {
		return err
	}
	if asks {
		if err := e.learnMemberships(ctx); err != nil {
			return err
		}
	}
	e.distribute()
	for _, i := range e.queue {
		e.gathered(i)
		e.stack = append(e.stack, i)
	}
	e.queue = e.queue[:0]
	return nil
}

// enqueue takes the queries with those of a node at their end.
func (e *engine) enqueue(i int32, qs []datastore.Query) {
	r := &e.reader
	for r.qs = qs; len(r.owner) < len(r.qs); {
		r.owner = append(r.owner, i)
	}
}

// readRound makes the reads of a round.
func (e *engine) readRound(ctx context.Context) error {
	r := &e.reader
	if len(r.qs) == 0 {
		return ctx.Err()
	}
	if err := e.view.Read(ctx, r.qs, r.gather); err != nil {
		return err
	}
	return r.failed
}

// distribute gives the links found in a round to their nodes.
func (e *engine) distribute() {
	found := e.reader.found
	slices.SortStableFunc(found, func(a, b discovery) int { return cmp.Compare(a.node, b.node) })
	for j := 0; j < len(found); {
		n := &e.nodes[found[j].node]
		n.links.first = int32(len(e.links))
		for i := found[j].node; j < len(found) && found[j].node == i; j++ {
			e.links = append(e.links, found[j].link)
		}
		n.links.count = int32(len(e.links)) - n.links.first
	}
	clear(found)
}

// newReader makes the functions that take edges, once for all reads.
func (e *engine) newReader() {
	r := &e.reader
	r.visit = func(q int, edge datastore.Edge) bool {
		i := r.owner[q]
		l, ok, err := e.edge(r.ctx, i, &edge)
		if ok {
			e.links = append(e.links, l)
			e.nodes[i].links.count++
		}
		r.failed = err
		return err == nil
	}
	r.gather = func(q int, edge datastore.Edge) bool {
		if r.failed != nil {
			return false
		}
		i := r.owner[q]
		if i == noNode {
			return e.memberships.take(edge)
		}
		l, ok, err := e.edge(r.ctx, i, &edge)
		if ok {
			r.found = append(r.found, discovery{i, l})
		}
		r.failed = err
		n := &e.nodes[i]
		return err == nil && (n.op != anyOf || n.sum != isYes)
	}
	r.keep = func(_ int, edge datastore.Edge) bool {
		r.edges = append(r.edges, edge)
		return len(r.edges)-r.from <= maxScan
	}
}

// edge adds a relationship to the node that read it: as a match of the subject
// itself, or as a link, which it returns with true.
func (e *engine) edge(ctx context.Context, i int32, edge *datastore.Edge) (link, bool, error) {
	if edge.Expiration != 0 && edge.Expiration <= e.now {
		return link{}, false, nil
	}
	if err := e.count(ctx); err != nil {
		return link{}, false, err
	}
	n := &e.nodes[i]
	p := n.part
	if p.form == written {
		if edge.SubjectRelation == e.userset && edge.Subject == e.subject ||
			edge.SubjectRelation == 0 && edge.Subject == e.wildcard {
			e.match(n, e.guard(ctx, edge))
			return link{}, false, nil
		}
		if edge.SubjectRelation == 0 {
			return link{}, false, nil
		}
	}
	t := e.target(p, edge)
	if t == nil || !e.kind.can(t) {
		return link{to: never}, p.all, nil
	}
	g := e.guard(ctx, edge)
	if g != nil && g.value == isNo && !p.all {
		return link{}, false, nil
	}
	to, err := e.nodeOf(edge.Subject, t)
	return link{to: to, guard: g}, err == nil && (p.all || to != never), err
}

// match counts a relationship with the subject itself, or with the wildcard.
func (e *engine) match(n *node, g *guard) {
	v := isYes
	if g != nil {
		if v = g.value; !v.settled() {
			n.missing, n.err = merge(n.missing, g.missing), first(n.err, g.err)
		}
	}
	n.sum = n.sum.or(v)
}

// target is the part to which a relationship leads from a node of p; nil if there
// is none. The types of stored relationships are those that the schema allows, so
// where it leaves no choice the subject's needs no look.
func (e *engine) target(p *part, edge *datastore.Edge) *part {
	var userset schema.Name
	if p.form == written {
		userset = edge.SubjectRelation
	}
	if p.only && len(p.targets) == 1 && p.targets[0].userset == userset {
		return p.targets[0].part
	}
	i, ok := slices.BinarySearchFunc(p.targets, target{userset: userset, typ: e.view.Type(edge.Subject)}, target.compare)
	if !ok {
		return nil
	}
	return p.targets[i].part
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
