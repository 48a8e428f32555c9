package schema

import (
	"errors"
	"regexp"
)

var (
	relationRule = regexp.MustCompile(`^[a-z]([a-z0-9_]{0,62}[a-z0-9])?$`)
	typeRule     = regexp.MustCompile(`^[a-z]([a-z0-9_]{0,62}[a-z0-9])?(/[a-z]([a-z0-9_]{0,62}[a-z0-9])?)*$`)
)

func validRelation(name string) error {
	if !relationRule.MatchString(name) {
		return errors.New("a name is up to 64 lower-case letters, digits and `_`, begins with a letter and does not end with `_`")
	}
	return nil
}

func validType(name string) error {
	if len(name) > 128 || !typeRule.MatchString(name) {
		return errors.New("a type is names joined by `/`, at most 128 bytes; a name is up to 64 lower-case letters, digits and `_`, " +
			"begins with a letter and does not end with `_`")
	}
	return nil
}
