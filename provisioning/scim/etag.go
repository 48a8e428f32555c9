package scim

import (
	"net/http"
	"strings"
)

// tag is a version as an entity tag (RFC 7644 §3.14). It is weak: answers of one
// version differ by the attributes that are asked for.
func tag(version string) string { return `W/"` + version + `"` }

// condition is the value of an If-Match or If-None-Match header, or the version of
// a bulk operation.
type condition string

// met reports whether a version is one of those named. Tags are compared weakly.
func (c condition) met(version string) bool {
	for _, t := range strings.Split(string(c), ",") {
		t = strings.TrimPrefix(strings.TrimSpace(t), "W/")
		if t == "*" || t == `"`+version+`"` || t == version && t != "" {
			return true
		}
	}
	return false
}

// check refuses a change of a version that a client did not mean
// (RFC 7644 §3.14). It returns the version that the change must replace; none if
// there was no condition.
func (c condition) check(r *Resource) (string, error) {
	switch {
	case c == "":
		return "", nil
	case !c.met(r.Version):
		return "", problem(http.StatusPreconditionFailed, "", "%s %q is now of version %s; read it again", r.Kind, shorten(r.ID), tag(r.Version))
	case strings.TrimSpace(string(c)) == "*":
		return "", nil
	}
	return r.Version, nil
}
