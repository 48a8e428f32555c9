package provisioning

import (
	"context"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/provisioning/scim"
)

// View is the directory of a store at one revision.
type View struct{ scim scimView }

// ViewOf is the directory of a snapshot, which stays the caller's to close.
func ViewOf(s datastore.Snapshot) View {
	d := Directory{Store: s.Store()}
	return View{scimView{d.viewOf(s)}}
}

// Get returns a user or group in its newest version, whatever its state;
// ErrNoIdentity if there never was one, and of a group also once it was removed.
func (v View) Get(ctx context.Context, k scim.Kind, id string) (*scim.Resource, datastore.IdentityState, error) {
	i, err := v.scim.newest(ctx, k, id)
	if err != nil {
		return nil, 0, err
	}
	if i.State == datastore.Removed {
		if k == scim.Group {
			return nil, i.State, noIdentity(i.Object)
		}
		return &scim.Resource{Kind: k, ID: id, Version: versionOf(i.Revision)}, i.State, nil
	}
	r, err := resource(&i, k)
	return r, i.State, err
}

// Find calls f for the users or groups that a filter matches (nil: all), in the
// order of their ids' bytes, those after an id, until f returns false.
func (v View) Find(ctx context.Context, k scim.Kind, filter *scim.Filter, after string, f func(*scim.Resource) bool) error {
	return scim.Find(ctx, v.scim, k, filter, after, f)
}

// Members returns up to limit direct members of a group that is there: groups and
// users, each in the order of their ids, those after a member (nil: from the
// first). Fewer tell that there are no more.
func (v View) Members(ctx context.Context, group string, after *scim.Member, limit int) ([]scim.Member, error) {
	if after == nil {
		if _, err := v.scim.identity(ctx, scim.Group, group); err != nil {
			return nil, err
		}
	}
	return v.scim.view.Members(ctx, group, after, limit)
}
