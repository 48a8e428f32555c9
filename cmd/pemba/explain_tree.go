package main

import (
	"fmt"
	"strings"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
)

// reasonDrawing prints an explanation as a tree. A reason is drawn once; further mentions refer to it.
type reasonDrawing struct {
	app   *app
	nodes []*pb.ExplainNode
	drawn []bool
	later []uint32 // reasons too deep to be drawn where they belong
	print func(format string, args ...any) (int, error)
}

func (a *app) drawReasons(x *pb.ExplainResponse, j answerJSON) error {
	out := a.buffered()
	d := &reasonDrawing{app: a, nodes: x.Nodes, drawn: make([]bool, len(x.Nodes)), later: []uint32{0},
		print: func(format string, args ...any) (int, error) { return fmt.Fprintf(out, format, args...) }}
	text := a.paint(a.out, j.colour(), j.Answer)
	if note := j.note(); note != "" {
		text += ": " + note
	}
	d.print("%s\n", text)
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

// title is a reason on one line, with its mark.
func (d *reasonDrawing) title(at uint32) string {
	n := d.nodes[at]
	return d.mark(n.Answer) + " " + reasonTitle(n)
}

func (d *reasonDrawing) mark(a pb.Answer) string {
	switch word(a) {
	case "yes":
		return d.app.paint(d.app.out, green, "✓")
	case "no":
		return d.app.paint(d.app.out, red, "✗")
	case "conditional":
		return d.app.paint(d.app.out, yellow, "?")
	}
	return "!"
}

// reasonTitle says what a reason is about.
func reasonTitle(n *pb.ExplainNode) string {
	name := ""
	if n.Relation != "" {
		name = objectFromWire(n.Resource).String() + "#" + n.Relation
	}
	how := map[pb.ExplainNode_Kind]string{
		pb.ExplainNode_KIND_INTERSECTION: "all of",
		pb.ExplainNode_KIND_EXCLUSION:    "one without the other",
		pb.ExplainNode_KIND_ANY:          reasonArrow(n),
		pb.ExplainNode_KIND_ALL:          reasonArrow(n),
		pb.ExplainNode_KIND_NIL:          "nobody",
		pb.ExplainNode_KIND_SELF:         objectFromWire(n.Resource).String() + " itself",
		pb.ExplainNode_KIND_SUBJECT:      "the subject asked about",
		pb.ExplainNode_KIND_SUSPENDED:    "the subject is suspended or was removed, and has nothing",
	}[n.Kind]
	if n.Kind == pb.ExplainNode_KIND_UNION && (name == "" || len(n.Children) > 1) {
		how = "any of"
	}
	if len(n.Steps) == 0 && n.Omitted == 0 {
		switch n.Kind {
		case pb.ExplainNode_KIND_RELATION:
			how = "no relationship grants it"
		case pb.ExplainNode_KIND_ANY, pb.ExplainNode_KIND_ALL:
			how += ": leads nowhere"
		}
	}
	switch {
	case name == "":
		return how
	case how == "":
		return name
	}
	return name + ": " + how
}

// verdict is an answer in words.
func verdict(a pb.Answer, missing []string) string {
	text := word(a)
	if len(missing) > 0 {
		text += ": needs " + strings.Join(missing, ", ")
	}
	return text
}

// stepText is a relationship with what its caveat comes to.
func stepText(s *pb.ExplainStep) string {
	text := relationshipFromWire(s.Relationship).String()
	if s.Contextual {
		text += " (contextual)"
	}
	if s.Relationship.Caveat == nil {
		return text
	}
	switch word(s.Caveat) {
	case "yes":
		return text + ": the caveat holds"
	case "no":
		return text + ": the caveat is false"
	case "conditional":
		return text + ": needs " + strings.Join(s.MissingFields, ", ")
	}
	return text + ": the caveat fails"
}

// inside draws what is below a reason.
func (d *reasonDrawing) inside(at uint32, indent string, depth int) {
	d.drawn[at] = true
	n := d.nodes[at]
	total, done := len(n.Children)+len(n.Steps), 0
	if n.Omitted > 0 {
		total++
	}
	line := func(text string, child *uint32) {
		done++
		branch, below := "├─ ", "│  "
		if done == total {
			branch, below = "└─ ", "   "
		}
		if child == nil || int(*child) >= len(d.nodes) {
			d.print("%s%s%s\n", indent, branch, text)
			return
		}
		empty := len(d.nodes[*child].Children)+len(d.nodes[*child].Steps) == 0
		title := d.title(*child)
		if text != "" {
			title = text + " → " + title
		}
		switch {
		case d.drawn[*child] && !empty:
			d.print("%s%s%s (see above)\n", indent, branch, title)
		case depth >= maxIndent && !empty:
			d.print("%s%s%s (see below)\n", indent, branch, title)
			d.later = append(d.later, *child)
		default:
			d.print("%s%s%s\n", indent, branch, title)
			if !d.drawn[*child] {
				d.inside(*child, indent+below, depth+1)
			}
		}
	}
	for _, c := range n.Children {
		text := ""
		if c.Excluded {
			text = "but not"
		}
		line(text, &c.Node)
	}
	for _, s := range n.Steps {
		line(stepText(s), s.Node)
	}
	if n.Omitted > 0 {
		line(fmt.Sprintf("and %s more", thousands(uint64(n.Omitted))), nil)
	}
}
