package schema

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEverySchemaOfTheGuideDoesWhatTheGuideSays(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "docs", "schema-language.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(b), "```zed")[1:]
	if len(blocks) < 5 {
		t.Fatalf("the guide has %d schemas", len(blocks))
	}
	for _, block := range blocks {
		info, text, _ := strings.Cut(block, "\n")
		text, _, _ = strings.Cut(text, "```")
		_, warnings, err := Compile(Source{Text: text}, nil, Options{})
		if fails := strings.TrimSpace(info) == "fails"; fails != (err != nil) {
			t.Errorf("error: %v\n%s", err, text)
		}
		for _, w := range warnings {
			t.Errorf("%v\n%s", w, text)
		}
		if f, err := Format(Source{Text: text}); err != nil || f != text {
			t.Errorf("the canonical form (%v) is\n%s", err, f)
		}
	}
}

func TestTheGuideListsEveryWarning(t *testing.T) {
	guide, err := os.ReadFile(filepath.Join("..", "docs", "schema-language.md"))
	if err != nil {
		t.Fatal(err)
	}
	golden, err := os.ReadFile(filepath.Join("testdata", "warnings.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(golden), "\n") {
		if !strings.Contains(line, ": warning: ") {
			continue
		}
		code := line[strings.LastIndexByte(line, '[')+1 : len(line)-1]
		if !strings.Contains(string(guide), "`"+code+"`") {
			t.Errorf("the guide lacks the warning %s", code)
		}
	}
}
