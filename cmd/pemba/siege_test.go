package main

import (
	"bufio"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
)

var siege = flag.Duration("siege", 0, "how long to measure each turn of traffic alone and beside hostile traffic, and require that p99 at most doubles; 0 measures little and requires nothing of time")

// asPemba makes the test's own binary run as pemba: servers in tests are processes.
const asPemba = "PEMBA_TEST_AS_PEMBA"

func TestMain(m *testing.M) {
	if os.Getenv(asPemba) != "" {
		main()
	}
	if os.Getenv(asBesieger) != "" {
		runBesieger(os.Getenv(asBesieger))
	}
	os.Exit(m.Run())
}

// child is pemba as a process of its own.
type child struct {
	cmd                  *exec.Cmd
	addr, web, dashboard string
	log                  *lines
}

// spawnServer starts `pemba serve` as a process, and ends it with the test.
func spawnServer(t *testing.T, args ...string) *child {
	t.Helper()
	return spawnServerIn(t, nil, args...)
}

// spawnServerIn is spawnServer with more in its environment.
func spawnServerIn(t *testing.T, env []string, args ...string) *child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: exec.Command(self, append([]string{"serve", "--grpc-addr", "127.0.0.1:0"}, args...)...), log: &lines{}}
	c.cmd.Env = append(append(os.Environ(), asPemba+"=1"), env...)
	c.cmd.Stderr = c.log
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.cmd.Process.Signal(syscall.SIGTERM)
		_ = c.cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	m := regexp.MustCompile(`gRPC on ([^,]+)(?:, HTTP on ([^,]+))?,`).FindStringSubmatch(line)
	if err != nil || m == nil {
		t.Fatalf("it says %q, %v\n%s", line, err, c.log)
	}
	c.addr, c.web = m[1], m[2]
	return c
}

// freeAddr is an address on loopback that nobody listens at.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// gauge reads one number of a child's metrics.
func (c *child) gauge(t *testing.T, name string) float64 {
	t.Helper()
	answer, err := http.Get("http://" + c.dashboard + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(string(page))
	if m == nil {
		t.Fatalf("/metrics lacks %s", name)
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// load asks at fixed times and returns how long each call took from when it should
// have begun.
func load(t *testing.T, conns []*grpc.ClientConn, secret string, rate int, length time.Duration) []time.Duration {
	n := int(length.Seconds() * float64(rate))
	took := make([]time.Duration, n)
	var calls sync.WaitGroup
	began := time.Now()
	for i := range n {
		due := began.Add(time.Duration(i) * time.Second / time.Duration(rate))
		time.Sleep(time.Until(due))
		calls.Go(func() {
			_, err := pb.NewPermissionServiceClient(conns[i%len(conns)]).Check(ctxWith(t.Context(), secret), &pb.CheckRequest{
				Resource: &pb.Object{Type: "document", Id: "readme"}, Permission: "view", Subject: &pb.Subject{Type: "user", Id: fmt.Sprint("u", i%100)}})
			if err != nil {
				t.Errorf("a good call: %v", err)
			}
			took[i] = time.Since(due)
		})
	}
	calls.Wait()
	slices.Sort(took)
	return took
}

// TestHostileTrafficBesideNormalTraffic: while every kind of hostile traffic goes
// on, all of it is refused, nobody else notices, and the server takes no more
// memory. With -siege it is measured, turn by turn.
func TestHostileTrafficBesideNormalTraffic(t *testing.T) {
	turn, turns, rate := *siege, 5, 500
	if turn == 0 {
		turn, turns, rate = 1500*time.Millisecond, 1, 100
	}
	path := filepath.Join(t.TempDir(), "server")
	ca := newAuthority(t, "ours")
	ca.sign(path, 2, soon(), "127.0.0.1")
	dashboard := freeAddr(t)
	t.Setenv("PEMBA_TOKEN", staticSecret)
	c := spawnServer(t, "--http-addr", "127.0.0.1:0", "--metrics-addr", dashboard, "--tls-cert", path+".crt", "--tls-key", path+".key")
	c.dashboard = dashboard
	trust := &tls.Config{RootCAs: ca.pool()}
	env := map[string]string{"PEMBA_TOKEN": staticSecret, "PEMBA_TLS_CA": ca.file}
	if _, told, code := pemba(c.addr, "", env, "schema", "apply", "testdata/documents.zed"); code != exitOK {
		t.Fatal(told)
	}
	if _, told, code := pemba(c.addr, "", env, "relationship", "import", "testdata/relationships.list"); code != exitOK {
		t.Fatal(told)
	}
	var conns []*grpc.ClientConn
	for range 8 {
		conn, err := grpc.NewClient("passthrough:///"+c.addr, grpc.WithTransportCredentials(credentials.NewTLS(trust.Clone())))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	load(t, conns, staticSecret, rate, turn/3) // warm
	heap := func() float64 {
		return c.gauge(t, "go_memstats_heap_inuse_bytes") + c.gauge(t, "go_memstats_stack_inuse_bytes")
	}
	before, most := heap(), 0.0
	var alone, beside []time.Duration
	for range turns {
		began := cpuOf(t, c.cmd.Process.Pid)
		alone = append(alone, p99(load(t, conns, staticSecret, rate, turn)))
		cpuAlone := cpuOf(t, c.cmd.Process.Pid) - began
		end := c.besieged(t, ca.file)
		time.Sleep(1500 * time.Millisecond) // until the clients of all that have made their connections
		began = cpuOf(t, c.cmd.Process.Pid)
		beside = append(beside, p99(load(t, conns, staticSecret, rate, turn)))
		cpuBeside := cpuOf(t, c.cmd.Process.Pid) - began
		most = max(most, heap())
		sent, opened := end()
		if opened > 0 || sent < 50 {
			t.Errorf("of %d hostile requests %d were answered", sent, opened)
		}
		t.Logf("p99 alone %s, beside %s; the server's CPU in %s alone %s, beside %s; %d hostile requests; heap and stacks %.1f MB",
			alone[len(alone)-1], beside[len(beside)-1], turn, cpuAlone, cpuBeside, sent, most/1e6)
	}
	if most > before+200e6 {
		t.Errorf("heap and stacks grew from %.0f to %.0f MB", before/1e6, most/1e6)
	}
	slices.Sort(alone)
	slices.Sort(beside)
	a, o := alone[len(alone)/2], beside[len(beside)/2]
	t.Logf("medians of p99: alone %s, beside %s: ×%.2f; heap and stacks %.1f MB before, %.1f MB at most", a, o, float64(o)/float64(a), before/1e6, most/1e6)
	if *siege > 0 && o > 2*a {
		t.Errorf("p99 is %s beside hostile traffic and %s alone", o, a)
	}
	if got := status.Code(healthOf(t, conns[0])); got != codes.OK {
		t.Errorf("health: %s", got)
	}
	if strings.Contains(c.log.String(), staticSecret) || strings.Contains(c.log.String(), "a-guess") {
		t.Errorf("a secret stands in the log:\n%s", c.log)
	}
	if rows := strings.Count(c.log.String(), "\n"); rows > 60+20*turns {
		t.Errorf("the log has %d lines:\n%.4000s", rows, c.log)
	}
}

func healthOf(t *testing.T, conn *grpc.ClientConn) error {
	_, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{})
	return err
}

func p99(sorted []time.Duration) time.Duration { return sorted[len(sorted)*99/100] }
