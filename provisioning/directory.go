package provisioning

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/provisioning/scim"
	"github.com/pembadb/pemba/tuple"
)

// Directory is the users and groups of a store. Its methods may be called
// concurrently; their errors are those of [datastore.Datastore], ErrNoMember, and
// [scim.Error] for attributes that are none.
type Directory struct {
	Datastore datastore.Datastore
	Store     datastore.StoreID
	Actor     string // who changes it, in the history
	Reason    string // why, in the history
	Counts    *Counts
}

// ErrNoMember says of somebody who is to be a member that there is no such user or
// group.
var ErrNoMember = errors.New("that could be a member")

// Draft is a user or group to be created.
type Draft struct {
	ID         string // empty: where the schema says that ids come from
	Attributes scim.Object
	Members    []scim.Member
}

// Change is what an update makes of a user or group.
type Change struct {
	// Revision is what the change was made of; ErrPrecondition if a later one made
	// another version. Zero: any.
	Revision datastore.Revision
	// Attributes gives the new ones for those there are, which it leaves as they
	// are; nil leaves them, too. "active" left out leaves that as it is.
	Attributes func(now scim.Object) (scim.Object, error)
	Members    *scim.MemberChange // nil: they stay
	// RequestID is that of the first of the history's changes; empty: one is drawn.
	RequestID string
}

// Written is what a change came to.
type Written struct {
	*scim.Resource
	Zookie string // since which it is so
}

func (d *Directory) view(ctx context.Context) (*view, error) {
	s, err := d.Datastore.At(ctx, d.Store, datastore.Consistency{Level: datastore.FullyConsistent})
	if err != nil {
		return nil, err
	}
	return d.viewOf(s), nil
}

func (d *Directory) viewOf(s datastore.Snapshot) *view {
	return &view{Snapshot: s, shape: shapeOf(s), counts: d.Counts, ds: d.Datastore, now: time.Now()}
}

// request begins a request of the directory.
func (d *Directory) request(id string) datastore.Request {
	return datastore.Request{ID: id, Actor: d.Actor, Reason: d.Reason}
}

// write writes a request. Under an id that was used for the same user or group it
// may be a late retry: what a request writes rests on what was there, so that after
// another change the two cannot be told apart, and the error must not say that they
// differ.
func (d *Directory) write(ctx context.Context, r datastore.Request) (datastore.Outcome, error) {
	out, err := d.Datastore.Write(ctx, d.Store, r)
	if !errors.Is(err, datastore.ErrRequestReused) {
		return out, err
	}
	found, failed := d.Datastore.Requested(ctx, d.Store, r.ID)
	if failed != nil {
		return out, err
	}
	about := map[tuple.Object]bool{}
	for _, u := range r.Identities {
		about[u.Object] = true
	}
	if r.Erase != nil {
		about[*r.Erase] = true
	}
	for _, op := range found[r.ID].Operations {
		var o tuple.Object
		switch op.Kind {
		case datastore.PutIdentity:
			o = op.Identity.Object
		case datastore.Erase:
			o = *op.Erased
		}
		if about[o] {
			return out, saidAs{err, fmt.Sprintf("request id %q was used for %s in revision %d: what was asked then was done then, and nothing is done now; if more is to be done, look at %s and use a new id",
				r.ID, o, found[r.ID].Revision, o)}
		}
	}
	return out, err
}

// saidAs is an error in other words.
type saidAs struct {
	error
	text string
}

func (e saidAs) Error() string { return e.text }
func (e saidAs) Unwrap() error { return e.error }

// MaxCreated is how many resources one call of Create makes. While a change is
// judged the head of the store is held, and each resource asks a database whether
// it and its keys are free: more would keep others waiting for too long.
const MaxCreated = 50

// maxUpdates bounds the updates of one change, well below the operations that one
// may hold by default.
const maxUpdates = 500

// Create makes users or groups. What becomes one change is all there or not at
// all; a group with more members than one change holds is removed again if not all
// of them can be added. ErrAlreadyExists if there is one of that id, user name or
// external id. A removed one comes back without its memberships.
func (d *Directory) Create(ctx context.Context, k scim.Kind, drafts []Draft, requestID string) (made []Written, err error) {
	err = d.again(0, func() error {
		made, err = d.create(ctx, k, drafts, requestID)
		return err
	})
	return made, err
}

func (d *Directory) create(ctx context.Context, k scim.Kind, drafts []Draft, requestID string) ([]Written, error) {
	v, err := d.view(ctx)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	r := d.request(requestID)
	made := make([]Written, len(drafts))
	for n, draft := range drafts {
		if made[n].Resource, err = v.draft(ctx, k, draft, requestID != ""); err != nil {
			return nil, err
		}
		u, err := v.shape.identity(made[n].Resource, datastore.Active)
		if err != nil {
			return nil, err
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
		return nil, fmt.Errorf("%w: too much is created at once; send several requests", datastore.ErrTooLarge)
	}
	rest := cut(&r)
	out, err := d.write(ctx, r)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		if out, err = d.rest(ctx, v.shape, made[0].Resource, datastore.Active, rest); err != nil {
			cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			_, undone := d.Delete(cleanup, k, made[0].ID, 0, "")
			return nil, errors.Join(err, undone)
		}
	}
	for n := range made {
		made[n].Version, made[n].Zookie = versionOf(out.Revision), out.Zookie
	}
	return made, nil
}

// draft is a resource that does not exist yet. One that exists already may have
// been made by an earlier try of a request with an id: then it is as old as that.
func (v *view) draft(ctx context.Context, k scim.Kind, d Draft, named bool) (*scim.Resource, error) {
	now := time.Now().UTC()
	r := &scim.Resource{Kind: k, ID: d.ID, Created: now, Modified: now, Attributes: withActive(k, d.Attributes, true)}
	if d.ID == "" {
		var err error
		r.ID, err = v.idFor(k, d.Attributes)
		return r, err
	}
	if _, err := v.checked(k, d.ID); err != nil || !named {
		return r, err
	}
	i, err := v.identity(ctx, k, d.ID)
	if errors.Is(err, datastore.ErrNoIdentity) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	earlier, err := resource(i, k)
	if err == nil && !earlier.Created.IsZero() {
		r.Created, r.Modified = earlier.Created, earlier.Created
	}
	return r, err
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

// tries bounds how often a change is judged anew because others changed the same
// meanwhile.
const tries = 16

// again calls f anew while others are faster, unless a version was meant.
func (d *Directory) again(version datastore.Revision, f func() error) error {
	for range tries {
		if err := f(); !errors.Is(err, datastore.ErrPrecondition) || version != 0 {
			return err
		}
	}
	return fmt.Errorf("%w: others are changing the same all the time; try again", datastore.ErrUnavailable)
}

// Update changes a user or group. Members that one change cannot hold follow in
// others; if these fail, the same again completes what was begun. Where nothing
// changes nothing is written.
func (d *Directory) Update(ctx context.Context, k scim.Kind, id string, c Change) (w Written, err error) {
	err = d.again(c.Revision, func() error {
		w, err = d.update(ctx, k, id, c)
		return err
	})
	return w, err
}

func (d *Directory) update(ctx context.Context, k scim.Kind, id string, c Change) (Written, error) {
	v, err := d.view(ctx)
	if err != nil {
		return Written{}, err
	}
	defer v.Close()
	now, err := v.identity(ctx, k, id)
	if err != nil {
		return Written{}, err
	}
	if c.Revision != 0 && c.Revision != now.Revision {
		return Written{}, otherVersion(now, c.Revision)
	}
	old, err := resource(now, k)
	if err != nil {
		return Written{}, err
	}
	next := *old
	if c.Attributes != nil {
		attributes, err := c.Attributes(old.Attributes)
		if err != nil {
			return Written{}, err
		}
		next.Attributes = withActive(k, attributes, now.State == datastore.Active)
	}
	req := d.request(c.RequestID)
	if req.Updates, err = v.updates(ctx, id, c.Members); err != nil {
		return Written{}, err
	}
	if len(req.Updates) == 0 && reflect.DeepEqual(old.Attributes, next.Attributes) {
		return Written{old, v.Zookie()}, nil
	}
	next.Modified = time.Now().UTC()
	u, err := v.shape.identity(&next, now.State)
	if err != nil {
		return Written{}, err
	}
	u.Expected = &now.Revision
	req.Identities = []datastore.IdentityUpdate{u}
	rest := cut(&req)
	out, err := d.write(ctx, req)
	if err == nil && len(rest) > 0 {
		out, err = d.rest(ctx, v.shape, &next, now.State, rest)
	}
	if err != nil {
		return Written{}, err
	}
	next.Version = versionOf(out.Revision)
	return Written{&next, out.Zookie}, nil
}

func otherVersion(now *datastore.Identity, meant datastore.Revision) error {
	return datastore.With(fmt.Errorf("%w: %s is of revision %d, not %d; read it again", datastore.ErrPrecondition, now.Object, now.Revision, meant),
		"object", now.Object.String(), "revision", versionOf(now.Revision))
}

// Delete removes a user or group of a version (zero: any): its memberships go in
// the same change, and of a group those in it. It returns the zookie since which it
// is gone.
func (d *Directory) Delete(ctx context.Context, k scim.Kind, id string, version datastore.Revision, requestID string) (zookie string, err error) {
	err = d.again(version, func() error {
		v, err := d.view(ctx)
		if err != nil {
			return err
		}
		defer v.Close()
		now, err := v.identity(ctx, k, id)
		if err != nil {
			return err
		}
		if version != 0 && version != now.Revision {
			return otherVersion(now, version)
		}
		out, err := d.write(ctx, v.removal(d.request(requestID), k, now))
		zookie = out.Zookie
		return err
	})
	return zookie, err
}

// removal completes a request that removes a user or group.
func (s shape) removal(r datastore.Request, k scim.Kind, now *datastore.Identity) datastore.Request {
	r.Detach = []tuple.Filter{s.groupsOf(k, now.Object.ID)}
	if k == scim.Group {
		r.Detach = append(r.Detach, s.membersOf(now.Object.ID))
	}
	r.Identities = []datastore.IdentityUpdate{{Object: now.Object, Kind: now.Kind, State: datastore.Removed, Expected: &now.Revision}}
	return r
}
