package datastore

import (
	"crypto/sha256"
	"encoding/json"
)

// Digest is a digest of everything in r but its id, by which a retry is told
// from another request under the same id.
func (r Request) Digest() [32]byte {
	r.ID = ""
	b, err := json.Marshal(r)
	if err != nil {
		panic("datastore: a request cannot be encoded: " + err.Error()) // it holds only texts, numbers and times
	}
	return sha256.Sum256(b)
}
