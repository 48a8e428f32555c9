package graph

import (
	"context"
	"fmt"
	"slices"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// view is a snapshot as one question sees it: with the contextual relationships
// laid over it, and ids for objects that the snapshot lacks.
type view struct {
	datastore.Snapshot
	foreign []tuple.Object                // by id - FirstForeignID
	found   map[tuple.Object]datastore.ID // foreign, once they are many
	edges   []datastore.Edge
}

// manyForeign is how many objects are looked for one by one.
const manyForeign = 16

// newView checks the contextual relationships against the schema and lays them
// over s. Expired ones have no effect but to hide what they replace.
func newView(s datastore.Snapshot, contextual []tuple.Relationship) (*view, error) {
	v := new(view)
	return v, v.lay(s, contextual)
}

// lay makes v the view of newView; what it was before, it forgets.
func (v *view) lay(s datastore.Snapshot, contextual []tuple.Relationship) error {
	clear(v.foreign)
	clear(v.edges)
	v.Snapshot, v.foreign, v.found, v.edges = s, v.foreign[:0], nil, v.edges[:0]
	if len(contextual) == 0 {
		return nil
	}
	names := s.Names()
	for i := range contextual {
		r := &contextual[i]
		if err := r.Check(); err != nil {
			return fmt.Errorf("%w: contextual relationship: %w", ErrInvalid, err)
		}
		if err := s.Schema().CheckRelationship(*r); err != nil {
			return fmt.Errorf("%w: contextual relationship: %w", ErrInvalid, err)
		}
		relation, _ := names.ID(r.Relation)
		userset, _ := names.ID(r.Subject.Relation)
		e := datastore.Edge{
			Object: v.id(r.Object), Relation: relation, Subject: v.id(r.Subject.Object), SubjectRelation: userset,
			Caveat: r.Caveat.Name, Context: r.Caveat.Context,
		}
		if !r.Expiration.IsZero() {
			e.Expiration = r.Expiration.UnixMicro()
		}
		v.edges = slices.DeleteFunc(v.edges, func(o datastore.Edge) bool { return sameEdge(o, e) }) // the last one stands
		v.edges = append(v.edges, e)
	}
	return nil
}

func sameEdge(a, b datastore.Edge) bool {
	return a.Object == b.Object && a.Relation == b.Relation && a.Subject == b.Subject && a.SubjectRelation == b.SubjectRelation
}

// id gives every object an id.
func (v *view) id(o tuple.Object) datastore.ID {
	if id, ok := v.Snapshot.ID(o); ok {
		return id
	}
	if len(v.foreign) < manyForeign {
		if i := slices.Index(v.foreign, o); i >= 0 {
			return datastore.FirstForeignID + datastore.ID(i)
		}
	} else if id, ok := v.found[o]; ok {
		return id
	}
	id := datastore.FirstForeignID + datastore.ID(len(v.foreign))
	v.foreign = append(v.foreign, o)
	switch {
	case len(v.foreign) == manyForeign:
		v.found = make(map[tuple.Object]datastore.ID, 2*manyForeign)
		for i, o := range v.foreign {
			v.found[o] = datastore.FirstForeignID + datastore.ID(i)
		}
	case v.found != nil:
		v.found[o] = id
	}
	return id
}

func (v *view) Object(id datastore.ID) tuple.Object {
	if id >= datastore.FirstForeignID {
		return v.foreign[id-datastore.FirstForeignID]
	}
	return v.Snapshot.Object(id)
}

func (v *view) Type(id datastore.ID) schema.Name {
	if id >= datastore.FirstForeignID {
		n, _ := v.Names().ID(v.foreign[id-datastore.FirstForeignID].Type)
		return n
	}
	return v.Snapshot.Type(id)
}

func (v *view) Read(ctx context.Context, qs []datastore.Query, f func(q int, e datastore.Edge) bool) error {
	if len(v.edges) == 0 {
		return v.Snapshot.Read(ctx, qs, f)
	}
	stopped := make([]bool, len(qs))
	err := v.Snapshot.Read(ctx, qs, func(q int, e datastore.Edge) bool {
		if slices.ContainsFunc(v.edges, func(o datastore.Edge) bool { return sameEdge(o, e) }) {
			return true
		}
		stopped[q] = !f(q, e)
		return !stopped[q]
	})
	if err != nil {
		return err
	}
	for i := range qs {
		for _, e := range v.edges {
			if !stopped[i] && selects(&qs[i], e) {
				stopped[i] = !f(i, e)
			}
		}
	}
	return nil
}

func selects(q *datastore.Query, e datastore.Edge) bool {
	switch {
	case q.Object != 0 && q.Object != e.Object, q.Relation != 0 && q.Relation != e.Relation:
		return false
	case q.Subject != 0:
		return q.Subject == e.Subject && (q.AnySubjectRelation || q.SubjectRelation == e.SubjectRelation)
	}
	return !q.UsersetsOnly || e.SubjectRelation != 0
}
