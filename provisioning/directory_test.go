package provisioning_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/file"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/datastore/sql"
	"github.com/pembadb/pemba/datastore/sql/cockroach"
	"github.com/pembadb/pemba/datastore/sql/postgres"
	"github.com/pembadb/pemba/datastore/sql/sqltest"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/provisioning"
	"github.com/pembadb/pemba/provisioning/scim"
	"github.com/pembadb/pemba/tuple"
)

func TestMain(m *testing.M) { sqltest.Main(m) }

const testSchema = `
definition user {}
definition group {
	relation member: user | group#member
}
definition document {
	relation viewer: user | group#member
	permission view = viewer
}
`

// open opens a directory over a log whose default store has the schema.
func open(t testing.TB, log datastore.Log, o keeper.Options) provisioning.SCIM {
	t.Helper()
	k, err := keeper.Open(log, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	st, err := k.StoreByName(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Write(t.Context(), st.ID, datastore.Request{Schema: &datastore.SchemaUpdate{Text: testSchema}}); err != nil {
		t.Fatal(err)
	}
	return provisioning.SCIM{Directory: &provisioning.Directory{Datastore: k, Store: st.ID, Actor: "test", Reason: "SCIM", Counts: provisioning.NewCounts()}}
}

// people are a directory in its most naive form.
type people struct {
	kept    map[scim.Kind]map[string]scim.Object
	members map[string]map[scim.Member]bool
	version map[string]string
}

func (p *people) taken(k scim.Kind, id string, o scim.Object) bool {
	for other, has := range p.kept[k] {
		if other != id && (k == scim.User && strings.EqualFold(has["userName"].(string), o["userName"].(string)) || has["externalId"] != nil && has["externalId"] == o["externalId"]) {
			return true
		}
	}
	return false
}

// change applies a member change; false if somebody who comes does not exist.
func (p *people) change(group string, c *scim.MemberChange) bool {
	next := maps.Clone(p.members[group])
	if c.Replace || next == nil {
		next = map[scim.Member]bool{}
	}
	for _, m := range c.Remove {
		for _, k := range []scim.Kind{scim.User, scim.Group} {
			if m.Kind == "" || m.Kind == k {
				delete(next, scim.Member{ID: m.ID, Kind: k})
			}
		}
	}
	for _, m := range c.Add {
		if m.Kind == "" {
			if m.Kind = scim.Group; p.kept[scim.User][m.ID] != nil {
				m.Kind = scim.User
			}
		}
		if p.kept[m.Kind][m.ID] == nil {
			return false
		}
		next[m] = true
	}
	p.members[group] = next
	return true
}

func (p *people) ids(k scim.Kind) []string { return slices.Sorted(maps.Keys(p.kept[k])) }

func draw(t *rapid.T, k scim.Kind) scim.Object {
	o := scim.Object{}
	name := rapid.SampledFrom([]string{"ada", "ADA", "bob", "cy", "dee"}).Draw(t, "name")
	if k == scim.Group {
		o["displayName"] = name
	} else {
		o["userName"] = name
		if active := rapid.SampledFrom([]string{"", "true", "false"}).Draw(t, "active"); active != "" {
			o["active"] = active == "true"
		}
		if rapid.Bool().Draw(t, "mail") {
			o["emails"] = []any{scim.Object{"value": name + "@example.com", "primary": true}}
		}
	}
	if id := rapid.SampledFrom([]string{"", "x", "X", "y"}).Draw(t, "external id"); id != "" {
		o["externalId"] = id
	}
	return o
}

func (p *people) drawMembers(t *rapid.T, label string) (list []scim.Member) {
	for range rapid.IntRange(0, 3).Draw(t, label) {
		k := rapid.SampledFrom([]scim.Kind{scim.User, scim.User, scim.Group}).Draw(t, "kind of member")
		m := scim.Member{ID: rapid.SampledFrom(append(p.ids(k), "nobody")).Draw(t, "member"), Kind: k}
		if rapid.Bool().Draw(t, "untyped") {
			m.Kind = ""
		}
		list = append(list, m)
	}
	return list
}

// TestDirectoryAgreesWithANaiveOne has random changes made, and compares with maps
// what a view finds after each: by id, by key, in pages, by member, in number, and
// whether a check grants access by membership and to nobody who is suspended.
func TestDirectoryAgreesWithANaiveOne(t *testing.T) {
	for name, log := range map[string]func(*testing.T) datastore.Log{
		"memory": func(*testing.T) datastore.Log { return memory.New() },
		"file": func(t *testing.T) datastore.Log {
			log, err := file.Open(filepath.Join(t.TempDir(), "pemba.db"), file.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return log
		},
		"PostgreSQL": func(t *testing.T) datastore.Log {
			return openSQL(t, postgres.Dialect, sqltest.Postgres(t), postgres.Open)
		},
		"CockroachDB": func(t *testing.T) datastore.Log {
			return openSQL(t, cockroach.Dialect, sqltest.Cockroach(t), cockroach.Open)
		},
	} {
		for _, most := range []int{0, 1} {
			if name == "PostgreSQL" && most == 0 || name == "CockroachDB" && most == 1 {
				continue // each is slow, and both ways to read are tried on the others
			}
			t.Run(fmt.Sprintf("%s, at most %d in memory", name, most), func(t *testing.T) {
				d := open(t, log(t), keeper.Options{ResidentMaxRelationships: most, DirectWidth: 8})
				p := &people{map[scim.Kind]map[string]scim.Object{scim.User: {}, scim.Group: {}}, map[string]map[scim.Member]bool{}, map[string]string{}}
				rapid.Check(t, func(t *rapid.T) {
					rounds := 1
					if !strings.HasSuffix(name, "SQL") && !strings.HasSuffix(name, "DB") {
						rounds = 10 // no read is a round trip
					}
					for range rounds {
						for range 4 {
							p.step(t, d)
						}
						p.compare(t, d)
					}
				})
			})
		}
	}
}

func openSQL(t *testing.T, d *sql.Dialect, uri string, open func(context.Context, string, sql.Options) (*sql.Log, error)) datastore.Log {
	if err := sql.Migrate(t.Context(), d, uri, sql.Options{}, 0, func(sql.Step) {}); err != nil {
		t.Fatal(err)
	}
	log, err := open(context.Background(), uri, sql.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func (p *people) step(t *rapid.T, d provisioning.SCIM) {
	ctx := context.Background()
	k := rapid.SampledFrom([]scim.Kind{scim.User, scim.Group}).Draw(t, "kind")
	id := rapid.SampledFrom(append(p.ids(k), "nobody")).Draw(t, "id")
	version := rapid.SampledFrom([]string{"", "", "current", "1"}).Draw(t, "version")
	if version == "current" {
		version = p.version[id]
	}
	old, exists := p.kept[k][id]
	stale := exists && version != "" && version != p.version[id]
	switch rapid.SampledFrom([]string{"create", "update", "update", "delete"}).Draw(t, "step") {
	case "create":
		draft := scim.Draft{Attributes: draw(t, k)}
		if k == scim.Group {
			draft.Members = p.drawMembers(t, "members")
		}
		made, err := d.Create(ctx, k, []scim.Draft{draft})
		ok := p.change("new", &scim.MemberChange{Replace: true, Add: draft.Members})
		members := p.members["new"]
		delete(p.members, "new")
		switch {
		case !ok:
			refused(t, err, http.StatusBadRequest)
		case p.taken(k, "", draft.Attributes):
			refused(t, err, http.StatusConflict)
		case err != nil:
			t.Fatal(err)
		default:
			p.keep(t, made[0], nil, draft.Attributes)
			p.members[made[0].ID] = members
		}
	case "update":
		c := scim.Change{Version: version}
		if rapid.Bool().Draw(t, "attributes") {
			c.Attributes = draw(t, k)
		}
		if k == scim.Group && rapid.Bool().Draw(t, "change members") {
			c.Members = &scim.MemberChange{Replace: rapid.Bool().Draw(t, "replace"), Add: p.drawMembers(t, "add")}
			if !c.Members.Replace {
				c.Members.Remove = p.drawMembers(t, "remove")
			}
		}
		r, err := d.Update(ctx, k, id, c)
		before := maps.Clone(p.members)
		switch {
		case !exists:
			refused(t, err, http.StatusNotFound)
		case stale:
			if !errors.Is(err, scim.ErrVersion) {
				t.Fatalf("version %s, not %s: %v", version, p.version[id], err)
			}
		case c.Members != nil && !p.change(id, c.Members):
			refused(t, err, http.StatusBadRequest)
		case c.Attributes != nil && p.taken(k, id, c.Attributes):
			p.members = before
			refused(t, err, http.StatusConflict)
		case err != nil:
			t.Fatal(err)
		default:
			next := c.Attributes
			if next == nil {
				next = old
			}
			p.keep(t, r, old, next)
		}
	case "delete":
		err := d.Delete(ctx, k, id, version)
		switch {
		case !exists:
			refused(t, err, http.StatusNotFound)
		case stale:
			if !errors.Is(err, scim.ErrVersion) {
				t.Fatal(err)
			}
		case err != nil:
			t.Fatal(err)
		default:
			delete(p.kept[k], id)
			delete(p.members, id)
			for _, all := range p.members {
				delete(all, scim.Member{ID: id, Kind: k})
			}
		}
	}
}

// keep notes a resource as it was answered; "active" left out stays as it was.
func (p *people) keep(t *rapid.T, r *scim.Resource, old, next scim.Object) {
	want := maps.Clone(next)
	if r.Kind == scim.User && want["active"] == nil {
		want["active"] = old == nil || old["active"] == true
	}
	if !reflect.DeepEqual(want, r.Attributes) {
		t.Fatalf("answered %v, want %v", r.Attributes, want)
	}
	p.kept[r.Kind][r.ID], p.version[r.ID] = want, r.Version
}

func refused(t *rapid.T, err error, status int) {
	t.Helper()
	var e *scim.Error
	if !errors.As(err, &e) || e.Status != status {
		t.Fatalf("want status %d: %v", status, err)
	}
}

// compare compares all that a view tells with the maps.
func (p *people) compare(t *rapid.T, d provisioning.SCIM) {
	ctx := context.Background()
	v, err := d.View(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for k, all := range p.kept {
		if n, err := v.Count(ctx, k); err != nil || n != len(all) {
			t.Fatalf("%d of %s, want %d: %v", n, k, len(all), err)
		}
		p.compareList(t, v, scim.Query{Kind: k, Limit: 2}, func(string, scim.Object) bool { return true })
		for _, name := range []string{"ada", "BOB", "x", "X", "zed"} {
			for _, attribute := range []string{"userName", "displayName", "externalId"} {
				if k == scim.User && attribute == "displayName" || k == scim.Group && attribute == "userName" {
					continue
				}
				p.compareList(t, v, scim.Query{Kind: k, Key: &scim.Key{Attribute: attribute, Value: name}, Limit: 2}, func(_ string, o scim.Object) bool {
					has, _ := o[attribute].(string)
					return has == name || attribute != "externalId" && strings.EqualFold(has, name)
				})
			}
		}
		for id, want := range all {
			r, err := v.Get(ctx, k, id)
			if err != nil || !reflect.DeepEqual(r.Attributes, want) || r.Version != p.version[id] || r.Created.IsZero() || r.Modified.Before(r.Created) {
				t.Fatalf("%s %s is %+v, want %v of version %s: %v", k, id, r, want, p.version[id], err)
			}
			p.compareList(t, v, scim.Query{Kind: scim.Group, Key: &scim.Key{Attribute: "members.value", Value: id}, Limit: 1}, func(g string, _ scim.Object) bool {
				return p.members[g][scim.Member{ID: id, Kind: scim.User}] || p.members[g][scim.Member{ID: id, Kind: scim.Group}]
			})
		}
	}
	for g := range p.kept[scim.Group] {
		p.compareMembers(t, d, v, g)
	}
}

func (p *people) compareList(t *rapid.T, v scim.View, q scim.Query, is func(string, scim.Object) bool) {
	var want, got []string
	for _, id := range p.ids(q.Kind) {
		if is(id, p.kept[q.Kind][id]) {
			want = append(want, id)
		}
	}
	for {
		page, err := v.List(context.Background(), q)
		if err != nil || len(page) > q.Limit {
			t.Fatalf("%d of %d: %v", len(page), q.Limit, err)
		}
		for _, r := range page {
			got = append(got, r.ID)
			q.After = r.ID
		}
		if len(page) < q.Limit {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%+v gives %v, want %v", q, got, want)
	}
}

func (p *people) compareMembers(t *rapid.T, d provisioning.SCIM, v scim.View, group string) {
	ctx := context.Background()
	got := map[scim.Member]bool{}
	for after := (*scim.Member)(nil); ; {
		page, err := v.Members(ctx, group, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range page {
			name, _ := p.kept[m.Kind][m.ID]["displayName"].(string)
			if m.Kind == scim.User {
				name = p.kept[m.Kind][m.ID]["userName"].(string)
			}
			if m.Display != name {
				t.Fatalf("%v should be shown as %q", m, name)
			}
			got[scim.Member{ID: m.ID, Kind: m.Kind}] = true
			after = &page[i]
		}
		if len(page) < 2 {
			break
		}
	}
	if len(got) != len(p.members[group]) || !maps.Equal(got, p.members[group]) {
		t.Fatalf("members %v, want %v", got, p.members[group])
	}
	snapshot := v.(datastore.Snapshot)
	for id, o := range p.kept[scim.User] {
		is, err := v.HasMember(ctx, group, id)
		if err != nil || is != got[scim.Member{ID: id, Kind: scim.User}] {
			t.Fatalf("%s in %s: %t, %v", id, group, is, err)
		}
		answer, err := graph.Check(ctx, snapshot, graph.Question{Resource: tuple.Object{Type: "group", ID: group}, Permission: "member", Subject: tuple.Subject{Object: tuple.Object{Type: "user", ID: id}}}, time.Now(), graph.Limits{})
		if want := o["active"] == true && p.inside(id, group, map[string]bool{}); err != nil || (answer.Outcome == graph.Yes) != want {
			t.Fatalf("%s has access by %s: %v, want %t: %v", id, group, answer, want, err)
		}
	}
}

// inside reports whether a user is a member of a group by whatever way.
func (p *people) inside(user, group string, seen map[string]bool) bool {
	if seen[group] {
		return false
	}
	seen[group] = true
	for m := range p.members[group] {
		if m.Kind == scim.User && m.ID == user || m.Kind == scim.Group && p.inside(user, m.ID, seen) {
			return true
		}
	}
	return false
}
