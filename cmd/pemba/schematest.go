package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/validation"
)

// testJSON is what a validation file came to, as JSON.
type testJSON struct {
	File     string        `json:"file"`
	Passed   int           `json:"passed"`
	Total    int           `json:"total"`
	Failed   []failureJSON `json:"failed"`
	Coverage struct {
		Exercised int      `json:"exercised"`
		Total     int      `json:"total"`
		Missing   []string `json:"missing"`
	} `json:"coverage"`
	Seconds float64 `json:"seconds"`
}

type failureJSON struct {
	Line     int    `json:"line"`
	Column   int    `json:"column"`
	Question string `json:"question"`
	Expected string `json:"expected"`
	Message  string `json:"message"`
}

func (a *app) schemaTestCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "test FILE...",
		Short: "Run validation files: schemas with relationships and assertions",
		Long: `Run validation files: a schema, relationships, and assertions about what follows
from them. No server is needed. Relations and permissions that no assertion
exercises are named.`,
		Example: `  pemba schema test examples/documents-and-folders.yaml
  pemba schema test tests/*.yaml`,
		Args: takes("FILE..."),
	}
	cmd.RunE = a.do(func(ctx context.Context, args []string) error {
		failed := false
		for _, path := range args {
			report, took, err := a.test(ctx, path)
			var wrong validation.Errors
			switch {
			case errors.As(err, &wrong):
				a.complain("%s has %s\n%s", filepath.ToSlash(path), plural(uint64(len(wrong)), "error"), err)
				failed = true
				continue
			case err != nil:
				return err
			}
			failed = failed || len(report.Failed) > 0
			if a.json() {
				err = document(a.out, testDocument(report, took))
			} else {
				a.printTest(report, took)
			}
			if err != nil {
				return err
			}
		}
		if failed {
			return answered(exitError)
		}
		return nil
	})
	return cmd
}

func (a *app) test(ctx context.Context, path string) (*validation.Report, time.Duration, error) {
	start := time.Now()
	file, err := validation.Load(path)
	if err != nil {
		return nil, 0, err
	}
	report, err := file.Run(ctx)
	return report, time.Since(start), err
}

func testDocument(r *validation.Report, took time.Duration) testJSON {
	j := testJSON{File: r.Name, Passed: r.Passed, Total: r.Total(), Failed: []failureJSON{}, Seconds: took.Seconds()}
	for _, f := range r.Failed {
		j.Failed = append(j.Failed, failureJSON{f.Pos.Line, f.Pos.Column, f.Text, f.Want.String(), f.String()})
	}
	j.Coverage.Exercised, j.Coverage.Total = r.Coverage.Exercised, r.Coverage.Total
	j.Coverage.Missing = relationNames(r.Coverage.Missing)
	return j
}

func relationNames(relations []*schema.Relation) []string {
	names := make([]string, len(relations))
	for i, r := range relations {
		names[i] = r.Definition.Type + "#" + r.Text
	}
	return names
}

func (a *app) printTest(r *validation.Report, took time.Duration) {
	for _, f := range r.Failed {
		a.printf("%s\n", f)
	}
	result := a.paint(a.out, green, "ok  ")
	if len(r.Failed) > 0 {
		result = a.paint(a.out, red, "FAIL")
	}
	a.printf("%s  %s: %s of %s hold, %s\n", result, r.Name, thousands(uint64(r.Passed)),
		plural(uint64(r.Total()), "assertion"), seconds(took))
	if missing := relationNames(r.Coverage.Missing); len(missing) > 0 {
		a.printf("      exercised %d of %d relations and permissions; not: %s\n", r.Coverage.Exercised, r.Coverage.Total, ellipsis(missing, 10))
	}
}

// ellipsis joins names, and only counts those beyond a number.
func ellipsis(names []string, most int) string {
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
