package file

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// Bounds of what Rows reads in one transaction. It begins small, for the many
// questions that have few rows.
const (
	firstRows = 32
	mostRows  = 2048
	mostSeen  = 16 * mostRows // rows that do not match count too
)

// orders are the two buckets of rows.
var orders = [2]struct {
	bucket    []byte
	bySubject bool
}{{bucketObjects, false}, {bucketSubjects, true}}

func (n line) rows(bySubject bool) *bbolt.Bucket {
	if bySubject {
		return n.bucket.Bucket(bucketSubjects)
	}
	return n.bucket.Bucket(bucketObjects)
}

// put adds a live row.
func (n line) put(r tuple.Relationship, created datastore.Revision) error {
	value := appendRow(nil, 0, r)
	for _, o := range orders {
		key := appendUint(appendKey(nil, r.Key, o.bySubject), uint64(created))
		if err := n.bucket.Bucket(o.bucket).Put(key, value); err != nil {
			return err
		}
	}
	return nil
}

// close ends the live row of key, if there is one: it is the last of its key.
func (n line) close(key tuple.Key, at datastore.Revision) error {
	prefix := appendKey(nil, key, false)
	c := n.rows(false).Cursor()
	var v []byte
	k, _ := c.Seek(appendUint(prefix[:len(prefix):len(prefix)], ^uint64(0)))
	if k == nil {
		k, v = c.Last()
	} else {
		k, v = c.Prev()
	}
	if !bytes.HasPrefix(k, prefix) || len(k) != len(prefix)+8 {
		return nil
	}
	deleted, err := closedAt(v)
	if err != nil || deleted != 0 {
		return err
	}
	created := binary.BigEndian.Uint64(k[len(prefix):])
	value := append([]byte(nil), v...)
	binary.BigEndian.PutUint64(value, uint64(at))
	k = append([]byte(nil), k...)
	for _, o := range orders {
		if err := n.bucket.Bucket(o.bucket).Put(appendUint(appendKey(nil, key, o.bySubject), created), value); err != nil {
			return err
		}
	}
	return n.bucket.Bucket(bucketClosed).Put(append(appendUint(nil, uint64(at)), k...), nil)
}

// Collect implements [datastore.Log].
func (l *Log) Collect(ctx context.Context, store datastore.StoreID, limit int) (removed int, err error) {
	err = l.change(ctx, store, func(n line, head datastore.Head) error {
		removed = 0
		closed := n.bucket.Bucket(bucketClosed)
		var keys [][]byte
		c := closed.Cursor()
		for k, _ := c.First(); k != nil && len(keys) < limit; k, _ = c.Next() {
			if len(k) < 8 {
				return damaged("a closed row has no revision")
			}
			if datastore.Revision(binary.BigEndian.Uint64(k)) > head.Floor {
				break
			}
			keys = append(keys, append([]byte(nil), k...))
		}
		for _, k := range keys {
			if err := n.remove(k[8:]); err != nil {
				return err
			}
			if err := closed.Delete(k); err != nil {
				return err
			}
		}
		removed = len(keys)
		return nil
	})
	return removed, err
}

// remove deletes a row from both orders by its key in the order of objects.
func (n line) remove(k []byte) error {
	key, created, err := parseKey(k, false)
	if err != nil {
		return err
	}
	for _, o := range orders {
		if err := n.bucket.Bucket(o.bucket).Delete(appendUint(appendKey(nil, key, o.bySubject), uint64(created))); err != nil {
			return err
		}
	}
	return nil
}

// prefix is what the keys of all rows that q selects begin with.
func prefix(q datastore.RowQuery) (b []byte) {
	f := q.Filter
	object := []part{{f.ObjectType, ""}, {f.ObjectID, f.ObjectIDPrefix}, {f.Relation, ""}}
	subject := []part{{f.Subject.Type, ""}, {f.Subject.ID, f.Subject.IDPrefix}, {f.Subject.Relation, ""}}
	parts := append(object, subject...)
	if q.BySubject {
		parts = append(subject, object...)
	}
	for _, p := range parts {
		switch {
		case p.exact == tuple.Ellipsis:
			b = append(b, 0)
		case p.exact != "":
			b = append(append(b, p.exact...), 0)
		default:
			return append(b, p.prefix...)
		}
	}
	return b
}

// part is a part of a key that a filter fixes, wholly or by its beginning.
type part struct{ exact, prefix string }

// scan is where a reading of rows stands.
type scan struct {
	store  datastore.StoreID
	at     datastore.Revision
	q      datastore.RowQuery
	prefix []byte
	next   []byte // where to go on
	size   int    // how many rows to gather next
	given  int    // rows that f was called for
	seen   int    // rows that the last part looked at
	done   bool
	found  []datastore.Row
}

// newScan returns a scan that has not begun.
func newScan(store datastore.StoreID, at datastore.Revision, q datastore.RowQuery) *scan {
	s := &scan{store: store, at: at, q: q, prefix: prefix(q), size: firstRows}
	s.next = s.prefix
	if q.After != nil {
		after := appendUint(appendKey(nil, *q.After, q.BySubject), ^uint64(0))
		if after = append(after, 0); bytes.Compare(after, s.next) > 0 {
			s.next = after
		}
	}
	return s
}

// Rows implements [datastore.Log].
func (l *Log) Rows(ctx context.Context, store datastore.StoreID, at datastore.Revision, q datastore.RowQuery, f func(datastore.Row) bool) error {
	return l.Read(ctx, store, at, []datastore.RowQuery{q}, func(_ int, r datastore.Row) bool { return f(r) })
}

// Read implements [datastore.ManyReader]. It reads a part of what is left of the
// queries at a time, each in its own transaction, and calls f outside of them: f
// may take as long as it likes.
func (l *Log) Read(ctx context.Context, store datastore.StoreID, at datastore.Revision, qs []datastore.RowQuery, f func(q int, r datastore.Row) bool) error {
	scans := make([]*scan, len(qs))
	for i, q := range qs {
		scans[i] = newScan(store, at, q)
	}
	for first, left := true, len(scans); left > 0 || first; first = false {
		if err := l.in(ctx, store, func(n line) error { return readScans(n, at, scans) }); err != nil {
			return err
		}
		left = 0
		for i, s := range scans {
			for _, r := range s.found {
				if s.given++; !f(i, r) || s.given == s.q.Limit {
					s.done = true
					break
				}
			}
			if s.found = s.found[:0]; !s.done {
				left++
			}
		}
	}
	return nil
}

// readScans reads the next part of scans that are not done, up to as much as one
// transaction may.
func readScans(n line, at datastore.Revision, scans []*scan) error {
	head, err := n.head()
	if err != nil {
		return err
	}
	if err := datastore.Readable(head, at); err != nil {
		return err
	}
	var cursors [2]*bbolt.Cursor
	for read := 0; len(scans) > 0 && read < mostRows; scans = scans[1:] {
		s := scans[0]
		if s.done {
			continue
		}
		c := &cursors[0]
		if s.q.BySubject {
			c = &cursors[1]
		}
		if *c == nil {
			*c = n.rows(s.q.BySubject).Cursor()
		}
		if err := s.read(n, *c); err != nil {
			return err
		}
		read += s.seen
	}
	return nil
}

// read gathers the next rows from where the scan stands.
func (s *scan) read(n line, c *bbolt.Cursor) error {
	size := s.size
	if s.q.Limit > 0 {
		size = min(size, s.q.Limit-s.given)
	}
	s.size, s.seen = min(2*s.size, mostRows), 0
	for k, v := c.Seek(s.next); ; k, v = c.Next() {
		if k == nil || !bytes.HasPrefix(k, s.prefix) {
			s.done = true
			return nil
		}
		if len(s.found) == size || s.seen == mostSeen {
			s.next = append([]byte(nil), k...)
			return nil
		}
		s.seen++
		row, lives, err := s.row(k, v)
		if err != nil {
			return fmt.Errorf("store %d: %w", n.store, err)
		}
		if lives && s.q.Filter.Matches(row.Relationship) {
			s.found = append(s.found, row)
		}
	}
}

// row reads a row and whether it lives at the scan's revision.
func (s *scan) row(k, v []byte) (r datastore.Row, lives bool, err error) {
	deleted, err := closedAt(v)
	if err != nil || deleted != 0 && deleted <= s.at {
		return r, false, err
	}
	if len(k) >= 8 && datastore.Revision(binary.BigEndian.Uint64(k[len(k)-8:])) > s.at {
		return r, false, nil
	}
	if r.Key, r.Created, err = parseKey(k, s.q.BySubject); err != nil {
		return r, false, err
	}
	return r, true, parseTraits(v, &r.Relationship)
}
