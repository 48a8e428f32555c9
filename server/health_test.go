package server_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

// leaving is a Log that can be away.
type leaving struct {
	*memory.Log
	away atomic.Bool
}

func (l *leaving) After(ctx context.Context, s datastore.StoreID, from datastore.Revision, limit int) (datastore.Head, []datastore.Entry, error) {
	if l.away.Load() {
		return datastore.Head{}, nil, fmt.Errorf("%w: it is away", datastore.ErrUnavailable)
	}
	return l.Log.After(ctx, s, from, limit)
}

// Heads hides that of memory, which confirms states without After.
func (l *leaving) Heads(ctx context.Context, ids []datastore.StoreID) (map[datastore.StoreID]datastore.Head, error) {
	if l.away.Load() {
		return nil, errors.Join(datastore.ErrUnavailable)
	}
	return l.Log.Heads(ctx, ids)
}

func TestHealthFollowsTheDatastore(t *testing.T) {
	log := &leaving{Log: memory.New()}
	n := launch(t, log, keeper.Options{MaxStaleness: 20 * time.Millisecond}, server.Config{})
	is := func(want healthv1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			answer, err := healthv1.NewHealthClient(n.conn).Check(t.Context(), &healthv1.HealthCheckRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if answer.Status == want {
				return
			}
			if time.Since(began) > 10*time.Second {
				t.Fatalf("health says %s, want %s", answer.Status, want)
			}
		}
	}
	is(healthv1.HealthCheckResponse_SERVING)
	log.away.Store(true)
	is(healthv1.HealthCheckResponse_NOT_SERVING)
	log.away.Store(false)
	is(healthv1.HealthCheckResponse_SERVING)
}

// A node that meets an operation of a later version says so, and steps aside for
// that store alone.
func TestANodeStepsAsideForAStoreThatItDoesNotUnderstand(t *testing.T) {
	log := memory.New()
	n := launch(t, log, keeper.Options{MaxStaleness: 20 * time.Millisecond}, server.Config{Logger: slog.New(slog.DiscardHandler)})
	n.apply(t, richSchema)
	n.write(t, "document:1#viewer@user:a")
	if _, err := n.stores.CreateStore(t.Context(), &pembav1.CreateStoreRequest{Store: "other"}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.schemas.ApplySchema(t.Context(), &pembav1.ApplySchemaRequest{Store: "other", Text: richSchema}); err != nil {
		t.Fatal(err)
	}
	ask := func(store string) error {
		_, err := n.permissions.Check(t.Context(), &pembav1.CheckRequest{Store: store, Resource: &pembav1.Object{Type: "document", Id: "1"}, Permission: "view",
			Subject: &pembav1.Subject{Type: "user", Id: "a"}, Consistency: &pembav1.Consistency{Requirement: &pembav1.Consistency_FullyConsistent{FullyConsistent: true}}})
		return err
	}
	health := func(service string) string {
		answer, err := healthv1.NewHealthClient(n.conn).Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
		if err != nil {
			return status.Code(err).String()
		}
		return answer.Status.String()
	}
	if err := errors.Join(ask("default"), ask("other")); err != nil || health("store/default") != "NotFound" {
		t.Fatal(err, health("store/default"))
	}
	head, err := log.Head(t.Context(), datastore.Default)
	if err != nil {
		t.Fatal(err)
	}
	e := datastore.Entry{Revision: head.Revision + 1, Header: []byte{0x08, 99, 0x10, byte(head.Revision + 1)}} // of format 99
	digest := sha256.Sum256(nil)
	e.Header = append(append(e.Header, 0x42, 32), digest[:]...)
	e.Hash = datastore.Hash(sha256.Sum256(append(append([]byte("pemba change 1\x00"), head.Hash[:]...), e.Header...)))
	if _, err := log.Update(t.Context(), datastore.Default, head, func(datastore.Tail) ([]datastore.Entry, error) { return []datastore.Entry{e}, nil }); err != nil {
		t.Fatal(err)
	}
	err = ask("default")
	expect(t, "a store with a change of a later version", err, codes.Unavailable, "UNAVAILABLE")
	if text := status.Convert(err).Message(); !strings.Contains(text, `store "default"`) || !strings.Contains(text, "upgrade this node") {
		t.Errorf("the error is %q", text)
	}
	if err := ask("other"); err != nil {
		t.Errorf("another store gives %v", err)
	}
	if got := health("store/default") + ", " + health("store/other") + ", " + health(""); got != "NOT_SERVING, NotFound, SERVING" {
		t.Errorf("health says %s", got)
	}
	// It stays so, and is over when the store is another.
	time.Sleep(50 * time.Millisecond)
	if got := health("store/default"); got != "NOT_SERVING" {
		t.Errorf("health says %s", got)
	}
	if err := log.DropLine(t.Context(), datastore.Default); err != nil {
		t.Fatal(err)
	}
	if err := log.CreateLine(t.Context(), datastore.Default, datastore.Incarnation{7}); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); health("store/default") != "SERVING"; time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("health says %s", health("store/default"))
		}
	}
}
