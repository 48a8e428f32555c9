package provisioning

import (
	"context"
	"fmt"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/provisioning/scim"
	"github.com/pembadb/pemba/tuple"
)

// newest is the newest version of a user or group at a view, whatever its state;
// [datastore.ErrNoIdentity] if there never was one.
func (v *view) newest(ctx context.Context, k scim.Kind, id string) (found datastore.Identity, err error) {
	o, err := v.checked(k, id)
	if err != nil {
		return found, err
	}
	found.Object = o
	err = v.Identities(ctx, datastore.IdentityQuery{Objects: []tuple.Object{o}}, func(i datastore.Identity) bool {
		found = i
		return true
	})
	if err == nil && found.Kind != kindOf(k) {
		err = noIdentity(o)
	}
	return found, err
}

// current is a user or group as it is at the head, and the head's zookie.
func (d *Directory) current(ctx context.Context, k scim.Kind, id string) (datastore.Identity, string, error) {
	v, err := d.view(ctx)
	if err != nil {
		return datastore.Identity{}, "", err
	}
	defer v.Close()
	i, err := v.newest(ctx, k, id)
	return i, v.Zookie(), err
}

// Set brings a user or group into a state and returns the zookie since which it is. Where
// it is in that state already nothing is written. A removed one cannot be brought
// into another. Who is removed loses its memberships in the same change.
func (d *Directory) Set(ctx context.Context, k scim.Kind, id string, state datastore.IdentityState, requestID string) (zookie string, err error) {
	err = d.again(0, func() error {
		zookie, err = d.set(ctx, k, id, state, requestID)
		return err
	})
	return zookie, err
}

func (d *Directory) set(ctx context.Context, k scim.Kind, id string, state datastore.IdentityState, requestID string) (string, error) {
	v, err := d.view(ctx)
	if err != nil {
		return "", err
	}
	defer v.Close()
	now, err := v.newest(ctx, k, id)
	switch {
	case err != nil:
		return "", err
	case now.State == state:
		return v.Zookie(), nil
	case now.State == datastore.Removed:
		return "", datastore.With(fmt.Errorf("%s: %w: it was removed; create it again", now.Object, datastore.ErrNoIdentity), "object", now.Object.String())
	}
	r := d.request(requestID)
	if state == datastore.Removed {
		r = v.removal(r, k, &now)
	} else {
		u, err := v.restated(k, &now, state)
		if err != nil {
			return "", err
		}
		r.Identities = []datastore.IdentityUpdate{u}
	}
	out, err := d.write(ctx, r)
	return out.Zookie, err
}

// restated is a user or group with its attributes in another state.
func (s shape) restated(k scim.Kind, now *datastore.Identity, state datastore.IdentityState) (datastore.IdentityUpdate, error) {
	r, err := resource(now, k)
	if err != nil {
		return datastore.IdentityUpdate{}, err
	}
	r.Modified = time.Now().UTC()
	delete(r.Attributes, "active")
	u, err := s.identity(r, state)
	u.Expected = &now.Revision
	return u, err
}

// Erase destroys the attributes of a removed user or group, of all times.
func (d *Directory) Erase(ctx context.Context, k scim.Kind, id, requestID string) (zookie string, err error) {
	now, _, err := d.current(ctx, k, id)
	if err != nil {
		return "", err
	}
	r := d.request(requestID)
	r.Erase = &now.Object
	out, err := d.write(ctx, r)
	return out.Zookie, err
}
