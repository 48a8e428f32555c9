package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
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
		out.Token = &pembav1.TokenChange{Name: o.Token.Name, Role: roleOf(o.Token.Role), Store: o.Token.Store,
			Expires: timeProto(o.Token.Expires), OverlapUntil: timeProto(o.Token.OlderUntil)}
	}
	return out
}

// matchesChange reports whether a filter selects anything of a change as far as
// the change itself tells.
func matchesChange(f *pembav1.ChangeFilter, c *datastore.Change) bool {
	return f == nil || selects(f.Actors, c.Actor) &&
		(f.ReasonContains == "" || strings.Contains(strings.ToLower(c.Reason), strings.ToLower(f.ReasonContains)))
}

// matchesAbout reports whether an operation is about one of the objects and one
// of the subjects of a filter.
func matchesAbout(f *pembav1.ChangeFilter, o *datastore.Operation) bool {
	r := o.Relationship
	about := r.Object
	switch o.Kind {
	case datastore.PutIdentity:
		about = o.Identity.Object
	case datastore.Erase:
		about = *o.Erased
	}
	return (len(f.Objects) == 0 || slices.ContainsFunc(f.Objects, func(w *pembav1.Object) bool { return w.GetType() == about.Type && w.GetId() == about.ID })) &&
		(len(f.Subjects) == 0 || o.Kind <= datastore.Expire && slices.ContainsFunc(f.Subjects, func(w *pembav1.Subject) bool {
			return w.GetType() == r.Subject.Type && w.GetId() == r.Subject.ID &&
				(w.GetRelation() == r.Subject.Relation || w.GetRelation() == tuple.Ellipsis && r.Subject.Relation == "")
		}))
}

// ofOperations reports whether a filter asks for operations, not only for
// changes.
func ofOperations(f *pembav1.ChangeFilter) bool {
	return len(f.GetOperations())+len(f.GetResourceTypes())+len(f.GetRelations())+len(f.GetSubjectTypes())+len(f.GetObjects())+len(f.GetSubjects()) > 0
}

func selects(list []string, s string) bool { return len(list) == 0 || slices.Contains(list, s) }

func matches(f *pembav1.ChangeFilter, o *datastore.Operation) bool {
	if f == nil {
		return true
	}
	if !matchesAbout(f, o) {
		return false
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
	if !matchesChange(f, c) {
		return nil, false
	}
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
	return out, len(out.Operations) > 0 || !ofOperations(f)
}

// ChangeProto translates a whole change of a store's line of history.
func ChangeProto(c *datastore.Change, store datastore.StoreID, line datastore.Incarnation) *pembav1.Change {
	out, _ := changeProto(c, datastore.Head{Incarnation: line}, store, nil)
	return out
}

// checkFilter refuses a filter with a kind of operation that does not exist, or with an
// object or a subject that cannot.
func checkFilter(f *pembav1.ChangeFilter) error {
	for _, k := range f.GetOperations() {
		if _, ok := pembav1.OperationKind_name[int32(k)]; !ok || k == pembav1.OperationKind_OPERATION_KIND_UNSPECIFIED {
			return invalidField("filter.operations", "filter.operations holds %d, which is no kind of operation", k)
		}
	}
	for i, o := range f.GetObjects() {
		if _, err := object(o, fmt.Sprintf("filter.objects[%d]", i)); err != nil {
			return err
		}
	}
	for i, o := range f.GetSubjects() {
		if _, err := subject(o, fmt.Sprintf("filter.subjects[%d]", i)); err != nil {
			return err
		}
	}
	return nil
}

// mayWatch refuses the history of the store system to who may not audit.
func mayWatch(ctx context.Context, st datastore.Store, method string) error {
	if c := callerOf(ctx); st.ID == datastore.System && !c.may(st.ID, mayAudit) {
		return tooWeak(&c, method+" of the store system", mayAudit)
	}
	return nil
}

// span is which changes a request for history means.
type span struct {
	head, next, to datastore.Revision
}

// span finds the revisions that a request asks for.
func (s *histories) span(ctx context.Context, r *pembav1.ReadHistoryRequest, store datastore.StoreID, head datastore.Revision) (p span, err error) {
	if r.FromRevision > uint64(head)+1 {
		return p, datastore.Ahead(datastore.Revision(r.FromRevision), head)
	}
	oldest, err := s.ds.Oldest(ctx, store)
	if err != nil {
		return p, err
	}
	p = span{head: head, next: datastore.Revision(r.FromRevision), to: head}
	if p.next == 0 {
		p.next = oldest
	}
	if r.ToRevision > 0 {
		p.to = min(p.to, datastore.Revision(r.ToRevision))
	}
	if r.FromTime != nil {
		last, err := s.lastBefore(ctx, store, r.FromTime, "from_time", -time.Microsecond, oldest)
		if err != nil {
			return p, err
		}
		p.next = max(p.next, last+1)
	}
	if r.ToTime != nil {
		last, err := s.lastBefore(ctx, store, r.ToTime, "to_time", 0, oldest)
		if err != nil {
			return p, err
		}
		p.to = min(p.to, last)
	}
	return p, nil
}

// lastBefore returns the last revision that is not younger than a time, moved by
// a step; the one before the oldest if what is kept is younger.
func (s *histories) lastBefore(ctx context.Context, store datastore.StoreID, t *timestamppb.Timestamp, field string, step time.Duration, oldest datastore.Revision) (datastore.Revision, error) {
	if err := t.CheckValid(); err != nil {
		return 0, invalidField(field, "%s: %v", field, err)
	}
	at := t.AsTime()
	if whole := at.Truncate(time.Microsecond); whole.Equal(at) {
		at = at.Add(step)
	} else {
		at = whole
	}
	head, err := s.ds.HeadBefore(ctx, store, at)
	if errors.Is(err, datastore.ErrCompacted) {
		return oldest - 1, nil
	}
	return head.Revision, err
}

func (s *histories) ReadHistory(r *pembav1.ReadHistoryRequest, out grpc.ServerStreamingServer[pembav1.ReadHistoryResponse]) error {
	ctx := out.Context()
	st, err := s.store(ctx, r.Store)
	if err != nil {
		return err
	}
	if err := checkFilter(r.Filter); err != nil {
		return err
	}
	if r.Sealed && proto.Size(r.Filter) > 0 {
		return invalidField("sealed", "sealed asks for every change, and filter for some; leave one out")
	}
	head, err := s.ds.Head(ctx, st.ID)
	if err != nil {
		return err
	}
	p, err := s.span(ctx, r, st.ID, head.Revision)
	if err != nil {
		return err
	}
	h := &historyStream{out: out, store: st.ID, head: head, next: p.next, limit: r.Limit, filter: r.Filter, sealed: r.Sealed}
	h.renew()
	if p.next > p.to {
		return h.send(true)
	}
	for e, err := range s.ds.Entries(ctx, st.ID, p.next) {
		if err != nil {
			return err
		}
		if e.Revision > p.to {
			break
		}
		if more, err := h.entry(e); !more {
			return err
		}
	}
	return h.send(true)
}

// historyStream is an answer with changes of the past.
type historyStream struct {
	out    grpc.ServerStreamingServer[pembav1.ReadHistoryResponse]
	store  datastore.StoreID
	head   datastore.Head
	next   datastore.Revision
	limit  uint64 // changes; zero: none
	filter *pembav1.ChangeFilter
	sealed bool

	message *pembav1.ReadHistoryResponse
	sent    uint64 // changes, those in message included
	size    int    // bytes of message
}

func (h *historyStream) renew() {
	h.message, h.size = &pembav1.ReadHistoryResponse{Zookie: h.head.Zookie(h.store).String(), Head: uint64(h.head.Revision)}, 0
}

func (h *historyStream) send(complete bool) error {
	h.message.NextRevision, h.message.Complete = uint64(h.next), complete
	err := h.out.Send(h.message)
	h.renew()
	return err
}

// entry delivers a change if it is meant; false ends the stream.
func (h *historyStream) entry(e datastore.Entry) (bool, error) {
	c, err := datastore.Open(e)
	if err != nil {
		return false, err
	}
	if p, any := changeProto(&c, h.head, h.store, h.filter); any {
		if h.limit > 0 && h.sent == h.limit {
			return false, h.send(false)
		}
		if h.sealed {
			p.Sealed = &pembav1.SealedChange{Header: e.Header, Payload: e.Payload}
		}
		h.message.Changes, h.size = append(h.message.Changes, p), h.size+proto.Size(p)
		h.sent++
	}
	h.next = e.Revision + 1
	if len(h.message.Changes) == page || h.size >= pageBytes {
		if err := h.send(false); err != nil {
			return false, err
		}
	}
	return true, nil
}
