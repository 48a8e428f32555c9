package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/pembadb/pemba/loadtest"
)

// process is a pemba of our own: a server under load, or the floor beside it.
type process struct {
	cmd  *exec.Cmd
	addr string
	told *tail
	once sync.Once
}

// spawn starts pemba with arguments, and reads from its first line where it
// listens: what follows a word.
func spawn(ctx context.Context, env []string, word string, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program, to start it as a server: %w", err)
	}
	p := &process{cmd: exec.CommandContext(ctx, self, args...), told: &tail{}}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = p.told
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = 20 * time.Second
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start `pemba %s`: %w", strings.Join(args, " "), err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("start `pemba %s`: it ended with\n%s", strings.Join(args, " "), p.told)
	}
	_, p.addr, _ = strings.Cut(strings.TrimSpace(line), word)
	p.addr, _, _ = strings.Cut(p.addr, ",")
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return p, nil
}

// stop ends the process and waits for it.
func (p *process) stop() {
	p.once.Do(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		_ = p.cmd.Wait()
	})
}

// tail keeps the end of what a process complains of.
type tail struct {
	mu  sync.Mutex
	end []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = append(t.end, b...)
	if most := 4 << 10; len(t.end) > most {
		t.end = bytes.Clone(t.end[len(t.end)-most:])
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.end))
}

// bench is the servers of a load test: given ones, or processes of its own.
type bench struct {
	nodes []loadtest.Node
	floor *grpc.ClientConn
	own   []*process
	conns []*grpc.ClientConn
}

// newBench connects to servers, or starts them where no addresses are given, and
// starts the floor where it is wanted.
func (a *app) newBench(ctx context.Context, s setting) (_ *bench, err error) {
	b := &bench{}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if s.floor {
		p, err := spawn(ctx, nil, "", "loadtest", "floor")
		if err != nil {
			return nil, err
		}
		b.own = append(b.own, p)
		if b.floor, err = b.dial(p.addr, "", nil); err != nil {
			return nil, err
		}
	}
	if len(s.addrs) > 0 {
		secret, err := readToken(s.token, s.tokenFile)
		if err != nil {
			return nil, err
		}
		secured, err := s.tls.credentials()
		if err != nil {
			return nil, err
		}
		for i, addr := range s.addrs {
			node := loadtest.Node{Addr: addr}
			if i < len(s.pids) {
				node.PID = s.pids[i]
			}
			if node.Conn, err = b.dial(addr, secret, secured); err != nil {
				return nil, err
			}
			b.nodes = append(b.nodes, node)
		}
		return b, nil
	}
	return b, b.start(ctx, s)
}

// start starts servers of its own on a datastore.
func (b *bench) start(ctx context.Context, s setting) error {
	env := []string{"PEMBA_DATASTORE=" + s.datastore, "PEMBA_TOKEN=", "PEMBA_TOKEN_FILE=", "PEMBA_GRPC_ADDR=127.0.0.1:0", "PEMBA_TLS_CERT=", "PEMBA_TLS_KEY=", "PEMBA_TLS_CLIENT_CA="}
	if strings.Contains(s.datastore, "://") {
		if err := migrateBench(ctx, env); err != nil {
			return err
		}
	}
	for range s.nodes {
		metrics, err := freeAddress()
		if err != nil {
			return err
		}
		p, err := spawn(ctx, append(env[:len(env):len(env)], "PEMBA_METRICS_ADDR="+metrics), "serving gRPC on ", "serve")
		if err != nil {
			return err
		}
		b.own = append(b.own, p)
		conn, err := b.dial(p.addr, "", nil)
		if err != nil {
			return err
		}
		b.nodes = append(b.nodes, loadtest.Node{Addr: p.addr, Conn: conn, PID: p.cmd.Process.Pid, Metrics: metrics})
	}
	return nil
}

// freeAddress is an address on loopback where nobody listens now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func migrateBench(ctx context.Context, env []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "migrate")
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.New(strings.TrimPrefix(strings.TrimSpace(string(out)), "pemba: "))
	}
	return nil
}

// dial connects with a server: in plain text if secured is nil.
func (b *bench) dial(addr, token string, secured credentials.TransportCredentials) (*grpc.ClientConn, error) {
	if secured == nil {
		secured = insecure.NewCredentials()
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(secured),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
	}
	if token != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer(token)))
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, options...)
	if err != nil {
		return nil, usagef("--addr %q is no address: %v", addr, err)
	}
	b.conns = append(b.conns, conn)
	return conn, nil
}

func (b *bench) close() {
	for _, c := range b.conns {
		_ = c.Close()
	}
	for _, p := range b.own {
		p.stop()
	}
}
