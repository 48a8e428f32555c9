package main

import (
	"encoding/json"
	"fmt"
	"math/big"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

// From the nouns to the wire.

func objectToWire(o tuple.Object) *pb.Object { return &pb.Object{Type: o.Type, Id: o.ID} }

func subjectToWire(s tuple.Subject) *pb.Subject {
	return &pb.Subject{Type: s.Type, Id: s.ID, Relation: s.Relation}
}

func relationshipToWire(r tuple.Relationship) (*pb.Relationship, error) {
	w := &pb.Relationship{Resource: objectToWire(r.Object), Relation: r.Relation, Subject: subjectToWire(r.Subject)}
	if r.Caveat.Name != "" {
		context, err := contextToWire(r.Caveat.Context)
		if err != nil {
			return nil, err
		}
		w.Caveat = &pb.Caveat{Name: r.Caveat.Name, Context: context}
	}
	if !r.Expiration.IsZero() {
		w.Expiration = timestamppb.New(r.Expiration)
	}
	return w, nil
}

// contextToWire reads a caveat context, a JSON object; the empty text is none.
func contextToWire(text string) (*structpb.Struct, error) {
	canonical, err := tuple.CanonicalJSON(text)
	if err != nil || canonical == "" {
		return nil, err
	}
	d := json.NewDecoder(strings.NewReader(canonical))
	d.UseNumber()
	var fields map[string]any
	if err := d.Decode(&fields); err != nil {
		return nil, err
	}
	s, err := structpb.NewStruct(exact(fields).(map[string]any))
	if err != nil {
		return nil, fmt.Errorf("caveat context: %w", err)
	}
	return s, nil
}

// exact makes numbers doubles, and whole numbers that a double cannot hold the strings that caveats read them from.
func exact(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = exact(e)
		}
	case []any:
		for i, e := range v {
			v[i] = exact(e)
		}
	case json.Number:
		f, err := v.Float64()
		if err != nil {
			return v.String()
		}
		if whole, ok := new(big.Int).SetString(v.String(), 10); ok {
			if back, _ := new(big.Float).SetFloat64(f).Int(nil); back.Cmp(whole) != 0 {
				return v.String()
			}
		}
		return f
	}
	return v
}

func contextualToWire(texts []string) ([]*pb.Relationship, error) {
	var all []*pb.Relationship
	for _, t := range texts {
		r, err := tuple.Parse(t)
		if err != nil {
			return nil, usage(err)
		}
		w, err := relationshipToWire(r)
		if err != nil {
			return nil, usage(err)
		}
		all = append(all, w)
	}
	return all, nil
}

// From the wire to the nouns.

func objectFromWire(o *pb.Object) tuple.Object {
	return tuple.Object{Type: o.GetType(), ID: o.GetId()}
}

func subjectFromWire(s *pb.Subject) tuple.Subject {
	relation := s.GetRelation()
	if relation == tuple.Ellipsis {
		relation = ""
	}
	return tuple.Subject{Object: tuple.Object{Type: s.GetType(), ID: s.GetId()}, Relation: relation}
}

func relationshipFromWire(w *pb.Relationship) tuple.Relationship {
	r := tuple.Relationship{Key: tuple.Key{
		Object: objectFromWire(w.GetResource()), Relation: w.GetRelation(), Subject: subjectFromWire(w.GetSubject()),
	}}
	r.Caveat = caveatFromWire(w.GetCaveat())
	if w.GetExpiration() != nil {
		r.Expiration = tuple.Micros(w.GetExpiration().AsTime())
	}
	return r
}

func caveatFromWire(w *pb.Caveat) tuple.Caveat {
	c := tuple.Caveat{Name: w.GetName()}
	if fields := w.GetContext().AsMap(); len(fields) > 0 {
		// What came as a Struct can always be written as JSON.
		c.Context, _ = tuple.EncodeJSON(fields)
	}
	return c
}
