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
	"github.com/pembadb/pemba/tuple"
)

// lookup is either lookup with its question filled in.
type lookup func(o graph.LookupOptions, yield func(graph.Found) bool) (graph.Listing, error)

// lookupWorlds is how many random worlds the tests of lookups try.
func lookupWorlds() int {
	if *soak {
		return 10_000
	}
	return 300
}

// contextualised moves some relationships of a world from the store into the
// questions.
func contextualised(r *rand.Rand, w *world) (stored []string, contextual []tuple.Relationship) {
	for _, text := range w.relationships {
		if rel, err := tuple.Parse(text); err == nil && r.IntN(4) == 0 {
			contextual = append(contextual, rel)
		} else {
			stored = append(stored, text)
		}
	}
	return stored, contextual
}

// expectation is what the checks of all candidates say, by id: "yes",
// "conditional x", "error", or "no" for what a wildcard does not cover.
type expectation map[string]string

func (e expectation) ids() []string {
	var ids []string
	for id := range e {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// verify compares a lookup, asked in every way, with what the checks say.
func (e expectation) verify(r *rand.Rand, ask lookup) error {
	var listed []string
	failing := ""
	for _, id := range e.ids() {
		if e[id] == "error" {
			failing = id
			break
		}
		listed = append(listed, id+" "+e[id])
	}
	if err := e.verifyUnordered(ask); err != nil {
		return err
	}
	got, end, err := collect(ask, graph.LookupOptions{Ordered: true})
	if !slices.Equal(got, listed) || (err != nil) != (failing != "") || err == nil && !end.Complete {
		return fmt.Errorf("in order: got %q, %+v, error %v; want %q, failing at %q", got, end, err, listed, failing)
	}
	o := graph.LookupOptions{Limit: 1 + r.IntN(4)}
	var pages []string
	for {
		got, end, err := collect(ask, o)
		pages = append(pages, got...)
		if err != nil {
			if failing == "" {
				return fmt.Errorf("a page of %d after %q: %v", o.Limit, o.After, err)
			}
			break
		}
		if len(got) > o.Limit || !end.Complete && len(got) != o.Limit {
			return fmt.Errorf("a page of %d after %q has %d results, %+v", o.Limit, o.After, len(got), end)
		}
		if end.Complete {
			if failing != "" {
				return fmt.Errorf("pages of %d end without the error of %q", o.Limit, failing)
			}
			break
		}
		o.After = end.Last
	}
	if !slices.Equal(pages, listed) {
		return fmt.Errorf("pages of %d: got %q, want %q", o.Limit, pages, listed)
	}
	return nil
}

func (e expectation) verifyUnordered(ask lookup) error {
	var all []string
	count, fails := [3]int{}, false
	for _, id := range e.ids() {
		if e[id] == "error" {
			fails = true
			continue
		}
		all = append(all, id+" "+e[id])
		switch {
		case e[id] == "yes":
			count[0]++
		case e[id] == "no":
			count[2]++
		default:
			count[1]++
		}
	}
	got, end, err := collect(ask, graph.LookupOptions{})
	slices.Sort(got)
	if !slices.Equal(got, all) || (err != nil) != fails || end.Complete == fails {
		return fmt.Errorf("as found: got %q, %+v, error %v; want %q, an error %v", got, end, err, all, fails)
	}
	none, end, err := collect(ask, graph.LookupOptions{CountOnly: true})
	if len(none) > 0 || (err != nil) != fails || [3]int{end.Yes, end.Conditional, end.Excluded} != count {
		return fmt.Errorf("counting: got %+v and %q, error %v; want %v", end, none, err, count)
	}
	return nil
}

func collect(ask lookup, o graph.LookupOptions) ([]string, graph.Listing, error) {
	var got []string
	end, err := ask(o, func(f graph.Found) bool {
		got = append(got, f.ID+" "+show(f.Answer, nil))
		return true
	})
	return got, end, err
}

// answerOf is an answer as an expectation holds it.
func answerOf(a graph.Answer, err error) string {
	if err != nil {
		return "error"
	}
	return show(a, nil)
}

func TestLookupResourcesEqualsTheSetOfChecks(t *testing.T) {
	var found, failed int
	for seed := range lookupWorlds() {
		r := rand.New(rand.NewPCG(uint64(seed), 11))
		w := newWorld(r)
		stored, contextual := contextualised(r, w)
		resident, direct := newStore(t, w.schema, stored)
		subjects := append(slices.Clone(w.subjects), tuple.Subject{Object: tuple.Object{Type: "t1", ID: "2"}},
			tuple.Subject{Object: tuple.Object{Type: "t1", ID: "0"}, Relation: "p1"}, tuple.Subject{Object: tuple.Object{Type: "user", ID: "unmentioned"}},
			tuple.Subject{Object: tuple.Object{Type: "t0", ID: "unmentioned"}, Relation: "p0"}, tuple.Subject{Object: tuple.Object{Type: "t0", ID: "unmentioned"}})
		for _, subject := range some(r, subjects, 3) {
			for _, target := range some(r, targets("t0", "t1"), 4) {
				want := expectation{}
				for _, id := range []string{"0", "1", "2", "unmentioned"} {
					q := graph.Question{Resource: tuple.Object{Type: target.object.Type, ID: id}, Permission: target.relation, Subject: subject, Context: w.context, Contextual: contextual}
					if a := answerOf(graph.Check(t.Context(), resident, q, w.now, graph.Limits{})); a != "no" {
						want[id] = a
						if found++; a == "error" {
							failed++
						}
					}
				}
				for _, s := range []datastore.Snapshot{resident, direct} {
					q := graph.ResourcesQuestion{Type: target.object.Type, Permission: target.relation, Subject: subject, Context: w.context, Contextual: contextual}
					err := want.verify(r, func(o graph.LookupOptions, yield func(graph.Found) bool) (graph.Listing, error) {
						return graph.LookupResources(t.Context(), s, q, w.now, graph.Limits{}, o, yield)
					})
					if err != nil {
						t.Fatalf("seed %d, width %d: on which %s has %s of %s: %v\nwith %v\n%s", seed, s.Width(), target.object.Type, target.relation, subject, err, contextual, w)
					}
				}
			}
		}
	}
	t.Logf("%d results, %d of them errors", found, failed)
	if found == 0 || failed == 0 || failed > found/2 {
		t.Error("the worlds are too uniform to show anything")
	}
}

// crowd writes everybody, and somebody in person, wherever the first type of a
// random world allows it, and bars some of them.
func crowd(r *rand.Rand, w *world) {
	lines := strings.Split(w.schema, "\n")
	barred := []string{"r1 - r0", "(r1 - r0) & r1", "r1 - (r0 - p1)", "r1 & (r1 - p0)", "up->p0 + (r1 - r0)", "(r1 + r0) - (r1 - r0)"}
	at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "  permission p3") })
	lines[at] = "  permission p3 = " + barred[r.IntN(len(barred))]
	w.schema = strings.Join(lines, "\n")
	for _, line := range strings.Split(strings.SplitAfter(w.schema, "definition t0 {")[1], "\n") {
		name, types, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if line == "}" {
			return
		}
		for _, kind := range strings.Split(types, " | ") {
			id := map[string]string{"user": fmt.Sprint(r.IntN(3)), "user:*": "*"}[kind]
			text := fmt.Sprintf("t0:%d#%s@user:%s", r.IntN(3), strings.TrimPrefix(name, "relation "), id)
			if ok && id != "" && !slices.ContainsFunc(w.relationships, func(s string) bool { return strings.HasPrefix(s, text) }) {
				w.relationships = append(w.relationships, text)
			}
		}
	}
}

// some are n of the items, at random.
func some[T any](r *rand.Rand, items []T, n int) []T {
	items = slices.Clone(items)
	r.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
	return items[:min(n, len(items))]
}

// targets are all relations and permissions of the types of a random world.
func targets(types ...string) []atom {
	var out []atom
	for _, typ := range types {
		for _, r := range []string{"r0", "r1", "up", "p0", "p1", "p2", "p3"} {
			out = append(out, atom{tuple.Object{Type: typ}, r})
		}
	}
	return out
}

func TestLookupSubjectsEqualsTheSetOfChecks(t *testing.T) {
	var found, wildcards, excluded int
	for seed := range lookupWorlds() {
		r := rand.New(rand.NewPCG(uint64(seed), 13))
		w := newWorld(r)
		crowd(r, w)
		stored, contextual := contextualised(r, w)
		resident, direct := newStore(t, w.schema, stored)
		kinds := []tuple.Subject{{Object: tuple.Object{Type: "user"}}, {Object: tuple.Object{Type: "user"}}, {Object: tuple.Object{Type: "t0"}},
			{Object: tuple.Object{Type: "t0"}, Relation: "p0"}, {Object: tuple.Object{Type: "t1"}, Relation: "p1"}, {Object: tuple.Object{Type: "t0"}, Relation: "r0"}}
		for _, resource := range some(r, w.resources[:21], 6) {
			for _, kind := range some(r, kinds, 2) {
				check := func(id string) string {
					kind.ID = id
					q := graph.Question{Resource: resource.object, Permission: resource.relation, Subject: kind, Context: w.context, Contextual: contextual}
					return answerOf(graph.Check(t.Context(), resident, q, w.now, graph.Limits{}))
				}
				want, everybody := map[string]string{}, check("unmentioned")
				for _, id := range []string{"0", "1", "2"} {
					want[id] = check(id)
				}
				for _, s := range []datastore.Snapshot{resident, direct} {
					q := graph.SubjectsQuestion{Resource: resource.object, Permission: resource.relation, Type: kind.Type, Relation: kind.Relation, Context: w.context, Contextual: contextual}
					ask := func(o graph.LookupOptions, yield func(graph.Found) bool) (graph.Listing, error) {
						return graph.LookupSubjects(t.Context(), s, q, w.now, graph.Limits{}, o, yield)
					}
					e, err := subjectsExpected(want, everybody, ask)
					if err == nil {
						err = e.verify(r, ask)
					}
					if err != nil {
						t.Fatalf("seed %d, width %d: which %s#%s have %s#%s: %v; checks %v, of nobody %s\nwith %v\n%s", seed, s.Width(), kind.Type, kind.Relation, resource.object, resource.relation, err, want, everybody, contextual, w)
					}
					for id, a := range e {
						found++
						if id == tuple.Wildcard {
							wildcards++
						}
						if a == "no" {
							excluded++
						}
					}
				}
			}
		}
	}
	t.Logf("%d results, %d wildcards, %d exclusions", found, wildcards, excluded)
	if found == 0 || wildcards == 0 || excluded < 5 {
		t.Error("the worlds are too uniform to show anything")
	}
}

// subjectsExpected is the list of subjects: without a wildcard every subject
// whose check is not no; with one the wildcard, what differs from it, and of those
// that are as it the ones that the lookup found.
func subjectsExpected(checks map[string]string, everybody string, ask lookup) (expectation, error) {
	e := expectation{}
	if everybody == "no" {
		for id, a := range checks {
			if a != "no" {
				e[id] = a
			}
		}
		return e, nil
	}
	e[tuple.Wildcard] = everybody
	listed := map[string]bool{}
	_, err := ask(graph.LookupOptions{}, func(f graph.Found) bool {
		listed[f.ID] = true
		return true
	})
	if err != nil && everybody != "error" && !slices.Contains(values(checks), "error") {
		return nil, err
	}
	for id, a := range checks {
		if everybody == "error" && a == "no" {
			continue
		}
		if a != everybody || listed[id] {
			e[id] = a
		}
	}
	return e, nil
}

func values(m map[string]string) (out []string) {
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

func TestLookupsFilterByPrefixAndAncestor(t *testing.T) {
	var rels []string
	for i := range 20 {
		rels = append(rels, fmt.Sprintf("folder:f%02d#parent@folder:f%02d", i+1, i/2))
		rels = append(rels, fmt.Sprintf("document:%c%02d#parent@folder:f%02d", 'a'+rune(i%2), i, i))
	}
	rels = append(rels, "folder:f00#viewer@user:ada", "document:stray#owner@user:ada", "document:a04#banned@user:ada",
		"document:off#parent@folder:f01")
	resident, direct := newStore(t, documents, rels)
	under := tuple.Object{Type: "folder", ID: "f01"}
	for _, s := range []datastore.Snapshot{resident, direct} {
		q := graph.ResourcesQuestion{Type: "document", Permission: "view", Subject: tuple.Subject{Object: tuple.Object{Type: "user", ID: "ada"}}}
		ask := func(o graph.LookupOptions, yield func(graph.Found) bool) (graph.Listing, error) {
			return graph.LookupResources(t.Context(), s, q, time.Now(), graph.Limits{}, o, yield)
		}
		list := func() string {
			got, _, err := collect(ask, graph.LookupOptions{Ordered: true})
			if err != nil {
				t.Fatal(err)
			}
			return strings.ReplaceAll(strings.Join(got, " "), " yes", "")
		}
		if got, want := list(), "a00 a02 a06 a08 a10 a12 a14 a16 a18 b01 b03 b05 b07 b09 b11 b13 b15 b17 b19 off stray"; got != want {
			t.Errorf("all: got %s, want %s", got, want)
		}
		q.IDPrefix = "b0"
		if got, want := list(), "b01 b03 b05 b07 b09"; got != want {
			t.Errorf("with a prefix: got %s, want %s", got, want)
		}
		q.IDPrefix, q.Under = "", &under
		if got, want := list(), "a08 a10 a16 a18 b01 b03 b07 b09 b15 b17 b19 off"; got != want {
			t.Errorf("under f01: got %s, want %s", got, want)
		}
		q.IDPrefix = "a"
		if got, want := list(), "a08 a10 a16 a18"; got != want {
			t.Errorf("under f01 with a prefix: got %s, want %s", got, want)
		}
	}
}

func TestLookupsRefuseWhatTheyCannotAnswer(t *testing.T) {
	resident, _ := newStore(t, documents, nil)
	ada := tuple.Subject{Object: tuple.Object{Type: "user", ID: "ada"}}
	for name, c := range map[string]struct {
		q    graph.ResourcesQuestion
		want string
	}{
		"a type":       {graph.ResourcesQuestion{Type: "doc", Permission: "view", Subject: ada}, `type "doc" is unknown to the schema`},
		"a permission": {graph.ResourcesQuestion{Type: "document", Permission: "vew", Subject: ada}, `did you mean "view"?`},
		"everybody":    {graph.ResourcesQuestion{Type: "document", Permission: "view", Subject: tuple.Subject{Object: tuple.Object{Type: "user", ID: "*"}}}, "stands for everybody"},
		"an ancestor":  {graph.ResourcesQuestion{Type: "document", Permission: "view", Subject: ada, Under: &tuple.Object{Type: "x", ID: "1"}}, `type "x" is unknown`},
		"a prefix":     {graph.ResourcesQuestion{Type: "document", Permission: "view", Subject: ada, IDPrefix: "a b"}, "id prefix"},
	} {
		_, err := graph.LookupResources(t.Context(), resident, c.q, time.Now(), graph.Limits{}, graph.LookupOptions{}, func(graph.Found) bool { return true })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	_, err := graph.LookupSubjects(t.Context(), resident, graph.SubjectsQuestion{Resource: tuple.Object{Type: "document", ID: "d"}, Permission: "view", Type: "group", Relation: "members"},
		time.Now(), graph.Limits{}, graph.LookupOptions{}, func(graph.Found) bool { return true })
	if err == nil || !strings.Contains(err.Error(), `did you mean "member"?`) {
		t.Errorf("a subject relation: %v", err)
	}
}
