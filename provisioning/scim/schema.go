package scim

import (
	"slices"
	"strings"
)

// Type is the data type of an attribute (RFC 7643 §2.3). No attribute of the
// schemas served here is a number.
type Type string

const (
	String    Type = "string"
	Boolean   Type = "boolean"
	DateTime  Type = "dateTime"
	Binary    Type = "binary"
	Reference Type = "reference"
	Complex   Type = "complex"
)

// Mutability says when an attribute can be written (RFC 7643 §7).
type Mutability string

const (
	ReadWrite Mutability = "readWrite"
	ReadOnly  Mutability = "readOnly"
	Immutable Mutability = "immutable"
	WriteOnly Mutability = "writeOnly"
)

// Returned says when an attribute is part of an answer (RFC 7643 §7).
type Returned string

const (
	Always    Returned = "always"
	Default   Returned = "default"
	OnRequest Returned = "request"
	Never     Returned = "never"
)

// Attribute describes an attribute with its characteristics (RFC 7643 §7).
type Attribute struct {
	Name            string       `json:"name"`
	Type            Type         `json:"type"`
	SubAttributes   []*Attribute `json:"subAttributes,omitempty"`
	MultiValued     bool         `json:"multiValued"`
	Description     string       `json:"description"`
	Required        bool         `json:"required"`
	CanonicalValues []string     `json:"canonicalValues,omitempty"`
	CaseExact       bool         `json:"caseExact"`
	Mutability      Mutability   `json:"mutability"`
	Returned        Returned     `json:"returned"`
	Uniqueness      string       `json:"uniqueness"` // none, server or global
	ReferenceTypes  []string     `json:"referenceTypes,omitempty"`

	lines bool // its text may have several
}

// Sub is the sub-attribute of a name in any case (RFC 7643 §2.1); nil if there is
// none.
func (a *Attribute) Sub(name string) *Attribute { return named(a.SubAttributes, name) }

func named(list []*Attribute, name string) *Attribute {
	for _, a := range list {
		if strings.EqualFold(a.Name, name) {
			return a
		}
	}
	return nil
}

// Schema is a list of attributes under a URI (RFC 7643 §7).
type Schema struct {
	ID          string       `json:"id"`
	Name        string       `json:"name"`
	Description string       `json:"description"`
	Attributes  []*Attribute `json:"attributes"`
}

// Kind is what a resource is: its type's name (RFC 7643 §6).
type Kind string

const (
	User  Kind = "User"
	Group Kind = "Group"
)

// ResourceType is a kind of resources: where they are found and what they are made
// of (RFC 7643 §6).
type ResourceType struct {
	Kind        Kind
	Endpoint    string // such as "/Users"
	Description string
	Schema      *Schema
	Extensions  []*Schema
}

// types are the kinds that a Server serves, in the order in which a query of all
// lists them.
var types = []*ResourceType{
	{Kind: User, Endpoint: "/Users", Description: "Who can be granted access", Schema: userSchema, Extensions: []*Schema{enterpriseSchema}},
	{Kind: Group, Endpoint: "/Groups", Description: "Users and groups that are granted access together", Schema: groupSchema},
}

// TypeOf is the type of a kind.
func TypeOf(k Kind) *ResourceType {
	if k == Group {
		return types[1]
	}
	return types[0]
}

// ref is an attribute of a resource type, found by its name.
type ref struct {
	extension string     // the schema in whose object it stands; empty: the resource itself
	attribute *Attribute // nil: the whole extension
	sub       *Attribute // nil: the whole attribute
}

// last is the attribute that a ref ends in; a complex one with a value stands for
// that where it is compared (RFC 7644 §3.4.2.2: "emails co").
func (r ref) last() *Attribute {
	if r.sub != nil {
		return r.sub
	}
	return r.attribute
}

// String is the ref as a path.
func (r ref) String() string {
	var parts []string
	if r.attribute != nil {
		parts = append(parts, r.attribute.Name)
	}
	if r.sub != nil {
		parts = append(parts, r.sub.Name)
	}
	text := strings.Join(parts, ".")
	switch {
	case r.extension == "":
		return text
	case text == "":
		return r.extension
	}
	return r.extension + ":" + text
}

// resolve finds what a name such as userName, name.givenName or
// urn:…:User:department stands for; false if the type has no such attribute.
func (t *ResourceType) resolve(name string) (ref, bool) {
	if len(name) > 4 && strings.EqualFold(name[:4], "urn:") {
		return t.resolveURN(name)
	}
	return resolveIn("", append(common, t.Schema.Attributes...), name)
}

// resolveURN finds an attribute by its full name (RFC 7644 §3.10).
func (t *ResourceType) resolveURN(name string) (ref, bool) {
	for _, e := range t.Extensions {
		if strings.EqualFold(name, e.ID) {
			return ref{extension: e.ID}, true
		}
		if rest, ok := cutURN(name, e.ID); ok {
			return resolveIn(e.ID, e.Attributes, rest)
		}
	}
	if rest, ok := cutURN(name, t.Schema.ID); ok {
		return resolveIn("", append(common, t.Schema.Attributes...), rest)
	}
	return ref{}, false
}

func cutURN(name, urn string) (string, bool) {
	if n := len(urn); len(name) > n+1 && strings.EqualFold(name[:n], urn) && name[n] == ':' {
		return name[n+1:], true
	}
	return "", false
}

func resolveIn(extension string, list []*Attribute, name string) (ref, bool) {
	name, sub, dotted := strings.Cut(name, ".")
	r := ref{extension: extension, attribute: named(list, name)}
	if r.attribute == nil {
		return ref{}, false
	}
	if dotted {
		r.sub = r.attribute.Sub(sub)
		return r, r.sub != nil
	}
	return r, true
}

// extension is the extension of a URI in any case; nil if the type has none such.
func (t *ResourceType) extension(uri string) *Schema {
	i := slices.IndexFunc(t.Extensions, func(s *Schema) bool { return strings.EqualFold(s.ID, uri) })
	if i < 0 {
		return nil
	}
	return t.Extensions[i]
}
