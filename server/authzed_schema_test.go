package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/server"
)

func TestAStockClientReadsAndWritesTheSchema(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{})
	c := stock(t, n)
	ctx := t.Context()
	_, err := c.ReadSchema(ctx, &authzedv1.ReadSchemaRequest{})
	aexpect(t, "before one was written", err, codes.NotFound, authzedv1.ErrorReason_ERROR_REASON_UNSPECIFIED)
	written, err := c.WriteSchema(ctx, &authzedv1.WriteSchemaRequest{Schema: authzedSchema})
	if err != nil || written.WrittenAt.GetToken() == "" {
		t.Fatalf("%v, %v", written, err)
	}
	read, err := c.ReadSchema(ctx, &authzedv1.ReadSchemaRequest{})
	if err != nil || read.SchemaText != authzedSchema || read.ReadAt.GetToken() == "" {
		t.Errorf("%v, %v", read, err)
	}
	_, err = c.WriteSchema(ctx, &authzedv1.WriteSchemaRequest{Schema: "definition user {}\ndefinition d {\n\trelation viewer user\n}"})
	aexpect(t, "what cannot be parsed", err, codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_SCHEMA_PARSE_ERROR,
		"start_line_number", "2", "start_column_position", "17", "end_line_number", "2", "end_column_position", "17", "source_code", "user")
	_, err = c.WriteSchema(ctx, &authzedv1.WriteSchemaRequest{Schema: "definition user {}\ndefinition some {\n\trelation viewer: usr\n}"})
	aexpect(t, "a type that is not there", err, codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_SCHEMA_TYPE_ERROR, "definition_name", "some")
	touch(t, c, "document:d#viewer@user:ada")
	_, err = c.WriteSchema(ctx, &authzedv1.WriteSchemaRequest{Schema: "definition user {}\ndefinition document {}"})
	aexpect(t, "what is stored would not fit", err, codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_SCHEMA_TYPE_ERROR,
		"definition_name", "document", "relation_name", "viewer")
	if again, err := c.ReadSchema(ctx, &authzedv1.ReadSchemaRequest{}); err != nil || again.SchemaText != authzedSchema {
		t.Errorf("a refused schema changed something: %v, %v", again, err)
	}
}

// short is a message on one line.
func short(m proto.Message) string {
	return strings.Join(strings.Fields(prototext.MarshalOptions{Multiline: false}.Format(m)), " ")
}

func TestAStockClientReflectsTheSchema(t *testing.T) {
	_, c := compatible(t)
	ctx := t.Context()
	got, err := c.ReflectSchema(ctx, &authzedv1.ReflectSchemaRequest{Consistency: afully()})
	if err != nil || len(got.Definitions) != 4 || len(got.Caveats) != 1 || got.ReadAt.GetToken() == "" {
		t.Fatalf("%v, %v", got, err)
	}
	document := got.Definitions[0]
	for what, pair := range map[string][2]proto.Message{
		"user": {got.Definitions[3], &authzedv1.ReflectionDefinition{Name: "user", Comment: "/** somebody */"}},
		"parent": {document.Relations[0], &authzedv1.ReflectionRelation{Name: "parent", ParentDefinitionName: "document", SubjectTypes: []*authzedv1.ReflectionTypeReference{
			{SubjectDefinitionName: "folder", Typeref: &authzedv1.ReflectionTypeReference_IsTerminalSubject{IsTerminalSubject: true}}}}},
		"viewer": {document.Relations[1], &authzedv1.ReflectionRelation{Name: "viewer", ParentDefinitionName: "document", SubjectTypes: []*authzedv1.ReflectionTypeReference{
			{SubjectDefinitionName: "user", Typeref: &authzedv1.ReflectionTypeReference_IsTerminalSubject{IsTerminalSubject: true}},
			{SubjectDefinitionName: "user", Typeref: &authzedv1.ReflectionTypeReference_IsPublicWildcard{IsPublicWildcard: true}},
			{SubjectDefinitionName: "group", Typeref: &authzedv1.ReflectionTypeReference_OptionalRelationName{OptionalRelationName: "member"}},
			{SubjectDefinitionName: "user", OptionalCaveatName: "in_office", Typeref: &authzedv1.ReflectionTypeReference_IsTerminalSubject{IsTerminalSubject: true}},
			{SubjectDefinitionName: "user", Typeref: &authzedv1.ReflectionTypeReference_IsTerminalSubject{IsTerminalSubject: true}}}}},
		"view": {document.Permissions[0], &authzedv1.ReflectionPermission{Name: "view", ParentDefinitionName: "document", Comment: "/** may read it */"}},
		"in_office": {got.Caveats[0], &authzedv1.ReflectionCaveat{Name: "in_office", Expression: "hour >= since", Parameters: []*authzedv1.ReflectionCaveatParameter{
			{Name: "hour", Type: "int", ParentCaveatName: "in_office"}, {Name: "since", Type: "int", ParentCaveatName: "in_office"}}}},
	} {
		if !proto.Equal(pair[0], pair[1]) {
			t.Errorf("%s:\n got %s\nwant %s", what, short(pair[0]), short(pair[1]))
		}
	}
	for _, f := range []struct {
		filters []*authzedv1.ReflectionSchemaFilter
		want    string
	}{
		{[]*authzedv1.ReflectionSchemaFilter{{OptionalDefinitionNameFilter: "fol"}}, "folder: viewer view"},
		{[]*authzedv1.ReflectionSchemaFilter{{OptionalDefinitionNameFilter: "fol", OptionalRelationNameFilter: "view"}}, "folder: viewer"},
		{[]*authzedv1.ReflectionSchemaFilter{{OptionalDefinitionNameFilter: "doc", OptionalPermissionNameFilter: "view"}}, "document: view"},
		{[]*authzedv1.ReflectionSchemaFilter{{OptionalCaveatNameFilter: "in_"}}, "in_office"},
		{[]*authzedv1.ReflectionSchemaFilter{{OptionalCaveatNameFilter: "none"}, {OptionalDefinitionNameFilter: "user"}}, "user:"},
	} {
		got, err := c.ReflectSchema(ctx, &authzedv1.ReflectSchemaRequest{OptionalFilters: f.filters})
		if err != nil {
			t.Fatal(err)
		}
		var parts []string
		for _, d := range got.Definitions {
			names := []string{d.Name + ":"}
			for _, r := range d.Relations {
				names = append(names, r.Name)
			}
			for _, p := range d.Permissions {
				names = append(names, p.Name)
			}
			parts = append(parts, strings.Join(names, " "))
		}
		for _, c := range got.Caveats {
			parts = append(parts, c.Name)
		}
		if text := strings.Join(parts, "; "); text != f.want {
			t.Errorf("%v: %q, want %q", f.filters, text, f.want)
		}
	}
	for what, f := range map[string]*authzedv1.ReflectionSchemaFilter{
		"definitions and caveats":                    {OptionalDefinitionNameFilter: "doc", OptionalCaveatNameFilter: "in_"},
		"relations and permissions":                  {OptionalDefinitionNameFilter: "doc", OptionalRelationNameFilter: "v", OptionalPermissionNameFilter: "v"},
		"relations of no definition in particular":   {OptionalRelationNameFilter: "v"},
		"permissions of no definition in particular": {OptionalPermissionNameFilter: "v"},
	} {
		_, err := c.ReflectSchema(ctx, &authzedv1.ReflectSchemaRequest{OptionalFilters: []*authzedv1.ReflectionSchemaFilter{f}})
		aexpect(t, what, err, codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_INVALID_FILTER)
	}
}

func referenced(rs []*authzedv1.ReflectionRelationReference) (out []string) {
	for _, r := range rs {
		text := r.DefinitionName + "#" + r.RelationName
		if r.IsPermission {
			text += "()"
		}
		out = append(out, text)
	}
	return out
}

func TestAStockClientAsksWhatDependsOnWhat(t *testing.T) {
	_, c := compatible(t)
	ctx := t.Context()
	computable := func(typ, relation, prefix string) []string {
		t.Helper()
		got, err := c.ComputablePermissions(ctx, &authzedv1.ComputablePermissionsRequest{Consistency: afully(), DefinitionName: typ, RelationName: relation, OptionalDefinitionNameFilter: prefix})
		if err != nil || got.ReadAt.GetToken() == "" {
			t.Fatalf("%v, %v", got, err)
		}
		return referenced(got.Permissions)
	}
	everything := []string{"document#all_view()", "document#view()", "folder#view()"}
	equal(t, "of folder#viewer", computable("folder", "viewer", ""), everything)
	equal(t, "of folder#viewer in folders", computable("folder", "viewer", "fol"), everything[2:])
	equal(t, "of document#banned", computable("document", "banned", ""), []string{"document#view()"})
	equal(t, "of group#member", computable("group", "member", ""), everything)
	equal(t, "of users", computable("user", "", ""), everything)
	equal(t, "of folders", computable("folder", "", ""), []string{"document#all_view()", "document#view()"})
	depends := func(typ, permission string) []string {
		t.Helper()
		got, err := c.DependentRelations(ctx, &authzedv1.DependentRelationsRequest{Consistency: afully(), DefinitionName: typ, PermissionName: permission})
		if err != nil || got.ReadAt.GetToken() == "" {
			t.Fatalf("%v, %v", got, err)
		}
		return referenced(got.Relations)
	}
	equal(t, "document#view", depends("document", "view"), []string{"document#banned", "document#parent", "document#viewer", "folder#view()", "folder#viewer", "group#member"})
	equal(t, "folder#view", depends("folder", "view"), []string{"folder#viewer", "group#member"})
	equal(t, "document#nobody", depends("document", "nobody"), nil)
	_, err := c.DependentRelations(ctx, &authzedv1.DependentRelationsRequest{DefinitionName: "document", PermissionName: "viewer"})
	aexpect(t, "of a relation", err, codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_UNKNOWN_RELATION_OR_PERMISSION, "relation_or_permission_name", "viewer")
	_, err = c.DependentRelations(ctx, &authzedv1.DependentRelationsRequest{DefinitionName: "paper", PermissionName: "view"})
	aexpect(t, "of an unknown type", err, codes.FailedPrecondition, authzedv1.ErrorReason_ERROR_REASON_UNKNOWN_DEFINITION, "definition_name", "paper")
	_, err = c.ComputablePermissions(ctx, &authzedv1.ComputablePermissionsRequest{DefinitionName: "folder", RelationName: "veiwer"})
	aexpect(t, "of an unknown relation", err, codes.FailedPrecondition, authzedv1.ErrorReason_ERROR_REASON_UNKNOWN_RELATION_OR_PERMISSION, "definition_name", "folder")
}

func TestAStockClientComparesSchemas(t *testing.T) {
	_, c := compatible(t)
	change := func(pairs ...string) string {
		out := authzedSchema
		for i := 0; i+1 < len(pairs); i += 2 {
			if !strings.Contains(out, pairs[i]) {
				t.Fatalf("the schema has no %q", pairs[i])
			}
			out = strings.ReplaceAll(out, pairs[i], pairs[i+1])
		}
		return out
	}
	for compared, want := range map[string][]string{
		authzedSchema:                           nil,
		authzedSchema + "\ndefinition more {}":  {"definition_added more"},
		change("/** somebody */", "/** who */"): {"definition_doc_comment_changed user"},
		change("relation banned: user", "/** out */ relation banned: user | group#member"):                                              {"relation_subject_type_added banned", "relation_doc_comment_changed banned"},
		change("relation viewer: user | group#member\n", "relation viewer: user\n"):                                                     {"relation_subject_type_removed viewer"},
		change("permission nobody = nil", "permission nobody = banned\npermission fresh = viewer\nrelation x: user"):                    {"permission_expr_changed nobody", "permission_added fresh", "relation_added x"},
		change("permission nobody = nil", ""):                                                                                           {"permission_removed nobody"},
		change("permission nobody = nil", "relation nobody: user"):                                                                      {"permission_removed nobody", "relation_added nobody"},
		change("relation viewer: user | group#member\n	permission view = viewer", "permission viewer = nil\n	permission view = viewer"): {"relation_removed viewer", "permission_added viewer"},
		change("/** may read it */", ""):                                                                                                {"permission_doc_comment_changed view"},
		change("hour >= since", "hour > since"):                                                                                         {"caveat_expr_changed in_office"},
		change("since int", "since double", "hour int", "hour double"):                                                                  {"caveat_parameter_type_changed hour", "caveat_parameter_type_changed since"},
		change("since int", "from int", "hour >= since", "hour >= from"):                                                                {"caveat_parameter_removed since", "caveat_parameter_added from", "caveat_expr_changed in_office"},
		change("caveat in_office", "/** at work */\ncaveat in_office"):                                                                  {"caveat_doc_comment_changed in_office"},
		authzedSchema + "\ncaveat more(x int) { x > 0 }":                                                                                {"caveat_added more"},
		change("caveat in_office(hour int, since int) { hour >= since }", "", " | user with in_office", ""):                             {"caveat_removed in_office", "relation_subject_type_removed viewer"},
		"use expiration": {
			"caveat_removed in_office", "definition_removed document", "definition_removed folder", "definition_removed group", "definition_removed user",
		},
		change("permission view = (viewer + parent->view) - banned", "permission view = (viewer + parent->view) - banned\npermission again = view", "	relation banned: user\n", "	relation banned: user\n	relation gone: user\n"): {
			"relation_added gone", "permission_added again",
		},
	} {
		got, err := c.DiffSchema(t.Context(), &authzedv1.DiffSchemaRequest{Consistency: afully(), ComparisonSchema: compared})
		if err != nil || got.ReadAt.GetToken() == "" {
			t.Errorf("%s: %v, %v", compared, got, err)
			continue
		}
		var texts []string
		for _, d := range got.Diffs {
			m := d.ProtoReflect()
			f := m.WhichOneof(m.Descriptor().Oneofs().Get(0))
			inner := m.Get(f).Message()
			for _, part := range []string{"relation", "parameter"} { // changes of a part hold it
				if sub := inner.Descriptor().Fields().ByName("changed_subject_type"); sub != nil && inner.Get(sub).Message().IsValid() == false {
					t.Errorf("%v names no type", d)
				}
				if p := inner.Descriptor().Fields().ByName(protoreflect.Name(part)); p != nil && p.Message() != nil {
					inner = inner.Get(p).Message()
				}
			}
			texts = append(texts, fmt.Sprintf("%s %s", f.Name(), inner.Get(inner.Descriptor().Fields().ByName("name")).String()))
		}
		slices.Sort(texts)
		slices.Sort(want)
		equal(t, "compared with "+compared, texts, want)
	}
	_, err := c.DiffSchema(t.Context(), &authzedv1.DiffSchemaRequest{ComparisonSchema: "definition {"})
	aexpect(t, "what cannot be parsed", err, codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_SCHEMA_PARSE_ERROR)
}

//lint:file-ignore SA1019 clients still call what was promoted
func TestCallsThatWerePromotedAnswerAsTheirSuccessors(t *testing.T) {
	_, c := compatible(t)
	ctx := t.Context()
	same := func(what string, old proto.Message, oldErr error, new proto.Message, newErr error) {
		t.Helper()
		if oldErr != nil || newErr != nil {
			t.Fatalf("%s: %v, %v", what, oldErr, newErr)
		}
		a, _ := proto.MarshalOptions{Deterministic: true}.Marshal(old)
		b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(new)
		if len(a) == 0 || string(a) != string(b) {
			t.Errorf("%s:\n old %s\n new %s", what, short(old), short(new))
		}
	}
	reflected, err := c.ExperimentalReflectSchema(ctx, &authzedv1.ExperimentalReflectSchemaRequest{Consistency: afully(), OptionalFilters: []*authzedv1.ExpSchemaFilter{
		{OptionalDefinitionNameFilter: "doc", OptionalRelationNameFilter: "v"}, {OptionalDefinitionNameFilter: "f", OptionalPermissionNameFilter: "v"}, {OptionalCaveatNameFilter: "in"},
	}})
	now, failed := c.ReflectSchema(ctx, &authzedv1.ReflectSchemaRequest{Consistency: afully(), OptionalFilters: []*authzedv1.ReflectionSchemaFilter{
		{OptionalDefinitionNameFilter: "doc", OptionalRelationNameFilter: "v"}, {OptionalDefinitionNameFilter: "f", OptionalPermissionNameFilter: "v"}, {OptionalCaveatNameFilter: "in"},
	}})
	same("reflection", reflected, err, now, failed)
	computed, err := c.ExperimentalComputablePermissions(ctx, &authzedv1.ExperimentalComputablePermissionsRequest{Consistency: afully(), DefinitionName: "folder", RelationName: "viewer", OptionalDefinitionNameFilter: "d"})
	computedNow, failed := c.ComputablePermissions(ctx, &authzedv1.ComputablePermissionsRequest{Consistency: afully(), DefinitionName: "folder", RelationName: "viewer", OptionalDefinitionNameFilter: "d"})
	same("computable permissions", computed, err, computedNow, failed)
	depends, err := c.ExperimentalDependentRelations(ctx, &authzedv1.ExperimentalDependentRelationsRequest{Consistency: afully(), DefinitionName: "folder", PermissionName: "view"})
	dependsNow, failed := c.DependentRelations(ctx, &authzedv1.DependentRelationsRequest{Consistency: afully(), DefinitionName: "folder", PermissionName: "view"})
	same("dependent relations", depends, err, dependsNow, failed)
	other := authzedSchema + "definition more {}"
	diff, err := c.ExperimentalDiffSchema(ctx, &authzedv1.ExperimentalDiffSchemaRequest{Consistency: afully(), ComparisonSchema: other})
	diffNow, failed := c.DiffSchema(ctx, &authzedv1.DiffSchemaRequest{Consistency: afully(), ComparisonSchema: other})
	same("differences", diff, err, diffNow, failed)

	in, err := c.BulkImportRelationships(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Send(&authzedv1.BulkImportRelationshipsRequest{Relationships: []*authzedv1.Relationship{arel(t, "folder:a#viewer@user:x"), arel(t, "folder:b#viewer@user:x"), arel(t, "folder:c#viewer@user:x")}}); err != nil {
		t.Fatal(err)
	}
	if done, err := in.CloseAndRecv(); err != nil || done.NumLoaded != 3 {
		t.Errorf("import: %v, %v", done, err)
	}
	out := &authzedv1.BulkExportRelationshipsRequest{Consistency: afully(), OptionalLimit: 2, OptionalRelationshipFilter: &authzedv1.RelationshipFilter{ResourceType: "folder"}}
	pages, err := all(c.BulkExportRelationships(ctx, out))
	if err != nil || len(pages) != 2 || len(pages[1].Relationships) != 1 {
		t.Fatalf("export: %v, %v", pages, err)
	}
	out.OptionalCursor = pages[0].AfterResultCursor
	if rest, err := all(c.BulkExportRelationships(ctx, out)); err != nil || len(rest) != 1 || !proto.Equal(rest[0].Relationships[0], pages[1].Relationships[0]) {
		t.Errorf("export, resumed: %v, %v", rest, err)
	}
}
