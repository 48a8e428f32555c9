package graph_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/datastore/sql/sqltest"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// soak asks for many more random worlds.
var soak = sqltest.Soak

func TestMain(m *testing.M) { sqltest.Main(m) }

// newStore applies a schema and writes relationships; it returns the snapshot in
// memory and one read directly, at the same revision.
func newStore(t testing.TB, text string, relationships []string) (resident, direct datastore.Snapshot) {
	t.Helper()
	k, err := keeper.Open(memory.New(), keeper.Options{DirectWidth: 64, LoadPatience: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	ctx := context.Background()
	if _, err := k.Write(ctx, datastore.Default, datastore.Request{Schema: &datastore.SchemaUpdate{Text: text}}); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var zookie string
	for len(relationships) > 0 {
		n := min(len(relationships), 1000)
		var r datastore.Request
		for _, s := range relationships[:n] {
			rel, err := tuple.Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			r.Updates = append(r.Updates, datastore.Update{Kind: datastore.Touch, Relationship: rel})
		}
		relationships = relationships[n:]
		o, err := k.Write(ctx, datastore.Default, r)
		if err != nil {
			t.Fatal(err)
		}
		zookie = o.Zookie
	}
	if resident, err = k.At(ctx, datastore.Default, datastore.Consistency{Level: datastore.FullyConsistent}); err != nil {
		t.Fatal(err)
	}
	if zookie == "" {
		zookie = resident.Zookie()
	}
	// Another schema text makes a later revision, so that the exact one is direct.
	if _, err := k.Write(ctx, datastore.Default, datastore.Request{Schema: &datastore.SchemaUpdate{Text: text + "\n// later"}}); err != nil {
		t.Fatal(err)
	}
	if direct, err = k.At(ctx, datastore.Default, datastore.Consistency{Level: datastore.AtExactSnapshot, Zookie: zookie}); err != nil {
		t.Fatal(err)
	}
	if direct.Width() != 64 || resident.Width() != 1 {
		t.Fatalf("widths are %d and %d, want 64 direct and 1 resident", direct.Width(), resident.Width())
	}
	return resident, direct
}

func question(t testing.TB, text string) graph.Question {
	t.Helper()
	r, err := tuple.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return graph.Question{Resource: r.Object, Permission: r.Relation, Subject: r.Subject}
}

func show(a graph.Answer, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	return strings.TrimSpace([]string{"no", "yes", "conditional"}[a.Outcome] + " " + strings.Join(a.Missing, " "))
}

const documents = `
use self
use expiration
caveat on(day string) { day == "monday" }
caveat in(place string) { place == "office" }
definition user { permission me = self }
definition group { relation member: user | group#member | user with on  relation public: user:*  permission accept = member + public }
definition folder { relation parent: folder  relation viewer: user | group#member | user with in  permission view = viewer + parent->view }
definition document {
  relation parent: folder
  relation owner: user
  relation banned: user | user:* | group#member
  relation viewer: user | user:* | group#member | group#member with on | user with expiration
  relation approver: group
  permission view = (owner + viewer + parent->view) - banned
  permission sign = view & approver.all(accept)
  permission ponder = viewer - ponder
  permission calm = nil
}`

func TestCheckSaysWhatTheSchemaMeans(t *testing.T) {
	resident, direct := newStore(t, documents, []string{
		"group:eng#member@user:ada", "group:all#member@group:eng#member", "group:eng#member@group:all#member", // a circle
		`group:late#member@user:eve[on]`, "group:open#public@user:*",
		"folder:root#viewer@group:all#member", "folder:sub#parent@folder:root", "folder:sub#viewer@user:joe[in]",
		"document:d#parent@folder:sub", "document:d#owner@user:kim", "document:d#banned@user:mallory", "document:d#viewer@user:mallory",
		"document:d#viewer@group:late#member[on]", "document:d#approver@group:eng", "document:d#approver@group:open",
		"document:pub#viewer@user:*", "document:pub#banned@group:eng#member",
		"document:old#viewer@user:ada[expiration:2020-01-01T00:00:00Z]", "document:new#viewer@user:ada[expiration:2999-01-01T00:00:00Z]",
	})
	for q, want := range map[string]string{
		"document:d#view@user:ada":            "yes",
		"document:d#view@user:kim":            "yes",
		"document:d#view@user:mallory":        "no",
		"document:d#view@user:eve":            "conditional day",
		"document:d#view@user:joe":            "conditional place",
		"document:d#view@user:nobody":         "no",
		"document:nowhere#view@user:ada":      "no",
		"document:d#sign@user:ada":            "yes",
		"document:d#sign@user:kim":            "no",
		"document:pub#sign@user:kim":          "no", // nobody approves
		"document:pub#view@user:kim":          "yes",
		"document:pub#view@user:ada":          "no",
		"document:old#view@user:ada":          "no",
		"document:new#view@user:ada":          "yes",
		"document:d#calm@user:ada":            "no",
		"document:d#view@group:eng#member":    "yes",
		"document:pub#view@group:all#member":  "no", // a wildcard is about objects
		"group:eng#member@group:eng#member":   "yes",
		"group:gone#member@group:gone#member": "yes",
		"group:eng#member@group:all#member":   "yes",
		"user:ghost#me@user:ghost":            "yes",
		"user:ghost#me@user:ada":              "no",
		"document:d#ponder@user:kim":          "no",
		"document:d#ponder@user:mallory":      "error: the answer depends on itself through an exclusion: document:d#ponder; take the exclusion out of the circle",
		"document:d#vew@user:ada":             `error: relation or permission "vew" of type "document" is unknown to the schema; did you mean "view"?`,
		"documnt:d#view@user:ada":             `error: type "documnt" is unknown to the schema; did you mean "document"?`,
		"document:d#view@user:*":              "error: invalid question: subject user:* stands for everybody; ask about one, or expand the resource",
	} {
		for _, s := range []datastore.Snapshot{resident, direct} {
			a, err := graph.Check(t.Context(), s, question(t, q), time.Now(), graph.Limits{})
			if got := show(a, err); got != want {
				t.Errorf("%s at width %d: %s, want %s", q, s.Width(), got, want)
			}
		}
	}
}

func TestContextDecidesAndContextualRelationshipsCount(t *testing.T) {
	resident, direct := newStore(t, documents, []string{"folder:f#viewer@user:joe[in]", "document:d#parent@folder:f"})
	for _, s := range []datastore.Snapshot{resident, direct} {
		q := question(t, "document:d#view@user:joe")
		for _, c := range []struct{ context, want string }{{`{"place":"office"}`, "yes"}, {`{"place":"home"}`, "no"}, {`{}`, "conditional place"}} {
			var err error
			if q.Context, err = schema.ParseContext(c.context); err != nil {
				t.Fatal(err)
			}
			if got := show(graph.Check(t.Context(), s, q, time.Now(), graph.Limits{})); got != c.want {
				t.Errorf("with %s: %s, want %s", c.context, got, c.want)
			}
		}
		q = question(t, "document:new#view@user:amy")
		for _, r := range []string{"document:new#parent@folder:made", "folder:made#viewer@group:fresh#member", "group:fresh#member@user:amy"} {
			rel, _ := tuple.Parse(r)
			q.Contextual = append(q.Contextual, rel)
		}
		if got := show(graph.Check(t.Context(), s, q, time.Now(), graph.Limits{})); got != "yes" {
			t.Errorf("with contextual relationships: %s", got)
		}
		bad, _ := tuple.Parse("document:new#owner@group:x#member")
		q.Contextual = []tuple.Relationship{bad}
		if _, err := graph.Check(t.Context(), s, q, time.Now(), graph.Limits{}); !errors.Is(err, graph.ErrInvalid) {
			t.Errorf("a contextual relationship that the schema refuses gives %v", err)
		}
	}
}

func TestDeepWideAndCircularGroupsEndInAnAnswer(t *testing.T) {
	const text = `definition user {} definition group { relation member: user | group#member  relation not: group  permission in = member - not->in }`
	var chain, circle []string
	for i := range 10_000 {
		chain = append(chain, fmt.Sprintf("group:%d#member@group:%d#member", i, i+1))
		circle = append(circle, fmt.Sprintf("group:%d#member@group:%d#member", i, (i+1)%10_000))
	}
	chain = append(chain, "group:10000#member@user:ada")
	for name, c := range map[string]struct {
		relationships []string
		want          string
	}{"chain": {chain, "yes"}, "circle": {circle, "no"}} {
		resident, direct := newStore(t, text, c.relationships)
		for _, s := range []datastore.Snapshot{resident, direct} {
			if got := show(graph.Check(t.Context(), s, question(t, "group:0#member@user:ada"), time.Now(), graph.Limits{})); got != c.want {
				t.Errorf("%s: %s, want %s", name, got, c.want)
			}
		}
		// In memory it may be known at once that nobody is in the circle.
		_, err := graph.Check(t.Context(), direct, question(t, "group:0#member@user:ada"), time.Now(), graph.Limits{Nodes: 100})
		if !errors.Is(err, graph.ErrTooManyNodes) {
			t.Errorf("%s: over the limit of nodes: %v", name, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := graph.Check(ctx, direct, question(t, "group:0#member@user:ada"), time.Now(), graph.Limits{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: cancelled: %v", name, err)
		}
	}
}

func TestRandomWorldsAgreeWithTheReference(t *testing.T) {
	worlds := 300
	if *soak {
		worlds = 10_000
	}
	var asked, yes, conditional, failed int
	for seed := range worlds {
		w := newWorld(rand.New(rand.NewPCG(uint64(seed), 7)))
		resident, direct := newStore(t, w.schema, w.relationships)
		ref := newReference(t, resident, w)
		for _, subject := range w.subjects {
			var qs []graph.Question
			for _, resource := range w.resources {
				qs = append(qs, graph.Question{Resource: resource.object, Permission: resource.relation, Subject: subject, Context: w.context})
			}
			want := ref.solve(subject)
			for _, s := range []datastore.Snapshot{resident, direct} {
				answers, errs := graph.CheckBulk(t.Context(), s, qs, w.now, graph.Limits{})
				for i, q := range qs {
					a, err := graph.Check(t.Context(), s, q, w.now, graph.Limits{})
					ask := show(a, err)
					if bulk := show(answers[i], errs[i]); bulk != ask {
						t.Fatalf("seed %d: %s at width %d: alone %s, in bulk %s\n%s", seed, q, s.Width(), ask, bulk, w)
					}
					expected := want[w.resources[i]]
					if err != nil {
						ask = "error"
					}
					if ask != expected {
						t.Fatalf("seed %d: %s at width %d: %s, the reference says %s (%v)\n%s", seed, q, s.Width(), ask, expected, err, w)
					}
					asked++
					switch {
					case err != nil:
						failed++
					case a.Outcome == graph.Yes:
						yes++
					case a.Outcome == graph.Conditional:
						conditional++
					}
				}
			}
		}
	}
	t.Logf("%d questions: %d yes, %d conditional, %d errors", asked, yes, conditional, failed)
	if yes == 0 || conditional == 0 || failed == 0 || yes+conditional+failed > asked*9/10 {
		t.Error("the worlds are too uniform to show anything")
	}
}

// The questions of one call share a budget: what would visit ten times the nodes
// of one question is refused for the rest, and what was answered stays answered.
func TestABulkHasABudgetForAllItsQuestions(t *testing.T) {
	const text = `definition user {} definition group { relation member: user | group#member }`
	var chain []string
	for i := range 60 {
		chain = append(chain, fmt.Sprintf("group:%d#member@group:%d#member", i, i+1))
	}
	_, direct := newStore(t, text, chain)
	var qs []graph.Question
	for i := range 200 {
		qs = append(qs, question(t, fmt.Sprintf("group:0#member@user:%d", i)))
	}
	_, errs := graph.CheckBulk(t.Context(), direct, qs, time.Now(), graph.Limits{Nodes: 100})
	answered, refused := 0, 0
	for _, err := range errs {
		switch {
		case err == nil:
			answered++
		case errors.Is(err, graph.ErrTooManyNodes) && strings.Contains(err.Error(), "ask fewer in a call"):
			refused++
		default:
			t.Fatal(err)
		}
	}
	// 1,000 nodes are those of sixteen questions; some are under way at once.
	if answered < 10 || answered > 40 || refused == 0 {
		t.Errorf("%d answered, %d refused", answered, refused)
	}
}
