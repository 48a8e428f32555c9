package provisioning

import (
	"context"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/provisioning/scim"
)

// Counts knows how many users and groups stores have: each is counted once, and
// then the history says who came and went. It is safe for concurrent use.
type Counts struct {
	stores *lru.Cache[datastore.StoreID, *tally]
}

// NewCounts makes an empty Counts.
func NewCounts() *Counts {
	stores, _ := lru.New[datastore.StoreID, *tally](10_000) // fails for sizes below one only
	return &Counts{stores}
}

// tally is what a store had at a revision.
type tally struct {
	mu          sync.Mutex
	incarnation datastore.Incarnation
	at          datastore.Revision
	counted     bool
	n           map[datastore.IdentityKind]int
}

// count is how many resources of a kind a view has. Where another request has
// counted a later state meanwhile, it is that of the later one.
func (c *Counts) count(ctx context.Context, v *view, k scim.Kind) (int, error) {
	fresh := &tally{}
	t, found, _ := c.stores.PeekOrAdd(v.Store(), fresh)
	if !found {
		t = fresh
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	head := v.Head()
	if !t.counted || t.incarnation != head.Incarnation || t.follow(ctx, v, head.Revision) != nil {
		if err := t.scan(ctx, v); err != nil {
			return 0, err
		}
		t.counted, t.incarnation, t.at = true, head.Incarnation, head.Revision
	}
	return t.n[kindOf(k)], nil
}

// follow brings a tally up to a revision. An error leaves it useless.
func (t *tally) follow(ctx context.Context, v *view, to datastore.Revision) error {
	if t.at >= to {
		return nil
	}
	t.counted = false
	for change, err := range v.ds.History(ctx, v.Store(), t.at+1) {
		if err != nil {
			return err
		}
		if change.Revision > to {
			break
		}
		for _, o := range change.Operations {
			if o.Kind == datastore.PutIdentity && v.typeOf(kindName(o.Identity.Kind)) == o.Identity.Object.Type {
				t.n[o.Identity.Kind] += present(o.Identity.State) - present(o.Identity.Before)
			}
		}
	}
	t.at, t.counted = to, true
	return nil
}

func present(s datastore.IdentityState) int {
	if s == datastore.Active || s == datastore.Suspended {
		return 1
	}
	return 0
}

// scan counts a view from nothing.
func (t *tally) scan(ctx context.Context, v *view) error {
	t.counted, t.n = false, map[datastore.IdentityKind]int{}
	for _, k := range []scim.Kind{scim.User, scim.Group} {
		if err := v.Identities(ctx, datastore.IdentityQuery{Type: v.typeOf(k)}, func(i datastore.Identity) bool {
			if live(&i, k) {
				t.n[i.Kind]++
			}
			return true
		}); err != nil {
			return err
		}
	}
	return nil
}
