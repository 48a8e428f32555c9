package provisioning

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/provisioning/scim"
	"github.com/pembadb/pemba/tuple"
)

// ErrRemovals says that a directory would remove more users, groups and
// memberships than it may, or more than half of one of the three where there are
// ten or more.
var ErrRemovals = errors.New("too much would be removed")

// smallest is how many users, groups or memberships there are at least where half
// of them is a share that speaks of a mistake.
const smallest = 10

// share is how many of a kind there are, and how many of them go.
type share struct{ there, going int }

// removalsOf is what an application removes.
type removalsOf struct {
	users, groups, members share
	departing              []departure // but for those beyond MaxRemovals
	departed               bool        // they were removed
	refusal                error       // of a dry run, why it would be refused
	ending                 []ending    // but for those beyond MaxRemovals
}

// departure is who is removed.
type departure struct {
	kind   scim.Kind
	object tuple.Object
}

// ending is who leaves a group that stays.
type ending struct {
	group   string
	members []scim.Member
}

func (r *removalsOf) of(k scim.Kind) *share {
	if k == scim.Group {
		return &r.groups
	}
	return &r.users
}

func (r *removalsOf) total() int { return r.users.going + r.groups.going + r.members.going }

// leave notes who is to be removed.
func (a *applying) leave(k scim.Kind, o tuple.Object) {
	if a.of(k).going++; a.DryRun || a.total() <= a.MaxRemovals {
		a.departing = append(a.departing, departure{k, o})
		a.gone[o] = true
	}
}

// weigh counts the memberships that go with those who go, and refuses what would
// be too much before anybody does.
func (a *applying) weigh(ctx context.Context) error {
	if a.DryRun { // which counts as it tells
		return a.removals(ctx)
	}
	for _, i := range a.departing {
		for rows, err := range a.belongings(ctx, i) {
			if err != nil {
				return err
			}
			for _, r := range rows {
				if _, member := a.view.memberOf(r.Subject); member {
					a.members.going++
				}
			}
			if a.total() > a.MaxRemovals {
				break
			}
		}
	}
	return a.excess()
}

// refuse ends an application that removes too much.
func (a *applying) refuse(context.Context) error {
	err := a.excess()
	if a.DryRun {
		a.refusal = err
		return nil
	}
	return err
}

// excess says what is too much of what is known to go; nil if nothing is.
func (a *applying) excess() error {
	fail := func(removals, maximum int, what string) error {
		if !a.DryRun && !a.departed {
			what += "; nothing was removed"
		}
		return datastore.With(fmt.Errorf("%w: %s", ErrRemovals, what), "removals", strconv.Itoa(removals), "maximum", strconv.Itoa(maximum))
	}
	if n := a.total(); n > a.MaxRemovals {
		return fail(n, a.MaxRemovals, fmt.Sprintf("%s, and at most %d may be", a.counted(), a.MaxRemovals))
	}
	for _, s := range []struct {
		share
		nouns string
	}{{a.users, "users"}, {a.groups, "groups"}, {a.members, "memberships"}} {
		if s.there >= smallest && 2*s.going > s.there && !a.RemoveMost {
			return fail(s.going, s.there/2, fmt.Sprintf("%d of %d %s, which is more than half", s.going, s.there, s.nouns))
		}
	}
	return nil
}

// counted says how many go of what.
func (r *removalsOf) counted() string {
	var parts []string
	for _, p := range []struct {
		n    int
		noun string
	}{{r.users.going, "user"}, {r.groups.going, "group"}, {r.members.going, "membership"}} {
		switch {
		case p.n == 1:
			parts = append(parts, "1 "+p.noun)
		case p.n > 1:
			parts = append(parts, fmt.Sprintf("%d %ss", p.n, p.noun))
		}
	}
	return strings.Join(parts, ", ")
}

// removals removes who is not in the directory, once, and tells which relationships
// go with them, or go on naming them.
func (a *applying) removals(ctx context.Context) error {
	if a.departed {
		return nil
	}
	a.departed = true
	for _, i := range a.departing {
		if err := a.remove(ctx, i); err != nil {
			return fmt.Errorf("%s: %w", i.object, err)
		}
	}
	return nil
}

func (a *applying) remove(ctx context.Context, i departure) error {
	if a.RemoveOrphans && !a.DryRun && i.kind == scim.User { // at once, for what follows may take long, or break off
		if _, err := a.Set(ctx, i.kind, i.object.ID, datastore.Suspended, ""); err != nil && !errors.Is(err, datastore.ErrNoIdentity) {
			return err
		}
	}
	if err := a.orphans(ctx, i); err != nil {
		return err
	}
	if !a.DryRun {
		zookie, err := a.Delete(ctx, i.kind, i.object.ID, 0, "")
		if err != nil && !errors.Is(err, datastore.ErrNoIdentity) { // another removed it meanwhile
			return err
		}
		if err == nil {
			a.zookie = zookie
		}
	}
	for rows, err := range a.belongings(ctx, i) {
		if err != nil {
			return err
		}
		for _, r := range rows {
			step := Step{Action: RemoveOrphan, Relationship: r}
			if m, ok := a.view.memberOf(r.Subject); ok {
				step = Step{Action: RemoveMember, Entry: Entry{ID: r.Object.ID, Member: &m}}
				if a.DryRun {
					a.members.going++
				}
			}
			if err := a.did(step); err != nil {
				return err
			}
		}
	}
	return a.did(Step{Action: RemoveIdentity, Entry: Entry{Kind: i.kind, ID: i.object.ID}})
}

// belongings are the relationships that go in the same change as one who is
// removed: its own memberships in groups, whoever keeps these, and of a group those
// of others in it, but for what goes with others.
func (a *applying) belongings(ctx context.Context, i departure) iter.Seq2[[]tuple.Relationship, error] {
	return func(yield func([]tuple.Relationship, error) bool) {
		for rows, err := range a.view.pages(ctx, a.view.groupsOf(i.kind, i.object.ID)) {
			if !yield(rows, err) || err != nil {
				return
			}
		}
		if i.kind != scim.Group {
			return
		}
		for rows, err := range a.view.pages(ctx, a.view.membersOf(i.object.ID)) {
			var kept []tuple.Relationship
			for _, r := range rows {
				if _, member := a.view.memberOf(r.Subject); !member || !a.gone[r.Subject.Object] {
					kept = append(kept, r)
				}
			}
			if !yield(kept, err) || err != nil {
				return
			}
		}
	}
}

// orphans tells, and if so asked removes, the relationships that would go on naming
// somebody who is removed.
func (a *applying) orphans(ctx context.Context, i departure) error {
	step := Step{Action: Orphan}
	if a.RemoveOrphans {
		step.Action = RemoveOrphan
	}
	for which, f := range naming(i.object) {
		for rows, err := range a.view.pages(ctx, f) {
			if err != nil {
				return err
			}
			for _, r := range rows {
				if a.view.isMembership(r) || a.view.isIn(r, i) || which == 1 && r.Subject.Object == i.object {
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

// leaveGroups ends the memberships in groups that stay.
func (a *applying) leaveGroups(ctx context.Context) error {
	for _, e := range a.ending {
		w, err := a.Update(ctx, scim.Group, e.group, Change{Members: &scim.MemberChange{Remove: e.members}})
		if errors.Is(err, datastore.ErrNoIdentity) {
			continue // another removed the group meanwhile
		}
		if err != nil {
			return fmt.Errorf("members of group %q: %w", e.group, err)
		}
		a.zookie = w.Zookie
		if err := a.didTo(e.group, RemoveMember, e.members); err != nil {
			return err
		}
	}
	return nil
}

// isMembership reports whether a relationship makes a user or group a member of a
// group.
func (s shape) isMembership(r tuple.Relationship) bool {
	_, member := s.memberOf(r.Subject)
	return member && r.Object.Type == s.Group && r.Relation == s.Member
}

// isIn reports whether a relationship makes anything at all a member of a group
// that is removed.
func (s shape) isIn(r tuple.Relationship, i departure) bool {
	return i.kind == scim.Group && r.Object == i.object && r.Relation == s.Member
}
