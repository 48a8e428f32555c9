package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

//go:generate sh -c "go run . reference > ../../docs/cli.md"

// referenceCommand prints docs/cli.md: every command as it describes itself.
func (a *app) referenceCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "reference",
		Short:  "Print the reference of all commands, as docs/cli.md has it",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: a.do(func(context.Context, []string) error {
			return writeReference(a.out, (&app{streams: a.streams}).rootCommand())
		}),
	}
}

const referenceStart = `# Command line reference

What ` + "`pemba COMMAND --help`" + ` says, on one page. It is generated from the commands: change them, and run
` + "`go generate ./cmd/pemba`" + `.

Exit codes of every command: 0 yes or ok, 1 error, 2 usage, 3 no permission, 4 conditional. Every flag that names an
environment variable may be given by it; the flag wins.

`

// writeReference writes the reference of a command and those below it.
func writeReference(w io.Writer, root *cobra.Command) error {
	var b strings.Builder
	b.WriteString(referenceStart)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	var commands []*cobra.Command
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" || strings.HasPrefix(c.CommandPath(), "pemba completion ") {
			return
		}
		if c.Runnable() && c != root {
			commands = append(commands, c)
		}
		for _, below := range c.Commands() {
			walk(below)
		}
	}
	walk(root)
	b.WriteString("| command | |\n| --- | --- |\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s |\n", c.CommandPath(), strings.ReplaceAll(c.CommandPath(), " ", "-"), c.Short)
	}
	for _, c := range commands {
		referenceOf(&b, c)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func referenceOf(b *strings.Builder, c *cobra.Command) {
	fmt.Fprintf(b, "\n## %s\n\n", c.CommandPath())
	long := strings.TrimSpace(c.Long)
	if long == "" {
		long = c.Short + "."
	}
	// Help texts are set for a terminal, with columns and indented lines.
	fmt.Fprintf(b, "```text\n%s\n\n%s\n```\n", c.UseLine(), long)
	if c.HasAvailableSubCommands() {
		return
	}
	if example := strings.TrimRight(c.Example, "\n"); example != "" {
		fmt.Fprintf(b, "\n```sh\n%s\n```\n", unindent(example))
	}
	var rows strings.Builder
	flags := func(f *pflag.FlagSet) {
		f.VisitAll(func(f *pflag.Flag) {
			if f.Hidden || f.Name == "help" {
				return
			}
			name, usage := pflag.UnquoteUsage(f)
			usage, variable, _ := strings.Cut(usage, " [PEMBA_")
			if variable != "" {
				variable = "`PEMBA_" + strings.TrimSuffix(variable, "]") + "`"
			}
			standard := ""
			switch f.DefValue {
			case "", "[]", "false", "0", "0s":
			default:
				standard = "`" + f.DefValue + "`"
			}
			flag := "--" + f.Name
			if f.Shorthand != "" {
				flag = "-" + f.Shorthand + ", " + flag
			}
			if name != "" {
				flag += " " + name
			}
			fmt.Fprintf(&rows, "| `%s` | %s | %s | %s |\n", flag, strings.ReplaceAll(usage, "|", `\|`), standard, variable)
		})
	}
	flags(c.LocalFlags())
	flags(c.InheritedFlags())
	if rows.Len() > 0 {
		fmt.Fprintf(b, "\n| flag | | default | environment |\n| --- | --- | --- | --- |\n%s", rows.String())
	}
}

// unindent takes the indentation of the first line off every line.
func unindent(text string) string {
	indent := text[:len(text)-len(strings.TrimLeft(text, " "))]
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], indent)
	}
	return strings.Join(lines, "\n")
}
