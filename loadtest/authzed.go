package loadtest

import (
	"context"
	"fmt"
	"iter"

	api "github.com/authzed/authzed-go/proto/authzed/api/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/pembadb/pemba/tuple"
)

// authzed speaks authzed.api.v1, so that servers other than Pemba can be measured
// with the same worlds.
type authzed struct {
	store       string // empty: the server's only one
	schemas     api.SchemaServiceClient
	permissions api.PermissionsServiceClient
	watches     api.WatchServiceClient
}

func newAuthzed(conn *grpc.ClientConn, store string) API {
	if store == "default" {
		store = ""
	}
	return &authzed{store: store, schemas: api.NewSchemaServiceClient(conn), permissions: api.NewPermissionsServiceClient(conn), watches: api.NewWatchServiceClient(conn)}
}

// in names the store, which only Pemba knows.
func (a *authzed) in(ctx context.Context) context.Context {
	if a.store == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "pemba-store", a.store)
}

func authzedObject(o tuple.Object) *api.ObjectReference {
	return &api.ObjectReference{ObjectType: o.Type, ObjectId: o.ID}
}

func authzedSubject(s tuple.Subject) *api.SubjectReference {
	return &api.SubjectReference{Object: authzedObject(s.Object), OptionalRelation: s.Relation}
}

func authzedRelationship(r tuple.Relationship) *api.Relationship {
	return &api.Relationship{Resource: authzedObject(r.Object), Relation: r.Relation, Subject: authzedSubject(r.Subject)}
}

func authzedConsistency(c Consistency) *api.Consistency {
	switch {
	case c.Level == FullyConsistent:
		return &api.Consistency{Requirement: &api.Consistency_FullyConsistent{FullyConsistent: true}}
	case c.Level == AtLeastAsFresh && c.Zookie != "":
		return &api.Consistency{Requirement: &api.Consistency_AtLeastAsFresh{AtLeastAsFresh: &api.ZedToken{Token: c.Zookie}}}
	}
	return &api.Consistency{Requirement: &api.Consistency_MinimizeLatency{MinimizeLatency: true}}
}

func (a *authzed) Prepare(ctx context.Context, schema string) error {
	if _, err := a.schemas.WriteSchema(a.in(ctx), &api.WriteSchemaRequest{Schema: schema}); err != nil {
		return fmt.Errorf("write the world's schema: %w", err)
	}
	return nil
}

func (a *authzed) Holds(ctx context.Context, r tuple.Relationship) (bool, error) {
	s, err := a.permissions.ReadRelationships(a.in(ctx), &api.ReadRelationshipsRequest{
		Consistency: authzedConsistency(Consistency{Level: FullyConsistent}), OptionalLimit: 1,
		RelationshipFilter: &api.RelationshipFilter{
			ResourceType: r.Object.Type, OptionalResourceId: r.Object.ID, OptionalRelation: r.Relation,
			OptionalSubjectFilter: &api.SubjectFilter{SubjectType: r.Subject.Type, OptionalSubjectId: r.Subject.ID,
				OptionalRelation: &api.SubjectFilter_RelationFilter{Relation: r.Subject.Relation}},
		},
	})
	found := false
	err = each(s, err, func(*api.ReadRelationshipsResponse) { found = true })
	return found, err
}

// importStream is how many relationships one stream of an import holds, which
// other servers may keep in one transaction.
const importStream = 50_000

func (a *authzed) Import(ctx context.Context, all iter.Seq[tuple.Relationship], progress func(int)) error {
	written := 0
	var held [][]*api.Relationship
	flush := func() error {
		err := a.importBulk(ctx, held)
		if status.Code(err) == codes.AlreadyExists {
			err = a.touch(ctx, held)
		}
		for _, b := range held {
			written += len(b)
		}
		held = nil
		progress(written)
		return err
	}
	err := batches(all, authzedRelationship, func(some []*api.Relationship) error {
		if held = append(held, some); len(held)*importBatch < importStream {
			return nil
		}
		return flush()
	})
	if err == nil && len(held) > 0 {
		err = flush()
	}
	return err
}

func (a *authzed) importBulk(ctx context.Context, all [][]*api.Relationship) error {
	ctx, cancel := context.WithCancel(a.in(ctx))
	defer cancel()
	s, err := a.permissions.ImportBulkRelationships(ctx)
	if err != nil {
		return err
	}
	for _, some := range all {
		if s.Send(&api.ImportBulkRelationshipsRequest{Relationships: some}) != nil {
			break // the answer tells why
		}
	}
	_, err = s.CloseAndRecv()
	return err
}

func (a *authzed) touch(ctx context.Context, all [][]*api.Relationship) error {
	for _, some := range all {
		m := &api.WriteRelationshipsRequest{}
		for _, r := range some {
			m.Updates = append(m.Updates, &api.RelationshipUpdate{Operation: api.RelationshipUpdate_OPERATION_TOUCH, Relationship: r})
		}
		if _, err := a.permissions.WriteRelationships(a.in(ctx), m); err != nil {
			return err
		}
	}
	return nil
}

func (a *authzed) Check(ctx context.Context, c Consistency, q Question) (bool, string, error) {
	m, err := a.permissions.CheckPermission(a.in(ctx), &api.CheckPermissionRequest{
		Consistency: authzedConsistency(c), Resource: authzedObject(q.Resource), Permission: q.Permission, Subject: authzedSubject(q.Subject),
	})
	return m.GetPermissionship() == api.CheckPermissionResponse_PERMISSIONSHIP_HAS_PERMISSION, m.GetCheckedAt().GetToken(), err
}

func (a *authzed) Bulk(ctx context.Context, c Consistency, qs []Question) ([]bool, error) {
	m := &api.CheckBulkPermissionsRequest{Consistency: authzedConsistency(c), Items: make([]*api.CheckBulkPermissionsRequestItem, len(qs))}
	for i, q := range qs {
		m.Items[i] = &api.CheckBulkPermissionsRequestItem{Resource: authzedObject(q.Resource), Permission: q.Permission, Subject: authzedSubject(q.Subject)}
	}
	answer, err := a.permissions.CheckBulkPermissions(a.in(ctx), m)
	if err != nil {
		return nil, err
	}
	out := make([]bool, len(answer.Pairs))
	for i, p := range answer.Pairs {
		if e := p.GetError(); e != nil {
			return nil, status.ErrorProto(e)
		}
		out[i] = p.GetItem().GetPermissionship() == api.CheckPermissionResponse_PERMISSIONSHIP_HAS_PERMISSION
	}
	return out, nil
}

func (a *authzed) Lookup(ctx context.Context, c Consistency, l Lookup, first func()) ([]string, error) {
	s, err := a.permissions.LookupResources(a.in(ctx), &api.LookupResourcesRequest{
		Consistency: authzedConsistency(c), ResourceObjectType: l.ResourceType, Permission: l.Permission, Subject: authzedSubject(l.Subject),
	})
	var ids []string
	err = each(s, err, func(m *api.LookupResourcesResponse) {
		if ids == nil {
			first()
		}
		ids = append(ids, m.ResourceObjectId)
	})
	return ids, err
}

func (a *authzed) write(ctx context.Context, op api.RelationshipUpdate_Operation, p Place, s tuple.Subject) (string, error) {
	m, err := a.permissions.WriteRelationships(a.in(ctx), &api.WriteRelationshipsRequest{
		Updates: []*api.RelationshipUpdate{{Operation: op, Relationship: authzedRelationship(p.relationship(s))}},
	})
	return m.GetWrittenAt().GetToken(), err
}

func (a *authzed) Share(ctx context.Context, p Place, s tuple.Subject) (string, error) {
	return a.write(ctx, api.RelationshipUpdate_OPERATION_TOUCH, p, s)
}

func (a *authzed) Unshare(ctx context.Context, p Place, s tuple.Subject) (string, error) {
	return a.write(ctx, api.RelationshipUpdate_OPERATION_DELETE, p, s)
}

func (a *authzed) Watch(ctx context.Context, started func()) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		ctx, cancel := context.WithCancel(a.in(ctx))
		defer cancel()
		// From a token on that stands for now: nothing after it can be missed.
		now, err := a.schemas.ReadSchema(ctx, &api.ReadSchemaRequest{})
		var s grpc.ServerStreamingClient[api.WatchResponse]
		if err == nil {
			s, err = a.watches.Watch(ctx, &api.WatchRequest{OptionalStartCursor: now.ReadAt})
		}
		if err == nil {
			started()
		}
		for err == nil {
			var m *api.WatchResponse
			if m, err = s.Recv(); err == nil && len(m.Updates) > 0 && !yield(m.ChangesThrough.GetToken(), nil) {
				return
			}
		}
		if ctx.Err() == nil {
			yield("", err)
		}
	}
}
