package provisioning

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/provisioning/scim"
	"github.com/pembadb/pemba/tuple"
)

// offboardChange bounds the relationships that one change of an offboarding
// removes, and that are told at once.
const offboardChange = 1000

// Offboarded is a part of what an offboarding came to.
type Offboarded struct {
	Zookie   string
	State    datastore.IdentityState // of the user; zero: there never was one
	Removed  []tuple.Relationship
	Complete bool // nothing that names the user is left
}

// naming are the filters of all relationships that name an object.
func naming(o tuple.Object) []tuple.Filter {
	return []tuple.Filter{
		{Subject: tuple.SubjectFilter{Type: o.Type, ID: o.ID}},
		{ObjectType: o.Type, ObjectID: o.ID},
	}
}

// Offboard suspends a user at once and then removes every relationship that names
// it, each change under the operation's id with a suffix. Repeated with the same
// id it goes on where it broke off, on whatever node, and tells everything again.
// A user that was never created ends up removed: denied until it is created.
//
// The first part told is the suspension. Its errors are those of Write, and
// tell's.
func (d *Directory) Offboard(ctx context.Context, id string, operation string, tell func(Offboarded) error) error {
	o, part, unknown, err := d.shutOut(ctx, id, operation)
	if err != nil {
		return err
	}
	if err := tell(part); err != nil {
		return err
	}
	for which, f := range naming(o) {
		for n := 1; ; n++ {
			r := d.request(fmt.Sprintf("%s/%d.%d", operation, which+1, n))
			r.DeleteWhere, r.DeleteLimit = &f, offboardChange
			out, err := d.Datastore.Write(ctx, d.Store, r)
			if err != nil {
				return err
			}
			part.Zookie, part.Removed = out.Zookie, nil
			if out.Deleted > 0 {
				if part.Removed, err = d.removedBy(ctx, out.Revision); err != nil {
					return err
				}
				if err := tell(part); err != nil {
					return err
				}
			}
			if !out.More && !out.Repeated { // else others may have written since that change was made
				break
			}
		}
	}
	if unknown {
		if part.Zookie, err = d.Set(ctx, scim.User, id, datastore.Removed, operation+"/removed"); err != nil {
			return err
		}
		part.State = datastore.Removed
	}
	part.Removed, part.Complete = nil, true
	return tell(part)
}

// shutOut suspends a user; one that was never created is made a suspended one
// without attributes, so that it is shut out at once, too.
func (d *Directory) shutOut(ctx context.Context, id, operation string) (o tuple.Object, part Offboarded, unknown bool, err error) {
	now, zookie, err := d.current(ctx, scim.User, id)
	o = now.Object
	switch {
	case errors.Is(err, datastore.ErrNoIdentity):
		r := d.request(operation + "/suspended")
		r.Identities = []datastore.IdentityUpdate{{Object: o, Kind: datastore.User, State: datastore.Suspended, Expected: new(datastore.Revision)}}
		out, err := d.Datastore.Write(ctx, d.Store, r)
		return o, Offboarded{Zookie: out.Zookie, State: datastore.Suspended}, true, err
	case err != nil:
		return o, part, false, err
	case now.State.Withheld():
		return o, Offboarded{Zookie: zookie, State: now.State}, now.State == datastore.Suspended && now.Attributes == "", nil
	}
	// The id names the version that it ends: one who was reactivated meanwhile is
	// suspended again.
	zookie, err = d.Set(ctx, scim.User, id, datastore.Suspended, fmt.Sprintf("%s/suspended.%d", operation, now.Revision))
	return o, Offboarded{Zookie: zookie, State: datastore.Suspended}, false, err
}

// removedBy reads from the history what a change removed.
func (d *Directory) removedBy(ctx context.Context, at datastore.Revision) (removed []tuple.Relationship, err error) {
	for c, err := range d.Datastore.History(ctx, d.Store, at) {
		if err != nil {
			return nil, err
		}
		for _, op := range c.Operations {
			if op.Kind == datastore.Delete {
				removed = append(removed, op.Relationship)
			}
		}
		break
	}
	return removed, nil
}

// OffboardDry tells what Offboard would remove now, and changes nothing.
func (d *Directory) OffboardDry(ctx context.Context, id string, tell func(Offboarded) error) error {
	v, err := d.view(ctx)
	if err != nil {
		return err
	}
	defer v.Close()
	now, err := v.newest(ctx, scim.User, id)
	if err != nil && !errors.Is(err, datastore.ErrNoIdentity) {
		return err
	}
	part := Offboarded{Zookie: v.Zookie(), State: now.State}
	if err := tell(part); err != nil {
		return err
	}
	if err := d.wouldRemove(ctx, v, now.Object, &part, tell); err != nil {
		return err
	}
	part.Complete = true
	return tell(part)
}

// wouldRemove tells, a part at a time, all relationships that name an object; what
// is left of the last is in part.
func (d *Directory) wouldRemove(ctx context.Context, s datastore.Snapshot, o tuple.Object, part *Offboarded, tell func(Offboarded) error) error {
	now := time.Now()
	for which, f := range naming(o) {
		var failed error
		if err := s.Rows(ctx, datastore.QueryFor(f), now, func(r datastore.Row) bool {
			if which == 1 && r.Subject.Object == o {
				return true // told already
			}
			if part.Removed = append(part.Removed, r.Relationship); len(part.Removed) == offboardChange {
				failed = tell(*part)
				part.Removed = nil
			}
			return failed == nil
		}); err != nil {
			return err
		}
		if failed != nil {
			return failed
		}
	}
	return nil
}
