package dispatch

import (
	"hash/maphash"
	"iter"
	"math"
	"sync"
	"sync/atomic"
	"unsafe"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// Options are the settings of a Cache; zero fields take the defaults.
type Options struct {
	// Bytes bounds what is remembered (128 MiB; nothing if negative).
	Bytes int64
	// Reads is how many reads of the database run at once (12).
	Reads int
	// Waiting is how many may wait (1,000); those beyond are refused.
	Waiting int
}

// What the zero Options stand for.
const (
	DefaultBytes   = 128 << 20
	DefaultReads   = 12
	DefaultWaiting = 1000
)

func (o Options) withDefaults() Options {
	if o.Bytes == 0 {
		o.Bytes = DefaultBytes
	}
	if o.Reads == 0 {
		o.Reads = DefaultReads
	}
	if o.Waiting == 0 {
		o.Waiting = DefaultWaiting
	}
	return o
}

const (
	// shardCount divides the locks.
	shardCount = 16
	// slotCount is how many places each of the two tables has in which changes are
	// noted: what shares its places in both with changes is read again without need.
	slotCount = 1 << 18
	// maxLines is how many lines peers can ask about.
	maxLines = 4096
	// maxRows is how many rows of one query are remembered, and read at once; the
	// rest is read a part at a time.
	maxRows = 16_000
)

// Cache remembers rows of stores that are read from their Log, the least recently
// used of them as long as there is room. It is safe for concurrent use.
//
// Each change is noted, under two hashes of what it touches, with a stamp that
// grows. A remembered answer carries the stamp of the snapshot it was read at, and
// holds for later ones while what it depends on was not touched since.
type Cache struct {
	options Options
	budget  *budget
	seed    maphash.Seed
	stamps  atomic.Uint64      // the last one given
	touched [2][]atomic.Uint64 // by hash: the stamp of the last change
	lines   atomic.Uint64      // counts lines, to tell them apart
	shards  [shardCount]shard
	current *lru.Cache[lineKey, *line] // those that are told of changes
	peers   Peers                      // nil: none

	hits, misses, shared, reads, asked, declined atomic.Int64
}

var _ datastore.RowCache = (*Cache)(nil)

// New returns an empty Cache.
func New(o Options) *Cache {
	o = o.withDefaults()
	c := &Cache{options: o, budget: newBudget(o.Reads, o.Waiting), seed: maphash.MakeSeed()}
	for i := range c.touched {
		c.touched[i] = make([]atomic.Uint64, slotCount)
	}
	for i := range c.shards {
		s := &c.shards[i]
		s.room, s.flying = o.Bytes/shardCount, map[flightKey]seat{}
		entries, err := simplelru.NewLRU[key, *entry](math.MaxInt, nil)
		if err != nil {
			panic(err) // the size is positive
		}
		s.entries = entries
	}
	current, err := lru.New[lineKey, *line](maxLines)
	if err != nil {
		panic(err) // the size is positive
	}
	c.current = current
	return c
}

// Stats are counts since the start, and what is remembered now.
type Stats struct {
	Hits, Misses int64 // queries that were remembered, and that were not
	Shared       int64 // of the misses: those that waited for the read of another
	Reads        int64 // reads of the database, each of many queries
	Asked        int64 // queries that a peer answered
	Declined     int64 // queries that a peer was asked and did not answer
	Bytes        int64
	Entries      int
	Reading      int // reads under way
	Waiting      int // reads that wait for their turn
}

// Stats returns what there is to tell.
func (c *Cache) Stats() Stats {
	s := Stats{Hits: c.hits.Load(), Misses: c.misses.Load(), Shared: c.shared.Load(), Reads: c.reads.Load(),
		Asked: c.asked.Load(), Declined: c.declined.Load()}
	for i := range c.shards {
		shard := &c.shards[i]
		shard.mu.Lock()
		s.Bytes += shard.bytes
		s.Entries += shard.entries.Len()
		shard.mu.Unlock()
	}
	s.Reading, s.Waiting = c.budget.counts()
	return s
}

// Line implements [datastore.RowCache].
func (c *Cache) Line(log datastore.Log, store datastore.StoreID, incarnation datastore.Incarnation) datastore.RowLine {
	return &line{cache: c, number: c.lines.Add(1), log: log, lineKey: lineKey{store, incarnation}}
}

// shard is a part of the cache with a lock of its own.
type shard struct {
	mu      sync.Mutex
	entries *simplelru.LRU[key, *entry]
	bytes   int64
	room    int64
	flying  map[flightKey]seat
}

// key is a query, whole: entries of equal hash are told apart.
type key struct {
	line                   uint64
	bySubject              bool
	objectType, objectID   string
	relation               string
	subjectType, subjectID string
	subjectRelation        string
}

// entry is what a query gave at a position; it never changes.
type entry struct {
	at   datastore.Position
	from datastore.Stamp // since when it held already
	on   slots
	rows []datastore.Row
	more bool // there are further rows than these
	size int64
}

// line implements [datastore.RowLine].
type line struct {
	cache  *Cache
	number uint64
	log    datastore.Log
	lineKey
	recent recent
}

// lineKey tells lines of different stores apart, and of a store that was made
// anew.
type lineKey struct {
	store       datastore.StoreID
	incarnation datastore.Incarnation
}

// keyOf makes the key of a query; false for one that is not remembered.
func (l *line) keyOf(q *datastore.RowQuery) (key, bool) {
	f := &q.Filter
	if q.After != nil || q.Limit != 0 || f.ObjectIDPrefix != "" || f.Subject.IDPrefix != "" || f.Caveat != "" || f.Expires != nil {
		return key{}, false
	}
	k := key{
		line: l.number, bySubject: q.BySubject, objectType: f.ObjectType, objectID: f.ObjectID, relation: f.Relation,
		subjectType: f.Subject.Type, subjectID: f.Subject.ID, subjectRelation: f.Subject.Relation,
	}
	return k, f.ObjectType != "" && f.ObjectID != "" || f.Subject.Type != "" && f.Subject.ID != ""
}

// slots are where changes of one thing are noted, in either table.
type slots [2]uint32

// What a query depends on, from the narrow to the wide.
const (
	onePair      = 'p' // a relation of an object to one subject, with any userset relation
	oneUsersets  = 'u' // the usersets in a relation of an object
	oneRelation  = 'r' // a relation of an object
	oneObject    = 'o' // everything of an object
	oneSubject   = 's' // everything that mentions a subject
	separateText = 0xff
)

func (c *Cache) hash(line uint64, kind byte, parts ...string) slots {
	var h maphash.Hash
	h.SetSeed(c.seed)
	for i := range 8 {
		h.WriteByte(byte(line >> (8 * i)))
	}
	h.WriteByte(kind)
	for _, p := range parts {
		h.WriteString(p)
		h.WriteByte(separateText)
	}
	sum := h.Sum64()
	return slots{uint32(sum % slotCount), uint32(sum >> 32 % slotCount)}
}

// dependency is where the changes that may alter a query are noted.
func (c *Cache) dependency(k *key) slots {
	switch {
	case k.objectType == "" || k.objectID == "":
		return c.hash(k.line, oneSubject, k.subjectType, k.subjectID)
	case k.relation == "":
		return c.hash(k.line, oneObject, k.objectType, k.objectID)
	case k.subjectType != "" && k.subjectID != "":
		return c.hash(k.line, onePair, k.objectType, k.objectID, k.relation, k.subjectType, k.subjectID)
	case k.subjectRelation != "" && k.subjectRelation != tuple.Ellipsis:
		return c.hash(k.line, oneUsersets, k.objectType, k.objectID, k.relation)
	}
	return c.hash(k.line, oneRelation, k.objectType, k.objectID, k.relation)
}

// Changed implements [datastore.RowLine].
func (l *line) Changed(from datastore.Revision, to datastore.Head, relationships iter.Seq2[tuple.Key, *tuple.Relationship]) datastore.Stamp {
	c := l.cache
	stamp := c.stamps.Add(1)
	if from == to.Revision {
		c.current.Add(l.lineKey, l)
	}
	l.recent.add(from, datastore.Position{Revision: to.Revision, Hash: to.Hash, Stamp: datastore.Stamp(stamp)}, relationships)
	touch := func(on slots) {
		for i, at := range on {
			t := &c.touched[i][at]
			for old := t.Load(); old < stamp && !t.CompareAndSwap(old, stamp); old = t.Load() {
			}
		}
	}
	for k := range relationships {
		o, s := k.Object, k.Subject
		touch(c.hash(l.number, onePair, o.Type, o.ID, k.Relation, s.Type, s.ID))
		if s.Relation != "" {
			touch(c.hash(l.number, oneUsersets, o.Type, o.ID, k.Relation))
		}
		touch(c.hash(l.number, oneRelation, o.Type, o.ID, k.Relation))
		touch(c.hash(l.number, oneObject, o.Type, o.ID))
		touch(c.hash(l.number, oneSubject, s.Type, s.ID))
	}
	return datastore.Stamp(stamp)
}

// last is the stamp of the last change noted at slots, or of a later one of
// something else.
func (c *Cache) last(on slots) datastore.Stamp {
	return datastore.Stamp(min(c.touched[0][on[0]].Load(), c.touched[1][on[1]].Load()))
}

// holds reports whether an entry is what the query gives at a position.
func (c *Cache) holds(e *entry, at datastore.Position) bool {
	switch {
	case e.at.Revision == at.Revision && e.at.Hash == at.Hash:
		return true
	case e.at.Stamp == 0 || at.Stamp == 0:
		return false
	case at.Stamp > e.at.Stamp:
		return c.last(e.on) <= e.at.Stamp
	}
	return e.from <= at.Stamp
}

func (c *Cache) shard(k *key) *shard {
	return &c.shards[maphash.Comparable(c.seed, *k)%shardCount]
}

// entryFor makes the entry of what a query gave.
func (c *Cache) entryFor(k *key, at datastore.Position, rows []datastore.Row, more bool) *entry {
	e := &entry{at: at, from: at.Stamp, on: c.dependency(k), rows: rows, more: more}
	// Changes up to the snapshot's were noted before it was.
	if last := c.last(e.on); last < at.Stamp {
		e.from = last
	}
	e.size = entryBytes + int64(len(k.objectType)+len(k.objectID)+len(k.relation)+len(k.subjectType)+len(k.subjectID)+len(k.subjectRelation))
	e.size += int64(cap(rows)) * rowBytes
	for i := range rows {
		e.size += shareTexts(&rows[i], k)
	}
	return e
}

const (
	// entryBytes is about what an entry takes without its texts and rows: itself, its
	// key, and its place in the table and the list.
	entryBytes = int64(unsafe.Sizeof(entry{})+2*unsafe.Sizeof(key{})) + 160
	rowBytes   = int64(unsafe.Sizeof(datastore.Row{}))
	// textBytes is what a text takes besides its bytes, rounded up.
	textBytes = 8
)

// shareTexts gives a row the texts of its key where they are equal, and returns
// the bytes of the others.
func shareTexts(r *datastore.Row, k *key) (size int64) {
	share := func(text *string, own string) {
		if *text == own {
			*text = own
		} else {
			size += int64(len(*text)) + textBytes
		}
	}
	share(&r.Object.Type, k.objectType)
	share(&r.Object.ID, k.objectID)
	share(&r.Relation, k.relation)
	share(&r.Subject.Type, k.subjectType)
	share(&r.Subject.ID, k.subjectID)
	share(&r.Subject.Relation, k.subjectRelation)
	return size + int64(len(r.Caveat.Name)+len(r.Caveat.Context))
}

// keep remembers an entry, and forgets others for it. One of the past does not
// take the place of one that may serve later snapshots.
func (c *Cache) keep(k key, e *entry) {
	s := c.shard(&k)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep(k, e)
}

func (s *shard) keep(k key, e *entry) {
	if old, ok := s.entries.Peek(k); ok {
		if e.at.Stamp < old.at.Stamp {
			return
		}
		s.bytes -= old.size
		s.entries.Remove(k)
	}
	if e.size > s.room/2 {
		return
	}
	s.entries.Add(k, e)
	for s.bytes += e.size; s.bytes > s.room; {
		_, old, ok := s.entries.RemoveOldest()
		if !ok {
			return
		}
		s.bytes -= old.size
	}
}
