package server

// methods says what a caller must be allowed to call which method: the permissions
// of the store system's schema say which roles that takes. A method that is missing
// here is refused.
var methods = map[string]powers{
	"/pemba.v1.PermissionService/Check":           mayCheck,
	"/pemba.v1.PermissionService/BulkCheck":       mayCheck,
	"/pemba.v1.PermissionService/ListPermissions": mayCheck,
	"/pemba.v1.PermissionService/LookupResources": mayCheck,
	"/pemba.v1.PermissionService/LookupSubjects":  mayCheck,
	"/pemba.v1.PermissionService/Expand":          mayRead,
	"/pemba.v1.PermissionService/Explain":         mayRead,

	"/pemba.v1.RelationshipService/ReadRelationships":   mayRead,
	"/pemba.v1.RelationshipService/ExportRelationships": mayRead,
	"/pemba.v1.RelationshipService/WriteRelationships":  mayWrite,
	"/pemba.v1.RelationshipService/DeleteRelationships": mayWrite,
	"/pemba.v1.RelationshipService/ImportRelationships": mayWrite,

	"/pemba.v1.SchemaService/GetSchema":     mayRead,
	"/pemba.v1.SchemaService/ReflectSchema": mayRead,
	"/pemba.v1.SchemaService/DiffSchema":    mayRead,
	"/pemba.v1.SchemaService/ApplySchema":   mayApplySchema,

	"/pemba.v1.WatchService/Watch":         mayRead,
	"/pemba.v1.HistoryService/ReadHistory": mayAudit,
	"/pemba.v1.AuditService/GetPosition":   mayAudit,
	"/pemba.v1.AuditService/ReportAccess":  mayAudit,
	"/pemba.v1.StoreService/VerifyStore":   mayAudit,
	"/pemba.v1.StoreService/ListStores":    mayRead,
	"/pemba.v1.StoreService/CreateStore":   mayAdminister,
	"/pemba.v1.StoreService/DeleteStore":   mayAdminister,
	"/pemba.v1.StoreService/BackupStore":   mayAdminister,
	"/pemba.v1.StoreService/RestoreStore":  mayAdminister,
	"/pemba.v1.TokenService/CreateToken":   mayAdminister,
	"/pemba.v1.TokenService/RotateToken":   mayAdminister,
	"/pemba.v1.TokenService/ListTokens":    mayAudit,
	"/pemba.v1.TokenService/RevokeToken":   mayAdminister,
	"/pemba.v1.GrantService/AddGrant":      mayAdminister,
	"/pemba.v1.GrantService/RemoveGrant":   mayAdminister,
	"/pemba.v1.GrantService/ListGrants":    mayAudit,
	"/pemba.v1.GrantService/GetCaller":     known,

	scimMethod:                                      mayProvision,
	"/pemba.v1.ProvisioningService/GetUser":         mayReview,
	"/pemba.v1.ProvisioningService/ListUsers":       mayReview,
	"/pemba.v1.ProvisioningService/GetGroup":        mayReview,
	"/pemba.v1.ProvisioningService/ListGroups":      mayReview,
	"/pemba.v1.ProvisioningService/ListMembers":     mayReview,
	"/pemba.v1.ProvisioningService/CreateUser":      mayProvision,
	"/pemba.v1.ProvisioningService/UpdateUser":      mayProvision,
	"/pemba.v1.ProvisioningService/SuspendUser":     mayProvision,
	"/pemba.v1.ProvisioningService/ReactivateUser":  mayProvision,
	"/pemba.v1.ProvisioningService/DeleteUser":      mayProvision,
	"/pemba.v1.ProvisioningService/EraseUser":       mayProvision,
	"/pemba.v1.ProvisioningService/Offboard":        mayProvision,
	"/pemba.v1.ProvisioningService/CreateGroup":     mayProvision,
	"/pemba.v1.ProvisioningService/UpdateGroup":     mayProvision,
	"/pemba.v1.ProvisioningService/SuspendGroup":    mayProvision,
	"/pemba.v1.ProvisioningService/ReactivateGroup": mayProvision,
	"/pemba.v1.ProvisioningService/DeleteGroup":     mayProvision,
	"/pemba.v1.ProvisioningService/EraseGroup":      mayProvision,
	"/pemba.v1.ProvisioningService/AddMembers":      mayProvision,
	"/pemba.v1.ProvisioningService/RemoveMembers":   mayProvision,
	"/pemba.v1.ProvisioningService/ReplaceMembers":  mayProvision,
	"/pemba.v1.ProvisioningService/ApplyDirectory":  mayProvision,

	"/authzed.api.v1.PermissionsService/CheckPermission":         mayCheck,
	"/authzed.api.v1.PermissionsService/CheckBulkPermissions":    mayCheck,
	"/authzed.api.v1.PermissionsService/LookupResources":         mayCheck,
	"/authzed.api.v1.PermissionsService/LookupSubjects":          mayCheck,
	"/authzed.api.v1.PermissionsService/ExpandPermissionTree":    mayRead,
	"/authzed.api.v1.PermissionsService/ReadRelationships":       mayRead,
	"/authzed.api.v1.PermissionsService/ExportBulkRelationships": mayRead,
	"/authzed.api.v1.PermissionsService/WriteRelationships":      mayWrite,
	"/authzed.api.v1.PermissionsService/DeleteRelationships":     mayWrite,
	"/authzed.api.v1.PermissionsService/ImportBulkRelationships": mayWrite,

	"/authzed.api.v1.SchemaService/ReadSchema":            mayRead,
	"/authzed.api.v1.SchemaService/ReflectSchema":         mayRead,
	"/authzed.api.v1.SchemaService/ComputablePermissions": mayRead,
	"/authzed.api.v1.SchemaService/DependentRelations":    mayRead,
	"/authzed.api.v1.SchemaService/DiffSchema":            mayRead,
	"/authzed.api.v1.SchemaService/WriteSchema":           mayApplySchema,
	"/authzed.api.v1.WatchService/Watch":                  mayRead,

	"/authzed.api.v1.ExperimentalService/BulkCheckPermission":                       mayCheck,
	"/authzed.api.v1.ExperimentalService/BulkExportRelationships":                   mayRead,
	"/authzed.api.v1.ExperimentalService/BulkImportRelationships":                   mayWrite,
	"/authzed.api.v1.ExperimentalService/ExperimentalReflectSchema":                 mayRead,
	"/authzed.api.v1.ExperimentalService/ExperimentalComputablePermissions":         mayRead,
	"/authzed.api.v1.ExperimentalService/ExperimentalDependentRelations":            mayRead,
	"/authzed.api.v1.ExperimentalService/ExperimentalDiffSchema":                    mayRead,
	"/authzed.api.v1.ExperimentalService/ExperimentalRegisterRelationshipCounter":   mayRead,
	"/authzed.api.v1.ExperimentalService/ExperimentalCountRelationships":            mayRead,
	"/authzed.api.v1.ExperimentalService/ExperimentalUnregisterRelationshipCounter": mayRead,

	"/grpc.health.v1.Health/Check":                                   open,
	"/grpc.health.v1.Health/List":                                    open,
	"/grpc.health.v1.Health/Watch":                                   open,
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      open,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": open,
}

// acrossStores are methods about the whole server: who may do something in one
// store cannot call them.
var acrossStores = map[string]bool{
	"/pemba.v1.StoreService/CreateStore":  true,
	"/pemba.v1.StoreService/DeleteStore":  true,
	"/pemba.v1.StoreService/RestoreStore": true,
	"/pemba.v1.TokenService/CreateToken":  true,
	"/pemba.v1.TokenService/RotateToken":  true,
	"/pemba.v1.TokenService/ListTokens":   true,
	"/pemba.v1.TokenService/RevokeToken":  true,
	"/pemba.v1.GrantService/AddGrant":     true,
	"/pemba.v1.GrantService/RemoveGrant":  true,
	"/pemba.v1.GrantService/ListGrants":   true,
}

// HasRoles reports whether a method stands in the table of who may call what; one
// that does not is refused.
func HasRoles(method string) bool {
	_, ok := methods[method]
	return ok
}
