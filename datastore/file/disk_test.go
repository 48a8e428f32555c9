//go:build linux

package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"go.etcd.io/bbolt"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// writeAt is how bbolt writes to its file.
type writeAt = func(b []byte, offset int64) (int, error)

// hook puts f between bbolt and its file, and gives f the real write.
func hook(t *testing.T, l *Log, f func(real writeAt, b []byte, offset int64) (int, error)) {
	t.Helper()
	field := reflect.ValueOf(l.db).Elem().FieldByName("ops").FieldByName("writeAt")
	if !field.IsValid() {
		t.Fatal("bbolt has no ops.writeAt any more: find another way to fail its writes")
	}
	at := (*writeAt)(unsafe.Pointer(field.UnsafeAddr()))
	real := *at
	*at = func(b []byte, offset int64) (int, error) { return f(real, b, offset) }
	t.Cleanup(func() {
		if *at != nil {
			*at = real
		}
	})
}

// isMeta tells whether bbolt writes one of its two meta pages: the moment at
// which a transaction comes to be.
func isMeta(l *Log, offset int64) bool { return offset < 2*int64(l.db.Info().PageSize) }

func openTest(t *testing.T, path string, o Options) *Log {
	t.Helper()
	l, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

var bg = context.Background()

// touch commits one change with n relationships.
func touch(l *Log, n int) (datastore.Head, error) {
	head, err := l.Head(bg, 1)
	if err != nil {
		return head, err
	}
	return l.Update(bg, 1, head, func(tail datastore.Tail) ([]datastore.Entry, error) {
		c := datastore.Change{Revision: tail.Head.Revision + 1, RequestID: fmt.Sprint(tail.Head.Revision + 1)}
		for i := range n {
			r, err := tuple.Parse(fmt.Sprintf("document:%d#viewer@user:%d", i, c.Revision))
			if err != nil {
				return nil, err
			}
			c.Operations = append(c.Operations, datastore.Operation{Kind: datastore.Create, Relationship: r})
		}
		e, err := datastore.Seal(tail.Head.Hash, c)
		return []datastore.Entry{e}, err
	})
}

// check verifies that the file holds whole changes, at least those acknowledged.
func check(t *testing.T, path string, acknowledged, started datastore.Revision, n int) {
	t.Helper()
	l, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	head, entries, err := l.After(bg, 1, 0, 1<<20)
	if err != nil || head.Revision < acknowledged || head.Revision > started || len(entries) != int(head.Revision) {
		t.Fatalf("head %d with %d changes, %v; acknowledged %d, started %d", head.Revision, len(entries), err, acknowledged, started)
	}
	for _, bySubject := range []bool{false, true} {
		rows := 0
		if err := l.Rows(bg, 1, head.Revision, datastore.RowQuery{BySubject: bySubject}, func(datastore.Row) bool { rows++; return true }); err != nil || rows != n*int(head.Revision) {
			t.Fatalf("%d rows at head %d, %v", rows, head.Revision, err)
		}
	}
	if err := l.db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// disk is what a power cut leaves: all writes up to the last sync, and of the
// later ones any, each of them perhaps in part, sector by sector.
type disk struct {
	synced  []byte
	pending []write
}

type write struct {
	data   []byte
	offset int64
}

const sector = 512

func (d *disk) write(b []byte, offset int64) {
	d.pending = append(d.pending, write{bytes.Clone(b), offset})
}

func (d *disk) put(b []byte, offset int64) {
	if end := int(offset) + len(b); end > len(d.synced) {
		d.synced = append(d.synced, make([]byte, end-len(d.synced))...)
	}
	copy(d.synced[offset:], b)
}

func (d *disk) sync() {
	for _, w := range d.pending {
		d.put(w.data, w.offset)
	}
	d.pending = nil
}

func (d *disk) cut(r *rand.Rand) []byte {
	left := disk{synced: bytes.Clone(d.synced)}
	for _, w := range d.pending {
		switch r.IntN(4) {
		case 0: // lost
		case 1:
			left.put(w.data, w.offset)
		default:
			for from := 0; from < len(w.data); from += sector {
				if r.IntN(2) == 0 {
					left.put(w.data[from:min(from+sector, len(w.data))], w.offset+int64(from))
				}
			}
		}
	}
	return left.synced
}

// The power goes at every write of every commit: what was acknowledged is there,
// and no change is there by half.
func TestNothingAcknowledgedIsLostWhenThePowerGoes(t *testing.T) {
	const changes, size = 12, 20
	folder := t.TempDir()
	path := filepath.Join(folder, "pemba.db")
	l := openTest(t, path, Options{})
	if err := l.CreateLine(bg, 1, datastore.Incarnation{1}); err != nil {
		t.Fatal(err)
	}
	var d disk
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d.synced = image
	r := rand.New(rand.NewPCG(1, 2))
	var acknowledged datastore.Revision
	cuts := 0
	hook(t, l, func(real writeAt, b []byte, offset int64) (int, error) {
		if isMeta(l, offset) {
			d.sync() // TestEveryCommitIsSyncedTwice shows that bbolt does
		}
		d.write(b, offset)
		after := filepath.Join(folder, "after.db")
		if err := os.WriteFile(after, d.cut(r), 0o600); err != nil {
			t.Error(err)
		}
		check(t, after, acknowledged, acknowledged+1, size)
		cuts++
		return real(b, offset)
	})
	real := l.writeAt
	l.writeAt = func(b []byte, offset int64) (int, error) {
		d.sync() // the note comes after the sync of the meta page, and is not synced
		d.write(b, offset)
		return real(b, offset)
	}
	for range changes {
		head, err := touch(l, size)
		if err != nil {
			t.Fatal(err)
		}
		acknowledged = head.Revision
	}
	d.sync()
	if cuts < 3*changes {
		t.Errorf("the power went only %d times", cuts)
	}
	if image, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(image, d.synced) {
		t.Errorf("the simulated disk is not the real one: %v", err)
	}
}

// swap puts another file in the place of an open one: one whose writes succeed
// and whose syncs fail.
func swap(t *testing.T, descriptor int) {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := syscall.Dup3(int(null.Fd()), descriptor, 0); err != nil {
		t.Fatal(err)
	}
}

// A commit is synced before its meta page is written and again after: if either
// sync fails, it is not acknowledged, and nothing is served any more.
func TestEveryCommitIsSyncedTwice(t *testing.T) {
	for name, broken := range map[string]func(l *Log, offset int64) bool{
		"before the meta page": func(l *Log, offset int64) bool { return !isMeta(l, offset) },
		"after the meta page":  func(l *Log, offset int64) bool { return isMeta(l, offset) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "pemba.db")
			var failed error
			l := openTest(t, path, Options{Failed: func(err error) { failed = err }})
			if err := l.CreateLine(bg, 1, datastore.Incarnation{1}); err != nil {
				t.Fatal(err)
			}
			if _, err := touch(l, 5); err != nil {
				t.Fatal(err)
			}
			fd, done, metaAfter := int(l.file.Fd()), false, false
			hook(t, l, func(real writeAt, b []byte, offset int64) (int, error) {
				metaAfter = metaAfter || done && isMeta(l, offset)
				n, err := real(b, offset)
				if !done && broken(l, offset) {
					swap(t, fd)
					done = true
				}
				return n, err
			})
			if _, err := touch(l, 5); !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), path) {
				t.Errorf("a sync that fails: %v", err)
			}
			if metaAfter {
				t.Error("the meta page was written although the sync before it failed")
			}
			if !errors.Is(failed, ErrFailed) {
				t.Errorf("the process was told %v", failed)
			}
			if _, err := touch(l, 1); !errors.Is(err, ErrFailed) {
				t.Errorf("a write after that: %v", err)
			}
			if _, err := l.Head(bg, 1); !errors.Is(err, ErrFailed) {
				t.Errorf("a read after that: %v", err)
			}
			l.Close()
			check(t, path, 1, 2, 5)
		})
	}
}

// A full disk refuses changes; the file stays whole, and takes changes again
// when there is room.
func TestAFullDiskRefusesChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pemba.db")
	l := openTest(t, path, Options{Failed: func(err error) { t.Errorf("a full disk is no failure: %v", err) }})
	if err := l.CreateLine(bg, 1, datastore.Incarnation{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := touch(l, 5); err != nil {
		t.Fatal(err)
	}
	room := 0
	hook(t, l, func(real writeAt, b []byte, offset int64) (int, error) {
		if room == 0 {
			return 0, &fs.PathError{Op: "write", Path: path, Err: syscall.ENOSPC}
		}
		room--
		return real(b, offset)
	})
	for room = range 3 {
		_, err := touch(l, 5)
		if !errors.Is(err, datastore.ErrFull) || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), path) {
			t.Errorf("a full disk: %v", err)
		}
		if head, err := l.Head(bg, 1); err != nil || head.Revision != 1 {
			t.Errorf("head %d, %v", head.Revision, err)
		}
	}
	room = 1 << 20
	for range 20 {
		if _, err := touch(l, 5); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	check(t, path, 21, 21, 5)
}

// Whatever happened to the file, opening or reading it ends in a clear error or
// in what was written.
func TestADamagedFileIsAnError(t *testing.T) {
	folder := t.TempDir()
	whole := filepath.Join(folder, "whole.db")
	l := openTest(t, whole, Options{})
	if err := l.CreateLine(bg, 1, datastore.Incarnation{1}); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := touch(l, 50); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	image, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	read := func(image []byte) error {
		path := filepath.Join(folder, "damaged.db")
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(path, Options{})
		if err != nil {
			return err
		}
		defer l.Close()
		if _, _, err := l.After(bg, 1, 0, 1<<20); err != nil {
			return err
		}
		return l.Rows(bg, 1, 5, datastore.RowQuery{}, func(datastore.Row) bool { return true })
	}
	if err := read(image); err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	for _, size := range []int{1, page, 2 * page, 4 * page, len(image) / 2} {
		if err := read(image[:size]); !errors.Is(err, datastore.ErrCorrupt) && !errors.Is(err, ErrNotPemba) {
			t.Errorf("cut off at %d of %d bytes: %v", size, len(image), err)
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	refused := 0
	for range 300 {
		damaged := bytes.Clone(image)
		from := r.IntN(len(image))
		for i := range damaged[from:min(len(image), from+1+r.IntN(64))] {
			damaged[from+i] = byte(r.Uint32())
		}
		if read(damaged) != nil { // it must not crash
			refused++
		}
	}
	if refused == 0 {
		t.Errorf("none of 300 damaged files was refused")
	}
	other := filepath.Join(folder, "other.db")
	db, err := bbolt.Open(other, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("mine")); return err }), db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(other, Options{}); !errors.Is(err, ErrNotPemba) {
		t.Errorf("another program's file: %v", err)
	}
}

func TestAFileOfANewerPembaIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pemba.db")
	l := openTest(t, path, Options{})
	if err := l.commit(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, appendUint(nil, format+1)) }); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), "use a newer pemba") {
		t.Errorf("a newer format: %v", err)
	}
}
