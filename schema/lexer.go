package schema

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

type tokenKind uint8

const (
	endOfFile tokenKind = iota
	word                // a name or a keyword
	text                // a quoted string
	symbol              // punctuation
	invalid             // something that no schema holds; token.problem says what
)

// token is a piece of source, with the comments that stand before it.
type token struct {
	kind     tokenKind
	text     string // as written; of a string without the quotes
	pos      Position
	start    int // byte offsets into the source
	end      int
	comments []Comment
	blank    bool // a blank line stands before the token, after its comments
	problem  string
	hint     string
}

func (t token) is(s string) bool { return (t.kind == symbol || t.kind == word) && t.text == s }

// describe names the token in an error.
func (t token) describe() string {
	switch t.kind {
	case endOfFile:
		return "the end of the file"
	case text:
		return "the string " + quote(t.text)
	}
	return quote(t.text)
}

// Comment is a comment as written, marks included.
type Comment struct {
	Pos         Position
	Text        string
	BlankBefore bool // a blank line stands before it
	sameLine    bool // on the line on which the token before it ends, wholly
	trailing    bool // sameLine, and a line break stands between it and the next token
}

// IsDoc reports whether c is a doc comment: `/** … */`.
func (c Comment) IsDoc() bool { return strings.HasPrefix(c.Text, "/**") && len(c.Text) > 4 }

type lexer struct {
	file   string
	source string
	offset int
	line   int
	column int
}

func newLexer(file, source string) *lexer {
	l := &lexer{file: file, source: source, line: 1, column: 1}
	if strings.HasPrefix(source, "\uFEFF") {
		l.offset = len("\uFEFF")
	}
	return l
}

func (l *lexer) pos() Position { return Position{File: l.file, Line: l.line, Column: l.column} }

func (l *lexer) rest() string { return l.source[l.offset:] }

// skip moves over n bytes, keeping line and column.
func (l *lexer) skip(n int) {
	for _, r := range l.source[l.offset : l.offset+n] {
		if r == '\n' {
			l.line++
			l.column = 1
		} else {
			l.column++
		}
	}
	l.offset += n
}

// next returns the next token.
func (l *lexer) next() token {
	var comments []Comment
	lines, linesBeforeToken := 0, 0 // line breaks since the last token; since the last comment
	for l.offset < len(l.source) {
		c := l.source[l.offset]
		switch {
		case c == '\n':
			lines++
			linesBeforeToken++
			l.skip(1)
			continue
		case c == ' ' || c == '\t' || c == '\r':
			l.skip(1)
			continue
		case strings.HasPrefix(l.rest(), "//"), strings.HasPrefix(l.rest(), "/*"):
			comment, problem := l.comment()
			if problem.kind == invalid {
				return problem
			}
			comment.BlankBefore = linesBeforeToken > 1
			comment.sameLine = lines == 0 && !strings.Contains(comment.Text, "\n")
			comments = append(comments, comment)
			lines += strings.Count(comment.Text, "\n")
			linesBeforeToken = 0
			continue
		}
		break
	}
	for i := range comments {
		comments[i].trailing = comments[i].sameLine && lines > 0
	}
	t := l.scan()
	t.comments, t.blank = comments, linesBeforeToken > 1
	return t
}

func (l *lexer) comment() (Comment, token) {
	start, pos := l.offset, l.pos()
	rest := l.rest()
	if strings.HasPrefix(rest, "//") {
		n := strings.IndexByte(rest, '\n')
		if n < 0 {
			n = len(rest)
		}
		l.skip(n)
		return Comment{Pos: pos, Text: strings.TrimRight(rest[:n], " \t\r")}, token{}
	}
	n := strings.Index(rest[2:], "*/")
	if n < 0 {
		l.skip(len(rest))
		return Comment{}, token{kind: invalid, text: "/*", pos: pos, start: start, end: l.offset,
			problem: "this comment never ends", hint: "close it with `*/`"}
	}
	l.skip(n + 4)
	return Comment{Pos: pos, Text: strings.ReplaceAll(rest[:n+4], "\r\n", "\n")}, token{}
}

// scan reads one token at the offset, which is not at white space.
func (l *lexer) scan() token {
	t := token{pos: l.pos(), start: l.offset}
	rest := l.rest()
	if rest == "" {
		t.end = l.offset
		return t
	}
	n := 0
	switch {
	case isWordByte(rest[0]):
		for n < len(rest) && isWordByte(rest[n]) {
			n++
		}
		t.kind, t.text = word, rest[:n]
	case strings.HasPrefix(rest, "..."), strings.HasPrefix(rest, "->"):
		n = 2
		if rest[0] == '.' {
			n = 3
		}
		t.kind, t.text = symbol, rest[:n]
	case strings.IndexByte("{}()<>:=|#*+&-.,;/", rest[0]) >= 0:
		n = 1
		t.kind, t.text = symbol, rest[:1]
	case rest[0] == '"' || rest[0] == '\'':
		return l.quoted(rest[0])
	default:
		r, size := utf8.DecodeRuneInString(rest)
		n = size
		t.kind, t.text = invalid, rest[:n]
		t.problem, t.hint = fmt.Sprintf("unexpected character %q", r), "remove it"
		if r == utf8.RuneError && size == 1 {
			t.problem, t.hint = "the text is not valid UTF-8", "save the file as UTF-8"
		}
	}
	l.skip(n)
	t.end = l.offset
	return t
}

func (l *lexer) quoted(mark byte) token {
	t := token{kind: text, pos: l.pos(), start: l.offset}
	rest := l.rest()
	n := 1 + strings.IndexAny(rest[1:], string(mark)+"\n")
	if n == 0 || rest[n] == '\n' {
		if n == 0 {
			n = len(rest)
		}
		t.kind, t.text = invalid, rest[:n]
		t.problem, t.hint = "this string never ends", "close it with "+string(mark)+" on the same line"
		l.skip(n)
		t.end = l.offset
		return t
	}
	t.text = rest[1:n]
	l.skip(n + 1)
	t.end = l.offset
	return t
}

// caveatBody reads CEL up to the brace that closes it, after an opening brace
// has been read. It returns the raw text and leaves the closing brace unread.
func (l *lexer) caveatBody() (string, bool) {
	rest := l.rest()
	depth := 0
	for i := 0; i < len(rest); {
		switch c := rest[i]; {
		case c == '{':
			depth++
		case c == '}' && depth == 0:
			l.skip(i)
			return rest[:i], true
		case c == '}':
			depth--
		case c == '/' && strings.HasPrefix(rest[i:], "//"):
			n := strings.IndexByte(rest[i:], '\n')
			if n < 0 {
				return "", false
			}
			i += n
			continue
		case c == '"' || c == '\'':
			raw := i > 0 && isRawPrefix(rest[:i])
			n := celString(rest[i:], raw)
			if n < 0 {
				return "", false
			}
			i += n
			continue
		}
		i++
	}
	return "", false
}

// isRawPrefix reports whether a string that follows s is a raw one: r"…", br"…".
func isRawPrefix(s string) bool {
	n := len(s)
	for n > 0 && isWordByte(s[n-1]) && len(s)-n < 3 {
		n--
	}
	prefix := s[n:]
	return len(prefix) <= 2 && strings.ContainsAny(prefix, "rR") && strings.Trim(prefix, "rRbB") == ""
}

// celString returns the length of the CEL string that s begins with, or -1 if it
// never ends.
func celString(s string, raw bool) int {
	mark := s[:1]
	if strings.HasPrefix(s, strings.Repeat(mark, 3)) {
		mark = s[:3]
	}
	for i := len(mark); i < len(s); i++ {
		switch {
		case strings.HasPrefix(s[i:], mark):
			return i + len(mark)
		case s[i] == '\\' && !raw:
			i++
		case s[i] == '\n' && len(mark) == 1:
			return -1
		}
	}
	return -1
}

func isWordByte(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
