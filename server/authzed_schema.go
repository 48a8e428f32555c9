package server

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
)

// authzedSchemas serves authzed.api.v1.SchemaService.
type authzedSchemas struct {
	authzedv1.UnimplementedSchemaServiceServer
	*Server
}

func (s *authzedSchemas) ReadSchema(ctx context.Context, _ *authzedv1.ReadSchemaRequest) (*authzedv1.ReadSchemaResponse, error) {
	st, err := s.authzedStore(ctx)
	if err != nil {
		return nil, err
	}
	snapshot, err := s.ds.At(ctx, st.ID, datastore.Consistency{Level: datastore.FullyConsistent})
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	c := snapshot.Schema()
	if c == nil || len(c.Definitions)+len(c.Caveats) == 0 {
		return nil, status.Error(codes.NotFound, "the store "+st.Name+" has no schema; write one first")
	}
	return &authzedv1.ReadSchemaResponse{SchemaText: c.Text, ReadAt: zedToken(snapshot.Zookie())}, nil
}

func (s *authzedSchemas) WriteSchema(ctx context.Context, r *authzedv1.WriteSchemaRequest) (*authzedv1.WriteSchemaResponse, error) {
	st, err := s.authzedStore(ctx)
	if err != nil {
		return nil, err
	}
	o, err := s.ds.Write(ctx, st.ID, datastore.Request{Actor: callerOf(ctx).name, Schema: &datastore.SchemaUpdate{Text: r.Schema}})
	if err != nil {
		return nil, schemaFailed(err, r.Schema)
	}
	return &authzedv1.WriteSchemaResponse{WrittenAt: zedToken(o.Zookie)}, nil
}

// schemaFailed is the error of a schema text that does not compile, as
// authzed.api.v1 gives it; any other error is returned as it is. Lines and columns
// are counted from zero there.
func schemaFailed(err error, text string) error {
	var broken schema.Errors
	if !errors.As(err, &broken) || errors.Is(err, datastore.ErrCorrupt) || len(broken) == 0 {
		return err
	}
	first := broken[0]
	file, unreadable := schema.Parse(schema.Source{Name: first.Pos.File, Text: text}, schema.Options{})
	if unreadable != nil {
		facts := []string{"source_code", first.Token}
		if first.Pos.Line > 0 {
			line, column := strconv.Itoa(first.Pos.Line-1), strconv.Itoa(first.Pos.Column-1)
			facts = append(facts, "start_line_number", line, "start_column_position", column, "end_line_number", line, "end_column_position", column)
		}
		return authzedProblem(codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_SCHEMA_PARSE_ERROR, broken.Error(), facts...)
	}
	return authzedProblem(codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_SCHEMA_TYPE_ERROR, broken.Error(),
		"definition_name", declaredAt(file, first.Pos), "source_code", first.Token,
		"start_line_number", strconv.Itoa(first.Pos.Line-1), "start_column_position", strconv.Itoa(first.Pos.Column-1))
}

// declaredAt is the name of the definition or caveat that a position lies in.
func declaredAt(file *schema.File, at schema.Position) string {
	found := ""
	for _, d := range file.Declarations {
		pos, declared := schema.Position{}, ""
		switch d := d.(type) {
		case *schema.DefinitionDecl:
			pos, declared = d.Pos, d.Name
		case *schema.CaveatDecl:
			pos, declared = d.Pos, d.Name
		}
		if declared != "" && (pos.Line < at.Line || pos.Line == at.Line && pos.Column <= at.Column) {
			found = declared
		}
	}
	return found
}

func (s *authzedSchemas) ReflectSchema(ctx context.Context, r *authzedv1.ReflectSchemaRequest) (*authzedv1.ReflectSchemaResponse, error) {
	for i, f := range r.OptionalFilters {
		if err := reflectionFilter(f, i); err != nil {
			return nil, err
		}
	}
	snapshot, err := s.authzedAt(ctx, r.Consistency)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	out := &authzedv1.ReflectSchemaResponse{ReadAt: zedToken(snapshot.Zookie())}
	if snapshot.Schema() == nil {
		return out, nil
	}
	for _, d := range snapshot.Schema().Definitions {
		if p := reflectDefinition(d, r.OptionalFilters); p != nil {
			out.Definitions = append(out.Definitions, p)
		}
	}
	for _, c := range snapshot.Schema().Caveats {
		if selectsCaveat(c, r.OptionalFilters) {
			out.Caveats = append(out.Caveats, reflectCaveat(c))
		}
	}
	return out, nil
}

// reflectionFilter refuses a filter that nothing can match.
func reflectionFilter(f *authzedv1.ReflectionSchemaFilter, i int) error {
	why := ""
	parts := f.OptionalRelationNameFilter != "" || f.OptionalPermissionNameFilter != ""
	switch {
	case f.OptionalCaveatNameFilter != "" && (f.OptionalDefinitionNameFilter != "" || parts):
		why = "selects caveats and definitions; use two filters, of which either may match"
	case f.OptionalRelationNameFilter != "" && f.OptionalPermissionNameFilter != "":
		why = "selects relations and permissions; use two filters, of which either may match"
	case parts && f.OptionalDefinitionNameFilter == "":
		why = "selects relations or permissions, but no definitions; set optional_definition_name_filter"
	default:
		return nil
	}
	return authzedProblem(codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_INVALID_FILTER, fmt.Sprintf("filter %d %s", i, why), "filter", strconv.Itoa(i))
}

// reflectDefinition is a definition with what any filter selects of it; nil if
// none selects it.
func reflectDefinition(d *schema.Definition, filters []*authzedv1.ReflectionSchemaFilter) *authzedv1.ReflectionDefinition {
	out := &authzedv1.ReflectionDefinition{Name: d.Type, Comment: docComment(d.Doc)}
	selected := len(filters) == 0
	for _, f := range filters {
		selected = selected || f.OptionalCaveatNameFilter == "" && strings.HasPrefix(d.Type, f.OptionalDefinitionNameFilter)
	}
	if !selected {
		return nil
	}
	for _, r := range d.Relations {
		switch {
		case !selectsRelation(r, filters):
		case r.IsPermission():
			out.Permissions = append(out.Permissions, reflectPermission(r))
		default:
			out.Relations = append(out.Relations, reflectRelation(r))
		}
	}
	return out
}

func selectsRelation(r *schema.Relation, filters []*authzedv1.ReflectionSchemaFilter) bool {
	for _, f := range filters {
		if f.OptionalCaveatNameFilter != "" || !strings.HasPrefix(r.Definition.Type, f.OptionalDefinitionNameFilter) {
			continue
		}
		relations, permissions := f.OptionalRelationNameFilter, f.OptionalPermissionNameFilter
		if relations == "" && permissions == "" ||
			!r.IsPermission() && relations != "" && strings.HasPrefix(r.Text, relations) ||
			r.IsPermission() && permissions != "" && strings.HasPrefix(r.Text, permissions) {
			return true
		}
	}
	return len(filters) == 0
}

func selectsCaveat(c *schema.Caveat, filters []*authzedv1.ReflectionSchemaFilter) bool {
	for _, f := range filters {
		if f.OptionalDefinitionNameFilter == "" && strings.HasPrefix(c.Name, f.OptionalCaveatNameFilter) {
			return true
		}
	}
	return len(filters) == 0
}

// docComment is a doc comment as a schema holds it, with its marks.
func docComment(text string) string {
	if text == "" {
		return ""
	}
	lines := strings.Split(text, "\n")
	if len(lines) == 1 {
		return "/** " + text + " */"
	}
	return "/**\n * " + strings.Join(lines, "\n * ") + "\n */"
}

func reflectPermission(r *schema.Relation) *authzedv1.ReflectionPermission {
	return &authzedv1.ReflectionPermission{Name: r.Text, Comment: docComment(r.Doc), ParentDefinitionName: r.Definition.Type}
}

func reflectRelation(r *schema.Relation) *authzedv1.ReflectionRelation {
	out := &authzedv1.ReflectionRelation{Name: r.Text, Comment: docComment(r.Doc), ParentDefinitionName: r.Definition.Type}
	for i := range r.Allowed {
		out.SubjectTypes = append(out.SubjectTypes, reflectSubject(&r.Allowed[i]))
	}
	return out
}

func reflectSubject(a *schema.AllowedSubject) *authzedv1.ReflectionTypeReference {
	out := &authzedv1.ReflectionTypeReference{SubjectDefinitionName: a.Definition.Type}
	if a.Caveat != nil {
		out.OptionalCaveatName = a.Caveat.Name
	}
	switch {
	case a.Wildcard:
		out.Typeref = &authzedv1.ReflectionTypeReference_IsPublicWildcard{IsPublicWildcard: true}
	case a.Relation != nil:
		out.Typeref = &authzedv1.ReflectionTypeReference_OptionalRelationName{OptionalRelationName: a.Relation.Text}
	default:
		out.Typeref = &authzedv1.ReflectionTypeReference_IsTerminalSubject{IsTerminalSubject: true}
	}
	return out
}

func reflectCaveat(c *schema.Caveat) *authzedv1.ReflectionCaveat {
	out := &authzedv1.ReflectionCaveat{Name: c.Name, Comment: docComment(c.Doc), Expression: c.Expression}
	for _, p := range c.Parameters {
		out.Parameters = append(out.Parameters, &authzedv1.ReflectionCaveatParameter{Name: p.Name, Type: p.Type, ParentCaveatName: c.Name})
	}
	return out
}

func references(rs []*schema.Relation, selected func(*schema.Relation) bool) []*authzedv1.ReflectionRelationReference {
	var out []*authzedv1.ReflectionRelationReference
	for _, r := range rs {
		if selected(r) {
			out = append(out, &authzedv1.ReflectionRelationReference{DefinitionName: r.Definition.Type, RelationName: r.Text, IsPermission: r.IsPermission()})
		}
	}
	return out
}

func (s *authzedSchemas) ComputablePermissions(ctx context.Context, r *authzedv1.ComputablePermissionsRequest) (*authzedv1.ComputablePermissionsResponse, error) {
	snapshot, err := s.authzedAt(ctx, r.Consistency)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	if err := namesKnown(snapshot.Schema(), r.DefinitionName, r.RelationName); err != nil {
		return nil, err
	}
	d := snapshot.Schema().Definition(r.DefinitionName)
	of := []*schema.Relation{d.Relation(r.RelationName)}
	if r.RelationName == "" { // objects of the type themselves: wherever they may stand as subjects
		of = holders(snapshot.Schema(), d)
	}
	return &authzedv1.ComputablePermissionsResponse{
		ReadAt: zedToken(snapshot.Zookie()),
		Permissions: references(snapshot.Schema().Dependents(of...), func(dependent *schema.Relation) bool {
			itself := dependent.Definition == d && dependent.Text == r.RelationName
			return dependent.IsPermission() && !itself && strings.HasPrefix(dependent.Definition.Type, r.OptionalDefinitionNameFilter)
		}),
	}, nil
}

// holders are the relations that allow objects of a type as subjects.
func holders(s *schema.Schema, typ *schema.Definition) []*schema.Relation {
	var out []*schema.Relation
	for _, d := range s.Definitions {
		for _, r := range d.Relations {
			for i := range r.Allowed {
				if a := &r.Allowed[i]; a.Definition == typ && a.Relation == nil {
					out = append(out, r)
					break
				}
			}
		}
	}
	return out
}

func (s *authzedSchemas) DependentRelations(ctx context.Context, r *authzedv1.DependentRelationsRequest) (*authzedv1.DependentRelationsResponse, error) {
	snapshot, err := s.authzedAt(ctx, r.Consistency)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	if err := namesKnown(snapshot.Schema(), r.DefinitionName, r.PermissionName); err != nil {
		return nil, err
	}
	of := snapshot.Schema().Definition(r.DefinitionName).Relation(r.PermissionName)
	if of == nil || !of.IsPermission() {
		return nil, authzedProblem(codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_UNKNOWN_RELATION_OR_PERMISSION,
			fmt.Sprintf("%q of definition %q is no permission, and only permissions are computed", r.PermissionName, r.DefinitionName),
			"definition_name", r.DefinitionName, "relation_or_permission_name", r.PermissionName)
	}
	return &authzedv1.DependentRelationsResponse{
		ReadAt:    zedToken(snapshot.Zookie()),
		Relations: references(of.Dependencies(), func(r *schema.Relation) bool { return r != of }),
	}, nil
}
