// Package graph asks the questions: check, bulk check, all permissions of a
// subject, expand. One engine walks a [datastore.Snapshot], whether it is in
// memory or read from a database.
//
// An answer is a function of schema, relationships, question and evaluation
// time, never of the order of evaluation.
package graph

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// Question asks whether a subject has a permission, or a relation, on a resource.
type Question struct {
	Resource   tuple.Object
	Permission string
	Subject    tuple.Subject
	Context    schema.Context
	// Contextual relationships act as if written, for this question only.
	Contextual []tuple.Relationship
}

func (q Question) String() string {
	return q.Resource.String() + "#" + q.Permission + "@" + q.Subject.String()
}

// Outcome is one of three answers.
type Outcome uint8

const (
	No Outcome = iota
	Yes
	Conditional
)

// Answer is what a question comes to.
type Answer struct {
	Outcome Outcome
	// Missing names, sorted, the caveat fields that a Conditional answer lacks.
	Missing []string
}

// Limits bound the work of one question; zero fields take the defaults.
type Limits struct {
	// Nodes bounds the objects' relations and permissions visited (2,000,000).
	Nodes int
	// CaveatCost bounds one caveat's evaluation (schema.DefaultCostLimit).
	CaveatCost uint64
}

const defaultNodes = 2_000_000

func (l Limits) nodes() int {
	if l.Nodes == 0 {
		return defaultNodes
	}
	return l.Nodes
}

// Errors of questions; each comes wrapped in a sentence that names the input.
var (
	ErrInvalid      = errors.New("invalid question")
	ErrNoSchema     = errors.New("the store has no schema")
	ErrUnknown      = errors.New("unknown to the schema")
	ErrUnknownType  = fmt.Errorf("%w", ErrUnknown) // of a type
	ErrRecursion    = errors.New("the answer depends on itself through an exclusion")
	ErrTooManyNodes = errors.New("the question visits more of the graph than the limit allows")
)

// evaluationTime is the later of the server's clock and the revision's time.
func evaluationTime(s datastore.Snapshot, now time.Time) int64 {
	return max(now.UnixMicro(), s.Head().Time.UnixMicro())
}

// relation looks up the relation or permission that a question names.
func relation(s *schema.Schema, typ, name string) (*schema.Relation, error) {
	d, err := definition(s, typ)
	if err != nil {
		return nil, err
	}
	if r := d.Relation(name); r != nil {
		return r, nil
	}
	names := make([]string, len(d.Relations))
	for i, r := range d.Relations {
		names[i] = r.Text
	}
	err = fmt.Errorf("relation or permission %q of type %q is %w%s", name, typ, ErrUnknown, near(name, names))
	return nil, datastore.With(err, "type", typ, "relation", name)
}

func definition(s *schema.Schema, typ string) (*schema.Definition, error) {
	if s == nil {
		return nil, fmt.Errorf("%w; apply one first, with `pemba schema apply FILE`", ErrNoSchema)
	}
	d := s.Definition(typ)
	if d == nil {
		names := make([]string, len(s.Definitions))
		for i, d := range s.Definitions {
			names[i] = d.Type
		}
		return nil, datastore.With(fmt.Errorf("type %q is %w%s", typ, ErrUnknownType, near(typ, names)), "type", typ)
	}
	return d, nil
}

// near proposes the name that is likely meant, or says which there are.
func near(name string, names []string) string {
	found := schema.Nearest(name, names)
	switch {
	case found != "":
		return fmt.Sprintf("; did you mean %q?", found)
	case len(names) == 0:
		return "; it has none"
	case len(names) <= 10:
		return "; it has " + strings.Join(names, ", ")
	}
	return fmt.Sprintf("; it has %s and %d more", strings.Join(names[:10], ", "), len(names)-10)
}
