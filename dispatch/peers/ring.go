// Package peers joins the nodes of a cluster, so that their caches add up: each
// query of a store that is not in memory has one owner, who remembers it for all.
// Nodes find one another in a list or through DNS, and speak over mutual TLS. A
// node that is slow or gone is left out, and its queries go to the database.
package peers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/dispatch"
	peerv1 "github.com/pembadb/pemba/proto/pemba/peer/v1"
)

// Config says who the peers are.
type Config struct {
	// Peers are the addresses of the cluster's nodes, HOST:PORT, perhaps this one's
	// among them; dns:HOST:PORT stands for all addresses of a name, which is looked up
	// again every Refresh.
	Peers []string
	// Credentials are what nodes prove themselves with; nil: none, for loopback only.
	Credentials *Credentials
	// Timeout bounds how long a peer may take to answer (250 ms).
	Timeout time.Duration
	// Retry is how long a peer that failed is left alone (1 s), and Refresh how often
	// names are looked up (10 s).
	Retry, Refresh time.Duration
	Logger         *slog.Logger
}

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, standard time.Duration) {
		if *d == 0 {
			*d = standard
		}
	}
	set(&c.Timeout, 250*time.Millisecond)
	set(&c.Retry, time.Second)
	set(&c.Refresh, 10*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Ring finds the owner of what is asked: by rendezvous hashing, the member with
// the highest hash of its address and the question's. So when a member comes or
// goes, only what it owns moves. (Thaler, Ravishankar: Using Name-Based Mappings
// to Increase Hit Rates, 1998.)
type Ring struct {
	config  Config
	node    string // this process's random name
	ctx     context.Context
	cancel  context.CancelFunc
	work    sync.WaitGroup
	members atomic.Pointer[[]*member]
	lookup  func(ctx context.Context, host string) ([]string, error)
}

// member is a node of the cluster.
type member struct {
	ring   *Ring
	addr   string
	hash   uint64
	conn   *grpc.ClientConn
	client peerv1.PeerServiceClient
	ctx    context.Context
	cancel context.CancelFunc
	state  atomic.Int32
}

const (
	away int32 = iota // not reached yet, or it failed
	here
	itself // it is this node
)

// New returns a ring that looks for its members until it is closed.
func New(c Config) (*Ring, error) {
	r := &Ring{config: c.withDefaults(), node: rand.Text(), lookup: net.DefaultResolver.LookupHost}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.members.Store(&[]*member{})
	for _, p := range c.Peers {
		host, port, err := net.SplitHostPort(strings.TrimPrefix(p, "dns:"))
		if err != nil || host == "" || port == "" {
			r.cancel()
			return nil, fmt.Errorf("peer %q is no address; write HOST:PORT, or dns:HOST:PORT for all addresses of a name", p)
		}
		if c.Credentials == nil && !loopback(host) {
			r.cancel()
			return nil, fmt.Errorf("peer %q is not on loopback: give the nodes certificates (--peer-cert, --peer-key, --peer-ca)", p)
		}
	}
	r.work.Go(r.follow)
	return r, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Close leaves the peers.
func (r *Ring) Close() {
	r.cancel()
	r.work.Wait()
	for _, m := range *r.members.Load() {
		m.conn.Close()
	}
}

// follow keeps the members those that the configuration names.
func (r *Ring) follow() {
	tick := time.NewTicker(r.config.Refresh)
	defer tick.Stop()
	for {
		r.update()
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			return
		}
	}
}

// wanted are the addresses of the members, with the names that their certificates
// must have.
func (r *Ring) wanted() map[string]string {
	addrs := map[string]string{}
	for _, p := range r.config.Peers {
		name, dynamic := strings.CutPrefix(p, "dns:")
		host, port, _ := net.SplitHostPort(name)
		if !dynamic {
			addrs[p] = host
			continue
		}
		limit, cancel := context.WithTimeout(r.ctx, r.config.Refresh)
		found, err := r.lookup(limit, host)
		cancel()
		if err != nil {
			r.config.Logger.Warn("a name of peers is not found; those known so far stay", "name", host, "error", err)
			for _, m := range *r.members.Load() {
				if _, p, _ := net.SplitHostPort(m.addr); p == port {
					addrs[m.addr] = host
				}
			}
		}
		for _, ip := range found {
			addrs[net.JoinHostPort(ip, port)] = host
		}
	}
	return addrs
}

func (r *Ring) update() {
	wanted := r.wanted()
	if r.ctx.Err() != nil {
		return
	}
	var members []*member
	for _, m := range *r.members.Load() {
		if _, stays := wanted[m.addr]; stays {
			members = append(members, m)
			delete(wanted, m.addr)
			continue
		}
		m.cancel()
		m.conn.Close()
	}
	for addr, host := range wanted {
		m, err := r.join(addr, host)
		if err != nil {
			r.config.Logger.Error("a peer cannot be asked", "peer", addr, "error", err)
			continue
		}
		members = append(members, m)
	}
	slices.SortFunc(members, func(a, b *member) int { return strings.Compare(a.addr, b.addr) })
	r.members.Store(&members)
}

func (r *Ring) join(addr, host string) (*member, error) {
	conn, err := grpc.NewClient("passthrough:///"+addr, r.config.Credentials.dial(host),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)), grpc.WithDisableRetry(), grpc.WithDisableServiceConfig())
	if err != nil {
		return nil, err
	}
	h := fnv.New64a()
	h.Write([]byte(addr))
	m := &member{ring: r, addr: addr, hash: h.Sum64(), conn: conn, client: peerv1.NewPeerServiceClient(conn)}
	m.ctx, m.cancel = context.WithCancel(r.ctx)
	r.work.Go(m.watch)
	return m, nil
}

// watch greets a member that is away until it answers.
func (m *member) watch() {
	for {
		if m.state.Load() == away {
			m.greet()
		}
		select {
		case <-time.After(m.ring.config.Retry):
		case <-m.ctx.Done():
			return
		}
	}
}

func (m *member) greet() {
	limit, cancel := context.WithTimeout(m.ctx, max(m.ring.config.Timeout, m.ring.config.Retry))
	defer cancel()
	answer, err := m.client.Hello(limit, &peerv1.HelloRequest{}, grpc.WaitForReady(true))
	switch {
	case err != nil:
		m.ring.config.Logger.Debug("a peer does not answer", "peer", m.addr, "error", err)
	case answer.Node == m.ring.node:
		m.state.Store(itself)
	default:
		m.state.Store(here)
		m.ring.config.Logger.Info("a peer is here", "peer", m.addr)
	}
}

// mix is a finalizer of hashes (of SplitMix64; Steele, Lea, Flood, 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Owner implements [dispatch.Peers].
func (r *Ring) Owner(hash uint64) dispatch.Peer {
	var owner *member
	var highest uint64
	for _, m := range *r.members.Load() {
		if m.state.Load() == away {
			continue
		}
		if score := mix(hash ^ m.hash); owner == nil || score > highest {
			owner, highest = m, score
		}
	}
	if owner == nil || owner.state.Load() == itself {
		return nil
	}
	return owner
}

// Members tells how many nodes of the cluster can be reached, this one included.
func (r *Ring) Members() (n int) {
	for _, m := range *r.members.Load() {
		if m.state.Load() != away {
			n++
		}
	}
	return n
}

// Read implements [dispatch.Peer]. A peer that does not answer in time is away
// for a while.
func (m *member) Read(ctx context.Context, at dispatch.PeerPosition, qs []datastore.RowQuery) ([][]datastore.Row, error) {
	limit, cancel := context.WithTimeout(ctx, m.ring.config.Timeout)
	defer cancel()
	limit, end := dispatch.Span(limit, trace.SpanKindClient, "ask a peer", len(qs))
	answer, err := m.client.Read(sendTrace(limit), requestOf(at, qs))
	end(err)
	if err != nil {
		if broken(ctx, err) && m.state.CompareAndSwap(here, away) {
			m.ring.config.Logger.Warn("a peer does not answer; the database is read instead", "peer", m.addr, "error", err)
		}
		return nil, err
	}
	if len(answer.Answers) != len(qs) {
		return nil, errors.New("the peer answers other queries than it was asked")
	}
	rows := make([][]datastore.Row, len(qs))
	for i := range qs {
		rows[i] = rowsOf(answer.Answers[i], &qs[i])
	}
	return rows, nil
}
