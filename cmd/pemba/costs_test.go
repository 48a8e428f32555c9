package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
)

var costs = flag.Int("costs", 0, "how many checks each kind of guarding is measured with; 0 only makes sure that they work")

// guarding is one way to guard and watch a server.
type guarding struct {
	name   string
	args   []string
	env    []string
	token  bool
	secure bool
	mutual bool

	child *child
	conns []*grpc.ClientConn
	cpu   []time.Duration // of the server, for a check; one for each turn
}

// TestWhatGuardingCosts asks the same of servers that are guarded and watched in
// every way, turn by turn: all answer alike, and with -costs it tells how much of
// the server's CPU time a check takes more.
func TestWhatGuardingCosts(t *testing.T) {
	folder := t.TempDir()
	in := func(name string) string { return filepath.Join(folder, name) }
	ca := newAuthority(t, "ours")
	ca.sign(in("server"), 2, soon(), "127.0.0.1")
	ca.sign(in("client"), 3, soon())
	var exported atomic.Int64
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		exported.Add(1)
	}))
	defer collector.Close()
	secured := []string{"--tls-cert", in("server.crt"), "--tls-key", in("server.key")}
	watched := func() []string { return []string{"--metrics-addr", freeAddr(t)} }
	rates := []string{"--token-rate", "1000000", "--store-rate", "1000000", "--memory-limit", "4GiB"}
	traced := func(share string) []string {
		return []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + collector.URL, "OTEL_TRACES_SAMPLER=traceidratio", "OTEL_TRACES_SAMPLER_ARG=" + share}
	}
	own := []string{"PEMBA_TOKEN=" + staticSecret}
	kinds := []*guarding{
		{name: "nothing"},
		{name: "token", env: own, token: true},
		{name: "TLS", args: secured, secure: true},
		{name: "mutual TLS", args: append(slices.Clone(secured), "--tls-client-ca", ca.file), secure: true, mutual: true},
		{name: "rates and memory guard", args: rates},
		{name: "metrics", args: watched()},
		{name: "traces, 1 % sampled", env: traced("0.01")},
		{name: "traces, all", env: traced("1")},
		{name: "all but traces", args: slices.Concat(secured, rates, watched()), env: own, token: true, secure: true},
		{name: "all, 1 % of traces", args: slices.Concat(secured, rates, watched()), env: append(traced("0.01"), own...), token: true, secure: true},
	}
	for _, g := range kinds {
		g.start(t, ca, in("client"))
	}
	turns, each := 1, 100
	if *costs > 0 {
		turns = len(kinds)
		each = *costs / turns
	}
	for turn := -1; turn < turns; turn++ { // the first warms up
		for i := range kinds { // in another order each time
			g := kinds[(i+max(turn, 0))%len(kinds)]
			began := cpuOf(t, g.child.cmd.Process.Pid)
			g.ask(t, each)
			if turn >= 0 {
				g.cpu = append(g.cpu, (cpuOf(t, g.child.cmd.Process.Pid)-began)/time.Duration(each))
			}
		}
	}
	if *costs == 0 {
		return
	}
	bare := middle(kinds[0].cpu)
	for _, g := range kinds {
		t.Logf("%-24s %8s a check  ×%.2f", g.name, middle(g.cpu).Round(100*time.Nanosecond), float64(middle(g.cpu))/float64(bare))
	}
	if exported.Load() == 0 {
		t.Error("no trace was exported")
	}
}

func middle(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}

// start starts the server and connects to it.
func (g *guarding) start(t *testing.T, ca *authority, client string) {
	g.child = spawnServerIn(t, g.env, g.args...)
	kind := insecure.NewCredentials()
	env := map[string]string{}
	if g.secure {
		env["PEMBA_TLS_CA"] = ca.file
		config := &tls.Config{RootCAs: ca.pool()}
		if g.mutual {
			env["PEMBA_CLIENT_CERT"], env["PEMBA_CLIENT_KEY"] = client+".crt", client+".key"
			own, err := tls.LoadX509KeyPair(client+".crt", client+".key")
			if err != nil {
				t.Fatal(err)
			}
			config.Certificates = []tls.Certificate{own}
		}
		kind = credentials.NewTLS(config)
	}
	if g.token {
		env["PEMBA_TOKEN"] = staticSecret
	}
	for _, args := range []string{"schema apply testdata/documents.zed", "relationship import testdata/relationships.list"} {
		if _, told, code := pemba(g.child.addr, "", env, strings.Fields(args)...); code != exitOK {
			t.Fatalf("%s: %s", g.name, told)
		}
	}
	for range 4 {
		conn, err := grpc.NewClient("passthrough:///"+g.child.addr, grpc.WithTransportCredentials(kind))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		g.conns = append(g.conns, conn)
	}
}

// ask asks n times, 16 callers at once.
func (g *guarding) ask(t *testing.T, n int) {
	var next atomic.Int64
	var callers sync.WaitGroup
	for caller := range 16 {
		callers.Go(func() {
			asks, ctx := pb.NewPermissionServiceClient(g.conns[caller%len(g.conns)]), t.Context()
			if g.token {
				ctx = ctxWith(ctx, staticSecret)
			}
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				name, want := "ada", pb.Answer_ANSWER_HAS_PERMISSION
				if i%2 == 0 {
					name, want = fmt.Sprint("stranger", i), pb.Answer_ANSWER_NO_PERMISSION
				}
				r, err := asks.Check(ctx, &pb.CheckRequest{Resource: &pb.Object{Type: "document", Id: "readme"}, Permission: "view", Subject: &pb.Subject{Type: "user", Id: name}})
				if err != nil || r.Answer != want {
					t.Errorf("%s: %s: %v, %v", g.name, name, r.GetAnswer(), err)
					return
				}
			}
		})
	}
	callers.Wait()
}

// cpuOf is the CPU time that a process has used, by its threads' schedules: the
// sum for the process counts in hundredths of a second.
func cpuOf(t *testing.T, pid int) (sum time.Duration) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(threads) == 0 {
		if *costs > 0 {
			t.Skip("CPU time is read where Linux tells it, in /proc/PID/task/*/schedstat")
		}
		return 0
	}
	for _, path := range threads {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		first, _, _ := strings.Cut(string(data), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}
