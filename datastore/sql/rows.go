package sql

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// The columns of a relationship's key, in both orders.
var (
	byObject  = [6]string{"object_type", "object_id", "relation", "subject_type", "subject_id", "subject_relation"}
	bySubject = [6]string{"subject_type", "subject_id", "subject_relation", "object_type", "object_id", "relation"}
)

const keyColumns = `object_type, object_id, relation, subject_type, subject_id, subject_relation`

// Bounds of the rows that one statement gives. They begin small, for the many
// questions that have few.
const (
	firstRows = 100
	mostRows  = 5000
	// mostAsked bounds them where the caller says how many it wants.
	mostAsked = 20_000
)

// shape is a row query without its values: each has one text, so that the
// database prepares it once.
type shape struct {
	bySubject bool
	index     Index
	exact     [6]bool // by the query's order
	prefix    [6]bool
	caveat    bool
	expires   int8 // 0: either; 1: yes; -1: no
	after     bool
}

// shaped splits a query into its shape and its values. ok is false if nothing
// can match.
func shaped(store datastore.StoreID, at datastore.Revision, q datastore.RowQuery, after *tuple.Key, limit int) (s shape, args []any, ok bool) {
	f := q.Filter
	values := [6]string{f.ObjectType, f.ObjectID, f.Relation, f.Subject.Type, f.Subject.ID, f.Subject.Relation}
	prefixes := [6]string{1: f.ObjectIDPrefix, 4: f.Subject.IDPrefix}
	last := [6]string{}
	if after != nil {
		last = [6]string{after.Object.Type, after.Object.ID, after.Relation, after.Subject.Type, after.Subject.ID, after.Subject.Relation}
	}
	if s.bySubject = q.BySubject; q.BySubject {
		values, prefixes, last = turned(values), turned(prefixes), turned(last)
	}
	args = []any{int64(store), int64(at), limit}
	for i, v := range values {
		switch {
		case v == tuple.Ellipsis:
			s.exact[i], args = true, append(args, "")
		case v != "":
			s.exact[i], args = true, append(args, v)
		case prefixes[i] != "":
			s.prefix[i], args = true, append(args, prefixes[i], following(prefixes[i]))
		}
	}
	s.index = s.best(q.Filter)
	if f.Caveat != "" {
		s.caveat, args = true, append(args, f.Caveat)
	}
	if f.Expires != nil {
		s.expires = map[bool]int8{true: 1, false: -1}[*f.Expires]
	}
	if after == nil {
		return s, args, true
	}
	// What the filter fixes at the beginning of the order need not be compared.
	fixed := s.fixed()
	for i := range fixed {
		want := values[i]
		if want == tuple.Ellipsis {
			want = ""
		}
		if c := strings.Compare(last[i], want); c > 0 {
			return s, nil, false
		} else if c < 0 {
			return s, args, true
		}
	}
	if fixed == len(last) {
		return s, nil, false
	}
	s.after = true
	for _, v := range last[fixed:] {
		args = append(args, v)
	}
	return s, args, true
}

// best chooses the index whose beginning the filter narrows more, and that of
// the order where both do equally.
func (s shape) best(f tuple.Filter) Index {
	narrows := func(typ, id, prefix string) int {
		switch {
		case id != "":
			return 3
		case prefix != "":
			return 2
		case typ != "":
			return 1
		}
		return 0
	}
	object, subject := narrows(f.ObjectType, f.ObjectID, f.ObjectIDPrefix), narrows(f.Subject.Type, f.Subject.ID, f.Subject.IDPrefix)
	if subject > object || subject == object && s.bySubject {
		return SubjectIndex
	}
	return ObjectIndex
}

// turned changes between the order by object and that by subject.
func turned(v [6]string) [6]string { return [6]string{v[3], v[4], v[5], v[0], v[1], v[2]} }

// fixed counts the leading columns that have one value.
func (s shape) fixed() int {
	for i, exact := range s.exact {
		if !exact {
			return i
		}
	}
	return len(s.exact)
}

// following is the least text behind all that begin with prefix, in the order of
// bytes, which is that of code points.
func following(prefix string) string {
	for prefix != "" {
		r, size := utf8.DecodeLastRuneInString(prefix)
		prefix = prefix[:len(prefix)-size]
		switch r {
		case utf8.MaxRune:
			continue
		case 0xD7FF:
			r = 0xDFFF // surrogates are no code points
		}
		return prefix + string(r+1)
	}
	return string(rune(utf8.MaxRune))
}

// text returns the statement of a shape.
func (l *Log) text(s shape) string {
	if t, ok := l.texts.Load(s); ok {
		return t.(string)
	}
	t := s.text(l.dialect)
	l.texts.Store(s, t)
	return t
}

// Part is a statement for rows, in parts.
type Part struct {
	From  string // the table, with its index
	Where string
	Order string
	Exact bool // a query gives one row at most
}

// RowColumns are what a statement for rows selects.
const RowColumns = keyColumns + `, created, caveat, context, expiration`

// text makes the statement: $1 store, $2 revision, $3 limit, then the values.
func (s shape) text(d *Dialect) string {
	p, _ := s.part(d, "$%d")
	return `SELECT ` + RowColumns + ` FROM ` + p.From + ` WHERE ` + p.Where + ` ORDER BY ` + p.Order + ` LIMIT $3`
}

// part makes the parts of a statement in which value is what stands for the values,
// by their number, from the fourth. It returns the number of the last.
func (s shape) part(d *Dialect, value string) (p Part, n int) {
	columns := byObject
	if s.bySubject {
		columns = bySubject
	}
	var where strings.Builder
	n = 3
	next := func() string { n++; return fmt.Sprintf(value, n) }
	for i, c := range columns {
		switch {
		case s.exact[i]:
			fmt.Fprintf(&where, " AND %s = %s", c, next())
		case s.prefix[i]:
			fmt.Fprintf(&where, " AND %s >= %s", c, next())
			fmt.Fprintf(&where, " AND %s < %s", c, next())
		}
	}
	if s.caveat {
		fmt.Fprintf(&where, " AND caveat = %s", next())
	}
	if s.expires != 0 {
		where.WriteString(map[int8]string{1: " AND expiration IS NOT NULL", -1: " AND expiration IS NULL"}[s.expires])
	}
	fixed := s.fixed()
	if s.after {
		var values []string
		for range columns[fixed:] {
			values = append(values, next())
		}
		fmt.Fprintf(&where, " AND (%s) > (%s)", strings.Join(columns[fixed:], ", "), strings.Join(values, ", "))
	}
	from, store := d.Through(s.index)
	return Part{
		From: from, Where: store + ` AND created <= $2 AND deleted > $2` + where.String(),
		Order: strings.Join(columns[:], ", ") + `, created`, Exact: fixed == len(columns),
	}, n
}

// page is what is left to read of one query.
type page struct {
	q     datastore.RowQuery
	after *tuple.Key
	size  int
	given int
	done  bool
	found []datastore.Row
}

func newPage(q datastore.RowQuery) *page {
	p := &page{q: q, after: q.After, size: firstRows}
	if q.Limit > 0 {
		p.size = min(q.Limit, mostAsked) // who says how many wants them at once
	}
	return p
}

// limit is how many rows the next statement asks for.
func (p *page) limit() int {
	if p.q.Limit > 0 {
		return min(p.size, p.q.Limit-p.given)
	}
	return p.size
}

// Rows implements [datastore.Log]. It reads a part at a time, and holds no
// connection while f runs.
func (l *Log) Rows(ctx context.Context, store datastore.StoreID, at datastore.Revision, q datastore.RowQuery, f func(datastore.Row) bool) error {
	return l.Read(ctx, store, at, []datastore.RowQuery{q}, func(_ int, r datastore.Row) bool { return f(r) })
}

// Read asks many queries in one round trip, and in further ones for those with
// many rows. f gets the number of the query; false ends that query.
func (l *Log) Read(ctx context.Context, store datastore.StoreID, at datastore.Revision, qs []datastore.RowQuery, f func(q int, r datastore.Row) bool) error {
	pages := make([]*page, len(qs))
	for i, q := range qs {
		pages[i] = newPage(q)
	}
	for first, left := true, len(pages); left > 0 || first; first = false {
		if err := l.readPages(ctx, store, at, pages); err != nil {
			return err
		}
		left = 0
		for i, p := range pages {
			for _, r := range p.found {
				if p.given++; !f(i, r) || p.given == p.q.Limit {
					p.done = true
					break
				}
			}
			if p.found = nil; !p.done {
				left++
			}
		}
	}
	return nil
}

// readPages reads the next page of each query that is not done, and after them
// the head: a revision below the floor by then is refused, since the floor was
// raised before the first row below it was removed.
func (l *Log) readPages(ctx context.Context, store datastore.StoreID, at datastore.Revision, pages []*page) error {
	return l.readStore(ctx, store, func(c *pgxpool.Conn) error {
		var batch pgx.Batch
		asked := l.gather(store, at, pages)
		for _, g := range asked {
			g.queue(l, &batch)
		}
		batch.Queue(selectHead, int64(store))
		results := c.SendBatch(ctx, &batch)
		defer results.Close()
		for _, g := range asked {
			rows, err := results.Query()
			if err != nil {
				return err
			}
			if err := g.collect(rows); err != nil {
				return err
			}
		}
		h, err := scanHead(results.QueryRow(), store)
		if err != nil {
			return err
		}
		return ours(datastore.Readable(h.Head, at))
	})
}

// rowScan receives the columns of RowColumns.
type rowScan struct {
	row        datastore.Row
	created    int64
	expiration *int64
}

func (s *rowScan) targets(before ...any) []any {
	r := &s.row
	return append(before, &r.Object.Type, &r.Object.ID, &r.Relation, &r.Subject.Type, &r.Subject.ID, &r.Subject.Relation,
		&s.created, &r.Caveat.Name, &r.Caveat.Context, &s.expiration)
}

func (s *rowScan) take() datastore.Row {
	s.row.Created = datastore.Revision(s.created)
	if s.expiration != nil {
		s.row.Expiration = time.UnixMicro(*s.expiration).UTC()
	}
	return s.row
}

// begin empties a page: one that is read again begins anew.
func (p *page) begin() { p.found = nil }

// end says what a page that was read leaves to read.
func (p *page) end() {
	if len(p.found) < p.limit() {
		p.done = true
		return
	}
	last := p.found[len(p.found)-1].Key
	p.after, p.size = &last, max(p.size, min(4*p.size, mostRows))
}
