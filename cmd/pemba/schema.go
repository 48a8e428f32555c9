package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/schema"
)

func (a *app) schemaCommand() *cobra.Command {
	return group("schema", "Check, format, compare, apply and test schemas",
		a.schemaCheckCommand(), a.schemaFmtCommand(), a.schemaDiffCommand(),
		a.schemaApplyCommand(), a.schemaShowCommand(), a.schemaTestCommand())
}

// schemaFile is a schema read from a file, with the texts of the files it imports, for error messages.
type schemaFile struct {
	source schema.Source
	texts  map[string]string
}

func (a *app) readSchema(path string) (*schemaFile, error) {
	text, err := a.read(path)
	if err != nil {
		return nil, err
	}
	name := filepath.ToSlash(path)
	if path == "-" {
		name = "standard input"
	}
	return &schemaFile{source: schema.Source{Name: name, Text: text}, texts: map[string]string{name: text}}, nil
}

// options follow imports on disk.
func (f *schemaFile) options() schema.Options {
	return schema.Options{Open: func(path string) (string, error) {
		data, err := os.ReadFile(filepath.FromSlash(path))
		if err != nil {
			var p *os.PathError
			if errors.As(err, &p) {
				err = p.Err
			}
			return "", err
		}
		f.texts[path] = string(data)
		return string(data), nil
	}}
}

func (f *schemaFile) compile() (*schema.Schema, []schema.Warning, error) {
	s, warnings, err := schema.Compile(f.source, nil, f.options())
	return s, warnings, f.render(err)
}

// render shows each error of a schema under the line it stands in.
func (f *schemaFile) render(err error) error {
	var all schema.Errors
	if !errors.As(err, &all) {
		return err
	}
	var b strings.Builder
	for _, e := range all {
		b.WriteString(e.Render(f.texts[e.Pos.File]))
	}
	return schemaError{text: fmt.Sprintf("%s has %s\n%s", f.source.Name, plural(uint64(len(all)), "error"), b.String()), errors: all}
}

// schemaError is a schema that does not compile, printed with carets.
type schemaError struct {
	text   string
	errors schema.Errors
}

func (e schemaError) Error() string { return e.text }

// standalone is the text a server takes: the source as written, or what its imports and partials come to.
func (f *schemaFile) standalone() (string, error) {
	parsed, err := schema.Parse(f.source, f.options())
	if err != nil {
		return "", f.render(err)
	}
	for _, d := range parsed.Declarations {
		if _, imports := d.(*schema.Import); imports {
			text, err := schema.Expand(f.source, f.options())
			return text, f.render(err)
		}
	}
	return f.source.Text, nil
}

// problemJSON is an error or warning of a schema as JSON.
type problemJSON struct {
	Level   string `json:"level"` // error or warning
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Code    string `json:"code,omitempty"`
	Token   string `json:"token,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func (a *app) schemaCheckCommand() *cobra.Command {
	var strict bool
	cmd := &cobra.Command{
		Use:     "check FILE...",
		Short:   "Find the errors in schemas, and what is surely a mistake",
		Example: `  pemba schema check schema.zed`,
		Args:    takes("FILE..."),
	}
	cmd.RunE = a.do(func(_ context.Context, args []string) error {
		failed := false
		for _, path := range args {
			f, err := a.readSchema(path)
			if err != nil {
				return err
			}
			s, warnings, err := f.compile()
			var wrong schemaError
			if err != nil && !errors.As(err, &wrong) {
				return err
			}
			failed = failed || err != nil || strict && len(warnings) > 0
			if a.json() {
				if err := a.printProblems(wrong.errors, warnings); err != nil {
					return err
				}
				continue
			}
			for _, w := range warnings {
				fmt.Fprint(a.err, w.Render(f.texts[w.Pos.File]))
			}
			if err != nil {
				a.complain("%s", err)
				continue
			}
			a.printf("%s is correct: %s, %s, %s\n", f.source.Name, plural(uint64(len(s.Definitions)), "definition"),
				plural(uint64(len(s.Caveats)), "caveat"), plural(uint64(len(warnings)), "warning"))
		}
		if failed {
			return answered(exitError)
		}
		return nil
	})
	cmd.Flags().BoolVar(&strict, "strict", false, "fail for warnings too")
	return cmd
}

func (a *app) printProblems(errs schema.Errors, warnings []schema.Warning) error {
	for _, e := range errs {
		if err := document(a.out, problemJSON{"error", e.Pos.File, e.Pos.Line, e.Pos.Column, "", e.Token, e.Message, e.Hint}); err != nil {
			return err
		}
	}
	for _, w := range warnings {
		if err := document(a.out, problemJSON{"warning", w.Pos.File, w.Pos.Line, w.Pos.Column, w.Code, w.Token, w.Message, w.Hint}); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) schemaFmtCommand() *cobra.Command {
	var write, check bool
	cmd := &cobra.Command{
		Use:   "fmt FILE...",
		Short: "Print schemas in canonical form",
		Example: `  pemba schema fmt schema.zed
  pemba schema fmt --write *.zed
  pemba schema fmt --check *.zed`,
		Args: takes("FILE..."),
	}
	cmd.RunE = a.do(func(_ context.Context, args []string) error {
		if write && check {
			return usagef("--write and --check exclude each other; give one")
		}
		differs := false
		for _, path := range args {
			f, err := a.readSchema(path)
			if err != nil {
				return err
			}
			text, err := schema.Format(f.source)
			if err != nil {
				return f.render(err)
			}
			switch {
			case !write && !check:
				a.printf("%s", text)
			case text == f.source.Text:
			case check:
				differs = true
				a.printf("%s\n", f.source.Name)
			case path == "-":
				return usagef("--write needs a file to write to, not standard input")
			default:
				if err := replaceFile(path, text); err != nil {
					return err
				}
				a.printf("%s\n", f.source.Name)
			}
		}
		if differs {
			return answered(exitError)
		}
		return nil
	})
	cmd.Flags().BoolVarP(&write, "write", "w", false, "write the files, and list those that changed")
	cmd.Flags().BoolVar(&check, "check", false, "list the files that are not in canonical form, and fail if there are any")
	return cmd
}

// replaceFile writes a file anew, keeping its mode; there is no moment at which only half of it exists.
func replaceFile(path, text string) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	info, err := os.Stat(path)
	if err != nil {
		return fileError("write", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fileError("write", err)
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(info.Mode().Perm()), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fileError("write", err)
	}
	return nil
}

func (a *app) schemaDiffCommand() *cobra.Command {
	var breaking bool
	cmd := &cobra.Command{
		Use:   "diff [OLD] NEW",
		Short: "Show what a schema changes, and what that breaks",
		Long: `Show what a schema changes against an older file, or with one file against the
schema of the server's store, and which of it breaks callers.`,
		Example: `  pemba schema diff old.zed new.zed
  pemba schema diff schema.zed`,
		Args: takes("[OLD]", "NEW"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 2 {
			return a.do(func(_ context.Context, args []string) error { return a.diffFiles(args[0], args[1], breaking) })(cmd, args)
		}
		return a.call(func(ctx context.Context, c *connection, args []string) error {
			return a.diffServer(ctx, c, args[0], breaking)
		})(cmd, args)
	}
	cmd.Flags().BoolVar(&breaking, "fail-on-breaking", false, "exit with 1 if anything breaks")
	return a.remote(cmd, true, true)
}

func (a *app) diffFiles(oldPath, newPath string, fail bool) error {
	var both [2]*schema.Schema
	for i, path := range []string{oldPath, newPath} {
		f, err := a.readSchema(path)
		if err != nil {
			return err
		}
		if both[i], _, err = f.compile(); err != nil {
			return err
		}
	}
	return a.printDifferences(differencesToWire(schema.Diff(both[0], both[1])), "", fail)
}

func (a *app) diffServer(ctx context.Context, c *connection, path string, fail bool) error {
	f, err := a.readSchema(path)
	if err != nil {
		return err
	}
	if _, _, err := f.compile(); err != nil {
		return err
	}
	text, err := f.standalone()
	if err != nil {
		return err
	}
	r, err := c.schemas.DiffSchema(ctx, &pb.DiffSchemaRequest{Store: c.store, Consistency: c.at, Text: text})
	if err != nil {
		return err
	}
	return a.printDifferences(r.Differences, r.Hash, fail)
}

func differencesToWire(all []schema.Difference) []*pb.SchemaDifference {
	var wire []*pb.SchemaDifference
	for _, d := range all {
		wire = append(wire, &pb.SchemaDifference{Kind: string(d.Kind), Type: d.Type, Relation: d.Relation, Caveat: d.Caveat,
			Parameter: d.Parameter, Old: d.Old, New: d.New, Breaking: d.Breaking, Why: d.Why})
	}
	return wire
}

// differenceJSON is a difference between schemas as JSON.
type differenceJSON struct {
	Kind      string `json:"kind"`
	Type      string `json:"type,omitempty"`
	Relation  string `json:"relation,omitempty"`
	Caveat    string `json:"caveat,omitempty"`
	Parameter string `json:"parameter,omitempty"`
	Old       string `json:"old,omitempty"`
	New       string `json:"new,omitempty"`
	Breaking  bool   `json:"breaking"`
	Why       string `json:"why,omitempty"`
}

// printDifferences prints what changes. hash is the schema's that is in force on the server, if one was asked.
func (a *app) printDifferences(all []*pb.SchemaDifference, hash string, fail bool) error {
	breaks := uint64(0)
	documents := []differenceJSON{}
	for _, d := range all {
		documents = append(documents, differenceJSON{d.Kind, d.Type, d.Relation, d.Caveat, d.Parameter, d.Old, d.New, d.Breaking, d.Why})
		if d.Breaking {
			breaks++
		}
	}
	if a.json() {
		err := document(a.out, struct {
			Differences []differenceJSON `json:"differences"`
			Hash        string           `json:"hash,omitempty"`
		}{documents, hash})
		if err != nil {
			return err
		}
	} else {
		a.drawDifferences(all, breaks, hash)
	}
	if fail && breaks > 0 {
		return answered(exitError)
	}
	return nil
}

func (a *app) drawDifferences(all []*pb.SchemaDifference, breaks uint64, hash string) {
	for _, d := range all {
		mark := a.paint(a.out, green, "  ")
		if d.Breaking {
			mark = a.paint(a.out, red, "! ")
		}
		local := schema.Difference{Kind: schema.DifferenceKind(d.Kind), Type: d.Type, Relation: d.Relation, Caveat: d.Caveat,
			Parameter: d.Parameter, Old: d.Old, New: d.New, Breaking: d.Breaking, Why: d.Why}
		a.printf("%s%s\n", mark, local)
	}
	if len(all) == 0 {
		a.printf("both mean the same\n")
	} else {
		a.printf("%s, %s\n", plural(uint64(len(all)), "difference"), thousands(breaks)+" breaking")
	}
	if hash != "" {
		a.printf("hash of the schema in force: %s\n", hash)
	}
}

func (a *app) schemaApplyCommand() *cobra.Command {
	var expected, requestID, reason string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "Make a schema the store's",
		Long: `Make a schema the store's, in one change. It is refused if relationships are
stored that it could not hold. --dry-run judges everything and changes nothing.`,
		Example: `  pemba schema apply schema.zed
  pemba schema apply schema.zed --dry-run`,
		Args: takes("FILE"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		f, err := a.readSchema(args[0])
		if err != nil {
			return err
		}
		_, warnings, err := f.compile()
		if err != nil {
			return err
		}
		text, err := f.standalone()
		if err != nil {
			return err
		}
		request := &pb.ApplySchemaRequest{Store: c.store, Text: text, DryRun: dryRun, RequestId: requestID, Reason: reason}
		if cmd.Flags().Changed("expected-hash") {
			if sum, err := hex.DecodeString(expected); err != nil || len(sum) != 0 && len(sum) != 32 {
				return usagef("--expected-hash %q is no hash: write the 64 digits that `pemba schema show` prints, or nothing for no schema", expected)
			}
			request.ExpectedHash = &expected
		}
		r, err := c.schemas.ApplySchema(ctx, request)
		if err != nil {
			return err
		}
		for _, w := range warnings {
			fmt.Fprint(a.err, w.Render(f.texts[w.Pos.File]))
		}
		return a.printApplied(r, dryRun)
	})
	f := cmd.Flags()
	f.BoolVar(&dryRun, "dry-run", false, "judge everything and change nothing")
	f.StringVar(&expected, "expected-hash", "", "only if the schema in force has this hash; empty: if there is none")
	addRequest(f, &requestID, &reason)
	return a.remote(cmd, true, false)
}

func (a *app) printApplied(r *pb.ApplySchemaResponse, dryRun bool) error {
	if a.json() {
		return document(a.out, struct {
			Revision  uint64 `json:"revision"`
			Zookie    string `json:"zookie"`
			Hash      string `json:"hash"`
			Changed   bool   `json:"changed"`
			DryRun    bool   `json:"dry_run,omitempty"`
			RequestID string `json:"request_id,omitempty"`
		}{r.Revision, r.Zookie, r.Hash, r.Changed, dryRun, r.RequestId})
	}
	did := "schema applied"
	switch {
	case !r.Changed:
		did = "nothing to change: this schema is in force"
	case dryRun:
		did = "the schema could be applied"
	}
	breaks := uint64(0)
	for _, d := range r.Differences {
		if d.Breaking {
			breaks++
		}
	}
	if r.Changed {
		did += fmt.Sprintf(", %s, %s breaking", plural(uint64(len(r.Differences)), "difference"), thousands(breaks))
	}
	a.printf("%s (revision %d, zookie %s)\n", did, r.Revision, r.Zookie)
	return nil
}

func (a *app) schemaShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print the schema of a store",
		Example: `  pemba schema show
  pemba schema show --store crm > crm.zed`,
		Args: takes(),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, _ []string) error {
		r, err := c.schemas.GetSchema(ctx, &pb.GetSchemaRequest{Store: c.store, Consistency: c.at})
		if err != nil {
			return err
		}
		if a.json() {
			return document(a.out, struct {
				Text   string `json:"text"`
				Hash   string `json:"hash"`
				Zookie string `json:"zookie"`
			}{r.Text, r.Hash, r.Zookie})
		}
		if r.Hash == "" {
			fmt.Fprintf(a.err, "the store has no schema yet; `pemba schema apply FILE` gives it one\n")
			return nil
		}
		a.printf("%s", r.Text)
		if !strings.HasSuffix(r.Text, "\n") {
			a.printf("\n")
		}
		return nil
	})
	return a.remote(cmd, true, true)
}
