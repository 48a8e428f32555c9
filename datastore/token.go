package datastore

import "time"

// Token is an API token; its secret is known only by its hash.
type Token struct {
	Name    string
	Role    string  // empty: it has only what is granted to it
	Store   string  // store name; empty for all
	StoreID StoreID // zero for all
	Hash    [32]byte
	Created time.Time // when its secret was made
	Actor   string    // who made that
	// Types, where a token is made, narrow its role to objects of these types: it
	// gets a [Grant] for each instead of a role of its own. They are not stored.
	Types []string `json:",omitempty"`
	// Expires is when it ends; zero: never.
	Expires time.Time `json:",omitzero"`
	// Older is the hash of the secret before, which is valid until OlderUntil; zero:
	// there was none.
	Older      [32]byte  `json:"-"`
	OlderUntil time.Time `json:",omitzero"`
}

// Valid reports whether a secret of the token, by its hash, is valid at a time.
func (t *Token) Valid(hash [32]byte, now time.Time) bool {
	return (t.Expires.IsZero() || now.Before(t.Expires)) && (hash == t.Hash || hash == t.Older && now.Before(t.OlderUntil))
}

// Rotation gives a token another secret.
type Rotation struct {
	Name string
	Hash [32]byte `json:"-"`
	// Overlap is how long the secret there is stays valid, too.
	Overlap time.Duration
	// Expires is when the token ends; nil: when it would have.
	Expires *time.Time `json:",omitempty"`
}
