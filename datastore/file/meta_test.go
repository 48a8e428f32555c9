//go:build linux

package file

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pembadb/pemba/datastore"
)

// written is a file with some changes, and where its newest meta page begins.
func written(t *testing.T, changes int, closed bool) (image []byte, newest int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pemba.db")
	l := openTest(t, path, Options{})
	if err := l.CreateLine(bg, 1, datastore.Incarnation{1}); err != nil {
		t.Fatal(err)
	}
	for range changes {
		if _, err := touch(l, 3); err != nil {
			t.Fatal(err)
		}
	}
	size := l.db.Info().PageSize
	if closed {
		l.Close()
	}
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if parseMeta(image[size:2*size]).transaction > parseMeta(image[:size]).transaction {
		newest = size
	}
	return image, newest
}

// opened writes an image to a file and gives its head.
func opened(t *testing.T, image []byte) (datastore.Revision, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pemba.db")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Open(path, Options{})
	if err != nil {
		return 0, err
	}
	defer l.Close()
	head, err := l.Head(bg, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := touch(l, 3); err != nil {
		t.Errorf("a change after that: %v", err)
	}
	return head.Revision, nil
}

// Whatever byte of a meta page is damaged, an acknowledged change is there or
// the file is refused; it never goes back without a word.
func TestADamagedMetaPageTakesNothingBack(t *testing.T) {
	for _, closed := range []bool{true, false} {
		for _, changes := range []int{4, 5} {
			image, newest := written(t, changes, closed)
			older := os.Getpagesize() - newest
			for i := metaStart; i < metaEnd; i += 3 {
				damaged := bytes.Clone(image)
				damaged[newest+i] ^= 0x10
				if head, err := opened(t, damaged); !errors.Is(err, datastore.ErrCorrupt) || !strings.Contains(err.Error(), "backup") {
					t.Fatalf("closed %t, byte %d of the newest meta page: head %d, %v", closed, i, head, err)
				}
				damaged = bytes.Clone(image)
				damaged[older+i] ^= 0x10
				if head, err := opened(t, damaged); err != nil || int(head) != changes {
					t.Fatalf("closed %t, byte %d of the older meta page: head %d, %v", closed, i, head, err)
				}
			}
		}
	}
}

// A write of the newest meta page that the disk lost, although it said that it
// had done it, is noticed too.
func TestALostMetaPageIsNoticed(t *testing.T) {
	before, page := written(t, 4, true)
	after, newest := written(t, 5, true)
	size := os.Getpagesize()
	if newest == page {
		t.Fatal("both transactions wrote one page")
	}
	// What the page held two transactions ago is valid, and older.
	stale := bytes.Clone(before[newest : newest+size-sectorSize])
	copy(after[newest:], stale)
	if head, err := opened(t, after); !errors.Is(err, datastore.ErrCorrupt) {
		t.Errorf("head %d, %v", head, err)
	}
}

// A meta page whose write the power cut destroyed was never acknowledged: the
// file opens, and has what was.
func TestATornMetaPageOpens(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, changes := range []int{4, 5} {
		path := filepath.Join(t.TempDir(), "pemba.db")
		l := openTest(t, path, Options{})
		if err := l.CreateLine(bg, 1, datastore.Incarnation{1}); err != nil {
			t.Fatal(err)
		}
		for range changes {
			if _, err := touch(l, 3); err != nil {
				t.Fatal(err)
			}
		}
		hook(t, l, func(real writeAt, b []byte, offset int64) (int, error) {
			if isMeta(l, offset) {
				image, err := os.ReadFile(path)
				if err != nil {
					t.Error(err)
				}
				for range 50 {
					torn := bytes.Clone(image)
					copy(torn[offset:], b)
					for i := range torn[offset : int(offset)+len(b)] {
						torn[int(offset)+i] ^= byte(r.Uint32())
					}
					if head, err := opened(t, torn); err != nil || int(head) != changes {
						t.Errorf("head %d, %v; want %d", head, err, changes)
					}
				}
			}
			return real(b, offset)
		})
		if _, err := touch(l, 3); err != nil {
			t.Fatal(err)
		}
	}
}
