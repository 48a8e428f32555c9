// Package schema reads the schema language of `.zed` files: it parses, checks
// types, compiles, formats and compares schemas.
package schema

import (
	"slices"
	"sync/atomic"
)

// Name is the small id that a store gives the name of a type, relation,
// permission or caveat. Names are append-only: the same text keeps its Name
// for the life of the store, whatever schemas come and go. Zero is no name.
type Name uint16

// Schema is a compiled schema. It is immutable and safe for concurrent use.
type Schema struct {
	// Text is the source from which the schema was compiled, as written; if it
	// has imports or partials, the text that [Expand] gives. It compiles alone.
	Text string
	// Hash is the SHA-256 of the canonical form (see [Format]) of Text.
	Hash [32]byte
	// Definitions are sorted by type name.
	Definitions []*Definition
	// Caveats are sorted by name.
	Caveats []*Caveat
	// Directory says what stands for users and groups.
	Directory Directory

	byType map[string]*Definition
	byName []*Definition // by Definition.Name
	// usersets are the names by which relations hold usersets.
	usersets map[Name]bool
	// containers are the names of types to which arrows lead.
	containers map[Name]bool

	derived atomic.Pointer[any]
}

// Derived returns what make returned when it was first called for s: a place for
// what the engine computes from a schema once.
func (s *Schema) Derived(make func() any) any {
	if d := s.derived.Load(); d != nil {
		return *d
	}
	d := make()
	if s.derived.CompareAndSwap(nil, &d) {
		return d
	}
	return *s.derived.Load()
}

// Definition is an object type.
type Definition struct {
	Type string
	Name Name
	Doc  string // text of the doc comment, without comment marks
	Pos  Position
	// Relations are the relations and permissions in the order written.
	Relations []*Relation

	byName map[Name]*Relation
	byText map[string]*Relation
}

// Relation is a relation or a permission of a definition.
type Relation struct {
	Definition *Definition
	Text       string
	Name       Name
	Doc        string
	Pos        Position
	// Expr is the permission's expression; nil for a relation.
	Expr *Expr
	// Allowed are the subjects a relation may hold; nil for a permission.
	Allowed []AllowedSubject
}

// IsPermission reports whether r is computed rather than written.
func (r *Relation) IsPermission() bool { return r.Expr != nil }

// AllowedSubject is one alternative of a relation's type: `user`,
// `team#member`, `user:*`, each optionally with a caveat, with expiration, or
// with both.
type AllowedSubject struct {
	Definition *Definition
	Relation   *Relation // nil unless the subject is a userset
	Wildcard   bool
	Caveat     *Caveat // nil: a relationship must not carry a caveat
	Expiration bool    // true: a relationship must carry an expiration
}

// String gives the alternative as one writes it: `team#member with c`.
func (a AllowedSubject) String() string {
	relation, caveat := "", ""
	if a.Relation != nil {
		relation = a.Relation.Text
	}
	if a.Caveat != nil {
		caveat = a.Caveat.Name
	}
	return subjectText(a.Definition.Type, relation, a.Wildcard, caveat, a.Expiration)
}

// ExprKind tells what an [Expr] is.
type ExprKind uint8

const (
	Nil          ExprKind = iota // nobody
	Self                         // the object itself, as a subject
	Ref                          // a relation or permission of the same object
	Arrow                        // Tupleset->Text, Tupleset.any(Text)
	ArrowAll                     // Tupleset.all(Text)
	Union                        // any of Children
	Intersection                 // all of Children
	Exclusion                    // Children[0] but not Children[1]
)

// Expr is a node of a permission's expression.
type Expr struct {
	Kind     ExprKind
	Children []*Expr // Union and Intersection: two or more; Exclusion: two
	// Relation is the relation or permission of a Ref.
	Relation *Relation
	// Tupleset is the left side of an arrow: always a relation, never a
	// permission.
	Tupleset *Relation
	// Target and TargetName name the right side of an arrow. Each subject type of
	// Tupleset is asked for it; a type that lacks it contributes nothing.
	Target     string
	TargetName Name
	Pos        Position
}

// Position is a place in a source, 1-based. Column counts characters.
type Position struct {
	File         string
	Line, Column int
}

// Definition returns the definition of a type, or nil.
func (s *Schema) Definition(typ string) *Definition { return s.byType[typ] }

// DefinitionByName returns the definition with a given Name, or nil.
func (s *Schema) DefinitionByName(n Name) *Definition {
	if int(n) < len(s.byName) {
		return s.byName[n]
	}
	return nil
}

// IsUserset reports whether some relation may hold usersets of that name:
// `type#name`.
func (s *Schema) IsUserset(name Name) bool { return s.usersets[name] }

// IsContainer reports whether the left side of some arrow may hold objects of a
// type.
func (s *Schema) IsContainer(typ Name) bool { return s.containers[typ] }

// Caveat returns the caveat of that name, or nil.
func (s *Schema) Caveat(name string) *Caveat {
	i, ok := slices.BinarySearchFunc(s.Caveats, name, func(c *Caveat, name string) int {
		return compare(c.Name, name)
	})
	if !ok {
		return nil
	}
	return s.Caveats[i]
}

// Relation returns the relation or permission of that text, or nil.
func (d *Definition) Relation(text string) *Relation { return d.byText[text] }

// RelationByName returns the relation or permission with a given Name, or nil.
func (d *Definition) RelationByName(n Name) *Relation { return d.byName[n] }

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
