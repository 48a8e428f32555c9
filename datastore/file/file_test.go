package file_test

import (
	"path/filepath"
	"testing"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/datastoretest"
	"github.com/pembadb/pemba/datastore/file"
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
