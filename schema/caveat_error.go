package schema

import (
	"errors"
	"strings"
)

// The ways in which a caveat fails to answer. Match them with [errors.Is]; the
// error itself is a *[CaveatError], except for ErrContext, which concerns no
// caveat. An evaluation that was cancelled matches the context's own error.
var (
	// ErrContext: a caveat context is no JSON object, or exceeds a limit.
	ErrContext = errors.New("invalid caveat context")
	// ErrCaveatField: a field of a context is not of its parameter's type, or the
	// caveat has no such parameter.
	ErrCaveatField = errors.New("invalid caveat field")
	// ErrCaveatRuntime: the expression failed on these values: a division by
	// zero, a key that a map lacks, a string that is no address range.
	ErrCaveatRuntime = errors.New("caveat failed")
	// ErrCaveatCost: the expression did not finish within its cost limit.
	ErrCaveatCost = errors.New("caveat too expensive")
)

// CaveatError tells which caveat failed, on which field, and what to do. It
// names fields and types, and never prints a value: contexts hold secrets.
type CaveatError struct {
	Caveat string
	Field  string // the field at fault, or "" if no single one is
	Want   string // the type of the parameter, for a field of another one
	Got    string // the JSON type of the value, for a field of another one
	// Stored reports that the fault lies in the context written with a
	// relationship rather than in that of the request.
	Stored bool

	kind   error // one of the sentinels, or the error of the cancelled context
	detail string
}

func (e *CaveatError) Error() string {
	var b strings.Builder
	b.WriteString("caveat `")
	b.WriteString(e.Caveat)
	b.WriteByte('`')
	if e.Stored {
		b.WriteString(", context written with the relationship")
	}
	b.WriteString(": ")
	b.WriteString(e.detail)
	return b.String()
}

// Unwrap returns the sentinel that e matches.
func (e *CaveatError) Unwrap() error { return e.kind }

// contextError is an [ErrContext] with its reason.
type contextError struct{ detail string }

func (e *contextError) Error() string { return "caveat context: " + e.detail }
func (e *contextError) Unwrap() error { return ErrContext }

// caveatError is a fault of a caveat's definition. The language places it in
// the file.
type caveatError struct {
	Message string
	Hint    string // what to do about it; may be empty
	// Parameter is the index of the parameter at fault, or -1 when Line and
	// Column say where in the expression the fault is.
	Parameter int
	// Line and Column are 1-based within the text of the expression; Column
	// counts characters. Zero for a fault of a parameter or the whole caveat.
	Line, Column int
}

func (e *caveatError) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + ": " + e.Hint
}
