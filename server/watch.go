package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

type watches struct {
	pembav1.UnimplementedWatchServiceServer
	*Server
}

// How often heartbeats come: unless asked otherwise, and at most.
const (
	heartbeatEvery = 10 * time.Second
	heartbeatLeast = 100 * time.Millisecond
)

// lookEvery is how often an idle watch looks whether its caller may still watch.
const lookEvery = time.Second

// watch is a watch under way.
type watch struct {
	*Server
	out    grpc.ServerStreamingServer[pembav1.WatchResponse]
	store  datastore.Store
	filter *pembav1.ChangeFilter
	every  time.Duration
	at     datastore.Head // everything up to it that matches was delivered
	head   datastore.Revision
	sent   time.Time // the last message
}

func (s *watches) Watch(r *pembav1.WatchRequest, out grpc.ServerStreamingServer[pembav1.WatchResponse]) error {
	ctx, cancel := context.WithCancel(out.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	w, err := s.begin(ctx, r, out)
	if err != nil {
		return err
	}
	if err = w.beat(); err == nil {
		err = w.follow(ctx)
	}
	if s.ctx.Err() != nil && out.Context().Err() == nil {
		return errStopping
	}
	return err
}

func (s *watches) begin(ctx context.Context, r *pembav1.WatchRequest, out grpc.ServerStreamingServer[pembav1.WatchResponse]) (*watch, error) {
	st, err := s.store(ctx, r.Store)
	if err != nil {
		return nil, err
	}
	if err := mayWatch(ctx, st, "/pemba.v1.WatchService/Watch"); err != nil {
		return nil, err
	}
	if err := checkFilter(r.Filter); err != nil {
		return nil, err
	}
	w := &watch{Server: s.Server, out: out, store: st, filter: r.Filter, every: heartbeatEvery}
	if r.Heartbeat != nil {
		if err := r.Heartbeat.CheckValid(); err != nil {
			return nil, invalidField("heartbeat", "heartbeat: %v", err)
		}
		if w.every = r.Heartbeat.AsDuration(); w.every < heartbeatLeast {
			return nil, invalidField("heartbeat", "heartbeat %v is below %v", w.every, heartbeatLeast)
		}
	}
	if w.at, err = s.ds.Head(ctx, st.ID); err != nil {
		return nil, err
	}
	w.head = w.at.Revision
	var after datastore.Revision
	switch from := r.Start.(type) {
	case *pembav1.WatchRequest_FromRevision:
		if from.FromRevision == 0 {
			return nil, invalidField("from_revision", "from_revision is 0, and the first change is 1")
		}
		after = datastore.Revision(from.FromRevision) - 1
	case *pembav1.WatchRequest_AfterZookie:
		if after, err = s.ds.Zookie(ctx, st.ID, from.AfterZookie); err != nil {
			return nil, err
		}
	default:
		return w, nil
	}
	at, err := s.ds.HeadAt(ctx, st.ID, after)
	if from, ok := r.Start.(*pembav1.WatchRequest_FromRevision); ok && errors.Is(err, datastore.ErrAhead) {
		return nil, fmt.Errorf("a watch from %d: %w; without a start it begins with the next change", from.FromRevision, datastore.Ahead(after+1, w.head))
	}
	if err != nil {
		return nil, err
	}
	// Zero is the state before the first change, of which there is no trace left
	// once the history was trimmed.
	oldest, err := s.ds.Oldest(ctx, st.ID)
	if err != nil {
		return nil, err
	}
	if after+1 < oldest {
		return nil, datastore.Compacted(after+1, oldest)
	}
	w.at = at
	return w, nil
}

// follow delivers what comes until something ends it.
func (w *watch) follow(ctx context.Context) error {
	for {
		for c, err := range w.ds.History(ctx, w.store.ID, w.at.Revision+1) {
			if err != nil {
				return err
			}
			if err := w.change(&c); err != nil {
				return err
			}
		}
		if err := w.beatIfDue(); err != nil {
			return err
		}
		if err := w.wait(ctx); err != nil {
			return err
		}
	}
}

// change delivers what the filter selects of a change.
func (w *watch) change(c *datastore.Change) error {
	w.at.Revision, w.at.Hash, w.at.Time = c.Revision, c.Hash, c.Time
	w.head = max(w.head, c.Revision)
	p, any := changeProto(c, w.at, w.store.ID, w.filter)
	if !any {
		return w.beatIfDue()
	}
	return w.send(&pembav1.WatchResponse{Zookie: p.Zookie, Event: &pembav1.WatchResponse_Change{Change: p}})
}

func (w *watch) send(m *pembav1.WatchResponse) error {
	w.sent = time.Now()
	return w.out.Send(m)
}

func (w *watch) beat() error {
	return w.send(&pembav1.WatchResponse{Zookie: w.at.Zookie(w.store.ID).String(), Event: &pembav1.WatchResponse_Heartbeat{
		Heartbeat: &pembav1.Heartbeat{Revision: uint64(w.at.Revision), Head: uint64(w.head)},
	}})
}

func (w *watch) beatIfDue() error {
	if time.Since(w.sent) < w.every {
		return nil
	}
	return w.beat()
}

// wait returns when there is more, or when it is time to look at the clock and
// at the caller's token.
func (w *watch) wait(ctx context.Context) error {
	if err := w.stillValid(ctx); err != nil {
		return err
	}
	timed, cancel := context.WithTimeout(ctx, min(lookEvery, max(0, w.every-time.Since(w.sent))))
	defer cancel()
	head, err := w.ds.Wait(timed, w.store.ID, w.at.Revision)
	if err != nil && (timed.Err() == nil || ctx.Err() != nil) {
		return err
	}
	if err == nil && head.Incarnation != w.at.Incarnation {
		return fmt.Errorf("store %s: %w; watch again from the start", w.store.Name, datastore.ErrForked)
	}
	w.head = max(w.head, head.Revision)
	return nil
}
