package server

import (
	"encoding/json"
	"fmt"
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
	return problem(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_MISSING_FIELD, "the field %s is missing", field)
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
	}
	return datastore.Consistency{}, nil
}

func object(o *pembav1.Object, field string) (tuple.Object, error) {
	if o == nil {
		return tuple.Object{}, missing(field)
	}
	out := tuple.Object{Type: o.Type, ID: o.Id}
	if err := out.Check(); err != nil {
		return out, problem(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_OBJECT, "%s: %v", field, err)
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
		return out, problem(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_SUBJECT, "%s: %v", field, err)
	}
	return out, nil
}

func (s *Server) caveat(c *pembav1.Caveat) (tuple.Caveat, error) {
	out := tuple.Caveat{Name: c.GetName()}
	if c.GetContext() == nil {
		return out, nil
	}
	b, err := json.Marshal(c.Context.AsMap())
	if err != nil {
		return out, problem(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_CONTEXT, "the context of caveat %q: %v", c.Name, err)
	}
	if len(b) > s.config.MaxContextBytes {
		return out, problem(codes.ResourceExhausted, pembav1.ErrorReason_ERROR_REASON_LIMIT_EXCEEDED,
			"the context of caveat %q has %d bytes, more than %d", c.Name, len(b), s.config.MaxContextBytes)
	}
	out.Context, err = tuple.CanonicalJSON(string(b))
	return out, err
}

func expiration(t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, problem(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_RELATIONSHIP, "expiration: %v", err)
	}
	return tuple.Micros(t.AsTime()), nil
}

func (s *Server) relationship(r *pembav1.Relationship, field string) (out tuple.Relationship, err error) {
	if r == nil {
		return out, missing(field)
	}
	if out.Object, err = object(r.Resource, field+".resource"); err != nil {
		return out, err
	}
	out.Relation = r.Relation
	if out.Subject, err = subject(r.Subject, field+".subject"); err != nil {
		return out, err
	}
	if out.Caveat, err = s.caveat(r.Caveat); err != nil {
		return out, err
	}
	if out.Expiration, err = expiration(r.Expiration); err != nil {
		return out, err
	}
	if err := out.Check(); err != nil {
		return out, problem(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_RELATIONSHIP, "%s: %v", field, err)
	}
	return out, nil
}

func (s *Server) relationships(rs []*pembav1.Relationship, field string) ([]tuple.Relationship, error) {
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

func (s *Server) context(c *structpb.Struct) (schema.Context, error) {
	if c == nil {
		return schema.Context{}, nil
	}
	return schema.ContextFromMap(c.AsMap())
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
			out.Caveat.Context = &structpb.Struct{}
			if err := out.Caveat.Context.UnmarshalJSON([]byte(r.Caveat.Context)); err != nil {
				out.Caveat.Context = nil // stored contexts are objects; a damaged one is found by verify
			}
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
		return out, problem(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_FILTER, "%v", err)
	}
	return out, nil
}

func preconditions(ps []*pembav1.Precondition) ([]datastore.Precondition, error) {
	var out []datastore.Precondition
	for i, p := range ps {
		f, must := p.GetMustMatch(), true
		if f == nil {
			f, must = p.GetMustNotMatch(), false
		}
		if f == nil {
			return nil, missing(fmt.Sprintf("preconditions[%d].condition", i))
		}
		t, err := filter(f)
		if err != nil {
			return nil, err
		}
		out = append(out, datastore.Precondition{Filter: t, MustMatch: must})
	}
	return out, nil
}
