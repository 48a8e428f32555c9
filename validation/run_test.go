package validation

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"
)

func run(t *testing.T, text string) *Report {
	t.Helper()
	f, err := Parse("x.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestWhatDoesNotHoldIsReportedWithItsPlace(t *testing.T) {
	r := run(t, `schema: |-
  caveat odd(n int) { 10 / n % 2 == 1 }
  definition user {}
  definition document {
    relation viewer: user | user with odd
    permission view = viewer
  }
relationships: |-
  document:1#viewer@user:a
  document:1#viewer@user:b[odd]
assertions:
  assertFalse:
    - document:1#view@user:a
  assertTrue:
    - document:1#view@user:a
    - document:1#view@user:b
    - document:1#view@user:c
    - 'document:1#view@user:b with {"n": 0}'
  assertCaveated:
    - document:1#view@user:b
`)
	if r.Passed != 2 || r.Total() != 6 {
		t.Errorf("%d of %d passed, want 2 of 6", r.Passed, r.Total())
	}
	want := []string{
		"x.yaml:13:7: document:1#view@user:a: expected no, got yes",
		"x.yaml:16:7: document:1#view@user:b: expected yes, got conditional, for want of n",
		"x.yaml:17:7: document:1#view@user:c: expected yes, got no",
		`x.yaml:18:8: document:1#view@user:b with {"n": 0}: expected yes, got an error: `,
	}
	if len(r.Failed) != len(want) {
		t.Fatalf("got %v", r.Failed)
	}
	for i, f := range r.Failed {
		if !strings.HasPrefix(f.String(), want[i]) {
			t.Errorf("got %s, want %s", f, want[i])
		}
	}
}

func TestCoverageFollowsWhatAPermissionIsComputedFrom(t *testing.T) {
	r := run(t, `schema: |-
  definition user {}
  definition group { relation member: user | group#member
    relation owner: user }
  definition folder { relation viewer: group#member
    permission view = viewer
    permission edit = viewer }
  definition document {
    relation folder: folder
    relation banned: user
    permission view = folder->view - banned
    permission edit = folder.all(edit)
  }
assertions:
  assertFalse:
    - document:1#view@user:a
`)
	var missing []string
	for _, m := range r.Coverage.Missing {
		missing = append(missing, m.Definition.Type+"#"+m.Text)
	}
	if want := []string{"document#edit", "folder#edit", "group#owner"}; !slices.Equal(missing, want) {
		t.Errorf("got %v, want %v", missing, want)
	}
	if r.Coverage.Exercised != 6 || r.Coverage.Total != 9 {
		t.Errorf("got %+v", r.Coverage)
	}
}

func TestAFileWithoutAssertionsPassesAndCoversNothing(t *testing.T) {
	r := run(t, smallSchema)
	if r.Total() != 0 || r.Coverage.Exercised != 0 || r.Coverage.Total != 2 {
		t.Errorf("got %+v", r)
	}
}

func TestRunningStopsWhenCancelled(t *testing.T) {
	f, err := Parse("x.yaml", []byte(smallSchema), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Run(ctx); err == nil {
		t.Error("no error")
	}
}

func TestRealOrganisationsAreRunInTwoSeconds(t *testing.T) {
	start := time.Now()
	f, err := Load("../examples/github-orgs.yaml")
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	if r.Passed != 800 || len(r.Failed) != 0 {
		t.Errorf("%d of %d passed; %v", r.Passed, r.Total(), r.Failed)
	}
	t.Logf("%d relationships, %d assertions: %v", len(f.Relationships), r.Total(), took)
	if took > 2*time.Second && !raceEnabled {
		t.Errorf("took %v, more than 2 s", took)
	}
}
