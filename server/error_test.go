package server_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

const faultySchema = `
use expiration
caveat over(a int, b int) { a / b > 1 }
caveat always(list list<int>) { list.all(x, list.all(y, list.all(z, x + y + z >= 0))) }
definition user {}
definition group { relation member: user | group#member }
definition document {
  relation viewer: user | user with over | user with always | user with expiration | group#member
  relation banned: user | document#view
  permission view = viewer - banned
}`

// wrong are the requests that end in each reason for which one request to a
// server with faultySchema and `document:1#viewer@user:a` is enough.
func wrong(ctx context.Context, t *testing.T, n *node) map[string]func() error {
	write := func(ops ...*pembav1.WriteOperation) func() error {
		return func() error {
			_, err := n.relationships.WriteRelationships(ctx, &pembav1.WriteRelationshipsRequest{Operations: ops})
			return err
		}
	}
	touch := func(text string) *pembav1.WriteOperation {
		return &pembav1.WriteOperation{Operation: &pembav1.WriteOperation_Touch{Touch: rel(t, text)}}
	}
	grants := pembav1.NewGrantServiceClient(n.conn)
	ask := func(r *pembav1.CheckRequest) func() error {
		return func() error { _, err := n.permissions.Check(ctx, r); return err }
	}
	d := &pembav1.Object{Type: "document", Id: "1"}
	a := &pembav1.Subject{Type: "user", Id: "a"}
	given := func(text string) *structpb.Struct {
		s := &structpb.Struct{}
		if err := s.UnmarshalJSON([]byte(text)); err != nil {
			t.Fatal(err)
		}
		return s
	}
	long := make([]any, 300)
	for i := range long {
		long[i] = i
	}
	list, err := structpb.NewStruct(map[string]any{"list": long})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]func() error{
		"MISSING_FIELD": ask(&pembav1.CheckRequest{}),
		"INVALID_BACKUP": func() error {
			stream, err := n.stores.RestoreStore(ctx)
			if err != nil {
				return err
			}
			stream.Send(&pembav1.RestoreStoreRequest{Message: &pembav1.RestoreStoreRequest_Start{Start: &pembav1.RestoreStart{Store: "copy"}}})
			stream.Send(&pembav1.RestoreStoreRequest{Message: &pembav1.RestoreStoreRequest_Data{Data: []byte("pemba backup 1\n")}})
			_, err = stream.CloseAndRecv()
			return err
		},
		"INVALID_OBJECT":       ask(&pembav1.CheckRequest{Resource: &pembav1.Object{Type: "document", Id: "a b"}}),
		"INVALID_SUBJECT":      ask(&pembav1.CheckRequest{Resource: d, Permission: "view", Subject: &pembav1.Subject{Type: "user", Id: "*"}}),
		"INVALID_RELATION":     ask(&pembav1.CheckRequest{Resource: d, Permission: "View", Subject: a}),
		"INVALID_RELATIONSHIP": write(&pembav1.WriteOperation{Operation: &pembav1.WriteOperation_Touch{Touch: &pembav1.Relationship{Resource: d, Relation: "viewer", Subject: a, Caveat: &pembav1.Caveat{Name: "No Name"}}}}),
		"INVALID_FILTER": func() error {
			_, err := all(n.relationships.DeleteRelationships(ctx, &pembav1.DeleteRelationshipsRequest{}))
			return err
		},
		"INVALID_CONTEXT": ask(&pembav1.CheckRequest{Resource: d, Permission: "view", Subject: a, Context: &structpb.Struct{Fields: map[string]*structpb.Value{"s": structpb.NewStringValue(string(make([]byte, 70_000)))}}}),
		"INVALID_ZOOKIE":  ask(&pembav1.CheckRequest{Resource: d, Permission: "view", Subject: a, Consistency: &pembav1.Consistency{Requirement: &pembav1.Consistency_AtLeastAsFresh{AtLeastAsFresh: "?"}}}),
		"INVALID_CURSOR": func() error {
			_, err := all(n.relationships.ReadRelationships(ctx, &pembav1.ReadRelationshipsRequest{Cursor: "?"}))
			return err
		},
		"INVALID_SCHEMA": func() error {
			_, err := n.schemas.DiffSchema(ctx, &pembav1.DiffSchemaRequest{Text: "definition {"})
			return err
		},
		"INVALID_STORE": ask(&pembav1.CheckRequest{Store: "No Store", Resource: d, Permission: "view", Subject: a}),
		"INVALID_TOKEN": func() error {
			_, err := n.tokens.CreateToken(ctx, &pembav1.CreateTokenRequest{Name: "pemba", Role: pembav1.Role_ROLE_READER})
			return err
		},
		"INVALID_GRANT": func() error {
			_, err := grants.AddGrant(ctx, &pembav1.AddGrantRequest{Caller: "user:ada", Role: pembav1.Role_ROLE_READER})
			return err
		},
		"GRANT_NOT_FOUND": func() error {
			_, err := grants.RemoveGrant(ctx, &pembav1.RemoveGrantRequest{Caller: "oidc:ada", Role: pembav1.Role_ROLE_READER})
			return err
		},
		"INVALID_FIELD": func() error {
			_, err := n.stores.CreateStore(ctx, &pembav1.CreateStoreRequest{Store: "s", RequestId: "a b"})
			return err
		},
		"DUPLICATE_OPERATION": write(touch("document:2#viewer@user:a"), touch("document:2#viewer@user:a")),
		"LIMIT_EXCEEDED": func() error {
			_, err := n.permissions.BulkCheck(ctx, &pembav1.BulkCheckRequest{Items: make([]*pembav1.BulkCheckItem, 10_001)})
			return err
		},
		"UNKNOWN_TYPE":            ask(&pembav1.CheckRequest{Resource: &pembav1.Object{Type: "planet", Id: "1"}, Permission: "view", Subject: a}),
		"UNKNOWN_RELATION":        ask(&pembav1.CheckRequest{Resource: d, Permission: "edit", Subject: a}),
		"PERMISSION_NOT_WRITABLE": write(touch("document:2#view@user:a")),
		"SUBJECT_NOT_ALLOWED":     write(touch("document:2#viewer@user:*")),
		"UNKNOWN_CAVEAT":          write(touch("document:2#viewer@user:a[nowhere]")),
		"CAVEAT_FIELD":            ask(&pembav1.CheckRequest{Resource: d, Permission: "view", Subject: &pembav1.Subject{Type: "user", Id: "over"}, Context: given(`{"a":"x","b":1}`)}),
		"CAVEAT_FAILED":           ask(&pembav1.CheckRequest{Resource: d, Permission: "view", Subject: &pembav1.Subject{Type: "user", Id: "over"}, Context: given(`{"a":1,"b":0}`)}),
		"CAVEAT_COST":             ask(&pembav1.CheckRequest{Resource: d, Permission: "view", Subject: &pembav1.Subject{Type: "user", Id: "always"}, Context: list}),
		"CYCLE_THROUGH_EXCLUSION": ask(&pembav1.CheckRequest{Resource: &pembav1.Object{Type: "document", Id: "loop"}, Permission: "view", Subject: a}),
		"RELATIONSHIP_EXISTS":     write(create(rel(t, "document:1#viewer@user:a"))),
		"PRECONDITION_FAILED": func() error {
			_, err := n.relationships.WriteRelationships(ctx, &pembav1.WriteRelationshipsRequest{
				Operations:    []*pembav1.WriteOperation{touch("document:3#viewer@user:a")},
				Preconditions: []*pembav1.Precondition{{Condition: &pembav1.Precondition_MustMatch{MustMatch: &pembav1.RelationshipFilter{ResourceType: "group"}}}},
			})
			return err
		},
		"REQUEST_ID_REUSED": func() error {
			_, err := n.relationships.WriteRelationships(ctx, &pembav1.WriteRelationshipsRequest{Operations: []*pembav1.WriteOperation{touch("document:4#viewer@user:a")}, RequestId: "first"})
			return err
		},
		"SCHEMA_HASH_MISMATCH": func() error {
			none := ""
			_, err := n.schemas.ApplySchema(ctx, &pembav1.ApplySchemaRequest{Text: faultySchema, ExpectedHash: &none})
			return err
		},
		"SCHEMA_ORPHANS": func() error {
			_, err := n.schemas.ApplySchema(ctx, &pembav1.ApplySchemaRequest{Text: "definition user {}"})
			return err
		},
		"BEYOND_HEAD": func() error {
			_, err := all(n.histories.ReadHistory(ctx, &pembav1.ReadHistoryRequest{FromRevision: 1000}))
			return err
		},
		"UNKNOWN_STORE": func() error {
			_, err := n.stores.DeleteStore(ctx, &pembav1.DeleteStoreRequest{Store: "nowhere"})
			return err
		},
		"STORE_EXISTS": func() error {
			_, err := n.stores.CreateStore(ctx, &pembav1.CreateStoreRequest{Store: "default"})
			return err
		},
		"STORE_PROTECTED": func() error {
			_, err := n.relationships.WriteRelationships(ctx, &pembav1.WriteRelationshipsRequest{Store: "system", Operations: []*pembav1.WriteOperation{touch("document:4#viewer@user:a")}})
			return err
		},
		"TOKEN_NOT_FOUND": func() error {
			_, err := n.tokens.RevokeToken(ctx, &pembav1.RevokeTokenRequest{Name: "nobody"})
			return err
		},
		"USER_NOT_FOUND": func() error {
			_, err := pembav1.NewProvisioningServiceClient(n.conn).SuspendUser(ctx, &pembav1.SuspendUserRequest{Id: "nobody"})
			return err
		},
		"USER_EXISTS": func() error {
			users, r := pembav1.NewProvisioningServiceClient(n.conn), &pembav1.CreateUserRequest{Id: "twice", Attributes: attributes(t, `{"userName":"twice"}`)}
			if _, err := users.CreateUser(ctx, r); err != nil {
				return err
			}
			_, err := users.CreateUser(ctx, r)
			return err
		},
		"GROUP_NOT_FOUND": func() error {
			_, err := pembav1.NewProvisioningServiceClient(n.conn).DeleteGroup(ctx, &pembav1.DeleteGroupRequest{Id: "nobody"})
			return err
		},
		"GROUP_EXISTS": func() error {
			users, r := pembav1.NewProvisioningServiceClient(n.conn), &pembav1.CreateGroupRequest{Id: "twice", Attributes: attributes(t, `{"displayName":"Twice"}`)}
			if _, err := users.CreateGroup(ctx, r); err != nil {
				return err
			}
			_, err := users.CreateGroup(ctx, r)
			return err
		},
		"MEMBER_NOT_FOUND": func() error {
			users := pembav1.NewProvisioningServiceClient(n.conn)
			if _, err := users.CreateGroup(ctx, &pembav1.CreateGroupRequest{Id: "empty", Attributes: attributes(t, `{"displayName":"Empty"}`)}); err != nil {
				return err
			}
			_, err := users.AddMembers(ctx, &pembav1.AddMembersRequest{Id: "empty", Members: []*pembav1.Member{{Member: &pembav1.Member_User{User: "nobody"}}}})
			return err
		},
		"TOO_MANY_REMOVALS": func() error {
			users := pembav1.NewProvisioningServiceClient(n.conn)
			if _, err := users.CreateGroup(ctx, &pembav1.CreateGroupRequest{Id: "left", Attributes: attributes(t, `{"displayName":"Left"}`)}); err != nil {
				return err
			}
			stream, err := users.ApplyDirectory(ctx)
			if err != nil {
				return err
			}
			start := &pembav1.DirectoryStart{MaxRemovals: proto.Uint32(0), Empty: true}
			if err := stream.Send(&pembav1.ApplyDirectoryRequest{Part: &pembav1.ApplyDirectoryRequest_Start{Start: start}}); err != nil {
				return err
			}
			if err := stream.Send(&pembav1.ApplyDirectoryRequest{Part: &pembav1.ApplyDirectoryRequest_End{End: &pembav1.DirectoryEnd{}}}); err != nil {
				return err
			}
			stream.CloseSend()
			_, err = stream.Recv()
			return err
		},
		"TOKEN_EXISTS": func() error {
			_, err := n.tokens.CreateToken(ctx, &pembav1.CreateTokenRequest{Name: "robot", Role: pembav1.Role_ROLE_READER})
			return err
		},
		"DEADLINE_EXCEEDED": func() error {
			late, cancel := context.WithDeadline(ctx, time.Now().Add(-time.Second))
			defer cancel()
			_, err := n.permissions.Check(late, &pembav1.CheckRequest{})
			return err
		},
	}
}

// elsewhere names the test that provokes a reason which takes more than one
// request.
var elsewhere = map[string]string{
	"UNSPECIFIED":       "is never sent",
	"FOREIGN_ZOOKIE":    "TestAWatchIsRefusedWithTheReason",
	"COMPACTED":         "TestAWatchFromATrimmedRevisionNamesTheOldestThatIsKept",
	"CHAIN_BROKEN":      "TestVerificationNamesTheFirstRevisionThatDoesNotFit",
	"HISTORY_FORKED":    "TestAWatchOfARestoredStoreIsToldSo",
	"SLOW_CONSUMER":     "TestAClientThatNeverReadsHarmsNobody",
	"NO_TOKEN":          "TestTokensOpenWhatTheirRoleAndStoreAllow",
	"UNKNOWN_TOKEN":     "TestTokensOpenWhatTheirRoleAndStoreAllow",
	"EXPIRED_TOKEN":     "TestATokenExpires",
	"ROLE_TOO_WEAK":     "TestTokensOpenWhatTheirRoleAndStoreAllow",
	"STORE_NOT_GRANTED": "TestTokensOpenWhatTheirRoleAndStoreAllow",
	"TYPE_NOT_GRANTED":  "TestTokensForTypesMayWhatTheTableSays",
	"CANCELLED":         "reaches no client: it has left",
	"UNAVAILABLE":       "TestAWatchEndsWhenTheServerStops",
	"INTERNAL":          "TestAFaultOfTheDatastoreIsNotTold",
}

// codeOf is the code that the comment of a reason in error.proto gives.
var codeOf = map[string]codes.Code{
	"UNKNOWN_TYPE": codes.FailedPrecondition, "UNKNOWN_RELATION": codes.FailedPrecondition, "PERMISSION_NOT_WRITABLE": codes.FailedPrecondition,
	"SUBJECT_NOT_ALLOWED": codes.FailedPrecondition, "UNKNOWN_CAVEAT": codes.FailedPrecondition, "CAVEAT_FAILED": codes.FailedPrecondition,
	"CAVEAT_COST": codes.ResourceExhausted, "CYCLE_THROUGH_EXCLUSION": codes.FailedPrecondition, "RELATIONSHIP_EXISTS": codes.AlreadyExists,
	"PRECONDITION_FAILED": codes.FailedPrecondition, "REQUEST_ID_REUSED": codes.AlreadyExists, "SCHEMA_HASH_MISMATCH": codes.FailedPrecondition,
	"SCHEMA_ORPHANS": codes.FailedPrecondition, "BEYOND_HEAD": codes.OutOfRange, "UNKNOWN_STORE": codes.NotFound, "STORE_EXISTS": codes.AlreadyExists,
	"STORE_PROTECTED": codes.FailedPrecondition, "TOKEN_NOT_FOUND": codes.NotFound, "GRANT_NOT_FOUND": codes.NotFound, "USER_NOT_FOUND": codes.NotFound, "USER_EXISTS": codes.AlreadyExists,
	"GROUP_NOT_FOUND": codes.NotFound, "GROUP_EXISTS": codes.AlreadyExists, "MEMBER_NOT_FOUND": codes.NotFound, "TOO_MANY_REMOVALS": codes.FailedPrecondition, "TOKEN_EXISTS": codes.AlreadyExists,
	"DEADLINE_EXCEEDED": codes.DeadlineExceeded,
}

// facts are the keys of the metadata that the comment of a reason gives.
var facts = map[string][]string{
	"MISSING_FIELD": {"field"}, "INVALID_OBJECT": {"field"}, "INVALID_SUBJECT": {"field"}, "INVALID_RELATION": {"field"},
	"INVALID_RELATIONSHIP": {"field"}, "INVALID_FILTER": {"field"}, "INVALID_CONTEXT": {"limit"}, "INVALID_STORE": {"store"},
	"INVALID_TOKEN": {"token"}, "INVALID_FIELD": {"field"}, "DUPLICATE_OPERATION": {"relationship"}, "LIMIT_EXCEEDED": {"limit", "maximum"},
	"CAVEAT_COST": {"limit", "maximum"}, "RELATIONSHIP_EXISTS": {"relationship"}, "PRECONDITION_FAILED": {"precondition"},
	"REQUEST_ID_REUSED": {"request_id", "revision"}, "SCHEMA_HASH_MISMATCH": {"expected", "hash"}, "SCHEMA_ORPHANS": {"count", "example"},
	"INVALID_BACKUP": {"offset"}, "BEYOND_HEAD": {"head"}, "UNKNOWN_STORE": {"store"}, "STORE_EXISTS": {"store"}, "TOKEN_NOT_FOUND": {"token"}, "INVALID_GRANT": {"caller"}, "GRANT_NOT_FOUND": {"caller"}, "USER_NOT_FOUND": {"object"}, "USER_EXISTS": {"object"},
	"GROUP_NOT_FOUND": {"object"}, "GROUP_EXISTS": {"object"}, "MEMBER_NOT_FOUND": {"id"}, "TOO_MANY_REMOVALS": {"removals", "maximum"}, "TOKEN_EXISTS": {"token"},
}

func TestEveryErrorHasItsCodeItsReasonAndItsFacts(t *testing.T) {
	n := documents(t, faultySchema)
	n.write(t, "document:1#viewer@user:a", `document:1#viewer@user:over[over]`, "document:1#viewer@user:always[always]",
		"document:loop#viewer@user:a", "document:loop#banned@document:loop#view")
	first := &pembav1.WriteRelationshipsRequest{Operations: []*pembav1.WriteOperation{create(rel(t, "document:9#viewer@user:a"))}, RequestId: "first"}
	if _, err := n.relationships.WriteRelationships(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	// Once there are tokens, everybody needs one.
	robot, err := n.tokens.CreateToken(t.Context(), &pembav1.CreateTokenRequest{Name: "robot", AllStores: true, Role: pembav1.Role_ROLE_ADMIN})
	if err != nil {
		t.Fatal(err)
	}
	cases := wrong(bearer(t, robot.Secret), t, n)
	for value, name := range pembav1.ErrorReason_name {
		name = name[len("ERROR_REASON_"):]
		provoke, ok := cases[name]
		if !ok {
			if elsewhere[name] == "" {
				t.Errorf("nothing provokes reason %d, %s", value, name)
			}
			continue
		}
		code, ok := codeOf[name]
		if !ok {
			code = codes.InvalidArgument
		}
		err := provoke()
		if name == "DEADLINE_EXCEEDED" { // the client itself may notice first, and tells no reason
			if status.Code(err) != code {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		expect(t, name, err, code, name)
		for _, key := range facts[name] {
			if fact(err, key) == "" {
				t.Errorf("%s does not name %q: %v", name, key, err)
			}
		}
		for _, d := range status.Convert(err).Details() {
			if info, ok := d.(*errdetails.ErrorInfo); ok && info.Domain != "pemba" {
				t.Errorf("%s has the domain %q", name, info.Domain)
			}
		}
	}
}

// failing fails every read of rows, once it is told to.
type failing struct {
	*memory.Log
	now atomic.Bool
}

func (l *failing) Rows(ctx context.Context, store datastore.StoreID, at datastore.Revision, q datastore.RowQuery, f func(datastore.Row) bool) error {
	if l.now.Load() {
		return errors.New("disk 7 of db-secret-host is on fire")
	}
	return l.Log.Rows(ctx, store, at, q, f)
}

func TestAFaultOfTheDatastoreIsNotTold(t *testing.T) {
	log := &failing{Log: memory.New()}
	var logged bytes.Buffer
	n := launch(t, log, keeper.Options{}, server.Config{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	n.apply(t, richSchema)
	log.now.Store(true)
	_, err := all(n.relationships.ReadRelationships(t.Context(), &pembav1.ReadRelationshipsRequest{}))
	expect(t, "a fault", err, codes.Internal, "INTERNAL")
	if strings.Contains(err.Error(), "db-secret-host") {
		t.Errorf("the client is told %v", err)
	}
	if !strings.Contains(logged.String(), "db-secret-host") {
		t.Errorf("the server's log does not tell the fault: %s", logged.String())
	}
}

func TestAWatchOfARestoredStoreIsToldSo(t *testing.T) {
	log := memory.New()
	n := launch(t, log, keeper.Options{MaxStaleness: 50 * time.Millisecond}, server.Config{})
	n.apply(t, richSchema)
	n.write(t, "document:1#viewer@user:a")
	stream := openWatch(t, n, &pembav1.WatchRequest{})
	next(t, stream)
	// Another line of history takes the place of the one that is watched.
	if err := log.DropLine(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if err := log.CreateLine(t.Context(), 2, [8]byte{1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	n.apply(t, richSchema)
	n.write(t, "document:1#viewer@user:b")
	n.write(t, "document:1#viewer@user:c")
	for {
		m, err := stream.Recv()
		if err != nil {
			expect(t, "a watch of a restored store", err, codes.Aborted, "HISTORY_FORKED")
			return
		}
		if c := m.GetChange(); c != nil {
			t.Fatalf("a change of another line is delivered: %v", c)
		}
	}
}
