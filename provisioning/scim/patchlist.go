package scim

import (
	"maps"
	"slices"
)

// listEdit is one operation on a multi-valued attribute that is not the members
// of a group.
type listEdit struct {
	path *Path
	old  []any // not to be changed
}

// selected reports whether the path's filter matches a value; without a filter
// all are.
func (l *listEdit) selected(v any) (bool, error) {
	if l.path.filter == nil {
		return true, nil
	}
	o, ok := v.(Object)
	if !ok {
		return false, nil
	}
	return l.path.filter.root.match(objectSource(o))
}

// remove takes away the selected values, or a part of them, or of those only the
// ones that a value lists (as Entra does). What is not there needs no removal.
func (l *listEdit) remove(value any) ([]any, error) {
	var listed []any
	if value != nil && l.path.ref.sub == nil {
		given, err := asValue(l.path.ref.attribute, l.path.String(), value)
		if err != nil {
			return nil, err
		}
		if listed, _ = given.([]any); listed == nil {
			return l.old, nil // an empty list names nobody
		}
	}
	var kept []any
	for _, v := range l.old {
		hit, err := l.selected(v)
		if err != nil {
			return nil, err
		}
		hit = hit && (listed == nil || slices.ContainsFunc(listed, func(given any) bool { return covers(v, given) }))
		switch {
		case !hit:
			kept = append(kept, v)
		case l.path.ref.sub != nil:
			o := maps.Clone(v.(Object))
			delete(o, l.path.ref.sub.Name)
			kept = append(kept, o)
		}
	}
	return kept, nil
}

// covers reports whether a value has all parts that another one gives.
func covers(v, given any) bool {
	a, ok := v.(Object)
	b, both := given.(Object)
	if !ok || !both {
		return same(v, given)
	}
	for k, part := range b {
		if !same(a[k], part) {
			return false
		}
	}
	return true
}

// write adds or replaces selected values, or a part of them. Where a filter
// matches none and says what one is like, one is made: Entra patches
// emails[type eq "work"].value of users without e-mail.
func (l *listEdit) write(op operation) ([]any, error) {
	given, err := l.given(op)
	if err != nil {
		return nil, err
	}
	list := slices.Clone(l.old)
	hits := []int{}
	for i, v := range list {
		hit, err := l.selected(v)
		if err != nil {
			return nil, err
		}
		if hit {
			hits = append(hits, i)
		}
	}
	if len(hits) == 0 {
		fresh, ok := Object{}, true
		if l.path.filter != nil {
			fresh, ok = described(l.path.filter.root)
		}
		if !ok {
			return nil, bad(noTarget, "no value matches %s", l.path)
		}
		if len(given) == 0 {
			return list, nil
		}
		maps.Copy(fresh, given)
		made, err := asOne(l.path.ref.attribute, l.path.String(), fresh)
		if err != nil || !present(made) {
			return list, err
		}
		return l.prefer(append(list, made), len(list)), nil
	}
	for _, i := range hits {
		o := Object{}
		if op.op == "add" || l.path.ref.sub != nil {
			o = maps.Clone(list[i].(Object))
		}
		if sub := l.path.ref.sub; sub != nil && len(given) == 0 {
			delete(o, sub.Name)
		}
		maps.Copy(o, given)
		list[i] = o
	}
	return l.prefer(list, hits[len(hits)-1]), nil
}

// given is what an operation gives each selected value.
func (l *listEdit) given(op operation) (Object, error) {
	r := l.path.ref
	if r.sub == nil {
		v := op.value
		if list, ok := v.([]any); ok && len(list) == 1 {
			v = list[0]
		}
		one, err := asOne(r.attribute, r.String(), v)
		o, _ := one.(Object)
		return o, err
	}
	v, err := asValue(r.sub, r.String(), op.value)
	if err != nil || !present(v) {
		return nil, err
	}
	return Object{r.sub.Name: v}, nil
}

// writeAll adds values to a list, or replaces it. A value that is there already is
// not added again (RFC 7644 §3.5.2.1).
func (l *listEdit) writeAll(op operation) ([]any, error) {
	v, err := asValue(l.path.ref.attribute, l.path.String(), op.value)
	if err != nil {
		return nil, err
	}
	given, _ := v.([]any)
	if op.op == "replace" {
		return given, nil
	}
	list := slices.Clone(l.old)
	if len(list)+len(given) > 2*maxListValues {
		return nil, bad(tooMany, "more than %d values of %s", maxListValues, l.path)
	}
	for _, v := range given {
		if !slices.ContainsFunc(list, func(old any) bool { return same(old, v) }) {
			list = l.prefer(append(list, v), len(list))
		}
	}
	return list, nil
}

// prefer makes the value at an index the only primary one, if it is primary
// (RFC 7644 §3.5.2).
func (l *listEdit) prefer(list []any, at int) []any {
	if o, ok := list[at].(Object); !ok || o["primary"] != true {
		return list
	}
	for i, v := range list {
		if o, ok := v.(Object); ok && i != at && o["primary"] == true {
			o = maps.Clone(o)
			o["primary"] = false
			list[i] = o
		}
	}
	return list
}

// described is a value that a condition describes in full: parts that equal
// something, joined by and.
func described(n node) (Object, bool) {
	switch n := n.(type) {
	case *both:
		left, ok := described(n.left)
		right, also := described(n.right)
		if !n.and || !ok || !also {
			return nil, false
		}
		maps.Copy(left, right)
		return left, true
	case *comparison:
		if n.op == "eq" && n.literal != nil && n.ref.sub == nil {
			return Object{n.ref.attribute.Name: n.literal}, true
		}
	}
	return nil, false
}
