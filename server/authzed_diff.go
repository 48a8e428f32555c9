package server

import (
	"context"
	"fmt"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
)

func (s *authzedSchemas) DiffSchema(ctx context.Context, r *authzedv1.DiffSchemaRequest) (*authzedv1.DiffSchemaResponse, error) {
	if n := len(r.ComparisonSchema); n > s.limits.SchemaBytes {
		return nil, datastore.OverLimit("max-schema-bytes", s.limits.SchemaBytes, fmt.Sprintf("schema of %d bytes", n), "split it into stores, or raise the limit")
	}
	compared, _, err := schema.Compile(schema.Source{Name: "schema", Text: r.ComparisonSchema}, nil, schema.Options{MaxBytes: s.limits.SchemaBytes, Context: ctx})
	if err != nil {
		return nil, schemaFailed(err, r.ComparisonSchema)
	}
	snapshot, err := s.authzedAt(ctx, r.Consistency)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	current := snapshot.Schema()
	if current == nil {
		current = &schema.Schema{}
	}
	out := &authzedv1.DiffSchemaResponse{ReadAt: zedToken(snapshot.Zookie())}
	for _, d := range schema.Diff(current, compared) {
		out.Diffs = append(out.Diffs, schemaDiffs(&d, current, compared)...)
	}
	return out, nil
}

// schemaDiffs is a difference as authzed.api.v1 gives it: with the part as it is
// after, or for what was removed before.
func schemaDiffs(d *schema.Difference, before, after *schema.Schema) []*authzedv1.ReflectionSchemaDiff {
	one := func(d *authzedv1.ReflectionSchemaDiff) []*authzedv1.ReflectionSchemaDiff {
		return []*authzedv1.ReflectionSchemaDiff{d}
	}
	switch {
	case d.Caveat != "":
		return one(caveatDiff(d, before, after))
	case d.Relation != "":
		return relationDiff(d, before, after)
	case d.Kind == schema.DefinitionRemoved:
		return one(&authzedv1.ReflectionSchemaDiff{Diff: &authzedv1.ReflectionSchemaDiff_DefinitionRemoved{
			DefinitionRemoved: reflectDefinition(before.Definition(d.Type), nil)}})
	case d.Kind == schema.DefinitionAdded:
		return one(&authzedv1.ReflectionSchemaDiff{Diff: &authzedv1.ReflectionSchemaDiff_DefinitionAdded{
			DefinitionAdded: reflectDefinition(after.Definition(d.Type), nil)}})
	}
	return one(&authzedv1.ReflectionSchemaDiff{Diff: &authzedv1.ReflectionSchemaDiff_DefinitionDocCommentChanged{
		DefinitionDocCommentChanged: reflectDefinition(after.Definition(d.Type), nil)}})
}

func relationDiff(d *schema.Difference, before, after *schema.Schema) []*authzedv1.ReflectionSchemaDiff {
	type diff = authzedv1.ReflectionSchemaDiff
	part := func(s *schema.Schema) *schema.Relation { return s.Definition(d.Type).Relation(d.Relation) }
	relationRemoved := func() *diff {
		return &diff{Diff: &authzedv1.ReflectionSchemaDiff_RelationRemoved{RelationRemoved: reflectRelation(part(before))}}
	}
	relationAdded := func() *diff {
		return &diff{Diff: &authzedv1.ReflectionSchemaDiff_RelationAdded{RelationAdded: reflectRelation(part(after))}}
	}
	permissionRemoved := func() *diff {
		return &diff{Diff: &authzedv1.ReflectionSchemaDiff_PermissionRemoved{PermissionRemoved: reflectPermission(part(before))}}
	}
	permissionAdded := func() *diff {
		return &diff{Diff: &authzedv1.ReflectionSchemaDiff_PermissionAdded{PermissionAdded: reflectPermission(part(after))}}
	}
	switch d.Kind {
	case schema.RelationAdded:
		return []*diff{relationAdded()}
	case schema.RelationRemoved:
		return []*diff{relationRemoved()}
	case schema.PermissionAdded:
		return []*diff{permissionAdded()}
	case schema.PermissionRemoved:
		return []*diff{permissionRemoved()}
	case schema.RelationToPermission:
		return []*diff{relationRemoved(), permissionAdded()}
	case schema.PermissionToRelation:
		return []*diff{permissionRemoved(), relationAdded()}
	case schema.PermissionChanged:
		return []*diff{{Diff: &authzedv1.ReflectionSchemaDiff_PermissionExprChanged{PermissionExprChanged: reflectPermission(part(after))}}}
	case schema.PermissionDocChanged:
		return []*diff{{Diff: &authzedv1.ReflectionSchemaDiff_PermissionDocCommentChanged{PermissionDocCommentChanged: reflectPermission(part(after))}}}
	case schema.SubjectAdded:
		return []*diff{{Diff: &authzedv1.ReflectionSchemaDiff_RelationSubjectTypeAdded{RelationSubjectTypeAdded: subjectChange(part(after), d.New)}}}
	case schema.SubjectRemoved:
		return []*diff{{Diff: &authzedv1.ReflectionSchemaDiff_RelationSubjectTypeRemoved{RelationSubjectTypeRemoved: subjectChange(part(before), d.Old)}}}
	}
	if part(after).IsPermission() != part(before).IsPermission() {
		return nil // said by the differences that replace the one by the other
	}
	return []*diff{{Diff: &authzedv1.ReflectionSchemaDiff_RelationDocCommentChanged{RelationDocCommentChanged: reflectRelation(part(after))}}}
}

// subjectChange names the alternative of a relation's type that has a text.
func subjectChange(r *schema.Relation, text string) *authzedv1.ReflectionRelationSubjectTypeChange {
	out := &authzedv1.ReflectionRelationSubjectTypeChange{Relation: reflectRelation(r)}
	for i := range r.Allowed {
		if r.Allowed[i].String() == text {
			out.ChangedSubjectType = reflectSubject(&r.Allowed[i])
		}
	}
	return out
}

func caveatDiff(d *schema.Difference, before, after *schema.Schema) *authzedv1.ReflectionSchemaDiff {
	parameter := func(typ string) *authzedv1.ReflectionCaveatParameter {
		return &authzedv1.ReflectionCaveatParameter{Name: d.Parameter, Type: typ, ParentCaveatName: d.Caveat}
	}
	switch d.Kind {
	case schema.CaveatAdded:
		return &authzedv1.ReflectionSchemaDiff{Diff: &authzedv1.ReflectionSchemaDiff_CaveatAdded{CaveatAdded: reflectCaveat(after.Caveat(d.Caveat))}}
	case schema.CaveatRemoved:
		return &authzedv1.ReflectionSchemaDiff{Diff: &authzedv1.ReflectionSchemaDiff_CaveatRemoved{CaveatRemoved: reflectCaveat(before.Caveat(d.Caveat))}}
	case schema.CaveatExpressionChanged:
		return &authzedv1.ReflectionSchemaDiff{Diff: &authzedv1.ReflectionSchemaDiff_CaveatExprChanged{CaveatExprChanged: reflectCaveat(after.Caveat(d.Caveat))}}
	case schema.ParameterAdded:
		return &authzedv1.ReflectionSchemaDiff{Diff: &authzedv1.ReflectionSchemaDiff_CaveatParameterAdded{CaveatParameterAdded: parameter(d.New)}}
	case schema.ParameterRemoved:
		return &authzedv1.ReflectionSchemaDiff{Diff: &authzedv1.ReflectionSchemaDiff_CaveatParameterRemoved{CaveatParameterRemoved: parameter(d.Old)}}
	case schema.ParameterChanged:
		return &authzedv1.ReflectionSchemaDiff{Diff: &authzedv1.ReflectionSchemaDiff_CaveatParameterTypeChanged{
			CaveatParameterTypeChanged: &authzedv1.ReflectionCaveatParameterTypeChange{Parameter: parameter(d.New), PreviousType: d.Old}}}
	}
	return &authzedv1.ReflectionSchemaDiff{Diff: &authzedv1.ReflectionSchemaDiff_CaveatDocCommentChanged{CaveatDocCommentChanged: reflectCaveat(after.Caveat(d.Caveat))}}
}
