package keeper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// registry is what the history of the store system says of stores and tokens. Grants
// are its relationships.
type registry struct {
	stores  map[string]datastore.Store
	tokens  map[string]datastore.Token
	byHash  map[[32]byte]string // the tokens' names
	lastID  datastore.StoreID
	guarded bool // a token or grant was made once, whether it is still in force or not
}

func newRegistry() *registry {
	return &registry{stores: map[string]datastore.Store{}, tokens: map[string]datastore.Token{}, byHash: map[[32]byte]string{}, lastID: datastore.System}
}

func (r *registry) copy() *registry {
	return &registry{stores: maps.Clone(r.stores), tokens: maps.Clone(r.tokens), byHash: maps.Clone(r.byHash), lastID: r.lastID, guarded: r.guarded}
}

func (r *registry) apply(o datastore.Operation) {
	switch o.Kind {
	case datastore.CreateStore:
		r.stores[o.Store.Name] = *o.Store
		if !isRestored(o.Store.ID) {
			r.lastID = max(r.lastID, o.Store.ID)
		}
	case datastore.DeleteStore:
		delete(r.stores, o.Store.Name)
	case datastore.CreateToken:
		r.guarded = true
		r.forget(o.Token.Name)
		r.tokens[o.Token.Name], r.byHash[o.Token.Hash] = *o.Token, o.Token.Name
		if o.Token.Older != [32]byte{} {
			r.byHash[o.Token.Older] = o.Token.Name
		}
	case datastore.RevokeToken:
		r.forget(o.Token.Name)
	case datastore.Create, datastore.Touch: // a grant
		r.guarded = true
	}
}

// forget takes a token away, with its secrets.
func (r *registry) forget(name string) {
	delete(r.byHash, r.tokens[name].Hash)
	delete(r.byHash, r.tokens[name].Older)
	delete(r.tokens, name)
}

// noStore is the error of a store's name that no store has.
func noStore(name string) error {
	name = strings.ToValidUTF8(name, "?")
	return datastore.With(fmt.Errorf("store %q: %w; make it with `pemba store create %s`", name, datastore.ErrNoStore, name), "store", name)
}

func (j *judgement) registry(r *datastore.Request) error {
	reg := j.state.registry
	switch {
	case r.CreateStore != nil:
		name := r.CreateStore.Name
		if err := datastore.CheckName("store", name); err != nil {
			return err
		}
		if name == "system" {
			return datastore.With(fmt.Errorf("%w: the store name system is reserved", datastore.ErrName), "store", name)
		}
		old, exists := reg.stores[name]
		if r.Restored {
			return j.restored(r, old)
		}
		if exists {
			return datastore.With(fmt.Errorf("store %q: %w", name, datastore.ErrAlreadyExists), "store", name)
		}
		j.add(datastore.Operation{Kind: datastore.CreateStore, Store: &datastore.Store{ID: reg.lastID + 1, Name: name, Created: j.now}})
	case r.DeleteStore != "":
		s, ok := reg.stores[r.DeleteStore]
		if r.DeleteStore == "default" || r.DeleteStore == "system" {
			return datastore.With(fmt.Errorf("%w: the store %q always exists and cannot be deleted", datastore.ErrProtected, r.DeleteStore), "store", r.DeleteStore)
		}
		if !ok {
			return noStore(r.DeleteStore)
		}
		j.deleteStore(s)
	case r.CreateToken != nil:
		return j.createToken(*r.CreateToken, r.Actor)
	case r.RevokeToken != "":
		t, ok := reg.tokens[r.RevokeToken]
		if !ok {
			return noToken(r.RevokeToken)
		}
		j.revokeToken(t)
	case r.RotateToken != nil:
		return j.rotateToken(r.RotateToken, r.Actor)
	case r.AddGrant != nil:
		return j.addGrant(*r.AddGrant)
	case r.RemoveGrant != nil:
		return j.removeGrant(*r.RemoveGrant)
	}
	return nil
}

func noToken(name string) error {
	return datastore.With(fmt.Errorf("token %q: %w; `pemba token list` shows those there are", name, datastore.ErrNotFound), "token", name)
}

// rotateToken gives a token another secret.
func (j *judgement) rotateToken(r *datastore.Rotation, actor string) error {
	t, ok := j.state.registry.tokens[r.Name]
	if !ok {
		return noToken(r.Name)
	}
	t.Older, t.OlderUntil = t.Hash, j.now.Add(r.Overlap)
	t.Hash, t.Created, t.Actor = r.Hash, j.now, actor
	if r.Expires != nil {
		t.Expires = *r.Expires
	}
	if err := j.expires(&t); err != nil {
		return err
	}
	j.add(datastore.Operation{Kind: datastore.CreateToken, Token: &t})
	return nil
}

// expires refuses a token that would have ended already.
func (j *judgement) expires(t *datastore.Token) error {
	if t.Expires.IsZero() || t.Expires.After(j.now) {
		return nil
	}
	return datastore.With(fmt.Errorf("%w: token %q would have expired at %s, and it is %s; give a later time", datastore.ErrName, t.Name, t.Expires.Format(time.RFC3339), j.now.Format(time.RFC3339)), "token", t.Name)
}

// deleteStore deletes a store, revokes its tokens, and takes back what was granted
// on it.
func (j *judgement) deleteStore(s datastore.Store) {
	j.add(datastore.Operation{Kind: datastore.DeleteStore, Store: &s})
	scope := datastore.Grant{StoreID: s.ID}.Scope()
	gone := map[tuple.Key]bool{}
	j.takeBack(tuple.Filter{ObjectType: scope.Type, ObjectID: scope.ID}, gone)
	j.takeBack(tuple.Filter{ObjectType: scope.Type, ObjectIDPrefix: scope.ID + "/"}, gone)
	for _, t := range sortedBy(j.state.registry.tokens, func(t datastore.Token) string { return t.Name }) {
		if t.StoreID == s.ID {
			j.add(datastore.Operation{Kind: datastore.RevokeToken, Token: &t})
			j.takeBack(grantsOf(t), gone)
		}
	}
}

// restored makes a line that is there already a store, in place of the empty one
// that has its name, if there is one.
func (j *judgement) restored(r *datastore.Request, old datastore.Store) error {
	st := *r.CreateStore
	if old.ID != r.Replaces {
		return restoredOver(st.Name)
	}
	for _, s := range j.state.registry.stores {
		if s.ID == st.ID || !isRestored(st.ID) {
			return fmt.Errorf("%w: a restored store cannot have the id %d", datastore.ErrInvalid, st.ID)
		}
	}
	if old.ID != 0 {
		j.deleteStore(old)
	}
	st.Created = j.now
	j.add(datastore.Operation{Kind: datastore.CreateStore, Store: &st})
	return nil
}

// reservedNames are actors of the history that no token can be taken for.
var reservedNames = map[string]string{
	"pemba":     "what Pemba does by itself",
	"admin":     "the server's own token",
	"anonymous": "callers without a token",
}

func (j *judgement) createToken(t datastore.Token, actor string) error {
	reg := j.state.registry
	if err := datastore.CheckName("token", t.Name); err != nil {
		return err
	}
	if who, reserved := reservedNames[t.Name]; reserved {
		return datastore.With(fmt.Errorf("%w: the token name %s is reserved for %s; choose another", datastore.ErrName, t.Name, who), "token", t.Name)
	}
	if _, ok := reg.tokens[t.Name]; ok {
		return datastore.With(fmt.Errorf("token %q: %w; revoke it first, or choose another name", t.Name, datastore.ErrAlreadyExists), "token", t.Name)
	}
	if t.Store != "" {
		s, ok := reg.stores[t.Store]
		if !ok {
			return noStore(t.Store)
		}
		t.StoreID = s.ID
	}
	t.Created, t.Actor = j.now, actor
	if err := j.expires(&t); err != nil {
		return err
	}
	return j.grantTypes(&t)
}

// Guarded reports whether a token or a grant was ever made in a Log that no Keeper
// has opened yet; nothing is written.
func Guarded(ctx context.Context, log datastore.Log) (bool, error) {
	const page = 1000
	for from := datastore.Revision(0); ; {
		head, entries, err := log.After(ctx, datastore.System, from, page)
		if errors.Is(err, datastore.ErrNoStore) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		for _, e := range entries {
			c, err := datastore.Open(e)
			if err != nil {
				return false, err
			}
			for _, o := range c.Operations {
				if o.Kind == datastore.CreateToken || o.Kind == datastore.Create || o.Kind == datastore.Touch {
					return true, nil
				}
			}
			from = e.Revision
		}
		if len(entries) == 0 || from >= head.Revision {
			return false, nil
		}
	}
}
