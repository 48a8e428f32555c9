package provisioning

import (
	"context"
	"fmt"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/provisioning/scim"
	"github.com/pembadb/pemba/tuple"
)

// cut leaves as many updates in a request as one change holds, and returns the
// others.
func cut(r *datastore.Request) []datastore.Update {
	n := min(len(r.Updates), maxUpdates)
	rest := r.Updates[n:]
	r.Updates = r.Updates[:n:n]
	return rest
}

// rest writes the members that the first change of a group had no room for, and
// with the last of them another version of the group.
func (d *Directory) rest(ctx context.Context, s shape, group *scim.Resource, state datastore.IdentityState, updates []datastore.Update) (out datastore.Outcome, err error) {
	for len(updates) > 0 {
		r := d.request("")
		r.Updates = updates
		if updates = cut(&r); len(updates) == 0 {
			group.Modified = time.Now().UTC()
			u, err := s.identity(group, state)
			if err != nil {
				return out, err
			}
			r.Identities = []datastore.IdentityUpdate{u}
		}
		if out, err = d.Datastore.Write(ctx, d.Store, r); err != nil {
			return out, err
		}
	}
	return out, nil
}

// lookedUp is how many members are looked up at once.
const lookedUp = 1000

// additions are the updates by which members come to a group. Each must be a user
// or a group of the store.
func (v *view) additions(ctx context.Context, group string, members []scim.Member) ([]datastore.Update, error) {
	var updates []datastore.Update
	seen := map[scim.Member]bool{}
	for len(members) > 0 {
		page := members[:min(len(members), lookedUp)]
		members = members[len(page):]
		known, err := v.known(ctx, page)
		if err != nil {
			return nil, err
		}
		for _, m := range page {
			switch {
			case m.Kind == "" && known[v.objectOf(scim.User, m.ID)]:
				m.Kind = scim.User
			case m.Kind == "":
				m.Kind = scim.Group
			}
			if !known[v.objectOf(m.Kind, m.ID)] {
				return nil, datastore.With(fmt.Errorf("there is no user or group %.200q %w", m.ID, ErrNoMember), "id", m.ID)
			}
			if m.Display = ""; !seen[m] {
				seen[m] = true
				updates = append(updates, v.membership(datastore.Touch, group, m))
			}
		}
	}
	return updates, nil
}

// known are the users and groups among those that members may stand for.
func (v *view) known(ctx context.Context, members []scim.Member) (map[tuple.Object]bool, error) {
	var objects []tuple.Object
	for _, m := range members {
		for _, k := range []scim.Kind{scim.User, scim.Group} {
			if o, err := v.checked(k, m.ID); err == nil && (m.Kind == "" || m.Kind == k) {
				objects = append(objects, o)
			}
		}
	}
	found := map[tuple.Object]bool{}
	if len(objects) == 0 {
		return found, nil
	}
	err := v.Identities(ctx, datastore.IdentityQuery{Objects: objects}, func(i datastore.Identity) bool {
		found[i.Object] = i.State == datastore.Active || i.State == datastore.Suspended
		return true
	})
	return found, err
}

// updates are those by which members go and come.
func (v *view) updates(ctx context.Context, group string, c *scim.MemberChange) ([]datastore.Update, error) {
	if c == nil {
		return nil, nil
	}
	added, err := v.additions(ctx, group, c.Add)
	if err != nil {
		return nil, err
	}
	coming := make(map[tuple.Subject]bool, len(added))
	for _, u := range added {
		coming[u.Relationship.Subject] = true
	}
	var updates []datastore.Update
	gone := map[tuple.Subject]bool{}
	going := func(m scim.Member) {
		for _, k := range []scim.Kind{scim.User, scim.Group} {
			s := v.subjectOf(k, m.ID)
			if (m.Kind == "" || m.Kind == k) && s.Object.Check() == nil && !coming[s] && !gone[s] {
				gone[s] = true
				updates = append(updates, v.membership(datastore.Delete, group, scim.Member{ID: m.ID, Kind: k}))
			}
		}
	}
	if !c.Replace {
		for _, m := range c.Remove {
			going(m)
		}
		return append(updates, added...), nil
	}
	staying := map[tuple.Subject]bool{}
	if err := v.Rows(ctx, datastore.RowQuery{Filter: v.membersOf(group)}, v.now, func(r datastore.Row) bool {
		if m, ok := v.memberOf(r.Subject); ok {
			going(m)
			staying[r.Subject] = coming[r.Subject] && r.Relationship == tuple.Relationship{Key: r.Key}
		}
		return true
	}); err != nil {
		return nil, err
	}
	for _, u := range added {
		if !staying[u.Relationship.Subject] {
			updates = append(updates, u)
		}
	}
	return updates, nil
}

// Join adds members to a group and takes others away, each where it is not so
// already: where nothing changes nothing is written.
func (d *Directory) Join(ctx context.Context, group string, add, remove []scim.Member, requestID string) (w Written, err error) {
	err = d.again(0, func() error {
		v, err := d.view(ctx)
		if err != nil {
			return err
		}
		defer v.Close()
		c := &scim.MemberChange{}
		if c.Add, err = v.with(ctx, group, add, false); err != nil {
			return err
		}
		if c.Remove, err = v.with(ctx, group, remove, true); err != nil {
			return err
		}
		w, err = d.update(ctx, scim.Group, group, Change{Members: c, RequestID: requestID})
		return err
	})
	return w, err
}

// with are those of some who are members of a group, or those who are not.
func (v *view) with(ctx context.Context, group string, members []scim.Member, are bool) (list []scim.Member, err error) {
	for _, m := range members {
		if _, err := v.checked(m.Kind, m.ID); err != nil {
			return nil, err
		}
		is, err := v.hasMember(ctx, group, m)
		if err != nil {
			return nil, err
		}
		if is == are {
			list = append(list, m)
		}
	}
	return list, nil
}
