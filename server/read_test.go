package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

const richSchema = `
use expiration
caveat at(hour int) { hour > 8 }
definition user {}
definition group { relation member: user | group#member }
definition folder { relation viewer: user | user:* | group#member }
definition document {
  relation viewer: user | user:* | group#member | user with at | user with expiration
  relation owner: user
  permission view = viewer + owner
}`

var richRows = []string{
	"document:a1#viewer@user:ada", "document:a1#viewer@user:bob", "document:a1#owner@user:ada", "document:a2#viewer@group:staff#member",
	"document:b1#viewer@user:*", `document:b1#viewer@user:cyd[at:{"hour":3}]`, "document:b2#viewer@user:dee[expiration:2999-01-01T00:00:00Z]",
	"folder:a1#viewer@user:ada", "folder:f#viewer@group:staff#member", "group:staff#member@user:ada", "group:staff#member@group:board#member",
	"group:board#member@user:adam",
}

func read(t *testing.T, n *node, r *pembav1.ReadRelationshipsRequest) (texts []string, zookie string) {
	t.Helper()
	r.Consistency = fully()
	ms, err := all(n.relationships.ReadRelationships(t.Context(), r))
	if err != nil {
		t.Fatalf("%v: %v", r, err)
	}
	for i, m := range ms {
		if (i == len(ms)-1) != (m.Complete || r.Limit > 0) && r.Limit == 0 {
			t.Errorf("message %d of %d has complete %t", i, len(ms), m.Complete)
		}
		for _, p := range m.Relationships {
			texts = append(texts, text(p))
		}
		zookie = m.Zookie
	}
	return texts, zookie
}

func TestEveryFilterSelectsWhatItSays(t *testing.T) {
	n := documents(t, richSchema)
	n.write(t, richRows...)
	n.write(t, "document:gone#viewer@user:dee[expiration:2020-01-01T00:00:00Z]")
	str := func(s string) *string { return &s }
	yes, no := true, false
	for name, c := range map[string]struct {
		filter *pembav1.RelationshipFilter
		want   func(r string) bool
	}{
		"nothing given":      {nil, func(string) bool { return true }},
		"resource type":      {&pembav1.RelationshipFilter{ResourceType: "folder"}, func(r string) bool { return strings.HasPrefix(r, "folder:") }},
		"resource":           {&pembav1.RelationshipFilter{ResourceType: "document", ResourceId: "a1"}, func(r string) bool { return strings.HasPrefix(r, "document:a1#") }},
		"id prefix":          {&pembav1.RelationshipFilter{ResourceType: "document", ResourceIdPrefix: "a"}, func(r string) bool { return strings.HasPrefix(r, "document:a") }},
		"relation":           {&pembav1.RelationshipFilter{Relation: "owner"}, func(r string) bool { return strings.Contains(r, "#owner@") }},
		"resource, relation": {&pembav1.RelationshipFilter{ResourceType: "document", ResourceId: "a1", Relation: "viewer"}, func(r string) bool { return strings.HasPrefix(r, "document:a1#viewer@") }},
		"subject type":       {&pembav1.RelationshipFilter{Subject: &pembav1.SubjectFilter{Type: "group"}}, func(r string) bool { return strings.Contains(r, "@group:") }},
		"subject alone":      {&pembav1.RelationshipFilter{Subject: &pembav1.SubjectFilter{Type: "user", Id: "ada"}}, func(r string) bool { return strings.HasSuffix(r, "@user:ada") }},
		"subject id prefix":  {&pembav1.RelationshipFilter{Subject: &pembav1.SubjectFilter{Type: "user", IdPrefix: "ada"}}, func(r string) bool { return strings.Contains(r, "@user:ada") }},
		"the wildcard":       {&pembav1.RelationshipFilter{Subject: &pembav1.SubjectFilter{Type: "user", Id: "*"}}, func(r string) bool { return strings.HasSuffix(r, "@user:*") }},
		"subject relation":   {&pembav1.RelationshipFilter{Subject: &pembav1.SubjectFilter{Relation: str("member")}}, func(r string) bool { return strings.HasSuffix(r, "#member") }},
		"no subject relation": {&pembav1.RelationshipFilter{ResourceType: "group", Subject: &pembav1.SubjectFilter{Relation: str("")}},
			func(r string) bool { return strings.HasPrefix(r, "group:") && !strings.HasSuffix(r, "#member") }},
		"dots for none": {&pembav1.RelationshipFilter{ResourceType: "group", Subject: &pembav1.SubjectFilter{Relation: str("...")}},
			func(r string) bool { return strings.HasPrefix(r, "group:") && !strings.HasSuffix(r, "#member") }},
		"caveat":       {&pembav1.RelationshipFilter{Caveat: "at"}, func(r string) bool { return strings.HasSuffix(r, "cyd") }},
		"expiring":     {&pembav1.RelationshipFilter{Expires: &yes}, func(r string) bool { return strings.HasSuffix(r, "dee") }},
		"not expiring": {&pembav1.RelationshipFilter{Expires: &no}, func(r string) bool { return !strings.HasSuffix(r, "dee") }},
	} {
		t.Run(name, func(t *testing.T) {
			var want []string
			for _, r := range richRows {
				if bare, _, _ := strings.Cut(r, "["); c.want(bare) {
					want = append(want, bare)
				}
			}
			got, _ := read(t, n, &pembav1.ReadRelationshipsRequest{Filter: c.filter})
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("read\n %v, want\n %v", got, want)
			}
		})
	}
	for name, f := range map[string]*pembav1.RelationshipFilter{
		"an id without type":         {ResourceId: "a"},
		"id and prefix":              {ResourceType: "document", ResourceId: "a", ResourceIdPrefix: "a"},
		"a subject id without type":  {Subject: &pembav1.SubjectFilter{Id: "a"}},
		"a relation that is no name": {Relation: "Viewer"},
	} {
		_, err := all(n.relationships.ReadRelationships(t.Context(), &pembav1.ReadRelationshipsRequest{Filter: f}))
		expect(t, name, err, codes.InvalidArgument, "INVALID_FILTER")
	}
}

// pages reads a list in pages of a size, calling between before each.
func pages(t *testing.T, n *node, f *pembav1.RelationshipFilter, size uint64, between func()) (texts []string) {
	t.Helper()
	cursor, zookie := "", ""
	for {
		ms, err := all(n.relationships.ReadRelationships(t.Context(), &pembav1.ReadRelationshipsRequest{Filter: f, Limit: size, Cursor: cursor, Consistency: fully()}))
		if err != nil {
			t.Fatal(err)
		}
		count := 0
		for _, m := range ms {
			for _, p := range m.Relationships {
				texts = append(texts, text(p))
				count++
			}
			if zookie != "" && m.Zookie != zookie {
				t.Fatalf("a page is of another revision")
			}
			zookie = m.Zookie
		}
		last := ms[len(ms)-1]
		if last.Complete {
			return texts
		}
		if uint64(count) != size {
			t.Fatalf("a page of %d has %d relationships and is not the last", size, count)
		}
		cursor = last.Cursor
		between()
	}
}

func TestPagesOfAnySizePutTogetherAreTheWholeWhileWritesGoOn(t *testing.T) {
	for _, direct := range []bool{false, true} {
		n := launch(t, memory.New(), keeper.Options{Direct: direct}, server.Config{})
		n.apply(t, richSchema)
		var rows []string
		for i := range 60 {
			rows = append(rows, fmt.Sprintf("document:d%03d#viewer@user:u%d", i%17, i))
		}
		n.write(t, rows...)
		for _, f := range []*pembav1.RelationshipFilter{nil, {ResourceType: "document"}, {Subject: &pembav1.SubjectFilter{Type: "user", IdPrefix: "u"}}} {
			for _, size := range []uint64{1, 7, 30, 59, 60, 61} {
				whole, _ := read(t, n, &pembav1.ReadRelationshipsRequest{Filter: f})
				turn := 0
				got := pages(t, n, f, size, func() {
					turn++
					n.write(t, fmt.Sprintf("document:d%03d#viewer@user:new%d", turn%20, turn))
					del := &pembav1.WriteOperation{Operation: &pembav1.WriteOperation_Delete{Delete: rel(t, rows[turn%len(rows)])}}
					if _, err := n.relationships.WriteRelationships(t.Context(), &pembav1.WriteRelationshipsRequest{Operations: []*pembav1.WriteOperation{del}}); err != nil {
						t.Fatal(err)
					}
				})
				if !slices.Equal(got, whole) {
					t.Errorf("direct %t, filter %v, pages of %d: %d relationships, want %d in the same order", direct, f, size, len(got), len(whole))
				}
				n.write(t, rows...)
			}
		}
	}
}

func TestACursorHidesWhatHadExpiredWhenItsListBegan(t *testing.T) {
	n := documents(t, richSchema)
	soon := time.Now().Add(400 * time.Millisecond)
	n.write(t, "document:1#viewer@user:a", "document:2#viewer@user:b["+"expiration:"+soon.UTC().Format(time.RFC3339Nano)+"]", "document:3#viewer@user:c")
	got := pages(t, n, nil, 1, func() { time.Sleep(time.Until(soon) + 50*time.Millisecond) })
	if len(got) != 3 {
		t.Errorf("the list that began before has %v", got)
	}
	if got, _ = read(t, n, &pembav1.ReadRelationshipsRequest{}); len(got) != 2 {
		t.Errorf("a list that begins after has %v", got)
	}
}

func TestACursorOfAnotherQuestionIsRefused(t *testing.T) {
	n := documents(t, richSchema)
	n.write(t, richRows...)
	ms, err := all(n.relationships.ReadRelationships(t.Context(), &pembav1.ReadRelationshipsRequest{Limit: 1}))
	if err != nil {
		t.Fatal(err)
	}
	cursor := ms[0].Cursor
	if _, err := n.stores.CreateStore(t.Context(), &pembav1.CreateStoreRequest{Store: "other"}); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*pembav1.ReadRelationshipsRequest{
		"another filter": {Cursor: cursor, Filter: &pembav1.RelationshipFilter{ResourceType: "document"}},
		"another store":  {Cursor: cursor, Store: "other"},
		"damaged":        {Cursor: cursor[1:]},
		"no cursor":      {Cursor: "rubbish"},
	} {
		_, err := all(n.relationships.ReadRelationships(t.Context(), r))
		expect(t, name, err, codes.InvalidArgument, "INVALID_CURSOR")
	}
	if _, err := all(n.relationships.ExportRelationships(t.Context(), &pembav1.ExportRelationshipsRequest{Cursor: cursor})); err != nil {
		t.Errorf("an export that goes on where a read of the same ended: %v", err)
	}
}

// TestAFilterThatNamesWhatTheSchemaLacksIsRefused, with the name that is meant,
// rather than finding nothing.
func TestAFilterThatNamesWhatTheSchemaLacksIsRefused(t *testing.T) {
	n := documents(t, richSchema)
	n.write(t, richRows...)
	str := func(s string) *string { return &s }
	for _, c := range []struct {
		filter *pembav1.RelationshipFilter
		reason string
		says   string
	}{
		{&pembav1.RelationshipFilter{ResourceType: "docment"}, "UNKNOWN_TYPE", `did you mean "document"?`},
		{&pembav1.RelationshipFilter{Subject: &pembav1.SubjectFilter{Type: "usr"}}, "UNKNOWN_TYPE", `did you mean "user"?`},
		{&pembav1.RelationshipFilter{ResourceType: "document", Relation: "veiwer"}, "UNKNOWN_RELATION", `did you mean "viewer"?`},
		{&pembav1.RelationshipFilter{ResourceType: "folder", Relation: "owner"}, "UNKNOWN_RELATION", "folder has no relation"},
		{&pembav1.RelationshipFilter{Relation: "veiwer"}, "UNKNOWN_RELATION", `did you mean "viewer"?`},
		{&pembav1.RelationshipFilter{Relation: "view"}, "PERMISSION_NOT_WRITABLE", "computed"},
		{&pembav1.RelationshipFilter{Subject: &pembav1.SubjectFilter{Type: "group", Relation: str("membre")}}, "UNKNOWN_RELATION", `did you mean "member"?`},
		{&pembav1.RelationshipFilter{Caveat: "att"}, "UNKNOWN_CAVEAT", `did you mean "at"?`},
	} {
		_, err := all(n.relationships.ReadRelationships(t.Context(), &pembav1.ReadRelationshipsRequest{Filter: c.filter}))
		expect(t, "read", err, codes.FailedPrecondition, c.reason)
		if !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v does not say %s", err, c.says)
		}
		_, err = all(n.relationships.ExportRelationships(t.Context(), &pembav1.ExportRelationshipsRequest{Filter: c.filter}))
		expect(t, "export", err, codes.FailedPrecondition, c.reason)
		_, err = all(n.relationships.DeleteRelationships(t.Context(), &pembav1.DeleteRelationshipsRequest{Filter: c.filter}))
		expect(t, "delete", err, codes.FailedPrecondition, c.reason)
		_, err = n.relationships.WriteRelationships(t.Context(), &pembav1.WriteRelationshipsRequest{
			Operations:    []*pembav1.WriteOperation{create(relationship("group", "x", "member", "user", "y"))},
			Preconditions: []*pembav1.Precondition{{Condition: &pembav1.Precondition_MustNotMatch{MustNotMatch: c.filter}}},
		})
		expect(t, "precondition", err, codes.FailedPrecondition, c.reason)
	}
	for _, f := range []*pembav1.RelationshipFilter{
		{Subject: &pembav1.SubjectFilter{Type: "document", Relation: str("view")}}, {Subject: &pembav1.SubjectFilter{Type: "user", Relation: str("")}}, {Caveat: "at"},
	} {
		if _, err := all(n.relationships.ReadRelationships(t.Context(), &pembav1.ReadRelationshipsRequest{Filter: f})); err != nil {
			t.Errorf("%v: %v", f, err)
		}
	}
}
