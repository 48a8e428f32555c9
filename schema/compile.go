package schema

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"sort"
	"strings"
)

// maxExpression bounds how deep a compiled expression nests.
const maxExpression = 1000

// Compile reads a schema, follows its imports, expands its partials, checks it
// and makes the plan by which questions are answered. Every type, relation,
// permission and caveat gets its Name from names, which is added to only if
// there is no error; nil stands for an empty table. The warnings come in the
// order of the source. The error is an [Errors].
func Compile(src Source, names *Names, opts Options) (*Schema, []Warning, error) {
	c := &compiler{
		schema:      &Schema{byType: map[string]*Definition{}},
		caveats:     map[string]*Caveat{},
		permissions: map[*Relation]*PermissionDecl{},
		relations:   map[*Relation]*RelationDecl{},
		wildcards:   map[*Relation]AllowedSubject{},
	}
	c.program = load(src, opts, &c.report)
	c.options = opts
	if !c.incomplete { // else what could not be read would seem not to be declared
		c.bound()
		c.declare()
		c.resolve()
		c.directory()
	}
	if err := opts.stopped(); err != nil {
		return nil, nil, err
	}
	if err := c.err(); err != nil {
		return nil, nil, err
	}
	c.checkAnnotations()
	if err := c.err(); err != nil {
		return nil, nil, err
	}
	c.lint()
	if names == nil {
		names = NewNames()
	}
	if err := c.assignNames(names); err != nil {
		return nil, nil, Errors{{Pos: Position{File: src.Name}, Message: err.Error()}}
	}
	c.finish(src)
	return c.schema, c.warnings, nil
}

type compiler struct {
	report
	*program
	options  Options
	schema   *Schema
	warnings []Warning

	caveats     map[string]*Caveat
	types       []string                     // sorted, once asked for
	wildcards   map[*Relation]AllowedSubject // one of those that the relation allows
	order       []*Relation                  // all relations and permissions, in the order of the source
	permissions map[*Relation]*PermissionDecl
	relations   map[*Relation]*RelationDecl
}

// declare creates definitions, relations and caveats without what they refer to.
func (c *compiler) declare() {
	places := map[string]Position{}
	fresh := func(what, name string, pos Position) bool {
		if first, ok := places[name]; ok {
			c.add(pos, name, fmt.Sprintf("the name %s is used twice", quote(name)),
				fmt.Sprintf("the first is at %s; rename this %s or remove it", first, what))
			return false
		}
		places[name] = pos
		return true
	}
	for _, d := range c.program.caveats {
		if c.options.stopped() != nil {
			return // Compile tells
		}
		if fresh("caveat", d.Name, d.NamePos) {
			c.declareCaveat(d)
		}
	}
	for _, d := range c.program.definitions {
		if fresh("definition", d.Name, d.NamePos) {
			c.declareDefinition(d)
		}
	}
}

func (c *compiler) declareCaveat(d *CaveatDecl) {
	caveat, err := newCaveat(d.Name, d.Doc(), d.Parameters, d.Expression)
	if err == nil {
		c.caveats[d.Name] = caveat
		c.schema.Caveats = append(c.schema.Caveats, caveat)
		return
	}
	c.caveats[d.Name] = nil // declared, though of no use
	pos, token := d.NamePos, d.Name
	switch {
	case err.Line > 0:
		pos, token = d.at(err.Line, err.Column), ""
	case err.Parameter >= 0 && err.Parameter < len(d.parameters):
		pos, token = d.parameters[err.Parameter], d.Parameters[err.Parameter].Name
	}
	c.add(pos, token, err.Message, err.Hint)
}

func (c *compiler) declareDefinition(d *expandedDefinition) {
	def := &Definition{Type: d.Name, Doc: d.Doc(), Pos: d.NamePos, Relations: make([]*Relation, 0, len(d.statements)),
		byText: make(map[string]*Relation, len(d.statements))}
	c.schema.byType[d.Name] = def
	c.schema.Definitions = append(c.schema.Definitions, def)
	for _, s := range d.statements {
		r := &Relation{Definition: def, Doc: s.node().Doc()}
		r.Text, r.Pos = declared(s)
		switch s := s.(type) {
		case *RelationDecl:
			c.relations[r] = s
		case *PermissionDecl:
			c.permissions[r] = s
		}
		def.Relations = append(def.Relations, r)
		def.byText[r.Text] = r
		c.order = append(c.order, r)
	}
}

// bound refuses more than a schema may hold, before it is compiled.
func (c *compiler) bound() {
	if c.options.Stored {
		return
	}
	if all := c.program.caveats; len(all) > MaxCaveats {
		c.add(all[MaxCaveats].NamePos, all[MaxCaveats].Name, fmt.Sprintf("the schema has %d caveats, and may have %d", len(all), MaxCaveats),
			"give caveats parameters, so that one serves many relations")
		c.program.caveats = all[:MaxCaveats]
	}
	operands := 0
	for _, d := range c.program.definitions {
		for _, s := range d.statements {
			p, ok := s.(*PermissionDecl)
			if !ok {
				continue
			}
			if operands += p.Expression.operands(); operands > MaxOperands {
				c.add(p.Expression.Pos, "", fmt.Sprintf("the expressions of the schema have more than %d operands up to here", MaxOperands),
					"split the schema into stores")
				c.incomplete = true
				return
			}
		}
	}
}

// operands counts the leaves of an expression.
func (e *Expression) operands() int {
	if len(e.Operands) == 0 {
		return 1
	}
	n := 0
	for _, o := range e.Operands {
		n += o.operands()
	}
	return n
}

// resolve fills in what relations allow and what permissions compute.
func (c *compiler) resolve() {
	for _, r := range c.order {
		if d := c.relations[r]; d != nil {
			c.resolveRelation(r, d)
		}
	}
	// Arrows ask what relations allow, so permissions come second.
	for _, r := range c.order {
		if c.options.stopped() != nil {
			return
		}
		if d := c.permissions[r]; d != nil {
			r.Expr = c.plan(r, d.Expression, 0)
		}
	}
	c.checkWildcards()
}

func (c *compiler) typeNames() []string {
	if c.types == nil {
		for name := range c.schema.byType {
			c.types = append(c.types, name)
		}
		sort.Strings(c.types)
	}
	return c.types
}

// definition finds a type that the source refers to, or reports that there is
// none.
func (c *compiler) definition(typ string, pos Position) *Definition {
	def := c.schema.byType[typ]
	if def == nil {
		hint := "declare `definition " + typ + " {}`"
		if _, ok := c.caveats[typ]; ok {
			hint = "it is a caveat; write `type with " + typ + "`"
		} else if !c.full() {
			hint = didYouMean(typ, c.typeNames(), hint)
		}
		c.add(pos, typ, "there is no type "+quote(typ), hint)
	}
	return def
}

func (c *compiler) resolveRelation(r *Relation, d *RelationDecl) {
	seen := make(map[string]bool, len(d.Subjects))
	r.Allowed = make([]AllowedSubject, 0, len(d.Subjects))
	for _, s := range d.Subjects {
		if text := s.String(); seen[text] {
			c.add(s.Pos, s.Type, fmt.Sprintf("relation %s allows %s twice", quote(r.Text), quote(text)), "remove one")
			continue
		} else {
			seen[text] = true
		}
		if a, ok := c.allowed(s); ok {
			r.Allowed = append(r.Allowed, a)
			if a.Wildcard {
				c.wildcards[r] = a
			}
		}
	}
}

func (c *compiler) allowed(s *SubjectDecl) (AllowedSubject, bool) {
	a := AllowedSubject{Wildcard: s.Wildcard, Expiration: s.Expiration, Definition: c.definition(s.Type, s.Pos)}
	ok := a.Definition != nil
	if ok && s.Relation != "" {
		if a.Relation = a.Definition.Relation(s.Relation); a.Relation == nil {
			c.add(s.RelationPos, s.Relation, fmt.Sprintf("type %s has no relation or permission %s", quote(s.Type), quote(s.Relation)),
				didYouMean(s.Relation, relationNames(a.Definition), "add it to `definition "+s.Type+"`"))
			ok = false
		}
	}
	if s.Caveat == "" {
		return a, ok
	}
	caveat, declared := c.caveats[s.Caveat]
	if !declared {
		hint := "declare `caveat " + s.Caveat + "(…) { … }`"
		if s.Caveat == flagExpiration {
			hint = "for relationships that expire, add the line `use expiration` at the top of the file"
		} else if !c.full() {
			names := make([]string, 0, len(c.caveats))
			for name := range c.caveats {
				names = append(names, name)
			}
			sort.Strings(names)
			hint = didYouMean(s.Caveat, names, hint)
		}
		c.add(s.CaveatPos, s.Caveat, "there is no caveat "+quote(s.Caveat), hint)
		return a, false
	}
	a.Caveat = caveat
	return a, ok && caveat != nil
}

func relationNames(d *Definition) []string {
	out := make([]string, len(d.Relations))
	for i, r := range d.Relations {
		out[i] = r.Text
	}
	return out
}

// plan compiles an expression of permission r; nil after an error.
func (c *compiler) plan(r *Relation, e *Expression, depth int) *Expr {
	if depth > maxExpression {
		c.add(e.Pos, "", fmt.Sprintf("the expression of permission %s nests more than %d deep", quote(r.Text), maxExpression),
			"name a part of it as a permission of its own")
		return nil
	}
	out := &Expr{Kind: e.Kind, Pos: e.Pos}
	switch {
	case e.Operator == ExclusionOperator:
		return c.planExclusion(r, e, depth)
	case e.Operator != NoOperator:
		out.Kind = Union
		if e.Operator == IntersectionOperator {
			out.Kind = Intersection
		}
		for _, o := range e.Operands {
			child := c.plan(r, o, depth+1)
			if child == nil {
				out = nil // and look for more errors
			} else if out != nil && child.Kind == out.Kind {
				out.Children = append(out.Children, child.Children...) // (a + b) + c is a + b + c
			} else if out != nil {
				out.Children = append(out.Children, child)
			}
		}
		return out
	case e.Kind == Ref:
		if out.Relation = r.Definition.Relation(e.Name); out.Relation == nil {
			c.unknownRelation(r.Definition, e)
			return nil
		}
	case e.Kind == Arrow || e.Kind == ArrowAll:
		return c.planArrow(r, e, out)
	}
	return out
}

// planExclusion makes `a - b - c` into (a - b) - c.
func (c *compiler) planExclusion(r *Relation, e *Expression, depth int) *Expr {
	deepest := depth + len(e.Operands) - 1
	if deepest > maxExpression {
		return c.plan(r, e.Operands[0], deepest) // reports it
	}
	var out *Expr
	ok := true
	for i, o := range e.Operands {
		child := c.plan(r, o, deepest-max(0, i-1))
		ok = ok && child != nil
		if i == 0 {
			out = child
		} else {
			out = &Expr{Kind: Exclusion, Children: []*Expr{out, child}, Pos: e.Pos}
		}
	}
	if !ok {
		return nil
	}
	return out
}

func (c *compiler) planArrow(r *Relation, e *Expression, out *Expr) *Expr {
	left := r.Definition.Relation(e.Name)
	if left == nil {
		c.unknownRelation(r.Definition, e)
		return nil
	}
	if d := c.permissions[left]; d != nil {
		c.add(e.Pos, e.Name, fmt.Sprintf("%s is a permission, and the left side of an arrow must be a relation", quote(e.Name)),
			"name the relations it is made of: `(a + b)->c` is written `a->c + b->c`")
		return nil
	}
	if a, ok := c.wildcards[left]; ok {
		c.add(e.Pos, e.Name, fmt.Sprintf("relation %s allows %s, and an arrow cannot walk a wildcard",
			quote(e.Name), quote(a.String())), "use another relation, one without a wildcard, for the arrow")
		return nil
	}
	out.Tupleset, out.Target = left, e.Target
	return out
}

func (c *compiler) unknownRelation(d *Definition, e *Expression) {
	hint := ""
	switch {
	case e.Name == "self":
		hint = "for the object itself, add the line `use self` at the top of the file"
	case c.schema.byType[e.Name] != nil:
		hint = "it is a type; an expression names relations: add `relation " + lastPart(e.Name) + ": " + e.Name + "`"
	default:
		hint = didYouMean(e.Name, relationNames(d), "add `relation "+e.Name+": …` to the definition")
	}
	c.add(e.Pos, e.Name, fmt.Sprintf("definition %s has no relation or permission %s", quote(d.Type), quote(e.Name)), hint)
}

func lastPart(typ string) string { return typ[strings.LastIndexByte(typ, '/')+1:] }

// checkWildcards refuses a userset whose relation may hold a wildcard: it would
// let everybody in by way of one group.
func (c *compiler) checkWildcards() {
	for _, r := range c.order {
		d := c.relations[r]
		if d == nil || len(d.Subjects) != len(r.Allowed) {
			continue
		}
		for i, a := range r.Allowed {
			if inner, ok := c.wildcards[a.Relation]; ok {
				c.add(d.Subjects[i].Pos, d.Subjects[i].Type, fmt.Sprintf("%s allows the wildcard %s, which cannot be included by way of relation %s",
					quote(a.String()), quote(inner.String()), quote(r.Text)),
					"allow the wildcard in "+quote(r.Text)+" itself, or use a relation without one")
			}
		}
	}
}

// assignNames gives every name its id. It adds to names only when all find room.
func (c *compiler) assignNames(names *Names) error {
	missing := map[string]bool{}
	need := func(text string) error {
		if _, ok := names.ID(text); !ok && !missing[text] {
			if names.Len()+len(missing) >= MaxNames {
				return errNamesFull(text)
			}
			missing[text] = true
		}
		return nil
	}
	for _, caveat := range c.schema.Caveats {
		if err := need(caveat.Name); err != nil {
			return err
		}
	}
	for _, d := range c.schema.Definitions {
		if err := need(d.Type); err != nil {
			return err
		}
	}
	for _, r := range c.order {
		if err := need(r.Text); err != nil {
			return err
		}
	}
	id := func(text string) Name {
		n, _ := names.Add(text) // there is room: see above
		return n
	}
	for _, caveat := range c.schema.Caveats {
		id(caveat.Name)
	}
	for _, d := range c.schema.Definitions {
		d.Name = id(d.Type)
		d.byName = make(map[Name]*Relation, len(d.Relations))
		for _, r := range d.Relations {
			r.Name = id(r.Text)
			d.byName[r.Name] = r
		}
	}
	for _, r := range c.order {
		if r.Expr != nil {
			nameTargets(r.Expr, names)
		}
	}
	return nil
}

// nameTargets fills in TargetName. A target that no type has keeps zero.
func nameTargets(e *Expr, names *Names) {
	if e.Kind == Arrow || e.Kind == ArrowAll {
		e.TargetName, _ = names.ID(e.Target)
	}
	for _, child := range e.Children {
		nameTargets(child, names)
	}
}

// contain notes the types to which the arrows of an expression lead. walked are
// the left sides already seen.
func (s *Schema) contain(e *Expr, walked map[*Relation]bool) {
	if e == nil {
		return
	}
	for _, child := range e.Children {
		s.contain(child, walked)
	}
	if e.Tupleset != nil && !walked[e.Tupleset] {
		walked[e.Tupleset] = true
		for i := range e.Tupleset.Allowed {
			s.containers[e.Tupleset.Allowed[i].Definition.Name] = true
		}
	}
}

// finish sorts, indexes and hashes the schema.
func (c *compiler) finish(src Source) {
	s := c.schema
	slices.SortFunc(s.Definitions, func(a, b *Definition) int { return compare(a.Type, b.Type) })
	slices.SortFunc(s.Caveats, func(a, b *Caveat) int { return compare(a.Name, b.Name) })
	highest := Name(0)
	for _, d := range s.Definitions {
		highest = max(highest, d.Name)
	}
	s.byName = make([]*Definition, int(highest)+1)
	for _, d := range s.Definitions {
		s.byName[d.Name] = d
	}
	s.usersets, s.containers = map[Name]bool{}, map[Name]bool{}
	walked := map[*Relation]bool{}
	for _, r := range c.order {
		s.contain(r.Expr, walked)
		for i := range r.Allowed {
			if u := r.Allowed[i].Relation; u != nil {
				s.usersets[u.Name] = true
			}
		}
	}
	canonical := formatFile(c.program.file())
	s.Hash = sha256.Sum256([]byte(canonical))
	s.Text = src.Text
	if c.program.composed {
		s.Text = canonical
	}
}
