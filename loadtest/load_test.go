package loadtest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/loadtest"
	pb "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

// node starts a server in memory and returns a connection to it.
func node(t *testing.T, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	k, err := keeper.Open(memory.New(), keeper.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.New(server.Config{Datastore: k, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(lis) }()
	conn, err := grpc.NewClient(lis.Addr().String(), append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		s.GracefulStop(context.Background())
		if err := <-ended; err != nil {
			t.Error(err)
		}
		k.Close()
	})
	return conn
}

// floor starts a bare server and returns a connection to it.
func floor(t *testing.T) *grpc.ClientConn {
	t.Helper()
	in, out := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- loadtest.ServeFloor(ctx, out) }()
	addr := make([]byte, 100)
	n, err := in.Read(addr)
	if err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, in)
	conn, err := grpc.NewClient(strings.TrimSpace(string(addr[:n])), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return conn
}

// aLoad is everything at once, in a small world that the server holds.
func aLoad(t *testing.T, api string, shape loadtest.Shape, options ...grpc.DialOption) *loadtest.Load {
	t.Helper()
	w, err := loadtest.NewWorld(shape, 2000, 3)
	if err != nil {
		t.Fatal(err)
	}
	l := &loadtest.Load{
		World: w, Nodes: []loadtest.Node{{Addr: "a", Conn: node(t, options...), PID: os.Getpid()}}, API: api, Store: "default",
		Level: loadtest.AtLeastAsFresh, Callers: 8, Duration: 300 * time.Millisecond, BulkSize: 10, Watchers: 2, Seed: 1,
		Mix: map[loadtest.Operation]int{loadtest.CheckOperation: 5, loadtest.BulkOperation: 1, loadtest.LookupOperation: 1, loadtest.WriteOperation: 3},
	}
	filled, err := l.Fill(t.Context(), func(int) {})
	if err != nil || filled.Found || filled.Relationships < 2000 {
		t.Fatalf("filled with %+v, %v", filled, err)
	}
	if filled, err = l.Fill(t.Context(), func(int) {}); err != nil || !filled.Found {
		t.Fatalf("filled again with %+v, %v", filled, err)
	}
	return l
}

// TestALoadFindsNothingWrong: every kind of world through both APIs, with every
// answer, watch and write as it should be.
func TestALoadFindsNothingWrong(t *testing.T) {
	for api := range loadtest.Dialects {
		for i, shape := range loadtest.Shapes {
			t.Run(api+" "+string(shape), func(t *testing.T) {
				l := aLoad(t, api, shape)
				l.Freshness = i == 0
				if i == 1 {
					l.Pick = loadtest.Zipf(1.2)
				}
				if i == 2 {
					l.Rate = 500
				} else {
					l.Floor = floor(t)
				}
				r, err := l.Run(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				var text bytes.Buffer
				if err := r.Print(&text); err != nil {
					t.Fatal(err)
				}
				if r.Failed() || r.PerSecond(loadtest.CheckOperation) == 0 || r.Watch.Writes == 0 || r.Watch.Seen < 2*r.Watch.Writes {
					t.Errorf("the load saw\n%s", &text)
				}
				if (r.Floor != nil) != (l.Rate == 0) || (len(r.Freshness) > 0) != l.Freshness {
					t.Errorf("floor %v, freshness %v", r.Floor, r.Freshness)
				}
				if b, err := json.Marshal(r); err != nil || !json.Valid(b) {
					t.Errorf("as JSON: %v", err)
				}
				var page bytes.Buffer
				table := &loadtest.Table{Reports: []*loadtest.Report{r, r}}
				for size := 1000; size <= 100_000; size *= 10 {
					table.Costs = append(table.Costs, loadtest.Cost{Datastore: "file", World: shape, Size: size, CPU: time.Millisecond, Check: time.Millisecond, Heap: 1 << 20, First: time.Millisecond, Result: time.Microsecond})
				}
				if err := table.WritePage(&page); err != nil || strings.Count(page.String(), "<svg") < 4+2 || strings.Contains(page.String(), "NaN") {
					t.Errorf("the page has %d plots, %v", strings.Count(page.String(), "<svg"), err)
				}
			})
		}
	}
}

// TestALoadFindsWrongAnswers: a server that lies once in a while, loses changes
// of a watch, or fails, is found out.
func TestALoadFindsWrongAnswers(t *testing.T) {
	var calls atomic.Int64
	lie := grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		err := invoke(ctx, method, req, reply, cc, opts...)
		if a, ok := reply.(*pb.CheckResponse); ok && calls.Add(1)%50 == 0 {
			a.Answer = pb.Answer_ANSWER_HAS_PERMISSION + pb.Answer_ANSWER_NO_PERMISSION - a.Answer
		}
		return err
	})
	l := aLoad(t, "pemba", loadtest.Flat, lie)
	r, err := l.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Wrong == 0 || len(r.Wrongs) == 0 || !r.Failed() {
		t.Errorf("%d wrong answers found", r.Wrong)
	}
	forget := grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		s, err := open(ctx, desc, cc, method, opts...)
		return forgetful{s}, err
	})
	l = aLoad(t, "pemba", loadtest.Flat, forget)
	l.Patience = 200 * time.Millisecond
	if r, err = l.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.Watch.Missed == 0 || r.Watch.Doubled == 0 || !r.Failed() {
		t.Errorf("watches: %+v", r.Watch)
	}
}

// forgetful is a stream that brings a change of a watch twice, instead of the one
// that follows.
type forgetful struct{ grpc.ClientStream }

var watched atomic.Pointer[pb.WatchResponse]

func (f forgetful) RecvMsg(m any) error {
	err := f.ClientStream.RecvMsg(m)
	if w, ok := m.(*pb.WatchResponse); ok && err == nil && w.GetChange() != nil {
		if last := watched.Swap(nil); last != nil {
			w.Zookie, w.Event = last.Zookie, last.Event
		} else {
			watched.Store(&pb.WatchResponse{Zookie: w.Zookie, Event: w.Event})
		}
	}
	return err
}

// TestARateIsKept: calls begin when they should, and one that waits for a caller
// counts from when it should have begun.
func TestARateIsKept(t *testing.T) {
	slow := grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if strings.HasSuffix(method, "/Check") {
			time.Sleep(10 * time.Millisecond)
		}
		return invoke(ctx, method, req, reply, cc, opts...)
	})
	l := aLoad(t, "pemba", loadtest.Flat, slow)
	l.Mix, l.Watchers = map[loadtest.Operation]int{loadtest.CheckOperation: 1}, 0
	l.Rate, l.Callers, l.Duration = 400, 1, 500*time.Millisecond // four times what one caller can
	r, err := l.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := r.Calls[0].Count; n != 200 {
		t.Errorf("%d calls, not 200", n)
	}
	// The last call begins 500 ms after the first one should have, and 2 s late.
	if p := r.Calls[0].Time; p.Median < 500*time.Millisecond {
		t.Errorf("half of the calls took %s at most: waiting was left out", p.Median)
	}
}

// TestTheHighestRateIsFound below what the callers can do.
// Servers that answer hardly at all do not make a load go on for ever.
func TestARateThatIsMissedEnds(t *testing.T) {
	slow := grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		time.Sleep(10 * time.Millisecond)
		return invoke(ctx, method, req, reply, cc, opts...)
	})
	l := aLoad(t, "pemba", loadtest.Flat, slow)
	l.Mix, l.Watchers = map[loadtest.Operation]int{loadtest.CheckOperation: 1}, 0
	l.Rate, l.Callers, l.Duration, l.Timeout = 100_000, 1, 100*time.Millisecond, time.Second
	r, err := l.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if made := r.Calls[0].Count; r.Unbegun == 0 || made+r.Unbegun != 10_000 {
		t.Errorf("%d calls made, %d not begun, of 10000", made, r.Unbegun)
	}
	var text strings.Builder
	if err := r.Print(&text); err != nil || !r.Failed() || !strings.Contains(text.String(), "calls not begun: ") {
		t.Errorf("failed %t, and it says %s (%v)", r.Failed(), &text, err)
	}
}

func TestTheHighestRateIsFound(t *testing.T) {
	slow := grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if strings.HasSuffix(method, "/Check") {
			time.Sleep(5 * time.Millisecond)
		}
		return invoke(ctx, method, req, reply, cc, opts...)
	})
	l := aLoad(t, "pemba", loadtest.Flat, slow)
	l.Mix, l.Watchers = map[loadtest.Operation]int{loadtest.CheckOperation: 1}, 0
	l.Callers, l.Duration = 1, 200*time.Millisecond
	g, r, err := l.Seek(t.Context(), 40*time.Millisecond, func(loadtest.Try) {})
	if err != nil {
		t.Skipf("this machine is too busy: %v", err)
	}
	if g.Rate <= 0 || g.Rate > 260 || r == nil || len(g.Tries) < 3 {
		t.Errorf("%+v", g)
	}
}

// TestALoadThatMakesNoSenseIsRefused with what is wrong.
func TestALoadThatMakesNoSenseIsRefused(t *testing.T) {
	w, _ := loadtest.NewWorld(loadtest.Flat, 0, 1)
	for want, spoil := range map[string]func(*loadtest.Load){
		`no API "soap"`:         func(l *loadtest.Load) { l.API = "soap" },
		"the mix is empty":      func(l *loadtest.Load) { l.Mix = nil },
		`mixed of "delete"`:     func(l *loadtest.Load) { l.Mix["delete"] = 1 },
		"no server":             func(l *loadtest.Load) { l.Nodes = nil },
		`no consistency "weak"`: func(l *loadtest.Load) { l.Level = "weak" },
		"one caller at least":   func(l *loadtest.Load) { l.Callers = 0 },
		"takes some time":       func(l *loadtest.Load) { l.Duration = 0 },
	} {
		l := &loadtest.Load{World: w, Nodes: make([]loadtest.Node, 1), API: "pemba", Level: loadtest.MinimizeLatency, Callers: 1, Duration: 1, BulkSize: 1,
			Mix: map[loadtest.Operation]int{loadtest.CheckOperation: 1}}
		if err := l.Check(); err != nil {
			t.Fatal(err)
		}
		spoil(l)
		if err := l.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, and should say %s", err, want)
		}
	}
	if _, err := loadtest.NewWorld("round", 1, 1); err == nil || !strings.Contains(err.Error(), "flat") {
		t.Errorf("a world of another shape: %v", err)
	}
}
