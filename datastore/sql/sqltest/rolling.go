package sqltest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	pemba "github.com/pembadb/pemba/proto/pemba/v1"
)

// standardPolicy is what a client of several nodes does: round robin, and what is
// UNAVAILABLE is tried again, up to five times in all (gRFC A6).
const standardPolicy = `{
	"loadBalancingConfig": [{"round_robin": {}}],
	"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE"]}}]
}`

// settled is how long a rolling restart waits between a node that is ready and the
// next that stops: clients that met it stopped look again after a second or so.
const settled = 2000 * time.Millisecond

// stop asks the process to end, and returns once it has; its exit code must be 0.
func (p *process) stop(limit time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.gone:
	case <-time.After(limit):
		return fmt.Errorf("it does not end within %s", limit)
	}
	code := p.cmd.ProcessState.ExitCode()
	p.cmd = nil
	if code != 0 {
		return fmt.Errorf("it ends with exit code %d: %s", code, p.told.String())
	}
	return nil
}

// roll is a client of all nodes, and what it saw.
type roll struct {
	t     *testing.T
	conn  *grpc.ClientConn
	ended atomic.Bool

	checks, writes, lookups, reads atomic.Int64
}

// RunRolling tests that a rolling restart of three processes under load is not
// seen by a client of the three that does as the standard policy says: no call
// fails, none is lost or done twice.
func (target Target) RunRolling(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts processes")
	}
	nodes := target.start(t, target.Empty(t), 3)
	addresses := manual.NewBuilderWithScheme("nodes")
	var list []resolver.Address
	for _, p := range nodes {
		list = append(list, resolver.Address{Addr: p.addr})
	}
	addresses.InitialState(resolver.State{Addresses: list})
	conn, err := grpc.NewClient("nodes:///", grpc.WithResolvers(addresses), grpc.WithDefaultServiceConfig(standardPolicy),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &roll{t: t, conn: conn}
	if _, err := pemba.NewSchemaServiceClient(conn).ApplySchema(bg, &pemba.ApplySchemaRequest{Text: movingSchema}, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	for w := range 4 {
		work.Go(func() { c.write(w) })
		work.Go(func() { c.check(w) })
		work.Go(func() { c.lookup(w) })
	}
	work.Go(c.history)
	time.Sleep(settled / 2)
	for i, p := range nodes {
		if err := p.stop(30 * time.Second); err != nil {
			t.Errorf("stop node %d: %v", i, err)
			break
		}
		if err := p.startUntil(30 * time.Second); err != nil {
			t.Errorf("start node %d again: %v", i, err)
			break
		}
		time.Sleep(settled)
	}
	c.ended.Store(true)
	work.Wait()
	t.Logf("%d checks, %d writes, %d lookups, %d histories", c.checks.Load(), c.writes.Load(), c.lookups.Load(), c.reads.Load())
	if c.checks.Load() < 100 || c.writes.Load() < 100 || c.lookups.Load() < 100 || c.reads.Load() < 3 {
		t.Error("that shows too little")
	}
	for i, p := range nodes {
		if text := p.told.String(); strings.Contains(text, "level=ERROR") {
			t.Errorf("node %d says: %s", i, text)
		}
	}
}

// each repeats a call until the load ends; each try has ten seconds.
func (c *roll) each(what string, count *atomic.Int64, f func(ctx context.Context, n int64) error) {
	for n := int64(1); !c.ended.Load(); n++ {
		ctx, cancel := context.WithTimeout(bg, 10*time.Second)
		err := f(ctx, n)
		cancel()
		if err != nil {
			c.t.Errorf("%s %d: %v", what, n, err)
			return
		}
		count.Add(1)
		time.Sleep(time.Duration(rand.IntN(4)) * time.Millisecond)
	}
}

// write moves a document from viewer to viewer. A write that was done twice would
// be refused: it creates.
func (c *roll) write(w int) {
	last := ""
	c.each("write", &c.writes, func(ctx context.Context, n int64) error {
		r := &pemba.WriteRelationshipsRequest{RequestId: fmt.Sprintf("roll-%d-%d", w, n)}
		relationship := func(id string) *pemba.Relationship {
			return &pemba.Relationship{Resource: &pemba.Object{Type: "document", Id: fmt.Sprint(w)}, Relation: "viewer", Subject: &pemba.Subject{Type: "user", Id: id}}
		}
		if last != "" {
			r.Preconditions = append(r.Preconditions, &pemba.Precondition{Condition: &pemba.Precondition_MustMatch{MustMatch: &pemba.RelationshipFilter{ResourceType: "document", ResourceId: fmt.Sprint(w)}}})
			r.Operations = append(r.Operations, &pemba.WriteOperation{Operation: &pemba.WriteOperation_Delete{Delete: relationship(last)}})
		}
		next := viewer(int(n)).Id
		r.Operations = append(r.Operations, &pemba.WriteOperation{Operation: &pemba.WriteOperation_Create{Create: relationship(next)}})
		_, err := pemba.NewRelationshipServiceClient(c.conn).WriteRelationships(ctx, r)
		last = next
		return err
	})
}

func (c *roll) check(w int) {
	levels := []*pemba.Consistency{nil, {Requirement: &pemba.Consistency_FullyConsistent{FullyConsistent: true}}}
	c.each("check", &c.checks, func(ctx context.Context, n int64) error {
		_, err := pemba.NewPermissionServiceClient(c.conn).Check(ctx, &pemba.CheckRequest{Consistency: levels[n%2],
			Resource: &pemba.Object{Type: "document", Id: fmt.Sprint(w)}, Permission: "view", Subject: viewer(int(n))})
		return err
	})
}

func (c *roll) lookup(w int) {
	c.each("look up", &c.lookups, func(ctx context.Context, n int64) error {
		s, err := pemba.NewPermissionServiceClient(c.conn).LookupSubjects(ctx, &pemba.LookupSubjectsRequest{
			Resource: &pemba.Object{Type: "document", Id: fmt.Sprint(w)}, Permission: "view", SubjectType: "user"})
		for err == nil {
			_, err = s.Recv()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	})
}

// history reads all changes there are, again and again: a stream of many messages
// that is under way when its node is told to end is sent to its end.
func (c *roll) history() {
	c.each("read the history", &c.reads, func(ctx context.Context, _ int64) error {
		s, err := pemba.NewHistoryServiceClient(c.conn).ReadHistory(ctx, &pemba.ReadHistoryRequest{})
		complete := false
		for err == nil {
			var m *pemba.ReadHistoryResponse
			if m, err = s.Recv(); err == nil {
				complete = m.Complete
			}
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		if !complete {
			return errors.New("the history is not complete")
		}
		return nil
	})
}
