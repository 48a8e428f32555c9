package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
)

// asBesieger makes the test's own binary a besieger of the server it names.
const asBesieger = "PEMBA_TEST_AS_BESIEGER"

// target is what a besieger is told of the server it besieges.
type target struct{ Addr, Web, Dashboard, CA, Secret string }

// besieged begins a siege of the server. The besieger is a process of its own of
// the lowest priority: elsewhere it would be another machine, so that what it takes
// of this one's processors to make its requests is not the server's doing. end ends
// it, and returns how many requests it sent and how many the server answered.
func (c *child) besieged(t *testing.T, ca string) (end func() (sent, opened int64)) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	told, err := json.Marshal(target{c.addr, c.web, c.dashboard, ca, staticSecret})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("nice", "-n", "19", self)
	cmd.Env = append(os.Environ(), asBesieger+"="+string(told))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
	return func() (sent, opened int64) {
		stdin.Close()
		if _, err := fmt.Fscan(stdout, &sent, &opened); err != nil {
			t.Fatalf("the besieger tells nothing: %v", err)
		}
		return sent, opened
	}
}

// runBesieger besieges until its standard input ends, and prints how many requests it
// sent and how many were answered.
func runBesieger(told string) {
	var at target
	if err := json.Unmarshal([]byte(told), &at); err != nil {
		panic(err)
	}
	pem, err := os.ReadFile(at.CA)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	ctx, end := context.WithCancel(context.Background())
	b := &besieger{ctx: ctx, target: at, trust: &tls.Config{RootCAs: pool}}
	b.attack()
	_, _ = io.Copy(io.Discard, os.Stdin)
	end()
	b.all.Wait()
	fmt.Println(b.sent.Load(), b.opened.Load())
	os.Exit(0)
}

// besieger sends hostile traffic of every kind, each at its own pace, until its
// context ends; opened counts what the server took and should have refused.
type besieger struct {
	target
	ctx    context.Context
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
	r, err := http.NewRequestWithContext(b.ctx, method, "https://"+b.Web+path, strings.NewReader(body))
	if err != nil {
		panic(err)
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
func (b *besieger) attack() {
	good := b.Secret
	conn, err := grpc.NewClient("passthrough:///"+b.Addr, grpc.WithTransportCredentials(credentials.NewTLS(b.trust.Clone())))
	if err != nil {
		panic(err)
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
		c, err := tls.Dial("tcp", b.Addr, b.trust)
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
	b.hold(50, b.Web, true, slow, "X-A: b\r\n")
	b.hold(50, b.Web, true, slow+"Authorization: Bearer "+good+"\r\n\r\n{", " ")
	b.hold(50, b.Web, false, "\x16\x03\x01", "")
	b.hold(50, b.Addr, false, "", "")
	b.hold(20, b.Addr, true, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x00\x00\x08\x06\x00\x00\x00\x00\x00abcdefgh") // pings
	b.hold(20, b.Dashboard, false, "GET /met", "r")
}
