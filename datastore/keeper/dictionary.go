package keeper

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// dictionary gives objects their ids and interns what edges carry besides ids.
// It only grows, so the snapshots made from it share it; a store's dictionary is
// replaced as a whole when most of it is dead.
//
// It is read without a lock. What mu guards is only ever appended to, and
// published in an order in which whoever finds an id finds all that belongs to
// it: a type's text and an id's bytes first, then the object, then its slot.
type dictionary struct {
	seed maphash.Seed

	// slots is a table with open addressing, a power of two long: the upper half of
	// an object's hash, so that most others are passed without a look at them, and
	// its id. Zero is free.
	slots   atomic.Pointer[[]atomic.Uint64]
	objects atomic.Pointer[[]object] // by id; the first is unused
	blocks  atomic.Pointer[[][]byte] // the bytes of objects' ids
	texts   atomic.Pointer[[]string] // of types, by name
	traits  atomic.Pointer[[]trait]  // by edge.trait; the first is none

	mu      sync.Mutex
	used    int              // bytes of the last block
	ofTypes [][]datastore.ID // by type; ascending
	byTrait map[trait]uint32
	bytes   atomic.Int64 // of texts
}

// object is where an object's id stands in the blocks. It holds no pointer, so
// that the garbage collector passes by.
type object struct {
	block       uint32
	first, size uint16
	typ         schema.Name
}

// Sizes of blocks in bytes: each is twice as large as the one before.
const (
	firstBlock = 256
	lastBlock  = 64 << 10
)

// trait is what an edge carries besides ids.
type trait struct {
	caveat     tuple.Caveat
	expiration int64 // Unix microseconds, or zero
}

func newDictionary() *dictionary {
	d := &dictionary{seed: maphash.MakeSeed(), byTrait: map[trait]uint32{}}
	slots := make([]atomic.Uint64, 16)
	d.slots.Store(&slots)
	d.objects.Store(&[]object{{}})
	d.blocks.Store(&[][]byte{make([]byte, firstBlock)})
	d.texts.Store(&[]string{})
	d.traits.Store(&[]trait{{}})
	return d
}

func (d *dictionary) hash(typ, id string) uint64 {
	return maphash.String(d.seed, id) + 31*maphash.String(d.seed, typ)
}

// text is the id of an object.
func (d *dictionary) text(o object) string {
	bytes := (*d.blocks.Load())[o.block][o.first:][:o.size]
	return unsafe.String(unsafe.SliceData(bytes), len(bytes)) // they never change
}

func (d *dictionary) is(id datastore.ID, o tuple.Object) bool {
	at := (*d.objects.Load())[id]
	return int(at.size) == len(o.ID) && d.text(at) == o.ID && (*d.texts.Load())[at.typ] == o.Type
}

// find returns the id of an object with that hash, or zero.
func (d *dictionary) find(hash uint64, o tuple.Object) datastore.ID {
	slots := *d.slots.Load()
	mask := uint64(len(slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := slots[i].Load()
		if s == 0 {
			return 0
		}
		if s>>32 == hash>>32 && d.is(datastore.ID(s), o) {
			return datastore.ID(s)
		}
	}
}

func (d *dictionary) id(o tuple.Object) (datastore.ID, bool) {
	id := d.find(d.hash(o.Type, o.ID), o)
	return id, id != 0
}

func (d *dictionary) object(id datastore.ID) (tuple.Object, schema.Name) {
	objects := *d.objects.Load()
	if id == 0 || int(id) >= len(objects) {
		return tuple.Object{}, 0
	}
	at := objects[id]
	return tuple.Object{Type: (*d.texts.Load())[at.typ], ID: d.text(at)}, at.typ
}

func (d *dictionary) typ(id datastore.ID) schema.Name {
	objects := *d.objects.Load()
	if int(id) >= len(objects) {
		return 0
	}
	return objects[id].typ
}

// ofType returns the ids of a type's objects, ascending.
func (d *dictionary) ofType(typ string) []datastore.ID {
	d.mu.Lock()
	defer d.mu.Unlock()
	for n, text := range *d.texts.Load() {
		if typ != "" && text == typ && n < len(d.ofTypes) {
			return d.ofTypes[n]
		}
	}
	return nil
}

func (d *dictionary) trait(i uint32) *trait { return &(*d.traits.Load())[i] }

func (d *dictionary) size() int { return len(*d.objects.Load()) + len(*d.traits.Load()) }

// What an object and a trait take besides their texts: their places in slices
// that are three quarters full, and in tables half full.
const (
	objectBytes = 40
	traitBytes  = 160
)

// weight is about how many bytes the dictionary takes.
func (d *dictionary) weight() int64 {
	return int64(len(*d.objects.Load()))*objectBytes + int64(len(*d.traits.Load()))*traitBytes + d.bytes.Load()
}

// add returns the id of an object whose type has a name, giving it one if it has
// none.
func (d *dictionary) add(o tuple.Object, typ schema.Name) datastore.ID {
	hash := d.hash(o.Type, o.ID)
	if id := d.find(hash, o); id != 0 {
		return id
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if id := d.find(hash, o); id != 0 {
		return id
	}
	objects := *d.objects.Load()
	id := datastore.ID(len(objects))
	if id >= datastore.FirstForeignID {
		panic("keeper: a store has more objects than ids")
	}
	d.name(typ, o.Type)
	objects = append(objects, d.keep(o.ID, typ))
	d.objects.Store(&objects)
	for int(typ) >= len(d.ofTypes) {
		d.ofTypes = append(d.ofTypes, nil)
	}
	d.ofTypes[typ] = append(d.ofTypes[typ], id)
	d.grow(len(objects))
	put(*d.slots.Load(), hash, id)
	return id
}

// put fills the first free slot for a hash.
func put(slots []atomic.Uint64, hash uint64, id datastore.ID) {
	mask := uint64(len(slots) - 1)
	i := hash & mask
	for slots[i].Load() != 0 {
		i = (i + 1) & mask
	}
	slots[i].Store(hash>>32<<32 | uint64(id))
}

// grow doubles the table when it is three quarters full. mu is held.
func (d *dictionary) grow(objects int) {
	old := *d.slots.Load()
	if 4*objects < 3*len(old) {
		return
	}
	slots := make([]atomic.Uint64, 2*len(old))
	for i := range old {
		if id := datastore.ID(old[i].Load()); id != 0 {
			o, _ := d.object(id)
			put(slots, d.hash(o.Type, o.ID), id)
		}
	}
	d.slots.Store(&slots)
}

// name notes a type's text. mu is held.
func (d *dictionary) name(typ schema.Name, text string) {
	texts := *d.texts.Load()
	if int(typ) < len(texts) && texts[typ] == text {
		return
	}
	texts = slices.Clone(texts)
	for int(typ) >= len(texts) {
		texts = append(texts, "")
	}
	texts[typ] = text
	d.texts.Store(&texts)
}

// keep copies an id into the blocks. mu is held.
func (d *dictionary) keep(id string, typ schema.Name) object {
	blocks := *d.blocks.Load()
	last := blocks[len(blocks)-1]
	if len(last)-d.used < len(id) {
		last = make([]byte, max(min(2*len(last), lastBlock), len(id)))
		blocks = append(blocks, last)
		d.blocks.Store(&blocks)
		d.used = 0
	}
	o := object{block: uint32(len(blocks) - 1), first: uint16(d.used), size: uint16(len(id)), typ: typ}
	d.used += copy(last[d.used:], id)
	d.bytes.Add(int64(len(id)))
	return o
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
	traits := *d.traits.Load()
	i := uint32(len(traits))
	traits = append(traits, t)
	d.traits.Store(&traits)
	d.byTrait[t] = i
	d.bytes.Add(int64(len(t.caveat.Context)))
	return i
}
