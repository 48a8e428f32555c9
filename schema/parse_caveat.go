package schema

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pembadb/pemba/tuple"
)

// validCaveat reports why a text cannot name a caveat in this file.
func (p *parser) validCaveat(name string) error {
	if name == flagExpiration && p.file.flags[flagExpiration] {
		return fmt.Errorf("`use expiration` makes `expiration` a keyword in this file; choose another name")
	}
	return tuple.CheckCaveatName(name)
}

func (p *parser) caveat(n Node) Declaration {
	c := &CaveatDecl{Node: n}
	p.advance()
	var ok bool
	if c.Name, c.NamePos, ok = p.name("caveat", p.validCaveat); !ok {
		return nil
	}
	if !p.expect("(", "write `caveat "+c.Name+"(parameter type) { expression }`") || !p.parameters(c) {
		return nil
	}
	if !p.tok.is("{") {
		p.fail("`{`", "write the caveat's expression in braces")
		return nil
	}
	open := p.advanceToBody()
	body, ok := p.lex.caveatBody()
	if !ok {
		p.report.incomplete = true
		p.report.add(open.pos, "{", "the expression of caveat "+quote(c.Name)+" never ends",
			"close its braces and strings")
		p.lex.skip(len(p.lex.rest()))
		p.tok = p.lex.next()
		return nil
	}
	p.tok = p.lex.next() // the closing brace
	after := open.pos
	after.Column++
	c.setExpression(body, after)
	p.advance()
	return c
}

// advanceToBody takes the opening brace of a caveat without looking for a token
// behind it, where CEL begins.
func (p *parser) advanceToBody() token {
	t := p.tok
	p.stray = append(p.stray, t.comments...)
	return t
}

func (p *parser) parameters(c *CaveatDecl) bool {
	for !p.tok.is(")") {
		if p.tok.kind != word {
			return p.fail("the name of a parameter", "write `name type`, for example `day string`")
		}
		t := p.advance()
		if slices.ContainsFunc(c.Parameters, func(o Parameter) bool { return o.Name == t.text }) {
			p.report.add(t.pos, t.text, "caveat "+quote(c.Name)+" has the parameter "+quote(t.text)+" twice", "rename one")
		}
		typ, ok := p.parameterType(t.text)
		if !ok {
			return false
		}
		c.Parameters = append(c.Parameters, Parameter{Name: t.text, Type: typ})
		c.parameters = append(c.parameters, t.pos)
		if !p.accept(",") && !p.tok.is(")") {
			return p.fail("`,` or `)`", "parameters are separated by commas")
		}
	}
	p.advance()
	return true
}

// parameterType reads a type such as `list<string>` into its canonical text.
func (p *parser) parameterType(parameter string) (string, bool) {
	if p.depth++; p.depth > maxParens {
		return "", p.fail("a simpler type", fmt.Sprintf("types nest at most %d deep", maxParens))
	}
	defer func() { p.depth-- }()
	if p.tok.kind != word {
		return "", p.fail("the type of parameter "+quote(parameter),
			"the types are any, int, uint, bool, string, double, bytes, duration, timestamp, ipaddress, list<…> and map<…>")
	}
	typ := p.advance().text
	if !p.accept("<") {
		return typ, true
	}
	var inner []string
	for {
		t, ok := p.parameterType(parameter)
		if !ok {
			return "", false
		}
		inner = append(inner, t)
		if !p.accept(",") {
			break
		}
	}
	return typ + "<" + strings.Join(inner, ", ") + ">", p.expect(">", "close the `<` of the type")
}

// setExpression derives the canonical expression from what stands between the
// braces: without the white space around it and without the indentation that
// its lines share. start is the place of the first byte of body. A body with a
// string of several lines keeps its lines, since indentation is part of them.
func (c *CaveatDecl) setExpression(body string, start Position) {
	lines := strings.Split(strings.ReplaceAll(body, "\r\n", "\n"), "\n")
	starts := make([]Position, len(lines))
	for i := range lines {
		starts[i] = Position{File: start.File, Line: start.Line + i, Column: 1}
	}
	starts[0].Column = start.Column
	trimStart := func(i, n int) {
		starts[i].Column += utf8.RuneCountInString(lines[i][:n])
		lines[i] = lines[i][n:]
	}
	indented := lines[1:] // the first line, if it follows the brace, has no indentation to share
	for len(lines) > 1 && strings.TrimSpace(lines[0]) == "" {
		lines, starts = lines[1:], starts[1:]
		indented = lines
	}
	for len(lines) > 1 && strings.TrimSpace(lines[len(lines)-1]) == "" {
		lines = lines[:len(lines)-1]
		indented = indented[:len(indented)-1]
	}
	if !multilineString(body) {
		common := commonIndent(indented)
		for i := range lines {
			if i > 0 || len(indented) == len(lines) {
				trimStart(i, min(common, indentOf(lines[i])))
			}
			lines[i] = strings.TrimRight(lines[i], " \t")
		}
	}
	trimStart(0, indentOf(lines[0]))
	lines[len(lines)-1] = strings.TrimRight(lines[len(lines)-1], " \t")
	c.Expression = strings.Join(lines, "\n")
	c.lines = starts[:len(lines)]
}

func multilineString(cel string) bool {
	return strings.Contains(cel, `"""`) || strings.Contains(cel, "'''")
}

func indentOf(line string) int { return len(line) - len(strings.TrimLeft(line, " \t")) }

// commonIndent is the shortest indentation, in bytes, of lines that hold
// anything.
func commonIndent(lines []string) int {
	common := -1
	for _, line := range lines {
		if strings.TrimSpace(line) != "" && (common < 0 || indentOf(line) < common) {
			common = indentOf(line)
		}
	}
	return max(common, 0)
}

// at translates a place in the expression, 1-based, to one in the file.
func (c *CaveatDecl) at(line, column int) Position {
	line = min(max(line, 1), len(c.lines))
	pos := c.lines[line-1]
	pos.Column += max(column, 1) - 1
	return pos
}
