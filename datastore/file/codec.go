package file

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// The forms below are stored; change them only together with format. Integers
// are eight bytes, big endian, so that their order is that of their bytes.

func damaged(what string) error { return fmt.Errorf("%w: %s", datastore.ErrCorrupt, what) }

func appendUint(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

func parseUint(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, damaged(fmt.Sprintf("a number has %d bytes", len(b)))
	}
	return binary.BigEndian.Uint64(b), nil
}

const headSize = 8 + 8 + 8 + 32 + 8

func appendHead(b []byte, h datastore.Head) []byte {
	b = append(b, h.Incarnation[:]...)
	b = appendUint(appendUint(b, uint64(h.Revision)), uint64(h.Floor))
	return appendUint(append(b, h.Hash[:]...), uint64(h.Time.UnixMicro()))
}

func parseHead(b []byte) (h datastore.Head, err error) {
	if len(b) != headSize {
		return h, damaged(fmt.Sprintf("it has %d bytes", len(b)))
	}
	copy(h.Incarnation[:], b)
	h.Revision = datastore.Revision(binary.BigEndian.Uint64(b[8:]))
	h.Floor = datastore.Revision(binary.BigEndian.Uint64(b[16:]))
	copy(h.Hash[:], b[24:])
	h.Time = time.UnixMicro(int64(binary.BigEndian.Uint64(b[56:]))).UTC()
	return h, nil
}

func appendAnchor(b []byte, a datastore.Anchor) []byte {
	return append(appendUint(b, uint64(a.Revision)), a.Hash[:]...)
}

func parseAnchor(b []byte) (a datastore.Anchor, err error) {
	if len(b) != 8+32 {
		return a, damaged(fmt.Sprintf("it has %d bytes", len(b)))
	}
	a.Revision = datastore.Revision(binary.BigEndian.Uint64(b))
	copy(a.Hash[:], b[8:])
	return a, nil
}

// appendBytes writes a length and the bytes.
func appendBytes[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// cut reads what appendBytes wrote and returns the rest. The bytes are those of
// b, not a copy.
func cut(b []byte) (s, rest []byte, err error) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, damaged("a length is beyond the end")
	}
	b = b[size:]
	return b[:n:n], b[n:], nil
}

// appendEntry writes an entry's value; its key is its revision.
func appendEntry(b []byte, e datastore.Entry) []byte {
	b = append(b, e.Hash[:]...)
	return appendBytes(appendBytes(appendBytes(b, e.RequestID), e.Header), e.Payload)
}

// parseEntry copies what it returns: k and v end with their transaction.
func parseEntry(k, v []byte) (e datastore.Entry, err error) {
	r, err := parseUint(k)
	if err != nil {
		return e, err
	}
	e.Revision = datastore.Revision(r)
	if len(v) < len(e.Hash) {
		return e, damaged(fmt.Sprintf("it has %d bytes", len(v)))
	}
	v = append([]byte(nil), v...)
	rest := v[copy(e.Hash[:], v):]
	id, rest, err := cut(rest)
	if err != nil {
		return e, err
	}
	e.RequestID = string(id)
	if e.Header, rest, err = cut(rest); err != nil {
		return e, err
	}
	if e.Payload, rest, err = cut(rest); err != nil {
		return e, err
	}
	if len(rest) > 0 {
		return e, damaged(fmt.Sprintf("%d bytes follow its end", len(rest)))
	}
	return e, nil
}

func appendSchema(b []byte, s *datastore.SchemaText) []byte {
	b = append(append(b, s.Hash[:]...), s.PreviousHash[:]...)
	b = appendBytes(b, s.Text)
	for _, name := range s.Names {
		b = appendBytes(b, name)
	}
	return b
}

func parseSchema(b []byte) (*datastore.SchemaText, error) {
	s := &datastore.SchemaText{}
	if len(b) < len(s.Hash)+len(s.PreviousHash) {
		return nil, damaged(fmt.Sprintf("a schema has %d bytes", len(b)))
	}
	b = b[copy(s.Hash[:], b):]
	b = b[copy(s.PreviousHash[:], b):]
	text, b, err := cut(b)
	if err != nil {
		return nil, err
	}
	s.Text = string(text)
	for len(b) > 0 {
		var name []byte
		if name, b, err = cut(b); err != nil {
			return nil, err
		}
		s.Names = append(s.Names, string(name))
	}
	return s, nil
}

// A row's key is its parts in the order of the bucket, each ended by a zero byte,
// which no part holds, and the revision that created it: the order of the bytes
// is that of [tuple.Key.Compare], or of [tuple.Key.CompareBySubject], and of two
// rows of one key the older comes first.

func appendKey(b []byte, k tuple.Key, bySubject bool) []byte {
	parts := [6]string{k.Object.Type, k.Object.ID, k.Relation, k.Subject.Type, k.Subject.ID, k.Subject.Relation}
	if bySubject {
		parts = [6]string{k.Subject.Type, k.Subject.ID, k.Subject.Relation, k.Object.Type, k.Object.ID, k.Relation}
	}
	for _, p := range parts {
		b = append(append(b, p...), 0)
	}
	return b
}

// parseKey copies what it returns into one string.
func parseKey(b []byte, bySubject bool) (k tuple.Key, created datastore.Revision, err error) {
	if len(b) < 8 {
		return k, 0, damaged(fmt.Sprintf("a row's key has %d bytes", len(b)))
	}
	created = datastore.Revision(binary.BigEndian.Uint64(b[len(b)-8:]))
	text := string(b[:len(b)-8])
	var parts [6]string
	for i := range parts {
		end := 0
		for end < len(text) && text[end] != 0 {
			end++
		}
		if end == len(text) {
			return k, 0, damaged("a row's key ends too early")
		}
		parts[i], text = text[:end], text[end+1:]
	}
	if text != "" {
		return k, 0, damaged("a row's key does not end where it should")
	}
	if bySubject {
		k.Subject = tuple.Subject{Object: tuple.Object{Type: parts[0], ID: parts[1]}, Relation: parts[2]}
		k.Object, k.Relation = tuple.Object{Type: parts[3], ID: parts[4]}, parts[5]
		return k, created, nil
	}
	k.Object, k.Relation = tuple.Object{Type: parts[0], ID: parts[1]}, parts[2]
	k.Subject = tuple.Subject{Object: tuple.Object{Type: parts[3], ID: parts[4]}, Relation: parts[5]}
	return k, created, nil
}

// A row's value begins with the revision that closed it, zero while it lives;
// then come its expiration, in microseconds, where it has one, and its caveat.

const (
	hasExpiration = 1 << iota
	hasCaveat
)

func appendRow(b []byte, deleted datastore.Revision, r tuple.Relationship) []byte {
	flags := byte(0)
	if !r.Expiration.IsZero() {
		flags |= hasExpiration
	}
	if r.Caveat.Name != "" {
		flags |= hasCaveat
	}
	b = append(appendUint(b, uint64(deleted)), flags)
	if flags&hasExpiration != 0 {
		b = appendUint(b, uint64(r.Expiration.UnixMicro()))
	}
	if flags&hasCaveat != 0 {
		b = appendBytes(appendBytes(b, r.Caveat.Name), r.Caveat.Context)
	}
	return b
}

// closedAt reads the revision that closed a row, zero while it lives.
func closedAt(v []byte) (datastore.Revision, error) {
	if len(v) < 9 {
		return 0, damaged(fmt.Sprintf("a row has %d bytes", len(v)))
	}
	return datastore.Revision(binary.BigEndian.Uint64(v)), nil
}

// parseTraits reads a row's expiration and caveat.
func parseTraits(v []byte, r *tuple.Relationship) error {
	if len(v) < 9 {
		return damaged(fmt.Sprintf("a row has %d bytes", len(v)))
	}
	flags, v := v[8], v[9:]
	if flags&hasExpiration != 0 {
		if len(v) < 8 {
			return damaged("a row's expiration is cut off")
		}
		r.Expiration = time.UnixMicro(int64(binary.BigEndian.Uint64(v))).UTC()
		v = v[8:]
	}
	if flags&hasCaveat != 0 {
		name, rest, err := cut(v)
		if err != nil {
			return err
		}
		text, rest, err := cut(rest)
		if err != nil {
			return err
		}
		r.Caveat, v = tuple.Caveat{Name: string(name), Context: string(text)}, rest
	}
	if len(v) > 0 || flags&^(hasExpiration|hasCaveat) != 0 {
		return damaged("a row holds what this version of pemba does not know")
	}
	return nil
}
