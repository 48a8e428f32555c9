package provisioning_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/file"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/sql/cockroach"
	"github.com/pembadb/pemba/datastore/sql/postgres"
	"github.com/pembadb/pemba/datastore/sql/sqltest"
	"github.com/pembadb/pemba/provisioning"
	"github.com/pembadb/pemba/provisioning/scim"
)

var (
	soakUsers   = flag.Int("users", 2000, "users that TestManyPeople provisions")
	soakGroups  = flag.Int("groups", 40, "groups that TestManyPeople provisions")
	soakLog     = flag.String("log", "file", "what TestManyPeople provisions: file, postgres or cockroach")
	soakMembers = flag.Int("members", 2500, "members of the largest group of TestManyPeople")
)

// client sends SCIM requests to a directory in a file.
type client struct {
	t   testing.TB
	url string
}

func (c *client) send(status int, method, path string, body any) map[string]any {
	c.t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		c.t.Fatal(err)
	}
	r, err := http.NewRequest(method, c.url+path, bytes.NewReader(data))
	if err != nil {
		c.t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != status {
		c.t.Fatalf("%s %s: status %d: %.500s %v", method, path, answer.StatusCode, text, err)
	}
	o := map[string]any{}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &o); err != nil {
			c.t.Fatal(err)
		}
	}
	return o
}

// bulk creates resources by one bulk request, and returns their ids.
func (c *client) bulk(path string, resources []any) (ids []string) {
	c.t.Helper()
	operations := []any{}
	for i, r := range resources {
		operations = append(operations, map[string]any{"method": "POST", "path": path, "bulkId": fmt.Sprint(i), "data": r})
	}
	o := c.send(200, "POST", "/Bulk", map[string]any{"Operations": operations})
	for _, r := range o["Operations"].([]any) {
		r := r.(map[string]any)
		if r["status"] != "201" {
			c.t.Fatal(r)
		}
		at := r["location"].(string)
		ids = append(ids, at[strings.LastIndexByte(at, '/')+1:])
	}
	return ids
}

// heap is what is in use after a collection, in MiB.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc >> 20
}

// peopleLog is the log that TestManyPeople provisions.
func peopleLog(t *testing.T) datastore.Log {
	t.Helper()
	switch *soakLog {
	case "postgres":
		return openSQL(t, postgres.Dialect, sqltest.Postgres(t), postgres.Open)
	case "cockroach":
		return openSQL(t, cockroach.Dialect, sqltest.Cockroach(t), cockroach.Open)
	}
	log, err := file.Open(filepath.Join(t.TempDir(), "pemba.db"), file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// TestManyPeople provisions users and groups through SCIM in bulk requests, then
// changes and pages them, and tells the rates and the memory in use. As many as
// a large organization has:
//
//	go test ./provisioning -run TestManyPeople -users 1000000 -groups 10000 -members 100000 -timeout 2h -v
func TestManyPeople(t *testing.T) {
	d := open(t, peopleLog(t), keeper.Options{})
	s := scim.New(scim.Config{MaxBatch: provisioning.MaxCreated, Logger: slog.New(slog.DiscardHandler), Open: func(r *http.Request) (*scim.Session, error) {
		return &scim.Session{Directory: d, Base: "http://" + r.Host, Path: r.URL.EscapedPath(), Scope: "default"}, nil
	}})
	server := httptest.NewServer(s)
	defer server.Close()
	c := &client{t, server.URL}
	before := heap()
	rate := func(what string, n int, began time.Time) {
		took := time.Since(began)
		t.Logf("%s: %d in %s, %.0f/s; heap %d MiB (%d at the beginning)", what, n, took.Round(time.Millisecond), float64(n)/took.Seconds(), heap(), before)
	}
	began := time.Now()
	var users []string
	for len(users) < *soakUsers {
		var page []any
		for i := range min(1000, *soakUsers-len(users)) {
			n := len(users) + i
			page = append(page, map[string]any{"userName": fmt.Sprintf("user%07d@example.com", n), "externalId": fmt.Sprintf("ext-%07d", n), "displayName": fmt.Sprintf("User %d", n), "active": true,
				"name":   map[string]any{"givenName": "User", "familyName": fmt.Sprint(n)},
				"emails": []any{map[string]any{"value": fmt.Sprintf("user%07d@example.com", n), "type": "work", "primary": true}}})
		}
		users = append(users, c.bulk("/Users", page)...)
		if len(users)%max(*soakUsers/10, 1000) == 0 {
			rate("users so far", len(users), began)
		}
	}
	rate("users", len(users), began)

	began = time.Now()
	var groups []string
	for len(groups) < *soakGroups {
		var page []any
		for i := range min(50, *soakGroups-len(groups)) {
			n := len(groups) + i
			members := []any{}
			for m := range 10 {
				members = append(members, map[string]any{"value": users[(n*10+m)%len(users)]})
			}
			page = append(page, map[string]any{"displayName": fmt.Sprintf("Group %d", n), "externalId": fmt.Sprint(n), "members": members})
		}
		groups = append(groups, c.bulk("/Groups", page)...)
	}
	rate("groups of ten", len(groups), began)

	c.largeGroup(users[:min(*soakMembers, len(users))], users[len(users)-1], rate)
	began = time.Now()
	c.page(users, rate, began)
	if grown := heap() - min(before, heap()); grown > 64+uint64(len(users))/5000 {
		t.Errorf("the heap grew by %d MiB", grown)
	}
}

// largeGroup creates a group of many members, and has one come and go.
func (c *client) largeGroup(users []string, last string, rate func(string, int, time.Time)) {
	began := time.Now()
	members := []any{}
	for _, id := range users {
		members = append(members, map[string]any{"value": id})
	}
	made := c.send(201, "POST", "/Groups?excludedAttributes=members", map[string]any{"displayName": "Everybody", "members": members})
	path := "/Groups/" + made["id"].(string)
	rate("members of one group", len(users), began)
	began = time.Now()
	const times = 50
	for range times / 2 {
		for _, op := range []any{
			map[string]any{"op": "add", "path": "members", "value": []any{map[string]any{"value": last}}},
			map[string]any{"op": "remove", "path": `members[value eq "` + last + `"]`},
		} {
			c.send(204, "PATCH", path, map[string]any{"Operations": []any{op}})
		}
	}
	rate("patches of that group", times, began)
	began = time.Now()
	o := c.send(200, "GET", path, nil)
	n := len(o["members"].([]any))
	want := len(users)
	if users[len(users)-1] == last {
		want-- // who came and went was one of them
	}
	if n != want {
		c.t.Fatalf("%d members, want %d", n, want)
	}
	rate("members read", n, began)
}

// page reads all users page by page, and finds some by name.
func (c *client) page(users []string, rate func(string, int, time.Time), began time.Time) {
	n := 0
	for start := 1; n < len(users); start = n + 1 {
		o := c.send(200, "GET", fmt.Sprintf("/Users?count=1000&startIndex=%d&attributes=userName", start), nil)
		page, _ := o["Resources"].([]any)
		if int(o["totalResults"].(float64)) != len(users) || len(page) == 0 {
			c.t.Fatalf("from %d: %d of %v", start, len(page), o["totalResults"])
		}
		n += len(page)
	}
	rate("users read in pages", n, began)
	began = time.Now()
	const times = 200
	for i := range times {
		name := fmt.Sprintf("USER%07d@example.com", i*len(users)/times)
		o := c.send(200, "GET", "/Users?filter=userName+eq+%22"+name+"%22", nil)
		if o["totalResults"].(float64) != 1 {
			c.t.Fatal(o)
		}
	}
	rate("users found by name", times, began)
}
