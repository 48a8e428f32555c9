package tuple

import "strings"

// Filter selects relationships. Empty fields select everything; all that are
// set must hold.
type Filter struct {
	ObjectType     string
	ObjectID       string
	ObjectIDPrefix string
	Relation       string
	Subject        SubjectFilter
	// Caveat selects relationships with the caveat of that name.
	Caveat string
	// Expires, if not nil, selects relationships that have an expiration, or those
	// that have none.
	Expires *bool
}

// SubjectFilter selects subjects.
type SubjectFilter struct {
	Type     string
	ID       string // may be the wildcard
	IDPrefix string
	// Relation selects usersets of that relation; [Ellipsis] selects subjects
	// without one.
	Relation string
}

// IsZero reports whether f selects every relationship.
func (f Filter) IsZero() bool { return f == Filter{} }

// Check returns nil if f can select anything. An id without a type is refused:
// ids mean nothing without their type.
func (f Filter) Check() error {
	fail := func(format string, args ...any) error {
		return invalid("filter", f.String(), format, args...)
	}
	if f.ObjectType != "" {
		if err := CheckType(f.ObjectType); err != nil {
			return err
		}
	} else if f.ObjectID != "" || f.ObjectIDPrefix != "" {
		return fail("has an object id but no object type")
	}
	if f.ObjectID != "" {
		if f.ObjectIDPrefix != "" {
			return fail("has both an object id and an id prefix; give one")
		}
		if err := CheckID(f.ObjectID); err != nil {
			return err
		}
	}
	if err := CheckIDPrefix(f.ObjectIDPrefix); err != nil {
		return err
	}
	if f.Relation != "" {
		if err := CheckRelation(f.Relation); err != nil {
			return err
		}
	}
	if f.Caveat != "" {
		if err := CheckCaveatName(f.Caveat); err != nil {
			return err
		}
	}
	return f.Subject.check(fail)
}

func (f SubjectFilter) check(fail func(string, ...any) error) error {
	if f.Type != "" {
		if err := CheckType(f.Type); err != nil {
			return err
		}
	} else if f.ID != "" || f.IDPrefix != "" {
		return fail("has a subject id but no subject type")
	}
	if f.ID != "" {
		if f.IDPrefix != "" {
			return fail("has both a subject id and an id prefix; give one")
		}
		if err := checkIDBytes("id", f.ID); err != nil {
			return err
		}
	}
	if err := CheckIDPrefix(f.IDPrefix); err != nil {
		return err
	}
	if f.Relation != "" && f.Relation != Ellipsis {
		return CheckRelation(f.Relation)
	}
	return nil
}

// Matches reports whether f selects r.
func (f Filter) Matches(r Relationship) bool {
	return matches(f.ObjectType, r.Object.Type) &&
		matches(f.ObjectID, r.Object.ID) &&
		strings.HasPrefix(r.Object.ID, f.ObjectIDPrefix) &&
		matches(f.Relation, r.Relation) &&
		matches(f.Caveat, r.Caveat.Name) &&
		(f.Expires == nil || *f.Expires != r.Expiration.IsZero()) &&
		f.Subject.Matches(r.Subject)
}

// Matches reports whether f selects s.
func (f SubjectFilter) Matches(s Subject) bool {
	return matches(f.Type, s.Type) &&
		matches(f.ID, s.ID) &&
		strings.HasPrefix(s.ID, f.IDPrefix) &&
		(f.Relation == Ellipsis && s.Relation == "" || matches(f.Relation, s.Relation))
}

func matches(want, have string) bool { return want == "" || want == have }

// String prints f as a relationship with a * for whatever is not set and a
// trailing * for a prefix.
func (f Filter) String() string {
	var b strings.Builder
	part := func(exact, prefix string) {
		switch {
		case exact != "":
			b.WriteString(exact)
		default:
			b.WriteString(prefix + "*")
		}
	}
	part(f.ObjectType, "")
	b.WriteByte(':')
	part(f.ObjectID, f.ObjectIDPrefix)
	b.WriteByte('#')
	part(f.Relation, "")
	b.WriteByte('@')
	part(f.Subject.Type, "")
	b.WriteByte(':')
	part(f.Subject.ID, f.Subject.IDPrefix)
	if f.Subject.Relation != "" {
		b.WriteString("#" + f.Subject.Relation)
	}
	if f.Caveat != "" {
		b.WriteString("[" + f.Caveat + "]")
	}
	return b.String()
}
