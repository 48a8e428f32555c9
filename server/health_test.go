package server_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
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
