package keeper

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// resident is a snapshot in memory.
type resident struct {
	*state
	log    datastore.Log
	zookie string
}

// newResident returns the snapshot of a state.
func newResident(s *state, log datastore.Log) *resident {
	return &resident{state: s, log: log, zookie: s.head.Zookie(s.store).String()}
}

var (
	_ datastore.Snapshot   = (*resident)(nil)
	_ datastore.MemoReader = (*resident)(nil)
)

func (r *resident) Store() datastore.StoreID               { return r.store }
func (r *resident) Head() datastore.Head                   { return r.head }
func (r *resident) Zookie() string                         { return r.zookie }
func (r *resident) Schema() *schema.Schema                 { return r.schema }
func (r *resident) SchemaHash() (h [32]byte)               { return textHash(r.text) }
func (r *resident) Names() *schema.Names                   { return r.names }
func (r *resident) Width() int                             { return 1 }
func (r *resident) Close()                                 {}
func (r *resident) ID(o tuple.Object) (datastore.ID, bool) { return r.dict.id(o) }

// Nesting implements [datastore.MemoReader].
func (r *resident) Nesting() *datastore.Memo { return r.nesting }

// Containers implements [datastore.MemoReader].
func (r *resident) Containers() *datastore.Memo { return r.containers }

func textHash(t *datastore.SchemaText) (h [32]byte) {
	if t != nil {
		h = t.Hash
	}
	return h
}

// Withheld implements [datastore.Snapshot].
func (r *resident) Withheld(context.Context) (*datastore.Withheld, error) { return r.withheld, nil }

// Identities implements [datastore.Snapshot].
func (r *resident) Identities(ctx context.Context, q datastore.IdentityQuery, f func(datastore.Identity) bool) error {
	return r.log.Identities(ctx, r.store, r.head.Revision, q, f)
}

func (r *resident) Object(id datastore.ID) tuple.Object {
	o, _ := r.dict.object(id)
	return o
}

func (r *resident) Type(id datastore.ID) schema.Name {
	return r.dict.typ(id)
}

func (r *resident) Rows(ctx context.Context, q datastore.RowQuery, now time.Time, f func(datastore.Row) bool) error {
	return liveRows(ctx, r.log, r.store, r.head.Revision, q, now, f)
}

// liveRows reads rows without the expired ones, which do not count against the
// query's limit.
func liveRows(ctx context.Context, log datastore.Log, store datastore.StoreID, at datastore.Revision, q datastore.RowQuery, now time.Time, f func(datastore.Row) bool) error {
	limit, given := q.Limit, 0
	q.Limit = 0
	return log.Rows(ctx, store, at, q, func(row datastore.Row) bool {
		if row.Expired(now) {
			return true
		}
		given++
		return f(row) && given != limit
	})
}

func (r *resident) Read(ctx context.Context, qs []datastore.Query, f func(q int, e datastore.Edge) bool) error {
	for i := range qs {
		r.read(&qs[i], i, f)
	}
	return ctx.Err()
}

func (r *resident) read(q *datastore.Query, i int, f func(q int, e datastore.Edge) bool) {
	switch {
	case q.Object == 0:
		r.readBackward(q, i, f)
	case q.Subject != 0 && q.Relation != 0 && !q.AnySubjectRelation:
		if e, ok := r.forward.get(edge{from: q.Object, relation: q.Relation, userset: q.SubjectRelation, to: q.Subject}); ok {
			f(i, r.edge(e))
		}
	default:
		start := edge{from: q.Object, relation: q.Relation}
		if q.UsersetsOnly && q.Relation != 0 && q.Subject == 0 {
			start.userset = 1
		}
		each(r.forward, start, func(e edge) bool {
			if e.from != q.Object || q.Relation != 0 && e.relation != q.Relation {
				return false
			}
			if q.Subject != 0 && (e.to != q.Subject || !q.AnySubjectRelation && e.userset != q.SubjectRelation) ||
				q.Subject == 0 && q.UsersetsOnly && e.userset == 0 {
				return true
			}
			return f(i, r.edge(e))
		})
	}
}

func (r *resident) readBackward(q *datastore.Query, i int, f func(q int, e datastore.Edge) bool) {
	start := edge{from: q.Subject}
	if !q.AnySubjectRelation {
		start.userset, start.relation = q.SubjectRelation, q.Relation
	}
	each(r.backward, start, func(e edge) bool {
		if e.from != q.Subject || !q.AnySubjectRelation && e.userset != q.SubjectRelation {
			return false
		}
		if q.Relation != 0 && e.relation != q.Relation {
			return q.AnySubjectRelation || e.relation < q.Relation
		}
		return f(i, r.edge(e.reversed()))
	})
}

// each calls f for the edges from one on, those of its object at least, until f
// returns false.
func each(in *edges, start edge, f func(edge) bool) {
	list, whole := in.of(start)
	if !whole {
		in.ascend(start, f)
		return
	}
	for i := range list {
		if !f(list[i]) {
			return
		}
	}
}

func (r *resident) edge(e edge) datastore.Edge {
	out := datastore.Edge{Object: e.from, Relation: e.relation, Subject: e.to, SubjectRelation: e.userset}
	if e.trait != 0 {
		t := r.dict.trait(e.trait)
		out.Caveat, out.Context, out.Expiration = t.caveat.Name, t.caveat.Context, t.expiration
	}
	return out
}

// direct is a snapshot read from the Log at exactly its revision. Its dictionary
// is its own.
type direct struct {
	*state
	log   datastore.Log
	stamp datastore.Stamp // for line; zero: a revision of the past
	width int

	keeper  *store
	reading sync.Mutex // held to read who is withheld
	known   bool
}

var _ datastore.Snapshot = (*direct)(nil)

// direct returns a snapshot of a revision between the floor and the head, on the
// line that remembers what is read of it (nil: none does).
func (s *store) direct(ctx context.Context, head datastore.Head, line datastore.RowLine) (datastore.Snapshot, error) {
	if head.Revision == 0 {
		head.Time = time.Time{}
	} else {
		_, entries, err := s.log.After(ctx, s.id, head.Revision-1, 1)
		if err != nil {
			return nil, err
		}
		if len(entries) == 0 {
			return nil, fmt.Errorf("revision %d: %w", head.Revision, datastore.ErrForked)
		}
		c, err := datastore.Open(entries[0])
		if err != nil {
			return nil, err
		}
		head.Time = c.Time
	}
	st := newState(s.id, head)
	st.line = line
	if err := s.loadSchema(ctx, st); err != nil {
		return nil, err
	}
	return &direct{state: st, log: s.log, width: s.keeper.opts.DirectWidth, keeper: s}, nil
}

// directAt returns a snapshot of a state that is not in memory.
func (s *store) directAt(st *state) datastore.Snapshot {
	d := newState(s.id, st.head)
	d.schema, d.text, d.names, d.line, d.withheld = st.schema, st.text, st.names, st.far.line, st.withheld
	return &direct{state: d, known: true, log: s.log, stamp: st.far.stamp, width: s.keeper.opts.DirectWidth}
}

// Withheld implements [datastore.Snapshot]; of a revision of the past it is read
// when it is first asked for.
func (d *direct) Withheld(ctx context.Context) (*datastore.Withheld, error) {
	d.reading.Lock()
	defer d.reading.Unlock()
	if !d.known {
		if err := d.keeper.loadWithheld(ctx, d.state); err != nil {
			return nil, err
		}
		d.known = true
	}
	return d.withheld, nil
}

// Identities implements [datastore.Snapshot].
func (d *direct) Identities(ctx context.Context, q datastore.IdentityQuery, f func(datastore.Identity) bool) error {
	return d.log.Identities(ctx, d.store, d.head.Revision, q, f)
}

func (d *direct) Store() datastore.StoreID { return d.store }
func (d *direct) Head() datastore.Head     { return d.head }
func (d *direct) Zookie() string           { return d.head.Zookie(d.store).String() }
func (d *direct) Schema() *schema.Schema   { return d.schema }
func (d *direct) SchemaHash() [32]byte     { return textHash(d.text) }
func (d *direct) Names() *schema.Names     { return d.names }
func (d *direct) Width() int               { return d.width }
func (d *direct) Close()                   {}

// ID gives every object of a known type an id: whether a relationship mentions
// it is known only when it is read.
func (d *direct) ID(o tuple.Object) (datastore.ID, bool) {
	n, ok := d.names.ID(o.Type)
	if !ok {
		return 0, false
	}
	return d.dict.add(o, n), true
}

func (d *direct) Object(id datastore.ID) tuple.Object {
	o, _ := d.dict.object(id)
	return o
}

func (d *direct) Type(id datastore.ID) schema.Name {
	return d.dict.typ(id)
}

func (d *direct) Rows(ctx context.Context, q datastore.RowQuery, now time.Time, f func(datastore.Row) bool) error {
	return liveRows(ctx, d.log, d.store, d.head.Revision, q, now, f)
}

// Read asks the Log once for all queries.
func (d *direct) Read(ctx context.Context, qs []datastore.Query, f func(q int, e datastore.Edge) bool) error {
	var rows []datastore.RowQuery
	var owner []int
	for i := range qs {
		rows = d.rowQueries(rows, &qs[i])
		for len(owner) < len(rows) {
			owner = append(owner, i)
		}
	}
	if len(rows) == 0 {
		return ctx.Err()
	}
	ended := make([]bool, len(qs))
	var failed error
	err := d.readRows(ctx, rows, func(i int, row datastore.Row) bool {
		q := owner[i]
		if failed != nil || ended[q] {
			return false
		}
		if qs[q].UsersetsOnly && qs[q].Subject == 0 && row.Subject.Relation == "" {
			return true
		}
		e, err := d.intern(&row.Relationship)
		if err != nil {
			failed = err
			return false
		}
		out := datastore.Edge{Object: e.from, Relation: e.relation, Subject: e.to, SubjectRelation: e.userset,
			Caveat: row.Caveat.Name, Context: row.Caveat.Context}
		if !row.Expiration.IsZero() {
			out.Expiration = row.Expiration.UnixMicro()
		}
		ended[q] = !f(q, out)
		return !ended[q]
	})
	if failed != nil {
		return failed
	}
	return err
}

// readRows reads rows of many queries, remembered ones where there are such.
func (d *direct) readRows(ctx context.Context, qs []datastore.RowQuery, f func(q int, r datastore.Row) bool) error {
	if d.line == nil {
		return datastore.ReadMany(ctx, d.log, d.store, d.head.Revision, qs, f)
	}
	return d.line.Read(ctx, datastore.Position{Revision: d.head.Revision, Hash: d.head.Hash, Stamp: d.stamp}, qs, f)
}

// rowQueries appends the queries of rows that answer a query; none if nothing
// can.
func (d *direct) rowQueries(out []datastore.RowQuery, q *datastore.Query) []datastore.RowQuery {
	rows := datastore.RowQuery{BySubject: q.Object == 0}
	if q.Object != 0 {
		o := d.Object(q.Object)
		if o.Type == "" {
			return out
		}
		rows.Filter.ObjectType, rows.Filter.ObjectID = o.Type, o.ID
	}
	if q.Relation != 0 {
		rows.Filter.Relation = d.names.Text(q.Relation)
	}
	if q.Subject != 0 {
		o := d.Object(q.Subject)
		if o.Type == "" {
			return out
		}
		rows.Filter.Subject = tuple.SubjectFilter{Type: o.Type, ID: o.ID}
		switch {
		case q.AnySubjectRelation:
		case q.SubjectRelation == 0:
			rows.Filter.Subject.Relation = tuple.Ellipsis
		default:
			rows.Filter.Subject.Relation = d.names.Text(q.SubjectRelation)
		}
	}
	if q.UsersetsOnly && q.Subject == 0 {
		return d.usersetQueries(out, rows)
	}
	return append(out, rows)
}

// usersetQueries appends a query for each kind of userset that the schema
// allows, so that a group's other members, a million perhaps, are not read.
func (d *direct) usersetQueries(out []datastore.RowQuery, rows datastore.RowQuery) []datastore.RowQuery {
	var relation *schema.Relation
	if d.schema != nil {
		if def := d.schema.Definition(rows.Filter.ObjectType); def != nil {
			relation = def.Relation(rows.Filter.Relation)
		}
	}
	if relation == nil {
		return append(out, rows)
	}
	first := len(out)
	for _, a := range relation.Allowed {
		if a.Relation == nil {
			continue
		}
		rows.Filter.Subject = tuple.SubjectFilter{Type: a.Definition.Type, Relation: a.Relation.Text}
		if !slices.ContainsFunc(out[first:], func(q datastore.RowQuery) bool { return q.Filter.Subject == rows.Filter.Subject }) {
			out = append(out, rows)
		}
	}
	return out
}
