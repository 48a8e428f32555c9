package datastoretest

import (
	"errors"
	"slices"

	"pgregory.net/rapid"

	"github.com/pembadb/pemba/datastore"
)

func readRows(t *rapid.T, log datastore.Log, store datastore.StoreID, m *model) {
	at := datastore.Revision(rapid.Uint64Range(0, uint64(m.head.Revision)+1).Draw(t, "revision"))
	q := m.genQuery(t)
	got, err := rows(log, store, at, q)
	if !checkReadable(t, m, at, err) {
		return
	}
	if want := m.at(at, q); render(got) != render(want) {
		t.Fatalf("at %d, %+v:\n%swant\n%s", at, q, render(got), render(want))
	}
}

// checkReadable checks the error of a read at a revision; false if there has to
// be one.
func checkReadable(t *rapid.T, m *model, at datastore.Revision, err error) bool {
	switch {
	case at > m.head.Revision:
		if !errors.Is(err, datastore.ErrAhead) {
			t.Fatalf("revision %d, head %d: %v", at, m.head.Revision, err)
		}
		return false
	case at < m.head.Floor:
		if !errors.Is(err, datastore.ErrCompacted) {
			t.Fatalf("revision %d, floor %d: %v", at, m.head.Floor, err)
		}
		return false
	case err != nil:
		t.Fatal(err)
	}
	return true
}

// readManyRows asks several queries at once; some of them end after a few rows.
func readManyRows(t *rapid.T, log datastore.Log, store datastore.StoreID, m *model) {
	at := datastore.Revision(rapid.Uint64Range(0, uint64(m.head.Revision)+1).Draw(t, "revision"))
	queries := make([]datastore.RowQuery, rapid.IntRange(0, 5).Draw(t, "queries"))
	most := make([]int, len(queries))
	for i := range queries {
		queries[i] = m.genQuery(t)
		most[i] = rapid.SampledFrom([]int{1, 2, 1000}).Draw(t, "rows taken")
	}
	got := make([][]datastore.Row, len(queries))
	err := datastore.ReadMany(bg, log, store, at, queries, func(q int, r datastore.Row) bool {
		got[q] = append(got[q], r)
		return len(got[q]) < most[q]
	})
	if _, many := log.(datastore.ManyReader); len(queries) == 0 && !many || !checkReadable(t, m, at, err) {
		return
	}
	for i, q := range queries {
		want := m.at(at, q)
		if want = want[:min(len(want), most[i])]; render(got[i]) != render(want) {
			t.Fatalf("at %d, query %d of %+v:\n%swant\n%s", at, i, queries, render(got[i]), render(want))
		}
	}
}

// readHeads reads the heads of stores, one of which does not exist.
func readHeads(t *rapid.T, log datastore.Log, store datastore.StoreID, m *model) {
	if heads, ok := log.(datastore.HeadsReader); ok {
		got, err := heads.Heads(bg, []datastore.StoreID{store, 1 << 40})
		if err != nil || len(got) != 1 || got[store] != m.head {
			t.Fatalf("heads %+v, %v; want %+v", got, err, m.head)
		}
	}
}

func readSchema(t *rapid.T, log datastore.Log, store datastore.StoreID, m *model) {
	names, err := log.Names(bg, store)
	if err != nil || !slices.Equal(names, m.names) {
		t.Fatalf("names %q, %v; want %q", names, err, m.names)
	}
	at := datastore.Revision(rapid.Uint64Range(uint64(m.head.Floor), uint64(m.head.Revision)).Draw(t, "revision"))
	got, err := log.Schema(bg, store, at)
	if err != nil {
		t.Fatal(err)
	}
	want := m.schemaAt(at)
	if (got == nil) != (want == nil) {
		t.Fatalf("schema at %d: %+v, want %+v", at, got, want)
	}
	if got != nil && (got.Text != want.Text || got.Hash != want.Hash || got.PreviousHash != want.PreviousHash || !slices.Equal(got.Names, want.Names)) {
		t.Fatalf("schema at %d: %+v, want %+v", at, got, want)
	}
	if _, err := log.Schema(bg, store, m.head.Revision+1); !errors.Is(err, datastore.ErrAhead) {
		t.Fatalf("the schema beyond the head: %v", err)
	}
}

func readHistory(t *rapid.T, log datastore.Log, store datastore.StoreID, m *model) {
	from := datastore.Revision(rapid.Uint64Range(0, uint64(m.head.Revision)+1).Draw(t, "from"))
	limit := rapid.IntRange(1, 5).Draw(t, "limit")
	head, entries, err := log.After(bg, store, from, limit)
	switch {
	case from > m.head.Revision:
		if !errors.Is(err, datastore.ErrAhead) {
			t.Fatalf("after %d, head %d: %v", from, m.head.Revision, err)
		}
		return
	case from < m.anchor.Revision:
		if !errors.Is(err, datastore.ErrCompacted) {
			t.Fatalf("after %d, anchor %d: %v", from, m.anchor.Revision, err)
		}
		return
	case err != nil || head != m.head:
		t.Fatalf("after %d: head %+v, %v; want %+v", from, head, err, m.head)
	}
	want := m.entries[from:]
	if diff := sameEntries(entries, want[:min(limit, len(want))]); diff != "" {
		t.Fatalf("after %d: %s", from, diff)
	}
	for _, e := range entries {
		previous := m.anchor.Hash
		if e.Revision > m.anchor.Revision+1 {
			previous = m.entries[e.Revision-2].Hash
		}
		if err := datastore.VerifyLink(previous, e); err != nil {
			t.Fatal(err)
		}
	}
}

func findRequests(t *rapid.T, log datastore.Log, store datastore.StoreID, m *model) {
	_, err := log.Update(bg, store, m.head, func(tail datastore.Tail) ([]datastore.Entry, error) {
		for _, e := range m.entries {
			if e.RequestID == "" {
				continue
			}
			got, found, err := tail.Request(e.RequestID)
			if err != nil || found != (e.Revision > m.anchor.Revision) {
				t.Fatalf("request %q of change %d, anchor %d: found %v, %v", e.RequestID, e.Revision, m.anchor.Revision, found, err)
			}
			if found {
				if diff := sameEntries([]datastore.Entry{got}, []datastore.Entry{e}); diff != "" {
					t.Fatal(diff)
				}
			}
		}
		for _, id := range []string{"", "never seen"} {
			if _, found, err := tail.Request(id); found || err != nil {
				t.Fatalf("request %q: %v, %v", id, found, err)
			}
		}
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkHead(t *rapid.T, log datastore.Log, store datastore.StoreID, m *model) {
	if head, err := log.Head(bg, store); err != nil || head != m.head {
		t.Fatalf("head %+v, %v; want %+v", head, err, m.head)
	}
	if anchor, err := log.Anchor(bg, store); err != nil || anchor != m.anchor {
		t.Fatalf("anchor %+v, %v; want %+v", anchor, err, m.anchor)
	}
}
