package dispatch

import (
	"container/heap"
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/pembadb/pemba/datastore"
)

// Request is on whose account reads are made. The zero value is ready.
type Request struct {
	tag float64 // the virtual time at which its reads so far were due; budget.mu

	remembered, shared, peers, database, trips atomic.Int64
	traced                                     *trace // nil: not asked for
}

// Sources tells where what a request read came from.
type Sources struct {
	Remembered int64 // queries that this node knew
	Shared     int64 // that another request was reading already
	Peers      int64 // that another node answered
	Database   int64 // that the database answered
	Trips      int64 // round trips to the database
}

// Sources returns where what was read so far came from.
func (r *Request) Sources() Sources {
	return Sources{r.remembered.Load(), r.shared.Load(), r.peers.Load(), r.database.Load(), r.trips.Load()}
}

// requestOf returns the account of a context, or one of its own.
func requestOf(ctx context.Context) *Request {
	if r, ok := ctx.Value(RequestKey{}).(*Request); ok {
		return r
	}
	return new(Request)
}

// RequestKey is the key under which a context has its *Request.
type RequestKey struct{}

// WithRequest gives what is done under a context an account of its own: when
// reads have to wait, a request that read much lets those go first that read
// little.
func WithRequest(ctx context.Context) context.Context {
	return context.WithValue(ctx, RequestKey{}, new(Request))
}

// budget bounds the reads of the database that run at once. Those that wait are
// served by start-time fair queueing: each request has a virtual time that runs
// ahead with what its reads cost, and the least is next; the clock of the budget
// goes on with all that is served, so that nobody waits for ever. (Goyal, Vin,
// Cheng: Start-time Fair Queueing, 1996.)
type budget struct {
	mu      sync.Mutex
	most    int // at once
	queue   int // that may wait
	busy    int
	clock   float64
	waiting waiters
	count   uint64
}

// waiter is a read that waits for its turn.
type waiter struct {
	start  float64
	number uint64 // among equals, who came first
	index  int
	turn   chan struct{} // closed when it is
	cost   float64
}

func newBudget(most, queue int) *budget { return &budget{most: most, queue: queue} }

func (b *budget) counts() (reading, waiting int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.busy, len(b.waiting)
}

// rowsPerQuery is how many rows cost as much as a query.
const rowsPerQuery = 50

// acquire waits for a turn to make so many queries. The caller ends it with the
// number of rows that came. It fails with ErrOverloaded when too many wait, and
// with the context's error when that ends.
func (b *budget) acquire(ctx context.Context, queries int64) (done func(rows int64), err error) {
	r := requestOf(ctx)
	w, err := b.enter(r, float64(queries))
	if err != nil {
		return nil, err
	}
	if w != nil {
		select {
		case <-w.turn:
		case <-ctx.Done():
			if b.withdraw(w) {
				return nil, ctx.Err()
			}
			<-w.turn // it came at the same moment
		}
	}
	return func(rows int64) { b.leave(r, float64(rows)/rowsPerQuery) }, nil
}

// enter takes a turn at once, or returns the place in the queue.
func (b *budget) enter(r *Request, cost float64) (*waiter, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	start := max(b.clock, r.tag)
	if b.busy == b.most && len(b.waiting) >= b.queue {
		err := fmt.Errorf("%w: %d run and %d wait, as many as may (max-waiting-reads); try again in a moment", datastore.ErrOverloaded, b.busy, len(b.waiting))
		return nil, datastore.With(err, "limit", "max-waiting-reads", "maximum", strconv.Itoa(b.queue))
	}
	r.tag = start + cost
	if b.busy < b.most {
		b.serve(start, cost)
		return nil, nil
	}
	b.count++
	w := &waiter{start: start, number: b.count, turn: make(chan struct{}), cost: cost}
	heap.Push(&b.waiting, w)
	return w, nil
}

// serve counts a read that begins.
func (b *budget) serve(start, cost float64) {
	b.busy++
	b.clock = max(b.clock, start) + cost/float64(b.most)
}

// withdraw leaves the queue; false if the turn has come.
func (b *budget) withdraw(w *waiter) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if w.index < 0 {
		return false
	}
	heap.Remove(&b.waiting, w.index)
	return true
}

func (b *budget) leave(r *Request, cost float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r.tag += cost
	b.clock += cost / float64(b.most)
	b.busy--
	if len(b.waiting) > 0 {
		w := heap.Pop(&b.waiting).(*waiter)
		b.serve(w.start, w.cost)
		close(w.turn)
	}
}

// waiters is a heap by start.
type waiters []*waiter

func (q waiters) Len() int { return len(q) }
func (q waiters) Less(i, j int) bool {
	return q[i].start < q[j].start || q[i].start == q[j].start && q[i].number < q[j].number
}
func (q waiters) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}
func (q *waiters) Push(x any) {
	w := x.(*waiter)
	w.index = len(*q)
	*q = append(*q, w)
}
func (q *waiters) Pop() any {
	old := *q
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*q, w.index = old[:len(old)-1], -1
	return w
}
