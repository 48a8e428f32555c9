package keeper_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
)

// unwilling is a Log that makes and drops no lines while it does not want to.
type unwilling struct {
	datastore.Log
	broken bool
}

var errUnwilling = errors.New("not now")

func (l *unwilling) CreateLine(ctx context.Context, store datastore.StoreID, incarnation datastore.Incarnation) error {
	if l.broken {
		return errUnwilling
	}
	return l.Log.CreateLine(ctx, store, incarnation)
}

func (l *unwilling) DropLine(ctx context.Context, store datastore.StoreID) error {
	if l.broken {
		return errUnwilling
	}
	return l.Log.DropLine(ctx, store)
}

func making(id, name string) datastore.Request {
	return datastore.Request{ID: id, CreateStore: &datastore.Store{Name: name}}
}

// A store whose line could not be made is of use as soon as the Log recovers,
// whatever it is asked first.
func TestAStoreWhoseLineCouldNotBeMadeHeals(t *testing.T) {
	for name, use := range map[string]func(*keeper.Keeper, datastore.StoreID) error{
		"at": func(k *keeper.Keeper, id datastore.StoreID) error {
			_, err := k.At(bg, id, datastore.Consistency{})
			return err
		},
		"head":   func(k *keeper.Keeper, id datastore.StoreID) error { _, err := k.Head(bg, id); return err },
		"oldest": func(k *keeper.Keeper, id datastore.StoreID) error { _, err := k.Oldest(bg, id); return err },
		"verify": func(k *keeper.Keeper, id datastore.StoreID) error { _, err := k.Verify(bg, id, nil); return err },
		"write": func(k *keeper.Keeper, id datastore.StoreID) error {
			_, err := k.Write(bg, id, applying(testSchema))
			return err
		},
		"history": func(k *keeper.Keeper, id datastore.StoreID) error {
			for _, err := range k.History(bg, id, 1) {
				return err
			}
			return nil
		},
		"the same request again": func(k *keeper.Keeper, _ datastore.StoreID) error {
			_, err := k.Write(bg, datastore.System, making("make", "shop"))
			return err
		},
		"upkeep": func(k *keeper.Keeper, id datastore.StoreID) error { return k.Tidy(bg) },
	} {
		t.Run(name, func(t *testing.T) {
			log := &unwilling{Log: memory.New()}
			k := open(t, log, keeper.Options{SweepEvery: time.Hour})
			log.broken = true
			if _, err := k.Write(bg, datastore.System, making("make", "shop")); !errors.Is(err, errUnwilling) {
				t.Fatalf("a store whose line cannot be made: %v", err)
			}
			s, err := k.StoreByName(bg, "shop")
			if err != nil {
				t.Fatal(err)
			}
			if err := use(k, s.ID); err == nil && name != "upkeep" {
				t.Error("it is of use while its line cannot be made")
			}
			log.broken = false
			if err := use(k, s.ID); err != nil {
				t.Errorf("after that: %v", err)
			}
			if _, err := log.Head(bg, s.ID); err != nil {
				t.Errorf("its line: %v", err)
			}
		})
	}
}

// No line is left of a deleted store: not if it could not be dropped at first,
// and not if the request that made the store is repeated.
func TestNoLineIsLeftOfADeletedStore(t *testing.T) {
	log := &unwilling{Log: memory.New()}
	k := open(t, log, keeper.Options{SweepEvery: time.Hour})
	o := writeTo(t, k, datastore.System, making("make", "shop"))
	left := func() bool {
		lines, err := log.Lines(bg)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(lines, o.Store.ID)
	}
	log.broken = true
	if _, err := k.Write(bg, datastore.System, datastore.Request{DeleteStore: "shop"}); !errors.Is(err, errUnwilling) || !left() {
		t.Fatalf("a line that cannot be dropped: %v", err)
	}
	log.broken = false
	if err := k.Tidy(bg); err != nil || left() {
		t.Errorf("after upkeep it is left: %t, %v", left(), err)
	}
	if again := writeTo(t, k, datastore.System, making("make", "shop")); !again.Repeated || left() {
		t.Errorf("after the request that made it comes again, a line is left: %t", left())
	}
	if _, err := k.At(bg, o.Store.ID, datastore.Consistency{}); !errors.Is(err, datastore.ErrNoStore) || left() {
		t.Errorf("a question to it: %v", err)
	}
}
