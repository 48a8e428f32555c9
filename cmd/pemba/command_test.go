package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Every command says what it is for, checks its arguments, and shows its help.
func TestEveryCommandIsComplete(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "completion" || c.Name() == "help" {
			return // cobra's own
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: its short help is %q", c.CommandPath(), c.Short)
		}
		if c.HasParent() && c.Args == nil {
			t.Errorf("%s does not check its arguments", c.CommandPath())
		}
		for _, line := range strings.Split(c.Long, "\n") {
			if len(line) > 84 {
				t.Errorf("%s: a line of its help is too long for a terminal: %s", c.CommandPath(), line)
			}
		}
		args := append(strings.Fields(c.CommandPath())[1:], "--help")
		if out, complaints, code := pemba("", "", nil, args...); code != exitOK || complaints != "" || !strings.Contains(out, "Usage:") {
			t.Errorf("%s --help: exit code %d, %s%s", c.CommandPath(), code, out, complaints)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk((&app{}).rootCommand())
}

func TestFlagOverEnvironmentOverDefault(t *testing.T) {
	for _, c := range []struct {
		name string
		env  map[string]string
		args []string
		want string
	}{
		{"default", nil, nil, "pemba "},
		{"environment", map[string]string{"PEMBA_OUTPUT": "json"}, nil, "{"},
		{"empty environment", map[string]string{"PEMBA_OUTPUT": ""}, nil, "pemba "},
		{"flag", map[string]string{"PEMBA_OUTPUT": "json"}, []string{"--output", "table"}, "pemba "},
	} {
		out, complaints, code := pemba("", "", c.env, append([]string{"version"}, c.args...)...)
		if code != exitOK || !strings.HasPrefix(out, c.want) {
			t.Errorf("%s: exit code %d, %s%s", c.name, code, out, complaints)
		}
	}
	_, complaints, code := pemba("", "", map[string]string{"PEMBA_OUTPUT": "xml"}, "version")
	if code != exitUsage || !strings.Contains(complaints, "xml") {
		t.Errorf("a wrong value in the environment: exit code %d, %s", code, complaints)
	}
}

// A secret in the environment must not appear in help, which people paste.
func TestHelpShowsNoSecret(t *testing.T) {
	out, _, _ := pemba("", "", map[string]string{"PEMBA_TOKEN": "hush"}, "check", "--help")
	if strings.Contains(out, "hush") {
		t.Error(out)
	}
}

func TestFormattingWritesFilesInPlace(t *testing.T) {
	untidy, err := os.ReadFile("testdata/untidy.zed")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "schema.zed")
	if err := os.WriteFile(path, untidy, 0o640); err != nil {
		t.Fatal(err)
	}
	if out, _, code := pemba("", "", nil, "schema", "fmt", "--write", path); code != exitOK || strings.TrimSpace(out) != filepath.ToSlash(path) {
		t.Errorf("exit code %d, %s", code, out)
	}
	if out, _, code := pemba("", "", nil, "schema", "fmt", "--check", path); code != exitOK || out != "" {
		t.Errorf("after writing: exit code %d, %s", code, out)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode: %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestSchemasImportFilesBesideThem(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{
		"root.zed":        "use import\n\nimport \"./parts/user.zed\"\n\ndefinition document {\n\trelation viewer: user\n}\n",
		"parts/user.zed":  "definition user {}\n",
		"wrong.zed":       "use import\n\nimport \"./parts/wrong.zed\"\n",
		"parts/wrong.zed": "definition user {\n\trelation a: nobody\n}\n",
	} {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, complaints, code := pemba("", "", nil, "schema", "check", filepath.Join(folder, "root.zed")); code != exitOK {
		t.Errorf("exit code %d, %s%s", code, out, complaints)
	}
	_, complaints, code := pemba("", "", nil, "schema", "check", filepath.Join(folder, "wrong.zed"))
	if code != exitError || !strings.Contains(complaints, "relation a: nobody") {
		t.Errorf("the line of the imported file is not shown: exit code %d, %s", code, complaints)
	}
}
