package sql

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// catchUpPage bounds the changes that are read together with the head's lock;
// what a writer is further behind comes in further statements.
const catchUpPage = 200

// Update implements [datastore.Log] in two round trips: one begins, locks the
// head and reads what follows; one writes and commits.
func (l *Log) Update(ctx context.Context, store datastore.StoreID, have datastore.Head, judge func(datastore.Tail) ([]datastore.Entry, error)) (head datastore.Head, err error) {
	c, err := l.acquire(ctx, l.writes)
	if err != nil {
		return head, err
	}
	defer c.Release()
	err = l.again(ctx, func() error {
		u := update{log: l, conn: c, store: store}
		head, err = u.run(ctx, have, judge)
		return err
	})
	if err != nil {
		return datastore.Head{}, l.named(ctx, err)
	}
	return head, nil
}

// update is one transaction that appends to a history.
type update struct {
	log   *Log
	conn  *pgxpool.Conn
	store datastore.StoreID
	head  headRow
	lost  bool // a read of the judge failed: its error is the database's
}

func (u *update) run(ctx context.Context, have datastore.Head, judge func(datastore.Tail) ([]datastore.Entry, error)) (datastore.Head, error) {
	tail, err := u.begin(ctx, have)
	if err != nil {
		return datastore.Head{}, u.rollback(ctx, err)
	}
	entries, err := u.judged(tail, judge)
	if err != nil && !u.lost {
		err = ours(err)
	}
	if err != nil {
		return datastore.Head{}, u.rollback(ctx, err)
	}
	resolving := u.log.isUnresolved(u.store)
	if len(entries) == 0 && !resolving {
		return tail.Head, u.rollback(ctx, nil)
	}
	w, err := gather(u.head.Head, entries)
	if err != nil {
		return datastore.Head{}, u.rollback(ctx, ours(err))
	}
	if err := u.commit(ctx, w); err != nil {
		return datastore.Head{}, err
	}
	u.log.setUnresolved(u.store, false)
	if len(entries) > 0 {
		u.log.announcements.add(u.store)
	}
	return w.head, nil
}

// judged runs the judge. Where reads of the head would wait for its lock, what it
// reads goes through this transaction.
func (u *update) judged(tail datastore.Tail, judge func(datastore.Tail) ([]datastore.Entry, error)) ([]datastore.Entry, error) {
	if !u.log.dialect.ReadsWait {
		return judge(tail)
	}
	h, release := u.log.hold(u.store, u.conn)
	defer release()
	request := tail.Request
	tail.Request = func(id string) (datastore.Entry, bool, error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		return request(id)
	}
	return judge(tail)
}

func (l *Log) isUnresolved(store datastore.StoreID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unresolved[store]
}

func (l *Log) setUnresolved(store datastore.StoreID, is bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if is {
		l.unresolved[store] = true
	} else {
		delete(l.unresolved, store)
	}
}

// begin locks the head and reads what follows have.
func (u *update) begin(ctx context.Context, have datastore.Head) (tail datastore.Tail, err error) {
	limit, cancel := context.WithTimeout(ctx, u.log.options.Commit)
	defer cancel()
	var batch pgx.Batch
	batch.Queue(u.log.dialect.Begin)
	batch.Queue(lockHead, int64(u.store))
	batch.Queue(`SELECT hash FROM pemba_change WHERE store = $1 AND revision = $2 AND part = 0`, int64(u.store), int64(have.Revision))
	batch.Queue(selectAfter, int64(u.store), int64(have.Revision), catchUpPage)
	results := u.conn.SendBatch(limit, &batch)
	defer results.Close()
	if _, err := results.Exec(); err != nil {
		return tail, err
	}
	if u.head, err = scanHead(results.QueryRow(), u.store); err != nil {
		return tail, err
	}
	hash := u.head.anchor.Hash
	if err := u.hashAt(results.QueryRow(), have, &hash); err != nil {
		return tail, err
	}
	if err := u.checkLine(have, hash); err != nil {
		return tail, err
	}
	if tail.Changes, err = u.catchUp(limit, results, have.Revision); err != nil {
		return tail, err
	}
	tail.Head = u.head.Head
	tail.Request = func(id string) (datastore.Entry, bool, error) { return u.request(ctx, id) }
	return tail, nil
}

// hashAt reads the hash of the change at have's revision, where it is kept.
func (u *update) hashAt(row pgx.Row, have datastore.Head, hash *datastore.Hash) error {
	var b []byte
	err := row.Scan(&b)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return err
	case have.Revision <= u.head.anchor.Revision || len(b) != len(hash):
		return nil
	}
	*hash = datastore.Hash(b)
	return nil
}

// checkLine refuses a head that is not on the store's line.
func (u *update) checkLine(have datastore.Head, hash datastore.Hash) error {
	forked := ours(fmt.Errorf("revision %d: %w", have.Revision, datastore.ErrForked))
	switch {
	case have.Incarnation != u.head.Incarnation || have.Revision > u.head.Revision:
		return forked
	case have.Revision < u.head.anchor.Revision:
		return ours(datastore.Compacted(have.Revision+1, u.head.anchor.Revision+1))
	case hash != have.Hash:
		return forked
	}
	return nil
}

// catchUp reads the changes up to the head, the first page from the batch that
// holds it.
func (u *update) catchUp(ctx context.Context, results pgx.BatchResults, from datastore.Revision) (changes []datastore.Entry, err error) {
	var q querier = batched{results}
	for first := true; first || from < u.head.Revision; first = false {
		_, page, err := after(ctx, q, u.store, from, catchUpPage)
		if err != nil {
			return nil, err
		}
		if q == (batched{results}) {
			if err := results.Close(); err != nil {
				return nil, err
			}
			q = u.conn
		}
		if len(page) == 0 {
			return changes, nil
		}
		changes = append(changes, page...)
		from = page[len(page)-1].Revision
	}
	return changes, nil
}

// batched gives the next result of a batch for a query.
type batched struct{ pgx.BatchResults }

func (b batched) Query(context.Context, string, ...any) (pgx.Rows, error) {
	return b.BatchResults.Query()
}

func (u *update) request(ctx context.Context, id string) (e datastore.Entry, found bool, err error) {
	if id == "" {
		return e, false, nil
	}
	entries, err := changes(ctx, u.conn, u.store, selectRequest, int64(u.store), []byte(id))
	u.lost = u.lost || err != nil
	if err != nil || len(entries) == 0 {
		return e, false, err
	}
	return entries[0], true, nil
}

// rollback ends the transaction without a trace. A connection on which that
// fails is closed, and the database does it.
func (u *update) rollback(ctx context.Context, err error) error {
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), u.log.options.Commit)
	defer cancel()
	if conn := u.conn.Conn(); !conn.IsClosed() && conn.PgConn().TxStatus() != 'I' {
		if _, failed := conn.Exec(limit, "ROLLBACK"); failed != nil {
			conn.Close(limit)
		}
	}
	return err
}

// writes is what a transaction writes, in the form of its statements.
type writes struct {
	head       datastore.Head
	changes    []changePart
	closed     []closing
	inserted   []inserted
	schemas    []datastore.Entry
	names      []string
	schemaOps  []*datastore.SchemaText
	identities []datastore.Identity
	// fresh are identities that had no keys before; of those that are not among them
	// keys are taken away.
	fresh  map[tuple.Object]bool
	erased []erasure

	open   map[tuple.Key]int  // keys whose newest row is inserted here, and where
	closes map[tuple.Key]bool // keys whose row of before is closed here
}

type changePart struct {
	revision, part int64
	parts          *int64
	requestID      []byte
	header         []byte
	payload        []byte
	hash           []byte
}

type closing struct {
	key tuple.Key
	at  datastore.Revision
}

type inserted struct {
	datastore.Row
	deleted int64
}

// gather works out what entries come to: of a key that several of them touch,
// each version is a row.
func gather(head datastore.Head, entries []datastore.Entry) (*writes, error) {
	w := &writes{head: head, open: map[tuple.Key]int{}, closes: map[tuple.Key]bool{}, fresh: map[tuple.Object]bool{}}
	for _, e := range entries {
		if e.Revision != w.head.Revision+1 {
			return nil, fmt.Errorf("change %d does not follow the head %d", e.Revision, w.head.Revision)
		}
		w.change(e)
		for _, o := range e.Operations {
			switch o.Kind {
			case datastore.Create, datastore.Touch:
				if o.Previous != nil {
					w.close(o.Relationship.Key, e.Revision)
				}
				w.open[o.Relationship.Key] = len(w.inserted)
				w.inserted = append(w.inserted, inserted{datastore.Row{Relationship: o.Relationship, Created: e.Revision}, live})
			case datastore.Delete, datastore.Expire:
				w.close(o.Relationship.Key, e.Revision)
			case datastore.ApplySchema:
				w.schemas = append(w.schemas, e)
				w.schemaOps = append(w.schemaOps, o.Schema)
				w.names = append(w.names, o.Schema.Names...)
			case datastore.PutIdentity:
				if _, known := w.fresh[o.Identity.Object]; !known {
					w.fresh[o.Identity.Object] = o.Identity.Before == 0 || o.Identity.Before == datastore.Removed
				}
			case datastore.Erase:
				w.erased = append(w.erased, erasure{*o.Erased, e.Revision})
			}
		}
		w.identities = append(w.identities, e.Identities...)
		w.head.Revision, w.head.Hash, w.head.Time = e.Revision, e.Hash, e.Time
	}
	return w, nil
}

// close ends the live row of a key: one inserted here, or one of before.
func (w *writes) close(k tuple.Key, at datastore.Revision) {
	if i, ok := w.open[k]; ok {
		w.inserted[i].deleted = int64(at)
		delete(w.open, k)
	} else if !w.closes[k] {
		w.closed = append(w.closed, closing{k, at})
	}
	w.closes[k] = true
}

// change splits a payload over as many rows as it needs.
func (w *writes) change(e datastore.Entry) {
	parts := int64(max(1, (len(e.Payload)+partSize-1)/partSize))
	for i := range parts {
		c := changePart{revision: int64(e.Revision), part: i, payload: e.Payload[i*partSize : min(len(e.Payload), int(i+1)*partSize)]}
		if i == 0 {
			c.parts, c.header, c.hash = &parts, e.Header, e.Hash[:]
			if e.RequestID != "" {
				c.requestID = []byte(e.RequestID)
			}
		}
		if c.payload == nil {
			c.payload = []byte{}
		}
		w.changes = append(w.changes, c)
	}
}

const insertChange = `INSERT INTO pemba_change (store, revision, part, parts, request_id, header, payload, hash)
	SELECT $1::bigint, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bytea[], $7::bytea[], $8::bytea[])`

const insertRows = `INSERT INTO pemba_relationship (store, ` + keyColumns + `, created, deleted, caveat, context, expiration)
	SELECT $1::bigint, * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
		$8::bigint[], $9::bigint[], $10::text[], $11::text[], $12::bigint[])`

const insertNames = `INSERT INTO pemba_name (store, id, name)
	SELECT $1::bigint, (SELECT coalesce(max(id), 0) FROM pemba_name WHERE store = $1) + n.i, n.name FROM unnest($2::bigint[], $3::text[]) AS n (i, name)`

const insertSchema = `INSERT INTO pemba_schema (store, revision, text, hash, previous_hash, names) VALUES ($1, $2, $3, $4, $5, $6)`

const updateHead = `UPDATE pemba_head SET revision = $2, hash = $3, time = $4 WHERE store = $1`

// queue puts the statements into a batch.
func (w *writes) queue(d *Dialect, batch *pgx.Batch, store datastore.StoreID) {
	id := int64(store)
	if len(w.changes) > 0 {
		batch.Queue(insertChange, append([]any{id}, changeArrays(w.changes)...)...)
	}
	if len(w.closed) > 0 {
		keys, deleted := newKeys(len(w.closed)), make([]int64, len(w.closed))
		for i, c := range w.closed {
			keys.set(i, c.key)
			deleted[i] = int64(c.at)
		}
		batch.Queue(d.CloseRows, append(keys.args(id), deleted)...)
	}
	if len(w.inserted) > 0 && !w.copies(d) {
		batch.Queue(insertRows, rowArrays(id, w.inserted)...)
	}
	if len(w.names) > 0 {
		numbers := make([]int64, len(w.names))
		for i := range numbers {
			numbers[i] = int64(i) + 1
		}
		batch.Queue(insertNames, id, numbers, w.names)
	}
	for i, e := range w.schemas {
		s := w.schemaOps[i]
		batch.Queue(insertSchema, id, int64(e.Revision), []byte(s.Text), s.Hash[:], s.PreviousHash[:], append([]string{}, s.Names...))
	}
	w.queueIdentities(batch, d, id)
	batch.Queue(updateHead, id, int64(w.head.Revision), w.head.Hash[:], w.head.Time.UnixMicro())
}

func changeArrays(parts []changePart) []any {
	n := len(parts)
	revision, part, count := make([]int64, n), make([]int64, n), make([]*int64, n)
	requestID, header, payload, hash := make([][]byte, n), make([][]byte, n), make([][]byte, n), make([][]byte, n)
	for i, c := range parts {
		revision[i], part[i], count[i] = c.revision, c.part, c.parts
		requestID[i], header[i], payload[i], hash[i] = c.requestID, c.header, c.payload, c.hash
	}
	return []any{revision, part, count, requestID, header, payload, hash}
}

// keys are the columns of keys as arrays.
type keys [6][]string

func newKeys(n int) (k keys) {
	for i := range k {
		k[i] = make([]string, n)
	}
	return k
}

func (k keys) set(i int, key tuple.Key) {
	for c, v := range [6]string{key.Object.Type, key.Object.ID, key.Relation, key.Subject.Type, key.Subject.ID, key.Subject.Relation} {
		k[c][i] = v
	}
}

func (k keys) args(store int64) []any {
	return []any{store, k[0], k[1], k[2], k[3], k[4], k[5]}
}

func rowArrays(store int64, rows []inserted) []any {
	n := len(rows)
	keys := newKeys(n)
	created, deleted, caveat, text, expiration := make([]int64, n), make([]int64, n), make([]string, n), make([]string, n), make([]*int64, n)
	for i, r := range rows {
		keys.set(i, r.Key)
		created[i], deleted[i], caveat[i], text[i] = int64(r.Created), r.deleted, r.Caveat.Name, r.Caveat.Context
		if !r.Expiration.IsZero() {
			micros := r.Expiration.UnixMicro()
			expiration[i] = &micros
		}
	}
	return append(keys.args(store), created, deleted, caveat, text, expiration)
}

// commit writes and commits. An error that leaves open whether it happened wraps
// [datastore.ErrAmbiguous]. The work is not cut off when ctx ends: it would
// become ambiguous for no gain.
func (u *update) commit(ctx context.Context, w *writes) error {
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), u.log.options.Commit)
	defer cancel()
	if w.copies(u.log.dialect) {
		if err := w.copy(limit, u.conn.Conn(), u.store); err != nil {
			return u.failed(ctx, err, false)
		}
	}
	var batch pgx.Batch
	w.queue(u.log.dialect, &batch, u.store)
	batch.Queue("COMMIT")
	results := u.conn.SendBatch(limit, &batch)
	for i := range batch.Len() {
		if _, err := results.Exec(); err != nil {
			results.Close()
			return u.failed(ctx, err, i == batch.Len()-1)
		}
	}
	if err := results.Close(); err != nil {
		return u.failed(ctx, err, true)
	}
	return nil
}

// failed tells what an error of the last round trip means. A statement that the
// database refused cannot have been committed.
func (u *update) failed(ctx context.Context, err error, committing bool) error {
	var p *pgconn.PgError
	if errors.As(err, &p) && !(committing && u.log.dialect.Ambiguous(p)) && !unreachable(p) {
		return u.rollback(ctx, err)
	}
	u.log.setUnresolved(u.store, true)
	u.conn.Conn().Close(context.WithoutCancel(ctx))
	return ours(fmt.Errorf("%w: %w", datastore.ErrAmbiguous, u.log.problem(context.WithoutCancel(ctx), err)))
}
