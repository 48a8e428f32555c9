package server

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/graph"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// The nouns of authzed.api.v1, translated. Their rules are those of pemba.v1, so
// its messages are the way there; the stubs' own rules, which are narrower, were
// applied before (see validateAuthzed).

// storeKey is the metadata key with which a client of authzed.api.v1, whose
// requests cannot name a store, asks for another one than `default`.
const storeKey = "pemba-store"

func storeKeys(ctx context.Context) []string { return metadata.ValueFromIncomingContext(ctx, storeKey) }

// authzedStore is the store that a call of authzed.api.v1 is about.
func (s *Server) authzedStore(ctx context.Context) (datastore.Store, error) {
	given := storeKeys(ctx)
	if len(given) > 1 {
		return datastore.Store{}, withReason(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_STORE,
			"the metadata key "+storeKey+" names more than one store; name one")
	}
	name := ""
	if len(given) == 1 {
		name = given[0]
	}
	return s.store(ctx, name)
}

func authzedConsistency(c *authzedv1.Consistency) datastore.Consistency {
	switch r := c.GetRequirement().(type) {
	case *authzedv1.Consistency_AtLeastAsFresh:
		return datastore.Consistency{Level: datastore.AtLeastAsFresh, Zookie: r.AtLeastAsFresh.GetToken()}
	case *authzedv1.Consistency_AtExactSnapshot:
		return datastore.Consistency{Level: datastore.AtExactSnapshot, Zookie: r.AtExactSnapshot.GetToken()}
	case *authzedv1.Consistency_FullyConsistent:
		return datastore.Consistency{Level: datastore.FullyConsistent}
	}
	return datastore.Consistency{}
}

// authzedAt is the snapshot that a question of authzed.api.v1 is answered at.
func (s *Server) authzedAt(ctx context.Context, c *authzedv1.Consistency) (datastore.Snapshot, error) {
	st, err := s.authzedStore(ctx)
	if err != nil {
		return nil, err
	}
	return s.snapshot(ctx, st.ID, authzedConsistency(c))
}

func zedToken(zookie string) *authzedv1.ZedToken { return &authzedv1.ZedToken{Token: zookie} }

func objectIn(o *authzedv1.ObjectReference) *pembav1.Object {
	return &pembav1.Object{Type: o.GetObjectType(), Id: o.GetObjectId()}
}

// objectAsked reads an object of a question.
func objectAsked(o *authzedv1.ObjectReference, field string) (tuple.Object, error) {
	out := tuple.Object{Type: o.GetObjectType(), ID: o.GetObjectId()}
	if err := out.Check(); err != nil {
		return out, badField(pembav1.ErrorReason_ERROR_REASON_INVALID_OBJECT, field, err)
	}
	return out, nil
}

// subjectAsked reads the subject of a question.
func subjectAsked(s *authzedv1.SubjectReference) (tuple.Subject, error) {
	out := tuple.Subject{Object: tuple.Object{Type: s.GetObject().GetObjectType(), ID: s.GetObject().GetObjectId()}, Relation: s.GetOptionalRelation()}
	if err := out.Check(); err != nil {
		return out, badField(pembav1.ErrorReason_ERROR_REASON_INVALID_SUBJECT, "subject", err)
	}
	return out, nil
}

func objectOut(o tuple.Object) *authzedv1.ObjectReference {
	return &authzedv1.ObjectReference{ObjectType: o.Type, ObjectId: o.ID}
}

func subjectIn(s *authzedv1.SubjectReference) *pembav1.Subject {
	return &pembav1.Subject{Type: s.GetObject().GetObjectType(), Id: s.GetObject().GetObjectId(), Relation: s.GetOptionalRelation()}
}

func subjectOut(s tuple.Subject) *authzedv1.SubjectReference {
	return &authzedv1.SubjectReference{Object: objectOut(s.Object), OptionalRelation: s.Relation}
}

// authzedRelationship reads a relationship that is to be written. An error names
// it.
func (s *Server) authzedRelationship(r *authzedv1.Relationship, field string) (tuple.Relationship, error) {
	in := &pembav1.Relationship{
		Resource: objectIn(r.GetResource()), Relation: r.GetRelation(), Subject: subjectIn(r.GetSubject()), Expiration: r.GetOptionalExpiresAt(),
	}
	if c := r.GetOptionalCaveat(); c != nil {
		in.Caveat = &pembav1.Caveat{Name: c.CaveatName, Context: c.Context}
	}
	out, err := s.relationship(in, field)
	if err == nil {
		return out, nil
	}
	size := 0
	if b, failed := json.Marshal(in.Caveat.GetContext().AsMap()); failed == nil {
		size = len(b)
	}
	if _, ok := err.(statusError); !ok {
		err = datastore.With(err, "relationship", out.Key.String(), "context_size", strconv.Itoa(size))
	}
	return out, err
}

func relationshipOut(r *tuple.Relationship) *authzedv1.Relationship {
	out := &authzedv1.Relationship{Resource: objectOut(r.Object), Relation: r.Relation, Subject: subjectOut(r.Subject)}
	if r.Caveat.Name != "" {
		out.OptionalCaveat = &authzedv1.ContextualizedCaveat{CaveatName: r.Caveat.Name}
		if r.Caveat.Context != "" {
			out.OptionalCaveat.Context = jsonStruct(r.Caveat.Context)
		}
	}
	if !r.Expiration.IsZero() {
		out.OptionalExpiresAt = timestamppb.New(r.Expiration)
	}
	return out
}

// authzedFilter reads a filter; one that selects everything only where all may be
// meant.
func authzedFilter(f *authzedv1.RelationshipFilter, all bool) (tuple.Filter, error) {
	in := &pembav1.RelationshipFilter{
		ResourceType: f.GetResourceType(), ResourceId: f.GetOptionalResourceId(), ResourceIdPrefix: f.GetOptionalResourceIdPrefix(),
		Relation: f.GetOptionalRelation(),
	}
	if s := f.GetOptionalSubjectFilter(); s != nil {
		in.Subject = &pembav1.SubjectFilter{Type: s.SubjectType, Id: s.OptionalSubjectId}
		if s.OptionalRelation != nil {
			in.Subject.Relation = &s.OptionalRelation.Relation
		}
	}
	out, err := filter(in)
	if err == nil && out.IsZero() && !all {
		err = withReason(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_FILTER, "the filter has no field; set at least one")
	}
	if err != nil {
		return out, withFact(err, "filter", out.String())
	}
	return out, nil
}

// filterNames refuses a filter that names what the schema lacks: it would match
// nothing, and surely was meant to match something.
func filterNames(s *schema.Schema, f tuple.Filter) error {
	if f.ObjectType != "" {
		if err := namesKnown(s, f.ObjectType, f.Relation); err != nil {
			return err
		}
	}
	if f.Subject.Type == "" {
		return nil
	}
	relation := f.Subject.Relation
	if relation == tuple.Ellipsis {
		relation = ""
	}
	return namesKnown(s, f.Subject.Type, relation)
}

// namesKnown refuses a type, or a relation or permission of it unless empty, that
// the schema lacks.
func namesKnown(s *schema.Schema, typ, relation string) error {
	var d *schema.Definition
	if s != nil {
		d = s.Definition(typ)
	}
	switch {
	case d == nil:
		return datastore.With(fmt.Errorf("%w: the schema has no definition %q", schema.ErrUnknownType, typ), "type", typ)
	case relation != "" && d.Relation(relation) == nil:
		return datastore.With(fmt.Errorf("%w: definition %q has no relation or permission %q", schema.ErrUnknownRelation, typ, relation), "type", typ, "relation", relation)
	}
	return nil
}

// name is a type, or a relation or permission of it, that a question names.
type name struct{ typ, relation string }

// withNames tells an error of a question about the names that the schema lacks
// which they are.
func withNames(err error, s *schema.Schema, names ...name) error {
	if err == nil {
		return nil
	}
	for _, n := range names {
		if unknown := namesKnown(s, n.typ, n.relation); unknown != nil {
			return unknown
		}
	}
	return err
}

func (s *Server) authzedPreconditions(ps []*authzedv1.Precondition) ([]datastore.Precondition, error) {
	if err := atMost(len(ps), s.limits.Preconditions, "max-preconditions", "preconditions in one request", "use fewer, broader ones"); err != nil {
		return nil, datastore.With(err, "count", strconv.Itoa(len(ps)))
	}
	out := make([]datastore.Precondition, len(ps))
	for i, p := range ps {
		f, err := authzedFilter(p.GetFilter(), true)
		if err != nil {
			return nil, err
		}
		if f.IsZero() {
			return nil, authzedProblem(codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_EMPTY_PRECONDITION,
				fmt.Sprintf("precondition %d has a filter without any field; set at least one", i))
		}
		out[i] = datastore.Precondition{Filter: f, MustMatch: p.Operation == authzedv1.Precondition_OPERATION_MUST_MATCH}
	}
	return out, nil
}

// transactionMetadata is what a writer attaches, as a change keeps it.
func transactionMetadata(m *structpb.Struct) (string, error) {
	if m == nil {
		return "", nil
	}
	b, err := json.Marshal(m.AsMap())
	if err == nil {
		var text string
		if text, err = tuple.CanonicalJSON(string(b)); err == nil {
			return text, nil
		}
	}
	return "", badField(pembav1.ErrorReason_ERROR_REASON_INVALID_FIELD, "optional_transaction_metadata", err)
}

func permissionship(a graph.Answer) authzedv1.CheckPermissionResponse_Permissionship {
	switch a.Outcome {
	case graph.Yes:
		return authzedv1.CheckPermissionResponse_PERMISSIONSHIP_HAS_PERMISSION
	case graph.Conditional:
		return authzedv1.CheckPermissionResponse_PERMISSIONSHIP_CONDITIONAL_PERMISSION
	}
	return authzedv1.CheckPermissionResponse_PERMISSIONSHIP_NO_PERMISSION
}

func partialCaveat(a graph.Answer) *authzedv1.PartialCaveatInfo {
	if a.Outcome != graph.Conditional {
		return nil
	}
	return &authzedv1.PartialCaveatInfo{MissingRequiredContext: a.Missing}
}
