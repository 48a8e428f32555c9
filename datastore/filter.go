package datastore

import (
	"fmt"

	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// QueryFor is the query by which a filter's rows are found with the least reading:
// in order of their subjects where that is what the filter fixes.
func QueryFor(f tuple.Filter) RowQuery {
	return RowQuery{Filter: f, BySubject: f.ObjectID == "" && f.Subject.Type != "" && (f.ObjectType == "" || f.Subject.ID != "")}
}

// CheckFilter refuses a filter that names a type, relation or caveat which the
// schema does not have, so that a misspelt name does not pass for "nothing is
// there": a schema holds everything that is stored. Without a schema nothing is
// refused. Errors wrap schema.ErrUnknownType, ErrUnknownRelation, ErrPermission or
// ErrUnknownCaveat.
func CheckFilter(s *schema.Schema, f tuple.Filter) error {
	if s == nil {
		return nil
	}
	for _, typ := range []string{f.ObjectType, f.Subject.Type} {
		if typ != "" && s.Definition(typ) == nil {
			return unknownType(s, typ)
		}
	}
	if err := relationKnown(s, f.ObjectType, f.Relation, false); err != nil {
		return err
	}
	if r := f.Subject.Relation; r != tuple.Ellipsis {
		if err := relationKnown(s, f.Subject.Type, r, true); err != nil {
			return err
		}
	}
	if f.Caveat != "" && s.Caveat(f.Caveat) == nil {
		all := make([]string, len(s.Caveats))
		for i, c := range s.Caveats {
			all[i] = c.Name
		}
		return With(fmt.Errorf("%w: the schema has no caveat %q%s", schema.ErrUnknownCaveat, f.Caveat, meant(f.Caveat, all)), "caveat", f.Caveat)
	}
	return nil
}

func unknownType(s *schema.Schema, typ string) error {
	all := make([]string, len(s.Definitions))
	for i, d := range s.Definitions {
		all[i] = d.Type
	}
	return With(fmt.Errorf("%w: the schema has no definition %q%s", schema.ErrUnknownType, typ, meant(typ, all)), "type", typ)
}

// relationKnown looks for a relation of a type, or of any type where typ is empty.
// A permission stores nothing, but may be the relation of a subject.
func relationKnown(s *schema.Schema, typ, relation string, permission bool) error {
	if relation == "" {
		return nil
	}
	var all []string
	computed := false
	for _, d := range s.Definitions {
		if typ != "" && d.Type != typ {
			continue
		}
		if r := d.Relation(relation); r != nil {
			if permission || !r.IsPermission() {
				return nil
			}
			computed = true
		}
		for _, r := range d.Relations {
			if permission || !r.IsPermission() {
				all = append(all, r.Text)
			}
		}
	}
	err := fmt.Errorf("%w: no type has a relation %q%s", schema.ErrUnknownRelation, relation, meant(relation, all))
	switch {
	case computed:
		err = fmt.Errorf("%w: %s is computed, and nothing is stored under it; name the relations it is made of", schema.ErrPermission, relation)
	case typ != "":
		err = fmt.Errorf("%w: %s has no relation %q%s", schema.ErrUnknownRelation, typ, relation, meant(relation, all))
	}
	return With(err, "type", typ, "relation", relation)
}

func meant(name string, all []string) string {
	if n := schema.Nearest(name, all); n != "" {
		return fmt.Sprintf("; did you mean %q?", n)
	}
	return ""
}
