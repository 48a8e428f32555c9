package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	authzed "github.com/authzed/authzed-go/v1"
	"google.golang.org/grpc/codes"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/server"
)

// watched is what a watch reported, up to a number of messages.
func watched(t *testing.T, c *authzed.ClientWithExperimental, n int, r *authzedv1.WatchRequest) (out []string, messages []*authzedv1.WatchResponse) {
	t.Helper()
	stream, err := c.Watch(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		m, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %q: %v", out, err)
		}
		var parts []string
		for _, u := range m.Updates {
			parts = append(parts, strings.TrimPrefix(u.Operation.String(), "OPERATION_")+" "+atext(u.Relationship))
		}
		if m.SchemaUpdated {
			parts = append(parts, "schema")
		}
		if m.IsCheckpoint {
			parts = append(parts, "checkpoint")
		}
		if m.OptionalTransactionMetadata != nil {
			parts = append(parts, fmt.Sprint(m.OptionalTransactionMetadata.AsMap(), len(m.FullRevisionMetadata)))
		}
		out, messages = append(out, strings.Join(parts, "; ")), append(messages, m)
		if m.ChangesThrough.GetToken() == "" {
			t.Error("a message has no token")
		}
	}
	return out, messages
}

func TestAStockClientWatches(t *testing.T) {
	n, c := compatible(t)
	ctx := t.Context()
	start := touch(t, c, "document:zero#viewer@user:ada")
	r := update(t, acreate, "document:a#viewer@user:ada", "folder:f#viewer@user:ada")
	r.OptionalTransactionMetadata = astruct(`{"ticket":7}`)
	if _, err := c.WriteRelationships(ctx, r); err != nil {
		t.Fatal(err)
	}
	touch(t, c, "document:a#viewer@user:ada[in_office:{\"since\":9}]")
	if _, err := c.WriteSchema(ctx, &authzedv1.WriteSchemaRequest{Schema: authzedSchema + "\ndefinition more {}\n"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DeleteRelationships(ctx, &authzedv1.DeleteRelationshipsRequest{
		RelationshipFilter: &authzedv1.RelationshipFilter{ResourceType: "document", OptionalResourceId: "a"}, OptionalTransactionMetadata: astruct(`{"why":"gone"}`),
	}); err != nil {
		t.Fatal(err)
	}
	const (
		created  = "TOUCH document:a#viewer@user:ada; TOUCH folder:f#viewer@user:ada; map[ticket:7] 1"
		replaced = "TOUCH document:a#viewer@user:ada[in_office:{\"since\":9}]"
		deleted  = "DELETE document:a#viewer@user:ada[in_office:{\"since\":9}]; map[why:gone] 1"
	)
	const (
		relationships = authzedv1.WatchKind_WATCH_KIND_INCLUDE_RELATIONSHIP_UPDATES
		schemas       = authzedv1.WatchKind_WATCH_KIND_INCLUDE_SCHEMA_UPDATES
		checkpoints   = authzedv1.WatchKind_WATCH_KIND_INCLUDE_CHECKPOINTS
	)
	got, messages := watched(t, c, 3, &authzedv1.WatchRequest{OptionalStartCursor: start})
	equal(t, "relationships alone, as unless said otherwise", got, []string{created, replaced, deleted})
	got, _ = watched(t, c, 1, &authzedv1.WatchRequest{OptionalStartCursor: messages[1].ChangesThrough})
	equal(t, "resumed", got, []string{deleted})
	got, _ = watched(t, c, 5, &authzedv1.WatchRequest{OptionalStartCursor: start, OptionalUpdateKinds: []authzedv1.WatchKind{relationships, schemas, checkpoints}})
	equal(t, "of every kind", got, []string{created, replaced, "schema", deleted, "checkpoint"})
	got, _ = watched(t, c, 2, &authzedv1.WatchRequest{OptionalStartCursor: start, OptionalUpdateKinds: []authzedv1.WatchKind{schemas, checkpoints}})
	equal(t, "schemas and checkpoints", got, []string{"schema", "checkpoint"})
	got, _ = watched(t, c, 1, &authzedv1.WatchRequest{OptionalStartCursor: start, OptionalObjectTypes: []string{"folder"}})
	equal(t, "of a type", got, []string{"TOUCH folder:f#viewer@user:ada; map[ticket:7] 1"})
	got, _ = watched(t, c, 1, &authzedv1.WatchRequest{OptionalStartCursor: start, OptionalRelationshipFilters: []*authzedv1.RelationshipFilter{
		{ResourceType: "document", OptionalResourceId: "none"}, {ResourceType: "folder", OptionalSubjectFilter: &authzedv1.SubjectFilter{SubjectType: "user", OptionalSubjectId: "ada"}},
	}})
	equal(t, "of one of some filters", got, []string{"TOUCH folder:f#viewer@user:ada; map[ticket:7] 1"})

	history, err := all(n.histories.ReadHistory(ctx, readHistory("")))
	if err != nil || len(history) == 0 {
		t.Fatal(err)
	}
	if kept := history[0].Changes[2].Metadata.AsMap(); fmt.Sprint(kept) != "map[ticket:7]" {
		t.Errorf("the history keeps the metadata as %v", kept)
	}

	// Without a start it begins now, and a checkpoint tells that it began.
	stream, err := c.Watch(ctx, &authzedv1.WatchRequest{OptionalUpdateKinds: []authzedv1.WatchKind{relationships, checkpoints}})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Recv(); err != nil || !m.IsCheckpoint {
		t.Fatalf("the first message: %v, %v", m, err)
	}
	touch(t, c, "document:new#viewer@user:ada")
	if m, err := stream.Recv(); err != nil || len(m.Updates) != 1 || atext(m.Updates[0].Relationship) != "document:new#viewer@user:ada" {
		t.Errorf("what came after: %v, %v", m, err)
	}

	_, err = all(c.Watch(ctx, &authzedv1.WatchRequest{OptionalObjectTypes: []string{"folder"}, OptionalRelationshipFilters: []*authzedv1.RelationshipFilter{{ResourceType: "folder"}}}))
	aexpect(t, "types and filters together", err, codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_INVALID_FILTER)
	_, err = all(c.Watch(ctx, &authzedv1.WatchRequest{OptionalRelationshipFilters: []*authzedv1.RelationshipFilter{{}}}))
	aexpect(t, "an empty filter", err, codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_INVALID_FILTER)
	_, err = all(c.Watch(ctx, &authzedv1.WatchRequest{OptionalStartCursor: &authzedv1.ZedToken{Token: "x"}}))
	aexpect(t, "a damaged start", err, codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_UNSPECIFIED)
}

// What a watch delivers of a change too large for one message is complete only
// behind the last of its messages: resuming behind an earlier one repeats it.
func TestALargeChangeIsWatchedInPieces(t *testing.T) {
	_, c := compatible(t)
	const n = 2500
	for i := 0; i < n; i += 500 {
		var texts []string
		for j := range 500 {
			texts = append(texts, fmt.Sprintf("folder:f%d#viewer@user:ada", i+j))
		}
		touch(t, c, texts...)
	}
	start := touch(t, c, "document:d#viewer@user:ada")
	deleted, err := c.DeleteRelationships(t.Context(), &authzedv1.DeleteRelationshipsRequest{RelationshipFilter: &authzedv1.RelationshipFilter{ResourceType: "folder"}})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	_, messages := watched(t, c, 3, &authzedv1.WatchRequest{OptionalStartCursor: start})
	for i, m := range messages {
		for _, u := range m.Updates {
			seen[atext(u.Relationship)] = true
		}
		if last := i == len(messages)-1; (m.ChangesThrough.Token == deleted.DeletedAt.Token) != last {
			t.Errorf("message %d says that the change is delivered: %v", i, !last)
		}
	}
	if len(seen) != n {
		t.Errorf("%d of %d deletions were delivered", len(seen), n)
	}
	if _, again := watched(t, c, 1, &authzedv1.WatchRequest{OptionalStartCursor: messages[0].ChangesThrough}); len(again[0].Updates) != len(messages[0].Updates) {
		t.Error("resuming in the middle of a change does not repeat it")
	}
}

func TestExpiryIsNotWatchedAndOldRevisionsAreRefused(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{SweepEvery: 10 * time.Millisecond, Retention: 20 * time.Millisecond, HistoryRetention: 20 * time.Millisecond}, server.Config{})
	c := stock(t, n)
	written, err := c.WriteSchema(t.Context(), &authzedv1.WriteSchemaRequest{Schema: authzedSchema})
	if err != nil {
		t.Fatal(err)
	}
	start := written.WrittenAt
	stream, err := c.Watch(t.Context(), &authzedv1.WatchRequest{OptionalUpdateKinds: []authzedv1.WatchKind{
		authzedv1.WatchKind_WATCH_KIND_INCLUDE_RELATIONSHIP_UPDATES, authzedv1.WatchKind_WATCH_KIND_INCLUDE_CHECKPOINTS,
	}})
	if err != nil {
		t.Fatal(err)
	}
	stream.Recv()
	soon := time.Now().Add(30 * time.Millisecond).UTC().Format(time.RFC3339Nano)
	touch(t, c, "document:soon#viewer@user:ada[expiration:"+soon+"]")
	deadline := time.Now().Add(10 * time.Second)
	for checkpoints := 0; checkpoints < 2; { // the write, and the sweep
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if m.IsCheckpoint {
			checkpoints++
		}
		for _, u := range m.Updates {
			if u.Operation == adelete {
				t.Errorf("expiry is reported: %v", u)
			}
		}
	}
	for { // upkeep trims after a while
		_, err = all(c.ReadRelationships(t.Context(), &authzedv1.ReadRelationshipsRequest{Consistency: exact(start), RelationshipFilter: &authzedv1.RelationshipFilter{ResourceType: "document"}}))
		if err != nil || time.Now().After(deadline) {
			break
		}
		touch(t, c, "document:other#viewer@user:ada")
		time.Sleep(20 * time.Millisecond)
	}
	aexpect(t, "a revision that is no longer kept", err, codes.OutOfRange, authzedv1.ErrorReason_ERROR_REASON_UNSPECIFIED)
	for {
		stream, err := c.Watch(t.Context(), &authzedv1.WatchRequest{OptionalStartCursor: start})
		if err == nil {
			_, err = stream.Recv()
		}
		if err != nil || time.Now().After(deadline) {
			aexpect(t, "watching from a revision that is no longer kept", err, codes.OutOfRange, authzedv1.ErrorReason_ERROR_REASON_UNSPECIFIED)
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
}
