package graph

import (
	"context"
	"fmt"
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
	v, err := newView(s, q.Contextual)
	if err != nil {
		return nil, err
	}
	return newEngine(v, q, evaluationTime(s, now), l), nil
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
// the questions, errors (nil for an answer) beside them.
func CheckBulk(ctx context.Context, s datastore.Snapshot, qs []Question, now time.Time, l Limits) ([]Answer, []error) {
	answers, errs := make([]Answer, len(qs)), make([]error, len(qs))
	engines := map[tuple.Subject]*engine{}
	for i := range qs {
		q := &qs[i]
		if err := ctx.Err(); err != nil {
			errs[i] = err
			continue
		}
		shared := q.Context.Len() == 0 && len(q.Contextual) == 0
		e := engines[q.Subject]
		if !shared || e == nil || len(e.nodes) > e.limits.nodes()/2 {
			var err error
			if e, err = prepare(s, q, now, l); err != nil {
				errs[i] = err
				continue
			}
			if shared {
				engines[q.Subject] = e
			}
		} else if err := q.check(s); err != nil {
			errs[i] = err
			continue
		}
		r, err := relation(s.Schema(), q.Resource.Type, q.Permission)
		if err != nil {
			errs[i] = err
			continue
		}
		answers[i], errs[i] = e.ask(ctx, e.view.id(q.Resource), r)
	}
	return answers, errs
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
