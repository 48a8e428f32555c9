package server

import (
	"context"

	"github.com/pembadb/pemba/graph"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

// What an explanation shows where the request does not say, and at most.
const (
	defaultShown   = 20
	maxReasons     = 1000
	maxSuggestions = 10
)

func (p *permissions) Explain(ctx context.Context, r *pembav1.ExplainRequest) (*pembav1.ExplainResponse, error) {
	q, err := p.question(r.Resource, r.Permission, r.Subject, r.Context, r.ContextualRelationships)
	if err != nil {
		return nil, err
	}
	if r.MaxSuggestions > maxSuggestions {
		return nil, invalidField("max_suggestions", "max_suggestions is %d, more than %d", r.MaxSuggestions, maxSuggestions)
	}
	s, now, err := p.at(ctx, r.Store, r.Consistency)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	o := graph.ExplainOptions{AllProofs: r.AllProofs, MaxShown: defaultShown, MaxReasons: maxReasons}
	if r.MaxShown > 0 {
		o.MaxShown = min(int(r.MaxShown), maxReasons)
	}
	x, err := graph.Explain(ctx, s, q, now, p.limits.graph(), o)
	if err != nil {
		return nil, err
	}
	out := &pembav1.ExplainResponse{Zookie: s.Zookie(), Answer: answer(x.Answer), MissingFields: x.Answer.Missing}
	for i := range x.Reasons {
		out.Nodes = append(out.Nodes, explainNode(&x.Reasons[i]))
	}
	if r.MaxSuggestions > 0 && x.Answer.Outcome != graph.Yes {
		found, err := graph.Suggest(ctx, s, q, now, p.limits.graph(), int(r.MaxSuggestions))
		if err != nil {
			return nil, err
		}
		out.Impossible = found.Impossible
		for i := range found.Found {
			out.Suggestions = append(out.Suggestions, suggestion(&found.Found[i]))
		}
	}
	return out, nil
}

// outcome is an outcome that may have been left open.
func outcome(o graph.Outcome, open bool) pembav1.Answer {
	if open {
		return pembav1.Answer_ANSWER_UNSPECIFIED
	}
	return answer(graph.Answer{Outcome: o})
}

func explainNode(r *graph.Reason) *pembav1.ExplainNode {
	out := &pembav1.ExplainNode{
		Kind:     pembav1.ExplainNode_Kind(pembav1.ExplainNode_Kind_value["KIND_"+string(r.Kind)]),
		Resource: &pembav1.Object{Type: r.Object.Type, Id: r.Object.ID}, Relation: r.Relation,
		ArrowRelation: r.Tupleset, ArrowTarget: r.Target,
		Answer: outcome(r.Outcome, r.Open), MissingFields: r.Missing, Omitted: uint32(r.Omitted),
	}
	for _, part := range r.Parts {
		out.Children = append(out.Children, &pembav1.ExplainChild{Node: part.Node, Excluded: part.Excluded})
	}
	for _, s := range r.Steps {
		out.Steps = append(out.Steps, &pembav1.ExplainStep{
			Relationship: relationshipProto(&s.Relationship), Contextual: s.Contextual,
			Caveat: outcome(s.Caveat, s.CaveatOpen), MissingFields: s.Missing, Node: s.Node,
		})
	}
	return out
}

func suggestion(s *graph.Suggestion) *pembav1.Suggestion {
	protos := func(rels []tuple.Relationship) (out []*pembav1.Relationship) {
		for i := range rels {
			out = append(out, relationshipProto(&rels[i]))
		}
		return out
	}
	out := &pembav1.Suggestion{Writes: protos(s.Writes), Deletes: protos(s.Deletes)}
	for i := range s.Context {
		n := &s.Context[i]
		out.Context = append(out.Context, &pembav1.SuggestedContext{
			Caveat: n.Relationship.Caveat.Name, Fields: n.Fields, Relationship: relationshipProto(&n.Relationship),
		})
	}
	return out
}
