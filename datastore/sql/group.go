package sql

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pembadb/pemba/datastore"
)

// group is what one statement asks: a query, or many of one shape.
type group struct {
	shape shape
	limit int // of rows for each
	pages []*page
	args  [][]any // of each page
	many  string  // the statement for many
}

// groupKey is what queries of one group share.
type groupKey struct {
	shape shape
	limit int
}

// fewest is how many queries are worth a statement for many.
const fewest = 4

// gather sorts the queries that are to be asked into groups, in the order in which
// they first appear.
func (l *Log) gather(store datastore.StoreID, at datastore.Revision, pages []*page) (out []*group) {
	known := map[groupKey]*group{}
	for _, p := range pages {
		if p.done {
			continue
		}
		s, args, ok := shaped(store, at, p.q, p.after, p.limit())
		if !ok {
			p.found, p.done = nil, true
			continue
		}
		k := groupKey{s, p.limit()}
		g := known[k]
		if g == nil {
			g = &group{shape: s, limit: p.limit()}
			known[k] = g
			out = append(out, g)
		}
		g.pages, g.args = append(g.pages, p), append(g.args, args)
	}
	return l.split(out)
}

// split takes groups apart again that are too small, or that the database does
// better one by one.
func (l *Log) split(groups []*group) (out []*group) {
	for _, g := range groups {
		if len(g.pages) >= fewest {
			g.many = l.textOfMany(g.shape)
		}
		if g.many != "" || len(g.pages) == 1 {
			out = append(out, g)
			continue
		}
		for i := range g.pages {
			out = append(out, &group{shape: g.shape, limit: g.limit, pages: g.pages[i : i+1], args: g.args[i : i+1]})
		}
	}
	return out
}

// manyShape is the key of the statement for many queries of a shape.
type manyShape struct{ shape }

// textOfMany returns the statement for many queries of a shape; none if they are
// better asked one by one.
func (l *Log) textOfMany(s shape) string {
	if t, ok := l.texts.Load(manyShape{s}); ok {
		return t.(string)
	}
	t := s.textOfMany(l.dialect)
	l.texts.Store(manyShape{s}, t)
	return t
}

// textOfMany makes the statement: $1 store, $2 revision, $3 limit of each query,
// then an array for each value. Its first column is the number of the query, from
// one.
func (s shape) textOfMany(d *Dialect) string {
	p, last := s.part(d, "v%d")
	if last == 3 {
		return "" // without values they are all the same
	}
	var arrays, names []string
	for n := 4; n <= last; n++ {
		arrays, names = append(arrays, fmt.Sprintf("$%d::text[]", n)), append(names, fmt.Sprintf("v%d", n))
	}
	return d.Many(p, `unnest(`+strings.Join(arrays, ", ")+`) WITH ORDINALITY AS q (`+strings.Join(names, ", ")+`, n)`)
}

func (g *group) queue(l *Log, batch *pgx.Batch) {
	if g.many == "" {
		batch.Queue(l.text(g.shape), g.args[0]...)
		return
	}
	batch.Queue(g.many, g.arrays()...)
}

// arrays are the arguments of the statement for many.
func (g *group) arrays() []any {
	args := slices.Clone(g.args[0][:3])
	for v := 3; v < len(g.args[0]); v++ {
		values := make([]string, len(g.args))
		for i := range g.args {
			values[i] = g.args[i][v].(string)
		}
		args = append(args, values)
	}
	return args
}

// collect reads a page of each query.
func (g *group) collect(rows pgx.Rows) error {
	defer rows.Close()
	for _, p := range g.pages {
		p.begin()
	}
	for rows.Next() {
		var s rowScan
		n := int64(1)
		targets := s.targets()
		if g.many != "" {
			targets = s.targets(&n)
		}
		if err := rows.Scan(targets...); err != nil {
			return err
		}
		p := g.pages[n-1]
		p.found = append(p.found, s.take())
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, p := range g.pages {
		p.sort()
		p.end()
	}
	return nil
}

// sort puts a page in the order of its query, in which databases give it as a
// rule.
func (p *page) sort() {
	compare := func(a, b datastore.Row) int {
		if p.q.BySubject {
			return a.Key.CompareBySubject(b.Key)
		}
		return a.Key.Compare(b.Key)
	}
	if !slices.IsSortedFunc(p.found, compare) {
		slices.SortFunc(p.found, compare)
	}
}
