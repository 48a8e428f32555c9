package server

import (
	"context"
	"encoding/hex"

	"google.golang.org/grpc/codes"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/schema"
)

type schemas struct {
	pembav1.UnimplementedSchemaServiceServer
	*Server
}

func hashText(h [32]byte) string {
	if h == ([32]byte{}) {
		return ""
	}
	return hex.EncodeToString(h[:])
}

func differences(old, new *schema.Schema) []*pembav1.SchemaDifference {
	var out []*pembav1.SchemaDifference
	if old == nil {
		old = &schema.Schema{}
	}
	for _, d := range schema.Diff(old, new) {
		out = append(out, &pembav1.SchemaDifference{
			Kind: string(d.Kind), Type: d.Type, Relation: d.Relation, Caveat: d.Caveat, Parameter: d.Parameter,
			Old: d.Old, New: d.New, Breaking: d.Breaking, Why: d.Why,
		})
	}
	return out
}

func warnings(ws []schema.Warning) []*pembav1.SchemaProblem {
	var out []*pembav1.SchemaProblem
	for _, w := range ws {
		out = append(out, &pembav1.SchemaProblem{Line: uint32(w.Pos.Line), Column: uint32(w.Pos.Column), Token: w.Token, Message: w.Message, Hint: w.Hint})
	}
	return out
}

func (s *schemas) ApplySchema(ctx context.Context, r *pembav1.ApplySchemaRequest) (*pembav1.ApplySchemaResponse, error) {
	if r.Text == "" {
		return nil, missing("text")
	}
	st, err := s.store(ctx, r.Store)
	if err != nil {
		return nil, err
	}
	update := &datastore.SchemaUpdate{Text: r.Text, DryRun: r.DryRun}
	if r.ExpectedHash != nil {
		var h [32]byte
		b, err := hex.DecodeString(*r.ExpectedHash)
		if err != nil || len(b) != 0 && len(b) != len(h) {
			return nil, problem(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_FIELD, "expected_hash must be a hash as GetSchema gives it, or empty for no schema")
		}
		copy(h[:], b)
		update.Expected = &h
	}
	before, err := s.ds.At(ctx, st.ID, datastore.Consistency{Level: datastore.FullyConsistent})
	if err != nil {
		return nil, err
	}
	defer before.Close()
	compiled, _, err := schema.Compile(schema.Source{Name: "schema", Text: r.Text}, nil, schema.Options{})
	if err != nil {
		return nil, err
	}
	req := datastore.Request{ID: requestID(r.RequestId), Actor: callerOf(ctx).name, Reason: r.Reason, Schema: update}
	o, err := s.ds.Write(ctx, st.ID, req)
	if err != nil {
		return nil, err
	}
	return &pembav1.ApplySchemaResponse{
		Zookie: o.Zookie, Revision: uint64(o.Revision), Hash: hashText(compiled.Hash), Changed: before.SchemaHash() != compiled.Hash,
		Differences: differences(before.Schema(), compiled), Warnings: warnings(o.Warnings), RequestId: req.ID,
	}, nil
}

func (s *schemas) GetSchema(ctx context.Context, r *pembav1.GetSchemaRequest) (*pembav1.GetSchemaResponse, error) {
	snapshot, err := s.at(ctx, r.Store, r.Consistency)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	out := &pembav1.GetSchemaResponse{Zookie: snapshot.Zookie(), Hash: hashText(snapshot.SchemaHash())}
	if c := snapshot.Schema(); c != nil {
		out.Text = c.Text
	}
	return out, nil
}

func (s *schemas) DiffSchema(ctx context.Context, r *pembav1.DiffSchemaRequest) (*pembav1.DiffSchemaResponse, error) {
	compiled, warned, err := schema.Compile(schema.Source{Name: "schema", Text: r.Text}, nil, schema.Options{})
	if err != nil {
		return nil, err
	}
	snapshot, err := s.at(ctx, r.Store, r.Consistency)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	return &pembav1.DiffSchemaResponse{
		Zookie: snapshot.Zookie(), Hash: hashText(snapshot.SchemaHash()), NewHash: hashText(compiled.Hash),
		Differences: differences(snapshot.Schema(), compiled), Warnings: warnings(warned),
	}, nil
}

func (s *schemas) ReflectSchema(ctx context.Context, r *pembav1.ReflectSchemaRequest) (*pembav1.ReflectSchemaResponse, error) {
	snapshot, err := s.at(ctx, r.Store, r.Consistency)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	out := &pembav1.ReflectSchemaResponse{Zookie: snapshot.Zookie(), Hash: hashText(snapshot.SchemaHash())}
	if snapshot.Schema() == nil {
		return out, nil
	}
	for _, d := range snapshot.Schema().Definitions {
		def := &pembav1.Definition{Type: d.Type, Doc: d.Doc}
		for _, rel := range d.Relations {
			if rel.IsPermission() {
				def.Permissions = append(def.Permissions, &pembav1.PermissionDefinition{Permission: rel.Text, Doc: rel.Doc, Expression: rel.Expr.String()})
				continue
			}
			def.Relations = append(def.Relations, &pembav1.RelationDefinition{Relation: rel.Text, Doc: rel.Doc, Subjects: allowedSubjects(rel)})
		}
		out.Definitions = append(out.Definitions, def)
	}
	for _, c := range snapshot.Schema().Caveats {
		def := &pembav1.CaveatDefinition{Caveat: c.Name, Doc: c.Doc, Expression: c.Expression}
		for _, p := range c.Parameters {
			def.Parameters = append(def.Parameters, &pembav1.CaveatParameter{Name: p.Name, Type: p.Type})
		}
		out.Caveats = append(out.Caveats, def)
	}
	return out, nil
}

func allowedSubjects(r *schema.Relation) []*pembav1.AllowedSubject {
	var out []*pembav1.AllowedSubject
	for _, a := range r.Allowed {
		s := &pembav1.AllowedSubject{Type: a.Definition.Type, Wildcard: a.Wildcard, Expiration: a.Expiration}
		if a.Relation != nil {
			s.Relation = a.Relation.Text
		}
		if a.Caveat != nil {
			s.Caveat = a.Caveat.Name
		}
		out = append(out, s)
	}
	return out
}
