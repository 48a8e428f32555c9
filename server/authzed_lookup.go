//lint:file-ignore SA1019 existing clients send and read the deprecated fields

package server

import (
	"strconv"
	"strings"
	"time"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/tuple"
)

func lookupPermissionship(a graph.Answer) authzedv1.LookupPermissionship {
	if a.Outcome == graph.Conditional {
		return authzedv1.LookupPermissionship_LOOKUP_PERMISSIONSHIP_CONDITIONAL_PERMISSION
	}
	return authzedv1.LookupPermissionship_LOOKUP_PERMISSIONSHIP_HAS_PERMISSION
}

// Positions of a cursor in a list of resources. Pages are ordered by id, and a
// cursor stands behind one. A list without a limit comes as it is found, at once;
// it cannot be resumed in the middle, so that its cursors begin it anew, at the
// same revision, but for the last one, behind which there is nothing.
const (
	afterID  = "id:"
	fromHead = "all"
	atEnd    = "end"
)

func (p *authzedPermissions) LookupResources(r *authzedv1.LookupResourcesRequest, out grpc.ServerStreamingServer[authzedv1.LookupResourcesResponse]) error {
	if r.Subject.GetObject().GetObjectId() == tuple.Wildcard {
		return wildcardRefused("subject_id")
	}
	if err := atMost(int(r.OptionalLimit), p.limits.LookupPage, "max-lookup-page", "results in a page", "ask for a smaller one, or for all without a limit"); err != nil {
		return datastore.With(err, "count", strconv.FormatUint(uint64(r.OptionalLimit), 10))
	}
	ctx := out.Context()
	q := graph.ResourcesQuestion{Type: r.ResourceObjectType, Permission: r.Permission}
	var err error
	if q.Subject, err = subjectAsked(r.Subject); err != nil {
		return err
	}
	if q.Context, err = p.context(r.Context, "context"); err != nil {
		return err
	}
	st, err := p.authzedStore(ctx)
	if err != nil {
		return err
	}
	bound := proto.CloneOf(r)
	bound.Consistency, bound.OptionalLimit, bound.OptionalCursor, bound.WithDebug = nil, 0, nil, false
	level, options := authzedConsistency(r.Consistency), graph.LookupOptions{Limit: int(r.OptionalLimit)}
	at := cursor{time: time.Now(), question: question("authzed resources", st.ID, bound)}
	if r.OptionalCursor != nil {
		if at, err = parseCursor(r.OptionalCursor.Token, at.question); err != nil {
			return err
		}
		id, ordered := strings.CutPrefix(at.position, afterID)
		switch {
		case at.position == atEnd:
			return nil
		case ordered:
			options.After = id
		case at.position != fromHead:
			return authzedProblem(codes.FailedPrecondition, authzedv1.ErrorReason_ERROR_REASON_INVALID_CURSOR, "the cursor is damaged; start again without one")
		}
		level = datastore.Consistency{Level: datastore.AtExactSnapshot, Zookie: at.zookie}
	}
	s, err := p.ds.At(ctx, st.ID, level)
	if err != nil {
		return err
	}
	defer s.Close()
	at.zookie, at.time = s.Zookie(), graph.EvaluationTime(s, at.time)
	l := &resourceStream{out: manyMessages(out), at: at, token: zedToken(at.zookie), ordered: options.Limit > 0 || options.After != ""}
	l.anew = l.cursor(fromHead)
	_, err = graph.LookupResources(ctx, s, q, at.time, p.limits.graph(), options, l.found)
	if err := withNames(err, s.Schema(), name{q.Type, q.Permission}, name{q.Subject.Type, q.Subject.Relation}); err != nil {
		return firstOf(l.end(fromHead), err)
	}
	return l.end(atEnd)
}

// fewMessages is how many are sent together at most.
const fewMessages = 256

// manyMessages gathers what a stream sends one by one. The first is sent at once,
// and none waits for long.
func manyMessages(out grpc.ServerStream) *batcher[any] {
	return newBatcher(fewMessages, func(ms []any) error { return out.SendMsg(messages(ms)) })
}

// resourceStream sends resources as they are found.
type resourceStream struct {
	out     *batcher[any]
	at      cursor
	token   *authzedv1.ZedToken
	ordered bool
	anew    *authzedv1.Cursor // begins a list as it is found again
	// held is a result of a list as it is found: sent when the next comes, or as the
	// last.
	held *authzedv1.LookupResourcesResponse
}

func (l *resourceStream) found(f graph.Found) bool {
	m := &authzedv1.LookupResourcesResponse{
		LookedUpAt: l.token, ResourceObjectId: f.ID, Permissionship: lookupPermissionship(f.Answer), PartialCaveatInfo: partialCaveat(f.Answer),
	}
	if l.ordered {
		return l.send(m, l.cursor(afterID+f.ID))
	}
	before := l.held
	l.held = m
	return before == nil || l.send(before, l.anew)
}

func (l *resourceStream) cursor(position string) *authzedv1.Cursor {
	l.at.position = position
	return &authzedv1.Cursor{Token: l.at.String()}
}

func (l *resourceStream) send(m *authzedv1.LookupResourcesResponse, behind *authzedv1.Cursor) bool {
	m.AfterResultCursor = behind
	return l.out.add(m)
}

func (l *resourceStream) end(position string) error {
	if l.held != nil {
		l.send(l.held, l.cursor(position))
	}
	return l.out.close()
}

func (p *authzedPermissions) LookupSubjects(r *authzedv1.LookupSubjectsRequest, out grpc.ServerStreamingServer[authzedv1.LookupSubjectsResponse]) error {
	if r.OptionalConcreteLimit > 0 {
		return status.Error(codes.Unimplemented, "optional_concrete_limit is not served for subjects; ask without it, or page through pemba.v1.PermissionService/LookupSubjects")
	}
	ctx := out.Context()
	q := graph.SubjectsQuestion{Permission: r.Permission, Type: r.SubjectObjectType, Relation: r.OptionalSubjectRelation}
	var err error
	if q.Resource, err = objectAsked(r.Resource, "resource"); err != nil {
		return err
	}
	if q.Context, err = p.context(r.Context, "context"); err != nil {
		return err
	}
	s, err := p.authzedAt(ctx, r.Consistency)
	if err != nil {
		return err
	}
	defer s.Close()
	l := &subjectStream{out: manyMessages(out), token: zedToken(s.Zookie())}
	l.wildcards = r.WildcardOption != authzedv1.LookupSubjectsRequest_WILDCARD_OPTION_EXCLUDE_WILDCARDS
	_, err = graph.LookupSubjects(ctx, s, q, time.Now(), p.limits.graph(), graph.LookupOptions{}, l.found)
	err = withNames(err, s.Schema(), name{q.Resource.Type, q.Permission}, name{q.Type, q.Relation})
	return firstOf(l.end(err == nil), err)
}

// subjectStream sends subjects as they are found; the wildcard, which names those
// it does not cover, is the last.
type subjectStream struct {
	out       *batcher[any]
	token     *authzedv1.ZedToken
	wildcards bool
	everybody *graph.Found
	// excluded are those whom the wildcard does not cover; conditional those whom it
	// covers under a condition only, unless it is conditional itself.
	excluded, conditional []*authzedv1.ResolvedSubject
}

func resolved(f graph.Found) *authzedv1.ResolvedSubject {
	return &authzedv1.ResolvedSubject{SubjectObjectId: f.ID, Permissionship: lookupPermissionship(f.Answer), PartialCaveatInfo: partialCaveat(f.Answer)}
}

func (l *subjectStream) found(f graph.Found) bool {
	switch {
	case f.ID == tuple.Wildcard:
		l.everybody = &f
		return true
	case f.Answer.Outcome == graph.No:
		if l.wildcards {
			l.excluded = append(l.excluded, resolved(f))
		}
		return true
	case f.Answer.Outcome == graph.Conditional && l.wildcards:
		l.conditional = append(l.conditional, resolved(f))
	}
	return l.send(f, nil)
}

func (l *subjectStream) send(f graph.Found, excluded []*authzedv1.ResolvedSubject) bool {
	s := resolved(f)
	m := &authzedv1.LookupSubjectsResponse{LookedUpAt: l.token, Subject: s, ExcludedSubjects: excluded}
	// What older clients read.
	m.SubjectObjectId, m.Permissionship, m.PartialCaveatInfo = s.SubjectObjectId, s.Permissionship, s.PartialCaveatInfo
	for _, e := range excluded {
		m.ExcludedSubjectIds = append(m.ExcludedSubjectIds, e.SubjectObjectId)
	}
	return l.out.add(m)
}

// end sends the wildcard, unless the list has no end, and what is left.
func (l *subjectStream) end(complete bool) error {
	if l.everybody == nil || !l.wildcards || !complete {
		return l.out.close()
	}
	excluded := l.excluded
	if l.everybody.Answer.Outcome == graph.Yes {
		excluded = append(excluded, l.conditional...)
	}
	l.send(*l.everybody, excluded)
	return l.out.close()
}
