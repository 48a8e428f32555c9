package keeper_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/tuple"
)

// backupOf backs up the store default.
func backupOf(t testing.TB, k *keeper.Keeper) []byte {
	t.Helper()
	var out bytes.Buffer
	if _, _, err := k.Backup(bg, datastore.Store{ID: datastore.Default, Name: "default"}, nil, &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// peopled is a store with some changes, and a user; trimmed in part if asked for.
func peopled(t testing.TB, trimmed bool) []byte {
	t.Helper()
	now := newClock()
	o := keeper.Options{Now: now.Now, MaxStaleness: time.Millisecond}
	if trimmed {
		o.Retention, o.HistoryRetention = 8*time.Second, 12*time.Second
	}
	k := openWithSchema(t, memory.New(), o)
	for n := range 20 {
		now.add(time.Second)
		r, err := tuple.Parse(fmt.Sprintf("document:%d#viewer@user:%d", n%7, n))
		if err != nil {
			t.Fatal(err)
		}
		write(t, k, datastore.Request{ID: fmt.Sprint("r", n), Updates: []datastore.Update{{Kind: datastore.Touch, Relationship: r}}})
		write(t, k, datastore.Request{Identities: []datastore.IdentityUpdate{{Object: tuple.Object{Type: "user", ID: fmt.Sprint(n % 3)}, Kind: datastore.User,
			State: datastore.Suspended, Attributes: fmt.Sprintf(`{"n":%d}`, n)}}})
	}
	if err := k.Tidy(bg); err != nil {
		t.Fatal(err)
	}
	return backupOf(t, k)
}

// frames are where the frames of a backup begin, and where the last ends.
func frames(image []byte) (list []int) {
	for at := len("pemba backup 1\n"); at < len(image); at += 4 + int(binary.BigEndian.Uint32(image[at:])) + 16 {
		list = append(list, at)
	}
	return append(list, len(image))
}

// untouched checks that a Log holds the stores system and default and nothing else.
func untouched(t testing.TB, log datastore.Log, k *keeper.Keeper) {
	t.Helper()
	lines, err := log.Lines(bg)
	if err != nil || !slices.Equal(lines, []datastore.StoreID{datastore.System, datastore.Default}) {
		t.Errorf("the lines are %v, %v", lines, err)
	}
	if stores, err := k.Stores(bg); err != nil || len(stores) != 1 {
		t.Errorf("the stores are %v, %v", stores, err)
	}
}

// A backup that was cut off, altered, put in another order or continued is refused
// where it is damaged, and leaves nothing.
func TestADamagedBackupIsRefusedWhereItIsDamaged(t *testing.T) {
	for _, trimmed := range []bool{false, true} {
		image := peopled(t, trimmed)
		log := memory.New()
		k := open(t, log, keeper.Options{})
		try := func(what string, damaged []byte, least, most int) {
			t.Helper()
			_, err := k.Restore(bg, bytes.NewReader(damaged), datastore.RestoreOptions{Name: "copy"})
			if !errors.Is(err, datastore.ErrBackup) {
				t.Errorf("%s: the error is %v", what, err)
				return
			}
			var at int
			if text := datastore.Facts(err)["offset"]; text != "" {
				fmt.Sscan(text, &at)
			} else if least >= len("pemba backup 1\n") {
				t.Errorf("%s: the error does not say where: %v", what, err)
			}
			if at > most || at < least && least >= len("pemba backup 1\n") {
				t.Errorf("%s: the error says byte %d, not one of %d to %d: %v", what, at, least, most, err)
			}
		}
		list := frames(image)
		frameOf := func(i int) int {
			n, found := slices.BinarySearch(list, i)
			if !found {
				n--
			}
			if n < 0 {
				return 0
			}
			return list[n]
		}
		r := rand.New(rand.NewPCG(3, 5))
		for range 120 {
			i := r.IntN(len(image))
			at := frameOf(i)
			flipped := bytes.Clone(image)
			flipped[i] ^= 1 << r.IntN(8)
			try(fmt.Sprintf("byte %d flipped", i), flipped, at, at)
			try(fmt.Sprintf("cut at byte %d", i), image[:i], at, at)
		}
		frame := func(n int) []byte { return image[list[n]:list[n+1]] }
		for n := range len(list) - 1 {
			try(fmt.Sprintf("cut behind frame %d", n), image[:list[n]], list[n], list[n])
			if n+2 < len(list) {
				try(fmt.Sprintf("frame %d left out", n), slices.Concat(image[:list[n]], image[list[n+1]:]), list[n], list[n])
				try(fmt.Sprintf("frames %d and %d exchanged", n, n+1), slices.Concat(image[:list[n]], frame(n+1), frame(n), image[list[n+2]:]), list[n], list[n])
			}
			try(fmt.Sprintf("frame %d twice", n), slices.Concat(image[:list[n+1]], frame(n), image[list[n+1]:]), list[n+1], list[n+1])
		}
		try("empty", nil, 0, 0)
		try("something else", []byte("hello"), 0, 0)
		try("continued", append(bytes.Clone(image), 0), len(image), len(image))
		untouched(t, log, k)
		if _, err := k.Restore(bg, bytes.NewReader(image), datastore.RestoreOptions{Name: "copy"}); err != nil {
			t.Errorf("the whole backup gives %v", err)
		}
	}
}

// forge writes a backup anew, with other pieces.
func forge(t *testing.T, image []byte, alter func(*datastore.Backup, *datastore.BackupPiece)) []byte {
	t.Helper()
	in, err := datastore.NewBackupReader(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	b := in.Backup
	alter(&b, &datastore.BackupPiece{})
	var out bytes.Buffer
	w, err := datastore.NewBackupWriter(&out, b)
	for err == nil {
		var p datastore.BackupPiece
		if p, err = in.Next(); errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			break
		}
		alter(&b, &p)
		switch {
		case p.Change != nil:
			if err = w.Identities(p.Change.Identities); err == nil {
				err = w.Change(*p.Change)
			}
		case p.Base != nil:
			err = w.Base(*p.Base)
		case p.Rows != nil:
			for _, r := range p.Rows {
				err = errors.Join(err, w.Row(r))
			}
			err = errors.Join(err, w.EndRows())
		default:
			err = w.Identities(p.Identities)
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if _, err := w.End(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A backup whose frames are in order, and whose parts contradict one another, is
// refused all the same, and leaves nothing.
func TestABackupThatContradictsItselfIsRefused(t *testing.T) {
	once := func(f func(p *datastore.BackupPiece) bool) func(*datastore.Backup, *datastore.BackupPiece) {
		done := false
		return func(_ *datastore.Backup, p *datastore.BackupPiece) { done = done || f(p) }
	}
	for name, alter := range map[string]func(*datastore.Backup, *datastore.BackupPiece){
		"another hash of the head":     func(b *datastore.Backup, _ *datastore.BackupPiece) { b.Head.Hash[0] ^= 1 },
		"another revision of the head": func(b *datastore.Backup, _ *datastore.BackupPiece) { b.Head.Revision++ },
		"another hash of the anchor":   func(b *datastore.Backup, _ *datastore.BackupPiece) { b.Anchor.Hash[0] ^= 1 },
		"a base at another place":      func(b *datastore.Backup, _ *datastore.BackupPiece) { b.Base-- },
		"other attributes": once(func(p *datastore.BackupPiece) bool {
			if p.Change == nil || len(p.Change.Identities) == 0 {
				return false
			}
			p.Change.Identities[0].Attributes = `{"n":"other"}`
			return true
		}),
		"a user left out": once(func(p *datastore.BackupPiece) bool {
			if p.Change == nil || len(p.Change.Identities) == 0 {
				return false
			}
			p.Change.Identities = nil
			return true
		}),
		"another payload": once(func(p *datastore.BackupPiece) bool {
			if p.Change == nil {
				return false
			}
			p.Change.Payload = nil
			return true
		}),
		"another relationship in the base": once(func(p *datastore.BackupPiece) bool {
			if len(p.Rows) == 0 {
				return false
			}
			i := slices.IndexFunc(p.Rows, func(r datastore.Row) bool { return r.Created > 20 })
			p.Rows[i].Subject.ID = "mallory"
			return true
		}),
		"a schema that is none": once(func(p *datastore.BackupPiece) bool {
			if p.Base == nil {
				return false
			}
			p.Base.Schema.Text = "definition"
			return true
		}),
		"other attributes in the base": once(func(p *datastore.BackupPiece) bool {
			i := slices.IndexFunc(p.Identities, func(i datastore.Identity) bool { return i.Revision > 20 })
			if i < 0 {
				return false
			}
			p.Identities[i].Attributes = `{"n":"other"}`
			return true
		}),
	} {
		t.Run(name, func(t *testing.T) {
			image := peopled(t, true)
			forged := forge(t, image, alter)
			if bytes.Equal(forged, image) {
				t.Fatal("nothing was altered")
			}
			log := memory.New()
			k := open(t, log, keeper.Options{})
			if _, err := k.Restore(bg, bytes.NewReader(forged), datastore.RestoreOptions{Name: "copy"}); !errors.Is(err, datastore.ErrBackup) {
				t.Errorf("the error is %v", err)
			}
			untouched(t, log, k)
		})
	}
}

// failing is a Log whose nth call that writes fails, and every call after it if it
// is gone.
type failing struct {
	*memory.Log
	left atomic.Int64
	gone bool
}

var errFails = errors.New("no more")

func (l *failing) fails() error {
	if n := l.left.Add(-1); n == 0 || n < 0 && l.gone {
		return errFails
	}
	return nil
}

func (l *failing) CreateLine(ctx context.Context, store datastore.StoreID, n datastore.Incarnation) error {
	if err := l.fails(); err != nil {
		return err
	}
	return l.Log.CreateLine(ctx, store, n)
}

func (l *failing) Update(ctx context.Context, store datastore.StoreID, have datastore.Head, judge func(datastore.Tail) ([]datastore.Entry, error)) (datastore.Head, error) {
	if err := l.fails(); err != nil {
		return datastore.Head{}, err
	}
	return l.Log.Update(ctx, store, have, judge)
}

func (l *failing) Plant(ctx context.Context, store datastore.StoreID, s datastore.Seed) error {
	if err := l.fails(); err != nil {
		return err
	}
	return l.Log.Plant(ctx, store, s)
}

func (l *failing) DropLine(ctx context.Context, store datastore.StoreID) error {
	if err := l.fails(); err != nil && l.gone {
		return err
	}
	return l.Log.DropLine(ctx, store)
}

func (l *failing) Close() error { return nil }

// Whatever write of a restore fails, the store is not there, and what was written
// is gone: at once, or if the process ended there, when the next one starts or
// restores.
func TestARestoreThatFailsLeavesNothing(t *testing.T) {
	image := peopled(t, true)
	for _, gone := range []bool{false, true} {
		for n := int64(1); ; n++ {
			log := &failing{Log: memory.New(), gone: gone}
			log.left.Store(1 << 40)
			k := open(t, log, keeper.Options{})
			log.left.Store(n)
			_, err := k.Restore(bg, bytes.NewReader(image), datastore.RestoreOptions{Name: "copy"})
			failed := log.left.Load() <= 0
			log.left.Store(1 << 40)
			if !failed {
				if err != nil || n < 5 {
					t.Errorf("after %d writes: %v", n, err)
				}
				break
			}
			if !errors.Is(err, errFails) {
				t.Fatalf("the failure of write %d gives %v", n, err)
			}
			if stores, err := k.Stores(bg); err != nil || len(stores) != 1 {
				t.Errorf("after the failure of write %d the stores are %v, %v", n, stores, err)
			}
			if gone && n%2 == 0 {
				k = open(t, log, keeper.Options{}) // the next process
			} else if gone {
				if _, err := k.Restore(bg, strings.NewReader("nothing"), datastore.RestoreOptions{Name: "copy"}); !errors.Is(err, datastore.ErrBackup) {
					t.Error(err)
				}
			}
			untouched(t, log, k)
		}
	}
}

// A store is restored in the place of an empty one of its name, such as the default
// of a new installation, and of no other.
func TestAnEmptyStoreIsReplaced(t *testing.T) {
	image := peopled(t, false)
	log := memory.New()
	k := open(t, log, keeper.Options{})
	writeTo(t, k, datastore.System, datastore.Request{CreateToken: &datastore.Token{Name: "one", Role: "reader", Store: "default", Hash: [32]byte{1}}})
	restored, err := k.Restore(bg, bytes.NewReader(image), datastore.RestoreOptions{Name: "default", Actor: "ada"})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := k.StoreByName(bg, "default"); err != nil || st.ID != restored.Store.ID || st.ID == datastore.Default {
		t.Errorf("default is %+v, %v", st, err)
	}
	if _, ok, err := k.TokenByHash(bg, [32]byte{1}); ok || err != nil {
		t.Errorf("a token of the store that was replaced is in force (%v)", err)
	}
	if lines, err := log.Lines(bg); err != nil || !slices.Equal(lines, []datastore.StoreID{datastore.System, restored.Store.ID}) {
		t.Errorf("the lines are %v, %v", lines, err)
	}
	if _, err := k.Restore(bg, bytes.NewReader(image), datastore.RestoreOptions{Name: "default"}); !errors.Is(err, datastore.ErrAlreadyExists) {
		t.Errorf("a second restore gives %v", err)
	}
	// What is made later is counted as ever.
	if o := writeTo(t, k, datastore.System, datastore.Request{CreateStore: &datastore.Store{Name: "next"}}); o.Store.ID != 3 {
		t.Errorf("the next store has the id %d", o.Store.ID)
	}
	s, err := k.At(bg, restored.Store.ID, datastore.Consistency{})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	// A start knows it, and one that lost its line says so rather than make it anew.
	again := open(t, kept{log}, keeper.Options{})
	if _, err := again.At(bg, restored.Store.ID, datastore.Consistency{}); err != nil {
		t.Error(err)
	}
	if err := log.DropLine(bg, restored.Store.ID); err != nil {
		t.Fatal(err)
	}
	last := open(t, kept{log}, keeper.Options{})
	if _, err := last.At(bg, restored.Store.ID, datastore.Consistency{}); !errors.Is(err, datastore.ErrCorrupt) && !errors.Is(err, datastore.ErrNoStore) {
		t.Errorf("a restored store without its history gives %v", err)
	}
	if head, err := last.Head(bg, restored.Store.ID); !errors.Is(err, datastore.ErrCorrupt) {
		t.Errorf("a restored store without its history has the head %+v, %v", head, err)
	}
}

type kept struct{ datastore.Log }

func (kept) Close() error { return nil }

// One store is restored at a time.
func TestOneStoreIsRestoredAtATime(t *testing.T) {
	image := peopled(t, false)
	k := open(t, memory.New(), keeper.Options{})
	in, out := io.Pipe()
	first := make(chan error, 1)
	go func() {
		_, err := k.Restore(bg, in, datastore.RestoreOptions{Name: "first"})
		first <- err
	}()
	if _, err := out.Write(image[:len(image)/2]); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Restore(bg, bytes.NewReader(image), datastore.RestoreOptions{Name: "second"}); !errors.Is(err, datastore.ErrPrecondition) {
		t.Errorf("a second restore gives %v", err)
	}
	if _, err := out.Write(image[len(image)/2:]); err != nil {
		t.Fatal(err)
	}
	out.Close()
	if err := <-first; err != nil {
		t.Error(err)
	}
	if _, err := k.Restore(bg, bytes.NewReader(image), datastore.RestoreOptions{Name: "second"}); err != nil {
		t.Error(err)
	}
}

// A backup takes a bounded piece of memory, however large the store is.
func TestABackupIsStreamed(t *testing.T) {
	k := openWithSchema(t, memory.New(), keeper.Options{})
	const changes = 20
	long := strings.Repeat("d", 2000)
	for n := range changes {
		var list []datastore.Update
		for i := range 1000 {
			r := tuple.Relationship{Key: tuple.Key{Object: tuple.Object{Type: "document", ID: fmt.Sprintf("%020d", n)}, Relation: "viewer",
				Subject: tuple.Subject{Object: tuple.Object{Type: "user", ID: fmt.Sprintf("%020d", i)}}},
				Caveat: tuple.Caveat{Name: "on_day", Context: `{"day":"` + long + `"}`}}
			list = append(list, datastore.Update{Kind: datastore.Create, Relationship: r})
		}
		write(t, k, datastore.Request{Updates: list})
	}
	watch := &heapWatch{}
	watch.begin()
	_, _, err := k.Backup(bg, datastore.Store{ID: datastore.Default, Name: "default"}, nil, watch)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes, %d bytes of heap", watch.written, watch.most)
	if watch.written < 40<<20 || watch.most > 16<<20 {
		t.Errorf("a backup of %d bytes took %d bytes of heap", watch.written, watch.most)
	}
}

// heapWatch looks at the live heap now and then while it is written to.
type heapWatch struct {
	base, most int64
	written    int64
	looked     int64
}

func liveHeap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func (w *heapWatch) begin() { w.base = liveHeap() }

func (w *heapWatch) Write(p []byte) (int, error) {
	w.written += int64(len(p))
	if w.written-w.looked > 1<<20 {
		w.looked = w.written
		w.most = max(w.most, liveHeap()-w.base)
	}
	return len(p), nil
}
