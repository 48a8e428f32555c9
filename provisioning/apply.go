package provisioning

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/provisioning/scim"
	"github.com/pembadb/pemba/tuple"
)

// Entry is a part of a directory as it is to be: a user or a group with its
// attributes, or a membership.
type Entry struct {
	Kind       scim.Kind    // empty: a membership
	ID         string       // of the user or group; of a membership the group's
	Attributes scim.Object  // all of them
	Member     *scim.Member // of a membership, with its kind

	loose bool // a membership that is there on a condition, or for a time
}

// compare orders entries: users, groups, and memberships by group, each group's
// groups before its users.
func (e *Entry) compare(o *Entry) int {
	rank := func(k scim.Kind) int { return slices.Index([]scim.Kind{scim.User, scim.Group, ""}, k) }
	c := cmp.Or(cmp.Compare(rank(e.Kind), rank(o.Kind)), cmp.Compare(e.ID, o.ID))
	if c == 0 && e.Member != nil && o.Member != nil {
		c = cmp.Or(-cmp.Compare(rank(e.Member.Kind), rank(o.Member.Kind)), cmp.Compare(e.Member.ID, o.Member.ID))
	}
	return c
}

// String names an entry.
func (e *Entry) String() string {
	if e.Member != nil {
		return fmt.Sprintf("membership of %s %q in group %q", nounOf(e.Member.Kind), e.Member.ID, e.ID)
	}
	return fmt.Sprintf("%s %q", nounOf(e.Kind), e.ID)
}

// EntryError is an error about an entry of a directory.
type EntryError struct {
	Kind scim.Kind // empty: a membership
	Err  error
}

func (e *EntryError) Error() string { return e.Err.Error() }
func (e *EntryError) Unwrap() error { return e.Err }

func about(e *Entry, err error) error { return &EntryError{e.Kind, fmt.Errorf("%s: %w", e, err)} }

// Action is what a step of an application does.
type Action uint8

const (
	CreateIdentity Action = iota + 1
	UpdateIdentity
	RemoveIdentity // its memberships, each told as a step of its own, go in the same change
	AddMember
	RemoveMember
	Orphan       // a relationship goes on naming somebody who is removed
	RemoveOrphan // a relationship goes with somebody who is removed
)

// Step is a step of an application.
type Step struct {
	Action       Action
	Entry        Entry              // without attributes; of relationships it is not used
	Relationship tuple.Relationship // of an orphan
	Changed      []string           // names of the attributes that an update changes
}

// Application says how a directory is applied.
type Application struct {
	DryRun        bool
	MaxRemovals   int  // users, groups and memberships together
	RemoveMost    bool // more than half of them, where there are some: see ErrRemovals
	RemoveOrphans bool
}

// Applied is a part of what an application did, or would do.
type Applied struct {
	Zookie   string
	Steps    []Step
	Complete bool
	// Refusal says of a dry run that is complete why the same without DryRun would be
	// refused with ErrRemovals; empty if it would not be.
	Refusal string
}

// Apply makes the users, groups and memberships of the store those of a directory,
// whose entries come in the order of [Entry], each once; an error among them ends
// it. It works in bounded memory, but for a few bytes for each name, what is
// removed, and the members of one group, and in many changes: the same again
// completes what was broken off.
//
// Users, groups and memberships come and change as entries arrive. What goes goes
// when all of them have been read, and not at all if it would be too much, but for
// one case: where somebody is to have a name of one who goes, users and groups go
// as soon as all of these have been read, and memberships in the end. Its steps
// are given to tell; an error of tell ends it.
func (d *Directory) Apply(ctx context.Context, o Application, entries iter.Seq2[Entry, error], tell func(Applied) error) error {
	v, err := d.view(ctx)
	if err != nil {
		return err
	}
	a := &applying{Directory: d, Application: o, view: v, tell: tell, zookie: v.Zookie(), seed: maphash.MakeSeed(), names: map[uint64]struct{}{},
		gone: map[tuple.Object]bool{}, coming: map[tuple.Object]bool{}}
	defer func() { a.view.Close() }()
	next, stop := iter.Pull2(entries)
	defer stop()
	a.entries = next
	if err := a.advance(); err != nil {
		return err
	}
	for _, k := range []scim.Kind{scim.User, scim.Group} {
		if err := a.identities(ctx, k); err != nil {
			return err
		}
	}
	for _, stage := range []func(context.Context) error{a.weigh, a.late, a.memberships, a.refuse, a.removals, a.leaveGroups} {
		if err := stage(ctx); err != nil {
			return err
		}
	}
	return a.told(true)
}

// applying is an application under way.
type applying struct {
	*Directory
	Application
	view    *view
	entries func() (Entry, error, bool)
	tell    func(Applied) error

	entry   *Entry // the next one; nil: there are no more
	zookie  string
	steps   []Step
	batch   []pendingIdentity
	waiting []pendingIdentity // for a name that another has
	// names are the digests of the names that only one can have.
	names map[uint64]struct{}
	seed  maphash.Seed

	removalsOf
	gone   map[tuple.Object]bool // who is removed; but for those beyond MaxRemovals
	coming map[tuple.Object]bool // of a dry run, who would be created or changed
}

// pendingIdentity is a user or group to be written.
type pendingIdentity struct {
	step     Step
	resource *scim.Resource
	was      *datastore.Identity // nil: it is created
}

// advance reads the next entry.
func (a *applying) advance() error {
	e, err, ok := a.entries()
	switch {
	case err != nil:
		return err
	case !ok:
		a.entry = nil
		return nil
	case a.entry != nil && a.entry.compare(&e) >= 0:
		return fmt.Errorf("%w: %s comes after %s; send users, groups and memberships each in the order of their ids, and each once", datastore.ErrInvalid, &e, a.entry)
	}
	a.entry = &e
	return nil
}

// maxSteps bounds the steps that are told at once.
const maxSteps = 500

func (a *applying) did(s Step) error {
	s.Entry.Attributes = nil
	if a.steps = append(a.steps, s); len(a.steps) < maxSteps {
		return nil
	}
	return a.told(false)
}

func (a *applying) told(complete bool) error {
	if len(a.steps) == 0 && !complete {
		return nil
	}
	part := Applied{Zookie: a.zookie, Steps: a.steps, Complete: complete}
	if complete && a.refusal != nil {
		part.Refusal = a.refusal.Error()
	}
	err := a.tell(part)
	a.steps = nil
	return err
}

// identities compares the users, or the groups, that come with those there are.
func (a *applying) identities(ctx context.Context, k scim.Kind) error {
	there, stop := iter.Pull2(a.view.all(ctx, k))
	defer stop()
	now, err, more := there()
	for err == nil && (more || a.entry != nil && a.entry.Kind == k) {
		order := -1
		if a.entry != nil && a.entry.Kind == k {
			if order = 1; more {
				order = cmp.Compare(now.Object.ID, a.entry.ID)
			}
		}
		if more && order <= 0 {
			a.of(k).there++
		}
		if order < 0 { // there, and not to be
			a.leave(k, now.Object)
		} else if err := a.compare(ctx, k, now, order == 0); err != nil {
			return err
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
	return a.flush(ctx)
}

// all are the users or groups that are there, in the order of their ids.
func (v *view) all(ctx context.Context, k scim.Kind) iter.Seq2[datastore.Identity, error] {
	return func(yield func(datastore.Identity, error) bool) {
		q := datastore.IdentityQuery{Type: v.typeOf(k), Limit: lookedUp}
		for {
			var page []datastore.Identity
			if err := v.Identities(ctx, q, func(i datastore.Identity) bool {
				page = append(page, i)
				return true
			}); err != nil {
				yield(datastore.Identity{}, err)
				return
			}
			for _, i := range page {
				if q.After = i.Object.ID; live(&i, k) && !yield(i, nil) {
					return
				}
			}
			if len(page) < q.Limit {
				return
			}
		}
	}
}

// compare finds what the entry at hand changes.
func (a *applying) compare(ctx context.Context, k scim.Kind, now datastore.Identity, exists bool) error {
	e := a.entry
	fail := func(err error) error { return about(e, err) }
	if _, err := a.view.checked(k, e.ID); err != nil {
		return fail(err)
	}
	switch compiled, o := a.view.Schema(), a.view.objectOf(k, e.ID); {
	case compiled == nil:
		return fail(fmt.Errorf("%w; apply one first, with `pemba schema apply FILE`", datastore.ErrNoSchema))
	case compiled.Definition(o.Type) == nil:
		return fail(datastore.NoDefinition(kindOf(k), o))
	}
	attributes, err := scim.Merge(k, nil, e.Attributes, true)
	if err != nil {
		return fail(err)
	}
	if err := a.claim(k, attributes); err != nil {
		return fail(err)
	}
	at := time.Now().UTC()
	p := pendingIdentity{step: Step{Action: CreateIdentity, Entry: *e}, resource: &scim.Resource{Kind: k, ID: e.ID, Created: at, Modified: at, Attributes: withActive(k, attributes, true)}}
	if exists {
		old, err := resource(&now, k)
		if err != nil {
			return err
		}
		p.was, p.step.Action = &now, UpdateIdentity
		p.resource.Created, p.resource.Attributes = old.Created, withActive(k, attributes, now.State == datastore.Active)
		if p.step.Changed = differing(old.Attributes, p.resource.Attributes); p.step.Changed == nil {
			return nil
		}
	}
	if a.DryRun {
		a.coming[a.view.objectOf(k, e.ID)] = true
		return a.did(p.step)
	}
	if a.batch = append(a.batch, p); len(a.batch) < MaxCreated {
		return nil
	}
	return a.flush(ctx)
}

// claim refuses a name that another of the directory has already.
func (a *applying) claim(k scim.Kind, attributes scim.Object) error {
	for _, key := range attributeKeys(k, attributes) {
		if !key.Unique {
			continue
		}
		digest := maphash.String(a.seed, string(k)+"\x00"+key.Name+"\x00"+key.Value)
		if _, taken := a.names[digest]; taken {
			return datastore.With(fmt.Errorf("another %s of the directory has the %s %q, too: %w", nounOf(k), key.Name, attributes[key.Name], datastore.ErrAlreadyExists), "attribute", key.Name)
		}
		a.names[digest] = struct{}{}
	}
	return nil
}

// differing are the names of attributes that two sets do not share.
func differing(a, b scim.Object) (names []string) {
	all := maps.Clone(a)
	maps.Copy(all, b)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !reflect.DeepEqual(a[name], b[name]) {
			names = append(names, name)
		}
	}
	return names
}

// flush writes the users or groups gathered so far. Those who would have a name of
// another wait until that one has gone.
func (a *applying) flush(ctx context.Context) error {
	batch := a.batch
	a.batch = nil
	left, err := a.write(ctx, batch)
	a.waiting = append(a.waiting, left...)
	return err
}

// write writes some users or groups in one change, or where that is not possible
// one at a time. It returns those who would have a name of another.
func (a *applying) write(ctx context.Context, batch []pendingIdentity) (left []pendingIdentity, err error) {
	if len(batch) == 0 {
		return nil, nil
	}
	r := a.request("")
	for _, p := range batch {
		state, replaces := datastore.Active, new(datastore.Revision)
		if p.was != nil {
			state, *replaces = p.was.State, p.was.Revision
		}
		u, err := a.view.shape.identity(p.resource, state)
		if err != nil {
			return nil, err
		}
		u.Expected = replaces
		r.Identities = append(r.Identities, u)
	}
	out, err := a.Datastore.Write(ctx, a.Store, r)
	switch {
	case err == nil:
		a.zookie = out.Zookie
		for _, p := range batch {
			if err := a.did(p.step); err != nil {
				return nil, err
			}
		}
		return nil, nil
	case len(batch) > 1 && (errors.Is(err, datastore.ErrAlreadyExists) || errors.Is(err, datastore.ErrPrecondition)):
		for _, p := range batch {
			waits, err := a.write(ctx, []pendingIdentity{p})
			if err != nil {
				return nil, err
			}
			left = append(left, waits...)
		}
		return left, nil
	case errors.Is(err, datastore.ErrPrecondition), errors.Is(err, datastore.ErrAlreadyExists) && datastore.Facts(err)["attribute"] == "":
		return nil, a.anew(ctx, batch[0]) // another changed or created it meanwhile
	case errors.Is(err, datastore.ErrAlreadyExists):
		return batch, nil
	}
	return nil, about(&batch[0].step.Entry, err)
}

// anew writes one user or group whatever others made of it.
func (a *applying) anew(ctx context.Context, p pendingIdentity) error {
	k := p.resource.Kind
	w, err := a.Update(ctx, k, p.resource.ID, Change{Attributes: func(scim.Object) (scim.Object, error) { return p.resource.Attributes, nil }})
	if errors.Is(err, datastore.ErrNoIdentity) {
		made, created := a.Create(ctx, k, []Draft{{ID: p.resource.ID, Attributes: p.resource.Attributes}}, "")
		if err = created; err == nil {
			w = made[0]
		}
	}
	if err != nil {
		return about(&p.step.Entry, err)
	}
	a.zookie = w.Zookie
	return a.did(p.step)
}

// late writes those who waited for a name. Who has it goes first.
func (a *applying) late(ctx context.Context) error {
	if len(a.waiting) > 0 {
		if err := a.removals(ctx); err != nil {
			return err
		}
	}
	for len(a.waiting) > 0 {
		before := len(a.waiting)
		var left []pendingIdentity
		for batch := range slices.Chunk(a.waiting, MaxCreated) {
			waits, err := a.write(ctx, batch)
			if err != nil {
				return err
			}
			left = append(left, waits...)
		}
		if a.waiting = left; len(left) == before {
			if err := a.anew(ctx, left[0]); err != nil { // which says whose name it is
				return err
			}
			a.waiting = left[1:]
		}
	}
	return nil
}
