package peers

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/dispatch"
	peerv1 "github.com/pembadb/pemba/proto/pemba/peer/v1"
	"github.com/pembadb/pemba/tuple"
)

// maxMessage bounds what peers tell one another at once, in bytes.
const maxMessage = 64 << 20

// maxQueries bounds what a peer may ask at once.
const maxQueries = 50_000

// Server answers peers.
type Server struct {
	peerv1.UnimplementedPeerServiceServer
	ring  *Ring
	cache *dispatch.Cache
	open  func(context.Context, datastore.StoreID) error
	grpc  *grpc.Server
}

// NewServer returns the server of this node: it answers from cache. open makes a
// store known to the node, which it may not be before its first question.
func NewServer(r *Ring, cache *dispatch.Cache, open func(context.Context, datastore.StoreID) error) *Server {
	s := &Server{ring: r, cache: cache, open: open}
	s.grpc = grpc.NewServer(r.config.Credentials.serve(), grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage))
	peerv1.RegisterPeerServiceServer(s.grpc, s)
	return s
}

// GRPC is the server to serve with.
func (s *Server) GRPC() *grpc.Server { return s.grpc }

// Hello implements the service.
func (s *Server) Hello(context.Context, *peerv1.HelloRequest) (*peerv1.HelloResponse, error) {
	return &peerv1.HelloResponse{Node: s.ring.node}, nil
}

// Read implements the service.
func (s *Server) Read(ctx context.Context, in *peerv1.ReadRequest) (*peerv1.ReadResponse, error) {
	at := dispatch.PeerPosition{Store: datastore.StoreID(in.Store), Revision: datastore.Revision(in.Revision)}
	if len(in.Incarnation) != len(at.Incarnation) || len(in.Hash) != len(at.Hash) || len(in.Queries) > maxQueries {
		return nil, status.Error(codes.InvalidArgument, "no request of a peer of this version")
	}
	copy(at.Incarnation[:], in.Incarnation)
	copy(at.Hash[:], in.Hash)
	qs := make([]datastore.RowQuery, len(in.Queries))
	for i, q := range in.Queries {
		if q == nil || q.Limit == 0 {
			return nil, status.Error(codes.InvalidArgument, "a query without a limit")
		}
		qs[i] = queryOf(q)
	}
	ctx, end := receiveTrace(ctx)
	defer end()
	rows, err := s.cache.Serve(ctx, at, qs)
	if errors.Is(err, dispatch.ErrUnknownPosition) {
		if err := s.open(ctx, at.Store); err != nil {
			return nil, status.Error(codes.FailedPrecondition, err.Error())
		}
		rows, err = s.cache.Serve(ctx, at, qs)
	}
	switch {
	case errors.Is(err, dispatch.ErrUnknownPosition):
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, datastore.ErrOverloaded):
		return nil, status.Error(codes.ResourceExhausted, err.Error())
	case ctx.Err() != nil:
		return nil, status.FromContextError(ctx.Err()).Err()
	case err != nil:
		return nil, status.Error(codes.Aborted, err.Error())
	}
	answers := make([]*peerv1.Rows, len(rows))
	for i := range rows {
		answers[i] = answerOf(rows[i], &qs[i])
	}
	return &peerv1.ReadResponse{Answers: answers}, nil
}

// broken reports whether an error says that a peer cannot be asked, and not that
// it declines, or that the asker left.
func broken(ctx context.Context, err error) bool {
	switch status.Code(err) {
	case codes.FailedPrecondition, codes.ResourceExhausted, codes.Aborted, codes.InvalidArgument:
		return false
	}
	return ctx.Err() == nil
}

func requestOf(at dispatch.PeerPosition, qs []datastore.RowQuery) *peerv1.ReadRequest {
	in := &peerv1.ReadRequest{
		Store: uint64(at.Store), Incarnation: at.Incarnation[:], Revision: uint64(at.Revision), Hash: at.Hash[:],
		Queries: make([]*peerv1.Query, len(qs)),
	}
	for i, q := range qs {
		f := q.Filter
		in.Queries[i] = &peerv1.Query{
			BySubject: q.BySubject, ObjectType: f.ObjectType, ObjectId: f.ObjectID, Relation: f.Relation,
			SubjectType: f.Subject.Type, SubjectId: f.Subject.ID, SubjectRelation: f.Subject.Relation, Limit: uint32(q.Limit),
		}
	}
	return in
}

func queryOf(q *peerv1.Query) datastore.RowQuery {
	return datastore.RowQuery{BySubject: q.BySubject, Limit: int(q.Limit), Filter: tuple.Filter{
		ObjectType: q.ObjectType, ObjectID: q.ObjectId, Relation: q.Relation,
		Subject: tuple.SubjectFilter{Type: q.SubjectType, ID: q.SubjectId, Relation: q.SubjectRelation},
	}}
}

// fixed is what a query says of every row.
func fixed(q *datastore.RowQuery) [6]string {
	f := q.Filter
	v := [6]string{f.ObjectType, f.ObjectID, f.Relation, f.Subject.Type, f.Subject.ID, f.Subject.Relation}
	if v[5] == tuple.Ellipsis {
		v[5] = ""
	}
	return v
}

// answerOf leaves out of rows what the query fixes.
func answerOf(rows []datastore.Row, q *datastore.RowQuery) *peerv1.Rows {
	out := &peerv1.Rows{Rows: make([]*peerv1.Row, len(rows))}
	same := fixed(q)
	for i := range rows {
		r := &rows[i]
		row := &peerv1.Row{
			ObjectType: r.Object.Type, ObjectId: r.Object.ID, Relation: r.Relation,
			SubjectType: r.Subject.Type, SubjectId: r.Subject.ID, SubjectRelation: r.Subject.Relation,
			Caveat: r.Caveat.Name, Context: r.Caveat.Context,
		}
		for j, part := range []*string{&row.ObjectType, &row.ObjectId, &row.Relation, &row.SubjectType, &row.SubjectId, &row.SubjectRelation} {
			if *part == same[j] {
				*part = ""
			}
		}
		if !r.Expiration.IsZero() {
			row.Expiration = r.Expiration.UnixMicro()
		}
		out.Rows[i] = row
	}
	return out
}

func rowsOf(answer *peerv1.Rows, q *datastore.RowQuery) []datastore.Row {
	rows := make([]datastore.Row, len(answer.GetRows()))
	same := fixed(q)
	or := func(text string, i int) string {
		if text == "" {
			return same[i]
		}
		return text
	}
	for i, in := range answer.GetRows() {
		r := &rows[i]
		r.Object = tuple.Object{Type: or(in.GetObjectType(), 0), ID: or(in.GetObjectId(), 1)}
		r.Relation = or(in.GetRelation(), 2)
		r.Subject = tuple.Subject{Object: tuple.Object{Type: or(in.GetSubjectType(), 3), ID: or(in.GetSubjectId(), 4)}, Relation: or(in.GetSubjectRelation(), 5)}
		r.Caveat = tuple.Caveat{Name: in.GetCaveat(), Context: in.GetContext()}
		if in.GetExpiration() != 0 {
			r.Expiration = time.UnixMicro(in.GetExpiration()).UTC()
		}
	}
	return rows
}
