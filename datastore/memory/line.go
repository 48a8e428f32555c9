package memory

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/tidwall/btree"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// line is one store's history with its rows.
type line struct {
	update sync.Mutex   // held while the head is held
	mu     sync.RWMutex // guards what follows

	head      datastore.Head
	anchor    datastore.Anchor
	entries   []datastore.Entry // entries[0] follows anchor
	requests  map[string]datastore.Revision
	schemas   []schemaVersion
	names     []string
	byObject  *btree.BTreeG[*row]
	bySubject *btree.BTreeG[*row]
	dead      []*row // closed rows, by the revision that closed them

	identities identities
}

// row is immutable: closing one puts a copy in its place, so that readers of an
// older tree still see it open.
type row struct {
	datastore.Row
	deleted datastore.Revision // zero: lives
}

type schemaVersion struct {
	revision datastore.Revision
	text     *datastore.SchemaText
}

func newLine(incarnation datastore.Incarnation) *line {
	tree := func(compare func(a, b tuple.Key) int) *btree.BTreeG[*row] {
		return btree.NewBTreeGOptions(func(a, b *row) bool {
			if c := compare(a.Key, b.Key); c != 0 {
				return c < 0
			}
			return a.Created < b.Created
		}, btree.Options{NoLocks: true})
	}
	return &line{
		head:      datastore.Head{Incarnation: incarnation},
		requests:  map[string]datastore.Revision{},
		byObject:  tree(tuple.Key.Compare),
		bySubject: tree(tuple.Key.CompareBySubject),

		identities: newIdentities(),
	}
}

func (n *line) rows(bySubject bool) *btree.BTreeG[*row] {
	if bySubject {
		return n.bySubject
	}
	return n.byObject
}

func (n *line) after(from datastore.Revision, limit int) ([]datastore.Entry, error) {
	switch {
	case from > n.head.Revision:
		return nil, datastore.Ahead(from, n.head.Revision)
	case from < n.anchor.Revision:
		return nil, datastore.Compacted(from+1, n.anchor.Revision+1)
	}
	rest := n.entries[from-n.anchor.Revision:]
	return rest[:min(len(rest), limit):min(len(rest), limit)], nil
}

func (n *line) hashAt(r datastore.Revision) datastore.Hash {
	if r == n.anchor.Revision {
		return n.anchor.Hash
	}
	return n.entries[r-n.anchor.Revision-1].Hash
}

func (n *line) tail(have datastore.Head) (datastore.Tail, error) {
	if have.Incarnation != n.head.Incarnation || have.Revision > n.head.Revision {
		return datastore.Tail{}, fmt.Errorf("revision %d: %w", have.Revision, datastore.ErrForked)
	}
	changes, err := n.after(have.Revision, len(n.entries))
	if err != nil {
		return datastore.Tail{}, err
	}
	if n.hashAt(have.Revision) != have.Hash {
		return datastore.Tail{}, fmt.Errorf("revision %d: %w", have.Revision, datastore.ErrForked)
	}
	return datastore.Tail{Head: n.head, Changes: changes, Request: n.request}, nil
}

func (n *line) request(id string) (datastore.Entry, bool, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	r, ok := n.requests[id]
	if !ok {
		return datastore.Entry{}, false, nil
	}
	return n.entries[r-n.anchor.Revision-1], true, nil
}

func (n *line) append(e datastore.Entry) {
	var erased []tuple.Object
	for _, o := range e.Operations {
		switch o.Kind {
		case datastore.Create, datastore.Touch:
			n.close(o.Relationship.Key, e.Revision)
			r := &row{Row: datastore.Row{Relationship: o.Relationship, Created: e.Revision}}
			n.byObject.Set(r)
			n.bySubject.Set(r)
		case datastore.Delete, datastore.Expire:
			n.close(o.Relationship.Key, e.Revision)
		case datastore.ApplySchema:
			n.names = append(n.names, o.Schema.Names...)
			n.schemas = append(n.schemas, schemaVersion{e.Revision, o.Schema})
		case datastore.Erase:
			erased = append(erased, *o.Erased)
		}
	}
	for _, i := range e.Identities {
		n.identities.put(i)
	}
	for _, o := range erased {
		n.identities.erase(o)
	}
	n.head.Revision, n.head.Hash, n.head.Time = e.Revision, e.Hash, e.Time
	if e.RequestID != "" {
		n.requests[e.RequestID] = e.Revision
	}
	e.Operations, e.Identities = nil, nil
	n.entries = append(n.entries, e)
}

func (n *line) plant(s datastore.Seed) error {
	if s.Start != nil {
		if n.head.Revision != 0 {
			return datastore.PlantedLate(n.head.Revision)
		}
		n.head.Revision, n.head.Hash, n.head.Time = s.Start.Revision, s.Start.Hash, s.Start.Time
		n.anchor = datastore.Anchor{Revision: s.Start.Revision, Hash: s.Start.Hash}
	}
	for _, r := range s.Rows {
		planted := &row{Row: r}
		n.byObject.Set(planted)
		n.bySubject.Set(planted)
	}
	for _, i := range s.Identities {
		n.identities.put(i)
	}
	n.names = append(n.names, s.Names...)
	if s.Schema != nil {
		n.schemas = append(n.schemas, schemaVersion{n.head.Revision, s.Schema})
	}
	return nil
}

// close ends the live row of key, if there is one.
func (n *line) close(key tuple.Key, at datastore.Revision) {
	newest := &row{Row: datastore.Row{Relationship: tuple.Relationship{Key: key}, Created: ^datastore.Revision(0)}}
	n.byObject.Descend(newest, func(r *row) bool {
		if r.Key == key && r.deleted == 0 {
			closed := *r
			closed.deleted = at
			n.byObject.Set(&closed)
			n.bySubject.Set(&closed)
			n.dead = append(n.dead, &closed)
		}
		return false
	})
}

func (n *line) collect(limit int) int {
	removed := 0
	for removed < limit && len(n.dead) > 0 && n.dead[0].deleted <= n.head.Floor {
		n.byObject.Delete(n.dead[0])
		n.bySubject.Delete(n.dead[0])
		n.dead[0] = nil
		n.dead = n.dead[1:]
		removed++
	}
	if len(n.dead) == 0 {
		n.dead = nil
	}
	return removed
}

func (n *line) trim(upTo datastore.Revision) error {
	if upTo > n.head.Floor {
		return fmt.Errorf("trim up to %d: the floor is %d; raise it first", upTo, n.head.Floor)
	}
	if upTo <= n.anchor.Revision {
		return nil
	}
	count := upTo - n.anchor.Revision
	for _, e := range n.entries[:count] {
		delete(n.requests, e.RequestID)
	}
	n.anchor = datastore.Anchor{Revision: upTo, Hash: n.entries[count-1].Hash}
	n.entries = slices.Clone(n.entries[count:])
	return nil
}

// scan reads a tree that nobody changes any more.
func scan(ctx context.Context, rows *btree.BTreeG[*row], at datastore.Revision, q datastore.RowQuery, f func(datastore.Row) bool) error {
	start, stop := q.Bounds()
	from := &row{Row: datastore.Row{Relationship: tuple.Relationship{Key: start}}}
	if q.After != nil && q.Compare(*q.After, start) >= 0 {
		from.Key, from.Created = *q.After, ^datastore.Revision(0)
	}
	seen, given := 0, 0
	var err error
	rows.Ascend(from, func(r *row) bool {
		if seen++; seen%1024 == 0 {
			if err = ctx.Err(); err != nil {
				return false
			}
		}
		if stop(r.Key) {
			return false
		}
		if r.Created > at || r.deleted != 0 && r.deleted <= at || !q.Filter.Matches(r.Relationship) {
			return true
		}
		given++
		return f(r.Row) && given != q.Limit
	})
	return err
}
