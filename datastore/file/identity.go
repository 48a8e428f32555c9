package file

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// What a store's bucket holds once it has an identity; a file of the first format
// has none of them.
var (
	bucketIdentities = []byte("identities") // type, id, revision -> version
	bucketKeysOf     = []byte("keys of")    // type, id -> the keys in bucketFound
	bucketFound      = []byte("found")      // key, id -> nothing
	bucketWithheld   = []byte("withheld")   // type, id of those that were ever withheld -> nothing
)

// identityPage is how many identities one transaction reads.
const identityPage = 1000

// appendObject writes the key of an object; those of a type stand together, in
// order of their ids.
func appendObject(b []byte, o tuple.Object) []byte {
	return append(append(append(append(b, o.Type...), 0), o.ID...), 0)
}

func parseObject(b []byte) (o tuple.Object, err error) {
	typ, rest, ok := bytes.Cut(b, []byte{0})
	id, rest, found := bytes.Cut(rest, []byte{0})
	if !ok || !found || len(rest) > 0 {
		return o, damaged("the key of an identity is not one")
	}
	return tuple.Object{Type: string(typ), ID: string(id)}, nil
}

// appendFound writes what the ids of identities stand behind in bucketFound.
func appendFound(b []byte, typ string, k datastore.IdentityKey) []byte {
	return appendBytes(appendBytes(appendBytes(b, typ), k.Name), k.Value)
}

func appendIdentity(b []byte, i datastore.Identity) []byte {
	return appendBytes(appendBytes(append(b, byte(i.Kind), byte(i.State)), i.Salt), i.Attributes)
}

func parseIdentity(k, v []byte) (i datastore.Identity, err error) {
	if len(k) < 8 || len(v) < 2 {
		return i, damaged("an identity is cut off")
	}
	if i.Object, err = parseObject(k[:len(k)-8]); err != nil {
		return i, err
	}
	i.Revision = datastore.Revision(binary.BigEndian.Uint64(k[len(k)-8:]))
	i.Kind, i.State = datastore.IdentityKind(v[0]), datastore.IdentityState(v[1])
	salt, rest, err := cut(v[2:])
	if err != nil {
		return i, err
	}
	attributes, _, err := cut(rest)
	if len(salt) > 0 {
		i.Salt = bytes.Clone(salt)
	}
	i.Attributes = string(attributes)
	return i, err
}

// identities is what the file keeps of a store's users and groups; nil buckets
// where it has none.
type identities struct{ all, keysOf, found, withheld *bbolt.Bucket }

func (n line) identities() identities {
	return identities{n.bucket.Bucket(bucketIdentities), n.bucket.Bucket(bucketKeysOf), n.bucket.Bucket(bucketFound), n.bucket.Bucket(bucketWithheld)}
}

// withIdentities makes the buckets, and raises the format: an older version of
// pemba would answer without asking who is suspended.
func (n line) withIdentities() (identities, error) {
	if s := n.identities(); s.all != nil {
		return s, nil
	}
	for _, name := range [][]byte{bucketIdentities, bucketKeysOf, bucketFound, bucketWithheld} {
		if _, err := n.bucket.CreateBucketIfNotExists(name); err != nil {
			return identities{}, err
		}
	}
	return n.identities(), n.bucket.Tx().Bucket(bucketMeta).Put(keyFormat, appendUint(nil, format))
}

// putIdentities writes an entry's versions, and erases what it says.
func (n line) putIdentities(e datastore.Entry) error {
	for _, i := range e.Identities {
		s, err := n.withIdentities()
		if err != nil {
			return err
		}
		if err := s.put(i); err != nil {
			return err
		}
	}
	for _, o := range e.Operations {
		if o.Kind != datastore.Erase {
			continue
		}
		if s := n.identities(); s.all != nil {
			if err := s.erase(*o.Erased); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s identities) put(i datastore.Identity) error {
	object := appendObject(nil, i.Object)
	if err := s.index(i.Object, i.Keys); err != nil {
		return err
	}
	if i.State.Withheld() {
		if err := s.withheld.Put(object, nil); err != nil {
			return err
		}
	}
	return s.all.Put(appendUint(object, uint64(i.Revision)), appendIdentity(nil, i))
}

// index puts other keys in the place of those an identity is found by.
func (s identities) index(o tuple.Object, keys []datastore.IdentityKey) error {
	object := appendObject(nil, o)
	for old := bytes.Clone(s.keysOf.Get(object)); len(old) > 0; {
		key, rest, err := cut(old)
		if err != nil {
			return err
		}
		if err := s.found.Delete(key); err != nil {
			return err
		}
		old = rest
	}
	var list []byte
	for _, k := range keys {
		key := append(appendFound(nil, o.Type, k), o.ID...)
		list = appendBytes(list, key)
		if err := s.found.Put(key, nil); err != nil {
			return err
		}
	}
	if len(list) == 0 {
		return s.keysOf.Delete(object)
	}
	return s.keysOf.Put(object, list)
}

func (s identities) erase(o tuple.Object) error {
	if err := s.index(o, nil); err != nil {
		return err
	}
	var keys, values [][]byte
	prefix := appendObject(nil, o)
	c := s.all.Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		i, err := parseIdentity(k, v)
		if err != nil {
			return err
		}
		i.Salt, i.Attributes = nil, ""
		keys, values = append(keys, bytes.Clone(k)), append(values, appendIdentity(nil, i))
	}
	for i, k := range keys {
		if err := s.all.Put(k, values[i]); err != nil {
			return err
		}
	}
	return nil
}

// versions reads those of one identity that a query asks for.
func (s identities) versions(o tuple.Object, at datastore.Revision, q *datastore.IdentityQuery) (found []datastore.Identity, err error) {
	prefix := appendObject(nil, o)
	c := s.all.Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		i, err := parseIdentity(k, v)
		if err != nil {
			return nil, fmt.Errorf("identity %s: %w", o, err)
		}
		switch {
		case q.Versions:
			found = append(found, i)
		case i.Revision <= at:
			found = append(found[:0], i)
		}
	}
	if !q.Versions && len(found) > 0 && !q.Selects(&found[0]) {
		return nil, nil
	}
	return found, nil
}

// identityScan is where a reading of identities stands.
type identityScan struct {
	q      datastore.IdentityQuery
	prefix []byte
	next   []byte
	done   bool
}

func newIdentityScan(q datastore.IdentityQuery) *identityScan {
	s := &identityScan{q: q}
	switch {
	case q.Key != nil:
		s.prefix = appendFound(nil, q.Type, *q.Key)
		s.next = append(bytes.Clone(s.prefix), q.After...)
		return s
	case q.Type != "":
		s.prefix = append([]byte(q.Type), 0)
	}
	s.next = append(bytes.Clone(s.prefix), q.After...)
	return s
}

// objects gives the next objects to look at, each once.
func (s *identityScan) objects(n identities) (objects []tuple.Object, err error) {
	if len(s.q.Objects) > 0 {
		s.done = true
		objects = slices.Clone(s.q.Objects)
		slices.SortFunc(objects, tuple.Object.Compare)
		return slices.Compact(objects), nil
	}
	b := n.all
	switch {
	case s.q.Key != nil:
		b = n.found
	case s.q.Withheld:
		b = n.withheld
	}
	c := b.Cursor()
	k, _ := c.Seek(s.next)
	for ; k != nil && bytes.HasPrefix(k, s.prefix); k, _ = c.Seek(s.next) {
		if len(objects) == identityPage {
			return objects, nil
		}
		o := tuple.Object{Type: s.q.Type}
		if s.q.Key != nil {
			o.ID = string(k[len(s.prefix):])
			s.next = append(bytes.Clone(k), 0)
		} else {
			if b == n.all && len(k) >= 8 {
				k = k[:len(k)-8]
			}
			if o, err = parseObject(k); err != nil {
				return nil, err
			}
			// Behind the last version: revisions are less than 2^56.
			s.next = append(bytes.Clone(k), 0xff)
		}
		objects = append(objects, o)
	}
	s.done = true
	return objects, nil
}

// Holders implements [datastore.Log].
func (l *Log) Holders(ctx context.Context, store datastore.StoreID, typ string, keys []datastore.IdentityKey, f func(datastore.IdentityKey, string)) error {
	return l.in(ctx, store, func(n line) error {
		in := n.identities()
		if in.found == nil {
			return nil
		}
		c := in.found.Cursor()
		for _, k := range keys {
			prefix := appendFound(nil, typ, k)
			for at, _ := c.Seek(prefix); bytes.HasPrefix(at, prefix); at, _ = c.Next() {
				f(datastore.IdentityKey{Name: k.Name, Value: k.Value}, string(at[len(prefix):]))
			}
		}
		return nil
	})
}

// Identities implements [datastore.Log]. It reads a page a transaction, and calls
// f outside of them.
func (l *Log) Identities(ctx context.Context, store datastore.StoreID, at datastore.Revision, q datastore.IdentityQuery, f func(datastore.Identity) bool) error {
	s, given := newIdentityScan(q), 0
	for !s.done {
		var found []datastore.Identity
		if err := l.in(ctx, store, func(n line) error {
			head, err := n.head()
			if err != nil {
				return err
			}
			if err := datastore.Readable(head, at); err != nil && !q.Versions {
				return err
			}
			in := n.identities()
			if in.all == nil {
				s.done = true
				return nil
			}
			objects, err := s.objects(in)
			if err != nil {
				return err
			}
			for _, o := range objects {
				versions, err := in.versions(o, at, &q)
				if err != nil {
					return err
				}
				found = append(found, versions...)
			}
			return nil
		}); err != nil {
			return err
		}
		for _, i := range found {
			if given++; !f(i) || given == q.Limit && !q.Versions {
				return nil
			}
		}
	}
	return nil
}
