package schema

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pembadb/pemba/tuple"
)

const relationshipSchema = `use expiration
caveat weekday(day string) { day == "monday" }
caveat other(day string) { day == "monday" }
definition user {}
definition group { relation member: user }
definition document {
	relation viewer: user | user:* with weekday | group#member with expiration | user with weekday and expiration
	permission view = viewer
}`

func TestARelationshipMustFitOneAlternativeExactly(t *testing.T) {
	s := mustCompile(t, relationshipSchema)
	document := func(subject RelationshipKind) RelationshipKind {
		subject.Type, subject.Relation = "document", "viewer"
		return subject
	}
	for _, c := range []struct {
		name    string
		kind    RelationshipKind
		context string
		want    error
		says    string
	}{
		{"a plain subject", document(RelationshipKind{SubjectType: "user"}), "", nil, ""},
		{"a wildcard with its caveat", document(RelationshipKind{SubjectType: "user", Wildcard: true, Caveat: "weekday"}), `{"day":"monday"}`, nil, ""},
		{"a userset with expiration", document(RelationshipKind{SubjectType: "group", SubjectRelation: "member", Expiration: true}), "", nil, ""},
		{"both caveat and expiration", document(RelationshipKind{SubjectType: "user", Caveat: "weekday", Expiration: true}), "", nil, ""},

		{"no such type", RelationshipKind{Type: "file"}, "", ErrUnknownType, "no type `file`"},
		{"no such relation", RelationshipKind{Type: "document", Relation: "viewr"}, "", ErrUnknownRelation, "did you mean `viewer`?"},
		{"a permission", RelationshipKind{Type: "document", Relation: "view"}, "", ErrPermission, "permissions are computed; write a relation that it is made of: `viewer`"},
		{"no such subject type", document(RelationshipKind{SubjectType: "usr"}), "", ErrUnknownType, "no type `usr`"},
		{"no such subject relation", document(RelationshipKind{SubjectType: "group", SubjectRelation: "members"}), "", ErrUnknownRelation, "did you mean `member`?"},
		{"no such caveat", document(RelationshipKind{SubjectType: "user", Caveat: "night"}), "", ErrUnknownCaveat, "no caveat `night`"},
		{"a wildcard without its caveat", document(RelationshipKind{SubjectType: "user", Wildcard: true}), "", ErrSubjectNotAllowed,
			"does not allow `user:*`; it allows `user`, `user:* with weekday`"},
		{"a userset without expiration", document(RelationshipKind{SubjectType: "group", SubjectRelation: "member"}), "", ErrSubjectNotAllowed, "does not allow `group#member`"},
		{"an expiration that is not allowed", document(RelationshipKind{SubjectType: "user", Expiration: true}), "", ErrSubjectNotAllowed, "`user with expiration`"},
		{"another caveat", document(RelationshipKind{SubjectType: "user", Caveat: "other", Expiration: true}), "", ErrSubjectNotAllowed, "with other and expiration"},
		{"a group instead of its members", document(RelationshipKind{SubjectType: "group"}), "", ErrSubjectNotAllowed, "does not allow `group`"},
		{"a context of the wrong type", document(RelationshipKind{SubjectType: "user", Wildcard: true, Caveat: "weekday"}), `{"day":1}`, ErrCaveatField, "day"},
		{"a context with an unknown field", document(RelationshipKind{SubjectType: "user", Wildcard: true, Caveat: "weekday"}), `{"night":"x"}`, ErrCaveatField, "night"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := s.CheckKind(c.kind, c.context)
			if c.want == nil && err == nil {
				return
			}
			var relationship *RelationshipError
			if !errors.Is(err, c.want) || !errors.As(err, &relationship) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error: %v, want %v saying %q", err, c.want, c.says)
			}
		})
	}
}

func TestOrphansAreWhatANewSchemaPerhapsCannotHold(t *testing.T) {
	old := mustCompile(t, relationshipSchema)
	for _, c := range []struct {
		name, from, to string
		want           string
	}{
		{"nothing changes", "", "", "[]"},
		{"a subject is added", "| user:*", "| group | user:*", "[]"},
		{"a permission goes", "permission view = viewer", "", "[]"},
		{"a subject goes", "viewer: user |", "viewer:", "[document#viewer@user]"},
		{"a caveat is demanded", "viewer: user |", "viewer: user with other |", "[document#viewer@user]"},
		{"a relation becomes a permission", "relation member: user", "permission member = nil", "[group#member@user]"},
		{"a relation is renamed", "viewer", "reader", "[document#viewer@user document#viewer@user:* with weekday " +
			"document#viewer@group#member with expiration document#viewer@user with weekday and expiration]"},
		{"a caveat's parameter changes its type", `weekday(day string) { day == "monday"`, `weekday(day int) { day == 1`,
			"[document#viewer@user:* with weekday document#viewer@user with weekday and expiration]"},
		{"a caveat's parameter is added", `weekday(day string) {`, `weekday(day string, now bool) { now &&`, "[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			new := mustCompile(t, strings.ReplaceAll(relationshipSchema, c.from, c.to))
			if c.from == "" {
				new = old
			}
			if got := fmt.Sprint(new.Orphans(old)); got != c.want {
				t.Errorf("orphans %s, want %s", got, c.want)
			}
		})
	}
	if got := old.Orphans(nil); got != nil {
		t.Errorf("orphans of nothing: %v", got)
	}
}

func TestCheckRelationshipNamesTheRelationshipButNotItsContext(t *testing.T) {
	s := mustCompile(t, relationshipSchema)
	for text, want := range map[string]string{
		"document:1#viewer@user:ada":                                           "",
		`document:1#viewer@user:*[weekday:{"day":"monday"}]`:                   "",
		"document:1#viewer@group:a#member[expiration:2040-01-01T00:00:00Z]":    "",
		"document:1#viewer@user:ada[weekday][expiration:2040-01-01T00:00:00Z]": "",
		"document:1#viewer@user:*":                                             "relationship `document:1#viewer@user:*`: relation `viewer` of `document` does not allow `user:*`",
		`document:1#view@user:*[weekday:{"day":"secret"}]`:                     "relationship `document:1#view@user:*`: `view` is a permission",
		`document:1#viewer@user:*[weekday:{"day":["secret"]}]`:                 "relationship `document:1#viewer@user:*`: caveat `weekday`",
	} {
		r, err := tuple.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		err = s.CheckRelationship(r)
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func BenchmarkCheckRelationship(b *testing.B) {
	s := mustCompile(b, relationshipSchema)
	r, err := tuple.Parse("document:1#viewer@user:ada")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := s.CheckRelationship(r); err != nil {
			b.Fatal(err)
		}
	}
}
