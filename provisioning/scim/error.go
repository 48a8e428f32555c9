package scim

import (
	"errors"
	"fmt"
	"net/http"
)

// Error is an answer that tells what went wrong (RFC 7644 §3.12). A [Directory]
// returns one for whatever the client should know; other errors are logged and
// told as 500 without their text.
type Error struct {
	Status int    // the HTTP status
	Type   string // the scimType of Table 9; empty for none
	Detail string
}

func (e *Error) Error() string { return e.Detail }

// The values of scimType (RFC 7644 §3.12, Table 9).
const (
	invalidFilter = "invalidFilter"
	tooMany       = "tooMany"
	uniqueness    = "uniqueness"
	mutability    = "mutability"
	invalidSyntax = "invalidSyntax"
	invalidPath   = "invalidPath"
	noTarget      = "noTarget"
	invalidValue  = "invalidValue"
)

// ErrVersion is what a [Directory] returns for a change of a version that is no
// longer the newest.
var ErrVersion = errors.New("the resource was changed meanwhile")

func problem(status int, scimType, format string, args ...any) *Error {
	return &Error{status, scimType, fmt.Sprintf(format, args...)}
}

func bad(scimType, format string, args ...any) *Error {
	return problem(http.StatusBadRequest, scimType, format, args...)
}

// NotFound is the error for a resource that does not exist.
func NotFound(k Kind, id string) *Error {
	return problem(http.StatusNotFound, "", "there is no %s %q", k, shorten(id))
}

// Duplicate is the error for a value that another resource has (RFC 7644 §3.3).
func Duplicate(format string, args ...any) *Error {
	return problem(http.StatusConflict, uniqueness, format, args...)
}

// Invalid is the error for a value that cannot be stored.
func Invalid(format string, args ...any) *Error { return bad(invalidValue, format, args...) }

// shorten bounds what of a request is repeated in an answer.
func shorten(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
