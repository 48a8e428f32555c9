package server_test

import (
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

// retryIn is how long an error says to wait; zero if it does not.
func retryIn(err error) time.Duration {
	for _, d := range status.Convert(err).Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			return r.RetryDelay.AsDuration()
		}
	}
	return 0
}

// TestRatesBoundEachTokenAndStore by itself, over gRPC and HTTP together, and say
// when to come back.
func TestRatesBoundEachTokenAndStore(t *testing.T) {
	const perSecond = 5
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Token: "root", Limits: server.Limits{TokenRate: perSecond}})
	w := listenHTTP(t, n, "")
	began := time.Now()
	passed := 0
	var refused error
	for refused == nil && passed < 10_000 {
		if _, refused = n.stores.ListStores(bearer(t, "root"), &pembav1.ListStoresRequest{}); refused == nil {
			passed++
		}
	}
	expect(t, "one call too many", refused, codes.ResourceExhausted, "LIMIT_EXCEEDED")
	if most := perSecond*(1+int(time.Since(began).Seconds())+1) + 1; passed > most || passed < perSecond {
		t.Errorf("%d calls passed, of %d a second in %s", passed, perSecond, time.Since(began))
	}
	if wait := retryIn(refused); wait <= 0 || wait > time.Second || fact(refused, "limit") != "token-rate" {
		t.Errorf("it says to wait %s: %v", wait, refused)
	}
	for range 3 * perSecond {
		answer, text := w.ask("GET", "/v1/stores", "", "root")
		if answer.StatusCode == http.StatusTooManyRequests {
			if answer.Header.Get("Retry-After") != "1" {
				t.Errorf("over HTTP: %v %s", answer.Header, text)
			}
			answer, text = w.ask("GET", "/scim/v2/Users", "", "root")
			if answer.StatusCode == http.StatusTooManyRequests && answer.Header.Get("Retry-After") != "1" {
				t.Errorf("SCIM: %v %s", answer.Header, text)
			}
			break
		}
	}
	// Others are not in its way, nor is who is not known counted, nor health.
	for range 3 * perSecond {
		if _, err := healthv1.NewHealthClient(n.conn).Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(retryIn(refused) + 300*time.Millisecond)
	if _, err := n.stores.ListStores(bearer(t, "root"), &pembav1.ListStoresRequest{}); err != nil {
		t.Errorf("after the wait: %v", err)
	}
}

// TestAStoresRateIsItsOwn: one store's callers do not use up another's calls.
func TestAStoresRateIsItsOwn(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Limits: server.Limits{StoreRate: 2}})
	if _, err := n.stores.CreateStore(t.Context(), &pembav1.CreateStoreRequest{Store: "other"}); err != nil {
		t.Fatal(err)
	}
	ask := func(store string) error {
		_, err := n.schemas.DiffSchema(t.Context(), &pembav1.DiffSchemaRequest{Store: store, Text: "definition user {}"})
		return err
	}
	var err error
	for i := 0; err == nil && i < 10_000; i++ {
		err = ask("default")
	}
	if status.Code(err) != codes.ResourceExhausted || fact(err, "limit") != "store-rate" {
		t.Fatal(err)
	}
	if err := ask("other"); err != nil {
		t.Errorf("another store: %v", err)
	}
}

// TestCallersAreRefusedBeforeMemoryIsFull, but not the health service; and let in
// again when it is free.
func TestCallersAreRefusedBeforeMemoryIsFull(t *testing.T) {
	debug.FreeOSMemory()
	limit := int64(living()) + 512<<20
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Limits: server.Limits{Memory: limit}})
	until := func(what string, want codes.Code) (last error) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			_, last = n.stores.ListStores(t.Context(), &pembav1.ListStoresRequest{})
			if status.Code(last) == want {
				return last
			}
		}
		t.Fatalf("%s: %v", what, last)
		return nil
	}
	until("at the beginning", codes.OK)
	var ballast [][]byte
	for range 470 {
		ballast = append(ballast, make([]byte, 1<<20))
	}
	runtime.GC()
	err := until("while memory is nearly full", codes.ResourceExhausted)
	if fact(err, "limit") != "memory-limit" || retryIn(err) <= 0 {
		t.Errorf("it is told %v", err)
	}
	if _, err := healthv1.NewHealthClient(n.conn).Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil {
		t.Errorf("health: %v", err)
	}
	runtime.KeepAlive(ballast)
	ballast = nil
	until("when memory is free", codes.OK)
}

// TestManyCallersShareOneRateSafely: however many ask at once, no more pass than
// may.
func TestManyCallersShareOneRateSafely(t *testing.T) {
	const perSecond = 20
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Limits: server.Limits{TokenRate: perSecond}})
	var callers sync.WaitGroup
	results := make(chan error, 200)
	began := time.Now()
	for range 200 {
		callers.Go(func() {
			_, err := n.stores.ListStores(t.Context(), &pembav1.ListStoresRequest{})
			results <- err
		})
	}
	callers.Wait()
	took := time.Since(began)
	close(results)
	passed := 0
	for err := range results {
		if err == nil {
			passed++
		} else if status.Code(err) != codes.ResourceExhausted {
			t.Error(err)
		}
	}
	if most := perSecond + int(took.Seconds()*perSecond) + 2; passed < perSecond || passed > most {
		t.Error(fmt.Errorf("%d of 200 calls passed in %s, at %d a second", passed, took, perSecond))
	}
}
