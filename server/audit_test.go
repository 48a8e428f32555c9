package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
	"github.com/pembadb/pemba/tuple"
)

// history reads what a request asks for.
func (n *node) history(t *testing.T, r *pembav1.ReadHistoryRequest) []*pembav1.Change {
	t.Helper()
	changes, err := n.tryHistory(t, r)
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

func (n *node) tryHistory(t *testing.T, r *pembav1.ReadHistoryRequest) (changes []*pembav1.Change, err error) {
	t.Helper()
	messages, err := all(n.histories.ReadHistory(t.Context(), r))
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		changes = append(changes, m.Changes...)
	}
	if last := messages[len(messages)-1]; !last.Complete {
		t.Fatalf("the history of %v ends with %v", r, last)
	}
	return changes, nil
}

// wants tells of a whole change which of its operations a filter means, and
// whether it means the change, said once more in the simplest way.
func wants(f *pembav1.ChangeFilter, c *pembav1.Change) (operations []*pembav1.Operation, meant bool) {
	has := func(list []string, s string) bool { return len(list) == 0 || slices.Contains(list, s) }
	if !has(f.Actors, c.Actor) || !strings.Contains(strings.ToUpper(c.Reason), strings.ToUpper(f.ReasonContains)) {
		return nil, false
	}
	for _, o := range c.Operations {
		r := o.After
		if r == nil {
			r = o.Before
		}
		about, sub := r.GetResource(), r.GetSubject()
		if o.Identity != nil {
			about = o.Identity.Object
		}
		var objects, subjects []string
		for _, w := range f.Objects {
			objects = append(objects, w.Type+":"+w.Id)
		}
		for _, w := range f.Subjects {
			subjects = append(subjects, w.Type+":"+w.Id+"#"+w.Relation)
		}
		if has(objects, about.GetType()+":"+about.GetId()) && (len(subjects) == 0 || sub != nil && has(subjects, sub.Type+":"+sub.Id+"#"+sub.Relation)) &&
			(len(f.Operations) == 0 || slices.Contains(f.Operations, o.Kind)) {
			operations = append(operations, o)
		}
	}
	return operations, len(operations) > 0 || len(f.Objects)+len(f.Subjects)+len(f.Operations) == 0
}

// TestHistoryIsFilteredAsItIsRead compares filters and spans of time with the whole
// history, read once.
func TestHistoryIsFilteredAsItIsRead(t *testing.T) {
	w := newPastWorld(t, 7, keeper.Options{})
	w.commit(t, datastore.Request{Schema: &datastore.SchemaUpdate{Text: pastSchemas[0]}})
	for i := range 60 {
		w.wait(time.Duration(w.r.IntN(2)) * time.Second) // some share a time
		w.step(t)
		document := tuple.Object{Type: "document", ID: fmt.Sprint(i % 3)}
		if _, err := w.keeper.Write(t.Context(), datastore.Default, datastore.Request{Actor: "bea", Reason: "Ticket " + fmt.Sprint(i%7), Updates: []datastore.Update{
			{Kind: datastore.Touch, Relationship: tuple.Relationship{Key: tuple.Key{Object: document, Relation: "viewer", Subject: tuple.Subject{Object: tuple.Object{Type: "user", ID: "ada"}}}}},
			{Kind: datastore.Delete, Relationship: tuple.Relationship{Key: tuple.Key{Object: document, Relation: "viewer", Subject: tuple.Subject{Object: tuple.Object{Type: "group", ID: "g"}, Relation: "member"}}}},
		}}); err != nil {
			t.Fatal(err)
		}
	}
	whole := w.history(t, &pembav1.ReadHistoryRequest{})
	kinds := []pembav1.OperationKind{pembav1.OperationKind_OPERATION_KIND_TOUCH, pembav1.OperationKind_OPERATION_KIND_DELETE, pembav1.OperationKind_OPERATION_KIND_PUT_IDENTITY}
	found := 0
	for range 200 {
		r := &pembav1.ReadHistoryRequest{Filter: &pembav1.ChangeFilter{}}
		f := r.Filter
		one := func() bool { return w.r.IntN(4) == 0 }
		if one() {
			f.Actors = []string{"bea"}
		}
		if one() {
			f.ReasonContains = []string{"tICKET", "3", "none"}[w.r.IntN(3)]
		}
		if one() {
			f.Objects = []*pembav1.Object{{Type: "document", Id: "1"}, {Type: "user", Id: "cai"}}
		}
		if one() {
			f.Subjects = []*pembav1.Subject{{Type: "user", Id: "ada"}, {Type: "group", Id: "g", Relation: "member"}}[w.r.IntN(2):]
		}
		if one() {
			f.Operations = kinds[w.r.IntN(3):]
		}
		first, last := whole[w.r.IntN(len(whole))].Time.AsTime(), whole[w.r.IntN(len(whole))].Time.AsTime()
		if one() {
			r.FromTime = timestamppb.New(first.Add(time.Duration(w.r.IntN(3)-1) * time.Nanosecond))
		}
		if one() {
			r.ToTime = timestamppb.New(last.Add(time.Duration(w.r.IntN(3)-1) * time.Nanosecond))
		}
		var want []*pembav1.Change
		for _, c := range whole {
			at := c.Time.AsTime()
			if r.FromTime != nil && at.Before(r.FromTime.AsTime()) || r.ToTime != nil && at.After(r.ToTime.AsTime()) {
				continue
			}
			left := proto.CloneOf(c)
			var meant bool
			left.Operations, meant = wants(f, c)
			left.Filtered = uint32(len(c.Operations) - len(left.Operations))
			if meant {
				want = append(want, left)
			}
		}
		got := w.history(t, r)
		if !slices.EqualFunc(got, want, func(a, b *pembav1.Change) bool { return proto.Equal(a, b) }) {
			t.Fatalf("%v\ngives %d changes, want %d", r, len(got), len(want))
		}
		found += len(got)
	}
	if found < 200 {
		t.Errorf("the filters found %d changes in all", found)
	}
	for what, f := range map[string]*pembav1.ChangeFilter{
		"an object":  {Objects: []*pembav1.Object{{Type: "document"}}},
		"a subject":  {Subjects: []*pembav1.Subject{{Type: "user", Id: "a b"}}},
		"an unknown": {Operations: []pembav1.OperationKind{99}},
	} {
		if _, err := w.tryHistory(t, &pembav1.ReadHistoryRequest{Filter: f}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("a filter with %s that cannot be: %v", what, err)
		}
	}
	_, err := w.tryHistory(t, &pembav1.ReadHistoryRequest{Sealed: true, Filter: &pembav1.ChangeFilter{Actors: []string{"bea"}}})
	expect(t, "sealed and filtered", err, codes.InvalidArgument, "INVALID_FIELD")
}

// Whoever has the sealed changes, and a position before them, can verify them
// alone.
func TestASealedHistoryVerifiesWithoutTheServer(t *testing.T) {
	w := newPastWorld(t, 3, keeper.Options{})
	w.commit(t, datastore.Request{Schema: &datastore.SchemaUpdate{Text: pastSchemas[0]}})
	for range 30 {
		w.step(t)
	}
	audits := pembav1.NewAuditServiceClient(w.conn)
	position := func(at uint64) datastore.Head {
		p, err := audits.GetPosition(t.Context(), &pembav1.GetPositionRequest{Revision: &at})
		if err != nil {
			t.Fatal(err)
		}
		return datastore.Head{Incarnation: datastore.Incarnation(p.Incarnation), Revision: datastore.Revision(p.Revision), Hash: datastore.Hash(p.Hash)}
	}
	now, err := audits.GetPosition(t.Context(), &pembav1.GetPositionRequest{})
	if err != nil || now.Store != "default" || now.StoreId != 2 || now.Revision != now.Head || now.Oldest != 1 || now.Time == nil {
		t.Fatalf("the head: %v, %v", now, err)
	}
	for _, from := range []uint64{1, 2, now.Head} {
		chain, err := datastore.NewChain(2, position(from-1), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range w.history(t, &pembav1.ReadHistoryRequest{FromRevision: from, Sealed: true}) {
			e := datastore.Entry{Revision: datastore.Revision(c.Revision), Header: c.Sealed.Header, Payload: c.Sealed.Payload, Hash: datastore.Hash(c.Hash)}
			change, err := chain.Next(e)
			if err != nil {
				t.Fatal(err)
			}
			told := proto.CloneOf(c)
			told.Sealed = nil
			if want := server.ChangeProto(&change, 2, chain.At.Incarnation); !proto.Equal(told, want) {
				t.Fatalf("told is %v, and the bytes say %v", told, want)
			}
		}
		if got := position(now.Head); chain.At.Hash != got.Hash || chain.At.Revision != got.Revision {
			t.Errorf("from %d the chain ends at %v, the head is %v", from, chain.At, got)
		}
	}
	for _, c := range w.history(t, &pembav1.ReadHistoryRequest{}) {
		if got := position(c.Revision); got.Hash != datastore.Hash(c.Hash) || c.Sealed != nil {
			t.Errorf("the position %v is not that of %v", got, c)
		}
	}
	beyond := now.Head + 1
	_, err = audits.GetPosition(t.Context(), &pembav1.GetPositionRequest{Revision: &beyond})
	expect(t, "beyond the head", err, codes.OutOfRange, "BEYOND_HEAD")
}

const reportSchema = `
caveat at(hour int) { hour > 8 }
definition user {}
definition robot {}
definition team { relation member: user | robot }
definition document {
	relation viewer: user | user:* | user with at | team#member
	relation banned: user
	relation odd: document | user
	permission view = viewer - banned
	permission edit = team_only
	relation team_only: team#member
	permission loop = odd - odd->loop
}
`

// A report says what checks say, of everybody, and what it cannot say.
func TestAReportSaysWhatChecksSay(t *testing.T) {
	n := documents(t, reportSchema)
	n.write(t, "document:a#viewer@user:*", "document:a#banned@user:bea", "document:a#team_only@team:t#member", "team:t#member@user:ada", "team:t#member@robot:r",
		"document:b#viewer@user:bea[at]", "document:b#viewer@team:t#member", "document:c#viewer@user:cai")
	fresh := &pembav1.Consistency{Requirement: &pembav1.Consistency_FullyConsistent{FullyConsistent: true}}
	about := func(typ, id string) *pembav1.ReportAccessRequest {
		return &pembav1.ReportAccessRequest{Consistency: fresh, About: &pembav1.ReportAccessRequest_Subject{Subject: &pembav1.Subject{Type: typ, Id: id}}}
	}
	on := func(id string) *pembav1.ReportAccessRequest {
		return &pembav1.ReportAccessRequest{Consistency: fresh, About: &pembav1.ReportAccessRequest_Resource{Resource: &pembav1.Object{Type: "document", Id: id}}}
	}
	with := func(r *pembav1.ReportAccessRequest, f func(*pembav1.ReportAccessRequest)) *pembav1.ReportAccessRequest {
		f(r)
		return r
	}
	for name, c := range map[string]struct {
		r    *pembav1.ReportAccessRequest
		want []string
	}{
		"ada": {about("user", "ada"), []string{"document:a edit user:ada", "document:a view user:ada", "document:b view user:ada"}},
		"bea": {about("user", "bea"), []string{"document:b view user:bea ANSWER_CONDITIONAL"}},
		"a robot, with relations": {with(about("robot", "r"), func(r *pembav1.ReportAccessRequest) { r.IncludeRelations = true }), []string{
			"document:a edit robot:r", "document:a team_only robot:r", "document:b view robot:r", "document:b viewer robot:r", "team:t member robot:r"}},
		"bea, at nine": {with(about("user", "bea"), func(r *pembav1.ReportAccessRequest) { r.Context = astruct(`{"hour":9}`) }), []string{"document:b view user:bea"}},
		"a document":   {on("a"), []string{"document:a edit robot:r", "document:a edit user:ada", "document:a view user:*", "document:a view user:bea ANSWER_NO_PERMISSION"}},
		"one permission, one type": {with(on("a"), func(r *pembav1.ReportAccessRequest) { r.Permissions, r.Types = []string{"edit"}, []string{"robot"} }),
			[]string{"document:a edit robot:r"}},
		"a relation by name": {with(about("user", "cai"), func(r *pembav1.ReportAccessRequest) { r.Permissions = []string{"viewer"} }), []string{"document:a viewer user:cai", "document:c viewer user:cai"}},
	} {
		got, last := report(t, n.conn, c.r)
		if !sameSet(got, c.want) || !last.End.Complete || last.Zookie == "" || last.Time == nil {
			t.Errorf("%s: %q, %v; want %q", name, got, last, c.want)
		}
	}
	// A permission that excludes itself has no answer for one document.
	n.write(t, "document:x#odd@document:x", "document:x#odd@user:ada", "document:y#odd@user:ada")
	got, last := report(t, n.conn, with(about("user", "ada"), func(r *pembav1.ReportAccessRequest) { r.Permissions = []string{"view", "loop"} }))
	if last.End.Complete || len(last.End.Gaps) != 1 || last.End.Gaps[0].Permission != "loop" || last.End.Gaps[0].Type != "document" || last.End.Gaps[0].Error.GetMessage() == "" ||
		!slices.Contains(got, "document:a view user:ada") {
		t.Errorf("with a gap: %q, %v", got, last.End)
	}
	for what, c := range map[string]struct {
		r      *pembav1.ReportAccessRequest
		code   codes.Code
		reason string
	}{
		"about nothing":         {&pembav1.ReportAccessRequest{}, codes.InvalidArgument, "MISSING_FIELD"},
		"about everybody":       {about("user", "*"), codes.InvalidArgument, "INVALID_SUBJECT"},
		"about an unknown type": {about("planet", "x"), codes.FailedPrecondition, "UNKNOWN_TYPE"},
		"of an unknown type":    {with(on("a"), func(r *pembav1.ReportAccessRequest) { r.Types = []string{"planet"} }), codes.FailedPrecondition, "UNKNOWN_TYPE"},
		"of no permission":      {with(on("a"), func(r *pembav1.ReportAccessRequest) { r.Permissions = []string{"fly"} }), codes.FailedPrecondition, "UNKNOWN_RELATION"},
		"of a bad permission":   {with(on("a"), func(r *pembav1.ReportAccessRequest) { r.Permissions = []string{"A b"} }), codes.InvalidArgument, "INVALID_RELATION"},
		"of an unknown userset": {with(about("team", "t"), func(r *pembav1.ReportAccessRequest) { r.GetSubject().Relation = "boss" }), codes.FailedPrecondition, "UNKNOWN_RELATION"},
	} {
		_, err := all(pembav1.NewAuditServiceClient(n.conn).ReportAccess(t.Context(), c.r))
		expect(t, "a report "+what, err, c.code, c.reason)
	}
}

func TestAReportTellsThatItsSubjectIsSuspended(t *testing.T) {
	w := newPastWorld(t, 1, keeper.Options{})
	w.commit(t, datastore.Request{Schema: &datastore.SchemaUpdate{Text: pastSchemas[0]}})
	w.write(t, "document:1#viewer@user:ada")
	before := w.wait(time.Second)
	w.wait(time.Second)
	w.commit(t, datastore.Request{Identities: []datastore.IdentityUpdate{{Object: tuple.Object{Type: "user", ID: "ada"}, Kind: datastore.User, State: datastore.Suspended, Attributes: `{"a":1}`}}})
	r := &pembav1.ReportAccessRequest{About: &pembav1.ReportAccessRequest_Subject{Subject: &pembav1.Subject{Type: "user", Id: "ada"}}}
	r.Consistency = &pembav1.Consistency{Requirement: &pembav1.Consistency_FullyConsistent{FullyConsistent: true}}
	if got, last := report(t, w.conn, r); len(got) > 0 || !last.End.Withheld || !last.End.Complete {
		t.Errorf("now: %q, %v", got, last)
	}
	r.Consistency = atTime(before)
	if got, last := report(t, w.conn, r); len(got) != 2 || last.End.Withheld {
		t.Errorf("before: %q, %v", got, last)
	}
}

// The past is the auditor's.
func TestOnlyAnAuditorAsksAboutThePast(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Token: "root"})
	root := bearer(t, "root")
	if _, err := n.schemas.ApplySchema(root, &pembav1.ApplySchemaRequest{Text: reportSchema}); err != nil {
		t.Fatal(err)
	}
	check := &pembav1.CheckRequest{Consistency: atTime(time.Now()), Resource: &pembav1.Object{Type: "document", Id: "a"}, Permission: "view", Subject: &pembav1.Subject{Type: "user", Id: "ada"}}
	for role, allowed := range map[pembav1.Role]bool{pembav1.Role_ROLE_CHECKER: false, pembav1.Role_ROLE_READER: false, pembav1.Role_ROLE_WRITER: false, pembav1.Role_ROLE_AUDITOR: true} {
		made, err := n.tokens.CreateToken(root, &pembav1.CreateTokenRequest{Name: "t" + fmt.Sprint(int(role)), Role: role})
		if err != nil {
			t.Fatal(err)
		}
		ctx := bearer(t, made.Secret)
		_, err = n.permissions.Check(ctx, check)
		_, reported := all(pembav1.NewAuditServiceClient(n.conn).ReportAccess(ctx, &pembav1.ReportAccessRequest{About: &pembav1.ReportAccessRequest_Subject{Subject: check.Subject}}))
		_, looked := all(n.permissions.LookupResources(ctx, &pembav1.LookupResourcesRequest{Consistency: check.Consistency, ResourceType: "document", Permission: "view", Subject: check.Subject}))
		if allowed {
			if err != nil || reported != nil || looked != nil {
				t.Errorf("%v: %v, %v, %v", role, err, reported, looked)
			}
			continue
		}
		expect(t, role.String()+" checks", err, codes.PermissionDenied, "ROLE_TOO_WEAK")
		expect(t, role.String()+" looks up", looked, codes.PermissionDenied, "ROLE_TOO_WEAK")
		expect(t, role.String()+" reports", reported, codes.PermissionDenied, "ROLE_TOO_WEAK")
	}
}
