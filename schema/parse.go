package schema

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pembadb/pemba/tuple"
)

// DefaultMaxBytes is the largest schema, all imported files together, unless
// [Options] say otherwise.
const DefaultMaxBytes = 4 << 20

// maxParens bounds how deep parentheses and parameter types nest.
const maxParens = 200

// Source is the text of a schema. Name appears in positions; imports are found
// relative to its folder. It may be empty.
type Source struct{ Name, Text string }

// Options say how a schema is read. The zero value is useful.
type Options struct {
	// MaxBytes is the largest schema, all imported files together; zero is
	// [DefaultMaxBytes].
	MaxBytes int
	// Open returns the text of an imported file. path is slash-separated and
	// lies in the folder of the root source. Nil refuses imports.
	Open func(path string) (string, error)
	// Context, if not nil, ends the work early with its error.
	Context context.Context
	// Stored compiles a schema that was accepted before: the bounds on how much
	// it may hold, which may have been others then, do not count.
	Stored bool
}

// Bounds of what a schema may hold, besides its bytes: a caveat takes about a
// millisecond to compile, and an operand 100 bytes.
const (
	MaxCaveats  = 1000
	MaxOperands = 300_000 // in all expressions of permissions
)

// stopped is the error of a context that has ended.
func (o Options) stopped() error {
	if o.Context == nil {
		return nil
	}
	return o.Context.Err()
}

func (o Options) maxBytes() int {
	if o.MaxBytes > 0 {
		return o.MaxBytes
	}
	return DefaultMaxBytes
}

// The flags that a file may `use`.
const (
	flagExpiration   = "expiration"
	flagSelf         = "self"
	flagTypechecking = "typechecking"
	flagImport       = "import"
	flagPartial      = "partial"
)

var flags = []string{flagExpiration, flagImport, flagPartial, flagSelf, flagTypechecking}

// keywords can never be names. The words that a `use` line makes special
// (`self`, `import`, …) are names like any other without it.
var keywords = []string{"definition", "caveat", "relation", "permission", "nil", "with"}

// Parse reads a source without resolving anything: unknown types, imports and
// partials stay as written. The error is an [Errors].
func Parse(src Source, opts Options) (*File, error) {
	var r report
	f := parseFile(src, opts.maxBytes(), &r)
	if err := r.err(); err != nil {
		return nil, err
	}
	return f, nil
}

// parseFile parses what it can of a source.
func parseFile(src Source, maxBytes int, r *report) *File {
	f := &File{Name: src.Name, text: src.Text, flags: map[string]bool{}}
	if len(src.Text) > maxBytes {
		r.add(Position{File: src.Name}, "",
			fmt.Sprintf("the schema has %d bytes, and at most %d are read", len(src.Text), maxBytes),
			"make it smaller or raise the limit of schema bytes")
		return f
	}
	p := &parser{lex: newLexer(src.Name, src.Text), file: f, report: r}
	p.tok = p.lex.next()
	p.declarations()
	return f
}

type parser struct {
	lex    *lexer
	tok    token // the next one
	file   *File
	report *report
	depth  int       // of parentheses, or of a parameter's type
	stray  []Comment // met inside a statement, where they have no place of their own
}

// advance takes the next token.
func (p *parser) advance() token {
	t := p.tok
	p.stray = append(p.stray, t.comments...)
	p.tok = p.lex.next()
	return t
}

// takeComments takes those before the next token.
func (p *parser) takeComments() []Comment {
	c := p.tok.comments
	p.tok.comments = nil
	return c
}

func (p *parser) accept(s string) bool {
	if p.tok.is(s) {
		p.advance()
		return true
	}
	return false
}

// fail reports that the next token is not what was wanted. It returns false.
func (p *parser) fail(wanted, hint string) bool {
	t := p.tok
	p.report.incomplete = true
	if t.kind == invalid {
		p.report.add(t.pos, t.text, t.problem, t.hint)
		return false
	}
	p.report.add(t.pos, p.lex.source[t.start:t.end], "expected "+wanted+", found "+t.describe(), hint)
	return false
}

func (p *parser) expect(s, hint string) bool {
	if p.accept(s) {
		return true
	}
	return p.fail(quote(s), hint)
}

// needFlag reports a construct whose `use` line is missing; reading goes on.
func (p *parser) needFlag(flag, construct string) {
	if !p.file.flags[flag] {
		p.report.add(p.tok.pos, p.tok.text, construct+" needs `use "+flag+"`",
			"add the line `use "+flag+"` at the top of the file")
	}
}

// begin starts a node at the next token. Comments that trail the node before it
// go to that.
func (p *parser) begin(previous *Node) Node {
	p.stray = nil
	n := Node{Pos: p.tok.pos, BlankBefore: p.tok.blank}
	for _, c := range p.takeComments() {
		if c.trailing && previous != nil && len(n.Leading) == 0 {
			previous.Trailing = append(previous.Trailing, c)
			continue
		}
		n.Leading = append(n.Leading, c)
	}
	if len(n.Leading) > 0 {
		n.blankAfterComments = p.tok.blank
		n.BlankBefore = n.Leading[0].BlankBefore
	}
	return n
}

// finish ends a node: comments from within it move before it.
func (p *parser) finish(n *Node) {
	n.Leading = append(n.Leading, p.stray...)
	p.stray = nil
	for p.tok.is(";") {
		p.advance()
	}
	n.Leading = append(n.Leading, p.stray...)
	p.stray = nil
}

func (p *parser) declarations() {
	var previous *Node
	for !p.report.full() {
		node := p.begin(previous)
		if p.tok.kind == endOfFile {
			p.file.Comments = node.Leading
			return
		}
		start := p.tok.start
		d := p.declaration(node)
		if d == nil {
			if p.tok.start == start {
				p.advance()
			}
			p.recover("definition", "caveat", "partial", "import", "use")
			previous = nil
			continue
		}
		p.finish(d.node())
		p.file.Declarations = append(p.file.Declarations, d)
		previous = d.node()
	}
}

// declaration reads one declaration; nil after an error.
func (p *parser) declaration(n Node) Declaration {
	switch {
	case p.tok.is("definition"):
		return p.definition(n, false)
	case p.tok.is("caveat"):
		return p.caveat(n)
	case p.tok.is("use"):
		return p.use(n)
	case p.tok.is("partial"):
		p.needFlag(flagPartial, "a partial")
		return p.definition(n, true)
	case p.tok.is("import"):
		p.needFlag(flagImport, "an import")
		return p.importDecl(n)
	case p.tok.is("relation"), p.tok.is("permission"):
		p.fail("`definition` or `caveat`", "relations and permissions stand within the braces of a definition")
	default:
		p.fail("`definition` or `caveat`", "write `definition name { … }`")
	}
	return nil
}

// recover skips to the next word that may begin something, past braces.
func (p *parser) recover(words ...string) {
	p.depth = 0
	for braces := 0; p.tok.kind != endOfFile; {
		switch {
		case p.tok.is("{"):
			braces++
		case p.tok.is("}"):
			braces--
		case braces <= 0 && p.tok.kind == word && slices.Contains(words, p.tok.text):
			return
		}
		p.advance()
	}
}

func (p *parser) use(n Node) Declaration {
	p.advance()
	u := &Use{Node: n, Flag: p.tok.text}
	if p.tok.kind != word || !slices.Contains(flags, u.Flag) {
		p.fail("a flag", "the flags are "+strings.Join(flags, ", "))
		return nil
	}
	for _, d := range p.file.Declarations {
		switch d.(type) {
		case *DefinitionDecl, *CaveatDecl:
			p.report.add(n.Pos, "use", "`use "+u.Flag+"` stands after a definition",
				"move it to the top of the file")
			p.advance()
			return u
		}
	}
	p.file.flags[u.Flag] = true
	p.advance()
	return u
}

func (p *parser) importDecl(n Node) Declaration {
	p.advance()
	if p.tok.kind != text {
		p.fail("the path of a file in quotes", "write `import \"./other.zed\"`")
		return nil
	}
	return &Import{Node: n, Path: p.advance().text}
}

// name reads the name of something being declared.
func (p *parser) name(what string, valid func(string) error) (string, Position, bool) {
	t := p.tok
	if t.kind != word {
		return "", t.pos, p.fail("the name of a "+what, "")
	}
	if slices.Contains(keywords, t.text) {
		return "", t.pos, p.fail("the name of a "+what, quote(t.text)+" is a keyword; choose another name")
	}
	name := p.path()
	if err := valid(name); err != nil {
		hint := err.Error()
		if e := (*tuple.Error)(nil); errors.As(err, &e) {
			hint = "a name " + e.Reason
		}
		p.report.add(t.pos, name, fmt.Sprintf("%s cannot be the name of a %s", quote(name), what), hint)
	}
	return name, t.pos, true
}

// path reads words joined by slashes; the next token is a word.
func (p *parser) path() string {
	name := p.advance().text
	for p.tok.is("/") {
		p.advance()
		if p.tok.kind != word {
			return name + "/"
		}
		name += "/" + p.advance().text
	}
	return name
}

func (p *parser) definition(n Node, partial bool) Declaration {
	d := &DefinitionDecl{Node: n, Partial: partial}
	what := p.advance().text
	var ok bool
	if d.Name, d.NamePos, ok = p.name(what, tuple.CheckType); !ok {
		return nil
	}
	if !p.expect("{", "a "+what+" has braces, also when it is empty: `"+what+" "+d.Name+" {}`") {
		return nil
	}
	header := p.stray
	var previous *Node
	for !p.report.full() {
		node := p.begin(previous)
		if p.tok.is("}") || p.tok.kind == endOfFile {
			d.Comments = node.Leading
			break
		}
		s := p.statement(node)
		if s == nil {
			previous = nil
			if !p.recoverStatement() {
				return d
			}
			continue
		}
		p.finish(s.node())
		d.Statements = append(d.Statements, s)
		previous = s.node()
	}
	p.stray = header
	if !p.expect("}", "close the braces of "+what+" "+quote(d.Name)) {
		return nil
	}
	return d
}

// recoverStatement skips to the next statement or the closing brace of the
// definition. It returns false where the definition seems to lack that brace.
func (p *parser) recoverStatement() bool {
	p.depth = 0
	for ; ; p.advance() {
		switch {
		case p.tok.kind == endOfFile, p.tok.is("definition"), p.tok.is("caveat"):
			return false
		case p.tok.is("relation"), p.tok.is("permission"), p.tok.is("}"), p.tok.is("..."):
			return true
		}
	}
}

// statement reads one statement of a definition; nil after an error.
func (p *parser) statement(n Node) Statement {
	switch {
	case p.tok.is("relation"):
		return p.relation(n)
	case p.tok.is("permission"):
		return p.permission(n)
	case p.tok.is("..."):
		p.needFlag(flagPartial, "including a partial")
		p.advance()
		if p.tok.kind != word {
			p.fail("the name of a partial", "")
			return nil
		}
		return &PartialRef{Node: n, Name: p.path()}
	case p.tok.is("definition"), p.tok.is("caveat"):
		p.fail("`relation`, `permission` or `}`", "close the braces of the definition before the next one")
	default:
		p.fail("`relation`, `permission` or `}`", "write `relation name: type` or `permission name = expression`")
		p.advance() // so that recovery makes progress
	}
	return nil
}

func (p *parser) relation(n Node) Statement {
	p.advance()
	r := &RelationDecl{Node: n}
	var ok bool
	if r.Name, r.NamePos, ok = p.name("relation", p.validRelation); !ok {
		return nil
	}
	if p.tok.is("=") {
		p.fail("`:`", "a relation has types, `relation "+r.Name+": user`; what is computed is a permission, "+
			"`permission "+r.Name+" = …`")
		return nil
	}
	if !p.expect(":", "write `relation "+r.Name+": type`") {
		return nil
	}
	for {
		leading := p.operandComments(r.lastTrailing())
		s, ok := p.subject()
		if !ok {
			return nil
		}
		s.Leading = append(leading, s.Leading...)
		r.Subjects = append(r.Subjects, s)
		if !p.tok.is("|") {
			break
		}
		s.Leading = append(s.Leading, p.separatorComments(&s.Trailing)...)
	}
	if len(r.Subjects) == 1 {
		s := r.Subjects[0]
		p.stray = append(p.stray, append(s.Leading, s.Trailing...)...)
		s.Leading, s.Trailing = nil, nil
	}
	return r
}

func (r *RelationDecl) lastTrailing() *[]Comment {
	if len(r.Subjects) == 0 {
		return nil
	}
	return &r.Subjects[len(r.Subjects)-1].Trailing
}

// operandComments takes the comments before an operand. Those on the line of
// the operand before it go to trailing.
func (p *parser) operandComments(trailing *[]Comment) []Comment {
	var leading []Comment
	for _, c := range p.takeComments() {
		if c.trailing && trailing != nil && len(leading) == 0 {
			*trailing = append(*trailing, c)
		} else {
			leading = append(leading, c)
		}
	}
	return leading
}

// separatorComments reads the symbol between two operands. The comments before
// it that stand on lines of their own are returned, the others go to trailing.
func (p *parser) separatorComments(trailing *[]Comment) []Comment {
	for i := range p.tok.comments {
		p.tok.comments[i].trailing = p.tok.comments[i].sameLine
	}
	leading := p.operandComments(trailing)
	p.advance()
	return leading
}

func (p *parser) validRelation(name string) error {
	if name == "self" && p.file.flags[flagSelf] {
		return fmt.Errorf("`use self` makes `self` a keyword in this file; choose another name")
	}
	return tuple.CheckRelation(name)
}

// subject reads one alternative of a relation's type.
func (p *parser) subject() (*SubjectDecl, bool) {
	s := &SubjectDecl{Pos: p.tok.pos}
	if p.tok.kind != word || slices.Contains(keywords, p.tok.text) {
		return s, p.fail("a type", "write `type`, `type#relation` or `type:*`")
	}
	s.Type = p.path()
	switch {
	case p.accept("#"):
		s.RelationPos = p.tok.pos
		switch {
		case p.accept("..."):
		case p.tok.is("*"):
			return s, p.fail("a relation", "all objects of a type are `"+s.Type+":*`")
		case p.tok.kind != word || slices.Contains(keywords, p.tok.text):
			return s, p.fail("a relation", "write `"+s.Type+"#relation`")
		default:
			s.Relation = p.advance().text
		}
	case p.accept(":"):
		if !p.expect("*", "all objects of a type are `"+s.Type+":*`, those of a relation `"+s.Type+"#relation`") {
			return s, false
		}
		s.Wildcard = true
		if p.tok.is("#") {
			return s, p.fail("`|` or the end of the relation", "a wildcard cannot have a relation; write `"+s.Type+":*`")
		}
	}
	if p.accept("with") {
		return s, p.traits(s)
	}
	return s, true
}

// traits reads what follows `with`.
func (p *parser) traits(s *SubjectDecl) bool {
	if p.tok.kind != word || slices.Contains(keywords, p.tok.text) {
		return p.fail("a caveat", "write `with caveat`, `with expiration` or `with caveat and expiration`")
	}
	if p.tok.text == flagExpiration && p.file.flags[flagExpiration] {
		p.advance()
		s.Expiration = true
		if p.tok.is("and") {
			return p.fail("`|` or the end of the relation", "write the caveat first: `with caveat and expiration`")
		}
		return true
	}
	s.CaveatPos = p.tok.pos
	s.Caveat = p.path()
	if !p.accept("and") {
		return true
	}
	if !p.tok.is(flagExpiration) {
		return p.fail("`expiration`", "a subject has at most one caveat, and `and expiration` after it")
	}
	p.needFlag(flagExpiration, "`expiration`")
	p.advance()
	s.Expiration = true
	return true
}

func (p *parser) permission(n Node) Statement {
	p.advance()
	d := &PermissionDecl{Node: n}
	var ok bool
	if d.Name, d.NamePos, ok = p.name("permission", p.validRelation); !ok {
		return nil
	}
	if p.tok.is(":") {
		p.needFlag(flagTypechecking, "a permission's type")
		if !p.annotation(d) {
			return nil
		}
	}
	if !p.expect("=", "write `permission "+d.Name+" = expression`") {
		return nil
	}
	if d.Expression, ok = p.expression(); !ok {
		return nil
	}
	d.Expression.Parens = false
	p.settleComments(d.Expression)
	return d
}

func (p *parser) annotation(d *PermissionDecl) bool {
	for p.accept(":") || p.accept("|") {
		if p.tok.kind != word || slices.Contains(keywords, p.tok.text) {
			return p.fail("a type", "write `permission "+d.Name+": user | team = expression`")
		}
		pos := p.tok.pos
		d.Annotation = append(d.Annotation, TypeName{Pos: pos, Type: p.path()})
		if p.tok.is("#") || p.tok.is(":") {
			return p.fail("`|` or `=`", "a permission's type names types only: no relation and no `*`")
		}
	}
	return true
}
