package sqltest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/datastoretest"
	"github.com/pembadb/pemba/datastore/sql"
)

// RunVerify tests that a verification finds every edit made in the database.
func RunVerify(t *testing.T, target Target) {
	datastoretest.RunVerify(t, func(t *testing.T) (datastore.Log, datastoretest.Hand) {
		uri := target.Empty(t)
		log, err := target.Open(bg, uri, sql.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { log.Close() })
		pool, err := pgxpool.New(bg, uri)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		return log, hand(pool)
	})
}

// hand edits the tables of a database.
func hand(pool *pgxpool.Pool) datastoretest.Hand {
	exec := func(statement string, args ...any) error {
		tag, err := pool.Exec(bg, statement, args...)
		if err == nil && tag.RowsAffected() != 1 {
			err = fmt.Errorf("%s %v: %d rows", statement, args, tag.RowsAffected())
		}
		return err
	}
	return datastoretest.Hand{
		Row: func(store datastore.StoreID, _ [2]bool, old, next *datastoretest.Stored) error {
			if old != nil {
				k := old.Key
				if err := exec(`DELETE FROM pemba_relationship WHERE store = $1 AND object_type = $2 AND object_id = $3 AND relation = $4
					AND subject_type = $5 AND subject_id = $6 AND subject_relation = $7 AND created = $8`, int64(store),
					k.Object.Type, k.Object.ID, k.Relation, k.Subject.Type, k.Subject.ID, k.Subject.Relation, int64(old.Created)); err != nil {
					return err
				}
			}
			if next == nil {
				return nil
			}
			var expiration *int64
			if !next.Expiration.IsZero() {
				micros := next.Expiration.UnixMicro()
				expiration = &micros
			}
			deleted := int64(next.Deleted)
			if deleted == 0 {
				deleted = int64(^uint64(0) >> 1)
			}
			k := next.Key
			return exec(`INSERT INTO pemba_relationship (store, object_type, object_id, relation, subject_type, subject_id, subject_relation,
				created, deleted, caveat, context, expiration) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`, int64(store),
				k.Object.Type, k.Object.ID, k.Relation, k.Subject.Type, k.Subject.ID, k.Subject.Relation,
				int64(next.Created), deleted, next.Caveat.Name, next.Caveat.Context, expiration)
		},
		Name: func(store datastore.StoreID, id int, name *string) error {
			if name == nil {
				return exec(`DELETE FROM pemba_name WHERE store = $1 AND id = $2`, int64(store), id)
			}
			return exec(`INSERT INTO pemba_name (store, id, name) VALUES ($1, $2, $3) ON CONFLICT (store, id) DO UPDATE SET name = excluded.name`, int64(store), id, *name)
		},
		Schema: func(store datastore.StoreID, at datastore.Revision, text *datastore.SchemaText) error {
			if text == nil {
				return exec(`DELETE FROM pemba_schema WHERE store = $1 AND revision = $2`, int64(store), int64(at))
			}
			return exec(`UPDATE pemba_schema SET text = $3, hash = $4 WHERE store = $1 AND revision = $2`, int64(store), int64(at), []byte(text.Text), text.Hash[:])
		},
		Change: func(store datastore.StoreID, at datastore.Revision, edit func(*datastore.Entry)) error {
			if edit == nil {
				return exec(`DELETE FROM pemba_change WHERE store = $1 AND revision = $2`, int64(store), int64(at))
			}
			var e datastore.Entry
			var id, hash []byte
			if err := pool.QueryRow(bg, `SELECT request_id, header, payload, hash FROM pemba_change WHERE store = $1 AND revision = $2`,
				int64(store), int64(at)).Scan(&id, &e.Header, &e.Payload, &hash); err != nil {
				return err
			}
			e.RequestID, e.Hash = string(id), datastore.Hash(hash)
			edit(&e)
			return exec(`UPDATE pemba_change SET request_id = $3, header = $4, payload = $5, hash = $6 WHERE store = $1 AND revision = $2`,
				int64(store), int64(at), []byte(e.RequestID), e.Header, e.Payload, e.Hash[:])
		},
		Swap: func(store datastore.StoreID, a, b datastore.Revision) error {
			const nowhere = 1 << 40
			move := func(from, to int64) error {
				return exec(`UPDATE pemba_change SET revision = $3 WHERE store = $1 AND revision = $2`, int64(store), from, to)
			}
			return errors.Join(move(int64(a), nowhere), move(int64(b), int64(a)), move(nowhere, int64(b)))
		},
		Head: func(store datastore.StoreID, h datastore.Head) error {
			return exec(`UPDATE pemba_head SET revision = $2, hash = $3, time = $4 WHERE store = $1`, int64(store), int64(h.Revision), h.Hash[:], h.Time.UnixMicro())
		},
	}
}
