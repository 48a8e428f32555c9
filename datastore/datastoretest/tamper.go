package datastoretest

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/tuple"
)

// evidence is a store with a history, as it was before somebody touched it.
type evidence struct {
	log     datastore.Log
	hand    Hand
	store   datastore.StoreID
	entries []datastore.Entry // by revision, the first at 0
	heads   []datastore.Head  // likewise
	point   *datastore.Checkpoint
}

var evidenceKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

// newEvidence makes a store with a history of ten changes: a schema, a user who
// changes, relationships. Its checkpoint is signed at the eighth.
func newEvidence(t *testing.T, log datastore.Log, hand Hand, name string) *evidence {
	t.Helper()
	k := witness(t, log)
	made, err := k.Write(bg, datastore.System, datastore.Request{Actor: "ada", CreateStore: &datastore.Store{Name: name}})
	if err != nil {
		t.Fatal(err)
	}
	v := &evidence{log: log, hand: hand, store: made.Store.ID}
	apply(t, k, v.store)
	for i := range 2 {
		attributes, keys := attributesOf(fmt.Sprintf("Ada %d", i))
		v.write(t, k, datastore.Request{Identities: []datastore.IdentityUpdate{{Object: tuple.Object{Type: "user", ID: "ada"}, Kind: datastore.User,
			State: datastore.Active, Attributes: attributes, Keys: keys}}})
	}
	for i := range 7 {
		v.write(t, k, datastore.Request{Updates: []datastore.Update{{Kind: datastore.Create, Relationship: create(fmt.Sprintf("document:%d#viewer@user:ada", i)).Relationship}}})
	}
	for e, err := range k.Entries(bg, v.store, 1) {
		if err != nil {
			t.Fatal(err)
		}
		v.entries = append(v.entries, e)
		c, err := datastore.Open(e)
		if err != nil {
			t.Fatal(err)
		}
		head, err := k.HeadAt(bg, v.store, e.Revision)
		if err != nil {
			t.Fatal(err)
		}
		head.Time = c.Time
		v.heads = append(v.heads, head)
	}
	if len(v.entries) != 10 {
		t.Fatalf("the history has %d changes", len(v.entries))
	}
	v.point = &datastore.Checkpoint{Store: name, ID: v.store, Head: v.heads[7]}
	v.point.Sign(evidenceKey)
	if err := errors.Join(v.verify(t), v.audit(t, v.point)); err != nil {
		t.Fatalf("before anything was touched: %v", err)
	}
	return v
}

func (v *evidence) write(t *testing.T, k *keeper.Keeper, r datastore.Request) {
	t.Helper()
	r.Actor = "ada"
	if _, err := k.Write(bg, v.store, r); err != nil {
		t.Fatal(err)
	}
}

// witness is a node that has seen nothing yet.
func witness(t *testing.T, log datastore.Log) *keeper.Keeper {
	t.Helper()
	k, err := keeper.Open(shared(log), keeper.Options{SweepEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

// verify verifies the store as `pemba store verify` does.
func (v *evidence) verify(t *testing.T) error {
	_, err := witness(t, v.log).Verify(bg, v.store, nil)
	return err
}

// audit verifies the history as an auditor does, from its bytes alone.
func (v *evidence) audit(t *testing.T, point *datastore.Checkpoint) error {
	k := witness(t, v.log)
	head, err := k.Head(bg, v.store)
	if err != nil {
		return err
	}
	if point != nil {
		if err := point.Verify(evidenceKey.Public().(ed25519.PublicKey)); err != nil {
			return err
		}
	}
	chain, err := datastore.NewChain(v.store, datastore.Head{Incarnation: head.Incarnation}, point)
	if err != nil {
		return err
	}
	for e, err := range k.Entries(bg, v.store, 1) {
		if err == nil {
			_, err = chain.Next(e)
		}
		if err != nil {
			return err
		}
	}
	if chain.At.Revision != head.Revision || chain.At.Hash != head.Hash {
		return datastore.BrokenAt(head.Revision, fmt.Errorf("%w: the head is another", datastore.ErrCorrupt))
	}
	return chain.End()
}

// tampering is something that somebody does to a history by hand.
type tampering struct {
	name string
	do   func(v *evidence) error
	at   int // the revision that must be named; zero: verify finds nothing
}

// flip changes a bit of one byte.
func flip(b []byte, i int) []byte {
	b = append([]byte(nil), b...)
	b[i] ^= 4
	return b
}

var tamperings = []tampering{
	{"a byte of a header", func(v *evidence) error {
		return v.hand.Change(v.store, 4, func(e *datastore.Entry) { e.Header = flip(e.Header, len(e.Header)/2) })
	}, 4},
	{"a byte of the operations", func(v *evidence) error {
		return v.hand.Change(v.store, 5, func(e *datastore.Entry) { e.Payload = flip(e.Payload, len(e.Payload)-2) })
	}, 5},
	{"a byte of a hash", func(v *evidence) error {
		return v.hand.Change(v.store, 6, func(e *datastore.Entry) { e.Hash[31] ^= 1 })
	}, 6},
	{"a request id", func(v *evidence) error {
		return v.hand.Change(v.store, 6, func(e *datastore.Entry) { e.RequestID += "x" })
	}, 6},
	{"the first change gone", func(v *evidence) error { return v.hand.Change(v.store, 1, nil) }, 1},
	{"a change gone", func(v *evidence) error { return v.hand.Change(v.store, 5, nil) }, 5},
	{"two changes swapped", func(v *evidence) error { return v.hand.Swap(v.store, 5, 6) }, 5},
	{"two far apart swapped", func(v *evidence) error { return v.hand.Swap(v.store, 2, 9) }, 2},
	{"a change rewritten with its hash", func(v *evidence) error {
		return v.hand.Change(v.store, 5, func(e *datastore.Entry) { *e = v.forged(5, "eve") })
	}, 6},
	{"the tail gone", func(v *evidence) error {
		return errors.Join(v.hand.Change(v.store, 9, nil), v.hand.Change(v.store, 10, nil))
	}, 9},
	{"the tail gone, and the head back", func(v *evidence) error {
		return errors.Join(v.hand.Change(v.store, 10, nil), v.hand.Head(v.store, v.heads[8]))
	}, 0}, // the relationship that the last change wrote is of the future now
	{"the tail cut off without a trace", func(v *evidence) error { return v.cut(7) }, 0},
	{"the tail cut off behind the checkpoint", func(v *evidence) error { return v.cut(8) }, 0},
	{"the last change rewritten, and the head", func(v *evidence) error { return v.rewrite(10) }, 0},
	{"the change of the checkpoint rewritten, and all behind it gone", func(v *evidence) error {
		return errors.Join(v.cut(8), v.rewrite(8))
	}, 0},
}

// forged is a change as it could have been written, with the hash it would have.
func (v *evidence) forged(at int, actor string) datastore.Entry {
	c, err := datastore.Open(v.entries[at-1])
	if err != nil {
		panic(err)
	}
	c.Actor = actor
	var prev datastore.Hash
	if at > 1 {
		prev = v.entries[at-2].Hash
	}
	e, err := datastore.Seal(prev, c)
	if err != nil {
		panic(err)
	}
	return e
}

// rewrite forges the last change, with everything that hangs on its hash.
func (v *evidence) rewrite(at int) error {
	e := v.forged(at, "eve")
	head := v.heads[at-1]
	head.Hash = e.Hash
	return errors.Join(v.hand.Change(v.store, datastore.Revision(at), func(old *datastore.Entry) { *old = e }), v.hand.Head(v.store, head))
}

// cut removes everything behind a revision: changes, relationships, and the head's
// memory of them.
func (v *evidence) cut(after int) error {
	var failed []error
	for at := after + 1; at <= len(v.entries); at++ {
		c, err := datastore.Open(v.entries[at-1])
		if err != nil {
			return err
		}
		row := &Stored{Row: datastore.Row{Relationship: c.Operations[0].Relationship, Created: c.Revision}}
		failed = append(failed, v.hand.Change(v.store, c.Revision, nil), v.hand.Row(v.store, [2]bool{true, true}, row, nil))
	}
	return errors.Join(append(failed, v.hand.Head(v.store, v.heads[after-1]))...)
}

// findsWhatWasTamperedWith tampers with histories in every way, and says what a
// verification names, and what only the checkpoint shows.
func findsWhatWasTamperedWith(t *testing.T, log datastore.Log, hand Hand) {
	for i, c := range tamperings {
		t.Run(c.name, func(t *testing.T) {
			v := newEvidence(t, log, hand, fmt.Sprintf("evidence-%d", i))
			if err := c.do(v); err != nil {
				t.Fatal(err)
			}
			if err := v.verify(t); c.at == 0 && err != nil || c.at > 0 && (!errors.Is(err, datastore.ErrCorrupt) || datastore.Facts(err)["revision"] != strconv.Itoa(c.at)) {
				t.Errorf("verify: %v, of revision %q, want %d", err, datastore.Facts(err)["revision"], c.at)
			}
			err := v.audit(t, v.point)
			switch c.name {
			case "the tail cut off without a trace":
				if !errors.Is(err, datastore.ErrCut) || datastore.Facts(err)["revision"] != "8" || v.audit(t, nil) != nil {
					t.Errorf("with the checkpoint: %v", err)
				}
			case "the change of the checkpoint rewritten, and all behind it gone":
				if !errors.Is(err, datastore.ErrCorrupt) || datastore.Facts(err)["revision"] != "8" || v.audit(t, nil) != nil {
					t.Errorf("with the checkpoint: %v", err)
				}
			case "the tail cut off behind the checkpoint", "the tail gone, and the head back", "the last change rewritten, and the head":
				if err != nil { // until the next checkpoint nobody can know
					t.Errorf("with the checkpoint: %v", err)
				}
			case "a request id": // stands beside the chain, which is whole
			default:
				if !errors.Is(err, datastore.ErrCorrupt) {
					t.Errorf("with the checkpoint: %v", err)
				}
			}
		})
	}
	t.Run("a person erased", func(t *testing.T) {
		v := newEvidence(t, log, hand, "evidence-erased")
		k, ada := witness(t, log), tuple.Object{Type: "user", ID: "ada"}
		v.write(t, k, datastore.Request{Identities: []datastore.IdentityUpdate{{Object: ada, Kind: datastore.User, State: datastore.Removed}}})
		v.write(t, k, datastore.Request{Erase: &ada})
		if err := errors.Join(v.verify(t), v.audit(t, v.point)); err != nil {
			t.Errorf("the history is no longer valid: %v", err)
		}
	})
	t.Run("another store", func(t *testing.T) {
		a, b := newEvidence(t, log, hand, "evidence-a"), newEvidence(t, log, hand, "evidence-b")
		if err := a.audit(t, b.point); !errors.Is(err, datastore.ErrOtherLine) {
			t.Errorf("with the checkpoint of another: %v", err)
		}
	})
}
