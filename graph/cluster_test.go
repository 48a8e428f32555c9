package graph_test

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/dispatch"
	"github.com/pembadb/pemba/dispatch/peers"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/tuple"
)

// faulty is a listener whose connections are cut and held up.
type faulty struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
	delay atomic.Int64
}

type faultyConn struct {
	net.Conn
	of *faulty
}

func (l *faulty) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, c)
	return faultyConn{c, l}, nil
}

func (c faultyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	time.Sleep(time.Duration(c.of.delay.Load()))
	return n, err
}

func (l *faulty) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.Close()
	}
	l.conns = nil
}

// cluster is three nodes in one process, over one Log at a time.
type cluster struct {
	caches    [3]*dispatch.Cache
	rings     [3]*peers.Ring
	listeners [3]*faulty
	keepers   [3]atomic.Pointer[keeper.Keeper]
}

func newCluster(t *testing.T, timeout time.Duration) *cluster {
	c := &cluster{}
	var addrs []string
	for i := range c.listeners {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.listeners[i] = &faulty{Listener: l}
		addrs = append(addrs, l.Addr().String())
	}
	for i := range c.listeners {
		ring, err := peers.New(peers.Config{Peers: addrs, Timeout: timeout, Retry: 20 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		c.rings[i], c.caches[i] = ring, dispatch.New(dispatch.Options{Bytes: 1 << 20})
		c.caches[i].Join(ring)
		s := peers.NewServer(ring, c.caches[i], func(ctx context.Context, id datastore.StoreID) error {
			_, err := c.keepers[i].Load().At(ctx, id, datastore.Consistency{})
			return err
		})
		go s.GRPC().Serve(c.listeners[i])
		t.Cleanup(func() {
			ring.Close()
			s.GRPC().Stop()
		})
	}
	for _, r := range c.rings {
		for began := time.Now(); r.Members() < 3; time.Sleep(time.Millisecond) {
			if time.Since(began) > 10*time.Second {
				t.Fatal("the nodes do not find one another")
			}
		}
	}
	return c
}

// open opens a node's keeper over a Log.
func (c *cluster) open(t *testing.T, log datastore.Log) {
	for i := range c.keepers {
		k, err := keeper.Open(log, keeper.Options{ResidentMaxRelationships: 1, MaxStaleness: 20 * time.Millisecond, Cache: c.caches[i]})
		if err != nil {
			t.Fatal(err)
		}
		c.keepers[i].Store(k)
	}
}

func (c *cluster) stats() (asked, declined int64) {
	for _, cache := range c.caches {
		s := cache.Stats()
		asked, declined = asked+s.Asked, declined+s.Declined
	}
	return asked, declined
}

// In a cluster of three, whose nodes are cut off and slow, every answer at every
// revision is what it is without caches and peers.
func TestRandomWorldsAgreeInAClusterWithFailingPeers(t *testing.T) {
	worlds := 25
	if *soak {
		worlds = 600
	}
	c := newCluster(t, 30*time.Millisecond)
	var ended atomic.Bool
	var chaos sync.WaitGroup
	chaos.Go(func() {
		r := rand.New(rand.NewPCG(3, 4))
		for !ended.Load() {
			l := c.listeners[r.IntN(3)]
			switch r.IntN(3) {
			case 0:
				l.cut()
			case 1:
				l.delay.Store(int64(50 * time.Millisecond))
				time.Sleep(10 * time.Millisecond)
				l.delay.Store(0)
			}
			time.Sleep(time.Duration(r.IntN(60)) * time.Millisecond)
		}
	})
	defer chaos.Wait()
	defer ended.Store(true)
	asked := 0
	for seed := range worlds {
		r := rand.New(rand.NewPCG(uint64(seed), 13))
		w := newWorld(r)
		if len(w.relationships) == 0 {
			continue
		}
		log := keptOpen{memory.New()}
		c.open(t, log)
		plain, err := keeper.Open(log, keeper.Options{Direct: true})
		if err != nil {
			t.Fatal(err)
		}
		node := func() *keeper.Keeper { return c.keepers[r.IntN(3)].Load() }
		write := func(request datastore.Request) {
			t.Helper()
			if _, err := node().Write(t.Context(), datastore.Default, request); err != nil {
				t.Fatal(err)
			}
		}
		write(datastore.Request{Schema: &datastore.SchemaUpdate{Text: w.schema}})
		for n := range 4 {
			var request datastore.Request
			for i, text := range w.relationships {
				if n > 0 && i != r.IntN(len(w.relationships)) {
					continue
				}
				rel, err := tuple.Parse(text)
				if err != nil {
					t.Fatal(err)
				}
				kind := datastore.Touch
				if n > 0 && r.IntN(2) == 0 {
					kind = datastore.Delete
				}
				request.Updates = append(request.Updates, datastore.Update{Kind: kind, Relationship: rel})
			}
			if len(request.Updates) > 0 {
				write(request)
			}
			var snapshots []datastore.Snapshot
			for i := range c.keepers {
				s, err := c.keepers[i].Load().At(t.Context(), datastore.Default, datastore.Consistency{Level: datastore.FullyConsistent})
				if err != nil {
					t.Fatal(err)
				}
				snapshots = append(snapshots, s)
			}
			same, err := plain.At(t.Context(), datastore.Default, datastore.Consistency{Level: datastore.AtExactSnapshot, Zookie: snapshots[0].Zookie()})
			if err != nil {
				t.Fatal(err)
			}
			for _, subject := range w.subjects {
				for _, resource := range w.resources {
					q := graph.Question{Resource: resource.object, Permission: resource.relation, Subject: subject, Context: w.context}
					want := show(graph.Check(t.Context(), same, q, w.now, graph.Limits{}))
					if got := show(graph.Check(t.Context(), snapshots[r.IntN(3)], q, w.now, graph.Limits{})); got != want {
						t.Fatalf("seed %d: %s: %s in the cluster, %s alone\n%s", seed, q, got, want, w)
					}
					asked++
				}
			}
		}
		plain.Close()
		for i := range c.keepers {
			c.keepers[i].Load().Close()
		}
	}
	answered, declined := c.stats()
	t.Logf("%d questions; peers answered %d queries and did not answer %d", asked, answered, declined)
	if answered == 0 || declined == 0 {
		t.Error("peers always fail, or never: this shows nothing")
	}
}
