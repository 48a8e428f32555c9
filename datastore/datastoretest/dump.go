package datastoretest

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/pembadb/pemba/datastore"
)

// Dump gives all that a store of a Log holds as text: head, anchor, every entry,
// and the rows at every revision that can be read.
func Dump(log datastore.Log, store datastore.StoreID) (string, error) {
	head, err := log.Head(bg, store)
	if err != nil {
		return "", err
	}
	anchor, err := log.Anchor(bg, store)
	if err != nil {
		return "", err
	}
	names, err := log.Names(bg, store)
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("head %+v\nanchor %+v\nnames %q\n", head, anchor, names)
	_, entries, err := log.After(bg, store, anchor.Revision, int(head.Revision))
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		text += fmt.Sprintf("%d %q %x %x %x\n", e.Revision, e.RequestID, e.Header, e.Payload, e.Hash)
	}
	for at := head.Floor; at <= head.Revision; at++ {
		for _, bySubject := range []bool{false, true} {
			found, err := rows(log, store, at, datastore.RowQuery{BySubject: bySubject})
			if err != nil {
				return "", err
			}
			text += fmt.Sprintf("rows at %d, by subject %v:\n%s", at, bySubject, render(found))
		}
	}
	return text, nil
}

// Fill commits n changes to a new store of the Log, and returns it.
func Fill(t *testing.T, log datastore.Log, n int) datastore.StoreID {
	t.Helper()
	store, m := line(t, log)
	rapid.Custom(func(t *rapid.T) int {
		for range n {
			change(t, log, store, m)
		}
		return 0
	}).Example(n)
	return store
}
