package schema

import (
	"fmt"
	"sort"
	"strings"
)

const maxWarnings = 100

// warn adds a warning about a statement or declaration, unless a comment before
// that says to ignore it: `// ignore-warning: code`, with any prefix before
// `ignore-warning`.
//
// At most maxWarnings are kept: more help nobody.
func (c *compiler) warn(owner interface{ node() *Node }, pos Position, token, code, message, hint string) {
	if len(c.warnings) >= maxWarnings {
		return
	}
	for _, comment := range owner.node().Leading {
		if _, after, ok := strings.Cut(comment.Text, "ignore-warning:"); ok && strings.Contains(after, code) {
			return
		}
	}
	c.warnings = append(c.warnings, Warning{Pos: pos, Token: token, Code: code, Message: message, Hint: hint})
}

// lint finds what is legal but surely a mistake. The schema has no error.
func (c *compiler) lint() {
	c.lintFlags()
	c.lintMarks()
	c.lintUnused()
	left := maxSteps
	for _, r := range c.order {
		if d := c.permissions[r]; d != nil {
			l := expressionLint{compiler: c, relation: r, decl: d, left: &left}
			l.expression(d.Expression)
		}
	}
	c.lintArrows()
	c.lintRecursion()
	c.lintNobody()
	files := map[string]int{}
	for i, f := range c.program.files {
		files[f.Name] = i
	}
	sort.SliceStable(c.warnings, func(i, j int) bool {
		a, b := c.warnings[i].Pos, c.warnings[j].Pos
		if a.File != b.File {
			return files[a.File] < files[b.File]
		}
		return a.before(b)
	})
}

func (c *compiler) lintFlags() {
	for _, f := range c.program.files {
		seen := map[string]bool{}
		for _, d := range f.Declarations {
			if u, ok := d.(*Use); ok {
				if seen[u.Flag] {
					c.warn(u, u.Pos, "use", "repeated-use", "`use "+u.Flag+"` stands here twice", "remove one")
				}
				seen[u.Flag] = true
			}
		}
	}
}

// lintUnused finds caveats that no relation allows and partials that nothing
// includes. A definition that nothing refers to is how every resource looks.
func (c *compiler) lintUnused() {
	used := map[*Caveat]bool{}
	for _, r := range c.order {
		for _, a := range r.Allowed {
			used[a.Caveat] = true
		}
	}
	for _, d := range c.program.caveats {
		if !used[c.caveats[d.Name]] {
			c.warn(d, d.NamePos, d.Name, "unused-caveat", "no relation allows caveat "+quote(d.Name),
				"write `with "+d.Name+"` behind a type, or remove it")
		}
	}
	for _, d := range c.program.partials {
		if !c.program.used[d] {
			c.warn(d, d.NamePos, d.Name, "unused-partial", "nothing includes partial "+quote(d.Name),
				"write `..."+d.Name+"` in a definition, or remove it")
		}
	}
}

// expressionLint looks at one permission's expression as written.
type expressionLint struct {
	*compiler
	relation *Relation
	decl     *PermissionDecl
	left     *int // bytes of operands that may still be compared
}

func (l *expressionLint) warn(e *Expression, code, message, hint string) {
	token := ""
	if e.Operator == NoOperator {
		token = e.Name
		if e.Kind == Nil || e.Kind == Self {
			token = e.term()
		}
	}
	l.compiler.warn(l.decl, e.Pos, token, code, message, hint)
}

func (l *expressionLint) expression(e *Expression) {
	if e.Operator == NoOperator {
		return
	}
	if e.Parens || e == l.decl.Expression { // else the expression around it says it
		l.mixed(e)
	}
	seen := map[string]bool{}
	var first string
	for i, o := range e.Operands {
		l.expression(o)
		text := operandText(o)
		if *l.left -= len(text); *l.left < 0 {
			return
		}
		switch {
		case i == 0:
			first = text
		case e.Operator == ExclusionOperator && text == first:
			l.warn(o, "excludes-itself", fmt.Sprintf("%s is excluded from itself, which leaves nobody", quote(text)), "remove one")
		case seen[text]:
			l.warn(o, "repeated-operand", fmt.Sprintf("%s stands here twice", quote(text)), "remove one")
		}
		seen[text] = true
		l.operand(e, o, i)
	}
}

// operand judges one operand of e, the i-th.
func (l *expressionLint) operand(e, o *Expression, i int) {
	switch {
	case o.Kind == Nil && o.Operator == NoOperator && (e.Operator == UnionOperator || e.Operator == ExclusionOperator && i > 0):
		l.warn(o, "idle-nil", "`nil` has no effect here", "remove it")
	case o.Kind == Ref && o.Operator == NoOperator && o.Name == l.relation.Text && e.Operator == UnionOperator && !o.Parens:
		l.warn(o, "refers-to-itself", fmt.Sprintf("permission %s refers to itself, which adds nobody", quote(o.Name)), "remove it")
	}
}

// mixed warns where operators meet without parentheses.
func (l *expressionLint) mixed(e *Expression) {
	for _, o := range e.Operands {
		if o.Operator != NoOperator && !o.Parens {
			l.warn(e, "mixed-operators", fmt.Sprintf("%s is read as %s", quote(e.String()), quote(operandText(e))),
				"`+` binds tighter than `&`, and `&` than `-`; write the parentheses that you mean")
			return
		}
	}
}

// operandText is the text by which operands are compared: with parentheses
// around every inner operator, and only there.
func operandText(o *Expression) string {
	if o.Operator == NoOperator {
		plain := *o
		plain.AnyCall = false // a.any(b) is a->b
		return plain.term()
	}
	var parts []string
	for _, inner := range o.Operands {
		text := operandText(inner)
		if inner.Operator != NoOperator {
			text = "(" + text + ")"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " "+string(o.Operator)+" ")
}

// lintArrows finds arrows whose right side some or all types lack, and those
// that walk usersets, whose relation they ignore.
func (c *compiler) lintArrows() {
	left := maxSteps
	for _, r := range c.order {
		if d := c.permissions[r]; d != nil {
			c.lintArrowsOf(r, d, d.Expression, &left)
		}
	}
}

func (c *compiler) lintArrowsOf(r *Relation, d *PermissionDecl, e *Expression, left *int) {
	for _, o := range e.Operands {
		c.lintArrowsOf(r, d, o, left)
	}
	if e.Operator != NoOperator || (e.Kind != Arrow && e.Kind != ArrowAll) {
		return
	}
	tupleset := r.Definition.Relation(e.Name)
	var lacking, usersets []string
	having := 0
	for _, a := range tupleset.Allowed {
		if *left--; *left < 0 {
			return
		}
		if a.Relation != nil && len(usersets) < 3 {
			usersets = append(usersets, quote(a.Definition.Type+"#"+a.Relation.Text))
		}
		if a.Definition.Relation(e.Target) != nil {
			having++
		} else if typ := quote(a.Definition.Type); len(lacking) < 3 && !contains(lacking, typ) {
			lacking = append(lacking, typ)
		}
	}
	switch {
	case having == 0:
		c.warn(d, e.TargetPos, e.Target, "arrow-to-nothing", fmt.Sprintf("no type of relation %s has %s: no relation or permission of that name in %s",
			quote(e.Name), quote(e.Target), strings.Join(lacking, ", ")), "the arrow gives nobody; correct the name or add it to the type")
	case len(lacking) > 0:
		c.warn(d, e.TargetPos, e.Target, "arrow-to-some", fmt.Sprintf("not every type of relation %s has %s: no relation or permission of that name in %s",
			quote(e.Name), quote(e.Target), strings.Join(lacking, ", ")), "subjects of such a type give nobody; if that is meant, say so with `// ignore-warning: arrow-to-some`")
	}
	if len(usersets) > 0 {
		c.warn(d, e.Pos, e.Name, "arrow-over-userset", fmt.Sprintf("the arrow walks the objects of %s and ignores the relation behind `#`",
			strings.Join(usersets, ", ")), "if that is meant, say so with `// ignore-warning: arrow-over-userset`")
	}
}

func contains(list []string, s string) bool {
	for _, o := range list {
		if o == s {
			return true
		}
	}
	return false
}

// lintRecursion finds permissions that exclude themselves: going round from a
// permission through others of the same object, a right side of `-` among the
// steps, back to it. Their answer can depend on itself.
func (c *compiler) lintRecursion() {
	for _, d := range c.schema.Definitions {
		g := &referenceGraph{index: map[*Relation]int{}, low: map[*Relation]int{}, component: map[*Relation]int{}}
		for _, r := range d.Relations {
			if r.Expr != nil && g.index[r] == 0 {
				g.visit(r)
			}
		}
		for _, r := range d.Relations {
			if r.Expr == nil {
				continue
			}
			for _, o := range references(r.Expr, false, nil) {
				if o.excluded && g.component[o.to] == g.component[r] {
					c.warn(c.permissions[r], r.Pos, r.Text, "excludes-by-itself",
						fmt.Sprintf("permission %s excludes %s, which depends on %s again", quote(r.Text), quote(o.to.Text), quote(r.Text)),
						"a check that it decides fails; break the circle")
					break
				}
			}
		}
	}
}

type reference struct {
	to       *Relation
	excluded bool // below the right side of an exclusion
}

// references lists the permissions of the same object that e refers to.
func references(e *Expr, excluded bool, into []reference) []reference {
	if e.Kind == Ref && e.Relation.Expr != nil {
		return append(into, reference{e.Relation, excluded})
	}
	for i, child := range e.Children {
		into = references(child, excluded || e.Kind == Exclusion && i == 1, into)
	}
	return into
}

// referenceGraph finds strongly connected components (Tarjan, 1972) without
// recursion, since a definition may chain any number of permissions.
type referenceGraph struct {
	index, low, component map[*Relation]int
	stack                 []*Relation
	next, components      int
}

func (g *referenceGraph) visit(root *Relation) {
	type frame struct {
		r    *Relation
		refs []reference
	}
	var frames []frame
	enter := func(r *Relation) {
		g.next++
		g.index[r], g.low[r] = g.next, g.next
		g.stack = append(g.stack, r)
		frames = append(frames, frame{r, references(r.Expr, false, nil)})
	}
	for enter(root); len(frames) > 0; {
		f := &frames[len(frames)-1]
		if len(f.refs) > 0 {
			to := f.refs[0].to
			f.refs = f.refs[1:]
			if g.index[to] == 0 {
				enter(to)
			} else if g.component[to] == 0 {
				g.low[f.r] = min(g.low[f.r], g.index[to])
			}
			continue
		}
		r := f.r
		frames = frames[:len(frames)-1]
		if len(frames) > 0 {
			parent := frames[len(frames)-1].r
			g.low[parent] = min(g.low[parent], g.low[r])
		}
		if g.low[r] == g.index[r] {
			g.components++
			for {
				last := g.stack[len(g.stack)-1]
				g.stack = g.stack[:len(g.stack)-1]
				g.component[last] = g.components
				if last == r {
					break
				}
			}
		}
	}
}
