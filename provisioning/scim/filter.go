package scim

import (
	"encoding/json"
	"strings"
	"time"
)

// Bounds of a filter.
const (
	maxFilterBytes = 16 << 10
	maxFilterDepth = 32
	maxFilterTerms = 512
)

// Filter is a condition on resources of a type (RFC 7644 §3.4.2.2).
type Filter struct{ root node }

// String is the filter in one canonical way of writing.
func (f *Filter) String() string {
	var b strings.Builder
	f.root.print(&b)
	return b.String()
}

// node is a part of a filter: [both], [negation], [comparison] or [element].
type node interface {
	match(s source) (bool, error)
	print(b *strings.Builder)
}

// both is two parts joined by and or or.
type both struct {
	and         bool
	left, right node
}

type negation struct{ inner node }

// comparison compares an attribute's values with a literal.
type comparison struct {
	ref     ref
	unknown bool   // the type has no such attribute, so there is never a value
	op      string // in lower case
	value   any    // string, bool or nil; of an attribute in any case, in lower case
	literal any    // the value as given
	instant time.Time
}

// element asks whether one value of a complex attribute fulfils a whole condition:
// emails[type eq "work" and value co "@example.com"].
type element struct {
	ref   ref
	inner node
}

// ParseFilter reads a filter on resources of a type. Attribute names and operators
// are in any case. An error is an [Error] of type invalidFilter that names the
// column.
func ParseFilter(t *ResourceType, text string) (*Filter, error) {
	return parseFilter(t, text, nil)
}

// parseFilter reads a filter; attributes that other types have instead have no
// value in this one (RFC 7644 §3.4.2.1).
func parseFilter(t *ResourceType, text string, others []*ResourceType) (*Filter, error) {
	if len(text) > maxFilterBytes {
		return nil, bad(invalidFilter, "a filter of %d bytes is longer than %d", len(text), maxFilterBytes)
	}
	p := &parser{lexer: lexer{text: text}, find: t.resolve, others: others, scimType: invalidFilter}
	p.advance()
	n, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.token.kind != endToken {
		return nil, p.unexpected("and, or, or the end")
	}
	return &Filter{n}, nil
}

// parser reads filters and paths by recursive descent, one token ahead.
type parser struct {
	lexer
	token    token
	find     func(name string) (ref, bool) // of the resource, or of the value inside [ ]
	others   []*ResourceType
	inside   bool // of [ ]
	scimType string
	depth    int
	terms    int
}

func (p *parser) advance() { p.token = p.lexer.next() }

func (p *parser) fail(at int, format string, args ...any) error {
	e := bad(p.scimType, format, args...)
	e.Detail += problem(0, "", ", at column %d of %s", at+1, shorten(p.text)).Detail
	return e
}

func (p *parser) unexpected(want string) error {
	got := "the end"
	if p.token.kind != endToken {
		got = `"` + shorten(p.token.text) + `"`
	}
	return p.fail(p.token.at, "expected %s, and found %s", want, got)
}

// keyword reports whether the token is a word of the grammar, in any case.
func (p *parser) keyword(word string) bool {
	return p.token.kind == wordToken && strings.EqualFold(p.token.text, word)
}

func (p *parser) mark(mark string) bool { return p.token.kind == markToken && p.token.text == mark }

// or reads a whole condition; and binds more tightly than or (RFC 7644 §3.4.2.2).
func (p *parser) or() (node, error) {
	if p.depth++; p.depth > maxFilterDepth {
		return nil, p.fail(p.token.at, "the filter nests deeper than %d", maxFilterDepth)
	}
	defer func() { p.depth-- }()
	return p.chain("or", func() (node, error) { return p.chain("and", p.term) })
}

func (p *parser) chain(word string, operand func() (node, error)) (node, error) {
	left, err := operand()
	for err == nil && p.keyword(word) {
		p.advance()
		var right node
		right, err = operand()
		left = &both{word == "and", left, right}
	}
	return left, err
}

// term reads a condition in parentheses, with not before them or without, or one
// on an attribute.
func (p *parser) term() (node, error) {
	if p.terms++; p.terms > maxFilterTerms {
		return nil, p.fail(p.token.at, "the filter has more than %d conditions", maxFilterTerms)
	}
	if p.keyword("not") {
		p.advance()
		if !p.mark("(") {
			return nil, p.unexpected("( after not")
		}
		inner, err := p.group(")")
		return &negation{inner}, err
	}
	if p.mark("(") {
		return p.group(")")
	}
	if p.token.kind != wordToken {
		return nil, p.unexpected("an attribute, not or (")
	}
	return p.condition()
}

// group reads from after an opening mark to the closing one.
func (p *parser) group(closing string) (node, error) {
	p.advance()
	n, err := p.or()
	if err != nil {
		return nil, err
	}
	if !p.mark(closing) {
		return nil, p.unexpected(closing)
	}
	p.advance()
	return n, nil
}

// condition reads what follows from an attribute's name on.
func (p *parser) condition() (node, error) {
	name := p.token
	r, known := p.find(name.text)
	if !known {
		var ok bool
		if r, ok = p.elsewhere(name.text); !ok {
			return nil, p.fail(name.at, "there is no attribute %q", shorten(name.text))
		}
	}
	if r.attribute != nil && r.last().Returned == Never {
		return nil, p.fail(name.at, "%s cannot be asked for", r)
	}
	p.advance()
	if p.mark("[") {
		return p.element(name, r, known)
	}
	c := &comparison{ref: r, unknown: !known, op: strings.ToLower(p.token.text)}
	op := p.token
	if op.kind != wordToken {
		return nil, p.unexpected("an operator")
	}
	p.advance()
	switch c.op {
	case "pr":
		return c, nil
	case "eq", "ne", "co", "sw", "ew", "gt", "ge", "lt", "le":
		literal := p.token
		if err := p.literal(c); err != nil {
			return nil, err
		}
		return c, p.checkTypes(c, op, literal)
	}
	return nil, p.fail(op.at, "%q is no operator; write one of eq ne co sw ew pr gt ge lt le", shorten(op.text))
}

// elsewhere finds an attribute that another of the types that are asked has.
func (p *parser) elsewhere(name string) (ref, bool) {
	for _, t := range p.others {
		if r, ok := t.resolve(name); ok {
			return r, true
		}
	}
	return ref{}, false
}

// element reads what stands in brackets after an attribute. One that only another
// type has has no value, so nothing in its brackets holds.
func (p *parser) element(name token, r ref, known bool) (node, error) {
	if p.inside {
		return nil, p.fail(p.token.at, "brackets cannot stand inside brackets")
	}
	if r.attribute == nil || r.sub != nil || r.attribute.Type != Complex {
		return nil, p.fail(name.at, "%s has no parts to ask for in brackets", r)
	}
	find, others := p.find, p.others
	p.inside, p.others = true, nil
	p.find = func(sub string) (ref, bool) {
		a := r.attribute.Sub(sub)
		return ref{attribute: a}, a != nil
	}
	inner, err := p.group("]")
	p.inside, p.find, p.others = false, find, others
	if !known {
		return &comparison{ref: r, unknown: true, op: "pr"}, err
	}
	return &element{r, inner}, err
}

// literal reads what an attribute is compared with.
func (p *parser) literal(c *comparison) error {
	switch {
	case p.token.kind == stringToken:
		c.value = p.token.text
	case p.keyword("true"):
		c.value = true
	case p.keyword("false"):
		c.value = false
	case p.keyword("null"):
	case p.token.kind == numberToken && json.Valid([]byte(p.token.text)):
		return p.fail(p.token.at, "%s is no number", c.ref)
	default:
		return p.unexpected(`a value: text in double quotes, true, false or null`)
	}
	c.literal = c.value
	p.advance()
	return nil
}

// checkTypes refuses comparisons that make no sense for the attribute's type
// (RFC 7644 §3.4.2.2, Table 3), and prepares the others.
func (p *parser) checkTypes(c *comparison, op, literal token) error {
	if c.ref.attribute == nil {
		return p.fail(op.at, "%s is a schema, and can be asked for with pr only", c.ref)
	}
	if c.value == nil {
		if c.op != "eq" && c.op != "ne" {
			return p.fail(op.at, "null can be compared by eq and ne only")
		}
		return nil
	}
	if c.ref.last().Type == Complex {
		if c.ref.sub = c.ref.attribute.Sub("value"); c.ref.sub == nil {
			return p.fail(op.at, "%s has parts; compare one of them", c.ref)
		}
	}
	a := c.ref.last()
	if a.Type == Boolean {
		return p.checkBoolean(c, op, literal)
	}
	value, isText := c.value.(string)
	if !isText {
		return p.fail(literal.at, "%s is compared with text in double quotes", c.ref)
	}
	ordered := strings.Contains("eq ne gt ge lt le", c.op)
	switch {
	case a.Type == DateTime && ordered:
		t, err := time.Parse(time.RFC3339, value)
		if err != nil {
			return p.fail(literal.at, "%s is compared with a time such as 2026-01-31T12:00:00Z", c.ref)
		}
		c.instant = t
	case a.Type == Binary && ordered && c.op != "eq" && c.op != "ne":
		return p.fail(op.at, "%s is binary, and has no order", c.ref)
	case !a.CaseExact:
		c.value = Fold(value)
	}
	return nil
}

func (p *parser) checkBoolean(c *comparison, op, literal token) error {
	if c.op != "eq" && c.op != "ne" {
		return p.fail(op.at, "%s is true or false, and can be compared by eq and ne only", c.ref)
	}
	b, ok := asBoolean(c.value)
	if !ok {
		return p.fail(literal.at, "%s is compared with true or false", c.ref)
	}
	c.value, c.literal = b, b
	return nil
}

// Fold is the form in which texts are compared whose case does not matter.
func Fold(s string) string { return strings.ToLower(s) }

func (n *both) print(b *strings.Builder) {
	word := " or "
	if n.and {
		word = " and "
	}
	b.WriteByte('(')
	n.left.print(b)
	b.WriteString(word)
	n.right.print(b)
	b.WriteByte(')')
}

func (n *negation) print(b *strings.Builder) {
	b.WriteString("not (")
	n.inner.print(b)
	b.WriteByte(')')
}

func (n *element) print(b *strings.Builder) {
	b.WriteString(n.ref.String())
	b.WriteByte('[')
	n.inner.print(b)
	b.WriteByte(']')
}

func (c *comparison) print(b *strings.Builder) {
	b.WriteString(c.ref.String() + " " + c.op)
	if c.op != "pr" {
		value, _ := json.Marshal(c.value)
		b.WriteByte(' ')
		b.Write(value)
	}
}
