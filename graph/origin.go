package graph

import (
	"context"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
)

// origin is a relationship that makes an engine's subject a member of a userset.
type origin struct {
	edge datastore.Edge
	nest *nest
}

// maxOrigins is how many usersets of a subject are looked at; a member of more is
// looked for from the resource's side only.
const maxOrigins = 48

// origins are the usersets that hold an engine's subject itself. Where they are
// known, a userset in which none of them lies need not be looked at.
type origins struct {
	nests *nests
	list  []origin
	state originState
	take  func(q int, e datastore.Edge) bool // made once an engine
	ok    bool                               // of the read under way
	skip  bool
}

type originState uint8

const (
	unasked originState = iota
	known
	unknowable
)

// located reports whether the subject's origins are known; it looks for them when
// first asked.
func (e *engine) located() bool {
	o := &e.origins
	if o.state == unasked {
		if o.state = unknowable; e.locate() {
			o.state = known
		}
	}
	return o.state == known
}

func (e *engine) locate() bool {
	o := &e.origins
	if len(e.view.edges) > 0 {
		return false
	}
	if o.nests = nestsOf(e.view.Snapshot); o.nests == nil {
		return false
	}
	if e.subject >= datastore.FirstForeignID {
		return true
	}
	for _, by := range e.kind.origins {
		q := append(e.reader.few[:0], datastore.Query{Subject: e.subject, SubjectRelation: e.userset, Relation: by.relation})
		o.ok, o.skip = true, by.mixed
		// A read in memory cannot fail, and is too short to be cut off.
		if err := e.view.Read(context.Background(), q, o.take); err != nil || !o.ok {
			return false
		}
	}
	for i := range o.list {
		at := &o.list[i]
		if at.nest = o.nests.of(e.view.Snapshot, at.edge.Object, at.edge.Relation); at.nest == nil {
			return false
		}
	}
	return true
}

func (e *engine) newOrigins() {
	o := &e.origins
	o.take = func(_ int, edge datastore.Edge) bool {
		if o.skip {
			d := e.schema.DefinitionByName(e.view.Type(edge.Object))
			if d == nil || !e.plan.atoms[d.RelationByName(edge.Relation)].nested {
				return true
			}
		}
		o.list = append(o.list, origin{edge: edge})
		o.ok = len(o.list) <= maxOrigins
		return o.ok
	}
}

// outside reports whether it is certain, without a look at it, that a userset
// does not hold the subject.
func (e *engine) outside(object datastore.ID, p *part) bool {
	if !e.located() {
		return false
	}
	if object >= datastore.FirstForeignID || len(e.origins.list) == 0 {
		return true
	}
	n := e.origins.nests.of(e.view.Snapshot, object, p.tuples)
	if n == nil {
		return false
	}
	for i := range e.origins.list {
		if n.holds(e.origins.list[i].nest) {
			return false
		}
	}
	return true
}

// readNested gathers what a userset that may hold the subject holds: the subject
// itself is known from its side, and usersets are read only if one of them may
// hold it.
func (e *engine) readNested(ctx context.Context, i int32) error {
	object, p := e.nodes[i].object, e.nodes[i].part
	within := e.origins.nests.of(e.view.Snapshot, object, p.tuples)
	deeper := within == nil || within.unknown || within.circle
	for j := range e.origins.list {
		o := &e.origins.list[j]
		if o.edge.Object == object && o.edge.Relation == p.tuples {
			if _, _, err := e.edge(ctx, i, &o.edge); err != nil {
				return err
			}
		} else {
			deeper = deeper || within.holds(o.nest)
		}
	}
	if !deeper || e.nodes[i].sum == isYes {
		e.gathered(i)
		return nil
	}
	r := &e.reader
	r.qs = append(r.qs[:0], datastore.Query{Object: object, Relation: p.tuples, UsersetsOnly: true})
	return e.readEach(ctx, i)
}

// originName is a relation by which usersets hold a kind of subjects.
type originName struct {
	relation schema.Name
	mixed    bool // some types have a relation of that name that is no userset
}
