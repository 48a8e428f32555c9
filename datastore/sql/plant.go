package sql

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/pembadb/pemba/datastore"
)

const beginHead = `UPDATE pemba_head SET revision = $2, hash = $3, time = $4, anchor_revision = $2, anchor_hash = $3 WHERE store = $1`

// Plant implements [datastore.Log].
func (l *Log) Plant(ctx context.Context, store datastore.StoreID, s datastore.Seed) error {
	return l.administer(ctx, func(tx pgx.Tx) error {
		h, err := scanHead(tx.QueryRow(ctx, lockHead, int64(store)), store)
		if err != nil {
			return err
		}
		w := &writes{head: h.Head, names: s.Names, identities: s.Identities}
		if s.Start != nil {
			if h.Revision != 0 {
				return ours(datastore.PlantedLate(h.Revision))
			}
			w.head.Revision, w.head.Hash, w.head.Time = s.Start.Revision, s.Start.Hash, s.Start.Time
			if _, err := tx.Exec(ctx, beginHead, int64(store), int64(w.head.Revision), w.head.Hash[:], w.head.Time.UnixMicro()); err != nil {
				return err
			}
		}
		for _, r := range s.Rows {
			w.inserted = append(w.inserted, inserted{r, live})
		}
		if s.Schema != nil {
			w.schemas, w.schemaOps = []datastore.Entry{{Revision: w.head.Revision}}, []*datastore.SchemaText{s.Schema}
		}
		if w.copies(l.dialect) {
			if err := w.copy(ctx, tx.Conn(), store); err != nil {
				return err
			}
		}
		var batch pgx.Batch
		w.queue(l.dialect, &batch, store)
		return tx.SendBatch(ctx, &batch).Close()
	})
}
