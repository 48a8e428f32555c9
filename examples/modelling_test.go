package examples_test

import (
	"os"
	"strings"
	"testing"

	"github.com/pembadb/pemba/schema"
)

// TestTheModellingGuideCompiles: each schema of the guide compiles, with the
// warning that the guide says it earns and no other.
func TestTheModellingGuideCompiles(t *testing.T) {
	text, err := os.ReadFile("../docs/modelling.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	for before, rest, found := strings.Cut(string(text), "\n```zed\n"); found; before, rest, found = strings.Cut(rest, "\n```zed\n") {
		blocks++
		code, after, closed := strings.Cut(rest, "\n```")
		if !closed {
			t.Fatalf("block %d is open", blocks)
		}
		want := ""
		if _, comment, ok := strings.Cut(before[strings.LastIndex(before, "\n")+1:], "<!-- warns: "); ok {
			want = strings.TrimSuffix(comment, " -->")
		}
		_, warnings, err := schema.Compile(schema.Source{Text: code + "\n"}, nil, schema.Options{})
		if err != nil {
			t.Errorf("block %d: %v\n%s", blocks, err, code)
		}
		switch {
		case want == "" && len(warnings) > 0:
			t.Errorf("block %d earns %s\n%s", blocks, warnings[0].Code, code)
		case want != "" && (len(warnings) != 1 || warnings[0].Code != want):
			t.Errorf("block %d earns %v, not %s", blocks, warnings, want)
		}
		rest = after
	}
	if blocks < 9 {
		t.Errorf("the guide has %d schemas", blocks)
	}
}
