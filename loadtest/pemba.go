package loadtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

// pemba speaks pemba.v1.
type pemba struct {
	store         string
	stores        pb.StoreServiceClient
	schemas       pb.SchemaServiceClient
	permissions   pb.PermissionServiceClient
	relationships pb.RelationshipServiceClient
	watches       pb.WatchServiceClient
}

func newPemba(conn *grpc.ClientConn, store string) API {
	return &pemba{
		store: store, stores: pb.NewStoreServiceClient(conn), schemas: pb.NewSchemaServiceClient(conn),
		permissions: pb.NewPermissionServiceClient(conn), relationships: pb.NewRelationshipServiceClient(conn),
		watches: pb.NewWatchServiceClient(conn),
	}
}

func pembaObject(o tuple.Object) *pb.Object { return &pb.Object{Type: o.Type, Id: o.ID} }

func pembaSubject(s tuple.Subject) *pb.Subject {
	return &pb.Subject{Type: s.Type, Id: s.ID, Relation: s.Relation}
}

func pembaRelationship(r tuple.Relationship) *pb.Relationship {
	return &pb.Relationship{Resource: pembaObject(r.Object), Relation: r.Relation, Subject: pembaSubject(r.Subject)}
}

func pembaConsistency(c Consistency) *pb.Consistency {
	switch {
	case c.Level == FullyConsistent:
		return &pb.Consistency{Requirement: &pb.Consistency_FullyConsistent{FullyConsistent: true}}
	case c.Level == AtLeastAsFresh && c.Zookie != "":
		return &pb.Consistency{Requirement: &pb.Consistency_AtLeastAsFresh{AtLeastAsFresh: c.Zookie}}
	}
	return nil
}

func (p *pemba) Prepare(ctx context.Context, schema string) error {
	if p.store != "default" {
		if _, err := p.stores.CreateStore(ctx, &pb.CreateStoreRequest{Store: p.store}); err != nil && status.Code(err) != codes.AlreadyExists {
			return fmt.Errorf("create the store %s: %w", p.store, err)
		}
	}
	if _, err := p.schemas.ApplySchema(ctx, &pb.ApplySchemaRequest{Store: p.store, Text: schema}); err != nil {
		return fmt.Errorf("apply the world's schema to the store %s: %w", p.store, err)
	}
	return nil
}

func (p *pemba) Holds(ctx context.Context, r tuple.Relationship) (bool, error) {
	none := r.Subject.Relation
	s, err := p.relationships.ReadRelationships(ctx, &pb.ReadRelationshipsRequest{
		Store: p.store, Consistency: pembaConsistency(Consistency{Level: FullyConsistent}), Limit: 1,
		Filter: &pb.RelationshipFilter{ResourceType: r.Object.Type, ResourceId: r.Object.ID, Relation: r.Relation,
			Subject: &pb.SubjectFilter{Type: r.Subject.Type, Id: r.Subject.ID, Relation: &none}},
	})
	found := false
	err = each(s, err, func(m *pb.ReadRelationshipsResponse) { found = found || len(m.Relationships) > 0 })
	return found, err
}

func (p *pemba) Import(ctx context.Context, all iter.Seq[tuple.Relationship], progress func(int)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := p.relationships.ImportRelationships(ctx)
	if err != nil {
		return err
	}
	start := &pb.ImportStart{Store: p.store, Mode: pb.ImportMode_IMPORT_MODE_TOUCH, Reason: "load test"}
	sent := make(chan error, 1)
	go func() {
		err := s.Send(&pb.ImportRelationshipsRequest{Part: &pb.ImportRelationshipsRequest_Start{Start: start}})
		var offset uint64
		if err == nil {
			err = batches(all, pembaRelationship, func(some []*pb.Relationship) error {
				b := &pb.ImportBatch{Offset: offset, Relationships: some}
				offset += uint64(len(some))
				return s.Send(&pb.ImportRelationshipsRequest{Part: &pb.ImportRelationshipsRequest_Batch{Batch: b}})
			})
		}
		if err == nil {
			err = s.CloseSend()
		}
		sent <- err
	}()
	err = each(s, nil, func(m *pb.ImportRelationshipsResponse) { progress(int(m.Offset)) })
	if err != nil {
		cancel()
	}
	if end := <-sent; err == nil && end != nil {
		err = end
	}
	return err
}

func (p *pemba) Check(ctx context.Context, c Consistency, q Question) (bool, string, error) {
	a, err := p.permissions.Check(ctx, &pb.CheckRequest{
		Store: p.store, Consistency: pembaConsistency(c),
		Resource: pembaObject(q.Resource), Permission: q.Permission, Subject: pembaSubject(q.Subject),
	})
	return a.GetAnswer() == pb.Answer_ANSWER_HAS_PERMISSION, a.GetZookie(), err
}

func (p *pemba) Bulk(ctx context.Context, c Consistency, qs []Question) ([]bool, error) {
	m := &pb.BulkCheckRequest{Store: p.store, Consistency: pembaConsistency(c), Items: make([]*pb.BulkCheckItem, len(qs))}
	for i, q := range qs {
		m.Items[i] = &pb.BulkCheckItem{Resource: pembaObject(q.Resource), Permission: q.Permission, Subject: pembaSubject(q.Subject)}
	}
	a, err := p.permissions.BulkCheck(ctx, m)
	if err != nil {
		return nil, err
	}
	out := make([]bool, len(a.Results))
	for i, r := range a.Results {
		if r.Error != nil {
			return nil, status.ErrorProto(r.Error)
		}
		out[i] = r.Answer == pb.Answer_ANSWER_HAS_PERMISSION
	}
	return out, nil
}

func (p *pemba) Lookup(ctx context.Context, c Consistency, l Lookup, first func()) ([]string, error) {
	s, err := p.permissions.LookupResources(ctx, &pb.LookupResourcesRequest{
		Store: p.store, Consistency: pembaConsistency(c), ResourceType: l.ResourceType, Permission: l.Permission, Subject: pembaSubject(l.Subject),
	})
	var ids []string
	complete := false
	err = each(s, err, func(m *pb.LookupResourcesResponse) {
		if ids == nil {
			first()
		}
		for _, r := range m.Results {
			ids = append(ids, r.Id)
		}
		complete = complete || m.End.GetComplete()
	})
	if err == nil && !complete {
		err = errors.New("the lookup ended without saying that it is complete")
	}
	return ids, err
}

func (p *pemba) write(ctx context.Context, op *pb.WriteOperation) (string, error) {
	m, err := p.relationships.WriteRelationships(ctx, &pb.WriteRelationshipsRequest{Store: p.store, Operations: []*pb.WriteOperation{op}})
	return m.GetZookie(), err
}

func (p *pemba) Share(ctx context.Context, place Place, s tuple.Subject) (string, error) {
	return p.write(ctx, &pb.WriteOperation{Operation: &pb.WriteOperation_Touch{Touch: pembaRelationship(place.relationship(s))}})
}

func (p *pemba) Unshare(ctx context.Context, place Place, s tuple.Subject) (string, error) {
	return p.write(ctx, &pb.WriteOperation{Operation: &pb.WriteOperation_Delete{Delete: pembaRelationship(place.relationship(s))}})
}

func (p *pemba) Watch(ctx context.Context, started func()) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		// Without a start it begins after the head, which the first heartbeat names.
		s, err := p.watches.Watch(ctx, &pb.WatchRequest{Store: p.store, Heartbeat: durationpb.New(time.Second)})
		for err == nil {
			var m *pb.WatchResponse
			if m, err = s.Recv(); err != nil {
				break
			}
			started()
			if m.GetChange() != nil && !yield(m.Zookie, nil) {
				return
			}
		}
		if ctx.Err() == nil {
			yield("", err)
		}
	}
}

// each calls f with each message of a stream up to its end.
func each[M any](s interface{ Recv() (*M, error) }, err error, f func(*M)) error {
	for err == nil {
		var m *M
		if m, err = s.Recv(); err == nil {
			f(m)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
