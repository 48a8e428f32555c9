package tuple

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of names and ids, in bytes.
const (
	MaxType     = 128
	MaxRelation = 64
	MaxID       = 1024
)

// Error is what is wrong with a text or a noun, and what to do.
type Error struct {
	What   string // the noun: "relationship", "object id", "relation", …
	Input  string // as given, shortened to fit a line
	Reason string // what is wrong and what to write instead
}

func (e *Error) Error() string { return fmt.Sprintf("%s %q: %s", e.What, e.Input, e.Reason) }

func invalid(what, input, format string, args ...any) error {
	const longest = 80
	if len(input) > longest {
		cut := longest
		for cut > 0 && !utf8.RuneStart(input[cut]) {
			cut--
		}
		input = input[:cut] + "…"
	}
	return &Error{What: what, Input: input, Reason: fmt.Sprintf(format, args...)}
}

// CheckRelation returns nil if name is a legal name of a relation or permission:
// `[a-z][a-z0-9_]{0,62}[a-z0-9]` or one letter.
func CheckRelation(name string) error { return checkName("relation", name) }

func checkName(what, name string) error {
	switch {
	case name == "":
		return invalid(what, name, "is empty; write a name such as viewer")
	case len(name) > MaxRelation:
		return invalid(what, name, "has %d bytes, more than %d", len(name), MaxRelation)
	case name[0] < 'a' || name[0] > 'z':
		return invalid(what, name, "must start with a letter a to z")
	case name[len(name)-1] == '_':
		return invalid(what, name, "must not end with an underscore")
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return invalid(what, name, "may hold only a to z, 0 to 9 and underscores")
		}
	}
	return nil
}

// CheckType returns nil if name is a legal name of a type or caveat: names as of
// relations, joined by `/`, at most [MaxType] bytes.
func CheckType(name string) error { return checkPath("type", name) }

// CheckCaveatName returns nil if name is a legal name of a caveat; the rule is
// that of types.
func CheckCaveatName(name string) error { return checkPath("caveat", name) }

func checkPath(what, name string) error {
	if len(name) > MaxType {
		return invalid(what, name, "has %d bytes, more than %d", len(name), MaxType)
	}
	for rest := name; ; {
		part, tail, more := strings.Cut(rest, "/")
		if err := checkName(what, part); err != nil {
			return invalid(what, name, "%s", err.(*Error).Reason)
		}
		if !more {
			return nil
		}
		rest = tail
	}
}

// CheckID returns nil if id is a legal object id: 1 to [MaxID] bytes of
// printable UTF-8 without white space, `#`, `[`, `]`, `"` or `\`. Ids are compared
// byte by byte and never normalised: who writes letters with accents does well to
// send them in form NFC (Unicode Standard Annex #15). The wildcard is not an id.
func CheckID(id string) error {
	if id == Wildcard {
		return invalid("id", id, "the wildcard stands for every object and is allowed only as a subject")
	}
	return checkIDBytes("id", id)
}

// CheckIDPrefix returns nil if prefix can begin a legal id; it may be empty.
func CheckIDPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	return checkIDBytes("id prefix", prefix)
}

func checkIDBytes(what, id string) error {
	switch {
	case id == "":
		return invalid(what, id, "is empty; an id has 1 to %d bytes", MaxID)
	case len(id) > MaxID:
		return invalid(what, id, "has %d bytes, more than %d", len(id), MaxID)
	}
	for i := 0; i < len(id); {
		c := id[i]
		if c < utf8.RuneSelf {
			if c <= ' ' || c == 0x7f {
				return invalid(what, id, "holds a space or control character at byte %d; encode it, as in %%20", i)
			}
			if c == '#' || c == '[' || c == ']' || c == '"' || c == '\\' {
				return invalid(what, id, "holds %q at byte %d; encode it, as in %%%02X", c, i, c)
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(id[i:])
		if r == utf8.RuneError && n == 1 {
			return invalid(what, id, "is not valid UTF-8 at byte %d", i)
		}
		if !unicode.IsPrint(r) || unicode.Is(unseen, r) {
			return invalid(what, id, "holds the character %U at byte %d, which cannot be seen; leave it out, or encode it", r, i)
		}
		i += n
	}
	return nil
}

// unseen are the letters and marks that show nothing, by which two ids would look
// the same: the fillers of Hangul, the blank of Braille, and what Unicode lists as
// Default_Ignorable_Code_Point among the printable ones (DerivedCoreProperties).
var unseen = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x034f, Hi: 0x034f, Stride: 1}, // combining grapheme joiner
		{Lo: 0x115f, Hi: 0x1160, Stride: 1},
		{Lo: 0x17b4, Hi: 0x17b5, Stride: 1}, // inherent vowels of Khmer
		{Lo: 0x180b, Hi: 0x180f, Stride: 1}, // variation selectors of Mongolian
		{Lo: 0x2800, Hi: 0x2800, Stride: 1},
		{Lo: 0x3164, Hi: 0x3164, Stride: 1},
		{Lo: 0xfe00, Hi: 0xfe0e, Stride: 1}, // variation selectors, but the one of emoji
		{Lo: 0xffa0, Hi: 0xffa0, Stride: 1},
	},
	R32: []unicode.Range32{{Lo: 0xe0100, Hi: 0xe01ef, Stride: 1}},
}

// Check returns nil if o is a legal object.
func (o Object) Check() error {
	if err := CheckType(o.Type); err != nil {
		return err
	}
	return CheckID(o.ID)
}

// Check returns nil if s is a legal subject.
func (s Subject) Check() error {
	if err := CheckType(s.Type); err != nil {
		return err
	}
	if s.IsWildcard() {
		if s.Relation != "" {
			return invalid("subject", s.String(), "a wildcard has no relation; write %s:*", s.Type)
		}
		return nil
	}
	if err := CheckID(s.ID); err != nil {
		return err
	}
	if s.Relation == "" {
		return nil
	}
	return CheckRelation(s.Relation)
}

// Check returns nil if k is a legal identity of a relationship.
func (k Key) Check() error {
	if err := k.Object.Check(); err != nil {
		return err
	}
	if err := CheckRelation(k.Relation); err != nil {
		return err
	}
	return k.Subject.Check()
}

// Times that relationships may carry: those RFC 3339 can print.
var (
	minTime = time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC)
	maxTime = time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC)
)

// Check returns nil if every part of r is legal and in canonical form. Whether
// a schema allows r is another question.
func (r Relationship) Check() error {
	if err := r.Key.Check(); err != nil {
		return err
	}
	if r.Caveat.Name == "" {
		if r.Caveat.Context != "" {
			return invalid("relationship", r.Key.String(), "has a caveat context but no caveat name")
		}
	} else {
		if err := CheckCaveatName(r.Caveat.Name); err != nil {
			return err
		}
		canonical, err := CanonicalJSON(r.Caveat.Context)
		if err != nil {
			return err
		}
		if canonical != r.Caveat.Context {
			return invalid("caveat context", r.Caveat.Context, "is not in canonical form %s", canonical)
		}
	}
	if e := r.Expiration; !e.IsZero() {
		if e.Before(minTime) || e.After(maxTime) {
			return invalid("expiration", e.String(), "is outside the years 1 to 9999")
		}
		if !e.Equal(Micros(e)) {
			return invalid("expiration", e.String(), "has a resolution finer than a microsecond")
		}
	}
	return nil
}
