package server_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	authzed "github.com/authzed/authzed-go/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/server"
)

// loop is a schema in which a permission excludes itself by way of relationships.
const loop = `definition user {}
definition thing {
	relation other: thing
	relation owner: user
	permission view = owner - other->view
	permission all_view = owner + other->all_view
}
caveat fails(m map<int>) { m["key"] > 0 }
definition place {
	relation visitor: user with fails
}`

// never are the documented reasons that no call of Pemba ends in; the guide says
// why of each.
var never = map[authzedv1.ErrorReason]bool{
	authzedv1.ErrorReason_ERROR_REASON_UNSPECIFIED:                          true,
	authzedv1.ErrorReason_ERROR_REASON_SERVICE_READ_ONLY:                    true,
	authzedv1.ErrorReason_ERROR_REASON_SERIALIZATION_FAILURE:                true,
	authzedv1.ErrorReason_ERROR_REASON_INMEMORY_TOO_MANY_CONCURRENT_UPDATES: true,
	authzedv1.ErrorReason_ERROR_REASON_COUNTER_ALREADY_REGISTERED:           true,
	authzedv1.ErrorReason_ERROR_REASON_COUNTER_NOT_REGISTERED:               true,
	authzedv1.ErrorReason_ERROR_REASON_DATASTORE_NOT_MIGRATED:               true,
}

// documented is an error that the API documents, and how a client comes to it.
type documented struct {
	why   authzedv1.ErrorReason
	code  codes.Code
	facts []string
	err   func() error
}

func TestEveryDocumentedErrorHasItsCodeReasonAndMetadata(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{MaxOperations: 5}, server.Config{Limits: server.Limits{
		BulkItems: 3, Preconditions: 2, ContextBytes: 100, LookupPage: 10, ExpandResults: 1000,
	}})
	c := stock(t, n)
	other := launch(t, memory.New(), keeper.Options{}, server.Config{})
	looped := stock(t, other)
	ctx := t.Context()
	if _, err := c.WriteSchema(ctx, &authzedv1.WriteSchemaRequest{Schema: authzedSchema}); err != nil {
		t.Fatal(err)
	}
	if _, err := looped.WriteSchema(ctx, &authzedv1.WriteSchemaRequest{Schema: loop}); err != nil {
		t.Fatal(err)
	}
	touch(t, looped, "thing:a#other@thing:b", "thing:b#other@thing:a", "thing:a#owner@user:ada", "thing:b#owner@user:ada", `place:p#visitor@user:ada[fails:{"m":{}}]`)
	touch(t, c, "document:d#viewer@user:ada")

	wrote := func(kind authzedv1.RelationshipUpdate_Operation, texts ...string) func() error {
		return func() error {
			_, err := c.WriteRelationships(ctx, update(t, kind, texts...))
			return err
		}
	}
	schema := func(text string) func() error {
		return func() error {
			_, err := c.WriteSchema(ctx, &authzedv1.WriteSchemaRequest{Schema: text})
			return err
		}
	}
	check := func(c *authzed.ClientWithExperimental, resource, permission, subject string) func() error {
		return func() error {
			_, err := c.CheckPermission(ctx, acheck(resource, permission, subject))
			return err
		}
	}
	condition := func(operation authzedv1.Precondition_Operation, filters ...*authzedv1.RelationshipFilter) func() error {
		return func() error {
			r := update(t, atouch, "document:d#viewer@user:bob")
			for _, f := range filters {
				r.OptionalPreconditions = append(r.OptionalPreconditions, &authzedv1.Precondition{Operation: operation, Filter: f})
			}
			_, err := c.WriteRelationships(ctx, r)
			return err
		}
	}
	documents := &authzedv1.RelationshipFilter{ResourceType: "document"}
	const (
		mustMatch = authzedv1.Precondition_OPERATION_MUST_MATCH
		mustNot   = authzedv1.Precondition_OPERATION_MUST_NOT_MATCH
	)
	six := []string{}
	for i := range 6 {
		six = append(six, fmt.Sprintf("document:d%d#viewer@user:ada", i))
	}
	member := &authzedv1.SubjectFilter{SubjectType: "group", OptionalSubjectId: "eng", OptionalRelation: &authzedv1.SubjectFilter_RelationFilter{Relation: "member"}}
	seen := map[authzedv1.ErrorReason]bool{}
	for what, d := range map[string]documented{
		"a schema that cannot be parsed": {authzedv1.ErrorReason_ERROR_REASON_SCHEMA_PARSE_ERROR, codes.InvalidArgument,
			[]string{"start_line_number", "0", "start_column_position", "11", "source_code", "{"}, schema("definition {}")},
		"a schema with a type error": {authzedv1.ErrorReason_ERROR_REASON_SCHEMA_TYPE_ERROR, codes.InvalidArgument,
			[]string{"definition_name", "some"}, schema("definition some { relation other: none }")},
		"a schema that orphans relationships": {authzedv1.ErrorReason_ERROR_REASON_SCHEMA_TYPE_ERROR, codes.InvalidArgument,
			[]string{"definition_name", "document", "relation_name", "viewer"}, schema("definition document {}")},
		"checking an unknown definition": {authzedv1.ErrorReason_ERROR_REASON_UNKNOWN_DEFINITION, codes.FailedPrecondition,
			[]string{"definition_name", "paper"}, check(c, "paper:d", "view", "user:ada")},
		"checking an unknown subject": {authzedv1.ErrorReason_ERROR_REASON_UNKNOWN_DEFINITION, codes.FailedPrecondition,
			[]string{"definition_name", "person"}, check(c, "document:d", "view", "person:ada")},
		"writing an unknown definition": {authzedv1.ErrorReason_ERROR_REASON_UNKNOWN_DEFINITION, codes.FailedPrecondition,
			[]string{"definition_name", "paper"}, wrote(atouch, "paper:d#viewer@user:ada")},
		"deleting an unknown definition": {authzedv1.ErrorReason_ERROR_REASON_UNKNOWN_DEFINITION, codes.FailedPrecondition,
			[]string{"definition_name", "paper"}, func() error {
				_, err := c.DeleteRelationships(ctx, &authzedv1.DeleteRelationshipsRequest{RelationshipFilter: &authzedv1.RelationshipFilter{ResourceType: "paper"}})
				return err
			}},
		"reading an unknown relation": {authzedv1.ErrorReason_ERROR_REASON_UNKNOWN_RELATION_OR_PERMISSION, codes.FailedPrecondition,
			[]string{"definition_name", "document", "relation_or_permission_name", "veiwer"}, func() error {
				_, err := all(c.ReadRelationships(ctx, &authzedv1.ReadRelationshipsRequest{RelationshipFilter: &authzedv1.RelationshipFilter{ResourceType: "document", OptionalRelation: "veiwer"}}))
				return err
			}},
		"checking an unknown permission": {authzedv1.ErrorReason_ERROR_REASON_UNKNOWN_RELATION_OR_PERMISSION, codes.FailedPrecondition,
			[]string{"definition_name", "document", "relation_or_permission_name", "veiw"}, check(c, "document:d", "veiw", "user:ada")},
		"writing an unknown relation": {authzedv1.ErrorReason_ERROR_REASON_UNKNOWN_RELATION_OR_PERMISSION, codes.FailedPrecondition,
			[]string{"definition_name", "document", "relation_or_permission_name", "veiwer"}, wrote(atouch, "document:d#veiwer@user:ada")},
		"looking up resources of an unknown permission": {authzedv1.ErrorReason_ERROR_REASON_UNKNOWN_RELATION_OR_PERMISSION, codes.FailedPrecondition,
			[]string{"definition_name", "document", "relation_or_permission_name", "veiw"}, func() error {
				_, err := all(c.LookupResources(ctx, &authzedv1.LookupResourcesRequest{ResourceObjectType: "document", Permission: "veiw", Subject: asubject("user:ada")}))
				return err
			}},
		"looking up subjects of an unknown definition": {authzedv1.ErrorReason_ERROR_REASON_UNKNOWN_DEFINITION, codes.FailedPrecondition,
			[]string{"definition_name", "person"}, func() error {
				_, err := all(c.LookupSubjects(ctx, &authzedv1.LookupSubjectsRequest{Resource: aobject("document:d"), Permission: "view", SubjectObjectType: "person"}))
				return err
			}},
		"too many updates": {authzedv1.ErrorReason_ERROR_REASON_TOO_MANY_UPDATES_IN_REQUEST, codes.InvalidArgument,
			[]string{"update_count", "6", "maximum_updates_allowed", "5"}, wrote(atouch, six...)},
		"too many preconditions": {authzedv1.ErrorReason_ERROR_REASON_TOO_MANY_PRECONDITIONS_IN_REQUEST, codes.InvalidArgument,
			[]string{"precondition_count", "3", "maximum_preconditions_allowed", "2"}, condition(mustMatch, documents, documents, documents)},
		"a precondition that must match": {authzedv1.ErrorReason_ERROR_REASON_WRITE_OR_DELETE_PRECONDITION_FAILURE, codes.FailedPrecondition,
			[]string{"precondition_resource_type", "document", "precondition_resource_id_prefix", "x", "precondition_relation", "viewer", "precondition_subject_type", "group",
				"precondition_subject_id", "eng", "precondition_subject_relation", "member", "precondition_operation", "MUST_EXIST"},
			condition(mustMatch, documents, &authzedv1.RelationshipFilter{ResourceType: "document", OptionalResourceIdPrefix: "x", OptionalRelation: "viewer", OptionalSubjectFilter: member})},
		"a precondition that must not match": {authzedv1.ErrorReason_ERROR_REASON_WRITE_OR_DELETE_PRECONDITION_FAILURE, codes.FailedPrecondition,
			[]string{"precondition_resource_type", "document", "precondition_resource_id", "d", "precondition_operation", "MUST_NOT_EXIST"},
			condition(mustNot, &authzedv1.RelationshipFilter{ResourceType: "document", OptionalResourceId: "d"})},
		"a precondition of a delete": {authzedv1.ErrorReason_ERROR_REASON_WRITE_OR_DELETE_PRECONDITION_FAILURE, codes.FailedPrecondition,
			[]string{"precondition_operation", "MUST_NOT_EXIST"}, func() error {
				_, err := c.DeleteRelationships(ctx, &authzedv1.DeleteRelationshipsRequest{RelationshipFilter: documents, OptionalPreconditions: []*authzedv1.Precondition{{Operation: mustNot, Filter: documents}}})
				return err
			}},
		"an empty precondition": {authzedv1.ErrorReason_ERROR_REASON_EMPTY_PRECONDITION, codes.InvalidArgument, nil,
			condition(mustMatch, &authzedv1.RelationshipFilter{})},
		"an unknown caveat": {authzedv1.ErrorReason_ERROR_REASON_UNKNOWN_CAVEAT, codes.FailedPrecondition,
			[]string{"caveat_name", "at_home"}, wrote(atouch, "document:d#viewer@user:ada[at_home]")},
		"a subject that is not allowed": {authzedv1.ErrorReason_ERROR_REASON_INVALID_SUBJECT_TYPE, codes.InvalidArgument,
			[]string{"definition_name", "document", "relation_name", "banned", "subject_type", "group#member"}, wrote(atouch, "document:d#banned@group:eng#member")},
		"a wildcard that is not allowed": {authzedv1.ErrorReason_ERROR_REASON_INVALID_SUBJECT_TYPE, codes.InvalidArgument,
			[]string{"definition_name", "document", "relation_name", "banned", "subject_type", "user:*"}, wrote(atouch, "document:d#banned@user:*")},
		"a caveat's parameter of another type": {authzedv1.ErrorReason_ERROR_REASON_CAVEAT_PARAMETER_TYPE_ERROR, codes.InvalidArgument,
			[]string{"definition_name", "document", "relation_name", "viewer", "caveat_name", "in_office", "parameter_name", "since", "expected_type", "int"},
			wrote(atouch, `document:d#viewer@user:ada[in_office:{"since":"nine"}]`)},
		"two updates of one relationship": {authzedv1.ErrorReason_ERROR_REASON_UPDATES_ON_SAME_RELATIONSHIP, codes.InvalidArgument,
			[]string{"definition_name", "document", "relationship", "document:d#viewer@user:ada"}, wrote(atouch, "document:d#viewer@user:ada", "document:d#viewer@user:ada")},
		"writing a permission": {authzedv1.ErrorReason_ERROR_REASON_CANNOT_UPDATE_PERMISSION, codes.InvalidArgument,
			[]string{"definition_name", "document", "permission_name", "view"}, wrote(atouch, "document:d#view@user:ada")},
		"deleting a permission": {authzedv1.ErrorReason_ERROR_REASON_CANNOT_UPDATE_PERMISSION, codes.InvalidArgument,
			[]string{"definition_name", "document", "permission_name", "view"}, wrote(adelete, "document:d#view@user:ada")},
		"a caveat that fails": {authzedv1.ErrorReason_ERROR_REASON_CAVEAT_EVALUATION_ERROR, codes.InvalidArgument,
			[]string{"caveat_name", "fails"}, check(looped, "place:p", "visitor", "user:ada")},
		"a damaged cursor": {authzedv1.ErrorReason_ERROR_REASON_INVALID_CURSOR, codes.FailedPrecondition, nil, func() error {
			_, err := all(c.ReadRelationships(ctx, &authzedv1.ReadRelationshipsRequest{RelationshipFilter: documents, OptionalCursor: &authzedv1.Cursor{Token: "x"}}))
			return err
		}},
		"too many for one delete": {authzedv1.ErrorReason_ERROR_REASON_TOO_MANY_RELATIONSHIPS_FOR_TRANSACTIONAL_DELETE, codes.InvalidArgument,
			[]string{"filter_resource_type", "document"}, func() error {
				touch(t, c, "document:d#viewer@user:bob")
				_, err := c.DeleteRelationships(ctx, &authzedv1.DeleteRelationshipsRequest{RelationshipFilter: documents, OptionalLimit: 1})
				return err
			}},
		"a large context": {authzedv1.ErrorReason_ERROR_REASON_MAX_RELATIONSHIP_CONTEXT_SIZE, codes.InvalidArgument,
			[]string{"max_allowed_size", "100", "context_size", "124", "relationship", "document:d#viewer@user:ada"},
			wrote(atouch, `document:d#viewer@user:ada[in_office:{"since":"`+strings.Repeat("9", 112)+`"}]`)},
		"creating what exists": {authzedv1.ErrorReason_ERROR_REASON_ATTEMPT_TO_RECREATE_RELATIONSHIP, codes.AlreadyExists,
			[]string{"relationship", "document:d#viewer@user:ada", "resource_type", "document", "resource_object_id", "d", "resource_relation", "viewer", "subject_type", "user", "subject_object_id", "ada"},
			wrote(acreate, "document:d#viewer@user:ada")},
		"a permission that excludes itself": {authzedv1.ErrorReason_ERROR_REASON_MAXIMUM_DEPTH_EXCEEDED, codes.FailedPrecondition, nil, check(looped, "thing:a", "view", "user:ada")},
		"a tree without end": {authzedv1.ErrorReason_ERROR_REASON_MAXIMUM_DEPTH_EXCEEDED, codes.ResourceExhausted, []string{"maximum_depth_allowed", "10000"}, func() error {
			_, err := looped.ExpandPermissionTree(ctx, &authzedv1.ExpandPermissionTreeRequest{Resource: aobject("thing:a"), Permission: "all_view"})
			return err
		}},
		"too many checks": {authzedv1.ErrorReason_ERROR_REASON_TOO_MANY_CHECKS_IN_REQUEST, codes.InvalidArgument,
			[]string{"check_count", "4", "maximum_checks_allowed", "3"}, func() error {
				item := &authzedv1.CheckBulkPermissionsRequestItem{Resource: aobject("document:d"), Permission: "view", Subject: asubject("user:ada")}
				_, err := c.CheckBulkPermissions(ctx, &authzedv1.CheckBulkPermissionsRequest{Items: []*authzedv1.CheckBulkPermissionsRequestItem{item, item, item, item}})
				return err
			}},
		"a large limit": {authzedv1.ErrorReason_ERROR_REASON_EXCEEDS_MAXIMUM_ALLOWABLE_LIMIT, codes.InvalidArgument,
			[]string{"limit_provided", "11", "maximum_limit_allowed", "10"}, func() error {
				_, err := all(c.LookupResources(ctx, &authzedv1.LookupResourcesRequest{ResourceObjectType: "document", Permission: "view", Subject: asubject("user:ada"), OptionalLimit: 11}))
				return err
			}},
		"an empty filter": {authzedv1.ErrorReason_ERROR_REASON_INVALID_FILTER, codes.InvalidArgument, nil, func() error {
			_, err := c.DeleteRelationships(ctx, &authzedv1.DeleteRelationshipsRequest{RelationshipFilter: &authzedv1.RelationshipFilter{}})
			return err
		}},
		"an id and a prefix": {authzedv1.ErrorReason_ERROR_REASON_INVALID_FILTER, codes.InvalidArgument, []string{"filter", "document:a#*@*:*"}, func() error {
			_, err := c.DeleteRelationships(ctx, &authzedv1.DeleteRelationshipsRequest{RelationshipFilter: &authzedv1.RelationshipFilter{
				ResourceType: "document", OptionalResourceId: "a", OptionalResourceIdPrefix: "a"}})
			return err
		}},
		"checking everybody": {authzedv1.ErrorReason_ERROR_REASON_WILDCARD_NOT_ALLOWED, codes.InvalidArgument,
			[]string{"disallowed_field", "subject_id"}, check(c, "document:d", "view", "user:*")},
		"checking everything": {authzedv1.ErrorReason_ERROR_REASON_WILDCARD_NOT_ALLOWED, codes.InvalidArgument,
			[]string{"disallowed_field", "resource_id"}, check(c, "document:*", "view", "user:ada")},
		"looking up what everybody may": {authzedv1.ErrorReason_ERROR_REASON_WILDCARD_NOT_ALLOWED, codes.InvalidArgument,
			[]string{"disallowed_field", "subject_id"}, func() error {
				_, err := all(c.LookupResources(ctx, &authzedv1.LookupResourcesRequest{ResourceObjectType: "document", Permission: "view", Subject: asubject("user:*")}))
				return err
			}},
		"large transaction metadata": {authzedv1.ErrorReason_ERROR_REASON_TRANSACTION_METADATA_TOO_LARGE, codes.InvalidArgument,
			[]string{"metadata_byte_size", "70008", "maximum_allowed_metadata_byte_size", "65536"}, func() error {
				r := update(t, atouch, "document:d#viewer@user:ada")
				r.OptionalTransactionMetadata = astruct(`{"x":"` + strings.Repeat("x", 70000) + `"}`)
				_, err := c.WriteRelationships(ctx, r)
				return err
			}},
	} {
		err := d.err()
		aexpect(t, what, err, d.code, d.why, d.facts...)
		seen[d.why] = true
		for _, detail := range status.Convert(err).Details() {
			if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Domain != "authzed.com" {
				t.Errorf("%s: the domain is %q", what, info.Domain)
			}
		}
	}
	guide, err := os.ReadFile("../docs/migrating-from-spicedb.md")
	if err != nil {
		t.Fatal(err)
	}
	for number, text := range authzedv1.ErrorReason_name {
		switch why := authzedv1.ErrorReason(number); {
		case seen[why] == never[why]:
			t.Errorf("%s: tested %v, never %v", text, seen[why], never[why])
		case never[why] && number != 0 && !strings.Contains(string(guide), "`"+strings.TrimPrefix(text, "ERROR_REASON_")+"`"):
			t.Errorf("the guide does not say why %s never occurs", text)
		}
	}
}

// What the stubs refuse, the server refuses: nothing else stands between a client
// and a server that takes more.
func TestTheRulesOfTheStubsHold(t *testing.T) {
	_, c := compatible(t)
	ctx := t.Context()
	filtered := func(f *authzedv1.RelationshipFilter) error {
		_, err := all(c.ReadRelationships(ctx, &authzedv1.ReadRelationshipsRequest{RelationshipFilter: f}))
		return err
	}
	write := func(change func(*authzedv1.RelationshipUpdate)) error {
		r := update(t, atouch, "document:d#viewer@user:ada")
		change(r.Updates[0])
		_, err := c.WriteRelationships(ctx, r)
		return err
	}
	for what, err := range map[string]error{
		"no resource": func() error {
			_, err := c.CheckPermission(ctx, &authzedv1.CheckPermissionRequest{Permission: "view", Subject: asubject("user:ada")})
			return err
		}(),
		"no subject": func() error {
			_, err := c.CheckPermission(ctx, &authzedv1.CheckPermissionRequest{Permission: "view", Resource: aobject("document:d")})
			return err
		}(),
		"a consistency without a token": func() error {
			r := acheck("document:d", "view", "user:ada")
			r.Consistency = fresh(&authzedv1.ZedToken{})
			_, err := c.CheckPermission(ctx, r)
			return err
		}(),
		"minimize_latency that is not": func() error {
			r := acheck("document:d", "view", "user:ada")
			r.Consistency = &authzedv1.Consistency{Requirement: &authzedv1.Consistency_MinimizeLatency{}}
			_, err := c.CheckPermission(ctx, r)
			return err
		}(),
		"an id with a space": func() error { _, err := c.CheckPermission(ctx, acheck("document:a b", "view", "user:ada")); return err }(),
		"an id that only Pemba takes": func() error {
			_, err := c.CheckPermission(ctx, acheck("document:d", "view", "user:ada@example.com"))
			return err
		}(),
		"no operation":                   write(func(u *authzedv1.RelationshipUpdate) { u.Operation = 0 }),
		"an operation that is not there": write(func(u *authzedv1.RelationshipUpdate) { u.Operation = 9 }),
		"no relationship":                write(func(u *authzedv1.RelationshipUpdate) { u.Relationship = nil }),
		"no relation":                    write(func(u *authzedv1.RelationshipUpdate) { u.Relationship.Relation = "" }),
		"a wildcard resource":            write(func(u *authzedv1.RelationshipUpdate) { u.Relationship.Resource.ObjectId = "*" }),
		"a wildcard with a relation":     write(func(u *authzedv1.RelationshipUpdate) { u.Relationship.Subject = asubject("group:*#member") }),
		"a caveat without a name": write(func(u *authzedv1.RelationshipUpdate) {
			u.Relationship.OptionalCaveat = &authzedv1.ContextualizedCaveat{}
		}),
		"no filter":                     filtered(nil),
		"a filter of a wildcard":        filtered(&authzedv1.RelationshipFilter{ResourceType: "document", OptionalResourceId: "*"}),
		"a subject filter without type": filtered(&authzedv1.RelationshipFilter{OptionalSubjectFilter: &authzedv1.SubjectFilter{OptionalSubjectId: "ada"}}),
		"no type to look up": func() error {
			_, err := all(c.LookupResources(ctx, &authzedv1.LookupResourcesRequest{Permission: "view", Subject: asubject("user:ada")}))
			return err
		}(),
		"a bad relationship in a stream": func() error {
			s, err := c.ImportBulkRelationships(ctx)
			if err == nil {
				r := arel(t, "document:d#viewer@user:new")
				r.Resource.ObjectType = "Document"
				_ = s.Send(&authzedv1.ImportBulkRelationshipsRequest{Relationships: []*authzedv1.Relationship{r}}) // CloseAndRecv tells
				_, err = s.CloseAndRecv()
			}
			return err
		}(),
	} {
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", what, err)
		}
	}
}
