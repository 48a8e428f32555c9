package graph_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// applied is a world with a suggestion's changes made: its relationships, and the
// context with values that satisfy its caveats.
func applied(t *testing.T, w *world, given map[string]any, s graph.Suggestion) *world {
	out := *w
	out.relationships = nil
	keys := map[tuple.Key]bool{}
	for _, r := range append(slices.Clone(s.Writes), s.Deletes...) {
		keys[r.Key] = true
	}
	for _, text := range w.relationships {
		if r, err := tuple.Parse(text); err != nil || !keys[r.Key] {
			out.relationships = append(out.relationships, text)
		}
	}
	for _, r := range s.Writes {
		out.relationships = append(out.relationships, r.String())
	}
	values := map[string]any{}
	for name, v := range given {
		values[name] = v
	}
	for _, n := range s.Context {
		for _, f := range n.Fields {
			values[f] = map[string]any{"x": 1, "y": 1, "z": 2}[f]
		}
	}
	var err error
	if out.context, err = schema.ContextFromMap(values); err != nil {
		t.Fatal(err)
	}
	return &out
}

func TestEverySuggestionMakesAYes(t *testing.T) {
	worlds := 30
	if *soak {
		worlds = 2_000
	}
	var asked, found, impossible, none, withContext, withDeletes int
	for seed := range worlds {
		r := rand.New(rand.NewPCG(uint64(seed), 19))
		w := newWorld(r)
		given := []map[string]any{{}, {"y": 1}, {"x": -1}, {"x": 1, "y": -1}}[r.IntN(4)]
		var err error
		if w.context, err = schema.ContextFromMap(given); err != nil {
			t.Fatal(err)
		}
		resident, direct := newStore(t, w.schema, w.relationships)
		for _, a := range some(r, w.resources, 8) {
			subject := w.subjects[r.IntN(len(w.subjects))]
			s := []datastore.Snapshot{resident, direct}[r.IntN(2)]
			q := graph.Question{Resource: a.object, Permission: a.relation, Subject: subject, Context: w.context}
			before, err := graph.Check(t.Context(), s, q, w.now, graph.Limits{})
			if err != nil || before.Outcome == graph.Yes {
				continue
			}
			asked++
			got, err := graph.Suggest(t.Context(), s, q, w.now, graph.Limits{}, 3)
			if err != nil {
				t.Fatalf("seed %d: %s: %v\n%s", seed, q, err, w)
			}
			if got.Impossible {
				impossible++
				if possible(s.Schema(), a.object.Type, a.relation, subject) {
					t.Fatalf("seed %d: %s is not impossible\n%s", seed, q, w)
				}
				continue
			}
			if len(got.Found) == 0 {
				none++
				if better := simpleChange(t, w, q); better != "" {
					t.Fatalf("seed %d: %s: nothing was suggested, but %s would do\n%s", seed, q, better, w)
				}
				continue
			}
			for _, one := range got.Found {
				found++
				withContext += min(1, len(one.Context))
				withDeletes += min(1, len(one.Deletes))
				next := applied(t, w, given, one)
				after, _ := newStore(t, next.schema, next.relationships)
				q.Context = next.context
				if got := show(graph.Check(t.Context(), after, q, w.now, graph.Limits{})); got != "yes" {
					t.Fatalf("seed %d: %s: after %+v: %s\n%s", seed, q, one, got, w)
				}
			}
		}
	}
	t.Logf("%d asked, %d suggestions, %d with context, %d with deletions; %d impossible, %d without", asked, found, withContext, withDeletes, impossible, none)
	if found == 0 || impossible == 0 || withContext == 0 || withDeletes == 0 || none > asked/20 {
		t.Error("too few suggestions")
	}
}

// simpleChange looks for one relationship, written or deleted, that makes a yes.
func simpleChange(t *testing.T, w *world, q graph.Question) string {
	t.Helper()
	try := func(relationships []string) bool {
		s, _ := newStore(t, w.schema, relationships)
		a, err := graph.Check(t.Context(), s, q, w.now, graph.Limits{})
		return err == nil && a.Outcome == graph.Yes
	}
	for i := range w.relationships {
		if try(slices.Delete(slices.Clone(w.relationships), i, i+1)) {
			return "deleting " + w.relationships[i]
		}
	}
	for _, o := range w.resources {
		if strings.HasPrefix(o.relation, "p") {
			continue
		}
		text := fmt.Sprintf("%s#%s@%s", o.object, o.relation, q.Subject)
		rel, err := tuple.Parse(text)
		s, _ := newStore(t, w.schema, nil)
		there := slices.ContainsFunc(w.relationships, func(s string) bool { r, err := tuple.Parse(s); return err == nil && r.Key == rel.Key })
		if err != nil || there || s.Schema().CheckRelationship(rel) != nil {
			continue
		}
		if try(append(slices.Clone(w.relationships), text)) {
			return "writing " + text
		}
	}
	return ""
}

func TestSuggestionsReadAsOneWouldSayThem(t *testing.T) {
	resident, _ := newStore(t, documents, []string{
		"group:eng#member@user:ada", "folder:root#viewer@group:eng#member", "document:d#parent@folder:root",
		"document:d#banned@user:mal", "document:d#owner@user:mal", "folder:root#viewer@user:joe[in]",
	})
	say := func(s graph.Suggestion) string {
		var parts []string
		for _, r := range s.Writes {
			parts = append(parts, "+"+r.String())
		}
		for _, r := range s.Deletes {
			parts = append(parts, "-"+r.String())
		}
		for _, n := range s.Context {
			parts = append(parts, n.Relationship.Caveat.Name+"("+strings.Join(n.Fields, ", ")+")")
		}
		return strings.Join(parts, " ")
	}
	for q, want := range map[string]string{
		"document:d#view@user:mal":   "-document:d#banned@user:mal",
		"document:d#view@user:joe":   "in(place)",
		"document:d#view@user:kim":   "+document:d#owner@user:kim",
		"document:d#calm@user:ada":   "impossible",
		"document:d#view@folder:x":   "impossible",
		"document:new#view@user:kim": "+document:new#owner@user:kim",
	} {
		got, err := graph.Suggest(t.Context(), resident, question(t, q), time.Now(), graph.Limits{}, 5)
		text := "impossible"
		if !got.Impossible && len(got.Found) > 0 {
			text = say(got.Found[0])
		}
		if err != nil || text != want {
			t.Errorf("%s: %s, %v; want %s", q, text, err, want)
		}
	}
}
