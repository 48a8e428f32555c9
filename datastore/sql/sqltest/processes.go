package sqltest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pemba "github.com/pembadb/pemba/proto/pemba/v1"
)

// process is a node of its own: the real program.
type process struct {
	binary, datastore, addr string
	conn                    *grpc.ClientConn

	mu   sync.Mutex
	cmd  *exec.Cmd
	told told          // to standard error
	gone chan struct{} // closed when it has ended
}

// told keeps what processes say.
type told struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (t *told) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(p)
}

func (t *told) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// build compiles the program, once for a test.
func build(t testing.TB) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "pemba")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/pembadb/pemba/cmd/pemba").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	return binary
}

// start starts the process and waits until it is ready.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	cmd := exec.Command(p.binary, "serve", "--datastore", p.datastore, "--grpc-addr", p.addr, "--max-staleness", "200ms")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "PEMBA_TOKEN=")
	cmd.Stderr = &p.told
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ready, gone := make(chan string, 1), make(chan struct{})
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		ready <- line
		io.Copy(io.Discard, out)
		cmd.Wait()
		close(gone)
	}()
	p.cmd, p.gone = cmd, gone
	line := <-ready
	if !strings.Contains(line, "serving gRPC on ") {
		return errors.New("the node does not start")
	}
	_, rest, _ := strings.Cut(line, "serving gRPC on ")
	p.addr, _, _ = strings.Cut(rest, ",")
	return nil
}

// kill ends the process as if it had never been asked.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		p.cmd.Process.Kill()
		<-p.gone
		p.cmd = nil
	}
}

// startUntil starts the process as often as it takes: its database may be away.
func (p *process) startUntil(limit time.Duration) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		err := p.start()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		p.kill()
	}
}

// start starts n nodes on one database, each a process of its own.
func (target Target) start(t *testing.T, uri string, n int) (nodes []*process) {
	t.Helper()
	binary := build(t)
	_, rest, _ := strings.Cut(uri, "://")
	for range n {
		p := &process{binary: binary, datastore: target.Scheme + "://" + rest, addr: "127.0.0.1:0"}
		if err := p.startUntil(30 * time.Second); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.kill)
		var err error
		if p.conn, err = grpc.NewClient("passthrough:///"+p.addr, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.conn.Close() })
		nodes = append(nodes, p)
	}
	return nodes
}

const movingSchema = "definition user {}\ndefinition document {\n\trelation viewer: user\n\tpermission view = viewer\n}"

// traffic is what clients of a cluster of processes do, and what they found out.
type traffic struct {
	t     *testing.T
	nodes []*process
	ended atomic.Bool

	mu           sync.Mutex
	acknowledged map[string]uint64 // request id: revision
	newest       []published       // by writer
	last         time.Time         // of the last success
	longest      time.Duration     // without one
	writes, asks int
}

// published is what a writer tells others: since zookie the document has viewer
// number, or a later one.
type published struct {
	number int
	zookie string
}

func (c *traffic) node() *process { return c.nodes[rand.IntN(len(c.nodes))] }

// success notes that something worked.
func (c *traffic) success() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.longest, c.last = max(c.longest, now.Sub(c.last)), now
}

// passing tells errors of a node or a database that is away from those of Pemba.
func passing(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return true
	}
	return false
}

// call repeats f on one node after the other until it succeeds. limit bounds each
// try.
func (c *traffic) call(f func(ctx context.Context, conn *grpc.ClientConn) error) error {
	for {
		ctx, cancel := context.WithTimeout(bg, 2*time.Second)
		err := f(ctx, c.node().conn)
		cancel()
		if err == nil {
			c.success()
			return nil
		}
		if !passing(err) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// write moves a document from viewer to viewer: each request has an id, and is
// sent until it is acknowledged.
func (c *traffic) write(w int) {
	for number := 1; !c.ended.Load(); number++ {
		request := &pemba.WriteRelationshipsRequest{RequestId: fmt.Sprintf("w%d-%d", w, number), Operations: []*pemba.WriteOperation{
			{Operation: &pemba.WriteOperation_Set{Set: &pemba.SetSubjects{
				Resource: &pemba.Object{Type: "document", Id: fmt.Sprint(w)}, Relation: "viewer",
				Subjects: []*pemba.SetSubject{{Subject: viewer(number)}},
			}}},
		}}
		var answer *pemba.WriteRelationshipsResponse
		err := c.call(func(ctx context.Context, conn *grpc.ClientConn) (err error) {
			answer, err = pemba.NewRelationshipServiceClient(conn).WriteRelationships(ctx, request)
			return err
		})
		if err != nil {
			c.t.Errorf("write: %v", err)
			return
		}
		c.mu.Lock()
		c.acknowledged[request.RequestId], c.newest[w] = answer.Revision, published{number, answer.Zookie}
		c.writes++
		c.mu.Unlock()
	}
}

func viewer(number int) *pemba.Subject {
	return &pemba.Subject{Type: "user", Id: fmt.Sprintf("%07d", number)}
}

// ask looks at documents by the zookies of their writers, and at the head: there
// must be exactly one viewer, and never one from before.
func (c *traffic) ask() {
	for !c.ended.Load() {
		w := rand.IntN(len(c.newest))
		c.mu.Lock()
		known := c.newest[w]
		c.mu.Unlock()
		if known.zookie == "" {
			time.Sleep(time.Millisecond)
			continue
		}
		at := &pemba.Consistency{Requirement: &pemba.Consistency_AtLeastAsFresh{AtLeastAsFresh: known.zookie}}
		if rand.IntN(3) == 0 {
			at = &pemba.Consistency{Requirement: &pemba.Consistency_FullyConsistent{FullyConsistent: true}}
		}
		var found []string
		err := c.call(func(ctx context.Context, conn *grpc.ClientConn) error {
			found = nil
			s, err := pemba.NewPermissionServiceClient(conn).LookupSubjects(ctx, &pemba.LookupSubjectsRequest{
				Consistency: at, Resource: &pemba.Object{Type: "document", Id: fmt.Sprint(w)}, Permission: "view", SubjectType: "user",
			})
			for err == nil {
				var m *pemba.LookupSubjectsResponse
				if m, err = s.Recv(); err == nil {
					for _, r := range m.Results {
						found = append(found, r.Id)
					}
				}
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		})
		if err != nil {
			c.t.Errorf("look up: %v", err)
			return
		}
		if len(found) != 1 || found[0] < viewer(known.number).Id {
			c.t.Errorf("document %d has the viewers %v, after it was given to %d", w, found, known.number)
		}
		c.mu.Lock()
		c.asks++
		c.mu.Unlock()
	}
}

// watch follows the history from its first change, over nodes that come and go,
// until the change of the last revision; no change is left out or comes twice.
func (c *traffic) watch(last func() uint64) {
	next := uint64(1)
	for {
		ctx, cancel := context.WithTimeout(bg, 5*time.Second)
		s, err := pemba.NewWatchServiceClient(c.node().conn).Watch(ctx, &pemba.WatchRequest{Start: &pemba.WatchRequest_FromRevision{FromRevision: next}})
		for err == nil {
			var m *pemba.WatchResponse
			if m, err = s.Recv(); err == nil {
				if change := m.GetChange(); change != nil {
					if change.Revision != next {
						c.t.Errorf("a watch delivers change %d where %d is due", change.Revision, next)
						cancel()
						return
					}
					next++
				}
			}
			if l := last(); l != 0 && next > l {
				cancel()
				return
			}
		}
		cancel()
		// A node that is behind does not know the revision yet.
		if !passing(err) && status.Code(err) != codes.OutOfRange {
			c.t.Errorf("watch from %d: %v", next, err)
			return
		}
	}
}

// history reads every change and checks what was acknowledged.
func (c *traffic) history() error {
	at := map[string]uint64{}
	next := uint64(1)
	for complete := false; !complete; {
		s, err := pemba.NewHistoryServiceClient(c.nodes[0].conn).ReadHistory(bg, &pemba.ReadHistoryRequest{FromRevision: next}, grpc.WaitForReady(true))
		for err == nil {
			var m *pemba.ReadHistoryResponse
			if m, err = s.Recv(); err != nil {
				break
			}
			for _, change := range m.Changes {
				if change.Revision != next {
					return fmt.Errorf("change %d where %d is due", change.Revision, next)
				}
				next++
				if earlier, found := at[change.RequestId]; found {
					return fmt.Errorf("request %s is in the history twice, at %d and %d", change.RequestId, earlier, change.Revision)
				}
				at[change.RequestId] = change.Revision
			}
			complete = m.Complete
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
	}
	for id, revision := range c.acknowledged {
		if at[id] != revision {
			return fmt.Errorf("request %s was acknowledged at %d and is at %d", id, revision, at[id])
		}
	}
	return nil
}

// RunProcesses lets clients write, ask and watch at three processes of the real
// program, while they are killed and started again, connections are cut and
// delayed, and the database is disturbed. Nothing that was acknowledged may be
// lost or done twice, no answer older than its zookie, no document without its
// one viewer, no watch with a gap, and the service is back soon.
func (target Target) RunProcesses(t *testing.T, disturb func() error) {
	proxy := NewProxy(t, target.Empty(t))
	target.runProcesses(t, proxy.URI(), proxy, disturb)
}

// runProcesses is RunProcesses at a URI; proxy may be nil.
func (target Target) runProcesses(t *testing.T, uri string, proxy *Proxy, disturb func() error) {
	t.Helper()
	if testing.Short() {
		t.Skip("it starts processes")
	}
	length, clients := 6*time.Second, 24
	if *Soak {
		length, clients = 2*time.Minute, 200
	}
	c := &traffic{t: t, nodes: target.start(t, uri, 3), acknowledged: map[string]uint64{}, newest: make([]published, clients/4)}
	if _, err := pemba.NewSchemaServiceClient(c.nodes[0].conn).ApplySchema(bg, &pemba.ApplySchemaRequest{Text: movingSchema}); err != nil {
		t.Fatal(err)
	}
	c.last = time.Now()
	var work, watches sync.WaitGroup
	for w := range c.newest {
		work.Go(func() { c.write(w) })
	}
	for range clients - len(c.newest) {
		work.Go(c.ask)
	}
	var end atomic.Uint64
	for range 2 {
		watches.Go(func() { c.watch(end.Load) })
	}
	kills := c.chaos(proxy, length, disturb)
	c.ended.Store(true)
	work.Wait()
	for i, p := range c.nodes {
		if text := p.told.String(); strings.Contains(text, "a request failed") {
			t.Logf("node %d says: %s", i, text)
		}
	}
	var newest uint64
	for _, revision := range c.acknowledged {
		newest = max(newest, revision)
	}
	end.Store(newest)
	watches.Wait()
	if err := c.history(); err != nil {
		t.Error(err)
	}
	t.Logf("%d writes, %d questions, %d kills; at most %s without a success", c.writes, c.asks, kills, c.longest.Round(time.Millisecond))
	if c.writes < 50 || c.asks < 50 || kills == 0 {
		t.Error("that shows too little")
	}
	if c.longest > 30*time.Second {
		t.Errorf("nothing worked for %s", c.longest)
	}
}

// chaos disturbs for a while, and returns how many processes it killed.
func (c *traffic) chaos(proxy *Proxy, length time.Duration, disturb func() error) (kills int) {
	began, disturbed := time.Now(), false
	for time.Since(began) < length {
		time.Sleep(time.Duration(100+rand.IntN(400)) * time.Millisecond)
		action := rand.IntN(5)
		switch {
		case proxy == nil || action > 2:
			p := c.node()
			p.kill()
			kills++
			if err := p.startUntil(30 * time.Second); err != nil {
				c.t.Errorf("a node that was killed: %v", err)
			}
		case action == 0:
			proxy.Cut()
		case action == 1:
			proxy.Delay(time.Duration(rand.IntN(30)) * time.Millisecond)
		default:
			proxy.Swallow()
			proxy.Delay(0)
		}
		if !disturbed && time.Since(began) > length/3 {
			disturbed = true
			if err := disturb(); err != nil {
				c.t.Errorf("disturb the database: %v", err)
			}
		}
	}
	if proxy != nil {
		proxy.Delay(0)
	}
	return kills
}

// RestartPostgres stops the server that the package's tests share at once, as a
// power failure does, and starts it again.
func RestartPostgres() error {
	c := &postgres
	c.process.Process.Signal(syscall.SIGQUIT)
	c.process.Wait()
	return c.serve()
}
