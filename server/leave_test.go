package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

// gated is a datastore that counts what a question reads of it.
type gated struct {
	datastore.Datastore
	current atomic.Pointer[gate]
}

// gate counts the edges that a question reads. At the edge number stop it waits
// there until its caller has left.
type gate struct {
	stop    int64 // zero: never
	edges   atomic.Int64
	reached chan struct{}
	closed  chan struct{} // when the question lets go of its snapshot
	once    sync.Once
}

// set puts a gate before the next question, which must be one alone.
func (g *gated) set(stop int64) *gate {
	next := &gate{stop: stop, reached: make(chan struct{}), closed: make(chan struct{})}
	g.current.Store(next)
	return next
}

func (g *gated) At(ctx context.Context, store datastore.StoreID, c datastore.Consistency) (datastore.Snapshot, error) {
	s, err := g.Datastore.At(ctx, store, c)
	if at := g.current.Load(); err == nil && at != nil {
		return &gatedSnapshot{Snapshot: s, gate: at}, nil
	}
	return s, err
}

type gatedSnapshot struct {
	datastore.Snapshot
	gate *gate
	read atomic.Bool // or else it is not the question's
}

func (s *gatedSnapshot) Read(ctx context.Context, qs []datastore.Query, f func(int, datastore.Edge) bool) error {
	return s.Snapshot.Read(ctx, qs, func(q int, e datastore.Edge) bool {
		s.read.Store(true)
		if s.gate.edges.Add(1) == s.gate.stop {
			close(s.gate.reached)
			<-ctx.Done()
		}
		return f(q, e)
	})
}

func (s *gatedSnapshot) Close() {
	s.Snapshot.Close()
	if s.read.Load() {
		s.gate.once.Do(func() { close(s.gate.closed) })
	}
}

// leave is a lookup of which the client reads what comes until it leaves.
func leave(ctx context.Context, n *node, subjects, count bool, limit uint32) error {
	fresh := &pembav1.Consistency{Requirement: &pembav1.Consistency_FullyConsistent{FullyConsistent: true}}
	var receive func() error
	if subjects {
		s, err := n.permissions.LookupSubjects(ctx, &pembav1.LookupSubjectsRequest{Consistency: fresh, CountOnly: count, Limit: limit,
			Resource: &pembav1.Object{Type: "document", Id: "all"}, Permission: "view", SubjectType: "user"})
		if err != nil {
			return err
		}
		receive = func() error { _, err := s.Recv(); return err }
	} else {
		r := viewedBy("ada")
		r.Consistency, r.CountOnly, r.Limit = fresh, count, limit
		s, err := n.permissions.LookupResources(ctx, r)
		if err != nil {
			return err
		}
		receive = func() error { _, err := s.Recv(); return err }
	}
	for {
		if err := receive(); err != nil {
			return err
		}
	}
}

// Of 20,000 things to look at, a client that leaves at the thousandth lets the
// server look at a few hundred more at most, also where nothing is sent.
func TestAClientThatLeavesALookupStopsItsWork(t *testing.T) {
	const things, before, after = 20_000, 1000, 1024
	k, err := keeper.Open(memory.New(), keeper.Options{})
	if err != nil {
		t.Fatal(err)
	}
	g := &gated{Datastore: k}
	n := launchOver(t, k, server.Config{Datastore: g})
	n.apply(t, lookupSchema)
	fill(t, n, things, func(i int) *pembav1.Relationship {
		return relationship("document", fmt.Sprintf("d%06d", i), "viewer", "user", "ada")
	})
	fill(t, n, things, func(i int) *pembav1.Relationship {
		return relationship("document", "all", "viewer", "user", fmt.Sprintf("u%06d", i))
	})
	for _, subjects := range []bool{false, true} {
		for name, ask := range map[string]struct {
			count bool
			limit uint32
		}{"streamed": {}, "counted": {count: true}, "a page": {limit: 10_000}} {
			t.Run(fmt.Sprintf("subjects %t, %s", subjects, name), func(t *testing.T) {
				gate := g.set(before)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				left := make(chan error, 1)
				go func() { left <- leave(ctx, n, subjects, ask.count, ask.limit) }()
				await(t, gate.reached, "the server does not look at the things")
				cancel()
				await(t, gate.closed, "the server works on")
				if err := <-left; err == nil || errors.Is(err, io.EOF) {
					t.Errorf("the client that left got %v", err)
				}
				if edges := gate.edges.Load(); edges > before+after {
					t.Errorf("the server looked at %d things after its client had left", edges-before)
				}
			})
		}
		gate := g.set(0)
		if err := leave(t.Context(), n, subjects, false, 0); !errors.Is(err, io.EOF) || gate.edges.Load() < things {
			t.Errorf("another client: %v, after %d things", err, gate.edges.Load())
		}
	}
}

func await(t *testing.T, c <-chan struct{}, otherwise string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatal(otherwise)
	}
}

// With -soak the lookup is over a million.
func TestALargeLookupStreamsAtOnceInLittleMemory(t *testing.T) {
	total := count(30_000, 1_000_000)
	n := documents(t, lookupSchema)
	fill(t, n, total, func(i int) *pembav1.Relationship {
		d := fmt.Sprintf("document-%09d", i)
		switch i % 4 {
		case 0:
			return relationship("document", d, "parent", "folder", "shared")
		case 1:
			r := relationship("document", d, "viewer", "group", "crew")
			r.Subject.Relation = "member"
			return r
		}
		return relationship("document", d, "viewer", "user", "ada")
	})
	write(t, n.conn, relationship("group", "crew", "member", "user", "ada"), relationship("folder", "shared", "viewer", "user", "ada"))
	r := viewedBy("ada")
	r.Consistency = &pembav1.Consistency{Requirement: &pembav1.Consistency_FullyConsistent{FullyConsistent: true}}
	if _, err := n.permissions.Check(t.Context(), &pembav1.CheckRequest{Consistency: r.Consistency, Permission: "view", Subject: r.Subject,
		Resource: &pembav1.Object{Type: "document", Id: "none"}}); err != nil { // and the store is resident
		t.Fatal(err)
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	empty, most, results, messages := heap(), int64(0), 0, 0
	began, first := time.Now(), time.Duration(0)
	stream, err := n.permissions.LookupResources(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if messages++; messages == 1 {
			first = time.Since(began)
			if len(m.Results) != 1 {
				t.Errorf("the first message has %d results: the first result waited for others", len(m.Results))
			}
		}
		if results += len(m.Results); messages%max(1, total/1024/12) == 0 {
			most = max(most, heap())
		}
	}
	t.Logf("%d results; the first after %s, all after %s; %d KiB held", results, first.Round(time.Microsecond), time.Since(began).Round(time.Millisecond), (most-empty)>>10)
	if results != total {
		t.Errorf("%d results of %d", results, total)
	}
	if most-empty > 48<<20 {
		t.Errorf("a lookup of %d results holds %d MiB", total, (most-empty)>>20)
	}
}
