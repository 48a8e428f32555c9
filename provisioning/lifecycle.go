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

// Lifecycle leads the users of a store through their creation and what comes after it.
type Lifecycle struct {
	Datastore datastore.Datastore
	Store     datastore.StoreID
	Actor     string // who does it, in the history
	Reason    string // why
}

// UserObject is the object of a user; its error says what is wrong with the id.
func UserObject(id string) (tuple.Object, error) {
	o := tuple.Object{Type: UserType, ID: id}
	if err := o.Check(); err != nil {
		return o, err
	}
	if id == tuple.Wildcard {
		return o, fmt.Errorf("%s stands for everybody, and is no user", o)
	}
	return o, nil
}

// User is the newest version of a user at a snapshot, whatever its state;
// [datastore.ErrNoIdentity] if there never was one.
func User(ctx context.Context, s datastore.Snapshot, o tuple.Object) (found datastore.Identity, err error) {
	err = s.Identities(ctx, datastore.IdentityQuery{Objects: []tuple.Object{o}}, func(i datastore.Identity) bool {
		found = i
		return true
	})
	if err == nil && found.Kind != datastore.User {
		err = datastore.With(fmt.Errorf("%s: %w", o, datastore.ErrNoIdentity), "object", o.String())
	}
	return found, err
}

// current is a user as it is at the head.
func (l *Lifecycle) current(ctx context.Context, o tuple.Object) (datastore.Identity, string, error) {
	s, err := l.Datastore.At(ctx, l.Store, datastore.Consistency{Level: datastore.FullyConsistent})
	if err != nil {
		return datastore.Identity{}, "", err
	}
	defer s.Close()
	i, err := User(ctx, s, o)
	return i, s.Zookie(), err
}

// Draft is what a user is created with.
type Draft struct {
	UserName    string // required
	DisplayName string // may be empty, as may the next
	ExternalID  string
}

// Create makes a user, active, as SCIM would, and returns the zookie since which it
// is there. One who was removed comes back without its memberships.
// [datastore.ErrAlreadyExists] if there is such a user, or one of that user name or
// external id.
func (l *Lifecycle) Create(ctx context.Context, o tuple.Object, d Draft, requestID string) (zookie string, err error) {
	at, err := l.creation(ctx, o, requestID)
	if err != nil {
		return "", err
	}
	r := &scim.Resource{Kind: scim.User, ID: o.ID, Created: at, Modified: at, Attributes: scim.Object{"active": true}}
	for name, v := range map[string]string{"userName": d.UserName, "displayName": d.DisplayName, "externalId": d.ExternalID} {
		if v != "" {
			r.Attributes[name] = v
		}
	}
	u, err := identity(r)
	if err != nil {
		return "", err
	}
	u.Expected = new(datastore.Revision)
	out, err := l.Datastore.Write(ctx, l.Store, datastore.Request{ID: requestID, Actor: l.Actor, Reason: l.Reason, Identities: []datastore.IdentityUpdate{u}})
	return out.Zookie, err
}

// creation is the time to create a user with: that at which it was, if the request
// may be a retry, whose attributes must be those of the first.
func (l *Lifecycle) creation(ctx context.Context, o tuple.Object, requestID string) (time.Time, error) {
	now := time.Now().UTC()
	if requestID == "" {
		return now, nil
	}
	i, _, err := l.current(ctx, o)
	if errors.Is(err, datastore.ErrNoIdentity) {
		return now, nil
	}
	if err != nil {
		return now, err
	}
	r, err := resource(&i, scim.User)
	if err != nil || r.Created.IsZero() {
		return now, err
	}
	return r.Created, nil
}

// Set brings a user into a state and returns the zookie since which it is. Where
// it is in that state already nothing is written. A removed user cannot be brought
// into another. A user who is removed loses its memberships in the same change.
func (l *Lifecycle) Set(ctx context.Context, o tuple.Object, state datastore.IdentityState, requestID string) (zookie string, err error) {
	for range tries {
		now, at, err := l.current(ctx, o)
		switch {
		case err != nil:
			return "", err
		case now.State == state:
			return at, nil
		case now.State == datastore.Removed:
			return "", datastore.With(fmt.Errorf("%s was removed; create it again: %w", o, datastore.ErrNoIdentity), "object", o.String())
		}
		r := datastore.Request{ID: requestID, Actor: l.Actor, Reason: l.Reason}
		u := datastore.IdentityUpdate{Object: o, Kind: datastore.User, State: state, Expected: &now.Revision}
		if state == datastore.Removed {
			r.Detach = []tuple.Filter{{ObjectType: GroupType, Relation: MemberRelation, Subject: tuple.SubjectFilter{Type: o.Type, ID: o.ID, Relation: tuple.Ellipsis}}}
		} else if u, err = restated(&now, state); err != nil {
			return "", err
		}
		r.Identities = []datastore.IdentityUpdate{u}
		out, err := l.Datastore.Write(ctx, l.Store, r)
		if !errors.Is(err, datastore.ErrPrecondition) {
			return out.Zookie, err
		}
	}
	return "", fmt.Errorf("%w: others are changing %s all the time; try again", datastore.ErrUnavailable, o)
}

// restated is a user with its attributes in another state.
func restated(now *datastore.Identity, state datastore.IdentityState) (datastore.IdentityUpdate, error) {
	r, err := resource(now, scim.User)
	if err != nil {
		return datastore.IdentityUpdate{}, err
	}
	r.Modified = time.Now().UTC()
	r.Attributes["active"] = state == datastore.Active
	u, err := identity(r)
	u.Expected = &now.Revision
	return u, err
}

// Erase destroys the attributes of a removed user.
func (l *Lifecycle) Erase(ctx context.Context, o tuple.Object, requestID string) (zookie string, err error) {
	out, err := l.Datastore.Write(ctx, l.Store, datastore.Request{ID: requestID, Actor: l.Actor, Reason: l.Reason, Erase: &o})
	return out.Zookie, err
}
