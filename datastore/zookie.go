package datastore

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrZookie says that a text is no zookie, or one of another store or of another
// line of history; ErrForeignZookie is the last of these, and one beyond the head.
var (
	ErrZookie        = errors.New("the zookie cannot be used here")
	ErrForeignZookie = fmt.Errorf("%w: it is of another line of this store's history", ErrZookie)
)

// Zookie names a revision on one line of history. To its holder it is an opaque
// text.
type Zookie struct {
	Store       StoreID
	Incarnation Incarnation
	Revision    Revision
	Tag         [8]byte // the first bytes of the change's hash
}

const (
	zookieVersion = 1
	zookieSize    = 1 + 8 + 8 + 8 + 8
)

// Zookie is the zookie of h's revision.
func (h Head) Zookie(store StoreID) Zookie {
	return Zookie{Store: store, Incarnation: h.Incarnation, Revision: h.Revision, Tag: h.Hash.Tag()}
}

// Tag is the part of a hash that zookies carry.
func (h Hash) Tag() [8]byte { return [8]byte(h[:8]) }

// String is z's URL-safe text.
func (z Zookie) String() string {
	b := make([]byte, 0, zookieSize)
	b = append(b, zookieVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(z.Store))
	b = append(b, z.Incarnation[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(z.Revision))
	b = append(b, z.Tag[:]...)
	return base64.RawURLEncoding.EncodeToString(b)
}

// ParseZookie reads the text of a zookie; errors wrap ErrZookie.
func ParseZookie(text string) (Zookie, error) {
	if text == "" {
		return Zookie{}, fmt.Errorf("%w: it is empty; pass one that an earlier answer carried", ErrZookie)
	}
	// Strict refuses texts that differ from String's in bits that say nothing;
	// the length those with line ends, which base64 passes over.
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != zookieSize || len(text) != base64.RawURLEncoding.EncodedLen(zookieSize) {
		return Zookie{}, fmt.Errorf("%w: it is damaged; pass it exactly as an earlier answer carried it", ErrZookie)
	}
	if b[0] != zookieVersion {
		return Zookie{}, fmt.Errorf("%w: it has version %d, made by a newer pemba", ErrZookie, b[0])
	}
	return Zookie{
		Store:       StoreID(binary.BigEndian.Uint64(b[1:])),
		Incarnation: Incarnation(b[9:17]),
		Revision:    Revision(binary.BigEndian.Uint64(b[17:])),
		Tag:         [8]byte(b[25:33]),
	}, nil
}
