package scim

import (
	"encoding/json"
	"maps"
)

// Merge gives the attributes of a resource after some were set: each that is given
// replaces the one there is, and nil takes it away. replace takes away what is not
// given, too. Unlike what clients of SCIM send (RFC 7644 §3.3), attributes that the
// schema does not know, or that cannot be set, are an error.
func Merge(k Kind, now, given Object, replace bool) (Object, error) {
	t := TypeOf(k)
	if err := t.checkKnown(given); err != nil {
		return nil, err
	}
	b, err := t.readPart(given)
	if err != nil {
		return nil, err
	}
	next := Object{}
	if !replace {
		next = maps.Clone(now)
	}
	for name := range given {
		r, _ := t.resolve(name)
		set(next, r.String(), nil)
	}
	maps.Copy(next, b.attributes)
	return next, t.checkRequired(next)
}

// checkKnown refuses attributes that cannot be set.
func (t *ResourceType) checkKnown(given Object) error {
	for name, v := range given {
		r, ok := t.resolve(name)
		switch {
		case !ok:
			return bad(invalidValue, "a %s has no attribute %q", t.Kind, shorten(name))
		case r.sub != nil || r.attribute != nil && r.extension != "":
			whole, example := wholeOf(r)
			return bad(invalidValue, "%s is a part of %s; give the whole, such as %s=%s", r, whole, whole, example)
		case r.attribute == nil:
			if err := knownIn(t.extension(r.extension).Attributes, r.String(), v); err != nil {
				return err
			}
		case r.attribute.Name == "members" || r.attribute.Name == "schemas" || r.attribute.Mutability == ReadOnly || r.attribute.Returned == Never:
			return bad(invalidValue, "%s is no attribute that can be set here", r)
		default:
			if err := knownIn(r.attribute.SubAttributes, r.String(), v); err != nil {
				return err
			}
		}
	}
	return nil
}

// wholeOf is the attribute, or the extension, that something is a part of, with an
// example of its value in JSON.
func wholeOf(r ref) (whole string, example []byte) {
	var value any = "..."
	if r.sub != nil {
		value = Object{r.sub.Name: value}
	}
	whole = r.attribute.Name
	if r.extension != "" {
		whole, value = r.extension, Object{r.attribute.Name: value}
	}
	example, _ = json.Marshal(value) // of texts: it never fails
	return whole, example
}

// knownIn refuses parts of a value that its attribute does not have.
func knownIn(list []*Attribute, name string, v any) error {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if err := knownIn(list, name, e); err != nil {
				return err
			}
		}
	case Object:
		for part, inner := range v {
			a := named(list, part)
			if a == nil || a.Mutability == ReadOnly {
				return bad(invalidValue, "%s has no part %q that can be set", name, shorten(part))
			}
			if err := knownIn(a.SubAttributes, name+"."+a.Name, inner); err != nil {
				return err
			}
		}
	}
	return nil
}
