package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestHelpSaysWhatItSays: the library that prints help takes what stands between
// backticks for the name of a flag's value, and leaves the backticks out.
func TestHelpSaysWhatItSays(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if strings.Contains(f.Usage, "`") {
				t.Errorf("%s --%s: %s", cmd.CommandPath(), f.Name, f.Usage)
			}
		})
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk((&app{}).rootCommand())
}

// TestAnInterruptedImportGoesOnWithThePrintedLine, in the same store, as the same
// request.
func TestAnInterruptedImportGoesOnWithThePrintedLine(t *testing.T) {
	addr := startServer(t, "memory:", "secret")
	env := map[string]string{"PEMBA_TOKEN": "secret", "PEMBA_STORE": "other"}
	must := func(args ...string) string {
		t.Helper()
		out, complaints, code := pemba(addr, "", env, args...)
		if code != exitOK {
			t.Fatalf("%v: exit %d: %s", args, code, complaints)
		}
		return out
	}
	must("store", "create", "other")
	must("schema", "apply", "testdata/documents.zed")
	file := filepath.Join(t.TempDir(), "my relationships.txt")
	write := func(third string) {
		text := "document:1#viewer@user:a\n\ndocument:2#viewer@user:a\n" + third + "\ndocument:4#viewer@user:a\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("document:3#reviewer@user:a")
	_, complaints, code := pemba(addr, "", env, "relationship", "import", file, "--batch", "1", "--create", "--reason", "it's a test")
	if code != exitError || !strings.Contains(complaints, file+":4: ") {
		t.Fatalf("exit %d: %s", code, complaints)
	}
	_, line, found := strings.Cut(complaints, "go on with\n  pemba ")
	line, _, _ = strings.Cut(line, "\n")
	if !found || strings.Contains(line, "secret") {
		t.Fatalf("no line to go on with: %s", complaints)
	}
	write("document:3#viewer@user:a")
	delete(env, "PEMBA_STORE") // the line names it
	must(words(t, line)...)
	if got := must("relationship", "read", "--store", "other"); strings.Count(got, "\n") != 4 {
		t.Errorf("the store holds\n%s", got)
	}
	if got := must("history", "--store", "other", "--output", "json"); strings.Count(got, `"reason":"it's a test"`) != 4 {
		t.Errorf("the history is\n%s", got)
	}
}

// words reads a command line as a shell does.
func words(t *testing.T, line string) []string {
	t.Helper()
	var out []string
	var word strings.Builder
	quoted, begun := false, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\'':
			quoted, begun = !quoted, true
		case c == '\\' && !quoted:
			i++
			word.WriteByte(line[i])
		case c == ' ' && !quoted:
			if begun || word.Len() > 0 {
				out = append(out, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteByte(c)
		}
	}
	if quoted {
		t.Fatalf("a quote is open: %s", line)
	}
	return append(out, word.String())
}

// TestAFlagBeatsTheEnvironment, and flags that contradict each other or say
// nothing are mistakes.
func TestAFlagBeatsTheEnvironment(t *testing.T) {
	addr := startServer(t, "memory:", "secret")
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stale := map[string]string{"PEMBA_TOKEN": "stale", "PEMBA_MAX_OPERATIONS": "x"}
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"store list --token-file " + file, exitOK, ""},
		{"store list --token secret", exitOK, ""},
		{"store list", exitError, "unknown"},
		{"store list --token secret --token-file " + file, exitUsage, "exclude each other"},
		{"serve --token secret --token-file " + file, exitUsage, "exclude each other"},
		{"schema show --store=", exitUsage, "--store is empty"},
		{"store list --timeout -1s", exitUsage, "--timeout -1s"},
		{"history --from 5 --to 2", exitUsage, "--from 5 lies after --to 2"},
		{"store verify system --store default", exitUsage, "two stores"},
		{"serve", exitUsage, `PEMBA_MAX_OPERATIONS has a value that --max-operations does not take: "x" is no such value`},
		{"serve --max-operations 10 --resident-max-relationships -1", exitUsage, "below 0"},
		{"serve --max-operations 10 --retention 0s", exitUsage, "--retention 0s"},
		{"serve --max-operations 10 --history-retention -1h", exitUsage, "below 0"},
		{"serve --max-operations 10 --max-staleness 0s", exitUsage, "--max-staleness 0s"},
		{"serve --max-operations 10 --token-rate -1", exitUsage, "--token-rate -1"},
		{"serve --max-operations 10 --memory-limit 1KiB", exitUsage, "64MiB or more"},
		{"serve --max-operations 10 --memory-limit 1GiB --resident-memory 1GiB", exitUsage, "more than half"},
		{"watch --from 99 --token secret", exitError, "99"},
		{"store list --token secret --timeout 1ns", exitError, "within --timeout 1ns"},
		{"relationship write - --token secret", exitError, "standard input holds no relationships"},
		{"relationship export /nowhere/at/all.txt --token secret", exitError, "cannot write /nowhere/at/all.txt"},
	} {
		_, complaints, code := pemba(addr, "", stale, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(complaints, c.says) {
			t.Errorf("%s: exit %d and not %d: %s", c.args, code, c.code, complaints)
		}
	}
}
