package schema

import "strings"

// File is a parsed source: what was written, comments included, with nothing
// resolved. Its parts are in the order of the source.
type File struct {
	Name         string
	Declarations []Declaration
	// Comments stand after the last declaration.
	Comments []Comment

	text  string
	flags map[string]bool
}

// Uses reports whether the file has the line `use flag`.
func (f *File) Uses(flag string) bool { return f.flags[flag] }

// Declaration is a [*Use], [*Import], [*DefinitionDecl] or [*CaveatDecl].
type Declaration interface{ node() *Node }

// Statement is a part of a definition or partial: a [*RelationDecl],
// [*PermissionDecl] or [*PartialRef].
type Statement interface{ node() *Node }

// Node is what all declarations and statements have.
type Node struct {
	Pos         Position
	Leading     []Comment // on the lines before it
	Trailing    []Comment // after it on its last line
	BlankBefore bool      // a blank line stands before it and its comments

	blankAfterComments bool // a blank line parts it from Leading
}

func (n *Node) node() *Node { return n }

// Doc returns the text of the node's doc comment, without comment marks.
func (n *Node) Doc() string {
	for i := len(n.Leading) - 1; i >= 0; i-- {
		if n.Leading[i].IsDoc() {
			return docText(n.Leading[i].Text)
		}
	}
	return ""
}

// docText strips the marks and the stars that begin lines.
func docText(comment string) string {
	comment = strings.TrimSuffix(strings.TrimPrefix(comment, "/**"), "*/")
	lines := strings.Split(comment, "\n")
	for i, line := range lines {
		line = strings.TrimSpace(line)
		if i > 0 {
			line = strings.TrimPrefix(strings.TrimPrefix(line, "*"), " ")
		}
		lines[i] = strings.TrimRight(line, " \t\r")
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}

// Use is `use flag`.
type Use struct {
	Node
	Flag string
}

// Import is `import "path"`.
type Import struct {
	Node
	Path string
}

// DefinitionDecl is `definition type { … }`, or `partial name { … }`.
type DefinitionDecl struct {
	Node
	Partial    bool
	Name       string
	NamePos    Position
	Statements []Statement
	// Comments stand after the last statement, before the closing brace.
	Comments []Comment
}

// CaveatDecl is `caveat name(parameter type, …) { CEL }`.
type CaveatDecl struct {
	Node
	Name       string
	NamePos    Position
	Parameters []Parameter
	// Expression is the CEL, without the white space around it and without the
	// indentation that all its lines share.
	Expression string

	parameters []Position // of Parameters
	lines      []Position // where each line of Expression begins
}

// RelationDecl is `relation name: subjects`.
type RelationDecl struct {
	Node
	Name     string
	NamePos  Position
	Subjects []*SubjectDecl
}

// SubjectDecl is one alternative of a relation's type.
type SubjectDecl struct {
	Pos        Position
	Type       string
	Relation   string // empty unless a userset
	Wildcard   bool
	Caveat     string
	CaveatPos  Position
	Expiration bool

	RelationPos       Position
	Leading, Trailing []Comment
}

// String gives the alternative as one writes it.
func (s *SubjectDecl) String() string {
	return subjectText(s.Type, s.Relation, s.Wildcard, s.Caveat, s.Expiration)
}

// subjectText is the canonical text of an allowed subject.
func subjectText(typ, relation string, wildcard bool, caveat string, expiration bool) string {
	out := typ
	switch {
	case wildcard:
		out += ":*"
	case relation != "":
		out += "#" + relation
	}
	switch {
	case caveat != "" && expiration:
		out += " with " + caveat + " and expiration"
	case caveat != "":
		out += " with " + caveat
	case expiration:
		out += " with expiration"
	}
	return out
}

// PermissionDecl is `permission name = expression`, or with type annotations
// `permission name: types = expression`.
type PermissionDecl struct {
	Node
	Name       string
	NamePos    Position
	Annotation []TypeName // the subject types declared; nil if none were
	Expression *Expression
}

// TypeName is a type in an annotation.
type TypeName struct {
	Pos  Position
	Type string
}

// PartialRef is `...name`: the statements of a partial, put in this place.
type PartialRef struct {
	Node
	Name string
}

// Operator joins the operands of an [Expression]. In the order of their binding:
// union binds tightest, then intersection, then exclusion.
type Operator byte

const (
	NoOperator           Operator = 0
	UnionOperator        Operator = '+'
	IntersectionOperator Operator = '&'
	ExclusionOperator    Operator = '-'
)

// Expression is a permission's expression as written: operands joined by one
// operator, from left to right, or a single term.
type Expression struct {
	Pos      Position
	Operator Operator
	Operands []*Expression // two or more; nil for a term
	Parens   bool          // in parentheses

	// A term: Kind is Nil, Self, Ref, Arrow or ArrowAll.
	Kind      ExprKind
	Name      string // the relation or permission, or an arrow's left side
	Target    string // an arrow's right side
	TargetPos Position
	AnyCall   bool // an arrow written as `.any(…)`

	Leading, Trailing []Comment // of an operand on its own line
}

// term gives the canonical text of a term.
func (e *Expression) term() string {
	switch e.Kind {
	case Nil:
		return "nil"
	case Self:
		return "self"
	case Arrow:
		if e.AnyCall {
			return e.Name + ".any(" + e.Target + ")"
		}
		return e.Name + "->" + e.Target
	case ArrowAll:
		return e.Name + ".all(" + e.Target + ")"
	}
	return e.Name
}

// String gives the expression on one line, parentheses as written.
func (e *Expression) String() string {
	var b strings.Builder
	e.write(&b)
	return b.String()
}

func (e *Expression) write(b *strings.Builder) {
	if e.Operator == NoOperator {
		b.WriteString(e.term())
		return
	}
	if e.Parens {
		b.WriteByte('(')
	}
	for i, o := range e.Operands {
		if i > 0 {
			b.WriteString(" " + string(e.Operator) + " ")
		}
		o.write(b)
	}
	if e.Parens {
		b.WriteByte(')')
	}
}
