package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

const peopleSchema = `
definition user {}
definition group { relation member: user | group#member }
definition document {
	relation viewer: user | group#member
	permission view = viewer
}`

// web is the HTTP listener of a node.
type web struct {
	t     testing.TB
	url   string
	http  *server.HTTP
	token string
}

// listenHTTP starts a node's HTTP listener, and ends it with the test.
func listenHTTP(t testing.TB, n *node, external string) *web {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &web{t: t, url: "http://" + lis.Addr().String(), http: n.server.HTTP(external)}
	ended := make(chan error, 1)
	go func() { ended <- w.http.Serve(lis) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		stop, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		w.http.GracefulStop(stop)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return w
}

// send sends a request whose answer must have a status, and returns its body.
func (w *web) send(status int, method, path, body string) map[string]any {
	w.t.Helper()
	r, err := http.NewRequest(method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if w.token != "" {
		r.Header.Set("Authorization", "Bearer "+w.token)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != status {
		w.t.Fatalf("%s %s: status %d, want %d: %s %v", method, path, answer.StatusCode, status, data, err)
	}
	o := map[string]any{}
	if len(data) > 0 {
		if err := json.NewDecoder(bytes.NewReader(data)).Decode(&o); err != nil {
			w.t.Fatalf("%s: %v", data, err)
		}
	}
	return o
}

// TestProvisionedPeopleHaveAccessAtOnce provisions over HTTP and checks over gRPC.
func TestProvisionedPeopleHaveAccessAtOnce(t *testing.T) {
	n := documents(t, peopleSchema)
	w := listenHTTP(t, n, "https://pemba.example/")
	user := w.send(201, "POST", "/scim/v2/Users", `{"userName":"ada","emails":[{"value":"ada@example.com"}]}`)
	id := user["id"].(string)
	if at := user["meta"].(map[string]any)["location"]; at != "https://pemba.example/scim/v2/Users/"+id {
		t.Fatal(at)
	}
	group := w.send(201, "POST", "/scim/v2/Groups", fmt.Sprintf(`{"displayName":"Readers","members":[{"value":%q}]}`, id))["id"].(string)
	n.write(t, "document:1#viewer@group:"+group+"#member")
	can := func(want bool) {
		t.Helper()
		r, err := n.permissions.Check(t.Context(), &pembav1.CheckRequest{Consistency: fully(), Resource: &pembav1.Object{Type: "document", Id: "1"}, Permission: "view", Subject: &pembav1.Subject{Type: "user", Id: id}})
		if err != nil || (r.Answer == pembav1.Answer_ANSWER_HAS_PERMISSION) != want {
			t.Fatalf("%v, want %t: %v", r, want, err)
		}
	}
	can(true)
	patch := func(operation string) { w.send(200, "PATCH", "/scim/v2/Users/"+id, `{"Operations":[`+operation+`]}`) }
	patch(`{"op":"Replace","path":"active","value":"False"}`)
	can(false)
	patch(`{"op":"replace","value":{"active":true}}`)
	can(true)
	w.send(204, "PATCH", "/scim/v2/Groups/"+group, `{"Operations":[{"op":"remove","path":"members[value eq \"`+id+`\"]"}]}`)
	can(false)
	w.send(204, "PATCH", "/scim/v2/Groups/"+group, `{"Operations":[{"op":"add","path":"members","value":[{"value":"`+id+`"}]}]}`)
	can(true)
	w.send(409, "POST", "/scim/v2/Users", `{"userName":"ADA"}`)
	w.send(204, "DELETE", "/scim/v2/Users/"+id, "")
	can(false)
	w.send(404, "GET", "/scim/v2/Users/"+id, "")
}

// TestSCIMIsForProvisionersOfTheStore has each role and each store tried.
func TestSCIMIsForProvisionersOfTheStore(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Token: "root"})
	root := bearer(t, "root")
	if _, err := n.stores.CreateStore(root, &pembav1.CreateStoreRequest{Store: "acme"}); err != nil {
		t.Fatal(err)
	}
	for _, store := range []string{"default", "acme"} {
		if _, err := n.schemas.ApplySchema(root, &pembav1.ApplySchemaRequest{Store: store, Text: peopleSchema}); err != nil {
			t.Fatal(err)
		}
	}
	token := func(name, store string, role pembav1.Role) string {
		r, err := n.tokens.CreateToken(root, &pembav1.CreateTokenRequest{Name: name, Store: store, Role: role})
		if err != nil {
			t.Fatal(err)
		}
		return r.Secret
	}
	w := listenHTTP(t, n, "")
	status := func(want int, secret, path string) {
		t.Helper()
		w.token = secret
		o := w.send(want, "GET", path, "")
		if want >= 400 && (o["status"] != fmt.Sprint(want) || o["detail"] == "") {
			t.Fatalf("an error in another form: %v", o)
		}
	}
	okta := token("okta", "acme", pembav1.Role_ROLE_PROVISIONER)
	status(200, okta, "/stores/acme/scim/v2/Users")
	status(403, okta, "/stores/other/scim/v2/Users")
	status(403, okta, "/scim/v2/Users")
	status(200, "root", "/scim/v2/ServiceProviderConfig")
	status(404, "root", "/stores/other/scim/v2/Users")
	status(404, "root", "/stores/No%20Name/scim/v2/Users")
	status(404, "root", "/scim/v3/Users")
	status(404, "root", "/scim/v2Users")
	status(401, "", "/scim/v2/Users")
	status(401, "wrong", "/scim/v2/Users")
	for name, role := range pembav1.Role_value {
		if r := pembav1.Role(role); r != pembav1.Role_ROLE_UNSPECIFIED && r != pembav1.Role_ROLE_ADMIN && r != pembav1.Role_ROLE_PROVISIONER {
			status(403, token(strings.ReplaceAll(strings.ToLower(name), "_", "-"), "", r), "/scim/v2/Users")
		}
	}
	w.token = okta
	made := w.send(201, "POST", "/stores/acme/scim/v2/Users", `{"userName":"ada"}`)
	if at := made["meta"].(map[string]any)["location"]; at != w.url+"/stores/acme/scim/v2/Users/"+made["id"].(string) {
		t.Fatal(at)
	}
	status(200, "root", "/stores/acme/scim/v2/Users/"+made["id"].(string))
	status(404, "root", "/scim/v2/Users/"+made["id"].(string))
	h, err := n.histories.ReadHistory(root, &pembav1.ReadHistoryRequest{Store: "acme"})
	changes, err := all(h, err)
	if err != nil || !strings.Contains(fmt.Sprint(changes), `"okta"`) {
		t.Fatalf("the history does not name who provisioned: %v %v", changes, err)
	}
	if strings.Contains(fmt.Sprint(changes), `"ada"`) {
		t.Fatal("the history holds a name")
	}
}

// TestHTTPDrains has a request that is under way finish while the listener stops.
func TestHTTPDrains(t *testing.T) {
	n := documents(t, peopleSchema)
	w := listenHTTP(t, n, "")
	c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const sent = `{"userName":"ada"}`
	fmt.Fprintf(c, "POST /scim/v2/Users HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(sent))
	in := bufio.NewReader(c)
	if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, "100") {
		t.Fatal(line, err)
	}
	in.ReadString('\n')
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		w.http.GracefulStop(t.Context())
	}()
	for { // until the listener takes nobody any more
		late, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
		if err != nil {
			break
		}
		late.Close()
		time.Sleep(time.Millisecond)
	}
	fmt.Fprint(c, sent)
	if r, err := http.ReadResponse(in, nil); err != nil || r.StatusCode != 201 {
		t.Fatal(r, err)
	}
	<-stopped
}

// TestHTTPEndsWhatDoesNotEnd has a client that never sends its body cut off.
func TestHTTPEndsWhatDoesNotEnd(t *testing.T) {
	n := documents(t, peopleSchema)
	w := listenHTTP(t, n, "")
	c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /scim/v2/Users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
	stop, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	w.http.GracefulStop(stop)
}
