package sql

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pembadb/pemba/datastore"
)

// partSize bounds the payload of one row of the history, in bytes.
const partSize = 256 << 10

// pageBytes bounds the stored bytes that one page of the history gathers, but for
// a single change.
const pageBytes = 16 << 20

const changeColumns = `revision, part, parts, request_id, header, payload, hash`

// selectAfter gives, in one statement and hence of one moment, the head and a
// page of what follows a revision; one row without a change if nothing does.
const selectAfter = `SELECT h.incarnation, h.revision, h.floor, h.hash, h.time, h.anchor_revision, h.anchor_hash,
	c.revision, c.part, c.parts, c.request_id, c.header, c.payload, c.hash
	FROM pemba_head AS h LEFT JOIN LATERAL
		(SELECT ` + changeColumns + ` FROM pemba_change WHERE store = $1 AND revision > $2 ORDER BY revision, part LIMIT $3) AS c ON true
	WHERE h.store = $1 AND NOT h.dropped ORDER BY c.revision, c.part`

const selectChange = `SELECT ` + changeColumns + ` FROM pemba_change WHERE store = $1 AND revision = $2 ORDER BY part`

const selectRequest = `SELECT ` + changeColumns + ` FROM pemba_change WHERE store = $1 AND revision =
	(SELECT revision FROM pemba_change WHERE store = $1 AND request_id = $2) ORDER BY part`

// part is a row of pemba_change.
type part struct {
	revision, part, parts            *int64
	requestID, header, payload, hash []byte
}

func (p *part) targets() []any {
	return []any{&p.revision, &p.part, &p.parts, &p.requestID, &p.header, &p.payload, &p.hash}
}

// assembly puts changes together from their parts, which come in order.
type assembly struct {
	store   datastore.StoreID
	entries []datastore.Entry
	missing int64 // parts of the last entry that have not come
	bytes   int
}

func (a *assembly) add(p part) error {
	damaged := func() error {
		return ours(datastore.BrokenAt(datastore.Revision(*p.revision), fmt.Errorf("store %d: %w: change %d is not whole", a.store, datastore.ErrCorrupt, *p.revision)))
	}
	a.bytes += len(p.payload) + len(p.header)
	if *p.part == 0 {
		if a.missing != 0 || p.parts == nil || len(p.hash) != 32 {
			return damaged()
		}
		a.missing = *p.parts - 1
		a.entries = append(a.entries, datastore.Entry{
			Revision: datastore.Revision(*p.revision), RequestID: string(p.requestID),
			Header: p.header, Payload: p.payload, Hash: datastore.Hash(p.hash),
		})
		return nil
	}
	if len(a.entries) == 0 || a.missing == 0 {
		return damaged()
	}
	e := &a.entries[len(a.entries)-1]
	if e.Revision != datastore.Revision(*p.revision) {
		return damaged()
	}
	e.Payload = append(e.Payload, p.payload...)
	a.missing--
	return nil
}

// cut drops a last entry that is not whole and reports whether there was one.
func (a *assembly) cut() bool {
	if a.missing == 0 {
		return false
	}
	a.entries, a.missing = a.entries[:len(a.entries)-1], 0
	return true
}

// follows checks that the entries follow from without a gap.
func (a *assembly) follows(from datastore.Revision) error {
	for _, e := range a.entries {
		if from++; e.Revision != from {
			return ours(datastore.MissingChange(a.store, from))
		}
	}
	return nil
}

// querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// changes reads changes whole.
func changes(ctx context.Context, q querier, store datastore.StoreID, sql string, args ...any) ([]datastore.Entry, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	a := assembly{store: store}
	for rows.Next() {
		var p part
		if err := rows.Scan(p.targets()...); err != nil {
			return nil, err
		}
		if err := a.add(p); err != nil {
			return nil, err
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if a.cut() {
		return nil, ours(fmt.Errorf("store %d: %w: a change is not whole", store, datastore.ErrCorrupt))
	}
	return a.entries, nil
}

// After implements [datastore.Log], in one statement but for a change that is
// larger than a page.
func (l *Log) After(ctx context.Context, store datastore.StoreID, from datastore.Revision, limit int) (head datastore.Head, entries []datastore.Entry, err error) {
	err = l.read(ctx, func(c *pgxpool.Conn) error {
		var h headRow
		h, entries, err = after(ctx, c, store, from, limit)
		head = h.Head
		return err
	})
	if err != nil {
		return datastore.Head{}, nil, err
	}
	return head, entries, nil
}

func after(ctx context.Context, q querier, store datastore.StoreID, from datastore.Revision, limit int) (h headRow, entries []datastore.Entry, err error) {
	a := assembly{store: store}
	rows, err := q.Query(ctx, selectAfter, int64(store), int64(from), limit)
	if err != nil {
		return h, nil, err
	}
	defer rows.Close()
	found, full := false, false
	for rows.Next() && !full {
		var s headScan
		var p part
		if err := rows.Scan(append(s.targets(), p.targets()...)...); err != nil {
			return h, nil, err
		}
		if !found {
			found = true
			if h, err = s.head(store); err != nil {
				return h, nil, err
			}
		}
		if p.revision == nil {
			break
		}
		if err := a.add(p); err != nil {
			return h, nil, err
		}
		full = a.bytes > pageBytes && len(a.entries) > 1
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return h, nil, err
	}
	switch {
	case !found:
		return h, nil, noStore(pgx.ErrNoRows, store)
	case from > h.Revision:
		return h, nil, ours(datastore.Ahead(from, h.Revision))
	case from < h.anchor.Revision:
		return h, nil, ours(datastore.Compacted(from+1, h.anchor.Revision+1))
	}
	if a.cut(); len(a.entries) == 0 && from < h.Revision {
		if a.entries, err = changes(ctx, q, store, selectChange, int64(store), int64(from)+1); err != nil {
			return h, nil, err
		}
		if len(a.entries) == 0 {
			return h, nil, ours(datastore.MissingChange(store, from+1))
		}
	}
	return h, a.entries, a.follows(from)
}
