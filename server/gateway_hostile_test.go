package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

// loose is a datastore whose snapshots cannot be read, for no reason that has a
// name.
type loose struct{ datastore.Datastore }

func (f loose) At(ctx context.Context, id datastore.StoreID, c datastore.Consistency) (datastore.Snapshot, error) {
	if id != datastore.System {
		return nil, fmt.Errorf("a wire came loose")
	}
	return f.Datastore.At(ctx, id, c)
}

func timeout(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

// TestHTTPRequestsAreBounded: what is too large is refused with its limit, however
// its length is told.
func TestHTTPRequestsAreBounded(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Limits: server.Limits{RequestBytes: 100 << 10, InflightBytes: 200 << 10}})
	n.apply(t, peopleSchema)
	w := listenHTTP(t, n, "")
	large := `{"permission": "` + strings.Repeat("x", 150<<10) + `"}`
	for name, body := range map[string]io.Reader{"told": strings.NewReader(large), "chunked": io.MultiReader(strings.NewReader(large))} {
		answer, err := http.Post(w.url+"/v1/check", "application/json", body)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(string(text), "max-request-bytes") {
			t.Errorf("%s: %s: %s", name, answer.Status, text)
		}
	}
	// An import may be larger than a request, line by line.
	var b strings.Builder
	b.WriteString(`{"start": {"mode": "IMPORT_MODE_TOUCH"}}` + "\n")
	for i := range 5 {
		b.WriteString(imported(i*700, 700)) // about 80 KB
	}
	if answer, text := w.ask("POST", "/v1/relationships/import", b.String(), ""); answer.StatusCode != 200 || !strings.Contains(strings.ReplaceAll(text, " ", ""), `"offset":"3500"`) {
		t.Errorf("an import: %s: %s", answer.Status, text)
	}
	if answer, text := w.ask("POST", "/v1/relationships/import", `{"start": {"mode": "IMPORT_MODE_TOUCH"}}`+imported(0, 1500), ""); !strings.Contains(text, "max-request-bytes") {
		t.Errorf("an import of one large line: %s: %s", answer.Status, text)
	}
	if answer, text := w.ask("GET", "/v1/stores?prefix="+strings.Repeat("x", 30<<10), "", ""); answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a long path: %s: %s", answer.Status, text)
	}
	// What was refused gave back what it held: three large requests still fit one after the other.
	for range 3 {
		fits := `{"items": [` + strings.TrimSuffix(strings.Repeat(`{"resource": {"type": "document", "id": "a"}, "permission": "view", "subject": {"type": "user", "id": "ada"}},`, 800), ",") + `]}`
		if answer, text := w.ask("POST", "/v1/bulk-check", fits, ""); answer.StatusCode != 200 {
			t.Fatalf("%d bytes: %s: %.300s", len(fits), answer.Status, text)
		}
	}
}

// TestHalfRequestsEnd: a client that begins and does not go on is given up, in a
// body and in a stream.
func TestHalfRequestsEnd(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Limits: server.Limits{CallTime: 500 * time.Millisecond}})
	n.apply(t, peopleSchema)
	w := listenHTTP(t, n, "")
	const start = `{"start": {"mode": "IMPORT_MODE_TOUCH"}}`
	for name, sent := range map[string]string{
		"a body":      "POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
		"an import":   fmt.Sprintf("POST /v1/relationships/import HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n%s\n", start),
		"half a line": fmt.Sprintf("POST /v1/relationships/import HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n%s\n{\"batch\"", start),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			fmt.Fprint(c, sent)
			c.SetReadDeadline(time.Now().Add(20 * time.Second))
			all, err := io.ReadAll(c) // until the server closes
			if err != nil {
				t.Fatalf("it was not given up: %v after %s", err, all)
			}
			if text := string(all); text != "" && !strings.Contains(text, "DEADLINE_EXCEEDED") && !strings.Contains(text, "canceled") {
				t.Errorf("it was told %s", text)
			}
		})
	}
}

// TestAWebClientThatNeverReadsIsLeft: a stream that nobody reads ends, and gives
// its place to others.
func TestAWebClientThatNeverReadsIsLeft(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Limits: server.Limits{SlowConsumer: time.Second, OpenStreams: 1}})
	n.apply(t, groupSchema)
	fill(t, n, 80_000, func(i int) *pembav1.Relationship {
		return relationship("group", fmt.Sprint("g", i%2), "member", "user", fmt.Sprintf("somebody-with-a-rather-long-name-%d", i))
	})
	w := listenHTTP(t, n, "")
	c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, "POST /v1/relationships/export HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	const another = `{"limit": "1"}`
	if answer, text := w.ask("POST", "/v1/relationships/read", another, ""); answer.StatusCode != http.StatusTooManyRequests || !strings.Contains(text, "max-open-streams") {
		t.Errorf("a second stream: %s: %s", answer.Status, text)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		answer, text := w.ask("POST", "/v1/relationships/read", another, "")
		if answer.StatusCode == http.StatusOK {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the stream that nobody reads goes on: %s: %s", answer.Status, text)
		}
	}
}

// FuzzHTTP sends anything to paths of the API: the answer is JSON, line by line,
// and never a fault of the server.
func FuzzHTTP(f *testing.F) {
	paths := []string{"/v1/check", "/v1/bulk-check", "/v1/relationships/write", "/v1/relationships/import", "/v1/lookup-resources", "/v1/schema/diff", "/v1/users/create"}
	for i, body := range []string{
		`{"resource": {"type": "document", "id": "a"}, "permission": "view", "subject": {"type": "user", "id": "ada"}, "context": {"a": [1, {"b": null}]}}`,
		`{"items": [{"resource": {"type": "document", "id": "a"}, "permission": "view", "subject": {"type": "user", "id": "ada"}}]}`,
		`{"operations": [{"touch": {"resource": {"type": "document", "id": "a"}, "relation": "viewer", "subject": {"type": "user", "id": "ada"}, "expiration": "2026-01-01T00:00:00Z"}}]}`,
		`{"start": {"mode": "IMPORT_MODE_TOUCH"}}` + imported(0, 1),
		`{"resourceType": "document", "permission": "view", "subject": {"type": "user", "id": "ada"}, "limit": "1"}`,
		`{"text": "definition user {}"}`, `{"id": "ada", "userName": "ada"}`,
	} {
		f.Add(uint8(i), body)
	}
	n := documents(f, peopleSchema)
	w := listenHTTP(f, n, "")
	f.Fuzz(func(t *testing.T, which uint8, body string) {
		path := paths[int(which)%len(paths)]
		answer, err := http.Post(w.url+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode >= 500 {
			t.Errorf("%s %q: %s: %s", path, body, answer.Status, text)
		}
		for line := range strings.Lines(string(text)) {
			if !json.Valid([]byte(line)) || strings.Contains(line, `"INTERNAL"`) {
				t.Errorf("%s %q: %s", path, body, line)
			}
		}
	})
}
