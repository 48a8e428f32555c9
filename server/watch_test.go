package server_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

func openWatch(t *testing.T, n *node, r *pembav1.WatchRequest) grpc.ServerStreamingClient[pembav1.WatchResponse] {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	stream, err := n.watches.Watch(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func next(t *testing.T, stream grpc.ServerStreamingClient[pembav1.WatchResponse]) *pembav1.WatchResponse {
	t.Helper()
	m, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// nextChange skips heartbeats.
func nextChange(t *testing.T, stream grpc.ServerStreamingClient[pembav1.WatchResponse]) *pembav1.Change {
	t.Helper()
	for {
		if c := next(t, stream).GetChange(); c != nil {
			return c
		}
	}
}

func TestAWatchDeliversEveryChangeFromWhereItStarts(t *testing.T) {
	n := documents(t, richSchema)
	first := n.write(t, "document:1#viewer@user:a")
	n.write(t, "document:2#viewer@user:b")
	starts := map[string]*pembav1.WatchRequest{
		"from a revision": {Start: &pembav1.WatchRequest_FromRevision{FromRevision: 3}},
		"after a zookie":  {Start: &pembav1.WatchRequest_AfterZookie{AfterZookie: first.Zookie}},
	}
	for name, r := range starts {
		stream := openWatch(t, n, r)
		if m := next(t, stream); m.GetHeartbeat().GetRevision() != 2 || m.GetHeartbeat().GetHead() != 3 || m.Zookie != first.Zookie {
			t.Errorf("%s begins with %v", name, m)
		}
		if c := nextChange(t, stream); c.Revision != 3 || len(c.Operations) != 1 || c.Operations[0].After.Resource.Id != "2" || c.Operations[0].Before != nil {
			t.Errorf("%s goes on with %v", name, c)
		}
	}
	now := openWatch(t, n, &pembav1.WatchRequest{})
	if m := next(t, now); m.GetHeartbeat().GetRevision() != 3 {
		t.Errorf("from now on begins with %v", m)
	}
	written := n.write(t, "document:2#viewer@group:staff#member")
	if c := nextChange(t, now); c.Revision != 4 || c.Zookie != written.Zookie || c.Actor != "anonymous" || c.RequestId != written.RequestId || len(c.Hash) != 32 {
		t.Errorf("from now on delivers %v", c)
	}
	for want := uint64(1); want <= 4; want++ {
		stream := openWatch(t, n, &pembav1.WatchRequest{Start: &pembav1.WatchRequest_FromRevision{FromRevision: want}})
		for revision := want; revision <= 4; revision++ {
			if c := nextChange(t, stream); c.Revision != revision {
				t.Fatalf("from %d: revision %d where %d comes", want, c.Revision, revision)
			}
		}
	}
}

func TestAWatchFiltersOperationsAndHeartbeatsTellWhatItPassed(t *testing.T) {
	n := documents(t, richSchema)
	filtered := openWatch(t, n, &pembav1.WatchRequest{
		Start:     &pembav1.WatchRequest_FromRevision{FromRevision: 1},
		Filter:    &pembav1.ChangeFilter{ResourceTypes: []string{"document"}, Relations: []string{"owner"}, SubjectTypes: []string{"user"}},
		Heartbeat: durationpb.New(100 * time.Millisecond),
	})
	n.write(t, "document:1#viewer@user:a", "folder:1#viewer@user:a") // passed
	n.write(t, "document:1#owner@user:a", "document:1#viewer@user:b")
	if c := nextChange(t, filtered); c.Revision != 3 || len(c.Operations) != 1 || c.Filtered != 1 || c.Operations[0].After.Relation != "owner" {
		t.Errorf("the filtered watch delivers %v", c)
	}
	passed := n.write(t, "group:g#member@user:a")
	for deadline := time.Now().Add(30 * time.Second); ; {
		m := next(t, filtered)
		if b := m.GetHeartbeat(); b == nil || b.Revision > 4 {
			t.Fatalf("got %v", m)
		} else if b.Revision == 4 {
			if m.Zookie != passed.Zookie {
				t.Errorf("the heartbeat at revision 4 has another zookie than that change")
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no heartbeat tells that revision 4 was passed")
		}
	}
	schemas := openWatch(t, n, &pembav1.WatchRequest{
		Start:  &pembav1.WatchRequest_FromRevision{FromRevision: 1},
		Filter: &pembav1.ChangeFilter{Operations: []pembav1.OperationKind{pembav1.OperationKind_OPERATION_KIND_APPLY_SCHEMA}},
	})
	if c := nextChange(t, schemas); c.Revision != 1 || c.Operations[0].Schema.Text == "" {
		t.Errorf("the watch of schemas delivers %v", c)
	}
}

func TestAWatchIsRefusedWithTheReason(t *testing.T) {
	n := documents(t, richSchema)
	other := documents(t, richSchema)
	foreign := other.write(t, "document:1#viewer@user:a").Zookie
	n.write(t, "document:1#viewer@user:b")
	for name, c := range map[string]struct {
		r      *pembav1.WatchRequest
		code   codes.Code
		reason string
	}{
		"revision zero":         {&pembav1.WatchRequest{Start: &pembav1.WatchRequest_FromRevision{}}, codes.InvalidArgument, "INVALID_FIELD"},
		"beyond the head":       {&pembav1.WatchRequest{Start: &pembav1.WatchRequest_FromRevision{FromRevision: 4}}, codes.OutOfRange, "BEYOND_HEAD"},
		"a damaged zookie":      {&pembav1.WatchRequest{Start: &pembav1.WatchRequest_AfterZookie{AfterZookie: "x"}}, codes.InvalidArgument, "INVALID_ZOOKIE"},
		"a foreign zookie":      {&pembav1.WatchRequest{Start: &pembav1.WatchRequest_AfterZookie{AfterZookie: foreign}}, codes.FailedPrecondition, "FOREIGN_ZOOKIE"},
		"a hasty heartbeat":     {&pembav1.WatchRequest{Heartbeat: durationpb.New(time.Millisecond)}, codes.InvalidArgument, "INVALID_FIELD"},
		"a broken heartbeat":    {&pembav1.WatchRequest{Heartbeat: &durationpb.Duration{Seconds: 1, Nanos: -1}}, codes.InvalidArgument, "INVALID_FIELD"},
		"an unknown operation":  {&pembav1.WatchRequest{Filter: &pembav1.ChangeFilter{Operations: []pembav1.OperationKind{77}}}, codes.InvalidArgument, "INVALID_FIELD"},
		"an unknown store":      {&pembav1.WatchRequest{Store: "nowhere"}, codes.NotFound, "UNKNOWN_STORE"},
		"a store without name":  {&pembav1.WatchRequest{Store: "No"}, codes.InvalidArgument, "INVALID_STORE"},
		"far beyond the number": {&pembav1.WatchRequest{Start: &pembav1.WatchRequest_FromRevision{FromRevision: ^uint64(0)}}, codes.OutOfRange, "BEYOND_HEAD"},
	} {
		_, err := openWatch(t, n, c.r).Recv()
		expect(t, name, err, c.code, c.reason)
	}
}

func TestAWatchFromATrimmedRevisionNamesTheOldestThatIsKept(t *testing.T) {
	now := time.Now()
	n := launch(t, memory.New(), keeper.Options{
		Retention: time.Nanosecond, HistoryRetention: time.Nanosecond, Now: func() time.Time { now = now.Add(time.Second); return now },
	}, server.Config{})
	n.apply(t, richSchema)
	early := n.write(t, "document:1#viewer@user:a").Zookie
	anchor := n.write(t, "document:2#viewer@user:a").Zookie
	if err := n.keeper.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.write(t, "document:3#viewer@user:a")
	for name, r := range map[string]*pembav1.WatchRequest{
		"from a revision": {Start: &pembav1.WatchRequest_FromRevision{FromRevision: 1}},
		"after a zookie":  {Start: &pembav1.WatchRequest_AfterZookie{AfterZookie: early}},
	} {
		_, err := openWatch(t, n, r).Recv()
		expect(t, name, err, codes.OutOfRange, "COMPACTED")
		if fact(err, "oldest") != "4" {
			t.Errorf("%s: the oldest revision is %q, want 4: %v", name, fact(err, "oldest"), err)
		}
	}
	stream := openWatch(t, n, &pembav1.WatchRequest{Start: &pembav1.WatchRequest_AfterZookie{AfterZookie: anchor}})
	if c := nextChange(t, stream); c.Revision != 4 {
		t.Errorf("after the last that was trimmed comes %v", c)
	}
	_, err := all(n.histories.ReadHistory(t.Context(), &pembav1.ReadHistoryRequest{FromRevision: 2}))
	expect(t, "history from what was trimmed", err, codes.OutOfRange, "COMPACTED")
	if ms, err := all(n.histories.ReadHistory(t.Context(), &pembav1.ReadHistoryRequest{})); err != nil || len(ms[0].Changes) != 1 || ms[0].Changes[0].Revision != 4 {
		t.Errorf("history from the oldest: %v, %v", ms, err)
	}
	vs, err := all(n.stores.VerifyStore(t.Context(), &pembav1.VerifyStoreRequest{}))
	if v := last(vs); err != nil || v.Oldest != 4 || v.Verified != 4 || !v.Complete {
		t.Errorf("verified: %v, %v", vs, err)
	}
}

func TestAWatchEndsWithItsStoreAndItsToken(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{MaxStaleness: 50 * time.Millisecond}, server.Config{Token: "root"})
	root := bearer(t, "root")
	if _, err := n.stores.CreateStore(root, &pembav1.CreateStoreRequest{Store: "short-lived"}); err != nil {
		t.Fatal(err)
	}
	made, err := n.tokens.CreateToken(root, &pembav1.CreateTokenRequest{Name: "watcher", AllStores: true, Role: pembav1.Role_ROLE_READER})
	if err != nil {
		t.Fatal(err)
	}
	ended := func(store string) chan error {
		stream, err := n.watches.Watch(bearer(t, made.Secret), &pembav1.WatchRequest{Store: store})
		if err != nil {
			t.Fatal(err)
		}
		next(t, stream)
		out := make(chan error, 1)
		go func() { _, err := stream.Recv(); out <- err }()
		return out
	}
	store, token := ended("short-lived"), ended("default")
	if _, err := n.stores.DeleteStore(root, &pembav1.DeleteStoreRequest{Store: "short-lived"}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.tokens.RevokeToken(root, &pembav1.RevokeTokenRequest{Name: "watcher"}); err != nil {
		t.Fatal(err)
	}
	err = <-store
	if r := reason(err); r != "UNKNOWN_STORE" && r != "UNKNOWN_TOKEN" {
		t.Errorf("a watch of a deleted store ends with %v", err)
	}
	expect(t, "a watch of a revoked token", <-token, codes.Unauthenticated, "UNKNOWN_TOKEN")
	stream, err := n.watches.Watch(bearer(t, made.Secret), &pembav1.WatchRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	expect(t, "a new watch of a revoked token", err, codes.Unauthenticated, "UNKNOWN_TOKEN")
}

func TestAWatchEndsWhenTheServerStops(t *testing.T) {
	n := documents(t, richSchema)
	stream := openWatch(t, n, &pembav1.WatchRequest{})
	next(t, stream)
	began := time.Now()
	stop, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n.server.GracefulStop(stop)
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("the server took %v to stop with an idle watch", took)
	}
	_, err := stream.Recv()
	expect(t, "a watch of a server that stops", err, codes.Unavailable, "UNAVAILABLE")
	if !strings.Contains(err.Error(), "stopping") {
		t.Error(err)
	}
}
