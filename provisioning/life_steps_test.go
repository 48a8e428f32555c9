package provisioning_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/provisioning"
	"github.com/pembadb/pemba/provisioning/scim"
	"github.com/pembadb/pemba/tuple"
)

// draw draws a step.
func (w *world) draw() step {
	ctx, id, user, group := context.Background(), w.id(), w.user(), w.group()
	name := fmt.Sprint("name", w.r.IntN(5))
	switch w.r.IntN(13) {
	case 0, 1:
		return step{name: "create " + user + " as " + name, retried: true, do: func(d *provisioning.Directory) error {
			_, err := d.Create(ctx, scim.User, []provisioning.Draft{{ID: user, Attributes: scim.Object{"userName": name}}}, id)
			return err
		}, effect: func(c company) bool {
			if c.live(user) || c.taken(name, user) {
				return false
			}
			c.users[user] = person{state: datastore.Active, name: name, created: true}
			return true
		}}
	case 2:
		display := fmt.Sprint(w.r.IntN(3))
		return step{name: "rename " + user + " " + name + " " + display, retried: true, do: func(d *provisioning.Directory) error {
			_, err := d.Update(ctx, scim.User, user, provisioning.Change{RequestID: id, Attributes: func(now scim.Object) (scim.Object, error) {
				return scim.Merge(scim.User, now, scim.Object{"userName": name, "displayName": display}, false)
			}})
			return err
		}, effect: func(c company) bool {
			if !c.live(user) || c.taken(name, user) {
				return false
			}
			c.users[user] = person{c.users[user].state, name, display, true}
			return true
		}}
	case 3:
		state := []datastore.IdentityState{datastore.Active, datastore.Suspended}[w.r.IntN(2)]
		return step{name: fmt.Sprint("set ", user, " ", state), retried: true, do: func(d *provisioning.Directory) error {
			_, err := d.Set(ctx, scim.User, user, state, id)
			return err
		}, effect: func(c company) bool {
			if !c.live(user) {
				return false
			}
			p := c.users[user]
			p.state, p.created = state, p.created || p.state != state
			c.users[user] = p
			return true
		}}
	case 4:
		return step{name: "delete " + user, retried: true, do: func(d *provisioning.Directory) error {
			_, err := d.Set(ctx, scim.User, user, datastore.Removed, id)
			return err
		}, effect: func(c company) bool {
			p, ok := c.users[user]
			if !ok {
				return false
			}
			if p.state != datastore.Removed {
				c.removeWhere(func(r tuple.Relationship) bool {
					return r.Relation == "member" && r.Subject.Object.String() == "user:"+user
				})
			}
			c.users[user] = person{state: datastore.Removed}
			return true
		}}
	case 5:
		return step{name: "erase " + user, retried: true, do: func(d *provisioning.Directory) error {
			_, err := d.Erase(ctx, scim.User, user, id)
			return err
		}, effect: func(c company) bool { return c.users[user].state == datastore.Removed }}
	case 6:
		m, subject := w.member()
		return step{name: "create " + group + " with " + subject, retried: true, do: func(d *provisioning.Directory) error {
			_, err := d.Create(ctx, scim.Group, []provisioning.Draft{{ID: group, Attributes: scim.Object{"displayName": group}, Members: []scim.Member{m}}}, id)
			return err
		}, effect: func(c company) bool {
			if _, ok := c.groups[group]; ok || !c.known(m) {
				return false
			}
			c.groups[group], c.rels["group:"+group+"#member@"+subject] = group, true
			return true
		}}
	case 7:
		return step{name: "delete " + group, retried: true, do: func(d *provisioning.Directory) error {
			_, err := d.Delete(ctx, scim.Group, group, 0, id)
			return err
		}, effect: func(c company) bool {
			if _, ok := c.groups[group]; !ok {
				return false
			}
			delete(c.groups, group)
			c.removeWhere(func(r tuple.Relationship) bool {
				return r.Relation == "member" && (r.Object.ID == group || r.Subject.String() == "group:"+group+"#member")
			})
			return true
		}}
	case 8, 9:
		return w.drawJoin(id, group)
	case 10:
		return w.drawScim(name)
	case 11:
		return step{name: "offboard " + user, retried: true, offboards: user, do: func(d *provisioning.Directory) error {
			return d.Offboard(ctx, user, id, func(provisioning.Offboarded) error { return nil })
		}, effect: func(c company) bool {
			p, ok := c.users[user]
			switch {
			case !ok, p.state == datastore.Suspended && !p.created: // never created, shut out all the same
				p.state = datastore.Removed
			case p.state == datastore.Active:
				p.state = datastore.Suspended
			}
			c.users[user] = p
			c.removeWhere(func(r tuple.Relationship) bool { return r.Subject.Object.String() == "user:"+user })
			return true
		}}
	default:
		return w.drawWrite(id)
	}
}

// drawJoin draws a change of a group's members.
func (w *world) drawJoin(id, group string) step {
	ctx := context.Background()
	m, subject := w.member()
	other, otherSubject := w.member()
	text := func(subject string) string { return "group:" + group + "#member@" + subject }
	switch w.r.IntN(3) {
	case 0:
		return step{name: "add " + text(subject), retried: true, do: func(d *provisioning.Directory) error {
			_, err := d.Join(ctx, group, []scim.Member{m}, nil, id)
			return err
		}, effect: func(c company) bool {
			if _, ok := c.groups[group]; !ok || !c.rels[text(subject)] && !c.known(m) {
				return false
			}
			c.rels[text(subject)] = true
			return true
		}}
	case 1:
		return step{name: "take out " + text(subject), retried: true, do: func(d *provisioning.Directory) error {
			_, err := d.Join(ctx, group, nil, []scim.Member{m}, id)
			return err
		}, effect: func(c company) bool {
			_, ok := c.groups[group]
			if ok {
				delete(c.rels, text(subject))
			}
			return ok
		}}
	}
	return step{name: "make it " + text(subject) + " and " + otherSubject, do: func(d *provisioning.Directory) error {
		_, err := d.Update(ctx, scim.Group, group, provisioning.Change{Members: &scim.MemberChange{Replace: true, Add: []scim.Member{m, other}}})
		return err
	}, effect: func(c company) bool {
		if _, ok := c.groups[group]; !ok || !c.known(m) || !c.known(other) {
			return false
		}
		c.removeWhere(func(r tuple.Relationship) bool { return r.Relation == "member" && r.Object.ID == group })
		c.rels[text(subject)], c.rels[text(otherSubject)] = true, true
		return true
	}}
}

// drawScim draws what a client of SCIM does with a user that is there.
func (w *world) drawScim(name string) step {
	ctx, user, active := context.Background(), w.user(), w.r.IntN(2) == 0
	return step{name: fmt.Sprint("SCIM: ", user, " ", name, " ", active), do: func(d *provisioning.Directory) error {
		_, err := provisioning.SCIM{Directory: d}.Update(ctx, scim.User, user, scim.Change{Attributes: scim.Object{"userName": name, "active": active}})
		if e := (*scim.Error)(nil); errors.As(err, &e) && e.Status != http.StatusNotFound && e.Status != http.StatusConflict {
			return fmt.Errorf("told %d", e.Status)
		}
		return err
	}, effect: func(c company) bool {
		if !c.live(user) || c.taken(name, user) {
			return false
		}
		state := datastore.Suspended
		if active {
			state = datastore.Active
		}
		c.users[user] = person{state: state, name: name, created: true}
		return true
	}}
}

// drawWrite draws a write of relationships, memberships among them.
func (w *world) drawWrite(id string) step {
	r := datastore.Request{ID: id, Actor: "an application"}
	var texts []string
	for range 1 + w.r.IntN(3) {
		_, subject := w.member()
		text := lifeDocuments[w.r.IntN(len(lifeDocuments))] + "#viewer@" + subject
		switch w.r.IntN(4) {
		case 0:
			text = "group:" + w.group() + "#member@" + subject
		case 1:
			text = lifeDocuments[w.r.IntN(len(lifeDocuments))] + "#viewer@user:*"
		}
		if slices.Contains(texts, text) {
			continue
		}
		rel, err := tuple.Parse(text)
		if err != nil {
			w.t.Fatal(err)
		}
		kind := []datastore.Kind{datastore.Touch, datastore.Touch, datastore.Delete}[w.r.IntN(3)]
		texts, r.Updates = append(texts, text), append(r.Updates, datastore.Update{Kind: kind, Relationship: rel})
	}
	return step{name: fmt.Sprint("write ", texts), retried: true, do: func(d *provisioning.Directory) error {
		_, err := d.Datastore.Write(context.Background(), d.Store, r)
		return err
	}, effect: func(c company) bool {
		for i, text := range texts {
			if delete(c.rels, text); r.Updates[i].Kind == datastore.Touch {
				c.rels[text] = true
			}
		}
		return true
	}}
}
