package scim

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
)

// fuzzed is a user with something of everything.
func fuzzed() *Resource {
	return &Resource{Kind: User, ID: "u", Version: "1", Created: epoch, Attributes: Object{
		"userName": "ada", "active": true, "name": Object{"givenName": "Ada"},
		"emails":         []any{Object{"value": "a@b", "type": "work", "primary": true}, Object{"value": "c@d"}},
		EnterpriseSchema: Object{"department": "D", "manager": Object{"value": "m"}},
	}}
}

// refusal fails unless an error is one for the client.
func refusal(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Status != http.StatusBadRequest || e.Detail == "" {
		t.Fatalf("%T: %v", err, err)
	}
}

// overBounds reports whether what was printed, which has more parentheses than what
// was read, is over a bound for that.
func overBounds(err error) bool {
	return strings.Contains(err.Error(), "nests deeper than") || strings.Contains(err.Error(), "is longer than")
}

// FuzzFilter: a filter is refused with a reason, or it matches or not, and so does
// what it prints.
func FuzzFilter(f *testing.F) {
	for _, seed := range []string{`userName eq "ada"`, `emails[type eq "work" and not (value co "x")]`, `not (title pr or active eq true) and meta.created gt "2026-01-01T00:00:00Z"`,
		EnterpriseSchema + `:manager.value ne null`, `((userName sw "a\"\u00e9"))`, `members.value eq "x"`, `displayName pr`, `emails co "B"`, `-1 eq 2`, `a"`} {
		f.Add(seed)
	}
	o := Object{"schemas": []any{UserSchema}, "id": "u", "meta": Object{"created": stamp(epoch)}}
	for k, v := range fuzzed().Attributes {
		o[k] = v
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, rt := range types {
			filter, err := parseFilter(rt, text, types)
			if err != nil {
				refusal(t, err)
				continue
			}
			is, err := filter.root.match(objectSource(o))
			if err != nil {
				t.Fatal(err)
			}
			again, err := parseFilter(rt, filter.String(), types)
			if err != nil {
				if overBounds(err) {
					continue
				}
				t.Fatalf("%q became %q: %v", text, filter, err)
			}
			if now, _ := again.root.match(objectSource(o)); now != is || again.String() != filter.String() {
				t.Fatalf("%q became %q, then %q: %v, then %v", text, filter, again, is, now)
			}
			filter.lookups(rt.Kind)
		}
	})
}

// FuzzPath: a path is refused with a reason, or prints as one that means the same.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"userName", "name.givenName", `emails[type eq "work"].value`, EnterpriseSchema + ":manager", EnterpriseSchema, "members", `members[value eq "x"]`, "id", "emails[", "x.y.z"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, rt := range types {
			p, err := ParsePath(rt, text)
			if err != nil {
				refusal(t, err)
				continue
			}
			again, err := ParsePath(rt, p.String())
			if err != nil && overBounds(err) {
				continue
			}
			if err != nil || again.String() != p.String() {
				t.Fatalf("%q became %q: %v", text, p, err)
			}
		}
	})
}

// noGroup is a groupReader for a group without members.
type noGroup struct{}

func (noGroup) each(func(Member) bool) error { return nil }
func (noGroup) kind(string) (Kind, error)    { return User, nil }

// FuzzPatch: a PATCH is refused with a reason, or makes what a PUT would accept,
// and leaves what it was given alone.
func FuzzPatch(f *testing.F) {
	for _, seed := range []string{
		patchBody(`{"op":"Add","path":"emails[type eq \"home\"].value","value":"x"}`),
		patchBody(`{"op":"replace","value":{"active":"False","name.familyName":"L","` + EnterpriseSchema + `:department":"X","password":"p"}}`),
		patchBody(`{"op":"remove","path":"emails","value":[{"value":"c@d"}]},{"op":"remove","path":"name"}`),
		patchBody(`{"op":"add","path":"members","value":[{"value":"a"}]},{"op":"remove","path":"members[type eq \"User\"]"},{"op":"replace","path":"displayName","value":"g"}`),
		`{"Operations":[{"op":"replace","path":"` + EnterpriseSchema + `","value":{"manager":"z"}},{"op":"add","path":"emails","value":{"value":"q","primary":"true"}}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		raw, err := parseBody(body)
		if err != nil {
			refusal(t, err)
			return
		}
		ops, err := readPatch(raw)
		if err != nil {
			refusal(t, err)
			return
		}
		for _, r := range []*Resource{fuzzed(), {Kind: Group, ID: "g", Attributes: Object{"displayName": "g"}}} {
			before, _ := json.Marshal(r.Attributes)
			p, err := applyPatch(r, ops, noGroup{})
			if after, _ := json.Marshal(r.Attributes); string(after) != string(before) {
				t.Fatalf("the resource was changed: %s", after)
			}
			if err != nil {
				refusal(t, err)
				continue
			}
			b, err := p.t.read(p.attributes)
			if err != nil || !same(b.attributes, p.attributes) {
				t.Fatalf("made %v, which reads as %v: %v", p.attributes, b.attributes, err)
			}
			p.members.change()
		}
	})
}
