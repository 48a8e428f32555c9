package graph

import (
	"context"
	"fmt"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// SubjectsQuestion asks for the subjects of a type that have a permission or
// relation on a resource.
type SubjectsQuestion struct {
	Resource   tuple.Object
	Permission string
	Type       string
	// Relation, if set, asks for usersets of that relation instead of objects.
	Relation   string
	Context    schema.Context
	Contextual []tuple.Relationship
	// IDPrefix is what the subjects' ids begin with. The wildcard is found whatever
	// the prefix: it stands for those who have it, too.
	IDPrefix string
}

// LookupSubjects calls yield for each subject of the question's type of which
// Check says yes or conditional, until yield returns false. No subject comes
// twice.
//
// The id "*" stands for every subject that is not in the list, those that no
// relationship mentions included. Only where it is there, subjects that it does
// not cover are listed with the answer No. So what Check says of anybody is what
// the list says of them, or else what it says of "*", or else no.
//
// Errors are those of [Check], and end the list as in [LookupResources].
func LookupSubjects(ctx context.Context, s datastore.Snapshot, q SubjectsQuestion, now time.Time, l Limits, o LookupOptions, yield func(Found) bool) (Listing, error) {
	w, err := newSubjectWalk(s, &q, now, l, o, yield)
	if err != nil {
		return Listing{}, err
	}
	defer w.judge.engine.release()
	if w.withheld, err = s.Withheld(ctx); err != nil {
		return Listing{}, err
	}
	if err = w.run(ctx); err == nil {
		err = w.decide(ctx)
	}
	if err != nil {
		w.list.Complete = false
		return w.list.Listing, err
	}
	return w.list.end()
}

// subjectWalk goes from an object's permission forward to the subjects.
type subjectWalk struct {
	view   *view
	schema *schema.Schema
	now    int64
	check  Question // but for its subject
	judge  *judge   // of whoever was asked about last; evaluates caveats
	reach  *reach
	target *schema.Relation
	list   *listing

	object datastore.ID
	// whole: what stands behind a minus is walked as well, and every part of an
	// intersection, because somebody is let in by a wildcard.
	whole    bool
	wildcard bool // one was met that may hold
	sureAt   map[*schema.Relation]*idSet
	doubtAt  map[*schema.Relation]*idSet
	sure     []spot
	doubt    []spot
	reads    []spot // relations and arrows whose reads wait for the round
	withheld *datastore.Withheld
	given    idSet // subjects that have the permission for sure
	asked    idSet // subjects in doubt, each once
	doubts   []datastore.ID
	steps    int
}

// spot is a relation or permission of an object, or with expr an arrow of it.
type spot struct {
	object   datastore.ID
	relation *schema.Relation
	expr     *schema.Expr
	sure     bool
}

func newSubjectWalk(s datastore.Snapshot, q *SubjectsQuestion, now time.Time, l Limits, o LookupOptions, yield func(Found) bool) (*subjectWalk, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := q.Resource.Check(); err != nil {
		return nil, fmt.Errorf("%w: resource: %w", ErrInvalid, err)
	}
	target, err := relation(s.Schema(), q.Resource.Type, q.Permission)
	if err != nil {
		return nil, err
	}
	if err := tuple.CheckType(q.Type); err != nil {
		return nil, fmt.Errorf("%w: subject type: %w", ErrInvalid, err)
	}
	if err := tuple.CheckIDPrefix(q.IDPrefix); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	typ, err := definition(s.Schema(), q.Type)
	if err != nil {
		return nil, err
	}
	userset := schema.Name(0)
	if q.Relation != "" {
		r, err := relation(s.Schema(), q.Type, q.Relation)
		if err != nil {
			return nil, err
		}
		userset = r.Name
	}
	v, err := newView(s, q.Contextual)
	if err != nil {
		return nil, err
	}
	w := &subjectWalk{
		view: v, schema: s.Schema(), now: evaluationTime(s, now), target: target, object: v.id(q.Resource),
		check:  Question{Resource: q.Resource, Permission: q.Permission, Context: q.Context, Contextual: q.Contextual},
		reach:  newReach(target, typ, userset),
		list:   newListing(o, q.IDPrefix, yield),
		sureAt: map[*schema.Relation]*idSet{}, doubtAt: map[*schema.Relation]*idSet{},
	}
	w.check.Subject = tuple.Subject{Object: tuple.Object{Type: q.Type, ID: nobody}, Relation: q.Relation}
	w.judge = newJudge(v, w.check, w.now, l)
	return w, nil
}

// nobody is an id that no object can have, so that only wildcards let it in.
const nobody = " "

// run walks until every subject that may have the permission was met.
func (w *subjectWalk) run(ctx context.Context) error {
	w.visit(w.object, w.target, true)
	if err := w.drain(ctx); err != nil {
		return err
	}
	if !w.wildcard || w.list.stopped {
		return nil
	}
	w.whole = true
	w.sureAt, w.doubtAt = map[*schema.Relation]*idSet{}, map[*schema.Relation]*idSet{}
	w.visit(w.object, w.target, true)
	return w.drain(ctx)
}

func (w *subjectWalk) drain(ctx context.Context) error {
	for !w.list.stopped {
		if err := ctx.Err(); err != nil {
			return err
		}
		queue := &w.sure
		if len(w.sure) == 0 {
			queue = &w.doubt
		}
		if n := len(*queue); n > 0 && len(w.reads) < max(1, w.view.Width()) {
			next := (*queue)[n-1]
			*queue = (*queue)[:n-1]
			w.open(next)
			continue
		}
		if len(w.reads) == 0 {
			return nil
		}
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	return nil
}

// visit queues a relation or permission of an object, once for sure and before
// that once in doubt.
func (w *subjectWalk) visit(o datastore.ID, r *schema.Relation, sure bool) {
	if w.reach.is(r) {
		w.mention(o, sure) // a userset is in itself
	}
	if w.reach.cost[r] == 0 || set(w.sureAt, r).has(o) {
		return
	}
	if sure {
		set(w.sureAt, r).add(o)
		w.sure = append(w.sure, spot{object: o, relation: r, sure: true})
	} else if set(w.doubtAt, r).add(o) {
		w.doubt = append(w.doubt, spot{object: o, relation: r})
	}
}

func set(at map[*schema.Relation]*idSet, r *schema.Relation) *idSet {
	s := at[r]
	if s == nil {
		s = &idSet{}
		at[r] = s
	}
	return s
}

// open follows a permission's expression, or queues a relation's read.
func (w *subjectWalk) open(s spot) {
	if !s.sure && set(w.sureAt, s.relation).has(s.object) {
		return
	}
	if s.relation.Expr == nil {
		w.reads = append(w.reads, s)
		return
	}
	w.follow(s.object, s.relation, s.relation.Expr, s.sure)
}

func (w *subjectWalk) follow(o datastore.ID, r *schema.Relation, x *schema.Expr, sure bool) {
	if w.reach.expr(r.Definition, x) == 0 {
		return
	}
	switch x.Kind {
	case schema.Self:
		w.mention(o, sure)
	case schema.Ref:
		w.visit(o, x.Relation, sure)
	case schema.Arrow, schema.ArrowAll:
		w.reads = append(w.reads, spot{object: o, relation: x.Tupleset, expr: x, sure: sure && x.Kind == schema.Arrow})
	case schema.Union:
		for _, c := range x.Children {
			w.follow(o, r, c, sure)
		}
	case schema.Intersection:
		if !w.whole {
			w.follow(o, r, w.reach.nearest(r.Definition, x), false)
			return
		}
		for _, c := range x.Children {
			w.follow(o, r, c, false)
		}
	case schema.Exclusion:
		w.follow(o, r, x.Children[0], false)
		if w.whole {
			w.follow(o, r, x.Children[1], false)
		}
	}
}

// flush makes the reads that wait, in one round.
func (w *subjectWalk) flush(ctx context.Context) error {
	qs := make([]datastore.Query, len(w.reads))
	from := w.reads
	w.reads = nil
	for i, s := range from {
		qs[i] = datastore.Query{Object: s.object, Relation: s.relation.Name, UsersetsOnly: s.expr == nil && !w.holdsDirect(s.relation)}
	}
	var failed error
	err := w.view.Read(ctx, qs, func(q int, e datastore.Edge) bool {
		if failed == nil && !w.list.stopped {
			failed = w.arrive(ctx, &from[q], &e)
		}
		return failed == nil && !w.list.stopped
	})
	if err != nil {
		return err
	}
	return failed
}

func (w *subjectWalk) holdsDirect(r *schema.Relation) bool {
	for i := range r.Allowed {
		if a := &r.Allowed[i]; a.Relation == nil && w.reach.direct(a) {
			return true
		}
	}
	return false
}

// arrive follows an edge to its subject.
func (w *subjectWalk) arrive(ctx context.Context, s *spot, e *datastore.Edge) error {
	if w.steps++; w.steps%512 == 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if expired(e, w.now) {
		return nil
	}
	sure := s.sure
	if e.Caveat != "" {
		if g := w.judge.engine.guard(ctx, e); g != nil {
			if g.value == isNo {
				return nil
			}
			sure = false
		}
	}
	name := e.SubjectRelation
	if s.expr != nil {
		name = s.expr.TargetName
	} else if name == 0 {
		if w.reach.userset == 0 && w.view.Type(e.Subject) == w.reach.typ.Name {
			w.mention(e.Subject, sure)
		}
		return nil
	}
	if d := w.schema.DefinitionByName(w.view.Type(e.Subject)); d != nil {
		if r := d.RelationByName(name); r != nil {
			w.visit(e.Subject, r, sure)
		}
	}
	return nil
}

// mention takes a subject into the list, or among those that are in doubt.
func (w *subjectWalk) mention(u datastore.ID, sure bool) {
	if w.given.has(u) {
		return
	}
	id := w.view.Object(u).ID
	if id == tuple.Wildcard {
		w.wildcard = true
		return
	}
	if !w.list.wants(id) {
		return
	}
	if sure && (w.reach.userset != 0 || !w.withheld.Has(w.view.Object(u))) {
		w.given.add(u)
		if w.list.options.ordered() {
			w.list.page.add(entry{id: id, object: u, answer: Answer{Outcome: Yes}})
		} else {
			w.list.give(Found{ID: id, Answer: Answer{Outcome: Yes}})
		}
		return
	}
	if w.asked.add(u) {
		w.doubts = append(w.doubts, u)
	}
}

// decide asks about the wildcard and about those in doubt.
func (w *subjectWalk) decide(ctx context.Context) error {
	everybody := false
	if w.wildcard && w.reach.userset == 0 {
		// Whom the wildcard does not cover is named, also those that nothing mentions.
		for id := range w.withheld.OfType(w.check.Subject.Type) {
			w.mention(w.view.id(tuple.Object{Type: w.check.Subject.Type, ID: id}), false)
		}
	}
	if w.wildcard && !w.list.stopped {
		a, err := w.judge.ask(ctx, w.object, w.target)
		if err != nil && fatal(ctx, err) {
			return err
		}
		everybody = err == nil && a.Outcome != No
		switch {
		case w.list.options.ordered():
			if everybody || err != nil {
				w.everybody(entry{id: tuple.Wildcard, answer: a, err: err})
			}
		case err != nil:
			w.list.fail(err)
		case everybody:
			w.list.give(Found{ID: tuple.Wildcard, Answer: a})
		}
	}
	if w.list.options.ordered() {
		for _, u := range w.doubts {
			if !w.given.has(u) {
				w.list.page.add(entry{id: w.view.Object(u).ID, object: u, doubt: true})
			}
		}
		return w.list.finishPage(ctx, everybody, func(e entry) (Answer, error) { return w.ask(ctx, e.id) })
	}
	for _, u := range w.doubts {
		if w.list.stopped {
			return nil
		}
		if w.given.has(u) {
			continue
		}
		id := w.view.Object(u).ID
		a, err := w.ask(ctx, id)
		switch {
		case err != nil && fatal(ctx, err):
			return err
		case err != nil:
			w.list.fail(err)
		case a.Outcome != No || everybody:
			w.list.give(Found{ID: id, Answer: a})
		}
	}
	return nil
}

// everybody takes the wildcard into an ordered list.
func (w *subjectWalk) everybody(e entry) {
	if w.list.options.After == "" || e.id > w.list.options.After {
		w.list.page.add(e)
	}
}

// ask checks one subject.
func (w *subjectWalk) ask(ctx context.Context, id string) (Answer, error) {
	subject := w.check.Subject
	subject.ID = id
	w.judge.about(subject)
	return w.judge.ask(ctx, w.object, w.target)
}
