package datastore

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	storedv1 "github.com/pembadb/pemba/proto/pemba/stored/v1"
	"github.com/pembadb/pemba/tuple"
)

// BackupReader reads a backup and verifies all of it on the way: the seals of its
// frames, their order, the hash chain of the changes up to the head that the start
// names, and the digests of users and groups. It holds one frame at a time.
type BackupReader struct {
	Backup Backup
	Count  BackupCount // of what was read so far

	in     *bufio.Reader
	seal   seal
	offset int64 // of the next frame
	chain  *Chain
	waits  []Identity // what the next change writes
	inBase bool
	based  bool
	ended  bool
}

// BackupPiece is a piece of a backup. One of its fields is set.
type BackupPiece struct {
	// Change is a change, with its operations, and the versions of users and groups
	// that it writes in Identities, without their keys.
	Change *Entry
	// Base begins the base, of which the Identities and Rows that follow are.
	Base       *BackupBase
	Identities []Identity
	Rows       []Row
}

// NewBackupReader reads the beginning of a backup. Errors that wrap ErrBackup are
// of what it says; others are of in.
func NewBackupReader(in io.Reader) (*BackupReader, error) {
	r := &BackupReader{in: bufio.NewReaderSize(in, 64<<10), seal: firstSeal()}
	line := make([]byte, len(backupLine))
	if _, err := io.ReadFull(r.in, line); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	if string(line) != backupLine {
		return nil, fmt.Errorf("%w: it does not begin with the line %q: it is something else, or of another version of pemba", ErrBackup, backupLine[:len(backupLine)-1])
	}
	r.offset = int64(len(line))
	at := r.offset
	f, err := r.frame()
	if err != nil {
		return nil, err
	}
	start, ok := f.Piece.(*storedv1.BackupFrame_Start)
	if !ok {
		return nil, r.broken(at, errors.New("a start is missing"))
	}
	b, err := decodeStart(start.Start)
	if err != nil {
		return nil, r.broken(at, err)
	}
	r.Backup = *b
	r.chain, err = NewChain(b.Store.ID, Head{Incarnation: b.Incarnation, Revision: b.Anchor.Revision, Hash: b.Anchor.Hash}, nil)
	return r, err
}

func (r *BackupReader) broken(at int64, err error) error {
	behind := Revision(0)
	if r.chain != nil {
		behind = r.chain.At.Revision
	}
	return brokenBackup(at, behind, err)
}

// frame reads the next frame, and verifies its seal before it decodes it.
func (r *BackupReader) frame() (*storedv1.BackupFrame, error) {
	at := r.offset
	fail := func(err error) error {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return r.broken(at, errors.New("it was cut off here"))
		}
		return err
	}
	length := make([]byte, 4)
	if _, err := io.ReadFull(r.in, length); err != nil {
		return nil, fail(err)
	}
	n := binary.BigEndian.Uint32(length)
	if n > maxFrame {
		return nil, r.broken(at, fmt.Errorf("a frame says that it has %d bytes, where %d is the most", n, maxFrame))
	}
	// The buffer grows with what arrives, not with what the length promises.
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r.in, int64(n)+sealSize); err != nil {
		return nil, fail(err)
	}
	piece, sum := b.Bytes()[:n], b.Bytes()[n:]
	r.seal = r.seal.next(length, piece)
	if !bytes.Equal(sum, r.seal[:sealSize]) {
		return nil, r.broken(at, errors.New("its bytes are not those that were written, or not in that order"))
	}
	var f storedv1.BackupFrame
	if err := proto.Unmarshal(piece, &f); err != nil {
		return nil, r.broken(at, err)
	}
	if f.Piece == nil {
		return nil, r.broken(at, fmt.Errorf("a newer version of pemba wrote this piece: %w", ErrUnknownOperation))
	}
	r.offset = at + 4 + int64(n) + sealSize
	return &f, nil
}

// Next returns the next piece, and io.EOF once the end was reached and everything
// was there.
func (r *BackupReader) Next() (BackupPiece, error) {
	for !r.ended {
		at := r.offset
		f, err := r.frame()
		if err != nil {
			return BackupPiece{}, err
		}
		p, whole, err := r.take(f)
		if err != nil {
			return BackupPiece{}, r.broken(at, err)
		}
		if whole {
			return p, nil
		}
	}
	if _, err := r.in.ReadByte(); err == nil {
		return BackupPiece{}, r.broken(r.offset, errors.New("something follows its end"))
	} else if !errors.Is(err, io.EOF) {
		return BackupPiece{}, err
	}
	return BackupPiece{}, io.EOF
}

// take takes a frame in; whole tells that it makes a piece.
func (r *BackupReader) take(f *storedv1.BackupFrame) (p BackupPiece, whole bool, err error) {
	switch f := f.Piece.(type) {
	case *storedv1.BackupFrame_Identities:
		list, err := decodeVersions(f.Identities)
		if err != nil {
			return p, false, err
		}
		r.Count.Identities += uint64(len(list))
		p.Identities, err = r.ofBase(list)
		return p, len(p.Identities) > 0, err
	case *storedv1.BackupFrame_Change:
		p.Change, err = r.change(f.Change)
		return p, true, err
	case *storedv1.BackupFrame_Base:
		if r.based || r.Backup.Base == 0 || r.chain.At.Revision != r.Backup.Base || len(r.waits) > 0 {
			return p, false, errors.New("a base stands where none is due")
		}
		r.based, r.inBase = true, true
		p.Base, err = decodeBase(f.Base)
		return p, true, err
	case *storedv1.BackupFrame_Rows:
		if !r.inBase {
			return p, false, errors.New("relationships stand outside of a base")
		}
		p.Rows, err = decodeRows(f.Rows, r.Backup.Base)
		r.Count.Rows += uint64(len(p.Rows))
		return p, true, err
	case *storedv1.BackupFrame_End:
		r.ended = true
		return p, false, r.end(f.End)
	}
	return p, false, errors.New("a second start")
}

// ofBase returns versions that are of the base, and keeps those that the next
// change writes: their revision tells.
func (r *BackupReader) ofBase(list []Identity) ([]Identity, error) {
	older := 0
	for _, i := range list {
		if i.Revision <= r.Backup.Base {
			older++
		}
	}
	switch {
	case older == 0:
		r.inBase = false
		if r.waits = append(r.waits, list...); len(r.waits) > maxWaiting {
			return nil, fmt.Errorf("more than %d users and groups stand before one change", maxWaiting)
		}
		return nil, nil
	case older < len(list) || !r.inBase:
		return nil, errors.New("users and groups of the base stand outside of it")
	}
	return list, nil
}

// baseDue tells that the changes up to the base are there, and the base is not.
func (r *BackupReader) baseDue() bool {
	return !r.based && r.Backup.Base != 0 && r.chain.At.Revision == r.Backup.Base
}

func (r *BackupReader) change(s *storedv1.BackupChange) (*Entry, error) {
	if r.baseDue() {
		return nil, errors.New("the base is missing")
	}
	r.inBase = false
	if len(s.GetHash()) != len(Hash{}) {
		return nil, errors.New("the hash of a change has the wrong length")
	}
	e := Entry{Revision: r.chain.At.Revision + 1, Header: s.GetHeader(), Payload: s.GetPayload(), Hash: Hash(s.GetHash())}
	c, err := r.chain.Next(e)
	if err != nil {
		return nil, err
	}
	if e.Revision > r.Backup.Head.Revision {
		return nil, fmt.Errorf("change %d is beyond its last, %d", e.Revision, r.Backup.Head.Revision)
	}
	for i := range c.Operations {
		if err := checkStored(&c.Operations[i]); err != nil {
			return nil, fmt.Errorf("operation %d of change %d: %w", i+1, e.Revision, err)
		}
	}
	e.RequestID, e.Time, e.Operations, e.Identities = c.RequestID, c.Time, c.Operations, r.waits
	r.waits = nil
	if e.Revision <= r.Backup.Base && len(e.Identities) > 0 {
		return nil, fmt.Errorf("change %d lies before the base and has versions of users and groups", e.Revision)
	}
	if e.Revision > r.Backup.Base {
		if err := sameVersions(&e); err != nil {
			return nil, err
		}
	}
	r.Count.Changes++
	return &e, nil
}

// checkStored refuses what no history of a store holds, but that of system.
func checkStored(o *Operation) error {
	switch o.Kind {
	case Create, Touch, Delete, Expire:
		if err := o.Relationship.Check(); err != nil {
			return err
		}
		if o.Previous != nil {
			return o.Previous.Check()
		}
	case PutIdentity:
		return o.Identity.Object.Check()
	case Erase:
		return o.Erased.Check()
	case ApplySchema:
	default:
		return errors.New("it belongs into the store system")
	}
	return nil
}

// sameVersions compares the versions that come with a change with what it says of
// them: each is there once, with the attributes of the digest, or erased.
func sameVersions(e *Entry) error {
	puts := map[tuple.Object]*IdentityPut{}
	for i := range e.Operations {
		if p := e.Operations[i].Identity; p != nil {
			puts[p.Object] = p
		}
	}
	if len(puts) != len(e.Identities) {
		return fmt.Errorf("change %d writes %d users and groups, and %d are there", e.Revision, len(puts), len(e.Identities))
	}
	for _, i := range e.Identities {
		p := puts[i.Object]
		if p == nil || i.Revision != e.Revision || i.Kind != p.Kind || i.State != p.State {
			return fmt.Errorf("%s is not as change %d wrote it", i.Object, e.Revision)
		}
		if i.Salt != nil && IdentityDigest(i.Salt, i.Attributes) != p.Digest {
			return fmt.Errorf("the attributes of %s are not those of which change %d has the digest", i.Object, e.Revision)
		}
		delete(puts, i.Object)
	}
	return nil
}

// end compares the end with what came before it.
func (r *BackupReader) end(s *storedv1.BackupEnd) error {
	head := r.Backup.Head
	switch {
	case r.baseDue():
		return errors.New("the base is missing")
	case len(r.waits) > 0:
		return errors.New("users and groups stand before the end, which no change writes")
	case r.chain.At.Revision != head.Revision:
		return fmt.Errorf("it ends at revision %d, and says that its last is %d", r.chain.At.Revision, head.Revision)
	case r.chain.At.Hash != head.Hash:
		return fmt.Errorf("change %d has the hash %x, and the start says %x", head.Revision, r.chain.At.Hash, head.Hash)
	case r.Count != BackupCount{Changes: s.GetChanges(), Identities: s.GetIdentities(), Rows: s.GetRows()}:
		return errors.New("it does not hold as much as its end says")
	}
	return nil
}
