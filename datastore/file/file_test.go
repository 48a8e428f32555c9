package file_test

import (
	"path/filepath"
	"testing"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/datastoretest"
	"github.com/pembadb/pemba/datastore/file"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/datastore/sql/sqltest"
)

func open(t *testing.T, path string, o file.Options) *file.Log {
	t.Helper()
	log, err := file.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	return log
}

func empty(t *testing.T) datastore.Log {
	return open(t, filepath.Join(t.TempDir(), "pemba.db"), file.Options{})
}

func TestAFileIsALog(t *testing.T) { datastoretest.Run(t, empty) }

func TestTheKeeperOverFile(t *testing.T) { datastoretest.RunKeeper(t, empty) }

func TestAVerificationOfAFile(t *testing.T) {
	datastoretest.RunVerify(t, func(t *testing.T) (datastore.Log, datastoretest.Hand) {
		log := open(t, filepath.Join(t.TempDir(), "pemba.db"), file.Options{})
		return log, file.HandOf(log)
	})
}

func TestABackupOfAFile(t *testing.T) {
	forgetful := func(*testing.T) datastore.Log { return memory.New() }
	for name, to := range map[string]func(*testing.T) datastore.Log{"in a file": empty, "in memory": forgetful} {
		t.Run(name, func(t *testing.T) { datastoretest.RunBackup(t, empty, to) })
	}
	t.Run("of memory in a file", func(t *testing.T) { datastoretest.RunBackup(t, forgetful, empty) })
}

func TestAProcessIsKilledWhileItRestores(t *testing.T) {
	sqltest.RunKilledRestore(t, "file:"+filepath.Join(t.TempDir(), "pemba.db"))
}
