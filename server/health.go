package server

import (
	"context"
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
