package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit codes of every command.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitNo          = 3 // the answer is "no permission"
	exitConditional = 4 // the answer depends on context that the question lacks
)

// streams is what a run of pemba sees of the world, so that tests and the quickstart run the real commands.
type streams struct {
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string
}

// app is one run of the command line.
type app struct {
	streams
	output  string // table or json
	client  clientFlags
	running string // path of the command that was started; empty while the command line is still being read
}

// Help lists what is needed first, first.
func init() { cobra.EnableCommandSorting = false }

// run carries out one command line and returns the exit code.
func run(ctx context.Context, args []string, s streams) int {
	a := &app{streams: s}
	root := a.rootCommand()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	return a.exit(ctx, cmd, err)
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "pemba",
		Short: "Who may do what: a relationship-based authorization database",
		Long: `Pemba answers who may do what. It keeps relationships such as
document:readme#viewer@user:ada, and a schema that says what follows from them.

  pemba quickstart     a tour on a server of its own, in three seconds
  pemba serve          start a server
  pemba check RESOURCE PERMISSION SUBJECT

Every flag that names an environment variable may be given by it; the flag
wins. Exit codes: 0 yes or ok, 1 error, 2 usage, 3 no permission, 4 conditional.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.fromEnvironment(cmd) },
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return flagError(err) })
	root.PersistentFlags().StringVarP(&a.output, "output", "o", "table", "how results are printed: table, or json (one document a line)")
	withEnv(root.PersistentFlags(), "output", "PEMBA_OUTPUT")
	suggest(root, "output", "table", "json")

	root.AddGroup(
		&cobra.Group{ID: "start", Title: "Start here:"},
		&cobra.Group{ID: "ask", Title: "Ask:"},
		&cobra.Group{ID: "change", Title: "Change:"},
		&cobra.Group{ID: "administer", Title: "Administer:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("start", a.quickstartCommand(), a.serveCommand(), a.migrateCommand())
	add("ask", a.checkCommand(), a.permissionsCommand(), a.bulkCheckCommand(), a.expandCommand(),
		a.lookupCommand(), a.accessReportCommand(), a.historyCommand(), a.watchCommand())
	add("change", a.schemaCommand(), a.relationshipCommand())
	add("administer", a.storeCommand(), a.tokenCommand(), a.grantCommand(), a.whoamiCommand(), a.userCommand(), a.groupCommand(), a.directoryCommand(), a.offboardCommand(), a.loadtestCommand())
	root.AddCommand(a.versionCommand(), a.referenceCommand())
	return root
}

// do makes a command's body: an error before it begins is one of usage.
func (a *app) do(body func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.running = cmd.CommandPath()
		return body(cmd.Context(), args)
	}
}

// group makes a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	names := make([]string, len(commands))
	for i, c := range commands {
		names[i] = c.Name()
	}
	g := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s needs a command: %s", use, strings.Join(names, ", "))
			}
			return usagef("%s has no command %q; there are %s", use, args[0], strings.Join(names, ", "))
		},
	}
	g.AddCommand(commands...)
	return g
}

// takes checks the number of arguments against their names: a name that ends in "..." stands for any number, one in
// brackets may be absent.
func takes(names ...string) cobra.PositionalArgs {
	least, most := 0, len(names)
	for _, n := range names {
		if !strings.HasPrefix(n, "[") {
			least++
		}
		if strings.HasSuffix(strings.Trim(n, "[]"), "...") {
			most = -1
		}
	}
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && (most < 0 || len(args) <= most) {
			return nil
		}
		want := strings.Join(names, " ")
		if want == "" {
			want = "no arguments"
		}
		return fmt.Errorf("%s takes %s; given were %s", strings.TrimPrefix(cmd.CommandPath(), "pemba "), want, plural(uint64(len(args)), "argument"))
	}
}

// withEnv lets an environment variable give a flag's value.
func withEnv(flags *pflag.FlagSet, flag, variable string) {
	f := flags.Lookup(flag)
	f.Usage += " [" + variable + "]"
	if err := flags.SetAnnotation(flag, "env", []string{variable}); err != nil {
		panic(err) // only for a flag that does not exist
	}
}

// suggest gives the shell what to complete a flag with.
func suggest(cmd *cobra.Command, flag string, values ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // only for a flag that does not exist
	}
}

// fromEnvironment fills the flags that the command line left alone: flag over environment over default.
func (a *app) fromEnvironment(cmd *cobra.Command) error {
	flags := cmd.Flags()
	failed := contradiction(flags)
	flags.VisitAll(func(f *pflag.Flag) {
		variable := f.Annotations["env"]
		if failed != nil || f.Changed || len(variable) == 0 || flags.Changed(otherToken[f.Name]) {
			return
		}
		if value := a.getenv(variable[0]); value != "" {
			if err := f.Value.Set(value); err != nil {
				failed = fmt.Errorf("the environment variable %s has a value that --%s does not take: %v", variable[0], f.Name, plainly(err))
			}
		}
	})
	if failed == nil && !slices.Contains([]string{"table", "json"}, a.output) {
		failed = fmt.Errorf("--output %q is not a way to print; write table or json", a.output)
	}
	return failed
}

// otherToken is the other of two flags that give the same: one on the command line
// counts more than the other in the environment.
var otherToken = map[string]string{"token": "token-file", "token-file": "token"}

// contradiction finds flags that exclude each other, or say nothing.
func contradiction(flags *pflag.FlagSet) error {
	if flags.Changed("token") && flags.Changed("token-file") {
		return errors.New("--token and --token-file exclude each other; give one")
	}
	for _, name := range []string{"store", "addr"} {
		if f := flags.Lookup(name); f != nil && f.Changed && f.Value.String() == "" {
			return fmt.Errorf("--%s is empty; leave it out for %s", name, f.DefValue)
		}
	}
	return nil
}

// flagError says what is wrong with a flag in the words of this program.
func flagError(err error) error {
	var bad *pflag.InvalidValueError
	if !errors.As(err, &bad) {
		return err
	}
	f := bad.GetFlag()
	switch f.Value.Type() {
	case "uint", "uint16", "uint32", "uint64":
		return fmt.Errorf("--%s %q is no whole number from 0 on that fits", f.Name, bad.GetValue())
	case "int", "int32", "int64":
		return fmt.Errorf("--%s %q is no whole number that fits", f.Name, bad.GetValue())
	case "bool":
		return fmt.Errorf("--%s %q is neither true nor false", f.Name, bad.GetValue())
	}
	return err
}

// flagGroups are what cobra says of flags that depend on each other.
var (
	notTogether = regexp.MustCompile(`^if any flags in the group \[[^]]*\] are set none of the others can be; \[([^]]*)\] were all set$`)
	oneNeeded   = regexp.MustCompile(`^at least one of the flags in the group \[([^]]*)\] is required$`)
)

// flagGroup says it in the words of this program.
func flagGroup(text string) string {
	names := func(list, word string) string {
		return "--" + strings.Join(strings.Fields(list), word+"--")
	}
	if m := notTogether.FindStringSubmatch(text); m != nil {
		return names(m[1], " and ") + " exclude each other; give one"
	}
	if m := oneNeeded.FindStringSubmatch(text); m != nil {
		return "give " + names(m[1], " or ")
	}
	return text
}

// plainly says what is wrong with a number without the names of Go's functions.
func plainly(err error) error {
	var number *strconv.NumError
	if !errors.As(err, &number) {
		return err
	}
	if errors.Is(err, strconv.ErrRange) {
		return fmt.Errorf("%q is out of range", number.Num)
	}
	return fmt.Errorf("%q is no such value", number.Num)
}

// again is the command line that was given, with some flags changed or added:
// those of the environment are in it, but no secrets.
func again(cmd *cobra.Command, args []string, changed map[string]string) string {
	line := strings.Fields(cmd.CommandPath())
	line = append(line, args...)
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		value, replaced := changed[f.Name]
		list, many := f.Value.(pflag.SliceValue)
		switch {
		case replaced:
			line = append(line, "--"+f.Name, value)
		case f.Name == "token" || f.Value.String() == f.DefValue:
		case many:
			for _, v := range list.GetSlice() {
				line = append(line, "--"+f.Name, v)
			}
		case f.Value.Type() == "bool":
			line = append(line, "--"+f.Name+"="+f.Value.String())
		default:
			line = append(line, "--"+f.Name, f.Value.String())
		}
	})
	return typed(line)
}

// open opens a file to read, or standard input for "-".
func (a *app) open(path string) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(a.in), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fileError("read", err)
	}
	return f, nil
}

// read reads a whole file, or standard input for "-".
func (a *app) read(path string) (string, error) {
	f, err := a.open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return "", fileError("read", err)
	}
	return string(data), nil
}

// fileError says what could not be done with a file, without the name of the system call.
func fileError(verb string, err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return fmt.Errorf("cannot %s %s: %w", verb, path.Path, path.Err)
	}
	return fmt.Errorf("cannot %s: %w", verb, err)
}

// buffered returns standard output for long results; the caller flushes it.
func (a *app) buffered() *bufio.Writer { return bufio.NewWriterSize(a.out, 64<<10) }
