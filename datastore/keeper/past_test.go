package keeper_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/tuple"
)

// pastStore is a store whose history lies before its retention window, and what
// lived at each of its revisions.
type pastStore struct {
	keeper *keeper.Keeper
	clock  *clock
	states []map[string]bool // viewers, by revision
	times  []time.Time
}

// newPastStore makes n changes of a few documents' viewers, and then a day goes by.
func newPastStore(t testing.TB, log datastore.Log, n int, o keeper.Options) *pastStore {
	t.Helper()
	p := &pastStore{clock: newClock(), states: []map[string]bool{{}, {}}, times: []time.Time{{}}}
	o.Now, o.Retention = p.clock.Now, time.Hour
	p.keeper = openWithSchema(t, log, o)
	p.times = append(p.times, p.clock.Now())
	r := rand.New(rand.NewPCG(1, 2))
	for range n {
		p.clock.add(time.Duration(r.IntN(3)) * time.Second) // some share a time
		text := fmt.Sprintf("document:%d#viewer@user:%d", r.IntN(4), r.IntN(30))
		next := maps.Clone(p.states[len(p.states)-1])
		kind := datastore.Touch
		if next[text] {
			kind = datastore.Delete
			delete(next, text)
		} else {
			next[text] = true
		}
		o := write(t, p.keeper, updating(t, kind, text))
		p.states, p.times = append(p.states, next), append(p.times, o.Time)
	}
	p.clock.add(24 * time.Hour)
	write(t, p.keeper, updating(t, datastore.Touch, "document:0#viewer@user:now"))
	p.clock.add(24 * time.Hour)
	write(t, p.keeper, updating(t, datastore.Touch, "document:0#viewer@user:later"))
	if err := p.keeper.Tidy(bg); err != nil {
		t.Fatal(err)
	}
	return p
}

// look reads what lived at a revision.
func (p *pastStore) look(ctx context.Context, at datastore.Revision) (map[string]bool, error) {
	s, err := p.keeper.AtRevision(ctx, datastore.Default, at)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if h := s.Head(); h.Revision != at || !h.Time.Equal(p.times[at]) {
		return nil, fmt.Errorf("the snapshot of revision %d, %s, is of %d, %s", at, p.times[at], h.Revision, h.Time)
	}
	found := map[string]bool{}
	for d := range 4 {
		o := tuple.Object{Type: "document", ID: fmt.Sprint(d)}
		id, ok := s.ID(o)
		if !ok {
			continue
		}
		if err := s.Read(ctx, []datastore.Query{{Object: id}}, func(_ int, e datastore.Edge) bool {
			found[o.String()+"#viewer@"+s.Object(e.Subject).String()] = true
			return true
		}); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func TestEveryRevisionIsReplayedWhoeverAsks(t *testing.T) {
	p := newPastStore(t, memory.New(), 300, keeper.Options{})
	head, err := p.keeper.Head(bg, datastore.Default)
	if err != nil || int(head.Floor) < len(p.states)-1 {
		t.Fatalf("the floor is %d, %v", head.Floor, err)
	}
	var work sync.WaitGroup
	for i := range 6 {
		r := rand.New(rand.NewPCG(uint64(i), 0))
		work.Go(func() {
			for range 30 {
				at := datastore.Revision(1 + r.IntN(len(p.states)-1))
				got, err := p.look(bg, at)
				if err != nil || !maps.Equal(got, p.states[at]) {
					t.Errorf("revision %d: %v, %v; want %v", at, got, err, p.states[at])
					return
				}
			}
		})
	}
	work.Wait()
}

func TestATimeFindsTheLastChangeThatIsNotYounger(t *testing.T) {
	p := newPastStore(t, memory.New(), 60, keeper.Options{})
	for _, at := range p.times[1:] {
		for _, d := range []time.Duration{-time.Microsecond, 0, time.Microsecond} {
			want := datastore.Revision(0)
			for r, made := range p.times[1:] {
				if !made.After(at.Add(d)) {
					want = datastore.Revision(r + 1)
				}
			}
			if h, err := p.keeper.HeadBefore(bg, datastore.Default, at.Add(d)); err != nil || h.Revision != want || want > 0 && !h.Time.Equal(p.times[want]) {
				t.Fatalf("at %s: %+v, %v; want revision %d", at.Add(d), h, err, want)
			}
		}
	}
}

// impatient ends contexts after some reads of the history.
type impatient struct {
	datastore.Log
	reads  atomic.Int64
	cancel atomic.Pointer[context.CancelFunc]
}

func (l *impatient) After(ctx context.Context, id datastore.StoreID, from datastore.Revision, limit int) (datastore.Head, []datastore.Entry, error) {
	if l.reads.Add(1)%4 == 0 {
		if cancel := l.cancel.Load(); cancel != nil {
			(*cancel)()
		}
	}
	if err := ctx.Err(); err != nil {
		return datastore.Head{}, nil, err
	}
	return l.Log.After(ctx, id, from, limit)
}

// A replay that takes longer than its caller waits is not begun anew for ever.
func TestAReplayThatWasLeftGoesOn(t *testing.T) {
	log := &impatient{Log: memory.New()}
	p := newPastStore(t, log, 3000, keeper.Options{})
	at := datastore.Revision(2990)
	for tries := 1; ; tries++ {
		ctx, cancel := context.WithCancel(bg)
		log.cancel.Store(&cancel)
		got, err := p.look(ctx, at)
		cancel()
		if err == nil && maps.Equal(got, p.states[at]) {
			if tries == 1 {
				t.Error("it was never left")
			}
			return
		}
		if !errors.Is(err, context.Canceled) || tries == 100 {
			t.Fatalf("after %d tries: %v, %v", tries, got, err)
		}
	}
}

// altered changes what the log gives of one change.
type altered struct {
	datastore.Log
	at     atomic.Uint64
	gone   bool
	damage func(*datastore.Entry)
}

func (l *altered) After(ctx context.Context, id datastore.StoreID, from datastore.Revision, limit int) (datastore.Head, []datastore.Entry, error) {
	h, entries, err := l.Log.After(ctx, id, from, limit)
	if at := datastore.Revision(l.at.Load()); err == nil && id == datastore.Default && at > from && at <= from+datastore.Revision(len(entries)) {
		entries = slices.Clone(entries)
		if i := at - from - 1; l.gone {
			entries = slices.Delete(entries, int(i), int(i)+1)
		} else {
			l.damage(&entries[i])
		}
	}
	return h, entries, err
}

func TestADamagedHistoryIsNeitherReplayedNorToldAsWhole(t *testing.T) {
	for name, log := range map[string]*altered{
		"a change gone": {Log: memory.New(), gone: true},
		"a byte":        {Log: memory.New(), damage: func(e *datastore.Entry) { e.Payload = []byte(strings.Replace(string(e.Payload), "user", "usar", 1)) }},
	} {
		p := newPastStore(t, log, 40, keeper.Options{})
		log.at.Store(20)
		if _, err := p.look(bg, 30); !errors.Is(err, datastore.ErrCorrupt) || datastore.Facts(err)["revision"] != "20" {
			t.Errorf("%s, replayed: %v", name, err)
		}
		if got, err := p.look(bg, 19); err != nil || !maps.Equal(got, p.states[19]) {
			t.Errorf("%s, replayed up to it: %v", name, err)
		}
		told := 0
		var failed error
		for _, err := range p.keeper.Entries(bg, datastore.Default, 1) {
			if failed = err; err == nil {
				told++
			}
		}
		if log.gone && (told != 19 || !errors.Is(failed, datastore.ErrCorrupt) || datastore.Facts(failed)["revision"] != "20") {
			t.Errorf("%s: %d changes are told, then %v", name, told, failed)
		}
	}
}

// BenchmarkReplay tells how long the past beyond the window takes, a change.
func BenchmarkReplay(b *testing.B) {
	const n = 100_000
	c := newClock()
	k := openWithSchema(b, memory.New(), keeper.Options{Now: c.Now, Retention: time.Hour})
	for i := range n {
		write(b, k, updating(b, datastore.Touch, fmt.Sprintf("document:%d#viewer@user:%d", i/5, i%1000)))
	}
	c.add(24 * time.Hour)
	write(b, k, updating(b, datastore.Touch, "document:0#viewer@user:now"))
	c.add(24 * time.Hour)
	write(b, k, updating(b, datastore.Touch, "document:0#viewer@user:later"))
	if err := k.Tidy(bg); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for i := range b.N {
		s, err := k.AtRevision(bg, datastore.Default, datastore.Revision(n-i)) // never the one that is kept
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/change")
}
