package server

import (
	"context"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// authzedExperiments serves authzed.api.v1.ExperimentalService as far as its calls
// became stable ones under other names: clients written before still make them.
// Counters, which did not, are not served.
type authzedExperiments struct {
	authzedv1.UnimplementedExperimentalServiceServer
	permissions *authzedPermissions
	schemas     *authzedSchemas
}

// rewrite copies a message into one that was given other names and kept its
// numbers.
func rewrite[T proto.Message](from proto.Message, to T) (T, error) {
	b, err := proto.Marshal(from)
	if err == nil {
		err = proto.Unmarshal(b, to)
	}
	return to, err
}

// promoted makes a call that became stable.
func promoted[Old, New, NewOut, OldOut proto.Message](ctx context.Context, given Old, in New, out OldOut, call func(context.Context, New) (NewOut, error)) (OldOut, error) {
	var none OldOut
	in, err := rewrite(given, in)
	if err != nil {
		return none, err
	}
	answer, err := call(ctx, in)
	if err != nil {
		return none, err
	}
	return rewrite(answer, out)
}

func (e *authzedExperiments) BulkCheckPermission(ctx context.Context, r *authzedv1.BulkCheckPermissionRequest) (*authzedv1.BulkCheckPermissionResponse, error) {
	return promoted(ctx, r, &authzedv1.CheckBulkPermissionsRequest{}, &authzedv1.BulkCheckPermissionResponse{}, e.permissions.CheckBulkPermissions)
}

func (e *authzedExperiments) ExperimentalReflectSchema(ctx context.Context, r *authzedv1.ExperimentalReflectSchemaRequest) (*authzedv1.ExperimentalReflectSchemaResponse, error) {
	return promoted(ctx, r, &authzedv1.ReflectSchemaRequest{}, &authzedv1.ExperimentalReflectSchemaResponse{}, e.schemas.ReflectSchema)
}

func (e *authzedExperiments) ExperimentalComputablePermissions(ctx context.Context, r *authzedv1.ExperimentalComputablePermissionsRequest) (*authzedv1.ExperimentalComputablePermissionsResponse, error) {
	return promoted(ctx, r, &authzedv1.ComputablePermissionsRequest{}, &authzedv1.ExperimentalComputablePermissionsResponse{}, e.schemas.ComputablePermissions)
}

func (e *authzedExperiments) ExperimentalDependentRelations(ctx context.Context, r *authzedv1.ExperimentalDependentRelationsRequest) (*authzedv1.ExperimentalDependentRelationsResponse, error) {
	return promoted(ctx, r, &authzedv1.DependentRelationsRequest{}, &authzedv1.ExperimentalDependentRelationsResponse{}, e.schemas.DependentRelations)
}

func (e *authzedExperiments) ExperimentalDiffSchema(ctx context.Context, r *authzedv1.ExperimentalDiffSchemaRequest) (*authzedv1.ExperimentalDiffSchemaResponse, error) {
	return promoted(ctx, r, &authzedv1.DiffSchemaRequest{}, &authzedv1.ExperimentalDiffSchemaResponse{}, e.schemas.DiffSchema)
}

func (e *authzedExperiments) BulkImportRelationships(stream grpc.ClientStreamingServer[authzedv1.BulkImportRelationshipsRequest, authzedv1.BulkImportRelationshipsResponse]) error {
	loaded, err := e.permissions.importBulk(stream.Context(), func() ([]*authzedv1.Relationship, error) {
		m, err := stream.Recv()
		return m.GetRelationships(), err
	})
	if err != nil {
		return err
	}
	return stream.SendAndClose(&authzedv1.BulkImportRelationshipsResponse{NumLoaded: loaded})
}

func (e *authzedExperiments) BulkExportRelationships(r *authzedv1.BulkExportRelationshipsRequest, out grpc.ServerStreamingServer[authzedv1.BulkExportRelationshipsResponse]) error {
	in, err := rewrite(r, &authzedv1.ExportBulkRelationshipsRequest{})
	if err != nil {
		return err
	}
	return e.permissions.export(out.Context(), in, func(m *authzedv1.ExportBulkRelationshipsResponse) error {
		return out.Send(&authzedv1.BulkExportRelationshipsResponse{AfterResultCursor: m.AfterResultCursor, Relationships: m.Relationships})
	})
}
