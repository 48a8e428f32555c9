package sql

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ErrNotMigrated says that the database has not the tables that this version of
// pemba needs; test with errors.Is.
var ErrNotMigrated = errors.New("the database is not migrated")

// Migration makes a version of the tables out of the one before; its number is
// its place in the dialect's list, from 1.
type Migration struct {
	Name       string
	Statements []string
}

// undefinedTable is the SQLSTATE of a table that is not there.
const undefinedTable = "42P01"

// version reads how far a database is migrated; 0 if not at all.
func version(ctx context.Context, q interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}) (int, error) {
	var v int
	err := q.QueryRow(ctx, `SELECT coalesce(max(version), 0) FROM pemba_migration`).Scan(&v)
	var p *pgconn.PgError
	if errors.As(err, &p) && p.Code == undefinedTable {
		return 0, nil
	}
	return v, err
}

// migrated refuses a database that is older or newer than this version of pemba.
func (l *Log) migrated(ctx context.Context) error {
	return l.read(ctx, func(c *pgxpool.Conn) error {
		v, err := version(ctx, c)
		if err != nil {
			return err
		}
		switch want := len(l.dialect.Migrations); {
		case v < want:
			return ours(fmt.Errorf("%w: it has version %d of the tables, and this pemba needs %d; run `pemba migrate --datastore URI`", ErrNotMigrated, v, want))
		case v > want:
			return ours(fmt.Errorf("%w: it has version %d of the tables, and this pemba knows %d; use a newer pemba", ErrNotMigrated, v, want))
		}
		return nil
	})
}

// Step is what Migrate does, or would do.
type Step struct {
	Version    int
	Name       string
	Statements []string
}

// Plan returns the steps that bring a database to version to (0: the newest).
func Plan(ctx context.Context, d *Dialect, uri string, o Options, to int) (steps []Step, err error) {
	err = once(ctx, d, uri, o, func(c *pgx.Conn) error {
		from, err := version(ctx, c)
		if err != nil {
			return err
		}
		steps, err = plan(d, from, to)
		return err
	})
	return steps, err
}

func plan(d *Dialect, from, to int) (steps []Step, err error) {
	newest := len(d.Migrations)
	switch {
	case to == 0:
		to = newest
	case to < 0 || to > newest:
		return nil, ours(fmt.Errorf("there is no version %d of the tables; this pemba knows 1 to %d", to, newest))
	}
	switch {
	case from > newest:
		return nil, ours(fmt.Errorf("the database has version %d of the tables, and this pemba knows %d; use a newer pemba", from, newest))
	case from > to:
		return nil, ours(fmt.Errorf("the database has version %d of the tables, and there is no way back to %d; restore a backup", from, to))
	}
	for v := from + 1; v <= to; v++ {
		m := d.Migrations[v-1]
		steps = append(steps, Step{Version: v, Name: m.Name, Statements: m.Statements})
	}
	return steps, nil
}

// Migrate brings a database to version to (0: the newest), one transaction a
// step, and tells report of each step done. Two that run at once do no harm: each
// step is done by one.
func Migrate(ctx context.Context, d *Dialect, uri string, o Options, to int, report func(Step)) error {
	return once(ctx, d, uri, o, func(c *pgx.Conn) error {
		if _, err := c.Exec(ctx, `CREATE TABLE IF NOT EXISTS pemba_migration (version bigint PRIMARY KEY, name text NOT NULL, applied timestamptz NOT NULL DEFAULT now())`); err != nil && !made(err) {
			return err
		}
		for {
			from, err := version(ctx, c)
			if err != nil {
				return err
			}
			steps, err := plan(d, from, to)
			if err != nil || len(steps) == 0 {
				return err
			}
			if err := migrate(ctx, d, c, steps[0]); err != nil {
				return fmt.Errorf("version %d of the tables (%s): %w", steps[0].Version, steps[0].Name, err)
			}
			report(steps[0])
		}
	})
}

// made tells the error of a table that another made at the same moment.
func made(err error) bool {
	var p *pgconn.PgError
	return errors.As(err, &p) && (p.Code == "42P07" || p.Code == "23505")
}

func migrate(ctx context.Context, d *Dialect, c *pgx.Conn, s Step) error {
	for _, statement := range s.Statements {
		if _, err := c.Exec(ctx, statement); err != nil && !made(err) {
			return err
		}
	}
	_, err := c.Exec(ctx, `INSERT INTO pemba_migration (version, name) VALUES ($1, $2) ON CONFLICT (version) DO NOTHING`, s.Version, s.Name)
	return err
}

// once runs f on a connection of its own.
func once(ctx context.Context, d *Dialect, uri string, o Options, f func(*pgx.Conn) error) error {
	l := &Log{dialect: d}
	config, err := config(d, uri, o.Password)
	if err != nil {
		return err
	}
	c, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return l.problem(ctx, err)
	}
	defer c.Close(context.WithoutCancel(ctx))
	return l.named(ctx, f(c))
}
