// Package validation reads and runs validation files: a schema with
// relationships and with assertions about what follows from them.
//
//	schema: |-
//	  definition user {}
//	  definition document { relation viewer: user  permission view = viewer }
//	relationships: |-
//	  // a comment
//	  document:readme#viewer@user:ada
//	assertions:
//	  assertTrue:
//	    - document:readme#view@user:ada
//	  assertFalse:
//	    - document:readme#view@user:bob
//
// [Parse] checks everything that can be checked without an answer, so that each
// mistake comes with its place in the file. [File.Run] asks.
package validation

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// Bounds of a validation file.
const (
	MaxBytes      = 64 << 20
	maxErrors     = 20
	maxAssertions = 1_000_000
)

// File is a validation file whose parts fit together. It is immutable.
type File struct {
	Name     string
	Schema   *schema.Schema
	Warnings []schema.Warning
	// Relationships are those of the file in the order written, each once.
	Relationships []tuple.Relationship
	Assertions    []Assertion
	Expected      []Expected
}

// Expectation is what an assertion says of an answer.
type Expectation uint8

const (
	No          Expectation = iota // assertFalse
	Yes                            // assertTrue
	Conditional                    // assertCaveated
)

func (e Expectation) String() string {
	switch e {
	case Yes:
		return "yes"
	case Conditional:
		return "conditional"
	}
	return "no"
}

// Assertion is a question with the answer it must have.
type Assertion struct {
	Pos        schema.Position
	Text       string // as written
	Resource   tuple.Object
	Permission string // or a relation
	Subject    tuple.Subject
	// ContextText is the canonical JSON of Context; empty for none.
	ContextText string
	Context     schema.Context
	Want        Expectation
}

// Error is something wrong at one place of a validation file or of the schema
// that it uses.
type Error struct {
	Pos     schema.Position
	Token   string // the text at Pos that is wrong; may be empty
	Message string // what is wrong
	Hint    string // what to do about it; may be empty

	source string // text of the file that Pos names
}

// Error gives one line: position, message and hint.
func (e *Error) Error() string { return e.plain().Error() }

// Render gives the error over several lines: the line it concerns with a caret,
// and the hint.
func (e *Error) Render() string { return e.plain().Render(e.source) }

func (e *Error) plain() *schema.Error {
	return &schema.Error{Pos: e.Pos, Token: e.Token, Message: e.Message, Hint: e.Hint}
}

// Errors is what is wrong with a validation file, in the order found; 20 at
// most.
type Errors []*Error

// Error renders every error, with its line and a caret.
func (es Errors) Error() string {
	var b strings.Builder
	for _, e := range es {
		b.WriteString(e.Render())
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Unwrap lets errors.As find the first [*Error].
func (es Errors) Unwrap() []error {
	out := make([]error, len(es))
	for i, e := range es {
		out[i] = e
	}
	return out
}

// Load reads a validation file and the schema files it names, which must lie in
// its folder or below. What is wrong inside the files comes as [Errors].
func Load(name string) (*File, error) {
	data, err := readFile(name)
	if err != nil {
		return nil, fmt.Errorf("validation file %s: %w", name, err)
	}
	return Parse(filepath.ToSlash(name), data, func(name string) ([]byte, error) {
		return readFile(filepath.FromSlash(name))
	})
}

// readFile reads a file of at most [MaxBytes]. Its errors leave out the path.
func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err == nil && info.Size() > MaxBytes {
		return nil, fmt.Errorf("has %d bytes, more than %d; split it", info.Size(), MaxBytes)
	}
	if err == nil {
		var data []byte
		if data, err = os.ReadFile(name); err == nil {
			return data, nil
		}
	}
	var p *os.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return nil, err
}

// beside resolves a path written in the file called name; false if it leaves
// that file's folder.
func beside(name, written string) (string, bool) {
	clean := path.Clean(written)
	if written == "" || path.IsAbs(written) || clean == ".." || strings.HasPrefix(clean, "../") {
		return "", false
	}
	return path.Join(path.Dir(name), clean), true
}
