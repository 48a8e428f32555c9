package server_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

// roleRow is what docs/access.md says of a method.
type roleRow struct {
	may    map[string]bool // by role
	open   bool            // to everybody
	across bool            // not to a token for one store
	types  string          // yes: for the types that a token is for; any: without regard to them
}

// roleTable reads the table of docs/access.md.
func roleTable(t *testing.T) map[string]roleRow {
	t.Helper()
	text, err := os.ReadFile("../docs/access.md")
	if err != nil {
		t.Fatal(err)
	}
	var roles []string
	table := map[string]roleRow{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if len(cells) == 10 && cells[0] == "method" {
			roles = cells[1:8]
		}
		if len(cells) != 10 || !strings.HasPrefix(cells[0], "`/") {
			continue
		}
		row := roleRow{may: map[string]bool{}, open: cells[1] == "open", across: cells[8] == "all", types: cells[9]}
		for i, role := range roles {
			row.may[role] = cells[1+i] == "yes"
		}
		table[strings.Trim(cells[0], "`")] = row
	}
	if len(roles) != len(pembav1.Role_name)-1 {
		t.Fatalf("the table has the roles %v", roles)
	}
	return table
}

// served calls f with every method of pemba.v1, and of the compatible API as far
// as it is served.
func served(f func(name string, m protoreflect.MethodDescriptor)) {
	add := func(m protoreflect.MethodDescriptor) {
		name := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
		if m.ParentFile().Package() == "pemba.v1" || server.HasRoles(name) {
			f(name, m)
		}
	}
	services(add)
	protoregistry.GlobalFiles.RangeFilesByPackage(authzedv1.File_authzed_api_v1_core_proto.Package(), func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			for j := range file.Services().Get(i).Methods().Len() {
				add(file.Services().Get(i).Methods().Get(j))
			}
		}
		return true
	})
}

// filled is a message about a store whose texts are "abc", so that most requests are
// whole; its positions and cursors are none.
func filled(d protoreflect.MessageDescriptor, store string, depth int) *dynamicpb.Message {
	m := dynamicpb.NewMessage(d)
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		name := string(f.Name())
		switch {
		case f.IsMap() || f.ContainingOneof() != nil && m.WhichOneof(f.ContainingOneof()) != nil:
		case name == "store" && f.Kind() == protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString(store))
		case f.Kind() == protoreflect.StringKind && (strings.Contains(name, "zookie") || strings.Contains(name, "cursor") || strings.Contains(name, "hash") || name == "request_id"):
		case f.Kind() == protoreflect.StringKind && (name == "text" || name == "schema"):
			m.Set(f, protoreflect.ValueOfString("definition abc {}"))
		case f.Kind() == protoreflect.StringKind && f.IsList():
			m.Mutable(f).List().Append(protoreflect.ValueOfString("abc"))
		case f.Kind() == protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString("abc"))
		case f.Kind() == protoreflect.EnumKind && !f.IsList():
			m.Set(f, protoreflect.ValueOfEnum(1))
		case f.Message() == nil || depth > 4 || strings.HasPrefix(string(f.Message().FullName()), "google.") ||
			strings.Contains(name, "cursor") || strings.Contains(name, "consistency") || strings.Contains(name, "caveat"):
		case f.IsList():
			m.Mutable(f).List().Append(protoreflect.ValueOfMessage(filled(f.Message(), store, depth+1)))
		default:
			m.Set(f, protoreflect.ValueOfMessage(filled(f.Message(), store, depth+1)))
		}
	}
	return m
}

// callWith makes a request and returns how the call ended. A watch is told to begin
// where nothing is, so that it ends.
func callWith(ctx context.Context, conn *grpc.ClientConn, name string, m protoreflect.MethodDescriptor, request *dynamicpb.Message) error {
	if !m.IsStreamingServer() && !m.IsStreamingClient() {
		return conn.Invoke(ctx, name, request, dynamicpb.NewMessage(m.Output()))
	}
	switch f := m.Input().Fields(); {
	case name == "/pemba.v1.WatchService/Watch":
		request.Set(f.ByName("after_zookie"), protoreflect.ValueOfString("nonsense"))
	case name == "/authzed.api.v1.WatchService/Watch":
		token := request.Mutable(f.ByName("optional_start_cursor")).Message()
		token.Set(token.Descriptor().Fields().ByName("token"), protoreflect.ValueOfString("nonsense"))
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, name)
	if err != nil {
		return err
	}
	// What could not be sent, the answer tells.
	_ = stream.SendMsg(request)
	if name == "/pemba.v1.RelationshipService/ImportRelationships" {
		_ = stream.SendMsg(importBatch(m))
	}
	_ = stream.CloseSend()
	for {
		if err := stream.RecvMsg(dynamicpb.NewMessage(m.Output())); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// importBatch is the second message of an import.
func importBatch(m protoreflect.MethodDescriptor) *dynamicpb.Message {
	batch := dynamicpb.NewMessage(m.Input())
	f := m.Input().Fields().ByName("batch")
	batch.Set(f, protoreflect.ValueOfMessage(filled(f.Message(), "", 1)))
	return batch
}

// guarded is a server with a token of each role, for the store default, for
// another, and for all.
func guarded(t *testing.T) (n *node, secrets map[string]map[string]string) {
	t.Helper()
	n = launch(t, memory.New(), keeper.Options{}, server.Config{Token: "root"})
	root := bearer(t, "root")
	if _, err := n.stores.CreateStore(root, &pembav1.CreateStoreRequest{Store: "acme"}); err != nil {
		t.Fatal(err)
	}
	secrets = map[string]map[string]string{}
	for number, name := range pembav1.Role_name {
		if number == 0 {
			continue
		}
		role := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, "ROLE_"), "_", "-"))
		secrets[role] = map[string]string{}
		for _, store := range []string{"default", "acme", ""} {
			made, err := n.tokens.CreateToken(root, &pembav1.CreateTokenRequest{Name: role + "-of-" + store + "x", Role: pembav1.Role(number), Store: store, AllStores: store == ""})
			if err != nil {
				t.Fatal(err)
			}
			secrets[role][store] = made.Secret
		}
	}
	return n, secrets
}

// Every method, called with a token of every role, for its own store, another and
// all, is allowed or denied as the table of docs/access.md says.
func TestCallersMayWhatTheTableSays(t *testing.T) {
	table := roleTable(t)
	n, secrets := guarded(t)
	methods, foreign := 0, 0
	served(func(name string, m protoreflect.MethodDescriptor) {
		methods++
		row, ok := table[name]
		if !ok || row.open {
			t.Errorf("%s is missing in the table, or open", name)
			return
		}
		delete(table, name)
		err := callWith(t.Context(), n.conn, name, m, filled(m.Input(), "default", 0))
		expect(t, name+" without a token", err, codes.Unauthenticated, "NO_TOKEN")
		for role, of := range secrets {
			ask := func(store string) error {
				ctx := metadata.AppendToOutgoingContext(bearer(t, of[store]), "pemba-store", "default")
				err := callWith(ctx, n.conn, name, m, filled(m.Input(), "default", 0))
				if err != nil && strings.Contains(err.Error(), of[store]) {
					t.Errorf("%s: the secret is in an error: %v", name, err)
				}
				return err
			}
			everywhere, own, other := ask(""), ask("default"), ask("acme")
			if !row.may[role] {
				for _, err := range []error{everywhere, own, other} {
					expect(t, name+" by "+role, err, codes.PermissionDenied, "ROLE_TOO_WEAK")
				}
				continue
			}
			if status.Code(everywhere) == codes.PermissionDenied || status.Code(everywhere) == codes.Unauthenticated {
				t.Errorf("%s by %s of all stores: %v", name, role, everywhere)
			}
			if row.across {
				for _, err := range []error{own, other} {
					expect(t, name+" by "+role+" of one store", err, codes.PermissionDenied, "STORE_NOT_GRANTED")
				}
				continue
			}
			if status.Code(own) == codes.PermissionDenied || status.Code(own) == codes.Unauthenticated {
				t.Errorf("%s by %s of its own store: %v", name, role, own)
			}
			switch {
			case reason(other) == "STORE_NOT_GRANTED":
				foreign++
			case status.Code(other) != codes.InvalidArgument && m.Input().Fields().ByName("store") != nil:
				t.Errorf("%s by %s of another store: %v", name, role, other)
			}
		}
	})
	for name, row := range table {
		if !row.open && name != "/scim" || !server.HasRoles(name) {
			t.Errorf("%s stands in the table, and no service has it", name)
		}
	}
	t.Logf("%d methods; %d calls were refused for their store", methods, foreign)
	if methods < 60 || foreign < 100 {
		t.Errorf("only %d methods, and %d calls refused for their store", methods, foreign)
	}
}

// typed are the roles that can be narrowed, each as a token for the type abc of the
// store default, and one for the type xyz.
func typed(t *testing.T, n *node) map[string]map[string]string {
	t.Helper()
	out := map[string]map[string]string{}
	for _, role := range []pembav1.Role{pembav1.Role_ROLE_CHECKER, pembav1.Role_ROLE_READER, pembav1.Role_ROLE_WRITER} {
		name := strings.ToLower(strings.TrimPrefix(role.String(), "ROLE_"))
		out[name] = map[string]string{}
		for _, typ := range []string{"abc", "xyz"} {
			made, err := n.tokens.CreateToken(bearer(t, "root"), &pembav1.CreateTokenRequest{Name: name + "-for-" + typ, Role: role, Types: []string{typ}})
			if err != nil {
				t.Fatal(err)
			}
			out[name][typ] = made.Secret
		}
	}
	return out
}

// narrowAsTheTable judges how a call about objects of type abc of the store default
// went, by a token for type abc or xyz.
func narrowAsTheTable(t *testing.T, what string, row roleRow, role, typ, reason string, denied bool) {
	t.Helper()
	want := ""
	switch {
	case !row.may[role]:
		want = "ROLE_TOO_WEAK"
	case row.across:
		want = "STORE_NOT_GRANTED"
	case row.types == "any" || row.types == "yes" && typ == "abc":
	default:
		want = "TYPE_NOT_GRANTED"
	}
	if denied != (want != "") || denied && reason != want {
		t.Errorf("%s by %s of type %s: denied %v with %q, and the table says %q", what, role, typ, denied, reason, want)
	}
}

// Every method, called about objects of one type with tokens for that type and for
// another, is allowed or denied as the table says; no other store is opened.
func TestTokensForTypesMayWhatTheTableSays(t *testing.T) {
	table := roleTable(t)
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Token: "root"})
	if _, err := n.stores.CreateStore(bearer(t, "root"), &pembav1.CreateStoreRequest{Store: "acme"}); err != nil {
		t.Fatal(err)
	}
	secrets := typed(t, n)
	denials := 0
	served(func(name string, m protoreflect.MethodDescriptor) {
		row := table[name]
		for role, of := range secrets {
			for typ, secret := range of {
				err := callWith(bearer(t, secret), n.conn, name, m, filled(m.Input(), "default", 0))
				denied := status.Code(err) == codes.PermissionDenied || status.Code(err) == codes.Unauthenticated
				if denied {
					denials++
				}
				narrowAsTheTable(t, name, row, role, typ, reason(err), denied)
				if !row.may[role] || row.types == "any" || row.across {
					continue
				}
				ctx := metadata.AppendToOutgoingContext(bearer(t, secret), "pemba-store", "acme")
				err = callWith(ctx, n.conn, name, m, filled(m.Input(), "acme", 0))
				if reason(err) != "STORE_NOT_GRANTED" && status.Code(err) != codes.InvalidArgument && status.Code(err) != codes.Unimplemented {
					t.Errorf("%s by %s of type %s in another store: %v", name, role, typ, err)
				}
			}
		}
	})
	if denials < 100 {
		t.Errorf("only %d calls were refused", denials)
	}
}

// The same over HTTP, where who calls is judged before what they sent is read; and
// for SCIM.
func TestCallersMayOverHTTPWhatTheTableSays(t *testing.T) {
	table := roleTable(t)
	n, secrets := guarded(t)
	w := listenHTTP(t, n, "")
	_, _, routes := w.openAPI()
	judge := func(what string, may bool, code int, text string) {
		t.Helper()
		if denied := code == http.StatusForbidden; denied == may || code == http.StatusUnauthorized {
			t.Errorf("%s: %d %s", what, code, text)
		}
	}
	services(func(m protoreflect.MethodDescriptor) {
		name := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
		at := routes[string(m.Parent().Name())+"_"+string(m.Name())]
		for role, of := range secrets {
			for store, secret := range of {
				may := table[name].may[role] && (store == "" || !table[name].across)
				answer, text := w.ask(at.verb, at.path+"?nonsense=1", "{ this is no JSON", secret)
				if store == "acme" && may && answer.StatusCode == http.StatusForbidden && strings.Contains(text, "STORE_NOT_GRANTED") {
					continue
				}
				judge(name+" by "+role+" of "+store, may, answer.StatusCode, text)
			}
		}
	})
	scimAsTheTable(t, w, secrets, table["/scim"])
}

// scimAsTheTable sends SCIM requests of every kind to every store with a token of
// every role.
func scimAsTheTable(t *testing.T, w *web, secrets map[string]map[string]string, row roleRow) {
	t.Helper()
	for _, path := range []string{"/ServiceProviderConfig", "/Schemas", "/ResourceTypes", "/Users", "/Users/x", "/Users/.search", "/Groups", "/Groups/x", "/Bulk", "/nothing"} {
		for _, verb := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
			for prefix, about := range map[string]string{"": "default", "/stores/default": "default", "/stores/acme": "acme"} {
				for role, of := range secrets {
					for store, secret := range of {
						answer, text := w.ask(verb, prefix+"/scim/v2"+path, "{ this is no JSON", secret)
						may := row.may[role] && (store == "" || store == about)
						if denied := answer.StatusCode == http.StatusForbidden; denied == may || answer.StatusCode == http.StatusUnauthorized {
							t.Errorf("%s %s%s by %s of %q: %d %s", verb, prefix, path, role, store, answer.StatusCode, text)
						}
					}
				}
			}
		}
	}
}

// Whole requests over HTTP, about another store than the token's, or another type,
// are refused as over gRPC.
func TestStoresAndTypesOverHTTPAreAsTheTableSays(t *testing.T) {
	table := roleTable(t)
	n, secrets := guarded(t)
	narrowed := typed(t, n)
	w := listenHTTP(t, n, "")
	_, _, routes := w.openAPI()
	foreign := 0
	services(func(m protoreflect.MethodDescriptor) {
		name := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
		row, at := table[name], routes[string(m.Parent().Name())+"_"+string(m.Name())]
		ask := func(secret string) (int, string) {
			path, body := at.path, wire(t, m)
			if at.verb == http.MethodGet {
				path, body = path+"?store=default", ""
			}
			answer, text := w.ask(at.verb, path, body, secret)
			return answer.StatusCode, reasonIn(text)
		}
		for role, of := range narrowed {
			for typ, secret := range of {
				code, reason := ask(secret)
				narrowAsTheTable(t, name+" over HTTP", row, role, typ, reason, code == http.StatusForbidden || code == http.StatusUnauthorized || strings.HasSuffix(reason, "_NOT_GRANTED"))
			}
		}
		if m.Input().Fields().ByName("store") == nil || row.across {
			return
		}
		for role, of := range secrets {
			if !row.may[role] {
				continue
			}
			switch code, reason := ask(of["acme"]); {
			case reason == "STORE_NOT_GRANTED" && code == http.StatusForbidden:
				foreign++
			case code != http.StatusBadRequest:
				t.Errorf("%s over HTTP by %s of another store: %d %s", name, role, code, reason)
			}
		}
	})
	if foreign < 100 {
		t.Errorf("only %d requests were refused for their store", foreign)
	}
}

// wire is a whole request of a method about the store default as JSON: for a stream
// of requests, a message a line.
func wire(t *testing.T, m protoreflect.MethodDescriptor) string {
	t.Helper()
	request := filled(m.Input(), "default", 0)
	if m.Name() == "Watch" {
		request.Set(m.Input().Fields().ByName("after_zookie"), protoreflect.ValueOfString("nonsense"))
	}
	messages := []*dynamicpb.Message{request}
	if m.Name() == "ImportRelationships" {
		messages = append(messages, importBatch(m))
	}
	var out strings.Builder
	for _, message := range messages {
		text, err := protojson.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(text)
		out.WriteByte('\n')
	}
	return out.String()
}

// reasonIn finds the reason of an error as JSON, alone or in a line of a stream.
func reasonIn(text string) string {
	_, rest, _ := strings.Cut(text, `"reason":`)
	_, rest, _ = strings.Cut(rest, `"`)
	reason, _, _ := strings.Cut(rest, `"`)
	return reason
}
