package server

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

type relationships struct {
	pembav1.UnimplementedRelationshipServiceServer
	*Server
}

// page is how many relationships go into one message, and at most into one
// change of a deletion.
const page = 1000

func (s *relationships) WriteRelationships(ctx context.Context, r *pembav1.WriteRelationshipsRequest) (*pembav1.WriteRelationshipsResponse, error) {
	if len(r.Operations) == 0 {
		return nil, missing("operations")
	}
	if err := checkRequest(r.RequestId, r.Reason, maxRequestID); err != nil {
		return nil, err
	}
	req := datastore.Request{ID: requestID(r.RequestId), Actor: callerOf(ctx).name, Reason: r.Reason}
	var err error
	if req.Preconditions, err = s.preconditions(r.Preconditions); err != nil {
		return nil, err
	}
	for i, o := range r.Operations {
		if err := s.operation(&req, o, fmt.Sprintf("operations[%d]", i)); err != nil {
			return nil, err
		}
	}
	st, err := s.store(ctx, r.Store)
	if err != nil {
		return nil, err
	}
	if err := s.filtersKnown(ctx, st.ID, nil, req.Preconditions); err != nil {
		return nil, err
	}
	o, err := s.ds.Write(ctx, st.ID, req)
	if err != nil {
		return nil, err
	}
	return &pembav1.WriteRelationshipsResponse{
		Zookie: o.Zookie, Revision: uint64(o.Revision), RequestId: req.ID,
		Created: uint32(o.Created), Replaced: uint32(o.Touched), Deleted: uint32(o.Deleted), Repeated: o.Repeated,
	}, nil
}

// filtersKnown refuses filters that name what the schema lacks: see
// [datastore.CheckFilter]. What a recent schema lacks is looked up in the newest.
func (s *Server) filtersKnown(ctx context.Context, store datastore.StoreID, f *tuple.Filter, conditions []datastore.Precondition) error {
	if f == nil && len(conditions) == 0 {
		return nil
	}
	var err error
	for _, level := range []datastore.Level{datastore.MinimizeLatency, datastore.FullyConsistent} {
		snapshot, failed := s.ds.At(ctx, store, datastore.Consistency{Level: level})
		if failed != nil {
			return failed
		}
		err = nil
		if f != nil {
			err = datastore.CheckFilter(snapshot.Schema(), *f)
		}
		for i, c := range conditions {
			if known := datastore.CheckFilter(snapshot.Schema(), c.Filter); err == nil && known != nil {
				err = datastore.With(fmt.Errorf("preconditions[%d]: %w", i, known), "precondition", strconv.Itoa(i))
			}
		}
		snapshot.Close()
		if err == nil {
			return nil
		}
	}
	return err
}

// requestID is the caller's request id, or a new one, so that the answer can name it.
func requestID(given string) string {
	if given == "" {
		return rand.Text()
	}
	return given
}

func (s *relationships) operation(req *datastore.Request, o *pembav1.WriteOperation, field string) error {
	var kind datastore.Kind
	var rel *pembav1.Relationship
	switch op := o.GetOperation().(type) {
	case *pembav1.WriteOperation_Create:
		kind, rel = datastore.Create, op.Create
	case *pembav1.WriteOperation_Touch:
		kind, rel = datastore.Touch, op.Touch
	case *pembav1.WriteOperation_Delete:
		kind, rel = datastore.Delete, op.Delete
	case *pembav1.WriteOperation_Set:
		set, err := s.set(op.Set, field+".set")
		req.Sets = append(req.Sets, set)
		return err
	default:
		return missing(field + ".operation")
	}
	r, err := s.relationship(rel, field)
	req.Updates = append(req.Updates, datastore.Update{Kind: kind, Relationship: r})
	return err
}

func (s *relationships) set(p *pembav1.SetSubjects, field string) (out datastore.Set, err error) {
	if p == nil {
		return out, missing(field)
	}
	if out.Object, err = object(p.Resource, field+".resource"); err != nil {
		return out, err
	}
	if out.Relation = p.Relation; p.Relation == "" {
		return out, missing(field + ".relation")
	}
	if err := tuple.CheckRelation(p.Relation); err != nil {
		return out, badField(pembav1.ErrorReason_ERROR_REASON_INVALID_RELATION, field+".relation", err)
	}
	for i, sub := range p.Subjects {
		r, err := s.relationship(&pembav1.Relationship{
			Resource: p.Resource, Relation: p.Relation, Subject: sub.GetSubject(), Caveat: sub.GetCaveat(), Expiration: sub.GetExpiration(),
		}, fmt.Sprintf("%s.subjects[%d]", field, i))
		if err != nil {
			return out, err
		}
		out.Relationships = append(out.Relationships, r)
	}
	return out, nil
}

// listing is a list of relationships: which, at which revision, and from where.
type listing struct {
	store       string
	consistency *pembav1.Consistency
	filter      *pembav1.RelationshipFilter
	cursor      string
	limit       uint64 // zero: all
}

// send hands on a page and the cursor behind it; complete if nothing is left.
type send func(zookie string, rows []*pembav1.Relationship, cursor string, complete bool) error

// list reads relationships in pages, each bounded in number and bytes.
func (s *Server) list(ctx context.Context, l listing, send send) error {
	f, err := filter(l.filter)
	if err != nil {
		return err
	}
	st, err := s.store(ctx, l.store)
	if err != nil {
		return err
	}
	level, err := consistency(l.consistency)
	if err != nil {
		return err
	}
	q, at := datastore.QueryFor(f), cursor{time: tuple.Micros(time.Now()), question: question("relationships", st.ID, l.filter)}
	if l.cursor != "" {
		if at, err = parseCursor(l.cursor, at.question); err != nil {
			return err
		}
		after, err := at.key()
		if err != nil {
			return err
		}
		level, q.After = datastore.Consistency{Level: datastore.AtExactSnapshot, Zookie: at.zookie}, &after
	}
	snapshot, err := s.ds.At(ctx, st.ID, level)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	if err := datastore.CheckFilter(snapshot.Schema(), f); err != nil {
		return err
	}
	at.zookie = snapshot.Zookie()
	for left := l.limit; ; {
		q.Limit = page
		if l.limit > 0 {
			q.Limit = int(min(page, left))
		}
		rows, last, more, err := readPage(ctx, snapshot, q, at.time)
		if err != nil {
			return err
		}
		next := ""
		if more {
			at.position = last.String()
			next = at.String()
		}
		if err := send(at.zookie, rows, next, !more); err != nil {
			return err
		}
		left -= min(left, uint64(len(rows)))
		if !more || l.limit > 0 && left == 0 {
			return nil
		}
		q.After = &last
	}
}

// pageBytes bounds a message of a list: it ends with the relationship that takes
// it over.
const pageBytes = 64 << 10

// readPage reads up to q.Limit rows that are alive, the key of the last, and
// whether there are more.
func readPage(ctx context.Context, s datastore.Snapshot, q datastore.RowQuery, now time.Time) (rows []*pembav1.Relationship, last tuple.Key, more bool, err error) {
	want, size := q.Limit, 0
	q.Limit++ // one more tells whether this is all
	err = s.Rows(ctx, q, now, func(r datastore.Row) bool {
		if more = len(rows) == want || size >= pageBytes; more {
			return false
		}
		p := relationshipProto(&r.Relationship)
		rows, last, size = append(rows, p), r.Key, size+proto.Size(p)
		return true
	})
	return rows, last, more, err
}

func (s *relationships) ReadRelationships(r *pembav1.ReadRelationshipsRequest, out grpc.ServerStreamingServer[pembav1.ReadRelationshipsResponse]) error {
	l := listing{r.Store, r.Consistency, r.Filter, r.Cursor, r.Limit}
	return s.list(out.Context(), l, func(zookie string, rows []*pembav1.Relationship, cursor string, complete bool) error {
		return out.Send(&pembav1.ReadRelationshipsResponse{Zookie: zookie, Relationships: rows, Cursor: cursor, Complete: complete})
	})
}

func (s *relationships) ExportRelationships(r *pembav1.ExportRelationshipsRequest, out grpc.ServerStreamingServer[pembav1.ExportRelationshipsResponse]) error {
	l := listing{r.Store, r.Consistency, r.Filter, r.Cursor, 0}
	if r.Consistency.GetRequirement() == nil {
		l.consistency = &pembav1.Consistency{Requirement: &pembav1.Consistency_FullyConsistent{FullyConsistent: true}}
	}
	return s.list(out.Context(), l, func(zookie string, rows []*pembav1.Relationship, cursor string, complete bool) error {
		return out.Send(&pembav1.ExportRelationshipsResponse{Zookie: zookie, Relationships: rows, Cursor: cursor, Complete: complete})
	})
}
