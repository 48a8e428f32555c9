package scim

import (
	"cmp"
	"container/heap"
	"slices"
	"strconv"
)

// sorted makes a page in the order of an attribute (RFC 7644 §3.4.2.3). Only what
// lies before the page and on it is kept.
func (l *listing) sorted() error {
	last := l.start - 1 + l.count
	if l.count > 0 && (l.start > l.config.MaxSorted || last > l.config.MaxSorted) {
		return bad(tooMany, "a sorted list can be read up to the %dth result; ask without sortBy", l.config.MaxSorted)
	}
	if l.count == 0 {
		last = 0
	}
	h := &sortHeap{descending: l.descending}
	known := false
	for i, t := range l.types {
		by, ok := t.resolve(l.sortBy)
		known = known || ok
		if ok && (by.attribute == nil || by.last().Returned == Never || by.attribute == membersRef.attribute || by.attribute == groupsRef.attribute) {
			return bad(invalidValue, "results cannot be sorted by %s", by)
		}
		if err := l.scan(i, "", func(r *Resource) error {
			l.total++
			h.offer(sortItem{l.sortValue(r, by), r}, last)
			return l.ctx.Err()
		}); err != nil {
			return err
		}
	}
	if !known {
		return bad(invalidValue, "there is no attribute %q to sort by", shorten(l.sortBy))
	}
	slices.SortFunc(h.items, h.compare)
	for _, item := range h.items[min(l.start-1, len(h.items)):] {
		l.page = append(l.page, item.r)
	}
	return nil
}

// sortValue is what a resource is sorted by: of a multi-valued attribute the
// primary value, or the first.
func (l *listing) sortValue(r *Resource, by ref) string {
	if by.attribute == nil {
		return ""
	}
	if by.last().Type == Complex {
		if by.sub = by.attribute.Sub("value"); by.sub == nil {
			by.sub = by.attribute.Sub("formatted")
		}
	}
	o, err := resourceSource{l.exchange, l.view, r}.holder(by)
	if err != nil || o == nil {
		return ""
	}
	v := get(o, ref{extension: by.extension, attribute: by.attribute})
	if list, ok := v.([]any); ok {
		v = list[max(0, slices.IndexFunc(list, func(e any) bool {
			o, ok := e.(Object)
			return ok && o["primary"] == true
		}))]
	}
	if o, ok := v.(Object); ok && by.sub != nil {
		v = o[by.sub.Name]
	}
	switch v := v.(type) {
	case string:
		if !by.last().CaseExact {
			return Fold(v)
		}
		return v
	case bool:
		return strconv.FormatBool(v)
	}
	return ""
}

// sortItem is a resource with what it is sorted by; empty: it has no value.
type sortItem struct {
	by string
	r  *Resource
}

// sortHeap keeps the first items in an order; the last of them is on top.
type sortHeap struct {
	items      []sortItem
	descending bool
}

// compare orders items. Those without a value come last ascending, and first
// descending (RFC 7644 §3.4.2.3).
func (h *sortHeap) compare(a, b sortItem) int {
	order := cmp.Compare(a.by, b.by)
	if (a.by == "") != (b.by == "") {
		order = -order
	}
	if h.descending {
		order = -order
	}
	return cmp.Or(order, cmp.Compare(a.r.Kind, b.r.Kind), cmp.Compare(a.r.ID, b.r.ID))
}

func (h *sortHeap) Len() int           { return len(h.items) }
func (h *sortHeap) Less(i, j int) bool { return h.compare(h.items[i], h.items[j]) > 0 }
func (h *sortHeap) Swap(i, j int)      { h.items[i], h.items[j] = h.items[j], h.items[i] }
func (h *sortHeap) Push(v any)         { h.items = append(h.items, v.(sortItem)) }
func (h *sortHeap) Pop() any {
	last := h.items[len(h.items)-1]
	h.items = h.items[:len(h.items)-1]
	return last
}

// offer keeps an item if it is one of the first n.
func (h *sortHeap) offer(item sortItem, n int) {
	switch {
	case n == 0:
	case len(h.items) < n:
		heap.Push(h, item)
	case h.compare(item, h.items[0]) < 0:
		h.items[0] = item
		heap.Fix(h, 0)
	}
}
