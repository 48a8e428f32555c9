package graph

import (
	"sync"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
)

// containers remember the relationships of objects that arrows lead to: folders,
// organisations. Few of them answer for many resources, and they change seldom.
// They serve every snapshot between two changes of such objects.
type containers struct {
	known memo[[]plainEdge]
	mu    sync.Mutex // held to add
	kept  int        // relationships, and objects
}

// maxContained bounds what containers remember: 32 MB at most.
const maxContained = 1 << 20

// plainEdge is an edge of a known object without a caveat that never ends.
type plainEdge struct {
	relation, userset schema.Name
	subject           datastore.ID
}

// containersOf returns what is remembered of a snapshot's containers; nil for one
// that keeps no such thing.
func containersOf(s datastore.Snapshot) *containers {
	keeps, ok := s.(datastore.MemoReader)
	if !ok {
		return nil
	}
	memo := keeps.Containers()
	if c, ok := memo.Load().(*containers); ok {
		return c
	}
	c := &containers{}
	newMemo(&c.known)
	return memo.Keep(c).(*containers)
}

// of appends the edges of an object, if they are remembered.
func (c *containers) of(object datastore.ID, to []datastore.Edge) ([]datastore.Edge, bool) {
	edges := c.known.get(uint64(object))
	if edges == nil {
		return to, false
	}
	for _, e := range *edges {
		to = append(to, datastore.Edge{Object: object, Relation: e.relation, Subject: e.subject, SubjectRelation: e.userset})
	}
	return to, true
}

// keep remembers all edges of an object, if they are plain and there is room.
func (c *containers) keep(object datastore.ID, edges []datastore.Edge) {
	if object >= datastore.FirstForeignID || !c.mu.TryLock() {
		return
	}
	defer c.mu.Unlock()
	if c.kept > maxContained || c.known.get(uint64(object)) != nil {
		return
	}
	plain := make([]plainEdge, len(edges))
	for i := range edges {
		e := &edges[i]
		if e.Caveat != "" || e.Expiration != 0 {
			return
		}
		plain[i] = plainEdge{e.Relation, e.SubjectRelation, e.Subject}
	}
	c.known.add(uint64(object), plain)
	c.kept += 4 + len(plain)
}
