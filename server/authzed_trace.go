package server

import (
	"context"
	"crypto/rand"
	"slices"
	"time"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/schema"
)

// traceOptions bound a trace.
var traceOptions = graph.ExplainOptions{MaxShown: defaultShown, MaxReasons: maxReasons}

// traced answers a question and gives the trace of it: what its explanation
// shows, as a tree of the checks of relations and permissions.
func (s *Server) traced(ctx context.Context, snapshot datastore.Snapshot, q graph.Question, given *structpb.Struct, now time.Time) (graph.Answer, *authzedv1.DebugInformation, error) {
	begun := time.Now()
	x, err := graph.Explain(ctx, snapshot, q, now, s.limits.graph(), traceOptions)
	if err != nil {
		return graph.Answer{}, nil, err
	}
	t := &tracer{schema: snapshot.Schema(), question: &q, given: given, reasons: x.Reasons, shown: make([]bool, len(x.Reasons)), operation: rand.Text()}
	root := t.check(0)
	root.Duration = durationpb.New(time.Since(begun))
	return x.Answer, &authzedv1.DebugInformation{Check: root, SchemaUsed: snapshot.Schema().Text}, nil
}

type tracer struct {
	schema    *schema.Schema
	question  *graph.Question
	given     *structpb.Struct // the context of the question
	reasons   []graph.Reason
	shown     []bool // once; after that its result is said to be known
	operation string
}

// check is the trace of a reason that is about a relation or permission.
func (t *tracer) check(at uint32) *authzedv1.CheckDebugTrace {
	r := &t.reasons[at]
	out := &authzedv1.CheckDebugTrace{
		Resource: objectOut(r.Object), Permission: r.Relation, Subject: subjectOut(t.question.Subject),
		PermissionType: authzedv1.CheckDebugTrace_PERMISSION_TYPE_PERMISSION, Result: traceResult(r), TraceOperationId: t.operation, Source: "pemba:graph",
	}
	if d := t.schema.Definition(r.Object.Type); d != nil {
		if named := d.Relation(r.Relation); named != nil && !named.IsPermission() {
			out.PermissionType = authzedv1.CheckDebugTrace_PERMISSION_TYPE_RELATION
		}
	}
	if t.shown[at] {
		out.Resolution = &authzedv1.CheckDebugTrace_WasCachedResult{WasCachedResult: true}
		return out
	}
	t.shown[at] = true
	sub := &authzedv1.CheckDebugTrace_SubProblems{}
	t.below(r, out, sub, map[uint32]bool{at: true})
	out.Resolution = &authzedv1.CheckDebugTrace_SubProblems_{SubProblems: sub}
	return out
}

// below puts what a reason rests on into the trace of the relation or permission
// that it is part of. Parts of an expression have no trace of their own.
func (t *tracer) below(r *graph.Reason, out *authzedv1.CheckDebugTrace, sub *authzedv1.CheckDebugTrace_SubProblems, within map[uint32]bool) {
	add := func(c *authzedv1.CheckDebugTrace) {
		sub.Traces = append(sub.Traces, c)
		out.OptionalExpiresAt = earlier(out.OptionalExpiresAt, c.OptionalExpiresAt)
	}
	for _, part := range r.Parts {
		switch inner := &t.reasons[part.Node]; {
		case inner.Relation != "":
			add(t.check(part.Node))
		case !within[part.Node]:
			within[part.Node] = true
			t.below(inner, out, sub, within)
		}
	}
	for i := range r.Steps {
		step := &r.Steps[i]
		if e := step.Relationship.Expiration; !e.IsZero() {
			out.OptionalExpiresAt = earlier(out.OptionalExpiresAt, timestamppb.New(e))
		}
		if step.Relationship.Caveat.Name != "" && out.CaveatEvaluationInfo == nil {
			out.CaveatEvaluationInfo = t.caveat(step)
		}
		if step.Node != nil && t.reasons[*step.Node].Relation != "" {
			add(t.check(*step.Node))
		}
	}
}

func traceResult(r *graph.Reason) authzedv1.CheckDebugTrace_Permissionship {
	switch {
	case r.Open:
		return authzedv1.CheckDebugTrace_PERMISSIONSHIP_UNSPECIFIED
	case r.Outcome == graph.Yes:
		return authzedv1.CheckDebugTrace_PERMISSIONSHIP_HAS_PERMISSION
	case r.Outcome == graph.Conditional:
		return authzedv1.CheckDebugTrace_PERMISSIONSHIP_CONDITIONAL_PERMISSION
	}
	return authzedv1.CheckDebugTrace_PERMISSIONSHIP_NO_PERMISSION
}

// caveat tells what the caveat of a relationship came to. Of its context it shows
// what the caller sent: what was written with the relationship may be nothing for
// a caller's eyes.
func (t *tracer) caveat(step *graph.ReasonStep) *authzedv1.CaveatEvalInfo {
	out := &authzedv1.CaveatEvalInfo{CaveatName: step.Relationship.Caveat.Name, Context: &structpb.Struct{Fields: map[string]*structpb.Value{}}}
	if c := t.schema.Caveat(out.CaveatName); c != nil {
		out.Expression = c.Expression
		for _, p := range c.Parameters {
			if v, ok := t.given.GetFields()[p.Name]; ok {
				out.Context.Fields[p.Name] = v
			}
		}
	}
	switch {
	case step.CaveatOpen:
		out.Result = authzedv1.CaveatEvalInfo_RESULT_UNEVALUATED
	case step.Caveat == graph.Yes:
		out.Result = authzedv1.CaveatEvalInfo_RESULT_TRUE
	case step.Caveat == graph.Conditional:
		out.Result = authzedv1.CaveatEvalInfo_RESULT_MISSING_SOME_CONTEXT
		out.PartialCaveatInfo = &authzedv1.PartialCaveatInfo{MissingRequiredContext: step.Missing}
	default:
		out.Result = authzedv1.CaveatEvalInfo_RESULT_FALSE
	}
	return out
}

func earlier(a, b *timestamppb.Timestamp) *timestamppb.Timestamp {
	if a == nil || b != nil && b.AsTime().Before(a.AsTime()) {
		return b
	}
	return a
}

// expiryKey names a relation or permission of one schema of a store, and keeps
// nothing of that schema alive.
type expiryKey struct {
	store          datastore.StoreID
	schema         [32]byte
	typ, permitted schema.Name
}

// mayExpire reports whether a relationship that expires can bear on a relation or
// permission. It is asked at every check, and remembered.
func (s *Server) mayExpire(snapshot datastore.Snapshot, r *schema.Relation) bool {
	key := expiryKey{snapshot.Store(), snapshot.SchemaHash(), r.Definition.Name, r.Name}
	if known, ok := s.expiring.Get(key); ok {
		return known
	}
	expires := func(r *schema.Relation) bool {
		return slices.ContainsFunc(r.Allowed, func(a schema.AllowedSubject) bool { return a.Expiration })
	}
	found := expires(r) || slices.ContainsFunc(r.Dependencies(), expires)
	s.expiring.Add(key, found)
	return found
}

// expiresAt is when the first of the relationships that an answer rests on
// expires; nil if none does.
func (s *Server) expiresAt(ctx context.Context, snapshot datastore.Snapshot, q graph.Question, now time.Time) (*timestamppb.Timestamp, error) {
	if !s.mayExpire(snapshot, snapshot.Schema().Definition(q.Resource.Type).Relation(q.Permission)) {
		return nil, nil
	}
	x, err := graph.Explain(ctx, snapshot, q, now, s.limits.graph(), traceOptions)
	if err != nil {
		return nil, err
	}
	var out *timestamppb.Timestamp
	for i := range x.Reasons {
		for j := range x.Reasons[i].Steps {
			if e := x.Reasons[i].Steps[j].Relationship.Expiration; !e.IsZero() {
				out = earlier(out, timestamppb.New(e))
			}
		}
	}
	return out, nil
}
