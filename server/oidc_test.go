package server_test

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

// issuer is an identity provider on loopback.
type issuer struct {
	*httptest.Server
	mu      sync.Mutex
	keys    map[string]*rsa.PrivateKey
	down    atomic.Bool
	fetched atomic.Int32 // how often its keys were
}

func newIssuer(t *testing.T, secure bool) *issuer {
	t.Helper()
	i := &issuer{keys: map[string]*rsa.PrivateKey{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		if i.down.Load() {
			http.Error(w, "gone", http.StatusServiceUnavailable)
			return
		}
		json.NewEncoder(w).Encode(map[string]any{
			"issuer": i.URL, "jwks_uri": i.URL + "/keys", "authorization_endpoint": i.URL + "/a", "token_endpoint": i.URL + "/t",
			"id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"},
		})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		i.fetched.Add(1)
		i.mu.Lock()
		defer i.mu.Unlock()
		var keys []map[string]string
		for kid, k := range i.keys {
			keys = append(keys, map[string]string{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid,
				"n": base64.RawURLEncoding.EncodeToString(k.N.Bytes()), "e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(k.E)).Bytes())})
		}
		json.NewEncoder(w).Encode(map[string]any{"keys": keys})
	})
	if secure {
		i.Server = httptest.NewTLSServer(mux)
	} else {
		i.Server = httptest.NewServer(mux)
	}
	t.Cleanup(i.Close)
	i.rotate(t, "one")
	return i
}

func (i *issuer) rotate(t *testing.T, kid string) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys[kid] = k
	return k
}

// token is one of the issuer's, with claims of the test's added to a good one's; a
// nil takes one away.
func (i *issuer) token(t *testing.T, kid string, change map[string]any) string {
	t.Helper()
	i.mu.Lock()
	key := i.keys[kid]
	i.mu.Unlock()
	return signed(t, map[string]any{"alg": "RS256", "kid": kid, "typ": "JWT"}, i.claims(change), func(sum [32]byte) []byte {
		s, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func (i *issuer) claims(change map[string]any) map[string]any {
	c := map[string]any{"iss": i.URL, "aud": "pemba", "sub": "ada", "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix()}
	for k, v := range change {
		if v == nil {
			delete(c, k)
		} else {
			c[k] = v
		}
	}
	return c
}

func signed(t *testing.T, header, claims map[string]any, sign func(sum [32]byte) []byte) string {
	t.Helper()
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := part(header) + "." + part(claims)
	return text + "." + base64.RawURLEncoding.EncodeToString(sign(sha256.Sum256([]byte(text))))
}

// trusting is a server that takes the issuer's tokens, with an admin token "root".
func trusting(t *testing.T, i *issuer, change func(*server.OIDCOptions)) (*node, pembav1.GrantServiceClient) {
	t.Helper()
	o := server.OIDCOptions{Issuer: i.URL, Audience: "pemba"}
	if change != nil {
		change(&o)
	}
	verifier, err := server.NewOIDC(o)
	if err != nil {
		t.Fatal(err)
	}
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Token: "root", OIDC: verifier})
	n.applyAs(t, "root", groupSchema)
	return n, pembav1.NewGrantServiceClient(n.conn)
}

func (n *node) applyAs(t *testing.T, secret, schema string) {
	t.Helper()
	if _, err := n.schemas.ApplySchema(bearer(t, secret), &pembav1.ApplySchemaRequest{Text: schema}); err != nil {
		t.Fatal(err)
	}
}

func (n *node) grant(t *testing.T, r *pembav1.AddGrantRequest) {
	t.Helper()
	if _, err := pembav1.NewGrantServiceClient(n.conn).AddGrant(bearer(t, "root"), r); err != nil {
		t.Fatal(err)
	}
}

// A caller with an identity provider's token may what was granted to them and to
// the groups that the token names, is the actor in the history, and no longer may
// when the grant is taken back.
func TestCallersOfAnIdentityProviderMayWhatIsGranted(t *testing.T) {
	i := newIssuer(t, false)
	n, grants := trusting(t, i, nil)
	ada := i.token(t, "one", map[string]any{"groups": []string{"Domain Admins", "staff"}})
	expect(t, "before a grant", n.asks(t, ada), codes.PermissionDenied, "ROLE_TOO_WEAK")
	who, err := grants.GetCaller(bearer(t, ada), &pembav1.GetCallerRequest{})
	if err != nil || who.Actor != "oidc:ada" || len(who.Groups) != 2 || len(who.Grants) != 0 {
		t.Errorf("GetCaller before a grant: %v, %v", who, err)
	}
	n.grant(t, &pembav1.AddGrantRequest{Caller: "oidc:ada", Role: pembav1.Role_ROLE_READER})
	if err := n.asks(t, ada); err != nil {
		t.Errorf("granted to oidc:ada: %v", err)
	}
	write := func(secret string) error {
		_, err := n.relationships.WriteRelationships(bearer(t, secret), &pembav1.WriteRelationshipsRequest{Operations: []*pembav1.WriteOperation{{Operation: &pembav1.WriteOperation_Touch{Touch: relationship("group", "g", "member", "user", "u")}}}})
		return err
	}
	expect(t, "a write by a reader", write(ada), codes.PermissionDenied, "ROLE_TOO_WEAK")
	n.grant(t, &pembav1.AddGrantRequest{Caller: "group:Domain Admins", Role: pembav1.Role_ROLE_WRITER, AllStores: true})
	if err := write(ada); err != nil {
		t.Errorf("granted to a group of hers: %v", err)
	}
	bob := i.token(t, "one", map[string]any{"sub": "bob", "groups": "staff"})
	expect(t, "who is not in the group", write(bob), codes.PermissionDenied, "ROLE_TOO_WEAK")
	changes, err := all(n.histories.ReadHistory(bearer(t, "root"), &pembav1.ReadHistoryRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	last := ""
	for _, m := range changes {
		for _, c := range m.Changes {
			last = c.Actor
		}
	}
	if last != "oidc:ada" {
		t.Errorf("the actor of her write is %q", last)
	}
	if _, err := grants.RemoveGrant(bearer(t, "root"), &pembav1.RemoveGrantRequest{Caller: "group:Domain Admins", Role: pembav1.Role_ROLE_WRITER, AllStores: true}); err != nil {
		t.Fatal(err)
	}
	expect(t, "after the grant was taken back", write(ada), codes.PermissionDenied, "ROLE_TOO_WEAK")
}

// What an identity provider did not sign, or signed for others or another time, is
// refused, and is in no error.
func TestTokensThatTheIdentityProviderDidNotMeanAreRefused(t *testing.T) {
	i := newIssuer(t, false)
	n, _ := trusting(t, i, nil)
	n.grant(t, &pembav1.AddGrantRequest{Caller: "oidc:ada", Role: pembav1.Role_ROLE_ADMIN, AllStores: true})
	good := i.token(t, "one", nil)
	if err := n.asks(t, good); err != nil {
		t.Fatalf("a good token: %v", err)
	}
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&i.keys["one"].PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	forged, err := json.Marshal(i.claims(map[string]any{"sub": "root"}))
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string]string{
		"another audience":        i.token(t, "one", map[string]any{"aud": "shop"}),
		"no audience":             i.token(t, "one", map[string]any{"aud": nil}),
		"another issuer":          i.token(t, "one", map[string]any{"iss": "https://login.example"}),
		"no subject":              i.token(t, "one", map[string]any{"sub": nil}),
		"an empty subject":        i.token(t, "one", map[string]any{"sub": ""}),
		"a number as the subject": i.token(t, "one", map[string]any{"sub": 7}),
		"not yet valid":           i.token(t, "one", map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}),
		"a subject too long":      i.token(t, "one", map[string]any{"sub": strings.Repeat("x", 1100)}),
		"signed by nobody":        signed(t, map[string]any{"alg": "none"}, i.claims(nil), func([32]byte) []byte { return nil }),
		"a changed payload":       parts[0] + "." + base64.RawURLEncoding.EncodeToString(forged) + "." + parts[2],
		"another's signature": signed(t, map[string]any{"alg": "RS256", "kid": "one"}, i.claims(nil), func(sum [32]byte) []byte {
			s, _ := rsa.SignPKCS1v15(rand.Reader, stranger, crypto.SHA256, sum[:])
			return s
		}),
		"an unknown key": signed(t, map[string]any{"alg": "RS256", "kid": "two"}, i.claims(nil), func(sum [32]byte) []byte {
			s, _ := rsa.SignPKCS1v15(rand.Reader, stranger, crypto.SHA256, sum[:])
			return s
		}),
		// The public key taken for the secret of HMAC (RFC 8725 §2.1).
		"another algorithm": func() string {
			head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","kid":"one"}`)) + "." + parts[1]
			mac := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
			mac.Write([]byte(head))
			return head + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
		}(),
		"nothing":  "..",
		"rubbish":  "a.b.c",
		"no JSON":  "e30.e30.e30",
		"too long": strings.Repeat("a", 100_000) + ".b.c",
	} {
		err := n.asks(t, secret)
		if name == "too long" && status.Code(err) != codes.Unauthenticated {
			continue // HTTP/2 refuses such headers before anybody reads them
		}
		expect(t, name, err, codes.Unauthenticated, "UNKNOWN_TOKEN")
	}
	expect(t, "expired", n.asks(t, i.token(t, "one", map[string]any{"exp": time.Now().Add(-time.Second).Unix()})), codes.Unauthenticated, "EXPIRED_TOKEN")
	expect(t, "without an end", n.asks(t, i.token(t, "one", map[string]any{"exp": nil})), codes.Unauthenticated, "EXPIRED_TOKEN")
	if err := n.asks(t, good); err != nil {
		t.Errorf("the good token, after all that: %v", err)
	}
}

// Tokens with keys that nobody knows do not make the server ask the issuer for
// each; new keys are found.
func TestKeysOfAnIdentityProviderAreRotated(t *testing.T) {
	i := newIssuer(t, false)
	n, _ := trusting(t, i, nil)
	n.grant(t, &pembav1.AddGrantRequest{Caller: "oidc:ada", Role: pembav1.Role_ROLE_READER})
	if err := n.asks(t, i.token(t, "one", nil)); err != nil {
		t.Fatal(err)
	}
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	before := i.fetched.Load()
	for k := range 50 {
		secret := signed(t, map[string]any{"alg": "RS256", "kid": fmt.Sprint("made-up-", k)}, i.claims(nil), func(sum [32]byte) []byte {
			s, _ := rsa.SignPKCS1v15(rand.Reader, stranger, crypto.SHA256, sum[:])
			return s
		})
		expect(t, "a made-up key", n.asks(t, secret), codes.Unauthenticated, "UNKNOWN_TOKEN")
	}
	if asked := i.fetched.Load() - before; asked > 10 {
		t.Errorf("50 tokens with made-up keys fetched the keys %d times", asked)
	}
	i.rotate(t, "two")
	secret, until := i.token(t, "two", nil), time.Now().Add(30*time.Second)
	for err = n.asks(t, secret); err != nil && time.Now().Before(until); err = n.asks(t, secret) {
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		t.Errorf("a token with the issuer's new key: %v", err)
	}
}

// While the issuer does not answer, its callers are told to try again, others go
// on, and once it does all is well.
func TestAnIdentityProviderThatIsDown(t *testing.T) {
	i := newIssuer(t, false)
	i.down.Store(true)
	n, _ := trusting(t, i, nil)
	n.grant(t, &pembav1.AddGrantRequest{Caller: "oidc:ada", Role: pembav1.Role_ROLE_READER})
	secret := i.token(t, "one", nil)
	expect(t, "while the issuer is down", n.asks(t, secret), codes.Unavailable, "UNAVAILABLE")
	if err := n.asks(t, "root"); err != nil {
		t.Errorf("another caller meanwhile: %v", err)
	}
	i.down.Store(false)
	until := time.Now().Add(30 * time.Second)
	err := n.asks(t, secret)
	for ; err != nil && time.Now().Before(until); err = n.asks(t, secret) {
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		t.Errorf("when the issuer is back: %v", err)
	}
}

// A stream ends when the token that opened it expires.
func TestAStreamOfAnIdentityProvidersTokenEndsWithIt(t *testing.T) {
	i := newIssuer(t, false)
	n, _ := trusting(t, i, nil)
	n.grant(t, &pembav1.AddGrantRequest{Caller: "oidc:ada", Role: pembav1.Role_ROLE_READER})
	secret := i.token(t, "one", map[string]any{"exp": time.Now().Add(2 * time.Second).Unix()})
	watch, err := n.watches.Watch(bearer(t, secret), &pembav1.WatchRequest{Heartbeat: durationpb.New(100 * time.Millisecond)})
	for err == nil {
		_, err = watch.Recv()
	}
	expect(t, "the watch", err, codes.Unauthenticated, "EXPIRED_TOKEN")
}

// The names of the claims are the server's to choose; the issuer's own authority may
// have signed its certificate.
func TestClaimsAndAuthorityOfAnIdentityProvider(t *testing.T) {
	i := newIssuer(t, true)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	n, grants := trusting(t, i, func(o *server.OIDCOptions) {
		o.CAFile, o.SubjectClaim, o.GroupsClaim = ca, "email", "realm_access.roles"
	})
	n.grant(t, &pembav1.AddGrantRequest{Caller: "group:ops", Role: pembav1.Role_ROLE_READER})
	claims := map[string]any{"email": "ada@example.com", "realm_access": map[string]any{"roles": []string{"ops"}}}
	secret := i.token(t, "one", claims)
	if err := n.asks(t, secret); err != nil {
		t.Errorf("a group within an object: %v", err)
	}
	if who, err := grants.GetCaller(bearer(t, secret), &pembav1.GetCallerRequest{}); err != nil || who.Actor != "oidc:ada@example.com" {
		t.Errorf("GetCaller: %v, %v", who, err)
	}
	claims["email_verified"] = false
	expect(t, "an address that nobody verified", n.asks(t, i.token(t, "one", claims)), codes.Unauthenticated, "UNKNOWN_TOKEN")
	for name, o := range map[string]server.OIDCOptions{
		"no URL":          {Issuer: "login", Audience: "a"},
		"plain text":      {Issuer: "http://login.example", Audience: "a"},
		"no audience":     {Issuer: "https://login.example"},
		"no such file":    {Issuer: "https://login.example", Audience: "a", CAFile: ca + "x"},
		"no certificates": {Issuer: "https://login.example", Audience: "a", CAFile: os.Args[0]},
	} {
		if _, err := server.NewOIDC(o); err == nil || !strings.Contains(err.Error(), "--oidc-") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
