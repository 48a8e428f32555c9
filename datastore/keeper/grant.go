package keeper

import (
	"fmt"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// addGrant grants a role on a store, a type of its objects, or all stores.
func (j *judgement) addGrant(g datastore.Grant) error {
	if err := j.scoped(&g); err != nil {
		return err
	}
	if c := g.Caller; c.Kind == datastore.CallerToken {
		if _, ok := j.state.registry.tokens[c.Name]; !ok {
			return noToken(c.Name)
		}
	}
	if !g.Expires.IsZero() && !g.Expires.After(j.now) {
		return fmt.Errorf("%w: the grant would have ended at %s, and it is %s; give a later time", datastore.ErrInvalid, g.Expires.Format(time.RFC3339), j.now.Format(time.RFC3339))
	}
	r := g.Relationship()
	if old, found := j.state.find(r.Key); found && old.Equal(r) {
		j.nothing = true
		return nil
	}
	return j.update(datastore.Update{Kind: datastore.Touch, Relationship: r})
}

// removeGrant takes a grant back.
func (j *judgement) removeGrant(g datastore.Grant) error {
	if err := j.scoped(&g); err != nil {
		return err
	}
	old, found := j.state.find(g.Relationship().Key)
	if !found {
		return datastore.With(fmt.Errorf("grant of %s to %s on %s: %w; `pemba grant list` shows those there are", g.Role, g.Caller, scopeName(g), datastore.ErrNoGrant), "caller", g.Caller.String())
	}
	j.add(datastore.Operation{Kind: datastore.Delete, Relationship: old})
	return nil
}

func scopeName(g datastore.Grant) string {
	switch {
	case g.Store == "":
		return "all stores"
	case g.Type != "":
		return "the type " + g.Type + " of store " + g.Store
	}
	return "store " + g.Store
}

// scoped checks a grant and gives it the id of its store.
func (j *judgement) scoped(g *datastore.Grant) error {
	if err := g.Check(); err != nil {
		return err
	}
	if g.Store == "" {
		return nil
	}
	s, ok := j.state.registry.stores[g.Store]
	if !ok {
		return noStore(g.Store)
	}
	g.StoreID = s.ID
	return nil
}

// grantTypes makes a token; one that is narrowed to types has no role of its own,
// which a version that knows nothing of types would take for all of the store.
func (j *judgement) grantTypes(t *datastore.Token) error {
	role, types := t.Role, t.Types
	if len(types) > 0 {
		t.Role = ""
	}
	t.Types = nil
	j.add(datastore.Operation{Kind: datastore.CreateToken, Token: t})
	for _, typ := range types {
		g := datastore.Grant{Caller: datastore.Caller{Kind: datastore.CallerToken, Name: t.Name}, Role: role, Store: t.Store, StoreID: t.StoreID, Type: typ}
		if err := g.Check(); err != nil {
			return err
		}
		if err := j.update(datastore.Update{Kind: datastore.Touch, Relationship: g.Relationship()}); err != nil {
			return err
		}
	}
	return nil
}

// revokeToken revokes a token and takes back what was granted to it: another that
// gets its name later has nothing of it.
func (j *judgement) revokeToken(t datastore.Token) {
	j.add(datastore.Operation{Kind: datastore.RevokeToken, Token: &t})
	j.takeBack(grantsOf(t), map[tuple.Key]bool{})
}

func grantsOf(t datastore.Token) tuple.Filter {
	s := datastore.Caller{Kind: datastore.CallerToken, Name: t.Name}.Subject()
	return tuple.Filter{ObjectType: datastore.ScopeType, Subject: tuple.SubjectFilter{Type: s.Type, ID: s.ID}}
}

// takeBack deletes the grants that match, but for those that are gone already.
func (j *judgement) takeBack(f tuple.Filter, gone map[tuple.Key]bool) {
	j.state.match(f, func(r tuple.Relationship) bool {
		if !gone[r.Key] {
			gone[r.Key] = true
			j.add(datastore.Operation{Kind: datastore.Delete, Relationship: r})
		}
		return true
	})
}
