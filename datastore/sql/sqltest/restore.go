package sqltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/datastore/sql"
	pemba "github.com/pembadb/pemba/proto/pemba/v1"
)

// image is a backup of a small store.
func image(t *testing.T) []byte {
	t.Helper()
	k, err := keeper.Open(memory.New(), keeper.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	applySchema(t, k)
	for n := range 50 {
		if _, err := k.Write(bg, datastore.Default, touch(fmt.Sprint("r", n), fmt.Sprintf("document:%d#viewer@user:a", n))); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if _, _, err := k.Backup(bg, datastore.Store{ID: datastore.Default, Name: "default"}, nil, &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// RunRestore tests what several nodes on one database make of a restore under way
// on one of them: a node that starts leaves it alone, and no other store is restored
// meanwhile. What a restore left whose node is gone is removed.
func (target Target) RunRestore(t *testing.T) {
	uri, backup := target.Empty(t), image(t)
	one, two := target.node(t, uri), target.node(t, uri)
	log, err := target.Open(bg, uri, sql.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	in, out := io.Pipe()
	first := make(chan error, 1)
	var restored datastore.Restored
	go func() {
		var err error
		restored, err = one.Restore(bg, in, datastore.RestoreOptions{Name: "first"})
		first <- err
	}()
	if _, err := out.Write(backup[:len(backup)/2]); err != nil {
		t.Fatal(err)
	}
	lines := func(want int) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			found, err := log.Lines(bg)
			if err == nil && len(found) == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the lines are %v, %v; want %d", found, err, want)
			}
		}
	}
	lines(3) // system, default, and the one that is written
	target.node(t, uri)
	if _, err := two.Restore(bg, bytes.NewReader(backup), datastore.RestoreOptions{Name: "second"}); !errors.Is(err, datastore.ErrPrecondition) {
		t.Errorf("a restore beside another gives %v", err)
	}
	lines(3)
	if _, err := out.Write(backup[len(backup)/2:]); err != nil {
		t.Fatal(err)
	}
	out.Close()
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	st, err := two.StoreByName(bg, "first")
	if err != nil || st.ID != restored.Store.ID {
		t.Errorf("on the other node the name finds %+v, %v", st, err)
	}
	if v, err := two.Verify(bg, st.ID, nil); err != nil || v.Hash != restored.Head.Hash {
		t.Errorf("on the other node: %+v, %v", v, err)
	}
	// The one after it need not wait for a lease to end.
	if _, err := two.Restore(bg, bytes.NewReader(backup), datastore.RestoreOptions{Name: "second"}); err != nil {
		t.Errorf("the next restore gives %v", err)
	}
	// What nobody finishes is removed by the next node that starts.
	if err := log.CreateLine(bg, restored.Store.ID^1, datastore.Incarnation{1}); err != nil {
		t.Fatal(err)
	}
	lines(5)
	target.node(t, uri)
	lines(4)
}

// RunKilledRestore tests that a process that is killed while it restores a store
// leaves nothing once it starts again, and that the restore can be made then, on a
// database once the lease of the one before has run out. The datastore is one of
// that process alone.
func RunKilledRestore(t *testing.T, location string) {
	if testing.Short() {
		t.Skip("it starts processes")
	}
	backup := image(t)
	p := &process{binary: build(t), datastore: location, addr: "127.0.0.1:0"}
	if err := p.startUntil(30 * time.Second); err != nil {
		t.Fatal(err, p.told.String())
	}
	t.Cleanup(p.kill)
	conn, err := grpc.NewClient("passthrough:///"+p.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stores := pemba.NewStoreServiceClient(conn)
	ctx, cancel := context.WithTimeout(bg, 2*time.Minute)
	defer cancel()
	send := func(image []byte) grpc.ClientStreamingClient[pemba.RestoreStoreRequest, pemba.RestoreStoreResponse] {
		t.Helper()
		stream, err := stores.RestoreStore(ctx, grpc.WaitForReady(true))
		if err == nil {
			err = stream.Send(&pemba.RestoreStoreRequest{Message: &pemba.RestoreStoreRequest_Start{Start: &pemba.RestoreStart{Store: "copy"}}})
		}
		if err == nil {
			err = stream.Send(&pemba.RestoreStoreRequest{Message: &pemba.RestoreStoreRequest_Data{Data: image}})
		}
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}
	send(backup[:len(backup)-100])
	time.Sleep(500 * time.Millisecond) // it has written some of it by now; if not, the test is still right
	p.kill()
	if err := p.startUntil(30 * time.Second); err != nil {
		t.Fatal(err, p.told.String())
	}
	list, err := stores.ListStores(ctx, &pemba.ListStoresRequest{}, grpc.WaitForReady(true))
	if err != nil || len(list.Stores) != 2 {
		t.Errorf("after the kill the stores are %v, %v", list, err)
	}
	if said := p.told.String(); !strings.Contains(said, "removing what a restore left") {
		t.Logf("nothing was left: %s", said)
	}
	// Nodes that share a database cannot know at once that one of them is gone.
	for {
		restored, err := send(backup).CloseAndRecv()
		if status.Code(err) == codes.FailedPrecondition && ctx.Err() == nil {
			time.Sleep(time.Second)
			continue
		}
		if err != nil || restored.Store.Head != 51 {
			t.Errorf("the next restore gives %v, %v", restored, err)
		}
		break
	}
}
