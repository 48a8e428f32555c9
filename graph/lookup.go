package graph

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// LookupOptions say which part of a lookup's results are wanted, and how.
type LookupOptions struct {
	// Ordered gives the results in order of their ids' bytes; otherwise they come
	// as they are found. A Limit or an After implies it.
	Ordered bool
	// Limit is how many results are given at most; zero: all.
	Limit int
	// After leaves out results up to and including that id.
	After string
	// CountOnly counts the results and gives none of them.
	CountOnly bool
}

func (o *LookupOptions) ordered() bool { return o.Ordered || o.Limit > 0 || o.After != "" }

func (o *LookupOptions) check() error {
	if o.Limit < 0 {
		return fmt.Errorf("%w: the limit %d is negative", ErrInvalid, o.Limit)
	}
	return nil
}

// Found is a result of a lookup: Check says Answer of it, and never No, save
// where [LookupSubjects] names an exclusion of the wildcard.
type Found struct {
	// ID is that of the resource or subject; "*" stands for every subject.
	ID     string
	Answer Answer
}

// Listing tells how a lookup ended.
type Listing struct {
	// Complete is false if a limit cut the results off, or the one who received
	// them wanted no more.
	Complete bool
	// Last is the id after which a next page begins; set where results are ordered
	// and not complete.
	Last string
	// Yes, Conditional and Excluded count the results given, or with CountOnly all
	// there are.
	Yes, Conditional, Excluded int
}

// EvaluationTime is the time at which a snapshot answers a question asked now:
// the later of the two clocks. A cursor carries it.
func EvaluationTime(s datastore.Snapshot, now time.Time) time.Time {
	return time.UnixMicro(evaluationTime(s, now)).UTC()
}

// listing gathers or passes on the results of one lookup.
type listing struct {
	Listing
	options LookupOptions
	prefix  string
	yield   func(Found) bool
	stopped bool
	err     error // of a result that has no answer; the first by its text
	page    page
}

func newListing(o LookupOptions, prefix string, yield func(Found) bool) *listing {
	l := &listing{options: o, prefix: prefix, yield: yield, page: page{limit: o.Limit}}
	l.Complete = true
	return l
}

// wants reports whether a result of that id belongs to the list.
func (l *listing) wants(id string) bool {
	return strings.HasPrefix(id, l.prefix) && (l.options.After == "" || id > l.options.After)
}

// give passes a result on and counts it.
func (l *listing) give(f Found) {
	if l.stopped {
		return
	}
	if !l.options.CountOnly && !l.yield(f) {
		l.stopped, l.Complete = true, false
		l.Last = f.ID
		return
	}
	switch f.Answer.Outcome {
	case Yes:
		l.Yes++
	case Conditional:
		l.Conditional++
	case No:
		l.Excluded++
	}
}

// fail notes that a result has no answer. A list with one ends in its error,
// once everything else was given.
func (l *listing) fail(err error) { l.err = first(l.err, err) }

// end is what the lookup returns.
func (l *listing) end() (Listing, error) {
	if !l.options.ordered() || l.Complete {
		l.Last = ""
	}
	if l.err != nil && !l.stopped {
		l.Complete = false
		return l.Listing, l.err
	}
	return l.Listing, nil
}

// finishPage gives the gathered page in order. judge answers for an entry that
// is in doubt; covered tells that entries with the answer No belong to the list.
func (l *listing) finishPage(ctx context.Context, covered bool, judge func(entry) (Answer, error)) error {
	last, given := "", 0
	for e := range l.page.all() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if e.doubt {
			e.answer, e.err = judge(e)
		}
		switch {
		case e.err != nil && fatal(ctx, e.err):
			return e.err
		case e.err != nil && (l.options.Limit == 0 || given < l.options.Limit):
			l.fail(e.err)
			return nil
		case e.err == nil && e.answer.Outcome == No && !covered:
			continue
		}
		if l.options.Limit > 0 && given == l.options.Limit {
			l.Complete, l.Last = false, last
			return nil
		}
		if l.give(Found{ID: e.id, Answer: e.answer}); l.stopped {
			return nil
		}
		last = e.id
		given++
	}
	return nil
}

// judge answers for many nodes, or for many subjects, within bounded memory: an
// engine whose table has grown large makes way for a new one.
type judge struct {
	view   *view
	now    int64
	limits Limits
	q      Question
	engine *engine
}

// crowdedTable is how many nodes a lookup lets a table hold before the next
// question begins another.
const crowdedTable = 1 << 15

func newJudge(v *view, q Question, now int64, l Limits) *judge {
	return &judge{view: v, q: q, now: now, limits: l, engine: newEngine(v, &q, now, l)}
}

// ready returns an engine with room for more.
func (j *judge) ready() *engine {
	if j.engine.size() > min(crowdedTable, j.limits.nodes()/2) {
		j.renew()
	}
	return j.engine
}

func (j *judge) renew() { j.engine.about(&j.q) }

// about makes j answer about another subject.
func (j *judge) about(s tuple.Subject) {
	j.q.Subject = s
	j.renew()
}

func (j *judge) ask(ctx context.Context, o datastore.ID, r *schema.Relation) (Answer, error) {
	return j.ready().ask(ctx, o, r)
}

// know puts into the engine's table that the subject has a relation for sure.
func (e *engine) know(o datastore.ID, r *schema.Relation) error {
	i, err := e.relationNode(o, r)
	if err == nil && e.nodes[i].state == fresh {
		e.settle(i, isYes, nil, nil)
	}
	return err
}

// fatal reports whether an error ends a lookup at once, rather than telling that
// one of its results has no answer.
func fatal(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return true
	}
	for _, open := range []error{ErrRecursion, ErrUnknown, schema.ErrContext, schema.ErrCaveatField, schema.ErrCaveatRuntime, schema.ErrCaveatCost} {
		if errors.Is(err, open) {
			return false
		}
	}
	return true
}

// expired reports whether an edge no longer exists at the evaluation time.
func expired(e *datastore.Edge, now int64) bool { return e.Expiration != 0 && e.Expiration <= now }

// lookupTarget checks the ends that both lookups name.
func lookupTarget(s datastore.Snapshot, typ, permission, prefix string) (*schema.Relation, error) {
	if err := tuple.CheckType(typ); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := tuple.CheckIDPrefix(prefix); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return relation(s.Schema(), typ, permission)
}

// exploreAll looks at several nodes together, so that their reads share rounds;
// what it learns serves the questions that follow.
func (e *engine) exploreAll(ctx context.Context, roots []int32) error {
	e.roots = append(e.roots[:0], roots...)
	e.restart()
	defer e.abandon()
	for len(e.stack)+len(e.queue) > 0 {
		if len(e.stack) == 0 {
			if err := e.flush(ctx); err != nil {
				return err
			}
			continue
		}
		if err := e.count(ctx); err != nil {
			return err
		}
		if err := e.step(ctx, e.stack[len(e.stack)-1]); err != nil {
			return err
		}
	}
	return nil
}
