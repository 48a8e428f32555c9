package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
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
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
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

// besieger sends hostile traffic of every kind, each at its own pace, until its
// context ends; opened counts what the server took and should have refused.
type besieger struct {
	t      *testing.T
	ctx    context.Context
	child  *child
	trust  *tls.Config
	all    sync.WaitGroup
	sent   atomic.Int64
	opened atomic.Int64
}

// every does something at a rate until the siege ends.
func (b *besieger) every(pause time.Duration, do func()) {
	b.all.Go(func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				do()
				b.sent.Add(1)
			case <-b.ctx.Done():
				return
			}
		}
	})
}

// hold keeps n connections, each with something begun on it and drips of it after.
func (b *besieger) hold(n int, addr string, secure bool, begin, drip string) {
	for range n {
		b.all.Go(func() {
			time.Sleep(rand.N(time.Second)) // strangers do not keep step
			for b.ctx.Err() == nil {
				b.holdOne(addr, secure, begin, drip)
				b.sent.Add(1)
				time.Sleep(rand.N(400 * time.Millisecond)) // a client of the same processors
			}
		})
	}
}

func (b *besieger) holdOne(addr string, secure bool, begin, drip string) {
	d := &net.Dialer{Timeout: 5 * time.Second}
	c, err := d.DialContext(b.ctx, "tcp", addr)
	if err != nil {
		time.Sleep(10 * time.Millisecond)
		return
	}
	defer context.AfterFunc(b.ctx, func() { c.Close() })()
	defer c.Close()
	if secure {
		config := b.trust.Clone()
		config.ServerName, config.NextProtos = "127.0.0.1", []string{"http/1.1"}
		if strings.HasPrefix(begin, "PRI") {
			config.NextProtos = []string{"h2"}
		}
		c = tls.Client(c, config)
	}
	_, _ = io.WriteString(c, begin)
	for b.ctx.Err() == nil {
		_ = c.SetReadDeadline(time.Now().Add(250*time.Millisecond + rand.N(500*time.Millisecond)))
		_, err := c.Read(make([]byte, 1024))
		if late, ok := err.(net.Error); err != nil && (!ok || !late.Timeout()) {
			return
		}
		if _, err := io.WriteString(c, drip); err != nil {
			return
		}
	}
}

// refusedCall makes a call over gRPC that must not succeed.
func (b *besieger) refusedCall(conn *grpc.ClientConn, secret string) {
	_, err := pb.NewStoreServiceClient(conn).ListStores(ctxWith(b.ctx, secret), &pb.ListStoresRequest{})
	if err == nil {
		b.opened.Add(1)
	}
}

func (b *besieger) refusedRequest(client *http.Client, method, path, secret, body string) {
	r, err := http.NewRequestWithContext(b.ctx, method, "https://"+b.child.web+path, strings.NewReader(body))
	if err != nil {
		b.t.Error(err)
		return
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	answer, err := client.Do(r)
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
	if answer.StatusCode < 400 {
		b.opened.Add(1)
	}
}

// bytesCodec sends bytes as they are: who makes large messages must not be busier
// than who receives them.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (bytesCodec) Unmarshal([]byte, any) error   { return nil }
func (bytesCodec) Name() string                  { return "proto" }

func ctxWith(ctx context.Context, secret string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, with(secret)...)
}

// attack begins all of it.
func (b *besieger) attack(good string) {
	conn, err := grpc.NewClient("passthrough:///"+b.child.addr, grpc.WithTransportCredentials(credentials.NewTLS(b.trust.Clone())))
	if err != nil {
		b.t.Fatal(err)
	}
	context.AfterFunc(b.ctx, func() { conn.Close() })
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: b.trust.Clone()}}
	context.AfterFunc(b.ctx, client.CloseIdleConnections)

	huge := strings.Repeat("x", 20<<20)
	bytes := []byte(huge)
	b.every(5*time.Millisecond, func() { b.refusedCall(conn, "a-guess") })
	b.every(20*time.Millisecond, func() { b.refusedRequest(client, "GET", "/v1/stores", "a-guess", "") })
	b.every(20*time.Millisecond, func() { b.refusedRequest(client, "GET", "/scim/v2/Users", "a-guess", "") })
	b.every(20*time.Millisecond, func() { b.refusedRequest(client, "POST", "/v1/check", good, `{"resource": [[[[`) })
	b.every(20*time.Millisecond, func() { b.refusedRequest(client, "POST", "/v1/../../metrics", good, `{}`) })
	b.every(time.Second, func() { b.refusedRequest(client, "POST", "/v1/schema/diff", good, huge) })
	b.every(time.Second, func() { b.refusedRequest(client, "POST", "/scim/v2/Users", good, huge) })
	b.every(time.Second, func() {
		var none []byte
		if conn.Invoke(ctxWith(b.ctx, good), "/pemba.v1.SchemaService/DiffSchema", bytes, &none, grpc.ForceCodec(bytesCodec{})) == nil {
			b.opened.Add(1)
		}
	})
	b.every(50*time.Millisecond, func() { // TLS, and then nonsense
		c, err := tls.Dial("tcp", b.child.addr, b.trust)
		if err == nil {
			_, _ = io.WriteString(c, "nonsense\r\n\r\n")
			c.Close()
		}
	})
	b.every(10*time.Millisecond, func() { // a request by a stranger that never comes whole
		ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
		s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/grpc.health.v1.Health/Check")
		if err != nil {
			cancel()
			return
		}
		b.all.Go(func() {
			defer cancel()
			if s.RecvMsg(&healthv1.HealthCheckResponse{}) == nil {
				b.opened.Add(1)
			}
		})
	})
	const slow = "POST /v1/check HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n"
	b.hold(50, b.child.web, true, slow, "X-A: b\r\n")
	b.hold(50, b.child.web, true, slow+"Authorization: Bearer "+good+"\r\n\r\n{", " ")
	b.hold(50, b.child.web, false, "\x16\x03\x01", "")
	b.hold(50, b.child.addr, false, "", "")
	b.hold(20, b.child.addr, true, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x00\x00\x08\x06\x00\x00\x00\x00\x00abcdefgh") // pings
	b.hold(20, b.child.dashboard, false, "GET /met", "r")
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
		ctx, end := context.WithCancel(t.Context())
		b := &besieger{t: t, ctx: ctx, child: c, trust: trust}
		b.attack(staticSecret)
		time.Sleep(1500 * time.Millisecond) // until the clients of all that have made their connections
		began = cpuOf(t, c.cmd.Process.Pid)
		beside = append(beside, p99(load(t, conns, staticSecret, rate, turn)))
		cpuBeside := cpuOf(t, c.cmd.Process.Pid) - began
		most = max(most, heap())
		end()
		b.all.Wait()
		if opened := b.opened.Load(); opened > 0 || b.sent.Load() < 50 {
			t.Errorf("of %d hostile requests %d were answered", b.sent.Load(), opened)
		}
		t.Logf("p99 alone %s, beside %s; the server's CPU in %s alone %s, beside %s; %d hostile requests; heap and stacks %.1f MB",
			alone[len(alone)-1], beside[len(beside)-1], turn, cpuAlone, cpuBeside, b.sent.Load(), most/1e6)
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
