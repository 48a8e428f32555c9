package graph

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// Check answers one question. Errors wrap ErrInvalid, ErrNoSchema, ErrUnknown,
// ErrRecursion, ErrTooManyNodes, the kinds of caveat errors of package schema, or
// the context's error.
func Check(ctx context.Context, s datastore.Snapshot, q Question, now time.Time, l Limits) (Answer, error) {
	e, err := prepare(s, &q, now, l)
	if err != nil {
		return Answer{}, err
	}
	defer e.release()
	r, err := relation(s.Schema(), q.Resource.Type, q.Permission)
	if err != nil {
		return Answer{}, err
	}
	return e.ask(ctx, e.view.id(q.Resource), r)
}

// prepare checks a question's parts, all but the permission, and makes its
// engine.
func prepare(s datastore.Snapshot, q *Question, now time.Time, l Limits) (*engine, error) {
	if err := q.check(s); err != nil {
		return nil, err
	}
	e := engines.Get().(*engine)
	if err := e.own.lay(s, q.Contextual); err != nil {
		return nil, err
	}
	e.over(&e.own, evaluationTime(s, now), l)
	e.about(q)
	return e, nil
}

func (q *Question) check(s datastore.Snapshot) error {
	if err := q.Resource.Check(); err != nil {
		return fmt.Errorf("%w: resource: %w", ErrInvalid, err)
	}
	if _, err := definition(s.Schema(), q.Resource.Type); err != nil {
		return err
	}
	return q.checkSubject(s)
}

func (q *Question) checkSubject(s datastore.Snapshot) error {
	if err := q.Subject.Check(); err != nil {
		return fmt.Errorf("%w: subject: %w", ErrInvalid, err)
	}
	if q.Subject.IsWildcard() {
		return fmt.Errorf("%w: subject %s stands for everybody; ask about one, or expand the resource", ErrInvalid, q.Subject)
	}
	_, err := definition(s.Schema(), q.Subject.Type)
	if err == nil && q.Subject.Relation != "" {
		_, err = relation(s.Schema(), q.Subject.Type, q.Subject.Relation)
	}
	return err
}

// CheckBulk answers many questions, each on its own; questions about the same
// subject with the same context share their work. Results stand in the order of
// the questions, errors (nil for an answer) beside them. Questions that are left
// when those before have visited ten times the nodes of [Limits] end in
// ErrTooManyNodes.
func CheckBulk(ctx context.Context, s datastore.Snapshot, qs []Question, now time.Time, l Limits) ([]Answer, []error) {
	answers, errs := make([]Answer, len(qs)), make([]error, len(qs))
	var spent atomic.Int64
	at := evaluationTime(s, now)
	ask := func(order []int32) {
		b := &bulk{snapshot: s, now: at, limits: l, engine: engines.Get().(*engine), spent: &spent}
		defer b.engine.release()
		for _, i := range order {
			if errs[i] = ctx.Err(); errs[i] == nil {
				answers[i], errs[i] = b.ask(ctx, &qs[i])
			}
		}
	}
	if order := bySubject(qs); s.Width() > 1 {
		askTogether(order, ask)
	} else {
		ask(order)
	}
	return answers, errs
}

const (
	// bulkWorkers is how many questions of a bulk wait for a database at once, and
	// bulkPiece how many one worker takes at a time: they share what they learn.
	bulkWorkers = 8
	bulkPiece   = 64
)

// askTogether asks pieces of a bulk at once, where answers are waited for.
func askTogether(order []int32, ask func([]int32)) {
	var next atomic.Int64
	var work sync.WaitGroup
	for range min(bulkWorkers, (len(order)+bulkPiece-1)/bulkPiece) {
		work.Go(func() {
			for {
				from := int(next.Add(bulkPiece)) - bulkPiece
				if from >= len(order) {
					return
				}
				ask(order[from:min(from+bulkPiece, len(order))])
			}
		})
	}
	work.Wait()
}

// bySubject is an order in which questions about one subject stand together.
func bySubject(qs []Question) []int32 {
	order := make([]int32, len(qs))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(i, j int32) int {
		a, b := &qs[i].Subject, &qs[j].Subject
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Relation, b.Relation), cmp.Compare(i, j))
	})
	return order
}

// bulkNodes is how many times the nodes of one question the questions of a call
// may visit together.
const bulkNodes = 10

// bulk asks one question after the other of one engine.
type bulk struct {
	snapshot datastore.Snapshot
	now      int64
	limits   Limits
	engine   *engine
	last     *Question     // about which the engine is; nil: it has no view
	spent    *atomic.Int64 // nodes of all questions so far
}

func (b *bulk) ask(ctx context.Context, q *Question) (Answer, error) {
	if err := q.check(b.snapshot); err != nil {
		return Answer{}, err
	}
	r, err := relation(b.snapshot.Schema(), q.Resource.Type, q.Permission)
	if err != nil {
		return Answer{}, err
	}
	e := b.engine
	switch {
	case b.last == nil || !sameView(b.last, q):
		b.last = nil
		if err := e.own.lay(b.snapshot, q.Contextual); err != nil {
			return Answer{}, err
		}
		e.over(&e.own, b.now, b.limits)
		e.about(q)
	case b.last.Subject != q.Subject || b.last.Context.Len()+q.Context.Len() > 0 || e.size() > e.limits.nodes()/2:
		e.about(q)
	}
	b.last = q
	if spent := b.spent.Load(); spent >= int64(bulkNodes*b.limits.nodes()) {
		return Answer{}, fmt.Errorf("%w: the questions before it in this call visited %d nodes; ask fewer in a call", ErrTooManyNodes, spent)
	}
	before := e.size()
	a, err := e.ask(ctx, e.view.id(q.Resource), r)
	b.spent.Add(int64(e.size() - before))
	return a, err
}

// sameView reports whether two questions share their contextual relationships.
func sameView(a, b *Question) bool {
	return len(a.Contextual) == len(b.Contextual) && (len(a.Contextual) == 0 || &a.Contextual[0] == &b.Contextual[0])
}

// PermissionAnswer is the answer for one relation or permission.
type PermissionAnswer struct {
	Name         string
	IsPermission bool
	Answer       Answer
	Err          error // why there is no answer; nil if there is one
}

// Permissions answers, in the order of the schema, for every relation and
// permission of a resource's type, with shared work.
func Permissions(ctx context.Context, s datastore.Snapshot, resource tuple.Object, subject tuple.Subject, given schema.Context, contextual []tuple.Relationship, now time.Time, l Limits) ([]PermissionAnswer, error) {
	q := Question{Resource: resource, Subject: subject, Context: given, Contextual: contextual}
	e, err := prepare(s, &q, now, l)
	if err != nil {
		return nil, err
	}
	defer e.release()
	object := e.view.id(resource)
	var out []PermissionAnswer
	for _, r := range s.Schema().Definition(resource.Type).Relations {
		a, err := e.ask(ctx, object, r)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		out = append(out, PermissionAnswer{Name: r.Text, IsPermission: r.IsPermission(), Answer: a, Err: err})
	}
	return out, nil
}
