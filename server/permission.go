package server

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

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

func (p *permissions) question(o *pembav1.Object, permission string, sub *pembav1.Subject, c *structpb.Struct, contextual []*pembav1.Relationship) (q graph.Question, err error) {
	if q.Resource, err = object(o, "resource"); err != nil {
		return q, err
	}
	if q.Permission = permission; permission == "" {
		return q, missing("permission")
	}
	if err := tuple.CheckRelation(permission); err != nil {
		return q, problem(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_RELATION, "permission: %v", err)
	}
	if q.Subject, err = subject(sub, "subject"); err != nil {
		return q, err
	}
	if q.Contextual, err = p.relationships(contextual, "contextual_relationships"); err != nil {
		return q, err
	}
	q.Context, err = p.context(c)
	return q, err
}

func (p *permissions) Check(ctx context.Context, r *pembav1.CheckRequest) (*pembav1.CheckResponse, error) {
	q, err := p.question(r.Resource, r.Permission, r.Subject, r.Context, r.ContextualRelationships)
	if err != nil {
		return nil, err
	}
	s, err := p.at(ctx, r.Store, r.Consistency)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	a, err := graph.Check(ctx, s, q, time.Now(), p.config.Limits)
	if err != nil {
		return nil, err
	}
	return &pembav1.CheckResponse{Zookie: s.Zookie(), Answer: answer(a), MissingFields: a.Missing}, nil
}

func (p *permissions) BulkCheck(ctx context.Context, r *pembav1.BulkCheckRequest) (*pembav1.BulkCheckResponse, error) {
	if len(r.Items) > p.config.MaxItems {
		return nil, problem(codes.ResourceExhausted, pembav1.ErrorReason_ERROR_REASON_LIMIT_EXCEEDED,
			"%d items in one call, more than %d; split it", len(r.Items), p.config.MaxItems)
	}
	shared, err := p.context(r.Context)
	if err != nil {
		return nil, err
	}
	contextual, err := p.relationships(r.ContextualRelationships, "contextual_relationships")
	if err != nil {
		return nil, err
	}
	s, err := p.at(ctx, r.Store, r.Consistency)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	const method = "/pemba.v1.PermissionService/BulkCheck"
	out := &pembav1.BulkCheckResponse{Zookie: s.Zookie(), Results: make([]*pembav1.BulkCheckResult, len(r.Items))}
	var qs []graph.Question
	var place []int
	for i, item := range r.Items {
		q, err := p.question(item.GetResource(), item.GetPermission(), item.GetSubject(), item.GetContext(), nil)
		if err != nil {
			out.Results[i] = &pembav1.BulkCheckResult{Error: p.itemStatus(ctx, method, err).Proto()}
			continue
		}
		if item.GetContext() == nil {
			q.Context = shared
		}
		q.Contextual = contextual
		qs, place = append(qs, q), append(place, i)
	}
	answers, errs := graph.CheckBulk(ctx, s, qs, time.Now(), p.config.Limits)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for j, i := range place {
		if errs[j] != nil {
			out.Results[i] = &pembav1.BulkCheckResult{Error: p.itemStatus(ctx, method, errs[j]).Proto()}
			continue
		}
		out.Results[i] = &pembav1.BulkCheckResult{Answer: answer(answers[j]), MissingFields: answers[j].Missing}
	}
	return out, nil
}

func (p *permissions) ListPermissions(ctx context.Context, r *pembav1.ListPermissionsRequest) (*pembav1.ListPermissionsResponse, error) {
	o, err := object(r.Resource, "resource")
	if err != nil {
		return nil, err
	}
	sub, err := subject(r.Subject, "subject")
	if err != nil {
		return nil, err
	}
	contextual, err := p.relationships(r.ContextualRelationships, "contextual_relationships")
	if err != nil {
		return nil, err
	}
	given, err := p.context(r.Context)
	if err != nil {
		return nil, err
	}
	s, err := p.at(ctx, r.Store, r.Consistency)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	answers, err := graph.Permissions(ctx, s, o, sub, given, contextual, time.Now(), p.config.Limits)
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
	return out, nil
}

func (p *permissions) Expand(ctx context.Context, r *pembav1.ExpandRequest) (*pembav1.ExpandResponse, error) {
	o, err := object(r.Resource, "resource")
	if err != nil {
		return nil, err
	}
	if r.Permission == "" {
		return nil, missing("permission")
	}
	contextual, err := p.relationships(r.ContextualRelationships, "contextual_relationships")
	if err != nil {
		return nil, err
	}
	s, err := p.at(ctx, r.Store, r.Consistency)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	nodes, err := graph.Expand(ctx, s, o, r.Permission, r.Recursive, contextual, time.Now(), p.config.Limits)
	if err != nil {
		return nil, err
	}
	out := &pembav1.ExpandResponse{Zookie: s.Zookie()}
	for i := range nodes {
		out.Nodes = append(out.Nodes, expandNode(&nodes[i]))
	}
	return out, nil
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
