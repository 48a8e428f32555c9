package keeper

import "github.com/pembadb/pemba/datastore"

// followHints catches up as soon as another node's write is heard of, so that
// answers at minimize_latency, and watches, see it within moments. Without hints
// they see it when the staleness bound passes.
func (k *Keeper) followHints(h datastore.Hinter) {
	for id, err := range h.Hints(k.ctx) {
		if err != nil {
			continue // the Log goes on trying, and catching up does without
		}
		for _, s := range k.hinted(id) {
			s.join()
		}
	}
}

// hinted returns the resident stores that a hint means; zero means all.
func (k *Keeper) hinted(id datastore.StoreID) (stores []*store) {
	k.stores.Range(func(_, v any) bool {
		if s := v.(*store); (id == 0 || s.id == id) && s.current.Load() != nil {
			stores = append(stores, s)
		}
		return true
	})
	return stores
}
