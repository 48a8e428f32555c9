package scim

import (
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
)

// listQuery is what a list is asked for (RFC 7644 §3.4.2).
type listQuery struct {
	attributes, excluded []string
	filter               string
	sortBy               string
	descending           bool
	start, count         int
}

// query answers a GET of a list.
func (x *exchange) query(ts []*ResourceType) error {
	u := x.r.URL.Query()
	q := listQuery{attributes: names(u, "attributes"), excluded: names(u, "excludedAttributes"), filter: u.Get("filter"), sortBy: u.Get("sortBy")}
	if err := q.setOrder(u.Get("sortOrder")); err != nil {
		return err
	}
	if err := q.setPage(numberOf(u, "startIndex"), numberOf(u, "count")); err != nil {
		return err
	}
	return x.list(ts, q)
}

// numberOf is a parameter as JSON would have it; nil if it is not given.
func numberOf(u url.Values, name string) any {
	if !u.Has(name) {
		return nil
	}
	return json.Number(strings.TrimSpace(u.Get(name)))
}

// search answers a POST to .search (RFC 7644 §3.4.3).
func (x *exchange) search(ts []*ResourceType) error {
	raw, err := x.body()
	if err != nil {
		return err
	}
	if err := checkMessage(raw, searchMessage); err != nil {
		return err
	}
	var q listQuery
	order := ""
	for _, s := range []struct {
		name string
		to   *string
	}{{"filter", &q.filter}, {"sortBy", &q.sortBy}, {"sortOrder", &order}} {
		if v := field(raw, s.name); v != nil {
			text, ok := v.(string)
			if !ok {
				return bad(invalidSyntax, "%s must be text", s.name)
			}
			*s.to = text
		}
	}
	if q.attributes, err = nameList(raw, "attributes"); err != nil {
		return err
	}
	if q.excluded, err = nameList(raw, "excludedAttributes"); err != nil {
		return err
	}
	if err := q.setOrder(order); err != nil {
		return err
	}
	if err := q.setPage(field(raw, "startIndex"), field(raw, "count")); err != nil {
		return err
	}
	return x.list(ts, q)
}

func nameList(raw Object, name string) ([]string, error) {
	v := field(raw, name)
	list, ok := v.([]any)
	if v != nil && !ok {
		return nil, bad(invalidSyntax, "%s must be a list of names", name)
	}
	found := []string{}
	for _, e := range list {
		s, ok := e.(string)
		if !ok {
			return nil, bad(invalidSyntax, "%s must be a list of names", name)
		}
		found = append(found, s)
	}
	return found, nil
}

func (q *listQuery) setOrder(order string) error {
	switch strings.ToLower(order) {
	case "", "ascending":
	case "descending":
		q.descending = true
	default:
		return bad(invalidValue, "sortOrder must be ascending or descending")
	}
	return nil
}

// setPage takes startIndex, which counts from 1, and count; less than they can be
// is taken for the least (RFC 7644 §3.4.2.4).
func (q *listQuery) setPage(start, count any) error {
	q.start, q.count = 1, defaultResults
	for _, s := range []struct {
		name  string
		v     any
		least int
		to    *int
	}{{"startIndex", start, 1, &q.start}, {"count", count, 0, &q.count}} {
		if s.v == nil {
			continue
		}
		number, ok := s.v.(json.Number)
		n, err := strconv.Atoi(string(number))
		if !ok || err != nil {
			return bad(invalidValue, "%s must be a whole number", s.name)
		}
		*s.to = max(n, s.least)
	}
	return nil
}
