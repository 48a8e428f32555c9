package sqltest

import (
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Proxy stands between a node and its database, and cuts and delays.
type Proxy struct {
	listener net.Listener
	target   string
	uri      string

	delay   atomic.Int64 // nanoseconds, for each answer
	swallow atomic.Bool  // the next answer is lost, and its connection with it
	down    atomic.Bool  // connections are refused
	mute    atomic.Bool  // answers are held back

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// NewProxy puts a proxy in front of the database at uri; its own is URI.
func NewProxy(t testing.TB, uri string) *Proxy {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, target: u.Host, conns: map[net.Conn]bool{}}
	u.Host = l.Addr().String()
	p.uri = u.String()
	var work sync.WaitGroup
	work.Go(func() { p.accept(&work) })
	t.Cleanup(func() {
		l.Close()
		p.Mute(false)
		p.Cut()
		work.Wait()
	})
	return p
}

// URI is that of the database, through the proxy.
func (p *Proxy) URI() string { return p.uri }

// Cut cuts every connection.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

// Swallow loses the database's next answer: what was asked is done, and nobody
// hears of it.
func (p *Proxy) Swallow() { p.swallow.Store(true) }

// Down cuts every connection and refuses new ones, until it is told otherwise.
func (p *Proxy) Down(is bool) {
	p.down.Store(is)
	if is {
		p.Cut()
	}
}

// Delay holds back each answer.
func (p *Proxy) Delay(d time.Duration) { p.delay.Store(int64(d)) }

// Mute holds back every answer until it is told otherwise; connections stay.
func (p *Proxy) Mute(is bool) { p.mute.Store(is) }

func (p *Proxy) accept(work *sync.WaitGroup) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil || p.down.Load() {
			client.Close()
			if server != nil {
				server.Close()
			}
			continue
		}
		p.mu.Lock()
		p.conns[client], p.conns[server] = true, true
		p.mu.Unlock()
		end := func() {
			client.Close()
			server.Close()
			p.mu.Lock()
			delete(p.conns, client)
			delete(p.conns, server)
			p.mu.Unlock()
		}
		work.Go(func() {
			defer end()
			io.Copy(server, client)
		})
		work.Go(func() {
			defer end()
			p.answers(client, server)
		})
	}
}

func (p *Proxy) answers(client, server net.Conn) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := server.Read(buffer)
		if err != nil || p.swallow.CompareAndSwap(true, false) {
			return
		}
		time.Sleep(time.Duration(p.delay.Load()))
		for p.mute.Load() {
			time.Sleep(time.Millisecond)
		}
		if _, err := client.Write(buffer[:n]); err != nil {
			return
		}
	}
}
