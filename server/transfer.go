package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

// nthID is the request id of the nth change of one call, from 1.
func nthID(id string, n int) string {
	if n == 1 {
		return id
	}
	return fmt.Sprintf("%s/%d", id, n)
}

// DeleteRelationships deletes in changes of a page at most. A page that is not
// full is the last: so a repeated deletion ends where it ended before, whatever
// was written since.
func (s *relationships) DeleteRelationships(r *pembav1.DeleteRelationshipsRequest, out grpc.ServerStreamingServer[pembav1.DeleteRelationshipsResponse]) error {
	ctx := out.Context()
	if err := checkRequest(r.RequestId, r.Reason, maxRequestID); err != nil {
		return err
	}
	f, err := someFilter(r.Filter, "filter")
	if err != nil {
		return err
	}
	conditions, err := s.preconditions(r.Preconditions)
	if err != nil {
		return err
	}
	st, err := s.store(ctx, r.Store)
	if err != nil {
		return err
	}
	if err := s.filtersKnown(ctx, st.ID, &f, conditions); err != nil {
		return err
	}
	progress := &pembav1.DeleteRelationshipsResponse{RequestId: requestID(r.RequestId)}
	for n := 1; ; n++ {
		req := datastore.Request{ID: nthID(progress.RequestId, n), Actor: callerOf(ctx).name, Reason: r.Reason, DeleteWhere: &f, DeleteLimit: page}
		if n == 1 {
			req.Preconditions = conditions
		}
		if r.Limit > 0 {
			req.DeleteLimit = int(min(page, r.Limit-progress.Deleted))
		}
		o, err := s.ds.Write(ctx, st.ID, req)
		if err != nil {
			return err
		}
		progress.Zookie, progress.Revision = o.Zookie, uint64(o.Revision)
		progress.Deleted += uint64(o.Deleted)
		done := !o.More || r.Limit > 0 && progress.Deleted == r.Limit
		if progress.Complete = !o.More; done && o.More {
			if progress.Complete, err = s.nothingLeft(ctx, st.ID, f, o.Zookie); err != nil {
				return err
			}
		}
		if err := out.Send(proto.CloneOf(progress)); err != nil || done {
			return err
		}
	}
}

// nothingLeft reports whether nothing matches a filter at a zookie or later.
func (s *Server) nothingLeft(ctx context.Context, store datastore.StoreID, f tuple.Filter, zookie string) (bool, error) {
	snapshot, err := s.ds.At(ctx, store, datastore.Consistency{Level: datastore.AtLeastAsFresh, Zookie: zookie})
	if err != nil {
		return false, err
	}
	defer snapshot.Close()
	q := datastore.QueryFor(f)
	q.Limit = 1
	none := true
	err = snapshot.Rows(ctx, q, snapshot.Head().Time, func(datastore.Row) bool {
		none = false
		return false
	})
	return none, err
}

// importing is an import under way.
type importing struct {
	*relationships
	store    datastore.StoreID
	kind     datastore.Kind
	id       string
	reason   string
	progress *pembav1.ImportRelationshipsResponse
	begun    bool // a batch was taken
}

func (s *relationships) ImportRelationships(stream grpc.BidiStreamingServer[pembav1.ImportRelationshipsRequest, pembav1.ImportRelationshipsResponse]) error {
	first, err := stream.Recv()
	if errors.Is(err, io.EOF) || err == nil && first.GetStart() == nil {
		return missing("start")
	}
	if err != nil {
		return err
	}
	ctx := stream.Context()
	imp, err := s.startImport(ctx, first.GetStart())
	if err != nil {
		return err
	}
	for {
		if err := stream.Send(proto.CloneOf(imp.progress)); err != nil {
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
		if err := imp.batch(ctx, batch); err != nil {
			return offsetFact(s.status(ctx, "/pemba.v1.RelationshipService/ImportRelationships", err), batch.Offset)
		}
	}
}

func (s *relationships) startImport(ctx context.Context, start *pembav1.ImportStart) (*importing, error) {
	if err := checkRequest(start.RequestId, start.Reason, maxImportRequestID); err != nil {
		return nil, err
	}
	kind := datastore.Touch
	switch start.Mode {
	case pembav1.ImportMode_IMPORT_MODE_UNSPECIFIED, pembav1.ImportMode_IMPORT_MODE_TOUCH:
	case pembav1.ImportMode_IMPORT_MODE_CREATE:
		kind = datastore.Create
	default:
		return nil, invalidField("start.mode", "start.mode %d is unknown; use touch or create", start.Mode)
	}
	st, err := s.store(ctx, start.Store)
	if err != nil {
		return nil, err
	}
	head, err := s.ds.Head(ctx, st.ID)
	if err != nil {
		return nil, err
	}
	id := requestID(start.RequestId)
	return &importing{
		relationships: s, store: st.ID, kind: kind, id: id, reason: start.Reason,
		progress: &pembav1.ImportRelationshipsResponse{Zookie: head.Zookie(st.ID).String(), Revision: uint64(head.Revision), RequestId: id},
	}, nil
}

// batch writes one batch as one change.
func (imp *importing) batch(ctx context.Context, batch *pembav1.ImportBatch) error {
	n := uint64(len(batch.Relationships))
	switch {
	case n == 0:
		return missing("batch.relationships")
	case imp.begun && batch.Offset != imp.progress.Offset:
		return invalidField("batch.offset", "the batch begins at offset %d, and the one before it ended at %d", batch.Offset, imp.progress.Offset)
	case batch.Offset+n < n:
		return invalidField("batch.offset", "offset %d is too large", batch.Offset)
	}
	req := datastore.Request{ID: fmt.Sprintf("%s/%d", imp.id, batch.Offset), Actor: callerOf(ctx).name, Reason: imp.reason}
	for i, r := range batch.Relationships {
		rel, err := imp.relationship(r, fmt.Sprintf("batch.relationships[%d]", i))
		if err != nil {
			return err
		}
		req.Updates = append(req.Updates, datastore.Update{Kind: imp.kind, Relationship: rel})
	}
	o, err := imp.ds.Write(ctx, imp.store, req)
	if err != nil {
		return fmt.Errorf("batch at offset %d: %w", batch.Offset, err)
	}
	imp.begun = true
	p := imp.progress
	p.Zookie, p.Revision, p.Offset = o.Zookie, uint64(o.Revision), batch.Offset+n
	p.Created += uint64(o.Created)
	p.Replaced += uint64(o.Touched)
	return nil
}

// offsetFact adds to an error's facts the offset of the batch that failed.
func offsetFact(err error, offset uint64) error {
	return withFact(err, "offset", strconv.FormatUint(offset, 10))
}
