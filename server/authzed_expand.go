package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/tuple"
)

func (p *authzedPermissions) ExpandPermissionTree(ctx context.Context, r *authzedv1.ExpandPermissionTreeRequest) (*authzedv1.ExpandPermissionTreeResponse, error) {
	o, err := objectAsked(r.Resource, "resource")
	if err != nil {
		return nil, err
	}
	s, err := p.authzedAt(ctx, r.Consistency)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	x := &permissionTree{permissions: p, ctx: ctx, snapshot: s, now: time.Now(), open: map[string]bool{}}
	root, err := x.expand(o, r.Permission)
	if errors.Is(err, graph.ErrTooManyNodes) {
		err = (&permissions{Server: p.Server}).tooMuchToExpand(err)
	}
	if err != nil {
		return nil, withNames(err, s.Schema(), name{o.Type, r.Permission})
	}
	return &authzedv1.ExpandPermissionTreeResponse{ExpandedAt: zedToken(s.Zookie()), TreeRoot: root}, nil
}

// permissionTree builds the tree of authzed.api.v1 from Pemba's, which is a graph:
// arrows are followed to the end, and the subjects of relations are leaves.
type permissionTree struct {
	permissions *authzedPermissions
	ctx         context.Context
	snapshot    datastore.Snapshot
	now         time.Time
	open        map[string]bool // what is being expanded: a circle would have no end
	size        int             // nodes and subjects so far
}

func (x *permissionTree) add(n int) error {
	if x.size += n; x.size > x.permissions.limits.expand().Nodes {
		return fmt.Errorf("%w: %d nodes and subjects; expand a smaller part", graph.ErrTooManyNodes, x.permissions.limits.expand().Nodes)
	}
	return nil
}

func (x *permissionTree) expand(o tuple.Object, permission string) (*authzedv1.PermissionRelationshipTree, error) {
	place := o.String() + "#" + permission
	if x.open[place] {
		return nil, fmt.Errorf("%w: the tree of %s holds itself, and would have no end; check instead, or read its relationships", graph.ErrTooManyNodes, place)
	}
	x.open[place] = true
	defer delete(x.open, place)
	nodes, err := graph.Expand(x.ctx, x.snapshot, o, permission, false, nil, x.now, x.permissions.limits.expand())
	if err != nil {
		return nil, err
	}
	return x.node(nodes, 0, permission, nil)
}

// node is a node and what is below it. Those without a name of their own bear that
// of the permission they are part of; path are the nodes above, for a permission
// may be a circle within one object, too.
func (x *permissionTree) node(nodes []graph.TreeNode, at uint32, permission string, path []uint32) (*authzedv1.PermissionRelationshipTree, error) {
	n := &nodes[at]
	for _, above := range path {
		if above == at {
			return nil, fmt.Errorf("%w: the tree of %s#%s holds itself, and would have no end", graph.ErrTooManyNodes, n.Object, n.Relation)
		}
	}
	path = append(path, at)
	if n.Relation != "" {
		permission = n.Relation
	}
	if err := x.add(1 + len(n.Subjects)); err != nil {
		return nil, err
	}
	out := &authzedv1.PermissionRelationshipTree{ExpandedObject: objectOut(n.Object), ExpandedRelation: permission}
	var children []*authzedv1.PermissionRelationshipTree
	operation := authzedv1.AlgebraicSubjectSet_OPERATION_UNION
	switch n.Kind {
	case graph.TreeRelation, graph.TreeNil, graph.TreeSelf:
		leaf := &authzedv1.DirectSubjectSet{}
		for _, s := range n.Subjects {
			leaf.Subjects = append(leaf.Subjects, subjectOut(s.Relationship.Subject))
		}
		if n.Kind == graph.TreeSelf {
			leaf.Subjects = append(leaf.Subjects, subjectOut(tuple.Subject{Object: n.Object}))
		}
		out.TreeType = &authzedv1.PermissionRelationshipTree_Leaf{Leaf: leaf}
		return out, nil
	case graph.TreeAny, graph.TreeAll:
		var err error
		if children, err = x.arrow(n); err != nil {
			return nil, err
		}
	}
	switch n.Kind {
	case graph.TreeIntersection, graph.TreeAll:
		operation = authzedv1.AlgebraicSubjectSet_OPERATION_INTERSECTION
	case graph.TreeExclusion:
		operation = authzedv1.AlgebraicSubjectSet_OPERATION_EXCLUSION
	}
	for _, child := range n.Children {
		c, err := x.node(nodes, child, permission, path)
		if err != nil {
			return nil, err
		}
		children = append(children, c)
	}
	out.TreeType = &authzedv1.PermissionRelationshipTree_Intermediate{Intermediate: &authzedv1.AlgebraicSubjectSet{Operation: operation, Children: children}}
	return out, nil
}

// arrow expands the target of an arrow on each object of its left side that has
// it.
func (x *permissionTree) arrow(n *graph.TreeNode) ([]*authzedv1.PermissionRelationshipTree, error) {
	var out []*authzedv1.PermissionRelationshipTree
	for _, s := range n.Subjects {
		o := s.Relationship.Subject
		d := x.snapshot.Schema().Definition(o.Type)
		if o.IsWildcard() || d == nil || d.Relation(n.Target) == nil {
			if n.Kind == graph.TreeAll { // nobody has what is not there
				out = append(out, &authzedv1.PermissionRelationshipTree{ExpandedObject: objectOut(o.Object), ExpandedRelation: n.Target,
					TreeType: &authzedv1.PermissionRelationshipTree_Leaf{Leaf: &authzedv1.DirectSubjectSet{}}})
			}
			continue
		}
		c, err := x.expand(o.Object, n.Target)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}
