package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/pembadb/pemba/datastore"
)

// What a store's bucket holds.
var (
	keyHead        = []byte("head")
	keyAnchor      = []byte("anchor")
	bucketHistory  = []byte("history")  // revision -> entry
	bucketRequests = []byte("requests") // request id -> revision
	bucketObjects  = []byte("objects")  // rows in the order of tuple.Key.Compare
	bucketSubjects = []byte("subjects") // rows in the order of tuple.Key.CompareBySubject
	bucketClosed   = []byte("closed")   // closing revision, row key -> nothing
	bucketNames    = []byte("names")    // id -> name
	bucketSchemas  = []byte("schemas")  // revision -> schema text
)

var lineBuckets = [][]byte{bucketHistory, bucketRequests, bucketObjects, bucketSubjects, bucketClosed, bucketNames, bucketSchemas}

// pageBytes bounds the stored bytes that one call of After gathers.
const pageBytes = 16 << 20

// line is one store within a transaction.
type line struct {
	store  datastore.StoreID
	bucket *bbolt.Bucket
}

func lineIn(tx *bbolt.Tx, store datastore.StoreID) (line, error) {
	b := tx.Bucket(bucketStores).Bucket(appendUint(nil, uint64(store)))
	if b == nil {
		return line{}, fmt.Errorf("store %d: %w", store, datastore.ErrNoStore)
	}
	return line{store, b}, nil
}

func (n line) head() (datastore.Head, error) {
	h, err := parseHead(n.bucket.Get(keyHead))
	if err != nil {
		return h, fmt.Errorf("store %d: its head: %w", n.store, err)
	}
	return h, nil
}

func (n line) anchor() (datastore.Anchor, error) {
	a, err := parseAnchor(n.bucket.Get(keyAnchor))
	if err != nil {
		return a, fmt.Errorf("store %d: its anchor: %w", n.store, err)
	}
	return a, nil
}

// after returns the head and up to limit entries that follow from.
func (n line) after(from datastore.Revision, limit int) (datastore.Head, []datastore.Entry, error) {
	head, err := n.head()
	if err != nil {
		return head, nil, err
	}
	anchor, err := n.anchor()
	if err != nil {
		return head, nil, err
	}
	switch {
	case from > head.Revision:
		return head, nil, datastore.Ahead(from, head.Revision)
	case from < anchor.Revision:
		return head, nil, datastore.Compacted(from+1, anchor.Revision+1)
	}
	var entries []datastore.Entry
	c, size := n.bucket.Bucket(bucketHistory).Cursor(), 0
	for k, v := c.Seek(appendUint(nil, uint64(from)+1)); k != nil && len(entries) < limit && size < pageBytes; k, v = c.Next() {
		e, err := parseEntry(k, v)
		if err != nil {
			return head, nil, datastore.BrokenAt(from+1, fmt.Errorf("store %d, change %d: %w", n.store, from+1, err))
		}
		if e.Revision != from+1 {
			return head, nil, datastore.MissingChange(n.store, from+1)
		}
		from = e.Revision
		size += len(v)
		entries = append(entries, e)
	}
	if from < head.Revision && len(entries) < limit && size < pageBytes {
		return head, nil, datastore.MissingChange(n.store, from+1)
	}
	return head, entries, nil
}

func (n line) entry(r datastore.Revision) (datastore.Entry, error) {
	key := appendUint(nil, uint64(r))
	v := n.bucket.Bucket(bucketHistory).Get(key)
	if v == nil {
		return datastore.Entry{}, datastore.MissingChange(n.store, r)
	}
	return parseEntry(key, v)
}

// tail checks that have is on this line and gives what follows it.
func (n line) tail(have datastore.Head) (datastore.Head, []datastore.Entry, error) {
	head, err := n.head()
	if err != nil {
		return head, nil, err
	}
	forked := fmt.Errorf("revision %d: %w", have.Revision, datastore.ErrForked)
	if have.Incarnation != head.Incarnation || have.Revision > head.Revision {
		return head, nil, forked
	}
	anchor, err := n.anchor()
	if err != nil {
		return head, nil, err
	}
	hash := anchor.Hash
	if have.Revision > anchor.Revision {
		e, err := n.entry(have.Revision)
		if err != nil {
			return head, nil, err
		}
		hash = e.Hash
	}
	var changes []datastore.Entry
	for from := have.Revision; from < head.Revision; {
		_, page, err := n.after(from, int(head.Revision-from))
		if err != nil {
			return head, nil, err
		}
		changes = append(changes, page...)
		from = page[len(page)-1].Revision
	}
	if have.Revision >= anchor.Revision && hash != have.Hash {
		return head, nil, forked
	}
	if have.Revision < anchor.Revision {
		return head, nil, datastore.Compacted(have.Revision+1, anchor.Revision+1)
	}
	return head, changes, nil
}

// request returns the entry committed under a request id.
func (n line) request(id string) (datastore.Entry, bool, error) {
	if id == "" {
		return datastore.Entry{}, false, nil
	}
	v := n.bucket.Bucket(bucketRequests).Get([]byte(id))
	if v == nil {
		return datastore.Entry{}, false, nil
	}
	r, err := parseUint(v)
	if err != nil {
		return datastore.Entry{}, false, fmt.Errorf("store %d, request id %q: %w", n.store, id, err)
	}
	e, err := n.entry(datastore.Revision(r))
	return e, err == nil, err
}

// append writes entries behind head, with the rows they imply.
func (n line) append(head datastore.Head, entries []datastore.Entry) (datastore.Head, error) {
	history, requests := n.bucket.Bucket(bucketHistory), n.bucket.Bucket(bucketRequests)
	history.FillPercent = 1 // keys only grow
	for _, e := range entries {
		if e.Revision != head.Revision+1 {
			return head, fmt.Errorf("change %d does not follow the head %d", e.Revision, head.Revision)
		}
		if err := history.Put(appendUint(nil, uint64(e.Revision)), appendEntry(nil, e)); err != nil {
			return head, err
		}
		if e.RequestID != "" {
			if err := requests.Put([]byte(e.RequestID), appendUint(nil, uint64(e.Revision))); err != nil {
				return head, err
			}
		}
		for _, o := range e.Operations {
			if err := n.apply(e.Revision, o); err != nil {
				return head, err
			}
		}
		if err := n.putIdentities(e); err != nil {
			return head, err
		}
		head.Revision, head.Hash, head.Time = e.Revision, e.Hash, e.Time
	}
	return head, n.bucket.Put(keyHead, appendHead(nil, head))
}

func (n line) apply(r datastore.Revision, o datastore.Operation) error {
	switch o.Kind {
	case datastore.Create, datastore.Touch:
		if err := n.close(o.Relationship.Key, r); err != nil {
			return err
		}
		return n.put(o.Relationship, r)
	case datastore.Delete, datastore.Expire:
		return n.close(o.Relationship.Key, r)
	case datastore.ApplySchema:
		if err := n.addNames(o.Schema.Names); err != nil {
			return err
		}
		return n.bucket.Bucket(bucketSchemas).Put(appendUint(nil, uint64(r)), appendSchema(nil, o.Schema))
	}
	return nil
}

// addNames gives names the ids that follow the highest.
func (n line) addNames(added []string) error {
	names := n.bucket.Bucket(bucketNames)
	last, err := lastID(names)
	if err != nil {
		return fmt.Errorf("store %d: its names: %w", n.store, err)
	}
	for i, name := range added {
		if err := names.Put(appendUint(nil, last+uint64(i)+1), []byte(name)); err != nil {
			return err
		}
	}
	return nil
}

func lastID(names *bbolt.Bucket) (uint64, error) {
	k, _ := names.Cursor().Last()
	if k == nil {
		return 0, nil
	}
	return parseUint(k)
}

// holdHead locks a store's head and returns how to let it go.
func (l *Log) holdHead(store datastore.StoreID) (release func()) {
	l.mu.Lock()
	m := l.heads[store]
	if m == nil {
		m = &sync.Mutex{}
		l.heads[store] = m
	}
	l.mu.Unlock()
	m.Lock()
	return m.Unlock
}

// Head implements [datastore.Log].
func (l *Log) Head(ctx context.Context, store datastore.StoreID) (head datastore.Head, err error) {
	err = l.in(ctx, store, func(n line) (err error) {
		head, err = n.head()
		return err
	})
	return head, err
}

// Heads implements [datastore.HeadsReader].
func (l *Log) Heads(ctx context.Context, stores []datastore.StoreID) (heads map[datastore.StoreID]datastore.Head, err error) {
	err = l.view(ctx, func(tx *bbolt.Tx) error {
		heads = make(map[datastore.StoreID]datastore.Head, len(stores))
		for _, store := range stores {
			n, err := lineIn(tx, store)
			if errors.Is(err, datastore.ErrNoStore) {
				continue
			}
			if err != nil {
				return err
			}
			if heads[store], err = n.head(); err != nil {
				return err
			}
		}
		return nil
	})
	return heads, err
}

// in reads a store in one transaction.
func (l *Log) in(ctx context.Context, store datastore.StoreID, f func(line) error) error {
	return l.view(ctx, func(tx *bbolt.Tx) error {
		n, err := lineIn(tx, store)
		if err != nil {
			return err
		}
		return f(n)
	})
}

// After implements [datastore.Log].
func (l *Log) After(ctx context.Context, store datastore.StoreID, from datastore.Revision, limit int) (head datastore.Head, entries []datastore.Entry, err error) {
	err = l.in(ctx, store, func(n line) (err error) {
		head, entries, err = n.after(from, limit)
		return err
	})
	return head, entries, err
}

// Update implements [datastore.Log]. The judge runs outside of the transaction
// that writes: this process alone has the file, and it holds the head.
func (l *Log) Update(ctx context.Context, store datastore.StoreID, have datastore.Head, judge func(datastore.Tail) ([]datastore.Entry, error)) (datastore.Head, error) {
	defer l.holdHead(store)()
	var tail datastore.Tail
	if err := l.in(ctx, store, func(n line) (err error) {
		tail.Head, tail.Changes, err = n.tail(have)
		return err
	}); err != nil {
		return datastore.Head{}, err
	}
	tail.Request = func(id string) (e datastore.Entry, found bool, err error) {
		err = l.in(ctx, store, func(n line) (err error) {
			e, found, err = n.request(id)
			return err
		})
		return e, found, err
	}
	entries, err := judge(tail)
	if err != nil {
		return datastore.Head{}, err
	}
	if len(entries) == 0 {
		return tail.Head, nil
	}
	var head datastore.Head
	err = l.commit(func(tx *bbolt.Tx) error {
		n, err := lineIn(tx, store)
		if err != nil {
			return err
		}
		if head, err = n.head(); err != nil { // the floor may have risen meanwhile
			return err
		}
		head, err = n.append(head, entries)
		return err
	})
	if err != nil {
		return datastore.Head{}, err
	}
	return head, nil
}

// Schema implements [datastore.Log].
func (l *Log) Schema(ctx context.Context, store datastore.StoreID, at datastore.Revision) (text *datastore.SchemaText, err error) {
	err = l.in(ctx, store, func(n line) error {
		head, err := n.head()
		if err != nil {
			return err
		}
		if err := datastore.Readable(head, at); err != nil {
			return err
		}
		want := appendUint(nil, uint64(at))
		c := n.bucket.Bucket(bucketSchemas).Cursor()
		k, v := c.Seek(want)
		if k == nil {
			k, v = c.Last()
		} else if !bytes.Equal(k, want) {
			k, v = c.Prev()
		}
		if k == nil {
			return nil
		}
		text, err = parseSchema(v)
		return err
	})
	return text, err
}

// Names implements [datastore.Log].
func (l *Log) Names(ctx context.Context, store datastore.StoreID) (names []string, err error) {
	err = l.in(ctx, store, func(n line) error {
		return n.bucket.Bucket(bucketNames).ForEach(func(k, v []byte) error {
			if id, err := parseUint(k); err != nil || id != uint64(len(names))+1 {
				return fmt.Errorf("store %d: %w: name %d is missing", store, datastore.ErrCorrupt, len(names)+1)
			}
			names = append(names, string(v))
			return nil
		})
	})
	return names, err
}

// Anchor implements [datastore.Log].
func (l *Log) Anchor(ctx context.Context, store datastore.StoreID) (anchor datastore.Anchor, err error) {
	err = l.in(ctx, store, func(n line) (err error) {
		anchor, err = n.anchor()
		return err
	})
	return anchor, err
}

// change writes to a store in one transaction.
func (l *Log) change(ctx context.Context, store datastore.StoreID, f func(line, datastore.Head) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return l.commit(func(tx *bbolt.Tx) error {
		n, err := lineIn(tx, store)
		if err != nil {
			return err
		}
		head, err := n.head()
		if err != nil {
			return err
		}
		return f(n, head)
	})
}

// SetFloor implements [datastore.Log].
func (l *Log) SetFloor(ctx context.Context, store datastore.StoreID, floor datastore.Revision) error {
	return l.change(ctx, store, func(n line, head datastore.Head) error {
		if floor > head.Revision {
			return fmt.Errorf("floor %d: %w", floor, datastore.ErrAhead)
		}
		head.Floor = max(head.Floor, floor)
		return n.bucket.Put(keyHead, appendHead(nil, head))
	})
}

// trimBatch bounds the entries that one transaction trims.
const trimBatch = 1000

// Trim implements [datastore.Log]. Each transaction leaves an anchor.
func (l *Log) Trim(ctx context.Context, store datastore.StoreID, upTo datastore.Revision) error {
	for more := true; more; {
		if err := l.change(ctx, store, func(n line, head datastore.Head) (err error) {
			if upTo > head.Floor {
				return fmt.Errorf("trim up to %d: the floor is %d; raise it first", upTo, head.Floor)
			}
			more, err = n.trim(upTo)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

func (n line) trim(upTo datastore.Revision) (more bool, err error) {
	anchor, err := n.anchor()
	if err != nil || upTo <= anchor.Revision {
		return false, err
	}
	last := min(upTo, anchor.Revision+trimBatch)
	history, requests := n.bucket.Bucket(bucketHistory), n.bucket.Bucket(bucketRequests)
	for r := anchor.Revision + 1; r <= last; r++ {
		e, err := n.entry(r)
		if err != nil {
			return false, err
		}
		if e.RequestID != "" {
			if err := requests.Delete([]byte(e.RequestID)); err != nil {
				return false, err
			}
		}
		if err := history.Delete(appendUint(nil, uint64(r))); err != nil {
			return false, err
		}
		anchor = datastore.Anchor{Revision: r, Hash: e.Hash}
	}
	return last < upTo, n.bucket.Put(keyAnchor, appendAnchor(nil, anchor))
}

// CreateLine implements [datastore.Log].
func (l *Log) CreateLine(_ context.Context, store datastore.StoreID, incarnation datastore.Incarnation) error {
	return l.commit(func(tx *bbolt.Tx) error {
		stores, key := tx.Bucket(bucketStores), appendUint(nil, uint64(store))
		if stores.Bucket(key) != nil {
			return nil
		}
		b, err := stores.CreateBucket(key)
		if err != nil {
			return err
		}
		for _, name := range lineBuckets {
			if _, err := b.CreateBucket(name); err != nil {
				return err
			}
		}
		return errors.Join(
			b.Put(keyHead, appendHead(nil, datastore.Head{Incarnation: incarnation})),
			b.Put(keyAnchor, appendAnchor(nil, datastore.Anchor{})))
	})
}

// DropLine implements [datastore.Log].
func (l *Log) DropLine(_ context.Context, store datastore.StoreID) error {
	defer l.holdHead(store)()
	return l.commit(func(tx *bbolt.Tx) error {
		stores, key := tx.Bucket(bucketStores), appendUint(nil, uint64(store))
		if stores.Bucket(key) == nil {
			return nil
		}
		return stores.DeleteBucket(key)
	})
}

// Lines implements [datastore.Log].
func (l *Log) Lines(ctx context.Context) (stores []datastore.StoreID, err error) {
	err = l.view(ctx, func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketStores).ForEachBucket(func(k []byte) error {
			id, err := parseUint(k)
			stores = append(stores, datastore.StoreID(id))
			return err
		})
	})
	slices.Sort(stores)
	return stores, err
}
