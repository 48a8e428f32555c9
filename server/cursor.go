package server

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/pembadb/pemba/datastore"
	storedv1 "github.com/pembadb/pemba/proto/pemba/stored/v1"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

// cursor is where a list goes on.
type cursor struct {
	zookie   string // of the revision that is listed
	time     time.Time
	position string // of the last that was listed
	question [16]byte
}

// question tells a list from others: its kind, its store and its filter.
func question(kind string, store datastore.StoreID, filter proto.Message) (q [16]byte) {
	b := binary.BigEndian.AppendUint64(nil, uint64(store))
	b = append(append(b, kind...), 0)
	if filter != nil {
		var err error
		if b, err = (proto.MarshalOptions{Deterministic: true}).MarshalAppend(b, filter); err != nil {
			panic("server: a filter cannot be encoded: " + err.Error()) // it was decoded
		}
	}
	h := sha256.Sum256(b)
	copy(q[:], h[:])
	return q
}

// String is c's URL-safe text.
func (c cursor) String() string {
	b, err := proto.Marshal(&storedv1.Cursor{
		Format: 1, Zookie: c.zookie, Time: c.time.UnixMicro(), Position: []byte(c.position), Question: c.question[:],
	})
	if err != nil {
		panic("server: a cursor cannot be encoded: " + err.Error()) // zookies are base64
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// maxCursor bounds the text of a cursor: the longest relationship and what is
// around it.
const maxCursor = 8 << 10

// parseCursor reads the text of a cursor that must be of a question.
func parseCursor(text string, q [16]byte) (cursor, error) {
	fail := func(why string) (cursor, error) {
		return cursor{}, problem(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_CURSOR, "the cursor %s; start again without one", why)
	}
	if len(text) > maxCursor || strings.ContainsAny(text, "\r\n") { // which base64 passes over
		return fail("is damaged")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	var c storedv1.Cursor
	if err != nil || proto.Unmarshal(b, &c) != nil || len(c.Question) != len(q) {
		return fail("is damaged")
	}
	if c.Format != 1 {
		return fail("was made by a newer pemba")
	}
	if [16]byte(c.Question) != q {
		return fail("is of another question")
	}
	if _, err := datastore.ParseZookie(c.Zookie); err != nil {
		return fail("is damaged")
	}
	return cursor{zookie: c.Zookie, time: time.UnixMicro(c.Time).UTC(), position: string(c.Position), question: q}, nil
}

// key is the position in a list of relationships.
func (c cursor) key() (tuple.Key, error) {
	r, err := tuple.Parse(c.position)
	if err != nil || r.Key.String() != c.position {
		return tuple.Key{}, problem(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_CURSOR, "the cursor is damaged; start again without one")
	}
	return r.Key, nil
}
