package file

import (
	"bytes"
	"errors"

	"go.etcd.io/bbolt"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/datastoretest"
)

// HandOf edits a Log's file behind its back.
func HandOf(l *Log) datastoretest.Hand {
	edit := func(store datastore.StoreID, f func(line) error) error {
		return l.commit(func(tx *bbolt.Tx) error {
			n, err := lineIn(tx, store)
			if err != nil {
				return err
			}
			return f(n)
		})
	}
	return datastoretest.Hand{
		Apart: true,
		Row: func(store datastore.StoreID, chosen [2]bool, old, next *datastoretest.Stored) error {
			return edit(store, func(n line) error {
				for i, o := range orders {
					if !chosen[i] {
						continue
					}
					rows := n.bucket.Bucket(o.bucket)
					if old != nil {
						if err := rows.Delete(appendUint(appendKey(nil, old.Key, o.bySubject), uint64(old.Created))); err != nil {
							return err
						}
					}
					if next != nil {
						key := appendUint(appendKey(nil, next.Key, o.bySubject), uint64(next.Created))
						if err := rows.Put(key, appendRow(nil, next.Deleted, next.Relationship)); err != nil {
							return err
						}
					}
				}
				return nil
			})
		},
		Name: func(store datastore.StoreID, id int, name *string) error {
			return edit(store, func(n line) error {
				if name == nil {
					return n.bucket.Bucket(bucketNames).Delete(appendUint(nil, uint64(id)))
				}
				return n.bucket.Bucket(bucketNames).Put(appendUint(nil, uint64(id)), []byte(*name))
			})
		},
		Schema: func(store datastore.StoreID, at datastore.Revision, text *datastore.SchemaText) error {
			return edit(store, func(n line) error {
				if text == nil {
					return n.bucket.Bucket(bucketSchemas).Delete(appendUint(nil, uint64(at)))
				}
				return n.bucket.Bucket(bucketSchemas).Put(appendUint(nil, uint64(at)), appendSchema(nil, text))
			})
		},
		Change: func(store datastore.StoreID, at datastore.Revision, change func(*datastore.Entry)) error {
			return edit(store, func(n line) error {
				key := appendUint(nil, uint64(at))
				if change == nil {
					return n.bucket.Bucket(bucketHistory).Delete(key)
				}
				e, err := n.entry(at)
				if err != nil {
					return err
				}
				change(&e)
				return n.bucket.Bucket(bucketHistory).Put(key, appendEntry(nil, e))
			})
		},
		Swap: func(store datastore.StoreID, a, b datastore.Revision) error {
			return edit(store, func(n line) error {
				history := n.bucket.Bucket(bucketHistory)
				keys := [2][]byte{appendUint(nil, uint64(a)), appendUint(nil, uint64(b))}
				first, second := bytes.Clone(history.Get(keys[0])), bytes.Clone(history.Get(keys[1]))
				return errors.Join(history.Put(keys[0], second), history.Put(keys[1], first))
			})
		},
		Head: func(store datastore.StoreID, h datastore.Head) error {
			return edit(store, func(n line) error { return n.bucket.Put(keyHead, appendHead(nil, h)) })
		},
	}
}
