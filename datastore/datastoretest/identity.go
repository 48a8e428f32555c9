package datastoretest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/tuple"
)

// people are users, groups and memberships in the most naive form.
type people struct {
	identities map[tuple.Object]datastore.Identity
	members    map[tuple.Key]bool
}

func (p people) copy() people { return people{maps.Clone(p.identities), maps.Clone(p.members)} }

// withheld reports whether o is denied everything.
func (p people) withheld(o tuple.Object) bool { return p.identities[o].State.Withheld() }

// holder is the identity that has a user name.
func (p people) holder(name string) (tuple.Object, bool) {
	for o, i := range p.identities {
		for _, k := range i.Keys {
			if k.Value == name {
				return o, true
			}
		}
	}
	return tuple.Object{}, false
}

// inside reports whether a user is a member of a group, by whatever way.
func (p people) inside(user, group tuple.Object, seen map[tuple.Object]bool) bool {
	if seen[group] {
		return false
	}
	seen[group] = true
	for k := range p.members {
		if k.Object == group && (k.Subject.Object == user || k.Subject.Relation != "" && p.inside(user, k.Subject.Object, seen)) {
			return true
		}
	}
	return false
}

// provisioned is a store with every state it was in.
type provisioned struct {
	states  []people
	zookies []string
	erased  map[tuple.Object]datastore.Revision
}

func (m *provisioned) last() people { return m.states[len(m.states)-1] }

var (
	allUsers  = []tuple.Object{{Type: "user", ID: "a"}, {Type: "user", ID: "b"}, {Type: "user", ID: "c"}}
	allGroups = []tuple.Object{{Type: "group", ID: "g"}, {Type: "group", ID: "h"}}
)

// attributesOf makes attributes with a key for the user name in them.
func attributesOf(name string) (string, []datastore.IdentityKey) {
	return fmt.Sprintf(`{"userName":%q}`, name), []datastore.IdentityKey{{Name: "userName", Value: name, Unique: true}}
}

// provision draws a request, and gives what it makes of p; false if it is to be
// refused.
func provision(t *rapid.T, p people) (r datastore.Request, next people, allowed bool) {
	next = p.copy()
	user := rapid.SampledFrom(allUsers).Draw(t, "user")
	now, found := p.identities[user]
	exists := found && now.State != datastore.Removed
	put := func(state datastore.IdentityState, name string) {
		u := datastore.IdentityUpdate{Object: user, Kind: datastore.User, State: state}
		if name != "" {
			u.Attributes, u.Keys = attributesOf(name)
		}
		r.Identities = []datastore.IdentityUpdate{u}
		next.identities[user] = datastore.Identity{Object: user, Kind: u.Kind, State: state, Attributes: u.Attributes, Keys: u.Keys}
	}
	name := rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "name")
	holder, taken := p.holder(name)
	free := !taken || holder == user
	switch rapid.SampledFrom([]string{"create", "change", "remove", "erase", "join", "leave"}).Draw(t, "step") {
	case "create":
		put(datastore.Active, name)
		r.Identities[0].Expected = new(datastore.Revision)
		return r, next, free && !exists
	case "change":
		put(rapid.SampledFrom([]datastore.IdentityState{datastore.Active, datastore.Suspended}).Draw(t, "state"), name)
		return r, next, free
	case "remove":
		put(datastore.Removed, "")
		if !exists {
			next = p.copy() // nothing is there to remove
		}
		r.Detach = []tuple.Filter{{Subject: tuple.SubjectFilter{Type: user.Type, ID: user.ID}}}
		maps.DeleteFunc(next.members, func(k tuple.Key, _ bool) bool { return k.Subject.Object == user })
	case "erase":
		r.Erase = &user
		return r, next, found && !exists
	default:
		group := rapid.SampledFrom(allGroups).Draw(t, "group")
		subject := tuple.Subject{Object: user}
		if rapid.Bool().Draw(t, "nested") {
			subject = tuple.Subject{Object: rapid.SampledFrom(allGroups).Draw(t, "member"), Relation: "member"}
		}
		k := tuple.Key{Object: group, Relation: "member", Subject: subject}
		kind := rapid.SampledFrom([]datastore.Kind{datastore.Touch, datastore.Delete}).Draw(t, "kind")
		r.Updates = []datastore.Update{{Kind: kind, Relationship: tuple.Relationship{Key: k}}}
		if delete(next.members, k); kind == datastore.Touch {
			next.members[k] = true
		}
	}
	return r, next, true
}

// identityAndAccessAgree tests that who a person is, what relationships say, and
// what checks answer agree at every revision, whatever is provisioned, in memory
// and read directly, over restarts.
func identityAndAccessAgree(t *testing.T, log datastore.Log) {
	log = shared(log)
	made := 0
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.SampledFrom([]int{0, 1}).Draw(t, "most in memory")
		options := keeper.Options{SweepEvery: time.Hour, ResidentMaxRelationships: most, DirectWidth: 64}
		open := func() *keeper.Keeper {
			k, err := keeper.Open(log, options)
			if err != nil {
				t.Fatal(err)
			}
			return k
		}
		k := open()
		defer func() { k.Close() }()
		made++
		created, err := k.Write(bg, datastore.System, datastore.Request{Actor: "ada", CreateStore: &datastore.Store{Name: fmt.Sprintf("p-%d", made)}})
		if err != nil {
			t.Fatal(err)
		}
		store := created.Store.ID
		o := apply(t, k, store)
		empty := people{map[tuple.Object]datastore.Identity{}, map[tuple.Key]bool{}}
		m := &provisioned{states: []people{empty, empty}, zookies: []string{"", o.Zookie}, erased: map[tuple.Object]datastore.Revision{}}
		for i := range rapid.IntRange(1, 12).Draw(t, "steps") {
			if rapid.IntRange(0, 9).Draw(t, "restart") == 0 {
				k.Close()
				k = open()
			}
			r, next, allowed := provision(t, m.last())
			r.ID = fmt.Sprintf("request %d", i)
			o, err := k.Write(bg, store, r)
			if (err == nil) != allowed {
				t.Fatalf("the request %+v gives %v, and is allowed: %t", r, err, allowed)
			}
			if err != nil || int(o.Revision) < len(m.states) {
				continue // refused, or nothing to do
			}
			m.follow(r, o, next)
			again, err := k.Write(bg, store, r)
			if err != nil || !again.Repeated || again.Revision != o.Revision {
				t.Fatalf("the same request again gives %+v, %v", again, err)
			}
		}
		if _, err := k.Verify(bg, store, nil); err != nil {
			t.Fatal(err)
		}
		options.Direct = true
		direct := open()
		defer direct.Close()
		for revision := 1; revision < len(m.states); revision++ {
			for _, k := range []*keeper.Keeper{k, direct} {
				s, err := k.At(bg, store, datastore.Consistency{Level: datastore.AtExactSnapshot, Zookie: m.zookies[revision]})
				if err != nil {
					t.Fatal(err)
				}
				m.agree(t, s)
			}
		}
		beyondTheWindow(t, log, store)
		past(t, k, store, nil, m.zookies, func(t *rapid.T, s datastore.Snapshot) {
			withheld, err := s.Withheld(bg)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range allUsers {
				if p := m.states[s.Head().Revision]; withheld.Has(o) != p.withheld(o) {
					t.Fatalf("revision %d: that %s is denied everything is %t", s.Head().Revision, o, withheld.Has(o))
				}
			}
		})
	})
}

func (m *provisioned) follow(r datastore.Request, o datastore.Outcome, next people) {
	at := datastore.Revision(len(m.states))
	for _, u := range r.Identities {
		i, ok := next.identities[u.Object]
		if !ok {
			continue // there was nothing to remove
		}
		if before, ok := m.last().identities[u.Object]; !ok || before.State != i.State || before.Attributes != i.Attributes || i.State != datastore.Removed && m.erased[u.Object] >= before.Revision {
			i.Revision = at
		} else {
			i.Revision = before.Revision
		}
		next.identities[u.Object] = i
	}
	if r.Erase != nil {
		m.erased[*r.Erase] = at
	}
	m.states, m.zookies = append(m.states, next), append(m.zookies, o.Zookie)
}

// agree compares a snapshot with the model.
func (m *provisioned) agree(t *rapid.T, s datastore.Snapshot) {
	revision := s.Head().Revision
	p := m.states[revision]
	withheld, err := s.Withheld(bg)
	if err != nil {
		t.Fatal(err)
	}
	want := map[tuple.Object]datastore.Identity{}
	for o, i := range p.identities {
		if i.Keys = nil; i.Revision <= m.erased[o] {
			i.Attributes = ""
		}
		want[o] = i
	}
	got := map[tuple.Object]datastore.Identity{}
	if err := s.Identities(bg, datastore.IdentityQuery{Type: "user"}, func(i datastore.Identity) bool {
		if digest := datastore.IdentityDigest(i.Salt, i.Attributes); (digest == [32]byte{}) != (len(i.Salt) == 0) {
			t.Fatalf("%+v has the digest %x", i, digest)
		}
		i.Salt = nil
		got[i.Object] = i
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("revision %d has the identities\n%v, want\n%v", revision, got, want)
	}
	for _, user := range allUsers {
		if withheld.Has(user) != p.withheld(user) {
			t.Fatalf("revision %d: %s is withheld: %t", revision, user, withheld.Has(user))
		}
		for _, group := range allGroups {
			a, err := graph.Check(bg, s, graph.Question{Resource: group, Permission: "member", Subject: tuple.Subject{Object: user}}, start, graph.Limits{})
			if want := p.inside(user, group, map[tuple.Object]bool{}) && !p.withheld(user); err != nil || (a.Outcome == graph.Yes) != want {
				t.Fatalf("revision %d: %s in %s gives %v, %v; want %t", revision, user, group, a.Outcome, err, want)
			}
		}
	}
}

// identitiesAreKept tests what a Log keeps of identities that one Update writes
// several versions of, and finds by their keys.
func identitiesAreKept(t *testing.T, log datastore.Log) {
	rapid.Check(t, func(t *rapid.T) {
		store, m := line(t, log)
		var versions []datastore.Identity // all, in order
		keys, states := map[tuple.Object][]datastore.IdentityKey{}, map[tuple.Object]datastore.IdentityState{}
		for range rapid.IntRange(1, 4).Draw(t, "updates") {
			head, err := log.Update(bg, store, m.head, func(datastore.Tail) (entries []datastore.Entry, _ error) {
				for range rapid.IntRange(1, 3).Draw(t, "changes") {
					e := genVersions(t, m, states)
					m.append(e)
					for _, i := range e.Identities {
						keys[i.Object] = i.Keys
						i.Keys = nil
						versions = append(versions, i)
					}
					for _, o := range e.Operations {
						if o.Kind == datastore.Erase {
							eraseAll(versions, *o.Erased)
							delete(keys, *o.Erased)
						}
					}
					entries = append(entries, e)
				}
				return entries, nil
			})
			if err != nil || head != m.head {
				t.Fatalf("head %+v, %v; want %+v", head, err, m.head)
			}
		}
		for at := datastore.Revision(0); at <= m.head.Revision; at++ {
			for _, q := range identityQueries() {
				var got []datastore.Identity
				if err := log.Identities(bg, store, at, q, func(i datastore.Identity) bool {
					got = append(got, i)
					return true
				}); err != nil {
					t.Fatal(err)
				}
				if want := selected(versions, keys, at, q); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Fatalf("%+v at revision %d gives\n%v, want\n%v", q, at, got, want)
				}
			}
		}
		holdersAreFound(t, log, store, keys)
		if err := log.Identities(bg, store, m.head.Revision+1, datastore.IdentityQuery{Type: "user"}, func(datastore.Identity) bool { return true }); !errors.Is(err, datastore.ErrAhead) {
			t.Fatalf("beyond the head: %v", err)
		}
	})
}

// holdersAreFound compares who has some keys with the model's.
func holdersAreFound(t *rapid.T, log datastore.Log, store datastore.StoreID, keys map[tuple.Object][]datastore.IdentityKey) {
	var asked []datastore.IdentityKey
	for _, name := range []string{"x", "y", "é\n'", "nobody"} {
		if rapid.Bool().Draw(t, "ask for "+name) {
			_, k := attributesOf(name)
			asked = append(asked, k...)
		}
	}
	for _, typ := range []string{"user", "group", "other"} {
		var want, got []string
		for o, has := range keys {
			for _, k := range has {
				if o.Type == typ && slices.Contains(asked, k) {
					want = append(want, fmt.Sprint(k.Name, k.Value, o.ID))
				}
			}
		}
		if err := log.Holders(bg, store, typ, asked, func(k datastore.IdentityKey, id string) {
			got = append(got, fmt.Sprint(k.Name, k.Value, id))
		}); err != nil {
			t.Fatal(err)
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("%v of type %s are of %q, want %q", asked, typ, got, want)
		}
	}
}

// genVersions draws a change that writes versions of some identities, or erases
// one; states are those before, and then after it.
func genVersions(t *rapid.T, m *model, states map[tuple.Object]datastore.IdentityState) datastore.Entry {
	var operations []datastore.Operation
	var identities []datastore.Identity
	for _, o := range rapid.SliceOfNDistinct(rapid.SampledFrom(slices.Concat(allUsers, allGroups)), 0, 3, rapid.ID[tuple.Object]).Draw(t, "objects") {
		i := datastore.Identity{Object: o, Kind: datastore.User, Revision: m.head.Revision + 1,
			State: rapid.SampledFrom([]datastore.IdentityState{datastore.Active, datastore.Suspended, datastore.Removed}).Draw(t, "state")}
		if i.State != datastore.Removed {
			i.Salt = datastore.NewSalt()
			i.Attributes, i.Keys = attributesOf(rapid.SampledFrom([]string{"x", "y", "é\n'"}).Draw(t, "name"))
		}
		identities = append(identities, i)
		operations = append(operations, datastore.Operation{Kind: datastore.PutIdentity, Identity: &datastore.IdentityPut{
			Object: o, Kind: i.Kind, State: i.State, Before: states[o], Digest: datastore.IdentityDigest(i.Salt, i.Attributes)}})
		states[o] = i.State
	}
	if rapid.IntRange(0, 3).Draw(t, "erase") == 0 {
		o := rapid.SampledFrom(allUsers).Draw(t, "erased")
		operations = append(operations, datastore.Operation{Kind: datastore.Erase, Erased: &o})
	}
	e, err := m.seal(operations, "")
	if err != nil {
		t.Fatal(err)
	}
	e.Identities = identities
	return e
}

func eraseAll(versions []datastore.Identity, o tuple.Object) {
	for i := range versions {
		if versions[i].Object == o {
			versions[i].Salt, versions[i].Attributes = nil, ""
		}
	}
}

func identityQueries() []datastore.IdentityQuery {
	x, strange := datastore.IdentityKey{Name: "userName", Value: "x"}, datastore.IdentityKey{Name: "userName", Value: "é\n'"}
	return []datastore.IdentityQuery{
		{Type: "user"}, {Type: "user", After: "a"}, {Type: "user", Limit: 1}, {Type: "user", After: "a", Limit: 1}, {Type: "group"}, {Type: "use"},
		{Withheld: true}, {Type: "user", Withheld: true}, {Type: "user", Key: &x}, {Type: "user", Key: &strange}, {Type: "user", Key: &x, After: "a"},
		{Objects: []tuple.Object{allUsers[2], allGroups[0], allUsers[0], {Type: "user", ID: "nobody"}}},
		{Versions: true}, {Objects: allUsers[:1], Versions: true},
	}
}

// selected is what q asks for at a revision, by brute force.
func selected(versions []datastore.Identity, keys map[tuple.Object][]datastore.IdentityKey, at datastore.Revision, q datastore.IdentityQuery) (found []datastore.Identity) {
	objects := map[tuple.Object][]datastore.Identity{}
	for _, i := range versions {
		objects[i.Object] = append(objects[i.Object], i)
	}
	for _, o := range slices.SortedFunc(maps.Keys(objects), tuple.Object.Compare) {
		if len(q.Objects) > 0 && !slices.Contains(q.Objects, o) || q.Type != "" && o.Type != q.Type || q.After != "" && o.ID <= q.After {
			continue
		}
		if q.Key != nil && !slices.ContainsFunc(keys[o], func(k datastore.IdentityKey) bool { return k.Name == q.Key.Name && k.Value == q.Key.Value }) {
			continue
		}
		if q.Versions {
			found = append(found, objects[o]...)
			continue
		}
		var newest *datastore.Identity
		for i := range objects[o] {
			if objects[o][i].Revision <= at {
				newest = &objects[o][i]
			}
		}
		if newest != nil && (!q.Withheld || newest.State.Withheld()) && (q.Limit == 0 || len(found) < q.Limit) {
			found = append(found, *newest)
		}
	}
	return found
}
