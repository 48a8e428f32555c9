package memory_test

import (
	"testing"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/datastoretest"
	"github.com/pembadb/pemba/datastore/memory"
)

func empty(t *testing.T) datastore.Log {
	log := memory.New()
	t.Cleanup(func() { log.Close() })
	return log
}

func TestMemoryIsALog(t *testing.T) { datastoretest.Run(t, empty) }

func TestTheKeeperOverMemory(t *testing.T) { datastoretest.RunKeeper(t, empty) }

func TestAVerificationOfMemory(t *testing.T) {
	datastoretest.RunVerify(t, func(t *testing.T) (datastore.Log, datastoretest.Hand) {
		log := memory.New()
		t.Cleanup(func() { log.Close() })
		return log, memory.HandOf(log)
	})
}

func TestABackupOfMemory(t *testing.T) { datastoretest.RunBackup(t, empty, empty) }
