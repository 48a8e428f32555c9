package scim

import (
	"encoding/base64"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// asBoolean takes true and false, and as text in any case, as Entra writes them.
func asBoolean(v any) (b, ok bool) {
	switch v := v.(type) {
	case bool:
		return v, true
	case string:
		switch strings.ToLower(v) {
		case "true":
			return true, true
		case "false":
			return false, true
		}
	}
	return false, false
}

// asValue gives a value of an attribute as it is kept: with the names of the
// schema, and without what is null, empty, read-only or unknown (RFC 7644 §3.3:
// read-only attributes are ignored). nil is no value. name is for errors.
func asValue(a *Attribute, name string, v any) (any, error) {
	if v == nil || a.Mutability == ReadOnly {
		return nil, nil
	}
	if !a.MultiValued {
		return asOne(a, name, v)
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v} // one value where a list is due
	}
	var kept []any
	for _, e := range list {
		one, err := asOne(a, name, e)
		if err != nil {
			return nil, err
		}
		if present(one) {
			kept = append(kept, one)
		}
	}
	if len(kept) == 0 {
		return nil, nil
	}
	return kept, onePrimary(name, kept)
}

// onePrimary refuses two preferred values of one attribute (RFC 7643 §2.4).
func onePrimary(name string, list []any) error {
	n := 0
	for _, e := range list {
		if o, ok := e.(Object); ok && o["primary"] == true {
			n++
		}
	}
	if n > 1 {
		return bad(invalidValue, "%d values of %s are primary; one can be", n, name)
	}
	return nil
}

func asOne(a *Attribute, name string, v any) (any, error) {
	switch a.Type {
	case Boolean:
		b, ok := asBoolean(v)
		if !ok && v != "" {
			return nil, bad(invalidValue, "%s must be true or false", name)
		}
		if !ok {
			return nil, nil
		}
		return b, nil
	case Complex:
		return asComplex(a, name, v)
	}
	s, ok := v.(string)
	if !ok {
		return nil, bad(invalidValue, "%s must be text", name)
	}
	if s == "" {
		return nil, nil
	}
	if err := checkText(a, name, s); err != nil {
		return nil, err
	}
	if a.Type == Binary {
		if _, err := base64.StdEncoding.DecodeString(s); err != nil {
			return nil, bad(invalidValue, "%s must be Base64 (RFC 7643 §2.3.6)", name)
		}
	}
	return s, nil
}

// checkText refuses what would break out of a line, or steer a terminal, wherever
// the text is shown. Only postal addresses may have lines (RFC 7643 §4.1.2).
func checkText(a *Attribute, name, s string) error {
	for _, r := range s {
		if a.lines && (r == '\n' || r == '\r' || r == '\t') || !unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp) {
			continue
		}
		return bad(invalidValue, "%s has the control character %U; leave it out", name, r)
	}
	return nil
}

// asComplex takes an object, or text for its value: Entra writes
// "manager": "ID".
func asComplex(a *Attribute, name string, v any) (any, error) {
	if s, ok := v.(string); ok && a.Sub("value") != nil {
		v = Object{"value": s}
	}
	o, ok := v.(Object)
	if !ok {
		return nil, bad(invalidValue, "%s must be an object", name)
	}
	kept := Object{}
	seen := map[*Attribute]bool{}
	for key, v := range o {
		sub := a.Sub(key)
		if sub == nil {
			continue
		}
		if seen[sub] {
			return nil, bad(invalidSyntax, "%s.%s is given twice", name, sub.Name)
		}
		seen[sub] = true
		one, err := asValue(sub, name+"."+sub.Name, v)
		if err != nil {
			return nil, err
		}
		if present(one) {
			kept[sub.Name] = one
		}
	}
	if len(kept) == 0 {
		return nil, nil
	}
	return kept, nil
}

// body is what a client says a resource is.
type body struct {
	attributes Object // as kept
	members    []Member
}

// read takes a resource as a client writes it (RFC 7644 §3.3, §3.5.1): names in any
// case, attributes that are read-only or unknown left out, passwords checked and
// left out.
func (t *ResourceType) read(raw Object) (body, error) {
	b, err := t.readPart(raw)
	if err != nil {
		return b, err
	}
	return b, t.checkRequired(b.attributes)
}

// readPart is read without a look at what is required.
func (t *ResourceType) readPart(raw Object) (body, error) {
	b := body{attributes: Object{}}
	if err := t.checkSchemas(raw); err != nil {
		return b, err
	}
	seen := map[string]bool{}
	for key, v := range raw {
		r, ok := t.resolve(key)
		if !ok || r.sub != nil || strings.EqualFold(key, "schemas") {
			continue
		}
		if seen[r.String()] {
			return b, bad(invalidSyntax, "%s is given twice", r)
		}
		seen[r.String()] = true
		if err := b.take(t, r, v); err != nil {
			return b, err
		}
	}
	return b, nil
}

// take keeps one attribute of a body, or a whole extension.
func (b *body) take(t *ResourceType, r ref, v any) error {
	if r.attribute == nil {
		return b.takeExtension(t.extension(r.extension), v)
	}
	if r.attribute.Name == "members" {
		members, err := asMembers(v)
		b.members = members
		return err
	}
	value, err := asValue(r.attribute, r.String(), v)
	if err == nil && present(value) && r.attribute.Returned != Never {
		put(b.attributes, ref{extension: r.extension, attribute: r.attribute}, value)
	}
	return err
}

func (b *body) takeExtension(s *Schema, v any) error {
	if v == nil {
		return nil
	}
	o, ok := v.(Object)
	if !ok {
		return bad(invalidValue, "%s must be an object", s.ID)
	}
	seen := map[*Attribute]bool{}
	for key, v := range o {
		a := named(s.Attributes, key)
		if a == nil {
			continue
		}
		r := ref{extension: s.ID, attribute: a}
		if seen[a] {
			return bad(invalidSyntax, "%s is given twice", r)
		}
		seen[a] = true
		value, err := asValue(a, r.String(), v)
		if err != nil {
			return err
		}
		if present(value) {
			put(b.attributes, r, value)
		}
	}
	return nil
}

// checkSchemas refuses a body of another kind (RFC 7643 §3.1). One that says
// nothing of schemas is taken for what the endpoint serves.
func (t *ResourceType) checkSchemas(raw Object) error {
	for key, v := range raw {
		if !strings.EqualFold(key, "schemas") || v == nil {
			continue
		}
		list, ok := v.([]any)
		if !ok {
			return bad(invalidSyntax, "schemas must be a list of URIs")
		}
		if len(list) > 0 && !slices.ContainsFunc(list, func(v any) bool {
			s, ok := v.(string)
			return ok && strings.EqualFold(s, t.Schema.ID)
		}) {
			return bad(invalidSyntax, "schemas must contain %s", t.Schema.ID)
		}
	}
	return nil
}

func (t *ResourceType) checkRequired(o Object) error {
	for _, a := range t.Schema.Attributes {
		if s, _ := o[a.Name].(string); a.Required && strings.TrimSpace(s) == "" {
			return bad(invalidValue, "a %s needs a %s", t.Kind, a.Name)
		}
	}
	return nil
}

// asMembers reads the members of a group as a client writes them, each once.
func asMembers(v any) ([]Member, error) {
	list, ok := v.([]any)
	if v != nil && !ok {
		list = []any{v}
	}
	seen := map[Member]bool{}
	var members []Member
	for _, e := range list {
		m, err := asMember(e)
		if err != nil {
			return nil, err
		}
		if !seen[m] {
			seen[m] = true
			members = append(members, m)
		}
	}
	return members, nil
}

func asMember(v any) (Member, error) {
	attribute := TypeOf(Group).Schema.Attributes[1]
	one, err := asComplex(attribute, "members", v)
	if err != nil {
		return Member{}, err
	}
	o, _ := one.(Object)
	id, _ := o["value"].(string)
	if id == "" {
		return Member{}, bad(invalidValue, "a member needs a value: the id of a user or a group")
	}
	m := Member{ID: id}
	kind, _ := o["type"].(string)
	uri, _ := o["$ref"].(string)
	for _, t := range types {
		if strings.EqualFold(kind, string(t.Kind)) || kind == "" && strings.Contains(uri, t.Endpoint+"/") {
			m.Kind = t.Kind
		}
	}
	if kind != "" && m.Kind == "" {
		return m, bad(invalidValue, "the type of member %q must be User or Group", shorten(id))
	}
	return m, nil
}

// put gives what r stands for a value, or takes it away where the value is none;
// what is left empty goes too. A part of a multi-valued attribute cannot be put.
func put(o Object, r ref, value any) {
	if r.extension != "" {
		inner, _ := o[r.extension].(Object)
		inner = maps.Clone(inner)
		if inner == nil {
			inner = Object{}
		}
		put(inner, ref{attribute: r.attribute, sub: r.sub}, value)
		set(o, r.extension, inner)
		return
	}
	if r.sub != nil {
		whole, _ := o[r.attribute.Name].(Object)
		whole = maps.Clone(whole)
		if whole == nil {
			whole = Object{}
		}
		set(whole, r.sub.Name, value)
		value = whole
	}
	set(o, r.attribute.Name, value)
}

func set(o Object, name string, value any) {
	if present(value) {
		o[name] = value
	} else {
		delete(o, name)
	}
}

// get is the value of what r stands for; nil if there is none.
func get(o Object, r ref) any {
	if r.extension != "" {
		o, _ = o[r.extension].(Object)
		if r.attribute == nil {
			if o == nil {
				return nil
			}
			return o
		}
	}
	v := o[r.attribute.Name]
	if r.sub != nil {
		whole, _ := v.(Object)
		v = whole[r.sub.Name]
	}
	return v
}

// same reports whether two values are equal.
func same(a, b any) bool { return reflect.DeepEqual(a, b) }

// asObject refuses what is no JSON object.
func asObject(v any, what string) (Object, error) {
	o, ok := v.(Object)
	if !ok {
		return nil, problem(http.StatusBadRequest, invalidSyntax, "%s must be a JSON object", what)
	}
	return o, nil
}
