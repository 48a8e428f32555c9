package keeper

import (
	"slices"
	"strings"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// match calls f for every relationship that a filter selects, expired ones
// included, in no particular order, until f returns false. It is called while
// the head is held, so it reads only what an index leaves to be read: an
// object's or a subject's edges, or those of one type; and what the schema does
// not allow is not looked for.
func (s *state) match(filter tuple.Filter, f func(tuple.Relationship) bool) {
	if s.schema == nil {
		return // a store without a schema holds no relationship
	}
	if s.far != nil {
		s.far.match(filter, f)
		return
	}
	each := func(e edge) bool {
		if r := s.relationship(e); filter.Matches(r) {
			return f(r)
		}
		return true
	}
	switch {
	case filter.ObjectID != "":
		s.matchObject(filter, each)
	case filter.Subject.ID != "":
		s.matchSubject(filter, each)
	default:
		kinds := s.kinds(filter)
		subjects := s.dict.ofType(filter.Subject.Type)
		objects := 0
		for _, k := range kinds {
			objects += len(s.dict.ofType(k.typ))
		}
		if filter.Subject.Type != "" && len(subjects) <= objects {
			s.ascendFrom(s.backward, subjects, filter.Subject.IDPrefix, func(e edge) bool { return each(e.reversed()) })
			return
		}
		more := true
		for _, k := range kinds {
			if !more {
				return
			}
			s.ascendFrom(s.forward, s.dict.ofType(k.typ), filter.ObjectIDPrefix, func(e edge) bool {
				more = !slices.Contains(k.relations, e.relation) || each(e)
				return more
			})
		}
	}
}

func (s *state) matchObject(filter tuple.Filter, each func(edge) bool) {
	id, ok := s.dict.id(tuple.Object{Type: filter.ObjectType, ID: filter.ObjectID})
	if !ok {
		return
	}
	start := edge{from: id}
	if filter.Relation != "" {
		if start.relation, ok = s.names.ID(filter.Relation); !ok {
			return
		}
	}
	s.forward.ascend(start, func(e edge) bool {
		return e.from == id && (start.relation == 0 || e.relation == start.relation) && each(e)
	})
}

func (s *state) matchSubject(filter tuple.Filter, each func(edge) bool) {
	id, ok := s.dict.id(tuple.Object{Type: filter.Subject.Type, ID: filter.Subject.ID})
	if !ok {
		return
	}
	start, exact := edge{from: id}, filter.Subject.Relation != ""
	if exact && filter.Subject.Relation != tuple.Ellipsis {
		if start.userset, ok = s.names.ID(filter.Subject.Relation); !ok {
			return
		}
	}
	s.backward.ascend(start, func(e edge) bool {
		return e.from == id && (!exact || e.userset == start.userset) && each(e.reversed())
	})
}

// kind is a type of objects with those of its relations that are meant.
type kind struct {
	typ       string
	relations []schema.Name
}

// kinds returns the relations in which a filter can find anything, by what the
// schema allows. What is stored always fits the schema.
func (s *state) kinds(f tuple.Filter) []kind {
	var out []kind
	for _, d := range s.schema.Definitions {
		if f.ObjectType != "" && f.ObjectType != d.Type {
			continue
		}
		var relations []schema.Name
		for _, r := range d.Relations {
			if !r.IsPermission() && (f.Relation == "" || f.Relation == r.Text) && slices.ContainsFunc(r.Allowed, func(a schema.AllowedSubject) bool { return allows(a, f) }) {
				relations = append(relations, r.Name)
			}
		}
		if len(relations) > 0 {
			out = append(out, kind{d.Type, relations})
		}
	}
	return out
}

// allows reports whether a relationship of an alternative may match a filter.
func allows(a schema.AllowedSubject, f tuple.Filter) bool {
	relation, caveat := tuple.Ellipsis, ""
	if a.Relation != nil {
		relation = a.Relation.Text
	}
	if a.Caveat != nil {
		caveat = a.Caveat.Name
	}
	return (f.Subject.Type == "" || f.Subject.Type == a.Definition.Type) &&
		(f.Subject.Relation == "" || f.Subject.Relation == relation) &&
		(f.Caveat == "" || f.Caveat == caveat) &&
		(f.Expires == nil || *f.Expires == a.Expiration)
}

// ascendFrom calls f for the edges in an order that begin at one of the ids, which
// ascend, and whose text begins with prefix, until f returns false. Ids without
// edges are skipped, however many they are.
func (s *state) ascendFrom(in *edges, ids []datastore.ID, prefix string, f func(edge) bool) {
	for next := 0; next < len(ids); {
		jump := false
		in.ascend(edge{from: ids[next]}, func(e edge) bool {
			if e.from != ids[next] {
				step, _ := slices.BinarySearch(ids[next:], e.from)
				if next += step; next == len(ids) {
					return false
				}
				if ids[next] != e.from {
					jump = true
					return false
				}
			}
			if prefix != "" {
				if o, _ := s.dict.object(e.from); !strings.HasPrefix(o.ID, prefix) {
					next++
					jump = next < len(ids)
					return false
				}
			}
			return f(e)
		})
		if !jump {
			return
		}
	}
}
