package scim

import (
	"cmp"
	"maps"
	"slices"
)

// memberEdit gathers who comes and who goes, in the order of the operations.
type memberEdit struct {
	replace     bool
	add, remove map[Member]bool
}

func (e *memberEdit) empty() bool { return !e.replace && len(e.add) == 0 && len(e.remove) == 0 }

func (e *memberEdit) adds(m Member) {
	if e.add == nil {
		e.add = map[Member]bool{}
	}
	e.add[m] = true
}

func (e *memberEdit) removes(m Member) {
	for _, k := range []Kind{"", User, Group} { // one whose kind was not told may be of either
		if m.Kind == "" || k == "" || k == m.Kind {
			delete(e.add, Member{ID: m.ID, Kind: k})
		}
	}
	if e.replace {
		return
	}
	if e.remove == nil {
		e.remove = map[Member]bool{}
	}
	e.remove[m] = true
}

func (e *memberEdit) removesAll() { *e = memberEdit{replace: true} }

// change is the edit as a [Directory] takes it; nil for none.
func (e *memberEdit) change() *MemberChange {
	if e.empty() {
		return nil
	}
	return &MemberChange{Replace: e.replace, Add: sorted(e.add), Remove: sorted(e.remove)}
}

func sorted(set map[Member]bool) []Member {
	return slices.SortedFunc(maps.Keys(set), func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Kind, b.Kind))
	})
}

// atMembers applies an operation to the members of a group. Their parts are
// immutable (RFC 7643 §4.2): a member comes or goes as a whole.
func (p *patch) atMembers(op operation, path *Path) error {
	if path.ref.sub != nil {
		return bad(mutability, "%s is immutable; add and remove members as a whole", path.ref)
	}
	if op.op == "remove" {
		return p.removeMembers(op, path)
	}
	if path.filter != nil {
		return p.writeMember(op, path)
	}
	members, err := asMembers(op.value)
	if err != nil {
		return err
	}
	if op.op == "replace" {
		p.members.removesAll()
	}
	for _, m := range members {
		p.members.adds(m)
	}
	return nil
}

// writeMember adds a member through a filter that describes it, in whose place
// another may come.
func (p *patch) writeMember(op operation, path *Path) error {
	given, err := asComplex(path.ref.attribute, "members", op.value)
	if err != nil {
		return err
	}
	o, ok := described(path.filter.root)
	if !ok {
		return bad(noTarget, "%s does not say which member is meant", path)
	}
	was, err := asMember(o)
	if err != nil {
		return err
	}
	if parts, _ := given.(Object); parts != nil {
		maps.Copy(o, parts)
	}
	m, err := asMember(o)
	if err != nil {
		return err
	}
	if op.op == "replace" && m != was {
		p.members.removes(was)
	}
	p.members.adds(m)
	return nil
}

// removeMembers takes away all members, those that a value lists (Entra), or those
// that a filter matches (Okta). Who is no member needs no removal.
func (p *patch) removeMembers(op operation, path *Path) error {
	switch {
	case path.filter != nil:
		return p.removeMatching(path.filter.root)
	case op.value == nil:
		p.members.removesAll()
		return nil
	}
	members, err := asMembers(op.value)
	for _, m := range members {
		p.members.removes(m)
	}
	return err
}

// removeMatching removes whom a condition matches. The members are read only if
// it does not say who that is.
func (p *patch) removeMatching(n node) error {
	if o, ok := described(n); ok && o["value"] != nil && o["display"] == nil && o["$ref"] == nil {
		m, err := asMember(o)
		if err == nil {
			p.members.removes(m)
		}
		return err
	}
	var failed error
	visit := func(m Member) bool {
		hit, err := n.match(objectSource(memberObject(m, "")))
		if failed = err; hit {
			p.members.removes(Member{ID: m.ID, Kind: m.Kind})
		}
		return err == nil
	}
	for _, m := range sorted(p.members.add) {
		if m.Kind == "" {
			if m.Kind, failed = p.group.kind(m.ID); failed != nil {
				return failed
			}
		}
		if !visit(m) {
			return failed
		}
	}
	if p.members.replace {
		return nil
	}
	if err := p.group.each(visit); err != nil {
		return err
	}
	return failed
}

// memberObject is a member as clients see it; base is the URI of the service.
func memberObject(m Member, base string) Object {
	o := Object{"value": m.ID}
	if m.Kind != "" {
		o["type"], o["$ref"] = string(m.Kind), location(base, m.Kind, m.ID)
	}
	if m.Display != "" {
		o["display"] = m.Display
	}
	return o
}
