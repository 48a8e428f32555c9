package graph

import (
	"context"
	"fmt"

	"github.com/pembadb/pemba/datastore"
)

// search is how an engine answers where only unions lead from a node: nothing
// behind it takes anything away, so that one match anywhere makes it yes, and
// nothing found makes it and everything passed on the way no. What is passed needs
// no node: only the table remembers it. Where a caveat stays open the search is
// given up, and the nodes are made after all.
type search struct {
	passed []passed
	todo   []int32 // places in passed to look at next
	at     int32   // the place that is looked at
	found  bool
	doubt  bool
	err    error
	ctx    context.Context // of the read under way
	part   *part           // that reads
	visit  func(q int, e datastore.Edge) bool
}

// passed is a part of an object that a search came to.
type passed struct {
	key  uint64
	from int32 // the place in the list from where; -1: the root
	node int32 // its own; never: it has none
}

// absent stands in the table where a search passed that did not end in a no.
const absent int32 = -1

func (e *engine) newSearch() {
	s := &e.search
	s.visit = func(_ int, edge datastore.Edge) bool {
		e.meet(s.ctx, s.part, &edge)
		return !s.ended()
	}
}

// ended reports whether the rest need not be looked at.
func (s *search) ended() bool { return s.found || s.doubt || s.err != nil }

// searches reports whether a fresh node is one to search: reads are made as they
// come, and only unions lead from it.
func (e *engine) searches(n *node) bool {
	return n.part.unions && !e.doubtful && e.view.Width() == 1
}

// find searches behind a fresh node and makes it final; where it gives up, it says
// so, and the node is as it was.
func (e *engine) find(ctx context.Context, i int32) (done bool, err error) {
	s := &e.search
	s.found, s.doubt, s.err = false, false, nil
	s.passed = append(s.passed[:0], passed{e.nodes[i].key.number(), -1, i})
	for s.todo = append(s.todo[:0], 0); len(s.todo) > 0 && !s.ended(); {
		s.at = s.todo[len(s.todo)-1]
		s.todo = s.todo[:len(s.todo)-1]
		if s.err = e.count(ctx); s.err == nil {
			e.look(ctx, e.keyOf(s.passed[s.at].key))
		}
	}
	if s.ended() {
		e.unpass()
	}
	if s.err != nil || !s.found && s.doubt {
		e.doubtful = e.doubtful || s.doubt
		return false, s.err
	}
	v := isNo
	if s.found {
		v = isYes
	}
	e.begin(i)
	e.finish(i, v, nil, nil)
	return true, nil
}

func (e *engine) keyOf(number uint64) key {
	return key{datastore.ID(number >> 32), e.plan.parts[uint32(number)]}
}

// unpass forgets what a search passed before it ended early: that it is no is not
// known. Where a match was found, all on the way to it is yes.
func (e *engine) unpass() {
	s := &e.search
	for j := range s.passed[1:] {
		p := &s.passed[j+1]
		if p.node != never {
			e.nodes[p.node].state = fresh
		} else if slot, ok := e.table.place(p.key); ok {
			slot.at = absent
		}
	}
	if !s.found {
		return
	}
	for j := s.at; j > 0; j = s.passed[j].from {
		p := &s.passed[j]
		if p.node != never {
			e.settle(p.node, isYes, nil, nil)
		} else if slot, ok := e.table.place(p.key); ok {
			slot.at = always
		}
	}
}

// look looks at what lies right behind a part of an object.
func (e *engine) look(ctx context.Context, k key) {
	if !k.part.reads() {
		for i := len(k.part.children) - 1; i >= 0; i-- { // the first is looked at first
			e.pass(k.object, k.part.children[i])
		}
		return
	}
	s := &e.search
	switch {
	case k.part.nested && e.located():
		e.lookNested(ctx, k)
		return
	case e.containers != nil && k.part.container && len(e.view.edges) == 0:
		if edges := e.containers.known.get(uint64(k.object)); edges != nil {
			for _, p := range *edges {
				if p.relation == k.part.tuples {
					edge := datastore.Edge{Object: k.object, Relation: p.relation, Subject: p.subject, SubjectRelation: p.userset}
					if e.meet(ctx, k.part, &edge); s.ended() {
						return
					}
				}
			}
			return
		}
	}
	if k.part.scan || k.part.container {
		edges, whole, err := e.scan(ctx, k)
		if s.err = err; err != nil {
			return
		}
		for j := range edges {
			if whole && edges[j].Relation == k.part.tuples {
				if e.meet(ctx, k.part, &edges[j]); s.ended() {
					return
				}
			}
		}
		if whole {
			return
		}
	}
	n := node{key: k}
	e.lookAll(ctx, k.part, e.reads(&n, e.reader.qs[:0]))
}

// lookAll makes the reads of a part one after the other.
func (e *engine) lookAll(ctx context.Context, p *part, qs []datastore.Query) {
	s := &e.search
	e.reader.qs, s.ctx, s.part = qs, ctx, p
	for j := range qs {
		if err := e.view.Read(ctx, qs[j:j+1], s.visit); err != nil && s.err == nil {
			s.err = err
		}
		if s.ended() {
			return
		}
	}
}

// lookNested looks behind a userset that may hold the subject, as readNested does.
func (e *engine) lookNested(ctx context.Context, k key) {
	s := &e.search
	within := e.origins.nests.of(e.view.Snapshot, k.object, k.part.tuples)
	deeper := within == nil || within.unknown || within.circle
	for j := range e.origins.list {
		o := &e.origins.list[j]
		if o.edge.Object != k.object || o.edge.Relation != k.part.tuples {
			deeper = deeper || within.holds(o.nest)
		} else if e.meet(ctx, k.part, &o.edge); s.ended() {
			return
		}
	}
	if deeper {
		e.lookAll(ctx, k.part, append(e.reader.qs[:0], datastore.Query{Object: k.object, Relation: k.part.tuples, UsersetsOnly: true}))
	}
}

// meet follows a relationship: it is the subject itself or its wildcard, or leads
// on, or nowhere.
func (e *engine) meet(ctx context.Context, p *part, edge *datastore.Edge) {
	s := &e.search
	if edge.Expiration != 0 && edge.Expiration <= e.now {
		return
	}
	if s.err = e.count(ctx); s.err != nil {
		return
	}
	itself := false
	if p.form == written {
		itself = edge.SubjectRelation == e.userset && edge.Subject == e.subject ||
			edge.SubjectRelation == 0 && edge.Subject == e.wildcard
		if !itself && edge.SubjectRelation == 0 {
			return
		}
	}
	var t *part
	if !itself {
		if t = e.target(p, edge); t == nil || !e.kind.can(t) {
			return
		}
	}
	if g := e.guard(ctx, edge); g != nil {
		s.doubt = s.doubt || g.value != isNo
		return
	}
	if itself {
		s.found = true
		return
	}
	e.pass(edge.Subject, t)
}

// pass comes to a part of an object, and takes it up to be looked at unless that
// is done, or not needed: see nodeOf.
func (e *engine) pass(object datastore.ID, p *part) {
	s := &e.search
	if object == e.subject &&
		(p.form == itself && e.userset == 0 || e.userset != 0 && p.relation != nil && p.relation.Name == e.userset) {
		s.found = true
		return
	}
	if p.form == itself || !e.kind.can(p) {
		return
	}
	k := key{object, p}
	slot, known := e.table.place(k.number())
	if known && slot.at != absent {
		e.passNode(slot.at)
		return
	}
	if p.nested && e.outside(object, p) {
		return
	}
	if s.err = e.full(); s.err != nil {
		return
	}
	e.table.put(slot, k.number(), never)
	e.passes++
	e.enter(k, never)
}

// enter takes up a part of an object to be looked at.
func (e *engine) enter(k key, node int32) {
	s := &e.search
	s.todo = append(s.todo, int32(len(s.passed)))
	s.passed = append(s.passed, passed{k.number(), s.at, node})
}

// passNode comes to a part of an object that has a node.
func (e *engine) passNode(i int32) {
	s, n := &e.search, &e.nodes[i]
	switch {
	case i == s.passed[0].node:
	case n.state == final:
		s.found = s.found || n.value == isYes
		s.doubt = s.doubt || !n.value.settled()
	case n.state == fresh && n.waiters == 0:
		n.state, n.value = final, isNo
		e.enter(n.key, i)
	default:
		s.doubt = true
	}
}

// full is the error of a question that came to more than it may.
func (e *engine) full() error {
	if e.size() < e.limits.nodes() {
		return nil
	}
	return fmt.Errorf("%w: %d nodes; ask a narrower question", ErrTooManyNodes, e.limits.nodes())
}

// size is how much the engine came to since it began about its subject.
func (e *engine) size() int { return len(e.nodes) + e.passes }
