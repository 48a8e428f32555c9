package memory

import (
	"context"
	"maps"
	"slices"

	"github.com/tidwall/btree"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// identities are the users and groups of a store.
type identities struct {
	all  *btree.BTreeG[*versions]
	keys map[indexed]map[string]bool // ids
}

// versions are those of one identity, oldest first.
type versions struct {
	object tuple.Object
	list   []datastore.Identity
	keys   []datastore.IdentityKey
}

// indexed is a key of identities of a type.
type indexed struct{ typ, name, value string }

func newIdentities() identities {
	return identities{
		all:  btree.NewBTreeGOptions(func(a, b *versions) bool { return a.object.Compare(b.object) < 0 }, btree.Options{NoLocks: true}),
		keys: map[indexed]map[string]bool{},
	}
}

func (s *identities) put(i datastore.Identity) {
	v, ok := s.all.Get(&versions{object: i.Object})
	if !ok {
		v = &versions{object: i.Object}
		s.all.Set(v)
	}
	s.index(v, i.Keys)
	i.Keys = nil
	v.list = append(v.list, i)
}

// index puts other keys in the place of those an identity is found by.
func (s *identities) index(v *versions, keys []datastore.IdentityKey) {
	for _, k := range v.keys {
		delete(s.keys[indexed{v.object.Type, k.Name, k.Value}], v.object.ID)
	}
	v.keys = keys
	for _, k := range keys {
		at := indexed{v.object.Type, k.Name, k.Value}
		if s.keys[at] == nil {
			s.keys[at] = map[string]bool{}
		}
		s.keys[at][v.object.ID] = true
	}
}

func (s *identities) erase(o tuple.Object) {
	v, ok := s.all.Get(&versions{object: o})
	if !ok {
		return
	}
	s.index(v, nil)
	for i := range v.list {
		v.list[i].Salt, v.list[i].Attributes = nil, ""
	}
}

// find gathers what a query asks for.
func (s *identities) find(at datastore.Revision, q datastore.IdentityQuery) (found []datastore.Identity) {
	take := func(v *versions) bool {
		if q.Key != nil && !s.keys[indexed{q.Type, q.Key.Name, q.Key.Value}][v.object.ID] {
			return true
		}
		newest := -1
		for n, i := range v.list {
			if q.Versions && q.Selects(&i) {
				found = append(found, i)
			}
			if i.Revision <= at {
				newest = n
			}
		}
		if !q.Versions && newest >= 0 && q.Selects(&v.list[newest]) {
			found = append(found, v.list[newest])
		}
		return q.Versions || q.Limit == 0 || len(found) < q.Limit
	}
	if len(q.Objects) > 0 {
		asked := btree.NewBTreeGOptions(func(a, b *versions) bool { return a.object.Compare(b.object) < 0 }, btree.Options{NoLocks: true})
		for _, o := range q.Objects {
			if v, ok := s.all.Get(&versions{object: o}); ok {
				asked.Set(v)
			}
		}
		asked.Scan(take)
		return found
	}
	if q.Key != nil {
		for _, id := range slices.Sorted(maps.Keys(s.keys[indexed{q.Type, q.Key.Name, q.Key.Value}])) {
			if v, ok := s.all.Get(&versions{object: tuple.Object{Type: q.Type, ID: id}}); ok && !take(v) {
				break
			}
		}
		return found
	}
	s.all.Ascend(&versions{object: tuple.Object{Type: q.Type, ID: q.After}}, func(v *versions) bool {
		return (q.Type == "" || v.object.Type == q.Type) && take(v)
	})
	return found
}

// Holders implements [datastore.Log].
func (l *Log) Holders(ctx context.Context, store datastore.StoreID, typ string, keys []datastore.IdentityKey, f func(datastore.IdentityKey, string)) error {
	n, err := l.line(store)
	if err != nil {
		return err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	for _, k := range keys {
		for id := range n.identities.keys[indexed{typ, k.Name, k.Value}] {
			f(datastore.IdentityKey{Name: k.Name, Value: k.Value}, id)
		}
	}
	return ctx.Err()
}

// Identities implements [datastore.Log].
func (l *Log) Identities(ctx context.Context, store datastore.StoreID, at datastore.Revision, q datastore.IdentityQuery, f func(datastore.Identity) bool) error {
	n, err := l.line(store)
	if err != nil {
		return err
	}
	n.mu.RLock()
	if !q.Versions {
		err = datastore.Readable(n.head, at)
	}
	found := n.identities.find(at, q)
	n.mu.RUnlock()
	if err != nil {
		return err
	}
	for _, i := range found {
		if !f(i) {
			break
		}
	}
	return ctx.Err()
}
