package server_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
	"github.com/pembadb/pemba/tuple"
)

// node is a real server on loopback, with clients of its services.
type node struct {
	conn   *grpc.ClientConn
	addr   string
	server *server.Server
	keeper *keeper.Keeper

	permissions   pembav1.PermissionServiceClient
	relationships pembav1.RelationshipServiceClient
	schemas       pembav1.SchemaServiceClient
	watches       pembav1.WatchServiceClient
	histories     pembav1.HistoryServiceClient
	stores        pembav1.StoreServiceClient
	tokens        pembav1.TokenServiceClient
}

// launch starts a server over a log, and ends it with the test.
func launch(t testing.TB, log datastore.Log, opts keeper.Options, config server.Config) *node {
	t.Helper()
	k, err := keeper.Open(log, opts)
	if err != nil {
		t.Fatal(err)
	}
	config.Datastore = k
	return launchOver(t, k, config)
}

// launchOver starts a server as it is configured; its datastore ends in k.
func launchOver(t testing.TB, k *keeper.Keeper, config server.Config) *node {
	t.Helper()
	s, err := server.New(config)
	if err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(lis) }()
	n := &node{conn: dial(t, lis.Addr().String()), addr: lis.Addr().String(), server: s, keeper: k}
	n.permissions, n.relationships = pembav1.NewPermissionServiceClient(n.conn), pembav1.NewRelationshipServiceClient(n.conn)
	n.schemas, n.watches = pembav1.NewSchemaServiceClient(n.conn), pembav1.NewWatchServiceClient(n.conn)
	n.histories, n.stores, n.tokens = pembav1.NewHistoryServiceClient(n.conn), pembav1.NewStoreServiceClient(n.conn), pembav1.NewTokenServiceClient(n.conn)
	t.Cleanup(func() {
		n.conn.Close()
		stop, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		s.GracefulStop(stop)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func dial(t testing.TB, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// serve starts a server with default settings and returns a connection to it.
func serve(t *testing.T, token string) *grpc.ClientConn {
	return launch(t, memory.New(), keeper.Options{}, server.Config{Token: token}).conn
}

// documents starts a server whose default store has a schema.
func documents(t testing.TB, text string) *node {
	t.Helper()
	n := launch(t, memory.New(), keeper.Options{}, server.Config{})
	n.apply(t, text)
	return n
}

func (n *node) apply(t testing.TB, text string) *pembav1.ApplySchemaResponse {
	t.Helper()
	r, err := n.schemas.ApplySchema(t.Context(), &pembav1.ApplySchemaRequest{Text: text})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// write touches relationships, given as text, in one change.
func (n *node) write(t testing.TB, texts ...string) *pembav1.WriteRelationshipsResponse {
	t.Helper()
	r := &pembav1.WriteRelationshipsRequest{}
	for _, text := range texts {
		r.Operations = append(r.Operations, &pembav1.WriteOperation{Operation: &pembav1.WriteOperation_Touch{Touch: rel(t, text)}})
	}
	out, err := n.relationships.WriteRelationships(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// rel is a relationship given as text.
func rel(t testing.TB, text string) *pembav1.Relationship {
	t.Helper()
	r, err := tuple.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	out := &pembav1.Relationship{
		Resource: &pembav1.Object{Type: r.Object.Type, Id: r.Object.ID}, Relation: r.Relation,
		Subject: &pembav1.Subject{Type: r.Subject.Type, Id: r.Subject.ID, Relation: r.Subject.Relation},
	}
	if r.Caveat.Name != "" {
		out.Caveat = &pembav1.Caveat{Name: r.Caveat.Name}
		if r.Caveat.Context != "" {
			out.Caveat.Context = &structpb.Struct{}
			if err := out.Caveat.Context.UnmarshalJSON([]byte(r.Caveat.Context)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !r.Expiration.IsZero() {
		out.Expiration = timestamppb.New(r.Expiration)
	}
	return out
}

// text is the text of a relationship's identity.
func text(r *pembav1.Relationship) string {
	s := r.Resource.Type + ":" + r.Resource.Id + "#" + r.Relation + "@" + r.Subject.Type + ":" + r.Subject.Id
	if r.Subject.Relation != "" {
		s += "#" + r.Subject.Relation
	}
	return s
}

// all receives a stream to its end.
func all[T any](stream grpc.ServerStreamingClient[T], err error) ([]*T, error) {
	if err != nil {
		return nil, err
	}
	var out []*T
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, m)
	}
}

func fully() *pembav1.Consistency {
	return &pembav1.Consistency{Requirement: &pembav1.Consistency_FullyConsistent{FullyConsistent: true}}
}

// fact is a value of an error's metadata.
func fact(err error, key string) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.Metadata[key]
		}
	}
	return ""
}

func bearer(t *testing.T, token string) context.Context {
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
}

func reason(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.Reason
		}
	}
	return ""
}

// expect fails unless err has a code and a reason.
func expect(t *testing.T, what string, err error, code codes.Code, why string) {
	t.Helper()
	if status.Code(err) != code || reason(err) != why {
		t.Errorf("%s: %v with reason %q, want %v with reason %q", what, err, reason(err), code, why)
	}
}

const schemaText = `
caveat at(hour int) { hour > 8 }
definition user {}
definition group { relation member: user | group#member }
definition document {
  relation viewer: user | group#member | user with at
  permission view = viewer
}`

func relationship(typ, id, relation, subjectType, subjectID string) *pembav1.Relationship {
	return &pembav1.Relationship{
		Resource: &pembav1.Object{Type: typ, Id: id}, Relation: relation, Subject: &pembav1.Subject{Type: subjectType, Id: subjectID},
	}
}

func create(r *pembav1.Relationship) *pembav1.WriteOperation {
	return &pembav1.WriteOperation{Operation: &pembav1.WriteOperation_Create{Create: r}}
}

func check(user string) *pembav1.CheckRequest {
	return &pembav1.CheckRequest{
		Resource: &pembav1.Object{Type: "document", Id: "d"}, Permission: "view", Subject: &pembav1.Subject{Type: "user", Id: user},
	}
}

func TestWhatIsWrittenIsAnsweredAtItsZookie(t *testing.T) {
	conn := serve(t, "")
	ctx := t.Context()
	schemas, writes, asks := pembav1.NewSchemaServiceClient(conn), pembav1.NewRelationshipServiceClient(conn), pembav1.NewPermissionServiceClient(conn)
	_, err := asks.Check(ctx, check("ada"))
	expect(t, "check without a schema", err, codes.FailedPrecondition, "UNKNOWN_TYPE")
	applied, err := schemas.ApplySchema(ctx, &pembav1.ApplySchemaRequest{Text: schemaText})
	if err != nil {
		t.Fatal(err)
	}
	written, err := writes.WriteRelationships(ctx, &pembav1.WriteRelationshipsRequest{
		Operations: []*pembav1.WriteOperation{create(relationship("document", "d", "viewer", "user", "ada"))}, RequestId: "once",
	})
	if err != nil {
		t.Fatal(err)
	}
	r := check("ada")
	r.Consistency = &pembav1.Consistency{Requirement: &pembav1.Consistency_AtLeastAsFresh{AtLeastAsFresh: written.Zookie}}
	got, err := asks.Check(ctx, r)
	if err != nil || got.Answer != pembav1.Answer_ANSWER_HAS_PERMISSION {
		t.Errorf("at the write's zookie: %v, %v", got, err)
	}
	r.Consistency = &pembav1.Consistency{Requirement: &pembav1.Consistency_AtExactSnapshot{AtExactSnapshot: applied.Zookie}}
	if got, err = asks.Check(ctx, r); err != nil || got.Answer != pembav1.Answer_ANSWER_NO_PERMISSION {
		t.Errorf("at the schema's zookie: %v, %v", got, err)
	}
	again, err := writes.WriteRelationships(ctx, &pembav1.WriteRelationshipsRequest{
		Operations: []*pembav1.WriteOperation{create(relationship("document", "d", "viewer", "user", "ada"))}, RequestId: "once",
	})
	if err != nil || !again.Repeated || again.Zookie != written.Zookie {
		t.Errorf("the same request again: %v, %v", again, err)
	}
	_, err = writes.WriteRelationships(ctx, &pembav1.WriteRelationshipsRequest{
		Operations: []*pembav1.WriteOperation{create(relationship("document", "d", "viewer", "user", "bob"))}, RequestId: "once",
	})
	expect(t, "another request under the same id", err, codes.AlreadyExists, "REQUEST_ID_REUSED")
	_, err = writes.WriteRelationships(ctx, &pembav1.WriteRelationshipsRequest{
		Operations: []*pembav1.WriteOperation{create(relationship("document", "d", "viewer", "user", "ada"))},
	})
	expect(t, "creating what exists", err, codes.AlreadyExists, "RELATIONSHIP_EXISTS")
	r = check("ada")
	r.Permission = "veiw"
	_, err = asks.Check(ctx, r)
	expect(t, "a misspelt permission", err, codes.FailedPrecondition, "UNKNOWN_RELATION")
	if !strings.Contains(err.Error(), `did you mean "view"?`) {
		t.Errorf("a misspelt permission: %v", err)
	}
	r = check("ada")
	r.Store = "nowhere"
	_, err = asks.Check(ctx, r)
	expect(t, "an unknown store", err, codes.NotFound, "UNKNOWN_STORE")
	r = check("ada")
	r.Consistency = &pembav1.Consistency{Requirement: &pembav1.Consistency_AtExactSnapshot{AtExactSnapshot: "nonsense"}}
	_, err = asks.Check(ctx, r)
	expect(t, "a damaged zookie", err, codes.InvalidArgument, "INVALID_ZOOKIE")
	_, err = schemas.ApplySchema(ctx, &pembav1.ApplySchemaRequest{Text: "definition user {}"})
	expect(t, "a schema that orphans", err, codes.FailedPrecondition, "SCHEMA_ORPHANS")
	_, err = schemas.ApplySchema(ctx, &pembav1.ApplySchemaRequest{Text: "definition {"})
	expect(t, "a broken schema", err, codes.InvalidArgument, "INVALID_SCHEMA")
}

func TestTokensOpenWhatTheirRoleAndStoreAllow(t *testing.T) {
	conn := serve(t, "root-secret")
	root := bearer(t, "root-secret")
	asks, tokens := pembav1.NewPermissionServiceClient(conn), pembav1.NewTokenServiceClient(conn)
	_, err := asks.Check(t.Context(), check("ada"))
	expect(t, "no token", err, codes.Unauthenticated, "NO_TOKEN")
	_, err = asks.Check(bearer(t, "guess"), check("ada"))
	expect(t, "a wrong token", err, codes.Unauthenticated, "UNKNOWN_TOKEN")
	if _, err := pembav1.NewSchemaServiceClient(conn).ApplySchema(root, &pembav1.ApplySchemaRequest{Text: schemaText}); err != nil {
		t.Fatal(err)
	}
	if _, err := pembav1.NewStoreServiceClient(conn).CreateStore(root, &pembav1.CreateStoreRequest{Store: "other"}); err != nil {
		t.Fatal(err)
	}
	made, err := tokens.CreateToken(root, &pembav1.CreateTokenRequest{Name: "gateway", Store: "default", Role: pembav1.Role_ROLE_CHECKER})
	if err != nil {
		t.Fatal(err)
	}
	gateway := bearer(t, made.Secret)
	if _, err := asks.Check(gateway, check("ada")); err != nil {
		t.Errorf("a checker checks: %v", err)
	}
	r := check("ada")
	r.Store = "other"
	_, err = asks.Check(gateway, r)
	expect(t, "a checker of another store", err, codes.PermissionDenied, "STORE_NOT_GRANTED")
	_, err = pembav1.NewRelationshipServiceClient(conn).WriteRelationships(gateway, &pembav1.WriteRelationshipsRequest{})
	expect(t, "a checker writes", err, codes.PermissionDenied, "ROLE_TOO_WEAK")
	_, err = tokens.CreateToken(root, &pembav1.CreateTokenRequest{Name: "gateway", AllStores: true, Role: pembav1.Role_ROLE_CHECKER})
	expect(t, "a token's name twice", err, codes.AlreadyExists, "TOKEN_EXISTS")
	if _, err := tokens.RevokeToken(root, &pembav1.RevokeTokenRequest{Name: "gateway"}); err != nil {
		t.Fatal(err)
	}
	_, err = asks.Check(gateway, check("ada"))
	expect(t, "a revoked token", err, codes.Unauthenticated, "UNKNOWN_TOKEN")
}

// The zero time of a client that forgot to set one is no expiration that grants
// for ever.
func TestAnExpirationThatWasNeverSetIsRefused(t *testing.T) {
	n := documents(t, schemaText)
	r := rel(t, "document:1#viewer@user:ada")
	for _, at := range []*timestamppb.Timestamp{timestamppb.New(time.Time{}), {Seconds: -62135596800, Nanos: 999}} {
		r.Expiration = at
		_, err := n.relationships.WriteRelationships(t.Context(), &pembav1.WriteRelationshipsRequest{
			Operations: []*pembav1.WriteOperation{{Operation: &pembav1.WriteOperation_Touch{Touch: r}}}})
		expect(t, at.String(), err, codes.InvalidArgument, "INVALID_RELATIONSHIP")
		q := check("ada")
		q.ContextualRelationships = []*pembav1.Relationship{r}
		_, err = n.permissions.Check(t.Context(), q)
		expect(t, "contextual, "+at.String(), err, codes.InvalidArgument, "INVALID_RELATIONSHIP")
	}
}

// A server without a token of its own is open until the first one is made, and
// revoking the last does not open it again.
// TestATokensSecretIsShownOnce: the same request again makes no other token and
// shows no other secret; a token is never taken for somebody else.
func TestATokensSecretIsShownOnce(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Token: "secret"})
	root := bearer(t, "secret")
	request := &pembav1.CreateTokenRequest{Name: "gateway", Role: pembav1.Role_ROLE_CHECKER, RequestId: "once"}
	if _, err := n.tokens.CreateToken(root, request); err != nil {
		t.Fatal(err)
	}
	_, err := n.tokens.CreateToken(root, request)
	expect(t, "the same request again", err, codes.AlreadyExists, "TOKEN_EXISTS")
	if !strings.Contains(err.Error(), "revoke the token") {
		t.Errorf("it does not say what to do: %v", err)
	}
	request.Role = pembav1.Role_ROLE_READER
	_, err = n.tokens.CreateToken(root, request)
	expect(t, "another request under its id", err, codes.AlreadyExists, "REQUEST_ID_REUSED")
	for _, name := range []string{"admin", "anonymous", "pemba"} {
		_, err := n.tokens.CreateToken(root, &pembav1.CreateTokenRequest{Name: name, Role: pembav1.Role_ROLE_READER})
		expect(t, name, err, codes.InvalidArgument, "INVALID_TOKEN")
	}
	_, err = n.stores.ListStores(root, &pembav1.ListStoresRequest{Consistency: &pembav1.Consistency{Requirement: &pembav1.Consistency_AtExactSnapshot{
		AtExactSnapshot: datastore.Zookie{Store: datastore.System}.String()}}})
	expect(t, "stores of the past", err, codes.InvalidArgument, "INVALID_FIELD")
}

func TestRevokingTheLastTokenOpensNothing(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{})
	made, err := n.tokens.CreateToken(t.Context(), &pembav1.CreateTokenRequest{Name: "boss", AllStores: true, Role: pembav1.Role_ROLE_ADMIN})
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.stores.ListStores(t.Context(), &pembav1.ListStoresRequest{})
	expect(t, "no token while there is one", err, codes.Unauthenticated, "NO_TOKEN")
	if _, err := n.tokens.RevokeToken(bearer(t, made.Secret), &pembav1.RevokeTokenRequest{Name: "boss"}); err != nil {
		t.Fatal(err)
	}
	_, err = n.stores.CreateStore(t.Context(), &pembav1.CreateStoreRequest{Store: "evil"})
	expect(t, "no token once the last was revoked", err, codes.Unauthenticated, "NO_TOKEN")
}

func TestEveryMethodHasItsRolesAndBearsAnEmptyRequest(t *testing.T) {
	conn := serve(t, "")
	if _, err := pembav1.NewSchemaServiceClient(conn).ApplySchema(t.Context(), &pembav1.ApplySchemaRequest{Text: schemaText}); err != nil {
		t.Fatal(err)
	}
	count := 0
	protoregistry.GlobalFiles.RangeFilesByPackage("pemba.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			for j := range f.Services().Get(i).Methods().Len() {
				m := f.Services().Get(i).Methods().Get(j)
				count++
				name := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
				if !server.HasRoles(name) {
					t.Errorf("%s is missing in the table of roles", name)
				}
				for _, request := range []proto.Message{dynamicpb.NewMessage(m.Input()), hollow(m.Input())} {
					if m.IsStreamingServer() || m.IsStreamingClient() {
						continue
					}
					err := conn.Invoke(t.Context(), name, request, dynamicpb.NewMessage(m.Output()))
					if c := status.Code(err); c == codes.Internal || c == codes.Unimplemented || c == codes.Unknown {
						t.Errorf("%s of %v: %v", name, request, err)
					}
				}
			}
		}
		return true
	})
	if count < 20 {
		t.Errorf("only %d methods were found", count)
	}
}

// hollow is a message with every sub-message present and empty.
func hollow(d protoreflect.MessageDescriptor) proto.Message {
	m := dynamicpb.NewMessage(d)
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		switch {
		case f.Message() == nil || f.IsMap():
		case f.IsList():
			l := m.Mutable(f).List()
			l.Append(l.NewElement())
		default:
			m.Mutable(f)
		}
	}
	return m
}
