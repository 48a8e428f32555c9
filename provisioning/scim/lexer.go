package scim

import (
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// tokenKind tells what a token of a filter or a path is.
type tokenKind uint8

const (
	endToken    tokenKind = iota
	wordToken             // an attribute, an operator, true, false or null
	stringToken           // a JSON string
	numberToken           // a JSON number
	markToken             // one of ( ) [ ]
	wrongToken            // what can be none of these
)

// token is a piece of a filter or a path.
type token struct {
	kind tokenKind
	text string // as written; of a string, what it means
	at   int    // where it begins, in bytes
}

// lexer cuts a filter or a path into tokens.
type lexer struct {
	text string
	at   int
}

// wordByte reports whether c can be part of an attribute's full name: letters,
// digits, and - _ $ : . (RFC 7644 §3.4.2.2: attrPath with a URI).
func wordByte(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return strings.IndexByte("-_$:.", c) >= 0
}

func (l *lexer) next() token {
	for l.at < len(l.text) && (l.text[l.at] == ' ' || l.text[l.at] == '\t') {
		l.at++
	}
	begin := l.at
	if begin == len(l.text) {
		return token{endToken, "", begin}
	}
	switch c := l.text[begin]; {
	case strings.IndexByte("()[]", c) >= 0:
		l.at++
		return token{markToken, l.text[begin:l.at], begin}
	case c == '"':
		return l.quoted()
	case !wordByte(c):
		_, size := utf8.DecodeRuneInString(l.text[begin:])
		l.at += size
		return token{wrongToken, l.text[begin:l.at], begin}
	}
	for l.at < len(l.text) && (wordByte(l.text[l.at]) || l.text[l.at] == '+' && l.at > begin) {
		l.at++
	}
	word := l.text[begin:l.at]
	if c := word[0]; c >= '0' && c <= '9' || c == '-' {
		return token{numberToken, word, begin}
	}
	return token{wordToken, word, begin}
}

// quoted reads a string by the rules of JSON (RFC 7644 §3.4.2.2: compValue).
func (l *lexer) quoted() token {
	begin := l.at
	for i := begin + 1; i < len(l.text); i++ {
		switch l.text[i] {
		case '\\':
			i++
		case '"':
			l.at = i + 1
			var s string
			if json.Unmarshal([]byte(l.text[begin:l.at]), &s) != nil {
				return token{wrongToken, l.text[begin:l.at], begin}
			}
			return token{stringToken, s, begin}
		}
	}
	l.at = len(l.text)
	return token{wrongToken, l.text[begin:], begin}
}
