package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

func missing(field string) error {
	return withReason(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_MISSING_FIELD, "the field "+field+" is missing", "field", field)
}

// badField is the error of a field that breaks a rule of package tuple.
func badField(reason pembav1.ErrorReason, field string, err error) error {
	return withReason(codes.InvalidArgument, reason, field+": "+err.Error(), "field", field)
}

func consistency(c *pembav1.Consistency) (datastore.Consistency, error) {
	switch r := c.GetRequirement().(type) {
	case *pembav1.Consistency_AtLeastAsFresh:
		return datastore.Consistency{Level: datastore.AtLeastAsFresh, Zookie: r.AtLeastAsFresh}, nil
	case *pembav1.Consistency_AtExactSnapshot:
		return datastore.Consistency{Level: datastore.AtExactSnapshot, Zookie: r.AtExactSnapshot}, nil
	case *pembav1.Consistency_FullyConsistent:
		if r.FullyConsistent {
			return datastore.Consistency{Level: datastore.FullyConsistent}, nil
		}
	case *pembav1.Consistency_AtTime:
		return datastore.Consistency{}, invalidField("consistency.at_time", "consistency.at_time is for questions about permissions and schemas; here, name a revision with at_exact_snapshot")
	}
	return datastore.Consistency{}, nil
}

func object(o *pembav1.Object, field string) (tuple.Object, error) {
	if o == nil {
		return tuple.Object{}, missing(field)
	}
	out := tuple.Object{Type: o.Type, ID: o.Id}
	if err := out.Check(); err != nil {
		return out, badField(pembav1.ErrorReason_ERROR_REASON_INVALID_OBJECT, field, err)
	}
	return out, nil
}

func subject(s *pembav1.Subject, field string) (tuple.Subject, error) {
	if s == nil {
		return tuple.Subject{}, missing(field)
	}
	out := tuple.Subject{Object: tuple.Object{Type: s.Type, ID: s.Id}, Relation: s.Relation}
	if out.Relation == tuple.Ellipsis {
		out.Relation = ""
	}
	if err := out.Check(); err != nil {
		return out, badField(pembav1.ErrorReason_ERROR_REASON_INVALID_SUBJECT, field, err)
	}
	return out, nil
}

func (s *Server) caveat(c *pembav1.Caveat, field string) (tuple.Caveat, error) {
	out := tuple.Caveat{Name: c.GetName()}
	if c != nil && c.Name == "" {
		return out, missing(field + ".name")
	}
	if c.GetContext() == nil {
		return out, nil
	}
	if _, err := s.context(c.Context, field+".context"); err != nil {
		return out, err
	}
	b, err := json.Marshal(c.Context.AsMap())
	if err != nil {
		return out, badField(pembav1.ErrorReason_ERROR_REASON_INVALID_RELATIONSHIP, field+".context", err)
	}
	if len(b) > s.limits.ContextBytes {
		return out, datastore.With(datastore.OverLimit("max-context-bytes", s.limits.ContextBytes,
			fmt.Sprintf("%s.context of %d bytes", field, len(b)), "write only the fields that the caveat needs"), "field", field+".context")
	}
	if out.Context, err = tuple.CanonicalJSON(string(b)); err != nil {
		return out, badField(pembav1.ErrorReason_ERROR_REASON_INVALID_RELATIONSHIP, field+".context", err)
	}
	return out, nil
}

func expiration(t *timestamppb.Timestamp, field string) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, badField(pembav1.ErrorReason_ERROR_REASON_INVALID_RELATIONSHIP, field, err)
	}
	at := tuple.Micros(t.AsTime())
	if at.IsZero() { // the zero time means none inside the house; here it was given
		return at, badField(pembav1.ErrorReason_ERROR_REASON_INVALID_RELATIONSHIP, field,
			errors.New("is 0001-01-01T00:00:00Z, a time that was never set; leave it out for no expiration"))
	}
	return at, nil
}

func (s *Server) relationship(r *pembav1.Relationship, field string) (out tuple.Relationship, err error) {
	if r == nil {
		return out, missing(field)
	}
	if out.Object, err = object(r.Resource, field+".resource"); err != nil {
		return out, err
	}
	if out.Relation = r.Relation; r.Relation == "" {
		return out, missing(field + ".relation")
	}
	if err := tuple.CheckRelation(r.Relation); err != nil {
		return out, badField(pembav1.ErrorReason_ERROR_REASON_INVALID_RELATION, field+".relation", err)
	}
	if out.Subject, err = subject(r.Subject, field+".subject"); err != nil {
		return out, err
	}
	if out.Caveat, err = s.caveat(r.Caveat, field+".caveat"); err != nil {
		return out, err
	}
	if out.Expiration, err = expiration(r.Expiration, field+".expiration"); err != nil {
		return out, err
	}
	if err := out.Check(); err != nil {
		return out, badField(pembav1.ErrorReason_ERROR_REASON_INVALID_RELATIONSHIP, field, err)
	}
	return out, nil
}

// contextual reads the contextual relationships of a question.
func (s *Server) contextual(rs []*pembav1.Relationship) ([]tuple.Relationship, error) {
	const field = "contextual_relationships"
	if err := atMost(len(rs), s.limits.Contextual, "max-contextual", "contextual relationships in one request", "write them, or ask in parts"); err != nil {
		return nil, err
	}
	var out []tuple.Relationship
	for i, r := range rs {
		rel, err := s.relationship(r, fmt.Sprintf("%s[%d]", field, i))
		if err != nil {
			return nil, err
		}
		out = append(out, rel)
	}
	return out, nil
}

// context reads a caveat context.
func (s *Server) context(c *structpb.Struct, field string) (schema.Context, error) {
	if c == nil {
		return schema.Context{}, nil
	}
	limits := s.limits.context()
	given, err := limits.FromMap(c.AsMap())
	if err != nil {
		return given, datastore.With(fmt.Errorf("%s: %w (max-context-bytes %d, max-context-depth %d)", field, err, limits.Bytes, limits.Depth),
			"field", field, "limit", "max-context-bytes", "maximum", strconv.Itoa(limits.Bytes))
	}
	return given, nil
}

// jsonStruct is a stored JSON object. What is stored is one; one that was damaged
// is found by verify, and nil here.
func jsonStruct(text string) *structpb.Struct {
	out := &structpb.Struct{}
	if err := out.UnmarshalJSON([]byte(text)); err != nil {
		return nil
	}
	return out
}

func relationshipProto(r *tuple.Relationship) *pembav1.Relationship {
	if r == nil {
		return nil
	}
	out := &pembav1.Relationship{
		Resource: &pembav1.Object{Type: r.Object.Type, Id: r.Object.ID},
		Relation: r.Relation,
		Subject:  &pembav1.Subject{Type: r.Subject.Type, Id: r.Subject.ID, Relation: r.Subject.Relation},
	}
	if r.Caveat.Name != "" {
		out.Caveat = &pembav1.Caveat{Name: r.Caveat.Name}
		if r.Caveat.Context != "" {
			out.Caveat.Context = jsonStruct(r.Caveat.Context)
		}
	}
	if !r.Expiration.IsZero() {
		out.Expiration = timestamppb.New(r.Expiration)
	}
	return out
}

func filter(f *pembav1.RelationshipFilter) (tuple.Filter, error) {
	out := tuple.Filter{
		ObjectType: f.GetResourceType(), ObjectID: f.GetResourceId(), ObjectIDPrefix: f.GetResourceIdPrefix(),
		Relation: f.GetRelation(), Caveat: f.GetCaveat(),
	}
	if f != nil && f.Expires != nil {
		out.Expires = f.Expires
	}
	if s := f.GetSubject(); s != nil {
		out.Subject = tuple.SubjectFilter{Type: s.Type, ID: s.Id, IDPrefix: s.IdPrefix}
		if s.Relation != nil {
			if out.Subject.Relation = *s.Relation; *s.Relation == "" {
				out.Subject.Relation = tuple.Ellipsis
			}
		}
	}
	if err := out.Check(); err != nil {
		return out, badField(pembav1.ErrorReason_ERROR_REASON_INVALID_FILTER, "filter", err)
	}
	return out, nil
}

// someFilter is filter where one without any field would mean everything by
// mistake.
func someFilter(f *pembav1.RelationshipFilter, field string) (tuple.Filter, error) {
	out, err := filter(f)
	if err == nil && out.IsZero() {
		err = withReason(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_FILTER, field+" needs at least one field", "field", field)
	}
	return out, err
}

func (s *Server) preconditions(ps []*pembav1.Precondition) ([]datastore.Precondition, error) {
	if err := atMost(len(ps), s.limits.Preconditions, "max-preconditions", "preconditions in one request", "use fewer, broader ones"); err != nil {
		return nil, err
	}
	var out []datastore.Precondition
	for i, p := range ps {
		f, must := p.GetMustMatch(), true
		if f == nil {
			f, must = p.GetMustNotMatch(), false
		}
		if f == nil {
			return nil, missing(fmt.Sprintf("preconditions[%d].condition", i))
		}
		t, err := someFilter(f, fmt.Sprintf("preconditions[%d]", i))
		if err != nil {
			return nil, err
		}
		out = append(out, datastore.Precondition{Filter: t, MustMatch: must})
	}
	return out, nil
}
