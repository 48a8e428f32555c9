package server

import (
	"context"
	"errors"
	"fmt"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/pembadb/pemba/datastore"
)

func (p *authzedPermissions) ExportBulkRelationships(r *authzedv1.ExportBulkRelationshipsRequest, out grpc.ServerStreamingServer[authzedv1.ExportBulkRelationshipsResponse]) error {
	return p.export(out.Context(), r, out.Send)
}

// export streams pages; optional_limit is what a page holds.
func (p *authzedPermissions) export(ctx context.Context, r *authzedv1.ExportBulkRelationshipsRequest, send func(*authzedv1.ExportBulkRelationshipsResponse) error) error {
	l := authzedListing{
		kind: "authzed export", consistency: r.Consistency, filter: r.OptionalRelationshipFilter, all: true, cursor: r.OptionalCursor, page: page,
	}
	if r.OptionalLimit > 0 {
		l.page = int(min(page, r.OptionalLimit))
	}
	return p.authzedList(ctx, l, func(listed listedPage) error {
		m := &authzedv1.ExportBulkRelationshipsResponse{AfterResultCursor: listed.cursor(len(listed.rows) - 1)}
		for i := range listed.rows {
			m.Relationships = append(m.Relationships, relationshipOut(&listed.rows[i]))
		}
		return send(m)
	})
}

// authzedImport is a bulk import under way. What fits into one change is one, and
// is written when the stream ends; more is written change by change.
type authzedImport struct {
	*Server
	store   datastore.Store
	actor   string
	waiting []datastore.Update
	bytes   int
	loaded  uint64
}

func (p *authzedPermissions) ImportBulkRelationships(stream grpc.ClientStreamingServer[authzedv1.ImportBulkRelationshipsRequest, authzedv1.ImportBulkRelationshipsResponse]) error {
	loaded, err := p.importBulk(stream.Context(), func() ([]*authzedv1.Relationship, error) {
		m, err := stream.Recv()
		return m.GetRelationships(), err
	})
	if err != nil {
		return err
	}
	return stream.SendAndClose(&authzedv1.ImportBulkRelationshipsResponse{NumLoaded: loaded})
}

func (s *Server) importBulk(ctx context.Context, receive func() ([]*authzedv1.Relationship, error)) (uint64, error) {
	st, err := s.authzedStore(ctx)
	if err != nil {
		return 0, err
	}
	imp := &authzedImport{Server: s, store: st, actor: callerOf(ctx).name}
	for {
		batch, err := receive()
		if isEnd(err) {
			err := imp.write(ctx)
			return imp.loaded, err
		}
		if err != nil {
			return 0, err
		}
		for i, r := range batch {
			rel, err := s.authzedRelationship(r, fmt.Sprintf("relationships[%d]", i))
			if err != nil {
				return 0, err
			}
			if len(imp.waiting) == page || imp.bytes >= importBytes {
				if err := imp.write(ctx); err != nil {
					return 0, err
				}
			}
			imp.waiting, imp.bytes = append(imp.waiting, datastore.Update{Kind: datastore.Create, Relationship: rel}), imp.bytes+proto.Size(r)
		}
	}
}

// importBytes bounds a change of an import: well below what a change may take.
const importBytes = 1 << 20

// write makes a change of what waits.
func (imp *authzedImport) write(ctx context.Context) error {
	if len(imp.waiting) == 0 {
		return nil
	}
	_, err := imp.ds.Write(ctx, imp.store.ID, datastore.Request{Actor: imp.actor, Updates: imp.waiting})
	if errors.Is(err, datastore.ErrDuplicate) {
		err = datastore.With(fmt.Errorf("%w: %s", datastore.ErrAlreadyExists, err), "relationship", datastore.Facts(err)["relationship"])
	}
	if err != nil {
		return fmt.Errorf("behind the first %d relationships, which were imported: %w", imp.loaded, err)
	}
	imp.loaded += uint64(len(imp.waiting))
	imp.waiting, imp.bytes = nil, 0
	return nil
}
