package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/pembadb/pemba/datastore"
	storedv1 "github.com/pembadb/pemba/proto/pemba/stored/v1"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

type relationships struct {
	pembav1.UnimplementedRelationshipServiceServer
	*Server
}

// page is how many relationships go into one message or one change.
const page = 1000

func (s *relationships) WriteRelationships(ctx context.Context, r *pembav1.WriteRelationshipsRequest) (*pembav1.WriteRelationshipsResponse, error) {
	if len(r.Operations) == 0 {
		return nil, missing("operations")
	}
	req := datastore.Request{ID: requestID(r.RequestId), Actor: callerOf(ctx).name, Reason: r.Reason}
	var err error
	if req.Preconditions, err = preconditions(r.Preconditions); err != nil {
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
	o, err := s.ds.Write(ctx, st.ID, req)
	if err != nil {
		return nil, err
	}
	return &pembav1.WriteRelationshipsResponse{
		Zookie: o.Zookie, Revision: uint64(o.Revision), RequestId: req.ID,
		Created: uint32(o.Created), Replaced: uint32(o.Touched), Deleted: uint32(o.Deleted), Repeated: o.Repeated,
	}, nil
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
	out.Relation = p.Relation
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

// rowQuery chooses the order in which a filter's rows can be found.
func rowQuery(f tuple.Filter) datastore.RowQuery {
	return datastore.RowQuery{Filter: f, BySubject: f.ObjectID == "" && f.Subject.Type != "" && (f.ObjectType == "" || f.Subject.ID != "")}
}

// digest is what a cursor is bound to: the same question in the same store.
func digest(f *pembav1.RelationshipFilter, store datastore.StoreID) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(f)
	if err != nil {
		return nil
	}
	h := sha256.Sum256(append(b, fmt.Sprint(store)...))
	return h[:16]
}

func encodeCursor(zookie string, now time.Time, last tuple.Key, question []byte) string {
	b, err := proto.Marshal(&storedv1.Cursor{Format: 1, Zookie: zookie, Time: now.UnixMicro(), Position: []byte(last.String()), Question: question})
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func decodeCursor(text string, question []byte) (zookie string, now time.Time, after tuple.Key, err error) {
	fail := func(why string) (string, time.Time, tuple.Key, error) {
		return "", now, after, problem(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_CURSOR, "the cursor %s; start again without one", why)
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	var c storedv1.Cursor
	if err != nil || proto.Unmarshal(b, &c) != nil || c.Format != 1 {
		return fail("is damaged")
	}
	if string(c.Question) != string(question) {
		return fail("is of another question")
	}
	last, err := tuple.Parse(string(c.Position))
	if err != nil {
		return fail("is damaged")
	}
	return c.Zookie, time.UnixMicro(c.Time).UTC(), last.Key, nil
}

// list reads relationships in pages and hands them to send with the cursor
// behind each.
func (s *Server) list(ctx context.Context, store string, c *pembav1.Consistency, pf *pembav1.RelationshipFilter, cursor string, limit uint64,
	send func(zookie string, rows []*pembav1.Relationship, cursor string, complete bool) error) error {
	f, err := filter(pf)
	if err != nil {
		return err
	}
	st, err := s.store(ctx, store)
	if err != nil {
		return err
	}
	level, err := consistency(c)
	if err != nil {
		return err
	}
	q, now, question := rowQuery(f), time.Now(), digest(pf, st.ID)
	if cursor != "" {
		zookie, at, after, err := decodeCursor(cursor, question)
		if err != nil {
			return err
		}
		level = datastore.Consistency{Level: datastore.AtExactSnapshot, Zookie: zookie}
		now, q.After = at, &after
	}
	snapshot, err := s.ds.At(ctx, st.ID, level)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	for left := limit; ; {
		q.Limit = page
		if limit > 0 {
			q.Limit = int(min(page, left))
		}
		want := q.Limit
		q.Limit++ // one more tells whether this is all
		var rows []*pembav1.Relationship
		var last tuple.Key
		more := false
		err := snapshot.Rows(ctx, q, now, func(r datastore.Row) bool {
			if more = len(rows) == want; !more {
				rows, last = append(rows, relationshipProto(&r.Relationship)), r.Key
			}
			return !more
		})
		if err != nil {
			return err
		}
		next := ""
		if more {
			next = encodeCursor(snapshot.Zookie(), now, last, question)
		}
		if err := send(snapshot.Zookie(), rows, next, !more); err != nil {
			return err
		}
		left -= min(left, uint64(len(rows)))
		if !more || limit > 0 && left == 0 {
			return nil
		}
		q.After = &last
	}
}

func (s *relationships) ReadRelationships(r *pembav1.ReadRelationshipsRequest, out grpc.ServerStreamingServer[pembav1.ReadRelationshipsResponse]) error {
	return s.list(out.Context(), r.Store, r.Consistency, r.Filter, r.Cursor, r.Limit, func(zookie string, rows []*pembav1.Relationship, cursor string, complete bool) error {
		return out.Send(&pembav1.ReadRelationshipsResponse{Zookie: zookie, Relationships: rows, Cursor: cursor, Complete: complete})
	})
}

func (s *relationships) ExportRelationships(r *pembav1.ExportRelationshipsRequest, out grpc.ServerStreamingServer[pembav1.ExportRelationshipsResponse]) error {
	c := r.Consistency
	if c.GetRequirement() == nil {
		c = &pembav1.Consistency{Requirement: &pembav1.Consistency_FullyConsistent{FullyConsistent: true}}
	}
	return s.list(out.Context(), r.Store, c, r.Filter, r.Cursor, 0, func(zookie string, rows []*pembav1.Relationship, cursor string, complete bool) error {
		return out.Send(&pembav1.ExportRelationshipsResponse{Zookie: zookie, Relationships: rows, Cursor: cursor, Complete: complete})
	})
}

// nthID is the request id of the nth change of one call, from 1.
func nthID(id string, n int) string {
	if n == 1 {
		return id
	}
	return fmt.Sprintf("%s/%d", id, n)
}

func (s *relationships) DeleteRelationships(r *pembav1.DeleteRelationshipsRequest, out grpc.ServerStreamingServer[pembav1.DeleteRelationshipsResponse]) error {
	ctx := out.Context()
	f, err := filter(r.Filter)
	if err != nil {
		return err
	}
	conditions, err := preconditions(r.Preconditions)
	if err != nil {
		return err
	}
	st, err := s.store(ctx, r.Store)
	if err != nil {
		return err
	}
	id, left := requestID(r.RequestId), r.Limit
	for n := 1; ; n++ {
		req := datastore.Request{ID: nthID(id, n), Actor: callerOf(ctx).name, Reason: r.Reason, DeleteWhere: &f, DeleteLimit: page}
		if n == 1 {
			req.Preconditions = conditions
		}
		if r.Limit > 0 {
			req.DeleteLimit = int(min(page, left))
		}
		o, err := s.ds.Write(ctx, st.ID, req)
		if err != nil {
			return err
		}
		left -= min(left, uint64(o.Deleted))
		// A repeated change does not tell whether more was left: look.
		more := o.More || o.Repeated && o.Deleted == req.DeleteLimit
		err = out.Send(&pembav1.DeleteRelationshipsResponse{Zookie: o.Zookie, Revision: uint64(o.Revision), RequestId: req.ID, Deleted: uint64(o.Deleted), Complete: !more})
		if err != nil || !more || r.Limit > 0 && left == 0 {
			return err
		}
	}
}

func (s *relationships) ImportRelationships(stream grpc.BidiStreamingServer[pembav1.ImportRelationshipsRequest, pembav1.ImportRelationshipsResponse]) error {
	ctx := stream.Context()
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return problem(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_MISSING_FIELD, "the first message of an import must hold start")
	}
	st, err := s.store(ctx, start.Store)
	if err != nil {
		return err
	}
	kind := datastore.Touch
	if start.Mode == pembav1.ImportMode_IMPORT_MODE_CREATE {
		kind = datastore.Create
	}
	id := requestID(start.RequestId)
	head, err := s.start(ctx, st)
	if err != nil {
		return err
	}
	progress := &pembav1.ImportRelationshipsResponse{Zookie: head.Zookie(st.ID).String(), Revision: uint64(head.Revision), RequestId: id}
	for {
		if err := stream.Send(proto.CloneOf(progress)); err != nil {
			return err
		}
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		batch := m.GetBatch()
		if batch == nil {
			return missing("batch")
		}
		req := datastore.Request{ID: fmt.Sprintf("%s/%d", id, batch.Offset), Actor: callerOf(ctx).name, Reason: start.Reason}
		for i, r := range batch.Relationships {
			rel, err := s.relationship(r, fmt.Sprintf("relationships[%d] behind offset %d", i, batch.Offset))
			if err != nil {
				return err
			}
			req.Updates = append(req.Updates, datastore.Update{Kind: kind, Relationship: rel})
		}
		o, err := s.ds.Write(ctx, st.ID, req)
		if err != nil {
			return fmt.Errorf("import, batch at offset %d: %w", batch.Offset, err)
		}
		progress.Zookie, progress.Revision = o.Zookie, uint64(o.Revision)
		progress.Offset = batch.Offset + uint64(len(batch.Relationships))
		progress.Created += uint64(o.Created)
		progress.Replaced += uint64(o.Touched)
	}
}
