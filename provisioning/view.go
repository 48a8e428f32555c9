package provisioning

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/provisioning/scim"
	"github.com/pembadb/pemba/tuple"
)

// view is a store at one revision as a directory.
type view struct {
	datastore.Snapshot
	shape
	counts *Counts
	ds     datastore.Datastore
	now    time.Time
}

// Version is as of [scim.View].
func (v *view) Version() string {
	h := v.Head()
	return fmt.Sprintf("%x.%d", h.Incarnation, h.Revision)
}

// identity is the newest version of a user or group that is not removed;
// [datastore.ErrNoIdentity] if there is none.
func (v *view) identity(ctx context.Context, k scim.Kind, id string) (*datastore.Identity, error) {
	o, err := v.checked(k, id)
	if err != nil {
		return nil, fmt.Errorf("%s %.200q: %w", nounOf(k), id, datastore.ErrNoIdentity)
	}
	var found *datastore.Identity
	err = v.Identities(ctx, datastore.IdentityQuery{Objects: []tuple.Object{o}}, func(i datastore.Identity) bool {
		if live(&i, k) {
			found = &i
		}
		return false
	})
	if err == nil && found == nil {
		err = noIdentity(o)
	}
	return found, err
}

func noIdentity(o tuple.Object) error {
	return datastore.With(fmt.Errorf("%s: %w", o, datastore.ErrNoIdentity), "object", o.String())
}

// Get is as of [scim.View].
func (v *view) Get(ctx context.Context, k scim.Kind, id string) (*scim.Resource, error) {
	i, err := v.identity(ctx, k, id)
	if err != nil {
		return nil, err
	}
	return resource(i, k)
}

// List is as of [scim.View].
func (v *view) List(ctx context.Context, q scim.Query) ([]*scim.Resource, error) {
	if q.Key != nil && q.Key.Attribute == "members.value" {
		return v.groupsWith(ctx, q)
	}
	ask := datastore.IdentityQuery{Type: v.typeOf(q.Kind), After: q.After}
	if q.Key != nil {
		k := key(q.Key.Attribute, q.Key.Value)
		if k.Value == "" || strings.ContainsRune(k.Value, 0) {
			return nil, nil
		}
		ask.Key = &k
	}
	var list []*scim.Resource
	for {
		ask.Limit = max(q.Limit-len(list), 1)
		seen := 0
		var failed error
		err := v.Identities(ctx, ask, func(i datastore.Identity) bool {
			seen++
			ask.After = i.Object.ID
			if live(&i, q.Kind) {
				var r *scim.Resource
				r, failed = resource(&i, q.Kind)
				list = append(list, r)
			}
			return failed == nil
		})
		switch {
		case err != nil || failed != nil:
			return nil, firstOf(err, failed)
		case seen < ask.Limit || len(list) >= q.Limit:
			return list, nil
		}
	}
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// groupsWith lists groups that somebody is a direct member of.
func (v *view) groupsWith(ctx context.Context, q scim.Query) ([]*scim.Resource, error) {
	var list []*scim.Resource
	for after := q.After; ; {
		groups, err := v.groupsPage(ctx, q.Key.Value, after, q.Limit-len(list))
		if err != nil {
			return nil, err
		}
		if len(groups) == 0 {
			return list, nil
		}
		after = groups[len(groups)-1].ID
		var failed error
		err = v.Identities(ctx, datastore.IdentityQuery{Objects: groups}, func(i datastore.Identity) bool {
			if live(&i, scim.Group) {
				var r *scim.Resource
				r, failed = resource(&i, scim.Group)
				list = append(list, r)
			}
			return failed == nil
		})
		if err = firstOf(err, failed); err != nil || len(list) >= q.Limit {
			return list, err
		}
	}
}

// groupsPage gives, in order, the next groups that have a user or a group with an
// id as a member, provisioned or not.
func (v *view) groupsPage(ctx context.Context, id, after string, limit int) ([]tuple.Object, error) {
	found := map[scim.Kind][]tuple.Object{}
	for _, k := range []scim.Kind{scim.User, scim.Group} {
		if _, err := v.checked(k, id); err != nil {
			return nil, nil
		}
		q := datastore.RowQuery{Filter: v.shape.groupsOf(k, id), BySubject: true, Limit: limit}
		if after != "" {
			q.After = &tuple.Key{Object: v.objectOf(scim.Group, after), Relation: v.Member, Subject: v.subjectOf(k, id)}
		}
		if err := v.Rows(ctx, q, v.now, func(r datastore.Row) bool {
			found[k] = append(found[k], r.Object)
			return true
		}); err != nil {
			return nil, err
		}
	}
	return merged(found[scim.User], found[scim.Group], limit), nil
}

// merged joins two ordered lists into one of at most limit, each object once.
func merged(a, b []tuple.Object, limit int) (list []tuple.Object) {
	for len(list) < limit && len(a)+len(b) > 0 {
		from := &a
		if len(a) == 0 || len(b) > 0 && b[0].Compare(a[0]) < 0 {
			from = &b
		}
		if o := (*from)[0]; len(list) == 0 || list[len(list)-1] != o {
			list = append(list, o)
		}
		*from = (*from)[1:]
	}
	return list
}

// Count is as of [scim.View].
func (v *view) Count(ctx context.Context, k scim.Kind) (int, error) {
	n, err := v.counts.count(ctx, v, k)
	return n, err
}

// Members is as of [scim.View]: groups, then users, each in the order of their
// ids.
func (v *view) Members(ctx context.Context, group string, after *scim.Member, limit int) ([]scim.Member, error) {
	q := datastore.RowQuery{Filter: v.membersOf(group)}
	if after != nil {
		q.After = &tuple.Key{Object: v.objectOf(scim.Group, group), Relation: v.Member, Subject: v.subjectOf(after.Kind, after.ID)}
	}
	var list []scim.Member
	if err := v.Rows(ctx, q, v.now, func(r datastore.Row) bool {
		if m, ok := v.memberOf(r.Subject); ok {
			list = append(list, m)
		}
		return len(list) < limit
	}); err != nil {
		return nil, err
	}
	return list, v.name(ctx, list)
}

// name gives members the names that they have.
func (v *view) name(ctx context.Context, list []scim.Member) error {
	if len(list) == 0 {
		return nil
	}
	objects := make([]tuple.Object, len(list))
	for n, m := range list {
		objects[n] = v.objectOf(m.Kind, m.ID)
	}
	names := map[tuple.Object]string{}
	err := v.Identities(ctx, datastore.IdentityQuery{Objects: objects}, func(i datastore.Identity) bool {
		if r, err := resource(&i, scim.User); err == nil {
			for _, attribute := range []string{"userName", "displayName"} {
				if s, _ := r.Attributes[attribute].(string); s != "" {
					names[i.Object] = s
				}
			}
		}
		return true
	})
	for n, o := range objects {
		list[n].Display = names[o]
	}
	return err
}

// HasMember is as of [scim.View].
func (v *view) HasMember(ctx context.Context, group, id string) (bool, error) {
	if _, err := v.checked(scim.User, id); err != nil {
		return false, nil
	}
	for _, k := range []scim.Kind{scim.User, scim.Group} {
		if found, err := v.hasMember(ctx, group, scim.Member{Kind: k, ID: id}); found || err != nil {
			return found, err
		}
	}
	return false, nil
}

func (v *view) hasMember(ctx context.Context, group string, m scim.Member) (found bool, err error) {
	f := v.shape.groupsOf(m.Kind, m.ID)
	f.ObjectID = group
	err = v.Rows(ctx, datastore.RowQuery{Filter: f, Limit: 1}, v.now, func(datastore.Row) bool {
		found = true
		return false
	})
	return found, err
}
