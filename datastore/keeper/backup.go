package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// Bounds of what a backup reads ahead, to ask for the users and groups of many
// changes at once.
const (
	backupEntries    = 256
	backupIdentities = 100
)

// Backup implements [datastore.Datastore].
func (k *Keeper) Backup(ctx context.Context, st datastore.Store, at *datastore.Revision, out io.Writer) (datastore.Backup, datastore.BackupCount, error) {
	b := &backup{keeper: k, log: k.log, store: st.ID}
	if st.ID == datastore.System {
		return b.Backup, datastore.BackupCount{}, fmt.Errorf("%w: the store system is of one installation, with its tokens, and is not backed up; back up each store", datastore.ErrProtected)
	}
	b.Store = datastore.Store{ID: st.ID, Name: st.Name}
	if err := k.settled(ctx, st.ID, func() error { return b.plan(ctx, at) }); err != nil {
		return b.Backup, datastore.BackupCount{}, err
	}
	var err error
	if b.out, err = datastore.NewBackupWriter(out, b.Backup); err != nil {
		return b.Backup, datastore.BackupCount{}, err
	}
	if err := b.changes(ctx); err != nil {
		return b.Backup, datastore.BackupCount{}, err
	}
	count, err := b.out.End()
	return b.Backup, count, err
}

// backup is one under way.
type backup struct {
	datastore.Backup
	keeper *Keeper
	log    datastore.Log
	store  datastore.StoreID
	out    *datastore.BackupWriter

	page []backupEntry // not written yet
	size int
	puts int
}

// backupEntry is a change with the users and groups that it writes.
type backupEntry struct {
	datastore.Entry
	written []tuple.Object
}

// plan decides what the backup holds.
func (b *backup) plan(ctx context.Context, at *datastore.Revision) error {
	head, err := b.log.Head(ctx, b.store)
	if err != nil {
		return err
	}
	if b.Anchor, err = b.log.Anchor(ctx, b.store); err != nil {
		return err
	}
	b.Made, b.Incarnation = tuple.Micros(b.keeper.opts.Now()).UTC(), head.Incarnation
	b.Head, b.Head.Floor = head, 0
	if at != nil && *at != head.Revision {
		if b.Head, err = b.position(ctx, head, *at); err != nil {
			return err
		}
	}
	if b.Anchor.Revision == 0 {
		return nil
	}
	return b.chooseBase(ctx, head)
}

// position is where the history stood at a revision.
func (b *backup) position(ctx context.Context, head datastore.Head, at datastore.Revision) (datastore.Head, error) {
	out := datastore.Head{Incarnation: head.Incarnation, Revision: at, Hash: b.Anchor.Hash}
	switch {
	case at > head.Revision:
		return out, datastore.Ahead(at, head.Revision)
	case at < b.Anchor.Revision:
		return out, datastore.Compacted(at, b.Anchor.Revision)
	case at == b.Anchor.Revision:
		return out, nil
	}
	c, err := changeAt(ctx, b.log, b.store, at)
	out.Hash, out.Time = c.Hash, c.Time
	return out, err
}

// chooseBase chooses the revision at which the store is read: halfway through the
// retention window, so that there is as much time to read it, and that the backup
// can be restored to any revision since.
func (b *backup) chooseBase(ctx context.Context, head datastore.Head) error {
	if b.Head.Revision < head.Floor {
		return datastore.With(fmt.Errorf("what the store held at revision %d is no longer kept, and the history that led to it was trimmed: %w",
			b.Head.Revision, datastore.Compacted(b.Head.Revision, head.Floor)), "oldest", fmt.Sprint(head.Floor))
	}
	half, err := headBefore(ctx, b.log, b.store, b.keeper.opts.Now().Add(-b.keeper.opts.Retention/2))
	if err != nil && !errors.Is(err, datastore.ErrCompacted) {
		return err
	}
	b.Base = min(max(half.Revision, head.Floor, b.Anchor.Revision), b.Head.Revision)
	return nil
}

// changes writes the changes, and the base where its place is. What it reads is
// verified: a history that is damaged makes no backup.
func (b *backup) changes(ctx context.Context) error {
	chain, err := datastore.NewChain(b.store, datastore.Head{Incarnation: b.Incarnation, Revision: b.Anchor.Revision, Hash: b.Anchor.Hash}, nil)
	if err != nil {
		return err
	}
	if err := b.baseAt(ctx, chain.At.Revision); err != nil || chain.At.Revision == b.Head.Revision {
		return err
	}
	for e, err := range b.keeper.Entries(ctx, b.store, b.Anchor.Revision+1) {
		if err != nil {
			return err
		}
		c, err := chain.Next(e)
		if err != nil {
			return err
		}
		if err := b.add(ctx, e, c.Operations); err != nil {
			return err
		}
		if err := b.baseAt(ctx, e.Revision); err != nil {
			return err
		}
		if e.Revision == b.Head.Revision {
			break
		}
	}
	if chain.At.Revision != b.Head.Revision || chain.At.Hash != b.Head.Hash {
		return fmt.Errorf("store %d: %w", b.store, datastore.ErrForked)
	}
	return b.flush(ctx)
}

func (b *backup) add(ctx context.Context, e datastore.Entry, operations []datastore.Operation) error {
	waiting := backupEntry{Entry: e}
	for i := range operations {
		if p := operations[i].Identity; p != nil && e.Revision > b.Base {
			waiting.written = append(waiting.written, p.Object)
		}
	}
	b.page, b.size, b.puts = append(b.page, waiting), b.size+len(e.Payload), b.puts+len(waiting.written)
	if len(b.page) < backupEntries && b.size < pageBytes && b.puts < backupIdentities {
		return nil
	}
	return b.flush(ctx)
}

// flush writes the changes that wait, each after the users and groups it wrote.
func (b *backup) flush(ctx context.Context) error {
	versions, err := b.versions(ctx)
	if err != nil {
		return err
	}
	for i := range b.page {
		e := &b.page[i]
		var written []datastore.Identity
		for _, o := range e.written {
			v, ok := versions[identityVersion{o, e.Revision}]
			if !ok {
				return datastore.BrokenAt(e.Revision, fmt.Errorf("%w: the version of %s of revision %d is missing", datastore.ErrCorrupt, o, e.Revision))
			}
			written = append(written, v)
		}
		if err := b.out.Identities(written); err != nil {
			return err
		}
		if err := b.out.Change(e.Entry); err != nil {
			return err
		}
	}
	clear(b.page)
	b.page, b.size, b.puts = b.page[:0], 0, 0
	return nil
}

// versions reads the versions of users and groups that the changes that wait
// wrote.
func (b *backup) versions(ctx context.Context) (map[identityVersion]datastore.Identity, error) {
	wanted := map[identityVersion]bool{}
	var objects []tuple.Object
	for i := range b.page {
		for _, o := range b.page[i].written {
			wanted[identityVersion{o, b.page[i].Revision}] = true
			objects = append(objects, o)
		}
	}
	slices.SortFunc(objects, tuple.Object.Compare)
	objects = slices.Compact(objects)
	found := map[identityVersion]datastore.Identity{}
	for ; len(objects) > 0; objects = objects[min(len(objects), backupIdentities):] {
		q := datastore.IdentityQuery{Objects: objects[:min(len(objects), backupIdentities)], Versions: true}
		if err := b.log.Identities(ctx, b.store, b.Head.Revision, q, func(i datastore.Identity) bool {
			if at := (identityVersion{i.Object, i.Revision}); wanted[at] {
				found[at] = i
			}
			return true
		}); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// baseAt writes the base if a revision is its own.
func (b *backup) baseAt(ctx context.Context, at datastore.Revision) error {
	if b.Base == 0 || at != b.Base {
		return nil
	}
	if err := b.flush(ctx); err != nil {
		return err
	}
	err := b.base(ctx)
	if errors.Is(err, datastore.ErrCompacted) {
		err = fmt.Errorf("what the store held at revision %d was removed while it was read; try again, or lengthen the retention: %w", at, err)
	}
	return err
}

func (b *backup) base(ctx context.Context) (err error) {
	var base datastore.BackupBase
	if base.Schema, err = b.log.Schema(ctx, b.store, b.Base); err != nil {
		return err
	}
	if base.Names, err = b.names(ctx); err != nil {
		return err
	}
	if err := b.out.Base(base); err != nil {
		return err
	}
	var list []datastore.Identity
	var failed error
	if err := b.log.Identities(ctx, b.store, b.Head.Revision, datastore.IdentityQuery{Versions: true}, func(i datastore.Identity) bool {
		if i.Revision > b.Base {
			return true
		}
		if list = append(list, i); len(list) == backupIdentities {
			failed = b.out.Identities(list)
			list = list[:0]
		}
		return failed == nil
	}); err != nil || failed != nil {
		return errors.Join(err, failed)
	}
	if err := b.out.Identities(list); err != nil {
		return err
	}
	if err := b.log.Rows(ctx, b.store, b.Base, datastore.RowQuery{}, func(r datastore.Row) bool {
		failed = b.out.Row(r)
		return failed == nil
	}); err != nil || failed != nil {
		return errors.Join(err, failed)
	}
	return b.out.EndRows()
}

// names are those of the base: without those that changes behind it added, which a
// table read meanwhile may have wholly or in part. A table has no name twice.
func (b *backup) names(ctx context.Context) ([]string, error) {
	names, err := b.log.Names(ctx, b.store)
	if err != nil {
		return nil, err
	}
	for c, err := range b.keeper.History(ctx, b.store, b.Base+1) {
		if err != nil {
			return nil, err
		}
		for _, o := range c.Operations {
			if o.Kind == datastore.ApplySchema && len(o.Schema.Names) > 0 {
				if i := slices.Index(names, o.Schema.Names[0]); i >= 0 {
					names = names[:i]
				}
				return names, nil
			}
		}
	}
	return names, nil
}
