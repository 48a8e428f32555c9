package dispatch_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/dispatch"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/tuple"
)

// traced asks whether ada may view document:d and returns the sources of what was
// read, by the object or subject that it is about.
func traced(t *testing.T, k datastore.Datastore) (sources []string, more int) {
	t.Helper()
	account := new(dispatch.Request)
	account.Trace()
	ctx := context.WithValue(bg, dispatch.RequestKey{}, account)
	s, err := k.At(ctx, datastore.Default, datastore.Consistency{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	q := graph.Question{Resource: tuple.Object{Type: "document", ID: "d"}, Permission: "view", Subject: tuple.Subject{Object: tuple.Object{Type: "user", ID: "ada"}}}
	if a, err := graph.Check(ctx, s, q, time.Now(), graph.Limits{}); err != nil || a.Outcome != graph.Yes {
		t.Fatalf("%v, %v", a, err)
	}
	queries, more := account.Traced()
	for _, q := range queries {
		sources = append(sources, q.String())
	}
	return sources, more
}

func TestATraceNamesWhoAnsweredEachQuery(t *testing.T) {
	_, k := far(t, dispatch.New(dispatch.Options{}), func(yield func(string) bool) {
		for _, r := range []string{"document:d#viewer@group:a#member", "group:a#member@user:ada", "group:b#member@user:ada"} {
			if !yield(r) {
				return
			}
		}
	})
	first, _ := traced(t, k)
	again, _ := traced(t, k)
	if len(first) == 0 || len(first) != len(again) {
		t.Fatalf("first %q, again %q", first, again)
	}
	for i := range first {
		if !strings.HasPrefix(first[i], "database ") || !strings.Contains(first[i], "rows=") {
			t.Errorf("first: %q", first[i])
		}
		want := strings.Replace(first[i], "database", "remembered", 1)
		if !slices.Contains(again, want) {
			t.Errorf("again: %q lacks %q", again, want)
		}
	}
	if !slices.ContainsFunc(first, func(s string) bool { return strings.Contains(s, "document:d") }) {
		t.Errorf("no query is about the document: %q", first)
	}
	// What another writes is read anew, and the rest is not.
	touch(t, k, "document:d#owner@user:eve")
	third, _ := traced(t, k)
	for _, q := range third {
		if strings.HasPrefix(q, "database ") && !strings.Contains(q, "document:d") {
			t.Errorf("after a write to the document: %q", q)
		}
	}
}

func TestALongTraceIsCountedToItsEnd(t *testing.T) {
	const groups = 500
	_, k := far(t, dispatch.New(dispatch.Options{}), func(yield func(string) bool) {
		for i := range groups {
			if !yield(fmt.Sprintf("document:d#viewer@group:g%d#member", i)) || !yield(fmt.Sprintf("group:g%d#member@group:h%d#member", i, i)) {
				return
			}
		}
		yield("group:h77#member@user:ada")
	})
	queries, more := traced(t, k)
	if len(queries) > 100 || more > 0 && len(queries) < 100 {
		t.Errorf("%d queries named, and %d more", len(queries), more)
	}
	t.Logf("%d queries named, and %d more", len(queries), more)
}
