package schema

import (
	"fmt"
	"slices"
	"strings"
)

// DifferenceKind tells what a [Difference] is about.
type DifferenceKind string

const (
	DefinitionAdded   DifferenceKind = "definition added"
	DefinitionRemoved DifferenceKind = "definition removed"
	// DirectoryChanged is about what stands for users and groups (see [Directory]).
	DirectoryChanged     DifferenceKind = "users and groups changed"
	DefinitionDocChanged DifferenceKind = "definition comment changed"

	RelationAdded        DifferenceKind = "relation added"
	RelationRemoved      DifferenceKind = "relation removed"
	RelationDocChanged   DifferenceKind = "relation comment changed"
	RelationToPermission DifferenceKind = "relation became permission"

	PermissionAdded      DifferenceKind = "permission added"
	PermissionRemoved    DifferenceKind = "permission removed"
	PermissionChanged    DifferenceKind = "permission changed"
	PermissionDocChanged DifferenceKind = "permission comment changed"
	PermissionToRelation DifferenceKind = "permission became relation"

	SubjectAdded   DifferenceKind = "subject added"
	SubjectRemoved DifferenceKind = "subject removed"

	CaveatAdded             DifferenceKind = "caveat added"
	CaveatRemoved           DifferenceKind = "caveat removed"
	CaveatDocChanged        DifferenceKind = "caveat comment changed"
	CaveatExpressionChanged DifferenceKind = "caveat expression changed"
	ParameterAdded          DifferenceKind = "parameter added"
	ParameterRemoved        DifferenceKind = "parameter removed"
	ParameterChanged        DifferenceKind = "parameter type changed"
)

// Difference is one thing that two schemas do not share.
type Difference struct {
	Kind DifferenceKind
	// Type and Relation (of a relation or permission), or Caveat and Parameter,
	// name the part that differs.
	Type, Relation, Caveat, Parameter string
	// Old and New are its texts, empty where it does not exist.
	Old, New string
	// Breaking: what callers do or have written may fail, or answer less.
	Breaking bool
	// Why says what breaks, or why nothing does.
	Why string
}

// String gives the difference on one line.
func (d Difference) String() string {
	var b strings.Builder
	b.WriteString(string(d.Kind) + " ")
	switch {
	case d.Parameter != "":
		b.WriteString(d.Caveat + "(" + d.Parameter + ")")
	case d.Caveat != "":
		b.WriteString(d.Caveat)
	case d.Relation != "":
		b.WriteString(d.Type + "#" + d.Relation)
	default:
		b.WriteString(d.Type)
	}
	switch {
	case d.Old != "" && d.New != "":
		fmt.Fprintf(&b, ": %s → %s", oneLineText(d.Old), oneLineText(d.New))
	case d.Old != "" || d.New != "":
		fmt.Fprintf(&b, ": %s", oneLineText(d.Old+d.New))
	}
	if d.Breaking {
		b.WriteString(" (breaking: " + d.Why + ")")
	}
	return b.String()
}

func oneLineText(s string) string { return strings.Join(strings.Fields(s), " ") }

// Diff lists what has to change to make an old schema the new one, by
// definition and caveat, sorted by their names. Order and layout of a schema
// are no difference. A nil schema is an empty one.
func Diff(old, new *Schema) []Difference {
	if old == nil {
		old = &Schema{}
	}
	if new == nil {
		new = &Schema{}
	}
	d := &differ{excluded: excludedNames(new)}
	for _, o := range old.Definitions {
		if n := new.Definition(o.Type); n != nil {
			d.definition(o, n)
		} else {
			d.add(Difference{Kind: DefinitionRemoved, Type: o.Type, Breaking: true,
				Why: "its stored relationships lose their type, and checks on it become errors"})
		}
	}
	for _, n := range new.Definitions {
		if old.Definition(n.Type) == nil {
			d.add(Difference{Kind: DefinitionAdded, Type: n.Type, Why: "nothing uses it yet"})
		}
	}
	if a, b := old.Directory, new.Directory; len(old.Definitions) > 0 && a.String() != b.String() {
		x := Difference{Kind: DirectoryChanged, Type: b.User, Old: a.String(), New: b.String(), Why: "those that SCIM creates from now on take their ids so"}
		if a.User != b.User || a.Group != b.Group || a.Member != b.Member {
			x.Breaking, x.Why = true, "refused while there are users or groups of the old types"
		}
		d.add(x)
	}
	d.caveats(old, new)
	slices.SortStableFunc(d.out, func(a, b Difference) int {
		if c := compare(a.Type, b.Type); c != 0 {
			return c
		}
		return compare(a.Caveat, b.Caveat)
	})
	return d.out
}

type differ struct {
	out      []Difference
	excluded map[string]bool // see excludedNames
}

func (d *differ) add(x Difference) { d.out = append(d.out, x) }

// doc adds a difference of comments, if there is one.
func (d *differ) doc(x Difference, old, new string) {
	if old != new {
		x.Old, x.New, x.Why = old, new, "comments have no effect"
		d.add(x)
	}
}

func (d *differ) definition(old, new *Definition) {
	d.doc(Difference{Kind: DefinitionDocChanged, Type: old.Type}, old.Doc, new.Doc)
	for _, o := range old.Relations {
		if n := new.Relation(o.Text); n != nil {
			d.relation(o, n)
			continue
		}
		x := Difference{Kind: RelationRemoved, Type: old.Type, Relation: o.Text, Old: o.Signature(), Breaking: true,
			Why: "its stored relationships lose their relation, and writes and checks of it become errors"}
		if o.IsPermission() {
			x.Kind, x.Why = PermissionRemoved, "checks of it become errors"
		}
		d.add(x)
	}
	for _, n := range new.Relations {
		if old.Relation(n.Text) == nil {
			x := Difference{Kind: RelationAdded, Type: old.Type, Relation: n.Text, New: n.Signature(), Why: "nothing uses it yet"}
			if n.IsPermission() {
				x.Kind = PermissionAdded
			}
			d.add(x)
		}
	}
}

func (d *differ) relation(old, new *Relation) {
	x := Difference{Type: old.Definition.Type, Relation: old.Text, Old: old.Signature(), New: new.Signature()}
	switch {
	case !old.IsPermission() && new.IsPermission():
		x.Kind, x.Breaking, x.Why = RelationToPermission, true, "its stored relationships lose their relation, and writes of it become errors"
		d.add(x)
	case old.IsPermission() && !new.IsPermission():
		x.Kind, x.Breaking, x.Why = PermissionToRelation, true, "it is no longer computed: nobody has it until relationships are written"
		d.add(x)
	case old.IsPermission():
		if x.Old != x.New {
			x.Kind, x.Breaking, x.Why = PermissionChanged, true, "it may be denied to subjects that have it"
			if widens(old.Expr, new.Expr) {
				x.Breaking, x.Why = false, "everybody who has it keeps it, and more may get it"
				if d.excluded[x.Relation] {
					x.Breaking, x.Why = true, "more may get it, and a permission that excludes it is denied to those"
				}
			}
			d.add(x)
		}
	default:
		d.subjects(old, new)
	}
	if old.IsPermission() && new.IsPermission() {
		d.doc(Difference{Kind: PermissionDocChanged, Type: x.Type, Relation: x.Relation}, old.Doc, new.Doc)
	} else {
		d.doc(Difference{Kind: RelationDocChanged, Type: x.Type, Relation: x.Relation}, old.Doc, new.Doc)
	}
}

// subjects compares the alternatives that a relation allows.
func (d *differ) subjects(old, new *Relation) {
	had, has := allowedTexts(old), allowedTexts(new)
	for _, a := range old.Allowed {
		if text := a.String(); !has[text] {
			d.add(Difference{Kind: SubjectRemoved, Type: old.Definition.Type, Relation: old.Text, Old: text, Breaking: true,
				Why: "relationships that hold it lose their place, and writes of it become errors"})
		}
	}
	for _, a := range new.Allowed {
		if text := a.String(); !had[text] {
			d.add(Difference{Kind: SubjectAdded, Type: old.Definition.Type, Relation: old.Text, New: text, Why: "nothing uses it yet"})
		}
	}
}

func allowedTexts(r *Relation) map[string]bool {
	out := make(map[string]bool, len(r.Allowed))
	for _, a := range r.Allowed {
		out[a.String()] = true
	}
	return out
}

// widens reports whether everybody whom old admits is admitted by new, whoever
// the relations and permissions in them name: what they refer to has a difference
// of its own if it changes. A false may be wrong, a true is not.
func widens(old, new *Expr) bool {
	w := widening{texts: map[*Expr]string{}, known: map[[2]*Expr]bool{}}
	return w.covers(old, new)
}

// widening compares parts of two expressions.
type widening struct {
	texts map[*Expr]string
	known map[[2]*Expr]bool
}

// maxWidening bounds the pairs of parts that are compared.
const maxWidening = 20_000

func (w *widening) text(e *Expr) string {
	text, ok := w.texts[e]
	if !ok {
		text = e.String()
		w.texts[e] = text
	}
	return text
}

// covers reports whether a's subjects are all among b's.
func (w *widening) covers(a, b *Expr) bool {
	pair := [2]*Expr{a, b}
	if known, ok := w.known[pair]; ok || len(w.known) >= maxWidening {
		return known
	}
	w.known[pair] = false
	covered := a.Kind == Nil || w.text(a) == w.text(b) || w.leaves(a, b) || w.splits(a, b)
	w.known[pair] = covered
	return covered
}

// leaves compares arrows: `.all()` admits only whom `.any()` admits.
func (w *widening) leaves(a, b *Expr) bool {
	return a.Kind == ArrowAll && b.Kind == Arrow && a.Tupleset == b.Tupleset && a.Target == b.Target
}

// splits takes a or b apart.
func (w *widening) splits(a, b *Expr) bool {
	all := func(list []*Expr, f func(*Expr) bool) bool {
		return !slices.ContainsFunc(list, func(e *Expr) bool { return !f(e) })
	}
	switch {
	case a.Kind == Union:
		return all(a.Children, func(e *Expr) bool { return w.covers(e, b) })
	case b.Kind == Intersection:
		return all(b.Children, func(e *Expr) bool { return w.covers(a, e) })
	}
	// One way that leads there is enough.
	if b.Kind == Union && slices.ContainsFunc(b.Children, func(e *Expr) bool { return w.covers(a, e) }) {
		return true
	}
	if a.Kind == Intersection && slices.ContainsFunc(a.Children, func(e *Expr) bool { return w.covers(e, b) }) {
		return true
	}
	if a.Kind == Exclusion && w.covers(a.Children[0], b) {
		return true
	}
	if b.Kind != Exclusion {
		return false
	}
	// a is within b's left side, and what b excludes is nothing, or excluded by a.
	without := b.Children[1]
	return w.covers(a, b.Children[0]) && (without.Kind == Nil || a.Kind == Exclusion && w.covers(without, a.Children[1]))
}

// excludedNames gives the names of the relations and permissions on which the
// right side of some exclusion depends. It may name more of them than that, as
// it does not tell the types of equal names apart.
func excludedNames(s *Schema) map[string]bool {
	out := map[string]bool{}
	byName := map[string][]*Expr{}
	var queue []string
	var collect func(e *Expr, excluded bool)
	add := func(name string) {
		if !out[name] {
			out[name] = true
			queue = append(queue, name)
		}
	}
	collect = func(e *Expr, excluded bool) {
		switch {
		case !excluded:
		case e.Kind == Ref:
			add(e.Relation.Text)
		case e.Kind == Arrow || e.Kind == ArrowAll:
			add(e.Tupleset.Text)
			add(e.Target)
		}
		for i, child := range e.Children {
			collect(child, excluded || e.Kind == Exclusion && i == 1)
		}
	}
	for _, d := range s.Definitions {
		for _, r := range d.Relations {
			if r.Expr != nil {
				byName[r.Text] = append(byName[r.Text], r.Expr)
				collect(r.Expr, false)
			}
		}
	}
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		for _, e := range byName[name] {
			collect(e, true)
		}
	}
	return out
}

func (d *differ) caveats(old, new *Schema) {
	for _, o := range old.Caveats {
		if n := new.Caveat(o.Name); n != nil {
			d.caveat(o, n)
		} else {
			d.add(Difference{Kind: CaveatRemoved, Caveat: o.Name, Old: o.Expression, Breaking: true,
				Why: "relationships that carry it lose their meaning, and writes with it become errors"})
		}
	}
	for _, n := range new.Caveats {
		if old.Caveat(n.Name) == nil {
			d.add(Difference{Kind: CaveatAdded, Caveat: n.Name, New: n.Expression, Why: "nothing uses it yet"})
		}
	}
}

func (d *differ) caveat(old, new *Caveat) {
	d.doc(Difference{Kind: CaveatDocChanged, Caveat: old.Name}, old.Doc, new.Doc)
	find := func(c *Caveat, name string) (string, bool) {
		for _, p := range c.Parameters {
			if p.Name == name {
				return p.Type, true
			}
		}
		return "", false
	}
	for _, p := range old.Parameters {
		x := Difference{Caveat: old.Name, Parameter: p.Name, Old: p.Type, Breaking: true}
		switch typ, ok := find(new, p.Name); {
		case !ok:
			x.Kind, x.Why = ParameterRemoved, "relationships whose context has the field can no longer be held"
			d.add(x)
		case typ != p.Type:
			x.Kind, x.New, x.Why = ParameterChanged, typ, "contexts that fitted the old type may not fit the new one"
			d.add(x)
		}
	}
	for _, p := range new.Parameters {
		if _, ok := find(old, p.Name); !ok {
			d.add(Difference{Kind: ParameterAdded, Caveat: old.Name, Parameter: p.Name, New: p.Type, Breaking: true,
				Why: "until callers send it, answers that had a decision become conditional"})
		}
	}
	if old.Expression != new.Expression {
		d.add(Difference{Kind: CaveatExpressionChanged, Caveat: old.Name, Old: old.Expression, New: new.Expression, Breaking: true,
			Why: "it may refuse what it let pass"})
	}
}

// Signature gives the relation or permission as one writes it, without its
// name: the subjects it allows, sorted, or its expression in canonical form.
func (r *Relation) Signature() string {
	if r.Expr != nil {
		return r.Expr.String()
	}
	texts := make([]string, len(r.Allowed))
	for i, a := range r.Allowed {
		texts[i] = a.String()
	}
	slices.Sort(texts)
	return strings.Join(texts, " | ")
}

// String gives the expression with the parentheses it needs under any
// precedence. Two expressions of equal text mean the same.
func (e *Expr) String() string {
	var b strings.Builder
	e.write(&b)
	return b.String()
}

func (e *Expr) write(b *strings.Builder) {
	switch e.Kind {
	case Nil:
		b.WriteString("nil")
	case Self:
		b.WriteString("self")
	case Ref:
		b.WriteString(e.Relation.Text)
	case Arrow:
		b.WriteString(e.Tupleset.Text + "->" + e.Target)
	case ArrowAll:
		b.WriteString(e.Tupleset.Text + ".all(" + e.Target + ")")
	default:
		operator := map[ExprKind]string{Union: " + ", Intersection: " & ", Exclusion: " - "}[e.Kind]
		for i, child := range e.Children {
			if i > 0 {
				b.WriteString(operator)
			}
			if len(child.Children) == 0 {
				child.write(b)
				continue
			}
			b.WriteByte('(')
			child.write(b)
			b.WriteByte(')')
		}
	}
}
