package keeper_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/tuple"
)

const matchSchema = `use expiration
caveat on_day(day string) { day == "monday" }
definition user {}
definition group { relation member: user | group#member  relation owner: user }
definition folder { relation viewer: user | user:* | group#member }
definition document {
	relation viewer: user | group#member | user with on_day | user with expiration
	relation owner: user
	permission view = viewer
}`

var matchRows = []string{
	"group:a#member@user:a", "group:a#member@user:b", "group:b#member@group:a#member", "group:ab#owner@user:a",
	"folder:a#viewer@user:*", "folder:b#viewer@group:a#member", "folder:a#viewer@user:ab",
	"document:a#viewer@user:a", "document:a#owner@user:b", "document:ab#viewer@group:ab#member", `document:b#viewer@user:c[on_day:{"day":"monday"}]`,
	"document:b#viewer@user:b[expiration:2999-01-01T00:00:00Z]", "document:c#owner@user:a",
}

// TestEveryFilterFindsWhatItSelects: whatever a filter looks like, a precondition
// on it and a deletion by it agree with looking at each relationship, in memory
// and out of it.
func TestEveryFilterFindsWhatItSelects(t *testing.T) {
	type node struct {
		k    *keeper.Keeper
		name string
	}
	nodes := []node{
		{openWith(t, keeper.Options{}), "in memory"},
		{openWith(t, keeper.Options{ResidentMaxRelationships: 1}), "out of memory"},
	}
	pick := func(t *rapid.T, name string, values ...string) string { return rapid.SampledFrom(values).Draw(t, name) }
	rapid.Check(t, func(rt *rapid.T) {
		f := tuple.Filter{ObjectType: pick(rt, "type", "", "", "document", "group", "folder", "user")}
		if f.ObjectType != "" {
			if f.ObjectID = pick(rt, "id", "", "", "a", "ab", "z"); f.ObjectID == "" {
				f.ObjectIDPrefix = pick(rt, "prefix", "", "a", "b", "z")
			}
		}
		f.Relation = pick(rt, "relation", "", "", "viewer", "member", "owner", "view", "nothing")
		if f.Subject.Type = pick(rt, "subject type", "", "", "user", "group"); f.Subject.Type != "" {
			if f.Subject.ID = pick(rt, "subject id", "", "", "a", "b", "*"); f.Subject.ID == "" {
				f.Subject.IDPrefix = pick(rt, "subject prefix", "", "a", "z")
			}
		}
		f.Subject.Relation = pick(rt, "subject relation", "", "", "...", "member")
		f.Caveat = pick(rt, "caveat", "", "", "", "on_day")
		switch rapid.IntRange(0, 5).Draw(rt, "expires") {
		case 0:
			yes := true
			f.Expires = &yes
		case 1:
			no := false
			f.Expires = &no
		}
		if f.IsZero() {
			return
		}
		want := 0
		for _, text := range matchRows {
			if f.Matches(rel(t, text)) {
				want++
			}
		}
		for _, n := range nodes {
			_, err := n.k.Write(bg, datastore.Default, datastore.Request{Preconditions: []datastore.Precondition{{Filter: f, MustMatch: true}}})
			if (err == nil) != (want > 0) {
				rt.Fatalf("%s, %s selects %d, and the precondition says %v", n.name, f, want, err)
			}
			o, err := n.k.Write(bg, datastore.Default, datastore.Request{DeleteWhere: &f})
			if err != nil || o.Deleted != want {
				rt.Fatalf("%s, %s selects %d, and %d were deleted, %v", n.name, f, want, o.Deleted, err)
			}
			if _, err := n.k.Write(bg, datastore.Default, updating(t, datastore.Touch, matchRows...)); err != nil {
				rt.Fatal(err)
			}
		}
	})
}

func openWith(t *testing.T, o keeper.Options) *keeper.Keeper {
	k := open(t, memory.New(), o)
	write(t, k, applying(matchSchema))
	write(t, k, updating(t, datastore.Touch, matchRows...))
	return k
}

// TestAFilterThatAnIndexNarrowsReadsNoMore: a precondition on a small type costs
// no more because another type is large.
func TestAFilterThatAnIndexNarrowsReadsNoMore(t *testing.T) {
	k := openWithSchema(t, memory.New(), keeper.Options{})
	n := filled(t, k, "large", 20_000)
	if _, err := k.Write(bg, n.id, updating(t, datastore.Touch, "group:g#member@user:u1")); err != nil {
		t.Fatal(err)
	}
	took := func(f tuple.Filter) time.Duration {
		best := time.Hour
		for range 5 {
			began := time.Now()
			if _, err := k.Write(bg, n.id, datastore.Request{Preconditions: []datastore.Precondition{{Filter: f}}}); err != nil {
				t.Fatal(err)
			}
			best = min(best, time.Since(began))
		}
		return best
	}
	// A document's id that nothing has must be looked for among all documents.
	whole := took(tuple.Filter{ObjectType: "document", ObjectIDPrefix: "none"})
	for name, f := range map[string]tuple.Filter{
		"another type":                {ObjectType: "folder"},
		"a caveat":                    {ObjectType: "group", Caveat: "on_day"},
		"a prefix in a small type":    {ObjectType: "group", ObjectIDPrefix: "none"},
		"a subject's type, by prefix": {Subject: tuple.SubjectFilter{Type: "group", IDPrefix: "none"}},
	} {
		if narrow := took(f); narrow > whole/3 && narrow > 10*time.Millisecond {
			t.Errorf("%s: %v, where all documents take %v", name, narrow, whole)
		}
	}
}
