package keeper

import (
	"strings"
	"sync"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// dictionary gives objects their ids and interns what edges carry besides ids.
// It only grows, so the snapshots made from it share it; a store's dictionary is
// replaced as a whole when most of it is dead.
type dictionary struct {
	mu      sync.RWMutex
	ids     map[tuple.Object]datastore.ID
	objects []tuple.Object // by id; objects[0] is unused
	types   []schema.Name  // by id
	traits  []trait        // by edge.trait; traits[0] is none
	byTrait map[trait]uint32
}

// trait is what an edge carries besides ids.
type trait struct {
	caveat     tuple.Caveat
	expiration int64 // Unix microseconds, or zero
}

func newDictionary() *dictionary {
	return &dictionary{
		ids:     map[tuple.Object]datastore.ID{},
		objects: make([]tuple.Object, 1),
		types:   make([]schema.Name, 1),
		traits:  make([]trait, 1),
		byTrait: map[trait]uint32{},
	}
}

func (d *dictionary) id(o tuple.Object) (datastore.ID, bool) {
	d.mu.RLock()
	id, ok := d.ids[o]
	d.mu.RUnlock()
	return id, ok
}

func (d *dictionary) object(id datastore.ID) (tuple.Object, schema.Name) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if int(id) >= len(d.objects) {
		return tuple.Object{}, 0
	}
	return d.objects[id], d.types[id]
}

func (d *dictionary) trait(i uint32) trait {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.traits[i]
}

func (d *dictionary) size() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.objects) + len(d.traits)
}

// add returns the id of an object whose type has a name, giving it one if it has
// none.
func (d *dictionary) add(o tuple.Object, typ schema.Name) datastore.ID {
	if id, ok := d.id(o); ok {
		return id
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if id, ok := d.ids[o]; ok {
		return id
	}
	id := datastore.ID(len(d.objects))
	if id >= datastore.FirstForeignID {
		panic("keeper: a store has more objects than ids")
	}
	o.ID = strings.Clone(o.ID) // it may be a part of a longer text
	d.ids[o] = id
	d.objects = append(d.objects, o)
	d.types = append(d.types, typ)
	return id
}

func (d *dictionary) addTrait(r *tuple.Relationship) uint32 {
	t := trait{caveat: r.Caveat}
	if !r.Expiration.IsZero() {
		t.expiration = r.Expiration.UnixMicro()
	}
	if t == (trait{}) {
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if i, ok := d.byTrait[t]; ok {
		return i
	}
	i := uint32(len(d.traits))
	d.traits = append(d.traits, t)
	d.byTrait[t] = i
	return i
}
