package datastore

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Checkpoint is a signed statement that a store's history stood at a position:
// who keeps it can tell later whether the history was cut, rewritten, or taken
// from elsewhere. Its text is eight lines,
//
//	pemba checkpoint 1
//	store: default
//	store-id: 2
//	incarnation: 5d0c9d3f6f0a41b2
//	revision: 42
//	hash: (64 hexadecimal digits)
//	time: 2026-01-31T12:00:00.000000Z
//	signature: (base64, RFC 4648 §4)
//
// each ended by a line feed. The signature is Ed25519 (RFC 8032 §5.1) over the
// bytes of the first seven, of which the first says what they are. There is one
// way to write a checkpoint; any other is refused.
type Checkpoint struct {
	Store string
	ID    StoreID
	// Head is the position: Incarnation, Revision, Hash, and the Time of that change.
	Head      Head
	Signature []byte // 64 bytes
}

// ErrCheckpoint says that a text is no checkpoint, or that its signature is not
// that of the key.
var ErrCheckpoint = errors.New("not a valid checkpoint")

const checkpointTag = "pemba checkpoint 1"

const checkpointTime = "2006-01-02T15:04:05.000000Z"

// signed are the bytes that are signed.
func (c *Checkpoint) signed() []byte {
	return fmt.Appendf(nil, "%s\nstore: %s\nstore-id: %d\nincarnation: %x\nrevision: %d\nhash: %x\ntime: %s\n",
		checkpointTag, c.Store, c.ID, c.Head.Incarnation[:], c.Head.Revision, c.Head.Hash[:], c.Head.Time.UTC().Format(checkpointTime))
}

// Sign signs c with an operator's key.
func (c *Checkpoint) Sign(key ed25519.PrivateKey) { c.Signature = ed25519.Sign(key, c.signed()) }

// Verify returns nil if c was signed with the private part of key, and otherwise
// an error that wraps ErrCheckpoint.
func (c *Checkpoint) Verify(key ed25519.PublicKey) error {
	if !ed25519.Verify(key, c.signed(), c.Signature) {
		return fmt.Errorf("%w: its signature is not of the key with SHA-256 %x", ErrCheckpoint, sha256.Sum256(key))
	}
	return nil
}

// String is the text of c.
func (c *Checkpoint) String() string {
	return string(c.signed()) + "signature: " + base64.StdEncoding.EncodeToString(c.Signature) + "\n"
}

// ParseCheckpoint reads the text of a checkpoint, and verifies nothing. Errors
// wrap ErrCheckpoint.
func ParseCheckpoint(text []byte) (*Checkpoint, error) {
	fail := func(format string, args ...any) (*Checkpoint, error) {
		return nil, fmt.Errorf("%w: "+format, append([]any{ErrCheckpoint}, args...)...)
	}
	lines := strings.Split(string(text), "\n")
	names := []string{"store", "store-id", "incarnation", "revision", "hash", "time", "signature"}
	if lines[0] != checkpointTag {
		return fail("it does not begin with the line %q", checkpointTag)
	}
	if len(lines) != len(names)+2 || lines[len(names)+1] != "" {
		return fail("it has not %d lines", len(names)+1)
	}
	values := make([]string, len(names))
	for i, name := range names {
		var ok bool
		if values[i], ok = strings.CutPrefix(lines[i+1], name+": "); !ok {
			return fail("line %d does not begin with %q", i+2, name+": ")
		}
	}
	c := &Checkpoint{Store: values[0]}
	id, idErr := strconv.ParseUint(values[1], 10, 64)
	revision, revisionErr := strconv.ParseUint(values[3], 10, 64)
	at, timeErr := time.Parse(checkpointTime, values[5])
	signature, signatureErr := base64.StdEncoding.DecodeString(values[6])
	err := errors.Join(idErr, fixed(c.Head.Incarnation[:], values[2]), revisionErr, fixed(c.Head.Hash[:], values[4]), timeErr, signatureErr)
	if err != nil {
		return fail("%w", err)
	}
	c.ID, c.Head.Revision, c.Head.Time, c.Signature = StoreID(id), Revision(revision), at, signature
	if err := CheckName("store", c.Store); err != nil {
		return fail("%w", err)
	}
	if !bytes.Equal([]byte(c.String()), text) {
		return fail("it is not written as checkpoints are")
	}
	return c, nil
}

// fixed fills out with the hexadecimal digits of text.
func fixed(out []byte, text string) error {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(out) {
		return fmt.Errorf("%q is not %d bytes in hexadecimal", text, len(out))
	}
	copy(out, b)
	return nil
}
