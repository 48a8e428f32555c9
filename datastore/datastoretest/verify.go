package datastoretest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/tuple"
)

// Stored is a row as a Log keeps it.
type Stored struct {
	datastore.Row
	Deleted datastore.Revision // zero: it lives
}

// Hand edits what a Log keeps of a store, behind the Log's back and without a
// trace in the history.
type Hand struct {
	// Row puts next in the place of old; old nil adds, next nil removes. orders are
	// those to edit, by object and by subject; a Log that keeps each row once
	// ignores them.
	Row func(store datastore.StoreID, orders [2]bool, old, next *Stored) error
	// Apart tells that the two orders can be edited apart.
	Apart bool
	// Name replaces the name of an id, or removes it (nil).
	Name func(store datastore.StoreID, id int, name *string) error
	// Schema replaces the schema applied at a revision, or removes it (nil).
	Schema func(store datastore.StoreID, at datastore.Revision, text *datastore.SchemaText) error
	// Change edits the bytes of a change as they are kept, or removes them (nil); Swap
	// lets two changes change places; Head puts the head elsewhere. A Log whose
	// history nobody can reach has none of the three.
	Change func(store datastore.StoreID, at datastore.Revision, edit func(*datastore.Entry)) error
	Swap   func(store datastore.StoreID, a, b datastore.Revision) error
	Head   func(store datastore.StoreID, h datastore.Head) error
}

// RunVerify tests that a verification finds every edit of what a Log keeps. open
// is as for [Run].
func RunVerify(t *testing.T, open func(t *testing.T) (datastore.Log, Hand)) {
	t.Run("AVerificationFindsEveryEdit", func(t *testing.T) {
		log, hand := open(t)
		findsEveryEdit(t, log, hand)
	})
	t.Run("AHistoryChangedByHandIsFound", func(t *testing.T) {
		log, hand := open(t)
		if hand.Change == nil {
			t.Skip("nobody can reach the history of this log")
		}
		findsWhatWasTamperedWith(t, log, hand)
	})
	t.Run("AVerificationGoesWithWrites", func(t *testing.T) {
		log, _ := open(t)
		verifiesWhileOthersWrite(t, log)
	})
}

func findsEveryEdit(t *testing.T, log datastore.Log, hand Hand) {
	k, err := keeper.Open(shared(log), keeper.Options{SweepEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	lastStore.Add(1000) // the Keeper has the first ones
	edits := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		store, m := line(t, log)
		for range rapid.IntRange(1, 12).Draw(t, "updates") {
			change(t, log, store, m)
		}
		if rapid.Bool().Draw(t, "trim some") {
			raiseFloor(t, log, store, m)
			trim(t, log, store, m)
		}
		if rapid.Bool().Draw(t, "collect") {
			collect(t, log, store, m)
		}
		checkVerified(t, k, store, m)
		e := m.genEdit(t, hand.Apart)
		if e == nil {
			return
		}
		if err := e.make(hand, store); err != nil {
			t.Fatal(err)
		}
		_, err := k.Verify(bg, store, nil)
		switch {
		case err == nil && e.found(m):
			t.Fatalf("not found: %s", e)
		case err != nil && (!errors.Is(err, datastore.ErrCorrupt) || !e.named(err)):
			t.Fatalf("%s: %v", e, err)
		case err != nil:
			edits[e.kind]++
		}
	})
	t.Logf("edits found: %v", edits)
}

// checkVerified verifies a store that nobody edited.
func checkVerified(t *rapid.T, k *keeper.Keeper, store datastore.StoreID, m *model) {
	v, err := k.Verify(bg, store, nil)
	if err != nil {
		t.Fatal(err)
	}
	live, older := 0, 0
	for _, r := range m.rows {
		if r.deleted == 0 {
			live++
			if r.Created <= m.anchor.Revision {
				older++
			}
		}
	}
	if v.Head != m.head || v.Anchor != m.anchor || v.Verified != m.head.Revision || v.Hash != m.head.Hash || v.Rows != live || v.Older != older {
		t.Fatalf("verified %+v, want head %+v, anchor %+v, %d rows, %d of them older", v, m.head, m.anchor, live, older)
	}
}

// edit is one edit of a store.
type edit struct {
	kind      string
	orders    [2]bool
	old, next *Stored // of a row
	id        int     // of a name; zero: none
	name      *string
	at        datastore.Revision // of a schema; zero: none
	schema    *datastore.SchemaText
}

func (e *edit) String() string {
	text := fmt.Sprintf("%s, orders %v", e.kind, e.orders)
	for _, s := range []*Stored{e.old, e.next} {
		if s != nil {
			text += fmt.Sprintf(", %s since %d until %d", s.Relationship, s.Created, s.Deleted)
		}
	}
	return fmt.Sprintf("%s, name %d, schema %d", text, e.id, e.at)
}

func (e *edit) make(hand Hand, store datastore.StoreID) error {
	switch {
	case e.id > 0:
		return hand.Name(store, e.id, e.name)
	case e.at > 0:
		return hand.Schema(store, e.at, e.schema)
	}
	return hand.Row(store, e.orders, e.old, e.next)
}

// found tells whether an edit must be found. Of what came before the anchor, only
// a difference between the two orders can be.
func (e *edit) found(m *model) bool {
	after := func(s *Stored) bool { return s != nil && s.Created > m.anchor.Revision }
	return m.anchor.Revision == 0 || e.orders[0] != e.orders[1] || after(e.old) || after(e.next) || e.at > m.anchor.Revision
}

// named tells whether an error names what was edited.
func (e *edit) named(err error) bool {
	for _, s := range []*Stored{e.old, e.next} {
		if s != nil && datastore.Facts(err)["relationship"] == s.Key.String() {
			return true
		}
	}
	return e.id > 0 && strings.Contains(err.Error(), "name") || e.at > 0 && strings.Contains(err.Error(), "schema")
}

// genEdit draws an edit that changes what is read at the head; nil if the store
// has nothing of the kind drawn.
func (m *model) genEdit(t *rapid.T, apart bool) *edit {
	e := &edit{orders: [2]bool{true, true}}
	e.kind = rapid.SampledFrom([]string{"remove", "close", "traits", "key", "created", "add", "revive", "name", "schema"}).Draw(t, "edit")
	switch e.kind {
	case "name":
		return m.genNameEdit(t, e)
	case "schema":
		return m.genSchemaEdit(t, e)
	}
	if apart {
		e.orders = rapid.SampledFrom([][2]bool{{true, true}, {true, false}, {false, true}}).Draw(t, "orders")
	}
	if e.kind == "add" {
		r := genRelationship.Draw(t, "relationship")
		r.Subject.ID = "vandal"
		e.next = &Stored{Row: datastore.Row{Relationship: r, Created: m.genRevision(t)}}
		return e
	}
	return m.genRowEdit(t, e)
}

func (m *model) genRevision(t *rapid.T) datastore.Revision {
	return datastore.Revision(rapid.Uint64Range(1, uint64(m.head.Revision)).Draw(t, "revision"))
}

func (m *model) genRowEdit(t *rapid.T, e *edit) *edit {
	var candidates []Stored
	for _, r := range m.rows {
		if (r.deleted != 0) == (e.kind == "revive") {
			candidates = append(candidates, Stored{r.Row, r.deleted})
		}
	}
	if len(candidates) == 0 {
		return nil
	}
	old := rapid.SampledFrom(candidates).Draw(t, "row")
	next := old
	e.old, e.next = &old, &next
	switch e.kind {
	case "remove":
		e.next = nil
	case "close":
		next.Deleted = m.head.Revision
	case "traits":
		if next.Caveat.Name == "" {
			next.Caveat = tuple.Caveat{Name: "vandal"}
		} else if rapid.Bool().Draw(t, "without caveat") {
			next.Caveat = tuple.Caveat{}
		} else {
			next.Caveat.Context = `{"vandal":1}`
		}
	case "key":
		next.Subject.ID = "vandal"
	case "created":
		next.Created = m.genRevision(t)
		for _, r := range m.rows {
			if r.Key == next.Key && r.Created == next.Created {
				return nil // there is such a row, perhaps the same
			}
		}
	case "revive":
		next.Deleted = 0
	}
	return e
}

func (m *model) genNameEdit(t *rapid.T, e *edit) *edit {
	if len(m.names) == 0 {
		return nil
	}
	e.id = rapid.IntRange(1, len(m.names)+1).Draw(t, "id")
	if name := "vandal"; e.id > len(m.names) || rapid.Bool().Draw(t, "rename") {
		e.name = &name
	}
	return e
}

func (m *model) genSchemaEdit(t *rapid.T, e *edit) *edit {
	in := m.schemaAt(m.head.Revision)
	if in == nil {
		return nil
	}
	for e.at = m.head.Revision; m.schemas[e.at] == nil; e.at-- {
	}
	if rapid.Bool().Draw(t, "remove") {
		return e
	}
	next := *in
	e.schema = &next
	switch rapid.IntRange(0, 2).Draw(t, "part") {
	case 0:
		next.Text += "\ndefinition vandal {}"
	case 1:
		next.Hash[7] ^= 1
	default:
		next.Text = "definition vandal {}"
		next.Hash = schemaHash(next.Text)
	}
	return e
}

// verifiesWhileOthersWrite verifies a store again and again while it is written
// to, gets schemas, and is trimmed.
func verifiesWhileOthersWrite(t *testing.T, log datastore.Log) {
	k, err := keeper.Open(shared(log), keeper.Options{SweepEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	apply(t, k, datastore.Default)
	const changes = 60
	ended := make(chan error, 1)
	go func() { ended <- writeAndTrim(k, log, changes) }()
	for times := 1; ; times++ {
		v, err := k.Verify(bg, datastore.Default, nil)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Fatal(err)
			}
			if v, err = k.Verify(bg, datastore.Default, nil); err != nil || v.Anchor.Revision == 0 || v.Rows == 0 {
				t.Fatalf("after all: %+v, %v", v, err)
			}
			t.Logf("verified %d times meanwhile", times)
			return
		default:
		}
	}
}

func writeAndTrim(k *keeper.Keeper, log datastore.Log, changes int) error {
	for i := range changes {
		r := datastore.Request{Actor: "ada"}
		if i%10 == 9 {
			r.Schema = &datastore.SchemaUpdate{Text: testSchema + fmt.Sprintf("\ndefinition extra_%d {}\n", i)}
		} else {
			r.Updates = []datastore.Update{{Kind: datastore.Touch, Relationship: create(fmt.Sprintf("document:%d#viewer@user:%d", i%7, i)).Relationship}}
		}
		o, err := k.Write(bg, datastore.Default, r)
		if err != nil {
			return err
		}
		if i%15 == 14 {
			if err := errors.Join(log.SetFloor(bg, datastore.Default, o.Revision-5), log.Trim(bg, datastore.Default, o.Revision-8)); err != nil {
				return err
			}
		}
	}
	return nil
}
