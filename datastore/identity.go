package datastore

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"iter"

	"github.com/tidwall/btree"

	"github.com/pembadb/pemba/tuple"
)

// IdentityKind tells what an [Identity] stands for. The values are stored; never
// renumber.
type IdentityKind uint8

const (
	User  IdentityKind = 1
	Group IdentityKind = 2
)

// IdentityState tells whether an identity is in force. The values are stored;
// never renumber.
type IdentityState uint8

const (
	Active    IdentityState = 1
	Suspended IdentityState = 2 // denied everything until it is active again
	Removed   IdentityState = 3 // likewise, until it is created again
)

// Withheld reports whether whoever is in that state is denied everything.
func (s IdentityState) Withheld() bool { return s == Suspended || s == Removed }

// Identity is one version of a user or a group. Its attributes are no part of the
// history, which holds their salted digest only: they can be erased, and the
// history stays whole.
type Identity struct {
	Object   tuple.Object
	Kind     IdentityKind
	State    IdentityState
	Revision Revision // of the change that wrote this version
	// Salt and Attributes are empty of a removed identity, and once erased.
	Salt       []byte
	Attributes string // a JSON object in canonical form
	// Keys are what the newest version is found by. A Log that is asked leaves
	// them out.
	Keys []IdentityKey
}

// IdentityKey is a text that identities of a type are found by.
type IdentityKey struct {
	Name, Value string
	// Unique: no two identities of a type that are not removed share it.
	Unique bool
}

// IdentityPut is what the history holds of a new version of an identity.
type IdentityPut struct {
	Object tuple.Object
	Kind   IdentityKind
	State  IdentityState
	// Before is the state that it replaced; zero: there was no identity.
	Before IdentityState
	Digest [32]byte // of the attributes; see [IdentityDigest]
}

// NewSalt draws a salt for a version of an identity.
func NewSalt() []byte {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	return b
}

// IdentityDigest is the digest of attributes that the history holds: nobody who
// has not the salt can tell what they were. It is zero of none.
func IdentityDigest(salt []byte, attributes string) (d [32]byte) {
	if len(salt) == 0 {
		return d
	}
	h := sha256.New()
	h.Write([]byte("pemba identity 1\x00"))
	h.Write(salt)
	h.Write([]byte(attributes))
	return [32]byte(h.Sum(nil))
}

// IdentityQuery asks a Log for identities. Which of its fields are set tells how:
// Objects names them; Key finds, by their newest version, those of a type;
// otherwise all of a type come. They come in order of their ids' bytes.
type IdentityQuery struct {
	Objects []tuple.Object
	Type    string // empty only with Objects or Withheld
	Key     *IdentityKey
	// Withheld leaves out those that are active.
	Withheld bool
	// Versions gives every version rather than the newest, oldest first, whatever
	// the floor.
	Versions bool
	After    string // ids up to and including it are left out
	Limit    int    // zero: no bound; with Versions it is not used
}

// Selects reports whether q asks for an identity in that version, its Key and
// Limit apart.
func (q *IdentityQuery) Selects(i *Identity) bool {
	return (!q.Withheld || i.State.Withheld()) && (q.Type == "" || i.Object.Type == q.Type) && (q.After == "" || i.Object.ID > q.After)
}

// NoDefinition is the error of a user or group of a type that the schema lacks.
func NoDefinition(k IdentityKind, o tuple.Object) error {
	mark := "pemba:users"
	if k == Group {
		mark = "pemba:groups"
	}
	return With(fmt.Errorf("%w: it has no definition %s, of which %s would be; add one, or mark another with the comment `// %s`", ErrSchema, o.Type, o, mark), "type", o.Type)
}

// IdentityUpdate is a new version of an identity that a [Request] writes.
type IdentityUpdate struct {
	Object tuple.Object
	Kind   IdentityKind
	State  IdentityState
	// Attributes and Keys are no part of a request's digest: that stays in the
	// history for ever.
	Attributes string        `json:"-"`
	Keys       []IdentityKey `json:"-"`
	// Expected is the revision of the version that it must replace; zero: there
	// must be none that is not removed. Nil: any.
	Expected *Revision
}

// Withheld is a set of objects that are denied everything. Nil is the empty one.
type Withheld struct{ objects *btree.BTreeG[tuple.Object] }

func objectLess(a, b tuple.Object) bool { return a.Compare(b) < 0 }

// NewWithheld returns an empty set.
func NewWithheld() *Withheld {
	return &Withheld{btree.NewBTreeGOptions(objectLess, btree.Options{NoLocks: true})}
}

// Copy returns a set that can be changed without w noticing. Copies of one set
// must not be made concurrently.
func (w *Withheld) Copy() *Withheld {
	if w == nil || w.objects.Len() == 0 {
		return NewWithheld()
	}
	return &Withheld{w.objects.Copy()}
}

// Set puts an object into the set or takes it out.
func (w *Withheld) Set(o tuple.Object, withheld bool) {
	if withheld {
		w.objects.Set(o)
	} else {
		w.objects.Delete(o)
	}
}

// Has reports whether an object is in the set.
func (w *Withheld) Has(o tuple.Object) bool {
	if w == nil || w.objects.Len() == 0 {
		return false
	}
	_, ok := w.objects.Get(o)
	return ok
}

// OfType yields the ids of the objects of a type, in order of their bytes.
func (w *Withheld) OfType(typ string) iter.Seq[string] {
	return func(yield func(string) bool) {
		if w == nil {
			return
		}
		w.objects.Ascend(tuple.Object{Type: typ}, func(o tuple.Object) bool {
			return o.Type == typ && yield(o.ID)
		})
	}
}
