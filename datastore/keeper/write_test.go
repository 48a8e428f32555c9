package keeper_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

func TestWhatCannotBeWrittenIsRefusedWithTheReason(t *testing.T) {
	k := open(t, memory.New(), keeper.Options{MaxOperations: 3})
	refused(t, k, datastore.Default, updating(t, datastore.Create, "document:1#viewer@user:ada"), datastore.ErrNoSchema, "pemba schema apply")
	write(t, k, applying(testSchema))
	write(t, k, updating(t, datastore.Create, "document:1#viewer@user:ada"))
	head := at(t, k, datastore.FullyConsistent, "").Head()
	set := func(object string, texts ...string) datastore.Request {
		s := datastore.Set{Object: tuple.Object{Type: "document", ID: object}, Relation: "viewer"}
		for _, text := range texts {
			s.Relationships = append(s.Relationships, rel(t, text))
		}
		return datastore.Request{Sets: []datastore.Set{s}}
	}
	both := set("1", "document:1#viewer@user:bob")
	both.Updates = updating(t, datastore.Delete, "document:1#viewer@user:ada").Updates
	mixed := updating(t, datastore.Touch, "document:1#viewer@user:bob")
	mixed.DeleteWhere = &tuple.Filter{ObjectType: "document"}
	withBadReason := updating(t, datastore.Touch, "document:1#viewer@user:bob")
	withBadReason.Reason = "\xff"
	for name, c := range map[string]struct {
		r    datastore.Request
		want error
		text string
	}{
		"create over a live one":         {updating(t, datastore.Create, "document:1#viewer@user:ada[on_day]"), datastore.ErrAlreadyExists, "document:1#viewer@user:ada"},
		"an unknown type":                {updating(t, datastore.Touch, "file:1#viewer@user:ada"), schema.ErrUnknownType, "file"},
		"deleting of unknown type":       {updating(t, datastore.Delete, "file:1#viewer@user:ada"), schema.ErrUnknownType, "file"},
		"a permission":                   {updating(t, datastore.Touch, "document:1#view@user:ada"), schema.ErrPermission, "view"},
		"deleting a permission":          {updating(t, datastore.Delete, "document:1#view@user:ada"), schema.ErrPermission, "view"},
		"a subject not allowed":          {updating(t, datastore.Touch, "document:1#parent@user:ada"), datastore.ErrSchema, "parent"},
		"one named twice":                {updating(t, datastore.Touch, "document:1#viewer@user:bob", "document:1#viewer@user:bob[on_day]"), datastore.ErrInvalid, "twice"},
		"too many operations":            {updating(t, datastore.Touch, "document:1#viewer@user:a", "document:1#viewer@user:b", "document:1#viewer@user:c", "document:1#viewer@user:d"), datastore.ErrTooLarge, "4 operations"},
		"a set of another object":        {set("1", "document:2#viewer@user:a"), datastore.ErrInvalid, "document:2#viewer@user:a"},
		"a set and an update of it":      {both, datastore.ErrInvalid, "document:1#viewer"},
		"writing and deleting by filter": {mixed, datastore.ErrInvalid, "send several"},
		"metadata that is not canonical": {datastore.Request{Metadata: `{ "a": 1 }`, DeleteWhere: &tuple.Filter{ObjectType: "group"}}, datastore.ErrInvalid, "canonical"},
		"too much metadata":              {datastore.Request{Metadata: `{"a":"` + strings.Repeat("x", 64<<10) + `"}`, DeleteWhere: &tuple.Filter{ObjectType: "group"}}, datastore.ErrTooLarge, "metadata"},
		"an empty filter":                {datastore.Request{DeleteWhere: &tuple.Filter{}}, datastore.ErrInvalid, "filter"},
		"a reason that is not text":      {withBadReason, datastore.ErrInvalid, "UTF-8"},
		"a long request id":              {datastore.Request{ID: strings.Repeat("x", 193)}, datastore.ErrTooLarge, "193"},
		"a schema with an error":         {applying("definition user {"), datastore.ErrInvalid, "1:"},
		"a schema that replaces another": {datastore.Request{Schema: &datastore.SchemaUpdate{Text: testSchema, Expected: &[32]byte{1}}}, datastore.ErrHashMismatch, "pemba schema show"},
		"a precondition that must match": {datastore.Request{Preconditions: []datastore.Precondition{{Filter: tuple.Filter{ObjectType: "group"}, MustMatch: true}}}, datastore.ErrPrecondition, "group"},
		"a precondition that must not":   {datastore.Request{Preconditions: []datastore.Precondition{{Filter: tuple.Filter{ObjectType: "document"}}}}, datastore.ErrPrecondition, "document:1#viewer@user:ada"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, k, datastore.Default, c.r, c.want, c.text) })
	}
	if at(t, k, datastore.FullyConsistent, "").Head() != head {
		t.Error("a refused request left a change")
	}
}

func TestASetReplacesTheSubjectsOfOneRelation(t *testing.T) {
	k := openWithSchema(t, memory.New(), keeper.Options{})
	write(t, k, updating(t, datastore.Create, "document:1#viewer@user:a", "document:1#viewer@user:b", "document:1#viewer@user:c", "document:2#viewer@user:a", "document:1#parent@document:2"))
	o := write(t, k, datastore.Request{Sets: []datastore.Set{{
		Object: tuple.Object{Type: "document", ID: "1"}, Relation: "viewer",
		Relationships: []tuple.Relationship{rel(t, "document:1#viewer@user:b"), rel(t, "document:1#viewer@user:c[on_day]"), rel(t, "document:1#viewer@user:d")},
	}}})
	if o.Created != 1 || o.Touched != 1 || o.Deleted != 1 {
		t.Errorf("the set created %d, touched %d and deleted %d", o.Created, o.Touched, o.Deleted)
	}
	want := "document:1#parent@document:2\ndocument:1#viewer@user:b\ndocument:1#viewer@user:c[on_day]\ndocument:1#viewer@user:d\ndocument:2#viewer@user:a"
	if got := rows(t, at(t, k, datastore.MinimizeLatency, ""), time.Now()); got != want {
		t.Errorf("the store holds\n%s", got)
	}
}

func TestADeleteByFilterTellsWhetherMoreIsLeft(t *testing.T) {
	k := openWithSchema(t, memory.New(), keeper.Options{MaxOperations: 4})
	for i := range 7 {
		write(t, k, updating(t, datastore.Create, fmt.Sprintf("document:%d#viewer@user:a", i)))
	}
	filter := tuple.Filter{ObjectType: "document"}
	if o := write(t, k, datastore.Request{DeleteWhere: &filter, DeleteLimit: 2}); o.Deleted != 2 || !o.More {
		t.Errorf("two of seven: deleted %d, more %t", o.Deleted, o.More)
	}
	if o := write(t, k, datastore.Request{DeleteWhere: &filter}); o.Deleted != 5 || o.More {
		t.Errorf("the rest: deleted %d, more %t", o.Deleted, o.More)
	}
}

func TestARequestIDCommitsOnce(t *testing.T) {
	k := openWithSchema(t, memory.New(), keeper.Options{})
	r := updating(t, datastore.Create, "document:1#viewer@user:ada")
	r.ID = "import-1"
	first := write(t, k, r)
	write(t, k, updating(t, datastore.Delete, "document:1#viewer@user:ada"))
	again := write(t, k, r)
	if first.Repeated || !again.Repeated || again.Zookie != first.Zookie || again.Created != 1 || !again.Time.Equal(first.Time) {
		t.Errorf("the outcomes are %+v and %+v", first, again)
	}
	head, err := k.Head(bg, datastore.Default)
	if err != nil {
		t.Fatal(err)
	}
	found, err := k.Requested(bg, datastore.Default, "import-0", "import-1")
	if c, ok := found["import-1"]; err != nil || len(found) != 1 || !ok || c.Revision != first.Revision || len(c.Operations) != 1 {
		t.Errorf("what was requested is %v, %v", found, err)
	}
	if after, err := k.Head(bg, datastore.Default); err != nil || after.Revision != head.Revision {
		t.Errorf("to ask for a request moved the head from %d to %d, %v", head.Revision, after.Revision, err)
	}
	if _, err := k.Requested(bg, 4711, "import-1"); !errors.Is(err, datastore.ErrNoStore) {
		t.Errorf("of a store that does not exist: %v", err)
	}
	r.Reason = "another body"
	refused(t, k, datastore.Default, r, datastore.ErrRequestReused, "import-1")
}

// gate is a Log whose commits can be held up or made to fail.
type gate struct {
	datastore.Log
	hold   chan struct{} // not nil: an Update waits until it is closed
	before atomic.Pointer[func() error]
	after  atomic.Pointer[func() error]
	count  atomic.Int64
}

func (g *gate) Update(ctx context.Context, id datastore.StoreID, have datastore.Head, judge func(datastore.Tail) ([]datastore.Entry, error)) (datastore.Head, error) {
	if id == datastore.System {
		return g.Log.Update(ctx, id, have, judge)
	}
	g.count.Add(1)
	if g.hold != nil {
		<-g.hold
	}
	failed := g.before.Swap(nil)
	head, err := g.Log.Update(ctx, id, have, func(tail datastore.Tail) ([]datastore.Entry, error) {
		entries, err := judge(tail)
		if err == nil && failed != nil {
			return nil, (*failed)()
		}
		return entries, err
	})
	if f := g.after.Swap(nil); f != nil && err == nil {
		return datastore.Head{}, (*f)()
	}
	return head, err
}

func TestWhatArrivesTogetherIsCommittedTogetherAndFailsAlone(t *testing.T) {
	g := &gate{Log: memory.New()}
	k := openWithSchema(t, g, keeper.Options{})
	g.count.Store(0)
	g.hold = make(chan struct{})
	var wg sync.WaitGroup
	var failed, revisions atomic.Int64
	submit := func(text string) {
		wg.Go(func() {
			o, err := k.Write(bg, datastore.Default, updating(t, datastore.Create, text))
			if errors.Is(err, datastore.ErrAlreadyExists) {
				failed.Add(1)
			} else if err != nil {
				t.Error(err)
			}
			revisions.Add(int64(o.Revision))
		})
	}
	submit("document:0#viewer@user:a") // occupies the committer
	time.Sleep(20 * time.Millisecond)
	for i := range 50 {
		submit(fmt.Sprintf("document:%d#viewer@user:a", i)) // number 0 is already there
	}
	canceled, cancel := context.WithCancel(bg)
	wg.Go(func() {
		_, err := k.Write(canceled, datastore.Default, updating(t, datastore.Create, "document:gone#viewer@user:a"))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the caller that went away gets %v", err)
		}
	})
	time.Sleep(20 * time.Millisecond)
	cancel()
	close(g.hold)
	wg.Wait()
	at(t, k, datastore.FullyConsistent, "")
	if n := g.count.Load(); n > 4 {
		t.Errorf("52 requests took %d transactions", n)
	}
	if failed.Load() != 1 {
		t.Errorf("%d requests failed, want 1", failed.Load())
	}
	if v, err := k.Verify(bg, datastore.Default, nil); err != nil || v.Verified < 51 {
		t.Errorf("verify: %d, %v", v.Verified, err)
	}
}

func TestAnAmbiguousCommitIsResolvedByItsRequestIDs(t *testing.T) {
	g := &gate{Log: memory.New()}
	k := openWithSchema(t, g, keeper.Options{})
	ambiguous := func() error { return fmt.Errorf("connection lost: %w", datastore.ErrAmbiguous) }
	for name, lost := range map[string]bool{"committed": false, "lost": true} {
		if lost {
			g.before.Store(&ambiguous)
		} else {
			g.after.Store(&ambiguous)
		}
		text := "document:" + name + "#viewer@user:a"
		o := write(t, k, updating(t, datastore.Create, text))
		if o.Created != 1 || o.Repeated {
			t.Errorf("%s: the outcome is %+v", name, o)
		}
		if s := at(t, k, datastore.MinimizeLatency, ""); s.Zookie() != o.Zookie {
			t.Errorf("%s: the snapshot is not the one written", name)
		}
	}
	if v, err := k.Verify(bg, datastore.Default, nil); err != nil || v.Verified != 3 {
		t.Errorf("verify: %d, %v", v.Verified, err)
	}
}

func TestAFailedCommitLeavesNothingBehind(t *testing.T) {
	g := &gate{Log: memory.New()}
	k := openWithSchema(t, g, keeper.Options{})
	full := errors.New("no space left")
	fail := func() error { return full }
	head := at(t, k, datastore.FullyConsistent, "").Head()
	g.before.Store(&fail)
	refused(t, k, datastore.Default, applying(testSchema+"\ndefinition lost {}\n"), full)
	if s := at(t, k, datastore.FullyConsistent, ""); s.Head() != head || s.Schema().Definition("lost") != nil {
		t.Error("a failed commit is seen")
	}
	write(t, k, applying(testSchema+"\ndefinition found {}\n"))
	s := at(t, k, datastore.FullyConsistent, "")
	if _, ok := s.Names().ID("lost"); ok {
		t.Error("a name of a failed commit stayed")
	}
}

func TestASchemaThatWouldOrphanRelationshipsIsRefused(t *testing.T) {
	c := newClock()
	k := openWithSchema(t, memory.New(), keeper.Options{Now: c.Now})
	write(t, k, updating(t, datastore.Create, "document:2#viewer@group:g#member", "document:1#viewer@group:g#member", "document:1#viewer@user:e[expiration:2026-01-01T00:10:00Z]"))
	smaller := "definition user {}\ndefinition group {\n\trelation member: user\n}\ndefinition document {\n\trelation viewer: user\n}\n"
	refused(t, k, datastore.Default, applying(smaller), datastore.ErrOrphans, "3 stored relationships", "document:1#viewer@group:g#member")
	write(t, k, datastore.Request{DeleteWhere: &tuple.Filter{Subject: tuple.SubjectFilter{Type: "group"}}})
	refused(t, k, datastore.Default, applying(smaller), datastore.ErrOrphans, "1 stored relationship ", "document:1#viewer@user:e")
	c.add(time.Hour)
	before := at(t, k, datastore.MinimizeLatency, "").SchemaHash()
	r := applying(smaller)
	r.Schema.Expected = &before
	o := write(t, k, r)
	for change, err := range k.History(bg, datastore.Default, o.Revision) {
		if err != nil || len(change.Operations) != 2 || change.Operations[0].Kind != datastore.Expire || change.Operations[1].Schema.PreviousHash != before {
			t.Errorf("the change is %+v, %v", change, err)
		}
	}
	if again := write(t, k, applying(smaller)); again.Revision != o.Revision {
		t.Error("applying the schema in force made a change")
	}
}

// switched is a Log that can be exchanged for another under a Keeper, as a
// restore does.
type switched struct {
	datastore.Log
	mu  sync.Mutex
	log datastore.Log
}

func (s *switched) get() datastore.Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log
}
func (s *switched) Head(ctx context.Context, id datastore.StoreID) (datastore.Head, error) {
	return s.get().Head(ctx, id)
}
func (s *switched) After(ctx context.Context, id datastore.StoreID, from datastore.Revision, limit int) (datastore.Head, []datastore.Entry, error) {
	return s.get().After(ctx, id, from, limit)
}
func (s *switched) Update(ctx context.Context, id datastore.StoreID, have datastore.Head, judge func(datastore.Tail) ([]datastore.Entry, error)) (datastore.Head, error) {
	return s.get().Update(ctx, id, have, judge)
}
func (s *switched) Rows(ctx context.Context, id datastore.StoreID, at datastore.Revision, q datastore.RowQuery, f func(datastore.Row) bool) error {
	return s.get().Rows(ctx, id, at, q, f)
}
func (s *switched) Schema(ctx context.Context, id datastore.StoreID, at datastore.Revision) (*datastore.SchemaText, error) {
	return s.get().Schema(ctx, id, at)
}
func (s *switched) Names(ctx context.Context, id datastore.StoreID) ([]string, error) {
	return s.get().Names(ctx, id)
}

func (s *switched) Identities(ctx context.Context, id datastore.StoreID, at datastore.Revision, q datastore.IdentityQuery, f func(datastore.Identity) bool) error {
	return s.get().Identities(ctx, id, at, q, f)
}

func TestAnotherLineOfHistoryIsNoticed(t *testing.T) {
	for name, c := range map[string]struct {
		sameIncarnation bool
		writes          int
	}{
		"restored under a new incarnation":      {false, 3},
		"shorter than the one known":            {true, 1},
		"of the same length":                    {true, 3},
		"longer, with a link that does not fit": {true, 5},
	} {
		for _, byWrite := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, by write %t", name, byWrite), func(t *testing.T) {
				a := memory.New()
				log := &switched{Log: a, log: a}
				k := open(t, log, keeper.Options{})
				write(t, k, applying(strings.ReplaceAll(testSchema, "definition user {}", "definition other {}\ndefinition user {}")))
				old := write(t, k, updating(t, datastore.Create, "document:old#viewer@user:a"))
				old = write(t, k, updating(t, datastore.Create, "document:old2#viewer@user:a"))

				b := memory.New()
				head, err := a.Head(bg, datastore.Default)
				if err != nil {
					t.Fatal(err)
				}
				if c.sameIncarnation {
					if err := b.CreateLine(bg, datastore.Default, head.Incarnation); err != nil {
						t.Fatal(err)
					}
				}
				k2 := open(t, b, keeper.Options{})
				write(t, k2, applying(testSchema))
				var texts []string
				for i := range c.writes - 1 {
					texts = append(texts, fmt.Sprintf("document:new%d#viewer@user:a", i))
					write(t, k2, updating(t, datastore.Create, texts[i]))
				}
				log.mu.Lock()
				log.log = b
				log.mu.Unlock()
				if byWrite {
					texts = append(texts, "document:z#viewer@user:a")
					write(t, k, updating(t, datastore.Create, "document:z#viewer@user:a"))
				}
				s := at(t, k, datastore.FullyConsistent, "")
				if got := rows(t, s, time.Now()); got != strings.Join(texts, "\n") {
					t.Errorf("the answer is\n%s, want\n%s", got, strings.Join(texts, "\n"))
				}
				for _, o := range texts {
					r := rel(t, o)
					id, ok := s.ID(r.Object)
					if typ, _ := s.Names().ID("document"); !ok || s.Type(id) != typ {
						t.Errorf("%s has no id of its type", r.Object)
					}
				}
				_, err = k.At(bg, datastore.Default, datastore.Consistency{Level: datastore.AtLeastAsFresh, Zookie: old.Zookie})
				if !errors.Is(err, datastore.ErrZookie) && !errors.Is(err, datastore.ErrAhead) {
					t.Errorf("a zookie of the other line gives %v", err)
				}
			})
		}
	}
}

func TestADeleteMayRefuseToLeaveAPart(t *testing.T) {
	k := open(t, memory.New(), keeper.Options{SweepEvery: time.Hour})
	write(t, k, applying(testSchema))
	write(t, k, updating(t, datastore.Create, "document:1#viewer@user:a", "document:1#viewer@user:b", "document:1#viewer@user:c"))
	whole := datastore.Request{DeleteWhere: &tuple.Filter{ObjectType: "document"}, DeleteLimit: 2, DeleteWhole: true, Metadata: `{"ticket":7}`}
	refused(t, k, datastore.Default, whole, datastore.ErrTooLarge, "more than 2")
	whole.DeleteLimit = 3
	o := write(t, k, whole)
	if o.Deleted != 3 || o.More {
		t.Errorf("exactly as many as the limit: %+v", o)
	}
	for c, err := range k.History(t.Context(), datastore.Default, o.Revision) {
		if err != nil || c.Metadata != whole.Metadata {
			t.Errorf("the change has metadata %q, %v", c.Metadata, err)
		}
	}
}

// The limits of a delete and of a change meet: exactly as many as a change may
// have are deleted, and a repeated request is told what the first one was.
func TestADeleteOfExactlyAsManyAsAChangeMayHave(t *testing.T) {
	k := open(t, memory.New(), keeper.Options{SweepEvery: time.Hour, MaxOperations: 3})
	write(t, k, applying(testSchema))
	fill := func(n int) {
		t.Helper()
		for i := range n {
			write(t, k, updating(t, datastore.Touch, fmt.Sprintf("document:1#viewer@user:%d", i)))
		}
	}
	for i, c := range []struct {
		stored, limit int
		whole         bool
		deleted       int
		more          bool
	}{
		{stored: 3, limit: 3, whole: true, deleted: 3},
		{stored: 3, limit: 9, whole: true, deleted: 3},
		{stored: 2, limit: 2, whole: true, deleted: 2},
		{stored: 3, limit: 3, deleted: 3, more: true},
		{stored: 4, limit: 9, deleted: 3, more: true},
		{stored: 2, limit: 3, deleted: 2},
		{stored: 4, deleted: 4},
	} {
		fill(c.stored)
		r := datastore.Request{ID: fmt.Sprint("delete ", i), DeleteWhere: &tuple.Filter{ObjectType: "document"}, DeleteLimit: c.limit, DeleteWhole: c.whole}
		for _, repeated := range []bool{false, true} {
			if o := write(t, k, r); o.Deleted != c.deleted || o.More != c.more || o.Repeated != repeated {
				t.Errorf("%+v, repeated %t: deleted %d, more %t, repeated %t", c, repeated, o.Deleted, o.More, o.Repeated)
			}
		}
		write(t, k, datastore.Request{DeleteWhere: &tuple.Filter{ObjectType: "document"}})
	}
	fill(4)
	for _, limit := range []int{3, 9} {
		refused(t, k, datastore.Default, datastore.Request{DeleteWhere: &tuple.Filter{ObjectType: "document"}, DeleteLimit: limit, DeleteWhole: true}, datastore.ErrTooLarge, "more than 3")
	}
}
