package keeper

import (
	"hash/maphash"
	"strings"
	"sync"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// dictionary gives objects their ids and interns what edges carry besides ids.
// It only grows, so the snapshots made from it share it; a store's dictionary is
// replaced as a whole when most of it is dead.
//
// Objects are found through a table of ids with open addressing, which takes a
// quarter of the memory of a map.
type dictionary struct {
	mu      sync.RWMutex
	seed    maphash.Seed
	slots   []datastore.ID   // a power of two of them; zero: free
	objects []string         // the objects' ids, by id; objects[0] is unused
	types   []schema.Name    // by id
	ofTypes [][]datastore.ID // by type; ascending
	texts   []string         // of types, by name
	traits  []trait          // by edge.trait; traits[0] is none
	byTrait map[trait]uint32
}

// trait is what an edge carries besides ids.
type trait struct {
	caveat     tuple.Caveat
	expiration int64 // Unix microseconds, or zero
}

func newDictionary() *dictionary {
	return &dictionary{
		seed:    maphash.MakeSeed(),
		slots:   make([]datastore.ID, 16),
		objects: make([]string, 1),
		types:   make([]schema.Name, 1),
		traits:  make([]trait, 1),
		byTrait: map[trait]uint32{},
	}
}

func (d *dictionary) hash(typ, id string) uint64 {
	return maphash.String(d.seed, id) + 31*maphash.String(d.seed, typ)
}

// slot returns where the object is, or where it would be put. mu is held.
func (d *dictionary) slot(o tuple.Object) int {
	mask := len(d.slots) - 1
	i := int(d.hash(o.Type, o.ID)) & mask
	for ; d.slots[i] != 0; i = (i + 1) & mask {
		if id := d.slots[i]; d.objects[id] == o.ID && d.texts[d.types[id]] == o.Type {
			break
		}
	}
	return i
}

// grow doubles the table when it is three quarters full. mu is held.
func (d *dictionary) grow() {
	if 4*len(d.objects) < 3*len(d.slots) {
		return
	}
	d.slots = make([]datastore.ID, 2*len(d.slots))
	mask := len(d.slots) - 1
	for id := 1; id < len(d.objects); id++ {
		i := int(d.hash(d.texts[d.types[id]], d.objects[id])) & mask
		for d.slots[i] != 0 {
			i = (i + 1) & mask
		}
		d.slots[i] = datastore.ID(id)
	}
}

func (d *dictionary) id(o tuple.Object) (datastore.ID, bool) {
	d.mu.RLock()
	id := d.slots[d.slot(o)]
	d.mu.RUnlock()
	return id, id != 0
}

func (d *dictionary) object(id datastore.ID) (tuple.Object, schema.Name) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if id == 0 || int(id) >= len(d.objects) {
		return tuple.Object{}, 0
	}
	typ := d.types[id]
	return tuple.Object{Type: d.texts[typ], ID: d.objects[id]}, typ
}

// ofType returns the ids of a type's objects, ascending.
func (d *dictionary) ofType(typ string) []datastore.ID {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for n, text := range d.texts {
		if typ != "" && text == typ && n < len(d.ofTypes) {
			return d.ofTypes[n]
		}
	}
	return nil
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
	slot := d.slot(o)
	if id := d.slots[slot]; id != 0 {
		return id
	}
	id := datastore.ID(len(d.objects))
	if id >= datastore.FirstForeignID {
		panic("keeper: a store has more objects than ids")
	}
	for int(typ) >= len(d.texts) {
		d.texts = append(d.texts, "")
	}
	d.texts[typ] = o.Type
	d.objects = append(d.objects, strings.Clone(o.ID)) // it may be a part of a longer text
	d.types = append(d.types, typ)
	for int(typ) >= len(d.ofTypes) {
		d.ofTypes = append(d.ofTypes, nil)
	}
	d.ofTypes[typ] = append(d.ofTypes[typ], id)
	d.slots[slot] = id
	d.grow()
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
