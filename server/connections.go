package server

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/credentials"
)

// connections bound how many connections the listeners of a server have together.
type connections struct {
	max      int64
	open     atomic.Int64
	refusals *refusals
}

// register shows how many are open.
func (c *connections) register(r prometheus.Registerer) error {
	return r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "pemba_connections", Help: "Connections of clients that are open, over gRPC and HTTP.",
	}, func() float64 { return float64(c.open.Load()) }))
}

// listener counts the connections of a listener.
type listener struct {
	net.Listener
	connections *connections
}

// Accept implements [net.Listener]. A connection too many is closed at once: one
// that waited would be a client that hangs.
func (l listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.connections.open.Add(1) <= l.connections.max {
			return &connection{Conn: c, of: l.connections}, nil
		}
		l.connections.open.Add(-1)
		c.Close()
		l.connections.refusals.tell(context.Background(), refusedConnection, "maximum", l.connections.max)
	}
}

// connection is counted until it is closed.
type connection struct {
	net.Conn
	of   *connections
	once sync.Once
}

// Close implements [net.Conn].
func (c *connection) Close() error {
	c.once.Do(func() { c.of.open.Add(-1) })
	return c.Conn.Close()
}

// CloseWrite ends what is sent and leaves what comes open, as net/http does when it
// refuses a request: closed at once, the refusal might never be read.
func (c *connection) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// watchedCredentials tell of handshakes that fail, which gRPC keeps to itself.
type watchedCredentials struct {
	credentials.TransportCredentials
	refusals *refusals
}

// ServerHandshake implements [credentials.TransportCredentials].
func (c watchedCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := c.TransportCredentials.ServerHandshake(conn)
	if err != nil && !errors.Is(err, io.EOF) { // who only knocks is a probe
		c.refusals.tell(context.Background(), refusedHandshake, "listener", "gRPC")
	}
	return secured, info, err
}

// Clone implements [credentials.TransportCredentials].
func (c watchedCredentials) Clone() credentials.TransportCredentials {
	return watchedCredentials{c.TransportCredentials.Clone(), c.refusals}
}

// httpComplaints takes what net/http complains of. Of clients that cannot agree on
// TLS there may be any number, and the line names their address: they are told of
// as handshakes. The rest is logged.
type httpComplaints struct {
	refusals *refusals
	rest     *log.Logger
}

func (s *Server) httpComplaints() *log.Logger {
	rest := slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)
	return log.New(httpComplaints{s.refusals, rest}, "", 0)
}

// Write implements [io.Writer] for [log.Logger]: b is one complaint.
func (c httpComplaints) Write(b []byte) (int, error) {
	if line := string(b); strings.Contains(line, "TLS handshake error") {
		if !strings.HasSuffix(strings.TrimSpace(line), ": EOF") {
			c.refusals.tell(context.Background(), refusedHandshake, "listener", "HTTP")
		}
	} else {
		c.rest.Print(line)
	}
	return len(b), nil
}
