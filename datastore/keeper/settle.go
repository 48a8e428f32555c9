package keeper

import (
	"context"
	"errors"
	"fmt"

	"github.com/pembadb/pemba/datastore"
)

// settle sees to it that the Log has a line of history for a store if, and only
// if, the registry has the store. What does not succeed is tried again by Tidy,
// and when the store is next asked.
func (k *Keeper) settle(ctx context.Context, id datastore.StoreID) error {
	k.unsettled.Store(id, true)
	known, err := k.registered(ctx, id)
	if err != nil {
		return err
	}
	if known {
		missing := k.makeLine(ctx, id)
		if missing != nil && !errors.Is(missing, datastore.ErrNoStore) {
			return missing
		}
		// Another node may have deleted it, and dropped its line, before this one was
		// made. One that deletes it from now on drops this one.
		if known, err = k.registered(ctx, id); err != nil {
			return err
		}
		if known && missing != nil {
			return fmt.Errorf("%w: the history of the restored store %d is gone: %w", datastore.ErrCorrupt, id, missing)
		}
	}
	if !known {
		k.forget(id)
		if err := k.log.DropLine(ctx, id); err != nil {
			return err
		}
	}
	k.unsettled.Delete(id)
	return nil
}

// makeLine makes the line of a store, unless it is there. That of a restored store
// was there before the registry knew it: ErrNoStore if it is gone, for an empty one
// in its place would hide that.
func (k *Keeper) makeLine(ctx context.Context, id datastore.StoreID) error {
	if isRestored(id) {
		_, err := k.log.Head(ctx, id)
		return err
	}
	return k.log.CreateLine(ctx, id, newIncarnation())
}

// settleAll settles what could not be settled before.
func (k *Keeper) settleAll(ctx context.Context) (err error) {
	k.unsettled.Range(func(id, _ any) bool {
		err = errors.Join(err, k.settle(ctx, id.(datastore.StoreID)))
		return ctx.Err() == nil
	})
	return err
}

// registered reports whether the registry has a store, at its head.
func (k *Keeper) registered(ctx context.Context, id datastore.StoreID) (bool, error) {
	system, err := k.state(ctx, datastore.System)
	if err != nil {
		return false, err
	}
	for _, s := range system.registry.stores {
		if s.ID == id {
			return true, nil
		}
	}
	return false, nil
}

// settled runs f, and again if the store's line of history was missing and could
// be made: the node that made the store may have failed before it made that.
func (k *Keeper) settled(ctx context.Context, id datastore.StoreID, f func() error) error {
	err := f()
	if id == datastore.System || !errors.Is(err, datastore.ErrNoStore) {
		return err
	}
	if known, failed := k.registered(ctx, id); failed != nil || !known {
		return errors.Join(err, failed)
	}
	if err := k.settle(ctx, id); err != nil {
		return err
	}
	return f()
}
