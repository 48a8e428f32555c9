package peers

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/dispatch"
	"github.com/pembadb/pemba/tuple"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var bg = context.Background()

// fake is a Log with three viewers of every document; it counts its reads.
type fake struct {
	datastore.Log
	reads atomic.Int64
	seen  func(context.Context) // if set, is told of each read
}

func (l *fake) Read(ctx context.Context, _ datastore.StoreID, _ datastore.Revision, qs []datastore.RowQuery, f func(int, datastore.Row) bool) error {
	l.reads.Add(1)
	if l.seen != nil {
		l.seen(ctx)
	}
	for i, q := range qs {
		for n := range 3 {
			r := datastore.Row{Relationship: tuple.Relationship{
				Key: tuple.Key{
					Object: tuple.Object{Type: "document", ID: q.Filter.ObjectID}, Relation: "viewer",
					Subject: tuple.Subject{Object: tuple.Object{Type: "group", ID: fmt.Sprint(n)}, Relation: "member"},
				},
				Caveat: tuple.Caveat{Name: "on", Context: `{"n":1}`}, Expiration: time.UnixMicro(4e15 + int64(n)).UTC(),
			}}
			if !f(i, r) {
				break
			}
		}
	}
	return nil
}

// node is a node of a cluster under test.
type node struct {
	log   *fake
	cache *dispatch.Cache
	ring  *Ring
	line  datastore.RowLine
	at    datastore.Position
	stop  func()
}

var head = datastore.Head{Incarnation: datastore.Incarnation{1}, Revision: 7, Hash: datastore.Hash{9}}

// start starts a node that listens on l.
func start(t *testing.T, l net.Listener, c Config) *node {
	t.Helper()
	c.Retry = 20 * time.Millisecond
	n := &node{log: &fake{}, cache: dispatch.New(dispatch.Options{})}
	var err error
	if n.ring, err = New(c); err != nil {
		t.Fatal(err)
	}
	n.cache.Join(n.ring)
	n.line = n.cache.Line(n.log, 1, head.Incarnation)
	n.at = datastore.Position{Revision: head.Revision, Hash: head.Hash, Stamp: n.line.Changed(head.Revision, head, func(func(tuple.Key, *tuple.Relationship) bool) {})}
	s := NewServer(n.ring, n.cache, func(context.Context, datastore.StoreID) error { return nil })
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.GRPC().Serve(l)
	}()
	n.stop = func() {
		n.ring.Close()
		s.GRPC().Stop()
		<-served
	}
	t.Cleanup(n.stop)
	return n
}

func cluster(t *testing.T, n int, c Config) (nodes []*node) {
	t.Helper()
	var listeners []net.Listener
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners, c.Peers = append(listeners, l), append(c.Peers, l.Addr().String())
	}
	for _, l := range listeners {
		nodes = append(nodes, start(t, l, c))
	}
	for _, node := range nodes {
		eventually(t, "the nodes find one another", func() bool { return node.ring.Members() == n })
	}
	return nodes
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for began := time.Now(); !is(); time.Sleep(time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatalf("it does not come to this: %s", what)
		}
	}
}

func (n *node) read(t *testing.T, documents ...int) {
	t.Helper()
	var qs []datastore.RowQuery
	for _, d := range documents {
		qs = append(qs, datastore.RowQuery{Filter: tuple.Filter{ObjectType: "document", ObjectID: fmt.Sprint(d), Relation: "viewer"}})
	}
	var got, want []string
	if err := n.line.Read(bg, n.at, qs, func(q int, r datastore.Row) bool {
		got = append(got, fmt.Sprint(q, r.Relationship))
		return true
	}); err != nil {
		t.Fatal(err)
	}
	plain := fake{}
	plain.Read(bg, 1, 7, qs, func(q int, r datastore.Row) bool { want = append(want, fmt.Sprint(q, r.Relationship)); return true })
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("it reads %v, want %v", got, want)
	}
}

func TestTheCachesOfAClusterAddUp(t *testing.T) {
	nodes := cluster(t, 3, Config{Timeout: 5 * time.Second})
	for d := range 60 {
		nodes[d%3].read(t, d)
	}
	var before int64
	for _, n := range nodes {
		before += n.log.reads.Load()
	}
	if before != 60 {
		t.Errorf("60 documents took %d reads of the database", before)
	}
	for _, n := range nodes {
		for d := range 60 {
			n.read(t, d)
		}
	}
	var after, asked int64
	for i, n := range nodes {
		after += n.log.reads.Load()
		asked += n.cache.Stats().Asked
		if owns := n.log.reads.Load(); owns < 8 || owns > 35 {
			t.Errorf("node %d owns %d of 60 documents", i, owns)
		}
	}
	if after != before || asked == 0 {
		t.Errorf("asked by every node, they took %d reads more; peers were asked %d", after-before, asked)
	}
}

func TestANodeThatIsGoneOrUnknownIsReplacedByTheDatabase(t *testing.T) {
	nodes := cluster(t, 3, Config{Timeout: 200 * time.Millisecond})
	nodes[0].read(t, 1, 2, 3, 4, 5, 6, 7, 8, 9)
	nodes[2].stop()
	for d := range 30 {
		nodes[0].read(t, 100+d)
	}
	if n := nodes[0].ring.Members(); n != 2 {
		t.Errorf("%d members, after one went", n)
	}
	// A node that does not know the revision says so, and stays a member.
	stranger := *nodes[0]
	stranger.at.Revision++
	before := nodes[0].log.reads.Load()
	stranger.read(t, 200, 201, 202, 203, 204, 205, 206, 207)
	if nodes[0].log.reads.Load() == before || nodes[0].cache.Stats().Declined == 0 || nodes[0].ring.Members() != 2 {
		t.Errorf("%d reads, %d declined, %d members", nodes[0].log.reads.Load()-before, nodes[0].cache.Stats().Declined, nodes[0].ring.Members())
	}
}

func TestOwnersMoveOnlyWithTheMembers(t *testing.T) {
	r := &Ring{}
	set := func(n int) {
		var members []*member
		for i := range n {
			m := &member{ring: r, addr: fmt.Sprint(i), hash: mix(uint64(i) + 77)}
			m.state.Store(here)
			members = append(members, m)
		}
		r.members.Store(&members)
	}
	owners := func() (out []string) {
		for h := range uint64(10_000) {
			out = append(out, r.Owner(mix(h)).(*member).addr)
		}
		return out
	}
	set(4)
	four := owners()
	set(5)
	five := owners()
	moved, share := 0, map[string]int{}
	for i := range four {
		share[five[i]]++
		if four[i] != five[i] {
			if moved++; five[i] != "4" {
				t.Fatalf("what node %s owned moved to %s", four[i], five[i])
			}
		}
	}
	for addr, n := range share {
		if n < 1800 || n > 2200 {
			t.Errorf("node %s owns %d of 10,000", addr, n)
		}
	}
	t.Logf("%d of 10,000 moved", moved)
}

func TestPeersAreFoundByName(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	n := start(t, l, Config{Peers: []string{"dns:localhost:" + port}, Refresh: 5 * time.Millisecond})
	eventually(t, "it finds itself", func() bool { return n.ring.Members() >= 1 })
	if n.ring.Owner(5) != nil {
		t.Error("a node alone asks somebody")
	}
	for bad, want := range map[string]string{"example.com:1": "give the nodes certificates", "localhost": "is no address", "dns::5": "is no address"} {
		if _, err := New(Config{Peers: []string{bad}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// certificates writes a certificate signed by an authority of its own.
func certificates(t *testing.T, host string) *Credentials {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	make := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if signer == nil {
			signer = key
		}
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		template.SerialNumber = big.NewInt(time.Now().UnixNano())
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		return der, key
	}
	authority := &x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	ca, caKey := make(authority, authority, nil)
	leaf := &x509.Certificate{Subject: pkix.Name{CommonName: host}, IPAddresses: []net.IP{net.ParseIP(host)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	cert, key := make(leaf, authority, caKey)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &Credentials{Cert: write("cert.pem", "CERTIFICATE", cert), Key: write("key.pem", "EC PRIVATE KEY", der), CA: write("ca.pem", "CERTIFICATE", ca)}
}

func TestOnlyNodesWithACertificateOfTheAuthorityArePeers(t *testing.T) {
	own := certificates(t, "127.0.0.1")
	if err := own.Check(); err != nil {
		t.Fatal(err)
	}
	nodes := cluster(t, 2, Config{Credentials: own, Timeout: 5 * time.Second})
	for d := range 20 {
		nodes[0].read(t, d)
	}
	if nodes[0].cache.Stats().Asked == 0 {
		t.Error("peers with certificates do not ask one another")
	}
	addrs := nodes[0].ring.config.Peers
	other := certificates(t, "127.0.0.1")
	elsewhere := *own
	for name, c := range map[string]*Credentials{"another authority": other, "no certificate": nil,
		"its own authority's word for another's": {Cert: other.Cert, Key: other.Key, CA: own.CA}} {
		r, err := New(Config{Peers: addrs, Credentials: c, Retry: 20 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		if n := r.Members(); n != 0 {
			t.Errorf("%s: %d members", name, n)
		}
		r.Close()
	}
	// A certificate for another host is no certificate for this one.
	wrong := certificates(t, "127.0.0.9")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := start(t, l, Config{Peers: []string{l.Addr().String()}, Credentials: wrong})
	time.Sleep(100 * time.Millisecond)
	if n.ring.Members() != 0 {
		t.Error("a certificate of another host is taken")
	}
	elsewhere.CA = filepath.Join(t.TempDir(), "none.pem")
	if err := elsewhere.Check(); err == nil || !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "--peer-ca") {
		t.Errorf("a file that is not there: %v", err)
	}
}
