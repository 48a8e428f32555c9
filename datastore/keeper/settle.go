package keeper

import (
	"context"
	"errors"

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
		if err := k.log.CreateLine(ctx, id, newIncarnation()); err != nil {
			return err
		}
		// Another node may have deleted it, and dropped its line, before this one was
		// made. One that deletes it from now on drops this one.
		if known, err = k.registered(ctx, id); err != nil {
			return err
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
