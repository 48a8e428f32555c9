package postgres_test

import (
	"context"
	"strings"
	"testing"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/datastoretest"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/datastore/sql"
	"github.com/pembadb/pemba/datastore/sql/postgres"
	"github.com/pembadb/pemba/datastore/sql/sqltest"
)

var bg = context.Background()

func TestMain(m *testing.M) { sqltest.Main(m) }

// migrated returns the URI of an empty, migrated database.
func migrated(t testing.TB) string {
	t.Helper()
	uri := sqltest.Postgres(t)
	if err := sql.Migrate(bg, postgres.Dialect, uri, sql.Options{}, 0, func(sql.Step) {}); err != nil {
		t.Fatal(err)
	}
	return uri
}

func open(t testing.TB, uri string) *sql.Log {
	t.Helper()
	log, err := postgres.Open(bg, uri, sql.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return log
}

func empty(t *testing.T) datastore.Log { return open(t, migrated(t)) }

func TestPostgresIsALog(t *testing.T) { datastoretest.Run(t, empty) }

func TestTheKeeperOverPostgres(t *testing.T) { datastoretest.RunKeeper(t, empty) }

func TestAVerificationInPostgres(t *testing.T) {
	sqltest.RunVerify(t, sqltest.Target{Scheme: "postgres", Empty: migrated, Open: postgres.Open})
}

func TestFaultsInPostgres(t *testing.T) {
	sqltest.RunFaults(t, sqltest.Target{Scheme: "postgres", Empty: migrated, Open: postgres.Open})
}

func BenchmarkPostgres(b *testing.B) {
	sqltest.RunBenchmarks(b, sqltest.Target{Scheme: "postgres", Empty: migrated, Open: postgres.Open})
}

func TestProcessesOnPostgresAreKilled(t *testing.T) {
	target := sqltest.Target{Scheme: "postgres", Empty: migrated, Open: postgres.Open}
	target.RunProcesses(t, sqltest.RestartPostgres)
}

func TestTheNewEnemyInPostgres(t *testing.T) {
	target := sqltest.Target{Scheme: "postgres", Empty: migrated, Open: postgres.Open}
	target.RunNewEnemy(t)
}

func TestALeaseInPostgres(t *testing.T) {
	target := sqltest.Target{Scheme: "postgres", Empty: migrated, Open: postgres.Open}
	target.RunLease(t)
}

func TestAWriteIsHeardOfOnOtherNodesOfPostgres(t *testing.T) {
	target := sqltest.Target{Scheme: "postgres", Empty: migrated, Open: postgres.Open}
	target.RunHeard(t)
}

func TestPagesOfTwoNodesOnPostgres(t *testing.T) {
	target := sqltest.Target{Scheme: "postgres", Empty: migrated, Open: postgres.Open}
	target.RunPages(t)
}

func TestAWatcherIsKilledAndResumedOnPostgres(t *testing.T) {
	target := sqltest.Target{Scheme: "postgres", Empty: migrated, Open: postgres.Open}
	target.RunWatch(t)
}

func TestASuspensionIsSeenOnOtherNodesOfPostgres(t *testing.T) {
	target := sqltest.Target{Scheme: "postgres", Empty: migrated, Open: postgres.Open}
	target.RunSuspended(t)
}

func TestABackupOfPostgres(t *testing.T) {
	forgetful := func(*testing.T) datastore.Log { return memory.New() }
	t.Run("restored in memory", func(t *testing.T) { datastoretest.RunBackup(t, empty, forgetful) })
	t.Run("of memory restored in it", func(t *testing.T) { datastoretest.RunBackup(t, forgetful, empty) })
}

func TestARestoreAmongNodesOfPostgres(t *testing.T) {
	target := sqltest.Target{Scheme: "postgres", Empty: migrated, Open: postgres.Open}
	target.RunRestore(t)
}

func TestAProcessIsKilledWhileItRestoresToPostgres(t *testing.T) {
	if !*sqltest.Soak {
		t.Skip("it waits half a minute for a lease to run out; run it with -soak")
	}
	_, rest, _ := strings.Cut(migrated(t), "://")
	sqltest.RunKilledRestore(t, "postgres://"+rest)
}

func TestARollingRestartOnPostgres(t *testing.T) {
	target := sqltest.Target{Scheme: "postgres", Empty: migrated, Open: postgres.Open}
	target.RunRolling(t)
}
