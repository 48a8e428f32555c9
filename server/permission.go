package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/graph"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

type permissions struct {
	pembav1.UnimplementedPermissionServiceServer
	*Server
}

func answer(a graph.Answer) pembav1.Answer {
	switch a.Outcome {
	case graph.Yes:
		return pembav1.Answer_ANSWER_HAS_PERMISSION
	case graph.Conditional:
		return pembav1.Answer_ANSWER_CONDITIONAL
	}
	return pembav1.Answer_ANSWER_NO_PERMISSION
}

func permissionName(name string) (string, error) {
	if name == "" {
		return "", missing("permission")
	}
	if err := tuple.CheckRelation(name); err != nil {
		return "", badField(pembav1.ErrorReason_ERROR_REASON_INVALID_RELATION, "permission", err)
	}
	return name, nil
}

// asked is the subject of a question.
func (p *permissions) asked(s *pembav1.Subject) (tuple.Subject, error) {
	out, err := subject(s, "subject")
	if err == nil && out.IsWildcard() {
		err = withReason(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_SUBJECT,
			fmt.Sprintf("subject %s stands for everybody; ask about one, or expand the resource", out), "field", "subject")
	}
	return out, err
}

func (p *permissions) question(o *pembav1.Object, permission string, sub *pembav1.Subject, c *structpb.Struct, contextual []*pembav1.Relationship) (q graph.Question, err error) {
	if q.Resource, err = object(o, "resource"); err != nil {
		return q, err
	}
	if q.Permission, err = permissionName(permission); err != nil {
		return q, err
	}
	if q.Subject, err = p.asked(sub); err != nil {
		return q, err
	}
	if q.Contextual, err = p.contextual(contextual); err != nil {
		return q, err
	}
	q.Context, err = p.context(c, "context")
	return q, err
}

func (p *permissions) Check(ctx context.Context, r *pembav1.CheckRequest) (*pembav1.CheckResponse, error) {
	q, err := p.question(r.Resource, r.Permission, r.Subject, r.Context, r.ContextualRelationships)
	if err != nil {
		return nil, err
	}
	s, now, err := p.at(ctx, r.Store, r.Consistency)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	a, err := graph.Check(ctx, s, q, now, p.limits.graph())
	if err != nil {
		return nil, err
	}
	p.metrics.answered([]graph.Answer{a}, nil)
	return &pembav1.CheckResponse{Zookie: s.Zookie(), Answer: answer(a), MissingFields: a.Missing}, nil
}

func (p *permissions) BulkCheck(ctx context.Context, r *pembav1.BulkCheckRequest) (*pembav1.BulkCheckResponse, error) {
	if len(r.Items) == 0 {
		return nil, missing("items")
	}
	if err := atMost(len(r.Items), p.limits.BulkItems, "max-bulk-items", "items in one call", "split it"); err != nil {
		return nil, err
	}
	shared, err := p.context(r.Context, "context")
	if err != nil {
		return nil, err
	}
	contextual, err := p.contextual(r.ContextualRelationships)
	if err != nil {
		return nil, err
	}
	s, now, err := p.at(ctx, r.Store, r.Consistency)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	const method = "/pemba.v1.PermissionService/BulkCheck"
	out := &pembav1.BulkCheckResponse{Zookie: s.Zookie(), Results: make([]*pembav1.BulkCheckResult, len(r.Items))}
	results := make([]pembav1.BulkCheckResult, len(r.Items)) // one piece of memory for all
	qs, place := make([]graph.Question, 0, len(r.Items)), make([]int, 0, len(r.Items))
	for i, item := range r.Items {
		out.Results[i] = &results[i]
		q, err := p.question(item.GetResource(), item.GetPermission(), item.GetSubject(), item.GetContext(), nil)
		if err != nil {
			results[i].Error = p.itemStatus(ctx, method, err).Proto()
			continue
		}
		if item.GetContext() == nil {
			q.Context = shared
		}
		q.Contextual = contextual
		qs, place = append(qs, q), append(place, i)
	}
	answers, errs := graph.CheckBulk(ctx, s, qs, now, p.limits.graph())
	p.metrics.answered(answers, errs)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for j, i := range place {
		if errs[j] != nil {
			results[i].Error = p.itemStatus(ctx, method, errs[j]).Proto()
			continue
		}
		results[i].Answer, results[i].MissingFields = answer(answers[j]), answers[j].Missing
	}
	return out, nil
}

func (p *permissions) ListPermissions(ctx context.Context, r *pembav1.ListPermissionsRequest) (*pembav1.ListPermissionsResponse, error) {
	o, err := object(r.Resource, "resource")
	if err != nil {
		return nil, err
	}
	sub, err := p.asked(r.Subject)
	if err != nil {
		return nil, err
	}
	contextual, err := p.contextual(r.ContextualRelationships)
	if err != nil {
		return nil, err
	}
	given, err := p.context(r.Context, "context")
	if err != nil {
		return nil, err
	}
	s, now, err := p.at(ctx, r.Store, r.Consistency)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	answers, err := graph.Permissions(ctx, s, o, sub, given, contextual, now, p.limits.graph())
	if err != nil {
		return nil, err
	}
	out := &pembav1.ListPermissionsResponse{Zookie: s.Zookie()}
	for _, a := range answers {
		if !a.IsPermission {
			continue
		}
		result := &pembav1.PermissionResult{Permission: a.Name}
		if a.Err != nil {
			result.Error = p.itemStatus(ctx, "/pemba.v1.PermissionService/ListPermissions", a.Err).Proto()
		} else {
			result.Answer, result.MissingFields = answer(a.Answer), a.Answer.Missing
		}
		out.Permissions = append(out.Permissions, result)
	}
	slices.SortFunc(out.Permissions, func(a, b *pembav1.PermissionResult) int { return strings.Compare(a.Permission, b.Permission) })
	return out, nil
}

func (p *permissions) Expand(ctx context.Context, r *pembav1.ExpandRequest) (*pembav1.ExpandResponse, error) {
	o, err := object(r.Resource, "resource")
	if err != nil {
		return nil, err
	}
	permission, err := permissionName(r.Permission)
	if err != nil {
		return nil, err
	}
	contextual, err := p.contextual(r.ContextualRelationships)
	if err != nil {
		return nil, err
	}
	s, now, err := p.at(ctx, r.Store, r.Consistency)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	nodes, err := graph.Expand(ctx, s, o, permission, r.Recursive, contextual, now, p.limits.expand())
	if errors.Is(err, graph.ErrTooManyNodes) {
		err = p.tooMuchToExpand(err)
	}
	if err != nil {
		return nil, err
	}
	out := &pembav1.ExpandResponse{Zookie: s.Zookie()}
	for i := range nodes {
		out.Nodes = append(out.Nodes, expandNode(&nodes[i]))
	}
	return out, nil
}

// tooMuchToExpand names the limit that an expansion is over.
func (p *permissions) tooMuchToExpand(err error) error {
	name, limit := "max-expand-results", p.limits.ExpandResults
	if p.limits.GraphNodes < limit {
		name, limit = "max-graph-nodes", p.limits.GraphNodes
	}
	return datastore.With(err, "limit", name, "maximum", strconv.Itoa(limit))
}

func expandNode(n *graph.TreeNode) *pembav1.ExpandNode {
	out := &pembav1.ExpandNode{
		Kind:     pembav1.ExpandNode_Kind(pembav1.ExpandNode_Kind_value["KIND_"+string(n.Kind)]),
		Resource: &pembav1.Object{Type: n.Object.Type, Id: n.Object.ID}, Relation: n.Relation,
		Children: n.Children, ArrowRelation: n.Tupleset, ArrowTarget: n.Target,
	}
	for _, sub := range n.Subjects {
		r := relationshipProto(&sub.Relationship)
		s := &pembav1.ExpandSubject{Subject: r.Subject, Caveat: r.Caveat, Node: sub.Node}
		if !sub.Relationship.Expiration.IsZero() {
			s.Expiration = timestamppb.New(sub.Relationship.Expiration)
		}
		out.Subjects = append(out.Subjects, s)
	}
	return out
}
