package server

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

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
	case datastore.PutIdentity:
		i := o.Identity
		out.Identity = &pembav1.IdentityChange{Object: &pembav1.Object{Type: i.Object.Type, Id: i.Object.ID}, Kind: pembav1.IdentityKind(i.Kind),
			Before: pembav1.IdentityState(i.Before), After: pembav1.IdentityState(i.State)}
	case datastore.Erase:
		out.Identity = &pembav1.IdentityChange{Object: &pembav1.Object{Type: o.Erased.Type, Id: o.Erased.ID}}
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
	if c.Metadata != "" {
		out.Metadata = jsonStruct(c.Metadata)
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

// known refuses a filter with a kind of operation that does not exist.
func known(f *pembav1.ChangeFilter) error {
	for _, k := range f.GetOperations() {
		if _, ok := pembav1.OperationKind_name[int32(k)]; !ok || k == pembav1.OperationKind_OPERATION_KIND_UNSPECIFIED {
			return invalidField("filter.operations", "filter.operations holds %d, which is no kind of operation", k)
		}
	}
	return nil
}

// mayRead refuses the history of the store system to who may not audit.
func mayRead(ctx context.Context, st datastore.Store, method string) error {
	if c := callerOf(ctx); st.ID == datastore.System && c.role != auditor && c.role != admin {
		return tooWeak(c, method+" of the store system")
	}
	return nil
}

func (s *histories) ReadHistory(r *pembav1.ReadHistoryRequest, out grpc.ServerStreamingServer[pembav1.ReadHistoryResponse]) error {
	ctx := out.Context()
	st, err := s.store(ctx, r.Store)
	if err != nil {
		return err
	}
	if err := known(r.Filter); err != nil {
		return err
	}
	head, err := s.ds.Head(ctx, st.ID)
	if err != nil {
		return err
	}
	if r.FromRevision > uint64(head.Revision)+1 {
		return datastore.Ahead(datastore.Revision(r.FromRevision), head.Revision)
	}
	next := datastore.Revision(r.FromRevision)
	if next == 0 {
		if next, err = s.ds.Oldest(ctx, st.ID); err != nil {
			return err
		}
	}
	to := head.Revision
	if r.ToRevision > 0 {
		to = min(to, datastore.Revision(r.ToRevision))
	}
	m := &pembav1.ReadHistoryResponse{Zookie: head.Zookie(st.ID).String(), Head: uint64(head.Revision)}
	sent, size := uint64(0), 0
	send := func(complete bool) error {
		m.NextRevision, m.Complete = uint64(next), complete
		err := out.Send(m)
		m, size = &pembav1.ReadHistoryResponse{Zookie: m.Zookie, Head: m.Head}, 0
		return err
	}
	if next > to {
		return send(true)
	}
	for c, err := range s.ds.History(ctx, st.ID, next) {
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
			m.Changes, size = append(m.Changes, p), size+proto.Size(p)
			sent++
		}
		next = c.Revision + 1
		if len(m.Changes) == page || size >= pageBytes {
			if err := send(false); err != nil {
				return err
			}
		}
	}
	return send(true)
}
