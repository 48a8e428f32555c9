package tuple_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pembadb/pemba/tuple"
)

func TestParsePrintsBackInCanonicalForm(t *testing.T) {
	for _, c := range []struct{ in, out string }{
		{"document:readme#viewer@user:ada", ""},
		{"document:readme#viewer@group:eng#member", ""},
		{"document:readme#viewer@user:*", ""},
		{"document:readme#viewer@user:ada#...", "document:readme#viewer@user:ada"},
		{"shop/order:a@b.c#owner@auth/user:ada@example.com", ""},
		{"route:/users/{id}#caller@app:https://x.example/?a=b", ""},
		{"d:1#v@u:1[weekday]", ""},
		{"d:1#v@u:1[weekday:{}]", "d:1#v@u:1[weekday]"},
		{`d:1#v@u:1[weekday:{ "b": [1, "]"], "a": 9007199254740993 }]`, `d:1#v@u:1[weekday:{"a":9007199254740993,"b":[1,"]"]}]`},
		{"d:1#v@u:1[expiration:2027-01-31T12:00:00Z]", ""},
		{"d:1#v@u:1[expiration:2027-01-31T14:00:00.123456789+02:00]", "d:1#v@u:1[expiration:2027-01-31T12:00:00.123456Z]"},
		{`d:1#v@u:1[expiration:2027-01-31T12:00:00Z][c:{"x":"<&>"}]`, `d:1#v@u:1[c:{"x":"<&>"}][expiration:2027-01-31T12:00:00Z]`},
		{`d:1#v@u:1[expiration:{"x":1}]`, ""},
	} {
		r, err := tuple.Parse(c.in)
		if err != nil {
			t.Errorf("Parse(%s): %v", c.in, err)
			continue
		}
		if c.out == "" {
			c.out = c.in
		}
		if r.String() != c.out {
			t.Errorf("Parse(%s) prints %s, want %s", c.in, r, c.out)
		}
		if err := r.Check(); err != nil {
			t.Errorf("Parse(%s) gives what Check refuses: %v", c.in, err)
		}
	}
}

func TestParseSaysWhatIsWrongAndWhatToDo(t *testing.T) {
	for in, want := range map[string]string{
		"":                                                    "write type:id#relation@type:id",
		"document:readme":                                     "no #relation",
		"document#viewer@user:a":                              "has no colon; write type:id",
		"document:readme#viewer":                              "no @subject",
		"document:#viewer@user:a":                             "is empty; an id has 1 to 1024 bytes",
		"document:*#viewer@user:a":                            "allowed only as a subject",
		"Document:1#viewer@user:a":                            "must start with a letter",
		"document:1#viewer_@user:a":                           "must not end with an underscore",
		"document:1#Viewer@user:a":                            "must start with a letter",
		"document:1#viewer@user:a b":                          "encode it, as in %20",
		`document:1#viewer@user:a\b`:                          "encode it, as in %5C",
		"document:1#viewer@user:*#m":                          "a wildcard has no relation",
		"document:1#viewer@user:a#":                           "no relation after #",
		"document:1#viewer@user:a[":                           "never closed",
		"document:1#viewer@user:a[c]x":                        "only [caveat:{json}] and [expiration:time]",
		"document:1#viewer@user:a[c][d]":                      "two caveats",
		"document:1#viewer@user:a[c:7]":                       "not a JSON object",
		"document:1#viewer@user:a[c:{]":                       "not JSON",
		"document:1#viewer@user:a[expiration:tomorrow]":       "RFC 3339",
		"document:1#viewer@user:a[expiration:2027-01-01]":     "RFC 3339",
		"document:1#" + strings.Repeat("v", 65) + "@user:a":   "more than 64",
		strings.Repeat("t", 129) + ":1#v@user:a":              "more than 128",
		"document:" + strings.Repeat("i", 1025) + "#v@user:a": "more than 1024",
		"document:1#viewer@user:\xff":                         "not valid UTF-8",
		"document:1#viewer@user:a\u200b":                      "cannot be seen",
		"document:1#viewer@user:a\u3164":                      "cannot be seen", // a filler of Hangul
		"document:\u2800#viewer@user:a":                       "cannot be seen", // a blank of Braille
		"document:1#viewer@user:a\ufe01":                      "cannot be seen", // a variation selector
		"d:1#v@u:1[c:" + strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100) + "]": "nests deeper",
		"d:1#v@u:1[expiration:2027-01-01T00:00:00Z][expiration:2027-01-01T00:00:00Z]":        "two expirations",
	} {
		_, err := tuple.Parse(in)
		var e *tuple.Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%.60q) gives error %v, want one with %q", in, err, want)
		}
	}
}

func TestNamesAndIDsAtTheirLimitsAreAccepted(t *testing.T) {
	r := fmt.Sprintf("%s:%s#%s@user:%s", strings.Repeat("t", 64)+"/"+strings.Repeat("u", 63),
		strings.Repeat("i", 1024), strings.Repeat("r", 64), strings.Repeat("é", 512))
	if _, err := tuple.Parse(r); err != nil {
		t.Fatal(err)
	}
}

func TestWhatEveryNounPrintsItReadsBack(t *testing.T) {
	name := rapid.StringMatching(`[a-z]([a-z0-9_]{0,8}[a-z0-9])?`)
	id := rapid.StringMatching(`[A-Za-z0-9/:@{}=+.,é-]{1,12}`)
	rapid.Check(t, func(t *rapid.T) {
		r := tuple.Relationship{Key: tuple.Key{
			Object:   tuple.Object{Type: name.Draw(t, "type") + "/" + name.Draw(t, "type"), ID: id.Draw(t, "id")},
			Relation: name.Draw(t, "relation"),
			Subject:  tuple.Subject{Object: tuple.Object{Type: name.Draw(t, "type"), ID: id.Draw(t, "id")}},
		}}
		if rapid.Bool().Draw(t, "userset") {
			r.Subject.Relation = name.Draw(t, "relation")
		}
		if rapid.Bool().Draw(t, "caveat") {
			r.Caveat.Name = name.Draw(t, "caveat")
			fields := rapid.MapOf(rapid.String(), rapid.OneOf(rapid.String().AsAny(), rapid.Bool().AsAny(), rapid.SliceOf(rapid.String()).AsAny())).Draw(t, "context")
			text, err := tuple.EncodeJSON(fields)
			if err != nil {
				t.Fatal(err)
			}
			if r.Caveat.Context, err = tuple.CanonicalJSON(text); err != nil {
				t.Fatal(err)
			}
		}
		if rapid.Bool().Draw(t, "expires") {
			r.Expiration = tuple.Micros(time.UnixMicro(rapid.Int64Range(-1e15, 1e17).Draw(t, "micros")))
		}
		back, err := tuple.Parse(r.String())
		if err != nil || !back.Equal(r) {
			t.Fatalf("%s reads back as %s, %v", r, back, err)
		}
	})
}

func TestARelationshipExpiresAtItsExpiration(t *testing.T) {
	at := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	r := tuple.Relationship{Expiration: at}
	if r.Expired(at.Add(-time.Microsecond)) || !r.Expired(at) || (tuple.Relationship{}).Expired(at) {
		t.Error("a relationship must live up to, and not at, its expiration; without one for ever")
	}
}

func TestAFilterSelectsByEveryFieldItSets(t *testing.T) {
	r, err := tuple.Parse("document:readme#viewer@group:eng#member[weekday]")
	if err != nil {
		t.Fatal(err)
	}
	direct, err := tuple.Parse("document:readme#viewer@user:ada")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		f         tuple.Filter
		r, direct bool
	}{
		{tuple.Filter{}, true, true},
		{tuple.Filter{ObjectType: "document", ObjectIDPrefix: "read"}, true, true},
		{tuple.Filter{ObjectType: "document", ObjectID: "read"}, false, false},
		{tuple.Filter{Relation: "viewer", Subject: tuple.SubjectFilter{Type: "group"}}, true, false},
		{tuple.Filter{Subject: tuple.SubjectFilter{Relation: "member"}}, true, false},
		{tuple.Filter{Subject: tuple.SubjectFilter{Relation: tuple.Ellipsis}}, false, true},
		{tuple.Filter{Caveat: "weekday"}, true, false},
		{tuple.Filter{Subject: tuple.SubjectFilter{Type: "user", IDPrefix: "a"}}, false, true},
	} {
		if c.f.Check() != nil || c.f.Matches(r) != c.r || c.f.Matches(direct) != c.direct {
			t.Errorf("filter %s: check %v, matches %t and %t, want %t and %t", c.f, c.f.Check(), c.f.Matches(r), c.f.Matches(direct), c.r, c.direct)
		}
	}
	for _, f := range []tuple.Filter{
		{ObjectID: "readme"},
		{ObjectType: "document", ObjectID: "a", ObjectIDPrefix: "a"},
		{Subject: tuple.SubjectFilter{ID: "ada"}},
		{Relation: "No"},
		{ObjectType: "document", ObjectIDPrefix: "a b"},
	} {
		if f.Check() == nil {
			t.Errorf("filter %s is accepted", f)
		}
	}
}

func TestBothOrdersAreOrdersByBytes(t *testing.T) {
	a, _ := tuple.Parse("document:a#viewer@user:z")
	b, _ := tuple.Parse("document:b#viewer@user:a")
	if a.Key.Compare(b.Key) >= 0 || a.Key.CompareBySubject(b.Key) <= 0 || a.Key.Compare(a.Key) != 0 {
		t.Error("keys are not ordered by object, or not by subject")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"document:readme#viewer@user:ada", "d:1#v@g:1#m", "d:1#v@u:*", `d:1#v@u:1[c:{"a":[1,{"b":"]"}]}]`,
		"d:1#v@u:1[expiration:2027-01-31T12:00:00Z]", "d:1#v@u:1[c][expiration:0001-01-01T00:00:00Z]", "d:é#v@u:1#...",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := tuple.Parse(s)
		if err != nil {
			return
		}
		if err := r.Check(); err != nil {
			t.Fatalf("Parse(%q) gives what Check refuses: %v", s, err)
		}
		back, err := tuple.Parse(r.String())
		if err != nil || !back.Equal(r) {
			t.Fatalf("%q prints as %q, which reads back as %q, %v", s, r, back, err)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tuple.Parse("document:01234567890123456789#viewer@user:01234567890123456789"); err != nil {
			b.Fatal(err)
		}
	}
}
