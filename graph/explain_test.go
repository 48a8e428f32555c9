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

// length counts the relationships of a proof.
func length(reasons []graph.Reason, i uint32) int {
	n := 0
	if reasons[i].Outcome != graph.Yes {
		return 0
	}
	for _, s := range reasons[i].Steps {
		n++
		if s.Node != nil {
			n += length(reasons, *s.Node)
		}
	}
	for _, p := range reasons[i].Parts {
		n += length(reasons, p.Node)
	}
	return n
}

func TestEveryExplanationCanBeReplayed(t *testing.T) {
	worlds := 300
	if *soak {
		worlds = 10_000
	}
	var outcomes [3]int
	longest, longer := 0, 0
	for seed := range worlds {
		r := rand.New(rand.NewPCG(uint64(seed), 17))
		w := newWorld(r)
		resident, direct := newStore(t, w.schema, w.relationships)
		ref := newReference(t, resident, w)
		for _, subject := range w.subjects {
			values := ref.solve(subject)
			shortest := shortestProofs(ref, w, subject, values)
			for _, a := range some(r, w.resources, 12) {
				s := []datastore.Snapshot{resident, direct}[r.IntN(2)]
				q := graph.Question{Resource: a.object, Permission: a.relation, Subject: subject, Context: w.context}
				all := r.IntN(2) == 0
				x, err := graph.Explain(t.Context(), s, q, w.now, graph.Limits{}, graph.ExplainOptions{AllProofs: all})
				if got := answerOf(x.Answer, err); got != values[a] {
					t.Fatalf("seed %d: %s: explained as %s, checked as %s: %v\n%s", seed, q, got, values[a], err, w)
				}
				if err != nil {
					continue
				}
				outcomes[x.Answer.Outcome]++
				if x.Reasons[0].Outcome != x.Answer.Outcome {
					t.Fatalf("seed %d: %s: the first reason comes to %d, the answer to %d", seed, q, x.Reasons[0].Outcome, x.Answer.Outcome)
				}
				if err := newReplay(t, s.Schema(), w, subject, x.Reasons).proves(a.object, a.relation); err != nil {
					t.Fatalf("seed %d: %s: %v\n%s\n%s", seed, q, err, lines(x.Reasons), w)
				}
				if x.Answer.Outcome == graph.Yes && !all {
					n := length(x.Reasons, 0)
					longest = max(longest, n)
					if n < shortest[a] {
						t.Fatalf("seed %d: %s: a proof of %d relationships, where the shortest has %d\n%s\n%s", seed, q, n, shortest[a], lines(x.Reasons), w)
					}
					if n > shortest[a] {
						longer++
					}
				}
			}
		}
	}
	t.Logf("%v explained, the longest proof has %d relationships; %d are not the shortest", outcomes, longest, longer)
	if slices.Contains(outcomes[:], 0) || longest < 3 {
		t.Error("the worlds are too uniform to show anything")
	}
	if longer > outcomes[graph.Yes]/1000 {
		t.Errorf("%d of %d proofs are not the shortest", longer, outcomes[graph.Yes])
	}
}

// lines prints reasons, one a line.
func lines(reasons []graph.Reason) string {
	var b strings.Builder
	for i, r := range reasons {
		fmt.Fprintf(&b, "%d: %+v", i, r)
		for _, s := range r.Steps {
			if s.Node != nil {
				fmt.Fprintf(&b, " →%d", *s.Node)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// shortestProofs counts the relationships of the shortest proof of each atom that
// is yes, by relaxation; denials cost nothing.
func shortestProofs(ref *reference, w *world, subject tuple.Subject, values map[atom]string) map[atom]int {
	const never = 1 << 40
	cost := map[atom]int{}
	for _, a := range w.resources {
		cost[a] = never
	}
	itself := func(a atom) bool {
		return subject.Relation != "" && a == atom{subject.Object, subject.Relation}
	}
	of := func(a atom) int {
		if itself(a) {
			return 0
		}
		if values[a] != "yes" {
			return never
		}
		return cost[a]
	}
	guard := func(r tuple.Relationship) bool { lo, _, _ := ref.caveat(r); return lo == 2 }
	var expr func(o tuple.Object, x *schema.Expr) int
	denied := func(o tuple.Object, x *schema.Expr) bool {
		lo, hi, _ := meaning{ref: ref, subject: subject}.expr(o, x)
		return lo == 0 && hi == 0
	}
	expr = func(o tuple.Object, x *schema.Expr) int {
		switch x.Kind {
		case schema.Self:
			if subject == (tuple.Subject{Object: o}) {
				return 0
			}
		case schema.Ref:
			return of(atom{o, x.Relation.Text})
		case schema.Arrow, schema.ArrowAll:
			some, all, any := never, 0, false
			for _, r := range ref.rels {
				if r.Object != o || r.Relation != x.Tupleset.Text {
					continue
				}
				c := never
				if ref.s.Definition(r.Subject.Type).Relation(x.Target) != nil && guard(r) {
					c = min(never, 1+of(atom{r.Subject.Object, x.Target}))
				}
				some, all, any = min(some, c), min(never, all+c), true
			}
			if x.Kind == schema.Arrow {
				return some
			}
			if any {
				return all
			}
		case schema.Union:
			c := never
			for _, child := range x.Children {
				c = min(c, expr(o, child))
			}
			return c
		case schema.Intersection:
			c := 0
			for _, child := range x.Children {
				c = min(never, c+expr(o, child))
			}
			return c
		case schema.Exclusion:
			if denied(o, x.Children[1]) {
				return expr(o, x.Children[0])
			}
		}
		return never
	}
	for changed := true; changed; {
		changed = false
		for _, a := range w.resources {
			c := never
			def := ref.s.Definition(a.object.Type).Relation(a.relation)
			switch {
			case itself(a):
				c = 0
			case def.Expr != nil:
				c = expr(a.object, def.Expr)
			default:
				for _, r := range ref.rels {
					if r.Object != a.object || r.Relation != a.relation || !guard(r) {
						continue
					}
					switch {
					case r.Subject == subject, r.Subject.IsWildcard() && r.Subject.Type == subject.Type && subject.Relation == "":
						c = min(c, 1)
					case r.Subject.Relation != "":
						c = min(c, 1+of(atom{r.Subject.Object, r.Subject.Relation}))
					}
				}
			}
			if c < cost[a] {
				cost[a], changed = c, true
			}
		}
	}
	return cost
}

// The checker itself has to notice what is wrong.
func TestAForgedExplanationIsRefuted(t *testing.T) {
	w := &world{schema: documents, now: time.Now(), relationships: []string{
		"group:eng#member@user:ada", "folder:root#viewer@group:eng#member", "document:d#parent@folder:root", "document:d#banned@user:mal"}}
	resident, _ := newStore(t, w.schema, w.relationships)
	for name, c := range map[string]struct {
		question string
		forge    func([]graph.Reason)
	}{
		"a yes by somebody else's membership": {"document:d#view@user:ada", func(rs []graph.Reason) {
			for i := range rs {
				for j := range rs[i].Steps {
					if rs[i].Steps[j].Node == nil {
						rs[i].Steps[j].Relationship.Subject.ID = "mal"
					}
				}
			}
		}},
		"a yes without its relationship": {"document:d#view@user:ada", func(rs []graph.Reason) {
			for i := range rs {
				if len(rs[i].Steps) > 0 {
					rs[i].Steps = nil
				}
			}
		}},
		"a yes without what is excluded": {"document:d#view@user:ada", func(rs []graph.Reason) { rs[0].Parts = rs[0].Parts[:1] }},
		"a no that leaves out a way in": {"document:d#view@user:kim", func(rs []graph.Reason) {
			for i := range rs {
				if rs[i].Kind == graph.TreeRelation {
					rs[i].Steps = nil
				}
			}
		}},
		"a yes that rests on itself": {"document:d#view@user:ada", func(rs []graph.Reason) {
			for i := range rs {
				if rs[i].Kind == graph.TreeRelation && len(rs[i].Steps) == 1 && rs[i].Steps[0].Node != nil {
					zero := uint32(i)
					rs[i].Steps[0].Node = &zero
				}
			}
		}},
	} {
		q := question(t, c.question)
		x, err := graph.Explain(t.Context(), resident, q, w.now, graph.Limits{}, graph.ExplainOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := newReplay(t, resident.Schema(), w, q.Subject, x.Reasons).proves(q.Resource, q.Permission); err != nil {
			t.Errorf("%s: the honest explanation is refuted: %v", name, err)
		}
		c.forge(x.Reasons)
		if newReplay(t, resident.Schema(), w, q.Subject, x.Reasons).proves(q.Resource, q.Permission) == nil {
			t.Errorf("%s is believed\n%s", name, lines(x.Reasons))
		}
	}
}

func TestExplanationsOfLargeGraphsArePruned(t *testing.T) {
	var rels []string
	for i := range 300 {
		rels = append(rels, fmt.Sprintf("document:d#viewer@group:g%03d#member", i), fmt.Sprintf("group:g%03d#member@user:u%d", i, i))
	}
	resident, _ := newStore(t, shared, rels)
	q := question(t, "document:d#read@user:nobody")
	x, err := graph.Explain(t.Context(), resident, q, time.Now(), graph.Limits{}, graph.ExplainOptions{MaxShown: 5, MaxReasons: 50})
	if err != nil || x.Answer.Outcome != graph.No || len(x.Reasons) > 50 {
		t.Fatalf("%d reasons, %v, %v", len(x.Reasons), x.Answer, err)
	}
	omitted := 0
	for _, r := range x.Reasons {
		omitted += r.Omitted
		if len(r.Parts)+len(r.Steps) > 5 {
			t.Errorf("a reason shows %d", len(r.Parts)+len(r.Steps))
		}
	}
	if omitted != 295 {
		t.Errorf("%d are counted as left out, want 295", omitted)
	}
	q = question(t, "document:d#read@user:u299")
	x, err = graph.Explain(t.Context(), resident, q, time.Now(), graph.Limits{}, graph.ExplainOptions{MaxShown: 5, MaxReasons: 50})
	if err != nil || length(x.Reasons, 0) != 2 {
		t.Errorf("%v\n%s", err, lines(x.Reasons))
	}
}
