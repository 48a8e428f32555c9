package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pembadb/pemba/examples"
)

func (a *app) quickstartCommand() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "quickstart",
		Short: "A tour on a server of its own, in three seconds",
		Example: `  pemba quickstart
  pemba quickstart --keep`,
		Long: `Starts a real server with a temporary file on a free port, applies a schema,
writes relationships, asks questions, changes something and shows the history:
each command as you would type it, with its real output.`,
		Args: takes(),
		RunE: a.do(func(ctx context.Context, _ []string) error { return a.quickstart(ctx, keep) }),
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "go on serving afterwards, until Ctrl-C")
	return cmd
}

// tour is what the quickstart types, with the exit code that each must have.
var tour = []struct {
	say  string
	args []string
	exit int
}{
	{"A schema says which relations there are and what they permit.", []string{"schema", "apply", "quickstart.zed"}, exitOK},
	{"Relationships are the facts.", []string{"relationship", "write",
		"group:eng#member@user:ada", "folder:company#viewer@group:eng#member", "document:roadmap#folder@folder:company",
		"document:roadmap#owner@user:grace", "document:roadmap#viewer@user:bob[office_hours]"}, exitOK},
	{"Ada may view the roadmap: she is in a group that may view its folder.", []string{"check", "document:roadmap", "view", "user:ada"}, exitOK},
	{"Editing is another matter.", []string{"check", "document:roadmap", "edit", "user:ada"}, exitNo},
	{"Bob may view it in office hours; without the hour the answer is conditional.", []string{"check", "document:roadmap", "view", "user:bob"}, exitConditional},
	{"", []string{"check", "document:roadmap", "view", "user:bob", "--context", `{"hour": 10}`}, exitOK},
	{"Why may Ada? The shortest proof.", []string{"check", "document:roadmap", "view", "user:ada", "--explain"}, exitOK},
	{"What may she view at all?", []string{"lookup", "resources", "document", "view", "user:ada"}, exitOK},
	{"All that Grace may do, in one call.", []string{"permissions", "document:roadmap", "user:grace"}, exitOK},
	{"Access changes at once.", []string{"relationship", "write", "document:roadmap#banned@user:ada"}, exitOK},
	{"", []string{"check", "document:roadmap", "view", "user:ada"}, exitNo},
	{"And everything is on record, each change chained to the one before.", []string{"history"}, exitOK},
	{"", []string{"store", "verify"}, exitOK},
}

func (a *app) quickstart(ctx context.Context, keep bool) error {
	dir, err := os.MkdirTemp("", "pemba-quickstart-")
	if err != nil {
		return fmt.Errorf("make a temporary folder: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "quickstart.zed"), []byte(examples.Quickstart), 0o600); err != nil {
		return err
	}
	n, err := start(ctx, serving{place: place{uri: "file:" + filepath.Join(dir, "pemba.db")}, addr: "127.0.0.1:0", log: slog.New(slog.DiscardHandler)}, "")
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	err = a.walk(running, dir, n.addr)
	if err == nil && keep {
		fmt.Fprintf(a.out, "The server goes on until Ctrl-C. In another terminal:\n\n  export PEMBA_ADDR=%s\n\n", n.addr)
	} else {
		stop()
	}
	if ended := n.until(running); err == nil {
		err = ended
	}
	return err
}

func (a *app) walk(ctx context.Context, dir, addr string) error {
	s := a.streams
	s.in = strings.NewReader("")
	s.getenv = func(name string) string {
		if name == "PEMBA_ADDR" {
			return addr
		}
		return ""
	}
	fmt.Fprintf(a.out, "A server of its own answers on %s; its data is gone when it stops.\n", addr)
	for _, step := range tour {
		if step.say != "" {
			fmt.Fprintf(a.out, "\n# %s\n", step.say)
		}
		fmt.Fprintf(a.out, "$ pemba %s\n", typed(step.args))
		args := append([]string(nil), step.args...)
		for i, arg := range args {
			if arg == "quickstart.zed" {
				args[i] = filepath.Join(dir, arg)
			}
		}
		if code := run(ctx, args, s); code != step.exit {
			return fmt.Errorf("quickstart: `pemba %s` exited with %d, not %d; this is a fault of pemba, please report it", typed(step.args), code, step.exit)
		}
	}
	fmt.Fprintf(a.out, "\nNow yours: `pemba serve` starts a server, and examples/ holds schemas to begin with.\n")
	return nil
}

// typed prints arguments as a shell would read them back.
func typed(args []string) string {
	out := make([]string, len(args))
	for i, arg := range args {
		if out[i] = arg; arg == "" || strings.ContainsAny(arg, " \t\n\"'{}[]#*&;()<>|$`\\!?~") {
			out[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(out, " ")
}
