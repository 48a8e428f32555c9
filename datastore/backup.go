package datastore

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	storedv1 "github.com/pembadb/pemba/proto/pemba/stored/v1"
	"github.com/pembadb/pemba/tuple"
)

// Backup is what a backup is of: a store up to a revision. Its bytes are the line
// "pemba backup 1", then frames. A frame is the length of its piece (four bytes,
// big-endian), the piece (a pemba.stored.v1.BackupFrame), and the first sixteen
// bytes of its seal: SHA-256 over the seal of the frame before, the length and the
// piece. The seal before the first frame is SHA-256 over the line. So each frame
// vouches for all that came before it, in its order.
//
// The pieces are a start; the changes behind Anchor, each after what users and
// groups it writes; and an end. Where the history was trimmed, the base follows the
// change of revision Base: what the store held then, for the changes up to there
// cannot tell.
type Backup struct {
	Store       Store // as it was named; Created is not set
	Incarnation Incarnation
	Anchor      Anchor
	// Base is zero where the changes say all: nothing was trimmed.
	Base Revision
	Head Head // Floor is not set
	Made time.Time
}

// BackupCount is how much is in a backup.
type BackupCount struct {
	Changes, Identities, Rows uint64
}

// BackupBase is what a store held at a revision, but for its users, groups and
// relationships.
type BackupBase struct {
	Names  []string
	Schema *SchemaText
}

// Seed is a part of what a store held at its head by changes that were trimmed
// where it comes from. Entries without Operations and Identities, written by
// Update, are history and nothing else.
type Seed struct {
	// Start, if set, is where the history begins: the revision, hash and time of the
	// anchor of trimmed history. The line must be at revision 0.
	Start *Head
	// Rows are relationships in force, each once in all seeds of a line.
	Rows []Row
	// Identities are versions with their Keys, oldest first of each.
	Identities []Identity
	Names      []string // that follow those there are
	Schema     *SchemaText
}

// RestoreOptions say what a backup becomes.
type RestoreOptions struct {
	// Name is that of the new store. One that exists is replaced if its history is
	// empty.
	Name          string
	Actor, Reason string
	// Revision, if not nil, is the last that is restored; At, if not zero, the time
	// behind which no change is.
	Revision *Revision
	At       time.Time
	// Keys gives what a version of an identity is found by.
	Keys func(Identity) ([]IdentityKey, error)
}

// Restored is a store made from a backup.
type Restored struct {
	Store  Store
	Head   Head
	Backup Backup
	Count  BackupCount // of the whole backup
}

// ErrBackup says that bytes are no backup, or not all of one as it was made.
var ErrBackup = errors.New("the backup cannot be used")

const backupLine = "pemba backup 1\n"

const (
	sealSize = 16
	// maxFrame bounds a piece. A frame holds one change, which may be a deletion by a
	// filter of any size.
	maxFrame = 1 << 30
	// maxWaiting bounds the users and groups that one change writes.
	maxWaiting = 100_000
	// backupPiece is about how many bytes of rows or identities go into one frame.
	backupPiece = 256 << 10
)

// seal chains a frame to the one before.
type seal [32]byte

func firstSeal() seal { return sha256.Sum256([]byte(backupLine)) }

func (s seal) next(length, piece []byte) seal {
	h := sha256.New()
	h.Write(s[:])
	h.Write(length)
	h.Write(piece)
	return seal(h.Sum(nil))
}

func frameLength(n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

func encodeStart(b *Backup) *storedv1.BackupStart {
	s := &storedv1.BackupStart{
		Store: b.Store.Name, StoreId: uint64(b.Store.ID), Incarnation: b.Incarnation[:],
		AnchorRevision: uint64(b.Anchor.Revision), AnchorHash: b.Anchor.Hash[:], BaseRevision: uint64(b.Base),
		HeadRevision: uint64(b.Head.Revision), HeadHash: b.Head.Hash[:], Made: b.Made.UnixMicro(),
	}
	if !b.Head.Time.IsZero() {
		s.HeadTime = b.Head.Time.UnixMicro()
	}
	return s
}

func decodeStart(s *storedv1.BackupStart) (*Backup, error) {
	b := &Backup{
		Store: Store{ID: StoreID(s.GetStoreId()), Name: s.GetStore()},
		Base:  Revision(s.GetBaseRevision()), Made: time.UnixMicro(s.GetMade()).UTC(),
	}
	b.Anchor.Revision, b.Head.Revision = Revision(s.GetAnchorRevision()), Revision(s.GetHeadRevision())
	if copy(b.Incarnation[:], s.GetIncarnation()) != len(b.Incarnation) || copy(b.Anchor.Hash[:], s.GetAnchorHash()) != len(b.Anchor.Hash) ||
		copy(b.Head.Hash[:], s.GetHeadHash()) != len(b.Head.Hash) {
		return nil, errors.New("a hash, or the incarnation, has the wrong length")
	}
	b.Head.Incarnation = b.Incarnation
	if t := s.GetHeadTime(); t != 0 {
		b.Head.Time = time.UnixMicro(t).UTC()
	}
	switch {
	case CheckName("store", b.Store.Name) != nil:
		return nil, fmt.Errorf("%q is no name of a store", shortText(b.Store.Name))
	case b.Head.Revision < b.Anchor.Revision || b.Head.Revision >= 1<<62:
		return nil, fmt.Errorf("it ends at revision %d, and begins behind %d", b.Head.Revision, b.Anchor.Revision)
	case b.Anchor.Revision == 0 && b.Base != 0 || b.Anchor.Revision > 0 && (b.Base < b.Anchor.Revision || b.Base > b.Head.Revision):
		return nil, fmt.Errorf("its base is at revision %d, of %d to %d", b.Base, b.Anchor.Revision, b.Head.Revision)
	case b.Anchor.Revision == b.Head.Revision && b.Anchor.Hash != b.Head.Hash:
		return nil, errors.New("it has no changes, and two hashes")
	}
	return b, nil
}

// shortText is the beginning of a text that somebody else wrote.
func shortText(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

func encodeVersions(list []Identity) *storedv1.BackupIdentities {
	out := &storedv1.BackupIdentities{Identities: make([]*storedv1.BackupIdentity, len(list))}
	for i, v := range list {
		out.Identities[i] = &storedv1.BackupIdentity{
			Type: v.Object.Type, Id: v.Object.ID, Revision: uint64(v.Revision), Kind: storedv1.IdentityKind(v.Kind),
			State: storedv1.IdentityState(v.State), Salt: v.Salt, Attributes: []byte(v.Attributes),
		}
	}
	return out
}

func decodeVersions(in *storedv1.BackupIdentities) ([]Identity, error) {
	list := make([]Identity, len(in.GetIdentities()))
	for n, s := range in.GetIdentities() {
		i := Identity{
			Object: tuple.Object{Type: s.GetType(), ID: s.GetId()}, Kind: IdentityKind(s.GetKind()), State: IdentityState(s.GetState()),
			Revision: Revision(s.GetRevision()), Salt: s.GetSalt(), Attributes: string(s.GetAttributes()),
		}
		if len(i.Salt) == 0 {
			i.Salt = nil
		}
		switch canonical, err := tuple.CanonicalJSON(i.Attributes); {
		case i.Object.Check() != nil:
			return nil, i.Object.Check()
		case i.Kind != User && i.Kind != Group || i.State < Active || i.State > Removed:
			return nil, fmt.Errorf("%s is neither user nor group, or has no state", i.Object)
		case err != nil || canonical != i.Attributes || i.Salt == nil && i.Attributes != "":
			return nil, fmt.Errorf("the attributes of %s are not as they are kept", i.Object)
		}
		list[n] = i
	}
	return list, nil
}

func encodeSchema(s *SchemaText) *storedv1.SchemaApplied {
	return &storedv1.SchemaApplied{Text: s.Text, Hash: s.Hash[:], PreviousHash: s.PreviousHash[:], AddedNames: s.Names}
}

func decodeBase(in *storedv1.BackupBase) (*BackupBase, error) {
	base := &BackupBase{Names: in.GetNames()}
	if s := in.GetSchema(); s != nil {
		if len(s.GetHash()) != sha256.Size || len(s.GetPreviousHash()) != sha256.Size {
			return nil, errors.New("the hash of its schema has the wrong length")
		}
		base.Schema = &SchemaText{Text: s.GetText(), Hash: [32]byte(s.GetHash()), PreviousHash: [32]byte(s.GetPreviousHash()), Names: s.GetAddedNames()}
	}
	return base, nil
}

func decodeRows(in *storedv1.BackupRows, base Revision) ([]Row, error) {
	rows := make([]Row, len(in.GetRows()))
	for i, s := range in.GetRows() {
		if s.GetRelationship() == nil {
			return nil, errors.New("a relationship is missing")
		}
		rows[i] = Row{Relationship: decodeRelationship(s.GetRelationship()), Created: Revision(s.GetCreated())}
		if err := rows[i].Check(); err != nil {
			return nil, err
		}
		if rows[i].Created == 0 || rows[i].Created > base {
			return nil, fmt.Errorf("%s was written at revision %d, and the base is at %d", rows[i].Key, rows[i].Created, base)
		}
	}
	return rows, nil
}

// brokenBackup is an error about the frame that begins at a byte of a backup.
func brokenBackup(offset int64, behind Revision, err error) error {
	where := fmt.Sprintf("at byte %d", offset)
	if behind > 0 {
		where += fmt.Sprintf(", behind revision %d", behind)
	}
	return With(fmt.Errorf("%w: %s: %w", ErrBackup, where, err), "offset", strconv.FormatInt(offset, 10))
}

// IsBackup reports whether bytes are how a backup begins.
func IsBackup(beginning []byte) bool { return bytes.HasPrefix(beginning, []byte(backupLine)) }
