package graph

import (
	"context"
	"slices"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// ExplainOptions say how much of the reasons is shown.
type ExplainOptions struct {
	// AllProofs shows the other proofs of a yes beside the shortest.
	AllProofs bool
	// MaxShown bounds the relationships and children that a reason shows; the
	// others are counted. Zero: all.
	MaxShown int
	// MaxReasons bounds the reasons shown for anything but the shortest proof of a
	// yes. Zero: all.
	MaxReasons int
}

// Explanation is an answer and why.
type Explanation struct {
	Answer Answer
	// Reasons refer to each other by index; the first is about the question. A yes
	// never rests on itself, by whatever way; a no may, for nobody is in a circle
	// that nobody enters.
	Reasons []Reason
}

// TreeItself is the kind of a reason, besides those of expansions: the subject
// is this very userset.
const TreeItself TreeKind = "SUBJECT"

// TreeWithheld is the only reason given to a suspended or removed user.
const TreeWithheld TreeKind = "SUSPENDED"

// Reason tells what a relation, a permission or a part of its expression comes to
// for the subject. It holds what decides: of a union that is yes the part that is
// yes, of an intersection that is no the part that is no, of a relation that is
// no everything in it that might have led further.
type Reason struct {
	Kind     TreeKind
	Object   tuple.Object
	Relation string // of a relation or permission
	Tupleset string // of arrows
	Target   string
	Outcome  Outcome
	// Open: a caveat that fails, or a recursion through exclusion, leaves the
	// outcome open; it did not decide the answer.
	Open    bool
	Missing []string // of a conditional outcome
	Parts   []ReasonPart
	Steps   []ReasonStep // of relations and arrows
	Omitted int          // parts and steps that are not shown and say the same
}

// ReasonPart is an operand.
type ReasonPart struct {
	Node     uint32
	Excluded bool // it is what an exclusion takes away
}

// ReasonStep is a relationship that was looked at.
type ReasonStep struct {
	// Relationship is without the context written with its caveat, unless it is
	// Contextual: what the caller did not say is not told.
	Relationship tuple.Relationship
	Contextual   bool
	// Caveat is Yes where there is none or it holds; CaveatOpen: it fails.
	Caveat     Outcome
	CaveatOpen bool
	Missing    []string
	// Node is the reason of what it leads to; nil where it names the subject or its
	// wildcard, where its caveat is false, or where it leads nowhere.
	Node *uint32
}

// Explain answers as [Check] does, with the same errors, and tells why.
func Explain(ctx context.Context, s datastore.Snapshot, q Question, now time.Time, l Limits, o ExplainOptions) (Explanation, error) {
	e, err := prepare(s, &q, now, l)
	if err != nil {
		return Explanation{}, err
	}
	defer e.release()
	r, err := relation(s.Schema(), q.Resource.Type, q.Permission)
	if err != nil {
		return Explanation{}, err
	}
	if withheld, err := e.withheld(ctx); err != nil || withheld {
		return Explanation{Reasons: []Reason{{Kind: TreeWithheld, Object: q.Resource, Relation: q.Permission}}}, err
	}
	x := newExplainer(e)
	object := e.view.id(q.Resource)
	answer, err := e.ask(ctx, object, r)
	if err != nil {
		return Explanation{}, err
	}
	if err := x.gather(ctx, object, r); err != nil {
		return Explanation{}, err
	}
	if err := x.prove(); err != nil {
		return Explanation{}, err
	}
	return Explanation{Answer: answer, Reasons: x.show(o)}, nil
}

// show lists the claims that the first one rests on.
func (x *explainer) show(o ExplainOptions) []Reason {
	at := map[int]uint32{0: 0}
	order := []int{0}
	place := func(c int, must bool) (uint32, bool) {
		if i, ok := at[c]; ok {
			return i, true
		}
		if !must && o.MaxReasons > 0 && len(order) >= o.MaxReasons {
			return 0, false
		}
		at[c] = uint32(len(order))
		order = append(order, c)
		return at[c], true
	}
	var out []Reason
	for len(out) < len(order) {
		c := &x.claims[order[len(out)]]
		r := x.reason(c)
		must := c.value == isYes && !o.AllProofs
		for _, d := range x.shown(c, o.AllProofs) {
			full := o.MaxShown > 0 && len(r.Parts)+len(r.Steps) >= o.MaxShown && (c.value != isYes || len(c.options) > 1)
			if full {
				r.Omitted++
				continue
			}
			var node *uint32
			if d.claim >= 0 {
				i, ok := place(d.claim, must)
				if !ok {
					r.Omitted++
					continue
				}
				node = &i
			}
			switch {
			case d.step >= 0:
				step := c.steps[d.step]
				step.Node = node
				r.Steps = append(r.Steps, step)
			case node != nil:
				r.Parts = append(r.Parts, ReasonPart{Node: *node, Excluded: d.excluded})
			}
		}
		r.Omitted += c.uncounted
		out = append(out, r)
	}
	return out
}

// shown is what a claim rests on: one of its options, or with all proofs each
// that does not come back to it, the shortest first.
func (x *explainer) shown(c *claim, all bool) []need {
	if len(c.options) == 0 {
		return nil
	}
	if !all || c.value != isYes {
		return c.options[c.chosen].needs
	}
	out := slices.Clone(c.options[c.chosen].needs)
	for i, o := range c.options {
		if i != c.chosen && !slices.ContainsFunc(o.needs, func(n need) bool { return n.claim >= 0 && x.claims[n.claim].turn >= c.turn }) {
			out = append(out, o.needs...)
		}
	}
	return out
}

// reason is a claim without what it rests on.
func (x *explainer) reason(c *claim) Reason {
	r := Reason{Kind: c.kind, Object: x.view.Object(c.object), Missing: c.missing, Open: !c.value.decided()}
	if c.relation != nil {
		r.Relation = c.relation.Text
	}
	if c.expr != nil && (c.kind == TreeAny || c.kind == TreeAll) {
		r.Tupleset, r.Target = c.expr.Tupleset.Text, c.expr.Target
	}
	r.Outcome = outcomeOf(c.value)
	if r.Outcome != Conditional {
		r.Missing = nil
	}
	return r
}

// outcomeOf is the outcome of a decided value; No for an open one.
func outcomeOf(v value) Outcome {
	switch v {
	case isYes:
		return Yes
	case isMaybe:
		return Conditional
	}
	return No
}
