package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pembadb/pemba/datastore/sql"
)

func (a *app) migrateCommand() *cobra.Command {
	var at place
	var to int
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Make or renew the tables of a database",
		Long: `Makes the tables that this version of pemba needs in CockroachDB or PostgreSQL,
or brings older ones up to date. Running it twice, or twice at once, does no
harm. The embedded datastores memory: and file: need none.`,
		Example: `  pemba migrate --datastore postgres://pemba@127.0.0.1:5432/pemba
  pemba migrate --datastore cockroachdb://root@127.0.0.1:26257/pemba --dry-run`,
		Args: takes(),
		RunE: a.do(func(ctx context.Context, _ []string) error { return a.migrate(ctx, at, to, dryRun) }),
	}
	f := cmd.Flags()
	at.add(f)
	f.IntVar(&to, "to", 0, "the version of the tables to stop at; 0 is the newest")
	f.BoolVar(&dryRun, "dry-run", false, "print the statements and change nothing")
	return cmd
}

func (a *app) migrate(ctx context.Context, at place, to int, dryRun bool) error {
	if err := at.readPassword(a.getenv); err != nil {
		return err
	}
	embedded, err := at.embedded()
	if err != nil {
		return err
	}
	if embedded {
		a.printf("datastore %s needs no migration\n", &at)
		return nil
	}
	if dryRun {
		steps, err := sql.Plan(ctx, at.dialect(), at.uri, at.options(), to)
		if err != nil {
			return err
		}
		for _, s := range steps {
			a.printf("-- version %d: %s\n", s.Version, s.Name)
			for _, statement := range s.Statements {
				a.printf("%s;\n", strings.ReplaceAll(statement, "\n\t\t", "\n"))
			}
		}
		if len(steps) == 0 {
			a.printf("-- nothing to do\n")
		}
		return nil
	}
	done := 0
	if err := sql.Migrate(ctx, at.dialect(), at.uri, at.options(), to, func(s sql.Step) {
		done++
		a.printf("version %d: %s\n", s.Version, s.Name)
	}); err != nil {
		return fmt.Errorf("migrate %s: %w", &at, err)
	}
	if done == 0 {
		a.printf("the tables are up to date\n")
	}
	return nil
}
