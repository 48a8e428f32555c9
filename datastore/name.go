package datastore

import (
	"fmt"
	"regexp"
	"strings"
)

var legalName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// CheckName returns nil if name is a legal name of what (store, token), and
// otherwise an error that wraps ErrName.
func CheckName(what, name string) error {
	if legalName.MatchString(name) {
		return nil
	}
	name = strings.ToValidUTF8(name, "?")
	if len(name) > 80 {
		name = strings.ToValidUTF8(name[:80], "") + "…"
	}
	return With(fmt.Errorf("%w: %s name %q; a name is 1 to 63 of a to z, 0 to 9 and -, and begins with a letter", ErrName, what, name), what, name)
}
