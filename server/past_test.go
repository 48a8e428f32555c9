package server_test

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/graph"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
	"github.com/pembadb/pemba/tuple"
)

// pastSchemas take turns: what a permission means changes, too.
var pastSchemas = [2]string{`use expiration

definition user {}
definition group { relation member: user | group#member }
definition document {
	relation viewer: user | user:* | group#member | user with expiration
	relation banned: user
	permission view = viewer
	permission peek = viewer + banned
}
`, `use expiration

definition user {}
definition group { relation member: user | group#member }
definition document {
	relation viewer: user | user:* | group#member | user with expiration
	relation banned: user
	permission view = viewer - banned
	permission peek = viewer & banned
}
`}

func atTime(t time.Time) *pembav1.Consistency {
	return &pembav1.Consistency{Requirement: &pembav1.Consistency_AtTime{AtTime: timestamppb.New(t)}}
}

// world is a store with a history of its own time.
type pastWorld struct {
	*node
	r       *rand.Rand
	now     atomic.Int64 // Unix microseconds
	moments []pastMoment
}

// pastMoment is what was answered at a time.
type pastMoment struct {
	at      time.Time
	answers map[string]string // by question
}

var (
	pastDocuments = []string{"1", "2", "3"}
	pastUsers     = []string{"ada", "bea", "cai"}
)

func newPastWorld(t *testing.T, seed uint64, o keeper.Options) *pastWorld {
	w := &pastWorld{r: rand.New(rand.NewPCG(seed, 0))}
	w.now.Store(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro())
	o.Now, o.Retention, o.SweepEvery = func() time.Time { return time.UnixMicro(w.now.Load()).UTC() }, time.Hour, 10_000*time.Hour
	w.node = launch(t, memory.New(), o, server.Config{})
	return w
}

func (w *pastWorld) wait(d time.Duration) time.Time {
	return time.UnixMicro(w.now.Add(d.Microseconds())).UTC()
}

func (w *pastWorld) commit(t *testing.T, r datastore.Request) {
	t.Helper()
	r.Actor = "ada"
	if _, err := w.keeper.Write(t.Context(), datastore.Default, r); err != nil {
		t.Fatal(err)
	}
}

// step changes something: relationships, some of which end, who is suspended, or
// the schema.
func (w *pastWorld) step(t *testing.T) {
	pick := func(list []string) string { return list[w.r.IntN(len(list))] }
	document, user := "document:"+pick(pastDocuments), "user:"+pick(pastUsers)
	switch n := w.r.IntN(12); n {
	case 0:
		w.commit(t, datastore.Request{Schema: &datastore.SchemaUpdate{Text: pastSchemas[w.r.IntN(2)]}})
	case 1, 2:
		state := []datastore.IdentityState{datastore.Active, datastore.Suspended}[w.r.IntN(2)]
		w.commit(t, datastore.Request{Identities: []datastore.IdentityUpdate{{Object: tuple.Object{Type: "user", ID: pick(pastUsers)}, Kind: datastore.User, State: state, Attributes: `{"a":1}`}}})
	default:
		text := []string{document + "#viewer@" + user, document + "#banned@" + user, document + "#viewer@group:g#member", "group:g#member@" + user, document + "#viewer@user:*",
			document + "#viewer@" + user + "[expiration:" + w.wait(0).Add(time.Duration(w.r.IntN(300))*time.Second).Format(time.RFC3339) + "]",
		}[w.r.IntN(6)]
		r, err := tuple.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		kind := datastore.Touch
		if w.r.IntN(3) == 0 {
			kind = datastore.Delete
		}
		w.commit(t, datastore.Request{Updates: []datastore.Update{{Kind: kind, Relationship: r}}})
	}
}

func pastKey(document, permission, user string) string {
	return "document:" + document + " " + permission + " user:" + user
}

// remember notes all answers of now.
func (w *pastWorld) remember(t *testing.T) {
	m := pastMoment{at: w.wait(time.Second), answers: map[string]string{}}
	s, err := w.keeper.At(t.Context(), datastore.Default, datastore.Consistency{Level: datastore.FullyConsistent})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, d := range pastDocuments {
		for _, p := range []string{"view", "peek"} {
			for _, u := range pastUsers {
				q := graph.Question{Resource: tuple.Object{Type: "document", ID: d}, Permission: p, Subject: tuple.Subject{Object: tuple.Object{Type: "user", ID: u}}}
				a, err := graph.Check(t.Context(), s, q, m.at, graph.Limits{})
				if err != nil {
					t.Fatal(err)
				}
				m.answers[pastKey(d, p, u)] = fmt.Sprint(a.Outcome)
			}
		}
	}
	w.moments = append(w.moments, m)
}

// compare asks everything again, each as of its time, in any order.
func (w *pastWorld) compare(t *testing.T, when string) {
	for _, i := range w.r.Perm(len(w.moments)) {
		m := w.moments[i]
		yes := map[string][]string{}
		for q, want := range m.answers {
			if want == fmt.Sprint(graph.Yes) {
				yes[q[len(q)-len("user:ada"):]] = append(yes[q[len(q)-len("user:ada"):]], q)
			}
		}
		w.compareChecks(t, when, m)
		for _, u := range pastUsers {
			if got, want := w.reported(t, m.at, u), yes["user:"+u]; !sameSet(got, want) {
				t.Fatalf("%s, at %s: the report of %s is %v, want %v", when, m.at, u, got, want)
			}
			var documents []string
			for _, q := range yes["user:"+u] {
				if q[len("document:1 "):len("document:1 view")] == "view" {
					documents = append(documents, q[len("document:"):len("document:1")])
				}
			}
			if got := w.pages(t, m.at, u); !sameSet(got, documents) {
				t.Fatalf("%s, at %s: the documents of %s are %v, want %v", when, m.at, u, got, documents)
			}
		}
	}
}

func (w *pastWorld) compareChecks(t *testing.T, when string, m pastMoment) {
	r := &pembav1.BulkCheckRequest{Consistency: atTime(m.at)}
	var keys []string
	for _, d := range pastDocuments {
		for _, p := range []string{"view", "peek"} {
			for _, u := range pastUsers {
				keys = append(keys, pastKey(d, p, u))
				r.Items = append(r.Items, &pembav1.BulkCheckItem{Resource: &pembav1.Object{Type: "document", Id: d}, Permission: p, Subject: &pembav1.Subject{Type: "user", Id: u}})
			}
		}
	}
	out, err := w.permissions.BulkCheck(t.Context(), r)
	if err != nil {
		t.Fatalf("%s, at %s: %v", when, m.at, err)
	}
	for i, result := range out.Results {
		want := pembav1.Answer_ANSWER_NO_PERMISSION
		if m.answers[keys[i]] == fmt.Sprint(graph.Yes) {
			want = pembav1.Answer_ANSWER_HAS_PERMISSION
		}
		if result.Answer != want {
			t.Fatalf("%s, at %s: %s is %v, want %v", when, m.at, keys[i], result, want)
		}
	}
}

// reported are the questions that a report about a user answers with yes.
func (w *pastWorld) reported(t *testing.T, at time.Time, user string) (found []string) {
	lines, end := report(t, w.conn, &pembav1.ReportAccessRequest{Consistency: atTime(at),
		About: &pembav1.ReportAccessRequest_Subject{Subject: &pembav1.Subject{Type: "user", Id: user}}})
	if !end.End.Complete || int(end.End.HasPermission) != len(lines) {
		t.Fatalf("the report ends with %v", end)
	}
	return lines
}

// pages looks up what a user may view, in pages of two.
func (w *pastWorld) pages(t *testing.T, at time.Time, user string) (found []string) {
	r := viewedBy(user)
	r.Consistency, r.Limit = atTime(at), 2
	for {
		results, end, err := resources(t.Context(), w.conn, r)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range results {
			found = append(found, text[:1])
		}
		if end.Complete {
			return found
		}
		r.Cursor = end.Cursor
	}
}

// report returns the lines of a report as questions, and its last message.
func report(t *testing.T, conn *grpc.ClientConn, r *pembav1.ReportAccessRequest) (lines []string, last *pembav1.ReportAccessResponse) {
	t.Helper()
	stream, err := pembav1.NewAuditServiceClient(conn).ReportAccess(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range m.Access {
			text := a.Resource.Type + ":" + a.Resource.Id + " " + a.Permission + " " + a.Subject.Type + ":" + a.Subject.Id
			if a.Answer != pembav1.Answer_ANSWER_HAS_PERMISSION {
				text += " " + a.Answer.String()
			}
			lines = append(lines, text)
		}
		if m.End != nil {
			return lines, m
		}
	}
}

// What was answered at a time is answered of it for ever: while its rows are
// kept, and then from the history.
func TestAQuestionAboutThePastIsAnsweredAsItWasThen(t *testing.T) {
	for seed := range uint64(count(4, 60)) {
		w := newPastWorld(t, seed, keeper.Options{})
		start := w.wait(0)
		w.wait(time.Minute)
		w.commit(t, datastore.Request{Schema: &datastore.SchemaUpdate{Text: pastSchemas[0]}})
		for range 40 {
			w.wait(time.Duration(1+w.r.IntN(40)) * time.Second)
			w.step(t)
			w.remember(t)
		}
		w.compare(t, "within the window")
		w.wait(2 * time.Hour)
		if err := w.keeper.Tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
		head, err := w.keeper.Head(t.Context(), datastore.Default)
		if err != nil || head.Floor < head.Revision-3 {
			t.Fatalf("the floor is at %d of %d, %v", head.Floor, head.Revision, err)
		}
		w.compare(t, "beyond the window")
		_, err = w.permissions.Check(t.Context(), &pembav1.CheckRequest{Consistency: atTime(start), Resource: &pembav1.Object{Type: "document", Id: "1"},
			Permission: "view", Subject: &pembav1.Subject{Type: "user", Id: "ada"}})
		expect(t, "before the first change", err, codes.FailedPrecondition, "UNKNOWN_TYPE")
	}
}

func TestThePastThatCannotBeToldIsRefused(t *testing.T) {
	check := func(w *pastWorld, at time.Time) error {
		_, err := w.permissions.Check(t.Context(), &pembav1.CheckRequest{Consistency: atTime(at), Resource: &pembav1.Object{Type: "document", Id: "1"},
			Permission: "view", Subject: &pembav1.Subject{Type: "user", Id: "ada"}})
		return err
	}
	filled := func(o keeper.Options) (*pastWorld, time.Time) {
		w := newPastWorld(t, 1, o)
		w.commit(t, datastore.Request{Schema: &datastore.SchemaUpdate{Text: pastSchemas[0]}})
		for range 20 {
			w.wait(time.Minute)
			w.step(t)
		}
		at := w.wait(time.Second)
		w.wait(2 * time.Hour)
		w.step(t)
		w.wait(2 * time.Hour)
		w.step(t)
		if err := w.keeper.Tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
		return w, at
	}
	w, at := filled(keeper.Options{HistoryRetention: 90 * time.Minute})
	expect(t, "a history that was trimmed", check(w, at), codes.OutOfRange, "COMPACTED")
	w.followsItsAnchor(t)
	w, at = filled(keeper.Options{ReplayMemory: 64})
	expect(t, "a store too large", check(w, at), codes.ResourceExhausted, "LIMIT_EXCEEDED")
	expect(t, "the future", check(w, time.Now().Add(time.Hour)), codes.InvalidArgument, "INVALID_FIELD")
	list, err := w.relationships.ReadRelationships(t.Context(), &pembav1.ReadRelationshipsRequest{Consistency: atTime(at)})
	if err == nil {
		_, err = list.Recv()
	}
	expect(t, "a list of relationships", err, codes.InvalidArgument, "INVALID_FIELD")
}

// followsItsAnchor verifies a trimmed history from the hash that is left of what
// was cut off.
func (w *pastWorld) followsItsAnchor(t *testing.T) {
	audits := pembav1.NewAuditServiceClient(w.conn)
	now, err := audits.GetPosition(t.Context(), &pembav1.GetPositionRequest{})
	if err != nil || now.Oldest < 3 {
		t.Fatalf("nothing was trimmed: %v, %v", now, err)
	}
	before := now.Oldest - 1
	anchor, err := audits.GetPosition(t.Context(), &pembav1.GetPositionRequest{Revision: &before})
	if err != nil || anchor.Time != nil || anchor.Revision != before {
		t.Fatalf("the anchor: %v, %v", anchor, err)
	}
	chain, err := datastore.NewChain(2, datastore.Head{Incarnation: datastore.Incarnation(anchor.Incarnation), Revision: datastore.Revision(before), Hash: datastore.Hash(anchor.Hash)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range w.history(t, &pembav1.ReadHistoryRequest{Sealed: true}) {
		if _, err := chain.Next(datastore.Entry{Revision: datastore.Revision(c.Revision), Header: c.Sealed.Header, Payload: c.Sealed.Payload, Hash: datastore.Hash(c.Hash)}); err != nil {
			t.Fatal(err)
		}
	}
	if uint64(chain.At.Revision) != now.Head || chain.At.Hash != datastore.Hash(now.Hash) {
		t.Errorf("the chain ends at %+v, the head is %v", chain.At, now)
	}
	before--
	_, err = audits.GetPosition(t.Context(), &pembav1.GetPositionRequest{Revision: &before})
	expect(t, "a position before the anchor", err, codes.OutOfRange, "COMPACTED")
}
