package server

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/graph"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

// lookupSession is where a lookup, or a page of one, is answered.
type lookupSession struct {
	snapshot datastore.Snapshot
	now      time.Time
	options  graph.LookupOptions
	question [16]byte // what its cursor is bound to
}

// lookupRequest is what both requests have in common.
type lookupRequest interface {
	proto.Message
	GetStore() string
	GetConsistency() *pembav1.Consistency
	GetLimit() uint32
	GetCursor() string
	GetCountOnly() bool
}

// lookup opens the snapshot of a lookup: at its consistency, or where its cursor
// says. filter is the request without store, consistency, limit and cursor.
func (p *permissions) lookup(ctx context.Context, r, filter lookupRequest) (*lookupSession, error) {
	if err := atMost(int(r.GetLimit()), p.limits.LookupPage, "max-lookup-page", "results in a page", "ask for a smaller one, or for all without a limit"); err != nil {
		return nil, err
	}
	st, err := p.store(ctx, r.GetStore())
	if err != nil {
		return nil, err
	}
	s := &lookupSession{now: time.Now(), options: graph.LookupOptions{Limit: int(r.GetLimit()), CountOnly: r.GetCountOnly()}}
	s.question = question(string(filter.ProtoReflect().Descriptor().Name()), st.ID, filter)
	var c cursor
	if r.GetCursor() != "" {
		if c, err = parseCursor(r.GetCursor(), s.question); err != nil {
			return nil, err
		}
		s.options.After = c.position
	}
	if past, ok := r.GetConsistency().GetRequirement().(*pembav1.Consistency_AtTime); ok {
		s.snapshot, s.now, err = p.past(ctx, st.ID, past.AtTime, c)
		return s, err
	}
	level, err := consistency(r.GetConsistency())
	if err != nil {
		return nil, err
	}
	if c.zookie != "" {
		level, s.now = datastore.Consistency{Level: datastore.AtExactSnapshot, Zookie: c.zookie}, c.time
	}
	if s.snapshot, err = p.ds.At(ctx, st.ID, level); err != nil {
		return nil, err
	}
	return s, nil
}

// end is the last word of a lookup.
func (s *lookupSession) end(l graph.Listing) *pembav1.LookupEnd {
	out := &pembav1.LookupEnd{Complete: l.Complete, HasPermission: uint64(l.Yes), Conditional: uint64(l.Conditional), NoPermission: uint64(l.Excluded)}
	if !l.Complete && l.Last != "" {
		out.Cursor = cursor{zookie: s.snapshot.Zookie(), time: graph.EvaluationTime(s.snapshot, s.now), position: l.Last, question: s.question}.String()
	}
	return out
}

// Results are sent the first at once, then in batches that double up to
// resultBatch; none waits longer than resultDelay for its batch to fill.
const (
	resultBatch = 1024
	resultDelay = 20 * time.Millisecond
)

// batcher gathers the results of a lookup.
type batcher[T any] struct {
	send    func([]T) error
	largest int // batch

	mu      sync.Mutex
	results []T
	size    int // of the next batch
	err     error
	timer   *time.Timer
}

func newBatcher[T any](largest int, send func([]T) error) *batcher[T] {
	return &batcher[T]{send: send, largest: largest, size: 1}
}

// lookupBatcher gathers results into messages, and takes them as a lookup gives
// them.
func lookupBatcher(send func([]*pembav1.LookupResult) error) (*batcher[*pembav1.LookupResult], func(graph.Found) bool) {
	b := newBatcher(resultBatch, send)
	return b, func(f graph.Found) bool {
		return b.add(&pembav1.LookupResult{Id: f.ID, Answer: answer(f.Answer), MissingFields: f.Answer.Missing})
	}
}

// add takes a result; false once the receiver is gone.
func (b *batcher[T]) add(result T) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.results = append(b.results, result)
	if len(b.results) >= b.size {
		b.size = min(2*b.size, b.largest)
		b.flush()
	} else if len(b.results) == 1 {
		if b.timer == nil {
			b.timer = time.AfterFunc(resultDelay, b.late)
		} else {
			b.timer.Reset(resultDelay)
		}
	}
	return b.err == nil
}

// late sends a batch that does not fill.
func (b *batcher[T]) late() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flush()
}

func (b *batcher[T]) flush() {
	if len(b.results) > 0 && b.err == nil {
		b.err = b.send(b.results)
	}
	b.results = nil
}

// close sends what is left; nothing is sent after it.
func (b *batcher[T]) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timer != nil {
		b.timer.Stop()
	}
	b.flush()
	err := b.err
	if b.err == nil {
		b.err = context.Canceled // for a timer that has just fired
	}
	return err
}

func (p *permissions) LookupResources(r *pembav1.LookupResourcesRequest, out grpc.ServerStreamingServer[pembav1.LookupResourcesResponse]) error {
	ctx := out.Context()
	q, err := p.resourcesQuestion(r)
	if err != nil {
		return err
	}
	filter := proto.CloneOf(r)
	filter.Store, filter.Consistency, filter.Limit, filter.Cursor = "", nil, 0, ""
	s, err := p.lookup(ctx, r, filter)
	if err != nil {
		return err
	}
	defer s.snapshot.Close()
	zookie := s.snapshot.Zookie()
	b, found := lookupBatcher(func(results []*pembav1.LookupResult) error {
		return out.Send(&pembav1.LookupResourcesResponse{Zookie: zookie, Results: results})
	})
	listing, err := graph.LookupResources(ctx, s.snapshot, q, s.now, p.limits.graph(), s.options, found)
	if sent := b.close(); sent != nil || err != nil {
		return firstOf(sent, err)
	}
	return out.Send(&pembav1.LookupResourcesResponse{Zookie: zookie, End: s.end(listing)})
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *permissions) resourcesQuestion(r *pembav1.LookupResourcesRequest) (q graph.ResourcesQuestion, err error) {
	q.Type, q.Permission, q.IDPrefix = r.ResourceType, r.Permission, r.ResourceIdPrefix
	if err := lookupNames("resource_type", q.Type, q.Permission, "resource_id_prefix", q.IDPrefix); err != nil {
		return q, err
	}
	if q.Subject, err = p.asked(r.Subject); err != nil {
		return q, err
	}
	if r.Under != nil {
		o, err := object(r.Under, "under")
		if err != nil {
			return q, err
		}
		q.Under = &o
	}
	if q.Contextual, err = p.contextual(r.ContextualRelationships); err != nil {
		return q, err
	}
	q.Context, err = p.context(r.Context, "context")
	return q, err
}

// lookupNames checks what both lookups name.
func lookupNames(typeField, typ, permission, prefixField, prefix string) error {
	if typ == "" {
		return missing(typeField)
	}
	if err := tuple.CheckType(typ); err != nil {
		return badField(pembav1.ErrorReason_ERROR_REASON_INVALID_OBJECT, typeField, err)
	}
	if _, err := permissionName(permission); err != nil {
		return err
	}
	if err := tuple.CheckIDPrefix(prefix); err != nil {
		return badField(pembav1.ErrorReason_ERROR_REASON_INVALID_OBJECT, prefixField, err)
	}
	return nil
}

func (p *permissions) LookupSubjects(r *pembav1.LookupSubjectsRequest, out grpc.ServerStreamingServer[pembav1.LookupSubjectsResponse]) error {
	ctx := out.Context()
	q, err := p.subjectsQuestion(r)
	if err != nil {
		return err
	}
	filter := proto.CloneOf(r)
	filter.Store, filter.Consistency, filter.Limit, filter.Cursor = "", nil, 0, ""
	s, err := p.lookup(ctx, r, filter)
	if err != nil {
		return err
	}
	defer s.snapshot.Close()
	zookie := s.snapshot.Zookie()
	b, found := lookupBatcher(func(results []*pembav1.LookupResult) error {
		return out.Send(&pembav1.LookupSubjectsResponse{Zookie: zookie, Results: results})
	})
	listing, err := graph.LookupSubjects(ctx, s.snapshot, q, s.now, p.limits.graph(), s.options, found)
	if sent := b.close(); sent != nil || err != nil {
		return firstOf(sent, err)
	}
	return out.Send(&pembav1.LookupSubjectsResponse{Zookie: zookie, End: s.end(listing)})
}

func (p *permissions) subjectsQuestion(r *pembav1.LookupSubjectsRequest) (q graph.SubjectsQuestion, err error) {
	if q.Resource, err = object(r.Resource, "resource"); err != nil {
		return q, err
	}
	q.Permission, q.Type, q.Relation, q.IDPrefix = r.Permission, r.SubjectType, r.SubjectRelation, r.SubjectIdPrefix
	if q.Relation == tuple.Ellipsis {
		q.Relation = ""
	}
	if err := lookupNames("subject_type", q.Type, q.Permission, "subject_id_prefix", q.IDPrefix); err != nil {
		return q, err
	}
	if q.Relation != "" {
		if err := tuple.CheckRelation(q.Relation); err != nil {
			return q, badField(pembav1.ErrorReason_ERROR_REASON_INVALID_RELATION, "subject_relation", err)
		}
	}
	if q.Contextual, err = p.contextual(r.ContextualRelationships); err != nil {
		return q, err
	}
	q.Context, err = p.context(r.Context, "context")
	return q, err
}
