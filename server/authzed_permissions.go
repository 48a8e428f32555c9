package server

import (
	"context"
	"errors"
	"io"
	"strconv"
	"time"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/schema"
)

// authzedPermissions serves authzed.api.v1.PermissionsService.
type authzedPermissions struct {
	authzedv1.UnimplementedPermissionsServiceServer
	*Server
}

func isEnd(err error) bool { return errors.Is(err, io.EOF) }

// asking is a question as authzed.api.v1 puts it, alone or in bulk.
type asking interface {
	GetResource() *authzedv1.ObjectReference
	GetPermission() string
	GetSubject() *authzedv1.SubjectReference
	GetContext() *structpb.Struct
}

func (s *Server) authzedQuestion(r asking) (q graph.Question, err error) {
	if r.GetResource().GetObjectId() == "*" {
		return q, wildcardRefused("resource_id")
	}
	if r.GetSubject().GetObject().GetObjectId() == "*" {
		return q, wildcardRefused("subject_id")
	}
	if q.Resource, err = objectAsked(r.GetResource(), "resource"); err != nil {
		return q, err
	}
	q.Permission = r.GetPermission()
	if q.Subject, err = subjectAsked(r.GetSubject()); err != nil {
		return q, err
	}
	q.Context, err = s.context(r.GetContext(), "context")
	return q, err
}

// unknownIn tells which name of a question the schema lacks, if that is its error.
func unknownIn(err error, s *schema.Schema, q *graph.Question) error {
	return withNames(err, s, name{q.Resource.Type, q.Permission}, name{q.Subject.Type, q.Subject.Relation})
}

func (p *authzedPermissions) CheckPermission(ctx context.Context, r *authzedv1.CheckPermissionRequest) (*authzedv1.CheckPermissionResponse, error) {
	q, err := p.authzedQuestion(r)
	if err != nil {
		return nil, err
	}
	s, err := p.authzedAt(ctx, r.Consistency)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	out, now := &authzedv1.CheckPermissionResponse{CheckedAt: zedToken(s.Zookie())}, time.Now()
	var a graph.Answer
	if r.WithTracing {
		if a, out.DebugTrace, err = p.traced(ctx, s, q, r.Context, now); err == nil {
			out.OptionalExpiresAt = out.DebugTrace.Check.OptionalExpiresAt
		}
	} else if a, err = graph.Check(ctx, s, q, now, p.limits.graph()); err == nil {
		out.OptionalExpiresAt, err = p.expiresAt(ctx, s, q, now)
	}
	if err != nil {
		return nil, unknownIn(err, s.Schema(), &q)
	}
	p.metrics.answered([]graph.Answer{a}, nil)
	out.Permissionship, out.PartialCaveatInfo = permissionship(a), partialCaveat(a)
	return out, nil
}

// bulkAnswer is the answer to one of many questions, or why there is none.
type bulkAnswer struct {
	question graph.Question
	answer   graph.Answer
	err      error
}

// authzedBulk answers many questions at one revision.
func authzedBulk[Q asking](ctx context.Context, s *Server, c *authzedv1.Consistency, items []Q, now time.Time) (datastore.Snapshot, []bulkAnswer, error) {
	if err := atMost(len(items), s.limits.BulkItems, "max-bulk-items", "items in one call", "split it"); err != nil {
		return nil, nil, datastore.With(err, "count", strconv.Itoa(len(items)))
	}
	snapshot, err := s.authzedAt(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	out := make([]bulkAnswer, len(items))
	var qs []graph.Question
	var place []int
	for i, item := range items {
		if out[i].question, out[i].err = s.authzedQuestion(item); out[i].err == nil {
			qs, place = append(qs, out[i].question), append(place, i)
		}
	}
	answers, errs := graph.CheckBulk(ctx, snapshot, qs, now, s.limits.graph())
	s.metrics.answered(answers, errs)
	if err := ctx.Err(); err != nil {
		snapshot.Close()
		return nil, nil, err
	}
	for j, i := range place {
		out[i].answer, out[i].err = answers[j], unknownIn(errs[j], snapshot.Schema(), &qs[j])
	}
	return snapshot, out, nil
}

func (p *authzedPermissions) CheckBulkPermissions(ctx context.Context, r *authzedv1.CheckBulkPermissionsRequest) (*authzedv1.CheckBulkPermissionsResponse, error) {
	now := time.Now()
	s, answers, err := authzedBulk(ctx, p.Server, r.Consistency, r.Items, now)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	out := &authzedv1.CheckBulkPermissionsResponse{CheckedAt: zedToken(s.Zookie()), Pairs: make([]*authzedv1.CheckBulkPermissionsPair, len(answers))}
	for i, a := range answers {
		pair := &authzedv1.CheckBulkPermissionsPair{Request: r.Items[i]}
		if a.err != nil {
			st := p.itemStatus(ctx, authzedv1.PermissionsService_CheckBulkPermissions_FullMethodName, a.err)
			pair.Response = &authzedv1.CheckBulkPermissionsPair_Error{Error: st.Proto()}
		} else {
			item := &authzedv1.CheckBulkPermissionsResponseItem{Permissionship: permissionship(a.answer), PartialCaveatInfo: partialCaveat(a.answer)}
			if r.WithTracing {
				if _, item.DebugTrace, err = p.traced(ctx, s, a.question, r.Items[i].Context, now); err != nil {
					return nil, err
				}
			}
			pair.Response = &authzedv1.CheckBulkPermissionsPair_Item{Item: item}
		}
		out.Pairs[i] = pair
	}
	return out, nil
}
