package main

import (
	"strings"
	"testing"

	"github.com/pembadb/pemba/schema"
)

// TestADirectoryFileIsReadWholeOrNotAtAll: whatever in a file would be overlooked,
// and so removed from the store, is an error that names it.
func TestADirectoryFileIsReadWholeOrNotAtAll(t *testing.T) {
	const rest = "\ngroups: {}\n"
	for text, want := range map[string]string{
		"":                      "it is empty; to have no users and no groups write `{users: {}, groups: {}}`",
		"# nothing\n":           "it is empty",
		"null\n":                "it is empty",
		"groups: {}\n":          "it has no users, which would remove all there are; to have none write `users: {}`",
		"users: {}\n":           "it has no groups, which would remove all",
		"users:\ngroups: {}\n":  "line 1: users is null, which would remove all there are",
		"people: {}\n":          `line 1: "people" is neither users nor groups`,
		"[users]\n":             "line 1: a directory must be a mapping",
		"users: [ada]" + rest:   "line 1: users must be a mapping",
		"users: {ada: }" + rest: `line 1: user "ada" must have its attributes, such as {userName: ada}`,
		"users: {a: {}}" + rest + "---\nusers: {}":                                              "a second document begins in line 3; a directory is one: join them",
		`{"users":{},"groups":{}} {"users":{}}`:                                                 "what follows the first document is no YAML and no JSON",
		"users: {}" + rest + "---\n}":                                                           "what follows the first document is no YAML and no JSON",
		"users: {null: {userName: a}}" + rest:                                                   `line 1: a key of users is null; put it in quotes if it is meant as text: "null"`,
		"users:\n  ~: {userName: a}" + rest:                                                     "line 2: a key of users is null",
		"users: {a: {null: x}}" + rest:                                                          `line 1: a key of user "a" is null`,
		"null: {}" + rest:                                                                       "line 1: a key of a directory is null",
		"users: {1: {userName: a}, '1': {userName: b}}" + rest:                                  `line 1: mapping key "1" already defined`,
		"users: {a: {}, a: {}}" + rest:                                                          `it cannot be read as YAML or JSON: line 1: mapping key "a" already defined at line 1`,
		"users: {user:ada: {userName: a}}" + rest:                                               `line 1: user "user:ada": the key is the id alone, without the type; write ada`,
		"users: {}\ngroups: {group:eng: {}}\n":                                                  `line 2: group "group:eng": the key is the id alone, without the type; write eng`,
		"users: {a b: {userName: a}}" + rest:                                                    `line 1: user "a b": `,
		"users: {'*': {userName: a}}" + rest:                                                    "stands for everybody",
		"users: {[a]: {userName: a}}" + rest:                                                    "cannot be read as YAML or JSON: invalid map key",
		"users: {a: {userName: !secret a}}" + rest:                                              `line 1: user "a".userName has a value of the kind !secret`,
		"users: {a: &a {b: *a}}" + rest:                                                         "contains itself",
		"users: {a: {userName: same}, b: {username: SAME}}" + rest:                              `the users "a" and "b" have the same userName, "SAME", capitals or not`,
		"users: {a: {userName: a, externalId: 7}, b: {userName: b, externalId: '7'}}" + rest:    `have the same externalId, "7"; each needs its own`,
		"users: {}\ngroups: {g: {displayName: G, members: [user:zed]}}":                         `group "g": its member user:zed is not in the directory`,
		"users: {}\ngroups: {g: {displayName: G, members: user:zed}}":                           `group "g": members must be a list`,
		"users: {}\ngroups: {g: {displayName: G, members: [null]}}":                             `group "g": a member is no text`,
		"users: {z: {}}\ngroups: {g: {displayName: G, members: [user:z, user:z]}}":              `group "g": member user:z is named twice`,
		"users: {z: {}}\ngroups: {g: {displayName: G, members: [z]}}":                           `group "g": "z" is no member`,
		"users: {z: {}}\ngroups: {g: {displayName: G, members: [user:z]}}\n...\nusers: {y: {}}": "what follows the first document is no YAML and no JSON",
	} {
		a := &app{}
		a.in = strings.NewReader(text)
		_, err := a.readDirectory("-", schema.UsualDirectory)
		if err == nil || !strings.HasPrefix(err.Error(), "-: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "main.") || strings.Contains(err.Error(), "time.Time") || strings.Contains(err.Error(), "yaml:")) {
			t.Errorf("%q: the error speaks of the program: %v", text, err)
		}
	}
}

// What YAML takes for numbers and dates is text, and what is merged in counts.
func TestADirectoryFileHasTextTruthAndLists(t *testing.T) {
	f, err := parseDirectory(`users:
  007: &bond {userName: 007, title: 2026-01-31, active: false, emails: [a@b, {value: c@d, primary: true}]}
  bob: {<<: *bond, userName: 1e3, nickName: null}
groups: {}
`)
	if err != nil {
		t.Fatal(err)
	}
	bond, bob := f.users["007"], f.users["bob"]
	if bond["userName"] != "007" || bond["title"] != "2026-01-31" || bond["active"] != false || len(bond["emails"].([]any)) != 2 {
		t.Errorf("he is %v", bond)
	}
	if bob["userName"] != "1e3" || bob["title"] != "2026-01-31" || bob["nickName"] != nil {
		t.Errorf("bob is %v", bob)
	}
	if _, err := f.entries(schema.UsualDirectory); err != nil {
		t.Error(err)
	}
}
