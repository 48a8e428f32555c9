package sqltest

import (
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore/sql"
)

// RunLease tests that one node at a time holds a lease, and that it passes on.
func (target Target) RunLease(t *testing.T) {
	uri := target.Empty(t)
	var logs []*sql.Log
	for range 2 {
		log, err := target.Open(bg, uri, sql.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { log.Close() })
		logs = append(logs, log)
	}
	holds := func(node int, name string, ttl time.Duration) bool {
		t.Helper()
		held, err := logs[node].Lease(bg, name, []string{"ada", "bob"}[node], ttl)
		if err != nil {
			t.Fatal(err)
		}
		return held
	}
	if !holds(0, "upkeep", time.Minute) || holds(1, "upkeep", time.Minute) || !holds(0, "upkeep", time.Minute) {
		t.Error("the lease is not the first one's alone")
	}
	if !holds(1, "other", time.Minute) || holds(0, "other", time.Minute) {
		t.Error("another lease is not the other one's alone")
	}
	if !holds(0, "upkeep", time.Millisecond) {
		t.Error("the lease is lost")
	}
	time.Sleep(20 * time.Millisecond)
	if !holds(1, "upkeep", time.Minute) || holds(0, "upkeep", time.Minute) {
		t.Error("a lease that is over does not pass on")
	}
}
