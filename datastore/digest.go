package datastore

import (
	"crypto/sha256"
	"encoding/json"
)

// Digest is a digest of everything in r but its id and the secret of a token it
// makes, which is drawn anew each time, by which a retry is told
// from another request under the same id.
func (r Request) Digest() [32]byte {
	r.ID = ""
	if r.CreateToken != nil {
		t := *r.CreateToken
		t.Hash = [32]byte{}
		r.CreateToken = &t
	}
	// The secret of a rotation is drawn anew by each try, too; its hash is no part of
	// what is encoded.
	b, err := json.Marshal(r)
	if err != nil {
		panic("datastore: a request cannot be encoded: " + err.Error()) // it holds only texts, numbers and times
	}
	return sha256.Sum256(b)
}
