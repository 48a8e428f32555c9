package server

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

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
	if new == nil {
		return nil
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
	if err := checkRequest(r.RequestId, r.Reason, maxRequestID); err != nil {
		return nil, err
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
			return nil, invalidField("expected_hash", "expected_hash must be a hash as GetSchema gives it, or empty for no schema")
		}
		copy(h[:], b)
		update.Expected = &h
	}
	req := datastore.Request{ID: requestID(r.RequestId), Actor: callerOf(ctx).name, Reason: r.Reason, Schema: update}
	o, err := s.ds.Write(ctx, st.ID, req)
	if err != nil {
		return nil, err
	}
	out := &pembav1.ApplySchemaResponse{
		Zookie: o.Zookie, Revision: uint64(o.Revision), Hash: hashText(o.Schema.Hash), Changed: o.Schema.Changed,
		Differences: differences(o.Schema.Before, o.Schema.After), Warnings: warnings(o.Warnings),
	}
	if o.Schema.Changed && !r.DryRun {
		out.RequestId = req.ID
	}
	if o.Repeated {
		out.Differences, err = s.appliedAt(ctx, st.ID, o.Revision)
	}
	return out, err
}

// appliedAt returns what the schema applied at a revision changed; nothing where
// that revision is no longer kept.
func (s *schemas) appliedAt(ctx context.Context, store datastore.StoreID, at datastore.Revision) ([]*pembav1.SchemaDifference, error) {
	var schemas [2]*schema.Schema
	for i := range schemas {
		head, err := s.ds.HeadAt(ctx, store, at-1+datastore.Revision(i))
		if err == nil {
			var snapshot datastore.Snapshot
			snapshot, err = s.ds.At(ctx, store, datastore.Consistency{Level: datastore.AtExactSnapshot, Zookie: head.Zookie(store).String()})
			if err == nil {
				schemas[i] = snapshot.Schema()
				snapshot.Close()
			}
		}
		if errors.Is(err, datastore.ErrCompacted) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return differences(schemas[0], schemas[1]), nil
}

func (s *schemas) GetSchema(ctx context.Context, r *pembav1.GetSchemaRequest) (*pembav1.GetSchemaResponse, error) {
	snapshot, _, err := s.at(ctx, r.Store, r.Consistency)
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
	if len(r.Text) > s.limits.SchemaBytes {
		return nil, datastore.OverLimit("max-schema-bytes", s.limits.SchemaBytes, fmt.Sprintf("schema of %d bytes", len(r.Text)), "split it into stores, or raise the limit")
	}
	compiled, warned, err := schema.Compile(schema.Source{Name: "schema", Text: r.Text}, nil, schema.Options{MaxBytes: s.limits.SchemaBytes, Context: ctx})
	if err != nil {
		return nil, err
	}
	snapshot, _, err := s.at(ctx, r.Store, r.Consistency)
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
	snapshot, _, err := s.at(ctx, r.Store, r.Consistency)
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
