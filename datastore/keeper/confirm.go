package keeper

import (
	"context"
	"time"

	"github.com/pembadb/pemba/datastore"
)

// confirmations confirms, every half MaxStaleness and in one read, the states of
// all stores that were asked since the last time, so that questions at
// minimize_latency wait for nothing on a store in use. A store whose head has
// moved catches up.
func (k *Keeper) confirmations(log datastore.HeadsReader) {
	tick := time.NewTicker(max(k.opts.MaxStaleness/2, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			k.confirmAsked(k.ctx, log)
		case <-k.ctx.Done():
			return
		}
	}
}

func (k *Keeper) confirmAsked(ctx context.Context, log datastore.HeadsReader) {
	asked := map[datastore.StoreID]*published{}
	var ids []datastore.StoreID
	k.stores.Range(func(_, v any) bool {
		s := v.(*store)
		if p := s.current.Load(); p != nil && s.asked.Swap(false) {
			asked[s.id], ids = p, append(ids, s.id)
		}
		return true
	})
	if len(ids) == 0 {
		return
	}
	begun := sinceStart()
	ctx, cancel := context.WithTimeout(ctx, k.opts.MaxStaleness)
	defer cancel()
	heads, err := log.Heads(ctx, ids)
	if err != nil {
		return // each store's next question tries for itself
	}
	for id, p := range asked {
		h, ok := heads[id]
		if ok && h.Incarnation == p.head.Incarnation && h.Revision == p.head.Revision && h.Hash == p.head.Hash {
			p.confirm(begun)
		} else if v, ok := k.stores.Load(id); ok {
			v.(*store).join()
		}
	}
}
