package sqltest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	pemba "github.com/pembadb/pemba/proto/pemba/v1"
)

// RunWatch runs two nodes as processes, clients that write on both, and a watcher
// that is a process too, `pemba watch`: killed while it writes, and started again
// on either node after the last change that it told. What it tells, over all its
// lives, is every change once and in order.
func (target Target) RunWatch(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts processes")
	}
	lives := 25
	if *Soak {
		lives = 1000
	}
	nodes := target.start(t, target.Empty(t), 2)
	if _, err := pemba.NewSchemaServiceClient(nodes[0].conn).ApplySchema(bg, &pemba.ApplySchemaRequest{Text: movingSchema}); err != nil {
		t.Fatal(err)
	}
	w := &witness{nodes: nodes}
	var writers sync.WaitGroup
	var ended atomic.Bool
	var acknowledged atomic.Int64
	for i := range 4 {
		writers.Go(func() {
			for n := 0; !ended.Load(); n++ {
				if err := writeOne(nodes[n%2].conn, fmt.Sprintf("%d-%d", i, n)); err != nil {
					t.Error(err)
					return
				}
				acknowledged.Add(1)
				time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
			}
		})
	}
	for range lives {
		if err := w.live(rand.IntN(20), 0); err != nil {
			ended.Store(true)
			writers.Wait()
			t.Fatal(err)
		}
	}
	during := len(w.told)
	ended.Store(true)
	writers.Wait()
	changes, err := wholeHistory(nodes[1].conn)
	if err == nil {
		err = w.live(0, len(changes))
	}
	if err == nil {
		err = w.compare(changes)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d lives, %d of which told something, and %d lines cut in half; %d changes, %d of them told while others were written",
		lives, w.fruitful, w.torn, len(changes), during)
	if during < lives || w.fruitful < lives/2 || int64(len(changes)) < acknowledged.Load() {
		t.Error("that shows too little")
	}
}

// writeOne makes a change.
func writeOne(conn *grpc.ClientConn, id string) error {
	_, err := pemba.NewRelationshipServiceClient(conn).WriteRelationships(bg, &pemba.WriteRelationshipsRequest{RequestId: id, Operations: []*pemba.WriteOperation{
		{Operation: &pemba.WriteOperation_Touch{Touch: &pemba.Relationship{Resource: &pemba.Object{Type: "document", Id: id}, Relation: "viewer",
			Subject: &pemba.Subject{Type: "user", Id: "ada"}}}}}})
	return err
}

func wholeHistory(conn *grpc.ClientConn) (changes []*pemba.Change, err error) {
	s, err := pemba.NewHistoryServiceClient(conn).ReadHistory(bg, &pemba.ReadHistoryRequest{})
	for err == nil {
		var m *pemba.ReadHistoryResponse
		if m, err = s.Recv(); err == nil {
			changes = append(changes, m.Changes...)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return changes, err
}

// witness is a watcher that dies again and again, and what it told.
type witness struct {
	nodes          []*process
	told           []tale
	fruitful, torn int
}

// tale is a change as `pemba watch --output json` tells it.
type tale struct {
	Revision   uint64 `json:"revision"`
	RequestID  string `json:"request_id"`
	Zookie     string `json:"zookie"`
	Hash       string `json:"hash"`
	Operations []struct {
		After string `json:"after"`
	} `json:"operations"`
}

// live starts a watcher after what was told, and kills it after some more lines,
// or once it has told as many as given in all.
func (w *witness) live(lines, until int) error {
	args := []string{"watch", "--output", "json", "--addr", w.nodes[rand.IntN(len(w.nodes))].addr, "--from", "1"}
	if n := len(w.told); n > 0 {
		args = append(args[:len(args)-2], "--after", w.told[n-1].Zookie)
	}
	cmd := exec.Command(w.nodes[0].binary, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "PEMBA_TOKEN=")
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	// A watcher that tells nothing for so long is stuck.
	stuck := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	before := len(w.told)
	enough := func() bool {
		if until > 0 {
			return len(w.told) >= until
		}
		return len(w.told)-before >= lines
	}
	in := bufio.NewReader(out)
	for err == nil && !enough() {
		err = w.line(in)
	}
	intime := stuck.Stop()
	cmd.Process.Kill()
	for err == nil { // what it had told already
		err = w.line(in)
	}
	cmd.Wait()
	if len(w.told) > before {
		w.fruitful++
	}
	switch {
	case err != io.EOF:
		return err
	case !intime:
		return fmt.Errorf("the watcher told %d changes in a minute", len(w.told)-before)
	case !enough():
		return fmt.Errorf("the watcher ended by itself: %s", complaints.String())
	}
	return nil
}

// line takes a line that is whole.
func (w *witness) line(in *bufio.Reader) error {
	text, err := in.ReadBytes('\n')
	if err != nil {
		if len(text) > 0 {
			w.torn++
		}
		return io.EOF // the pipe ends as it will when its process is killed
	}
	var t tale
	if err := json.Unmarshal(text, &t); err != nil {
		return fmt.Errorf("the watcher told %q: %w", text, err)
	}
	w.told = append(w.told, t)
	return nil
}

// compare finds every change of the history told once, in its place.
func (w *witness) compare(changes []*pemba.Change) error {
	if len(w.told) != len(changes) {
		return fmt.Errorf("the watcher told %d changes of %d", len(w.told), len(changes))
	}
	for i, c := range changes {
		t := w.told[i]
		if c.Revision != uint64(i+1) || t.Revision != c.Revision || t.Hash != fmt.Sprintf("%x", c.Hash) || t.RequestID != c.RequestId || t.Zookie != c.Zookie || len(t.Operations) != len(c.Operations) {
			return fmt.Errorf("change %d is told as %+v, and was %v", i+1, t, c)
		}
	}
	return nil
}
