package validation

import (
	"strings"
	"testing"
)

const expectedFile = `schema: |-
  caveat odd(n int) { n % 2 == 1 }
  definition user {}
  definition group { relation member: user }
  definition document {
    relation viewer: user | user:* | user with odd | group#member
    relation banned: user
    permission view = viewer - banned
  }
relationships: |-
  document:1#viewer@user:a
  document:1#viewer@user:b[odd]
  document:1#viewer@group:g#member
  group:g#member@user:c
  document:2#viewer@user:*
  document:2#banned@user:z
validation:
`

func TestExpectedSubjectsAreAllThereAre(t *testing.T) {
	r := run(t, expectedFile+`  document:1#view:
    - "[user:a] is <document:1#viewer>"
    - "[user:b[...]] is <document:1#viewer>"
    - "[user:c] is <group:g#member>/<document:1#viewer>"
    - "[group:g#member] is <document:1#viewer>"
  document:2#view:
    - "[user:* - {user:z}]"
  document:3#view: []
`)
	if len(r.Failed) > 0 || r.Passed < 9 {
		t.Errorf("%d passed, %v", r.Passed, r.Failed)
	}
	r = run(t, expectedFile+`  document:1#view:
    - "[user:a[...]]"
    - "[user:b]"
    - "[user:x]"
    - "[user:a] is <group:g#member>"
  document:2#view:
    - "[user:*]"
`)
	var got []string
	for _, f := range r.Failed {
		got = append(got, f.String())
	}
	for _, want := range []string{
		"document:1#view@user:a: expected conditional, got yes",
		"document:1#view@user:b: expected yes, got conditional",
		"document:1#view@user:x: expected yes, got no",
		"group:g#member@user:a: expected yes, got no",
		"document:1#view@user:c, who is not listed: expected no, got yes",
		"document:2#view@user:z, who is not listed as excluded: expected yes, got no",
	} {
		if !strings.Contains(strings.Join(got, "\n"), want) {
			t.Errorf("no failure %q in\n%s", want, strings.Join(got, "\n"))
		}
	}
	if len(got) != 6 {
		t.Errorf("%d failures, want 6:\n%s", len(got), strings.Join(got, "\n"))
	}
}
