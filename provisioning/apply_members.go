package provisioning

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/provisioning/scim"
	"github.com/pembadb/pemba/tuple"
)

// removals removes who is not in the directory, and tells which relationships go
// on naming them.
func (a *applying) removals(ctx context.Context) error {
	if n := a.leaving; n > a.MaxRemovals && !a.DryRun {
		return datastore.With(fmt.Errorf("%w: %d, and at most %d may; nobody was removed", ErrRemovals, n, a.MaxRemovals),
			"removals", strconv.Itoa(n), "maximum", strconv.Itoa(a.MaxRemovals))
	}
	for _, i := range a.removed {
		if err := a.remove(ctx, i.object, i.kind); err != nil {
			return err
		}
	}
	return nil
}

func (a *applying) remove(ctx context.Context, o tuple.Object, k scim.Kind) error {
	if a.RemoveOrphans && !a.DryRun && k == scim.User { // at once, for what follows may take long, or break off
		if _, err := a.Set(ctx, k, o.ID, datastore.Suspended, ""); err != nil && !errors.Is(err, datastore.ErrNoIdentity) {
			return fmt.Errorf("%s: %w", o, err)
		}
	}
	if err := a.orphans(ctx, o); err != nil {
		return fmt.Errorf("%s: %w", o, err)
	}
	if !a.DryRun {
		zookie, err := a.Delete(ctx, k, o.ID, 0, "")
		if err != nil && !errors.Is(err, datastore.ErrNoIdentity) { // another removed it meanwhile
			return fmt.Errorf("%s: %w", o, err)
		}
		if err == nil {
			a.zookie = zookie
		}
	}
	return a.did(Step{Action: RemoveIdentity, Entry: Entry{Kind: k, ID: o.ID}})
}

// orphans tells, and if so asked removes, the relationships that would go on naming
// somebody who is removed.
func (a *applying) orphans(ctx context.Context, o tuple.Object) error {
	step := Step{Action: Orphan}
	if a.RemoveOrphans {
		step.Action = RemoveOrphan
	}
	for which, f := range naming(o) {
		for rows, err := range a.view.pages(ctx, f) {
			if err != nil {
				return err
			}
			for _, r := range rows {
				if a.view.isMembership(r) || which == 1 && r.Subject.Object == o {
					continue // it goes with the removal, or was told already
				}
				if step.Relationship = r; a.RemoveOrphans && !a.DryRun {
					if err := a.end(ctx, r); err != nil {
						return err
					}
				}
				if err := a.did(step); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// end removes a relationship.
func (a *applying) end(ctx context.Context, r tuple.Relationship) error {
	req := a.request("")
	req.Updates = []datastore.Update{{Kind: datastore.Delete, Relationship: tuple.Relationship{Key: r.Key}}}
	out, err := a.Datastore.Write(ctx, a.Store, req)
	if err == nil {
		a.zookie = out.Zookie
	}
	return err
}

// isMembership reports whether a relationship makes a user or group a member of a
// group.
func (s shape) isMembership(r tuple.Relationship) bool {
	_, member := s.memberOf(r.Subject)
	return member && r.Object.Type == s.Group && r.Relation == s.Member
}

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

// membersNow are the memberships that are there, in the order of entries.
func (a *applying) membersNow(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		var group string
		var kept [2][]Entry // groups, then users
		give := func() bool {
			for n, list := range kept {
				kept[n] = nil
				for _, e := range list {
					if !yield(e, nil) {
						return false
					}
				}
			}
			return true
		}
		for rows, err := range a.view.pages(ctx, tuple.Filter{ObjectType: a.view.Group, Relation: a.view.Member}) {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for _, r := range rows {
				m, ok := a.view.memberOf(r.Subject)
				if !ok || a.gone[r.Object] || a.gone[r.Subject.Object] {
					continue
				}
				if r.Object.ID != group && !give() {
					return
				}
				group = r.Object.ID
				n := 0
				if m.Kind == scim.User {
					n = 1
				}
				kept[n] = append(kept[n], Entry{ID: group, Member: &m, loose: r != tuple.Relationship{Key: r.Key}})
			}
		}
		give()
	}
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

// change makes the changes to one group's members.
func (a *applying) change(ctx context.Context, group string, c *scim.MemberChange) error {
	if len(c.Add)+len(c.Remove) == 0 {
		return nil
	}
	err := a.wouldChange(ctx, group, c)
	if err == nil && !a.DryRun {
		var w Written
		if w, err = a.Update(ctx, scim.Group, group, Change{Members: c}); err == nil {
			a.zookie = w.Zookie
		}
	}
	if errors.Is(err, datastore.ErrNoIdentity) && len(c.Add) == 0 {
		return nil // an application's own group, which no directory keeps
	}
	if err != nil {
		return fmt.Errorf("members of group %q: %w", group, err)
	}
	if err := a.didTo(group, RemoveMember, c.Remove); err != nil {
		return err
	}
	return a.didTo(group, AddMember, c.Add)
}

func (a *applying) didTo(group string, action Action, members []scim.Member) error {
	for _, m := range members {
		if err := a.did(Step{Action: action, Entry: Entry{ID: group, Member: &m}}); err != nil {
			return err
		}
	}
	return nil
}

// wouldChange refuses, of a dry run, what could not be done.
func (a *applying) wouldChange(ctx context.Context, group string, c *scim.MemberChange) error {
	if !a.DryRun {
		return nil
	}
	if o := a.view.objectOf(scim.Group, group); a.gone[o] {
		return noIdentity(o)
	} else if !a.coming[o] {
		if _, err := a.view.identity(ctx, scim.Group, group); err != nil {
			return err
		}
	}
	known, err := a.view.known(ctx, c.Add)
	if err != nil {
		return err
	}
	for _, m := range c.Add {
		if o := a.view.objectOf(m.Kind, m.ID); !a.coming[o] && (!known[o] || a.gone[o]) {
			return datastore.With(fmt.Errorf("there is no user or group %.200q %w", m.ID, ErrNoMember), "id", m.ID)
		}
		if err := a.view.Schema().CheckRelationship(a.view.membership(datastore.Touch, group, m).Relationship); err != nil {
			return err
		}
	}
	return nil
}
