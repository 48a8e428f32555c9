package provisioning

import (
	"context"
	"fmt"
	"iter"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/provisioning/scim"
	"github.com/pembadb/pemba/tuple"
)

// pages are the relationships that match a filter, a page at a time, so that no
// query of a database stays open while they are worked on.
func (v *view) pages(ctx context.Context, f tuple.Filter) iter.Seq2[[]tuple.Relationship, error] {
	return func(yield func([]tuple.Relationship, error) bool) {
		q := datastore.QueryFor(f)
		q.Limit = lookedUp
		for {
			var page []tuple.Relationship
			if err := v.Rows(ctx, q, v.now, func(r datastore.Row) bool {
				page = append(page, r.Relationship)
				return true
			}); err != nil {
				yield(nil, err)
				return
			}
			if len(page) > 0 && !yield(page, nil) || len(page) < q.Limit {
				return
			}
			q.After = &page[len(page)-1].Key
		}
	}
}

// membersNow are the memberships that are there in groups of the directory, in the
// order of entries, without those that go with who is removed. It counts both.
func (a *applying) membersNow(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		live, stop := iter.Pull2(a.view.all(ctx, scim.Group))
		defer stop()
		w := &membersWalk{applying: a, live: live, yield: yield}
		for rows, err := range a.view.pages(ctx, tuple.Filter{ObjectType: a.view.Group, Relation: a.view.Member}) {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for _, r := range rows {
				more, err := w.take(r)
				if err != nil {
					yield(Entry{}, err)
				}
				if err != nil || !more {
					return
				}
			}
		}
		w.give()
	}
}

// membersWalk goes through memberships group by group, and through the groups that
// the directory keeps beside them.
type membersWalk struct {
	*applying
	live  func() (datastore.Identity, error, bool)
	yield func(Entry, error) bool

	at    datastore.Identity // the group that live has come to
	group string
	keeps bool       // group is one that the directory keeps, not an application's own
	kept  [2][]Entry // of group: groups, then users
}

// take takes the next membership; false: no more are wanted.
func (w *membersWalk) take(r tuple.Relationship) (bool, error) {
	m, ok := w.view.memberOf(r.Subject)
	if !ok {
		return true, nil
	}
	if w.gone[r.Object] || w.gone[r.Subject.Object] {
		w.members.there++
		return true, nil
	}
	if r.Object.ID != w.group {
		if !w.give() {
			return false, nil
		}
		if err := w.enter(r.Object); err != nil {
			return false, err
		}
	}
	if !w.keeps {
		return true, nil
	}
	w.members.there++
	n := 0
	if m.Kind == scim.User {
		n = 1
	}
	w.kept[n] = append(w.kept[n], Entry{ID: w.group, Member: &m, loose: r != tuple.Relationship{Key: r.Key}})
	return true, nil
}

// enter comes to another group.
func (w *membersWalk) enter(group tuple.Object) error {
	w.group = group.ID
	for w.at.Object.ID < group.ID {
		next, err, more := w.live()
		if err != nil {
			return err
		}
		if !more {
			break
		}
		w.at = next
	}
	w.keeps = w.at.Object.ID == group.ID || w.coming[group]
	return nil
}

// give yields the memberships of the group at hand.
func (w *membersWalk) give() bool {
	for n, list := range w.kept {
		w.kept[n] = nil
		for _, e := range list {
			if !w.yield(e, nil) {
				return false
			}
		}
	}
	return true
}

// memberships makes the memberships those of the directory, a group at a time.
func (a *applying) memberships(ctx context.Context) error {
	if !a.DryRun { // as it is after what was written
		fresh, err := a.Directory.view(ctx)
		if err != nil {
			return err
		}
		a.view.Close()
		a.view = fresh
	}
	there, stop := iter.Pull2(a.membersNow(ctx))
	defer stop()
	now, err, more := there()
	var group string
	var c scim.MemberChange
	for err == nil && (more || a.entry != nil) {
		order := -1
		if a.entry != nil {
			if order = 1; more {
				order = now.compare(a.entry)
			}
		}
		at := &now
		if order > 0 {
			at = a.entry
		}
		if at.ID != group {
			if err := a.change(ctx, group, &c); err != nil {
				return err
			}
			group, c = at.ID, scim.MemberChange{}
		}
		switch {
		case order < 0:
			c.Remove = append(c.Remove, *at.Member)
		case order > 0 || now.loose:
			c.Add = append(c.Add, *at.Member)
		}
		if order >= 0 {
			if err := a.advance(); err != nil {
				return err
			}
		}
		if order <= 0 {
			now, err, more = there()
		}
	}
	if err != nil {
		return err
	}
	return a.change(ctx, group, &c)
}

// change makes the changes to one group's members: who comes comes, and who goes is
// noted.
func (a *applying) change(ctx context.Context, group string, c *scim.MemberChange) error {
	if err := a.join(ctx, group, c.Add); err != nil {
		return fmt.Errorf("members of group %q: %w", group, err)
	}
	a.members.going += len(c.Remove)
	if a.DryRun {
		return a.didTo(group, RemoveMember, c.Remove)
	}
	if len(c.Remove) > 0 && a.total() <= a.MaxRemovals {
		a.ending = append(a.ending, ending{group, c.Remove})
	}
	return nil
}

// join adds members to a group.
func (a *applying) join(ctx context.Context, group string, members []scim.Member) error {
	if len(members) == 0 {
		return nil
	}
	if err := a.mayJoin(ctx, group, members); err != nil {
		return err
	}
	if !a.DryRun {
		w, err := a.Update(ctx, scim.Group, group, Change{Members: &scim.MemberChange{Add: members}})
		if err != nil {
			return err
		}
		a.zookie = w.Zookie
	}
	return a.didTo(group, AddMember, members)
}

func (a *applying) didTo(group string, action Action, members []scim.Member) error {
	for _, m := range members {
		if err := a.did(Step{Action: action, Entry: Entry{ID: group, Member: &m}}); err != nil {
			return err
		}
	}
	return nil
}

// mayJoin refuses members of whom the directory does not say that they stay, and of
// a dry run what else could not be done.
func (a *applying) mayJoin(ctx context.Context, group string, members []scim.Member) error {
	nobody := func(m scim.Member) error {
		return datastore.With(fmt.Errorf("there is no user or group %.200q %w", m.ID, ErrNoMember), "id", m.ID)
	}
	o := a.view.objectOf(scim.Group, group)
	if a.gone[o] {
		return noIdentity(o)
	}
	for _, m := range members {
		if a.gone[a.view.objectOf(m.Kind, m.ID)] {
			return nobody(m)
		}
	}
	if !a.DryRun {
		return nil
	}
	if !a.coming[o] {
		if _, err := a.view.identity(ctx, scim.Group, group); err != nil {
			return err
		}
	}
	known, err := a.view.known(ctx, members)
	if err != nil {
		return err
	}
	for _, m := range members {
		if o := a.view.objectOf(m.Kind, m.ID); !a.coming[o] && !known[o] {
			return nobody(m)
		}
		if err := a.view.Schema().CheckRelationship(a.view.membership(datastore.Touch, group, m).Relationship); err != nil {
			return err
		}
	}
	return nil
}
