package graph

import (
	"context"
	"errors"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// ResourcesQuestion asks for the objects of a type on which a subject has a
// permission or relation.
type ResourcesQuestion struct {
	Type       string
	Permission string
	Subject    tuple.Subject
	Context    schema.Context
	Contextual []tuple.Relationship
	// IDPrefix is what the objects' ids begin with.
	IDPrefix string
	// Under, if not nil, is an object below which the results lie: a chain of
	// relationships that arrows of the schema walk leads from the result to it.
	// One that has expired, or whose caveat is false, is no part of a chain.
	Under *tuple.Object
}

// LookupResources calls yield for each object of the question's type on which
// Check says yes or conditional, until yield returns false. No object comes
// twice. It goes backwards from the subject, and asks Check only where the way
// leads through an intersection, an exclusion, an `.all()` or a caveat.
//
// Errors are those of [Check]. An object on which Check ends in an error of its
// own (a recursion through exclusion, a caveat that fails) ends the list in that
// error: an ordered list in its place, an unordered one after all results.
func LookupResources(ctx context.Context, s datastore.Snapshot, q ResourcesQuestion, now time.Time, l Limits, o LookupOptions, yield func(Found) bool) (Listing, error) {
	w, err := newResourceWalk(s, &q, now, l, o, yield)
	if err != nil {
		return Listing{}, err
	}
	defer w.judge.engine.release()
	if withheld, err := w.judge.engine.withheld(ctx); err != nil || withheld {
		w.list.Complete = err == nil
		return w.list.Listing, err
	}
	few := false
	if q.Under != nil {
		if few, err = w.descend(ctx, *q.Under); err != nil {
			return Listing{}, err
		}
	}
	if few {
		err = w.askBelow(ctx)
	} else {
		err = w.run(ctx, q.Subject)
	}
	if err == nil && w.list.options.ordered() {
		err = w.list.finishPage(ctx, false, func(e entry) (Answer, error) { return w.ask(ctx, place{e.object, w.plan.target}) })
	}
	if err != nil {
		w.list.Complete = false
		return w.list.Listing, err
	}
	return w.list.end()
}

// resourceWalk goes from a subject backwards to the objects of a permission.
type resourceWalk struct {
	view   *view
	schema *schema.Schema
	now    int64
	judge  *judge
	plan   *plan
	list   *listing
	below  *idSet // what lies under the ancestor, if one was given

	sure  []place // have their relation; their hops are not yet made
	doubt []place // may have it
	steps int
	// foreseen counts the places on top of doubt that were looked at together.
	foreseen int
}

// place is an object at a station.
type place struct {
	object  datastore.ID
	station *station
}

func newResourceWalk(s datastore.Snapshot, q *ResourcesQuestion, now time.Time, l Limits, o LookupOptions, yield func(Found) bool) (*resourceWalk, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	target, err := lookupTarget(s, q.Type, q.Permission, q.IDPrefix)
	if err != nil {
		return nil, err
	}
	check := Question{Permission: q.Permission, Subject: q.Subject, Context: q.Context, Contextual: q.Contextual}
	if err := check.checkSubject(s); err != nil {
		return nil, err
	}
	v, err := newView(s, q.Contextual)
	if err != nil {
		return nil, err
	}
	w := &resourceWalk{view: v, schema: s.Schema(), now: evaluationTime(s, now), list: newListing(o, q.IDPrefix, yield)}
	w.judge = newJudge(v, check, w.now, l)
	userset, _ := s.Names().ID(q.Subject.Relation)
	w.plan = newPlan(target, w.schema.Definition(q.Subject.Type), userset)
	return w, nil
}

// run walks until every object was found.
func (w *resourceWalk) run(ctx context.Context, subject tuple.Subject) error {
	if err := w.start(ctx, subject); err != nil {
		return err
	}
	for !w.list.stopped {
		if err := ctx.Err(); err != nil {
			return err
		}
		switch {
		case len(w.sure) > 0:
			if err := w.leave(ctx, &w.sure, true); err != nil {
				return err
			}
		case len(w.doubt) > 0:
			if err := w.decide(ctx); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return nil
}

// start takes the first reads: from the subject and from the wildcard.
func (w *resourceWalk) start(ctx context.Context, subject tuple.Subject) error {
	id := w.view.id(subject.Object)
	if w.plan.userset != 0 {
		if s := w.plan.stations[w.plan.typ.RelationByName(w.plan.userset)]; s != nil {
			return w.reach(ctx, id, s, true) // a userset is in itself
		}
		return nil
	}
	for _, s := range w.plan.self {
		if err := w.reach(ctx, id, s.to, s.sure); err != nil {
			return err
		}
	}
	if err := w.read(ctx, []datastore.ID{id}, [][]hop{w.plan.direct}, true); err != nil {
		return err
	}
	if len(w.plan.wildcard) == 0 {
		return nil
	}
	everybody := w.view.id(tuple.Object{Type: subject.Type, ID: tuple.Wildcard})
	return w.read(ctx, []datastore.ID{everybody}, [][]hop{w.plan.wildcard}, true)
}

// leave takes as many places as one read gathers, and makes their hops.
func (w *resourceWalk) leave(ctx context.Context, queue *[]place, sure bool) error {
	var from []datastore.ID
	var hops [][]hop
	for len(*queue) > 0 && len(from) < max(1, w.view.Width()) {
		p := (*queue)[len(*queue)-1]
		*queue = (*queue)[:len(*queue)-1]
		from, hops = append(from, p.object), append(hops, p.station.hops)
	}
	return w.read(ctx, from, hops, sure)
}

// read makes the hops of some objects in one round.
func (w *resourceWalk) read(ctx context.Context, from []datastore.ID, hops [][]hop, sure bool) error {
	var qs []datastore.Query
	var owner []*hop
	for i := range from {
		for j := range hops[i] {
			qs, owner = append(qs, hops[i][j].query(from[i])), append(owner, &hops[i][j])
		}
	}
	if len(qs) == 0 {
		return nil
	}
	var failed error
	err := w.view.Read(ctx, qs, func(q int, e datastore.Edge) bool {
		if failed == nil && !w.list.stopped {
			failed = w.arrive(ctx, owner[q], &e, sure)
		}
		return failed == nil && !w.list.stopped
	})
	if err != nil {
		return err
	}
	return failed
}

// arrive puts the object of an edge where the hop leads.
func (w *resourceWalk) arrive(ctx context.Context, h *hop, e *datastore.Edge, sure bool) error {
	if w.steps++; w.steps%512 == 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if expired(e, w.now) {
		return nil
	}
	if g := w.judge.engine.guard(ctx, e); g != nil {
		if g.value == isNo {
			return nil
		}
		sure = false
	}
	typ := w.view.Type(e.Object)
	for i := range h.leads {
		if l := &h.leads[i]; l.to.relation.Definition.Name == typ {
			if err := w.reach(ctx, e.Object, l.to, sure && l.sure); err != nil {
				return err
			}
		}
	}
	return nil
}

// reach puts an object at a station, once for sure and before that once in
// doubt, and goes on to the permissions of the same object.
func (w *resourceWalk) reach(ctx context.Context, o datastore.ID, s *station, sure bool) error {
	if s.sure.has(o) || !sure && !s.doubt.add(o) {
		return nil
	}
	if !sure {
		switch {
		case s != w.plan.target || len(s.hops)+len(s.steps) > 0:
			w.doubt = append(w.doubt, place{o, s})
		case !w.wanted(o):
		case !s.certain && w.view.Width() == 1:
			return w.settle(ctx, place{o, s}) // waiting would make nothing surer
		case w.list.options.ordered():
			w.result(o, entry{doubt: true})
		default:
			w.doubt = append(w.doubt, place{o, s})
		}
		return nil
	}
	s.sure.add(o)
	if s == w.plan.target {
		w.result(o, entry{answer: Answer{Outcome: Yes}})
	}
	if len(s.hops) > 0 {
		w.sure = append(w.sure, place{o, s})
	}
	for _, next := range s.steps {
		if err := w.reach(ctx, o, next.to, next.sure); err != nil {
			return err
		}
	}
	return nil
}

// decide asks about one place in doubt, once all that is sure was followed: what
// Check denies leads nowhere, and what it grants is as good as reached for sure.
func (w *resourceWalk) decide(ctx context.Context) error {
	if w.view.Width() > 1 {
		if err := w.foresee(ctx); err != nil {
			return err
		}
	}
	p := w.doubt[len(w.doubt)-1]
	w.doubt = w.doubt[:len(w.doubt)-1]
	if p.station.sure.has(p.object) {
		return nil
	}
	return w.settle(ctx, p)
}

// settle asks about a place in doubt and goes on from it.
func (w *resourceWalk) settle(ctx context.Context, p place) error {
	a, err := w.ask(ctx, p)
	switch {
	case err != nil && fatal(ctx, err):
		return err
	case err == nil && a.Outcome == Yes:
		return w.reach(ctx, p.object, p.station, true)
	case err == nil && a.Outcome == No:
		return nil
	}
	if p.station == w.plan.target {
		w.result(p.object, entry{answer: a, err: err})
	}
	for _, next := range p.station.steps {
		if err := w.reach(ctx, p.object, next.to, false); err != nil {
			return err
		}
	}
	if len(p.station.hops) == 0 {
		return nil
	}
	return w.read(ctx, []datastore.ID{p.object}, [][]hop{p.station.hops}, false)
}

// ask checks a place. What the walk knows for sure of the same object spares the
// engine finding it again.
func (w *resourceWalk) ask(ctx context.Context, p place) (Answer, error) {
	e := w.judge.ready()
	for _, from := range p.station.from {
		if from.sure.has(p.object) {
			if err := e.know(p.object, from.relation); err != nil {
				return Answer{}, err
			}
		}
	}
	return e.ask(ctx, p.object, p.station.relation)
}

// foresee looks at the next places in doubt together, so that their reads share
// rounds.
func (w *resourceWalk) foresee(ctx context.Context) error {
	if w.foreseen--; w.foreseen >= 0 {
		return nil
	}
	e := w.judge.ready()
	var roots []int32
	for i := len(w.doubt) - 1; i >= 0 && len(roots) < w.view.Width(); i-- {
		root, err := e.relationNode(w.doubt[i].object, w.doubt[i].station.relation)
		if err != nil {
			return err
		}
		roots = append(roots, root)
	}
	w.foreseen = len(roots) - 1
	err := e.exploreAll(ctx, roots)
	if errors.Is(err, ErrTooManyNodes) { // together; each alone may do
		w.judge.renew()
		return nil
	}
	return err
}

// wanted reports whether an object of the target belongs to the list.
func (w *resourceWalk) wanted(o datastore.ID) bool {
	if w.below != nil && !w.below.has(o) {
		return false
	}
	id := w.view.Object(o).ID
	return w.list.wants(id) && !w.list.page.beyond(id)
}

// result takes an object of the target into the list.
func (w *resourceWalk) result(o datastore.ID, e entry) {
	if !w.wanted(o) {
		return
	}
	e.id, e.object = w.view.Object(o).ID, o
	switch {
	case w.list.options.ordered():
		w.list.page.add(e)
	case e.err != nil:
		w.list.fail(e.err)
	default:
		w.list.give(Found{ID: e.id, Answer: e.answer})
	}
}
