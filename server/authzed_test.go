package server_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	authzed "github.com/authzed/authzed-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/server"
	"github.com/pembadb/pemba/tuple"
)

// used records which methods of authzed.api.v1 the tests call, and which fields
// of their requests they set.
var used = struct {
	sync.Mutex
	names map[string]bool
}{names: map[string]bool{}}

func use(method string, m any) {
	used.Lock()
	defer used.Unlock()
	used.names[method] = true
	if m, ok := m.(proto.Message); ok {
		useFields(m.ProtoReflect())
	}
}

func useFields(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		used.names[string(f.FullName())] = true
		switch {
		case f.Message() == nil || f.IsMap():
		case f.IsList():
			for i := range v.List().Len() {
				useFields(v.List().Get(i).Message())
			}
		default:
			useFields(v.Message())
		}
		return true
	})
}

// recorded is a stream of which use knows what was sent.
type recorded struct {
	grpc.ClientStream
	method string
}

func (r recorded) SendMsg(m any) error {
	use(r.method, m)
	return r.ClientStream.SendMsg(m)
}

// stock is the stock client of authzed.api.v1, connected in plain text.
func stock(t testing.TB, n *node) *authzed.ClientWithExperimental {
	t.Helper()
	c, err := authzed.NewClientWithExperimentalAPIs(n.addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, in, out any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			use(method, in)
			return call(ctx, method, in, out, conn, opts...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			s, err := open(ctx, d, conn, method, opts...)
			return recorded{s, method}, err
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestMain asks, once all tests have passed, that they called every method of
// authzed.api.v1 and set every field of every request.
func TestMain(m *testing.M) {
	code := m.Run()
	if run := flag.Lookup("test.run"); code == 0 && run.Value.String() == "" && flag.Lookup("test.skip").Value.String() == "" {
		for _, missed := range unused() {
			fmt.Println("no test uses", missed)
			code = 1
		}
	}
	os.Exit(code)
}

func unused() (out []string) {
	skipped, err := unservedMethods()
	if err != nil {
		return []string{err.Error()}
	}
	var messages []protoreflect.MessageDescriptor
	for _, file := range []protoreflect.FileDescriptor{
		authzedv1.File_authzed_api_v1_permission_service_proto, authzedv1.File_authzed_api_v1_schema_service_proto,
		authzedv1.File_authzed_api_v1_watch_service_proto, authzedv1.File_authzed_api_v1_experimental_service_proto,
	} {
		for i := range file.Services().Len() {
			for j := range file.Services().Get(i).Methods().Len() {
				method := file.Services().Get(i).Methods().Get(j)
				name := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
				if !used.names[name] {
					out = append(out, name)
				}
				if !skipped[string(method.Name())] {
					messages = append(messages, method.Input())
				}
			}
		}
	}
	seen := map[protoreflect.FullName]bool{}
	for len(messages) > 0 {
		m := messages[0]
		messages = messages[1:]
		if seen[m.FullName()] || m.ParentFile().Package() != "authzed.api.v1" {
			continue
		}
		seen[m.FullName()] = true
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			if !used.names[string(f.FullName())] {
				out = append(out, string(f.FullName()))
			}
			if f.Message() != nil {
				messages = append(messages, f.Message())
			}
		}
	}
	return out
}

const authzedSchema = `use expiration

/** somebody */
definition user {}

definition group {
	relation member: user | group#member
}

definition folder {
	relation viewer: user | group#member
	permission view = viewer
}

caveat in_office(hour int, since int) { hour >= since }

definition document {
	relation parent: folder
	relation viewer: user | user:* | group#member | user with in_office | user with expiration
	relation banned: user
	/** may read it */
	permission view = (viewer + parent->view) - banned
	permission all_view = parent.all(view) & viewer
	permission nobody = nil
}
`

// compatible starts a server with a schema, and returns it with a stock client.
func compatible(t testing.TB) (*node, *authzed.ClientWithExperimental) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{})
	c := stock(t, n)
	if _, err := c.WriteSchema(t.Context(), &authzedv1.WriteSchemaRequest{Schema: authzedSchema}); err != nil {
		t.Fatal(err)
	}
	return n, c
}

// arel reads a relationship from its text.
func arel(t testing.TB, text string) *authzedv1.Relationship {
	t.Helper()
	r, err := tuple.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	out := &authzedv1.Relationship{Resource: aobject(r.Object.String()), Relation: r.Relation, Subject: asubject(r.Subject.String())}
	if r.Caveat.Name != "" {
		out.OptionalCaveat = &authzedv1.ContextualizedCaveat{CaveatName: r.Caveat.Name}
		if r.Caveat.Context != "" {
			out.OptionalCaveat.Context = astruct(r.Caveat.Context)
		}
	}
	if !r.Expiration.IsZero() {
		out.OptionalExpiresAt = timestamppb.New(r.Expiration)
	}
	return out
}

func astruct(text string) *structpb.Struct {
	s := &structpb.Struct{}
	if err := s.UnmarshalJSON([]byte(text)); err != nil {
		panic(err)
	}
	return s
}

func aobject(text string) *authzedv1.ObjectReference {
	typ, id, _ := strings.Cut(text, ":")
	return &authzedv1.ObjectReference{ObjectType: typ, ObjectId: id}
}

func asubject(text string) *authzedv1.SubjectReference {
	o, relation, _ := strings.Cut(text, "#")
	return &authzedv1.SubjectReference{Object: aobject(o), OptionalRelation: relation}
}

// atext is the text of a relationship.
func atext(r *authzedv1.Relationship) string {
	s := r.Resource.ObjectType + ":" + r.Resource.ObjectId + "#" + r.Relation + "@" + r.Subject.Object.ObjectType + ":" + r.Subject.Object.ObjectId
	if r.Subject.OptionalRelation != "" {
		s += "#" + r.Subject.OptionalRelation
	}
	if c := r.OptionalCaveat; c != nil {
		b, _ := c.Context.MarshalJSON()
		s += "[" + c.CaveatName + ":" + strings.ReplaceAll(string(b), " ", "") + "]"
	}
	if r.OptionalExpiresAt != nil {
		s += "[expiration:" + r.OptionalExpiresAt.AsTime().Format(time.RFC3339Nano) + "]"
	}
	return s
}

func update(t testing.TB, kind authzedv1.RelationshipUpdate_Operation, texts ...string) *authzedv1.WriteRelationshipsRequest {
	t.Helper()
	r := &authzedv1.WriteRelationshipsRequest{}
	for _, text := range texts {
		r.Updates = append(r.Updates, &authzedv1.RelationshipUpdate{Operation: kind, Relationship: arel(t, text)})
	}
	return r
}

const (
	acreate = authzedv1.RelationshipUpdate_OPERATION_CREATE
	atouch  = authzedv1.RelationshipUpdate_OPERATION_TOUCH
	adelete = authzedv1.RelationshipUpdate_OPERATION_DELETE
)

// touch writes relationships and returns the token of the write.
func touch(t testing.TB, c *authzed.ClientWithExperimental, texts ...string) *authzedv1.ZedToken {
	t.Helper()
	r, err := c.WriteRelationships(t.Context(), update(t, atouch, texts...))
	if err != nil {
		t.Fatal(err)
	}
	return r.WrittenAt
}

func fresh(z *authzedv1.ZedToken) *authzedv1.Consistency {
	return &authzedv1.Consistency{Requirement: &authzedv1.Consistency_AtLeastAsFresh{AtLeastAsFresh: z}}
}

func exact(z *authzedv1.ZedToken) *authzedv1.Consistency {
	return &authzedv1.Consistency{Requirement: &authzedv1.Consistency_AtExactSnapshot{AtExactSnapshot: z}}
}

func afully() *authzedv1.Consistency {
	return &authzedv1.Consistency{Requirement: &authzedv1.Consistency_FullyConsistent{FullyConsistent: true}}
}

func fastest() *authzedv1.Consistency {
	return &authzedv1.Consistency{Requirement: &authzedv1.Consistency_MinimizeLatency{MinimizeLatency: true}}
}

// aread returns the texts of what a read finds, and the last cursor.
func aread(t testing.TB, c *authzed.ClientWithExperimental, r *authzedv1.ReadRelationshipsRequest) (texts []string, last *authzedv1.Cursor) {
	t.Helper()
	found, err := all(c.ReadRelationships(t.Context(), r))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range found {
		texts, last = append(texts, atext(m.Relationship)), m.AfterResultCursor
		if m.ReadAt.GetToken() == "" {
			t.Error("a result has no token")
		}
	}
	return texts, last
}

// aexpect fails unless err is the documented error: code, reason in the domain
// authzed.com, and metadata, as keys and values in turn.
func aexpect(t testing.TB, what string, err error, code codes.Code, why authzedv1.ErrorReason, facts ...string) {
	t.Helper()
	want := why.String()
	if why == authzedv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		want = reason(err) // none, or one of Pemba's own
	}
	if status.Code(err) != code || reason(err) != want {
		t.Errorf("%s: %v with reason %q, want %v with reason %q", what, err, reason(err), code, want)
		return
	}
	for i := 0; i+1 < len(facts); i += 2 {
		if got := fact(err, facts[i]); got != facts[i+1] {
			t.Errorf("%s: %s is %q, want %q", what, facts[i], got, facts[i+1])
		}
	}
}

func equal(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

func TestAStockClientWritesReadsAndDeletes(t *testing.T) {
	_, c := compatible(t)
	ctx := t.Context()
	texts := []string{
		"document:a/1#banned@user:eve",
		"document:a/1#viewer@group:eng#member",
		"document:a/1#viewer@user:*",
		"document:a/1#viewer@user:ada[in_office:{\"since\":9}]",
		"document:a/1#viewer@user:bob[expiration:2999-01-01T00:00:00Z]",
		"document:b2#viewer@user:cyd",
		"folder:f#viewer@user:ada",
	}
	first, err := c.WriteRelationships(ctx, update(t, acreate, texts[0]))
	if err != nil {
		t.Fatal(err)
	}
	written, err := c.WriteRelationships(ctx, update(t, acreate, texts[1:]...))
	if err != nil {
		t.Fatal(err)
	}
	read := func(f *authzedv1.RelationshipFilter) []string {
		got, _ := aread(t, c, &authzedv1.ReadRelationshipsRequest{Consistency: fresh(written.WrittenAt), RelationshipFilter: f})
		slices.Sort(got)
		return got
	}
	subject := func(typ, id string, relation *string) *authzedv1.SubjectFilter {
		f := &authzedv1.SubjectFilter{SubjectType: typ, OptionalSubjectId: id}
		if relation != nil {
			f.OptionalRelation = &authzedv1.SubjectFilter_RelationFilter{Relation: *relation}
		}
		return f
	}
	equal(t, "by type", read(&authzedv1.RelationshipFilter{ResourceType: "document"}), texts[:6])
	equal(t, "by id", read(&authzedv1.RelationshipFilter{ResourceType: "document", OptionalResourceId: "b2"}), texts[5:6])
	equal(t, "by prefix", read(&authzedv1.RelationshipFilter{ResourceType: "document", OptionalResourceIdPrefix: "a/"}), texts[:5])
	equal(t, "by relation", read(&authzedv1.RelationshipFilter{ResourceType: "document", OptionalRelation: "banned"}), texts[:1])
	equal(t, "by subject", read(&authzedv1.RelationshipFilter{OptionalSubjectFilter: subject("user", "ada", nil)}), []string{texts[3], texts[6]})
	equal(t, "by wildcard", read(&authzedv1.RelationshipFilter{OptionalSubjectFilter: subject("user", "*", nil)}), texts[2:3])
	member, none := "member", ""
	equal(t, "by userset", read(&authzedv1.RelationshipFilter{OptionalSubjectFilter: subject("group", "", &member)}), texts[1:2])
	equal(t, "without userset", read(&authzedv1.RelationshipFilter{OptionalSubjectFilter: subject("group", "", &none)}), nil)
	got, _ := aread(t, c, &authzedv1.ReadRelationshipsRequest{Consistency: exact(first.WrittenAt), RelationshipFilter: &authzedv1.RelationshipFilter{ResourceType: "document"}})
	equal(t, "at an exact snapshot", got, texts[:1])

	// Pages put together are the whole, while writes go on.
	var paged []string
	var cursor *authzedv1.Cursor
	for i := 0; ; i++ {
		page, last := aread(t, c, &authzedv1.ReadRelationshipsRequest{
			Consistency: afully(), RelationshipFilter: &authzedv1.RelationshipFilter{ResourceType: "document"}, OptionalLimit: 2, OptionalCursor: cursor,
		})
		if len(page) == 0 {
			break
		}
		paged, cursor = append(paged, page...), last
		touch(t, c, fmt.Sprintf("document:z%d#viewer@user:new", i))
	}
	slices.Sort(paged)
	equal(t, "pages", paged, texts[:6])

	if _, err := c.WriteRelationships(ctx, update(t, adelete, texts[0], "document:none#viewer@user:ada")); err != nil {
		t.Errorf("deleting what is there, and what is not: %v", err)
	}
	touch(t, c, "document:a/1#viewer@user:ada")
	got, _ = aread(t, c, &authzedv1.ReadRelationshipsRequest{
		Consistency:        afully(),
		RelationshipFilter: &authzedv1.RelationshipFilter{ResourceType: "document", OptionalResourceId: "a/1", OptionalSubjectFilter: subject("user", "ada", nil)},
	})
	equal(t, "touch takes the caveat away", got, []string{"document:a/1#viewer@user:ada"})
}

func TestADeleteIsWholeOrSaysThatItIsNot(t *testing.T) {
	_, c := compatible(t)
	ctx := t.Context()
	for range 3 {
		var texts []string
		for i := range 1000 {
			texts = append(texts, fmt.Sprintf("document:d%d#viewer@user:u%d", i, len(used.names)+i))
		}
		touch(t, c, texts...)
	}
	touch(t, c, "folder:f#viewer@user:a", "folder:f#viewer@user:b", "folder:f#viewer@user:c")
	folders := &authzedv1.RelationshipFilter{ResourceType: "folder"}
	_, err := c.DeleteRelationships(ctx, &authzedv1.DeleteRelationshipsRequest{RelationshipFilter: folders, OptionalLimit: 2})
	aexpect(t, "more than the limit", err, codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_TOO_MANY_RELATIONSHIPS_FOR_TRANSACTIONAL_DELETE, "filter_resource_type", "folder")
	remove := func(what string, r *authzedv1.DeleteRelationshipsRequest, count uint64, progress authzedv1.DeleteRelationshipsResponse_DeletionProgress) {
		t.Helper()
		got, err := c.DeleteRelationships(ctx, r)
		if err != nil || got.RelationshipsDeletedCount != count || got.DeletionProgress != progress || got.DeletedAt.GetToken() == "" {
			t.Errorf("%s: %v, %v; want %d, %v", what, got, err, count, progress)
		}
	}
	const complete = authzedv1.DeleteRelationshipsResponse_DELETION_PROGRESS_COMPLETE
	partial := &authzedv1.DeleteRelationshipsRequest{RelationshipFilter: folders, OptionalLimit: 2, OptionalAllowPartialDeletions: true}
	remove("a part", partial, 2, authzedv1.DeleteRelationshipsResponse_DELETION_PROGRESS_PARTIAL)
	remove("the rest", partial, 1, complete)
	remove("nothing", partial, 0, complete)
	touch(t, c, "folder:f#viewer@user:a", "folder:f#viewer@user:b")
	remove("exactly the limit", &authzedv1.DeleteRelationshipsRequest{RelationshipFilter: folders, OptionalLimit: 2}, 2, complete)
	touch(t, c, "folder:f#viewer@user:a", "folder:f#viewer@user:b")
	remove("exactly the limit of a part", partial, 2, complete)
	before := touch(t, c, "document:last#viewer@user:a")
	all, _ := aread(t, c, &authzedv1.ReadRelationshipsRequest{Consistency: fresh(before), RelationshipFilter: &authzedv1.RelationshipFilter{ResourceType: "document"}})
	remove("without a limit, beyond the operations of a change", &authzedv1.DeleteRelationshipsRequest{
		RelationshipFilter: &authzedv1.RelationshipFilter{ResourceType: "document"},
		OptionalPreconditions: []*authzedv1.Precondition{{
			Operation: authzedv1.Precondition_OPERATION_MUST_MATCH, Filter: &authzedv1.RelationshipFilter{ResourceType: "document", OptionalResourceId: "last"},
		}},
		OptionalTransactionMetadata: astruct(`{"why":"cleaning"}`),
	}, uint64(len(all)), complete)
	if len(all) <= 1000 {
		t.Fatalf("only %d relationships: the test shows nothing", len(all))
	}
	kept, _ := aread(t, c, &authzedv1.ReadRelationshipsRequest{Consistency: exact(before), RelationshipFilter: &authzedv1.RelationshipFilter{ResourceType: "document"}})
	equal(t, "one change, before which all is there", kept, all)
	_, err = c.DeleteRelationships(ctx, &authzedv1.DeleteRelationshipsRequest{
		RelationshipFilter: folders, OptionalLimit: 1, OptionalAllowPartialDeletions: true, OptionalCursor: &authzedv1.Cursor{Token: "x"},
	})
	aexpect(t, "resuming by a cursor", err, codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_INVALID_CURSOR)
}

func TestBulkImportAndExportMoveEverything(t *testing.T) {
	_, c := compatible(t)
	ctx := t.Context()
	var texts []string
	for i := range 2500 {
		texts = append(texts, fmt.Sprintf("document:d%04d#viewer@user:ada[in_office:{\"since\":%d}]", i, i))
	}
	load := func(texts []string) (uint64, error) {
		stream, err := c.ImportBulkRelationships(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for batch := range slices.Chunk(texts, 700) {
			m := &authzedv1.ImportBulkRelationshipsRequest{}
			for _, text := range batch {
				m.Relationships = append(m.Relationships, arel(t, text))
			}
			if stream.Send(m) != nil {
				break // CloseAndRecv tells why
			}
		}
		out, err := stream.CloseAndRecv()
		return out.GetNumLoaded(), err
	}
	if n, err := load(texts); n != 2500 || err != nil {
		t.Fatalf("imported %d, %v", n, err)
	}
	_, err := load([]string{"document:new#viewer@user:ada", texts[0]})
	aexpect(t, "importing what is there", err, codes.AlreadyExists, authzedv1.ErrorReason_ERROR_REASON_ATTEMPT_TO_RECREATE_RELATIONSHIP,
		"relationship", "document:d0000#viewer@user:ada", "resource_object_id", "d0000")
	_, err = load([]string{"document:new#viewer@user:ada", "document:new#viewer@user:ada"})
	aexpect(t, "importing one twice", err, codes.AlreadyExists, authzedv1.ErrorReason_ERROR_REASON_ATTEMPT_TO_RECREATE_RELATIONSHIP)
	var got []string
	var cursor *authzedv1.Cursor
	for range 2 { // the second goes on behind the first page of the first
		pages, err := all(c.ExportBulkRelationships(ctx, &authzedv1.ExportBulkRelationshipsRequest{Consistency: afully(), OptionalLimit: 600, OptionalCursor: cursor}))
		if err != nil {
			t.Fatal(err)
		}
		got = got[:min(len(got), 600)]
		for _, p := range pages {
			if len(p.Relationships) > 600 || len(p.Relationships) == 0 {
				t.Errorf("a page of %d", len(p.Relationships))
			}
			for _, r := range p.Relationships {
				got = append(got, atext(r))
			}
		}
		equal(t, "exported", got, texts)
		cursor = pages[0].AfterResultCursor
	}
	pages, err := all(c.ExportBulkRelationships(ctx, &authzedv1.ExportBulkRelationshipsRequest{
		OptionalRelationshipFilter: &authzedv1.RelationshipFilter{ResourceType: "document", OptionalResourceIdPrefix: "d000"},
	}))
	if err != nil || len(pages) != 1 || len(pages[0].Relationships) != 10 {
		t.Errorf("filtered: %d pages, %v", len(pages), err)
	}
}

func TestACallNamesItsStoreAndItsCaller(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Token: "secret"})
	c := stock(t, n)
	_, err := c.ReadSchema(t.Context(), &authzedv1.ReadSchemaRequest{})
	aexpect(t, "without a token", err, codes.Unauthenticated, authzedv1.ErrorReason_ERROR_REASON_UNSPECIFIED)
	_, err = c.ReadSchema(bearer(t, "wrong"), &authzedv1.ReadSchemaRequest{})
	aexpect(t, "with a wrong token", err, codes.Unauthenticated, authzedv1.ErrorReason_ERROR_REASON_UNSPECIFIED)
	ctx := bearer(t, "secret")
	_, err = c.ReadSchema(ctx, &authzedv1.ReadSchemaRequest{})
	aexpect(t, "before a schema was written", err, codes.NotFound, authzedv1.ErrorReason_ERROR_REASON_UNSPECIFIED)
	if _, err := n.stores.CreateStore(ctx, createStore("other")); err != nil {
		t.Fatal(err)
	}
	made, err := n.tokens.CreateToken(ctx, tokenFor("reading", "other"))
	if err != nil {
		t.Fatal(err)
	}
	other := metadata.AppendToOutgoingContext(ctx, "pemba-store", "other")
	if _, err := c.WriteSchema(other, &authzedv1.WriteSchemaRequest{Schema: authzedSchema}); err != nil {
		t.Fatal(err)
	}
	got, err := c.ReadSchema(other, &authzedv1.ReadSchemaRequest{})
	if err != nil || got.SchemaText != authzedSchema || got.ReadAt.GetToken() == "" {
		t.Errorf("the schema of the other store: %v, %v", got, err)
	}
	_, err = c.ReadSchema(ctx, &authzedv1.ReadSchemaRequest{})
	aexpect(t, "the default store", err, codes.NotFound, authzedv1.ErrorReason_ERROR_REASON_UNSPECIFIED)
	reader := bearer(t, made.Secret)
	_, err = c.ReadSchema(reader, &authzedv1.ReadSchemaRequest{})
	aexpect(t, "a token of another store", err, codes.PermissionDenied, authzedv1.ErrorReason_ERROR_REASON_UNSPECIFIED)
	reader = metadata.AppendToOutgoingContext(reader, "pemba-store", "other")
	if _, err = c.ReadSchema(reader, &authzedv1.ReadSchemaRequest{}); err != nil {
		t.Errorf("a token of that store: %v", err)
	}
	_, err = c.WriteSchema(reader, &authzedv1.WriteSchemaRequest{Schema: authzedSchema})
	aexpect(t, "a role too weak", err, codes.PermissionDenied, authzedv1.ErrorReason_ERROR_REASON_UNSPECIFIED)
	_, err = c.CheckPermission(metadata.AppendToOutgoingContext(ctx, "pemba-store", "none"), acheck("document:d", "view", "user:ada"))
	aexpect(t, "a store that is not there", err, codes.NotFound, authzedv1.ErrorReason_ERROR_REASON_UNSPECIFIED)
	written, err := c.WriteRelationships(other, update(t, acreate, "document:d#viewer@user:ada"))
	if err != nil {
		t.Fatal(err)
	}
	r := acheck("document:d", "view", "user:ada")
	r.Consistency = fresh(written.WrittenAt)
	_, err = c.CheckPermission(ctx, r)
	aexpect(t, "a token of another store's revision", err, codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_UNSPECIFIED)
	history, err := all(n.histories.ReadHistory(ctx, readHistory("other")))
	if err != nil || len(history) == 0 || history[0].Changes[len(history[0].Changes)-1].Actor != "admin" {
		t.Errorf("the caller in the history: %v, %v", history, err)
	}
}

func TestTheRetryingClientImportsWhateverIsThere(t *testing.T) {
	n, c := compatible(t)
	retrying, err := authzed.NewRetryableClient(n.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer retrying.Close()
	load := func(how authzed.ConflictStrategy, texts ...string) error {
		var rels []*authzedv1.Relationship
		for _, text := range texts {
			rels = append(rels, arel(t, text))
		}
		return retrying.RetryableBulkImportRelationships(t.Context(), rels, how)
	}
	if err := load(authzed.Fail, "folder:a#viewer@user:ada"); err != nil {
		t.Fatal(err)
	}
	if err := load(authzed.Fail, "folder:a#viewer@user:ada", "folder:b#viewer@user:ada"); err == nil {
		t.Error("what is there was imported again")
	}
	if err := load(authzed.Skip, "folder:a#viewer@user:ada"); err != nil {
		t.Errorf("skipping what is there: %v", err)
	}
	if err := load(authzed.Touch, "folder:a#viewer@user:ada", "folder:b#viewer@user:ada"); err != nil {
		t.Errorf("touching what is there: %v", err)
	}
	got, _ := aread(t, c, &authzedv1.ReadRelationshipsRequest{Consistency: afully(), RelationshipFilter: &authzedv1.RelationshipFilter{ResourceType: "folder"}})
	equal(t, "imported", got, []string{"folder:a#viewer@user:ada", "folder:b#viewer@user:ada"})
}
