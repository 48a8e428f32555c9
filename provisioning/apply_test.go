package provisioning

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/provisioning/scim"
	"github.com/pembadb/pemba/tuple"
)

// company is a directory in its most naive form: attributes by kind and id, and
// memberships as text.
type company struct {
	people  map[scim.Kind]map[string]scim.Object
	members map[string]Entry
}

func newCompany() company {
	return company{map[scim.Kind]map[string]scim.Object{scim.User: {}, scim.Group: {}}, map[string]Entry{}}
}

// randomCompany draws a directory. Names wander between users, so that some must
// wait for another's.
func randomCompany(r *rand.Rand) company {
	c := newCompany()
	names := r.Perm(8)
	for n := range 6 {
		if r.IntN(3) > 0 {
			c.people[scim.User][fmt.Sprintf("u%d", n)] = scim.Object{"userName": fmt.Sprintf("name%d", names[n])}
		}
		if id := fmt.Sprintf("u%d", n); c.people[scim.User][id] != nil && r.IntN(3) == 0 {
			c.people[scim.User][id]["active"] = r.IntN(2) == 0
			c.people[scim.User][id]["displayName"] = fmt.Sprint(r.IntN(2))
		}
	}
	for n := range 4 {
		if r.IntN(3) > 0 {
			c.people[scim.Group][fmt.Sprintf("g%d", n)] = scim.Object{"displayName": fmt.Sprint(r.IntN(3))}
		}
	}
	for g := range c.people[scim.Group] {
		for k, list := range c.people {
			for id := range list {
				if r.IntN(3) == 0 {
					e := Entry{ID: g, Member: &scim.Member{Kind: k, ID: id}}
					c.members[e.String()] = e
				}
			}
		}
	}
	return c
}

// entries are the directory as it is applied.
func (c *company) entries() iter.Seq2[Entry, error] {
	var list []Entry
	for k, people := range c.people {
		for id, attributes := range people {
			list = append(list, Entry{Kind: k, ID: id, Attributes: attributes})
		}
	}
	list = slices.AppendSeq(list, maps.Values(c.members))
	slices.SortFunc(list, func(a, b Entry) int { return a.compare(&b) })
	return func(yield func(Entry, error) bool) {
		for _, e := range list {
			if !yield(e, nil) {
				return
			}
		}
	}
}

var applySeeds = flag.Uint64("applications", 50, "random directories that are applied")

const marked = `use expiration
// pemba:users
definition person {}
// pemba:groups member=belongs
definition team { relation belongs: person | person with expiration | robot | team#belongs }
definition robot {}
definition document { relation viewer: person | team#belongs }`

const unmarked = `use expiration
definition user {}
definition group { relation member: user | user with expiration | robot | group#member }
definition robot {}
definition document { relation viewer: user | group#member }`

// hired opens a directory whose store has a schema.
func hired(t *testing.T, text string) (*Directory, *keeper.Keeper) {
	t.Helper()
	k, err := keeper.Open(memory.New(), keeper.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	if _, err := k.Write(t.Context(), datastore.Default, datastore.Request{Schema: &datastore.SchemaUpdate{Text: text}}); err != nil {
		t.Fatal(err)
	}
	return &Directory{Datastore: k, Store: datastore.Default, Actor: "test"}, k
}

// found reads what is there.
func found(t *testing.T, d *Directory) company {
	t.Helper()
	v, err := d.view(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	c := newCompany()
	for k := range c.people {
		for i, err := range v.all(t.Context(), k) {
			if err != nil {
				t.Fatal(err)
			}
			r, err := resource(&i, k)
			if err != nil {
				t.Fatal(err)
			}
			c.people[k][r.ID] = r.Attributes
		}
	}
	if err := v.Rows(t.Context(), datastore.RowQuery{Filter: tuple.Filter{ObjectType: v.Group, Relation: v.Member}}, v.now, func(r datastore.Row) bool {
		if m, ok := v.memberOf(r.Subject); ok && c.people[scim.Group][r.Object.ID] != nil { // others are an application's own
			e := Entry{ID: r.Object.ID, Member: &m, loose: r.Relationship != tuple.Relationship{Key: r.Key}}
			c.members[e.String()] = e
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return c
}

// same compares what is there with what was to be; suspension apart where the
// directory did not say.
func same(t *testing.T, want, got company) {
	t.Helper()
	for k, people := range want.people {
		if !slices.Equal(slices.Sorted(maps.Keys(people)), slices.Sorted(maps.Keys(got.people[k]))) {
			t.Errorf("there are %v, want %v", got.people[k], people)
		}
		for id, attributes := range people {
			kept := maps.Clone(got.people[k][id])
			if _, said := attributes["active"]; !said {
				delete(kept, "active")
			}
			a, _ := json.Marshal(attributes)
			b, _ := json.Marshal(kept)
			if string(a) != string(b) {
				t.Errorf("%s is %s, want %s", id, b, a)
			}
		}
	}
	for text, e := range got.members {
		if e.loose {
			t.Errorf("%s is there for a time only", text)
		}
	}
	if a, b := slices.Sorted(maps.Keys(want.members)), slices.Sorted(maps.Keys(got.members)); !slices.Equal(a, b) {
		t.Errorf("memberships are %v, want %v", b, a)
	}
}

// disturb makes changes that no directory made: memberships for a time and of
// robots, and relationships of documents.
func disturb(t *testing.T, d *Directory, r *rand.Rand) {
	t.Helper()
	v, err := d.view(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	req := d.request("")
	touch := func(rel tuple.Relationship) {
		req.Updates = append(req.Updates, datastore.Update{Kind: datastore.Touch, Relationship: rel})
	}
	for n := range 4 {
		group, user := v.objectOf(scim.Group, fmt.Sprintf("g%d", n)), fmt.Sprintf("u%d", r.IntN(8))
		u := v.membership(datastore.Touch, group.ID, scim.Member{Kind: scim.User, ID: user})
		if r.IntN(2) == 0 {
			u.Relationship.Expiration = time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
		}
		touch(u.Relationship)
		touch(tuple.Relationship{Key: tuple.Key{Object: group, Relation: v.Member, Subject: tuple.Subject{Object: tuple.Object{Type: "robot", ID: "r"}}}})
		for _, s := range []tuple.Subject{v.subjectOf(scim.User, user), v.subjectOf(scim.Group, group.ID)} {
			touch(tuple.Relationship{Key: tuple.Key{Object: tuple.Object{Type: "document", ID: fmt.Sprint(n)}, Relation: "viewer", Subject: s}})
		}
	}
	if _, err := d.Datastore.Write(t.Context(), d.Store, req); err != nil {
		t.Fatal(err)
	}
}

// steps applies a directory and returns what it did, sorted.
func steps(t *testing.T, d *Directory, c company, o Application) []string {
	t.Helper()
	var list []string
	complete := false
	err := d.Apply(context.Background(), o, c.entries(), func(a Applied) error {
		for _, s := range a.Steps {
			about := s.Entry.String()
			if s.Action == Orphan || s.Action == RemoveOrphan {
				about = s.Relationship.String()
			}
			list = append(list, fmt.Sprint(s.Action, " ", about, " ", s.Changed))
		}
		complete = a.Complete
		return nil
	})
	if err != nil || !complete {
		t.Fatalf("applied %v, complete %v", err, complete)
	}
	slices.Sort(list)
	return list
}

// TestApplyMakesTheDirectory: whatever was there before and whoever made it, a plan
// tells what the application then does, after which everything is as the directory
// says; the same again changes nothing, and where it was broken off by a crash the
// same again completes it.
func TestApplyMakesTheDirectory(t *testing.T) {
	for seed := range *applySeeds {
		r := rand.New(rand.NewPCG(seed, 6))
		text := unmarked
		if seed%2 == 1 {
			text = marked
		}
		d, k := hired(t, text)
		o := Application{MaxRemovals: 100, RemoveMost: true, RemoveOrphans: r.IntN(2) == 0}
		plan := o
		plan.DryRun = true
		for range 3 {
			c, before := randomCompany(r), found(t, d)
			planned := steps(t, d, c, plan)
			if r.IntN(3) == 0 {
				d.Datastore = &crashing{Datastore: k, in: 1 + r.IntN(6), after: r.IntN(2) == 0}
				if err := d.Apply(t.Context(), o, c.entries(), func(Applied) error { return nil }); err != nil && !errors.Is(err, errCrash) {
					t.Fatalf("seed %d: %v", seed, err)
				}
				d.Datastore = k
				steps(t, d, c, o)
			} else {
				rels := relationships(t, d)
				if did := steps(t, d, c, o); !slices.Equal(planned, did) {
					t.Fatalf("seed %d: planned %v, did %v", seed, planned, did)
				}
				toldAll(t, d, planned, rels)
			}
			same(t, c, found(t, d))
			if again := steps(t, d, c, o); again != nil {
				t.Errorf("seed %d: the same again did %v", seed, again)
			}
			if o.RemoveOrphans {
				noOrphans(t, d, before, c)
			}
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
			disturb(t, d, r)
		}
	}
}

// relationships are all there are, as a step tells them.
func relationships(t *testing.T, d *Directory) map[string]bool {
	t.Helper()
	v, err := d.view(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	there := map[string]bool{}
	for _, typ := range []string{v.User, v.Group, "robot", "document"} {
		if err := v.Rows(t.Context(), datastore.QueryFor(tuple.Filter{ObjectType: typ}), v.now, func(r datastore.Row) bool {
			about := r.Relationship.String()
			if m, ok := v.memberOf(r.Subject); ok && v.isMembership(r.Relationship) {
				about = (&Entry{ID: r.Object.ID, Member: &m}).String()
			}
			there[about] = true
			return true
		}); err != nil {
			t.Fatal(err)
		}
	}
	return there
}

// toldAll compares what steps say of relationships with what came and went.
func toldAll(t *testing.T, d *Directory, steps []string, there map[string]bool) {
	t.Helper()
	for _, s := range steps {
		var action Action
		_, about, _ := strings.Cut(strings.TrimSuffix(s, " []"), " ")
		fmt.Sscan(s, &action)
		switch action {
		case AddMember:
			there[about] = true
		case RemoveMember, RemoveOrphan:
			if !there[about] {
				t.Errorf("what was not there goes: %s", about)
			}
			delete(there, about)
		case Orphan:
			if !there[about] {
				t.Errorf("what is not there stays: %s", about)
			}
		}
	}
	if now := relationships(t, d); !maps.Equal(now, there) {
		t.Errorf("there is %v, and the steps say %v", slices.Sorted(maps.Keys(now)), slices.Sorted(maps.Keys(there)))
	}
}

// noOrphans looks for relationships that name who was there and no longer is.
func noOrphans(t *testing.T, d *Directory, before, c company) {
	t.Helper()
	v, err := d.view(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for k, people := range before.people {
		for id := range people {
			for _, f := range naming(v.objectOf(k, id)) {
				if c.people[k][id] != nil {
					continue
				}
				if err := v.Rows(t.Context(), datastore.QueryFor(f), v.now, func(r datastore.Row) bool {
					t.Errorf("%s names %s %s, who was removed", r.Relationship, k, id)
					return true
				}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// A directory that would remove more than it may, of users, groups and memberships
// together, removes nothing, and its plan says so.
func TestApplyRemovesNotTooMany(t *testing.T) {
	all := newCompany()
	for n := range 12 {
		id := fmt.Sprintf("u%02d", n)
		all.people[scim.User][id] = scim.Object{"userName": id}
		all.people[scim.Group]["g"] = scim.Object{"displayName": "G"}
		e := Entry{ID: "g", Member: &scim.Member{Kind: scim.User, ID: id}}
		all.members[e.String()] = e
	}
	without := func(users, members int) company {
		c := newCompany()
		c.people[scim.Group]["g"] = all.people[scim.Group]["g"]
		for _, id := range slices.Sorted(maps.Keys(all.people[scim.User]))[users:] {
			c.people[scim.User][id] = all.people[scim.User][id]
		}
		for _, text := range slices.Sorted(maps.Keys(all.members))[max(users, members):] {
			c.members[text] = all.members[text]
		}
		return c
	}
	for _, c := range []struct {
		what         string
		to           company
		o            Application
		says         string // empty: it is done
		removals, of string
	}{
		{"users with their memberships, one too many", without(2, 0), Application{MaxRemovals: 3}, "2 users, 2 memberships, and at most 3 may be", "4", "3"},
		{"users with their memberships", without(2, 0), Application{MaxRemovals: 4}, "", "", ""},
		{"more memberships than may be", without(0, 3), Application{MaxRemovals: 2}, "3 memberships, and at most 2 may be", "3", "2"},
		{"as many memberships as may be", without(0, 3), Application{MaxRemovals: 3}, "", "", ""},
		{"users and memberships that count together", without(1, 3), Application{MaxRemovals: 3}, "1 user, 3 memberships, and at most 3 may be", "4", "3"},
		{"more than half of the users", without(7, 0), Application{MaxRemovals: 100}, "7 of 12 users, which is more than half", "7", "6"},
		{"half of the users", without(6, 0), Application{MaxRemovals: 100}, "", "", ""},
		{"more than half of the memberships", without(0, 7), Application{MaxRemovals: 100}, "7 of 12 memberships, which is more than half", "7", "6"},
		{"more than half, allowed", without(7, 9), Application{MaxRemovals: 100, RemoveMost: true}, "", "", ""},
		{"everybody", newCompany(), Application{MaxRemovals: 100}, "12 of 12 users, which is more than half", "12", "6"},
		{"nothing may go", without(1, 0), Application{}, "and at most 0 may be", "1", "0"},
		{"nothing may go, and nothing goes", all, Application{}, "", "", ""},
	} {
		d, _ := hired(t, unmarked)
		steps(t, d, all, Application{})
		plan, refusal := c.o, ""
		plan.DryRun = true
		if err := d.Apply(t.Context(), plan, c.to.entries(), func(a Applied) error { refusal = a.Refusal; return nil }); err != nil {
			t.Fatal(err)
		}
		err := d.Apply(t.Context(), c.o, c.to.entries(), func(Applied) error { return nil })
		if c.says == "" {
			if err != nil || refusal != "" {
				t.Errorf("%s: %v; the plan says %q", c.what, err, refusal)
			}
			same(t, c.to, found(t, d))
			continue
		}
		if !errors.Is(err, ErrRemovals) || !strings.Contains(err.Error(), c.says+"; nothing was removed") || datastore.Facts(err)["removals"] != c.removals || datastore.Facts(err)["maximum"] != c.of {
			t.Errorf("%s: %v %v", c.what, err, datastore.Facts(err))
		}
		if !strings.Contains(refusal, c.says) || strings.Contains(refusal, "nothing was") {
			t.Errorf("%s: the plan says %q", c.what, refusal)
		}
		same(t, all, found(t, d))
	}
}

// Where somebody is to have a name of one who goes, that one goes first, and still
// not if too many would.
func TestApplyFreesNamesFirst(t *testing.T) {
	from, to := newCompany(), newCompany()
	for n := range 3 {
		from.people[scim.User][fmt.Sprintf("a%d", n)] = scim.Object{"userName": fmt.Sprint(n)}
		to.people[scim.User][fmt.Sprintf("b%d", n)] = scim.Object{"userName": fmt.Sprint(n)}
	}
	d, _ := hired(t, unmarked)
	steps(t, d, from, Application{})
	if err := d.Apply(t.Context(), Application{MaxRemovals: 2}, to.entries(), func(Applied) error { return nil }); !errors.Is(err, ErrRemovals) {
		t.Errorf("three of at most two: %v", err)
	}
	same(t, from, found(t, d))
	steps(t, d, to, Application{MaxRemovals: 3})
	same(t, to, found(t, d))
}

// What cannot be applied says why.
func TestApplyRefuses(t *testing.T) {
	user := func(id, name string) Entry {
		return Entry{Kind: scim.User, ID: id, Attributes: scim.Object{"userName": name}}
	}
	group := Entry{Kind: scim.Group, ID: "g", Attributes: scim.Object{"displayName": "G"}}
	member := func(id string) Entry { return Entry{ID: "g", Member: &scim.Member{Kind: scim.User, ID: id}} }
	for what, c := range map[string]struct {
		entries []Entry
		want    error
	}{
		"users out of order":    {[]Entry{user("b", "b"), user("a", "a")}, datastore.ErrInvalid},
		"a user twice":          {[]Entry{user("a", "a"), user("a", "b")}, datastore.ErrInvalid},
		"a user after a group":  {[]Entry{group, user("a", "a")}, datastore.ErrInvalid},
		"one name for two":      {[]Entry{user("a", "x"), user("b", "X")}, datastore.ErrAlreadyExists},
		"a member nobody knows": {[]Entry{group, member("nobody")}, ErrNoMember},
		"a group nobody knows":  {[]Entry{user("a", "a"), member("a")}, datastore.ErrNoIdentity},
		"an unknown attribute":  {[]Entry{{Kind: scim.User, ID: "a", Attributes: scim.Object{"userName": "a", "shoeSize": "9"}}}, nil},
		"no user name":          {[]Entry{{Kind: scim.User, ID: "a"}}, nil},
		"an id with a space":    {[]Entry{user("a b", "a")}, nil},
	} {
		for _, dry := range []bool{false, true} {
			d, _ := hired(t, unmarked)
			err := d.Apply(t.Context(), Application{DryRun: dry, MaxRemovals: 10}, func(yield func(Entry, error) bool) {
				for _, e := range c.entries {
					if !yield(e, nil) {
						return
					}
				}
			}, func(Applied) error { return nil })
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%s, dry run %v: %v", what, dry, err)
			}
		}
	}
}
