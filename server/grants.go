package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

// grantings serves GrantService.
type grantings struct {
	pembav1.UnimplementedGrantServiceServer
	*Server
}

// grantRequest is what requests that add and remove grants have in common.
type grantRequest interface {
	GetCaller() string
	GetRole() pembav1.Role
	GetStore() string
	GetAllStores() bool
	GetType() string
	GetRequestId() string
	GetReason() string
}

// grant reads the grant that a request is about.
func (s *grantings) grant(ctx context.Context, r grantRequest) (g datastore.Grant, err error) {
	if r.GetCaller() == "" {
		return g, missing("caller")
	}
	if r.GetRole() == pembav1.Role_ROLE_UNSPECIFIED {
		return g, missing("role")
	}
	if g.Caller, err = datastore.ParseCaller(r.GetCaller()); err != nil {
		return g, grantError(err)
	}
	g.Role, g.Type, g.Store = roleName(r.GetRole()), r.GetType(), r.GetStore()
	if r.GetAllStores() && (g.Store != "" || g.Type != "") {
		return g, withReason(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_GRANT, "a grant is on one store, or a type of it, or on all: give store or all_stores", "role", g.Role)
	}
	if g.Store == "" && !r.GetAllStores() {
		g.Store = "default"
	}
	if err := g.Check(); err != nil {
		return g, grantError(err)
	}
	if g.Store != "" {
		if _, err := s.store(ctx, g.Store); err != nil {
			return g, err
		}
	}
	return g, checkRequest(r.GetRequestId(), r.GetReason(), maxRequestID)
}

// grantError gives what is wrong with a grant its reason.
func grantError(err error) error {
	switch {
	case errors.Is(err, datastore.ErrNoGrant):
		return withFacts(codes.NotFound, pembav1.ErrorReason_ERROR_REASON_GRANT_NOT_FOUND, err.Error(), datastore.Facts(err))
	case errors.Is(err, datastore.ErrInvalid):
		return withFacts(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_GRANT, err.Error(), datastore.Facts(err))
	}
	return err
}

// AddGrant implements [pembav1.GrantServiceServer].
func (s *grantings) AddGrant(ctx context.Context, r *pembav1.AddGrantRequest) (*pembav1.AddGrantResponse, error) {
	g, err := s.grant(ctx, r)
	if err != nil {
		return nil, err
	}
	if g.Type != "" {
		if err := s.typesExist(ctx, g.Store, g.Type); err != nil {
			return nil, err
		}
	}
	expires, err := endOf(r.Expires)
	if err != nil {
		return nil, err
	}
	if expires != nil {
		g.Expires = *expires
	}
	o, err := s.ds.Write(ctx, datastore.System, datastore.Request{ID: r.RequestId, Actor: callerOf(ctx).name, Reason: r.Reason, AddGrant: &g})
	if err != nil {
		return nil, grantError(err)
	}
	return &pembav1.AddGrantResponse{Zookie: o.Zookie}, nil
}

// typesExist refuses types that the schema of a store lacks: nobody would notice
// that a grant on a misspelt one allows nothing.
func (s *Server) typesExist(ctx context.Context, store string, types ...string) error {
	st, err := s.ds.StoreByName(ctx, store)
	if err != nil {
		return err
	}
	snapshot, err := s.ds.At(ctx, st.ID, datastore.Consistency{Level: datastore.FullyConsistent})
	if err != nil {
		return err
	}
	defer snapshot.Close()
	for _, t := range types {
		if compiled := snapshot.Schema(); compiled != nil && compiled.Definition(t) == nil {
			return withReason(codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_UNKNOWN_TYPE,
				fmt.Sprintf("the schema of store %s has no definition %q; correct the type, or apply the schema first", store, shortened(t, 80)), "type", shortened(t, 80))
		}
	}
	return nil
}

// RemoveGrant implements [pembav1.GrantServiceServer].
func (s *grantings) RemoveGrant(ctx context.Context, r *pembav1.RemoveGrantRequest) (*pembav1.RemoveGrantResponse, error) {
	g, err := s.grant(ctx, r)
	if err != nil {
		return nil, err
	}
	o, err := s.ds.Write(ctx, datastore.System, datastore.Request{ID: r.RequestId, Actor: callerOf(ctx).name, Reason: r.Reason, RemoveGrant: &g})
	if err != nil {
		return nil, grantError(err)
	}
	return &pembav1.RemoveGrantResponse{Zookie: o.Zookie}, nil
}

// listed is a grant in a list.
type listed struct {
	datastore.Grant
	ofToken bool
}

// key orders grants and is where a cursor stands. What parts have in them never
// comes before what ends them.
func (l *listed) key() string {
	return strings.Join([]string{l.Caller.String(), l.Store, l.Type, strconv.Itoa(slices.Index(datastore.Roles, l.Role)), strconv.FormatBool(l.ofToken)}, "\x00")
}

func (l *listed) message() *pembav1.Grant {
	out := &pembav1.Grant{Caller: l.Caller.String(), Role: roleOf(l.Role), Store: l.Store, Type: l.Type, OfToken: l.ofToken}
	if !l.Expires.IsZero() {
		out.Expires = timestamppb.New(l.Expires)
	}
	return out
}

// allGrants reads what is granted at a revision of the store system, to callers
// that keep picks, in order.
func (s *Server) allGrants(ctx context.Context, system datastore.Snapshot, keep func(datastore.Grant) bool) ([]listed, error) {
	stores, err := s.ds.Stores(ctx)
	if err != nil {
		return nil, err
	}
	nameOf := map[datastore.StoreID]string{0: ""}
	for _, st := range stores {
		nameOf[st.ID] = st.Name
	}
	var out []listed
	add := func(g datastore.Grant, ofToken bool) {
		name, ok := nameOf[g.StoreID]
		if g.Store = name; ok && keep(g) { // else it goes with its store
			out = append(out, listed{g, ofToken})
		}
	}
	query := datastore.RowQuery{Filter: tuple.Filter{ObjectType: datastore.ScopeType}}
	if err := system.Rows(ctx, query, time.Now(), func(row datastore.Row) bool {
		add(datastore.GrantOf(row.Relationship), false)
		return true
	}); err != nil {
		return nil, err
	}
	tokens, err := s.ds.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	for _, t := range tokens {
		if own := ownGrant(&t); own != nil {
			own.Expires = t.Expires
			add(*own, true)
		}
	}
	slices.SortFunc(out, func(a, b listed) int { return cmp.Compare(a.key(), b.key()) })
	return out, nil
}

// ListGrants implements [pembav1.GrantServiceServer].
func (s *grantings) ListGrants(ctx context.Context, r *pembav1.ListGrantsRequest) (*pembav1.ListGrantsResponse, error) {
	level, err := s.systemLevel(r.Consistency)
	if err != nil {
		return nil, err
	}
	only := datastore.Caller{}
	if r.Caller != "" {
		if only, err = datastore.ParseCaller(r.Caller); err != nil {
			return nil, grantError(err)
		}
	}
	var store *datastore.Store
	if r.Store != nil {
		st, err := s.store(ctx, *r.Store)
		if err != nil {
			return nil, err
		}
		store = &st
	}
	system, err := s.ds.At(ctx, datastore.System, level)
	if err != nil {
		return nil, err
	}
	defer system.Close()
	all, err := s.allGrants(ctx, system, func(g datastore.Grant) bool {
		return (r.Caller == "" || g.Caller == only) && (store == nil || g.StoreID == 0 || g.StoreID == store.ID)
	})
	if err != nil {
		return nil, err
	}
	list := names(all, func(l listed) string { return l.key() }, func(listed) bool { return true })
	list, next, err := s.window(list, "grants", &pembav1.ListGrantsRequest{Caller: r.Caller, Store: r.Store}, r.Cursor, r.Limit)
	if err != nil {
		return nil, err
	}
	out := &pembav1.ListGrantsResponse{Zookie: system.Zookie(), Cursor: next, Complete: next == ""}
	for _, n := range list {
		out.Grants = append(out.Grants, all[n.at].message())
	}
	return out, nil
}

// GetCaller implements [pembav1.GrantServiceServer].
func (s *grantings) GetCaller(ctx context.Context, _ *pembav1.GetCallerRequest) (*pembav1.GetCallerResponse, error) {
	c := callerOf(ctx)
	out := &pembav1.GetCallerResponse{Actor: c.name, Groups: splitGroups(c.person.groups)}
	if c.person.caller.Kind == "" {
		out.Grants = []*pembav1.Grant{{Caller: c.name, Role: pembav1.Role_ROLE_ADMIN}}
		return out, nil
	}
	system, err := s.ds.At(ctx, datastore.System, datastore.Consistency{})
	if err != nil {
		return nil, err
	}
	defer system.Close()
	mine, err := s.allGrants(ctx, system, func(g datastore.Grant) bool {
		return g.Caller == c.person.caller || g.Caller.Kind == datastore.CallerGroup && slices.Contains(out.Groups, g.Caller.Name)
	})
	for _, g := range mine {
		out.Grants = append(out.Grants, g.message())
	}
	return out, err
}
