// Package datastore holds the nouns of Pemba's history (store, revision,
// zookie, change, head, consistency) and the joints around it: a [Log] keeps
// rows and history and judges nothing; a [Datastore] judges writes and answers
// at a consistency; a [Snapshot] is a store at one revision.
package datastore

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// Revision is a position in a store's history: 1, 2, 3, … Zero is before the
// first change.
type Revision uint64

// StoreID names a store for ever; it is never reused.
type StoreID uint64

// Stores that every datastore has from the start.
const (
	System  StoreID = 1 // holds the history of stores, tokens and grants
	Default StoreID = 2 // the store named "default"
)

// Hash chains a change to the one before.
type Hash [32]byte

// Incarnation is drawn at creation and at every restore of a store, so that two
// lines of history are never taken for one another.
type Incarnation [8]byte

// Head is where a store's history ends.
type Head struct {
	Incarnation Incarnation
	Revision    Revision
	Floor       Revision // oldest revision that can be read directly
	Hash        Hash     // of the change at Revision
	Time        time.Time
}

// Anchor is what trimmed history leaves: the last revision cut off and its hash.
type Anchor struct {
	Revision Revision
	Hash     Hash
}

// Kind tells what an [Operation] does. The values are stored; never renumber.
type Kind uint8

const (
	Create      Kind = 1
	Touch       Kind = 2
	Delete      Kind = 3
	Expire      Kind = 4 // swept after its expiration
	ApplySchema Kind = 5
	CreateStore Kind = 6 // in the history of System only, as are the next ones
	DeleteStore Kind = 7
	CreateToken Kind = 8
	RevokeToken Kind = 9
	PutIdentity Kind = 10 // a user or group came, changed, or was removed
	Erase       Kind = 11 // of an identity, the attributes of all versions before
)

// Operation is one step of a change. Which fields are set follows from Kind.
type Operation struct {
	Kind Kind
	// Relationship is what was created or touched, or what stood before it was
	// deleted or expired.
	Relationship tuple.Relationship
	// Previous is what a Touch replaced, or the expired relationship that a Create
	// did; nil if nothing stood there.
	Previous *tuple.Relationship
	Schema   *SchemaText
	Store    *Store
	Token    *Token
	Identity *IdentityPut
	// Erased is whose attributes are gone.
	Erased *tuple.Object
}

// SchemaText is a schema as applied, with the names it adds to the store's
// table; names take the ids that follow the highest so far, in order.
type SchemaText struct {
	Text string
	Hash [32]byte
	// PreviousHash is that of the schema it replaced; zero for the first.
	PreviousHash [32]byte
	Names        []string
}

// Store is a tenant. Created is set when read, not stored.
type Store struct {
	ID      StoreID
	Name    string
	Created time.Time
}

// Change is one entry of a store's history.
type Change struct {
	Revision  Revision
	Time      time.Time // UTC, microseconds; never decreases
	Actor     string
	Reason    string
	RequestID string
	// Metadata is what the caller attached for those who read the history: a JSON
	// object in canonical form (see [tuple.CanonicalJSON]), or empty.
	Metadata   string
	BodyDigest [32]byte // digest of the request, to tell a retry from a reuse of its id
	Operations []Operation
	Hash       Hash
}

// Entry is a change as a Log keeps it: the bytes that are hashed, and the
// operations decoded from them, so that the Log can keep its rows.
type Entry struct {
	Revision  Revision
	RequestID string
	Header    []byte // stored bytes, hashed; holds the digest of Payload
	Payload   []byte
	Hash      Hash
	// Time and Operations are decoded from Header and Payload; a Log uses them in
	// Update and leaves them empty in what it returns.
	Time       time.Time
	Operations []Operation
	// Identities are, in order, the versions that PutIdentity operations speak of,
	// with what is not hashed; empty like Operations in what a Log returns.
	Identities []Identity
}

// Row is a relationship as a Log keeps it.
type Row struct {
	tuple.Relationship
	Created Revision
}

// RowQuery asks for relationship rows at one revision.
type RowQuery struct {
	Filter tuple.Filter
	// BySubject orders rows by [tuple.Key.CompareBySubject] instead of
	// [tuple.Key.Compare].
	BySubject bool
	// After, if not nil, starts behind that key in the query's order.
	After *tuple.Key
	// Limit bounds the rows; zero is no bound.
	Limit int
}

// Tail is what a judge sees while the head is held.
type Tail struct {
	Head Head
	// Changes are those after the judge's own head, up to Head.
	Changes []Entry
	// Request returns the entry committed under a request id.
	Request func(id string) (Entry, bool, error)
}

// Errors that Logs and Datastores wrap; test with errors.Is.
var (
	ErrForked    = errors.New("the history is another line than the one known")
	ErrCompacted = errors.New("the revision is older than what is kept")
	ErrAhead     = errors.New("the revision is beyond the head")
	ErrNoStore   = errors.New("the store does not exist")
	ErrAmbiguous = errors.New("the commit may or may not have happened")
	// ErrFull says that a change was not written for want of room. Everything is as
	// before, and a later write may succeed.
	ErrFull        = errors.New("the disk is full")
	ErrUnavailable = errors.New("the database does not answer")
	// ErrOverloaded says that more reads of the database wait than can be served
	// soon. Nothing was done; the same again may succeed in a moment.
	ErrOverloaded = errors.New("too many reads of the database wait")
	ErrClosed     = errors.New("the datastore is closed")
	// ErrReplay says that a state of the past, made from the history, would take
	// more memory than it may.
	ErrReplay  = errors.New("the store as it was then is too large to be replayed from its history")
	ErrCorrupt = errors.New("stored bytes are damaged")
)

// Log keeps the rows and the history of stores, and judges nothing. All methods
// are safe for concurrent use. A store of which the Log has no line of history
// gives ErrNoStore.
type Log interface {
	// Head returns where the history ends.
	Head(ctx context.Context, store StoreID) (Head, error)
	// After returns the head and up to limit entries that follow revision from, in
	// order. ErrCompacted if the entry from+1 was trimmed, ErrAhead if from is
	// beyond the head.
	After(ctx context.Context, store StoreID, from Revision, limit int) (Head, []Entry, error)
	// Update holds the head, calls judge with what follows have, and commits the
	// entries it returns, all or none, durably, with the rows their operations
	// imply. No entries: nothing is written. ErrForked if have is not on the
	// store's line. ErrAmbiguous if the outcome is unknown; then the next Update of
	// that store takes and writes the head even if judge returns no entries, so
	// that nothing of the one before can follow it. A Log that other processes
	// write to remembers that.
	Update(ctx context.Context, store StoreID, have Head, judge func(Tail) ([]Entry, error)) (Head, error)
	// Rows calls f for each row that lives at revision and matches q, in q's order,
	// until f returns false. ErrCompacted below the floor, ErrAhead beyond the
	// head.
	Rows(ctx context.Context, store StoreID, at Revision, q RowQuery, f func(Row) bool) error
	// Schema returns the schema in force at revision; nil if none was applied.
	Schema(ctx context.Context, store StoreID, at Revision) (*SchemaText, error)
	// Names returns the store's name table at its head: id 1 first.
	Names(ctx context.Context, store StoreID) ([]string, error)
	// Identities calls f for the identities that q asks for, in the version of
	// revision at, until f returns false. ErrCompacted below the floor, ErrAhead
	// beyond the head. Keys are of the head, whatever the revision.
	Identities(ctx context.Context, store StoreID, at Revision, q IdentityQuery, f func(Identity) bool) error
	// Holders calls f for each identity of a type that one of some keys finds by its
	// newest version, with the name and value of that key, in no order.
	Holders(ctx context.Context, store StoreID, typ string, keys []IdentityKey, f func(k IdentityKey, id string)) error
	// Anchor returns the anchor of trimmed history; zero if nothing was trimmed.
	Anchor(ctx context.Context, store StoreID) (Anchor, error)
	// SetFloor raises the floor, in a transaction of its own; lower is ignored.
	SetFloor(ctx context.Context, store StoreID, floor Revision) error
	// Collect removes up to limit rows that were deleted at or below the floor and
	// returns how many.
	Collect(ctx context.Context, store StoreID, limit int) (int, error)
	// Trim removes the entries up to and including upTo, which must not lie above
	// the floor, and leaves an anchor.
	Trim(ctx context.Context, store StoreID, upTo Revision) error
	// CreateLine starts a line of history at revision 0; an existing one is left
	// as it is. DropLine removes a store with everything in it.
	CreateLine(ctx context.Context, store StoreID, incarnation Incarnation) error
	DropLine(ctx context.Context, store StoreID) error
	// Plant puts into a line, in one transaction, what changes wrote that it does not
	// have: see [Seed].
	Plant(ctx context.Context, store StoreID, s Seed) error
	// Lines returns the stores that have a line of history.
	Lines(ctx context.Context) ([]StoreID, error)
	Close() error
}

// Hinter is a Log that other nodes write to as well, and that tells when they
// did.
type Hinter interface {
	// Hints yields the store that may have a new head, soon after it has one; zero
	// stands for every store, and comes when hints may have been lost. It goes on
	// until ctx ends. An error means that there are no hints for a while: it goes
	// on trying. Hints spare time; correctness never depends on them.
	Hints(ctx context.Context) iter.Seq2[StoreID, error]
}

// Level is one of the four consistency levels.
type Level uint8

const (
	MinimizeLatency Level = iota
	AtLeastAsFresh
	AtExactSnapshot
	FullyConsistent
)

// Consistency is the revision a question is answered at.
type Consistency struct {
	Level  Level
	Zookie string // for AtLeastAsFresh and AtExactSnapshot
}

// ID is an object in the dictionary of one Reader; zero is none. A Reader gives
// no id from FirstForeignID on; questions use those for objects it lacks.
type ID uint32

const FirstForeignID ID = 1 << 31

// Edge is a relationship in a Reader's ids.
type Edge struct {
	Object          ID
	Relation        schema.Name
	Subject         ID          // the wildcard of a type is an object with id "*"
	SubjectRelation schema.Name // zero: none
	Caveat          string      // name, or empty
	Context         string      // written context, canonical JSON, or empty
	Expiration      int64       // Unix microseconds, or zero
}

// Query asks a Reader for edges. Object or Subject must be set.
type Query struct {
	Object   ID
	Relation schema.Name // zero: any
	Subject  ID          // zero: any
	// SubjectRelation with Subject set: exactly that (zero: none), unless
	// AnySubjectRelation. With Subject zero: ignored.
	SubjectRelation    schema.Name
	AnySubjectRelation bool
	// UsersetsOnly, with Object set and Subject zero, leaves out subjects that
	// have no relation.
	UsersetsOnly bool
}

// Reader reads edges. Those already expired are among them: who asks knows the
// time. An id that the Reader did not give has no edges.
type Reader interface {
	// ID returns the id of an object; false if no relationship mentions it.
	ID(o tuple.Object) (ID, bool)
	Object(id ID) tuple.Object
	// Type is the name of an object's type.
	Type(id ID) schema.Name
	// Width is how many queries one Read should gather: 1 in memory.
	Width() int
	// Read calls f for each edge that query q asks for, in any order, until f
	// returns false, which ends that query only.
	Read(ctx context.Context, qs []Query, f func(q int, e Edge) bool) error
}

// Snapshot is a store at one revision. It is immutable and safe for concurrent
// use.
type Snapshot interface {
	Reader
	Store() StoreID
	Head() Head
	Zookie() string
	// Names is the name table that the snapshot's ids and schema use.
	Names() *schema.Names
	// SchemaHash is the hash of the schema in force; zero while none was applied.
	SchemaHash() [32]byte
	// Schema is nil while none was applied.
	Schema() *schema.Schema
	// Withheld are the subjects that are denied everything.
	Withheld(ctx context.Context) (*Withheld, error)
	// Identities reads users and groups as [Log] does, at this revision.
	Identities(ctx context.Context, q IdentityQuery, f func(Identity) bool) error
	// Rows reads relationships for listing, at this revision; expired ones are
	// left out as of now.
	Rows(ctx context.Context, q RowQuery, now time.Time, f func(Row) bool) error
	Close()
}

// Precondition must hold for a request to be carried out.
type Precondition struct {
	Filter    tuple.Filter
	MustMatch bool // false: must not match
}

// Update is one step of a Request.
type Update struct {
	Kind         Kind // Create, Touch or Delete
	Relationship tuple.Relationship
}

// Set replaces all subjects of one relation of one object.
type Set struct {
	Object        tuple.Object
	Relation      string
	Relationships []tuple.Relationship
}

// SchemaUpdate applies a schema text that stands alone.
type SchemaUpdate struct {
	Text string
	// Expected, if not nil, is the Hash of the schema it must replace.
	Expected *[32]byte
	// DryRun judges the schema and changes nothing.
	DryRun bool
}

// MaxReason bounds the reason of a request, in bytes.
const MaxReason = 1024

// Request is one write: it becomes one change, or none.
type Request struct {
	ID            string // request id; generated where empty
	Actor         string
	Reason        string
	Metadata      string `json:",omitempty"` // see Change.Metadata
	Preconditions []Precondition
	Updates       []Update
	Sets          []Set
	Schema        *SchemaUpdate
	// DeleteWhere deletes everything that matches, up to DeleteLimit (zero: no
	// limit) or to what a change may hold; Outcome.More tells that it went so far,
	// and that anything may be left.
	DeleteWhere *tuple.Filter
	DeleteLimit int
	// DeleteWhole refuses, with ErrTooLarge, a delete that DeleteLimit would cut
	// off.
	DeleteWhole bool `json:",omitempty"` // like Metadata, no part of the digest where it is not used
	// Identities are written with the updates, in one change; Detach deletes, in
	// the same, everything that matches one of its filters, however much it is.
	Identities []IdentityUpdate `json:",omitempty"`
	Detach     []tuple.Filter   `json:",omitempty"`
	// Erase removes the attributes of all versions of an identity.
	Erase *tuple.Object `json:",omitempty"`
	// Stores and tokens; for the store System only.
	CreateStore *Store
	// Restored tells that CreateStore has the id of a line that is there already, and
	// Replaces the id of the empty store of that name, if there is one.
	Restored    bool    `json:",omitempty"`
	Replaces    StoreID `json:",omitempty"`
	DeleteStore string
	CreateToken *Token
	RevokeToken string
	RotateToken *Rotation `json:",omitempty"`
	// AddGrant grants a role, or gives a grant that there is another end;
	// RemoveGrant takes it back, whatever its end.
	AddGrant    *Grant `json:",omitempty"`
	RemoveGrant *Grant `json:",omitempty"`
}

// SchemaOutcome is what a SchemaUpdate came to, or would with DryRun.
type SchemaOutcome struct {
	Hash    [32]byte
	Changed bool
	// Before and After are the schemas compiled; Before is nil where there was
	// none, and both are nil of a repeated request.
	Before, After *schema.Schema
}

// Outcome is what a Request did.
type Outcome struct {
	Zookie   string
	Revision Revision
	Time     time.Time
	// Created, Touched and Deleted count relationships.
	Created, Touched, Deleted int
	More                      bool
	// Repeated tells that the request id was committed before with the same body,
	// and the outcome is that of then.
	Repeated bool
	Warnings []schema.Warning
	Store    *Store
	// Token is the one that was made, or got another secret.
	Token *Token
	// Schema tells of a SchemaUpdate what was judged.
	Schema *SchemaOutcome
}

// Verification is how much of a store is known to be as it was written.
type Verification struct {
	Head     Head   // where the chain ended when the verification began
	Anchor   Anchor // what it began at; zero: the first change
	Verified Revision
	Hash     Hash // of the change at Verified
	// Rows counts the relationships at Head that were compared with the history, in
	// both orders. Older are those among them that came before Anchor: the changes
	// that wrote them are gone, so that of them it is known only that both orders
	// hold the same, and that no change since says otherwise.
	Rows, Older int
	// OlderNames counts the names, and OlderSchema tells of the schema in force,
	// that came before Anchor and that nothing can be compared with.
	OlderNames  int
	OlderSchema bool
}

// Datastore answers for stores. keeper.Open makes one over a Log.
type Datastore interface {
	// At returns a snapshot at a consistency. ErrNoStore, ErrForked, ErrAhead,
	// ErrCompacted; the caller closes the snapshot.
	At(ctx context.Context, store StoreID, c Consistency) (Snapshot, error)
	// Write judges and commits one request.
	Write(ctx context.Context, store StoreID, r Request) (Outcome, error)
	// Requested returns, by their ids, which of some requests were committed, as the
	// changes they became; those of requests that were not, or whose change was
	// trimmed, it lacks.
	Requested(ctx context.Context, store StoreID, requests ...string) (map[string]Change, error)
	// History yields the changes from revision from (1 is the first) to the head,
	// in order; ErrCompacted if from was trimmed, ErrCorrupt where one is missing.
	History(ctx context.Context, store StoreID, from Revision) iter.Seq2[Change, error]
	// Entries is History with the changes as they are kept.
	Entries(ctx context.Context, store StoreID, from Revision) iter.Seq2[Entry, error]
	// Wait returns when the head is beyond revision, with the head.
	Wait(ctx context.Context, store StoreID, beyond Revision) (Head, error)
	// Zookie checks a zookie against a store and returns its revision.
	Zookie(ctx context.Context, store StoreID, zookie string) (Revision, error)
	// Stores and StoreByName read the registry of stores.
	Stores(ctx context.Context) ([]Store, error)
	StoreByName(ctx context.Context, name string) (Store, error)
	// Tokens reads the tokens in force; TokenByHash finds one.
	Tokens(ctx context.Context) ([]Token, error)
	TokenByHash(ctx context.Context, hash [32]byte) (Token, bool, error)
	// Guarded reports whether a token or a grant was ever made: who revokes the last
	// one does not open what it guarded.
	Guarded(ctx context.Context) (bool, error)
	// Head returns a store's head, without making it resident.
	Head(ctx context.Context, store StoreID) (Head, error)
	// Oldest returns the oldest revision whose change is kept: 1 unless the history
	// was trimmed.
	Oldest(ctx context.Context, store StoreID) (Revision, error)
	// Anchor returns what trimmed history left; zero if nothing was trimmed.
	Anchor(ctx context.Context, store StoreID) (Anchor, error)
	// HeadAt returns the head as it was at a revision, without its time.
	// ErrAhead; ErrCompacted below the anchor of trimmed history.
	HeadAt(ctx context.Context, store StoreID, at Revision) (Head, error)
	// HeadBefore returns the head as it was at a time: at the last change that is not
	// younger; revision 0 before the first. ErrCompacted where that was trimmed.
	HeadBefore(ctx context.Context, store StoreID, at time.Time) (Head, error)
	// AtRevision returns a snapshot of exactly that revision: read as it stood from
	// the floor on, and below it made from the history, from its first change. Then
	// its Rows and Identities answer ErrCompacted. ErrAhead; ErrCompacted where the
	// history was trimmed; ErrReplay; ErrCorrupt where a link is broken.
	AtRevision(ctx context.Context, store StoreID, at Revision) (Snapshot, error)
	// Verify recomputes the hash chain from the anchor of trimmed history, or the
	// first change, to the head, and compares what answers come from (the
	// relationships in both orders, the names, the schema in force) with what that
	// history says. It tells report, if not nil, how far it has come, and ends with
	// report's error. ErrCorrupt names the first broken revision, or a relationship
	// that differs and where it stands.
	Verify(ctx context.Context, store StoreID, report func(Verification) error) (Verification, error)
	// Backup writes a backup of a store to w, from its oldest kept change up to
	// revision at, or to the head where at is nil, and verifies the hash chain on the
	// way. ErrAhead; ErrCompacted where the history was trimmed and what the store
	// held at that revision is no longer kept; ErrCorrupt, and nothing more is
	// written, where the history is damaged.
	Backup(ctx context.Context, store Store, at *Revision, w io.Writer) (Backup, BackupCount, error)
	// Restore makes a store from a backup: a new line of history, of a new
	// incarnation, with the same changes. The store appears when all of it is written
	// and was read back and verified; on an error nothing is left. ErrBackup,
	// ErrAlreadyExists, ErrCompacted, ErrAhead, ErrName.
	Restore(ctx context.Context, in io.Reader, o RestoreOptions) (Restored, error)
	Close() error
}
