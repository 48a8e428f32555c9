package scim

import (
	"bufio"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
)

// listing is a list being made.
type listing struct {
	*exchange
	listQuery
	view    View
	types   []*ResourceType
	filters []*Filter // one for each type; nil: everything
	total   int
	page    []*Resource
}

// list answers with the resources of some types that a query matches.
func (x *exchange) list(ts []*ResourceType, q listQuery) error {
	q.count = min(q.count, x.config.MaxResults)
	l := &listing{exchange: x, listQuery: q, types: ts}
	p, err := project(ts, q.attributes, q.excluded)
	if err != nil {
		return err
	}
	if err := l.parse(); err != nil {
		return err
	}
	if l.view, err = x.newest(); err != nil {
		return err
	}
	if q.sortBy != "" {
		err = l.sorted()
	} else {
		err = l.plain()
	}
	if err != nil {
		return err
	}
	return l.answer(p)
}

// parse reads the filter for each type. An attribute must be one of any of them.
func (l *listing) parse() error {
	if strings.TrimSpace(l.filter) == "" {
		l.filters = make([]*Filter, len(l.types))
		return nil
	}
	for _, t := range l.types {
		f, err := parseFilter(t, l.filter, l.types)
		if err != nil {
			return err
		}
		l.filters = append(l.filters, f)
	}
	return nil
}

func (l *listing) answer(p *projection) error {
	l.begin(http.StatusOK)
	out := bufio.NewWriterSize(l.w, 32<<10)
	head, err := json.Marshal(Object{"schemas": []any{listMessage}, "totalResults": l.total, "startIndex": l.start, "itemsPerPage": len(l.page)})
	if err != nil {
		return err
	}
	out.Write(head[:len(head)-1])
	out.WriteString(`,"Resources":[`)
	for i, r := range l.page {
		if i > 0 {
			out.WriteByte(',')
		}
		if err := l.write(out, r, p); err != nil {
			return err
		}
	}
	out.WriteString(`]}`)
	return out.Flush()
}

// errEnough ends a scan before its end.
var errEnough = errors.New("enough")

// scan calls f for the resources of a type that its filter matches, in the order
// of their ids: those after an id.
func (l *listing) scan(i int, after string, f func(*Resource) error) error {
	filter := l.filters[i]
	if ways := filter.lookups(l.types[i].Kind); ways != nil {
		return l.lookUp(i, ways, after, f)
	}
	q := Query{Kind: l.types[i].Kind, After: after, Limit: l.config.MaxResults}
	for {
		page, err := l.view.List(l.ctx, q)
		if err != nil {
			return err
		}
		for _, r := range page {
			if err := l.offer(filter, r, f); err != nil {
				return err
			}
			q.After = r.ID
		}
		if len(page) < q.Limit {
			return nil
		}
	}
}

// offer calls f for a resource if the filter matches it.
func (l *listing) offer(filter *Filter, r *Resource, f func(*Resource) error) error {
	if filter != nil {
		ok, err := filter.root.match(resourceSource{l.exchange, l.view, r})
		if err != nil || !ok {
			return err
		}
	}
	return f(r)
}

// lookUp is scan by ids and keys. One way is read in pages; several, which are few
// by their nature, are gathered and put in order.
func (l *listing) lookUp(i int, ways []lookup, after string, f func(*Resource) error) error {
	if len(ways) == 1 {
		return l.follow(i, ways[0], after, func(r *Resource) error { return l.offer(l.filters[i], r, f) })
	}
	found := map[string]*Resource{}
	for _, way := range ways {
		if err := l.follow(i, way, after, func(r *Resource) error {
			if found[r.ID] = r; len(found) > l.config.MaxSorted {
				return bad(tooMany, "the filter finds more than %d in several ways; ask for each on its own", l.config.MaxSorted)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	ids := make([]string, 0, len(found))
	for id := range found {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		if err := l.offer(l.filters[i], found[id], f); err != nil {
			return err
		}
	}
	return nil
}

// follow calls f for what one lookup finds.
func (l *listing) follow(i int, way lookup, after string, f func(*Resource) error) error {
	if way.id != "" {
		r, err := l.view.Get(l.ctx, l.types[i].Kind, way.id)
		if e := (*Error)(nil); errors.As(err, &e) && e.Status == http.StatusNotFound || way.id <= after && after != "" {
			return nil
		}
		if err != nil {
			return err
		}
		return f(r)
	}
	q := Query{Kind: l.types[i].Kind, Key: &way.key, After: after, Limit: l.config.MaxResults}
	for {
		page, err := l.view.List(l.ctx, q)
		if err != nil {
			return err
		}
		for _, r := range page {
			if err := f(r); err != nil {
				return err
			}
			q.After = r.ID
		}
		if len(page) < q.Limit {
			return nil
		}
	}
}

// markKey names a place in a list.
type markKey struct {
	scope  string
	kind   Kind
	filter string
	start  int
}

// mark tells where a page begins that follows one that was answered, so that a
// client who reads page after page does not have them all counted again.
type mark struct {
	after   string
	version string // of the view in which the total was counted
	total   int
}

// longestMark bounds the filters that are remembered with a mark, in bytes.
const longestMark = 512

// plain makes a page in the order of ids.
func (l *listing) plain() error {
	if len(l.types) == 1 {
		return l.plainOf()
	}
	for i := range l.types {
		if err := l.scan(i, "", func(r *Resource) error {
			l.take(r)
			return l.ctx.Err()
		}); err != nil {
			return err
		}
	}
	return nil
}

// take counts a resource, and keeps it if it lies on the page.
func (l *listing) take(r *Resource) {
	if l.total++; l.total >= l.start && len(l.page) < l.count {
		l.page = append(l.page, r)
	}
}

// plainOf is plain of one type: it begins at a mark, and stops at the end of the
// page where the total is known.
func (l *listing) plainOf() error {
	kind := l.types[0].Kind
	key := markKey{l.Scope, kind, "", l.start}
	known := false
	count := 0
	if l.filters[0] != nil {
		key.filter = l.filters[0].String()
	} else {
		n, err := l.view.Count(l.ctx, kind)
		if err != nil {
			return err
		}
		known, count = true, n
	}
	m, marked := l.marks.Get(key)
	if !known && marked && m.version == l.view.Version() {
		known, count = true, m.total
	}
	after := ""
	if known && marked {
		after, l.total = m.after, l.start-1
	}
	if !known || l.count > 0 && l.start <= count {
		err := l.scan(0, after, func(r *Resource) error {
			if l.take(r); known && len(l.page) == l.count {
				return errEnough
			}
			return l.ctx.Err()
		})
		if err != nil && err != errEnough {
			return err
		}
	}
	if known {
		l.total = count
	}
	if n := len(l.page); n > 0 && len(key.filter) <= longestMark {
		key.start = l.start + n
		l.marks.Add(key, mark{l.page[n-1].ID, l.view.Version(), l.total})
	}
	return nil
}
