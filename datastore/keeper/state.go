package keeper

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tidwall/btree"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// edge is a relationship in sixteen bytes. In the forward order from is the
// object and to the subject; in the backward order the reverse. The trait is no
// part of its identity.
type edge struct {
	from     datastore.ID
	relation schema.Name
	userset  schema.Name // the subject's relation
	to       datastore.ID
	trait    uint32
}

func (e edge) reversed() edge {
	e.from, e.to = e.to, e.from
	return e
}

// forwardLess orders by object, relation, subject relation, subject: the direct
// subjects of a relation stand before its usersets.
func forwardLess(a, b edge) bool {
	if a.from != b.from {
		return a.from < b.from
	}
	if a.relation != b.relation {
		return a.relation < b.relation
	}
	if a.userset != b.userset {
		return a.userset < b.userset
	}
	return a.to < b.to
}

// backwardLess orders by subject, its relation, relation, object.
func backwardLess(a, b edge) bool {
	if a.from != b.from {
		return a.from < b.from
	}
	if a.userset != b.userset {
		return a.userset < b.userset
	}
	if a.relation != b.relation {
		return a.relation < b.relation
	}
	return a.to < b.to
}

// expiring is an edge that ends, ordered by when.
type expiring struct {
	at   int64
	edge edge
}

func expiringLess(a, b expiring) bool {
	if a.at != b.at {
		return a.at < b.at
	}
	return forwardLess(a.edge, b.edge)
}

// state is a store at one revision, in memory. Once published it is immutable;
// copy gives one to change.
type state struct {
	store    datastore.StoreID
	head     datastore.Head
	schema   *schema.Schema // nil while none was applied
	text     *datastore.SchemaText
	names    *schema.Names
	dict     *dictionary
	forward  *edges
	backward *edges
	expiring *btree.BTreeG[expiring]
	registry *registry // of the store system only
	withheld *datastore.Withheld
	// New ones take the place of these when a relationship changes to which they
	// belong: see datastore.MemoReader.
	nesting, containers *datastore.Memo

	resident *resident // the snapshot of a published state
	// line, if set, remembers what is read of the store's line of history.
	line datastore.RowLine
	// far, if set, has the relationships: they are not in memory.
	far *far
}

func newState(store datastore.StoreID, head datastore.Head) *state {
	s := &state{
		store: store, head: head, names: schema.NewNames(), dict: newDictionary(), withheld: datastore.NewWithheld(),
		nesting: new(datastore.Memo), containers: new(datastore.Memo),
		forward:  newEdges(false),
		backward: newEdges(true),
		expiring: btree.NewBTreeGOptions(expiringLess, btree.Options{NoLocks: true}),
	}
	if store == datastore.System {
		s.registry = newRegistry()
	}
	return s
}

// copy returns a state that can be changed without s noticing. Copies of one
// state must not be made concurrently.
func (s *state) copy() *state {
	c := *s
	c.forward, c.backward, c.expiring = s.forward.copy(), s.backward.copy(), s.expiring.Copy()
	c.names, c.resident = s.names, nil
	c.withheld = s.withheld.Copy()
	if s.far != nil {
		c.far = s.far.after(s.head.Revision)
	}
	if s.registry != nil {
		c.registry = s.registry.copy()
	}
	return &c
}

// edgeOf gives a key its edge without a trait; false if the store mentions one
// of its parts nowhere.
func (s *state) edgeOf(k tuple.Key) (edge, bool) {
	object, ok := s.dict.id(k.Object)
	if !ok {
		return edge{}, false
	}
	subject, ok := s.dict.id(k.Subject.Object)
	if !ok {
		return edge{}, false
	}
	relation, ok := s.names.ID(k.Relation)
	if !ok {
		return edge{}, false
	}
	userset, ok := s.names.ID(k.Subject.Relation)
	return edge{from: object, relation: relation, userset: userset, to: subject}, ok || k.Subject.Relation == ""
}

// relationship gives a forward edge its words.
func (s *state) relationship(e edge) tuple.Relationship {
	object, _ := s.dict.object(e.from)
	subject, _ := s.dict.object(e.to)
	r := tuple.Relationship{Key: tuple.Key{Object: object, Relation: s.names.Text(e.relation), Subject: tuple.Subject{Object: subject}}}
	if e.userset != 0 {
		r.Subject.Relation = s.names.Text(e.userset)
	}
	if e.trait != 0 {
		t := s.dict.trait(e.trait)
		r.Caveat = t.caveat
		if t.expiration != 0 {
			r.Expiration = time.UnixMicro(t.expiration).UTC()
		}
	}
	return r
}

// find returns the relationship of that identity, expired or not.
func (s *state) find(k tuple.Key) (tuple.Relationship, bool) {
	if s.far != nil {
		return s.far.find(k)
	}
	e, ok := s.edgeOf(k)
	if ok {
		e, ok = s.forward.get(e)
	}
	if !ok {
		return tuple.Relationship{}, false
	}
	return s.relationship(e), true
}

// intern gives a relationship its edge, adding what the dictionary lacks.
func (s *state) intern(r *tuple.Relationship) (edge, error) {
	var e edge
	name := func(text string) schema.Name {
		n, ok := s.names.ID(text)
		if !ok {
			n = 0
		}
		return n
	}
	objectType, subjectType := name(r.Object.Type), name(r.Subject.Type)
	e.relation, e.userset = name(r.Relation), name(r.Subject.Relation)
	if objectType == 0 || subjectType == 0 || e.relation == 0 || e.userset == 0 && r.Subject.Relation != "" {
		return e, fmt.Errorf("%w: relationship %s uses a name that the store's table lacks", datastore.ErrCorrupt, r.Key)
	}
	// The table's text of a type, so that objects share it.
	object, subject := r.Object, r.Subject.Object
	object.Type, subject.Type = s.names.Text(objectType), s.names.Text(subjectType)
	e.from, e.to = s.dict.add(object, objectType), s.dict.add(subject, subjectType)
	e.trait = s.dict.addTrait(r)
	return e, nil
}

func (s *state) put(r *tuple.Relationship) error {
	if s.far != nil {
		kept := *r
		s.far.changed[r.Key] = &kept
		return nil
	}
	e, err := s.intern(r)
	if err != nil {
		return err
	}
	if old, ok := s.forward.set(e); ok {
		s.forget(old)
	}
	s.outdate(e)
	s.backward.set(e.reversed())
	if !r.Expiration.IsZero() {
		s.expiring.Set(expiring{r.Expiration.UnixMicro(), e})
	}
	return nil
}

func (s *state) remove(k tuple.Key) {
	if s.far != nil {
		s.far.changed[k] = nil
		return
	}
	e, ok := s.edgeOf(k)
	if !ok {
		return
	}
	if old, ok := s.forward.remove(e); ok {
		s.backward.remove(old.reversed())
		s.forget(old)
		s.outdate(old)
	}
}

// outdate drops what was derived from an edge that came, went or was replaced.
func (s *state) outdate(e edge) {
	if e.userset != 0 && (s.schema == nil || s.schema.IsUserset(e.relation)) {
		s.nesting = new(datastore.Memo)
	}
	if s.schema == nil || s.schema.IsContainer(s.dict.typ(e.from)) {
		s.containers = new(datastore.Memo)
	}
}

// forget takes an edge that was replaced or removed out of the order of ends.
func (s *state) forget(old edge) {
	if old.trait != 0 {
		if at := s.dict.trait(old.trait).expiration; at != 0 {
			s.expiring.Delete(expiring{at, old})
		}
	}
}

// apply carries out a change that follows s.
func (s *state) apply(c datastore.Change) error {
	for _, o := range c.Operations {
		switch o.Kind {
		case datastore.Create, datastore.Touch:
			if err := s.put(&o.Relationship); err != nil {
				return err
			}
			if s.registry != nil {
				s.registry.apply(o)
			}
		case datastore.Delete, datastore.Expire:
			s.remove(o.Relationship.Key)
		case datastore.ApplySchema:
			if err := s.applySchema(o.Schema); err != nil {
				return fmt.Errorf("change %d: %w", c.Revision, err)
			}
		case datastore.PutIdentity:
			s.withheld.Set(o.Identity.Object, o.Identity.State.Withheld())
		case datastore.Erase:
		case datastore.CreateStore, datastore.DeleteStore, datastore.CreateToken, datastore.RevokeToken:
			if s.registry != nil {
				s.registry.apply(o)
			}
		default:
			return fmt.Errorf("change %d: %w", c.Revision, datastore.ErrUnknownOperation)
		}
	}
	s.head.Revision, s.head.Hash, s.head.Time = c.Revision, c.Hash, c.Time
	return nil
}

func (s *state) applySchema(t *datastore.SchemaText) error {
	names := s.names.Clone()
	for _, n := range t.Names {
		if _, err := names.Add(n); err != nil {
			return err
		}
	}
	c, err := compile(t.Text, names, schema.Options{MaxBytes: max(len(t.Text), 1), Stored: true})
	if err != nil {
		return fmt.Errorf("%w: the stored schema does not compile: %w", datastore.ErrCorrupt, err)
	}
	s.schema, s.text, s.names = c.schema, t, c.names
	s.nesting, s.containers = new(datastore.Memo), new(datastore.Memo)
	return nil
}

// follow applies entries after s, checking that each links to the one before.
func (s *state) follow(entries []datastore.Entry) error {
	for _, e := range entries {
		if e.Revision != s.head.Revision+1 {
			return fmt.Errorf("change %d after %d: %w", e.Revision, s.head.Revision, datastore.ErrForked)
		}
		if err := datastore.VerifyLink(s.head.Hash, e); err != nil {
			return fmt.Errorf("%w: %w", datastore.ErrForked, err)
		}
		c, err := datastore.Open(e)
		if err != nil {
			return err
		}
		if err := s.apply(c); err != nil {
			return err
		}
	}
	return nil
}

// What an edge takes in both of its orders, with what changed and the places of
// objects, and in the order of ends.
const (
	edgeBytes = 2 * 18
	endBytes  = 40
)

// size is about how many bytes a state takes in memory, its dictionary included.
func (s *state) size() int64 {
	return int64(s.forward.len())*edgeBytes + int64(s.expiring.Len())*endBytes + s.dict.weight()
}

// crowded reports whether most of the dictionary is of things long gone.
func (s *state) crowded() bool {
	return s.dict.size() > 10_000+4*s.forward.len()
}

// compacted returns s with a dictionary of its own that holds what lives.
func (s *state) compacted() (*state, error) {
	n := newState(s.store, s.head)
	n.schema, n.text, n.names, n.registry, n.withheld = s.schema, s.text, s.names, s.registry, s.withheld
	var rows []tuple.Relationship
	s.forward.scan(func(e edge) bool {
		rows = append(rows, s.relationship(e))
		return true
	})
	return n, n.load(slices.Values(rows))
}

// load fills an empty state with relationships in any order.
func (s *state) load(rows func(yield func(tuple.Relationship) bool)) error {
	var list []edge
	var ends []expiring
	for r := range rows {
		e, err := s.intern(&r)
		if err != nil {
			return err
		}
		list = append(list, e)
		if !r.Expiration.IsZero() {
			ends = append(ends, expiring{r.Expiration.UnixMicro(), e})
		}
	}
	s.forward.sort(list)
	s.forward.fill(slices.Clone(list)) // without the room to grow that list has
	for i := range list {
		list[i] = list[i].reversed()
	}
	s.backward.sort(list)
	s.backward.fill(slices.Clone(list))
	slices.SortFunc(ends, func(a, b expiring) int { return order(expiringLess, a, b) })
	for _, e := range ends {
		s.expiring.Load(e)
	}
	return nil
}

func order[T any](less func(a, b T) bool, a, b T) int {
	switch {
	case less(a, b):
		return -1
	case less(b, a):
		return 1
	}
	return 0
}

func sortedBy[T any](m map[string]T, name func(T) string) []T {
	return slices.SortedFunc(maps.Values(m), func(a, b T) int { return cmp.Compare(name(a), name(b)) })
}
