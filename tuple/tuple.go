// Package tuple holds the nouns that everybody in Pemba shares: objects,
// subjects, relationships and filters over them, with their one text form.
//
//	document:readme#viewer@user:ada
//	document:readme#viewer@group:eng#member
//	document:readme#viewer@user:*
//	document:readme#viewer@user:ada[on_weekday:{"tz":"UTC"}]
//	document:readme#viewer@user:ada[expiration:2027-01-01T00:00:00Z]
//
// Parsing and printing round-trip exactly: what Parse accepts, String prints in
// canonical form, and the canonical form parses to the same value.
package tuple

import (
	"cmp"
	"strings"
	"time"
)

// Wildcard is the id that stands for every object of a type, as a subject only.
const Wildcard = "*"

// Ellipsis is the relation text that means "no relation" in a subject.
const Ellipsis = "..."

// Object is a thing that relationships are about: `document:readme`.
type Object struct {
	Type string
	ID   string
}

// Subject is who a relationship grants to: an object (`user:ada`), a userset
// (`group:eng#member`) or everybody of a type (`user:*`).
type Subject struct {
	Object
	// Relation is empty unless the subject is a userset.
	Relation string
}

// Caveat names the condition of a relationship and holds the part of its
// context that was written with it.
type Caveat struct {
	// Name is empty where a relationship has no caveat.
	Name string
	// Context is a JSON object in canonical form (see [CanonicalJSON]), or empty.
	Context string
}

// Key is a relationship's identity. Two relationships with the same Key are the
// same relationship, whatever their caveats and expirations.
type Key struct {
	Object   Object
	Relation string
	Subject  Subject
}

// Relationship says that a subject has a relation to an object.
type Relationship struct {
	Key
	Caveat Caveat
	// Expiration is the time from which the relationship no longer exists, in UTC
	// with microsecond resolution; the zero time means never.
	Expiration time.Time
}

// Micros gives a time the resolution in which Pemba keeps times: UTC, truncated
// to microseconds, without a monotonic reading.
func Micros(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.UnixMicro(t.UnixMicro()).UTC()
}

// IsWildcard reports whether s stands for every object of its type.
func (s Subject) IsWildcard() bool { return s.ID == Wildcard }

// Expired reports whether r no longer exists at now.
func (r Relationship) Expired(now time.Time) bool {
	return !r.Expiration.IsZero() && !now.Before(r.Expiration)
}

// Equal reports whether r and s are the same in every part.
func (r Relationship) Equal(s Relationship) bool {
	return r.Key == s.Key && r.Caveat == s.Caveat && r.Expiration.Equal(s.Expiration)
}

func (o Object) String() string { return o.Type + ":" + o.ID }

func (s Subject) String() string {
	if s.Relation == "" {
		return s.Object.String()
	}
	return s.Object.String() + "#" + s.Relation
}

func (k Key) String() string {
	return k.Object.String() + "#" + k.Relation + "@" + k.Subject.String()
}

func (c Caveat) String() string {
	switch {
	case c.Name == "":
		return ""
	case c.Context == "":
		return "[" + c.Name + "]"
	}
	return "[" + c.Name + ":" + c.Context + "]"
}

// String prints r in canonical form, the one that Parse reads.
func (r Relationship) String() string {
	var b strings.Builder
	b.WriteString(r.Key.String())
	b.WriteString(r.Caveat.String())
	if !r.Expiration.IsZero() {
		b.WriteString("[expiration:")
		b.WriteString(r.Expiration.UTC().Format(time.RFC3339Nano))
		b.WriteString("]")
	}
	return b.String()
}

// Compare orders objects by the bytes of type, then id.
func (o Object) Compare(p Object) int {
	return cmp.Or(strings.Compare(o.Type, p.Type), strings.Compare(o.ID, p.ID))
}

// Compare orders subjects by the bytes of type, id, then relation.
func (s Subject) Compare(t Subject) int {
	return cmp.Or(s.Object.Compare(t.Object), strings.Compare(s.Relation, t.Relation))
}

// Compare orders keys by the bytes of object, relation, then subject.
func (k Key) Compare(l Key) int {
	return cmp.Or(k.Object.Compare(l.Object), strings.Compare(k.Relation, l.Relation), k.Subject.Compare(l.Subject))
}

// CompareBySubject orders keys by the bytes of subject, object, then relation.
func (k Key) CompareBySubject(l Key) int {
	return cmp.Or(k.Subject.Compare(l.Subject), k.Object.Compare(l.Object), strings.Compare(k.Relation, l.Relation))
}
