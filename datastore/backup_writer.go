package datastore

import (
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	storedv1 "github.com/pembadb/pemba/proto/pemba/stored/v1"
)

// BackupWriter writes a backup, a piece at a time: a start, changes with what they
// write of users and groups before each, a base where there is one, and an end.
type BackupWriter struct {
	out   io.Writer
	seal  seal
	count BackupCount

	rows     []*storedv1.BackupRow
	rowBytes int
}

// NewBackupWriter begins a backup.
func NewBackupWriter(out io.Writer, b Backup) (*BackupWriter, error) {
	w := &BackupWriter{out: out, seal: firstSeal()}
	if _, err := io.WriteString(out, backupLine); err != nil {
		return nil, err
	}
	return w, w.frame(&storedv1.BackupFrame{Piece: &storedv1.BackupFrame_Start{Start: encodeStart(&b)}})
}

func (w *BackupWriter) frame(f *storedv1.BackupFrame) error {
	piece, err := proto.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode a backup: %w", err)
	}
	if len(piece) > maxFrame {
		return fmt.Errorf("a change of %d bytes does not fit into a backup, where %d is the most", len(piece), maxFrame)
	}
	length := frameLength(len(piece))
	w.seal = w.seal.next(length, piece)
	for _, b := range [][]byte{length, piece, w.seal[:sealSize]} {
		if _, err := w.out.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// Change writes a change.
func (w *BackupWriter) Change(e Entry) error {
	w.count.Changes++
	return w.frame(&storedv1.BackupFrame{Piece: &storedv1.BackupFrame_Change{Change: &storedv1.BackupChange{Header: e.Header, Payload: e.Payload, Hash: e.Hash[:]}}})
}

// Identities writes versions of users and groups: of the next change, or of the
// base.
func (w *BackupWriter) Identities(list []Identity) error {
	for len(list) > 0 {
		n, size := 0, 0
		for n < len(list) && (n == 0 || size < backupPiece) {
			size += len(list[n].Attributes) + 64
			n++
		}
		if err := w.frame(&storedv1.BackupFrame{Piece: &storedv1.BackupFrame_Identities{Identities: encodeVersions(list[:n])}}); err != nil {
			return err
		}
		w.count.Identities += uint64(n)
		list = list[n:]
	}
	return nil
}

// Base writes the base, to which the identities and rows that follow belong.
func (w *BackupWriter) Base(b BackupBase) error {
	base := &storedv1.BackupBase{Names: b.Names}
	if b.Schema != nil {
		base.Schema = encodeSchema(b.Schema)
	}
	return w.frame(&storedv1.BackupFrame{Piece: &storedv1.BackupFrame_Base{Base: base}})
}

// Row writes a relationship of the base; EndRows must follow the last.
func (w *BackupWriter) Row(r Row) error {
	s := &storedv1.BackupRow{Relationship: encodeRelationship(&r.Relationship), Created: uint64(r.Created)}
	w.rows, w.rowBytes = append(w.rows, s), w.rowBytes+proto.Size(s)
	if w.rowBytes < backupPiece {
		return nil
	}
	return w.EndRows()
}

// EndRows writes the rows that wait.
func (w *BackupWriter) EndRows() error {
	if len(w.rows) == 0 {
		return nil
	}
	w.count.Rows += uint64(len(w.rows))
	err := w.frame(&storedv1.BackupFrame{Piece: &storedv1.BackupFrame_Rows{Rows: &storedv1.BackupRows{Rows: w.rows}}})
	w.rows, w.rowBytes = w.rows[:0], 0
	return err
}

// End writes the end, without which a backup is none, and returns what it holds.
func (w *BackupWriter) End() (BackupCount, error) {
	c := w.count
	return c, w.frame(&storedv1.BackupFrame{Piece: &storedv1.BackupFrame_End{End: &storedv1.BackupEnd{Changes: c.Changes, Identities: c.Identities, Rows: c.Rows}}})
}
