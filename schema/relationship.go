package schema

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pembadb/pemba/tuple"
)

// The ways in which a relationship does not fit a schema. Match them with
// [errors.Is]; the error is a [*RelationshipError].
var (
	// ErrUnknownType: the schema has no such type.
	ErrUnknownType = errors.New("unknown type")
	// ErrUnknownRelation: the type has no such relation or permission.
	ErrUnknownRelation = errors.New("unknown relation")
	// ErrPermission: a permission is computed and cannot be written.
	ErrPermission = errors.New("permission cannot be written")
	// ErrSubjectNotAllowed: the relation does not allow this subject, or not with
	// this caveat or expiration.
	ErrSubjectNotAllowed = errors.New("subject not allowed")
	// ErrUnknownCaveat: the schema has no such caveat.
	ErrUnknownCaveat = errors.New("unknown caveat")
)

// RelationshipKind is all that decides whether a schema can hold a relationship,
// except for the context of its caveat.
type RelationshipKind struct {
	Type, Relation  string
	SubjectType     string
	SubjectRelation string // empty unless the subject is a userset
	Wildcard        bool   // the subject is every object of SubjectType
	Caveat          string // empty for none
	Expiration      bool
}

// String gives the kind as `type#relation@subject`, with what it carries.
func (k RelationshipKind) String() string { return k.Type + "#" + k.Relation + "@" + k.subject() }

func (k RelationshipKind) subject() string {
	return subjectText(k.SubjectType, k.SubjectRelation, k.Wildcard, k.Caveat, k.Expiration)
}

// KindOf gives the kind of a relationship.
func KindOf(r tuple.Relationship) RelationshipKind {
	return RelationshipKind{Type: r.Object.Type, Relation: r.Relation, SubjectType: r.Subject.Type, SubjectRelation: r.Subject.Relation,
		Wildcard: r.Subject.IsWildcard(), Caveat: r.Caveat.Name, Expiration: !r.Expiration.IsZero()}
}

// RelationshipError tells why a relationship does not fit a schema.
type RelationshipError struct {
	// Relationship is its text without the caveat context, which may hold
	// secrets; for a kind, [RelationshipKind.String].
	Relationship string
	Message      string // what is wrong
	Hint         string // what to do

	cause error // one of the sentinels, or the error of the caveat context
}

// Error gives one line.
func (e *RelationshipError) Error() string {
	return fmt.Sprintf("relationship %s: %s; %s", quote(e.Relationship), e.Message, e.Hint)
}

// Unwrap returns the sentinel that e matches, or the error of the caveat
// context.
func (e *RelationshipError) Unwrap() error { return e.cause }

// CheckRelationship reports whether the schema can hold a well-formed
// relationship, by the rules of [Schema.CheckKind]. The error is a
// [*RelationshipError].
func (s *Schema) CheckRelationship(r tuple.Relationship) error {
	err := s.CheckKind(KindOf(r), r.Caveat.Context)
	if e, ok := err.(*RelationshipError); ok {
		e.Relationship = r.Key.String()
	}
	return err
}

// CheckKind reports whether the schema can hold relationships of a kind, with
// this caveat context (a JSON object, or empty): type and relation exist, the
// relation allows the subject with exactly this caveat (or none) and exactly
// with or without an expiration, and the context fits the caveat's parameters.
// The error is a [*RelationshipError].
func (s *Schema) CheckKind(k RelationshipKind, context string) error {
	fail := func(cause error, message, hint string) error {
		return &RelationshipError{Relationship: k.String(), Message: message, Hint: hint, cause: cause}
	}
	def := s.byType[k.Type]
	if def == nil {
		return fail(ErrUnknownType, "the schema has no type "+quote(k.Type), "add it to the schema or correct it")
	}
	relation := def.byText[k.Relation]
	switch {
	case relation == nil:
		return fail(ErrUnknownRelation, fmt.Sprintf("type %s has no relation %s", quote(k.Type), quote(k.Relation)),
			didYouMean(k.Relation, relationNames(def), "add it to the schema or correct it"))
	case relation.IsPermission():
		return fail(ErrPermission, fmt.Sprintf("%s is a permission of %s, and permissions are computed", quote(k.Relation), quote(k.Type)),
			"write a relation that it is made of: "+quote(relation.Expr.String()))
	}
	for i := range relation.Allowed {
		a := &relation.Allowed[i]
		if !a.fits(&k) {
			continue
		}
		if a.Caveat != nil && context != "" {
			if err := a.Caveat.CheckContext(context); err != nil {
				return fail(err, err.Error(), "write a context that fits the caveat's parameters")
			}
		}
		return nil
	}
	return s.notAllowed(relation, k, fail)
}

// fits reports whether the subject of a relationship is of this alternative.
func (a *AllowedSubject) fits(k *RelationshipKind) bool {
	return a.Definition.Type == k.SubjectType && a.Wildcard == k.Wildcard && a.Expiration == k.Expiration &&
		(a.Relation == nil) == (k.SubjectRelation == "") && (a.Relation == nil || a.Relation.Text == k.SubjectRelation) &&
		(a.Caveat == nil) == (k.Caveat == "") && (a.Caveat == nil || a.Caveat.Name == k.Caveat)
}

// notAllowed says what about the subject is not allowed.
func (s *Schema) notAllowed(relation *Relation, k RelationshipKind, fail func(cause error, message, hint string) error) error {
	typ := s.byType[k.SubjectType]
	if typ == nil {
		return fail(ErrUnknownType, "the schema has no type "+quote(k.SubjectType), "add it to the schema or correct it")
	}
	if k.SubjectRelation != "" && typ.Relation(k.SubjectRelation) == nil {
		return fail(ErrUnknownRelation, fmt.Sprintf("type %s has no relation or permission %s", quote(typ.Type), quote(k.SubjectRelation)),
			didYouMean(k.SubjectRelation, relationNames(typ), "add it to the schema or correct it"))
	}
	if k.Caveat != "" && s.Caveat(k.Caveat) == nil {
		return fail(ErrUnknownCaveat, "the schema has no caveat "+quote(k.Caveat), "add it to the schema or correct it")
	}
	const shown = 10
	var allowed []string
	for i, a := range relation.Allowed {
		if i == shown {
			allowed = append(allowed, fmt.Sprintf("and %d more", len(relation.Allowed)-shown))
			break
		}
		allowed = append(allowed, quote(a.String()))
	}
	return fail(ErrSubjectNotAllowed, fmt.Sprintf("relation %s of %s does not allow %s",
		quote(relation.Text), quote(relation.Definition.Type), quote(k.subject())), "it allows "+strings.Join(allowed, ", "))
}

// Orphans lists the kinds of relationships that old can hold and s, which is to
// replace it, perhaps cannot: those it does not allow, and those whose caveat
// has lost a parameter or changed the type of one, so that stored contexts may
// not fit. An empty list means that every stored relationship still fits, and
// that nothing need be read. Otherwise it is enough to read what the listed
// types and relations hold and to ask [Schema.CheckRelationship] of s about each. A
// nil old holds nothing.
func (s *Schema) Orphans(old *Schema) []RelationshipKind {
	if old == nil {
		return nil
	}
	narrowed := s.narrowedCaveats(old)
	var out []RelationshipKind
	for _, d := range old.Definitions {
		for _, r := range d.Relations {
			var kept map[string]bool
			if def := s.byType[d.Type]; def != nil {
				if now := def.byText[r.Text]; now != nil {
					kept = allowedTexts(now)
				}
			}
			for i := range r.Allowed {
				if a := &r.Allowed[i]; !kept[a.String()] || narrowed[a.Caveat] {
					out = append(out, a.kind(r))
				}
			}
		}
	}
	return out
}

// narrowedCaveats gives the caveats of old of which a parameter is gone or has
// another type.
func (s *Schema) narrowedCaveats(old *Schema) map[*Caveat]bool {
	out := map[*Caveat]bool{}
	for _, o := range old.Caveats {
		n := s.Caveat(o.Name)
		if n == nil {
			continue // then no relation allows it
		}
		types := map[string]string{}
		for _, p := range n.Parameters {
			types[p.Name] = p.Type
		}
		for _, p := range o.Parameters {
			if types[p.Name] != p.Type {
				out[o] = true
			}
		}
	}
	return out
}

func (a *AllowedSubject) kind(r *Relation) RelationshipKind {
	k := RelationshipKind{Type: r.Definition.Type, Relation: r.Text, SubjectType: a.Definition.Type, Wildcard: a.Wildcard, Expiration: a.Expiration}
	if a.Relation != nil {
		k.SubjectRelation = a.Relation.Text
	}
	if a.Caveat != nil {
		k.Caveat = a.Caveat.Name
	}
	return k
}
