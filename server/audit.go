package server

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

type audits struct {
	pembav1.UnimplementedAuditServiceServer
	*permissions
}

func (s *audits) GetPosition(ctx context.Context, r *pembav1.GetPositionRequest) (*pembav1.GetPositionResponse, error) {
	st, err := s.store(ctx, r.Store)
	if err != nil {
		return nil, err
	}
	head, err := s.ds.Head(ctx, st.ID)
	if err != nil {
		return nil, err
	}
	anchor, err := s.ds.Anchor(ctx, st.ID)
	if err != nil {
		return nil, err
	}
	at := head
	if r.Revision != nil && *r.Revision != uint64(head.Revision) {
		if at, err = s.position(ctx, st.ID, head, anchor, datastore.Revision(*r.Revision)); err != nil {
			return nil, err
		}
	}
	out := &pembav1.GetPositionResponse{
		Store: st.Name, StoreId: uint64(st.ID), Incarnation: at.Incarnation[:], Revision: uint64(at.Revision), Hash: at.Hash[:],
		Head: uint64(head.Revision), Oldest: uint64(anchor.Revision + 1),
	}
	if !at.Time.IsZero() && at.Revision > 0 {
		out.Time = timestamppb.New(at.Time)
	}
	return out, nil
}

// position reads where a history stood at a revision: from the change itself, or
// the anchor, not from what a node remembers of them.
func (s *audits) position(ctx context.Context, store datastore.StoreID, head datastore.Head, anchor datastore.Anchor, at datastore.Revision) (datastore.Head, error) {
	out := datastore.Head{Incarnation: head.Incarnation, Revision: at, Hash: anchor.Hash}
	if at == anchor.Revision { // or before the first change
		return out, nil
	}
	for e, err := range s.ds.Entries(ctx, store, at) {
		if err != nil {
			return out, err
		}
		c, err := datastore.Open(e)
		out.Hash, out.Time = e.Hash, c.Time
		return out, err
	}
	return out, datastore.Ahead(at, head.Revision)
}

func (s *audits) ReportAccess(r *pembav1.ReportAccessRequest, out grpc.ServerStreamingServer[pembav1.ReportAccessResponse]) error {
	ctx := out.Context()
	a, err := s.report(ctx, r)
	if err != nil {
		return err
	}
	snapshot, now, err := s.at(ctx, r.Store, r.Consistency)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	if err := a.plan(ctx, snapshot, now, r); err != nil {
		return err
	}
	message := func() *pembav1.ReportAccessResponse {
		return &pembav1.ReportAccessResponse{Zookie: snapshot.Zookie(), Revision: uint64(snapshot.Head().Revision), Time: timestamppb.New(a.now)}
	}
	b := newBatcher(resultBatch, func(lines []*pembav1.Access) error {
		m := message()
		m.Access = lines
		return out.Send(m)
	})
	err = a.run(ctx, b.add)
	if sent := b.close(); sent != nil || err != nil {
		return firstOf(sent, err)
	}
	last := message()
	last.End = a.end
	return out.Send(last)
}
