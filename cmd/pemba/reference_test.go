package main

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// The reference is what the commands say of themselves.
func TestTheReferenceIsCurrent(t *testing.T) {
	want, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	if code := run(t.Context(), []string{"reference"}, streams{out: &got, err: os.Stderr, getenv: func(string) string { return "" }}); code != exitOK {
		t.Fatalf("exit code %d", code)
	}
	if got.String() != string(want) {
		t.Error("docs/cli.md is not what the commands say; run `go generate ./cmd/pemba`")
	}
}

// Every command says what it does, and shows how it is typed.
func TestEveryCommandHasAnExample(t *testing.T) {
	root := (&app{streams: streams{out: os.Stdout, err: os.Stderr, getenv: os.Getenv}}).rootCommand()
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if !c.HasSubCommands() && !c.Hidden && c.Name() != "version" {
			if c.Short == "" || c.Example == "" {
				t.Errorf("%s: the short text is %q, the example %q", c.CommandPath(), c.Short, c.Example)
			}
		}
		for _, below := range c.Commands() {
			walk(below)
		}
	}
	walk(root)
}
