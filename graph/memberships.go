package graph

import (
	"cmp"
	"context"
	"slices"

	"github.com/pembadb/pemba/datastore"
)

// memberships are the relationships of an engine's subject itself, read from its side
// where many reads are made at once. One query tells whether the subject is in any
// of the relations on the way, however many they are; the queries that remain are
// about the graph alone, and the same for every subject.
type memberships struct {
	state originState // unknowable: there are too many
	edges []datastore.Edge
}

// maxMemberships is how many relationships of a subject are read from its side; one with
// more is looked for in each relation.
const maxMemberships = 1000

// noNode owns the query for the memberships.
const noNode int32 = -1

func (m *memberships) forget() {
	clear(m.edges)
	m.state, m.edges = unasked, m.edges[:0]
}

func (m *memberships) take(edge datastore.Edge) bool {
	m.edges = append(m.edges, edge)
	return len(m.edges) <= maxMemberships
}

// askMemberships adds the query for the memberships to a round that needs it, and reports
// whether it did.
func (e *engine) askMemberships() bool {
	if e.memberships.state != unasked || !slices.ContainsFunc(e.queue, e.wantsItself) {
		return false
	}
	e.enqueue(noNode, append(e.reader.qs, datastore.Query{Subject: e.subject, SubjectRelation: e.userset}))
	return true
}

// wantsItself reports whether a node may hold the subject itself.
func (e *engine) wantsItself(i int32) bool {
	p := e.nodes[i].part
	return p.form == written && e.kind.wants[p.id]&direct != 0
}

func compareMemberships(a, b datastore.Edge) int {
	return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Relation, b.Relation))
}

// learnMemberships takes the memberships that a round found to its nodes. Where that is too much,
// it asks for each of them.
func (e *engine) learnMemberships(ctx context.Context) error {
	r := &e.reader
	if len(e.memberships.edges) <= maxMemberships {
		e.memberships.state = known
		slices.SortFunc(e.memberships.edges, compareMemberships)
		for _, i := range e.queue {
			if err := e.matchMemberships(ctx, i); err != nil {
				return err
			}
		}
		return nil
	}
	e.memberships.state, e.memberships.edges = unknowable, e.memberships.edges[:0]
	r.qs, r.owner = r.qs[:0], r.owner[:0]
	for _, i := range e.queue {
		if e.wantsItself(i) {
			q := datastore.Query{Object: e.nodes[i].object, Relation: e.nodes[i].part.tuples, Subject: e.subject, SubjectRelation: e.userset}
			e.enqueue(i, append(r.qs, q))
		}
	}
	return e.readRound(ctx)
}

// matchMemberships gives a node the relationships that hold the subject itself.
func (e *engine) matchMemberships(ctx context.Context, i int32) error {
	if !e.wantsItself(i) {
		return nil
	}
	n := &e.nodes[i]
	from, _ := slices.BinarySearchFunc(e.memberships.edges, datastore.Edge{Object: n.object, Relation: n.part.tuples}, compareMemberships)
	for j := from; j < len(e.memberships.edges); j++ {
		edge := e.memberships.edges[j]
		if edge.Object != n.object || edge.Relation != n.part.tuples {
			break
		}
		if _, _, err := e.edge(ctx, i, &edge); err != nil {
			return err
		}
	}
	return nil
}
