package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

// explainFlags ask a check for more than its answer.
type explainFlags struct {
	explain, allProofs, graphviz, suggest bool
}

func (f *explainFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.explain, "explain", false, "show why: the shortest proof of a yes, what was looked at for a no")
	flags.BoolVar(&f.allProofs, "all-proofs", false, "explain a yes with its other proofs as well")
	flags.BoolVar(&f.graphviz, "graphviz", false, "print the explanation as a Graphviz file, for dot -Tsvg")
	flags.BoolVar(&f.suggest, "suggest", false, "explain, and suggest what would have to change for a yes")
}

func (f *explainFlags) wanted() bool { return f.explain || f.allProofs || f.graphviz || f.suggest }

// suggested is how many suggestions are asked for.
const suggested = 5

// explain asks a question with its reasons.
func (a *app) explain(ctx context.Context, c *connection, r *pb.ExplainRequest, f *explainFlags) error {
	r.AllProofs = f.allProofs
	if f.suggest {
		r.MaxSuggestions = suggested
	}
	x, err := c.permissions.Explain(ctx, r)
	if err != nil {
		return err
	}
	if len(x.Nodes) == 0 {
		return fmt.Errorf("the server gave an explanation without reasons; is it as new as this command?")
	}
	j := answer(x.Answer, x.MissingFields, nil)
	switch {
	case f.graphviz:
		a.printf("%s", graphviz(x))
	case a.json():
		if err := document(a.out, explanationJSON(x, j)); err != nil {
			return err
		}
	default:
		if err := a.drawReasons(x, j); err != nil {
			return err
		}
		if f.suggest && j.Answer != "yes" {
			a.printSuggestions(x, r.ContextualRelationships)
		}
	}
	return exitOf(j)
}

// nodeExplainedJSON is a reason as JSON; numbers refer to the list of nodes, the first of which is what was asked.
type nodeExplainedJSON struct {
	Kind     string              `json:"kind"`
	Resource string              `json:"resource,omitempty"`
	Relation string              `json:"relation,omitempty"`
	Arrow    string              `json:"arrow,omitempty"`
	Answer   string              `json:"answer"`
	Missing  []string            `json:"missing,omitempty"`
	Parts    []partExplainedJSON `json:"parts,omitempty"`
	Steps    []stepJSON          `json:"steps,omitempty"`
	Omitted  uint32              `json:"omitted,omitempty"`
}

type partExplainedJSON struct {
	Node     uint32 `json:"node"`
	Excluded bool   `json:"excluded,omitempty"`
}

type stepJSON struct {
	Relationship string   `json:"relationship"`
	Contextual   bool     `json:"contextual,omitempty"`
	Caveat       string   `json:"caveat,omitempty"`
	Missing      []string `json:"missing,omitempty"`
	Node         *uint32  `json:"node,omitempty"`
}

type suggestionJSON struct {
	Writes  []string      `json:"writes,omitempty"`
	Deletes []string      `json:"deletes,omitempty"`
	Context []contextJSON `json:"context,omitempty"`
}

type contextJSON struct {
	Caveat       string   `json:"caveat"`
	Fields       []string `json:"fields"`
	Relationship string   `json:"relationship"`
}

func explanationJSON(x *pb.ExplainResponse, j answerJSON) any {
	nodes := make([]nodeExplainedJSON, len(x.Nodes))
	for i, n := range x.Nodes {
		nodes[i] = nodeExplainedJSON{
			Kind: strings.ToLower(strings.TrimPrefix(n.Kind.String(), "KIND_")), Resource: objectFromWire(n.Resource).String(),
			Relation: n.Relation, Arrow: reasonArrow(n), Answer: word(n.Answer), Missing: n.MissingFields, Omitted: n.Omitted,
		}
		for _, p := range n.Children {
			nodes[i].Parts = append(nodes[i].Parts, partExplainedJSON{p.Node, p.Excluded})
		}
		for _, s := range n.Steps {
			step := stepJSON{Relationship: relationshipFromWire(s.Relationship).String(), Contextual: s.Contextual, Missing: s.MissingFields, Node: s.Node}
			if s.Relationship.Caveat != nil {
				step.Caveat = word(s.Caveat)
			}
			nodes[i].Steps = append(nodes[i].Steps, step)
		}
	}
	var suggestions []suggestionJSON
	for _, s := range x.Suggestions {
		one := suggestionJSON{Writes: texts(s.Writes), Deletes: texts(s.Deletes)}
		for _, c := range s.Context {
			one.Context = append(one.Context, contextJSON{c.Caveat, c.Fields, relationshipFromWire(c.Relationship).String()})
		}
		suggestions = append(suggestions, one)
	}
	return struct {
		Answer      string              `json:"answer"`
		Missing     []string            `json:"missing,omitempty"`
		Nodes       []nodeExplainedJSON `json:"nodes"`
		Suggestions []suggestionJSON    `json:"suggestions,omitempty"`
		Impossible  bool                `json:"impossible,omitempty"`
		Zookie      string              `json:"zookie"`
	}{j.Answer, j.Missing, nodes, suggestions, x.Impossible, x.Zookie}
}

func texts(rels []*pb.Relationship) (out []string) {
	for _, r := range rels {
		out = append(out, relationshipFromWire(r).String())
	}
	return out
}

// word names an answer; one that was left open is "open".
func word(a pb.Answer) string {
	switch a {
	case pb.Answer_ANSWER_HAS_PERMISSION:
		return "yes"
	case pb.Answer_ANSWER_NO_PERMISSION:
		return "no"
	case pb.Answer_ANSWER_CONDITIONAL:
		return "conditional"
	}
	return "open"
}

func reasonArrow(n *pb.ExplainNode) string {
	switch n.Kind {
	case pb.ExplainNode_KIND_ANY:
		return n.ArrowRelation + "->" + n.ArrowTarget
	case pb.ExplainNode_KIND_ALL:
		return n.ArrowRelation + ".all(" + n.ArrowTarget + ")"
	}
	return ""
}

func (a *app) printSuggestions(x *pb.ExplainResponse, contextual []*pb.Relationship) {
	with := map[tuple.Key]bool{}
	for _, r := range contextual {
		with[relationshipFromWire(r).Key] = true
	}
	switch {
	case x.Impossible:
		a.printf("\nBy the schema, no subject of this kind can ever have it: only another schema makes it yes.\n")
		return
	case len(x.Nodes) == 1 && x.Nodes[0].Kind == pb.ExplainNode_KIND_SUSPENDED:
		a.printf("\nTo make it yes, reactivate the user, or create it again.\n")
		return
	case len(x.Suggestions) == 0:
		a.printf("\nNo small set of changes makes it yes.\n")
		return
	}
	a.printf("\nWhat would make it yes, one of:\n")
	for i, s := range x.Suggestions {
		bullet := fmt.Sprintf("%2d. ", i+1)
		line := func(format string, args ...any) {
			a.printf("%s%s\n", bullet, fmt.Sprintf(format, args...))
			bullet = "    "
		}
		for _, text := range texts(s.Writes) {
			line("write %s", text)
		}
		for _, r := range s.Deletes {
			verb := "delete"
			if with[relationshipFromWire(r).Key] {
				verb = "leave out"
			}
			line("%s %s", verb, relationshipFromWire(r))
		}
		for _, c := range s.Context {
			line("give %s in --context, so that caveat %s of %s holds", strings.Join(c.Fields, ", "), c.Caveat, relationshipFromWire(c.Relationship).Key)
		}
	}
}

// graphviz prints an explanation in the DOT language.
func graphviz(x *pb.ExplainResponse) string {
	var b strings.Builder
	quote := func(s string) string {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
	}
	colours := map[string]string{"yes": "darkgreen", "no": "firebrick", "conditional": "darkorange", "open": "gray40"}
	b.WriteString("digraph explanation {\n  node [shape=box, fontname=\"sans-serif\"];\n  edge [fontname=\"sans-serif\", fontsize=10];\n")
	for i, n := range x.Nodes {
		label := reasonTitle(n)
		if n.Omitted > 0 {
			label += fmt.Sprintf("\nand %d more", n.Omitted)
		}
		fmt.Fprintf(&b, "  n%d [label=%s, color=%s];\n", i, quote(label+"\n"+verdict(n.Answer, n.MissingFields)), colours[word(n.Answer)])
	}
	for i, n := range x.Nodes {
		for _, p := range n.Children {
			style := ""
			if p.Excluded {
				style = " [style=dashed, label=\"but not\"]"
			}
			fmt.Fprintf(&b, "  n%d -> n%d%s;\n", i, p.Node, style)
		}
		for j, s := range n.Steps {
			label := quote(stepText(s))
			if s.Node != nil {
				fmt.Fprintf(&b, "  n%d -> n%d [label=%s];\n", i, *s.Node, label)
				continue
			}
			fmt.Fprintf(&b, "  n%ds%d [label=%s, shape=ellipse];\n  n%d -> n%ds%d;\n", i, j, label, i, i, j)
		}
	}
	b.WriteString("}\n")
	return b.String()
}
