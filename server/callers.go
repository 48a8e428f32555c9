package server

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

// caller is who makes a request.
type caller struct {
	name  string // the actor in the history
	role  pembav1.Role
	store datastore.StoreID // zero for all
	// token is the hash of the caller's token; nil where it cannot be revoked.
	token *[32]byte
}

type callerKey struct{}

func callerOf(ctx context.Context) caller {
	if c, ok := ctx.Value(callerKey{}).(*caller); ok {
		return *c
	}
	return caller{}
}

// Roles, by what they may do beyond the ones before.
const (
	checker     = pembav1.Role_ROLE_CHECKER
	reader      = pembav1.Role_ROLE_READER
	writer      = pembav1.Role_ROLE_WRITER
	schemaAdmin = pembav1.Role_ROLE_SCHEMA_ADMIN
	provisioner = pembav1.Role_ROLE_PROVISIONER
	auditor     = pembav1.Role_ROLE_AUDITOR
	admin       = pembav1.Role_ROLE_ADMIN
)

// Every role but checker includes reader, and reader includes checker.
var (
	readers = []pembav1.Role{reader, writer, schemaAdmin, provisioner, auditor}
	askers  = append([]pembav1.Role{checker}, readers...)
)

// methods says which roles may call which method; admin may call all. A method
// that is missing here is refused. Methods without roles are open to everybody.
var methods = map[string][]pembav1.Role{
	"/pemba.v1.PermissionService/Check":           askers,
	"/pemba.v1.PermissionService/BulkCheck":       askers,
	"/pemba.v1.PermissionService/ListPermissions": askers,
	"/pemba.v1.PermissionService/LookupResources": askers,
	"/pemba.v1.PermissionService/LookupSubjects":  askers,
	"/pemba.v1.PermissionService/Expand":          readers,
	"/pemba.v1.PermissionService/Explain":         readers,

	"/pemba.v1.RelationshipService/ReadRelationships":   readers,
	"/pemba.v1.RelationshipService/ExportRelationships": readers,
	"/pemba.v1.RelationshipService/WriteRelationships":  {writer},
	"/pemba.v1.RelationshipService/DeleteRelationships": {writer},
	"/pemba.v1.RelationshipService/ImportRelationships": {writer},

	"/pemba.v1.SchemaService/GetSchema":     readers,
	"/pemba.v1.SchemaService/ReflectSchema": readers,
	"/pemba.v1.SchemaService/DiffSchema":    readers,
	"/pemba.v1.SchemaService/ApplySchema":   {schemaAdmin},

	"/pemba.v1.WatchService/Watch":         readers,
	"/pemba.v1.HistoryService/ReadHistory": {auditor},
	"/pemba.v1.AuditService/GetPosition":   {auditor},
	"/pemba.v1.AuditService/ReportAccess":  {auditor},
	"/pemba.v1.StoreService/VerifyStore":   {auditor},
	"/pemba.v1.StoreService/ListStores":    readers,
	"/pemba.v1.StoreService/CreateStore":   {admin},
	"/pemba.v1.StoreService/DeleteStore":   {admin},
	"/pemba.v1.StoreService/BackupStore":   {admin},
	"/pemba.v1.StoreService/RestoreStore":  {admin},
	"/pemba.v1.TokenService/CreateToken":   {admin},
	"/pemba.v1.TokenService/RotateToken":   {admin},
	"/pemba.v1.TokenService/ListTokens":    {auditor},
	"/pemba.v1.TokenService/RevokeToken":   {admin},

	scimMethod:                                      {provisioner},
	"/pemba.v1.ProvisioningService/GetUser":         {provisioner, auditor},
	"/pemba.v1.ProvisioningService/ListUsers":       {provisioner, auditor},
	"/pemba.v1.ProvisioningService/GetGroup":        {provisioner, auditor},
	"/pemba.v1.ProvisioningService/ListGroups":      {provisioner, auditor},
	"/pemba.v1.ProvisioningService/ListMembers":     {provisioner, auditor},
	"/pemba.v1.ProvisioningService/CreateUser":      {provisioner},
	"/pemba.v1.ProvisioningService/UpdateUser":      {provisioner},
	"/pemba.v1.ProvisioningService/SuspendUser":     {provisioner},
	"/pemba.v1.ProvisioningService/ReactivateUser":  {provisioner},
	"/pemba.v1.ProvisioningService/DeleteUser":      {provisioner},
	"/pemba.v1.ProvisioningService/EraseUser":       {provisioner},
	"/pemba.v1.ProvisioningService/Offboard":        {provisioner},
	"/pemba.v1.ProvisioningService/CreateGroup":     {provisioner},
	"/pemba.v1.ProvisioningService/UpdateGroup":     {provisioner},
	"/pemba.v1.ProvisioningService/SuspendGroup":    {provisioner},
	"/pemba.v1.ProvisioningService/ReactivateGroup": {provisioner},
	"/pemba.v1.ProvisioningService/DeleteGroup":     {provisioner},
	"/pemba.v1.ProvisioningService/EraseGroup":      {provisioner},
	"/pemba.v1.ProvisioningService/AddMembers":      {provisioner},
	"/pemba.v1.ProvisioningService/RemoveMembers":   {provisioner},
	"/pemba.v1.ProvisioningService/ReplaceMembers":  {provisioner},
	"/pemba.v1.ProvisioningService/ApplyDirectory":  {provisioner},

	"/authzed.api.v1.PermissionsService/CheckPermission":         askers,
	"/authzed.api.v1.PermissionsService/CheckBulkPermissions":    askers,
	"/authzed.api.v1.PermissionsService/LookupResources":         askers,
	"/authzed.api.v1.PermissionsService/LookupSubjects":          askers,
	"/authzed.api.v1.PermissionsService/ExpandPermissionTree":    readers,
	"/authzed.api.v1.PermissionsService/ReadRelationships":       readers,
	"/authzed.api.v1.PermissionsService/ExportBulkRelationships": readers,
	"/authzed.api.v1.PermissionsService/WriteRelationships":      {writer},
	"/authzed.api.v1.PermissionsService/DeleteRelationships":     {writer},
	"/authzed.api.v1.PermissionsService/ImportBulkRelationships": {writer},

	"/authzed.api.v1.SchemaService/ReadSchema":            readers,
	"/authzed.api.v1.SchemaService/ReflectSchema":         readers,
	"/authzed.api.v1.SchemaService/ComputablePermissions": readers,
	"/authzed.api.v1.SchemaService/DependentRelations":    readers,
	"/authzed.api.v1.SchemaService/DiffSchema":            readers,
	"/authzed.api.v1.SchemaService/WriteSchema":           {schemaAdmin},
	"/authzed.api.v1.WatchService/Watch":                  readers,

	"/authzed.api.v1.ExperimentalService/BulkCheckPermission":                       askers,
	"/authzed.api.v1.ExperimentalService/BulkExportRelationships":                   readers,
	"/authzed.api.v1.ExperimentalService/BulkImportRelationships":                   {writer},
	"/authzed.api.v1.ExperimentalService/ExperimentalReflectSchema":                 readers,
	"/authzed.api.v1.ExperimentalService/ExperimentalComputablePermissions":         readers,
	"/authzed.api.v1.ExperimentalService/ExperimentalDependentRelations":            readers,
	"/authzed.api.v1.ExperimentalService/ExperimentalDiffSchema":                    readers,
	"/authzed.api.v1.ExperimentalService/ExperimentalRegisterRelationshipCounter":   readers,
	"/authzed.api.v1.ExperimentalService/ExperimentalCountRelationships":            readers,
	"/authzed.api.v1.ExperimentalService/ExperimentalUnregisterRelationshipCounter": readers,

	"/grpc.health.v1.Health/Check":                                   nil,
	"/grpc.health.v1.Health/List":                                    nil,
	"/grpc.health.v1.Health/Watch":                                   nil,
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      nil,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": nil,
}

// acrossStores are methods about the whole server: a token for one store cannot
// call them.
var acrossStores = map[string]bool{
	"/pemba.v1.StoreService/CreateStore":  true,
	"/pemba.v1.StoreService/DeleteStore":  true,
	"/pemba.v1.StoreService/RestoreStore": true,
	"/pemba.v1.TokenService/CreateToken":  true,
	"/pemba.v1.TokenService/RotateToken":  true,
	"/pemba.v1.TokenService/ListTokens":   true,
	"/pemba.v1.TokenService/RevokeToken":  true,
}

// known is the caller whom tap found, or finds him.
func (s *Server) known(ctx context.Context, method string) (*caller, error) {
	if c, ok := ctx.Value(callerKey{}).(*caller); ok {
		return c, nil
	}
	return s.admitCaller(ctx, method, metadata.ValueFromIncomingContext(ctx, "authorization"))
}

// authenticate finds out who calls, from the values of the authorization metadata,
// and whether they may call method.
func (s *Server) authenticate(ctx context.Context, method string, given []string) (*caller, error) {
	roles, known := methods[method]
	if known && roles == nil {
		return &caller{}, nil
	}
	c, err := s.caller(ctx, given)
	if err != nil {
		return nil, s.status(ctx, method, err)
	}
	allowed := known && c.role == admin
	for _, r := range roles {
		allowed = allowed || r == c.role
	}
	if !allowed {
		return nil, tooWeak(c, method)
	}
	if c.store != 0 && acrossStores[method] {
		return nil, problem(codes.PermissionDenied, pembav1.ErrorReason_ERROR_REASON_STORE_NOT_GRANTED,
			"token %q is for one store, and %s is about all; use a token for all stores", c.name, method)
	}
	return &c, nil
}

func tooWeak(c caller, method string) error {
	return withReason(codes.PermissionDenied, pembav1.ErrorReason_ERROR_REASON_ROLE_TOO_WEAK,
		fmt.Sprintf("token %q has role %s, which may not call %s", c.name, roleName(c.role), method), "role", roleName(c.role), "method", method)
}

// stillValid returns nil unless the caller's token was revoked since the call
// began.
func (s *Server) stillValid(ctx context.Context) error {
	c := callerOf(ctx)
	if c.token == nil {
		return nil
	}
	t, ok, err := s.ds.TokenByHash(ctx, *c.token)
	switch {
	case err == nil && !ok:
		err = problem(codes.Unauthenticated, pembav1.ErrorReason_ERROR_REASON_UNKNOWN_TOKEN, "the token was revoked")
	case err == nil && !t.Valid(*c.token, time.Now()):
		err = expired(&t)
	}
	return err
}

// expired is the error of a secret whose time is over.
func expired(t *datastore.Token) error {
	text := fmt.Sprintf("token %q got another secret, and the time of this one is over; use the new one", t.Name)
	if !t.Expires.IsZero() && !time.Now().Before(t.Expires) {
		text = fmt.Sprintf("token %q expired at %s; an admin gives it another secret and a later end with `pemba token rotate %s`", t.Name, t.Expires.Format(time.RFC3339), t.Name)
	}
	return withReason(codes.Unauthenticated, pembav1.ErrorReason_ERROR_REASON_EXPIRED_TOKEN, text, "token", t.Name)
}

func (s *Server) caller(ctx context.Context, given []string) (caller, error) {
	if len(given) == 0 {
		return s.anonymous(ctx)
	}
	scheme, secret, _ := strings.Cut(given[0], " ")
	if !strings.EqualFold(scheme, "bearer") || secret == "" || len(given) > 1 {
		return caller{}, problem(codes.Unauthenticated, pembav1.ErrorReason_ERROR_REASON_NO_TOKEN, "the authorization metadata must be one `Bearer TOKEN`")
	}
	hash := sha256.Sum256([]byte(secret))
	if s.config.Token != "" && subtle.ConstantTimeCompare(hash[:], s.token[:]) == 1 {
		return caller{name: "admin", role: admin}, nil
	}
	t, ok, err := s.ds.TokenByHash(ctx, hash)
	if err != nil {
		return caller{}, err
	}
	if ok && !t.Valid(hash, time.Now()) {
		return caller{}, expired(&t)
	}
	if ok {
		return caller{name: t.Name, role: roleOf(t.Role), store: t.StoreID, token: &hash}, nil
	}
	if s.config.Token == "" {
		if c, err := s.anonymous(ctx); err == nil {
			return c, nil // nobody needs a token here, so one too many does no harm
		}
	}
	return caller{}, problem(codes.Unauthenticated, pembav1.ErrorReason_ERROR_REASON_UNKNOWN_TOKEN, "the token is unknown or revoked")
}

// anonymous is the caller without a token: an admin where the server was started
// without one and none was ever made, for then it listens on loopback only. Where
// all were revoked, a start with a token of the server's own lets an admin in.
func (s *Server) anonymous(ctx context.Context) (caller, error) {
	if s.config.Token == "" {
		made, err := s.ds.HadTokens(ctx)
		if err != nil {
			return caller{}, err
		}
		if !made {
			return caller{name: "anonymous", role: admin}, nil
		}
	}
	return caller{}, problem(codes.Unauthenticated, pembav1.ErrorReason_ERROR_REASON_NO_TOKEN, "a token is needed; pass one as `authorization: Bearer TOKEN`")
}

// roleName is a role as people write it: `schema-admin`.
func roleName(r pembav1.Role) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(r.String(), "ROLE_")), "_", "-")
}

func roleOf(name string) pembav1.Role {
	return pembav1.Role(pembav1.Role_value["ROLE_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))])
}

// HasRoles reports whether a method stands in the table of who may call what; one
// that does not is refused.
func HasRoles(method string) bool {
	_, ok := methods[method]
	return ok
}
