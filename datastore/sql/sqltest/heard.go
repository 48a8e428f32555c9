package sqltest

import (
	"slices"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/sql"
	"github.com/pembadb/pemba/tuple"
)

func openAt(t *testing.T, target Target, uri string) *sql.Log {
	t.Helper()
	log, err := target.Open(bg, uri, sql.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// RunHeard tests that a write on one node is seen on another at minimize_latency
// long before the staleness bound passes.
func (target Target) RunHeard(t *testing.T) {
	uri := target.Empty(t)
	var nodes [2]*keeper.Keeper
	for i := range nodes {
		k, err := keeper.Open(openAt(t, target, uri), keeper.Options{MaxStaleness: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { k.Close() })
		nodes[i] = k
	}
	write := func(r datastore.Request) datastore.Outcome {
		t.Helper()
		r.Actor = "ada"
		o, err := nodes[0].Write(bg, datastore.Default, r)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	write(datastore.Request{Schema: &datastore.SchemaUpdate{Text: "definition user {}\ndefinition document { relation viewer: user }"}})
	seen := func() datastore.Revision {
		s, err := nodes[1].At(bg, datastore.Default, datastore.Consistency{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		return s.Head().Revision
	}
	seen()
	var took []time.Duration
	for range 20 {
		r, err := tuple.Parse("document:1#viewer@user:ada")
		if err != nil {
			t.Fatal(err)
		}
		o := write(datastore.Request{Updates: []datastore.Update{{Kind: datastore.Touch, Relationship: r}}, Reason: "again"})
		began := time.Now()
		for seen() < o.Revision {
			if time.Since(began) > 20*time.Second {
				t.Fatalf("revision %d is not seen", o.Revision)
			}
			time.Sleep(100 * time.Microsecond)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("seen after %s (median), %s (slowest)", took[len(took)/2], took[len(took)-1])
}
