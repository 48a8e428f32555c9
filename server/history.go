package server

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

type watches struct {
	pembav1.UnimplementedWatchServiceServer
	*Server
}

type histories struct {
	pembav1.UnimplementedHistoryServiceServer
	*Server
}

func operationProto(o *datastore.Operation) *pembav1.Operation {
	out := &pembav1.Operation{Kind: pembav1.OperationKind(o.Kind)}
	switch o.Kind {
	case datastore.Create, datastore.Touch:
		out.Before, out.After = relationshipProto(o.Previous), relationshipProto(&o.Relationship)
	case datastore.Delete, datastore.Expire:
		out.Before = relationshipProto(&o.Relationship)
	case datastore.ApplySchema:
		out.Schema = &pembav1.SchemaChange{Text: o.Schema.Text, Hash: hashText(o.Schema.Hash), PreviousHash: hashText(o.Schema.PreviousHash)}
	case datastore.CreateStore, datastore.DeleteStore:
		out.Store = &pembav1.StoreChange{Store: o.Store.Name, Id: uint64(o.Store.ID)}
	case datastore.CreateToken, datastore.RevokeToken:
		out.Token = &pembav1.TokenChange{Name: o.Token.Name, Role: roleOf(o.Token.Role), Store: o.Token.Store}
	}
	return out
}

func selects(list []string, s string) bool { return len(list) == 0 || slices.Contains(list, s) }

func matches(f *pembav1.ChangeFilter, o *datastore.Operation) bool {
	if f == nil {
		return true
	}
	if len(f.Operations) > 0 && !slices.Contains(f.Operations, pembav1.OperationKind(o.Kind)) {
		return false
	}
	if len(f.ResourceTypes)+len(f.Relations)+len(f.SubjectTypes) == 0 {
		return true
	}
	r := o.Relationship
	return o.Kind <= datastore.Expire && selects(f.ResourceTypes, r.Object.Type) && selects(f.Relations, r.Relation) && selects(f.SubjectTypes, r.Subject.Type)
}

// changeProto translates a change with the operations that a filter selects;
// false if it selects none of those there are.
func changeProto(c *datastore.Change, head datastore.Head, store datastore.StoreID, f *pembav1.ChangeFilter) (*pembav1.Change, bool) {
	at := datastore.Head{Incarnation: head.Incarnation, Revision: c.Revision, Hash: c.Hash}
	out := &pembav1.Change{
		Revision: uint64(c.Revision), Zookie: at.Zookie(store).String(), Time: timestamppb.New(c.Time),
		Actor: c.Actor, Reason: c.Reason, RequestId: c.RequestID, Hash: c.Hash[:],
	}
	for i := range c.Operations {
		if o := &c.Operations[i]; matches(f, o) {
			out.Operations = append(out.Operations, operationProto(o))
		} else {
			out.Filtered++
		}
	}
	return out, len(out.Operations) > 0 || f == nil || len(c.Operations) == 0 && len(f.Operations)+len(f.ResourceTypes)+len(f.Relations)+len(f.SubjectTypes) == 0
}

func (s *watches) Watch(r *pembav1.WatchRequest, out grpc.ServerStreamingServer[pembav1.WatchResponse]) error {
	ctx, cancel := context.WithCancel(out.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	st, err := s.store(ctx, r.Store)
	if err != nil {
		return err
	}
	every := 10 * time.Second
	if r.Heartbeat != nil {
		if every = r.Heartbeat.AsDuration(); every < 100*time.Millisecond {
			return problem(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_FIELD, "heartbeat %v is below 100ms", every)
		}
	}
	head, err := s.start(ctx, st)
	if err != nil {
		return err
	}
	next := head.Revision + 1
	switch from := r.Start.(type) {
	case *pembav1.WatchRequest_FromRevision:
		next = max(1, datastore.Revision(from.FromRevision))
	case *pembav1.WatchRequest_AfterZookie:
		after, err := s.ds.Zookie(ctx, st.ID, from.AfterZookie)
		if err != nil {
			return err
		}
		next = after + 1
	}
	for {
		for c, err := range s.ds.History(ctx, st.ID, next) {
			if err != nil {
				return s.ended(ctx, err)
			}
			next = c.Revision + 1
			if p, any := changeProto(&c, head, st.ID, r.Filter); any {
				if err := out.Send(&pembav1.WatchResponse{Zookie: p.Zookie, Event: &pembav1.WatchResponse_Change{Change: p}}); err != nil {
					return err
				}
			}
		}
		now, err := s.wait(ctx, st.ID, next-1, every)
		if err != nil {
			return s.ended(ctx, err)
		}
		if now.Revision >= next {
			continue
		}
		beat := &pembav1.Heartbeat{Revision: uint64(next - 1), Head: uint64(now.Revision)}
		if err := out.Send(&pembav1.WatchResponse{Zookie: now.Zookie(st.ID).String(), Event: &pembav1.WatchResponse_Heartbeat{Heartbeat: beat}}); err != nil {
			return err
		}
	}
}

// wait returns the head when it is beyond a revision, or when it is time for a
// heartbeat.
func (s *watches) wait(ctx context.Context, store datastore.StoreID, beyond datastore.Revision, every time.Duration) (datastore.Head, error) {
	timed, cancel := context.WithTimeout(ctx, every)
	defer cancel()
	head, err := s.ds.Wait(timed, store, beyond)
	if err != nil && timed.Err() != nil && ctx.Err() == nil {
		return head, nil
	}
	return head, err
}

// ended says why a watch ends: the server stops, or what went wrong.
func (s *Server) ended(ctx context.Context, err error) error {
	if s.ctx.Err() != nil {
		return problem(codes.Unavailable, pembav1.ErrorReason_ERROR_REASON_UNAVAILABLE, "the server is stopping; watch again from the last zookie")
	}
	return err
}

// start returns a store's head.
func (s *Server) start(ctx context.Context, st datastore.Store) (datastore.Head, error) {
	snapshot, err := s.ds.At(ctx, st.ID, datastore.Consistency{Level: datastore.FullyConsistent})
	if err != nil {
		return datastore.Head{}, err
	}
	defer snapshot.Close()
	return snapshot.Head(), nil
}

func (s *histories) ReadHistory(r *pembav1.ReadHistoryRequest, out grpc.ServerStreamingServer[pembav1.ReadHistoryResponse]) error {
	ctx := out.Context()
	st, err := s.store(ctx, r.Store)
	if err != nil {
		return err
	}
	head, err := s.start(ctx, st)
	if err != nil {
		return err
	}
	to := head.Revision
	if r.ToRevision > 0 {
		to = min(to, datastore.Revision(r.ToRevision))
	}
	const batch = 100
	m := &pembav1.ReadHistoryResponse{Zookie: head.Zookie(st.ID).String(), Head: uint64(head.Revision)}
	next := max(1, r.FromRevision)
	sent := uint64(0)
	send := func(complete bool) error {
		m.NextRevision, m.Complete = next, complete
		err := out.Send(m)
		m = &pembav1.ReadHistoryResponse{Zookie: m.Zookie, Head: m.Head}
		return err
	}
	if datastore.Revision(next) > to {
		return send(true)
	}
	for c, err := range s.ds.History(ctx, st.ID, datastore.Revision(next)) {
		if err != nil {
			return err
		}
		if c.Revision > to {
			break
		}
		if p, any := changeProto(&c, head, st.ID, r.Filter); any {
			if r.Limit > 0 && sent == r.Limit {
				return send(false)
			}
			m.Changes = append(m.Changes, p)
			sent++
		}
		next = uint64(c.Revision) + 1
		if len(m.Changes) == batch {
			if err := send(false); err != nil {
				return err
			}
		}
	}
	return send(true)
}
