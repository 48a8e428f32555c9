package validation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// Expected lists all subjects that a file expects to have a permission.
type Expected struct {
	Pos        schema.Position
	Resource   tuple.Object
	Permission string // or a relation
	Subjects   []ExpectedSubject
}

// ExpectedSubject is one entry: `[user:ada] is <document:plan#owner>`.
type ExpectedSubject struct {
	Pos         schema.Position
	Text        string
	Subject     tuple.Subject // may be a wildcard
	Conditional bool
	Excluded    []ExpectedSubject // whom a wildcard does not cover
	Through     []tuple.Key       // relations that it has to have; their Subject is not set
}

const (
	expectedForm = "write `document:plan#view:` and below it a list such as `- \"[user:ada] is <document:plan#owner>\"`"
	entryForm    = "write `[user:ada]`, `[user:ada[...]]` if caveats decide, or `[user:* - {user:bob}]`, and after it ` is <document:plan#owner>`"
)

func (p *parser) expected(n *yaml.Node) {
	if n == nil || isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.add(n, "`validation` is not a mapping", expectedForm)
		return
	}
	for i := 0; i+1 < len(n.Content) && !p.full(); i += 2 {
		key, list := n.Content[i], n.Content[i+1]
		name, ok := p.scalar(key, "the key", expectedForm)
		if !ok {
			continue
		}
		o, relation, message, hint := p.atom(name)
		switch {
		case message != "":
			p.add(key, message, hint)
			continue
		case list.Kind != yaml.SequenceNode && !isNull(list):
			p.add(list, "the expected subjects are not a list", expectedForm)
			continue
		}
		e := Expected{Pos: p.at(key), Resource: o, Permission: relation}
		for _, entry := range list.Content {
			text, ok := p.scalar(entry, "the entry", "put it in double quotes: "+entryForm)
			if !ok {
				continue
			}
			s, message, hint := p.entry(text)
			if message != "" {
				p.add(entry, message, hint)
				continue
			}
			s.Pos = p.at(entry)
			e.Subjects = append(e.Subjects, s)
		}
		p.file.Expected = append(p.file.Expected, e)
	}
}

// atom reads `object#relation`.
func (p *parser) atom(text string) (o tuple.Object, relation, message, hint string) {
	s, err := tuple.ParseSubject(text)
	if err != nil {
		return o, "", err.Error(), expectedForm
	}
	if s.Relation == "" {
		return o, "", "no permission is named", expectedForm
	}
	message, hint = known(p.file.Schema, s.Type, s.Relation)
	return s.Object, s.Relation, message, hint
}

// entry reads one expected subject.
func (p *parser) entry(text string) (s ExpectedSubject, message, hint string) {
	s.Text = text
	who, through, given := strings.Cut(text, " is ")
	who = strings.TrimSpace(who)
	if !strings.HasPrefix(who, "[") || !strings.HasSuffix(who, "]") {
		return s, "the entry names no subject in brackets", entryForm
	}
	who, except, excludes := strings.Cut(who[1:len(who)-1], " - ")
	if s.Subject, s.Conditional, message = p.named(who); message != "" {
		return s, message, entryForm
	}
	if excludes {
		except = strings.TrimSpace(except)
		if !s.Subject.IsWildcard() || !strings.HasPrefix(except, "{") || !strings.HasSuffix(except, "}") {
			return s, "only a wildcard excludes, and whom it excludes stands in braces", entryForm
		}
		for _, part := range strings.Split(except[1:len(except)-1], ",") {
			x := ExpectedSubject{Text: text}
			if x.Subject, x.Conditional, message = p.named(part); message != "" {
				return s, message, entryForm
			}
			s.Excluded = append(s.Excluded, x)
		}
	}
	if !given {
		return s, "", ""
	}
	for _, part := range strings.Split(through, ">/<") {
		part = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(part), "<"), ">")
		o, relation, message, hint := p.atom(part)
		if message != "" {
			return s, message, hint
		}
		s.Through = append(s.Through, tuple.Key{Object: o, Relation: relation})
	}
	return s, "", ""
}

// named reads a subject, with `[...]` behind it if caveats decide.
func (p *parser) named(text string) (s tuple.Subject, conditional bool, message string) {
	text, conditional = strings.CutSuffix(strings.TrimSpace(text), "[...]")
	s, err := tuple.ParseSubject(text)
	if err != nil {
		return s, false, err.Error()
	}
	message, _ = known(p.file.Schema, s.Type, s.Relation)
	return s, conditional, message
}

func want(conditional bool) Expectation {
	if conditional {
		return Conditional
	}
	return Yes
}

// expectation runs one list: each entry must have its answer, and nobody else may
// have the permission, unless a listed wildcard covers them.
func (f *File) expectation(ctx context.Context, s datastore.Snapshot, e *Expected, now time.Time, report *Report) error {
	found := map[tuple.Subject]graph.Answer{}
	for _, d := range f.Schema.Definitions {
		q := graph.SubjectsQuestion{Resource: e.Resource, Permission: e.Permission, Type: d.Type}
		_, err := graph.LookupSubjects(ctx, s, q, now, graph.Limits{}, graph.LookupOptions{}, func(r graph.Found) bool {
			found[tuple.Subject{Object: tuple.Object{Type: d.Type, ID: r.ID}}] = r.Answer
			return true
		})
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			report.Failed = append(report.Failed, Result{Assertion: Assertion{Pos: e.Pos, Text: e.Resource.String() + "#" + e.Permission, Want: Yes}, Err: err})
			return nil
		}
	}
	judge := func(a Assertion, got graph.Answer, err error) {
		if err == nil && got.Outcome == a.Want.outcome() {
			report.Passed++
		} else {
			report.Failed = append(report.Failed, Result{Assertion: a, Got: got, Err: err})
		}
	}
	listed := map[tuple.Subject]bool{}
	for _, entry := range e.Subjects {
		listed[entry.Subject] = true
		a := Assertion{Pos: entry.Pos, Resource: e.Resource, Permission: e.Permission, Subject: entry.Subject, Want: want(entry.Conditional)}
		a.Text = tuple.Key{Object: e.Resource, Relation: e.Permission, Subject: entry.Subject}.String()
		got, err := found[entry.Subject], error(nil)
		if !entry.Subject.IsWildcard() {
			got, err = graph.Check(ctx, s, graph.Question{Resource: e.Resource, Permission: e.Permission, Subject: entry.Subject}, now, graph.Limits{})
		}
		judge(a, got, err)
		for _, x := range entry.Excluded {
			listed[x.Subject] = true
			a.Subject, a.Want = x.Subject, No
			if x.Conditional {
				a.Want = Conditional
			}
			a.Text = tuple.Key{Object: e.Resource, Relation: e.Permission, Subject: x.Subject}.String() + " (excluded)"
			judge(a, found[x.Subject], nil)
		}
		if entry.Subject.IsWildcard() {
			continue
		}
		for _, k := range entry.Through {
			a.Resource, a.Permission, a.Subject = k.Object, k.Relation, entry.Subject
			a.Text = tuple.Key{Object: k.Object, Relation: k.Relation, Subject: entry.Subject}.String()
			got, err := graph.Check(ctx, s, graph.Question{Resource: k.Object, Permission: k.Relation, Subject: entry.Subject}, now, graph.Limits{})
			if a.Want = Yes; err == nil && got.Outcome == graph.Conditional {
				a.Want = Conditional // that it holds under a caveat is said of the whole
			}
			judge(a, got, err)
		}
	}
	f.others(e, found, listed, report)
	return nil
}

// others reports the subjects that were found and not expected.
func (f *File) others(e *Expected, found map[tuple.Subject]graph.Answer, listed map[tuple.Subject]bool, report *Report) {
	var extra []tuple.Subject
	for s, a := range found {
		everybody := tuple.Subject{Object: tuple.Object{Type: s.Type, ID: tuple.Wildcard}}
		covered := listed[everybody] && a.Outcome == found[everybody].Outcome
		if !listed[s] && !covered {
			extra = append(extra, s)
		}
	}
	if len(extra) == 0 {
		report.Passed++
		return
	}
	slices.SortFunc(extra, tuple.Subject.Compare)
	for _, s := range extra {
		a := Assertion{Pos: e.Pos, Text: fmt.Sprintf("%s, who is not listed", tuple.Key{Object: e.Resource, Relation: e.Permission, Subject: s}), Want: No}
		if found[s].Outcome == graph.No {
			a.Text, a.Want = fmt.Sprintf("%s, who is not listed as excluded", tuple.Key{Object: e.Resource, Relation: e.Permission, Subject: s}), Yes
		}
		report.Failed = append(report.Failed, Result{Assertion: a, Got: found[s]})
	}
}
