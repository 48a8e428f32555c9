// Package sql is the Log that CockroachDB and PostgreSQL share: many nodes read
// and write one history in one database. What differs between the two is in the
// packages cockroach and postgres.
package sql

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pembadb/pemba/datastore"
)

// Index names an index of pemba_relationship.
type Index uint8

const (
	ObjectIndex  Index = iota // the primary key, in the order of objects
	SubjectIndex              // in the order of subjects
	ClosedIndex               // rows that were closed, by the revision that did
)

// Dialect is what differs between databases.
type Dialect struct {
	Name string // as in a URI: "postgres", "cockroachdb"
	// Begin starts a transaction that writes; the isolation is named, whatever the
	// database's default is.
	Begin string
	// Settings are those of every session, Writing those of sessions that write.
	Settings, Writing map[string]string
	// Migrations make the tables, in order.
	Migrations []Migration
	// Through gives the table, and the condition that its store is $1, in such a
	// way that a statement can take that index only: which one is right follows
	// from the question, and must not hang on statistics.
	Through func(Index) (from, store string)
	// Many makes the statement that asks many queries of one form: from gives their
	// values, and their number n. It may decline, with "", where the database does
	// better with one statement each.
	Many func(p Part, from string) string
	// EachIdentity tells that statements about many identities must look each up on
	// its own: which plan is right must not hang on statistics.
	EachIdentity bool
	// ReadsWait tells that a read of a locked head waits for the lock. Then what a
	// judge reads goes through the transaction that holds it.
	ReadsWait bool
	// CloseRows ends live rows: $1 store, then arrays of the columns of their keys
	// and of the revisions at which they end. It must look the rows up one by one,
	// whatever the statistics: the plan made on an empty table stays.
	CloseRows string
	// CopyRows is how many new rows of a transaction go by COPY, which costs two
	// round trips more than an INSERT among the other statements; zero: none do.
	CopyRows int
	// Announce, if set, tells other nodes of new heads, on a connection of its own
	// and outside of transactions.
	Announce func(ctx context.Context, c *pgx.Conn, stores []datastore.StoreID) error
	// Listen calls hint for each store that may have a new head, until ctx ends or
	// the connection fails; it calls ready once nothing is missed any more.
	Listen func(ctx context.Context, c *pgx.Conn, ready func(), hint func(datastore.StoreID)) error
	// Execute runs a transaction of more than one round trip, again as long as the
	// database asks for it.
	Execute func(ctx context.Context, c *pgx.Conn, f func(pgx.Tx) error) error
	// Retry tells whether an error means that nothing happened and that the same
	// again may succeed.
	Retry func(*pgconn.PgError) bool
	// Ambiguous tells whether an error of COMMIT leaves open whether it happened.
	Ambiguous func(*pgconn.PgError) bool
}

// Options are the settings of a Log; zero fields take the defaults.
type Options struct {
	// Password, if set, takes the place of that of the URI.
	Password string
	// Reads and Writes bound the connections of each kind (16, 8).
	Reads, Writes int
	// Wait bounds the wait for a free connection (5 s).
	Wait time.Duration
	// Commit bounds how long one batch of statements of a transaction that writes
	// may take (15 s).
	Commit time.Duration
	// Silence bounds how long the database may say nothing while an answer is due
	// (30 s); then its connection is given up.
	Silence time.Duration
}

func (o Options) withDefaults() Options {
	if o.Reads == 0 {
		o.Reads = 16
	}
	if o.Writes == 0 {
		o.Writes = 8
	}
	if o.Wait == 0 {
		o.Wait = 5 * time.Second
	}
	if o.Commit == 0 {
		o.Commit = 15 * time.Second
	}
	if o.Silence == 0 {
		o.Silence = 30 * time.Second
	}
	return o
}

// Log is a [datastore.Log] in a database.
type Log struct {
	dialect *Dialect
	options Options
	reads   *pgxpool.Pool
	writes  *pgxpool.Pool
	alone   *pgx.ConnConfig // of a connection outside of the pools
	closed  atomic.Bool
	texts   sync.Map // shape -> string

	mu         sync.Mutex
	unresolved map[datastore.StoreID]bool // their last commit may yet happen
	held       map[datastore.StoreID]*holder

	announcements announcements
}

var (
	_ datastore.Log         = (*Log)(nil)
	_ datastore.Hinter      = (*Log)(nil)
	_ datastore.HeadsReader = (*Log)(nil)
	_ datastore.ManyReader  = (*Log)(nil)
	_ datastore.Leaser      = (*Log)(nil)
)

// Open connects to a database that was migrated. Its errors never hold the
// password; they wrap [datastore.ErrUnavailable] or [ErrNotMigrated].
func Open(ctx context.Context, d *Dialect, uri string, o Options) (*Log, error) {
	o = o.withDefaults()
	l := &Log{dialect: d, options: o, unresolved: map[datastore.StoreID]bool{}, held: map[datastore.StoreID]*holder{}}
	c, err := config(d, uri, o.Password)
	if err != nil {
		return nil, err
	}
	l.alone = c.ConnConfig
	if l.reads, err = pool(ctx, d, uri, o, false); err != nil {
		return nil, err
	}
	if l.writes, err = pool(ctx, d, uri, o, true); err != nil {
		l.reads.Close()
		return nil, err
	}
	l.announcements.start(l)
	if err := l.migrated(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Close implements [datastore.Log].
func (l *Log) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	l.announcements.stop()
	l.reads.Close()
	l.writes.Close()
	return nil
}

// idleInTransaction bounds how long a node that hangs can hold a store's head.
const idleInTransaction = "15s"

func pool(ctx context.Context, d *Dialect, uri string, o Options, writing bool) (*pgxpool.Pool, error) {
	c, err := config(d, uri, o.Password)
	if err != nil {
		return nil, err
	}
	c.MaxConns = int32(o.Reads)
	c.MaxConnLifetime, c.MaxConnLifetimeJitter = 30*time.Minute, 5*time.Minute
	c.MaxConnIdleTime = 10 * time.Minute
	c.HealthCheckPeriod = 15 * time.Second
	dial := c.ConnConfig.DialFunc
	c.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &bounded{Conn: conn, silence: o.Silence}, nil
	}
	if writing {
		c.MaxConns = int32(o.Writes)
		for k, v := range d.Writing {
			c.ConnConfig.RuntimeParams[k] = v
		}
		c.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = idleInTransaction
	}
	p, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Name, err)
	}
	return p, nil
}

// config reads a URI; its errors do not repeat it, for the password's sake.
func config(d *Dialect, uri, password string) (*pgxpool.Config, error) {
	if _, rest, found := strings.Cut(uri, "://"); found {
		uri = "postgres://" + rest // the protocol of both
	}
	c, err := pgxpool.ParseConfig(uri)
	if err != nil {
		var p *pgconn.ParseConfigError
		if errors.As(err, &p) && p.Unwrap() != nil {
			err = p.Unwrap()
		} else {
			err = errors.New("it cannot be read")
		}
		return nil, fmt.Errorf("the URI of the datastore: %w; write %s://USER@HOST:PORT/DATABASE", err, d.Name)
	}
	if password != "" {
		c.ConnConfig.Password = password
	}
	c.ConnConfig.Tracer = spans{d.Name}
	if c.ConnConfig.ConnectTimeout == 0 {
		c.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	if _, given := c.ConnConfig.RuntimeParams["application_name"]; !given {
		c.ConnConfig.RuntimeParams["application_name"] = "pemba"
	}
	for k, v := range d.Settings {
		c.ConnConfig.RuntimeParams[k] = v
	}
	return c, nil
}

// acquire takes a connection, and waits no longer for one than the options say.
func (l *Log) acquire(ctx context.Context, p *pgxpool.Pool) (*pgxpool.Conn, error) {
	limit, cancel := context.WithTimeout(ctx, l.options.Wait)
	defer cancel()
	c, err := p.Acquire(limit)
	if err == nil {
		return c, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if l.closed.Load() {
		return nil, datastore.ErrClosed
	}
	if limit.Err() != nil && p.Stat().AcquiredConns() == p.Config().MaxConns {
		return nil, fmt.Errorf("%w: all %d connections are busy, and none came free in %s", datastore.ErrUnavailable, p.Config().MaxConns, l.options.Wait)
	}
	return nil, l.problem(ctx, err)
}

// problem gives an error of the database its name.
func (l *Log) problem(ctx context.Context, err error) error {
	var p *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case l.closed.Load():
		return datastore.ErrClosed
	case errors.As(err, &p):
		said := &databaseError{name: l.dialect.Name, error: p}
		if unreachable(p) || l.dialect.Retry != nil && l.dialect.Retry(p) {
			return fmt.Errorf("%w: %w", datastore.ErrUnavailable, said)
		}
		return said
	}
	return fmt.Errorf("%w: %s: %w", datastore.ErrUnavailable, l.dialect.Name, withoutConfig(err))
}

// databaseError is what a database said, without the details of pgx.
type databaseError struct {
	name  string
	error *pgconn.PgError
}

func (e *databaseError) Error() string {
	return fmt.Sprintf("%s: %s (SQLSTATE %s)", e.name, e.error.Message, e.error.Code)
}

func (e *databaseError) Unwrap() error { return e.error }

// withoutConfig drops from a connection error what it tells about the
// connection's settings, and what it tells twice.
func withoutConfig(err error) error {
	var c *pgconn.ConnectError
	if !errors.As(err, &c) || c.Unwrap() == nil {
		return err
	}
	err = c.Unwrap()
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	return fmt.Errorf("connect to %s:%d: %w", c.Config.Host, c.Config.Port, err)
}

// unreachable tells errors of a database that is there no more, or not yet.
func unreachable(p *pgconn.PgError) bool {
	if len(p.Code) != 5 {
		return false
	}
	switch p.Code[:2] {
	case "08", "57", "53", "58":
		return true
	}
	return p.Code == "25006" // a replica, after a failover
}

// tries bounds how often what may be retried is tried.
const tries = 8

// again runs f until it succeeds, fails for good, or was tried too often.
func (l *Log) again(ctx context.Context, f func() error) error {
	for try := 1; ; try++ {
		err := f()
		var p *pgconn.PgError
		if err == nil || try == tries || !errors.As(err, &p) || !l.dialect.Retry(p) {
			return err
		}
		select {
		case <-time.After(backoff(try)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// read runs f on a connection that reads, again where that is safe.
func (l *Log) read(ctx context.Context, f func(*pgxpool.Conn) error) error {
	return l.on(ctx, l.reads, f)
}

// on runs f on a connection of a pool, again as long as the database asks for it.
func (l *Log) on(ctx context.Context, p *pgxpool.Pool, f func(*pgxpool.Conn) error) error {
	c, err := l.acquire(ctx, p)
	if err != nil {
		return err
	}
	defer c.Release()
	return l.named(ctx, l.again(ctx, func() error { return f(c) }))
}

// holder is a transaction of this node that holds a store's head while a judge
// is at work.
type holder struct {
	mu   sync.Mutex
	conn *pgxpool.Conn // nil once the judge is done
}

func (l *Log) hold(store datastore.StoreID, c *pgxpool.Conn) (h *holder, release func()) {
	h = &holder{conn: c}
	l.mu.Lock()
	l.held[store] = h
	l.mu.Unlock()
	return h, func() {
		l.mu.Lock()
		if l.held[store] == h {
			delete(l.held, store)
		}
		l.mu.Unlock()
		h.mu.Lock()
		h.conn = nil
		h.mu.Unlock()
	}
}

// readStore is read, through the transaction that holds the store's head if
// there is one that others would wait for.
func (l *Log) readStore(ctx context.Context, store datastore.StoreID, f func(*pgxpool.Conn) error) error {
	l.mu.Lock()
	h := l.held[store]
	l.mu.Unlock()
	if h != nil {
		h.mu.Lock()
		if h.conn != nil {
			defer h.mu.Unlock()
			return l.named(ctx, f(h.conn))
		}
		h.mu.Unlock()
	}
	return l.read(ctx, f)
}

// named gives errors of the database their name, and leaves ours as they are.
func (l *Log) named(ctx context.Context, err error) error {
	var p *problemError
	if err == nil || errors.As(err, &p) {
		return err
	}
	return l.problem(ctx, err)
}

// problemError marks an error that is about the store, not the database.
type problemError struct{ error }

func (e *problemError) Unwrap() error { return e.error }

// ours marks an error.
func ours(err error) error {
	if err == nil {
		return nil
	}
	return &problemError{err}
}

// administer runs f in a transaction that writes, again as long as the database
// asks for it.
func (l *Log) administer(ctx context.Context, f func(pgx.Tx) error) error {
	c, err := l.acquire(ctx, l.writes)
	if err != nil {
		return err
	}
	defer c.Release()
	return l.named(ctx, l.dialect.Execute(ctx, c.Conn(), f))
}

// backoff is the wait before another try: doubling from 2 ms, with jitter, so
// that those who met do not meet again.
func backoff(try int) time.Duration {
	longest := 2 * time.Millisecond << min(try, 8)
	return longest/2 + rand.N(longest/2)
}
