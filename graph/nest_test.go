package graph_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/tuple"
)

const nestedGroups = `
use expiration
caveat on(day string) { day == "monday" }
caveat in(place string) { place == "office" }
definition user {}
definition team { relation member: user | team#member | group#member with in | team#lead  relation lead: user with on | team#lead }
definition group { relation member: user | user with on | group#member | group#member with in | team#member | user with expiration | group#member with expiration }
definition document {
  relation member: user | group#member | document#member
  relation viewer: user | user:* | group#member with on | team#lead
  permission view = viewer + member - team->member
  relation team: team
  relation folder: folder
  permission see = view + folder->see
  permission every = folder.all(see)
}
definition folder {
  relation parent: folder | folder with in
  relation viewer: user | user with on | user with expiration | group#member
  permission see = viewer + parent->see
}`

// history changes a store of nested groups at random, and says what it did.
type history struct {
	r    *rand.Rand
	keys []tuple.Key
}

func (h *history) update() datastore.Update {
	r := h.r
	if len(h.keys) > 0 && r.IntN(4) == 0 {
		return datastore.Update{Kind: datastore.Delete, Relationship: tuple.Relationship{Key: h.keys[r.IntN(len(h.keys))]}}
	}
	texts := []string{
		"team:%d#member@user:%d", "team:%d#member@team:%d#member", "team:%d#member@group:%d#member[in]", "team:%d#member@team:%d#lead",
		"team:%d#lead@user:%d[on]", "team:%d#lead@team:%d#lead",
		"group:%d#member@user:%d", "group:%d#member@user:%d[on]", "group:%d#member@group:%d#member", `group:%d#member@group:%d#member[in:{"place":"home"}]`,
		"group:%d#member@group:%d#member[in]", "group:%d#member@team:%d#member", "group:%d#member@user:%d[expiration:2020-01-01T00:00:00Z]",
		"group:%d#member@group:%d#member[expiration:2020-01-01T00:00:00Z]", "group:%d#member@group:%d#member[expiration:2999-01-01T00:00:00Z]",
		"document:%d#member@user:%d", "document:%d#member@group:%d#member", "document:%d#member@document:%d#member",
		"document:%d#viewer@user:%d", "document:%d#viewer@group:%d#member[on]", "document:%d#viewer@team:%d#lead", "document:%d#team@team:%d",
		"document:%d#folder@folder:%d", "folder:%d#parent@folder:%d", "folder:%d#parent@folder:%d", "folder:%d#parent@folder:%d[in]", "folder:%d#viewer@user:%d",
		"folder:%d#viewer@user:%d[on]", "folder:%d#viewer@user:%d[expiration:2020-01-01T00:00:00Z]", "folder:%d#viewer@group:%d#member",
	}
	rel, err := tuple.Parse(fmt.Sprintf(texts[r.IntN(len(texts))], r.IntN(7), r.IntN(7)))
	if err != nil {
		panic(err)
	}
	h.keys = append(h.keys, rel.Key)
	return datastore.Update{Kind: datastore.Touch, Relationship: rel}
}

// What is remembered in memory of nested groups and of folders never changes an
// answer: the same
// questions read directly say the same, caveats and circles included, at every
// revision while groups change.
func TestGroupsAndFoldersInMemoryAnswerAsReadDirectly(t *testing.T) {
	histories := 15
	if *soak {
		histories = 500
	}
	for seed := range histories {
		k, err := keeper.Open(memory.New(), keeper.Options{})
		if err != nil {
			t.Fatal(err)
		}
		h := &history{r: rand.New(rand.NewPCG(uint64(seed), 3))}
		write := func(r datastore.Request) string {
			o, err := k.Write(t.Context(), datastore.Default, r)
			if err != nil {
				t.Fatal(err)
			}
			return o.Zookie
		}
		write(datastore.Request{Schema: &datastore.SchemaUpdate{Text: nestedGroups}})
		var earlier []datastore.Snapshot
		for range 12 {
			var r datastore.Request
			touched := map[tuple.Key]bool{}
			for range 1 + h.r.IntN(6) {
				if u := h.update(); !touched[u.Relationship.Key] {
					touched[u.Relationship.Key] = true
					r.Updates = append(r.Updates, u)
				}
			}
			write(r)
			s, err := k.At(t.Context(), datastore.Default, datastore.Consistency{Level: datastore.FullyConsistent})
			if err != nil {
				t.Fatal(err)
			}
			earlier = append(earlier, s)
			// An older snapshot is asked first, so that it learns beside the newer.
			for _, s := range []datastore.Snapshot{earlier[h.r.IntN(len(earlier))], s} {
				compareDirect(t, k, s, seed)
			}
		}
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func compareDirect(t *testing.T, k *keeper.Keeper, s datastore.Snapshot, seed int) {
	t.Helper()
	ctx := context.Background()
	other, err := tuple.Parse("document:other#viewer@user:other")
	if err != nil {
		t.Fatal(err)
	}
	write := datastore.Request{Updates: []datastore.Update{{Kind: datastore.Touch, Relationship: other}}}
	if _, err := k.Write(ctx, datastore.Default, write); err != nil { // so that s is not the head
		t.Fatal(err)
	}
	direct, err := k.At(ctx, datastore.Default, datastore.Consistency{Level: datastore.AtExactSnapshot, Zookie: s.Zookie()})
	if err != nil {
		t.Fatal(err)
	}
	for _, resource := range []string{"team:%d#member", "team:%d#lead", "group:%d#member", "document:%d#member", "document:%d#view", "folder:%d#see", "document:%d#see", "document:%d#every"} {
		for i := range 7 {
			for _, subject := range []string{"user:0", "user:3", "user:9", "group:1#member", "team:2#member", "team:9#lead"} {
				q := question(t, fmt.Sprintf(resource, i)+"@"+subject)
				a, errA := graph.Check(ctx, s, q, time.Now(), graph.Limits{})
				b, errB := graph.Check(ctx, direct, q, time.Now(), graph.Limits{})
				if in, read := show(a, errA), show(b, errB); in != read {
					t.Fatalf("seed %d, revision %d: %s in memory: %s, read directly: %s", seed, s.Head().Revision, q, in, read)
				}
			}
		}
	}
}
