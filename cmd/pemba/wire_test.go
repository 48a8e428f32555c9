package main

import (
	"strings"
	"testing"
	"time"

	"github.com/pembadb/pemba/tuple"
)

func TestRelationshipsSurviveTheWire(t *testing.T) {
	for _, text := range []string{
		"document:readme#viewer@user:ada",
		"document:readme#viewer@user:*",
		"document:a@b:c#viewer@team:core#member",
		`document:plan#viewer@user:cid[on_days:{"days":["monday",{"a":null}],"n":-1.5,"yes":true}]`,
		`document:plan#viewer@user:cid[on_days:{"big":"9007199254740993"}]`,
		"document:plan#viewer@user:dan[expiration:2099-01-01T00:00:00.000001Z]",
		"document:plan#viewer@user:dan[on_days][expiration:2099-01-01T00:00:00Z]",
	} {
		r, err := tuple.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		w, err := relationshipToWire(r)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if back := relationshipFromWire(w); !back.Equal(r) {
			t.Errorf("%s came back as %s", r, back)
		}
	}
}

func TestNumbersThatADoubleCannotHoldTravelAsText(t *testing.T) {
	s, err := contextToWire(`{"exact":9007199254740992,"odd":9007199254740993,"list":[18446744073709551615],"huge":1e999}`)
	if err != nil {
		t.Fatal(err)
	}
	fields := s.AsMap()
	if fields["exact"] != float64(1<<53) || fields["odd"] != "9007199254740993" || fields["huge"] != "1e999" ||
		fields["list"].([]any)[0] != "18446744073709551615" {
		t.Errorf("got %v", fields)
	}
}

func TestAContextIsAnObject(t *testing.T) {
	for _, text := range []string{"monday", "[]", "7", `{"a":1} {"b":2}`, `{"a":`, strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000)} {
		if s, err := contextToWire(text); err == nil {
			t.Errorf("%.40q was taken for %v", text, s)
		}
	}
	if s, err := contextToWire(""); s != nil || err != nil {
		t.Errorf("no context became %v, %v", s, err)
	}
}

func TestQuestionsOfAFile(t *testing.T) {
	q, err := parseQuestionLine(`document:a@b#view@team:core#member with {"day":"a with b"}`)
	if err != nil {
		t.Fatal(err)
	}
	if q.Resource.Id != "a@b" || q.Permission != "view" || q.Subject.Relation != "member" || q.Context.AsMap()["day"] != "a with b" {
		t.Errorf("got %v", q)
	}
	for _, line := range []string{"document:1", "document:1#view", "document:1#view@user:a with", "document:1#view@user:a with 7",
		"document:1#view@user:a[caveat]", "document:1#view@user:a[expiration:2099-01-01T00:00:00Z]"} {
		if q, err := parseQuestionLine(line); err == nil {
			t.Errorf("%q was taken for %v", line, q)
		}
	}
}

func TestTextForPeople(t *testing.T) {
	for got, want := range map[string]string{
		thousands(0):                 "0",
		thousands(999):               "999",
		thousands(1000):              "1,000",
		thousands(2474760):           "2,474,760",
		plural(1, "error"):           "1 error",
		plural(0, "query"):           "0 queries",
		plural(1200, "relationship"): "1,200 relationships",
		clock(time.UnixMicro(1)):     "1970-01-01T00:00:00.000001Z",
		lastCause("plain words"):     "plain words",
		lastCause(`connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`): "connection refused",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestConsistencyNamesItsLevelAndZookie(t *testing.T) {
	for _, text := range []string{"", "minimize_latency", "fully_consistent", "at_least_as_fresh:abc", "at_exact_snapshot:abc"} {
		if _, err := parseConsistency(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"yesterday", "at_least_as_fresh", "at_exact_snapshot:", "fully_consistent:abc", ":", "minimize_latency:"} {
		if c, err := parseConsistency(text); err == nil {
			t.Errorf("%q was taken for %v", text, c)
		}
	}
}
