package main

import (
	"testing"

	"github.com/pembadb/pemba/tuple"
)

func TestPatternsSelectWhatTheySay(t *testing.T) {
	for _, c := range []struct {
		pattern string
		want    tuple.Filter
	}{
		{"", tuple.Filter{}},
		{"document", tuple.Filter{ObjectType: "document"}},
		{"document:*", tuple.Filter{ObjectType: "document"}},
		{"document:readme", tuple.Filter{ObjectType: "document", ObjectID: "readme"}},
		{"document:2024-*", tuple.Filter{ObjectType: "document", ObjectIDPrefix: "2024-"}},
		{"document:a:b@c.d", tuple.Filter{ObjectType: "document", ObjectID: "a:b@c.d"}},
		{"document#viewer", tuple.Filter{ObjectType: "document", Relation: "viewer"}},
		{"#viewer", tuple.Filter{Relation: "viewer"}},
		{"*#viewer", tuple.Filter{Relation: "viewer"}},
		{"document:1#*@user", tuple.Filter{ObjectType: "document", ObjectID: "1", Subject: tuple.SubjectFilter{Type: "user"}}},
		{"document:a@b#viewer@user:c@d", tuple.Filter{ObjectType: "document", ObjectID: "a@b", Relation: "viewer",
			Subject: tuple.SubjectFilter{Type: "user", ID: "c@d", Relation: "..."}}},
		{"@user:ada", tuple.Filter{Subject: tuple.SubjectFilter{Type: "user", ID: "ada", Relation: "..."}}},
		{"@user:a*", tuple.Filter{Subject: tuple.SubjectFilter{Type: "user", IDPrefix: "a", Relation: "..."}}},
		{"@user:*", tuple.Filter{Subject: tuple.SubjectFilter{Type: "user", ID: "*", Relation: "..."}}},
		{"@team#member", tuple.Filter{Subject: tuple.SubjectFilter{Type: "team", Relation: "member"}}},
		{"@team:core#member", tuple.Filter{Subject: tuple.SubjectFilter{Type: "team", ID: "core", Relation: "member"}}},
		{"@team:core#*", tuple.Filter{Subject: tuple.SubjectFilter{Type: "team", ID: "core"}}},
		{"@team:core#...", tuple.Filter{Subject: tuple.SubjectFilter{Type: "team", ID: "core", Relation: "..."}}},
	} {
		got, err := parsePattern(c.pattern)
		if err != nil || got != c.want {
			t.Errorf("%q: got %+v, %v; want %+v", c.pattern, got, err, c.want)
		}
	}
}

func TestPatternsThatCannotSelectAnythingAreRefused(t *testing.T) {
	for _, pattern := range []string{":1", "Document", "document:a b", "document#View", "@:ada", "@user:a b", "@user:ada#Member", "*:1"} {
		if f, err := parsePattern(pattern); err == nil {
			t.Errorf("%q was taken for %+v", pattern, f)
		}
	}
}

// A relationship's own text, as a pattern, selects that relationship.
func TestARelationshipIsAPatternForItself(t *testing.T) {
	for _, text := range []string{"document:1#viewer@user:ada", "document:1#viewer@user:*", "document:a@b:c#viewer@team:x@y#member"} {
		r, err := tuple.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parsePattern(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if !f.Matches(r) {
			t.Errorf("%q does not select itself: %+v", text, f)
		}
		other := r
		other.Subject.Relation = "other"
		if f.Matches(other) {
			t.Errorf("%q selects %s", text, other)
		}
	}
}
