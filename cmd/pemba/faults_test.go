package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"context"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
)

// faulty is a server that fails as a real one cannot be made to at will.
type faulty struct {
	pb.UnimplementedPermissionServiceServer
	pb.UnimplementedRelationshipServiceServer
	pb.UnimplementedWatchServiceServer
	bulkCheck func(*pb.BulkCheckRequest) (*pb.BulkCheckResponse, error)
	read      func(grpc.ServerStreamingServer[pb.ReadRelationshipsResponse]) error
	imports   func(grpc.BidiStreamingServer[pb.ImportRelationshipsRequest, pb.ImportRelationshipsResponse]) error
	export    func(grpc.ServerStreamingServer[pb.ExportRelationshipsResponse]) error
	watch     func(*pb.WatchRequest, grpc.ServerStreamingServer[pb.WatchResponse]) error
}

func (f *faulty) BulkCheck(_ context.Context, r *pb.BulkCheckRequest) (*pb.BulkCheckResponse, error) {
	return f.bulkCheck(r)
}

func (f *faulty) ReadRelationships(_ *pb.ReadRelationshipsRequest, s grpc.ServerStreamingServer[pb.ReadRelationshipsResponse]) error {
	return f.read(s)
}

func (f *faulty) ImportRelationships(s grpc.BidiStreamingServer[pb.ImportRelationshipsRequest, pb.ImportRelationshipsResponse]) error {
	return f.imports(s)
}

func (f *faulty) ExportRelationships(_ *pb.ExportRelationshipsRequest, s grpc.ServerStreamingServer[pb.ExportRelationshipsResponse]) error {
	return f.export(s)
}

func (f *faulty) Watch(r *pb.WatchRequest, s grpc.ServerStreamingServer[pb.WatchResponse]) error {
	return f.watch(r, s)
}

func (f *faulty) start(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	pb.RegisterPermissionServiceServer(s, f)
	pb.RegisterRelationshipServiceServer(s, f)
	pb.RegisterWatchServiceServer(s, f)
	go s.Serve(listener)
	t.Cleanup(s.Stop)
	return listener.Addr().String()
}

func TestAnswersComeInTheOrderOfTheQuestions(t *testing.T) {
	var calls, under, most atomic.Int64
	f := &faulty{bulkCheck: func(r *pb.BulkCheckRequest) (*pb.BulkCheckResponse, error) {
		if n := under.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer under.Add(-1)
		if calls.Add(1)%3 == 0 {
			time.Sleep(2 * time.Millisecond) // so that batches overtake one another
		}
		response := &pb.BulkCheckResponse{}
		for _, q := range r.Items {
			answer := pb.Answer_ANSWER_NO_PERMISSION
			if strings.HasSuffix(q.Resource.Id, "7") {
				answer = pb.Answer_ANSWER_HAS_PERMISSION
			}
			response.Results = append(response.Results, &pb.BulkCheckResult{Answer: answer})
		}
		return response, nil
	}}
	var questions, want strings.Builder
	for i := range 20_005 {
		fmt.Fprintf(&questions, "document:%d#view@user:ada\n", i)
		answer := "no         "
		if i%10 == 7 {
			answer = "yes        "
		}
		fmt.Fprintf(&want, "%s  document:%d#view@user:ada\n", answer, i)
	}
	out, complaints, code := pemba(f.start(t), questions.String(), nil, "bulk-check", "-", "--batch", "100", "--parallel", "4")
	if code != exitOK || out != want.String() {
		t.Errorf("exit code %d, %s\n%.300s", code, complaints, out)
	}
	if calls.Load() != 201 || most.Load() > 4 {
		t.Errorf("%d calls, %d at once", calls.Load(), most.Load())
	}
	if !strings.HasPrefix(complaints, "20,005 questions: 2,000 yes, 18,005 no, 0 conditional, 0 errors;") {
		t.Errorf("summary: %s", complaints)
	}
}

func TestABulkCheckThatFailsEndsAtOnce(t *testing.T) {
	var calls atomic.Int64
	f := &faulty{bulkCheck: func(r *pb.BulkCheckRequest) (*pb.BulkCheckResponse, error) {
		if calls.Add(1) == 3 {
			return nil, status.Error(codes.Internal, "the disk is on fire")
		}
		return &pb.BulkCheckResponse{Results: make([]*pb.BulkCheckResult, len(r.Items))}, nil
	}}
	_, complaints, code := pemba(f.start(t), strings.Repeat("document:1#view@user:ada\n", 10_000), nil, "bulk-check", "-", "--batch", "10", "--parallel", "2")
	if code != exitError || !strings.Contains(complaints, "the disk is on fire") || calls.Load() > 20 {
		t.Errorf("exit code %d after %d calls, %s", code, calls.Load(), complaints)
	}
}

func TestAListThatWasCutIsAnError(t *testing.T) {
	one := []*pb.Relationship{{Resource: &pb.Object{Type: "document", Id: "1"}, Relation: "viewer", Subject: &pb.Subject{Type: "user", Id: "ada"}}}
	f := &faulty{
		read: func(s grpc.ServerStreamingServer[pb.ReadRelationshipsResponse]) error {
			return s.Send(&pb.ReadRelationshipsResponse{Relationships: one})
		},
		export: func(s grpc.ServerStreamingServer[pb.ExportRelationshipsResponse]) error {
			return s.Send(&pb.ExportRelationshipsResponse{Relationships: one})
		},
	}
	addr := f.start(t)
	path := filepath.Join(t.TempDir(), "out.list")
	for _, args := range [][]string{{"relationship", "read"}, {"relationship", "export"}, {"relationship", "export", path}} {
		_, complaints, code := pemba(addr, "", nil, args...)
		if code != exitError || !strings.Contains(complaints, "the list is not complete") {
			t.Errorf("%v: exit code %d, %s", args, code, complaints)
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) > 0 {
		t.Errorf("a cut export left %v", left)
	}
}

// importing answers batches until it has taken some number of relationships, then fails.
func importing(t *testing.T, limit uint64, taken *[]string) func(grpc.BidiStreamingServer[pb.ImportRelationshipsRequest, pb.ImportRelationshipsResponse]) error {
	return func(s grpc.BidiStreamingServer[pb.ImportRelationshipsRequest, pb.ImportRelationshipsResponse]) error {
		m, err := s.Recv()
		if err != nil {
			return err // a client that found a fault in its file may be gone by now
		}
		if m.GetStart() == nil {
			t.Errorf("the first message is %v", m)
		}
		id := m.GetStart().RequestId
		if id == "" {
			id = "drawn"
		}
		total := uint64(0)
		for {
			m, err := s.Recv()
			if err != nil {
				return nil // the end of the client's side
			}
			if total >= limit {
				return status.Error(codes.Unavailable, "the server is draining")
			}
			b := m.GetBatch()
			for _, r := range b.Relationships {
				*taken = append(*taken, r.Resource.Id)
			}
			total += uint64(len(b.Relationships))
			err = s.Send(&pb.ImportRelationshipsResponse{RequestId: id, Offset: b.Offset + uint64(len(b.Relationships)), Created: total, Revision: 1, Zookie: "z"})
			if err != nil {
				return err
			}
		}
	}
}

func TestAnImportThatBrokeOffSaysHowToGoOn(t *testing.T) {
	var lines strings.Builder
	for i := range 25 {
		fmt.Fprintf(&lines, "document:%d#viewer@user:ada\n", i)
	}
	var taken []string
	f := &faulty{imports: importing(t, 10, &taken)}
	addr := f.start(t)
	_, complaints, code := pemba(addr, lines.String(), nil, "relationship", "import", "-", "--batch", "5")
	if code != exitError || !strings.Contains(complaints, "--batch 5 --format text --from 10 --request-id drawn") || !strings.Contains(complaints, "draining") {
		t.Fatalf("exit code %d, %s", code, complaints)
	}
	f.imports = importing(t, 100, &taken)
	out, complaints, code := pemba(addr, lines.String(), nil, "relationship", "import", "-", "--request-id", "drawn", "--from", "10", "--batch", "5")
	if code != exitOK || !strings.HasPrefix(out, "15 created") {
		t.Fatalf("exit code %d, %s%s", code, out, complaints)
	}
	for i, id := range taken {
		if id != fmt.Sprint(i) {
			t.Fatalf("taken were %v", taken)
		}
	}
	if len(taken) != 25 {
		t.Errorf("taken were %v", taken)
	}
}

func TestAFaultInTheFileEndsAnImportWithItsLine(t *testing.T) {
	var taken []string
	f := &faulty{imports: importing(t, 100, &taken)}
	text := strings.Repeat("document:1#viewer@user:ada\n", 7) + "document:1#viewer\n"
	_, complaints, code := pemba(f.start(t), text, nil, "relationship", "import", "-", "--batch", "5")
	if code != exitError || !strings.Contains(complaints, "-:8: ") {
		t.Errorf("exit code %d, %s", code, complaints)
	}
}

func TestAWatchOutlivesTheServer(t *testing.T) {
	calls := 0
	f := &faulty{watch: func(r *pb.WatchRequest, s grpc.ServerStreamingServer[pb.WatchResponse]) error {
		calls++
		if calls == 1 {
			if err := s.Send(&pb.WatchResponse{Zookie: "one", Event: &pb.WatchResponse_Change{Change: &pb.Change{Revision: 1}}}); err != nil {
				return err
			}
			return status.Error(codes.Unavailable, "the server is draining")
		}
		if r.GetAfterZookie() != "one" {
			t.Errorf("went on from %v", r)
		}
		return s.Send(&pb.WatchResponse{Zookie: "two", Event: &pb.WatchResponse_Change{Change: &pb.Change{Revision: 2}}})
	}}
	out, complaints, code := pemba(f.start(t), "", nil, "watch", "--limit", "2")
	if code != exitOK || !strings.Contains(out, "revision 1") || !strings.Contains(out, "revision 2") || !strings.Contains(complaints, "went away") {
		t.Errorf("exit code %d\n%s%s", code, out, complaints)
	}
}
