package scim

import (
	"net/url"
	"strings"
)

// projection is the part of resources that an answer holds (RFC 7644 §3.9).
type projection struct {
	asked, left []ref // of all types that are asked
	only        bool  // asked was given, so the defaults are left out
}

var (
	groupsRef  = ref{attribute: userSchema.attribute("groups")}
	membersRef = ref{attribute: groupSchema.attribute("members")}
)

func (s *Schema) attribute(name string) *Attribute { return named(s.Attributes, name) }

// project reads the parameters attributes and excludedAttributes, of which at
// most one may be given. Names that the types lack are left out.
func project(ts []*ResourceType, attributes, excluded []string) (*projection, error) {
	if len(attributes) > 0 && len(excluded) > 0 {
		return nil, bad(invalidValue, "attributes and excludedAttributes exclude each other (RFC 7644 §3.9)")
	}
	p := &projection{only: len(attributes) > 0}
	for _, t := range ts {
		for _, name := range attributes {
			if r, ok := t.resolve(name); ok {
				p.asked = append(p.asked, r)
			}
		}
		for _, name := range excluded {
			if r, ok := t.resolve(name); ok {
				p.left = append(p.left, r)
			}
		}
	}
	return p, nil
}

// names splits a parameter at its commas.
func names(q url.Values, parameter string) []string {
	var list []string
	for _, v := range q[parameter] {
		for _, name := range strings.Split(v, ",") {
			if name = strings.TrimSpace(name); name != "" {
				list = append(list, name)
			}
		}
	}
	return list
}

// projected reports whether the client asks for more or less than the default.
func (p *projection) projected() bool { return p.only || len(p.left) > 0 }

// needsView reports whether a resource of a kind cannot be written from its
// attributes alone.
func (p *projection) needsView(k Kind) bool {
	return k == Group && p.wants(membersRef) || k == User && p.wants(groupsRef)
}

// wants reports whether any part of an attribute belongs to the answer.
func (p *projection) wants(r ref) bool {
	switch r.attribute.Returned {
	case Always:
		return true
	case Never:
		return false
	}
	if p.only {
		return covered(p.asked, r, true)
	}
	return r.attribute.Returned == Default && !covered(p.left, r, false)
}

// covered reports whether a list names r, or what it is part of, or with parts one
// of its parts.
func covered(list []ref, r ref, parts bool) bool {
	for _, l := range list {
		switch {
		case l.extension != r.extension:
		case l.attribute == nil:
			return true
		case l.attribute != r.attribute:
		case l.sub == nil || l.sub == r.sub || parts && r.sub == nil:
			return true
		}
	}
	return false
}

// of is the part of an object of a type that belongs to the answer.
func (p *projection) of(t *ResourceType, o Object) Object {
	kept := Object{}
	p.keep(kept, o, "", common)
	p.keep(kept, o, "", t.Schema.Attributes)
	for _, e := range t.Extensions {
		if inner, ok := o[e.ID].(Object); ok {
			part := Object{}
			p.keep(part, inner, e.ID, e.Attributes)
			set(kept, e.ID, part)
		}
	}
	return kept
}

func (p *projection) keep(kept, o Object, extension string, list []*Attribute) {
	for _, a := range list {
		r := ref{extension: extension, attribute: a}
		if v := o[a.Name]; present(v) && p.wants(r) {
			set(kept, a.Name, p.parts(r, v))
		}
	}
}

// parts leaves out of a complex value the parts that do not belong to the answer.
func (p *projection) parts(r ref, v any) any {
	if r.attribute.Type != Complex || !p.projected() || r.attribute.Returned == Always {
		return v
	}
	switch v := v.(type) {
	case []any:
		list := make([]any, 0, len(v))
		for _, e := range v {
			if e = p.parts(r, e); present(e) {
				list = append(list, e)
			}
		}
		return list
	case Object:
		part := Object{}
		for _, sub := range r.attribute.SubAttributes {
			s := ref{r.extension, r.attribute, sub}
			if p.only && covered(p.asked, s, false) || !p.only && !covered(p.left, s, false) {
				set(part, sub.Name, v[sub.Name])
			}
		}
		return part
	}
	return v
}

// member is the part of a member that belongs to the answer.
func (p *projection) member(o Object) Object {
	part, _ := p.parts(membersRef, o).(Object)
	return part
}
