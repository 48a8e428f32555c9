package scim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// service is a Server over a directory in memory.
type service struct {
	t testing.TB
	*memory
	server *Server
	me     string
}

func serve(t testing.TB, c Config) *service {
	s := &service{t: t, memory: newMemory()}
	c.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	c.Open = func(r *http.Request) (*Session, error) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			return nil, problem(http.StatusUnauthorized, "", "a token is needed")
		}
		path, ok := strings.CutPrefix(r.URL.EscapedPath(), "/scim/v2")
		if !ok {
			return nil, problem(http.StatusNotFound, "", "there is nothing here")
		}
		return &Session{Directory: s.memory, Base: "https://pemba.example/scim/v2", Path: path, Scope: "test", Me: s.me}, nil
	}
	s.server = New(c)
	return s
}

// reply is an answer.
type reply struct {
	*httptest.ResponseRecorder
	body Object
}

// send sends a request; headers are names and values in turn.
func (s *service) send(method, path, body string, headers ...string) *reply {
	s.t.Helper()
	r := httptest.NewRequest(method, "/scim/v2"+path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer secret")
	if body != "" {
		r.Header.Set("Content-Type", "application/scim+json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	a := &reply{ResponseRecorder: httptest.NewRecorder()}
	s.server.ServeHTTP(a.ResponseRecorder, r)
	if a.Body.Len() > 0 {
		d := json.NewDecoder(bytes.NewReader(a.Body.Bytes()))
		d.UseNumber()
		if err := d.Decode(&a.body); err != nil {
			s.t.Fatalf("%s %s: the answer is no JSON: %v\n%s", method, path, err, a.Body)
		}
	}
	return a
}

// want sends a request whose answer must have a status, and gives its body.
func (s *service) want(status int, method, path, body string, headers ...string) Object {
	s.t.Helper()
	a := s.send(method, path, body, headers...)
	if a.Code != status {
		s.t.Fatalf("%s %s: status %d, want %d\n%s\n%s", method, path, a.Code, status, body, a.Body)
	}
	return a.body
}

// refused sends a request that must fail with a status and a scimType.
func (s *service) refused(status int, scimType, method, path, body string, headers ...string) string {
	s.t.Helper()
	o := s.want(status, method, path, body, headers...)
	if got, _ := o["scimType"].(string); got != scimType || o["status"] != fmt.Sprint(status) || at(o, "schemas.0") != errorMessage {
		s.t.Fatalf("%s %s: want scimType %q, got %v", method, path, scimType, o)
	}
	detail, _ := o["detail"].(string)
	if detail == "" {
		s.t.Fatalf("%s %s: no detail", method, path)
	}
	return detail
}

// user and group make one, and give its id.
func (s *service) user(name string, more ...string) string {
	s.t.Helper()
	body := fmt.Sprintf(`{"schemas":[%q],"userName":%q%s}`, UserSchema, name, strings.Join(more, ""))
	return s.want(201, "POST", "/Users", body)["id"].(string)
}

func (s *service) group(name string, members ...string) string {
	s.t.Helper()
	list := []Object{}
	for _, m := range members {
		list = append(list, Object{"value": m})
	}
	body, _ := json.Marshal(Object{"schemas": []string{GroupSchema}, "displayName": name, "members": list})
	return s.want(201, "POST", "/Groups", string(body))["id"].(string)
}

// patch sends operations to a resource and gives it as it is then.
func (s *service) patch(path, operations string) Object {
	s.t.Helper()
	a := s.send("PATCH", path, patchBody(operations))
	if a.Code != 200 && a.Code != 204 {
		s.t.Fatalf("PATCH %s: status %d\n%s\n%s", path, a.Code, operations, a.Body)
	}
	return s.want(200, "GET", path, "")
}

func patchBody(operations string) string {
	return fmt.Sprintf(`{"schemas":[%q],"Operations":[%s]}`, patchMessage, operations)
}

// at is what stands in an object at a path of keys and indexes, with dots between.
func at(v any, path string) any {
	for _, key := range strings.Split(path, ".") {
		switch now := v.(type) {
		case Object:
			v = now[key]
		case []any:
			i := 0
			if _, err := fmt.Sscan(key, &i); err != nil || i >= len(now) {
				return nil
			}
			v = now[i]
		default:
			return nil
		}
	}
	return v
}

// is fails the test unless what stands at a path is what is wanted, as JSON.
func is(t testing.TB, o Object, path, want string) {
	t.Helper()
	got, _ := json.Marshal(at(o, path))
	if string(got) != want {
		all, _ := json.Marshal(o)
		t.Fatalf("%s is %s, want %s\n%s", path, got, want, all)
	}
}

// found are the ids, in order, of what a list answers.
func found(o Object) []string {
	ids := []string{}
	list, _ := o["Resources"].([]any)
	for _, r := range list {
		ids = append(ids, r.(Object)["id"].(string))
	}
	return ids
}
