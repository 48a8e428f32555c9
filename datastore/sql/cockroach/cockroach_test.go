package cockroach_test

import (
	"context"
	"strings"
	"testing"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/datastoretest"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/datastore/sql"
	"github.com/pembadb/pemba/datastore/sql/cockroach"
	"github.com/pembadb/pemba/datastore/sql/sqltest"
)

var bg = context.Background()

func TestMain(m *testing.M) { sqltest.Main(m) }

// migrated returns the URI of an empty, migrated database.
func migrated(t testing.TB) string {
	t.Helper()
	uri := sqltest.Cockroach(t)
	if err := sql.Migrate(bg, cockroach.Dialect, uri, sql.Options{}, 0, func(sql.Step) {}); err != nil {
		t.Fatal(err)
	}
	return uri
}

func open(t testing.TB, uri string) *sql.Log {
	t.Helper()
	log, err := cockroach.Open(bg, uri, sql.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return log
}

func empty(t *testing.T) datastore.Log { return open(t, migrated(t)) }

func TestCockroachIsALog(t *testing.T) { datastoretest.Run(t, empty) }

func TestTheKeeperOverCockroach(t *testing.T) { datastoretest.RunKeeper(t, empty) }

func TestAVerificationInCockroach(t *testing.T) {
	sqltest.RunVerify(t, sqltest.Target{Scheme: "cockroachdb", Empty: migrated, Open: cockroach.Open})
}

func TestFaultsInCockroach(t *testing.T) {
	sqltest.RunFaults(t, sqltest.Target{Scheme: "cockroachdb", Empty: migrated, Open: cockroach.Open})
}

func BenchmarkCockroach(b *testing.B) {
	sqltest.RunBenchmarks(b, sqltest.Target{Scheme: "cockroachdb", Empty: migrated, Open: cockroach.Open})
}

func TestProcessesOnCockroachAreKilled(t *testing.T) {
	target := sqltest.Target{Scheme: "cockroachdb", Empty: migrated, Open: cockroach.Open}
	target.RunProcesses(t, func() error { return nil })
}

func TestProcessesOnThreeCockroachNodes(t *testing.T) {
	target := sqltest.Target{Scheme: "cockroachdb", Open: cockroach.Open}
	target.RunProcessesOnThreeNodes(t, func(uri string) error {
		return sql.Migrate(bg, cockroach.Dialect, uri, sql.Options{}, 0, func(sql.Step) {})
	})
}

func TestTheNewEnemyInCockroach(t *testing.T) {
	target := sqltest.Target{Scheme: "cockroachdb", Empty: migrated, Open: cockroach.Open}
	target.RunNewEnemy(t)
}

func TestALeaseInCockroach(t *testing.T) {
	target := sqltest.Target{Scheme: "cockroachdb", Empty: migrated, Open: cockroach.Open}
	target.RunLease(t)
}

func TestAWriteIsHeardOfOnOtherNodesOfCockroach(t *testing.T) {
	target := sqltest.Target{Scheme: "cockroachdb", Empty: migrated, Open: cockroach.Open}
	target.RunHeard(t)
}

func TestPagesOfTwoNodesOnCockroach(t *testing.T) {
	target := sqltest.Target{Scheme: "cockroachdb", Empty: migrated, Open: cockroach.Open}
	target.RunPages(t)
}

func TestAWatcherIsKilledAndResumedOnCockroach(t *testing.T) {
	target := sqltest.Target{Scheme: "cockroachdb", Empty: migrated, Open: cockroach.Open}
	target.RunWatch(t)
}

func TestASuspensionIsSeenOnOtherNodesOfCockroach(t *testing.T) {
	target := sqltest.Target{Scheme: "cockroachdb", Empty: migrated, Open: cockroach.Open}
	target.RunSuspended(t)
}

func TestABackupOfCockroach(t *testing.T) {
	forgetful := func(*testing.T) datastore.Log { return memory.New() }
	t.Run("restored in memory", func(t *testing.T) { datastoretest.RunBackup(t, empty, forgetful) })
	t.Run("of memory restored in it", func(t *testing.T) { datastoretest.RunBackup(t, forgetful, empty) })
}

func TestARestoreAmongNodesOfCockroach(t *testing.T) {
	target := sqltest.Target{Scheme: "cockroachdb", Empty: migrated, Open: cockroach.Open}
	target.RunRestore(t)
}

func TestAProcessIsKilledWhileItRestoresToCockroach(t *testing.T) {
	if !*sqltest.Soak {
		t.Skip("it waits half a minute for a lease to run out; run it with -soak")
	}
	_, rest, _ := strings.Cut(migrated(t), "://")
	sqltest.RunKilledRestore(t, "cockroachdb://"+rest)
}

func TestARollingRestartOnCockroach(t *testing.T) {
	target := sqltest.Target{Scheme: "cockroachdb", Empty: migrated, Open: cockroach.Open}
	target.RunRolling(t)
}
