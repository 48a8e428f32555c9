package sql_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pembadb/pemba/datastore/sql"
	"github.com/pembadb/pemba/datastore/sql/cockroach"
	"github.com/pembadb/pemba/datastore/sql/postgres"
	"github.com/pembadb/pemba/datastore/sql/sqltest"
)

var bg = context.Background()

func TestMain(m *testing.M) { sqltest.Main(m) }

// Every statement takes its index by a plan that serves all values, on tables
// without statistics and on tables with them.
func TestEveryStatementTakesItsIndexInPostgres(t *testing.T) {
	uri := sqltest.Postgres(t)
	if err := sql.Migrate(bg, postgres.Dialect, uri, sql.Options{}, 0, func(sql.Step) {}); err != nil {
		t.Fatal(err)
	}
	config, err := pgx.ParseConfig(uri)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range postgres.Dialect.Settings {
		config.RuntimeParams[k] = v
	}
	c, err := pgx.ConnectConfig(bg, config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(bg)
	exec := func(statement string) {
		t.Helper()
		if _, err := c.Exec(bg, statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	check := func(when string) {
		for name, s := range sql.Statements(postgres.Dialect) {
			exec("PREPARE planned AS " + s.Text)
			nulls := strings.TrimSuffix(strings.Repeat("NULL, ", s.Parameters), ", ")
			rows, err := c.Query(bg, "EXPLAIN EXECUTE planned ("+nulls+")", pgx.QueryExecModeSimpleProtocol)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatal(err)
			}
			plan := strings.Join(lines, "\n")
			if strings.Contains(plan, "Seq Scan") || !s.Sorts && strings.Contains(plan, "Sort") || !strings.Contains(plan, s.Index) ||
				!strings.Contains(plan, "Index Cond") {
				t.Errorf("%s, %s:\n%s\n%s", when, name, s.Text, plan)
			}
			exec("DEALLOCATE planned")
		}
	}
	identities := func(when string) {
		for name, s := range sql.IdentityStatements() {
			exec("PREPARE planned AS " + s.Text)
			for range 7 { // from the sixth on the plan is one for all values, if PostgreSQL thinks so
				rows, err := c.Query(bg, "EXPLAIN EXECUTE planned ("+s.Values+")", pgx.QueryExecModeSimpleProtocol)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
				if err != nil {
					t.Fatal(err)
				}
				plan := strings.Join(lines, "\n")
				conds := ""
				for _, line := range lines {
					if strings.Contains(line, "Index Cond") {
						conds += line
					}
				}
				if strings.Contains(plan, "Seq Scan") || !strings.Contains(conds, s.Cond) {
					t.Fatalf("%s, %s:\n%s\n%s", when, name, s.Text, plan)
				}
			}
			exec("DEALLOCATE planned")
		}
	}
	check("empty")
	identities("empty")
	exec(`INSERT INTO pemba_identity SELECT 1, 'user', 'u' || n, n, 1, 1, 'salt', 'attributes' FROM generate_series(1, 20000) AS n`)
	exec(`INSERT INTO pemba_identity_key SELECT 1, 'user', 'userName', 'x' || n, 'u' || n FROM generate_series(1, 20000) AS n`)
	exec(`INSERT INTO pemba_relationship SELECT 1 + n % 3, 'document', 'd' || n, 'viewer', 'user', 'u' || n % 100, '', n, 9223372036854775807, '', '', NULL FROM generate_series(1, 20000) AS n`)
	exec(`INSERT INTO pemba_change SELECT 1 + n % 3, n, 0, 1, convert_to('r' || n, 'UTF8'), '', '', '' FROM generate_series(1, 20000) AS n`)
	exec(`INSERT INTO pemba_head SELECT n, '', 0, 0, '', 0, 0, '', false FROM generate_series(1, 3) AS n`)
	check("filled")
	identities("filled")
	exec("ANALYZE")
	check("analyzed")
	identities("analyzed")
	t.Log(fmt.Sprint(len(sql.Statements(postgres.Dialect)), " statements"))
}

// Every statement takes its index in CockroachDB, and reads no table whole.
func TestEveryStatementTakesItsIndexInCockroach(t *testing.T) {
	uri := sqltest.Cockroach(t)
	if err := sql.Migrate(bg, cockroach.Dialect, uri, sql.Options{}, 0, func(sql.Step) {}); err != nil {
		t.Fatal(err)
	}
	c, err := pgx.Connect(bg, uri)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(bg)
	check := func(when string) {
		for name, s := range sql.Statements(cockroach.Dialect) {
			rows, err := c.Query(bg, "EXPLAIN "+s.Text, s.Args...)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, s.Text)
			}
			plan := strings.Join(lines, "\n")
			if strings.Contains(plan, "FULL SCAN") || !strings.Contains(plan, "@"+s.Index) {
				t.Errorf("%s, %s:\n%s\n%s", when, name, s.Text, plan)
			}
		}
	}
	check("empty")
	for _, statement := range []string{
		`INSERT INTO pemba_relationship SELECT 1 + n % 3, 'document', 'd' || n::STRING, 'viewer', 'user', 'u' || (n % 100)::STRING, '', n, 9223372036854775807, '', '', NULL FROM generate_series(1, 5000) AS g (n)`,
		`ANALYZE pemba_relationship`,
	} {
		if _, err := c.Exec(bg, statement); err != nil {
			t.Fatal(err)
		}
	}
	check("analyzed")
}
