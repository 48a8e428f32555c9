package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

// nodes starts servers over one log, as the nodes of a cluster are.
func nodes(t *testing.T, n int) []*grpc.ClientConn {
	t.Helper()
	log := datastore.Log(memory.New())
	var conns []*grpc.ClientConn
	for range n {
		k, err := keeper.Open(log, keeper.Options{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := server.New(server.Config{Datastore: k})
		if err != nil {
			t.Fatal(err)
		}
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go s.Serve(lis)
		conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			conn.Close()
			s.GracefulStop(context.Background())
		})
		conns = append(conns, conn)
	}
	return conns
}

const lookupSchema = `
caveat at(hour int) { hour > 8 }
definition user {}
definition group { relation member: user | group#member }
definition folder { relation parent: folder  relation viewer: user  permission view = viewer + parent->view }
definition document {
  relation parent: folder
  relation viewer: user | user:* | group#member | user with at
  relation banned: user
  permission view = viewer + parent->view - banned
}`

// write writes relationships given as text fields: type, id, relation, subject
// type, subject id.
func write(t *testing.T, conn *grpc.ClientConn, rels ...*pembav1.Relationship) string {
	t.Helper()
	r := &pembav1.WriteRelationshipsRequest{}
	for _, rel := range rels {
		r.Operations = append(r.Operations, &pembav1.WriteOperation{Operation: &pembav1.WriteOperation_Touch{Touch: rel}})
	}
	out, err := pembav1.NewRelationshipServiceClient(conn).WriteRelationships(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return out.Zookie
}

func applySchema(t *testing.T, conn *grpc.ClientConn, text string) {
	t.Helper()
	if _, err := pembav1.NewSchemaServiceClient(conn).ApplySchema(t.Context(), &pembav1.ApplySchemaRequest{Text: text}); err != nil {
		t.Fatal(err)
	}
}

// resources reads a whole stream: results as "id answer fields", and its end.
func resources(ctx context.Context, conn *grpc.ClientConn, r *pembav1.LookupResourcesRequest) ([]string, *pembav1.LookupEnd, error) {
	stream, err := pembav1.NewPermissionServiceClient(conn).LookupResources(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	var got []string
	var end *pembav1.LookupEnd
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return got, end, nil
		}
		if err != nil {
			return got, nil, err
		}
		got, end = append(got, results(m.Results)...), m.End
	}
}

func subjects(ctx context.Context, conn *grpc.ClientConn, r *pembav1.LookupSubjectsRequest) ([]string, *pembav1.LookupEnd, error) {
	stream, err := pembav1.NewPermissionServiceClient(conn).LookupSubjects(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	var got []string
	var end *pembav1.LookupEnd
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return got, end, nil
		}
		if err != nil {
			return got, nil, err
		}
		got, end = append(got, results(m.Results)...), m.End
	}
}

func results(rs []*pembav1.LookupResult) (out []string) {
	for _, r := range rs {
		name := strings.ToLower(strings.TrimPrefix(r.Answer.String(), "ANSWER_"))
		out = append(out, strings.TrimSpace(r.Id+" "+name+" "+strings.Join(r.MissingFields, " ")))
	}
	return out
}

func viewedBy(user string) *pembav1.LookupResourcesRequest {
	return &pembav1.LookupResourcesRequest{ResourceType: "document", Permission: "view", Subject: &pembav1.Subject{Type: "user", Id: user}}
}

// The suite of the databases asks for pages of all sizes, of both lookups, of
// processes (sqltest).
func TestPagesOfALookupAreOneListAcrossServersAndWrites(t *testing.T) {
	conns := nodes(t, 2)
	applySchema(t, conns[0], lookupSchema)
	var rels []*pembav1.Relationship
	var want []string
	for i := range 50 {
		id := fmt.Sprintf("d%02d", i)
		rels = append(rels, relationship("document", id, "viewer", "user", "ada"))
		if i%10 == 0 {
			rels = append(rels, relationship("document", id, "banned", "user", "ada"))
		} else {
			want = append(want, id+" has_permission")
		}
	}
	zookie := write(t, conns[0], rels...)
	r := viewedBy("ada")
	r.Limit = 7
	r.Consistency = &pembav1.Consistency{Requirement: &pembav1.Consistency_AtLeastAsFresh{AtLeastAsFresh: zookie}}
	var got []string
	for page := 0; ; page++ {
		more, end, err := resources(t.Context(), conns[page%2], r)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, more...)
		if end.Complete {
			break
		}
		r.Cursor = end.Cursor
		// What is written between the pages is not in the list.
		write(t, conns[(page+1)%2], relationship("document", fmt.Sprintf("d%02dx", page*7), "viewer", "user", "ada"),
			relationship("document", fmt.Sprintf("d%02d", 49-page), "banned", "user", "ada"))
	}
	if !slices.Equal(got, want) {
		t.Errorf("pages: got %v, want %v", got, want)
	}
	other := viewedBy("bob")
	other.Cursor = r.Cursor
	_, _, err := resources(t.Context(), conns[0], other)
	expect(t, "a cursor of another question", err, codes.InvalidArgument, "INVALID_CURSOR")
	other.Cursor = "nonsense"
	_, _, err = resources(t.Context(), conns[0], other)
	expect(t, "a damaged cursor", err, codes.InvalidArgument, "INVALID_CURSOR")
	r.Limit = 1_000_000
	_, _, err = resources(t.Context(), conns[0], r)
	expect(t, "a page too large", err, codes.InvalidArgument, "LIMIT_EXCEEDED")
}

func TestLookupsTellWhatIsConditionalExcludedAndCounted(t *testing.T) {
	conn := serve(t, "")
	applySchema(t, conn, lookupSchema)
	later := relationship("document", "d", "viewer", "user", "eve")
	later.Caveat = &pembav1.Caveat{Name: "at"}
	write(t, conn, relationship("document", "d", "viewer", "user", "ada"), relationship("document", "d", "banned", "user", "bob"), later,
		relationship("document", "d", "parent", "folder", "f"), relationship("folder", "f", "parent", "folder", "top"), relationship("folder", "top", "viewer", "user", "kim"))
	fresh := &pembav1.Consistency{Requirement: &pembav1.Consistency_FullyConsistent{FullyConsistent: true}}
	q := &pembav1.LookupSubjectsRequest{Consistency: fresh, Resource: &pembav1.Object{Type: "document", Id: "d"}, Permission: "view", SubjectType: "user"}
	got, end, err := subjects(t.Context(), conn, q)
	slices.Sort(got)
	if want := []string{"ada has_permission", "eve conditional hour", "kim has_permission"}; err != nil || !slices.Equal(got, want) || !end.Complete {
		t.Errorf("subjects: %v, %v, %v; want %v", got, end, err, want)
	}
	q.ContextualRelationships = []*pembav1.Relationship{relationship("document", "d", "viewer", "user", "*")}
	q.Limit = 100
	got, _, err = subjects(t.Context(), conn, q)
	if want := []string{"* has_permission", "ada has_permission", "bob no_permission", "eve has_permission", "kim has_permission"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("with everybody: %v, %v; want %v", got, err, want)
	}
	q.Limit, q.CountOnly = 0, true
	got, end, err = subjects(t.Context(), conn, q)
	if err != nil || len(got) > 0 || end.HasPermission != 4 || end.NoPermission != 1 {
		t.Errorf("counted: %v, %v, %v", got, end, err)
	}
	r := viewedBy("eve")
	r.Consistency, r.Under = fresh, &pembav1.Object{Type: "folder", Id: "top"}
	got, _, err = resources(t.Context(), conn, r)
	if want := []string{"d conditional hour"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("resources: %v, %v; want %v", got, err, want)
	}
	for what, c := range map[string]struct {
		change func(*pembav1.LookupResourcesRequest)
		code   codes.Code
		reason string
	}{
		"no type":       {func(r *pembav1.LookupResourcesRequest) { r.ResourceType = "" }, codes.InvalidArgument, "MISSING_FIELD"},
		"no permission": {func(r *pembav1.LookupResourcesRequest) { r.Permission = "" }, codes.InvalidArgument, "MISSING_FIELD"},
		"no subject":    {func(r *pembav1.LookupResourcesRequest) { r.Subject = nil }, codes.InvalidArgument, "MISSING_FIELD"},
		"unknown":       {func(r *pembav1.LookupResourcesRequest) { r.Permission = "edit" }, codes.FailedPrecondition, "UNKNOWN_RELATION"},
		"bad type":      {func(r *pembav1.LookupResourcesRequest) { r.ResourceType = "A b" }, codes.InvalidArgument, "INVALID_OBJECT"},
		"bad prefix":    {func(r *pembav1.LookupResourcesRequest) { r.ResourceIdPrefix = "a b" }, codes.InvalidArgument, "INVALID_OBJECT"},
		"bad ancestor":  {func(r *pembav1.LookupResourcesRequest) { r.Under = &pembav1.Object{Type: "folder"} }, codes.InvalidArgument, "INVALID_OBJECT"},
		"no store":      {func(r *pembav1.LookupResourcesRequest) { r.Store = "gone" }, codes.NotFound, "UNKNOWN_STORE"},
	} {
		r := viewedBy("eve")
		c.change(r)
		_, _, err := resources(t.Context(), conn, r)
		expect(t, what, err, c.code, c.reason)
	}
}
