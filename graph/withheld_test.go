package graph_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/tuple"
)

const withheldSchema = `definition user {}

definition group {
	relation member: user | group#member
}

definition document {
	relation viewer: user | user:* | group#member
	relation banned: user
	permission view = viewer - banned
}
`

// Whoever is suspended or removed has nothing, by whatever way and however it is
// asked; others, usersets among them, have what they had.
func TestASuspendedUserHasNothing(t *testing.T) {
	ctx := context.Background()
	k, err := keeper.Open(memory.New(), keeper.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	write := func(r datastore.Request) datastore.Outcome {
		t.Helper()
		o, err := k.Write(ctx, datastore.Default, r)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	write(datastore.Request{Schema: &datastore.SchemaUpdate{Text: withheldSchema}})
	var r datastore.Request
	for _, text := range []string{
		"document:direct#viewer@user:ada", "document:direct#viewer@user:bob", "document:nested#viewer@group:a#member", "group:a#member@group:b#member",
		"group:b#member@user:ada", "group:b#member@user:eve", "document:public#viewer@user:*", "document:public#banned@user:bob",
	} {
		rel, err := tuple.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		r.Updates = append(r.Updates, datastore.Update{Kind: datastore.Touch, Relationship: rel})
	}
	before := write(r)
	put := func(state datastore.IdentityState, ids ...string) (r datastore.Request) {
		for _, id := range ids {
			r.Identities = append(r.Identities, datastore.IdentityUpdate{Object: tuple.Object{Type: "user", ID: id}, Kind: datastore.User, State: state})
		}
		return r
	}
	active := write(put(datastore.Active, "ada", "carl", "eve"))
	suspended := write(put(datastore.Suspended, "ada", "carl"))
	removed := write(put(datastore.Removed, "carl"))
	again := write(put(datastore.Active, "ada"))
	for zookie, denied := range map[string][]string{
		before.Zookie: nil, active.Zookie: nil, suspended.Zookie: {"ada", "carl"}, removed.Zookie: {"ada", "carl"}, again.Zookie: {"carl"},
	} {
		for _, level := range []datastore.Level{datastore.AtExactSnapshot, datastore.AtLeastAsFresh} {
			if level == datastore.AtLeastAsFresh && zookie != again.Zookie {
				continue // answered at the head
			}
			s, err := k.At(ctx, datastore.Default, datastore.Consistency{Level: level, Zookie: zookie})
			if err != nil {
				t.Fatal(err)
			}
			for _, document := range []string{"direct", "nested", "public"} {
				hasNothing(t, s, tuple.Object{Type: "document", ID: document}, denied)
			}
		}
	}
}

// hasNothing asks every kind of question about a document.
func hasNothing(t *testing.T, s datastore.Snapshot, document tuple.Object, denied []string) {
	t.Helper()
	ctx, now := context.Background(), time.Now()
	has := map[string][]string{"direct": {"ada", "bob"}, "nested": {"ada", "eve"}, "public": {"ada", "carl", "eve"}}[document.ID]
	listed := map[string]graph.Outcome{}
	if _, err := graph.LookupSubjects(ctx, s, graph.SubjectsQuestion{Resource: document, Permission: "view", Type: "user"}, now, graph.Limits{}, graph.LookupOptions{Ordered: true}, func(f graph.Found) bool {
		listed[f.ID] = f.Answer.Outcome
		return true
	}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"ada", "bob", "carl", "eve"} {
		q := graph.Question{Resource: document, Permission: "view", Subject: tuple.Subject{Object: tuple.Object{Type: "user", ID: id}}}
		withheld := slices.Contains(denied, id)
		want := graph.No
		if slices.Contains(has, id) && !withheld {
			want = graph.Yes
		}
		a, err := graph.Check(ctx, s, q, now, graph.Limits{})
		if err != nil || a.Outcome != want {
			t.Errorf("%s at %d: %v, %v; want %v", q, s.Head().Revision, a.Outcome, err, want)
		}
		by, inList := listed[id]
		if !inList {
			by = listed[tuple.Wildcard]
		}
		if by != want {
			t.Errorf("%s at %d: the list of subjects says %v, want %v", q, s.Head().Revision, by, want)
		}
		found := false
		if _, err := graph.LookupResources(ctx, s, graph.ResourcesQuestion{Type: "document", Permission: "view", Subject: q.Subject}, now, graph.Limits{}, graph.LookupOptions{}, func(f graph.Found) bool {
			found = found || f.ID == document.ID
			return true
		}); err != nil || found != (want == graph.Yes) {
			t.Errorf("%s at %d: the list of resources has it: %t, %v", q, s.Head().Revision, found, err)
		}
		x, err := graph.Explain(ctx, s, q, now, graph.Limits{}, graph.ExplainOptions{})
		if err != nil || x.Answer.Outcome != want || (x.Reasons[0].Kind == graph.TreeWithheld) != withheld {
			t.Errorf("%s at %d: explained as %+v, %v", q, s.Head().Revision, x, err)
		}
		if found, err := graph.Suggest(ctx, s, q, now, graph.Limits{}, 3); err != nil || found.Withheld != withheld {
			t.Errorf("%s at %d: the suggestions are %+v, %v", q, s.Head().Revision, found, err)
		}
	}
	userset, err := tuple.Parse("document:nested#viewer@group:b#member")
	if err != nil {
		t.Fatal(err)
	}
	if a, err := graph.Check(ctx, s, graph.Question{Resource: document, Permission: "view", Subject: userset.Subject}, now, graph.Limits{}); err != nil || (a.Outcome == graph.Yes) != strings.HasPrefix(document.ID, "nested") {
		t.Errorf("%s of %s: %v, %v", userset.Subject, document, a.Outcome, err)
	}
}
