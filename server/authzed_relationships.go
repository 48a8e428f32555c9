package server

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

func number(text string) int {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0
	}
	return int(n)
}

// authzedListing is a list of relationships for authzed.api.v1.
type authzedListing struct {
	kind        string // keeps the cursors of different methods apart
	consistency *authzedv1.Consistency
	filter      *authzedv1.RelationshipFilter
	all         bool // without a filter's field everything is meant
	cursor      *authzedv1.Cursor
	page        int    // relationships a page
	limit       uint64 // zero: all
}

// listedPage is a page of a list, with a function that gives the cursor behind
// each of its rows.
type listedPage struct {
	zookie string
	rows   []tuple.Relationship
	cursor func(i int) *authzedv1.Cursor
}

// authzedList reads relationships in pages, each bounded in number and bytes.
func (s *Server) authzedList(ctx context.Context, l authzedListing, send func(listedPage) error) error {
	f, err := authzedFilter(l.filter, l.all)
	if err != nil {
		return err
	}
	st, err := s.authzedStore(ctx)
	if err != nil {
		return err
	}
	level, q := authzedConsistency(l.consistency), datastore.QueryFor(f)
	at := cursor{time: tuple.Micros(time.Now()), question: question(l.kind, st.ID, l.filter)}
	if l.cursor != nil {
		if at, err = parseCursor(l.cursor.Token, at.question); err != nil {
			return err
		}
		after, err := at.key()
		if err != nil {
			return err
		}
		level, q.After = datastore.Consistency{Level: datastore.AtExactSnapshot, Zookie: at.zookie}, &after
	}
	snapshot, err := s.ds.At(ctx, st.ID, level)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	if err := filterNames(snapshot.Schema(), f); err != nil {
		return err
	}
	at.zookie = snapshot.Zookie()
	for left := l.limit; ; {
		q.Limit = l.page
		if l.limit > 0 {
			q.Limit = int(min(uint64(l.page), left))
		}
		rows, more, err := readTuples(ctx, snapshot, q, at.time)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return nil
		}
		behind := func(i int) *authzedv1.Cursor {
			c := at
			c.position = rows[i].Key.String()
			return &authzedv1.Cursor{Token: c.String()}
		}
		if err := send(listedPage{at.zookie, rows, behind}); err != nil {
			return err
		}
		left -= min(left, uint64(len(rows)))
		if !more || l.limit > 0 && left == 0 {
			return nil
		}
		q.After = &rows[len(rows)-1].Key
	}
}

// readTuples reads up to q.Limit rows that are alive, and about pageBytes of
// them, and tells whether there are more.
func readTuples(ctx context.Context, s datastore.Snapshot, q datastore.RowQuery, now time.Time) (rows []tuple.Relationship, more bool, err error) {
	want, size := q.Limit, 0
	q.Limit++ // one more tells whether this is all
	err = s.Rows(ctx, q, now, func(r datastore.Row) bool {
		if more = len(rows) == want || size >= pageBytes; !more {
			rows = append(rows, r.Relationship)
			size += len(r.Object.Type) + len(r.Object.ID) + len(r.Relation) + len(r.Subject.Type) + len(r.Subject.ID) + len(r.Caveat.Context) + 32
		}
		return !more
	})
	return rows, more, err
}

func (p *authzedPermissions) ReadRelationships(r *authzedv1.ReadRelationshipsRequest, out grpc.ServerStreamingServer[authzedv1.ReadRelationshipsResponse]) error {
	l := authzedListing{
		kind: "authzed read", consistency: r.Consistency, filter: r.RelationshipFilter, cursor: r.OptionalCursor, page: page, limit: uint64(r.OptionalLimit),
	}
	return p.authzedList(out.Context(), l, func(listed listedPage) error {
		at := zedToken(listed.zookie)
		for first := 0; first < len(listed.rows); first += fewMessages {
			var few messages
			for i := first; i < min(first+fewMessages, len(listed.rows)); i++ {
				few = append(few, &authzedv1.ReadRelationshipsResponse{
					ReadAt: at, Relationship: relationshipOut(&listed.rows[i]), AfterResultCursor: listed.cursor(i),
				})
			}
			if err := out.SendMsg(few); err != nil {
				return err
			}
		}
		return nil
	})
}

// namesOf refuses preconditions and filters that name what the schema in force
// lacks.
func (s *Server) namesOf(ctx context.Context, store datastore.StoreID, ps []datastore.Precondition, filters ...tuple.Filter) error {
	for _, p := range ps {
		filters = append(filters, p.Filter)
	}
	if len(filters) == 0 {
		return nil
	}
	snapshot, err := s.ds.At(ctx, store, datastore.Consistency{Level: datastore.FullyConsistent})
	if err != nil {
		return err
	}
	defer snapshot.Close()
	for _, f := range filters {
		if err := filterNames(snapshot.Schema(), f); err != nil {
			return err
		}
	}
	return nil
}

func (p *authzedPermissions) WriteRelationships(ctx context.Context, r *authzedv1.WriteRelationshipsRequest) (*authzedv1.WriteRelationshipsResponse, error) {
	req := datastore.Request{Actor: callerOf(ctx).name}
	var err error
	if req.Preconditions, err = p.authzedPreconditions(r.OptionalPreconditions); err != nil {
		return nil, err
	}
	if req.Metadata, err = transactionMetadata(r.OptionalTransactionMetadata); err != nil {
		return nil, err
	}
	for i, u := range r.Updates {
		rel, err := p.authzedRelationship(u.Relationship, fmt.Sprintf("updates[%d].relationship", i))
		if err != nil {
			return nil, err
		}
		// The stubs' rules leave these three.
		kind := map[authzedv1.RelationshipUpdate_Operation]datastore.Kind{
			authzedv1.RelationshipUpdate_OPERATION_CREATE: datastore.Create, authzedv1.RelationshipUpdate_OPERATION_TOUCH: datastore.Touch,
			authzedv1.RelationshipUpdate_OPERATION_DELETE: datastore.Delete,
		}[u.Operation]
		req.Updates = append(req.Updates, datastore.Update{Kind: kind, Relationship: rel})
	}
	st, err := p.authzedStore(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.namesOf(ctx, st.ID, req.Preconditions); err != nil {
		return nil, err
	}
	o, err := p.ds.Write(ctx, st.ID, req)
	if err != nil {
		return nil, writeFailed(err, &req, r.OptionalPreconditions)
	}
	return &authzedv1.WriteRelationshipsResponse{WrittenAt: zedToken(o.Zookie)}, nil
}

// writeFailed adds to an error of a write what authzed.api.v1 tells of it.
func writeFailed(err error, req *datastore.Request, ps []*authzedv1.Precondition) error {
	err = preconditionFailed(err, ps)
	if _, ok := err.(statusError); ok {
		return err
	}
	switch datastore.Facts(err)["limit"] {
	case "max-operations":
		return datastore.With(err, "count", strconv.Itoa(len(req.Updates)))
	case "metadata-bytes":
		return datastore.With(err, "count", strconv.Itoa(len(req.Metadata)))
	}
	var broken *schema.RelationshipError
	if errors.As(err, &broken) {
		for _, u := range req.Updates {
			if r := u.Relationship; r.Key.String() == broken.Relationship {
				err = datastore.With(err, "caveat", r.Caveat.Name)
			}
		}
	}
	return err
}

func (p *authzedPermissions) DeleteRelationships(ctx context.Context, r *authzedv1.DeleteRelationshipsRequest) (*authzedv1.DeleteRelationshipsResponse, error) {
	if r.OptionalCursor != nil {
		return nil, authzedProblem(codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_INVALID_CURSOR,
			"a deletion is not resumed by a cursor; send the same request again until it says that it is complete")
	}
	f, err := authzedFilter(r.RelationshipFilter, false)
	if err != nil {
		return nil, err
	}
	req := datastore.Request{Actor: callerOf(ctx).name, DeleteWhere: &f, DeleteLimit: int(r.OptionalLimit)}
	req.DeleteWhole = r.OptionalLimit > 0 && !r.OptionalAllowPartialDeletions
	if req.Preconditions, err = p.authzedPreconditions(r.OptionalPreconditions); err != nil {
		return nil, err
	}
	if req.Metadata, err = transactionMetadata(r.OptionalTransactionMetadata); err != nil {
		return nil, err
	}
	st, err := p.authzedStore(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.namesOf(ctx, st.ID, req.Preconditions, f); err != nil {
		return nil, err
	}
	o, err := p.ds.Write(ctx, st.ID, req)
	if err != nil {
		if _, over := datastore.Facts(err)["limit"]; errors.Is(err, datastore.ErrTooLarge) && req.DeleteWhole && (!over || datastore.Facts(err)["limit"] == "max-change-bytes") {
			return nil, authzedProblem(codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_TOO_MANY_RELATIONSHIPS_FOR_TRANSACTIONAL_DELETE,
				err.Error()+", or set optional_allow_partial_deletions", filterFacts("filter_", r.RelationshipFilter)...)
		}
		return nil, writeFailed(err, &req, r.OptionalPreconditions)
	}
	complete := !o.More
	if o.More {
		if complete, err = p.nothingLeft(ctx, st.ID, f, o.Zookie); err != nil {
			return nil, err
		}
	}
	out := &authzedv1.DeleteRelationshipsResponse{
		DeletedAt: zedToken(o.Zookie), RelationshipsDeletedCount: uint64(o.Deleted),
		DeletionProgress: authzedv1.DeleteRelationshipsResponse_DELETION_PROGRESS_COMPLETE,
	}
	if !complete {
		out.DeletionProgress = authzedv1.DeleteRelationshipsResponse_DELETION_PROGRESS_PARTIAL
	}
	return out, nil
}
