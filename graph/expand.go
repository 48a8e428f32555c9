package graph

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// TreeKind tells what a [TreeNode] is.
type TreeKind string

const (
	TreeRelation     TreeKind = "RELATION" // Subjects are those written
	TreeUnion        TreeKind = "UNION"
	TreeIntersection TreeKind = "INTERSECTION"
	TreeExclusion    TreeKind = "EXCLUSION" // the first child but not the second
	TreeAny          TreeKind = "ANY"       // an arrow; Subjects are its left side
	TreeAll          TreeKind = "ALL"
	TreeSelf         TreeKind = "SELF"
	TreeNil          TreeKind = "NIL"
)

// TreeNode is a node of an expansion. Nodes refer to each other by index; each
// relation or permission of an object stands once, so a circle refers back.
type TreeNode struct {
	Kind     TreeKind
	Object   tuple.Object
	Relation string // of a node that stands for a relation or permission
	Children []uint32
	Subjects []TreeSubject
	Tupleset string // of arrows
	Target   string
}

// TreeSubject is a relationship of a node, with the node of what it leads to,
// where that was expanded.
type TreeSubject struct {
	Relationship tuple.Relationship
	Node         *uint32
}

// Expand returns what a relation or permission of an object is made of; the
// first node is the root. One level shows the object's own relations and
// permissions; recursive follows usersets and arrows to the end. Expired
// relationships are left out; caveats are shown, not evaluated.
func Expand(ctx context.Context, s datastore.Snapshot, o tuple.Object, permission string, recursive bool, contextual []tuple.Relationship, now time.Time, l Limits) ([]TreeNode, error) {
	if err := o.Check(); err != nil {
		return nil, fmt.Errorf("%w: resource: %w", ErrInvalid, err)
	}
	r, err := relation(s.Schema(), o.Type, permission)
	if err != nil {
		return nil, err
	}
	v, err := newView(s, contextual)
	if err != nil {
		return nil, err
	}
	x := &expansion{view: v, recursive: recursive, now: evaluationTime(s, now), limits: l, seen: map[atom]uint32{}}
	if _, err := x.atom(v.id(o), r); err != nil {
		return nil, err
	}
	for len(x.todo) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		next := x.todo[0]
		x.todo = x.todo[1:]
		if err := x.fill(ctx, next); err != nil {
			return nil, err
		}
	}
	return x.nodes, nil
}

// atom is a relation or permission of an object.
type atom struct {
	object   datastore.ID
	relation *schema.Relation
}

type expansion struct {
	view      *view
	recursive bool
	now       int64
	limits    Limits
	nodes     []TreeNode
	seen      map[atom]uint32
	todo      []unfilled
	// subjectCount counts the subjects of all nodes: a limit of nodes is one of
	// subjects too.
	subjectCount int
}

// unfilled is a node that was given its place but not its contents.
type unfilled struct {
	at     uint32
	object datastore.ID
	// relation is set for a plain relation, expr for everything else.
	relation *schema.Relation
	expr     *schema.Expr
}

func (x *expansion) add(u unfilled, n TreeNode) (uint32, error) {
	if len(x.nodes) >= x.limits.nodes() {
		return 0, fmt.Errorf("%w: %d nodes; expand one level, or a smaller part", ErrTooManyNodes, x.limits.nodes())
	}
	u.at = uint32(len(x.nodes))
	n.Object = x.view.Object(u.object)
	x.nodes = append(x.nodes, n)
	x.todo = append(x.todo, u)
	return u.at, nil
}

// atom returns the node of a relation or permission of an object.
func (x *expansion) atom(o datastore.ID, r *schema.Relation) (uint32, error) {
	k := atom{o, r}
	if at, ok := x.seen[k]; ok {
		return at, nil
	}
	u := unfilled{object: o, expr: r.Expr}
	if r.Expr == nil {
		u.relation = r
	}
	at, err := x.add(u, TreeNode{Relation: r.Text})
	x.seen[k] = at
	return at, err
}

func (x *expansion) fill(ctx context.Context, u unfilled) error {
	n := &x.nodes[u.at]
	if u.relation != nil {
		n.Kind = TreeRelation
		return x.subjects(ctx, u, u.relation, "")
	}
	e := u.expr
	switch e.Kind {
	case schema.Nil:
		n.Kind = TreeNil
	case schema.Self:
		n.Kind = TreeSelf
	case schema.Arrow, schema.ArrowAll:
		n.Kind, n.Tupleset, n.Target = TreeAny, e.Tupleset.Text, e.Target
		if e.Kind == schema.ArrowAll {
			n.Kind = TreeAll
		}
		return x.subjects(ctx, u, e.Tupleset, e.Target)
	case schema.Ref: // a permission that is but another name
		n.Kind = TreeUnion
		return x.children(u, []*schema.Expr{e})
	case schema.Union:
		n.Kind = TreeUnion
	case schema.Intersection:
		n.Kind = TreeIntersection
	case schema.Exclusion:
		n.Kind = TreeExclusion
	}
	return x.children(u, e.Children)
}

func (x *expansion) children(u unfilled, parts []*schema.Expr) error {
	var children []uint32
	for _, part := range parts {
		var at uint32
		var err error
		if part.Kind == schema.Ref {
			at, err = x.atom(u.object, part.Relation)
		} else {
			at, err = x.add(unfilled{object: u.object, expr: part}, TreeNode{})
		}
		if err != nil {
			return err
		}
		children = append(children, at)
	}
	x.nodes[u.at].Children = children
	return nil
}

// subjects lists what a relation holds, in order of their bytes. Where target is
// set, each leads to that of it; otherwise usersets lead to what they name.
func (x *expansion) subjects(ctx context.Context, u unfilled, r *schema.Relation, target string) error {
	var edges []datastore.Edge
	qs := []datastore.Query{{Object: u.object, Relation: r.Name}}
	err := x.view.Read(ctx, qs, func(_ int, e datastore.Edge) bool {
		if e.Expiration == 0 || e.Expiration > x.now {
			edges = append(edges, e)
		}
		return x.subjectCount+len(edges) <= x.limits.nodes()
	})
	if err != nil {
		return err
	}
	if x.subjectCount += len(edges); x.subjectCount > x.limits.nodes() {
		return fmt.Errorf("%w: with %s#%s there are more than %d subjects; expand one level, or read the relationships page by page",
			ErrTooManyNodes, x.view.Object(u.object), r.Text, x.limits.nodes())
	}
	subjects := make([]TreeSubject, len(edges))
	for i, e := range edges {
		rel := tuple.Relationship{
			Key:    tuple.Key{Object: x.view.Object(e.Object), Relation: r.Text, Subject: tuple.Subject{Object: x.view.Object(e.Subject)}},
			Caveat: tuple.Caveat{Name: e.Caveat, Context: e.Context},
		}
		if e.SubjectRelation != 0 {
			rel.Subject.Relation = x.view.Names().Text(e.SubjectRelation)
		}
		if e.Expiration != 0 {
			rel.Expiration = time.UnixMicro(e.Expiration).UTC()
		}
		subjects[i].Relationship = rel
	}
	slices.SortFunc(subjects, func(a, b TreeSubject) int { return a.Relationship.Subject.Compare(b.Relationship.Subject) })
	if x.recursive {
		for i := range subjects {
			if subjects[i].Node, err = x.follow(subjects[i].Relationship.Subject, target); err != nil {
				return err
			}
		}
	}
	x.nodes[u.at].Subjects = subjects
	return nil
}

func (x *expansion) follow(s tuple.Subject, target string) (*uint32, error) {
	if target == "" {
		target = s.Relation
	}
	d := x.view.Schema().Definition(s.Type)
	if target == "" || d == nil || d.Relation(target) == nil || s.IsWildcard() {
		return nil, nil
	}
	at, err := x.atom(x.view.id(s.Object), d.Relation(target))
	return &at, err
}
