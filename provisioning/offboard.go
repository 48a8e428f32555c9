package provisioning

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pembadb/pemba/datastore"
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
func (l *Lifecycle) Offboard(ctx context.Context, o tuple.Object, operation string, tell func(Offboarded) error) error {
	part, unknown, err := l.shutOut(ctx, o, operation)
	if err != nil {
		return err
	}
	if err := tell(part); err != nil {
		return err
	}
	for which, f := range naming(o) {
		for n := 1; ; n++ {
			id := fmt.Sprintf("%s/%d.%d", operation, which+1, n)
			out, err := l.Datastore.Write(ctx, l.Store, datastore.Request{ID: id, Actor: l.Actor, Reason: l.Reason, DeleteWhere: &f, DeleteLimit: offboardChange})
			if err != nil {
				return err
			}
			part.Zookie, part.Removed = out.Zookie, nil
			if out.Deleted > 0 {
				if part.Removed, err = l.removedBy(ctx, out.Revision); err != nil {
					return err
				}
				if err := tell(part); err != nil {
					return err
				}
			}
			if !out.More {
				break
			}
		}
	}
	if unknown {
		if part.Zookie, err = l.Set(ctx, o, datastore.Removed, operation+"/removed"); err != nil {
			return err
		}
		part.State = datastore.Removed
	}
	part.Removed, part.Complete = nil, true
	return tell(part)
}

// shutOut suspends a user; one that was never created is made a suspended one
// without attributes, so that it is shut out at once, too.
func (l *Lifecycle) shutOut(ctx context.Context, o tuple.Object, operation string) (part Offboarded, unknown bool, err error) {
	now, zookie, err := l.current(ctx, o)
	switch {
	case errors.Is(err, datastore.ErrNoIdentity):
		out, err := l.Datastore.Write(ctx, l.Store, datastore.Request{ID: operation + "/suspended", Actor: l.Actor, Reason: l.Reason,
			Identities: []datastore.IdentityUpdate{{Object: o, Kind: datastore.User, State: datastore.Suspended, Expected: new(datastore.Revision)}}})
		return Offboarded{Zookie: out.Zookie, State: datastore.Suspended}, true, err
	case err != nil:
		return part, false, err
	case now.State.Withheld():
		return Offboarded{Zookie: zookie, State: now.State}, now.State == datastore.Suspended && now.Attributes == "", nil
	}
	// The id names the version that it ends: one who was reactivated meanwhile is
	// suspended again.
	zookie, err = l.Set(ctx, o, datastore.Suspended, fmt.Sprintf("%s/suspended.%d", operation, now.Revision))
	return Offboarded{Zookie: zookie, State: datastore.Suspended}, false, err
}

// removedBy reads from the history what a change removed.
func (l *Lifecycle) removedBy(ctx context.Context, at datastore.Revision) (removed []tuple.Relationship, err error) {
	for c, err := range l.Datastore.History(ctx, l.Store, at) {
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
func (l *Lifecycle) OffboardDry(ctx context.Context, o tuple.Object, tell func(Offboarded) error) error {
	s, err := l.Datastore.At(ctx, l.Store, datastore.Consistency{Level: datastore.FullyConsistent})
	if err != nil {
		return err
	}
	defer s.Close()
	now, err := User(ctx, s, o)
	if err != nil && !errors.Is(err, datastore.ErrNoIdentity) {
		return err
	}
	part := Offboarded{Zookie: s.Zookie(), State: now.State}
	if err := tell(part); err != nil {
		return err
	}
	if err := l.wouldRemove(ctx, s, o, &part, tell); err != nil {
		return err
	}
	part.Complete = true
	return tell(part)
}

// wouldRemove tells, a part at a time, all relationships that name an object; what
// is left of the last is in part.
func (l *Lifecycle) wouldRemove(ctx context.Context, s datastore.Snapshot, o tuple.Object, part *Offboarded, tell func(Offboarded) error) error {
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
