package validation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/graph"
)

// batch is how many relationships are written in one change.
const batch = 1000

// Report is what running a validation file came to.
type Report struct {
	Name string
	// Passed counts the assertions that hold; Failed holds the others, in the
	// order of the file.
	Passed   int
	Failed   []Result
	Coverage Coverage
}

// Total is how many assertions were judged; each expected subject is one, and so
// is that nobody else has the permission.
func (r *Report) Total() int { return r.Passed + len(r.Failed) }

// Result is an assertion that does not hold, and why.
type Result struct {
	Assertion
	Got graph.Answer
	// Err is why there is no answer; Got means nothing then.
	Err error
}

// String gives one line: position, question, and what was expected and got.
func (r Result) String() string {
	return fmt.Sprintf("%s: %s: expected %s, got %s", r.Pos, r.Text, r.Want, r.got())
}

func (r Result) got() string {
	switch {
	case r.Err != nil:
		return "an error: " + r.Err.Error()
	case r.Got.Outcome == graph.Conditional:
		return "conditional, for want of " + strings.Join(r.Got.Missing, ", ")
	case r.Got.Outcome == graph.Yes:
		return "yes"
	}
	return "no"
}

// Run asks every assertion of the file on a store in memory of its own, at the
// present time. An error means that the file could not be run at all; an
// assertion that does not hold, or has no answer, is in the report.
func (f *File) Run(ctx context.Context) (report *Report, err error) {
	store, err := keeper.Open(memory.New(), keeper.Options{MaxOperations: batch})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := f.fill(ctx, store); err != nil {
		return nil, fmt.Errorf("validation file %s: %w", f.Name, err)
	}
	snapshot, err := store.At(ctx, datastore.Default, datastore.Consistency{Level: datastore.FullyConsistent})
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	now := time.Now()
	questions := make([]graph.Question, len(f.Assertions))
	for i, a := range f.Assertions {
		questions[i] = graph.Question{Resource: a.Resource, Permission: a.Permission, Subject: a.Subject, Context: a.Context}
	}
	answers, failures := graph.CheckBulk(ctx, snapshot, questions, now, graph.Limits{})
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("validation file %s: %w", f.Name, err)
	}
	asked := slices.Clone(f.Assertions)
	for _, e := range f.Expected {
		asked = append(asked, Assertion{Resource: e.Resource, Permission: e.Permission})
	}
	report = &Report{Name: f.Name, Coverage: coverage(f.Schema, asked)}
	for i, a := range f.Assertions {
		if failures[i] == nil && answers[i].Outcome == a.Want.outcome() {
			report.Passed++
		} else {
			report.Failed = append(report.Failed, Result{Assertion: a, Got: answers[i], Err: failures[i]})
		}
	}
	for i := range f.Expected {
		if err := f.expectation(ctx, snapshot, &f.Expected[i], now, report); err != nil {
			return nil, fmt.Errorf("validation file %s: %w", f.Name, err)
		}
	}
	slices.SortStableFunc(report.Failed, func(a, b Result) int { return a.Pos.Line - b.Pos.Line })
	return report, nil
}

func (e Expectation) outcome() graph.Outcome {
	switch e {
	case Yes:
		return graph.Yes
	case Conditional:
		return graph.Conditional
	}
	return graph.No
}

// fill writes the schema and the relationships of the file into an empty store.
func (f *File) fill(ctx context.Context, store datastore.Datastore) error {
	const actor = "pemba:validation"
	_, err := store.Write(ctx, datastore.Default, datastore.Request{
		Actor: actor, Schema: &datastore.SchemaUpdate{Text: f.Schema.Text},
	})
	if err != nil {
		return fmt.Errorf("the schema: %w", err)
	}
	for part := range slices.Chunk(f.Relationships, batch) {
		updates := make([]datastore.Update, len(part))
		for i, r := range part {
			updates[i] = datastore.Update{Kind: datastore.Touch, Relationship: r}
		}
		if _, err := store.Write(ctx, datastore.Default, datastore.Request{Actor: actor, Updates: updates}); err != nil {
			return fmt.Errorf("the relationships: %w", err)
		}
	}
	return nil
}
