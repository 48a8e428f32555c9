package sqltest

import (
	"slices"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/tuple"
)

// RunSuspended suspends and reactivates a user on one node. Others, one that has
// the store in memory and one that reads it directly, must deny it at once when they
// are asked with the suspension's zookie, and at minimize_latency when the staleness
// bound passes at the latest; reactivation gives everything back alike.
func (target Target) RunSuspended(t *testing.T) {
	uri := target.Empty(t)
	open := func(o keeper.Options) *keeper.Keeper {
		o.MaxStaleness = time.Second
		k, err := keeper.Open(openAt(t, target, uri), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { k.Close() })
		return k
	}
	writer, others := open(keeper.Options{}), map[string]*keeper.Keeper{"resident": open(keeper.Options{}), "direct": open(keeper.Options{ResidentMaxRelationships: 1})}
	write := func(r datastore.Request) string {
		t.Helper()
		o, err := writer.Write(bg, datastore.Default, r)
		if err != nil {
			t.Fatal(err)
		}
		return o.Zookie
	}
	write(datastore.Request{Schema: &datastore.SchemaUpdate{Text: "definition user {}\ndefinition group { relation member: user }\ndefinition document { relation viewer: user | user:* | group#member }"}})
	eve := tuple.Object{Type: "user", ID: "eve"}
	put := func(s datastore.IdentityState) string {
		return write(datastore.Request{Identities: []datastore.IdentityUpdate{{Object: eve, Kind: datastore.User, State: s}}})
	}
	put(datastore.Active)
	for _, text := range []string{"group:g#member@user:eve", "document:d#viewer@group:g#member", "document:open#viewer@user:*"} {
		write(touch("", text))
	}
	may := func(k *keeper.Keeper, c datastore.Consistency, document string) bool {
		t.Helper()
		s, err := k.At(bg, datastore.Default, c)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		a, err := graph.Check(bg, s, graph.Question{Resource: tuple.Object{Type: "document", ID: document}, Permission: "viewer", Subject: tuple.Subject{Object: eve}}, time.Now(), graph.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		return a.Outcome == graph.Yes
	}
	var took []time.Duration
	for round := range 10 {
		state, want := datastore.Suspended, false
		if round%2 == 1 {
			state, want = datastore.Active, true
		}
		zookie, began := put(state), time.Now()
		for name, k := range others {
			if round%4 < 2 { // before anything else told the node
				for _, document := range []string{"d", "open"} {
					if may(k, datastore.Consistency{Level: datastore.AtLeastAsFresh, Zookie: zookie}, document) != want {
						t.Errorf("%s node, round %d: with the zookie, %s is answered %t", name, round, document, !want)
					}
				}
				continue
			}
			for may(k, datastore.Consistency{}, "d") != want || may(k, datastore.Consistency{}, "open") != want {
				if time.Since(began) > 20*time.Second {
					t.Fatalf("%s node, round %d: it is not seen", name, round)
				}
				time.Sleep(100 * time.Microsecond)
			}
			took = append(took, time.Since(began))
		}
	}
	slices.Sort(took)
	t.Logf("at minimize_latency after %s (median), %s (slowest); the bound is a second", took[len(took)/2], took[len(took)-1])
}
