package examples_test

import (
	"os"
	"strings"
	"testing"

	"github.com/pembadb/pemba/validation"
)

// block returns the first fenced block of a language in a guide.
func block(t *testing.T, guide, language string) string {
	t.Helper()
	text, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\n```"+language+"\n")
	if !ok {
		t.Fatalf("%s has no block of %s", guide, language)
	}
	code, _, _ := strings.Cut(rest, "\n```")
	return code + "\n"
}

func holds(t *testing.T, name, text string, files map[string]string) {
	t.Helper()
	f, err := validation.Parse(name, []byte(text), func(name string) ([]byte, error) {
		if text, ok := files[name]; ok {
			return []byte(text), nil
		}
		return nil, os.ErrNotExist
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, failed := range r.Failed {
		t.Error(failed)
	}
	if r.Passed == 0 {
		t.Error("no assertion was asked")
	}
}

func TestWhatTheGuidesShowHolds(t *testing.T) {
	t.Run("validation files", func(t *testing.T) {
		holds(t, "plan.yaml", block(t, "../docs/validation-files.md", "yaml"), nil)
	})
	t.Run("getting started", func(t *testing.T) {
		const guide = "../docs/getting-started.md"
		holds(t, "documents.yaml", block(t, guide, "yaml"), map[string]string{"documents.zed": block(t, guide, "zed")})
	})
	t.Run("README", func(t *testing.T) {
		holds(t, "readme.yaml", `schemaFile: readme.zed
relationships: |-
  folder:plans#viewer@user:ada
  document:roadmap#folder@folder:plans
assertions:
  assertTrue:
    - document:roadmap#view@user:ada
`, map[string]string{"readme.zed": block(t, "../README.md", "zed")})
	})
}
