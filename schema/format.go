package schema

import (
	"strings"
	"unicode/utf8"
)

// wideLine is where a relation or permission is broken over several lines, in
// columns.
const wideLine = 100

// Format returns a source in canonical form: tabs, one space around operators,
// one blank line between declarations, parentheses that say nothing removed.
// Comments stay where they are read best: before, after or behind what they
// stand at. Formatting twice changes nothing, and the meaning stays. Imports are
// not followed. The error is an [Errors].
func Format(src Source) (string, error) {
	f, err := Parse(src, Options{MaxBytes: max(len(src.Text), DefaultMaxBytes)})
	if err != nil {
		return "", err
	}
	return formatFile(f), nil
}

func formatFile(f *File) string {
	p := &printer{}
	for i, d := range f.Declarations {
		n := d.node()
		if i > 0 && (!sameList(f.Declarations[i-1], d) || len(n.Leading) > 0) {
			p.line("")
		}
		p.leading(n)
		switch d := d.(type) {
		case *Use:
			p.start("use " + d.Flag)
		case *Import:
			mark := `"`
			if strings.Contains(d.Path, mark) {
				mark = "'"
			}
			p.start("import " + mark + d.Path + mark)
		case *CaveatDecl:
			p.caveat(d)
		case *DefinitionDecl:
			p.definition(d)
		}
		p.end(n.Trailing)
	}
	if len(f.Declarations) > 0 && len(f.Comments) > 0 {
		p.line("")
	}
	p.comments(f.Comments)
	return p.b.String()
}

// sameList reports whether two declarations are lines of one list: `use` or
// `import`.
func sameList(a, b Declaration) bool {
	switch a.(type) {
	case *Use:
		_, ok := b.(*Use)
		return ok
	case *Import:
		_, ok := b.(*Import)
		return ok
	}
	return false
}

type printer struct {
	b      strings.Builder
	indent int
}

func (p *printer) tabs() string { return "\t\t\t\t"[:p.indent] }

// start begins a line, end ends it.
func (p *printer) start(s string) { p.b.WriteString(p.tabs() + s) }

func (p *printer) end(trailing []Comment) {
	for _, c := range trailing {
		p.b.WriteString(" " + c.Text)
	}
	p.b.WriteByte('\n')
}

func (p *printer) line(s string) {
	if s != "" {
		p.start(s)
	}
	p.b.WriteByte('\n')
}

// leading prints the comments before a node.
func (p *printer) leading(n *Node) {
	p.comments(n.Leading)
	if n.blankAfterComments && len(n.Leading) > 0 {
		p.line("")
	}
}

// comments prints comments on lines of their own, keeping single blank lines
// between them.
func (p *printer) comments(comments []Comment) {
	for i, c := range comments {
		if i > 0 && c.BlankBefore {
			p.line("")
		}
		p.line(commentText(c.Text, p.tabs()))
	}
}

// commentText aligns the stars of a comment of several lines. One whose lines do
// not all begin with a star, such as code commented out, is left as it is.
func commentText(s, tabs string) string {
	lines := strings.Split(s, "\n")
	stars := true
	for _, line := range lines[1:] {
		stars = stars && strings.HasPrefix(strings.TrimLeft(line, " \t"), "*")
	}
	for i, line := range lines {
		line = strings.TrimRight(line, " \t\r")
		if i > 0 && stars {
			line = tabs + " " + strings.TrimLeft(line, " \t")
		}
		lines[i] = line
	}
	return strings.Join(lines, "\n")
}

func (p *printer) definition(d *DefinitionDecl) {
	head := "definition " + d.Name + " {"
	if d.Partial {
		head = "partial " + d.Name + " {"
	}
	p.start(head)
	if len(d.Statements) == 0 && len(d.Comments) == 0 {
		p.b.WriteByte('}')
		return
	}
	p.end(nil)
	p.indent++
	for i, s := range d.Statements {
		n := s.node()
		if i > 0 && n.BlankBefore {
			p.line("")
		}
		p.leading(n)
		p.statement(s)
		p.end(n.Trailing)
	}
	if len(d.Statements) > 0 && len(d.Comments) > 0 && d.Comments[0].BlankBefore {
		p.line("")
	}
	p.comments(d.Comments)
	p.indent--
	p.start("}")
}

func (p *printer) statement(s Statement) {
	switch s := s.(type) {
	case *PartialRef:
		p.start("..." + s.Name)
	case *RelationDecl:
		list := make([]operand, len(s.Subjects))
		for i, o := range s.Subjects {
			list[i] = operand{o.String(), o.Leading, o.Trailing}
		}
		p.operands("relation "+s.Name+":", "|", list)
	case *PermissionDecl:
		p.permission(s)
	}
}

func (p *printer) permission(s *PermissionDecl) {
	head := "permission " + s.Name
	for i, t := range s.Annotation {
		if i == 0 {
			head += ": " + t.Type
		} else {
			head += " | " + t.Type
		}
	}
	e := s.Expression
	if e.Operator == NoOperator {
		p.start(head + " = " + e.String())
		return
	}
	list := make([]operand, len(e.Operands))
	for i, o := range e.Operands {
		list[i] = operand{o.String(), o.Leading, o.Trailing}
	}
	p.operands(head+" =", string(e.Operator), list)
}

type operand struct {
	text              string
	leading, trailing []Comment
}

// operands prints a list on one line, or each operand on its own where they
// have comments or one line would be too wide.
func (p *printer) operands(head, separator string, list []operand) {
	width := 4*p.indent + len(head)
	broken := false
	for _, o := range list {
		width += utf8.RuneCountInString(o.text) + len(separator) + 2
		broken = broken || len(o.leading) > 0 || len(o.trailing) > 0
	}
	if !broken && (width <= wideLine || len(list) == 1) {
		p.start(head)
		for i, o := range list {
			if i > 0 {
				p.b.WriteString(" " + separator)
			}
			p.b.WriteString(" " + o.text)
		}
		return
	}
	p.line(head)
	p.indent++
	for i, o := range list {
		p.comments(o.leading)
		if i == len(list)-1 {
			p.start(o.text)
			break
		}
		p.start(o.text + " " + separator)
		p.end(o.trailing)
	}
	p.indent--
}

func (p *printer) caveat(c *CaveatDecl) {
	parameters := make([]string, len(c.Parameters))
	for i, parameter := range c.Parameters {
		parameters[i] = parameter.Name + " " + parameter.Type
	}
	p.line("caveat " + c.Name + "(" + strings.Join(parameters, ", ") + ") {")
	if multilineString(c.Expression) {
		p.line("\t" + c.Expression)
	} else if c.Expression != "" {
		for _, line := range strings.Split(c.Expression, "\n") {
			if line != "" {
				line = "\t" + line
			}
			p.line(line)
		}
	}
	p.start("}")
}
