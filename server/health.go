package server

import (
	"context"
	"errors"
	"time"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/pembadb/pemba/datastore"
)

// healthEvery is how often the server asks itself whether it can answer, and
// healthPatience how long that may take.
const (
	healthEvery    = time.Second
	healthPatience = 3 * time.Second
)

// watchHealth keeps the health service true until the server stops: a server
// whose datastore does not answer, for longer than answers may be stale, is not
// serving. Load balancers take it out, and back in.
func (s *Server) watchHealth() {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	serving := true
	for {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
		s.stepBack()
		err := s.answers()
		if s.ctx.Err() != nil || serving == (err == nil) {
			continue
		}
		if serving = err == nil; serving {
			s.health.SetServingStatus("", healthv1.HealthCheckResponse_SERVING)
			s.log.Info("the datastore answers again")
		} else {
			s.health.SetServingStatus("", healthv1.HealthCheckResponse_NOT_SERVING)
			s.log.Error("the datastore does not answer; the health service says NOT_SERVING", "error", err)
		}
	}
}

// answers asks the store that every server needs.
func (s *Server) answers() error {
	ctx, cancel := context.WithTimeout(s.ctx, healthPatience)
	defer cancel()
	snapshot, err := s.ds.At(ctx, datastore.System, datastore.Consistency{})
	if err == nil {
		snapshot.Close()
	}
	return err
}

// healthOf is the name under which the health service speaks of a store, once the
// server had to step aside for it.
func healthOf(store string) string { return "store/" + store }

// stepAside notes that a newer node wrote what this one does not understand: it
// answers no questions about that store until it does, other nodes do.
func (s *Server) stepAside(store string, err error) {
	if store == "" {
		return
	}
	if _, known := s.aside.LoadOrStore(store, true); known {
		return
	}
	s.health.SetServingStatus(healthOf(store), healthv1.HealthCheckResponse_NOT_SERVING)
	s.log.Error("a newer version of pemba wrote to a store; this node does not serve it until it is upgraded", "store", store, "error", err)
}

// stepBack serves stores again that it can: those that were restored, or made anew.
func (s *Server) stepBack() {
	s.aside.Range(func(name, _ any) bool {
		ctx, cancel := context.WithTimeout(s.ctx, healthPatience)
		defer cancel()
		st, err := s.ds.StoreByName(ctx, name.(string))
		if err == nil {
			var snapshot datastore.Snapshot
			if snapshot, err = s.ds.At(ctx, st.ID, datastore.Consistency{}); err == nil {
				snapshot.Close()
			}
		}
		if err == nil || errors.Is(err, datastore.ErrNoStore) {
			s.aside.Delete(name)
			s.health.SetServingStatus(healthOf(name.(string)), healthv1.HealthCheckResponse_SERVING)
		}
		return s.ctx.Err() == nil
	})
}
