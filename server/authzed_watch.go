package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// authzedWatches serves authzed.api.v1.WatchService.
type authzedWatches struct {
	authzedv1.UnimplementedWatchServiceServer
	*Server
}

// checkpointEvery is how long a watch that asked for checkpoints stays silent at
// most.
const checkpointEvery = 5 * time.Second

// authzedWatch is a watch under way.
type authzedWatch struct {
	*Server
	out         grpc.ServerStreamingServer[authzedv1.WatchResponse]
	store       datastore.Store
	types       []string
	filters     []tuple.Filter
	updates     bool
	schemas     bool
	checkpoints bool
	at          datastore.Head // everything up to it was delivered
	told        datastore.Revision
	sent        time.Time // the last message
}

func (s *authzedWatches) Watch(r *authzedv1.WatchRequest, out grpc.ServerStreamingServer[authzedv1.WatchResponse]) error {
	ctx, cancel := context.WithCancel(out.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	w, err := s.beginAuthzed(ctx, r, out)
	if err != nil {
		return err
	}
	err = w.follow(ctx)
	if s.ctx.Err() != nil && out.Context().Err() == nil {
		return errStopping
	}
	return err
}

func (s *authzedWatches) beginAuthzed(ctx context.Context, r *authzedv1.WatchRequest, out grpc.ServerStreamingServer[authzedv1.WatchResponse]) (*authzedWatch, error) {
	st, err := s.authzedStore(ctx)
	if err != nil {
		return nil, err
	}
	if err := mayWatch(ctx, st, authzedv1.WatchService_Watch_FullMethodName); err != nil {
		return nil, err
	}
	w := &authzedWatch{Server: s.Server, out: out, store: st, types: r.OptionalObjectTypes, sent: time.Now()}
	if len(r.OptionalObjectTypes) > 0 && len(r.OptionalRelationshipFilters) > 0 {
		return nil, authzedProblem(codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_INVALID_FILTER,
			"optional_object_types and optional_relationship_filters cannot be used together; put the types into filters")
	}
	for _, given := range r.OptionalRelationshipFilters {
		f, err := authzedFilter(given, false)
		if err != nil {
			return nil, err
		}
		w.filters = append(w.filters, f)
	}
	if err := s.namesOf(ctx, st.ID, nil, w.filters...); err != nil {
		return nil, err
	}
	kinds := r.OptionalUpdateKinds
	w.updates = len(kinds) == 0 || slices.Contains(kinds, authzedv1.WatchKind_WATCH_KIND_UNSPECIFIED) ||
		slices.Contains(kinds, authzedv1.WatchKind_WATCH_KIND_INCLUDE_RELATIONSHIP_UPDATES)
	w.schemas = slices.Contains(kinds, authzedv1.WatchKind_WATCH_KIND_INCLUDE_SCHEMA_UPDATES)
	w.checkpoints = slices.Contains(kinds, authzedv1.WatchKind_WATCH_KIND_INCLUDE_CHECKPOINTS)
	if w.at, err = s.ds.Head(ctx, st.ID); err != nil {
		return nil, err
	}
	if r.OptionalStartCursor != nil {
		after, err := s.ds.Zookie(ctx, st.ID, r.OptionalStartCursor.Token)
		if err != nil {
			return nil, err
		}
		if w.at, err = s.ds.HeadAt(ctx, st.ID, after); err != nil {
			return nil, err
		}
		if oldest, err := s.ds.Oldest(ctx, st.ID); err != nil || after+1 < oldest {
			return nil, errors.Join(err, datastore.Compacted(after+1, oldest))
		}
	}
	return w, nil
}

// follow delivers what comes until something ends it.
func (w *authzedWatch) follow(ctx context.Context) error {
	for {
		for c, err := range w.ds.History(ctx, w.store.ID, w.at.Revision+1) {
			if err != nil {
				return err
			}
			if err := w.change(&c); err != nil {
				return err
			}
		}
		// Everything up to here was read, so that this is a checkpoint.
		if w.checkpoints && (w.told != w.at.Revision || time.Since(w.sent) >= checkpointEvery) {
			m := &authzedv1.WatchResponse{ChangesThrough: zedToken(w.at.Zookie(w.store.ID).String()), IsCheckpoint: true}
			if err := w.send(m); err != nil {
				return err
			}
			w.told = w.at.Revision
		}
		if err := w.wait(ctx); err != nil {
			return err
		}
	}
}

func (w *authzedWatch) send(m *authzedv1.WatchResponse) error {
	w.sent = time.Now()
	return w.out.Send(m)
}

// change delivers what was asked for of a change: in one message, or where that
// would be too large in several, of which only the last says that the change was
// delivered, so that whoever resumes behind another one receives all of it again.
func (w *authzedWatch) change(c *datastore.Change) error {
	before := zedToken(w.at.Zookie(w.store.ID).String())
	w.at.Revision, w.at.Hash, w.at.Time = c.Revision, c.Hash, c.Time
	through := zedToken(w.at.Zookie(w.store.ID).String())
	var attached *structpb.Struct
	if c.Metadata != "" {
		attached = jsonStruct(c.Metadata)
	}
	empty := func() *authzedv1.WatchResponse {
		m := &authzedv1.WatchResponse{ChangesThrough: before, OptionalTransactionMetadata: attached}
		if attached != nil {
			m.FullRevisionMetadata = []*structpb.Struct{attached}
		}
		return m
	}
	m, size := empty(), 0
	for i := range c.Operations {
		o := &c.Operations[i]
		if o.Kind == datastore.ApplySchema && w.schemas {
			m.SchemaUpdated = true
		}
		u := w.update(o)
		if u == nil {
			continue
		}
		if len(m.Updates) == page || size >= pageBytes {
			if err := w.send(m); err != nil {
				return err
			}
			m, size = empty(), 0
		}
		m.Updates, size = append(m.Updates, u), size+proto.Size(u)
	}
	if len(m.Updates) == 0 && !m.SchemaUpdated {
		return nil
	}
	m.ChangesThrough = through
	return w.send(m)
}

// update is an operation as this watch reports it; nil if it does not. That a
// relationship expired is no update of it.
func (w *authzedWatch) update(o *datastore.Operation) *authzedv1.RelationshipUpdate {
	if !w.updates || len(w.types) > 0 && !slices.Contains(w.types, o.Relationship.Object.Type) {
		return nil
	}
	if len(w.filters) > 0 && !slices.ContainsFunc(w.filters, func(f tuple.Filter) bool { return f.Matches(o.Relationship) }) {
		return nil
	}
	u := &authzedv1.RelationshipUpdate{}
	switch o.Kind {
	case datastore.Create, datastore.Touch:
		// Whether something stood there before is nothing that clients of this API are
		// used to be told.
		u.Operation = authzedv1.RelationshipUpdate_OPERATION_TOUCH
	case datastore.Delete:
		u.Operation = authzedv1.RelationshipUpdate_OPERATION_DELETE
	default:
		return nil
	}
	u.Relationship = relationshipOut(&o.Relationship)
	return u
}

// wait returns when there is more, or when it is time to look at the clock and at
// the caller's token.
func (w *authzedWatch) wait(ctx context.Context) error {
	if err := w.stillValid(ctx); err != nil {
		return err
	}
	timed, cancel := context.WithTimeout(ctx, lookEvery)
	defer cancel()
	head, err := w.ds.Wait(timed, w.store.ID, w.at.Revision)
	if err != nil && (timed.Err() == nil || ctx.Err() != nil) {
		return err
	}
	if err == nil && head.Incarnation != w.at.Incarnation {
		return fmt.Errorf("store %s: %w; watch again from the start", w.store.Name, datastore.ErrForked)
	}
	return nil
}
