package server_test

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/server"
)

// elided are parts of the guide's answers that differ each time, or say little.
var elided = regexp.MustCompile(`"…"|\[…\]|\{…\}|\{\}`)

// TestTheHTTPGuideDoesWhatItShows runs the guide's commands in order.
func TestTheHTTPGuideDoesWhatItShows(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("there is no curl on the PATH to run the guide's commands with; install it")
	}
	guide, err := os.ReadFile("../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	w := listenHTTP(t, launch(t, memory.New(), keeper.Options{}, server.Config{}), "")
	commands := 0
	for _, block := range strings.Split(string(guide), "```console\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		for _, step := range strings.Split("\n"+block, "\n$ ")[1:] {
			line, want, _ := strings.Cut(step, "\n")
			commands++
			run := exec.Command("sh", "-c", line)
			run.Env = append(os.Environ(), "PEMBA="+w.url, "no_proxy=127.0.0.1")
			out, err := run.Output()
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if !matches(strings.TrimSpace(want), strings.TrimSpace(string(bytes.ReplaceAll(out, []byte(" "), nil)))) {
				t.Errorf("%s\nanswers %s\nand the guide says %s", line, out, want)
			}
		}
	}
	if commands < 6 {
		t.Errorf("only %d commands were found", commands)
	}
}

// matches compares what the guide says with an answer without spaces.
func matches(want, got string) bool {
	want = strings.ReplaceAll(want, " ", "")
	var pattern strings.Builder
	pattern.WriteString("^")
	for {
		at := elided.FindStringIndex(want)
		if at == nil {
			pattern.WriteString(regexp.QuoteMeta(want) + "$")
			break
		}
		pattern.WriteString(regexp.QuoteMeta(want[:at[0]]) + map[byte]string{'"': `"[^"]*"`, '[': `\[.*\]`, '{': `\{.*\}`}[want[at[0]]])
		want = want[at[1]:]
	}
	return regexp.MustCompile(pattern.String()).MatchString(got)
}
