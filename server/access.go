package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/graph"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// accessReport is a report of access under way: a lookup for each pair of a type
// and a permission.
type accessReport struct {
	server   *Server
	subject  *tuple.Subject // the report is about a subject, or
	resource *tuple.Object  // about a resource
	given    schema.Context

	snapshot datastore.Snapshot
	now      time.Time
	parts    []accessPart
	end      *pembav1.AccessEnd
}

// accessPart is one lookup of a report: the type of resources, or of subjects, and
// the permission.
type accessPart struct{ typ, permission string }

// report reads what a request is about.
func (s *audits) report(ctx context.Context, r *pembav1.ReportAccessRequest) (*accessReport, error) {
	a := &accessReport{server: s.Server, end: &pembav1.AccessEnd{}}
	switch about := r.About.(type) {
	case *pembav1.ReportAccessRequest_Subject:
		sub, err := s.asked(about.Subject)
		if err != nil {
			return nil, err
		}
		a.subject = &sub
	case *pembav1.ReportAccessRequest_Resource:
		o, err := object(about.Resource, "resource")
		if err != nil {
			return nil, err
		}
		a.resource = &o
	default:
		return nil, missing("subject, or resource,")
	}
	for i, p := range r.Permissions {
		if err := tuple.CheckRelation(p); err != nil {
			return nil, badField(pembav1.ErrorReason_ERROR_REASON_INVALID_RELATION, fmt.Sprintf("permissions[%d]", i), err)
		}
	}
	for i, t := range r.Types {
		if err := tuple.CheckType(t); err != nil {
			return nil, badField(pembav1.ErrorReason_ERROR_REASON_INVALID_OBJECT, fmt.Sprintf("types[%d]", i), err)
		}
	}
	var err error
	a.given, err = s.context(r.Context, "context")
	return a, err
}

// plan finds the lookups that make the report.
func (a *accessReport) plan(ctx context.Context, s datastore.Snapshot, now time.Time, r *pembav1.ReportAccessRequest) error {
	a.snapshot, a.now = s, graph.EvaluationTime(s, now)
	compiled := s.Schema()
	if compiled == nil {
		return noSchemaAt(s)
	}
	about, kind := a.resource, "resource"
	if a.subject != nil {
		about, kind = &a.subject.Object, "subject"
		withheld, err := s.Withheld(ctx)
		if err != nil {
			return err
		}
		a.end.Withheld = a.subject.Relation == "" && withheld.Has(*about)
	}
	own := compiled.Definition(about.Type)
	if own == nil {
		return unknownType(about.Type, kind)
	}
	if a.subject != nil && a.subject.Relation != "" && own.Relation(a.subject.Relation) == nil {
		return datastore.With(fmt.Errorf("%w: %s#%s, of the subject", schema.ErrUnknownRelation, own.Type, a.subject.Relation), "type", own.Type, "relation", a.subject.Relation)
	}
	types, err := wantedTypes(compiled, r.Types)
	if err != nil {
		return err
	}
	if a.subject != nil {
		for _, d := range types {
			a.add(d.Type, d, r)
		}
	} else {
		for _, d := range types {
			if len(r.Types) > 0 || d == own || isSubject(compiled, d) {
				a.add(d.Type, own, r)
			}
		}
	}
	for _, p := range r.Permissions {
		if !slices.ContainsFunc(a.parts, func(q accessPart) bool { return q.permission == p }) {
			return datastore.With(fmt.Errorf("%w: %s, of %s", schema.ErrUnknownRelation, p, a.where()), "relation", p)
		}
	}
	return nil
}

func (a *accessReport) where() string {
	if a.subject != nil {
		return "any of the types asked for"
	}
	return a.resource.Type
}

func unknownType(typ, what string) error {
	return datastore.With(fmt.Errorf("%w: %s, of the %s", schema.ErrUnknownType, typ, what), "type", typ)
}

// wantedTypes are the definitions of the types named, or of all.
func wantedTypes(s *schema.Schema, names []string) (types []*schema.Definition, err error) {
	if len(names) == 0 {
		return s.Definitions, nil
	}
	for _, name := range names {
		d := s.Definition(name)
		if d == nil {
			return nil, unknownType(name, "request")
		}
		if !slices.Contains(types, d) {
			types = append(types, d)
		}
	}
	return types, nil
}

// isSubject reports whether objects of a type, themselves, may be subjects.
func isSubject(s *schema.Schema, d *schema.Definition) bool {
	for _, of := range s.Definitions {
		for _, r := range of.Relations {
			if slices.ContainsFunc(r.Allowed, func(a schema.AllowedSubject) bool { return a.Relation == nil && a.Definition == d }) {
				return true
			}
		}
	}
	return false
}

// add plans a lookup for each permission of d that counts.
func (a *accessReport) add(typ string, d *schema.Definition, r *pembav1.ReportAccessRequest) {
	for _, p := range d.Relations {
		if (p.IsPermission() || r.IncludeRelations || slices.Contains(r.Permissions, p.Text)) && selects(r.Permissions, p.Text) {
			a.parts = append(a.parts, accessPart{typ, p.Text})
		}
	}
}

// run makes the report, and gives its lines to yield until that returns false.
func (a *accessReport) run(ctx context.Context, yield func(*pembav1.Access) bool) error {
	stopped := false
	for _, p := range a.parts {
		found := func(f graph.Found) bool {
			stopped = !yield(a.line(p, f))
			return !stopped
		}
		var err error
		if a.subject != nil {
			q := graph.ResourcesQuestion{Type: p.typ, Permission: p.permission, Subject: *a.subject, Context: a.given}
			_, err = graph.LookupResources(ctx, a.snapshot, q, a.now, a.server.limits.graph(), graph.LookupOptions{Ordered: true}, found)
		} else {
			q := graph.SubjectsQuestion{Resource: *a.resource, Permission: p.permission, Type: p.typ, Context: a.given}
			_, err = graph.LookupSubjects(ctx, a.snapshot, q, a.now, a.server.limits.graph(), graph.LookupOptions{Ordered: true}, found)
		}
		switch {
		case stopped:
			return nil
		case err != nil && !isGap(err):
			return err
		case err != nil:
			status := a.server.itemStatus(ctx, "/pemba.v1.AuditService/ReportAccess", err).Proto()
			a.end.Gaps = append(a.end.Gaps, &pembav1.AccessGap{Type: p.typ, Permission: p.permission, Error: status})
		}
	}
	a.end.Complete = len(a.end.Gaps) == 0
	return nil
}

// isGap reports whether an error is about one lookup, so that the report goes on
// without it.
func isGap(err error) bool {
	for _, kind := range []error{graph.ErrRecursion, graph.ErrTooManyNodes, schema.ErrCaveatCost, schema.ErrCaveatField, schema.ErrCaveatRuntime} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// line is a line of the report, counted.
func (a *accessReport) line(p accessPart, f graph.Found) *pembav1.Access {
	out := &pembav1.Access{Permission: p.permission, Answer: answer(f.Answer), MissingFields: f.Answer.Missing}
	if a.subject != nil {
		out.Resource = &pembav1.Object{Type: p.typ, Id: f.ID}
		out.Subject = &pembav1.Subject{Type: a.subject.Type, Id: a.subject.ID, Relation: a.subject.Relation}
	} else {
		out.Resource = &pembav1.Object{Type: a.resource.Type, Id: a.resource.ID}
		out.Subject = &pembav1.Subject{Type: p.typ, Id: f.ID}
	}
	switch f.Answer.Outcome {
	case graph.Yes:
		a.end.HasPermission++
	case graph.Conditional:
		a.end.Conditional++
	default:
		a.end.NoPermission++
	}
	return out
}
