package keeper

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// Bounds of what one transaction of a restore writes.
const (
	restoreEntries    = 512
	restoreOperations = 5000
	restoreBytes      = 4 << 20
)

// restoreTTL is how long a node that says nothing any more keeps others from
// restoring, and from removing what it left.
const restoreTTL = 30 * time.Second

// The id of a restored store is drawn from those that no counting reaches, and that
// a program that takes numbers for floating-point ones still tells apart: its line
// of history is written before the registry knows it.
const (
	firstRestored = datastore.StoreID(1) << 52
	lastRestored  = firstRestored<<1 - 1
)

func isRestored(id datastore.StoreID) bool { return id >= firstRestored && id <= lastRestored }

func newRestoredID() datastore.StoreID {
	n := newIncarnation()
	return firstRestored | datastore.StoreID(binary.BigEndian.Uint64(n[:]))&(firstRestored-1)
}

// Restore implements [datastore.Datastore]. One store is restored at a time, on all
// nodes together.
func (k *Keeper) Restore(ctx context.Context, in io.Reader, o datastore.RestoreOptions) (out datastore.Restored, err error) {
	replaces, err := k.replaceable(ctx, o.Name)
	if err != nil {
		return out, err
	}
	ctx, release, err := k.holdRestores(ctx)
	if err != nil {
		return out, err
	}
	defer release()
	if err := k.dropAbandoned(ctx); err != nil {
		return out, err
	}
	r, err := datastore.NewBackupReader(in)
	if err != nil {
		return out, err
	}
	n := &restoration{log: k.log, id: newRestoredID(), options: o, reader: r, head: datastore.Head{Incarnation: newIncarnation()}}
	if err := n.check(); err != nil {
		return out, err
	}
	if _, err := k.log.Head(ctx, n.id); !errors.Is(err, datastore.ErrNoStore) {
		if err == nil {
			err = fmt.Errorf("store %d is there already; try again", n.id)
		}
		return out, err
	}
	if err = n.run(ctx); err == nil {
		err = k.readBack(ctx, n)
	}
	if err != nil {
		return out, k.undo(ctx, n, err)
	}
	st, err := k.register(ctx, n, replaces)
	return datastore.Restored{Store: st, Head: n.head, Backup: r.Backup, Count: r.Count}, err
}

// replaceable returns the id of the empty store that has a name; zero if none has.
func (k *Keeper) replaceable(ctx context.Context, name string) (datastore.StoreID, error) {
	if err := datastore.CheckName("store", name); err != nil {
		return 0, err
	}
	if name == "system" {
		return 0, datastore.With(fmt.Errorf("%w: the store name system is reserved", datastore.ErrName), "store", name)
	}
	st, err := k.StoreByName(ctx, name)
	if errors.Is(err, datastore.ErrNoStore) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	head, err := k.Head(ctx, st.ID)
	if err == nil && head.Revision > 0 {
		err = restoredOver(name)
	}
	return st.ID, err
}

func restoredOver(name string) error {
	return datastore.With(fmt.Errorf("store %q: %w, and has a history; restore under another name", name, datastore.ErrAlreadyExists), "store", name)
}

// holdRestores keeps this node and all others from another restore until release.
// The context that it returns ends when it no longer does.
func (k *Keeper) holdRestores(ctx context.Context) (_ context.Context, release func(), err error) {
	busy := fmt.Errorf("%w: another store is being restored; try again when that is done", datastore.ErrPrecondition)
	if !k.restoring.CompareAndSwap(false, true) {
		return ctx, nil, busy
	}
	l, shared := k.log.(datastore.Leaser)
	if !shared {
		return ctx, func() { k.restoring.Store(false) }, nil
	}
	lease := func(ttl time.Duration) (bool, error) {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreTTL/4)
		defer cancel()
		return l.Lease(limit, "restore", k.node, ttl)
	}
	ours, err := lease(restoreTTL)
	for try := 0; !ours && err == nil && try < 10; try++ { // one that starts holds it for a moment
		time.Sleep(50 * time.Millisecond)
		ours, err = lease(restoreTTL)
	}
	if !ours {
		k.restoring.Store(false)
		if err == nil {
			err = busy
		}
		return ctx, nil, err
	}
	held, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		renew := time.NewTicker(restoreTTL / 4)
		defer renew.Stop()
		for {
			select {
			case <-held.Done():
				return
			case <-renew.C:
			}
			if ours, err := lease(restoreTTL); err != nil || !ours {
				cancel(errors.Join(errors.New("the restore was given up: other nodes could not be kept from removing it"), err))
			}
		}
	}()
	return held, func() {
		cancel(nil)
		<-ended
		if _, err := lease(0); err != nil {
			slog.Warn("a lease could not be given back; it ends by itself", "lease", "restore", "error", err)
		}
		k.restoring.Store(false)
	}, nil
}

// dropAbandoned drops what a restore left that did not come to its end. Who calls
// holds off all restores.
func (k *Keeper) dropAbandoned(ctx context.Context) error {
	lines, err := k.log.Lines(ctx)
	if err != nil {
		return err
	}
	for _, id := range lines {
		if !isRestored(id) {
			continue
		}
		if known, err := k.registered(ctx, id); err != nil || known {
			if err != nil {
				return err
			}
			continue
		}
		slog.Info("removing what a restore left that was not finished", "store", id)
		if err := k.log.DropLine(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// undo removes what a restore wrote that failed, and returns why.
func (k *Keeper) undo(ctx context.Context, n *restoration, err error) error {
	if failed := k.log.DropLine(context.WithoutCancel(ctx), n.id); failed != nil {
		slog.Warn("what a restore left that failed could not be removed; the next restore or start does", "store", n.id, "error", failed)
	}
	return err
}

// readBack verifies what was written as `pemba store verify` does, and that its
// schema is one.
func (k *Keeper) readBack(ctx context.Context, n *restoration) error {
	v := &verifier{log: k.log, store: n.id, report: func(datastore.Verification) error { return ctx.Err() }, most: verifiedAtOnce}
	err := v.run(ctx)
	if err == nil && (v.Verified != n.head.Revision || v.Hash != n.head.Hash) {
		err = fmt.Errorf("its head is at revision %d, hash %x", v.Verified, v.Hash)
	}
	if err == nil {
		err = newStore(k, n.id).loadSchema(ctx, newState(n.id, n.head))
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, datastore.ErrUnavailable) {
		err = fmt.Errorf("%w: what it says is not what was read back: %w", datastore.ErrBackup, err)
	}
	return err
}

// register makes the line a store. On an error it is gone, unless nobody knows
// whether it became one: then the next restore, or start, removes it if it did not.
func (k *Keeper) register(ctx context.Context, n *restoration, replaces datastore.StoreID) (datastore.Store, error) {
	if err := context.Cause(ctx); err != nil {
		return datastore.Store{}, k.undo(ctx, n, err)
	}
	ctx = context.WithoutCancel(ctx)
	b := &n.reader.Backup
	reason := n.options.Reason
	if reason == "" {
		reason = fmt.Sprintf("restored from a backup of store %s at revision %d", b.Store.Name, n.head.Revision)
	}
	metadata, err := json.Marshal(map[string]any{"backup": map[string]any{"store": b.Store.Name, "made": b.Made.Format(time.RFC3339Nano),
		"incarnation": hex.EncodeToString(b.Incarnation[:]), "revision": n.head.Revision, "hash": hex.EncodeToString(n.head.Hash[:])}})
	if err != nil {
		return datastore.Store{}, err
	}
	canonical, err := tuple.CanonicalJSON(string(metadata))
	if err != nil {
		return datastore.Store{}, err
	}
	o, err := k.Write(ctx, datastore.System, datastore.Request{Actor: n.options.Actor, Reason: reason, Metadata: canonical,
		CreateStore: &datastore.Store{ID: n.id, Name: n.options.Name}, Restored: true, Replaces: replaces})
	if err != nil {
		if !errors.Is(err, datastore.ErrAmbiguous) && !errors.Is(err, datastore.ErrUnavailable) && !errors.Is(err, datastore.ErrClosed) {
			err = k.undo(ctx, n, err)
		}
		return datastore.Store{}, err
	}
	if head, err := k.log.Head(ctx, n.id); err != nil || head.Incarnation != n.head.Incarnation {
		return *o.Store, errors.Join(fmt.Errorf("store %s was removed by another node while it was registered; delete it, and restore again", n.options.Name), err)
	}
	if replaces != 0 {
		if err := k.settle(ctx, replaces); err != nil {
			slog.Warn("the empty store that was replaced could not be removed; it is tried again", "store", replaces, "error", err)
		}
	}
	return *o.Store, nil
}

// restoration is a backup on its way into a line of history.
type restoration struct {
	log     datastore.Log
	id      datastore.StoreID
	options datastore.RestoreOptions
	reader  *datastore.BackupReader

	head       datastore.Head // that was written
	batch      []datastore.Entry
	operations int
	bytes      int
	reached    bool // the last change that is wanted
	first      time.Time
}

// check refuses a revision that the backup cannot give.
func (n *restoration) check() error {
	b := &n.reader.Backup
	if r := n.options.Revision; r != nil {
		switch {
		case *r > b.Head.Revision:
			return datastore.Ahead(*r, b.Head.Revision)
		case *r < b.Base:
			return n.tooOld(fmt.Sprintf("revision %d", *r))
		}
	}
	return nil
}

// tooOld is the error of a time or revision of before the base.
func (n *restoration) tooOld(what string) error {
	b := &n.reader.Backup
	return fmt.Errorf("the history was trimmed, and the backup says what the store held from revision %d on, not at %s: %w", b.Base, what, datastore.Compacted(b.Base, b.Base))
}

// run writes the line, and reads the backup to its end.
func (n *restoration) run(ctx context.Context) error {
	b := &n.reader.Backup
	if err := n.log.CreateLine(ctx, n.id, n.head.Incarnation); err != nil {
		return err
	}
	if b.Anchor.Revision > 0 {
		n.head.Revision, n.head.Hash = b.Anchor.Revision, b.Anchor.Hash
		if b.Anchor.Revision == b.Head.Revision {
			n.head.Time = b.Head.Time
		}
		start := n.head
		if err := n.log.Plant(ctx, n.id, datastore.Seed{Start: &start}); err != nil {
			return err
		}
	}
	for {
		p, err := n.reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			err = n.piece(ctx, p)
		}
		if err != nil {
			return err
		}
	}
	if err := n.flush(ctx); err != nil {
		return err
	}
	if at := n.options.At; !at.IsZero() && n.head.Revision == b.Anchor.Revision && n.head.Revision < b.Head.Revision {
		if b.Anchor.Revision > 0 {
			return n.tooOld(at.UTC().Format(time.RFC3339Nano))
		}
		return fmt.Errorf("%w: the store was empty at %s; its first change was made at %s", datastore.ErrInvalid, at.UTC().Format(time.RFC3339Nano), n.first.Format(time.RFC3339Nano))
	}
	return nil
}

func (n *restoration) piece(ctx context.Context, p datastore.BackupPiece) error {
	base := n.reader.Backup.Base
	switch {
	case p.Change != nil:
		return n.change(ctx, *p.Change)
	case n.reached && n.head.Revision+datastore.Revision(len(n.batch)) < base:
		return n.tooOld(n.options.At.UTC().Format(time.RFC3339Nano))
	case p.Base != nil:
		if err := n.flush(ctx); err != nil {
			return err
		}
		if err := n.log.Plant(ctx, n.id, datastore.Seed{Names: p.Base.Names, Schema: p.Base.Schema}); err != nil {
			return err
		}
		return n.log.SetFloor(ctx, n.id, base)
	}
	for i := range p.Identities {
		if err := n.keys(&p.Identities[i]); err != nil {
			return err
		}
	}
	return n.log.Plant(ctx, n.id, datastore.Seed{Rows: p.Rows, Identities: p.Identities})
}

// change takes a change in, or passes over it if it comes after the last that is
// wanted.
func (n *restoration) change(ctx context.Context, e datastore.Entry) error {
	if n.first.IsZero() {
		n.first = e.Time
	}
	o := &n.options
	n.reached = n.reached || o.Revision != nil && e.Revision > *o.Revision || !o.At.IsZero() && e.Time.After(o.At)
	if n.reached {
		return nil
	}
	operations := len(e.Operations)
	if e.Revision <= n.reader.Backup.Base {
		e.Operations, e.Identities, operations = nil, nil, 0 // what it came to is in the base
	}
	for i := range e.Identities {
		if err := n.keys(&e.Identities[i]); err != nil {
			return err
		}
		operations++
	}
	if len(n.batch) > 0 && n.operations+operations > restoreOperations {
		if err := n.flush(ctx); err != nil {
			return err
		}
	}
	n.batch = append(n.batch, e)
	n.operations, n.bytes = n.operations+operations, n.bytes+len(e.Header)+len(e.Payload)
	if len(n.batch) < restoreEntries && n.operations < restoreOperations && n.bytes < restoreBytes {
		return nil
	}
	return n.flush(ctx)
}

// keys gives a version what it is found by.
func (n *restoration) keys(i *datastore.Identity) (err error) {
	if n.options.Keys != nil && i.Salt != nil && i.State != datastore.Removed {
		i.Keys, err = n.options.Keys(*i)
	}
	return err
}

// flush writes the changes that wait.
func (n *restoration) flush(ctx context.Context) error {
	if len(n.batch) == 0 {
		return nil
	}
	last := n.batch[len(n.batch)-1]
	for try := 0; ; try++ {
		head, err := n.log.Update(ctx, n.id, n.head, func(tail datastore.Tail) ([]datastore.Entry, error) {
			if tail.Head.Revision == last.Revision && tail.Head.Hash == last.Hash {
				return nil, nil // an earlier try, whose outcome was not known, wrote them
			}
			return n.batch, nil
		})
		if errors.Is(err, datastore.ErrAmbiguous) && try < commitRetries {
			continue
		}
		if err != nil {
			return fmt.Errorf("write changes %d to %d: %w", n.head.Revision+1, last.Revision, err)
		}
		n.head = head
		n.batch, n.operations, n.bytes = nil, 0, 0
		return nil
	}
}
