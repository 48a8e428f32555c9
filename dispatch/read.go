package dispatch

import (
	"context"
	"runtime"
	"sync"

	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/pembadb/pemba/datastore"
)

// flight is a read of many queries that has not ended. Whoever needs one of them
// at the same position waits for it; it is cut off when nobody does any more.
type flight struct {
	at      datastore.Position
	alone   bool            // no peer is asked
	ctx     context.Context // ends when nobody waits, not with that of who began it
	cancel  context.CancelFunc
	keys    []key
	qs      []datastore.RowQuery
	done    chan struct{} // closed when entries and err are set
	entries []*entry
	err     error

	mu      sync.Mutex
	waiting int
}

// flightKey is a query at a position.
type flightKey struct {
	key
	at datastore.Position
}

// seat is a query's place in a flight.
type seat struct {
	*flight
	at int
}

// join counts one who waits; false if all have left.
func (f *flight) join() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiting == 0 {
		return false
	}
	f.waiting++
	return true
}

func (f *flight) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiting--; f.waiting == 0 {
		f.cancel()
	}
}

// unread is what is left of a query: the rows after one, or all of them.
type unread struct {
	q     int
	after *datastore.Row
	given int
}

// reading is one call of Read.
type reading struct {
	*line
	at      datastore.Position
	alone   bool // no peer is asked
	qs      []datastore.RowQuery
	f       func(q int, r datastore.Row) bool
	entries []*entry // by query; nil: not remembered
	seats   []seat   // by query, where there is no entry; none: not to be remembered
	own     *flight
	rest    []unread
	account *Request
}

// Read implements [datastore.RowLine].
func (l *line) Read(ctx context.Context, at datastore.Position, qs []datastore.RowQuery, f func(q int, r datastore.Row) bool) error {
	return l.read(ctx, &reading{line: l, at: at, alone: at.Stamp == 0, qs: qs, f: f})
}

func (l *line) read(ctx context.Context, r *reading) error {
	qs := r.qs
	r.account = requestOf(ctx)
	r.entries, r.seats = make([]*entry, len(qs)), make([]seat, len(qs))
	defer r.leave()
	for q := range qs {
		r.look(ctx, q)
	}
	if r.own != nil {
		go r.own.fly(l)
	}
	for q, e := range r.entries {
		if e != nil {
			r.give(q, e)
		}
	}
	for q := range qs {
		if s := r.seats[q]; s.flight != nil {
			if err := s.wait(ctx); err != nil {
				return err
			}
			r.give(q, s.entries[s.at])
		}
	}
	return r.readOn(ctx)
}

// leave leaves the flights.
func (r *reading) leave() {
	for _, s := range r.seats {
		if s.flight != nil {
			s.leave()
		}
	}
}

// look finds where a query's answer comes from.
func (r *reading) look(ctx context.Context, q int) {
	c := r.cache
	k, ok := r.keyOf(&r.qs[q])
	if !ok {
		r.rest = append(r.rest, unread{q: q})
		return
	}
	s := c.shard(&k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, found := s.entries.Get(k); found {
		if !c.holds(e, r.at) {
			if e = r.brought(e, &k, r.at); e != nil {
				s.keep(k, e)
			}
		}
		if e != nil {
			c.hits.Add(1)
			r.account.remembered.Add(1)
			r.account.note("remembered", &r.qs[q], len(e.rows))
			r.entries[q] = e
			return
		}
	}
	c.misses.Add(1)
	if other, found := s.flying[flightKey{k, r.at}]; found && (other.alone || !r.alone) && other.join() {
		c.shared.Add(1)
		r.account.shared.Add(1)
		r.account.note("shared", &r.qs[q], -1)
		r.seats[q] = other
		return
	}
	if r.own == nil {
		r.own = &flight{at: r.at, alone: r.alone, done: make(chan struct{})}
		r.own.ctx, r.own.cancel = context.WithCancel(context.WithoutCancel(ctx))
	}
	mine := seat{r.own, len(r.own.keys)}
	r.own.mu.Lock() // a seat found by others before the flight began
	r.own.waiting++
	r.own.mu.Unlock()
	r.own.keys, r.own.qs = append(r.own.keys, k), append(r.own.qs, r.qs[q])
	s.flying[flightKey{k, r.at}] = mine
	r.seats[q] = mine
}

func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// yieldNow lets others run after some rows: what is done with them takes much
// longer than a check.
func yieldNow(row int) {
	if row%128 == 127 {
		runtime.Gosched()
	}
}

// give passes rows on, and notes what is to be read after them.
func (r *reading) give(q int, e *entry) {
	for i := range e.rows {
		if !r.f(q, e.rows[i]) {
			return
		}
		yieldNow(i)
	}
	if e.more {
		rest := unread{q: q}
		if n := len(e.rows); n > 0 {
			rest.after = &e.rows[n-1]
		}
		r.rest = append(r.rest, rest)
	}
}

// mostRows bounds the rows that one read of many queries brings, but for
// leastRows of each.
const (
	mostRows  = 200_000
	leastRows = 100
	// someRows bounds what is read at once of a subject, who is asked about otherwise
	// when it has more.
	someRows = 2000
	// furtherRows bounds what is read at once of what is left of a long list. Who reads
	// much waits for the database that often, and so does not hold a processor, nor
	// the database's, for a scheduler's slice (3 ms) in which checks wait: beside a
	// lookup of 100,000 the p99 of checks was 2.4 to 6 times that alone with 2,000
	// rows, 1.5 to 2.1 with 500, 1.2 to 1.4 with 250; the lookups took as long.
	furtherRows = 250
)

// share is how many rows one of n queries may bring.
func share(q *datastore.RowQuery, n int) int {
	rows := min(max(mostRows/n, leastRows), maxRows)
	switch {
	case q.After != nil:
		rows = min(rows, furtherRows)
	case q.BySubject:
		rows = min(rows, someRows)
	}
	return rows
}

// fly reads what was asked, remembers it, and tells those that wait.
func (f *flight) fly(l *line) {
	defer f.cancel()
	rows, limits, err := l.readPart(f.ctx, f.at, f.qs, f.alone)
	c := l.cache
	f.err, f.entries = err, make([]*entry, len(f.keys))
	for i := range f.keys {
		k := f.keys[i]
		if err == nil {
			f.entries[i] = c.entryFor(&k, f.at, rows[i], len(rows[i]) == limits[i])
			c.keep(k, f.entries[i])
		}
		s := c.shard(&k)
		s.mu.Lock()
		if at := (flightKey{k, f.at}); s.flying[at].flight == f {
			delete(s.flying, at)
		}
		s.mu.Unlock()
	}
	close(f.done)
}

// readPart reads a part of the rows of each query; as many as its limit say that
// there may be more.
func (l *line) readPart(ctx context.Context, at datastore.Position, qs []datastore.RowQuery, alone bool) (rows [][]datastore.Row, limits []int, err error) {
	limits = make([]int, len(qs))
	limited := make([]datastore.RowQuery, len(qs))
	for i, q := range qs {
		limits[i] = share(&q, len(qs))
		q.Limit = limits[i]
		limited[i] = q
	}
	if l.cache.peers == nil || alone {
		rows, err = l.readLog(ctx, at.Revision, limited)
	} else {
		rows, err = l.readWithPeers(ctx, at, limited)
	}
	return rows, limits, err
}

// readLog reads the database, in its turn.
func (l *line) readLog(ctx context.Context, at datastore.Revision, qs []datastore.RowQuery) ([][]datastore.Row, error) {
	done, err := l.cache.budget.acquire(ctx, int64(len(qs)))
	if err != nil {
		return nil, err
	}
	count := int64(0)
	defer func() { done(count) }()
	l.cache.reads.Add(1)
	account := requestOf(ctx)
	account.trips.Add(1)
	account.database.Add(int64(len(qs)))
	ctx, end := Span(ctx, oteltrace.SpanKindInternal, "read the datastore", len(qs))
	rows := make([][]datastore.Row, len(qs))
	err = datastore.ReadMany(ctx, l.log, l.store, at, qs, func(q int, r datastore.Row) bool {
		rows[q] = append(rows[q], r)
		count++
		return true
	})
	end(err)
	for i := range qs {
		account.note("database", &qs[i], len(rows[i]))
	}
	return rows, err
}

// readOn reads what is left, a part of each query at a time, and remembers none
// of it.
func (r *reading) readOn(ctx context.Context) error {
	for len(r.rest) > 0 {
		qs := make([]datastore.RowQuery, len(r.rest))
		for i, u := range r.rest {
			if qs[i] = r.qs[u.q]; u.after != nil {
				qs[i].After = &u.after.Key
			}
		}
		rows, limits, err := r.readPart(ctx, r.at, qs, true)
		if err != nil {
			return err
		}
		left := r.rest[:0]
		for i, u := range r.rest {
			if r.passOn(&u, rows[i]) && len(rows[i]) == limits[i] {
				u.after = &rows[i][limits[i]-1]
				left = append(left, u)
			}
		}
		r.rest = left
	}
	return nil
}

// passOn passes rows on and reports whether more are wanted.
func (r *reading) passOn(u *unread, rows []datastore.Row) bool {
	most := r.qs[u.q].Limit
	for i := range rows {
		if u.given++; !r.f(u.q, rows[i]) || u.given == most {
			return false
		}
		yieldNow(i)
	}
	return true
}
