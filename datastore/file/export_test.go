package file

import (
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
	}
}
