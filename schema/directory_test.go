package schema_test

import (
	"strings"
	"testing"

	"github.com/pembadb/pemba/schema"
)

// A schema says in comments what stands for users and groups; without a word it is
// user, group and member.
func TestDirectory(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing said", `definition user {}`, "users are user (id: uuid), groups are group with relation member (id: uuid)"},
		{"both", "// pemba:users id=userName\ndefinition person {}\n\n/**\n * Teams.\n * pemba:groups member=belongs id=externalId\n */\ndefinition org/team { relation belongs: person | org/team#belongs }",
			"users are person (id: userName), groups are org/team with relation belongs (id: externalId)"},
		{"an id alone", "// pemba:groups id=displayName\ndefinition group { relation member: user }\ndefinition user {}",
			"users are user (id: uuid), groups are group with relation member (id: displayName)"},
		{"no mark", "// about pemba:users in general\ndefinition user {}", "users are user (id: uuid), groups are group with relation member (id: uuid)"},
	} {
		s, _, err := schema.Compile(schema.Source{Name: "s.zed", Text: c.text}, nil, schema.Options{})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := s.Directory.String(); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		formatted, err := schema.Format(schema.Source{Name: "s.zed", Text: c.text})
		if err != nil {
			t.Fatal(err)
		}
		again, _, err := schema.Compile(schema.Source{Name: "s.zed", Text: formatted}, nil, schema.Options{})
		if err != nil || again.Directory != s.Directory {
			t.Errorf("%s: formatted, %v, %v", c.name, again, err)
		}
	}
	for _, c := range []struct{ name, text, want string }{
		{"two of users", "// pemba:users\ndefinition a {}\n// pemba:users\ndefinition b {}", "`pemba:users` stands above the definitions `a` and `b`"},
		{"unknown word", "// pemba:people\ndefinition a {}", "means nothing"},
		{"unknown source", "// pemba:users id=email\ndefinition a {}", "write id=uuid, id=externalId or id=userName"},
		{"unknown setting", "// pemba:users member=x\ndefinition a {}", "has no setting"},
		{"no relation", "// pemba:groups\ndefinition team {}\ndefinition user {}", "have no relation `member` for their members"},
		{"a permission", "// pemba:groups member=all\ndefinition team { relation member: user\n permission all = member }\ndefinition user {}", "have no relation `all`"},
		{"no users in it", "// pemba:groups\ndefinition team { relation member: team#member }\ndefinition user {}", "cannot hold the users `user`"},
	} {
		_, _, err := schema.Compile(schema.Source{Name: "s.zed", Text: c.text}, nil, schema.Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// What is meant as a mark and marks nothing is a warning.
func TestAMarkThatMarksNothingIsAWarning(t *testing.T) {
	for text, want := range map[string]int{
		"// pemba:users\ndefinition user {}":                                                     0,
		"// about pemba:users in general\ndefinition user {}":                                    0,
		"// PEMBA:users\ndefinition user {}":                                                     1,
		"// Pemba:Users id=userName\ndefinition user {}":                                         1,
		"/* pemba : groups */\ndefinition user {}":                                               1,
		"// PEMBA:users\n// ignore-warning: idle-mark\ndefinition user {}":                       0,
		"definition user {} // pemba:users\ndefinition x {}":                                     1,
		"definition user {} // pemba:users":                                                      1,
		"definition user {\n// pemba:users\n}":                                                   1,
		"definition user {\n// pemba:groups\nrelation boss: user\n}":                             1,
		"definition user {\nrelation boss: user // pemba:groups\n}":                              1,
		"// pemba:users\ncaveat c(a int) { a > 0 }\ndefinition user { relation x: user with c }": 1,
	} {
		_, warnings, err := schema.Compile(schema.Source{Name: "s.zed", Text: text}, nil, schema.Options{})
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		n := 0
		for _, w := range warnings {
			if w.Code == "idle-mark" {
				n++
			}
		}
		if n != want {
			t.Errorf("%q: %d warnings, want %d: %v", text, n, want, warnings)
		}
	}
}

// Another type or relation for users, groups or members breaks; another source of
// ids does not.
func TestAChangedMarkIsADifference(t *testing.T) {
	const people = "definition person {}\ndefinition user {}\ndefinition group { relation member: user | person\n relation owner: user | person }\n"
	compile := func(marks string) *schema.Schema {
		t.Helper()
		s, _, err := schema.Compile(schema.Source{Name: "s.zed", Text: marks + people}, nil, schema.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct {
		from, to string
		breaking bool
	}{
		{"", "// pemba:users\n", true}, {"// pemba:users\n", "", true}, {"// pemba:users\n", "// pemba:users id=userName\n", false},
	} {
		found := schema.Diff(compile(c.from), compile(c.to))
		n := 0
		for _, d := range found {
			if d.Kind == schema.DirectoryChanged {
				n++
				if d.Breaking != c.breaking || d.Why == "" {
					t.Errorf("%q to %q: %s", c.from, c.to, d)
				}
			}
		}
		if n != 1 {
			t.Errorf("%q to %q: %v", c.from, c.to, found)
		}
	}
}
