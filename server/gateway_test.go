package server_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

// document is an OpenAPI document, as far as the tests read it.
type document struct {
	Paths       map[string]map[string]operation `json:"paths"`
	Definitions map[string]json.RawMessage      `json:"definitions"`
}

type operation struct {
	ID string `json:"operationId"`
}

// route is where a method is found over HTTP.
type route struct{ verb, path string }

// openAPI asks a server for its document.
func (w *web) openAPI() (text []byte, d document, routes map[string]route) {
	w.t.Helper()
	answer, err := http.Get(w.url + "/openapi.json")
	if err != nil {
		w.t.Fatal(err)
	}
	defer answer.Body.Close()
	if text, err = io.ReadAll(answer.Body); err != nil {
		w.t.Fatal(err)
	}
	if err := json.Unmarshal(text, &d); err != nil {
		w.t.Fatal(err)
	}
	routes = map[string]route{}
	for path, verbs := range d.Paths {
		for verb, o := range verbs {
			if was, twice := routes[o.ID]; twice {
				w.t.Errorf("%s is at %s and at %s", o.ID, was.path, path)
			}
			routes[o.ID] = route{strings.ToUpper(verb), path}
		}
	}
	return text, d, routes
}

// services calls f with every method of pemba.v1.
func services(f func(protoreflect.MethodDescriptor)) {
	protoregistry.GlobalFiles.RangeFilesByPackage("pemba.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			for j := range file.Services().Get(i).Methods().Len() {
				f(file.Services().Get(i).Methods().Get(j))
			}
		}
		return true
	})
}

// TestEveryMethodHasARoute: it stands in the OpenAPI document, is served where
// that says, and lets nobody in without a token, whose body is not even read.
func TestEveryMethodHasARoute(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Token: "root"})
	w := listenHTTP(t, n, "")
	_, _, routes := w.openAPI()
	count := 0
	services(func(m protoreflect.MethodDescriptor) {
		count++
		id := string(m.Parent().Name()) + "_" + string(m.Name())
		at, ok := routes[id]
		delete(routes, id)
		if !ok {
			t.Errorf("%s has no route in the OpenAPI document", m.FullName())
			return
		}
		for token, want := range map[string]string{"": `"NO_TOKEN"`, "wrong": `"UNKNOWN_TOKEN"`} {
			answer, text := w.ask(at.verb, at.path, "{ this is no JSON", token)
			if answer.StatusCode != http.StatusUnauthorized || !strings.Contains(text, want) || answer.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s %s with token %q: %s: %s", at.verb, at.path, token, answer.Status, text)
			}
			if token != "" && strings.Contains(text, token) {
				t.Errorf("%s %s shows the token: %s", at.verb, at.path, text)
			}
		}
		if m.FullName() == "pemba.v1.WatchService.Watch" {
			return // an empty request waits for changes
		}
		answer, text := w.ask(at.verb, at.path, "", "root")
		for line := range strings.Lines(text) {
			if !json.Valid([]byte(line)) {
				t.Errorf("%s %s: a line that is no JSON: %q", at.verb, at.path, line)
			}
		}
		if c := answer.StatusCode; c >= 500 && c != http.StatusNotImplemented || c == http.StatusNotFound && !strings.Contains(text, `"reason"`) || c == http.StatusMethodNotAllowed {
			t.Errorf("%s %s: %s: %s", at.verb, at.path, answer.Status, text)
		}
	})
	for id := range routes {
		t.Errorf("the OpenAPI document has %s, which no service has", id)
	}
	if count < 20 {
		t.Errorf("only %d methods were found", count)
	}
}

// TestTheOpenAPIDocumentIsWhole: what it refers to is in it.
func TestTheOpenAPIDocumentIsWhole(t *testing.T) {
	w := listenHTTP(t, documents(t, peopleSchema), "")
	text, d, _ := w.openAPI()
	const mark = `"#/definitions/`
	rest, found := string(text), 0
	for {
		_, after, ok := strings.Cut(rest, mark)
		if !ok {
			break
		}
		name, tail, _ := strings.Cut(after, `"`)
		if _, ok := d.Definitions[name]; !ok {
			t.Errorf("it refers to %s, which it lacks", name)
		}
		rest = tail
		found++
	}
	if found < 50 || !bytes.Contains(text, []byte(`"title": "Pemba"`)) || !bytes.Contains(text, []byte(`"securityDefinitions"`)) {
		t.Errorf("it refers to %d definitions: %.300s", found, text)
	}
}

// ask sends a request with a token and returns the answer and its text.
func (w *web) ask(method, path, body, token string, headers ...string) (*http.Response, string) {
	w.t.Helper()
	r, err := http.NewRequest(method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer, string(text)
}

// TestAnswersOverHTTPAreThoseOverGRPC, errors with their reasons among them.
func TestAnswersOverHTTPAreThoseOverGRPC(t *testing.T) {
	n := documents(t, peopleSchema)
	w := listenHTTP(t, n, "")
	written := w.send(200, "POST", "/v1/relationships/write", `{"operations": [
		{"touch": {"resource": {"type": "document", "id": "a"}, "relation": "viewer", "subject": {"type": "user", "id": "ada"}}},
		{"touch": {"resource": {"type": "document", "id": "b"}, "relation": "viewer", "subject": {"type": "user", "id": "ada"}}}]}`)
	if written["created"] != 2.0 || written["revision"] != "2" {
		t.Errorf("written: %v", written)
	}
	question := `{"resource": {"type": "document", "id": "a"}, "permission": "view", "subject": {"type": "user", "id": "%s"}, "consistency": {"atLeastAsFresh": "` + written["zookie"].(string) + `"}}`
	for who, want := range map[string]string{"ada": "ANSWER_HAS_PERMISSION", "bob": "ANSWER_NO_PERMISSION"} {
		if got := w.send(200, "POST", "/v1/check", fmt.Sprintf(question, who)); got["answer"] != want {
			t.Errorf("%s: %v", who, got)
		}
	}
	answer, text := w.ask("POST", "/v1/lookup-resources", `{"resourceType": "document", "permission": "view", "subject": {"type": "user", "id": "ada"}}`, "")
	if found := strings.Count(text, `"id"`); answer.StatusCode != 200 || answer.Header.Get("Content-Type") != "application/x-ndjson" || found != 2 {
		t.Errorf("lookup: %s: %d results in %s", answer.Status, found, text)
	}
	for _, c := range []struct {
		verb, path, body string
		status           int
		says             string
	}{
		{"POST", "/v1/check", `{"permission": "view"}`, 400, `"MISSING_FIELD"`},
		{"POST", "/v1/check", `{"permision": "view"}`, 400, `permision`},
		{"POST", "/v1/check", `{"permission": "view"`, 400, `breaks off`},
		{"POST", "/v1/check", `[]`, 400, `"INVALID_FIELD"`},
		{"POST", "/v1/check", strings.Repeat("[", 20_000), 400, `"INVALID_FIELD"`},
		{"POST", "/v1/lookup-resources", `{"resourceType": "none", "permission": "view", "subject": {"type": "user", "id": "ada"}}`, 400, `"UNKNOWN_TYPE"`},
		{"POST", "/v1/relationships/read", `{"store": "none"}`, 404, `"UNKNOWN_STORE"`},
		{"GET", "/v1/schema?store=none", ``, 404, `"UNKNOWN_STORE"`},
		{"GET", "/v1/schema?consistency.fullyConsistent=true", ``, 200, `definition document`},
		{"GET", "/v1/check", ``, 405, `does not take GET`},
		{"GET", "/v1/nothing", ``, 404, `/openapi.json`},
		{"POST", "/v1/../v1/check", `{}`, 404, `/openapi.json`},
		{"POST", "/v1//check", `{}`, 404, `/openapi.json`},
		{"GET", "/nothing", ``, 404, `/openapi.json`},
		{"GET", "/healthz", ``, 200, `SERVING`},
	} {
		answer, text := w.ask(c.verb, c.path, c.body, "")
		if answer.StatusCode != c.status || !strings.Contains(text, c.says) || !json.Valid([]byte(text)) {
			t.Errorf("%s %s %.100s: %s: %s", c.verb, c.path, c.body, answer.Status, text)
		}
	}
	debug, text := w.ask("POST", "/v1/check", fmt.Sprintf(question, "ada"), "", "Pemba-Debug", "true")
	if debug.Header.Get("Pemba-Debug") == "" {
		t.Errorf("no Pemba-Debug: %v %s", debug.Header, text)
	}
}

// imported is a line of an import that creates n relationships from offset on.
func imported(offset, n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"batch": {"offset": "%d", "relationships": [`, offset)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"resource": {"type": "document", "id": "d%d"}, "relation": "viewer", "subject": {"type": "user", "id": "ada"}}`, offset+i)
	}
	b.WriteString("]}}\n")
	return b.String()
}

// TestAnImportOverHTTPTellsWhatIsDurable, and a line that is no batch ends it with
// an error, however it ends, and never as if it were complete.
func TestAnImportOverHTTPTellsWhatIsDurable(t *testing.T) {
	n := documents(t, peopleSchema)
	w := listenHTTP(t, n, "")
	const start = `{"start": {"mode": "IMPORT_MODE_CREATE"}}` + "\n"
	answer, text := w.ask("POST", "/v1/relationships/import", start+imported(0, 100)+imported(100, 100), "")
	if answer.StatusCode != 200 || strings.Count(text, "\n") != 3 || !strings.Contains(strings.ReplaceAll(text, " ", ""), `"created":"200"`) {
		t.Fatalf("%s: %s", answer.Status, text)
	}
	for name, broken := range map[string]string{"broken": `{"batch": {"offset"` + "\n", "of another kind": `{"relationships": []}` + "\n", "cut": `{"batch": `} {
		answer, text = w.ask("POST", "/v1/relationships/import", start+imported(200, 1)+broken, "")
		lines := strings.Split(strings.TrimSpace(text), "\n")
		if last := lines[len(lines)-1]; !strings.Contains(last, `"error"`) && !strings.Contains(last, `"code"`) || !strings.Contains(last, "INVALID_FIELD") {
			t.Errorf("%s: %s: %s", name, answer.Status, text)
		}
		for _, line := range lines {
			if !json.Valid([]byte(line)) {
				t.Errorf("%s: no JSON: %s", name, line)
			}
		}
		n.delete(t, "document", "d200")
	}
}

// delete removes the relationships of a resource.
func (n *node) delete(t *testing.T, typ, id string) {
	t.Helper()
	if _, err := all(n.relationships.DeleteRelationships(t.Context(), &pembav1.DeleteRelationshipsRequest{
		Filter: &pembav1.RelationshipFilter{ResourceType: typ, ResourceId: id}})); err != nil {
		t.Fatal(err)
	}
}

// TestAWatchOverHTTPFollowsChanges, and ends with the client, or the server.
func TestAWatchOverHTTPFollowsChanges(t *testing.T) {
	n := documents(t, peopleSchema)
	w := listenHTTP(t, n, "")
	answer, err := http.Post(w.url+"/v1/watch", "application/json", strings.NewReader(`{"fromRevision": "1"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	until := func(want string) {
		t.Helper()
		for lines.Scan() {
			if !json.Valid(lines.Bytes()) {
				t.Fatalf("no JSON: %s", lines.Text())
			}
			if strings.Contains(lines.Text(), want) {
				return
			}
		}
		t.Fatalf("the watch ended before %s: %v", want, lines.Err())
	}
	until("definition document")
	for i := range 3 {
		n.write(t, fmt.Sprintf("document:new%d#viewer@user:ada", i))
		until(fmt.Sprintf("new%d", i))
	}
	go func() {
		stop, cancel := timeout(10 * time.Second)
		defer cancel()
		n.server.GracefulStop(stop)
	}()
	until(`"UNAVAILABLE"`)
	if lines.Scan() {
		t.Errorf("after its end: %s", lines.Text())
	}
}

// sharedLog keeps what is logged.
type sharedLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *sharedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *sharedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestHTTPNamesItsCalls: the name that a caller gives comes back and stands in the
// log; one that is none is replaced.
func TestHTTPNamesItsCalls(t *testing.T) {
	logged := &sharedLog{}
	k, err := keeper.Open(memory.New(), keeper.Options{})
	if err != nil {
		t.Fatal(err)
	}
	n := launchOver(t, k, server.Config{Datastore: loose{k}, Logger: slog.New(slog.NewTextHandler(logged, nil))})
	w := listenHTTP(t, n, "")
	answer, text := w.ask("GET", "/v1/schema", "", "", "X-Request-Id", "my-call-1")
	if answer.StatusCode != 500 || answer.Header.Get("X-Request-Id") != "my-call-1" || !strings.Contains(logged.String(), "request=my-call-1") {
		t.Errorf("%s, %v: %s; the log says\n%s", answer.Status, answer.Header, text, logged)
	}
	for _, bad := range []string{strings.Repeat("x", 200), "a b"} {
		if answer, _ := w.ask("GET", "/healthz", "", "", "X-Request-Id", bad); answer.Header.Get("X-Request-Id") == bad || answer.Header.Get("X-Request-Id") == "" {
			t.Errorf("%.20s is answered with %q", bad, answer.Header.Get("X-Request-Id"))
		}
	}
	for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"} {
		if got := answer.Header.Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestPagesOfOtherOriginsMayNotCall unless they are listed; nor may a page whose
// own name was made to point at a server that lets everybody in.
func TestPagesOfOtherOriginsMayNotCall(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Origins: []string{"https://app.example"}})
	w := listenHTTP(t, n, "")
	for _, c := range []struct {
		verb   string
		status int
		allow  string
		header []string
	}{
		{"GET", 200, "", nil},
		{"GET", 200, "https://app.example", []string{"Origin", "https://app.example"}},
		{"OPTIONS", 204, "https://app.example", []string{"Origin", "https://app.example", "Access-Control-Request-Method", "POST"}},
		{"GET", 403, "", []string{"Origin", "https://evil.example"}},
		{"GET", 403, "", []string{"Origin", "null"}},
		{"OPTIONS", 403, "", []string{"Origin", "https://evil.example", "Access-Control-Request-Method", "POST"}},
		{"GET", 401, "", []string{"Host", "evil.example"}},
		{"GET", 401, "", []string{"Host", "evil.example", "Origin", "http://evil.example"}},
		{"GET", 200, "", []string{"Host", "localhost:1"}},
	} {
		answer, text := w.ask(c.verb, "/v1/stores", "", "", c.header...)
		if answer.StatusCode != c.status || answer.Header.Get("Access-Control-Allow-Origin") != c.allow {
			t.Errorf("%s %v: %s, %v: %s", c.verb, c.header, answer.Status, answer.Header, text)
		}
	}
}
