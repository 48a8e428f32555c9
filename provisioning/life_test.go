package provisioning_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/file"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/datastore/sql/cockroach"
	"github.com/pembadb/pemba/datastore/sql/postgres"
	"github.com/pembadb/pemba/datastore/sql/sqltest"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/provisioning"
	"github.com/pembadb/pemba/provisioning/scim"
	"github.com/pembadb/pemba/tuple"
)

var lives = flag.Int("lives", 1, "multiplies the random lives of TestLife")

// company is users, groups and relationships in their most naive form. It is
// changed by copying.
type company struct {
	users  map[string]person
	groups map[string]string // display name by id
	rels   map[string]bool
}

type person struct {
	state   datastore.IdentityState
	name    string // user name; empty of one who was removed
	display string
	created bool // not only shut out
}

func (c company) copy() company {
	return company{maps.Clone(c.users), maps.Clone(c.groups), maps.Clone(c.rels)}
}

func (c company) live(user string) bool {
	s := c.users[user].state
	return s == datastore.Active || s == datastore.Suspended
}

func (c company) taken(name, by string) bool {
	for id, p := range c.users {
		if id != by && strings.EqualFold(p.name, name) {
			return true
		}
	}
	return false
}

func (c company) removeWhere(match func(r tuple.Relationship) bool) {
	maps.DeleteFunc(c.rels, func(text string, _ bool) bool {
		r, err := tuple.Parse(text)
		return err == nil && match(r)
	})
}

// holds reports whether a user is among the subjects of a relation, by whatever
// way.
func (c company) holds(object, relation, user string, seen map[string]bool) bool {
	at := object + "#" + relation
	if seen[at] {
		return false
	}
	seen[at] = true
	for text := range c.rels {
		subject, ok := strings.CutPrefix(text, at+"@")
		if !ok {
			continue
		}
		if subject == "user:"+user || subject == "user:*" {
			return true
		}
		if group, ok := strings.CutSuffix(subject, "#member"); ok && c.holds(group, "member", user, seen) {
			return true
		}
	}
	return false
}

func (c company) views(user, document string) bool {
	return !c.users[user].state.Withheld() && c.holds(document, "viewer", user, map[string]bool{})
}

// String shows what a comparison is of. Attributes are no part of the history, so
// states folded from it have none.
func (c company) String() string {
	var lines []string
	for id, p := range c.users {
		lines = append(lines, fmt.Sprint(id, " ", p.state))
	}
	for id := range c.groups {
		lines = append(lines, id)
	}
	lines = slices.AppendSeq(lines, maps.Keys(c.rels))
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// step is a thing that somebody does, and what it makes of a company; false if it
// is to be refused.
type step struct {
	name   string
	do     func(d *provisioning.Directory) error
	effect func(c company) bool
	// retried steps have a request id, so that they can be done again after a crash.
	retried bool
	// offboards is the user whom the step offboards, in many changes.
	offboards string
}

// world is a company on two nodes, what it should be, and what it was at each
// revision as its history says.
type world struct {
	t       *testing.T
	r       *rand.Rand
	log     datastore.Log
	nodes   [2]*keeper.Keeper
	now     company
	folded  []company // by revision
	erased  map[string]datastore.Revision
	digests map[tuple.Object]map[datastore.Revision][32]byte
	pending []pendingStep
	ids     int
}

// pendingStep is a step whose node crashed, and that is to be done again.
type pendingStep struct {
	step
	done bool
}

type kept struct{ datastore.Log }

func (kept) Close() error { return nil } // the world outlives its nodes

func (w *world) open(n int, most int) {
	k, err := keeper.Open(kept{w.log}, keeper.Options{SweepEvery: time.Hour, ResidentMaxRelationships: most, DirectWidth: 16})
	if err != nil {
		w.t.Fatal(err)
	}
	w.nodes[n] = k
}

var (
	lifeUsers     = []string{"u0", "u1", "u2", "u3"}
	lifeGroups    = []string{"g0", "g1", "g2"}
	lifeDocuments = []string{"document:d0", "document:d1"}
)

func (w *world) user() string  { return lifeUsers[w.r.IntN(len(lifeUsers))] }
func (w *world) group() string { return lifeGroups[w.r.IntN(len(lifeGroups))] }
func (w *world) id() string    { w.ids++; return fmt.Sprint("r", w.ids) }

// member draws a user or group, and what it is as a subject.
func (w *world) member() (scim.Member, string) {
	if w.r.IntN(3) == 0 {
		id := w.group()
		return scim.Member{Kind: scim.Group, ID: id}, "group:" + id + "#member"
	}
	id := w.user()
	return scim.Member{Kind: scim.User, ID: id}, "user:" + id
}

func (c company) known(m scim.Member) bool {
	if m.Kind == scim.Group {
		_, ok := c.groups[m.ID]
		return ok
	}
	return c.live(m.ID)
}

// on is the directory on a node, which perhaps crashes.
func (w *world) on(crash bool, others int, after bool) *provisioning.Directory {
	var ds datastore.Datastore = w.nodes[w.r.IntN(2)]
	if crash {
		ds = provisioning.Crashing(ds, others, after)
	}
	return &provisioning.Directory{Datastore: ds, Store: datastore.Default, Actor: "admin", Reason: "life"}
}

// run does a step and follows it in the model.
func (w *world) run(s step) {
	crash, after := s.retried && w.r.IntN(4) == 0, w.r.IntN(2) == 0
	others := 0
	if s.offboards != "" {
		others = w.r.IntN(5)
	}
	err := s.do(w.on(crash, others, after))
	next := w.now.copy()
	allowed := s.effect(next)
	w.fold()
	switch {
	case errors.Is(err, provisioning.ErrCrash) && s.offboards != "":
		w.halfway(s.offboards)
		w.pending = append(w.pending, pendingStep{step: s})
	case errors.Is(err, provisioning.ErrCrash):
		if after && allowed {
			w.now = next
		}
		w.pending = append(w.pending, pendingStep{s, after && allowed})
	case err == nil != allowed:
		w.t.Fatalf("%s: %v, allowed %v, of\n%s", s.name, err, allowed, w.now)
	case allowed:
		w.now = next
	}
	w.agree(s.name)
}

// halfway takes over what an offboarding that broke off came to.
func (w *world) halfway(user string) {
	last := w.folded[len(w.folded)-1]
	began := last.users[user].state.Withheld()
	for text := range w.now.rels {
		if !last.rels[text] && !(began && strings.HasSuffix(text, "@user:"+user)) {
			w.t.Fatalf("offboarding %s removed %s", user, text)
		}
	}
	if p := w.now.users[user]; last.users[user].state != p.state {
		p.state = last.users[user].state
		w.now.users[user] = p
	}
	maps.DeleteFunc(w.now.rels, func(text string, _ bool) bool { return !last.rels[text] })
}

// again does a step again whose node crashed.
func (w *world) again() {
	i := w.r.IntN(len(w.pending))
	p := w.pending[i]
	w.pending = slices.Delete(w.pending, i, i+1)
	err := p.do(w.on(false, 0, false))
	w.fold()
	next := w.now.copy()
	allowed := p.effect(next)
	switch {
	case p.done: // whatever it says, nothing happens a second time
	case err == nil != allowed:
		w.t.Fatalf("%s, again: %v, allowed %v, of\n%s", p.name, err, allowed, w.now)
	case allowed:
		w.now = next
	}
	w.agree(p.name + ", again")
}

// fold follows the history.
func (w *world) fold() {
	k := w.nodes[w.r.IntN(2)]
	for c, err := range k.History(context.Background(), datastore.Default, datastore.Revision(len(w.folded))) {
		if err != nil {
			w.t.Fatal(err)
		}
		at := w.folded[len(w.folded)-1].copy()
		for _, o := range c.Operations {
			w.foldOne(at, c.Revision, o)
		}
		w.folded = append(w.folded, at)
	}
}

func (w *world) foldOne(at company, revision datastore.Revision, o datastore.Operation) {
	switch o.Kind {
	case datastore.Create, datastore.Touch:
		at.rels[o.Relationship.String()] = true
	case datastore.Delete:
		delete(at.rels, o.Relationship.String())
	case datastore.Erase:
		w.erased[o.Erased.ID] = revision
	case datastore.PutIdentity:
		if w.digests[o.Identity.Object] == nil {
			w.digests[o.Identity.Object] = map[datastore.Revision][32]byte{}
		}
		w.digests[o.Identity.Object][revision] = o.Identity.Digest
		id := o.Identity.Object.ID
		switch {
		case o.Identity.Kind == datastore.User:
			at.users[id] = person{state: o.Identity.State}
		case o.Identity.State == datastore.Removed:
			delete(at.groups, id)
		default:
			at.groups[id] = id
		}
	}
}

// agree compares what the history says with what should be.
func (w *world) agree(after string) {
	w.t.Helper()
	if got, want := w.folded[len(w.folded)-1].String(), w.now.String(); got != want {
		w.t.Fatalf("after %s there is\n%s\n\nwant\n%s", after, got, want)
	}
}

// everywhere compares every revision, on both nodes, with what the history says:
// who there is, the relationships, what checks answer; and names with the model at
// the head.
func (w *world) everywhere() {
	ctx := context.Background()
	for _, k := range w.nodes {
		head, err := k.Head(ctx, datastore.Default)
		if err != nil || int(head.Revision) != len(w.folded)-1 {
			w.t.Fatalf("the head is %d, %v; the history has %d", head.Revision, err, len(w.folded)-1)
		}
		for at := range w.folded[1:] {
			at := datastore.Revision(at + 1)
			h, err := k.HeadAt(ctx, datastore.Default, at)
			if err != nil {
				w.t.Fatal(err)
			}
			s, err := k.At(ctx, datastore.Default, datastore.Consistency{Level: datastore.AtExactSnapshot, Zookie: h.Zookie(datastore.Default).String()})
			if err != nil {
				w.t.Fatal(err)
			}
			w.snapshot(s, w.folded[at], at == head.Revision)
			s.Close()
		}
	}
}

func (w *world) snapshot(s datastore.Snapshot, want company, newest bool) {
	ctx, at := context.Background(), s.Head().Revision
	got := company{map[string]person{}, map[string]string{}, map[string]bool{}}
	for _, typ := range []string{"user", "group"} {
		if err := s.Identities(ctx, datastore.IdentityQuery{Type: typ}, func(i datastore.Identity) bool {
			if digest := w.digests[i.Object][i.Revision]; i.Revision > w.erased[i.Object.ID] && datastore.IdentityDigest(i.Salt, i.Attributes) != digest {
				w.t.Errorf("revision %d: the attributes of %s are not those of revision %d", at, i.Object, i.Revision)
			}
			var attributes struct{ UserName, DisplayName string }
			if i.Attributes != "" {
				if err := json.Unmarshal([]byte(i.Attributes), &attributes); err != nil {
					w.t.Error(err)
				}
			}
			if i.Kind == datastore.User {
				now := w.now.users[i.Object.ID]
				p := person{i.State, attributes.UserName, attributes.DisplayName, now.created}
				if newest && p != now {
					w.t.Errorf("%s is %v, want %v", i.Object, p, now)
				}
				got.users[i.Object.ID] = p
			} else if i.State != datastore.Removed {
				got.groups[i.Object.ID] = i.Object.ID
			}
			return true
		}); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := s.Rows(ctx, datastore.RowQuery{}, time.Now(), func(r datastore.Row) bool {
		got.rels[r.Relationship.String()] = true
		return true
	}); err != nil {
		w.t.Fatal(err)
	}
	if got.String() != want.String() {
		w.t.Fatalf("revision %d has\n%s\n\nwant\n%s", at, got, want)
	}
	for _, user := range lifeUsers {
		for _, document := range lifeDocuments {
			typ, id, _ := strings.Cut(document, ":")
			a, err := graph.Check(ctx, s, graph.Question{Resource: tuple.Object{Type: typ, ID: id}, Permission: "view", Subject: tuple.Subject{Object: tuple.Object{Type: "user", ID: user}}}, time.Now(), graph.Limits{})
			if err != nil || (a.Outcome == graph.Yes) != want.views(user, document) {
				w.t.Fatalf("revision %d: that %s views %s is %v, %v, of\n%s", at, user, document, a.Outcome, err, want)
			}
		}
	}
}

const lifeSchema = `definition user {}
definition group { relation member: user | group#member }
definition document { relation viewer: user | user:* | group#member  permission view = viewer }`

// TestLife interleaves provisioning, SCIM, writes of relationships, suspensions,
// offboarding, crashes before and after a commit, retries and restarts at random,
// on two nodes: who there is, the relationships and what checks answer are what a
// naive model says, at every revision, on every datastore.
func TestLife(t *testing.T) {
	for name, c := range map[string]struct {
		seeds, steps int
		open         func(t *testing.T) datastore.Log
	}{
		"memory": {20, 120, func(*testing.T) datastore.Log { return memory.New() }},
		"file": {4, 80, func(t *testing.T) datastore.Log {
			log, err := file.Open(filepath.Join(t.TempDir(), "pemba.db"), file.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return log
		}},
		"PostgreSQL": {2, 60, func(t *testing.T) datastore.Log {
			return openSQL(t, postgres.Dialect, sqltest.Postgres(t), postgres.Open)
		}},
		"CockroachDB": {1, 50, func(t *testing.T) datastore.Log {
			return openSQL(t, cockroach.Dialect, sqltest.Cockroach(t), cockroach.Open)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(c.seeds * *lives) {
				t.Run(fmt.Sprint(seed), func(t *testing.T) { live(t, c.open(t), seed, c.steps) })
			}
		})
	}
}

func live(t *testing.T, log datastore.Log, seed uint64, steps int) {
	w := &world{t: t, r: rand.New(rand.NewPCG(seed, 7)), log: log, erased: map[string]datastore.Revision{}, digests: map[tuple.Object]map[datastore.Revision][32]byte{}}
	defer log.Close()
	w.now = company{map[string]person{}, map[string]string{}, map[string]bool{}}
	w.folded = []company{w.now.copy()}
	most := int(seed % 2) // in memory, or read directly
	for n := range w.nodes {
		w.open(n, most)
	}
	defer func() {
		for _, k := range w.nodes {
			k.Close()
		}
	}()
	if _, err := w.nodes[0].Write(t.Context(), datastore.Default, datastore.Request{Schema: &datastore.SchemaUpdate{Text: lifeSchema}}); err != nil {
		t.Fatal(err)
	}
	for range steps {
		switch n := w.r.IntN(20); {
		case n < 3 && len(w.pending) > 0:
			w.again()
		case n == 19:
			which := w.r.IntN(2)
			if err := w.nodes[which].Close(); err != nil {
				t.Fatal(err)
			}
			w.open(which, most)
		default:
			w.run(w.draw())
		}
	}
	for len(w.pending) > 0 {
		w.again()
	}
	w.everywhere()
}
