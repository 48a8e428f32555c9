package datastoretest

import (
	"time"

	"pgregory.net/rapid"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
)

// beyondTheWindow raises the floor to the head, and removes what lies below it, so
// that what came before is known from the history alone.
func beyondTheWindow(t *rapid.T, log datastore.Log, store datastore.StoreID) {
	head, err := log.Head(bg, store)
	if err != nil {
		t.Fatal(err)
	}
	if err := log.SetFloor(bg, store, head.Revision); err != nil {
		t.Fatal(err)
	}
	for {
		if n, err := log.Collect(bg, store, 100); err != nil || n == 0 {
			if err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}

// past compares every revision, found by its time, with what was seen of it; times
// and zookies are by revision, and compare judges a snapshot.
func past(t *rapid.T, k *keeper.Keeper, store datastore.StoreID, times []time.Time, zookies []string, compare func(*rapid.T, datastore.Snapshot)) {
	last := len(zookies) - 1
	for _, at := range rapid.Permutation(upTo(last)).Draw(t, "revisions of the past") {
		want := at
		for times != nil && want < last && !times[want+1].After(times[at]) {
			want++
		}
		if times != nil {
			if h, err := k.HeadBefore(bg, store, times[at]); err != nil || int(h.Revision) != want || !h.Time.Equal(times[want]) {
				t.Fatalf("at %s the history stood at %+v, %v; want revision %d", times[at], h, err, want)
			}
		}
		s, err := k.AtRevision(bg, store, datastore.Revision(at))
		if err != nil {
			t.Fatal(err)
		}
		if int(s.Head().Revision) != at || s.Zookie() != zookies[at] || times != nil && !s.Head().Time.Equal(times[at]) {
			t.Fatalf("revision %d, %q, has the head %+v, %q", at, zookies[at], s.Head(), s.Zookie())
		}
		compare(t, s)
		s.Close()
	}
}

// upTo are the revisions from 1 on.
func upTo(last int) (revisions []int) {
	for r := 1; r <= last; r++ {
		revisions = append(revisions, r)
	}
	return revisions
}
