package graph

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/pembadb/pemba/schema"
)

// blueprint is a schema prepared for the engine: every relation and permission, and
// every part of an expression that needs a node of its own, with what it leads to
// already looked up. It is made once a schema.
type blueprint struct {
	schema *schema.Schema
	parts  []*part // by id, from 1
	atoms  map[*schema.Relation]*part
	// These serve while it is made.
	meetings map[meetingKey]*part
	held     map[*schema.Relation]map[*schema.Definition]bool
	having   map[string][]*schema.Definition // by the text of a relation or permission
	kinds    atomic.Pointer[map[subjectKind]*kind]
}

// form is how the value of a part comes about.
type form uint8

const (
	computed form = iota // from its children
	written              // from the relationships of a relation
	arrow                // from what a relation leads to
	empty                // nobody
	itself               // the object as a subject
	meeting              // where all arrows over one relation that ask for the same meet
)

// part is a relation or permission, or a part of a permission's expression.
type part struct {
	id        int32
	relation  *schema.Relation // nil for a part without a name
	form      form
	op        operator
	all       bool // an arrow that asks for all
	unions    bool // only unions lead from it, at any depth
	nested    bool // usersets of it are held by others, and only relations lead to it
	scan      bool // the object has more relations, which may be read with this one
	container bool // arrows lead to objects of its type
	typ       *schema.Definition
	children  []*part
	tuples    schema.Name // the relation whose relationships it reads
	targets   []target    // where those lead, sorted
	only      bool        // there is one type that they can lead to
	meets     *part       // of an arrow: what can come of it
	users     []*part     // whose value depends on it
}

// target is where a relationship to a userset, or any one of an arrow, leads.
// userset is zero in arrows: they ask the same of all subjects.
type target struct {
	userset, typ schema.Name
	part         *part
}

func (t target) compare(o target) int {
	return cmp.Or(cmp.Compare(t.userset, o.userset), cmp.Compare(t.typ, o.typ))
}

func blueprintOf(s *schema.Schema) *blueprint {
	return s.Derived(func() any { return newBlueprint(s) }).(*blueprint)
}

func newBlueprint(s *schema.Schema) *blueprint {
	p := &blueprint{schema: s, parts: []*part{nil}, atoms: map[*schema.Relation]*part{},
		meetings: map[meetingKey]*part{}, having: map[string][]*schema.Definition{},
		held: map[*schema.Relation]map[*schema.Definition]bool{}}
	p.kinds.Store(&map[subjectKind]*kind{})
	for _, d := range s.Definitions {
		relations := 0
		for _, r := range d.Relations {
			if !r.IsPermission() {
				relations++
			}
		}
		for _, r := range d.Relations {
			a := p.add(d)
			a.relation, a.scan = r, relations > 1
			p.atoms[r] = a
			p.having[r.Text] = append(p.having[r.Text], d)
		}
	}
	for _, d := range s.Definitions {
		for _, r := range d.Relations {
			p.atom(p.atoms[r])
		}
	}
	p.nest()
	p.unite()
	p.meetings, p.having, p.held = nil, nil, nil
	return p
}

// nest finds the usersets that relations hold and that are made of nothing but
// relationships, at any depth.
func (p *blueprint) nest() {
	plain := make([]bool, len(p.parts))
	var work []*part
	for _, a := range p.parts[1:] {
		plain[a.id] = a.form == written && !slices.ContainsFunc(a.relation.Allowed, func(s schema.AllowedSubject) bool { return s.Wildcard })
		if !plain[a.id] {
			work = append(work, a.users...)
		}
	}
	for len(work) > 0 {
		a := work[len(work)-1]
		if work = work[:len(work)-1]; plain[a.id] {
			plain[a.id] = false
			work = append(work, a.users...)
		}
	}
	for _, a := range p.parts[1:] {
		if a.form == written {
			for _, t := range a.targets {
				t.part.nested = plain[t.part.id]
			}
		}
	}
}

// unite finds the parts from which only unions lead.
func (p *blueprint) unite() {
	var work []*part
	for _, a := range p.parts[1:] {
		if a.unions = a.op == anyOf; !a.unions {
			work = append(work, a.users...)
		}
	}
	for len(work) > 0 {
		a := work[len(work)-1]
		if work = work[:len(work)-1]; a.unions {
			a.unions = false
			work = append(work, a.users...)
		}
	}
}

func (p *blueprint) add(d *schema.Definition) *part {
	a := &part{id: int32(len(p.parts)), typ: d, container: p.schema.IsContainer(d.Name)}
	p.parts = append(p.parts, a)
	return a
}

func (p *blueprint) atom(a *part) {
	switch x := a.relation.Expr; {
	case x == nil:
		a.form, a.tuples = written, a.relation.Name
		for i := range a.relation.Allowed {
			if s := &a.relation.Allowed[i]; s.Relation != nil {
				p.lead(a, target{s.Relation.Name, s.Definition.Name, p.atoms[s.Relation]})
			}
		}
		a.sort()
		a.only = len(a.targets) == 1
	case x.Kind == schema.Ref || x.Kind == schema.Nil || x.Kind == schema.Self:
		p.child(a, x)
	default:
		p.fill(a, x)
	}
}

// fill makes a the part of an expression.
func (p *blueprint) fill(a *part, x *schema.Expr) {
	switch x.Kind {
	case schema.Arrow, schema.ArrowAll:
		a.form, a.tuples, a.all = arrow, x.Tupleset.Name, x.Kind == schema.ArrowAll
		a.scan = p.atoms[x.Tupleset].scan
		if a.all {
			a.op = allOf
		}
		a.meets = p.meeting(a.typ, x)
		a.targets, a.only = a.meets.targets, a.meets.only
		a.meets.users = append(a.meets.users, a)
		return
	case schema.Intersection:
		a.op = allOf
	case schema.Exclusion:
		a.op = butNot
	}
	for _, c := range x.Children {
		p.child(a, c)
	}
}

// meetingKey is what arrows have in common that meet.
type meetingKey struct {
	tupleset *schema.Relation
	target   string
}

// meeting returns where arrows over one relation that ask for the same meet. It
// looks at the types that the relation may hold, or at those that have what is
// asked for, whichever are fewer: a schema may have very many of both.
func (p *blueprint) meeting(d *schema.Definition, x *schema.Expr) *part {
	k := meetingKey{x.Tupleset, x.Target}
	if m := p.meetings[k]; m != nil {
		return m
	}
	m := p.add(d)
	m.form = meeting
	p.meetings[k] = m
	may := p.mayHold(x.Tupleset)
	m.only = len(may) == 1
	if having := p.having[x.Target]; len(having) < len(may) {
		for _, d := range having {
			if may[d] {
				p.lead(m, target{0, d.Name, p.atoms[d.Relation(x.Target)]})
			}
		}
	} else {
		for d := range may {
			if r := d.Relation(x.Target); r != nil {
				p.lead(m, target{0, d.Name, p.atoms[r]})
			}
		}
	}
	m.sort()
	return m
}

// mayHold are the types that a relation may hold.
func (p *blueprint) mayHold(r *schema.Relation) map[*schema.Definition]bool {
	if p.held[r] == nil {
		p.held[r] = map[*schema.Definition]bool{}
		for i := range r.Allowed {
			p.held[r][r.Allowed[i].Definition] = true
		}
	}
	return p.held[r]
}

func (p *blueprint) child(a *part, x *schema.Expr) {
	var c *part
	switch x.Kind {
	case schema.Ref:
		c = p.atoms[x.Relation]
	case schema.Nil:
		c = p.add(a.typ)
		c.form = empty
	case schema.Self:
		c = p.add(a.typ)
		c.form = itself
	default:
		c = p.add(a.typ)
		p.fill(c, x)
	}
	a.children = append(a.children, c)
	c.users = append(c.users, a)
}

// lead adds a target; alternatives that differ by caveat or expiration lead to
// the same.
func (p *blueprint) lead(a *part, t target) {
	a.targets = append(a.targets, t)
	t.part.users = append(t.part.users, a)
}

func (a *part) sort() {
	slices.SortFunc(a.targets, target.compare)
	a.targets = slices.CompactFunc(a.targets, func(t, o target) bool { return t.compare(o) == 0 })
}

// reads reports whether a part's links are known only from relationships.
func (a *part) reads() bool { return a.form == written || a.form == arrow }

// subjectKind is a type of subjects, or of usersets where userset is set.
type subjectKind struct {
	typ     *schema.Definition
	userset schema.Name
}

// want says what a part needs to know about one kind of subjects.
type want uint8

const (
	possible want = 1 << iota // a subject of the kind can have it, by the schema
	direct                    // the relation may hold the subject itself
	wildcard                  // the relation may hold everybody of its type
	usersets                  // the relation may hold usersets that hold it
)

// kind is a blueprint as one kind of subjects needs it.
type kind struct {
	wants   []want // by id of the part
	origins []originName
}

// maxKinds bounds the memory of a blueprint's kinds, in wants.
const maxKinds = 16 << 20

// kind returns what a kind of subjects needs, computed on first use.
func (p *blueprint) kind(s subjectKind) *kind {
	known := p.kinds.Load()
	if k := (*known)[s]; k != nil {
		return k
	}
	k := p.newKind(s)
	for {
		next := map[subjectKind]*kind{s: k}
		if len(*known)*len(p.parts) < maxKinds {
			for other, k := range *known {
				next[other] = k
			}
		}
		if p.kinds.CompareAndSwap(known, &next) {
			return k
		}
		known = p.kinds.Load()
	}
}

// newKind computes what is possible as a least fixpoint: what stands behind a
// minus takes nothing away, and a caveat always holds.
func (p *blueprint) newKind(s subjectKind) *kind {
	k := &kind{wants: make([]want, len(p.parts))}
	var work []*part
	mark := func(a *part) {
		if k.wants[a.id]&possible == 0 {
			k.wants[a.id] |= possible
			work = append(work, a.users...)
		}
	}
	for _, a := range p.parts[1:] {
		switch {
		case a.form == written:
			if k.wants[a.id] |= holds(a.relation, s); k.wants[a.id] != 0 {
				mark(a)
			}
		case a.form == itself && a.typ == s.typ && s.userset == 0:
			mark(a)
		}
		if s.userset != 0 && a.relation != nil && a.typ == s.typ && a.relation.Name == s.userset {
			mark(a) // a userset is in itself
		}
	}
	for len(work) > 0 {
		a := work[len(work)-1]
		work = work[:len(work)-1]
		if k.wants[a.id]&possible == 0 && k.follows(a) {
			mark(a)
		}
	}
	mixed := map[schema.Name]bool{}
	for _, a := range p.parts[1:] {
		if a.form == written && k.leads(a) {
			k.wants[a.id] |= usersets
		}
		if a.form == written && !a.nested {
			mixed[a.tuples] = true
		}
	}
	for _, a := range p.parts[1:] {
		if a.nested && k.wants[a.id]&direct != 0 && !slices.ContainsFunc(k.origins, func(o originName) bool { return o.relation == a.tuples }) {
			k.origins = append(k.origins, originName{a.tuples, mixed[a.tuples]})
		}
	}
	return k
}

func (k *kind) can(a *part) bool { return k.wants[a.id]&possible != 0 }

// follows reports whether a part is possible given its own parts.
func (k *kind) follows(a *part) bool {
	switch {
	case a.form == arrow:
		return k.can(a.meets)
	case a.form == written || a.form == meeting:
		return k.leads(a)
	case len(a.children) == 0:
		return false
	case a.op == allOf:
		return !slices.ContainsFunc(a.children, func(c *part) bool { return !k.can(c) })
	case a.op == butNot:
		return k.can(a.children[0])
	}
	return slices.ContainsFunc(a.children, k.can)
}

func (k *kind) leads(a *part) bool {
	return slices.ContainsFunc(a.targets, func(t target) bool { return k.can(t.part) })
}

// holds says how a relation may hold a kind of subjects itself.
func holds(r *schema.Relation, s subjectKind) (w want) {
	for i := range r.Allowed {
		a := &r.Allowed[i]
		switch {
		case a.Definition != s.typ:
		case a.Wildcard:
			if s.userset == 0 {
				w |= wildcard
			}
		case a.Relation == nil:
			if s.userset == 0 {
				w |= direct
			}
		case a.Relation.Name == s.userset:
			w |= direct
		}
	}
	return w
}
