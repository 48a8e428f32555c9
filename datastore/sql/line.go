package sql

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pembadb/pemba/datastore"
)

// live is the closing revision of a row that lives.
const live = int64(^uint64(0) >> 1)

const selectHead = `SELECT incarnation, revision, floor, hash, time, anchor_revision, anchor_hash FROM pemba_head WHERE store = $1 AND NOT dropped`

// headRow is a row of pemba_head.
type headRow struct {
	datastore.Head
	anchor datastore.Anchor
}

// headScan receives the columns of selectHead.
type headScan struct {
	incarnation, hash, anchorHash []byte
	revision, floor, time, anchor int64
}

func (s *headScan) targets() []any {
	return []any{&s.incarnation, &s.revision, &s.floor, &s.hash, &s.time, &s.anchor, &s.anchorHash}
}

func (s *headScan) head(store datastore.StoreID) (h headRow, err error) {
	if len(s.incarnation) != len(h.Incarnation) || len(s.hash) != len(h.Hash) || len(s.anchorHash) != len(h.anchor.Hash) {
		return h, ours(fmt.Errorf("store %d: its head: %w", store, datastore.ErrCorrupt))
	}
	h.Head = datastore.Head{
		Incarnation: datastore.Incarnation(s.incarnation), Revision: datastore.Revision(s.revision), Floor: datastore.Revision(s.floor),
		Hash: datastore.Hash(s.hash), Time: time.UnixMicro(s.time).UTC(),
	}
	h.anchor = datastore.Anchor{Revision: datastore.Revision(s.anchor), Hash: datastore.Hash(s.anchorHash)}
	return h, nil
}

// scanHead reads what selectHead gives.
func scanHead(row pgx.Row, store datastore.StoreID) (headRow, error) {
	var s headScan
	if err := row.Scan(s.targets()...); err != nil {
		return headRow{}, noStore(err, store)
	}
	return s.head(store)
}

// noStore names what no row means.
func noStore(err error, store datastore.StoreID) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return ours(fmt.Errorf("store %d: %w", store, datastore.ErrNoStore))
	}
	return err
}

func (l *Log) head(ctx context.Context, store datastore.StoreID) (h headRow, err error) {
	err = l.read(ctx, func(c *pgxpool.Conn) error {
		h, err = scanHead(c.QueryRow(ctx, selectHead, int64(store)), store)
		return err
	})
	return h, err
}

// Head implements [datastore.Log].
func (l *Log) Head(ctx context.Context, store datastore.StoreID) (datastore.Head, error) {
	h, err := l.head(ctx, store)
	return h.Head, err
}

// Anchor implements [datastore.Log].
func (l *Log) Anchor(ctx context.Context, store datastore.StoreID) (datastore.Anchor, error) {
	h, err := l.head(ctx, store)
	return h.anchor, err
}

const selectHeads = `SELECT store, incarnation, revision, floor, hash, time, anchor_revision, anchor_hash FROM pemba_head WHERE store = ANY ($1) AND NOT dropped`

// Heads returns the heads of stores in one statement; those that do not exist
// are left out.
func (l *Log) Heads(ctx context.Context, stores []datastore.StoreID) (heads map[datastore.StoreID]datastore.Head, err error) {
	ids := make([]int64, len(stores))
	for i, id := range stores {
		ids[i] = int64(id)
	}
	err = l.read(ctx, func(c *pgxpool.Conn) error {
		rows, err := c.Query(ctx, selectHeads, ids)
		if err != nil {
			return err
		}
		defer rows.Close()
		heads = map[datastore.StoreID]datastore.Head{}
		for rows.Next() {
			var id int64
			var s headScan
			if err := rows.Scan(append([]any{&id}, s.targets()...)...); err != nil {
				return err
			}
			h, err := s.head(datastore.StoreID(id))
			if err != nil {
				return err
			}
			heads[datastore.StoreID(id)] = h.Head
		}
		return rows.Err()
	})
	return heads, err
}

// Schema implements [datastore.Log].
func (l *Log) Schema(ctx context.Context, store datastore.StoreID, at datastore.Revision) (text *datastore.SchemaText, err error) {
	err = l.readStore(ctx, store, func(c *pgxpool.Conn) error {
		text = nil
		var batch pgx.Batch
		batch.Queue(`SELECT text, hash, previous_hash, names FROM pemba_schema WHERE store = $1 AND revision <= $2 ORDER BY revision DESC LIMIT 1`, int64(store), int64(at))
		batch.Queue(selectHead, int64(store))
		results := c.SendBatch(ctx, &batch)
		defer results.Close()
		var body, hash, previous []byte
		var names []string
		switch err := results.QueryRow().Scan(&body, &hash, &previous, &names); {
		case err == nil && len(hash) == 32 && len(previous) == 32:
			text = &datastore.SchemaText{Text: string(body), Hash: [32]byte(hash), PreviousHash: [32]byte(previous), Names: names}
		case err == nil:
			return ours(fmt.Errorf("store %d: its schema at %d: %w", store, at, datastore.ErrCorrupt))
		case !errors.Is(err, pgx.ErrNoRows):
			return err
		}
		h, err := scanHead(results.QueryRow(), store)
		if err != nil {
			return err
		}
		return ours(datastore.Readable(h.Head, at))
	})
	if err != nil {
		return nil, err
	}
	return text, nil
}

// Names implements [datastore.Log].
func (l *Log) Names(ctx context.Context, store datastore.StoreID) (names []string, err error) {
	err = l.readStore(ctx, store, func(c *pgxpool.Conn) error {
		var batch pgx.Batch
		batch.Queue(`SELECT id, name FROM pemba_name WHERE store = $1 ORDER BY id`, int64(store))
		batch.Queue(selectHead, int64(store))
		results := c.SendBatch(ctx, &batch)
		defer results.Close()
		rows, err := results.Query()
		if err != nil {
			return err
		}
		names = nil
		for rows.Next() {
			var id int64
			var name string
			if err := rows.Scan(&id, &name); err != nil {
				return err
			}
			if id != int64(len(names))+1 {
				return ours(fmt.Errorf("store %d: %w: name %d is missing", store, datastore.ErrCorrupt, len(names)+1))
			}
			names = append(names, name)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		_, err = scanHead(results.QueryRow(), store)
		return err
	})
	return names, err
}

// CreateLine implements [datastore.Log].
func (l *Log) CreateLine(ctx context.Context, store datastore.StoreID, incarnation datastore.Incarnation) error {
	var none datastore.Hash
	return l.administer(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO pemba_head (store, incarnation, revision, floor, hash, time, anchor_revision, anchor_hash, dropped)
			VALUES ($1, $2, 0, 0, $3, $4, 0, $3, false) ON CONFLICT (store) DO NOTHING`,
			int64(store), incarnation[:], none[:], time.Time{}.UnixMicro())
		return err
	})
}

// dropBatch bounds the rows that one transaction drops.
const dropBatch = 10_000

// Tables of what a store holds, with the columns of their keys.
var lineTables = []string{"pemba_relationship", "pemba_change", "pemba_schema", "pemba_name", "pemba_identity", "pemba_identity_key"}

// DropLine implements [datastore.Log]. The store is gone at once; its rows go in
// batches, and the head, by which Lines finds what is left to drop, goes last.
func (l *Log) DropLine(ctx context.Context, store datastore.StoreID) error {
	if err := l.administer(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE pemba_head SET dropped = true WHERE store = $1`, int64(store))
		return err
	}); err != nil {
		return err
	}
	for _, table := range lineTables {
		for more := true; more; {
			if err := l.administer(ctx, func(tx pgx.Tx) error {
				tag, err := tx.Exec(ctx, deleteSome[table], int64(store), dropBatch)
				more = tag.RowsAffected() == dropBatch
				return err
			}); err != nil {
				return err
			}
		}
	}
	return l.administer(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM pemba_head WHERE store = $1 AND dropped`, int64(store))
		return err
	})
}

var deleteSome = map[string]string{
	"pemba_relationship": `DELETE FROM pemba_relationship WHERE (store, ` + keyColumns + `, created) IN
		(SELECT store, ` + keyColumns + `, created FROM pemba_relationship WHERE store = $1 LIMIT $2)`,
	"pemba_change": `DELETE FROM pemba_change WHERE (store, revision, part) IN
		(SELECT store, revision, part FROM pemba_change WHERE store = $1 LIMIT $2)`,
	"pemba_schema": `DELETE FROM pemba_schema WHERE (store, revision) IN
		(SELECT store, revision FROM pemba_schema WHERE store = $1 LIMIT $2)`,
	"pemba_name": `DELETE FROM pemba_name WHERE (store, id) IN
		(SELECT store, id FROM pemba_name WHERE store = $1 LIMIT $2)`,
	"pemba_identity": `DELETE FROM pemba_identity WHERE (store, type, id, revision) IN
		(SELECT store, type, id, revision FROM pemba_identity WHERE store = $1 LIMIT $2)`,
	"pemba_identity_key": `DELETE FROM pemba_identity_key WHERE (store, type, name, value, id) IN
		(SELECT store, type, name, value, id FROM pemba_identity_key WHERE store = $1 LIMIT $2)`,
}

// Lines implements [datastore.Log]. Stores that are being dropped are among
// them: dropping one again finishes it.
func (l *Log) Lines(ctx context.Context) (stores []datastore.StoreID, err error) {
	err = l.read(ctx, func(c *pgxpool.Conn) error {
		rows, err := c.Query(ctx, `SELECT store FROM pemba_head ORDER BY store`)
		if err != nil {
			return err
		}
		stores, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (datastore.StoreID, error) {
			var id int64
			err := r.Scan(&id)
			return datastore.StoreID(id), err
		})
		return err
	})
	return stores, err
}

const lockHead = selectHead + ` FOR UPDATE`

// SetFloor implements [datastore.Log].
func (l *Log) SetFloor(ctx context.Context, store datastore.StoreID, floor datastore.Revision) error {
	return l.administer(ctx, func(tx pgx.Tx) error {
		h, err := scanHead(tx.QueryRow(ctx, lockHead, int64(store)), store)
		if err != nil {
			return err
		}
		if floor > h.Revision {
			return ours(fmt.Errorf("floor %d: %w", floor, datastore.ErrAhead))
		}
		if floor <= h.Floor {
			return nil
		}
		_, err = tx.Exec(ctx, `UPDATE pemba_head SET floor = $2 WHERE store = $1`, int64(store), int64(floor))
		return err
	})
}

// collectRows removes rows that were closed up to a revision. Its last condition
// lets the database take an index of closed rows only.
func collectRows(d *Dialect) string {
	from, store := d.Through(ClosedIndex)
	return `DELETE FROM pemba_relationship WHERE (store, ` + keyColumns + `, created) IN
		(SELECT store, ` + keyColumns + `, created FROM ` + from + `
			WHERE ` + store + ` AND deleted <= $2 AND deleted < 9223372036854775807 ORDER BY deleted LIMIT $3)`
}

// Collect implements [datastore.Log].
func (l *Log) Collect(ctx context.Context, store datastore.StoreID, limit int) (removed int, err error) {
	err = l.administer(ctx, func(tx pgx.Tx) error {
		h, err := scanHead(tx.QueryRow(ctx, selectHead, int64(store)), store)
		if err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, collectRows(l.dialect), int64(store), int64(h.Floor), limit)
		removed = int(tag.RowsAffected())
		return err
	})
	return removed, err
}

// trimBatch bounds the changes that one transaction trims.
const trimBatch = 1000

// Trim implements [datastore.Log]. Each transaction leaves an anchor.
func (l *Log) Trim(ctx context.Context, store datastore.StoreID, upTo datastore.Revision) error {
	for more := true; more; {
		if err := l.administer(ctx, func(tx pgx.Tx) error {
			h, err := scanHead(tx.QueryRow(ctx, lockHead, int64(store)), store)
			if err != nil {
				return err
			}
			if upTo > h.Floor {
				return ours(fmt.Errorf("trim up to %d: the floor is %d; raise it first", upTo, h.Floor))
			}
			if upTo <= h.anchor.Revision {
				more = false
				return nil
			}
			last := min(upTo, h.anchor.Revision+trimBatch)
			more = last < upTo
			tag, err := tx.Exec(ctx, `UPDATE pemba_head SET anchor_revision = $2, anchor_hash =
				(SELECT hash FROM pemba_change WHERE store = $1 AND revision = $2 AND part = 0) WHERE store = $1`, int64(store), int64(last))
			if err == nil && tag.RowsAffected() == 1 {
				_, err = tx.Exec(ctx, `DELETE FROM pemba_change WHERE store = $1 AND revision > $2 AND revision <= $3`, int64(store), int64(h.anchor.Revision), int64(last))
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}
