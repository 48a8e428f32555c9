package datastoretest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// timeline is a store of a Datastore in the most naive form: what lived at each revision.
type timeline struct {
	states  []map[tuple.Key]tuple.Relationship // by revision
	zookies []string
	times   []time.Time
}

func (m *timeline) last() map[tuple.Key]tuple.Relationship { return m.states[len(m.states)-1] }

// follow notes an outcome and the state it led to.
func (m *timeline) follow(o datastore.Outcome, state map[tuple.Key]tuple.Relationship) {
	m.states = append(m.states, state)
	m.zookies = append(m.zookies, o.Zookie)
	m.times = append(m.times, o.Time)
}

func (m *timeline) list(revision int, now time.Time) string {
	var texts []tuple.Relationship
	for _, r := range m.states[revision] {
		if !r.Expired(now) {
			texts = append(texts, r)
		}
	}
	slices.SortFunc(texts, func(a, b tuple.Relationship) int { return a.Key.Compare(b.Key) })
	var b strings.Builder
	for _, r := range texts {
		b.WriteString(r.String() + "\n")
	}
	return b.String()
}

var genFact = rapid.Custom(func(t *rapid.T) tuple.Relationship {
	document := "document:" + rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "document")
	user := "user:" + rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "user")
	group := "group:" + rapid.SampledFrom([]string{"a", "g"}).Draw(t, "group")
	text := rapid.SampledFrom([]string{
		document + "#viewer@" + user,
		document + "#viewer@" + user + "[on_day]",
		document + `#viewer@` + user + `[on_day:{"day":"monday"}]`,
		document + "#viewer@" + user + "[expiration:2026-01-01T00:00:30Z]",
		document + "#viewer@" + user + "[expiration:2026-01-01T00:01:00Z]",
		document + "#viewer@user:*",
		document + "#viewer@" + group + "#member",
		document + "#parent@document:3",
		group + "#member@" + user,
		group + "#member@group:g#member",
	}).Draw(t, "relationship")
	r, err := tuple.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
})

// distinct draws relationships of which no two have one key.
func distinct(t *rapid.T) []tuple.Relationship {
	return rapid.SliceOfNDistinct(genFact, 1, 4, func(r tuple.Relationship) tuple.Key { return r.Key }).Draw(t, "relationships")
}

// step draws a request, and gives what it makes of a state; nil if it is to be
// refused.
func step(t *rapid.T, state map[tuple.Key]tuple.Relationship, now time.Time) (datastore.Request, map[tuple.Key]tuple.Relationship) {
	next := map[tuple.Key]tuple.Relationship{}
	for k, r := range state {
		next[k] = r
	}
	var r datastore.Request
	switch rapid.IntRange(0, 5).Draw(t, "step") {
	case 0:
		filter := tuple.Filter{
			ObjectType: rapid.SampledFrom([]string{"document", "group"}).Draw(t, "type"),
			Relation:   rapid.SampledFrom([]string{"", "viewer", "member"}).Draw(t, "relation"),
			Subject:    rapid.SampledFrom([]tuple.SubjectFilter{{}, {Type: "user", ID: "a"}, {Type: "group"}, {Relation: tuple.Ellipsis}}).Draw(t, "subject"),
		}
		r.DeleteWhere = &filter
		for k, old := range state {
			if filter.Matches(old) {
				delete(next, k)
			}
		}
	case 1:
		o := tuple.Object{Type: "document", ID: rapid.SampledFrom([]string{"1", "2"}).Draw(t, "id")}
		s := datastore.Set{Object: o, Relation: "viewer"}
		for k := range state {
			if k.Object == o && k.Relation == "viewer" {
				delete(next, k)
			}
		}
		for _, rel := range distinct(t) {
			if rel.Object == o && rel.Relation == "viewer" {
				s.Relationships = append(s.Relationships, rel)
				next[rel.Key] = rel
			}
		}
		r.Sets = []datastore.Set{s}
	default:
		for _, rel := range distinct(t) {
			kind := rapid.SampledFrom([]datastore.Kind{datastore.Create, datastore.Touch, datastore.Touch, datastore.Delete}).Draw(t, "kind")
			r.Updates = append(r.Updates, datastore.Update{Kind: kind, Relationship: rel})
			old, found := state[rel.Key]
			switch {
			case kind == datastore.Delete:
				delete(next, rel.Key)
			case kind == datastore.Create && found && !old.Expired(now):
				return r, nil
			default:
				next[rel.Key] = rel
			}
		}
	}
	return r, next
}

// lists gives the rows of a snapshot in both orders, in the form of timeline.list,
// and checks that they have the same content.
func lists(t *rapid.T, s datastore.Snapshot, now time.Time) string {
	var both [2][]tuple.Relationship
	for i, bySubject := range []bool{false, true} {
		err := s.Rows(bg, datastore.RowQuery{BySubject: bySubject}, now, func(r datastore.Row) bool {
			both[i] = append(both[i], r.Relationship)
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if !slices.IsSortedFunc(both[1], func(a, b tuple.Relationship) int { return a.Key.CompareBySubject(b.Key) }) {
		t.Fatal("rows by subject are out of order")
	}
	slices.SortFunc(both[1], func(a, b tuple.Relationship) int { return a.Key.Compare(b.Key) })
	var b strings.Builder
	for i, r := range both[0] {
		if len(both[0]) != len(both[1]) || !r.Equal(both[1][i]) {
			t.Fatal("the two orders hold different rows")
		}
		b.WriteString(r.String() + "\n")
	}
	return b.String()
}

// word gives an edge its words.
func word(s datastore.Snapshot, e datastore.Edge) string {
	r := tuple.Relationship{Key: tuple.Key{Object: s.Object(e.Object), Relation: s.Names().Text(e.Relation),
		Subject: tuple.Subject{Object: s.Object(e.Subject), Relation: s.Names().Text(e.SubjectRelation)}}}
	r.Caveat = tuple.Caveat{Name: e.Caveat, Context: e.Context}
	if e.Expiration != 0 {
		r.Expiration = time.UnixMicro(e.Expiration).UTC()
	}
	return r.String()
}

// checkReads asks a snapshot every kind of query about every object, and compares
// with the timeline.
func checkReads(t *rapid.T, s datastore.Snapshot, state map[tuple.Key]tuple.Relationship) {
	ids := map[tuple.Object]datastore.ID{}
	for k := range state {
		for _, o := range []tuple.Object{k.Object, k.Subject.Object} {
			id, ok := s.ID(o)
			if !ok || s.Object(id) != o || s.Names().Text(s.Type(id)) != o.Type {
				t.Fatalf("%s has id %d (%t), which is %s", o, id, ok, s.Object(id))
			}
			ids[o] = id
		}
	}
	var queries []datastore.Query
	var want []func(tuple.Relationship) bool
	ask := func(q datastore.Query, f func(tuple.Relationship) bool) {
		queries, want = append(queries, q), append(want, f)
	}
	name := func(text string) schema.Name { n, _ := s.Names().ID(text); return n }
	for o, id := range ids {
		ask(datastore.Query{Object: id}, func(r tuple.Relationship) bool { return r.Object == o })
		ask(datastore.Query{Subject: id, AnySubjectRelation: true}, func(r tuple.Relationship) bool { return r.Subject.Object == o })
		for _, relation := range []string{"viewer", "member"} {
			ask(datastore.Query{Object: id, Relation: name(relation)}, func(r tuple.Relationship) bool { return r.Object == o && r.Relation == relation })
			ask(datastore.Query{Object: id, Relation: name(relation), UsersetsOnly: true}, func(r tuple.Relationship) bool {
				return r.Object == o && r.Relation == relation && r.Subject.Relation != ""
			})
			ask(datastore.Query{Subject: id, Relation: name(relation), AnySubjectRelation: true}, func(r tuple.Relationship) bool {
				return r.Subject.Object == o && r.Relation == relation
			})
			for _, userset := range []string{"", "member"} {
				ask(datastore.Query{Subject: id, SubjectRelation: name(userset), Relation: name(relation)}, func(r tuple.Relationship) bool {
					return r.Subject == tuple.Subject{Object: o, Relation: userset} && r.Relation == relation
				})
				for p, subject := range ids {
					ask(datastore.Query{Object: id, Relation: name(relation), Subject: subject, SubjectRelation: name(userset)}, func(r tuple.Relationship) bool {
						return r.Object == o && r.Relation == relation && r.Subject == tuple.Subject{Object: p, Relation: userset}
					})
				}
			}
		}
	}
	got := make([][]string, len(queries))
	if err := s.Read(bg, queries, func(q int, e datastore.Edge) bool {
		got[q] = append(got[q], word(s, e))
		return true
	}); err != nil {
		t.Fatal(err)
	}
	for i, q := range queries {
		var expected []string
		for _, r := range state {
			if want[i](r) {
				expected = append(expected, r.String())
			}
		}
		slices.Sort(expected)
		slices.Sort(got[i])
		if !slices.Equal(got[i], expected) {
			t.Fatalf("query %+v gives %v, want %v", q, got[i], expected)
		}
	}
}

// RunKeeper tests the keeper over a Log; open is as for [Run].
func RunKeeper(t *testing.T, open func(t *testing.T) datastore.Log) {
	t.Run("ARandomHistoryReadsTheSameInEveryWay", func(t *testing.T) { readsTheSameInEveryWay(t, open(t), nil) })
	t.Run("IdentityAndAccessAgreeAtEveryRevision", func(t *testing.T) { identityAndAccessAgree(t, open(t)) })
	t.Run("ReadersSeeNoGapAndNothingOlderThanTheirZookie", func(t *testing.T) { seesNoGap(t, open(t), keeper.Options{}) })
}

// RunCache tests the keeper with a cache of what it reads; cache makes an empty
// one.
func RunCache(t *testing.T, open func(t *testing.T) datastore.Log, cache func() datastore.RowCache) {
	t.Run("ARandomHistoryReadsTheSameInEveryWay", func(t *testing.T) { readsTheSameInEveryWay(t, open(t), cache()) })
	t.Run("ReadersSeeNoGapAndNothingOlderThanTheirZookie", func(t *testing.T) {
		seesNoGap(t, open(t), keeper.Options{Cache: cache(), ResidentMaxRelationships: 1})
	})
}

const testSchema = `use expiration

caveat on_day(day string) { day == "monday" }

definition user {}

definition group {
	relation member: user | group#member
}

definition document {
	relation parent: document
	relation viewer: user | user:* | group#member | user with on_day | user with expiration
	permission view = viewer + parent->view
}
`

// keptOpen shares a Log among Keepers, none of which closes it.
type keptOpen struct{ datastore.Log }

func (keptOpen) Close() error { return nil }

// distant is a Log that others write to, kept open, with all that it can do.
type distant struct {
	keptOpen
	datastore.Hinter
	datastore.HeadsReader
	datastore.ManyReader
}

// near is a Log of this process alone, kept open, with all that it can do.
type near struct {
	keptOpen
	datastore.HeadsReader
	datastore.ManyReader
}

func shared(log datastore.Log) datastore.Log {
	hints, ok := log.(datastore.Hinter)
	heads, ok2 := log.(datastore.HeadsReader)
	many, ok3 := log.(datastore.ManyReader)
	switch {
	case ok && ok2 && ok3:
		return distant{keptOpen{log}, hints, heads, many}
	case ok2 && ok3:
		return near{keptOpen{log}, heads, many}
	}
	return keptOpen{log}
}

// clock is a test's own time.
type clock struct{ now time.Time }

func (c *clock) add(d time.Duration) { c.now = c.now.Add(d) }
func (c *clock) Now() time.Time      { return c.now }

func apply(t rapid.TB, k *keeper.Keeper, store datastore.StoreID) datastore.Outcome {
	t.Helper()
	o, err := k.Write(bg, store, datastore.Request{Actor: "ada", Schema: &datastore.SchemaUpdate{Text: testSchema}})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func readsTheSameInEveryWay(t *testing.T, log datastore.Log, cache datastore.RowCache) {
	log = shared(log)
	made := 0
	rapid.Check(t, func(t *rapid.T) {
		c := &clock{now: start}
		// A store that has more relationships than may be in memory leaves it.
		most := rapid.SampledFrom([]int{0, 1, 4}).Draw(t, "most in memory")
		options := keeper.Options{Now: c.Now, SweepEvery: time.Hour, ResidentMaxRelationships: most, DirectWidth: 64, Cache: cache}
		k, err := keeper.Open(log, options)
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		m := &timeline{}
		made++
		made, err := k.Write(bg, datastore.System, datastore.Request{Actor: "ada", CreateStore: &datastore.Store{Name: fmt.Sprintf("s-%d", made)}})
		if err != nil {
			t.Fatal(err)
		}
		store := made.Store.ID
		o := apply(t, k, store)
		m.follow(datastore.Outcome{}, nil) // revision 0
		m.follow(o, map[tuple.Key]tuple.Relationship{})
		// Snapshots held while the store goes on must not change.
		var held []datastore.Snapshot
		for range rapid.IntRange(1, 15).Draw(t, "steps") {
			c.add(time.Duration(rapid.IntRange(-5, 20).Draw(t, "seconds")) * time.Second)
			// The time of a change never decreases.
			now := slices.MaxFunc([]time.Time{c.Now(), o.Time}, time.Time.Compare)
			r, next := step(t, m.last(), now)
			got, err := k.Write(bg, store, r)
			if (err != nil) != (next == nil) {
				t.Fatalf("the request %+v gives %v", r, err)
			}
			if next == nil {
				continue
			}
			if o = got; int(o.Revision) != len(m.states) || o.Time.Before(m.times[len(m.times)-1]) {
				t.Fatalf("revision %d at %s follows %d at %s", o.Revision, o.Time, len(m.states)-1, m.times[len(m.times)-1])
			}
			m.follow(o, next)
			s, err := k.At(bg, store, datastore.Consistency{})
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, s)
		}
		options.DirectWidth, options.Direct = 1, true
		narrow, err := keeper.Open(log, options)
		if err != nil {
			t.Fatal(err)
		}
		defer narrow.Close()
		for _, s := range held {
			checkReads(t, s, m.states[s.Head().Revision])
		}
		for revision := 1; revision < len(m.states); revision++ {
			for width, k := range map[int]*keeper.Keeper{64: k, 1: narrow} {
				s, err := k.At(bg, store, datastore.Consistency{Level: datastore.AtExactSnapshot, Zookie: m.zookies[revision]})
				if err != nil {
					t.Fatal(err)
				}
				if int(s.Head().Revision) != revision || s.Zookie() != m.zookies[revision] || !s.Head().Time.Equal(m.times[revision]) {
					t.Fatalf("the exact snapshot of %d has head %+v", revision, s.Head())
				}
				if resident := width == 64 && revision == len(m.states)-1; !resident && s.Width() != width {
					t.Fatalf("the width is %d, want %d", s.Width(), width)
				}
				if got, want := lists(t, s, c.Now()), m.list(revision, c.Now()); got != want {
					t.Fatalf("revision %d lists\n%s, want\n%s", revision, got, want)
				}
				checkReads(t, s, m.states[revision])
			}
		}
		compare := func(t *rapid.T, s datastore.Snapshot) { checkReads(t, s, m.states[s.Head().Revision]) }
		past(t, k, store, m.times, m.zookies, compare)
		beyondTheWindow(t, log, store)
		past(t, k, store, m.times, m.zookies, compare)
	})
}

func seesNoGap(t *testing.T, log datastore.Log, options keeper.Options) {
	var nodes []*keeper.Keeper
	options.MaxStaleness = 5 * time.Millisecond
	for range 2 {
		k, err := keeper.Open(shared(log), options)
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		nodes = append(nodes, k)
	}
	apply(t, nodes[0], datastore.Default)
	const writers, changes = 4, 60
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			// Each writer moves one document from user to user: whoever looks must find
			// exactly one viewer, and never an older one than the zookie's.
			id := fmt.Sprintf("w%d", w)
			newest := ""
			for i := range changes {
				k := nodes[i%len(nodes)]
				o, err := k.Write(bg, datastore.Default, datastore.Request{Sets: []datastore.Set{{
					Object: tuple.Object{Type: "document", ID: id}, Relation: "viewer",
					Relationships: []tuple.Relationship{create(fmt.Sprintf("document:%s#viewer@user:%03d", id, i)).Relationship},
				}}})
				if err != nil {
					t.Error(err)
					return
				}
				newest = o.Zookie
				for level, zookie := range map[datastore.Level]string{datastore.AtLeastAsFresh: newest, datastore.AtExactSnapshot: newest, datastore.FullyConsistent: ""} {
					s, err := nodes[(i+1)%len(nodes)].At(bg, datastore.Default, datastore.Consistency{Level: level, Zookie: zookie})
					if err != nil {
						t.Error(err)
						return
					}
					var viewers []string
					object, _ := s.ID(tuple.Object{Type: "document", ID: id})
					if err := s.Read(bg, []datastore.Query{{Object: object}}, func(_ int, e datastore.Edge) bool {
						viewers = append(viewers, s.Object(e.Subject).ID)
						return true
					}); err != nil {
						t.Error(err)
					}
					if len(viewers) != 1 || viewers[0] != fmt.Sprintf("%03d", i) || level == datastore.AtExactSnapshot && s.Head().Revision != o.Revision {
						t.Errorf("after change %d level %d shows %v at revision %d", i, level, viewers, s.Head().Revision)
					}
					s.Close()
				}
			}
		})
	}
	wg.Wait()
	next := datastore.Revision(1)
	for c, err := range nodes[1].History(bg, datastore.Default, 1) {
		if err != nil || c.Revision != next {
			t.Fatalf("change %d where %d was due, %v", c.Revision, next, err)
		}
		next++
	}
	if next != writers*changes+2 {
		t.Errorf("the history ends before %d", next)
	}
}
