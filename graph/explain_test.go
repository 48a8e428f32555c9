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

// replay is an independent checker of explanations: from the relationships, the
// schema and the rules of its language alone it judges whether the reasons that
// are given bear the answer.
type replay struct {
	t       *testing.T
	s       *schema.Schema
	rels    []tuple.Relationship // in force
	written map[tuple.Key]tuple.Relationship
	subject tuple.Subject
	context schema.Context
	reasons []graph.Reason
	seen    map[string]bool
	needs   map[uint32][]uint32
}

func newReplay(t *testing.T, s *schema.Schema, w *world, subject tuple.Subject, reasons []graph.Reason) *replay {
	p := &replay{t: t, s: s, subject: subject, context: w.context, reasons: reasons, seen: map[string]bool{}, needs: map[uint32][]uint32{}, written: map[tuple.Key]tuple.Relationship{}}
	for _, text := range w.relationships {
		if r, err := tuple.Parse(text); err == nil && !r.Expired(w.now) {
			p.rels = append(p.rels, r)
			p.written[r.Key] = r
		}
	}
	return p
}

// proves returns why the reasons do not bear the first, or nil.
func (p *replay) proves(o tuple.Object, permission string) error {
	if err := p.atom(0, o, permission); err != nil {
		return err
	}
	for i, r := range p.reasons {
		if r.Outcome != graph.Yes {
			continue
		}
		seen, todo := map[uint32]bool{}, slices.Clone(p.needs[uint32(i)])
		for len(todo) > 0 {
			n := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if n == uint32(i) {
				return fmt.Errorf("reason %d is a yes that rests on itself", i)
			}
			if !seen[n] {
				seen[n] = true
				todo = append(todo, p.needs[n]...)
			}
		}
	}
	return nil
}

// atom checks the reason about a relation or permission.
func (p *replay) atom(i uint32, o tuple.Object, name string) error {
	r := p.reasons[i]
	def := p.s.Definition(o.Type).Relation(name)
	if r.Object != o || r.Relation != name || def == nil {
		return fmt.Errorf("reason %d is about %s#%s, not %s#%s", i, r.Object, r.Relation, o, name)
	}
	if p.subject.Relation != "" && p.subject.Object == o && p.subject.Relation == name {
		if r.Kind != graph.TreeItself || r.Outcome != graph.Yes {
			return fmt.Errorf("reason %d: a userset is in itself", i)
		}
		return nil
	}
	if def.Expr != nil {
		return p.expr(i, o, def.Expr)
	}
	return p.once(i, "relation", func() error { return p.relation(i, o, name) })
}

// once checks a reason once, and circles not at all: proves looks at those.
func (p *replay) once(i uint32, as string, check func() error) error {
	k := fmt.Sprint(i, as)
	if p.seen[k] {
		return nil
	}
	p.seen[k] = true
	return check()
}

func (p *replay) caveat(r tuple.Relationship) graph.Outcome {
	if r.Caveat.Name == "" {
		return graph.Yes
	}
	res, err := p.s.Caveat(r.Caveat.Name).Eval(p.t.Context(), r.Caveat.Context, p.context, 0)
	switch {
	case err != nil || res.Truth == schema.Unknown:
		return graph.Conditional // or open: neither yes nor no
	case res.Truth == schema.True:
		return graph.Yes
	}
	return graph.No
}

// step checks that a relationship is in force, and how it is with its caveat.
func (p *replay) step(i uint32, s graph.ReasonStep) (tuple.Relationship, error) {
	r, ok := p.written[s.Relationship.Key]
	if !ok || !r.Expiration.Equal(s.Relationship.Expiration) || r.Caveat.Name != s.Relationship.Caveat.Name {
		return r, fmt.Errorf("reason %d: relationship %s is not in force", i, s.Relationship)
	}
	if !s.Contextual && s.Relationship.Caveat.Context != "" {
		return r, fmt.Errorf("reason %d tells the written context of %s", i, s.Relationship)
	}
	if got := p.caveat(r); got != s.Caveat && !s.CaveatOpen {
		return r, fmt.Errorf("reason %d: the caveat of %s comes to %d, not %d", i, r, got, s.Caveat)
	}
	return r, nil
}

func (p *replay) rest(i uint32, on uint32) { p.needs[i] = append(p.needs[i], on) }

// relation checks a reason against the relationships of a relation.
func (p *replay) relation(i uint32, o tuple.Object, name string) error {
	r := p.reasons[i]
	refuted := map[tuple.Key]bool{}
	granted := false
	for _, s := range r.Steps {
		rel, err := p.step(i, s)
		if err != nil {
			return err
		}
		if rel.Object != o || rel.Relation != name {
			return fmt.Errorf("reason %d: relationship %s is of something else", i, rel)
		}
		holds := s.Caveat
		if s.Node != nil {
			p.rest(i, *s.Node)
			if err := p.atom(*s.Node, rel.Subject.Object, rel.Subject.Relation); err != nil {
				return err
			}
			holds = least(holds, p.reasons[*s.Node].Outcome)
		} else if s.Caveat == graph.Yes && !p.names(rel.Subject) {
			return fmt.Errorf("reason %d: relationship %s does not name the subject", i, rel)
		}
		granted = granted || holds == graph.Yes && !s.CaveatOpen
		refuted[rel.Key] = holds == graph.No
	}
	switch r.Outcome {
	case graph.Yes:
		if !granted {
			return fmt.Errorf("reason %d: no relationship grants it", i)
		}
	case graph.No:
		for _, rel := range p.rels {
			if rel.Object == o && rel.Relation == name && !refuted[rel.Key] && (p.names(rel.Subject) || rel.Subject.Relation != "" && p.leads(i, rel)) && !r.Open {
				return fmt.Errorf("reason %d: relationship %s is not refuted", i, rel)
			}
		}
	}
	return nil
}

// leads reports whether a userset matters: one of a kind that, by the schema,
// never holds the subject, need not be shown.
func (p *replay) leads(i uint32, rel tuple.Relationship) bool {
	return possible(p.s, rel.Subject.Type, rel.Subject.Relation, p.subject)
}

// possible reports whether subjects of that kind can have a relation by the
// schema, taking every caveat for true and nothing for excluded.
func possible(s *schema.Schema, typ, relation string, subject tuple.Subject) bool {
	can := map[*schema.Relation]bool{}
	var expr func(d *schema.Definition, x *schema.Expr) bool
	expr = func(d *schema.Definition, x *schema.Expr) bool {
		switch x.Kind {
		case schema.Self:
			return subject.Relation == "" && d.Type == subject.Type
		case schema.Ref:
			return can[x.Relation]
		case schema.Arrow, schema.ArrowAll:
			return slices.ContainsFunc(x.Tupleset.Allowed, func(a schema.AllowedSubject) bool { return can[a.Definition.Relation(x.Target)] })
		case schema.Union:
			return slices.ContainsFunc(x.Children, func(c *schema.Expr) bool { return expr(d, c) })
		case schema.Intersection:
			return !slices.ContainsFunc(x.Children, func(c *schema.Expr) bool { return !expr(d, c) })
		case schema.Exclusion:
			return expr(d, x.Children[0])
		}
		return false
	}
	for changed := true; changed; {
		changed = false
		for _, d := range s.Definitions {
			for _, r := range d.Relations {
				now := subject.Relation != "" && d.Type == subject.Type && r.Text == subject.Relation || r.Expr != nil && expr(d, r.Expr)
				for _, a := range r.Allowed {
					own := a.Definition.Type == subject.Type && (a.Relation == nil && subject.Relation == "" || a.Relation != nil && a.Relation.Text == subject.Relation)
					now = now || own || a.Relation != nil && can[a.Relation]
				}
				if now && !can[r] {
					can[r], changed = true, true
				}
			}
		}
	}
	return can[s.Definition(typ).Relation(relation)]
}

// names reports whether a relationship's subject is the one asked about, or
// stands for it.
func (p *replay) names(s tuple.Subject) bool {
	return s == p.subject || s.IsWildcard() && p.subject.Relation == "" && s.Type == p.subject.Type
}

func least(a, b graph.Outcome) graph.Outcome {
	if a == graph.No || b == graph.No {
		return graph.No
	}
	if a == graph.Conditional || b == graph.Conditional {
		return graph.Conditional
	}
	return graph.Yes
}

// expr checks a reason against an expression.
func (p *replay) expr(i uint32, o tuple.Object, x *schema.Expr) error {
	return p.once(i, fmt.Sprintf("%p", x), func() error {
		r := p.reasons[i]
		if r.Object != o {
			return fmt.Errorf("reason %d is about %s, not %s", i, r.Object, o)
		}
		switch x.Kind {
		case schema.Nil:
			return p.says(i, false)
		case schema.Self:
			return p.says(i, p.subject == tuple.Subject{Object: o})
		case schema.Arrow, schema.ArrowAll:
			return p.arrow(i, o, x)
		}
		children := x.Children
		if x.Kind == schema.Ref {
			children = []*schema.Expr{x}
		}
		outcomes := make([][]graph.Outcome, len(children))
		for _, part := range r.Parts {
			p.rest(i, part.Node)
			at := -1
			for j, c := range children {
				if part.Excluded == (x.Kind == schema.Exclusion && j == 1) && p.child(part.Node, o, c) == nil {
					at = j
					outcomes[j] = append(outcomes[j], p.reasons[part.Node].Outcome)
				}
			}
			if at < 0 {
				return fmt.Errorf("reason %d: part %d is none of the expression", i, part.Node)
			}
		}
		return p.judge(i, x.Kind, outcomes)
	})
}

func (p *replay) says(i uint32, yes bool) error {
	if (p.reasons[i].Outcome == graph.Yes) != yes {
		return fmt.Errorf("reason %d comes to the other outcome", i)
	}
	return nil
}

// child checks a part of an expression; a reference is the reason of its name.
func (p *replay) child(i uint32, o tuple.Object, x *schema.Expr) error {
	if x.Kind == schema.Ref {
		return p.atom(i, o, x.Relation.Text)
	}
	kinds := map[schema.ExprKind]graph.TreeKind{schema.Nil: graph.TreeNil, schema.Self: graph.TreeSelf, schema.Arrow: graph.TreeAny, schema.ArrowAll: graph.TreeAll,
		schema.Union: graph.TreeUnion, schema.Intersection: graph.TreeIntersection, schema.Exclusion: graph.TreeExclusion}
	if r := p.reasons[i]; r.Relation != "" || r.Kind != kinds[x.Kind] {
		return fmt.Errorf("reason %d is of another kind", i)
	}
	return p.expr(i, o, x)
}

// judge applies the rule of an operator to the outcomes of its shown parts.
func (p *replay) judge(i uint32, kind schema.ExprKind, parts [][]graph.Outcome) error {
	r := p.reasons[i]
	has := func(j int, o graph.Outcome) bool { return slices.Contains(parts[j], o) }
	some := func(o graph.Outcome) bool {
		return slices.ContainsFunc(parts, func(p []graph.Outcome) bool { return slices.Contains(p, o) })
	}
	every := func(o graph.Outcome) bool {
		return !slices.ContainsFunc(parts, func(p []graph.Outcome) bool { return !slices.Contains(p, o) })
	}
	ok := true
	switch {
	case r.Outcome == graph.Conditional || r.Open:
	case kind == schema.Exclusion && r.Outcome == graph.Yes:
		ok = has(0, graph.Yes) && has(1, graph.No)
	case kind == schema.Exclusion:
		ok = has(0, graph.No) || has(1, graph.Yes)
	case (kind == schema.Intersection) == (r.Outcome == graph.Yes):
		ok = every(r.Outcome)
	default:
		ok = some(r.Outcome)
	}
	if !ok {
		return fmt.Errorf("reason %d does not follow from its parts %v", i, parts)
	}
	return nil
}

// arrow checks a reason against the relationships of an arrow's left side.
func (p *replay) arrow(i uint32, o tuple.Object, x *schema.Expr) error {
	r := p.reasons[i]
	outcomes := map[tuple.Key]graph.Outcome{}
	for _, s := range r.Steps {
		rel, err := p.step(i, s)
		if err != nil {
			return err
		}
		if rel.Object != o || rel.Relation != x.Tupleset.Text {
			return fmt.Errorf("reason %d: relationship %s is of something else", i, rel)
		}
		holds := s.Caveat
		if s.Node != nil {
			p.rest(i, *s.Node)
			if err := p.atom(*s.Node, rel.Subject.Object, x.Target); err != nil {
				return err
			}
			holds = least(holds, p.reasons[*s.Node].Outcome)
		} else if p.s.Definition(rel.Subject.Type).Relation(x.Target) == nil {
			holds = graph.No
		}
		outcomes[rel.Key] = holds
	}
	if r.Outcome == graph.Conditional || r.Open {
		return nil
	}
	var parts [][]graph.Outcome
	for _, rel := range p.rels {
		if rel.Object == o && rel.Relation == x.Tupleset.Text {
			outcome, shown := outcomes[rel.Key]
			if !shown {
				parts = append(parts, nil)
			} else {
				parts = append(parts, []graph.Outcome{outcome})
			}
		}
	}
	if x.Kind == schema.ArrowAll && len(parts) == 0 {
		return p.says(i, false)
	}
	kind := schema.Union
	if x.Kind == schema.ArrowAll {
		kind = schema.Intersection
	}
	return p.judge(i, kind, parts)
}

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
