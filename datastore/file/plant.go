package file

import (
	"context"
	"errors"

	"github.com/pembadb/pemba/datastore"
)

// Plant implements [datastore.Log].
func (l *Log) Plant(ctx context.Context, store datastore.StoreID, s datastore.Seed) error {
	defer l.holdHead(store)()
	return l.change(ctx, store, func(n line, head datastore.Head) error {
		if s.Start != nil {
			if head.Revision != 0 {
				return datastore.PlantedLate(head.Revision)
			}
			head.Revision, head.Hash, head.Time = s.Start.Revision, s.Start.Hash, s.Start.Time
			if err := errors.Join(n.bucket.Put(keyHead, appendHead(nil, head)),
				n.bucket.Put(keyAnchor, appendAnchor(nil, datastore.Anchor{Revision: head.Revision, Hash: head.Hash}))); err != nil {
				return err
			}
		}
		return n.plant(head, &s)
	})
}

func (n line) plant(head datastore.Head, s *datastore.Seed) error {
	for i := range s.Rows {
		if err := n.put(s.Rows[i].Relationship, s.Rows[i].Created); err != nil {
			return err
		}
	}
	if len(s.Identities) > 0 {
		in, err := n.withIdentities()
		if err != nil {
			return err
		}
		for _, i := range s.Identities {
			if err := in.put(i); err != nil {
				return err
			}
		}
	}
	if err := n.addNames(s.Names); err != nil || s.Schema == nil {
		return err
	}
	return n.bucket.Bucket(bucketSchemas).Put(appendUint(nil, uint64(head.Revision)), appendSchema(nil, s.Schema))
}
