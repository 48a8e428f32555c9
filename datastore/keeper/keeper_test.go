package keeper_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/tuple"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testSchema = `use expiration

caveat on_day(day string) { day == "monday" }

definition user {}

definition group {
	relation member: user | group#member
}

definition document {
	relation parent: document
	relation viewer: user | user:* | group#member | user with on_day | user with expiration
	permission view = viewer + parent->view
}
`

var bg = context.Background()

// clock is a test's own time.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func open(t testing.TB, log datastore.Log, opts keeper.Options) *keeper.Keeper {
	t.Helper()
	if opts.SweepEvery == 0 {
		opts.SweepEvery = time.Hour // tests sweep by Tidy
	}
	k, err := keeper.Open(log, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// openWithSchema also applies testSchema to the store default.
func openWithSchema(t testing.TB, log datastore.Log, opts keeper.Options) *keeper.Keeper {
	t.Helper()
	k := open(t, log, opts)
	write(t, k, applying(testSchema))
	return k
}

func applying(text string) datastore.Request {
	return datastore.Request{Schema: &datastore.SchemaUpdate{Text: text}}
}

func rel(t testing.TB, text string) tuple.Relationship {
	t.Helper()
	r, err := tuple.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func updating(t testing.TB, kind datastore.Kind, texts ...string) datastore.Request {
	t.Helper()
	var r datastore.Request
	for _, text := range texts {
		r.Updates = append(r.Updates, datastore.Update{Kind: kind, Relationship: rel(t, text)})
	}
	return r
}

func write(t testing.TB, k *keeper.Keeper, r datastore.Request) datastore.Outcome {
	t.Helper()
	return writeTo(t, k, datastore.Default, r)
}

func writeTo(t testing.TB, k *keeper.Keeper, store datastore.StoreID, r datastore.Request) datastore.Outcome {
	t.Helper()
	o, err := k.Write(bg, store, r)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func at(t testing.TB, k *keeper.Keeper, level datastore.Level, zookie string) datastore.Snapshot {
	t.Helper()
	s, err := k.At(bg, datastore.Default, datastore.Consistency{Level: level, Zookie: zookie})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// rows lists what a snapshot holds at a time, in the order of keys.
func rows(t testing.TB, s datastore.Snapshot, now time.Time) string {
	t.Helper()
	var lines []string
	err := s.Rows(bg, datastore.RowQuery{}, now, func(r datastore.Row) bool {
		lines = append(lines, r.String())
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func refused(t testing.TB, k *keeper.Keeper, store datastore.StoreID, r datastore.Request, want error, texts ...string) {
	t.Helper()
	_, err := k.Write(bg, store, r)
	if !errors.Is(err, want) {
		t.Errorf("the error is %v, want one that is %v", err, want)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("the error %q does not say %q", err, text)
		}
	}
}

func TestAFirstStartMakesTheDefaultStoreOnce(t *testing.T) {
	k := open(t, memory.New(), keeper.Options{})
	stores, err := k.Stores(bg)
	if err != nil || len(stores) != 1 || stores[0].ID != datastore.Default || stores[0].Name != "default" {
		t.Fatalf("stores are %v, %v", stores, err)
	}
	if head := at(t, k, datastore.FullyConsistent, "").Head(); head.Revision != 0 {
		t.Errorf("the head is %d", head.Revision)
	}
}

func TestWhatIsWrittenIsSeenAtEveryConsistency(t *testing.T) {
	k := openWithSchema(t, memory.New(), keeper.Options{})
	before := write(t, k, updating(t, datastore.Create, "document:1#viewer@user:ada"))
	after := write(t, k, updating(t, datastore.Create, "document:2#viewer@user:ada"))
	now := time.Now()
	for level, zookie := range map[datastore.Level]string{
		datastore.MinimizeLatency: "", datastore.FullyConsistent: "", datastore.AtLeastAsFresh: before.Zookie,
	} {
		s := at(t, k, level, zookie)
		if s.Head().Revision != after.Revision || s.Zookie() != after.Zookie || strings.Count(rows(t, s, now), "\n") != 1 {
			t.Errorf("level %d gives revision %d with %q", level, s.Head().Revision, rows(t, s, now))
		}
	}
	s := at(t, k, datastore.AtExactSnapshot, before.Zookie)
	if s.Head().Revision != before.Revision || s.Zookie() != before.Zookie || !s.Head().Time.Equal(before.Time) || rows(t, s, now) != "document:1#viewer@user:ada" {
		t.Errorf("the exact snapshot has revision %d with %q", s.Head().Revision, rows(t, s, now))
	}
}

func TestASecondNodeCatchesUp(t *testing.T) {
	log := memory.New()
	a, b := openWithSchema(t, log, keeper.Options{}), open(t, keptOpen{log}, keeper.Options{MaxStaleness: time.Hour})
	old := at(t, b, datastore.MinimizeLatency, "")
	o := write(t, a, updating(t, datastore.Create, "document:1#viewer@user:ada"))
	if s := at(t, b, datastore.MinimizeLatency, ""); s.Head() != old.Head() {
		t.Error("minimize_latency asked the log within the staleness bound")
	}
	if s := at(t, b, datastore.AtLeastAsFresh, o.Zookie); s.Zookie() != o.Zookie {
		t.Error("a zookie of another node is not honoured")
	}
	done := make(chan datastore.Head)
	go func() {
		head, err := a.Wait(bg, datastore.Default, o.Revision)
		if err != nil {
			t.Error(err)
		}
		done <- head
	}()
	next := write(t, b, updating(t, datastore.Create, "document:2#viewer@user:ada"))
	if head := <-done; head.Revision != next.Revision {
		t.Errorf("waited until revision %d, want %d", head.Revision, next.Revision)
	}
	if s := at(t, a, datastore.FullyConsistent, ""); s.Zookie() != next.Zookie {
		t.Error("fully_consistent does not see what another node wrote")
	}
}

// keptOpen shares a Log that another Keeper closes.
type keptOpen struct{ datastore.Log }

func (keptOpen) Close() error { return nil }

func TestZookiesThatCannotBeUsedAreRefused(t *testing.T) {
	k := openWithSchema(t, memory.New(), keeper.Options{})
	o := write(t, k, updating(t, datastore.Create, "document:1#viewer@user:ada"))
	z, err := datastore.ParseZookie(o.Zookie)
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(*datastore.Zookie)) string {
		c := z
		f(&c)
		return c.String()
	}
	for name, c := range map[string]struct {
		zookie string
		want   error
	}{
		"empty":               {"", datastore.ErrZookie},
		"of another store":    {change(func(z *datastore.Zookie) { z.Store++ }), datastore.ErrZookie},
		"of another line":     {change(func(z *datastore.Zookie) { z.Incarnation[0]++ }), datastore.ErrZookie},
		"with another hash":   {change(func(z *datastore.Zookie) { z.Tag[0]++ }), datastore.ErrZookie},
		"of another revision": {change(func(z *datastore.Zookie) { z.Revision-- }), datastore.ErrZookie},
		"beyond the head":     {change(func(z *datastore.Zookie) { z.Revision++ }), datastore.ErrAhead},
	} {
		for _, level := range []datastore.Level{datastore.AtLeastAsFresh, datastore.AtExactSnapshot} {
			if _, err := k.At(bg, datastore.Default, datastore.Consistency{Level: level, Zookie: c.zookie}); !errors.Is(err, c.want) {
				t.Errorf("a zookie %s at level %d gives %v", name, level, err)
			}
		}
	}
	if r, err := k.Zookie(bg, datastore.Default, o.Zookie); err != nil || r != o.Revision {
		t.Errorf("a good zookie gives %d, %v", r, err)
	}
}

func TestHistoryTellsWhoDidWhat(t *testing.T) {
	k := openWithSchema(t, memory.New(), keeper.Options{})
	r := updating(t, datastore.Touch, "document:1#viewer@user:ada")
	r.Actor, r.Reason = "ada", "first day"
	write(t, k, r)
	write(t, k, updating(t, datastore.Touch, "document:1#viewer@user:ada[on_day]"))
	var texts []string
	for c, err := range k.History(bg, datastore.Default, 2) {
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range c.Operations {
			texts = append(texts, fmt.Sprintf("%d %s %s: %d %s, was %v", c.Revision, c.Actor, c.Reason, o.Kind, o.Relationship, o.Previous))
		}
	}
	want := "2 ada first day: 2 document:1#viewer@user:ada, was <nil>|3  : 2 document:1#viewer@user:ada[on_day], was document:1#viewer@user:ada"
	if got := strings.Join(texts, "|"); got != want {
		t.Errorf("the history is\n%s, want\n%s", got, want)
	}
	if v, err := k.Verify(bg, datastore.Default, nil); err != nil || v.Verified != 3 {
		t.Errorf("verify gives revision %d, %v", v.Verified, err)
	}
}

func TestStoresAndTokensLiveInSystem(t *testing.T) {
	log := memory.New()
	k := open(t, keptOpen{log}, keeper.Options{})
	system := func(r datastore.Request) datastore.Outcome {
		t.Helper()
		o, err := k.Write(bg, datastore.System, r)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	acme := system(datastore.Request{CreateStore: &datastore.Store{Name: "acme"}}).Store
	if acme == nil || acme.ID != 3 {
		t.Fatalf("the new store is %v", acme)
	}
	system(datastore.Request{CreateToken: &datastore.Token{Name: "ci", Role: "reader", Store: "acme", Hash: [32]byte{1}}, Actor: "root"})
	if tok, ok, err := k.TokenByHash(bg, [32]byte{1}); err != nil || !ok || tok.StoreID != 3 || tok.Actor != "root" {
		t.Errorf("the token is %v, %t, %v", tok, ok, err)
	}
	if _, err := k.At(bg, acme.ID, datastore.Consistency{}); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		store datastore.StoreID
		r     datastore.Request
		want  error
	}{
		"a taken name":            {datastore.System, datastore.Request{CreateStore: &datastore.Store{Name: "acme"}}, datastore.ErrAlreadyExists},
		"a reserved name":         {datastore.System, datastore.Request{CreateStore: &datastore.Store{Name: "system"}}, datastore.ErrName},
		"a bad name":              {datastore.System, datastore.Request{CreateStore: &datastore.Store{Name: "Acme"}}, datastore.ErrInvalid},
		"deleting default":        {datastore.System, datastore.Request{DeleteStore: "default"}, datastore.ErrProtected},
		"deleting nothing":        {datastore.System, datastore.Request{DeleteStore: "nothing"}, datastore.ErrNoStore},
		"a taken token":           {datastore.System, datastore.Request{CreateToken: &datastore.Token{Name: "ci"}}, datastore.ErrAlreadyExists},
		"revoking nothing":        {datastore.System, datastore.Request{RevokeToken: "nothing"}, datastore.ErrNotFound},
		"a store made elsewhere":  {datastore.Default, datastore.Request{CreateStore: &datastore.Store{Name: "b"}}, datastore.ErrInvalid},
		"relationships in system": {datastore.System, updating(t, datastore.Touch, "document:1#viewer@user:a"), datastore.ErrReadOnlySystem},
	} {
		t.Run(name, func(t *testing.T) { refused(t, k, c.store, c.r, c.want) })
	}
	system(datastore.Request{DeleteStore: "acme"})
	if _, err := k.At(bg, acme.ID, datastore.Consistency{}); !errors.Is(err, datastore.ErrNoStore) {
		t.Errorf("a deleted store gives %v", err)
	}
	if _, ok, _ := k.TokenByHash(bg, [32]byte{1}); ok {
		t.Error("a token outlives its store")
	}
	if again := system(datastore.Request{CreateStore: &datastore.Store{Name: "acme"}}).Store; again.ID != 4 {
		t.Errorf("the store made again has id %d, want 4", again.ID)
	}

	// A crash between the change in system and the work on the lines is healed.
	if err := log.DropLine(bg, 4); err != nil {
		t.Fatal(err)
	}
	if err := log.CreateLine(bg, 9, datastore.Incarnation{9}); err != nil {
		t.Fatal(err)
	}
	k2 := open(t, log, keeper.Options{})
	if _, err := k2.At(bg, 4, datastore.Consistency{}); err != nil {
		t.Errorf("a store without a line is not healed: %v", err)
	}
	if lines, _ := log.Lines(bg); len(lines) != 3 {
		t.Errorf("the lines are %v", lines)
	}
	if s, err := k2.StoreByName(bg, "acme"); err != nil || s.ID != 4 {
		t.Errorf("acme is %v, %v", s, err)
	}
	if _, err := k2.StoreByName(bg, "nobody"); !errors.Is(err, datastore.ErrNoStore) {
		t.Errorf("an unknown name gives %v", err)
	}
}

func TestExpiredRelationshipsAreSwept(t *testing.T) {
	c := newClock()
	k := openWithSchema(t, memory.New(), keeper.Options{Now: c.Now, MaxOperations: 2})
	for i := range 5 {
		write(t, k, updating(t, datastore.Create, fmt.Sprintf("document:%d#viewer@user:ada[expiration:2026-01-01T01:00:00Z]", i)))
	}
	write(t, k, updating(t, datastore.Create, "document:9#viewer@user:ada"))
	refused(t, k, datastore.Default, updating(t, datastore.Create, "document:0#viewer@user:ada"), datastore.ErrAlreadyExists, "document:0#viewer@user:ada")
	c.add(time.Hour)
	s := at(t, k, datastore.FullyConsistent, "")
	if got := rows(t, s, c.Now()); got != "document:9#viewer@user:ada" {
		t.Errorf("before the sweep a listing shows %q", got)
	}
	if o := write(t, k, updating(t, datastore.Create, "document:0#viewer@user:ada")); o.Created != 1 {
		t.Error("an expired relationship is in the way")
	}
	if err := k.Tidy(bg); err != nil {
		t.Fatal(err)
	}
	expired, sweeps := 0, 0
	for change, err := range k.History(bg, datastore.Default, s.Head().Revision+2) {
		if err != nil {
			t.Fatal(err)
		}
		if change.Actor != keeper.SweeperActor || len(change.Operations) > 2 {
			t.Errorf("change %d is by %q with %d operations", change.Revision, change.Actor, len(change.Operations))
		}
		sweeps++
		for _, o := range change.Operations {
			if o.Kind == datastore.Expire {
				expired++
			}
		}
	}
	if expired != 4 || sweeps != 2 {
		t.Errorf("%d relationships were swept in %d changes, want 4 in 2", expired, sweeps)
	}
	head := at(t, k, datastore.FullyConsistent, "").Head()
	if err := k.Tidy(bg); err != nil || at(t, k, datastore.FullyConsistent, "").Head() != head {
		t.Error("a sweep of nothing made a change")
	}
}

func TestWhatIsOlderThanTheRetentionIsCollected(t *testing.T) {
	c := newClock()
	log := memory.New()
	k := openWithSchema(t, log, keeper.Options{Now: c.Now, Retention: time.Hour, HistoryRetention: 2 * time.Hour})
	first := write(t, k, updating(t, datastore.Create, "document:1#viewer@user:ada"))
	c.add(90 * time.Minute)
	second := write(t, k, updating(t, datastore.Delete, "document:1#viewer@user:ada"))
	if err := k.Tidy(bg); err != nil {
		t.Fatal(err)
	}
	if got := rows(t, at(t, k, datastore.AtExactSnapshot, first.Zookie), c.Now()); got != "document:1#viewer@user:ada" {
		t.Errorf("the state when the window begins is gone: %q", got)
	}
	c.add(90 * time.Minute)
	write(t, k, updating(t, datastore.Touch, "document:2#viewer@user:ada"))
	if err := k.Tidy(bg); err != nil {
		t.Fatal(err)
	}
	if head, err := log.Head(bg, datastore.Default); err != nil || head.Floor != second.Revision {
		t.Errorf("the floor is %d, %v; want %d", head.Floor, err, second.Revision)
	}
	if _, err := k.At(bg, datastore.Default, datastore.Consistency{Level: datastore.AtExactSnapshot, Zookie: first.Zookie}); !errors.Is(err, datastore.ErrCompacted) {
		t.Errorf("an exact snapshot below the floor gives %v", err)
	}
	at(t, k, datastore.AtLeastAsFresh, first.Zookie)
	for _, err := range k.History(bg, datastore.Default, 1) {
		if !errors.Is(err, datastore.ErrCompacted) {
			t.Errorf("trimmed history gives %v", err)
		}
		break
	}
	if v, err := k.Verify(bg, datastore.Default, nil); err != nil || v.Verified != second.Revision+1 {
		t.Errorf("verify from the anchor gives %d, %v", v.Verified, err)
	}
}

func TestAClosedKeeperSaysSo(t *testing.T) {
	k, err := keeper.Open(memory.New(), keeper.Options{})
	if err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error)
	go func() {
		_, err := k.Wait(bg, datastore.Default, 99)
		waiting <- err
	}()
	time.Sleep(10 * time.Millisecond)
	if err := errors.Join(k.Close(), k.Close()); err != nil {
		t.Fatal(err)
	}
	_, errAt := k.At(bg, datastore.Default, datastore.Consistency{})
	_, errWrite := k.Write(bg, datastore.Default, applying(testSchema))
	for _, err := range []error{<-waiting, errAt, errWrite} {
		if !errors.Is(err, datastore.ErrClosed) {
			t.Errorf("after Close the error is %v", err)
		}
	}
}

func TestADictionaryOfTheDeadIsRenewedUnderItsReaders(t *testing.T) {
	k := openWithSchema(t, memory.New(), keeper.Options{})
	write(t, k, updating(t, datastore.Create, "document:kept#viewer@user:ada[on_day]"))
	early := at(t, k, datastore.FullyConsistent, "")
	for round := range 15 {
		var texts []string
		for i := range 1000 {
			texts = append(texts, fmt.Sprintf("document:%d-%d#viewer@user:%d-%d", round, i, round, i))
		}
		write(t, k, updating(t, datastore.Create, texts...))
		write(t, k, updating(t, datastore.Delete, texts...))
	}
	late := at(t, k, datastore.FullyConsistent, "")
	if _, ok := late.ID(tuple.Object{Type: "document", ID: "0-0"}); ok {
		t.Error("an object deleted long ago still has an id")
	}
	for _, s := range []datastore.Snapshot{early, late} {
		id, _ := s.ID(tuple.Object{Type: "document", ID: "kept"})
		var got []string
		if err := s.Read(bg, []datastore.Query{{Object: id}}, func(_ int, e datastore.Edge) bool {
			got = append(got, s.Object(e.Subject).String()+"["+e.Caveat+"]")
			return true
		}); err != nil || len(got) != 1 || got[0] != "user:ada[on_day]" {
			t.Errorf("revision %d reads %v, %v", s.Head().Revision, got, err)
		}
	}
}

func TestANodeFarBehindCatchesUpInPages(t *testing.T) {
	log := memory.New()
	a, b := openWithSchema(t, log, keeper.Options{}), open(t, keptOpen{log}, keeper.Options{MaxStaleness: time.Hour})
	at(t, b, datastore.FullyConsistent, "")
	var o datastore.Outcome
	for i := range 2100 {
		o = write(t, a, updating(t, datastore.Touch, fmt.Sprintf("document:%d#viewer@user:ada", i%10)))
	}
	if s := at(t, b, datastore.FullyConsistent, ""); s.Zookie() != o.Zookie || strings.Count(rows(t, s, time.Now()), "\n") != 9 {
		t.Errorf("the node that was behind is at revision %d, want %d", s.Head().Revision, o.Revision)
	}
}

// TestAnUnknownOperationStopsTheStore: a newer node wrote what this one does not
// know; answering without it would be answering wrongly.
func TestAnUnknownOperationStopsTheStore(t *testing.T) {
	log := &newer{Log: memory.New()}
	k := openWithSchema(t, log, keeper.Options{})
	log.unknown.Store(true)
	if _, err := k.At(bg, datastore.Default, datastore.Consistency{Level: datastore.FullyConsistent}); !errors.Is(err, datastore.ErrUnknownOperation) {
		t.Errorf("the answer is %v", err)
	}
}

// newer is a Log whose history goes on with an entry of a later format.
type newer struct {
	datastore.Log
	unknown atomic.Bool
}

func (n *newer) After(ctx context.Context, id datastore.StoreID, from datastore.Revision, limit int) (datastore.Head, []datastore.Entry, error) {
	head, entries, err := n.Log.After(ctx, id, from, limit)
	if !n.unknown.Load() || err != nil || from != head.Revision {
		return head, entries, err
	}
	e := datastore.Entry{Revision: from + 1, Header: []byte{0x08, 99, 0x10, byte(from + 1)}} // format and revision
	digest := sha256.Sum256(nil)
	e.Header = append(append(e.Header, 0x42, 32), digest[:]...) // of the payload
	e.Hash = datastore.Hash(sha256.Sum256(append(append([]byte("pemba change 1\x00"), head.Hash[:]...), e.Header...)))
	head.Revision, head.Hash = e.Revision, e.Hash
	return head, []datastore.Entry{e}, nil
}
