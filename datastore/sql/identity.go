package sql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// identityPage is how many identities one statement gives.
const identityPage = 1000

// erasure is that of an object's attributes up to a revision.
type erasure struct {
	object tuple.Object
	at     datastore.Revision
}

const insertIdentities = `INSERT INTO pemba_identity (store, type, id, revision, kind, state, salt, attributes)
	SELECT $1::bigint, * FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bytea[], $8::bytea[])`

const deleteIdentityKeys = `DELETE FROM pemba_identity_key WHERE store = $1 AND (type, id) IN (SELECT * FROM unnest($2::text[], $3::text[]))`

const deleteIdentityKeysOf = `DELETE FROM pemba_identity_key WHERE store = $1 AND type = $2 AND id = $3`

const insertIdentityKeys = `INSERT INTO pemba_identity_key (store, type, id, name, value)
	SELECT $1::bigint, * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[])`

const eraseIdentity = `UPDATE pemba_identity SET salt = '', attributes = '' WHERE store = $1 AND type = $2 AND id = $3 AND revision <= $4`

// columns are texts that stand in arrays, a column each.
type columns [][]string

func (c columns) add(values ...string) {
	for i, v := range values {
		c[i] = append(c[i], v)
	}
}

// queueIdentities puts the statements that write users and groups into a batch.
func (w *writes) queueIdentities(batch *pgx.Batch, d *Dialect, store int64) {
	newest := map[tuple.Object]*datastore.Identity{}
	objects := columns{nil, nil}
	var revisions, kinds, states []int64
	var salts, attributes [][]byte
	for n := range w.identities {
		i := &w.identities[n]
		newest[i.Object] = i
		objects.add(i.Object.Type, i.Object.ID)
		revisions, kinds, states = append(revisions, int64(i.Revision)), append(kinds, int64(i.Kind)), append(states, int64(i.State))
		salts, attributes = append(salts, append([]byte{}, i.Salt...)), append(attributes, []byte(i.Attributes))
	}
	if len(newest) > 0 {
		batch.Queue(insertIdentities, store, objects[0], objects[1], revisions, kinds, states, salts, attributes)
	}
	for _, e := range w.erased {
		batch.Queue(eraseIdentity, store, e.object.Type, e.object.ID, int64(e.at))
		if i := newest[e.object]; i == nil || i.Revision <= e.at {
			newest[e.object] = &datastore.Identity{Object: e.object}
		}
	}
	if len(newest) == 0 {
		return
	}
	found, keys := columns{nil, nil}, columns{nil, nil, nil, nil}
	for o, i := range newest {
		switch {
		case w.fresh[o]:
		case d.EachIdentity:
			batch.Queue(deleteIdentityKeysOf, store, o.Type, o.ID)
		default:
			found.add(o.Type, o.ID)
		}
		for _, k := range i.Keys {
			keys.add(o.Type, o.ID, k.Name, k.Value)
		}
	}
	if len(found[0]) > 0 {
		batch.Queue(deleteIdentityKeys, store, found[0], found[1])
	}
	if len(keys[0]) > 0 {
		batch.Queue(insertIdentityKeys, store, keys[0], keys[1], keys[2], keys[3])
	}
}

// identityQuery is the statement for a page of q behind an object.
func identityQuery(d *Dialect, store datastore.StoreID, at datastore.Revision, q *datastore.IdentityQuery, after tuple.Object) (text string, args []any) {
	if len(q.Objects) > 1 && d.EachIdentity && !q.Versions && !q.Withheld && q.Type == "" && q.After == "" {
		types, ids := objectColumns(q.Objects)
		return selectEach + fmt.Sprintf(" LIMIT %d", pageOf(q)), []any{int64(store), types, ids, int64(at), after.Type, after.ID}
	}
	args = []any{int64(store)}
	arg := func(v any) string {
		args = append(args, v)
		return fmt.Sprintf("$%d", len(args))
	}
	where := []string{"store = $1"}
	switch {
	case len(q.Objects) == 1: // by far the most frequent: the primary key, whatever PostgreSQL knows of the table
		where = append(where, "type = "+arg(q.Objects[0].Type), "id = "+arg(q.Objects[0].ID))
	case len(q.Objects) > 0:
		types, ids := objectColumns(q.Objects)
		where = append(where, "(type, id) IN (SELECT * FROM unnest("+arg(types)+"::text[], "+arg(ids)+"::text[]))")
	case q.Withheld:
		where = append(where, "(type, id) IN (SELECT type, id FROM pemba_identity WHERE store = $1 AND state > 1)")
	}
	if q.Type != "" {
		where = append(where, "type = "+arg(q.Type), "id > "+arg(max(q.After, after.ID)))
	} else if len(q.Objects) != 1 || after != (tuple.Object{}) {
		where = append(where, "(type, id) > ("+arg(after.Type)+", "+arg(after.ID)+")")
	}
	const columns = identityColumns
	if q.Versions {
		where = append(where, "(type, id) IN (SELECT DISTINCT type, id FROM pemba_identity WHERE "+strings.Join(where, " AND ")+
			fmt.Sprintf(" ORDER BY type, id LIMIT %d)", identityPage))
		return "SELECT " + columns + " FROM pemba_identity WHERE " + strings.Join(where, " AND ") + " ORDER BY type, id, revision", args
	}
	where = append(where, "revision <= "+arg(int64(at)))
	text = "SELECT " + columns + " FROM (SELECT DISTINCT ON (type, id) " + columns + " FROM pemba_identity WHERE " +
		strings.Join(where, " AND ") + " ORDER BY type, id, revision DESC) AS i"
	if q.Withheld {
		text += " WHERE state > 1"
	}
	return text + fmt.Sprintf(" ORDER BY type, id LIMIT %d", pageOf(q)), args
}

const identityColumns = "type, id, revision, kind, state, salt, attributes"

// selectEach gives the newest versions of many identities, each by the primary key.
const selectEach = `SELECT i.* FROM (SELECT DISTINCT * FROM unnest($2::text[], $3::text[])) AS w (type, id)
	CROSS JOIN LATERAL (SELECT ` + identityColumns + ` FROM pemba_identity AS p
		WHERE p.store = $1 AND p.type = w.type AND p.id = w.id AND p.revision <= $4 ORDER BY p.revision DESC LIMIT 1) AS i
	WHERE (i.type, i.id) > ($5, $6) ORDER BY i.type, i.id`

// pageOf is how many identities a statement gives.
func pageOf(q *datastore.IdentityQuery) int {
	if q.Limit > 0 {
		return min(identityPage, q.Limit)
	}
	return identityPage
}

// objectColumns are the types and the ids of objects.
func objectColumns(objects []tuple.Object) (types, ids []string) {
	for _, o := range objects {
		types, ids = append(types, o.Type), append(ids, o.ID)
	}
	return types, ids
}

// selectHolders and selectEachHolder give the identities that have keys; the
// second looks each key up by the primary key. What is no part of a lateral query
// that ends in OFFSET is not mixed into its plan.
const (
	selectHolders = `SELECT name, value, id FROM pemba_identity_key
		WHERE store = $1 AND type = $2 AND (name, value) IN (SELECT * FROM unnest($3::text[], $4::text[]))`
	selectEachHolder = `SELECT k.* FROM unnest($3::text[], $4::text[]) AS w (name, value)
		CROSS JOIN LATERAL (SELECT name, value, id FROM pemba_identity_key AS p
			WHERE p.store = $1 AND p.type = $2 AND p.name = w.name AND p.value = w.value OFFSET 0) AS k`
)

// Holders implements [datastore.Log].
func (l *Log) Holders(ctx context.Context, store datastore.StoreID, typ string, keys []datastore.IdentityKey, f func(datastore.IdentityKey, string)) error {
	if len(keys) == 0 {
		return nil
	}
	text := selectHolders
	if l.dialect.EachIdentity {
		text = selectEachHolder
	}
	asked := columns{nil, nil}
	for _, k := range keys {
		asked.add(k.Name, k.Value)
	}
	type held struct{ name, value, id string }
	var found []held
	if err := l.readStore(ctx, store, func(c *pgxpool.Conn) error {
		rows, err := c.Query(ctx, text, int64(store), typ, asked[0], asked[1])
		if err != nil {
			return err
		}
		found, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (h held, err error) {
			return h, r.Scan(&h.name, &h.value, &h.id)
		})
		return err
	}); err != nil {
		return err
	}
	for _, h := range found {
		f(datastore.IdentityKey{Name: h.name, Value: h.value}, h.id)
	}
	return nil
}

// Identities implements [datastore.Log], a page in a statement.
func (l *Log) Identities(ctx context.Context, store datastore.StoreID, at datastore.Revision, q datastore.IdentityQuery, f func(datastore.Identity) bool) error {
	after, given := tuple.Object{}, 0
	for {
		var found []datastore.Identity
		page := 0
		if err := l.readStore(ctx, store, func(c *pgxpool.Conn) (err error) {
			h, err := scanHead(c.QueryRow(ctx, selectHead, int64(store)), store)
			if err != nil {
				return err
			}
			if err := datastore.Readable(h.Head, at); err != nil && !q.Versions {
				return ours(err)
			}
			if q.Key != nil {
				found, page, err = readKeyed(ctx, c, l.dialect, store, at, q, &after)
				return err
			}
			found, err = readIdentities(ctx, c, l.dialect, store, at, &q, after)
			if page = len(found); page > 0 {
				after = found[page-1].Object
			}
			return err
		}); err != nil {
			return err
		}
		for _, i := range found {
			if given++; !f(i) || given == q.Limit && !q.Versions {
				return nil
			}
		}
		if page < identityPage {
			return nil
		}
	}
}

const (
	selectKeyed      = `SELECT id FROM pemba_identity_key WHERE store = $1 AND type = $2 AND name = $3 AND value = $4 ORDER BY id LIMIT $5`
	selectKeyedAfter = `SELECT id FROM pemba_identity_key WHERE store = $1 AND type = $2 AND name = $3 AND value = $4 AND id > $6 ORDER BY id LIMIT $5`
)

// readKeyed reads a page of what a key finds behind an object, and sets that to the
// last of it; page is how many the key found. The ids are read first, on their own:
// with both in one statement PostgreSQL, while it knows nothing of how many there
// are, reads every identity of the type.
func readKeyed(ctx context.Context, c querier, d *Dialect, store datastore.StoreID, at datastore.Revision, q datastore.IdentityQuery, after *tuple.Object) (found []datastore.Identity, page int, err error) {
	text, args := selectKeyed, []any{int64(store), q.Type, q.Key.Name, q.Key.Value, identityPage}
	if id := max(q.After, after.ID); id != "" {
		text, args = selectKeyedAfter, append(args, id)
	}
	rows, err := c.Query(ctx, text, args...)
	if err != nil {
		return nil, 0, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(ids) == 0 {
		return nil, 0, err
	}
	for _, id := range ids {
		q.Objects = append(q.Objects, tuple.Object{Type: q.Type, ID: id})
	}
	*after = q.Objects[len(ids)-1]
	q.Limit, q.Type, q.After = 0, "", ""
	found, err = readIdentities(ctx, c, d, store, at, &q, tuple.Object{})
	return found, len(ids), err
}

func readIdentities(ctx context.Context, c querier, d *Dialect, store datastore.StoreID, at datastore.Revision, q *datastore.IdentityQuery, after tuple.Object) ([]datastore.Identity, error) {
	text, args := identityQuery(d, store, at, q, after)
	rows, err := c.Query(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	found, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (i datastore.Identity, err error) {
		var revision, kind, state int64
		var attributes []byte
		err = r.Scan(&i.Object.Type, &i.Object.ID, &revision, &kind, &state, &i.Salt, &attributes)
		i.Revision, i.Kind, i.State, i.Attributes = datastore.Revision(revision), datastore.IdentityKind(kind), datastore.IdentityState(state), string(attributes)
		if len(i.Salt) == 0 {
			i.Salt = nil
		}
		return i, err
	})
	return slices.Clip(found), err
}
