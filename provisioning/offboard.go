package provisioning

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
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
	Unknown  bool // it was never created
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
// id it goes on where it broke off, on whatever node, and tells everything again;
// where nothing is left to do nothing is written. A user that was never created
// ends up removed: denied until it is created.
//
// The first part told is the suspension. Its errors are those of Write, and
// tell's; ErrRequestReused before anything is done, if the operation is another
// user's, or was begun by another caller or for another reason.
func (d *Directory) Offboard(ctx context.Context, id string, operation string, tell func(Offboarded) error) error {
	b := &offboarding{Directory: d, operation: operation}
	err := b.begin(ctx, id)
	for range tries {
		if !errors.Is(err, errRaced) {
			break
		}
		err = b.begin(ctx, id)
	}
	if err != nil {
		return err
	}
	if err := tell(b.part); err != nil {
		return err
	}
	for which, f := range naming(b.object) {
		if err := b.remove(ctx, which, f, tell); err != nil {
			return err
		}
	}
	if b.unfinished {
		if b.part.Zookie, err = d.Set(ctx, scim.User, id, datastore.Removed, operation+"/removed"); err != nil {
			return err
		}
		b.part.State = datastore.Removed
	}
	b.part.Removed, b.part.Complete = nil, true
	return tell(b.part)
}

// offboarding is an offboarding under way.
type offboarding struct {
	*Directory
	operation  string
	object     tuple.Object
	earlier    map[string]datastore.Change // by request id: what is known to be done
	part       Offboarded
	unfinished bool // the user was unknown, and is to be removed in the end
}

// errRaced says that the same operation went on elsewhere meanwhile.
var errRaced = errors.New("the operation goes on elsewhere")

// begin finds out what was done before, and shuts the user out.
func (b *offboarding) begin(ctx context.Context, id string) error {
	now, zookie, err := b.current(ctx, scim.User, id)
	if err != nil && !errors.Is(err, datastore.ErrNoIdentity) {
		return err
	}
	unknown := err != nil
	b.object = now.Object
	suspension := b.operation + "/suspended"
	removals := naming(b.object)
	if b.earlier, err = b.Datastore.Requested(ctx, b.Store, suspension, b.removal(0, 1, removals[0]).ID, b.removal(1, 1, removals[1]).ID); err != nil {
		return err
	}
	if err := b.mine(removals, suspension); err != nil {
		return err
	}
	first, suspended := b.earlier[suspension]
	b.part = Offboarded{Zookie: zookie, State: now.State, Unknown: unknown || suspended && madeBy(first, b.object)}
	b.unfinished = unknown || now.State == datastore.Suspended && now.Attributes == ""
	switch {
	case unknown: // made a suspended one without attributes, so that it is shut out at once
		r := b.request(suspension)
		r.Identities = []datastore.IdentityUpdate{{Object: b.object, Kind: datastore.User, State: datastore.Suspended, Expected: new(datastore.Revision)}}
		var out datastore.Outcome
		out, err = b.Datastore.Write(ctx, b.Store, r)
		b.part.Zookie = out.Zookie
	case now.State.Withheld():
		return nil
	default:
		if suspended { // and reactivated since: the id names the version that it ends
			suspension = fmt.Sprintf("%s.%d", suspension, now.Revision)
		}
		b.part.Zookie, err = b.Set(ctx, scim.User, id, datastore.Suspended, suspension)
	}
	if errors.Is(err, datastore.ErrRequestReused) || errors.Is(err, datastore.ErrAlreadyExists) {
		return fmt.Errorf("%w: %w", errRaced, err)
	}
	b.part.State = datastore.Suspended
	return err
}

// madeBy reports whether a change made an identity that there was not before.
func madeBy(c datastore.Change, o tuple.Object) bool {
	for _, op := range c.Operations {
		if op.Kind == datastore.PutIdentity && op.Identity.Object == o {
			return op.Identity.Before == 0
		}
	}
	return false
}

// mine refuses an operation id under which something else was done.
func (b *offboarding) mine(removals []tuple.Filter, suspension string) error {
	reused := func(id string, c datastore.Change, why string) error {
		text := fmt.Sprintf("operation id %q was used before, in revision %d: %s; nothing was changed", b.operation, c.Revision, why)
		return datastore.With(saidAs{datastore.ErrRequestReused, text},
			"request_id", id, "revision", strconv.FormatUint(uint64(c.Revision), 10))
	}
	for _, id := range slices.SortedFunc(maps.Keys(b.earlier), func(x, y string) int { return cmp.Compare(b.earlier[x].Revision, b.earlier[y].Revision) }) {
		c, same := b.earlier[id], false
		if id == suspension {
			for _, op := range c.Operations {
				same = same || op.Kind == datastore.PutIdentity && op.Identity.Object == b.object
			}
		}
		for which, f := range removals {
			r := b.removal(which, 1, f)
			r.Actor, r.Reason = c.Actor, c.Reason
			same = same || r.ID == id && r.Digest() == c.BodyDigest
		}
		switch {
		case !same:
			return reused(id, c, "for something else; use a new id to offboard "+b.object.String())
		case c.Reason != b.Reason:
			return reused(id, c, fmt.Sprintf("its reason was %q; give that to go on with it, or use a new id", c.Reason))
		case c.Actor != b.Actor:
			return reused(id, c, fmt.Sprintf("%q began it; go on with it as that caller, or use a new id", c.Actor))
		}
	}
	return nil
}

// removal is the nth request that removes what one of the filters of naming
// matches.
func (b *offboarding) removal(which, n int, f tuple.Filter) datastore.Request {
	r := b.request(fmt.Sprintf("%s/%d.%d", b.operation, which+1, n))
	r.DeleteWhere, r.DeleteLimit = &f, offboardChange
	return r
}

// remove removes what a filter matches, and tells again what was removed before.
func (b *offboarding) remove(ctx context.Context, which int, f tuple.Filter, tell func(Offboarded) error) error {
	for n := 1; ; n++ {
		r := b.removal(which, n, f)
		if n > 1 {
			done, err := b.Datastore.Requested(ctx, b.Store, r.ID)
			if err != nil {
				return err
			}
			maps.Copy(b.earlier, done)
		}
		if _, done := b.earlier[r.ID]; !done {
			if left, err := b.left(ctx, f); err != nil || !left {
				return err
			}
		}
		out, err := b.Datastore.Write(ctx, b.Store, r)
		if err != nil {
			return err
		}
		b.part.Zookie, b.part.Removed = out.Zookie, nil
		if out.Deleted > 0 {
			if b.part.Removed, err = b.removedBy(ctx, out.Revision); err != nil {
				return err
			}
			if err := tell(b.part); err != nil {
				return err
			}
		}
		if !out.More && !out.Repeated { // else others may have written since that change was made
			return nil
		}
	}
}

// left reports whether a filter matches anything now.
func (b *offboarding) left(ctx context.Context, f tuple.Filter) (found bool, err error) {
	v, err := b.view(ctx)
	if err != nil {
		return false, err
	}
	defer v.Close()
	b.part.Zookie = v.Zookie()
	q := datastore.QueryFor(f)
	q.Limit = 1
	err = v.Rows(ctx, q, v.now, func(datastore.Row) bool {
		found = true
		return false
	})
	return found, err
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
	part := Offboarded{Zookie: v.Zookie(), State: now.State, Unknown: err != nil}
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
