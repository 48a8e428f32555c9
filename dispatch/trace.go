package dispatch

import (
	"fmt"
	"sync"

	"github.com/pembadb/pemba/datastore"
)

// Traced is one query that a request asked, and who answered it.
type Traced struct {
	// Source is "remembered", "shared" (another request was reading it already),
	// "peer" or "database".
	Source string
	// Query is the filter that the rows match, as a relationship with `*` for what
	// is left open; after a key, if it goes on with a long list.
	Query string
	// Rows is how many came; -1 where another request reads them.
	Rows int
}

func (t Traced) String() string {
	if t.Rows < 0 {
		return t.Source + " " + t.Query
	}
	return fmt.Sprintf("%s %s rows=%d", t.Source, t.Query, t.Rows)
}

// mostTraced bounds the queries that a trace names; those beyond are counted.
const mostTraced = 100

// trace notes what a request asked.
type trace struct {
	mu      sync.Mutex
	queries []Traced
	more    int
}

// Trace makes the request note each query that it asks. Call it before the first.
func (r *Request) Trace() { r.traced = new(trace) }

// Traced returns the queries noted, a hundred at most, in the order of their
// answers, and how many there were besides.
func (r *Request) Traced() (queries []Traced, more int) {
	if r.traced == nil {
		return nil, 0
	}
	r.traced.mu.Lock()
	defer r.traced.mu.Unlock()
	return append(queries, r.traced.queries...), r.traced.more
}

func (r *Request) note(source string, q *datastore.RowQuery, rows int) {
	t := r.traced
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queries) == mostTraced {
		t.more++
		return
	}
	text := q.Filter.String()
	if q.After != nil {
		text += " after " + q.After.String()
	}
	t.queries = append(t.queries, Traced{source, text, rows})
}
