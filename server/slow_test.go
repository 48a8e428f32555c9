package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

// living is what is reachable on the heap, in bytes.
func living() uint64 {
	runtime.GC()
	runtime.GC() // pools let go of what they hold with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// unread begins a call and never reads its answer.
func unread(t *testing.T, conn *grpc.ClientConn, method string, request proto.Message) grpc.ClientStream {
	t.Helper()
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, method)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(request); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	return stream
}

// TestAClientThatNeverReadsHarmsNobody: however much a client asks for without
// reading any of it, the server holds little, serves others, tells the client
// once it reads, and stops when it is told to.
func TestAClientThatNeverReadsHarmsNobody(t *testing.T) {
	const patience = 1500 * time.Millisecond
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Limits: server.Limits{SlowConsumer: patience}})
	n.apply(t, groupSchema)
	total := count(20_000, 200_000)
	fill(t, n, total, func(i int) *pembav1.Relationship {
		return relationship("group", fmt.Sprintf("g%d", i%2), "member", "user", fmt.Sprintf("somebody-with-a-rather-long-name-%d", i))
	})
	lazy, err := grpc.NewClient(n.addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))
	if err != nil {
		t.Fatal(err)
	}
	defer lazy.Close()
	bulk := &pembav1.BulkCheckRequest{}
	for range 2000 {
		bulk.Items = append(bulk.Items, &pembav1.BulkCheckItem{Resource: obj("group", "g1"), Permission: "member", Subject: user("nobody")})
	}
	requests := map[string]proto.Message{
		"/pemba.v1.RelationshipService/ExportRelationships": &pembav1.ExportRelationshipsRequest{},
		"/pemba.v1.RelationshipService/ReadRelationships":   &pembav1.ReadRelationshipsRequest{},
		"/pemba.v1.WatchService/Watch":                      &pembav1.WatchRequest{Start: &pembav1.WatchRequest_FromRevision{FromRevision: 1}},
		"/pemba.v1.HistoryService/ReadHistory":              &pembav1.ReadHistoryRequest{},
		"/pemba.v1.PermissionService/LookupSubjects": &pembav1.LookupSubjectsRequest{
			Resource: obj("group", "g1"), Permission: "member", SubjectType: "user"},
	}
	const each = 20
	before := living()
	streams := map[string]grpc.ClientStream{}
	for method, request := range requests {
		for range each {
			streams[method] = unread(t, lazy, method, request)
		}
	}
	for range each {
		unread(t, lazy, "/pemba.v1.PermissionService/BulkCheck", bulk)
	}
	began := time.Now()
	for i := range 50 {
		if got, err := ask(t, n, obj("group", "g1"), "member", user(fmt.Sprintf("somebody-with-a-rather-long-name-%d", 1+2*i))); err != nil || got != pembav1.Answer_ANSWER_HAS_PERMISSION {
			t.Fatalf("another client meanwhile: %v, %v", got, err)
		}
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("another client waited %v for 50 answers", took)
	}
	const perStream = 1200 << 10
	most, grown := int64((len(requests)+1)*each*perStream), int64(0)
	for began := time.Now(); time.Since(began) < patience; time.Sleep(patience / 10) { // questions are still being answered
		if grown = int64(living() - before); grown <= most {
			break
		}
	}
	if grown > most {
		t.Errorf("the server holds %d bytes more for what is not read, more than %d", grown, most)
	}
	time.Sleep(2 * patience)
	for method, stream := range streams {
		var err error
		for err == nil {
			err = stream.RecvMsg(&emptypb.Empty{})
		}
		if errors.Is(err, io.EOF) {
			t.Errorf("%s: the whole answer came through, though nobody read it", method)
			continue
		}
		expect(t, method, err, codes.ResourceExhausted, "SLOW_CONSUMER")
	}

	stuck := unread(t, lazy, "/pemba.v1.RelationshipService/ExportRelationships", &pembav1.ExportRelationshipsRequest{})
	_ = stuck
	stop, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began = time.Now()
	n.server.GracefulStop(stop)
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("the server took %v to stop, with 200 ms to drain", took)
	}
}
