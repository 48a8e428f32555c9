package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
)

// besieged is a whole server, all its listeners over TLS but that for metrics, and
// everything that it lets out: its log, what it answered, its traces.
type besieged struct {
	t     *testing.T
	node  *node
	trust *tls.Config
	conn  *grpc.ClientConn
	web   *http.Client
	log   *lines
	heard *lines
	spans *tracetest.InMemoryExporter

	mu      sync.Mutex
	secrets map[string]string // by what they are
}

// staticSecret is the token that the server is started with.
const staticSecret = "static-secret-0123456789abcdef"

func besiege(t *testing.T) *besieged {
	path := filepath.Join(t.TempDir(), "server")
	ca := newAuthority(t, "ours")
	ca.sign(path, 2, soon(), "127.0.0.1")
	b := &besieged{t: t, log: &lines{}, heard: &lines{}, spans: tracetest.NewInMemoryExporter(), secrets: map[string]string{"the server's own token": staticSecret}}
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(b.spans))
	s := serving{place: place{uri: "memory:"}, addr: "127.0.0.1:0", httpAddr: "127.0.0.1:0", metricsAddr: "127.0.0.1:0",
		encryption: encryption{cert: path + ".crt", key: path + ".key"}, tracer: provider.Tracer("test"),
		log: slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	var err error
	if s.tls, err = s.encryption.open(s.log); err != nil {
		t.Fatal(err)
	}
	if b.node, err = start(t.Context(), s, staticSecret); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.node.until(ctx) }()
	b.trust = &tls.Config{RootCAs: ca.pool()}
	if b.conn, err = grpc.NewClient("passthrough:///"+b.node.addr, grpc.WithTransportCredentials(credentials.NewTLS(b.trust.Clone()))); err != nil {
		t.Fatal(err)
	}
	b.web = &http.Client{Transport: &http.Transport{TLSClientConfig: b.trust.Clone()}}
	t.Cleanup(func() {
		b.conn.Close()
		b.web.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return b
}

// as is a context of a call with headers.
func (b *besieged) as(headers ...string) context.Context {
	return metadata.AppendToOutgoingContext(b.t.Context(), headers...)
}

func with(secret string) []string { return []string{"authorization", "Bearer " + secret} }

// secret remembers what must never be let out.
func (b *besieged) secret(what, secret string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.secrets[what] = secret
	return secret
}

// tokens makes credentials that once were good.
func (b *besieged) tokens() (out map[string]string) {
	tokens, stores, ctx := pb.NewTokenServiceClient(b.conn), pb.NewStoreServiceClient(b.conn), b.as(with(staticSecret)...)
	must := func(err error) {
		b.t.Helper()
		if err != nil {
			b.t.Fatal(err)
		}
	}
	made := func(r *pb.CreateTokenRequest) string {
		b.t.Helper()
		m, err := tokens.CreateToken(ctx, r)
		must(err)
		return b.secret(r.Name, m.Secret)
	}
	out = map[string]string{}
	_, err := stores.CreateStore(ctx, &pb.CreateStoreRequest{Store: "other"})
	must(err)
	_, err = stores.CreateStore(ctx, &pb.CreateStoreRequest{Store: "gone"})
	must(err)

	out["revoked"] = made(&pb.CreateTokenRequest{Name: "revoked", AllStores: true, Role: pb.Role_ROLE_ADMIN})
	_, err = tokens.RevokeToken(ctx, &pb.RevokeTokenRequest{Name: "revoked"})
	must(err)
	made(&pb.CreateTokenRequest{Name: "again", AllStores: true, Role: pb.Role_ROLE_ADMIN})
	out["of a token whose name was given again"] = b.secrets["again"]
	_, err = tokens.RevokeToken(ctx, &pb.RevokeTokenRequest{Name: "again"})
	must(err)
	m, err := tokens.CreateToken(ctx, &pb.CreateTokenRequest{Name: "again", AllStores: true, Role: pb.Role_ROLE_ADMIN})
	must(err)
	b.secret("the new one of that name", m.Secret)

	made(&pb.CreateTokenRequest{Name: "rotated", AllStores: true, Role: pb.Role_ROLE_ADMIN})
	out["rotated away"] = b.secrets["rotated"]
	r, err := tokens.RotateToken(ctx, &pb.RotateTokenRequest{Name: "rotated", Overlap: durationpb.New(0)})
	must(err)
	good := b.secret("rotated to", r.Secret)

	out["expired"] = made(&pb.CreateTokenRequest{Name: "expired", AllStores: true, Role: pb.Role_ROLE_ADMIN, Expires: timestamppb.New(time.Now().Add(300 * time.Millisecond))})
	out["of another store"] = made(&pb.CreateTokenRequest{Name: "other", Store: "other", Role: pb.Role_ROLE_WRITER})
	out["of a store that is gone"] = made(&pb.CreateTokenRequest{Name: "gone", Store: "gone", Role: pb.Role_ROLE_WRITER})
	_, err = stores.DeleteStore(ctx, &pb.DeleteStoreRequest{Store: "gone"})
	must(err)
	out["of a weaker role"] = made(&pb.CreateTokenRequest{Name: "weak", AllStores: true, Role: pb.Role_ROLE_CHECKER})
	out["cut short"] = b.secret("a secret cut short", good[:len(good)-4])
	out["of another case"] = b.secret("a secret in capitals", strings.ToUpper(good))
	last := "a"
	if strings.HasSuffix(good, last) {
		last = "b"
	}
	out["off by one letter"] = b.secret("a secret off by a letter", good[:len(good)-1]+last)
	out["followed by more"] = good + "x"
	hash := sha256.Sum256([]byte(good))
	out["its hash"] = hex.EncodeToString(hash[:])
	out["the name of a token"] = "rotated"
	out["very long"] = b.secret("a long secret", strings.Repeat("pemba_", 1500))
	time.Sleep(400 * time.Millisecond)
	return out
}

// get asks over HTTP, and keeps what it is told.
func (b *besieged) get(method, path, body string, headers ...string) int {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, "https://"+b.node.web.addr+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	answer, err := b.web.Do(r)
	if err != nil {
		fmt.Fprintln(b.heard, strings.ReplaceAll(err.Error(), r.URL.String(), "URL"))
		return 0
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	fmt.Fprintln(b.heard, answer.Status, answer.Header, string(text), answer.Trailer)
	return answer.StatusCode
}

// write asks over gRPC for what only a writer of the default store may, and keeps
// what it is told.
func (b *besieged) write(headers ...string) codes.Code {
	var header, trailer metadata.MD
	_, err := pb.NewRelationshipServiceClient(b.conn).WriteRelationships(b.as(headers...), &pb.WriteRelationshipsRequest{
		Operations: []*pb.WriteOperation{{Operation: &pb.WriteOperation_Touch{Touch: &pb.Relationship{
			Resource: &pb.Object{Type: "document", Id: "a"}, Relation: "viewer", Subject: &pb.Subject{Type: "user", Id: "ada"}}}}},
	}, grpc.Header(&header), grpc.Trailer(&trailer))
	fmt.Fprintln(b.heard, err, status.Convert(err).Proto(), header, trailer)
	return status.Code(err)
}

// watch is write for a stream.
func (b *besieged) watch(headers ...string) codes.Code {
	s, err := pb.NewHistoryServiceClient(b.conn).ReadHistory(b.as(headers...), &pb.ReadHistoryRequest{Store: "system"})
	if err == nil {
		_, err = s.Recv()
	}
	fmt.Fprintln(b.heard, err, status.Convert(err).Proto())
	return status.Code(err)
}

// unharmed asks every listener something that must be answered.
func (b *besieged) unharmed(after string) {
	b.t.Helper()
	if _, err := healthv1.NewHealthClient(b.conn).Check(b.t.Context(), &healthv1.HealthCheckRequest{}); err != nil {
		b.t.Errorf("%s: health: %v", after, err)
	}
	if _, err := pb.NewStoreServiceClient(b.conn).ListStores(b.as(with(staticSecret)...), &pb.ListStoresRequest{}); err != nil {
		b.t.Errorf("%s: gRPC: %v", after, err)
	}
	for path, want := range map[string]int{"/v1/stores": 200, "/scim/v2/Users": 200, "/healthz": 200} {
		if got := b.get("GET", path, "", "Authorization", "Bearer "+staticSecret); got != want {
			b.t.Errorf("%s: %s is answered with %d", after, path, got)
		}
	}
	if page := b.metrics(); !strings.Contains(page, "pemba_calls_total") {
		b.t.Errorf("%s: the metrics are\n%s", after, page)
	}
}

// metrics is what the listener for them tells.
func (b *besieged) metrics() string {
	b.t.Helper()
	var all strings.Builder
	for _, path := range []string{"/metrics", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1", "/debug/pprof/cmdline"} {
		answer, err := http.Get("http://" + b.node.observed.listen.Addr().String() + path)
		if err != nil {
			b.t.Fatal(err)
		}
		_, err = io.Copy(&all, answer.Body)
		if answer.Body.Close(); err != nil {
			b.t.Fatal(err)
		}
	}
	return all.String()
}

// searched looks for every secret, and what is as good as one, in all that the
// server let out.
func (b *besieged) searched() {
	b.t.Helper()
	spans := fmt.Sprintf("%+v", b.spans.GetSpans())
	if len(b.log.String()) == 0 || len(b.heard.String()) == 0 || len(spans) < 1000 {
		b.t.Error("nothing was logged, answered or traced: there is nothing to search")
	}
	history := b.history()
	for what, secret := range b.secrets {
		hash := sha256.Sum256([]byte(secret))
		forms := map[string]string{"itself": secret, "in base64": base64.RawStdEncoding.EncodeToString([]byte(secret)), "in a URL": url.QueryEscape(secret),
			"its hash": hex.EncodeToString(hash[:]), "its hash in base64": base64.RawStdEncoding.EncodeToString(hash[:]), "in hex": hex.EncodeToString([]byte(secret))}
		for form, text := range forms {
			for where, out := range map[string]string{"log": b.log.String(), "answers": b.heard.String(), "metrics and profiles": b.metrics(), "traces": spans, "history": history} {
				if form != "itself" && where == "history" { // the hash is what a history holds of a token
					continue
				}
				if strings.Contains(out, text) {
					b.t.Errorf("%s stands %s in the %s", what, form, where)
				}
			}
		}
	}
}

// history is what an auditor reads of the tokens.
func (b *besieged) history() string {
	s, err := pb.NewHistoryServiceClient(b.conn).ReadHistory(b.as(with(staticSecret)...), &pb.ReadHistoryRequest{Store: "system"})
	if err != nil {
		b.t.Fatal(err)
	}
	var out strings.Builder
	for {
		m, err := s.Recv()
		if err == io.EOF {
			return out.String()
		}
		if err != nil {
			b.t.Fatal(err)
		}
		out.WriteString(m.String())
	}
}

// TestCredentialsThatAreNotGoodOpenNothing: on no listener, and none of them stands
// in anything that the server lets out.
func TestCredentialsThatAreNotGoodOpenNothing(t *testing.T) {
	b := besiege(t)
	const write = `{"operations": [{"touch": {"resource": {"type": "document", "id": "a"}, "relation": "viewer", "subject": {"type": "user", "id": "ada"}}}]}`
	for name, secret := range b.tokens() {
		if got := b.write(with(secret)...); got != codes.Unauthenticated && got != codes.PermissionDenied {
			t.Errorf("a secret %s writes: %s", name, got)
		}
		if got := b.watch(with(secret)...); got != codes.Unauthenticated && got != codes.PermissionDenied {
			t.Errorf("a secret %s reads the history: %s", name, got)
		}
		for _, path := range []string{"POST /v1/relationships/write", "GET /scim/v2/Users", "GET /scim/v2/Groups/x"} {
			method, path, _ := strings.Cut(path, " ")
			if got := b.get(method, path, write, "Authorization", "Bearer "+secret); got != 401 && got != 403 {
				t.Errorf("a secret %s: %s %s: %d", name, method, path, got)
			}
		}
	}
	basic := base64.StdEncoding.EncodeToString([]byte("admin:" + staticSecret))
	b.secret("the token as a password", basic)
	for name, headers := range map[string][]string{
		"none":                   nil,
		"empty":                  {"authorization", ""},
		"no secret":              {"authorization", "Bearer "},
		"no scheme":              {"authorization", staticSecret},
		"another scheme":         {"authorization", "Basic " + basic},
		"two":                    {"authorization", "Bearer " + staticSecret, "authorization", "Bearer " + staticSecret},
		"a list":                 {"authorization", "Bearer x, Bearer " + staticSecret},
		"two spaces":             {"authorization", "Bearer  " + staticSecret},
		"a proxy's":              {"proxy-authorization", "Bearer " + staticSecret},
		"the gateway's prefix":   {"grpc-metadata-authorization", "Bearer " + staticSecret},
		"another header":         {"x-api-key", staticSecret},
		"a cookie":               {"cookie", "token=" + staticSecret},
		"a claim to be somebody": {"x-forwarded-user", "admin", "x-remote-user", "admin", "x-forwarded-for", "127.0.0.1"},
	} {
		if got := b.write(headers...); got != codes.Unauthenticated && got != codes.Internal { // what is no metadata does not leave the client
			t.Errorf("%s: %s", name, got)
		}
		for _, path := range []string{"/v1/stores", "/scim/v2/Users", "/v1/stores?access_token=" + staticSecret, "/v1/stores?authorization=Bearer+" + staticSecret} {
			if got := b.get("GET", path, "", headers...); got != 401 && got != 400 {
				t.Errorf("%s: %s: %d", name, strings.Split(path, "?")[0], got)
			}
		}
	}
	b.unharmed("bad credentials")
	b.searched()
	for _, reason := range []string{"NO_TOKEN", "UNKNOWN_TOKEN", "EXPIRED_TOKEN", "ROLE_TOO_WEAK"} {
		if !strings.Contains(b.log.String(), "reason="+reason) {
			t.Errorf("the log does not tell of %s:\n%s", reason, b.log)
		}
	}
}

// TestPathsAndHeadersPlayNoTricks: whatever is done with a request's path, method
// and framing, it opens nothing that a plain one does not, and costs no listener.
func TestPathsAndHeadersPlayNoTricks(t *testing.T) {
	b := besiege(t)
	for _, path := range []string{
		"/v1//stores", "//v1/stores", "/v1/../v1/stores", "/scim/../v1/stores", "/v1/./stores", "/V1/stores", "/v1/stores/", "/v1/stores;a=b", "/v1/stores%00",
		"/v1/%73tores", "/v1%2fstores", "/%2e%2e/v1/stores", "/healthz/../v1/stores", "/openapi.json/../../v1/stores", "/scim/v2/../../v1/stores", "/metrics", "/debug/pprof/", "/debug/pprof/cmdline",
		"/pemba.v1.StoreService/ListStores", "/stores/default/scim/v2/Users", "/stores/..%2fsystem/scim/v2/Users", "/stores/%00/scim/v2/Users", "/scim/v2/Users/..%2f..%2f..%2fv1%2fstores", "/scim/v2//Users",
	} {
		for _, headers := range [][]string{nil, {"X-HTTP-Method-Override", "POST"}, {"X-Original-URL", "/healthz"}, {"X-Rewrite-URL", "/healthz"}, {"X-Forwarded-Prefix", "/healthz"}} {
			for _, method := range []string{"GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "PROPFIND"} {
				got := b.get(method, path, "", headers...)
				if got < 300 || got >= 500 && got != 501 {
					t.Errorf("%s %s %v: %d", method, path, headers, got)
				}
			}
		}
	}
	for _, method := range []string{"/pemba.v1.StoreService/ListStores/", "//pemba.v1.StoreService/ListStores", "/PEMBA.V1.StoreService/ListStores", "/pemba.v1.StoreService/liststores",
		"/pemba.v1.StoreService", "/", "/x/../pemba.v1.StoreService/ListStores", "/grpc.health.v1.Health/../pemba.v1.StoreService/ListStores", "/scim", "scim", "/pemba.v1.StoreService/ListStores?x=1"} {
		err := b.conn.Invoke(t.Context(), method, &pb.ListStoresRequest{}, &pb.ListStoresResponse{})
		fmt.Fprintln(b.heard, err)
		if c := status.Code(err); c != codes.Unimplemented && c != codes.Unauthenticated && c != codes.PermissionDenied && c != codes.Internal {
			t.Errorf("%s: %v", method, err)
		}
	}
	head := "Host: 127.0.0.1\r\n"
	for name, request := range map[string]string{
		"two lengths":             "POST /healthz HTTP/1.1\r\n" + head + "Content-Length: 4\r\nContent-Length: 60\r\n\r\nGET /v1/stores HTTP/1.1\r\n" + head + "\r\n",
		"a length and chunks":     "POST /v1/check HTTP/1.1\r\n" + head + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/stores HTTP/1.1\r\n" + head + "\r\n",
		"chunks in disguise":      "POST /v1/check HTTP/1.1\r\n" + head + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"a folded header":         "GET /v1/stores HTTP/1.1\r\n" + head + "Authorization: Bearer\r\n guess\r\n\r\n",
		"a space before a colon":  "GET /v1/stores HTTP/1.1\r\n" + head + "Authorization : Bearer " + staticSecret + "\r\n\r\n",
		"two hosts":               "GET /v1/stores HTTP/1.1\r\n" + head + "Host: evil.example\r\n\r\n",
		"no host":                 "GET /v1/stores HTTP/1.1\r\n\r\n",
		"a line break in a value": "GET /v1/stores HTTP/1.1\r\n" + head + "X-A: b\nAuthorization: Basic " + staticSecret + "\r\n\r\n",
		"a NUL in a value":        "GET /v1/stores HTTP/1.1\r\n" + head + "X-A: \x00\r\n\r\n",
		"a version to come":       "GET /v1/stores HTTP/9.9\r\n" + head + "\r\n",
		"HTTP/0.9":                "GET /v1/stores\r\n",
		"a tunnel":                "CONNECT 127.0.0.1:22 HTTP/1.1\r\n" + head + "\r\n",
		"an upgrade":              "GET /v1/stores HTTP/1.1\r\n" + head + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n",
		"a URL of another host":   "GET http://127.0.0.1:1/v1/stores HTTP/1.1\r\n" + head + "\r\n",
		"many headers":            "GET /v1/stores HTTP/1.1\r\n" + head + strings.Repeat("X-A: b\r\n", 5000) + "\r\n",
		"a long line":             "GET /" + strings.Repeat("a", 100_000) + " HTTP/1.1\r\n" + head + "\r\n",
		"nothing that it knows":   strings.Repeat("\xff\x00", 5000),
	} {
		text := b.sent(b.node.web.addr, request)
		fmt.Fprintln(b.heard, text)
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "HTTP/1.1 2") || strings.HasPrefix(line, "HTTP/1.1 5") && !strings.HasPrefix(line, "HTTP/1.1 501") && !strings.HasPrefix(line, "HTTP/1.1 505") {
				t.Errorf("%s is answered with\n%s", name, text)
			}
		}
		if strings.Contains(text, `"stores"`) {
			t.Errorf("%s tells\n%s", name, text)
		}
	}
	b.unharmed("tricks")
	b.searched()
}

// sent sends bytes over TLS and returns what comes until the server closes, or has
// nothing more to say.
func (b *besieged) sent(addr, request string) string {
	b.t.Helper()
	config := b.trust.Clone()
	config.NextProtos = []string{"http/1.1"}
	c, err := tls.Dial("tcp", addr, config)
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, request)
	_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	data, _ := io.ReadAll(c)
	return string(data)
}

// TestBrokenConnectionsAreLeft: plain text where TLS is spoken, older TLS, halves
// of handshakes and of requests. All are closed in their time, and nothing stays.
func TestBrokenConnectionsAreLeft(t *testing.T) {
	b := besiege(t)
	b.unharmed("nothing yet")
	before := runtime.NumGoroutine()
	hello := clientHello(t)
	var all sync.WaitGroup
	for _, addr := range []string{b.node.addr, b.node.web.addr, b.node.observed.listen.Addr().String()} {
		for name, bytes := range map[string]string{
			"silence":              "",
			"a byte":               "\x16",
			"half a hello":         hello[:len(hello)/2],
			"a hello":              hello,
			"plain HTTP":           "GET /v1/stores HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer " + staticSecret + "\r\n\r\n",
			"plain HTTP/2":         "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
			"half a request":       "POST /v1/check HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{",
			"half a line":          "GET /metr",
			"random":               strings.Repeat("\x00\xa5", 100),
			"a TLS record of 2^16": "\x16\x03\x01\xff\xff" + strings.Repeat("a", 1000),
		} {
			for range 5 {
				all.Go(func() {
					c, err := net.Dial("tcp", addr)
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					_, _ = io.WriteString(c, bytes)
					_ = c.SetReadDeadline(time.Now().Add(time.Minute))
					answer, err := io.ReadAll(c)
					if late, ok := err.(net.Error); ok && late.Timeout() {
						t.Errorf("%s to %s is still open after a minute", name, addr)
					}
					if addr != b.node.observed.listen.Addr().String() && strings.Contains(string(answer), "stores") {
						t.Errorf("%s to %s is answered with %s", name, addr, answer)
					}
					b.heard.Write(answer)
				})
			}
		}
	}
	b.unharmed("in the middle of it")
	all.Wait()
	b.unharmed("broken connections")
	for end := time.Now().Add(30 * time.Second); runtime.NumGoroutine() > before+10; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("%d goroutines, and %d before", runtime.NumGoroutine(), before)
			break
		}
	}
	b.searched()
	if !strings.Contains(b.log.String(), "reason=handshake") || strings.Count(b.log.String(), "reason=handshake") > 20 {
		t.Errorf("the log tells of handshakes:\n%s", b.log)
	}
}

// clientHello is the first that a TLS client says.
func clientHello(t *testing.T) string {
	client, server := net.Pipe()
	go func() { _ = tls.Client(client, &tls.Config{ServerName: "pemba.example"}).HandshakeContext(t.Context()) }()
	defer client.Close()
	buffer := make([]byte, 4096)
	n, err := server.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	return string(buffer[:n])
}

// TestOversizeMessagesOverGRPCAreRefused, also those that are small until they are
// unpacked, without taking the memory that they ask for.
func TestOversizeMessagesOverGRPCAreRefused(t *testing.T) {
	b := besiege(t)
	huge := &pb.DiffSchemaRequest{Text: strings.Repeat("x", 40<<20)}
	for name, options := range map[string][]grpc.CallOption{"as it is": nil, "packed": {grpc.UseCompressor("gzip")}} {
		err := b.conn.Invoke(b.as(with(staticSecret)...), "/pemba.v1.SchemaService/DiffSchema", huge, &pb.DiffSchemaResponse{}, options...)
		fmt.Fprintln(b.heard, err)
		if c := status.Code(err); c != codes.ResourceExhausted && c != codes.Unimplemented {
			t.Errorf("40 MiB %s: %.200v", name, err)
		}
		err = b.conn.Invoke(t.Context(), "/grpc.health.v1.Health/Check", proto.Message(&healthv1.HealthCheckRequest{Service: huge.Text}), &healthv1.HealthCheckResponse{}, options...)
		fmt.Fprintln(b.heard, status.Code(err))
		if c := status.Code(err); c != codes.ResourceExhausted && c != codes.Unimplemented {
			t.Errorf("40 MiB %s by a stranger: %.200v", name, err)
		}
	}
	var bomb bytes.Buffer
	bomb.WriteString(`{"text": "`)
	bomb.Write(bytes.Repeat([]byte("x"), 20<<20))
	if got := b.get("POST", "/v1/schema/diff", bomb.String(), "Authorization", "Bearer "+staticSecret); got != 413 && got != 0 {
		t.Errorf("20 MiB over HTTP: %d", got)
	}
	if got := b.get("POST", "/scim/v2/Users", bomb.String(), "Authorization", "Bearer "+staticSecret); got != 413 && got != 0 {
		t.Errorf("20 MiB over SCIM: %d", got)
	}
	b.unharmed("oversize messages")
	b.searched()
}
