package schema

import (
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"
)

// maxErrors bounds how many errors one compilation reports.
const maxErrors = 20

// String gives file:line:column, without the parts that are unknown.
func (p Position) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.File == "":
		return fmt.Sprintf("%d:%d", p.Line, p.Column)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

func (p Position) before(q Position) bool {
	if p.Line != q.Line {
		return p.Line < q.Line
	}
	return p.Column < q.Column
}

// Error is something wrong at one place of a schema.
type Error struct {
	Pos     Position
	Token   string // the source text at Pos that is wrong; empty at the end of the file
	Message string // what is wrong
	Hint    string // what to do about it; may be empty
}

// Error gives one line: position, message and hint.
func (e *Error) Error() string { return oneLine(e.Pos, e.Message, e.Hint) }

// Render gives the error over several lines: the line of source (the text of
// the file that e.Pos names) with a caret under the token, and the hint.
func (e *Error) Render(source string) string {
	return render("error", e.Pos, e.Token, e.Message, e.Hint, source)
}

// Errors is what was found wrong with a schema, in the order of the source; 20
// at most.
type Errors []*Error

// Error gives one line an error.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find the first [*Error].
func (es Errors) Unwrap() []error {
	out := make([]error, len(es))
	for i, e := range es {
		out[i] = e
	}
	return out
}

// Warning is something legal that is surely a mistake.
type Warning struct {
	Pos     Position
	Token   string
	Code    string // a stable short name, such as `unused-caveat`
	Message string
	Hint    string
}

// String gives one line: position, message, hint and code.
func (w Warning) String() string {
	return oneLine(w.Pos, "warning: "+w.Message, w.Hint) + " [" + w.Code + "]"
}

// Render is like [Error.Render].
func (w Warning) Render(source string) string {
	return render("warning", w.Pos, w.Token, w.Message+" ["+w.Code+"]", w.Hint, source)
}

func oneLine(pos Position, message, hint string) string {
	var b strings.Builder
	if at := pos.String(); at != "" {
		b.WriteString(at)
		b.WriteString(": ")
	}
	b.WriteString(message)
	if hint != "" {
		b.WriteString("; ")
		b.WriteString(hint)
	}
	return b.String()
}

func render(kind string, pos Position, token, message, hint, source string) string {
	var b strings.Builder
	if at := pos.String(); at != "" {
		b.WriteString(at + ": ")
	}
	fmt.Fprintf(&b, "%s: %s\n", kind, message)
	if line, ok := sourceLine(source, pos.Line); ok {
		number := fmt.Sprint(pos.Line)
		fmt.Fprintf(&b, "  %s | %s\n", number, line)
		fmt.Fprintf(&b, "  %s | %s%s\n", strings.Repeat(" ", len(number)), padding(line, pos.Column-1), carets(token))
	}
	if hint != "" {
		fmt.Fprintf(&b, "  hint: %s\n", hint)
	}
	return b.String()
}

// sourceLine returns line n, 1-based, cut where it is too long to show.
func sourceLine(source string, n int) (string, bool) {
	if n < 1 || source == "" {
		return "", false
	}
	for ; n > 1; n-- {
		_, rest, ok := strings.Cut(source, "\n")
		if !ok {
			return "", false
		}
		source = rest
	}
	line, _, _ := strings.Cut(source, "\n")
	line = strings.ToValidUTF8(strings.TrimRight(line, "\r"), "\uFFFD")
	const widest = 200
	if utf8.RuneCountInString(line) > widest {
		line = string([]rune(line)[:widest]) + "…"
	}
	return line, true
}

// padding repeats the tabs of the line, so that the caret stands right whatever
// the width of a tab.
func padding(line string, columns int) string {
	var b strings.Builder
	for _, r := range line {
		if b.Len() >= columns {
			break
		}
		if r == '\t' {
			b.WriteByte('\t')
		} else {
			b.WriteByte(' ')
		}
	}
	return b.String()
}

func carets(token string) string {
	token, _, _ = strings.Cut(token, "\n")
	return strings.Repeat("^", min(max(1, utf8.RuneCountInString(token)), 80))
}

// report gathers errors, each place and message once.
type report struct {
	errors Errors
	seen   map[string]bool
	// incomplete: something could not be read, so that names seem not to be declared
	incomplete bool
}

func (r *report) add(pos Position, token, message, hint string) {
	if len(r.errors) >= maxErrors {
		return
	}
	e := &Error{Pos: pos, Token: token, Message: message, Hint: hint}
	key := e.Error()
	if r.seen == nil {
		r.seen = map[string]bool{}
	}
	if !r.seen[key] {
		r.seen[key] = true
		r.errors = append(r.errors, e)
	}
}

func (r *report) full() bool { return len(r.errors) >= maxErrors }

// err returns the errors in the order of the source, or nil. Files stay in the
// order in which errors were found in them.
func (r *report) err() error {
	if len(r.errors) == 0 {
		return nil
	}
	files := map[string]int{}
	for _, e := range r.errors {
		if _, ok := files[e.Pos.File]; !ok {
			files[e.Pos.File] = len(files)
		}
	}
	sort.SliceStable(r.errors, func(i, j int) bool {
		a, b := r.errors[i].Pos, r.errors[j].Pos
		if a.File != b.File {
			return files[a.File] < files[b.File]
		}
		return a.before(b)
	})
	return r.errors
}

// quote shows a piece of source in a message, cut where it is long.
func quote(s string) string {
	const longest = 60
	if utf8.RuneCountInString(s) > longest {
		s = string([]rune(s)[:longest]) + "…"
	}
	return "`" + s + "`"
}

// Nearest returns the candidate that is likely meant by a misspelt name, or "".
// It gives up on more candidates than a person could have meant.
func Nearest(name string, candidates []string) string {
	if len(candidates) > 1000 || len(name) > 64 {
		return ""
	}
	best, distance := "", max(1, len(name)/3)
	for _, c := range candidates {
		if d := editDistance(name, c, distance); d < distance || (d == distance && best == "") {
			best, distance = c, d
		}
	}
	return best
}

// editDistance counts the letters to add, leave out, replace, or swap with their
// neighbour that lead from a to b; it is any number above limit when it exceeds
// that.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replaced := last[j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			row[j] = min(replaced, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}

// didYouMean gives a hint for a misspelt name, or the other hint.
func didYouMean(name string, candidates []string, otherwise string) string {
	if n := Nearest(name, candidates); n != "" {
		return "did you mean " + quote(n) + "?"
	}
	return otherwise
}
