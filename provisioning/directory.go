package provisioning

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/provisioning/scim"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// Directory is the users and groups of a store. It implements [scim.Directory].
type Directory struct {
	Datastore datastore.Datastore
	Store     datastore.StoreID
	Actor     string // who changes it, in the history
	Counts    *Counts
}

const reason = "SCIM"

// told is an error as clients of SCIM are told it.
func told(err error) error {
	var mine *scim.Error
	var noun *tuple.Error
	is := func(kinds ...error) bool {
		for _, k := range kinds {
			if errors.Is(err, k) {
				return true
			}
		}
		return false
	}
	switch {
	case err == nil || errors.As(err, &mine):
		return err
	case is(datastore.ErrAlreadyExists):
		return scim.Duplicate("%v", err)
	case is(datastore.ErrTooLarge):
		return &scim.Error{Status: http.StatusRequestEntityTooLarge, Detail: err.Error()}
	case is(datastore.ErrUnavailable, datastore.ErrAmbiguous, datastore.ErrClosed, datastore.ErrOverloaded, datastore.ErrFull, datastore.ErrUnknownOperation):
		return &scim.Error{Status: http.StatusServiceUnavailable, Detail: err.Error()}
	case is(datastore.ErrInvalid, datastore.ErrNoSchema, datastore.ErrSchema, schema.ErrUnknownType, schema.ErrUnknownRelation, schema.ErrPermission, schema.ErrSubjectNotAllowed), errors.As(err, &noun):
		return scim.Invalid("%v", err)
	}
	return err
}

// View implements [scim.Directory].
func (d *Directory) View(ctx context.Context) (scim.View, error) {
	v, err := d.view(ctx)
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (d *Directory) view(ctx context.Context) (*view, error) {
	s, err := d.Datastore.At(ctx, d.Store, datastore.Consistency{Level: datastore.FullyConsistent})
	if err != nil {
		return nil, told(err)
	}
	return &view{Snapshot: s, counts: d.Counts, ds: d.Datastore, now: time.Now()}, nil
}

// MaxCreated is how many resources one call of Create makes. While a change is
// judged the head of the store is held, and each resource asks a database whether
// it and its keys are free: more would keep others waiting for too long.
const MaxCreated = 50

// maxUpdates bounds the updates of one change, well below the operations that one
// may hold by default.
const maxUpdates = 500

// Create implements [scim.Directory]. What becomes one change is all there or not
// at all; a group with more members than one change holds is removed again if not
// all of them can be added.
func (d *Directory) Create(ctx context.Context, k scim.Kind, drafts []scim.Draft) ([]*scim.Resource, error) {
	v, err := d.view(ctx)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	r := datastore.Request{Actor: d.Actor, Reason: reason}
	made := make([]*scim.Resource, len(drafts))
	now := time.Now().UTC()
	for n, draft := range drafts {
		made[n] = &scim.Resource{Kind: k, ID: newID(), Created: now, Modified: now, Attributes: withActive(k, draft.Attributes, true)}
		u, err := identity(made[n])
		if err != nil {
			return nil, told(err)
		}
		u.Expected = new(datastore.Revision)
		r.Identities = append(r.Identities, u)
		added, err := v.additions(ctx, made[n].ID, draft.Members)
		if err != nil {
			return nil, err
		}
		r.Updates = append(r.Updates, added...)
	}
	if len(drafts) > 1 && (len(r.Updates) > maxUpdates || len(drafts) > MaxCreated) {
		return nil, &scim.Error{Status: http.StatusRequestEntityTooLarge, Detail: "too much is created at once; send several requests"}
	}
	rest := cut(&r)
	out, err := d.Datastore.Write(ctx, d.Store, r)
	if err != nil {
		return nil, told(err)
	}
	if len(rest) > 0 {
		if out, err = d.rest(ctx, made[0], rest); err != nil {
			cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			return nil, errors.Join(err, d.Delete(cleanup, k, made[0].ID, ""))
		}
	}
	for _, m := range made {
		m.Version = versionOf(out.Revision)
	}
	return made, nil
}

// withActive gives users the state that they have where they do not name one.
func withActive(k scim.Kind, o scim.Object, active bool) scim.Object {
	kept := scim.Object{}
	if k == scim.User {
		kept["active"] = active
	}
	for name, v := range o {
		kept[name] = v
	}
	return kept
}

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
func (d *Directory) rest(ctx context.Context, group *scim.Resource, updates []datastore.Update) (out datastore.Outcome, err error) {
	for len(updates) > 0 {
		r := datastore.Request{Actor: d.Actor, Reason: reason, Updates: updates}
		if updates = cut(&r); len(updates) == 0 {
			group.Modified = time.Now().UTC()
			u, err := identity(group)
			if err != nil {
				return out, told(err)
			}
			r.Identities = []datastore.IdentityUpdate{u}
		}
		if out, err = d.Datastore.Write(ctx, d.Store, r); err != nil {
			return out, told(err)
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
			case m.Kind == "" && known[objectOf(scim.User, m.ID)]:
				m.Kind = scim.User
			case m.Kind == "":
				m.Kind = scim.Group
			}
			if !known[objectOf(m.Kind, m.ID)] {
				return nil, scim.Invalid("there is no user or group %.200q that could be a member", m.ID)
			}
			if m.Display = ""; !seen[m] {
				seen[m] = true
				updates = append(updates, membership(datastore.Touch, group, m))
			}
		}
	}
	return updates, nil
}

func membership(kind datastore.Kind, group string, m scim.Member) datastore.Update {
	return datastore.Update{Kind: kind, Relationship: tuple.Relationship{Key: tuple.Key{
		Object: objectOf(scim.Group, group), Relation: MemberRelation, Subject: subjectOf(m.Kind, m.ID)}}}
}

// known are the users and groups among those that members may stand for.
func (v *view) known(ctx context.Context, members []scim.Member) (map[tuple.Object]bool, error) {
	var objects []tuple.Object
	for _, m := range members {
		for _, k := range []scim.Kind{scim.User, scim.Group} {
			if o := objectOf(k, m.ID); (m.Kind == "" || m.Kind == k) && o.Check() == nil && m.ID != tuple.Wildcard {
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
	return found, told(err)
}

// tries bounds how often a change is judged anew because others changed the same
// meanwhile.
const tries = 16

// again calls f anew while others are faster, unless a version was meant.
func again(version string, f func() error) error {
	for range tries {
		err := f()
		switch {
		case !errors.Is(err, datastore.ErrPrecondition):
			return err
		case version != "":
			return scim.ErrVersion
		}
	}
	return &scim.Error{Status: http.StatusServiceUnavailable, Detail: "others are changing the same all the time; try again"}
}

// Update implements [scim.Directory]. Members that one change cannot hold follow
// in others; if these fail, the same again completes what was begun.
func (d *Directory) Update(ctx context.Context, k scim.Kind, id string, c scim.Change) (r *scim.Resource, err error) {
	err = again(c.Version, func() error {
		r, err = d.update(ctx, k, id, c)
		return err
	})
	return r, err
}

func (d *Directory) update(ctx context.Context, k scim.Kind, id string, c scim.Change) (*scim.Resource, error) {
	v, err := d.view(ctx)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	now, err := v.identity(ctx, k, id)
	if err != nil {
		return nil, err
	}
	if c.Version != "" && c.Version != versionOf(now.Revision) {
		return nil, scim.ErrVersion
	}
	old, err := resource(now, k)
	if err != nil {
		return nil, err
	}
	next := *old
	if c.Attributes != nil {
		next.Attributes = withActive(k, c.Attributes, now.State == datastore.Active)
	}
	req := datastore.Request{Actor: d.Actor, Reason: reason}
	if req.Updates, err = v.updates(ctx, id, c.Members); err != nil {
		return nil, err
	}
	if len(req.Updates) == 0 && reflect.DeepEqual(old.Attributes, next.Attributes) {
		return old, nil
	}
	next.Modified = time.Now().UTC()
	u, err := identity(&next)
	if err != nil {
		return nil, told(err)
	}
	u.Expected = &now.Revision
	req.Identities = []datastore.IdentityUpdate{u}
	rest := cut(&req)
	out, err := d.Datastore.Write(ctx, d.Store, req)
	if err == nil && len(rest) > 0 {
		out, err = d.rest(ctx, &next, rest)
	}
	if err != nil {
		return nil, told(err)
	}
	next.Version = versionOf(out.Revision)
	return &next, nil
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
			s := subjectOf(k, m.ID)
			if (m.Kind == "" || m.Kind == k) && s.Object.Check() == nil && !coming[s] && !gone[s] {
				gone[s] = true
				updates = append(updates, membership(datastore.Delete, group, scim.Member{ID: m.ID, Kind: k}))
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
	if err := v.Rows(ctx, datastore.RowQuery{Filter: membersOf(group)}, v.now, func(r datastore.Row) bool {
		if m, ok := memberOf(r.Subject); ok {
			going(m)
			staying[r.Subject] = coming[r.Subject] && r.Relationship == tuple.Relationship{Key: r.Key}
		}
		return true
	}); err != nil {
		return nil, told(err)
	}
	for _, u := range added {
		if !staying[u.Relationship.Subject] {
			updates = append(updates, u)
		}
	}
	return updates, nil
}

// Delete implements [scim.Directory]: the memberships go in the same change, those
// of the resource and of a group those in it.
func (d *Directory) Delete(ctx context.Context, k scim.Kind, id, version string) error {
	return again(version, func() error {
		v, err := d.view(ctx)
		if err != nil {
			return err
		}
		defer v.Close()
		now, err := v.identity(ctx, k, id)
		if err != nil {
			return err
		}
		if version != "" && version != versionOf(now.Revision) {
			return scim.ErrVersion
		}
		s := subjectOf(k, id)
		in := tuple.Filter{ObjectType: GroupType, Relation: MemberRelation, Subject: tuple.SubjectFilter{Type: s.Type, ID: id, Relation: s.Relation}}
		if k == scim.User {
			in.Subject.Relation = tuple.Ellipsis
		}
		r := datastore.Request{Actor: d.Actor, Reason: reason, Detach: []tuple.Filter{in},
			Identities: []datastore.IdentityUpdate{{Object: now.Object, Kind: now.Kind, State: datastore.Removed, Expected: &now.Revision}}}
		if k == scim.Group {
			r.Detach = append(r.Detach, membersOf(id))
		}
		_, err = d.Datastore.Write(ctx, d.Store, r)
		return told(err)
	})
}
