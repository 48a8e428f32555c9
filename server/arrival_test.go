package server_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

// begun begins a call by hand, sends data of its request and no end, and returns
// the gRPC status that comes back, or how the connection ended.
func begun(t *testing.T, addr, method, token string, data []byte) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(conn, conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block strings.Builder
	e := hpack.NewEncoder(&block)
	fields := []string{":method", "POST", ":scheme", "http", ":path", method, ":authority", addr, "content-type", "application/grpc", "te", "trailers"}
	if token != "" {
		fields = append(fields, "authorization", "Bearer "+token)
	}
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(block.String()), EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteData(1, false, data); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return err.Error()
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			for _, field := range frame.Fields {
				if field.Name == "grpc-status" {
					return field.Value
				}
			}
		case *http2.RSTStreamFrame:
			return frame.ErrCode.String()
		}
	}
}

// TestARequestThatDoesNotComeIsNotWaitedFor, half of it or all, from those who have
// a token and from those who need none; a stream whose request came goes on.
func TestARequestThatDoesNotComeIsNotWaitedFor(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Token: "secret", Limits: server.Limits{CallTime: 500 * time.Millisecond}})
	watching, err := n.watches.Watch(bearer(t, "secret"), &pembav1.WatchRequest{Store: "system"})
	if err != nil {
		t.Fatal(err)
	}
	half := []byte{0, 0, 8, 0, 0, 'h', 'a', 'l', 'f'} // of 512 KiB
	var all sync.WaitGroup
	for _, c := range []struct {
		method, token string
		data          []byte
	}{
		{"/grpc.health.v1.Health/Check", "", half},
		{"/grpc.health.v1.Health/Watch", "", half},
		{"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "", nil},
		{"/pemba.v1.PermissionService/Check", "secret", half},
		{"/pemba.v1.PermissionService/Check", "secret", nil},
		{"/pemba.v1.WatchService/Watch", "secret", half},
		{"/pemba.v1.RelationshipService/ImportRelationships", "secret", nil},
	} {
		all.Go(func() {
			if got := begun(t, n.addr, c.method, c.token, c.data); got != fmt.Sprint(int(codes.DeadlineExceeded)) && got != http2.ErrCodeCancel.String() {
				t.Errorf("%s, of which %d bytes came, ended with %s", c.method, len(c.data), got)
			}
		})
	}
	all.Wait()
	time.Sleep(time.Second) // longer than a request may take
	if _, err := n.tokens.CreateToken(bearer(t, "secret"), &pembav1.CreateTokenRequest{Name: "after", Role: pembav1.Role_ROLE_READER}); err != nil {
		t.Fatal(err)
	}
	for seen := false; !seen; {
		m, err := watching.Recv()
		if err != nil {
			t.Fatalf("a watch whose request came: %v", err)
		}
		seen = m.GetChange() != nil
	}
}

// TestStrangersTakeNobodysPlace: who needs no token has few streams, and those who
// have one have theirs.
func TestStrangersTakeNobodysPlace(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Token: "secret", Limits: server.Limits{OpenStreams: 20}})
	health := healthv1.NewHealthClient(n.conn)
	open, refused := 0, error(nil)
	for range 10 {
		w, err := health.Watch(t.Context(), &healthv1.HealthCheckRequest{})
		if err == nil {
			_, err = w.Recv()
		}
		if err == nil {
			open++
		} else {
			refused = err
		}
	}
	if open != 2 {
		t.Errorf("strangers have %d of 20 streams", open)
	}
	expect(t, "a stranger's third stream", refused, codes.ResourceExhausted, "LIMIT_EXCEEDED")
	for range 20 {
		w, err := n.watches.Watch(bearer(t, "secret"), &pembav1.WatchRequest{Store: "system", Start: &pembav1.WatchRequest_FromRevision{FromRevision: 1}})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.CloseSend(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := health.Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil {
		t.Errorf("health: %v", err)
	}
}

// TestConnectionsAreBounded over gRPC and HTTP together: more are closed at once,
// and there is room again when some end.
func TestConnectionsAreBounded(t *testing.T) {
	registry := prometheus.NewRegistry()
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Limits: server.Limits{Connections: 4}, Metrics: registry})
	w := listenHTTP(t, n, "")
	web := strings.TrimPrefix(w.url, "http://")
	if _, err := n.stores.ListStores(t.Context(), &pembav1.ListStoresRequest{}); err != nil { // the first connection
		t.Fatal(err)
	}
	var held []net.Conn
	for _, addr := range []string{n.addr, web, web} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
	}
	within(t, "four connections", func() bool { return metric(t, registry, "pemba_connections") == 4 })
	for _, addr := range []string{n.addr, web} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if data, err := io.ReadAll(c); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("a connection too many to %s is left open: %q, %v", addr, data, err)
		}
		c.Close()
	}
	for _, c := range held {
		c.Close()
	}
	within(t, "they end", func() bool { return metric(t, registry, "pemba_connections") == 1 })
	if answer, text := w.ask("GET", "/v1/stores", "", ""); answer.StatusCode != 200 {
		t.Errorf("after they ended: %s %s", answer.Status, text)
	}
	if got := refusals(t, registry, "max-connections"); got != 2 {
		t.Errorf("%v connections were refused", got)
	}
}

// TestRefusalsAreCountedAndToldOnce, over gRPC, HTTP and SCIM, for who calls and for
// how often, and nothing of what was sent is logged.
func TestRefusalsAreCountedAndToldOnce(t *testing.T) {
	registry, logged := prometheus.NewRegistry(), &lines{}
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Token: "secret", Metrics: registry, Logger: slog.New(slog.NewTextHandler(logged, nil)),
		Limits: server.Limits{TokenRate: 50, StoreRate: 10}})
	w := listenHTTP(t, n, "")
	const each = 30
	for range each {
		_, err := n.stores.ListStores(bearer(t, "a-guess"), &pembav1.ListStoresRequest{})
		expect(t, "a guess", err, codes.Unauthenticated, "UNKNOWN_TOKEN")
		for _, path := range []string{"/v1/stores", "/scim/v2/Users"} {
			if answer, text := w.ask("GET", path, "", "a-guess"); answer.StatusCode != 401 {
				t.Fatalf("%s: %s %s", path, answer.Status, text)
			}
		}
	}
	if got := refusals(t, registry, "UNKNOWN_TOKEN"); got != 3*each {
		t.Errorf("of %d unknown tokens %v are counted", 3*each, got)
	}
	for ok := true; ok; {
		_, err := n.schemas.DiffSchema(bearer(t, "secret"), &pembav1.DiffSchemaRequest{Text: "definition user {}"})
		ok = status.Code(err) != codes.ResourceExhausted
	}
	for ok := true; ok; {
		_, err := n.stores.ListStores(bearer(t, "secret"), &pembav1.ListStoresRequest{})
		ok = status.Code(err) != codes.ResourceExhausted
	}
	for _, limit := range []string{"store-rate", "token-rate"} {
		if refusals(t, registry, limit) == 0 {
			t.Errorf("nothing is counted for %s", limit)
		}
	}
	if got := strings.Count(logged.String(), "reason=UNKNOWN_TOKEN"); got < 1 || got > 5 {
		t.Errorf("%d refusals of a kind have %d lines:\n%s", 3*each, got, logged)
	}
	if strings.Contains(logged.String(), "a-guess") {
		t.Errorf("the log tells what was sent:\n%s", logged)
	}
	calls := 0.0
	for _, c := range gathered(t, registry, "pemba_calls_total") {
		if c.labels["code"] == "Unauthenticated" {
			calls += c.value
		}
	}
	if calls != 2*each {
		t.Errorf("pemba_calls_total has %v of %d calls that were refused", calls, 2*each)
	}
}

// TestHugeHeadersAreRefused before they are kept.
func TestHugeHeadersAreRefused(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{})
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-much", strings.Repeat("x", 64<<10))
	if _, err := n.stores.ListStores(ctx, &pembav1.ListStoresRequest{}); err == nil {
		t.Error("64 KiB of headers are taken")
	}
	if _, err := n.stores.ListStores(metadata.AppendToOutgoingContext(t.Context(), "x-little", strings.Repeat("x", 8<<10)), &pembav1.ListStoresRequest{}); err != nil {
		t.Errorf("8 KiB: %v", err)
	}
}

// lines keeps what is logged.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// within waits for something that comes soon.
func within(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within a minute", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// sample is one value of a metric.
type sample struct {
	labels map[string]string
	value  float64
}

// gathered are the values of a counter or gauge.
func gathered(t *testing.T, r prometheus.Gatherer, name string) (out []sample) {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.Metric {
			s := sample{map[string]string{}, m.GetCounter().GetValue() + m.GetGauge().GetValue()}
			for _, l := range m.Label {
				s.labels[l.GetName()] = l.GetValue()
			}
			out = append(out, s)
		}
	}
	return out
}

func metric(t *testing.T, r prometheus.Gatherer, name string) (sum float64) {
	for _, s := range gathered(t, r, name) {
		sum += s.value
	}
	return sum
}

func refusals(t *testing.T, r prometheus.Gatherer, reason string) float64 {
	for _, s := range gathered(t, r, "pemba_refused_total") {
		if s.labels["reason"] == reason {
			return s.value
		}
	}
	return 0
}
