// Package keeper is the one [datastore.Datastore], over any [datastore.Log]: it
// judges writes and commits them in groups, keeps stores resident in memory and
// current, and answers at every consistency.
package keeper

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
)

// Options are the settings of a Keeper; zero fields take the defaults.
type Options struct {
	// MaxStaleness bounds how old an answer at minimize_latency may be (1 s).
	MaxStaleness time.Duration
	// MaxOperations bounds the operations of one change (1,000); a delete by filter
	// without a limit and the sets of a schema change are exempt.
	MaxOperations int
	// MaxChangeBytes bounds what a change takes, with what it replaces (3 MiB, so
	// that a client of gRPC takes it in one message); a delete by filter without a
	// limit and schemas are exempt.
	MaxChangeBytes int
	// MaxSchemaBytes bounds a schema's text (4 MiB).
	MaxSchemaBytes int
	// SweepEvery is how often expired relationships are swept (10 s).
	SweepEvery time.Duration
	// Retention is how far back a revision can be read (24 h).
	Retention time.Duration
	// HistoryRetention is how long changes are kept; zero keeps them for ever.
	HistoryRetention time.Duration
	// DirectWidth is how many queries a direct read gathers (10,000).
	DirectWidth int
	// ResidentMemory bounds, in bytes, what stores take in memory together; zero
	// is no bound. Stores that do not fit are read from the Log, and make room for
	// others the sooner the longer nobody has used them.
	ResidentMemory int64
	// ResidentMaxRelationships bounds the relationships of a store in memory; zero
	// is no bound.
	ResidentMaxRelationships int
	// ResidentIdle is how long a store must be unused to make room for another,
	// and how often a store out of memory tries to come back (10 s).
	ResidentIdle time.Duration
	// ReplayMemory bounds, in bytes, what a state of before the retention window may
	// take that is made from the history (512 MiB).
	ReplayMemory int64
	// Cache, if set, makes and remembers the reads of stores that are not in memory,
	// and of revisions of the past.
	Cache datastore.RowCache
	// LoadPatience is how long a question waits while its store is read into memory
	// (250 ms); then the store is read directly until it is there.
	LoadPatience time.Duration
	// Direct answers every question from the Log at its revision, as if the store
	// were too old to be in memory. Writes are judged in memory all the same.
	Direct bool
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Defaults of limits that are set by other means too.
const (
	DefaultMaxOperations  = 1000
	DefaultMaxChangeBytes = 3 << 20
	DefaultReplayMemory   = 512 << 20
)

func (o Options) withDefaults() Options {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&o.MaxStaleness, time.Second)
	set(&o.SweepEvery, 10*time.Second)
	set(&o.Retention, 24*time.Hour)
	set(&o.ResidentIdle, 10*time.Second)
	set(&o.LoadPatience, 250*time.Millisecond)
	count := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	count(&o.MaxOperations, DefaultMaxOperations)
	count(&o.MaxChangeBytes, DefaultMaxChangeBytes)
	count(&o.MaxSchemaBytes, schema.DefaultMaxBytes)
	count(&o.DirectWidth, 10_000)
	if o.ReplayMemory == 0 {
		o.ReplayMemory = DefaultReplayMemory
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Keeper is a [datastore.Datastore] over a Log.
type Keeper struct {
	catchUps, followed atomic.Uint64 // see Stats

	log  datastore.Log
	opts Options
	node string // a random name, among those that share the Log

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup

	stores sync.Map // by datastore.StoreID: *store
	// unsettled are the ids of stores whose line of history could not be made or
	// dropped: see settle.
	unsettled sync.Map
	resident  residency
	replays   *replays
	// confirming tells that one read confirms all stores that were asked.
	confirming bool
	restoring  atomic.Bool // a store, on this node

	mu     sync.Mutex
	closed bool // changed with mu held; k.ctx ends with it
}

var _ datastore.Datastore = (*Keeper)(nil)

// Open makes a Keeper over a Log, which it owns from then on. A Log without
// stores gets the stores system and default; what a crash left half made or
// half deleted is put right.
func Open(log datastore.Log, opts Options) (*Keeper, error) {
	ctx, cancel := context.WithCancel(context.Background())
	k := &Keeper{log: log, opts: opts.withDefaults(), node: rand.Text(), ctx: ctx, cancel: cancel, replays: newReplays()}
	k.resident.sizes = map[*store]int64{}
	heads, ok := log.(datastore.HeadsReader)
	k.confirming = ok
	if err := k.bootstrap(ctx); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	k.begin(k.upkeep)
	if h, ok := log.(datastore.Hinter); ok {
		k.begin(func() { k.followHints(h) })
	}
	if k.confirming {
		k.begin(func() { k.confirmations(heads) })
	}
	return k, nil
}

func newIncarnation() (n datastore.Incarnation) {
	rand.Read(n[:]) // never fails
	return n
}

func (k *Keeper) bootstrap(ctx context.Context) error {
	if err := k.log.CreateLine(ctx, datastore.System, newIncarnation()); err != nil {
		return err
	}
	// The lines are listed before the registry is read: one that another node makes
	// meanwhile is not taken for one half deleted.
	lines, err := k.log.Lines(ctx)
	if err != nil {
		return err
	}
	system, err := k.state(ctx, datastore.System)
	if err != nil {
		return err
	}
	if system.head.Revision == 0 {
		_, err := k.Write(ctx, datastore.System, datastore.Request{
			ID: "bootstrap", Actor: "pemba", Reason: "first start", CreateStore: &datastore.Store{Name: "default"},
		})
		if err != nil {
			return err
		}
		if system, err = k.state(ctx, datastore.System); err != nil {
			return err
		}
	}
	if system.schema == nil {
		// Nodes that start together write it once.
		_, err := k.Write(ctx, datastore.System, datastore.Request{
			ID: "bootstrap-schema", Actor: "pemba", Reason: "what grants are", Schema: &datastore.SchemaUpdate{Text: datastore.SystemSchema},
		})
		if err != nil {
			return err
		}
	}
	known := map[datastore.StoreID]bool{datastore.System: true}
	for _, s := range system.registry.stores {
		known[s.ID] = true
		if isRestored(s.ID) {
			continue // it was there before the registry knew it
		}
		if err := k.log.CreateLine(ctx, s.ID, newIncarnation()); err != nil {
			return err
		}
	}
	abandoned := false
	for _, id := range lines {
		if known[id] {
			continue
		}
		if isRestored(id) { // on another node, perhaps, and not yet complete
			abandoned = true
		} else if err := k.log.DropLine(ctx, id); err != nil {
			return err
		}
	}
	if !abandoned {
		return nil
	}
	ctx, release, err := k.holdRestores(ctx)
	if errors.Is(err, datastore.ErrPrecondition) {
		return nil
	}
	if err != nil {
		return err
	}
	defer release()
	return k.dropAbandoned(ctx)
}

// Close ends background work and closes the Log. Requests under way end with
// ErrClosed or are completed.
func (k *Keeper) Close() error {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return nil
	}
	k.closed = true
	k.cancel()
	k.mu.Unlock()
	k.work.Wait()
	return k.log.Close()
}

// begin starts background work, unless the Keeper is closed.
func (k *Keeper) begin(f func()) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return false
	}
	k.work.Add(1)
	go func() {
		defer k.work.Done()
		f()
	}()
	return true
}

func (k *Keeper) open(id datastore.StoreID) (*store, error) {
	if k.ctx.Err() != nil {
		return nil, datastore.ErrClosed
	}
	s, ok := k.stores.Load(id)
	if !ok {
		s, _ = k.stores.LoadOrStore(id, newStore(k, id))
	}
	return s.(*store), nil
}

func (k *Keeper) forget(id datastore.StoreID) {
	if v, ok := k.stores.LoadAndDelete(id); ok {
		s := v.(*store)
		if l := s.loading.Load(); l != nil {
			l.cancel()
		}
		k.release(s)
	}
}

// state returns a store's state at the head.
func (k *Keeper) state(ctx context.Context, id datastore.StoreID) (*state, error) {
	s, err := k.open(id)
	if err != nil {
		return nil, err
	}
	st, err := s.atHead(ctx)
	if err != nil && errors.Is(err, datastore.ErrNoStore) {
		k.forget(id)
	}
	return st, err
}

// Stores implements [datastore.Datastore]; sorted by name.
func (k *Keeper) Stores(ctx context.Context) ([]datastore.Store, error) {
	system, err := k.state(ctx, datastore.System)
	if err != nil {
		return nil, err
	}
	return sortedBy(system.registry.stores, func(s datastore.Store) string { return s.Name }), nil
}

// StoreByName implements [datastore.Datastore]. A name just made on another node
// is found: an unknown name is looked up at the head.
func (k *Keeper) StoreByName(ctx context.Context, name string) (datastore.Store, error) {
	if name == "system" {
		return datastore.Store{ID: datastore.System, Name: name}, nil
	}
	s, err := k.open(datastore.System)
	if err != nil {
		return datastore.Store{}, err
	}
	system, err := s.recent(ctx)
	if err != nil {
		return datastore.Store{}, err
	}
	if found, ok := system.registry.stores[name]; ok {
		return found, nil
	}
	if system, err = s.atHead(ctx); err != nil {
		return datastore.Store{}, err
	}
	found, ok := system.registry.stores[name]
	if !ok {
		return found, noStore(name)
	}
	return found, nil
}

// Tokens implements [datastore.Datastore]; sorted by name.
func (k *Keeper) Tokens(ctx context.Context) ([]datastore.Token, error) {
	system, err := k.state(ctx, datastore.System)
	if err != nil {
		return nil, err
	}
	return sortedBy(system.registry.tokens, func(t datastore.Token) string { return t.Name }), nil
}

// TokenByHash implements [datastore.Datastore]. A token revoked on another node
// is refused within MaxStaleness.
func (k *Keeper) TokenByHash(ctx context.Context, hash [32]byte) (datastore.Token, bool, error) {
	s, err := k.open(datastore.System)
	if err != nil {
		return datastore.Token{}, false, err
	}
	system, err := s.recent(ctx)
	if err != nil {
		return datastore.Token{}, false, err
	}
	name, ok := system.registry.byHash[hash]
	return system.registry.tokens[name], ok, nil
}

// Guarded implements [datastore.Datastore]. A token or grant made on another node
// counts within MaxStaleness.
func (k *Keeper) Guarded(ctx context.Context) (bool, error) {
	s, err := k.open(datastore.System)
	if err != nil {
		return false, err
	}
	system, err := s.recent(ctx)
	if err != nil {
		return false, err
	}
	return system.registry.guarded, nil
}
