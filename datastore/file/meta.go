package file

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"log/slog"

	"github.com/pembadb/pemba/datastore"
)

// bbolt keeps two meta pages, the first two of the file. Each transaction writes
// one of them in turn, and is there once that page is. When it opens a file it
// takes the newer valid page, without a word about the other: a newest page that
// was damaged after its commit would silently take the last change back, although
// it was acknowledged.
//
// A page that was being written when the power went may be damaged too, and then
// nothing is lost: that transaction was never acknowledged. To tell the two apart,
// a note of each transaction whose last sync succeeded is put into the other meta
// page, into its last sector, where bbolt keeps nothing: if writing it destroys
// that page, the newer one still stands. The note itself is not
// synced: it reaches the disk with the next commit, or when the system writes it
// back, and at once as far as other processes see. So whatever a note says was
// acknowledged; only that of the very last commits before a power cut may be
// missing.

// meta is one of bbolt's two meta pages.
type meta struct {
	transaction uint64
	valid       bool
	noted       uint64 // the transaction of the note in it; zero: none
}

// Where bbolt keeps what, in the byte order of the machine.
const (
	metaMagic    = 0xED0CDAED
	metaVersion  = 2
	metaStart    = 16 // behind the page's header
	metaTxid     = metaStart + 48
	metaChecksum = metaStart + 56
	metaEnd      = metaChecksum + 8
)

// sectorSize is what a disk writes wholly or not at all.
const sectorSize = 512

// noteText begins a note; the transaction and a checksum of both follow.
const noteText = "pemba committed "

const noteSize = len(noteText) + 16

func newNote(transaction uint64) []byte {
	b := appendUint([]byte(noteText), transaction)
	return appendUint(b, checksum(b))
}

func checksum(b []byte) uint64 {
	h := fnv.New64a()
	h.Write(b)
	return h.Sum64()
}

func parseMeta(page []byte) (m meta) {
	native := binary.NativeEndian
	m.transaction = native.Uint64(page[metaTxid:])
	m.valid = native.Uint32(page[metaStart:]) == metaMagic && native.Uint32(page[metaStart+4:]) == metaVersion &&
		native.Uint64(page[metaChecksum:]) == checksum(page[metaStart:metaChecksum])
	note := page[len(page)-sectorSize:][:noteSize]
	if string(note[:len(noteText)]) != noteText {
		return m
	}
	if n := binary.BigEndian.Uint64(note[len(noteText):]); string(note) == string(newNote(n)) {
		m.noted = n
	}
	return m
}

// checkMetas refuses a file whose newest meta page is gone although its
// transaction was acknowledged, and warns of one that is damaged without loss.
func (l *Log) checkMetas() error {
	var metas [2]meta
	size := l.db.Info().PageSize
	for i := range metas {
		page := make([]byte, size)
		if _, err := l.file.ReadAt(page, int64(i*size)); err != nil {
			return fmt.Errorf("read %s: %w", l.path, err)
		}
		metas[i] = parseMeta(page)
	}
	newest, noted := uint64(0), max(metas[0].noted, metas[1].noted)
	for i, m := range metas {
		if m.valid {
			newest = max(newest, m.transaction)
		} else {
			slog.Warn("a meta page of the file is damaged, as a power cut may leave it; the other one is used",
				"path", l.path, "page", i, "acknowledged", noted)
		}
	}
	if noted > newest {
		return fmt.Errorf("open %s: %w: the meta page of transaction %d is lost, which was acknowledged, and the file would go back to transaction %d; restore it from a backup",
			l.path, datastore.ErrCorrupt, noted, newest)
	}
	l.note(newest)
	return nil
}

// note notes that a transaction is acknowledged. That it may fail costs no more
// than the note.
func (l *Log) note(transaction uint64) {
	size := int64(l.db.Info().PageSize)
	other := int64(transaction+1) % 2
	_, _ = l.writeAt(newNote(transaction), (other+1)*size-sectorSize)
}
