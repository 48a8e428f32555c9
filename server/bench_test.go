package server_test

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/loadtest"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

var size = flag.Int("size", 100_000, "relationships in the worlds of benchmarks")

// listen serves on loopback and returns a connection to it.
func listen(b *testing.B, serve func(net.Listener) error, stop func()) *grpc.ClientConn {
	b.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve(lis) }()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		conn.Close()
		stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
	return conn
}

// serveWorld returns a connection to a server that holds a world in memory.
func serveWorld(b *testing.B, w *loadtest.World) *grpc.ClientConn {
	b.Helper()
	k, err := keeper.Open(memory.New(), keeper.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { k.Close() })
	write := func(r datastore.Request) {
		if _, err := k.Write(b.Context(), datastore.Default, r); err != nil {
			b.Fatal(err)
		}
	}
	write(datastore.Request{Schema: &datastore.SchemaUpdate{Text: w.Schema()}})
	var r datastore.Request
	for rel := range w.Relationships() {
		if r.Updates = append(r.Updates, datastore.Update{Kind: datastore.Touch, Relationship: rel}); len(r.Updates) == 1000 {
			write(r)
			r.Updates = nil
		}
	}
	write(r)
	s, err := server.New(server.Config{Datastore: k, Token: "secret", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		b.Fatal(err)
	}
	return listen(b, s.Serve, func() { s.GracefulStop(context.Background()) })
}

// bearerToken sends the token with every call.
type bearerToken string

func (t bearerToken) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(t)}, nil
}

func (bearerToken) RequireTransportSecurity() bool { return false }

// calls makes n calls from some callers at once and returns how long they took.
func calls(b *testing.B, callers, n int, call func(i int) error) time.Duration {
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range callers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if err := call(int(i)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

// BenchmarkCheckAgainstTheFloor compares checks of a server that holds a world in
// memory with the health calls of a bare gRPC server, turn by turn. "×floor" is
// the throughput of checks in that of health calls.
func BenchmarkCheckAgainstTheFloor(b *testing.B) {
	bare := grpc.NewServer()
	healthv1.RegisterHealthServer(bare, health.NewServer())
	floor := healthv1.NewHealthClient(listen(b, bare.Serve, bare.Stop))
	for _, shape := range []loadtest.Shape{loadtest.Flat, loadtest.Deep} {
		b.Run(string(shape), func(b *testing.B) {
			w, err := loadtest.NewWorld(shape, *size, 1)
			if err != nil {
				b.Fatal(err)
			}
			asks := pembav1.NewPermissionServiceClient(serveWorld(b, w))
			r := rand.New(rand.NewPCG(1, 2))
			checks := make([]*pembav1.CheckRequest, 10_000)
			for i := range checks {
				q := w.Question(r)
				o, permission, s := q.Resource, q.Permission, q.Subject
				checks[i] = &pembav1.CheckRequest{Resource: &pembav1.Object{Type: o.Type, Id: o.ID}, Permission: permission, Subject: &pembav1.Subject{Type: s.Type, Id: s.ID}}
			}
			b.Run("check", func(b *testing.B) { benchCheck(b, asks, floor, checks) })
			b.Run("bulk of 100", func(b *testing.B) { benchBulk(b, asks, checks) })
		})
	}
}

const (
	callers = 64
	turn    = 2000 // calls, before it is the other's
)

var token = grpc.PerRPCCredentials(bearerToken("secret"))

func benchCheck(b *testing.B, asks pembav1.PermissionServiceClient, floor healthv1.HealthClient, checks []*pembav1.CheckRequest) {
	b.ReportAllocs()
	var asked, beaten time.Duration
	var turns int
	for done := 0; done < b.N; done += turn {
		turns++
		asked += calls(b, callers, turn, func(i int) error {
			_, err := asks.Check(b.Context(), checks[(done+i)%len(checks)], token)
			return err
		})
		beaten += calls(b, callers, turn, func(int) error {
			_, err := floor.Check(b.Context(), &healthv1.HealthCheckRequest{})
			return err
		})
	}
	b.ReportMetric(float64(beaten)/float64(asked), "×floor")
	b.ReportMetric(float64(turns*turn)/asked.Seconds(), "checks/s")
	b.ReportMetric(float64(turns*turn)/beaten.Seconds(), "health/s")
}

func benchBulk(b *testing.B, asks pembav1.PermissionServiceClient, checks []*pembav1.CheckRequest) {
	b.ReportAllocs()
	bulks := make([]*pembav1.BulkCheckRequest, len(checks)/100)
	for i := range bulks {
		bulks[i] = &pembav1.BulkCheckRequest{}
		for _, c := range checks[100*i : 100*i+100] {
			bulks[i].Items = append(bulks[i].Items, &pembav1.BulkCheckItem{Resource: c.Resource, Permission: c.Permission, Subject: c.Subject})
		}
	}
	took := calls(b, callers, b.N, func(i int) error {
		_, err := asks.BulkCheck(b.Context(), bulks[i%len(bulks)], token)
		return err
	})
	b.ReportMetric(float64(100*b.N)/took.Seconds(), "answers/s")
}
