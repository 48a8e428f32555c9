package server_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/dispatch"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

// rooted is a server with an admin token "root", a schema in its stores default and
// acme, and a client of grants.
func rooted(t *testing.T) (*node, pembav1.GrantServiceClient) {
	t.Helper()
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Token: "root"})
	if _, err := n.stores.CreateStore(bearer(t, "root"), &pembav1.CreateStoreRequest{Store: "acme"}); err != nil {
		t.Fatal(err)
	}
	for _, store := range []string{"default", "acme"} {
		if _, err := n.schemas.ApplySchema(bearer(t, "root"), &pembav1.ApplySchemaRequest{Store: store, Text: schemaText}); err != nil {
			t.Fatal(err)
		}
	}
	return n, pembav1.NewGrantServiceClient(n.conn)
}

func (n *node) token(t *testing.T, r *pembav1.CreateTokenRequest) string {
	t.Helper()
	made, err := n.tokens.CreateToken(bearer(t, "root"), r)
	if err != nil {
		t.Fatal(err)
	}
	return made.Secret
}

// granted lists grants as texts.
func listGrants(t *testing.T, c pembav1.GrantServiceClient, r *pembav1.ListGrantsRequest) (out []string) {
	t.Helper()
	for {
		page, err := c.ListGrants(bearer(t, "root"), r)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range page.Grants {
			text := fmt.Sprint(g.Caller, " ", strings.ToLower(strings.TrimPrefix(g.Role.String(), "ROLE_")), " ", g.Store, " ", g.Type)
			if g.OfToken {
				text += "token"
			}
			out = append(out, text)
		}
		if page.Complete {
			return out
		}
		r.Cursor = page.Cursor
	}
}

func TestGrantsAddUpAndGoWithWhatTheyAreOn(t *testing.T) {
	n, grants := rooted(t)
	robot := n.token(t, &pembav1.CreateTokenRequest{Name: "robot", Role: pembav1.Role_ROLE_CHECKER})
	n.grant(t, &pembav1.AddGrantRequest{Caller: "token:robot", Role: pembav1.Role_ROLE_WRITER, Store: "acme", Type: "document"})
	n.grant(t, &pembav1.AddGrantRequest{Caller: "token:robot", Role: pembav1.Role_ROLE_AUDITOR, Store: "acme"})
	n.grant(t, &pembav1.AddGrantRequest{Caller: "group:staff", Role: pembav1.Role_ROLE_READER, AllStores: true})
	n.grant(t, &pembav1.AddGrantRequest{Caller: "group:staff", Role: pembav1.Role_ROLE_READER, AllStores: true}) // again, which changes nothing
	want := []string{"group:staff reader  ", "token:robot auditor acme ", "token:robot writer acme document", "token:robot checker default token"}
	if got := listGrants(t, grants, &pembav1.ListGrantsRequest{Limit: 1}); !slices.Equal(got, want) {
		t.Errorf("grants, a page each: %q", got)
	}
	store := "acme"
	if got := listGrants(t, grants, &pembav1.ListGrantsRequest{Store: &store}); !slices.Equal(got, want[:3]) {
		t.Errorf("grants that count in acme: %q", got)
	}
	if got := listGrants(t, grants, &pembav1.ListGrantsRequest{Caller: "token:robot"}); !slices.Equal(got, want[1:]) {
		t.Errorf("grants of a caller: %q", got)
	}
	write := func(store, typ, relation string) error {
		_, err := n.relationships.WriteRelationships(bearer(t, robot), &pembav1.WriteRelationshipsRequest{Store: store,
			Operations: []*pembav1.WriteOperation{{Operation: &pembav1.WriteOperation_Touch{Touch: relationship(typ, "x", relation, "user", "u")}}}})
		return err
	}
	if err := write("acme", "document", "viewer"); err != nil {
		t.Errorf("a write of its type: %v", err)
	}
	expect(t, "a write of another type", write("acme", "group", "member"), codes.PermissionDenied, "TYPE_NOT_GRANTED")
	expect(t, "a write in another store", write("default", "document", "viewer"), codes.PermissionDenied, "ROLE_TOO_WEAK")
	if _, err := n.permissions.Check(bearer(t, robot), check("u")); err != nil {
		t.Errorf("its own role: %v", err)
	}

	// The store takes what was granted on it along, and one of its name has nothing of it.
	if _, err := n.stores.DeleteStore(bearer(t, "root"), &pembav1.DeleteStoreRequest{Store: "acme"}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.stores.CreateStore(bearer(t, "root"), &pembav1.CreateStoreRequest{Store: "acme"}); err != nil {
		t.Fatal(err)
	}
	expect(t, "a write in a new store of the name", write("acme", "document", "viewer"), codes.PermissionDenied, "ROLE_TOO_WEAK")
	// So does the token.
	n.grant(t, &pembav1.AddGrantRequest{Caller: "token:robot", Role: pembav1.Role_ROLE_ADMIN})
	if _, err := n.tokens.RevokeToken(bearer(t, "root"), &pembav1.RevokeTokenRequest{Name: "robot"}); err != nil {
		t.Fatal(err)
	}
	robot = n.token(t, &pembav1.CreateTokenRequest{Name: "robot", Role: pembav1.Role_ROLE_CHECKER})
	expect(t, "a write by a new token of the name", write("default", "document", "viewer"), codes.PermissionDenied, "ROLE_TOO_WEAK")
	if got := listGrants(t, grants, &pembav1.ListGrantsRequest{}); !slices.Equal(got, []string{want[0], want[3]}) {
		t.Errorf("what is left: %q", got)
	}
}

// A caller who may only check is told no relationships by the ways in which a check
// says how it came about.
func TestCheckersAreNotToldRelationships(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{Cache: dispatch.New(dispatch.Options{}), ResidentMaxRelationships: 1}, server.Config{Token: "root"})
	root := bearer(t, "root")
	if _, err := n.schemas.ApplySchema(root, &pembav1.ApplySchemaRequest{Text: schemaText}); err != nil {
		t.Fatal(err)
	}
	usersets := []*pembav1.Relationship{relationship("document", "d", "viewer", "group", "hush"), relationship("group", "hush", "member", "group", "inner")}
	for _, r := range usersets {
		r.Subject.Relation = "member"
	}
	if _, err := n.relationships.WriteRelationships(root, &pembav1.WriteRelationshipsRequest{Operations: []*pembav1.WriteOperation{
		{Operation: &pembav1.WriteOperation_Touch{Touch: usersets[0]}}, {Operation: &pembav1.WriteOperation_Touch{Touch: usersets[1]}},
		{Operation: &pembav1.WriteOperation_Touch{Touch: relationship("group", "inner", "member", "user", "u")}},
	}}); err != nil {
		t.Fatal(err)
	}
	stock := authzedv1.NewPermissionsServiceClient(n.conn)
	one := &authzedv1.CheckPermissionRequest{Consistency: afully(), Resource: aobject("document:d"), Permission: "view", Subject: asubject("user:u"), WithTracing: true}
	many := &authzedv1.CheckBulkPermissionsRequest{Consistency: afully(), WithTracing: true, Items: []*authzedv1.CheckBulkPermissionsRequestItem{{Resource: one.Resource, Permission: "view", Subject: one.Subject}}}
	for name, tt := range map[string]struct {
		role  pembav1.Role
		types []string
		told  bool
	}{
		"reader":   {role: pembav1.Role_ROLE_READER, told: true},
		"checker":  {role: pembav1.Role_ROLE_CHECKER},
		"narrowed": {role: pembav1.Role_ROLE_READER, types: []string{"document"}},
	} {
		as := bearer(t, n.token(t, &pembav1.CreateTokenRequest{Name: name, Role: tt.role, Types: tt.types}))
		var trailer metadata.MD
		got, err := n.permissions.Check(metadata.AppendToOutgoingContext(as, "pemba-debug", "true"), check("u"), grpc.Trailer(&trailer))
		if err != nil || got.Answer != pembav1.Answer_ANSWER_HAS_PERMISSION {
			t.Fatalf("%s: %v, %v", name, got, err)
		}
		if text := fmt.Sprint(map[string][]string(trailer)); strings.Contains(text, "hush") != tt.told || !strings.Contains(text, "database=") {
			t.Errorf("%s is told %s", name, text)
		}
		_, err = stock.CheckPermission(as, one)
		_, manyErr := stock.CheckBulkPermissions(as, many)
		if want := map[bool]codes.Code{true: codes.OK, false: codes.PermissionDenied}[tt.told]; status.Code(err) != want || status.Code(manyErr) != want {
			t.Errorf("%s traces: %v, %v; want %v", name, err, manyErr, want)
		}
	}
}

func TestGrantsThatCannotBe(t *testing.T) {
	_, grants := rooted(t)
	reader, admin := pembav1.Role_ROLE_READER, pembav1.Role_ROLE_ADMIN
	for name, c := range map[string]struct {
		request *pembav1.AddGrantRequest
		code    codes.Code
		reason  string
	}{
		"no caller":           {&pembav1.AddGrantRequest{Role: reader}, codes.InvalidArgument, "MISSING_FIELD"},
		"no role":             {&pembav1.AddGrantRequest{Caller: "oidc:a"}, codes.InvalidArgument, "MISSING_FIELD"},
		"a kind that is none": {&pembav1.AddGrantRequest{Caller: "user:a", Role: reader}, codes.InvalidArgument, "INVALID_GRANT"},
		"a caller unnamed":    {&pembav1.AddGrantRequest{Caller: "oidc:", Role: reader}, codes.InvalidArgument, "INVALID_GRANT"},
		"a caller too long":   {&pembav1.AddGrantRequest{Caller: "group:" + strings.Repeat(" ", 400), Role: reader}, codes.InvalidArgument, "INVALID_GRANT"},
		"a role that is none": {&pembav1.AddGrantRequest{Caller: "oidc:a", Role: 99}, codes.InvalidArgument, "INVALID_GRANT"},
		"no such token":       {&pembav1.AddGrantRequest{Caller: "token:none", Role: reader}, codes.NotFound, "TOKEN_NOT_FOUND"},
		"no such store":       {&pembav1.AddGrantRequest{Caller: "oidc:a", Role: reader, Store: "none"}, codes.NotFound, "UNKNOWN_STORE"},
		"no such type":        {&pembav1.AddGrantRequest{Caller: "oidc:a", Role: reader, Type: "none"}, codes.FailedPrecondition, "UNKNOWN_TYPE"},
		"an admin of a type":  {&pembav1.AddGrantRequest{Caller: "oidc:a", Role: admin, Type: "document"}, codes.InvalidArgument, "INVALID_GRANT"},
		"one store and all":   {&pembav1.AddGrantRequest{Caller: "oidc:a", Role: reader, Store: "acme", AllStores: true}, codes.InvalidArgument, "INVALID_GRANT"},
		"a type of all":       {&pembav1.AddGrantRequest{Caller: "oidc:a", Role: reader, Type: "document", AllStores: true}, codes.InvalidArgument, "INVALID_GRANT"},
		"an end that is over": {&pembav1.AddGrantRequest{Caller: "oidc:a", Role: reader, Expires: timestamppb.New(time.Now().Add(-time.Minute))}, codes.InvalidArgument, "INVALID_GRANT"},
	} {
		_, err := grants.AddGrant(bearer(t, "root"), c.request)
		expect(t, name, err, c.code, c.reason)
	}
	_, err := grants.RemoveGrant(bearer(t, "root"), &pembav1.RemoveGrantRequest{Caller: "oidc:a", Role: reader})
	expect(t, "taking back what was not granted", err, codes.NotFound, "GRANT_NOT_FOUND")
}

// A grant ends at its time, and the streams it allowed end; so they do when it is
// taken back.
func TestAGrantEndsAndItsStreamsWithIt(t *testing.T) {
	n, grants := rooted(t)
	secret := n.token(t, &pembav1.CreateTokenRequest{Name: "robot", Role: pembav1.Role_ROLE_CHECKER})
	open := func() pembav1.WatchService_WatchClient {
		watch, err := n.watches.Watch(bearer(t, secret), &pembav1.WatchRequest{Store: "acme", Heartbeat: durationpb.New(100 * time.Millisecond)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := watch.Recv(); err != nil {
			t.Fatalf("while it is granted: %v", err)
		}
		return watch
	}
	end := func(what string, watch pembav1.WatchService_WatchClient) {
		t.Helper()
		var err error
		for err == nil {
			_, err = watch.Recv()
		}
		expect(t, what, err, codes.PermissionDenied, "ROLE_TOO_WEAK")
	}
	request := &pembav1.AddGrantRequest{Caller: "token:robot", Role: pembav1.Role_ROLE_READER, Store: "acme", Expires: timestamppb.New(time.Now().Add(time.Second))}
	n.grant(t, request)
	end("a watch whose grant ended", open())
	request.Expires = nil
	n.grant(t, request)
	watch := open()
	if _, err := grants.RemoveGrant(bearer(t, "root"), &pembav1.RemoveGrantRequest{Caller: "token:robot", Role: pembav1.Role_ROLE_READER, Store: "acme"}); err != nil {
		t.Fatal(err)
	}
	end("a watch whose grant was taken back", watch)
	// Of a token for a type, too.
	typed := n.token(t, &pembav1.CreateTokenRequest{Name: "typed", Role: pembav1.Role_ROLE_READER, Store: "acme", Types: []string{"document"}})
	watch, err := n.watches.Watch(bearer(t, typed), &pembav1.WatchRequest{Store: "acme", Heartbeat: durationpb.New(100 * time.Millisecond), Filter: &pembav1.ChangeFilter{ResourceTypes: []string{"document"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := grants.RemoveGrant(bearer(t, "root"), &pembav1.RemoveGrantRequest{Caller: "token:typed", Role: pembav1.Role_ROLE_READER, Store: "acme", Type: "document"}); err != nil {
		t.Fatal(err)
	}
	end("a watch whose type was taken back", watch)
}

// Once something was granted nobody is let in without showing who they are, even
// when all of it is taken back.
func TestAGrantClosesAnOpenServer(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{})
	grants := pembav1.NewGrantServiceClient(n.conn)
	if _, err := grants.AddGrant(t.Context(), &pembav1.AddGrantRequest{Caller: "oidc:ada", Role: pembav1.Role_ROLE_ADMIN, AllStores: true}); err != nil {
		t.Fatal(err)
	}
	_, err := n.stores.ListStores(t.Context(), &pembav1.ListStoresRequest{})
	expect(t, "without a token, after a grant", err, codes.Unauthenticated, "NO_TOKEN")
}

// A token or a grant that ends on one node ends on another within MaxStaleness.
func TestRevocationsReachOtherNodes(t *testing.T) {
	log := memory.New()
	staleness := keeper.Options{MaxStaleness: 200 * time.Millisecond}
	shared := &unclosed{Log: log}
	one := launch(t, shared, staleness, server.Config{Token: "root"})
	two := launch(t, shared, staleness, server.Config{Token: "root"})
	secret := one.token(t, &pembav1.CreateTokenRequest{Name: "robot", Role: pembav1.Role_ROLE_ADMIN, AllStores: true})
	other := one.token(t, &pembav1.CreateTokenRequest{Name: "other", Role: pembav1.Role_ROLE_CHECKER})
	one.grant(t, &pembav1.AddGrantRequest{Caller: "token:other", Role: pembav1.Role_ROLE_ADMIN, AllStores: true})
	use := func(secret string) error {
		_, err := two.stores.ListStores(bearer(t, secret), &pembav1.ListStoresRequest{})
		return err
	}
	reach := func(what, secret string, want codes.Code) {
		t.Helper()
		began := time.Now()
		for code := codes.Code(99); code != want; {
			if code = status.Code(use(secret)); time.Since(began) > 20*time.Second {
				t.Fatalf("%s: still %s", what, code)
			}
		}
		t.Logf("%s: %s after it was answered on the other node", what, time.Since(began).Round(time.Millisecond))
	}
	reach("a token made", secret, codes.OK)
	reach("a grant", other, codes.OK)
	if _, err := one.tokens.RevokeToken(bearer(t, "root"), &pembav1.RevokeTokenRequest{Name: "robot"}); err != nil {
		t.Fatal(err)
	}
	reach("a token revoked", secret, codes.Unauthenticated)
	if _, err := pembav1.NewGrantServiceClient(one.conn).RemoveGrant(bearer(t, "root"), &pembav1.RemoveGrantRequest{Caller: "token:other", Role: pembav1.Role_ROLE_ADMIN, AllStores: true}); err != nil {
		t.Fatal(err)
	}
	reach("a grant taken back", other, codes.PermissionDenied)
}

// unclosed is a log that two keepers share.
type unclosed struct{ datastore.Log }

func (unclosed) Close() error { return nil }

// model is what callers were granted, by the words of the guide: roles add up, and
// every role but checker includes reader, which includes checker.
type model map[[4]string]bool // caller, role, store, type

// may reports whether a caller may do what one of some roles may, about a type in a
// store.
func (m model) may(callers []string, roles []string, store, typ string) bool {
	for g := range m {
		if slices.Contains(callers, g[0]) && slices.Contains(roles, g[1]) && (g[2] == "" || g[2] == store) && (g[3] == "" || g[3] == typ) {
			return true
		}
	}
	return false
}

// Whatever is granted and taken back, in whatever order: who may what is what the
// guide's words make of it.
func TestGrantsAreWhatTheGuideSays(t *testing.T) {
	i := newIssuer(t, false)
	n, grants := trusting(t, i, nil)
	root := bearer(t, "root")
	if _, err := n.stores.CreateStore(root, &pembav1.CreateStoreRequest{Store: "acme"}); err != nil {
		t.Fatal(err)
	}
	for _, store := range []string{"default", "acme"} {
		if _, err := n.schemas.ApplySchema(root, &pembav1.ApplySchemaRequest{Store: store, Text: schemaText}); err != nil {
			t.Fatal(err)
		}
	}
	every := []string{"checker", "reader", "writer", "schema-admin", "provisioner", "auditor", "admin"}
	groupsOf := map[string][]string{"ada": {"staff", "ops"}, "bob": {"staff"}, "eve": nil}
	secrets := map[string]string{}
	for who, groups := range groupsOf {
		secrets[who] = i.token(t, "one", map[string]any{"sub": who, "groups": groups})
	}
	granted := model{}
	rapid.Check(t, func(r *rapid.T) {
		for range rapid.IntRange(1, 4).Draw(r, "changes") {
			g := [4]string{
				rapid.SampledFrom([]string{"oidc:ada", "oidc:bob", "oidc:eve", "group:staff", "group:ops"}).Draw(r, "caller"),
				rapid.SampledFrom(every).Draw(r, "role"), rapid.SampledFrom([]string{"", "default", "acme"}).Draw(r, "store"), "",
			}
			if g[2] != "" && slices.Contains(every[:3], g[1]) {
				g[3] = rapid.SampledFrom([]string{"", "document", "group"}).Draw(r, "type")
			}
			role := pembav1.Role(slices.Index(every, g[1]) + 1)
			if granted[g] {
				delete(granted, g)
				if _, err := grants.RemoveGrant(root, &pembav1.RemoveGrantRequest{Caller: g[0], Role: role, Store: g[2], AllStores: g[2] == "", Type: g[3]}); err != nil {
					r.Fatal(err)
				}
			} else {
				granted[g] = true
				if _, err := grants.AddGrant(root, &pembav1.AddGrantRequest{Caller: g[0], Role: role, Store: g[2], AllStores: g[2] == "", Type: g[3]}); err != nil {
					r.Fatal(err)
				}
			}
		}
		if got := len(listGrants(t, grants, &pembav1.ListGrantsRequest{})); got != len(granted) {
			r.Fatalf("%d grants are listed, of %d", got, len(granted))
		}
		for who, groups := range groupsOf {
			callers, ctx := []string{"oidc:" + who}, bearer(t, secrets[who])
			for _, g := range groups {
				callers = append(callers, "group:"+g)
			}
			for _, store := range []string{"default", "acme"} {
				for _, typ := range []string{"document", "group"} {
					resource := &pembav1.Object{Type: typ, Id: "x"}
					relation := map[string]string{"document": "viewer", "group": "member"}[typ]
					_, checked := n.permissions.Check(ctx, &pembav1.CheckRequest{Store: store, Resource: resource, Permission: relation, Subject: &pembav1.Subject{Type: "user", Id: "u"}})
					_, wrote := n.relationships.WriteRelationships(ctx, &pembav1.WriteRelationshipsRequest{Store: store,
						Operations: []*pembav1.WriteOperation{{Operation: &pembav1.WriteOperation_Touch{Touch: relationship(typ, "x", relation, "user", "u")}}}})
					_, read := all(n.relationships.ExportRelationships(ctx, &pembav1.ExportRelationshipsRequest{Store: store, Filter: &pembav1.RelationshipFilter{ResourceType: typ}}))
					for what, c := range map[string]struct {
						err   error
						roles []string
					}{"check": {checked, every}, "read": {read, every[1:]}, "write": {wrote, []string{"writer", "admin"}}} {
						want := granted.may(callers, c.roles, store, typ)
						if denied := status.Code(c.err) == codes.PermissionDenied; denied == want || c.err != nil && !denied {
							r.Fatalf("%s may %s objects of type %s in %s: %v, and it was: %v; granted: %v", who, what, typ, store, want, c.err, granted)
						}
					}
				}
				_, schema := n.schemas.GetSchema(ctx, &pembav1.GetSchemaRequest{Store: store})
				if want := granted.may(callers, every[1:], store, ""); (status.Code(schema) == codes.PermissionDenied) == want {
					r.Fatalf("%s may read the schema of %s: %v, and it was: %v; granted: %v", who, store, want, schema, granted)
				}
			}
		}
	})
}

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue signs a certificate, and returns it and its key in PEM form.
func (a *authority) issue(t *testing.T, c *x509.Certificate) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &k.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: text})
}

// A client certificate is who its URI, else its DNS name, else its e-mail address,
// else its common name says, over gRPC and HTTP, and may what was granted to that.
func TestCertificatesMayWhatIsGrantedToThem(t *testing.T) {
	a, dir := newAuthority(t), t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, key := a.issue(t, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	encryption, err := server.NewTLS(file("crt", cert), file("key", key), file("ca", a.pem), nil)
	if err != nil {
		t.Fatal(err)
	}
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Token: "root", TLS: encryption})
	w := listenHTTP(t, n, "")
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	shop, err := url.Parse("spiffe://acme/shop")
	if err != nil {
		t.Fatal(err)
	}
	for identity, template := range map[string]*x509.Certificate{
		"spiffe://acme/shop": {URIs: []*url.URL{shop}, DNSNames: []string{"a.example"}, Subject: pkix.Name{CommonName: "cn"}},
		"shop.example":       {DNSNames: []string{"shop.example", "b.example"}, Subject: pkix.Name{CommonName: "cn"}},
		"a@example.com":      {EmailAddresses: []string{"a@example.com"}, Subject: pkix.Name{CommonName: "cn"}},
		"A Shop":             {Subject: pkix.Name{CommonName: "A Shop"}},
	} {
		cert, key := a.issue(t, template)
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		config := &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS12}
		conn, err := grpc.NewClient(n.addr, grpc.WithTransportCredentials(credentials.NewTLS(config)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
		t.Cleanup(client.CloseIdleConnections)
		over := func() int {
			answer, err := client.Get(strings.Replace(w.url, "http://", "https://", 1) + "/v1/stores")
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			return answer.StatusCode
		}
		stores := pembav1.NewStoreServiceClient(conn)
		_, err = stores.ListStores(t.Context(), &pembav1.ListStoresRequest{})
		expect(t, identity+" before a grant", err, codes.Unauthenticated, "NO_TOKEN")
		if !strings.Contains(err.Error(), "certificate:"+identity) {
			t.Errorf("the error does not name %s: %v", identity, err)
		}
		if code := over(); code != http.StatusUnauthorized {
			t.Errorf("%s over HTTP before a grant: %d", identity, code)
		}
		admin := bearer(t, "root")
		if _, err := pembav1.NewGrantServiceClient(conn).AddGrant(admin, &pembav1.AddGrantRequest{Caller: "certificate:" + identity, Role: pembav1.Role_ROLE_READER}); err != nil {
			t.Fatalf("%s with an admin's token: %v", identity, err)
		}
		if _, err := stores.ListStores(t.Context(), &pembav1.ListStoresRequest{}); err != nil {
			t.Errorf("%s: %v", identity, err)
		}
		if code := over(); code != http.StatusOK {
			t.Errorf("%s over HTTP: %d", identity, code)
		}
		who, err := pembav1.NewGrantServiceClient(conn).GetCaller(context.Background(), &pembav1.GetCallerRequest{})
		if err != nil || who.Actor != "certificate:"+identity {
			t.Errorf("%s is taken for %v, %v", identity, who, err)
		}
		_, err = stores.CreateStore(t.Context(), &pembav1.CreateStoreRequest{Store: "x"})
		expect(t, identity+" making a store", err, codes.PermissionDenied, "ROLE_TOO_WEAK")
	}
}
