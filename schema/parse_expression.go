package schema

import (
	"fmt"
	"slices"
)

// binding lists the operators, the loosest first: `a + b & c - d` means
// `((a + b) & c) - d`, as it always has in .zed files.
var binding = []Operator{ExclusionOperator, IntersectionOperator, UnionOperator}

func (p *parser) expression() (*Expression, bool) { return p.chain(0) }

// chain reads operands joined by the operator of a level.
func (p *parser) chain(level int) (*Expression, bool) {
	if level == len(binding) {
		return p.primary()
	}
	operator := binding[level]
	leading := p.operandComments(nil)
	first, ok := p.chain(level + 1)
	if !ok {
		return nil, false
	}
	first.Leading = append(leading, first.Leading...)
	if !p.tok.is(string(operator)) {
		return first, true
	}
	e := &Expression{Pos: first.Pos, Operator: operator, Operands: []*Expression{first}}
	for p.tok.is(string(operator)) {
		last := e.Operands[len(e.Operands)-1]
		leading := p.separatorComments(&last.Trailing)
		leading = append(leading, p.operandComments(&last.Trailing)...)
		next, ok := p.chain(level + 1)
		if !ok {
			return nil, false
		}
		next.Leading = append(leading, next.Leading...)
		e.Operands = append(e.Operands, next)
	}
	return e, true
}

// primary reads a term, or an expression in parentheses.
func (p *parser) primary() (*Expression, bool) {
	if p.tok.is("(") {
		return p.parenthesized()
	}
	if p.tok.kind != word || (slices.Contains(keywords, p.tok.text) && p.tok.text != "nil") {
		return nil, p.fail("a relation, a permission, `nil` or `(`", "")
	}
	t := p.advance()
	e := &Expression{Pos: t.pos, Kind: Ref, Name: t.text}
	switch {
	case t.text == "nil":
		e.Kind = Nil
	case t.text == "self" && p.file.flags[flagSelf]:
		e.Kind = Self
	}
	if (p.tok.is("->") || p.tok.is(".")) && e.Kind != Ref {
		return nil, p.fail("an operator or the end of the expression", quote(t.text)+" cannot be the left side of an arrow")
	}
	switch {
	case p.tok.is("->"):
		p.advance()
		return e, p.target(e, Arrow)
	case p.tok.is("."):
		p.advance()
		return e, p.call(e)
	}
	return e, true
}

// target reads the right side of an arrow.
func (p *parser) target(e *Expression, kind ExprKind) bool {
	if p.tok.kind != word || slices.Contains(keywords, p.tok.text) {
		return p.fail("a relation or permission", "an arrow is written `relation->permission`")
	}
	e.Kind, e.TargetPos = kind, p.tok.pos
	e.Target = p.advance().text
	if p.tok.is("->") || p.tok.is(".") {
		return p.fail("an operator or the end of the expression", fmt.Sprintf(
			"arrows cannot be chained; give the types of %s a permission for the second arrow and write %s->that_permission",
			quote(e.Name), e.Name))
	}
	return true
}

// call reads `any(target)` or `all(target)`.
func (p *parser) call(e *Expression) bool {
	kind := Arrow
	switch {
	case p.tok.is("any"):
		e.AnyCall = true
	case p.tok.is("all"):
		kind = ArrowAll
	default:
		return p.fail("`any` or `all`", "write `"+e.Name+".any(permission)` or `"+e.Name+".all(permission)`")
	}
	p.advance()
	if !p.expect("(", "") || !p.target(e, kind) || !p.expect(")", "") {
		return false
	}
	if p.tok.is("->") || p.tok.is(".") {
		return p.fail("an operator or the end of the expression", "arrows cannot be chained; "+
			"give the types of "+quote(e.Name)+" a permission for the second arrow")
	}
	return true
}

func (p *parser) parenthesized() (*Expression, bool) {
	if p.depth++; p.depth > maxParens {
		return nil, p.fail("an expression with fewer parentheses",
			fmt.Sprintf("they nest at most %d deep; name a part of the expression as a permission of its own", maxParens))
	}
	open := p.advance()
	e, ok := p.expression()
	if !ok {
		return nil, false
	}
	p.depth--
	if !p.expect(")", fmt.Sprintf("close the parenthesis of line %d", open.pos.Line)) {
		return nil, false
	}
	if p.tok.is("->") || p.tok.is(".") {
		return nil, p.fail("an operator or the end of the expression",
			"the left side of an arrow is the name of a relation, not an expression")
	}
	e.Pos = open.pos
	e.Parens = e.Operator != NoOperator
	if comments := takeInner(e, nil); len(comments) > 0 {
		e.Leading = append(comments, e.Leading...)
	}
	return e, true
}

// takeInner takes the comments of all operands within e, at any depth.
func takeInner(e *Expression, into []Comment) []Comment {
	for _, o := range e.Operands {
		into = append(into, o.Leading...)
		into = takeInner(o, into)
		into = append(into, o.Trailing...)
		o.Leading, o.Trailing = nil, nil
	}
	return into
}

// settleComments gives comments a place that can be printed: operands of the
// outermost operator keep theirs and those within them; any others move before
// the permission.
func (p *parser) settleComments(e *Expression) {
	for _, o := range e.Operands {
		o.Leading = append(o.Leading, takeInner(o, nil)...)
	}
	if len(e.Operands) > 0 {
		first := e.Operands[0]
		first.Leading = append(e.Leading, first.Leading...)
	} else {
		p.stray = append(p.stray, e.Leading...)
	}
	p.stray = append(p.stray, e.Trailing...)
	e.Leading, e.Trailing = nil, nil
}
