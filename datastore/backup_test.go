package datastore_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
)

const backupLine = "pemba backup 1\n"

// pieces takes a backup apart as docs/operations/backup.md describes it, and
// verifies each seal.
func pieces(t testing.TB, image []byte) (list [][]byte) {
	t.Helper()
	rest, found := bytes.CutPrefix(image, []byte(backupLine))
	if !found {
		t.Fatalf("a backup begins with %q", image[:min(len(image), 20)])
	}
	seal := sha256.Sum256([]byte(backupLine))
	for len(rest) > 0 {
		n := int(binary.BigEndian.Uint32(rest))
		seal = sha256.Sum256(append(bytes.Clone(seal[:]), rest[:4+n]...))
		if !bytes.Equal(rest[4+n:][:16], seal[:16]) {
			t.Fatalf("the seal of frame %d is another", len(list))
		}
		list, rest = append(list, rest[4:4+n]), rest[4+n+16:]
	}
	return list
}

// assembled puts pieces together into a backup.
func assembled(list [][]byte) []byte {
	image, seal := []byte(backupLine), sha256.Sum256([]byte(backupLine))
	for _, p := range list {
		frame := append(binary.BigEndian.AppendUint32(nil, uint32(len(p))), p...)
		seal = sha256.Sum256(append(bytes.Clone(seal[:]), frame...))
		image = append(append(image, frame...), seal[:16]...)
	}
	return image
}

// sampleBackup is one with every piece there is.
func sampleBackup(t testing.TB) []byte {
	t.Helper()
	c := sample(t)
	c.Operations = c.Operations[:1]
	anchor := datastore.Anchor{Revision: c.Revision - 1, Hash: datastore.Hash{1}}
	e, err := datastore.Seal(anchor.Hash, c)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := datastore.NewBackupWriter(&out, datastore.Backup{Store: datastore.Store{ID: 2, Name: "default"}, Anchor: anchor, Base: anchor.Revision,
		Head: datastore.Head{Revision: e.Revision, Hash: e.Hash, Time: e.Time}, Made: time.Unix(1, 0)})
	if err != nil {
		t.Fatal(err)
	}
	salt := []byte("0123456789abcdef")
	if err := errors.Join(
		w.Base(datastore.BackupBase{Names: []string{"user"}, Schema: &datastore.SchemaText{Text: "definition user {}", Names: []string{"user"}}}),
		w.Identities([]datastore.Identity{{Object: c.Operations[0].Relationship.Object, Kind: datastore.User, State: datastore.Active, Revision: 1, Salt: salt, Attributes: `{"a":1}`}}),
		w.Row(datastore.Row{Relationship: c.Operations[0].Relationship, Created: 1}), w.EndRows(), w.Change(e)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.End(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// drain reads a backup to its end.
func drain(image []byte) (n int, err error) {
	r, err := datastore.NewBackupReader(bytes.NewReader(image))
	for err == nil {
		if _, err = r.Next(); err == nil {
			n++
		}
	}
	return n, err
}

// The form of a backup is the one that is described: what was written can be taken
// apart and put together again by that description alone.
func TestABackupHasTheFormThatIsDescribed(t *testing.T) {
	image := sampleBackup(t)
	list := pieces(t, image)
	if len(list) != 6 {
		t.Errorf("it has %d pieces, not start, base, identities, rows, change and end", len(list))
	}
	if !bytes.Equal(assembled(list), image) {
		t.Error("put together again it is another")
	}
	if n, err := drain(image); n != 4 || !errors.Is(err, io.EOF) {
		t.Errorf("read: %d pieces, %v", n, err)
	}
}

// Whatever stands in frames whose seals are right, a reader takes it or refuses it
// as no backup: it neither panics nor fails otherwise.
func FuzzBackupReader(f *testing.F) {
	list := pieces(f, sampleBackup(f))
	f.Add(list[0], list[1], list[2], list[3], list[4], list[5])
	f.Add(list[0], list[4], list[1], list[2], list[3], list[5])
	f.Add(list[0], list[5], []byte{}, []byte{0x12, 0}, []byte{0x1a, 0}, []byte{0x2a, 2, 0x0a, 0})
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g []byte) {
		image := assembled([][]byte{a, b, c, d, e, g})
		if _, err := drain(image); !errors.Is(err, io.EOF) && !errors.Is(err, datastore.ErrBackup) {
			t.Fatalf("the error is %v", err)
		}
		if _, err := drain(image[:len(image)-1]); !errors.Is(err, datastore.ErrBackup) {
			t.Fatalf("cut off: %v", err)
		}
	})
}
