package validation

import (
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/pembadb/pemba/schema"
)

// source maps places inside YAML values back to the file, and gathers errors.
type source struct {
	name   string
	text   string
	lines  []string
	errors Errors
}

func newSource(name, text string) *source {
	return &source{name: name, text: text, lines: strings.Split(text, "\n")}
}

func (s *source) full() bool { return len(s.errors) >= maxErrors }

func (s *source) addAt(pos schema.Position, token, message, hint, text string) {
	if !s.full() {
		s.errors = append(s.errors, &Error{Pos: pos, Token: token, Message: message, Hint: hint, source: text})
	}
}

// add reports an error at a value, or at the start of it.
func (s *source) add(n *yaml.Node, message, hint string) {
	token := n.Value
	if n.Kind != yaml.ScalarNode || strings.Contains(token, "\n") {
		token = ""
	}
	s.addAt(s.at(n), token, message, hint, s.text)
}

// at is where a value starts, its quote left out. Columns count characters.
func (s *source) at(n *yaml.Node) schema.Position {
	column := n.Column
	if n.Kind == yaml.ScalarNode && n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
		column++
	}
	return schema.Position{File: s.name, Line: max(n.Line, 1), Column: max(column, 1)}
}

// within is the place of a character in a text value: line and column count
// from 0. Only a literal block keeps its lines in the file; a place in another
// value of several lines is its start.
func (s *source) within(n *yaml.Node, lines []string, line, column int) schema.Position {
	if n.Style&yaml.LiteralStyle != 0 && line < len(lines) {
		if i := n.Line + line; i < len(s.lines) {
			written := strings.TrimSuffix(s.lines[i], "\r")
			if indent, ok := strings.CutSuffix(written, lines[line]); ok {
				return schema.Position{File: s.name, Line: i + 1, Column: utf8.RuneCountInString(indent) + column + 1}
			}
		}
	}
	pos := s.at(n)
	if len(lines) == 1 && n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) == 0 {
		pos.Column += column
	}
	return pos
}
