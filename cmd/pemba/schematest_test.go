package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestValidationFilesRunWithoutAServer(t *testing.T) {
	out, complaints, code := pemba("", "", nil, "schema", "test", "../../examples/quickstart.yaml", "../../examples/caveats.yaml")
	if code != exitOK || strings.Count(out, "ok  ") != 2 {
		t.Errorf("exit code %d\n%s%s", code, out, complaints)
	}
}

func TestAssertionsThatDoNotHoldAreNamedWithTheirLine(t *testing.T) {
	folder := t.TempDir()
	wrong := filepath.Join(folder, "wrong.yaml")
	text := `schema: |-
  definition user {}
  definition document {
    relation viewer: user
    relation editor: user
    permission view = viewer
  }
relationships: document:1#viewer@user:ada
assertions:
  assertTrue:
    - document:1#view@user:ada
    - document:1#view@user:bea
`
	broken := filepath.Join(folder, "broken.yaml")
	for path, text := range map[string]string{wrong: text, broken: strings.ReplaceAll(text, "= viewer", "= veiwer")} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, _, code := pemba("", "", nil, "schema", "test", wrong)
	if code != exitError || !strings.Contains(out, "wrong.yaml:12:7: document:1#view@user:bea: expected yes, got no") ||
		!strings.Contains(out, "1 of 2 assertions hold") || !strings.Contains(out, "not: document#editor") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	out, _, code = pemba("", "", nil, "schema", "test", wrong, "-o", "json")
	if code != exitError || !strings.Contains(out, `"passed":1,"total":2,"failed":[{"line":12,`) {
		t.Errorf("exit code %d\n%s", code, out)
	}
	_, complaints, code := pemba("", "", nil, "schema", "test", broken, filepath.Join(folder, "none.yaml"))
	if code != exitError || !strings.Contains(complaints, "^^^^^^") || !strings.Contains(complaints, "none.yaml") {
		t.Errorf("exit code %d\n%s", code, complaints)
	}
}
