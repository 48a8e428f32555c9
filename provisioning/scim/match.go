package scim

import (
	"strings"
	"time"
)

// source gives the values that a filter looks at.
type source interface {
	// each calls f for every value of what r stands for, until f returns false.
	each(r ref, f func(any) bool) error
	// elements calls f for every value of a complex attribute, as an object.
	elements(r ref, f func(Object) bool) error
	// member reports, of a group, whether a user or group is a direct member; known
	// is false where members are not apart.
	member(id string) (is, known bool, err error)
}

func (n *both) match(s source) (bool, error) {
	left, err := n.left.match(s)
	if err != nil || left != n.and {
		return left, err
	}
	return n.right.match(s)
}

func (n *negation) match(s source) (bool, error) {
	is, err := n.inner.match(s)
	return !is, err
}

func (n *element) match(s source) (found bool, err error) {
	if id, ok := memberAsked(n.ref, n.inner); ok {
		if is, known, err := s.member(id); known || err != nil {
			return is, err
		}
	}
	var inner error
	err = s.elements(n.ref, func(o Object) bool {
		found, inner = n.inner.match(objectSource(o))
		return !found && inner == nil
	})
	if err == nil {
		err = inner
	}
	return found, err
}

// memberAsked is the id for which members[value eq "ID"] asks.
func memberAsked(r ref, inner node) (string, bool) {
	c, ok := inner.(*comparison)
	if !ok || r.attribute == nil || r.attribute.Name != "members" || c.op != "eq" || c.ref.attribute == nil || c.ref.attribute.Name != "value" {
		return "", false
	}
	id, ok := c.value.(string)
	return id, ok
}

// match holds if any value does; of an attribute without a value, ne holds, and
// eq null (RFC 7644 §3.4.2.2, RFC 7643 §2.5).
func (c *comparison) match(s source) (bool, error) {
	if c.unknown {
		return c.absent(), nil
	}
	if id, ok := c.value.(string); ok && c.op == "eq" && c.ref.String() == "members.value" {
		if is, known, err := s.member(id); known || err != nil {
			return is, err
		}
	}
	found, some := false, false
	err := s.each(c.ref, func(v any) bool {
		if !present(v) {
			return true
		}
		some = true
		found = c.holds(v)
		return !found
	})
	if !some {
		return c.absent(), err
	}
	return found, err
}

// absent is what the comparison comes to without a value.
func (c *comparison) absent() bool {
	return c.op == "ne" && c.value != nil || c.op == "eq" && c.value == nil
}

// present reports whether a value is one at all: null, and lists and objects with
// nothing in them, are none (RFC 7643 §2.5).
func present(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	case Object:
		return len(v) > 0
	}
	return true
}

// holds compares one value that is present.
func (c *comparison) holds(v any) bool {
	if c.op == "pr" || c.value == nil {
		return c.op != "eq"
	}
	switch want := c.value.(type) {
	case bool:
		is, _ := v.(bool)
		return (is == want) == (c.op == "eq")
	case string:
		is, ok := v.(string)
		if !ok {
			return false
		}
		if !c.instant.IsZero() {
			t, err := time.Parse(time.RFC3339, is)
			return err == nil && ordered(c.op, t.Compare(c.instant))
		}
		if !c.ref.last().CaseExact {
			is = Fold(is)
		}
		return c.holdsText(is, want)
	}
	return false
}

func (c *comparison) holdsText(is, want string) bool {
	switch c.op {
	case "co":
		return strings.Contains(is, want)
	case "sw":
		return strings.HasPrefix(is, want)
	case "ew":
		return strings.HasSuffix(is, want)
	}
	return ordered(c.op, strings.Compare(is, want))
}

func ordered(op string, compared int) bool {
	switch op {
	case "eq":
		return compared == 0
	case "ne":
		return compared != 0
	case "gt":
		return compared > 0
	case "ge":
		return compared >= 0
	case "lt":
		return compared < 0
	}
	return compared <= 0
}

// objectSource gives the values of an object: a resource's attributes, or one
// value of a complex attribute.
type objectSource Object

func (o objectSource) each(r ref, f func(any) bool) error {
	eachOf(Object(o), r, f)
	return nil
}

func (o objectSource) elements(r ref, f func(Object) bool) error {
	r.sub = nil
	eachOf(Object(o), r, func(v any) bool {
		e, ok := v.(Object)
		return !ok || f(e)
	})
	return nil
}

func (o objectSource) member(string) (is, known bool, err error) { return false, false, nil }

// eachOf calls f for the values of an object that r stands for.
func eachOf(o Object, r ref, f func(any) bool) {
	if r.extension != "" {
		inner, ok := o[r.extension].(Object)
		if !ok || r.attribute == nil {
			f(o[r.extension])
			return
		}
		o = inner
	}
	list, multi := o[r.attribute.Name].([]any)
	if !multi {
		list = []any{o[r.attribute.Name]}
	}
	for _, v := range list {
		if r.sub != nil {
			e, _ := v.(Object)
			v = e[r.sub.Name]
		}
		if !f(v) {
			return
		}
	}
}

// lookup is a way to find resources without reading all: an id, or a key.
type lookup struct {
	id  string
	key Key
}

// maxLookups bounds the ways that one filter is split into.
const maxLookups = 64

// lookups are ways that together find everything that a filter matches, and
// perhaps more; nil if all must be read.
func (f *Filter) lookups(k Kind) []lookup {
	if f == nil {
		return nil
	}
	found := lookupsOf(k, f.root)
	if len(found) > maxLookups {
		return nil
	}
	return found
}

func lookupsOf(k Kind, n node) []lookup {
	switch n := n.(type) {
	case *both:
		left, right := lookupsOf(k, n.left), lookupsOf(k, n.right)
		switch {
		case !n.and && (left == nil || right == nil):
			return nil
		case !n.and:
			return append(left, right...)
		case left == nil || right != nil && cost(right) < cost(left):
			return right
		}
		return left
	case *element:
		if id, ok := memberAsked(n.ref, n.inner); ok {
			return []lookup{{key: Key{"members.value", id}}}
		}
	case *comparison:
		value, ok := n.value.(string)
		if !ok || value == "" || n.op != "eq" || n.unknown || n.ref.extension != "" {
			return nil
		}
		switch name := n.ref.String(); {
		case name == "id":
			return []lookup{{id: value}}
		case name == "externalId", k == User && name == "userName", k == Group && (name == "displayName" || name == "members.value"):
			return []lookup{{key: Key{name, value}}}
		}
	}
	return nil
}

// cost ranks lookups by how much they may find.
func cost(list []lookup) int {
	sum := 0
	for _, l := range list {
		switch l.key.Attribute {
		case "", "userName", "externalId":
			sum++
		case "displayName":
			sum += 10
		default:
			sum += 1000
		}
	}
	return sum
}
