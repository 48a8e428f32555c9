package tuple

import (
	"encoding/json"
	"strings"
	"time"
)

// Parse reads a relationship in its text form. Errors are of type *[Error].
func Parse(text string) (Relationship, error) {
	const form = "write type:id#relation@type:id"
	var r Relationship
	fail := func(format string, args ...any) (Relationship, error) {
		return Relationship{}, invalid("relationship", text, format, args...)
	}
	object, rest, ok := strings.Cut(text, "#")
	if !ok {
		return fail("has no #relation after the object; %s", form)
	}
	var err error
	if r.Object, err = ParseObject(object); err != nil {
		return Relationship{}, err
	}
	relation, rest, ok := strings.Cut(rest, "@")
	if !ok {
		return fail("has no @subject after the relation; %s", form)
	}
	if r.Relation = relation; CheckRelation(relation) != nil {
		return Relationship{}, CheckRelation(relation)
	}
	subject, suffix := rest, ""
	if i := strings.IndexByte(rest, '['); i >= 0 {
		subject, suffix = rest[:i], rest[i:]
	}
	if r.Subject, err = ParseSubject(subject); err != nil {
		return Relationship{}, err
	}
	for suffix != "" {
		if suffix, err = r.parseTrait(text, suffix); err != nil {
			return Relationship{}, err
		}
	}
	return r, nil
}

// parseTrait reads one bracketed part, `[caveat]`, `[caveat:{json}]` or
// `[expiration:time]`, and returns what follows it.
func (r *Relationship) parseTrait(text, s string) (string, error) {
	if s[0] != '[' {
		return "", invalid("relationship", text, "has %q after the subject; only [caveat:{json}] and [expiration:time] may follow it", s)
	}
	end := strings.IndexAny(s, ":]")
	if end < 0 {
		return "", invalid("relationship", text, "has a [ that is never closed by ]")
	}
	name := s[1:end]
	if s[end] == ':' && name == "expiration" && !strings.HasPrefix(s[end+1:], "{") {
		return r.parseExpiration(text, s[end+1:])
	}
	if r.Caveat.Name != "" {
		return "", invalid("relationship", text, "has two caveats; a relationship has one at most")
	}
	if err := CheckCaveatName(name); err != nil {
		return "", err
	}
	r.Caveat.Name = name
	if s[end] == ']' {
		return s[end+1:], nil
	}
	rest := s[end+1:]
	d := json.NewDecoder(strings.NewReader(rest))
	d.UseNumber()
	var raw json.RawMessage
	if err := d.Decode(&raw); err != nil {
		return "", invalid("caveat context", rest, "is not JSON: %v", err)
	}
	var err error
	if r.Caveat.Context, err = CanonicalJSON(string(raw)); err != nil {
		return "", err
	}
	rest, ok := strings.CutPrefix(rest[d.InputOffset():], "]")
	if !ok {
		return "", invalid("relationship", text, "has no ] after the context of caveat %s", name)
	}
	return rest, nil
}

func (r *Relationship) parseExpiration(text, s string) (string, error) {
	value, rest, ok := strings.Cut(s, "]")
	if !ok {
		return "", invalid("relationship", text, "has no ] after the expiration")
	}
	if !r.Expiration.IsZero() {
		return "", invalid("relationship", text, "has two expirations")
	}
	t, err := time.Parse(time.RFC3339Nano, value)
	if err != nil {
		return "", invalid("expiration", value, "is not a time of RFC 3339; write one such as 2027-01-31T12:00:00Z")
	}
	t = Micros(t)
	if t.Before(minTime) || t.After(maxTime) {
		return "", invalid("expiration", value, "is outside the years 1 to 9999")
	}
	r.Expiration = t
	return rest, nil
}

// ParseObject reads `type:id`.
func ParseObject(text string) (Object, error) {
	typ, id, ok := strings.Cut(text, ":")
	if !ok {
		return Object{}, invalid("object", text, "has no colon; write type:id")
	}
	o := Object{Type: typ, ID: id}
	return o, o.Check()
}

// ParseSubject reads `type:id`, `type:id#relation` or `type:*`; the relation
// `...` means none.
func ParseSubject(text string) (Subject, error) {
	object, relation, userset := strings.Cut(text, "#")
	typ, id, ok := strings.Cut(object, ":")
	if !ok {
		return Subject{}, invalid("subject", text, "has no colon; write type:id, type:id#relation or type:*")
	}
	if userset && relation == "" {
		return Subject{}, invalid("subject", text, "has no relation after #; write type:id or type:id#relation")
	}
	if relation == Ellipsis {
		relation = ""
	}
	s := Subject{Object: Object{Type: typ, ID: id}, Relation: relation}
	return s, s.Check()
}
