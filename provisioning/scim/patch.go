package scim

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Bounds of a PATCH.
const (
	maxPatchOperations = 10_000
	maxListValues      = 1_000 // of one multi-valued attribute, members apart
)

// operation is one step of a PATCH (RFC 7644 §3.5.2).
type operation struct {
	op    string // add, replace or remove
	path  string
	value any
}

// readPatch reads the body of a PATCH. "op" is in any case: Entra writes "Add".
func readPatch(raw Object) ([]operation, error) {
	if err := checkMessage(raw, patchMessage); err != nil {
		return nil, err
	}
	list, ok := field(raw, "Operations").([]any)
	if !ok || len(list) == 0 {
		return nil, bad(invalidSyntax, "a PATCH needs Operations: a list of at least one")
	}
	if len(list) > maxPatchOperations {
		return nil, bad(tooMany, "%d operations are more than %d; send several requests", len(list), maxPatchOperations)
	}
	ops := make([]operation, len(list))
	for i, e := range list {
		o, err := asObject(e, "an operation")
		if err != nil {
			return nil, err
		}
		op, _ := field(o, "op").(string)
		path, isText := field(o, "path").(string)
		if !isText && field(o, "path") != nil {
			return nil, bad(invalidPath, "a path must be text")
		}
		ops[i] = operation{strings.ToLower(op), path, field(o, "value")}
		switch ops[i].op {
		case "add", "replace":
			if field(o, "value") == nil && path == "" {
				return nil, bad(invalidValue, "%s needs a value", op)
			}
		case "remove":
			if path == "" {
				return nil, bad(noTarget, "remove needs a path (RFC 7644 §3.5.2.2)")
			}
		default:
			return nil, bad(invalidSyntax, "%q is no operation; write add, replace or remove", shorten(op))
		}
	}
	return ops, nil
}

// field is a member of a message by its name in any case.
func field(o Object, name string) any {
	if v, ok := o[name]; ok {
		return v
	}
	for k, v := range o {
		if strings.EqualFold(k, name) {
			return v
		}
	}
	return nil
}

// checkMessage refuses a message that says it is another.
func checkMessage(raw Object, uri string) error {
	list, given := field(raw, "schemas").([]any)
	if given && !slices.ContainsFunc(list, func(v any) bool {
		s, ok := v.(string)
		return ok && strings.EqualFold(s, uri)
	}) {
		return bad(invalidSyntax, "schemas must contain %s", uri)
	}
	return nil
}

// patch is what operations make of a resource.
type patch struct {
	resource   *Resource
	t          *ResourceType
	attributes Object // the resource's, and a copy once changed
	members    memberEdit
	group      groupReader
}

// groupReader reads what a PATCH of a group asks for.
type groupReader interface {
	// each calls f for every direct member of the group as it is.
	each(f func(Member) bool) error
	// kind is what an id without a type stands for.
	kind(id string) (Kind, error)
}

// applyPatch carries operations out one after the other; none counts if one fails
// (RFC 7644 §3.5.2). The resource is not changed. g is used of groups only.
func applyPatch(r *Resource, ops []operation, g groupReader) (*patch, error) {
	p := &patch{resource: r, t: TypeOf(r.Kind), attributes: maps.Clone(r.Attributes), group: g}
	if p.attributes == nil {
		p.attributes = Object{}
	}
	for _, op := range ops {
		if err := p.apply(op); err != nil {
			return nil, err
		}
	}
	return p, p.t.checkRequired(p.attributes)
}

// changed reports whether anything is another than before.
func (p *patch) changed() bool { return !p.members.empty() || p.attributesChanged() }

func (p *patch) attributesChanged() bool {
	return len(p.attributes)+len(p.resource.Attributes) > 0 && !same(p.attributes, p.resource.Attributes)
}

func (p *patch) apply(op operation) error {
	if op.path != "" {
		path, err := ParsePath(p.t, op.path)
		if err != nil {
			return err
		}
		return p.at(op, path)
	}
	value, err := asObject(op.value, "the value of an operation without a path")
	if err != nil {
		return err
	}
	return p.each(op, value, "")
}

// each applies an operation to every attribute that a value names: by its name, or
// as Entra writes, by a path such as name.givenName, emails[type eq "work"].value
// or urn:…:User:department. Unknown attributes are left out, as in a whole
// resource. Wholes come before their parts.
func (p *patch) each(op operation, value Object, prefix string) error {
	keys := slices.SortedFunc(maps.Keys(value), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
	for _, key := range keys {
		full := prefix + key
		if _, ok := p.t.resolve(full); !ok && !strings.Contains(key, "[") {
			continue
		}
		path, err := ParsePath(p.t, full)
		if err != nil {
			return err
		}
		if p.unchangeable(path.ref, value[key]) {
			continue
		}
		if err := p.at(operation{op: op.op, value: value[key]}, path); err != nil {
			return err
		}
	}
	return nil
}

// unchangeable reports whether a value that is given along with others repeats
// what only the service writes: Okta sends the id of a group that it renames.
func (p *patch) unchangeable(r ref, value any) bool {
	if r.extension != "" {
		return false
	}
	return r.attribute.Name == "meta" || r.attribute.Name == "id" && value == p.resource.ID
}

// at applies an operation to what a path names.
func (p *patch) at(op operation, path *Path) error {
	r := path.ref
	switch {
	case r.attribute == nil:
		return p.atExtension(op, r)
	case r.attribute.Mutability == ReadOnly || r.sub != nil && r.sub.Mutability == ReadOnly:
		return bad(mutability, "%s is read-only", r)
	case r.attribute.Name == "schemas":
		return nil // they follow from the attributes
	case r.attribute.Name == "members" && r.extension == "":
		return p.atMembers(op, path)
	case r.attribute.MultiValued:
		return p.atList(op, path)
	case op.op == "remove":
		return p.clear(r)
	}
	return p.atOne(op, r)
}

// clear removes a value that is not a list.
func (p *patch) clear(r ref) error {
	if r.attribute.Required && r.sub == nil {
		return bad(mutability, "%s is required, and cannot be removed (RFC 7644 §3.5.2.2)", r)
	}
	put(p.attributes, r, nil)
	return nil
}

// atExtension applies an operation to all of an extension.
func (p *patch) atExtension(op operation, r ref) error {
	if op.op == "remove" {
		delete(p.attributes, r.extension)
		return nil
	}
	value, err := asObject(op.value, r.extension)
	if err != nil {
		return err
	}
	return p.each(op, value, r.extension+":")
}

// atOne adds or replaces a value that is not a list. The parts of a complex one
// that are not given stay (RFC 7644 §3.5.2.1, §3.5.2.3).
func (p *patch) atOne(op operation, r ref) error {
	value, err := asValue(r.last(), r.String(), op.value)
	if err != nil {
		return err
	}
	if r.attribute.Returned == Never {
		return nil
	}
	parts, _ := value.(Object)
	given, _ := op.value.(Object)
	switch {
	case parts == nil && present(value):
		put(p.attributes, r, value)
		return nil
	case parts == nil && given == nil:
		return p.clear(r)
	}
	for _, sub := range r.attribute.SubAttributes {
		if v, ok := parts[sub.Name]; ok || given != nil && isGiven(given, sub.Name) && sub.Mutability != ReadOnly {
			put(p.attributes, ref{r.extension, r.attribute, sub}, v)
		}
	}
	return nil
}

func isGiven(o Object, name string) bool {
	for k := range o {
		if strings.EqualFold(k, name) {
			return true
		}
	}
	return false
}

// atList applies an operation to a multi-valued attribute, or to some of its
// values, or to a part of these.
func (p *patch) atList(op operation, path *Path) error {
	whole := ref{extension: path.ref.extension, attribute: path.ref.attribute}
	old, _ := get(p.attributes, whole).([]any)
	l := &listEdit{path: path, old: old}
	var list []any
	var err error
	switch {
	case op.op == "remove":
		list, err = l.remove(op.value)
	case path.filter != nil || path.ref.sub != nil:
		list, err = l.write(op)
	default:
		list, err = l.writeAll(op)
	}
	if err != nil {
		return err
	}
	if len(list) > maxListValues {
		return bad(tooMany, "%d values of %s are more than %d", len(list), whole, maxListValues)
	}
	if err := onePrimary(whole.String(), list); err != nil {
		return err
	}
	if list = slices.DeleteFunc(list, func(v any) bool { return !present(v) }); list == nil {
		put(p.attributes, whole, nil)
	} else {
		put(p.attributes, whole, list)
	}
	return nil
}
