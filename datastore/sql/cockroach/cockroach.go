// Package cockroach is the Log in CockroachDB.
package cockroach

import (
	"context"
	"encoding/json"
	"fmt"

	crdbpgx "github.com/cockroachdb/cockroach-go/v2/crdb/crdbpgxv5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/sql"
)

// Dialect is CockroachDB's. Everything is SERIALIZABLE, and anything, reads too,
// may have to be tried again.
var Dialect = &sql.Dialect{
	Name:       "cockroachdb",
	Begin:      "BEGIN ISOLATION LEVEL SERIALIZABLE",
	Settings:   map[string]string{"default_transaction_isolation": "serializable"},
	Migrations: migrations,
	Through: func(i sql.Index) (from, store string) {
		return "pemba_relationship@" + map[sql.Index]string{
			sql.ObjectIndex: "pemba_relationship_pkey", sql.SubjectIndex: "pemba_relationship_subject", sql.ClosedIndex: "pemba_relationship_deleted",
		}[i], "store = $1"
	},
	// A limit for each query would be planned anew for each.
	Many: func(p sql.Part, from string) string {
		if !p.Exact {
			return ""
		}
		return `SELECT n, ` + sql.RowColumns + ` FROM ` + from + ` INNER LOOKUP JOIN ` + p.From + ` ON ` + p.Where + ` WHERE $3::bigint > 0`
	},
	ReadsWait: true,
	CloseRows: `UPDATE pemba_relationship AS r SET deleted = k.deleted
		FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[])
			AS k (object_type, object_id, relation, subject_type, subject_id, subject_relation, deleted)
		WHERE r.store = $1 AND r.object_type = k.object_type AND r.object_id = k.object_id AND r.relation = k.relation
			AND r.subject_type = k.subject_type AND r.subject_id = k.subject_id AND r.subject_relation = k.subject_relation
			AND r.deleted = 9223372036854775807`,
	Listen: listen,
	Execute: func(ctx context.Context, c *pgx.Conn, f func(pgx.Tx) error) error {
		return crdbpgx.ExecuteTx(ctx, c, pgx.TxOptions{IsoLevel: pgx.Serializable}, f)
	},
	Retry:     func(p *pgconn.PgError) bool { return p.Code == "40001" },
	Ambiguous: func(p *pgconn.PgError) bool { return p.Code == "40003" },
}

// listen follows the heads by a changefeed, which delivers a new one moments after
// its commit. Where rangefeeds are off it fails, and polling has to do.
func listen(ctx context.Context, c *pgx.Conn, ready func(), hint func(datastore.StoreID)) error {
	// The query returns with its first row only: resolved gives one at once.
	rows, err := c.Query(ctx, `CREATE CHANGEFEED FOR TABLE pemba_head WITH no_initial_scan, resolved = '1s', min_checkpoint_frequency = '1s', envelope = 'key_only'`, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return err
	}
	defer rows.Close()
	for first := true; rows.Next(); first = false {
		if first {
			ready()
		}
		var table *string
		var key, value []byte
		if err := rows.Scan(&table, &key, &value); err != nil {
			return err
		}
		if table == nil {
			continue // resolved
		}
		var ids []uint64
		if err := json.Unmarshal(key, &ids); err != nil || len(ids) != 1 {
			return fmt.Errorf("the changefeed gives the key %q", key)
		}
		hint(datastore.StoreID(ids[0]))
	}
	return rows.Err()
}

// Open connects to a migrated database at uri, cockroachdb://….
func Open(ctx context.Context, uri string, o sql.Options) (*sql.Log, error) {
	return sql.Open(ctx, Dialect, uri, o)
}

// Texts are compared by their bytes. The index by subject stores what a scan
// needs, so that it need not look up each row.
var migrations = []sql.Migration{{
	Name: "stores, history and relationships",
	Statements: []string{
		`CREATE TABLE pemba_head (
			store INT8 PRIMARY KEY,
			incarnation BYTES NOT NULL,
			revision INT8 NOT NULL,
			floor INT8 NOT NULL,
			hash BYTES NOT NULL,
			time INT8 NOT NULL,
			anchor_revision INT8 NOT NULL,
			anchor_hash BYTES NOT NULL,
			dropped BOOL NOT NULL
		)`,
		`CREATE TABLE pemba_change (
			store INT8 NOT NULL,
			revision INT8 NOT NULL,
			part INT8 NOT NULL,
			parts INT8,
			request_id BYTES,
			header BYTES,
			payload BYTES NOT NULL,
			hash BYTES,
			PRIMARY KEY (store, revision, part),
			UNIQUE INDEX pemba_change_request (store, request_id) WHERE request_id IS NOT NULL
		)`,
		`CREATE TABLE pemba_relationship (
			store INT8 NOT NULL,
			object_type STRING NOT NULL,
			object_id STRING NOT NULL,
			relation STRING NOT NULL,
			subject_type STRING NOT NULL,
			subject_id STRING NOT NULL,
			subject_relation STRING NOT NULL,
			created INT8 NOT NULL,
			deleted INT8 NOT NULL,
			caveat STRING NOT NULL,
			context STRING NOT NULL,
			expiration INT8,
			PRIMARY KEY (store, object_type, object_id, relation, subject_type, subject_id, subject_relation, created),
			INDEX pemba_relationship_subject (store, subject_type, subject_id, subject_relation, object_type, object_id, relation, created)
				STORING (deleted, caveat, context, expiration),
			INDEX pemba_relationship_deleted (store, deleted) WHERE deleted < 9223372036854775807
		)`,
		`CREATE TABLE pemba_name (
			store INT8 NOT NULL,
			id INT8 NOT NULL,
			name STRING NOT NULL,
			PRIMARY KEY (store, id)
		)`,
		`CREATE TABLE pemba_schema (
			store INT8 NOT NULL,
			revision INT8 NOT NULL,
			text BYTES NOT NULL,
			hash BYTES NOT NULL,
			previous_hash BYTES NOT NULL,
			names STRING[] NOT NULL,
			PRIMARY KEY (store, revision)
		)`,
	},
}, {
	Name: "leases",
	Statements: []string{
		`CREATE TABLE pemba_lease (
			name STRING PRIMARY KEY,
			holder STRING NOT NULL,
			until TIMESTAMPTZ NOT NULL
		)`,
	},
}, {
	Name: "users and groups",
	Statements: []string{
		`CREATE TABLE pemba_identity (
			store INT8 NOT NULL,
			type STRING NOT NULL,
			id STRING NOT NULL,
			revision INT8 NOT NULL,
			kind INT8 NOT NULL,
			state INT8 NOT NULL,
			salt BYTES NOT NULL,
			attributes BYTES NOT NULL,
			PRIMARY KEY (store, type, id, revision),
			INDEX pemba_identity_withheld (store, type, id) WHERE state > 1
		)`,
		`CREATE TABLE pemba_identity_key (
			store INT8 NOT NULL,
			type STRING NOT NULL,
			name STRING NOT NULL,
			value STRING NOT NULL,
			id STRING NOT NULL,
			PRIMARY KEY (store, type, name, value, id),
			INDEX pemba_identity_key_id (store, type, id)
		)`,
	},
}}
