package server_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

// hollows is a bulk check of n empty items: two bytes each on the wire, a hundred
// decoded.
func hollows(n int) *pembav1.BulkCheckRequest {
	r := &pembav1.BulkCheckRequest{Items: make([]*pembav1.BulkCheckItem, n)}
	for i := range r.Items {
		r.Items[i] = &pembav1.BulkCheckItem{}
	}
	return r
}

// TestAStrangersRequestIsNotRead: who has no token, or one that may not call the
// method, is refused by the headers alone, with the reason.
func TestAStrangersRequestIsNotRead(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Token: "secret"})
	checks := newToken(t, n, "checker", pembav1.Role_ROLE_CHECKER)
	for _, c := range []struct {
		token, method string
		code          codes.Code
		reason        string
	}{
		{"", "/pemba.v1.PermissionService/BulkCheck", codes.Unauthenticated, "NO_TOKEN"},
		{"guess", "/pemba.v1.PermissionService/BulkCheck", codes.Unauthenticated, "UNKNOWN_TOKEN"},
		{checks, "/pemba.v1.RelationshipService/WriteRelationships", codes.PermissionDenied, "ROLE_TOO_WEAK"},
		{checks, "/pemba.v1.RelationshipService/ImportRelationships", codes.PermissionDenied, "ROLE_TOO_WEAK"},
	} {
		status := headersOnly(t, n.addr, c.method, c.token)
		if status != fmt.Sprint(int(c.code)) {
			t.Errorf("%s as %q is answered with %q before its body is sent, not %d", c.method, c.token, status, c.code)
		}
		ctx := t.Context()
		if c.token != "" {
			ctx = bearer(t, c.token)
		}
		expect(t, c.method, n.conn.Invoke(ctx, c.method, &emptypb.Empty{}, &emptypb.Empty{}), c.code, c.reason)
	}
	err := n.conn.Invoke(t.Context(), "/pemba.v1.PermissionService/Guess", &emptypb.Empty{}, &emptypb.Empty{})
	expect(t, "an unknown method", err, codes.Unimplemented, "")
}

// newToken makes a token and returns its secret.
func newToken(t *testing.T, n *node, name string, role pembav1.Role) string {
	t.Helper()
	made, err := n.tokens.CreateToken(bearer(t, "secret"), &pembav1.CreateTokenRequest{Name: name, Role: role})
	if err != nil {
		t.Fatal(err)
	}
	return made.Secret
}

// headersOnly sends the headers of a call and no more, and returns the gRPC status
// that comes back.
func headersOnly(t *testing.T, addr, method, token string) string {
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
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return err.Error()
		}
		if h, ok := frame.(*http2.MetaHeadersFrame); ok {
			for _, field := range h.Fields {
				if field.Name == "grpc-status" {
					return field.Value
				}
			}
		}
	}
}

// TestLargeRequestsTakeTurns: what many of them take together is bounded, and all
// are answered.
func TestLargeRequestsTakeTurns(t *testing.T) {
	const size = 200_000 // items: 400 KB on the wire
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Limits: server.Limits{InflightBytes: 500_000}})
	one := allocated(func() {
		_, err := n.permissions.BulkCheck(t.Context(), hollows(size))
		expect(t, "too many items", err, codes.InvalidArgument, "LIMIT_EXCEEDED")
	})
	if one == 0 {
		t.Fatal("nothing was measured")
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			_, err := n.permissions.BulkCheck(t.Context(), hollows(size))
			expect(t, "too many items", err, codes.InvalidArgument, "LIMIT_EXCEEDED")
		})
	}
	all.Wait()
}

// TestALargeRequestDoesNotWaitForEver for others that hold what there is.
func TestALargeRequestDoesNotWaitForEver(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Limits: server.Limits{InflightBytes: 100_000, CallTime: 300 * time.Millisecond}})
	// A stream holds its message until it receives the next one.
	s, err := n.relationships.ImportRelationships(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	start := &pembav1.ImportStart{Mode: pembav1.ImportMode_IMPORT_MODE_TOUCH, Reason: strings.Repeat("x", 99_000)}
	if err := s.Send(&pembav1.ImportRelationshipsRequest{Part: &pembav1.ImportRelationshipsRequest_Start{Start: start}}); err != nil {
		t.Fatal(err)
	}
	_, _ = s.Recv() // refused for its reason, and what it held is given back
	_, err = n.permissions.BulkCheck(t.Context(), hollows(50_000))
	expect(t, "too many items", err, codes.InvalidArgument, "LIMIT_EXCEEDED")
}

// TestOpenStreamsAreBounded over all connections, and room comes back.
func TestOpenStreamsAreBounded(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Limits: server.Limits{OpenStreams: 3}})
	ctx, cancel := context.WithCancel(t.Context())
	for range 3 {
		conn := dial(t, n.addr)
		defer conn.Close()
		w, err := pembav1.NewWatchServiceClient(conn).Watch(ctx, &pembav1.WatchRequest{})
		if err == nil {
			_, err = w.Recv()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	refused := func() error {
		w, err := n.watches.Watch(t.Context(), &pembav1.WatchRequest{})
		if err == nil {
			_, err = w.Recv()
		}
		return err
	}
	err := refused()
	expect(t, "a fourth stream", err, codes.ResourceExhausted, "LIMIT_EXCEEDED")
	if fact(err, "limit") != "max-open-streams" || fact(err, "maximum") != "3" {
		t.Errorf("the limit is not named: %v", err)
	}
	cancel()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if err = refused(); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("all streams ended, and a new one is refused: %v", err)
		}
	}
}

// TestARequestThatIsNoMessageIsRefused with a reason.
func TestARequestThatIsNoMessageIsRefused(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{})
	// Field 1 of a check is a text; a message with the number of one is none.
	broken := &emptypb.Empty{}
	broken.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "\xff"))
	err := n.conn.Invoke(t.Context(), "/pemba.v1.PermissionService/Check", broken, &emptypb.Empty{})
	expect(t, "a text that is not UTF-8", err, codes.InvalidArgument, "INVALID_FIELD")
}
