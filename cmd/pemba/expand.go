package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

// maxIndent is how deep the tree of an expansion is drawn before a branch is drawn below, from the margin.
const maxIndent = 24

func (a *app) expandCommand() *cobra.Command {
	var given circumstances
	var recursive bool
	cmd := &cobra.Command{
		Use:   "expand RESOURCE PERMISSION",
		Short: "Show how a permission or relation of a resource comes about",
		Example: `  pemba expand document:readme view
  pemba expand document:readme view --recursive`,
		Args: takes("RESOURCE", "PERMISSION"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		resource, err := tuple.ParseObject(args[0])
		if err != nil {
			return usage(err)
		}
		if err := tuple.CheckRelation(args[1]); err != nil {
			return usage(err)
		}
		_, with, err := given.toWire()
		if err != nil {
			return err
		}
		r, err := c.permissions.Expand(ctx, &pb.ExpandRequest{
			Store: c.store, Consistency: c.at, Resource: objectToWire(resource), Permission: args[1],
			Recursive: recursive, ContextualRelationships: with,
		})
		if err != nil {
			return err
		}
		if a.json() {
			return document(a.out, expansionJSON(r))
		}
		return a.drawExpansion(r)
	})
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "follow usersets and arrows to the end")
	given.addWith(cmd.Flags())
	return a.backward(a.remote(cmd, true, true))
}

// nodeJSON is a node of an expansion as JSON; numbers refer to the list of nodes, the first of which was asked for.
type nodeJSON struct {
	Kind     string        `json:"kind"`
	Resource string        `json:"resource,omitempty"`
	Relation string        `json:"relation,omitempty"`
	Arrow    string        `json:"arrow,omitempty"`
	Children []uint32      `json:"children,omitempty"`
	Subjects []subjectJSON `json:"subjects,omitempty"`
}

type subjectJSON struct {
	Subject    string  `json:"subject"`
	Caveat     string  `json:"caveat,omitempty"`
	Context    any     `json:"context,omitempty"`
	Expiration string  `json:"expiration,omitempty"`
	Node       *uint32 `json:"node,omitempty"`
}

func expansionJSON(r *pb.ExpandResponse) any {
	nodes := make([]nodeJSON, len(r.Nodes))
	for i, n := range r.Nodes {
		j := nodeJSON{Kind: kindName(n.Kind), Relation: n.Relation, Arrow: arrow(n), Children: n.Children}
		if n.Resource != nil {
			j.Resource = objectFromWire(n.Resource).String()
		}
		for _, s := range n.Subjects {
			e := subjectJSON{Subject: subjectFromWire(s.Subject).String(), Node: s.Node}
			if s.Caveat != nil {
				c := caveatFromWire(s.Caveat)
				if e.Caveat = c.Name; c.Context != "" {
					e.Context = rawJSON(c.Context)
				}
			}
			if s.Expiration != nil {
				e.Expiration = clock(s.Expiration.AsTime())
			}
			j.Subjects = append(j.Subjects, e)
		}
		nodes[i] = j
	}
	return struct {
		Nodes  []nodeJSON `json:"nodes"`
		Zookie string     `json:"zookie"`
	}{nodes, r.Zookie}
}

func kindName(k pb.ExpandNode_Kind) string {
	return strings.ToLower(strings.TrimPrefix(k.String(), "KIND_"))
}

func arrow(n *pb.ExpandNode) string {
	switch n.Kind {
	case pb.ExpandNode_KIND_ANY:
		return n.ArrowRelation + "->" + n.ArrowTarget
	case pb.ExpandNode_KIND_ALL:
		return n.ArrowRelation + ".all(" + n.ArrowTarget + ")"
	}
	return ""
}

// drawing prints an expansion as a tree. A node is drawn once; further mentions refer to it.
type drawing struct {
	nodes []*pb.ExpandNode
	drawn []bool
	later []uint32 // nodes too deep to be drawn where they belong
	print func(format string, args ...any) (int, error)
}

func (a *app) drawExpansion(r *pb.ExpandResponse) error {
	out := a.buffered()
	d := &drawing{nodes: r.Nodes, drawn: make([]bool, len(r.Nodes)), later: []uint32{0},
		print: func(format string, args ...any) (int, error) { return fmt.Fprintf(out, format, args...) }}
	if len(r.Nodes) == 0 {
		return fmt.Errorf("the server gave an expansion without nodes; is it as new as this command?")
	}
	for len(d.later) > 0 {
		next := d.later[0]
		d.later = d.later[1:]
		if !d.drawn[next] {
			d.print("%s\n", d.title(next))
			d.inside(next, "", 0)
		}
	}
	return out.Flush()
}

// title names a node on one line.
func (d *drawing) title(at uint32) string {
	n := d.nodes[at]
	var name string
	if n.Relation != "" {
		name = objectFromWire(n.Resource).String() + "#" + n.Relation
	}
	how := map[pb.ExpandNode_Kind]string{
		pb.ExpandNode_KIND_UNION:        "any of",
		pb.ExpandNode_KIND_INTERSECTION: "all of",
		pb.ExpandNode_KIND_EXCLUSION:    "the first, without the rest",
		pb.ExpandNode_KIND_ANY:          arrow(n),
		pb.ExpandNode_KIND_ALL:          arrow(n),
		pb.ExpandNode_KIND_NIL:          "nobody",
	}[n.Kind]
	if n.Kind == pb.ExpandNode_KIND_SELF {
		how = objectFromWire(n.Resource).String() + " itself"
	}
	if n.Kind == pb.ExpandNode_KIND_RELATION && len(n.Subjects) == 0 {
		how = "nobody"
	}
	switch {
	case name == "":
		return how
	case how == "":
		return name
	}
	return name + ": " + how
}

// inside draws what is below a node.
func (d *drawing) inside(at uint32, indent string, depth int) {
	d.drawn[at] = true
	n := d.nodes[at]
	total := len(n.Children) + len(n.Subjects)
	done := 0
	line := func(text string, child *uint32) {
		done++
		branch, below := "├─ ", "│  "
		if done == total {
			branch, below = "└─ ", "   "
		}
		draw := false
		if child != nil && int(*child) < len(d.nodes) {
			if text != "" {
				text += " → "
			}
			text += d.title(*child)
			empty := len(d.nodes[*child].Children)+len(d.nodes[*child].Subjects) == 0
			switch {
			case d.drawn[*child] && !empty:
				text += " (see above)"
			case depth >= maxIndent && !empty:
				text += " (see below)"
				d.later = append(d.later, *child)
			default:
				draw = !d.drawn[*child]
			}
		}
		d.print("%s%s%s\n", indent, branch, text)
		if draw {
			d.inside(*child, indent+below, depth+1)
		}
	}
	for _, c := range n.Children {
		line("", &c)
	}
	for _, s := range n.Subjects {
		line(subjectText(s, s.Node != nil && n.Kind == pb.ExpandNode_KIND_RELATION), s.Node)
	}
}

// subjectText prints a subject with its conditions. The name of one that is drawn as a node is left to the node.
func subjectText(s *pb.ExpandSubject, node bool) string {
	var text string
	if !node {
		text = subjectFromWire(s.Subject).String()
	}
	if s.Caveat != nil {
		text += caveatFromWire(s.Caveat).String()
	}
	if s.Expiration != nil {
		text += "[expiration:" + clock(s.Expiration.AsTime()) + "]"
	}
	return text
}
