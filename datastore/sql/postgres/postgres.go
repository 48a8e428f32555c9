// Package postgres is the Log in PostgreSQL.
package postgres

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/sql"
)

// Dialect is PostgreSQL's.
//
// Writes run at READ COMMITTED: the first statement locks the head, and the next
// ones see what was committed before the lock was had. Stronger isolation would
// only abort what the lock already orders.
//
// Plans are generic and take an index: the statements are fixed, and a plan made
// for particular values, or from the statistics of a table that has just been
// filled, would now and then read everything.
var Dialect = &sql.Dialect{
	Name:  "postgres",
	Begin: "BEGIN ISOLATION LEVEL READ COMMITTED",
	Settings: map[string]string{
		"plan_cache_mode": "force_generic_plan",
		"enable_seqscan":  "off", "enable_hashjoin": "off", "enable_mergejoin": "off",
		"enable_bitmapscan": "off", "enable_sort": "on", "jit": "off",
		"default_transaction_isolation": "read committed",
	},
	Migrations: migrations,
	Through: func(i sql.Index) (from, store string) {
		return "pemba_relationship", map[sql.Index]string{
			sql.ObjectIndex: "store = $1", sql.SubjectIndex: "- store = - $1::bigint", sql.ClosedIndex: "store + 0 = $1",
		}[i]
	},
	Many: func(p sql.Part, from string) string {
		return `SELECT q.n, r.* FROM ` + from + ` CROSS JOIN LATERAL
			(SELECT ` + sql.RowColumns + ` FROM ` + p.From + ` WHERE ` + p.Where + ` ORDER BY ` + p.Order + ` LIMIT $3) AS r`
	},
	EachIdentity: true,
	CloseRows: `WITH old AS MATERIALIZED (
			SELECT r.ctid AS row, k.deleted
			FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[])
				AS k (object_type, object_id, relation, subject_type, subject_id, subject_relation, deleted)
			CROSS JOIN LATERAL (
				SELECT ctid FROM pemba_relationship
				WHERE store = $1 AND object_type = k.object_type AND object_id = k.object_id AND relation = k.relation
					AND subject_type = k.subject_type AND subject_id = k.subject_id AND subject_relation = k.subject_relation
					AND deleted = 9223372036854775807
				LIMIT 1) AS r)
		UPDATE pemba_relationship AS r SET deleted = old.deleted FROM old WHERE r.ctid = old.row`,
	CopyRows: 500,
	Announce: announce,
	Listen:   listen,
	Execute: func(ctx context.Context, c *pgx.Conn, f func(pgx.Tx) error) error {
		return pgx.BeginTxFunc(ctx, c, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, f)
	},
	// A deadlock or a serialization failure: the transaction was rolled back.
	Retry:     func(p *pgconn.PgError) bool { return p.Code == "40001" || p.Code == "40P01" },
	Ambiguous: func(*pgconn.PgError) bool { return false },
}

// Open connects to a migrated database at uri, postgres://….
func Open(ctx context.Context, uri string, o sql.Options) (*sql.Log, error) {
	return sql.Open(ctx, Dialect, uri, o)
}

// channel carries the ids of stores that have a new head.
const channel = "pemba_head"

// announce notifies after the commit, not in it: a notification inside a
// transaction takes a lock that all stores would share.
func announce(ctx context.Context, c *pgx.Conn, stores []datastore.StoreID) error {
	var text strings.Builder
	for i, s := range stores {
		if i > 0 {
			text.WriteByte(' ')
		}
		text.WriteString(strconv.FormatUint(uint64(s), 10))
		if text.Len() > 7000 { // a notification holds 8,000 bytes
			if _, err := c.Exec(ctx, "SELECT pg_notify($1, $2)", channel, text.String()); err != nil {
				return err
			}
			text.Reset()
		}
	}
	_, err := c.Exec(ctx, "SELECT pg_notify($1, $2)", channel, text.String())
	return err
}

func listen(ctx context.Context, c *pgx.Conn, ready func(), hint func(datastore.StoreID)) error {
	if _, err := c.Exec(ctx, "LISTEN "+channel); err != nil {
		return err
	}
	ready()
	for {
		n, err := c.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		for _, text := range strings.Fields(n.Payload) {
			id, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				return fmt.Errorf("a notification on %s says %q: %w", channel, n.Payload, err)
			}
			hint(datastore.StoreID(id))
		}
	}
}

// Texts are compared by their bytes, as package tuple orders them. Each index of
// pemba_relationship begins with the store in a form of its own, so that a
// statement chooses its index by how it names the store.
var migrations = []sql.Migration{{
	Name: "stores, history and relationships",
	Statements: []string{
		`CREATE TABLE pemba_head (
			store bigint PRIMARY KEY,
			incarnation bytea NOT NULL,
			revision bigint NOT NULL,
			floor bigint NOT NULL,
			hash bytea NOT NULL,
			time bigint NOT NULL,
			anchor_revision bigint NOT NULL,
			anchor_hash bytea NOT NULL,
			dropped boolean NOT NULL
		) WITH (fillfactor = 50)`,
		`CREATE TABLE pemba_change (
			store bigint NOT NULL,
			revision bigint NOT NULL,
			part bigint NOT NULL,
			parts bigint,
			request_id bytea,
			header bytea,
			payload bytea NOT NULL,
			hash bytea,
			PRIMARY KEY (store, revision, part)
		)`,
		`CREATE UNIQUE INDEX pemba_change_request ON pemba_change (store, request_id) WHERE request_id IS NOT NULL`,
		`CREATE TABLE pemba_relationship (
			store bigint NOT NULL,
			object_type text COLLATE "C" NOT NULL,
			object_id text COLLATE "C" NOT NULL,
			relation text COLLATE "C" NOT NULL,
			subject_type text COLLATE "C" NOT NULL,
			subject_id text COLLATE "C" NOT NULL,
			subject_relation text COLLATE "C" NOT NULL,
			created bigint NOT NULL,
			deleted bigint NOT NULL,
			caveat text COLLATE "C" NOT NULL,
			context text COLLATE "C" NOT NULL,
			expiration bigint,
			PRIMARY KEY (store, object_type, object_id, relation, subject_type, subject_id, subject_relation, created)
		)`,
		`CREATE INDEX pemba_relationship_subject ON pemba_relationship
			((- store), subject_type, subject_id, subject_relation, object_type, object_id, relation, created)`,
		`CREATE INDEX pemba_relationship_deleted ON pemba_relationship ((store + 0), deleted) WHERE deleted < 9223372036854775807`,
		`CREATE TABLE pemba_name (
			store bigint NOT NULL,
			id bigint NOT NULL,
			name text COLLATE "C" NOT NULL,
			PRIMARY KEY (store, id)
		)`,
		`CREATE TABLE pemba_schema (
			store bigint NOT NULL,
			revision bigint NOT NULL,
			text bytea NOT NULL,
			hash bytea NOT NULL,
			previous_hash bytea NOT NULL,
			names text[] NOT NULL,
			PRIMARY KEY (store, revision)
		)`,
	},
}, {
	Name: "leases",
	Statements: []string{
		`CREATE TABLE pemba_lease (
			name text PRIMARY KEY,
			holder text NOT NULL,
			until timestamptz NOT NULL
		)`,
	},
}, {
	Name: "users and groups",
	Statements: []string{
		`CREATE TABLE pemba_identity (
			store bigint NOT NULL,
			type text COLLATE "C" NOT NULL,
			id text COLLATE "C" NOT NULL,
			revision bigint NOT NULL,
			kind bigint NOT NULL,
			state bigint NOT NULL,
			salt bytea NOT NULL,
			attributes bytea NOT NULL,
			PRIMARY KEY (store, type, id, revision)
		)`,
		`CREATE INDEX pemba_identity_withheld ON pemba_identity (store, type, id) WHERE state > 1`,
		`CREATE TABLE pemba_identity_key (
			store bigint NOT NULL,
			type text COLLATE "C" NOT NULL,
			name text COLLATE "C" NOT NULL,
			value text COLLATE "C" NOT NULL,
			id text COLLATE "C" NOT NULL,
			PRIMARY KEY (store, type, name, value, id)
		)`,
		`CREATE INDEX pemba_identity_key_id ON pemba_identity_key (store, type, id)`,
	},
}, {
	// The identities that have a key are found by the primary key alone: with an
	// index that begins alike PostgreSQL, while it knows nothing of the table, reads
	// all identities of the type.
	Name: "keys of users and groups",
	Statements: []string{
		`DROP INDEX pemba_identity_key_id`,
		`CREATE INDEX pemba_identity_key_id ON pemba_identity_key (id, type, store)`,
	},
}}
