package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

type stores struct {
	pembav1.UnimplementedStoreServiceServer
	*Server
}

type tokens struct {
	pembav1.UnimplementedTokenServiceServer
	*Server
}

// registryError gives "already exists" and "not a name" the reasons of a store or
// token.
func registryError(err error, exists, name pembav1.ErrorReason) error {
	switch {
	case errors.Is(err, datastore.ErrAlreadyExists):
		return withFacts(codes.AlreadyExists, exists, err.Error(), datastore.Facts(err))
	case errors.Is(err, datastore.ErrName):
		return withFacts(codes.InvalidArgument, name, err.Error(), datastore.Facts(err))
	}
	return err
}

func (s *stores) CreateStore(ctx context.Context, r *pembav1.CreateStoreRequest) (*pembav1.CreateStoreResponse, error) {
	if r.Store == "" {
		return nil, missing("store")
	}
	if err := checkRequest(r.RequestId, r.Reason, maxRequestID); err != nil {
		return nil, err
	}
	o, err := s.ds.Write(ctx, datastore.System, datastore.Request{
		ID: r.RequestId, Actor: callerOf(ctx).name, Reason: r.Reason, CreateStore: &datastore.Store{Name: r.Store},
	})
	if err != nil {
		return nil, registryError(err, pembav1.ErrorReason_ERROR_REASON_STORE_EXISTS, pembav1.ErrorReason_ERROR_REASON_INVALID_STORE)
	}
	return &pembav1.CreateStoreResponse{Zookie: o.Zookie, Store: storeProto(*o.Store, 0)}, nil
}

func storeProto(s datastore.Store, head datastore.Revision) *pembav1.Store {
	out := &pembav1.Store{Name: s.Name, Id: uint64(s.ID), Head: uint64(head)}
	if !s.Created.IsZero() {
		out.Created = timestamppb.New(s.Created)
	}
	return out
}

// window cuts a sorted list to what follows a cursor and to a limit. kind and
// filter say which list it is.
func (s *Server) window(all []named, kind string, filter proto.Message, text string, limit uint32) (page []named, next string, err error) {
	at := cursor{time: tuple.Micros(time.Now()), question: question(kind, datastore.System, filter)}
	if text != "" {
		if at, err = parseCursor(text, at.question); err != nil {
			return nil, "", err
		}
		from, found := slices.BinarySearchFunc(all, at.position, func(n named, name string) int { return strings.Compare(n.name, name) })
		if found {
			from++
		}
		all = all[from:]
	}
	most := s.limits.ListResults
	if limit > 0 {
		most = int(min(uint64(limit), uint64(most)))
	}
	if len(all) <= most {
		return all, "", nil
	}
	at.zookie, at.position = datastore.Head{}.Zookie(datastore.System).String(), all[most-1].name
	return all[:most], at.String(), nil
}

// named is an entry of a list: its name and its place in the whole.
type named struct {
	name string
	at   int
}

// names numbers the entries that a filter keeps.
func names[T any](all []T, name func(T) string, keep func(T) bool) []named {
	var out []named
	for i, t := range all {
		if keep(t) {
			out = append(out, named{name(t), i})
		}
	}
	return out
}

// ListStores lists the stores of the registry and system, or the one that the
// caller's token is for.
func (s *stores) ListStores(ctx context.Context, r *pembav1.ListStoresRequest) (*pembav1.ListStoresResponse, error) {
	zookie, err := s.systemZookie(ctx, r.Consistency)
	if err != nil {
		return nil, err
	}
	all, err := s.ds.Stores(ctx)
	if err != nil {
		return nil, err
	}
	all = append(all, datastore.Store{ID: datastore.System, Name: "system"})
	slices.SortFunc(all, func(a, b datastore.Store) int { return strings.Compare(a.Name, b.Name) })
	granted := callerOf(ctx).rights
	list := names(all, func(st datastore.Store) string { return st.Name }, func(st datastore.Store) bool {
		return strings.HasPrefix(st.Name, r.Prefix) && granted.knows(st.ID)
	})
	list, next, err := s.window(list, "stores", &pembav1.ListStoresRequest{Prefix: r.Prefix}, r.Cursor, r.Limit)
	if err != nil {
		return nil, err
	}
	out := &pembav1.ListStoresResponse{Zookie: zookie, Cursor: next, Complete: next == ""}
	for _, n := range list {
		head, err := s.ds.Head(ctx, all[n.at].ID)
		if errors.Is(err, datastore.ErrNoStore) {
			continue // it was deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		out.Stores = append(out.Stores, storeProto(all[n.at], head.Revision))
	}
	return out, nil
}

// systemLevel reads at which consistency the store system is asked for.
func (s *Server) systemLevel(c *pembav1.Consistency) (datastore.Consistency, error) {
	level, err := consistency(c)
	if err == nil && level.Level == datastore.AtExactSnapshot {
		err = invalidField("consistency", "the lists of stores, tokens and grants are those of now; ask with another consistency than at_exact_snapshot")
	}
	return level, err
}

// systemZookie is that of the store system, at a consistency. It is asked for by
// callers who may not read that store.
func (s *Server) systemZookie(ctx context.Context, c *pembav1.Consistency) (string, error) {
	level, err := s.systemLevel(c)
	if err != nil {
		return "", err
	}
	snapshot, err := s.ds.At(ctx, datastore.System, level)
	if err != nil {
		return "", err
	}
	defer snapshot.Close()
	return snapshot.Zookie(), nil
}

func (s *stores) DeleteStore(ctx context.Context, r *pembav1.DeleteStoreRequest) (*pembav1.DeleteStoreResponse, error) {
	if r.Store == "" {
		return nil, missing("store")
	}
	if err := checkRequest(r.RequestId, r.Reason, maxRequestID); err != nil {
		return nil, err
	}
	o, err := s.ds.Write(ctx, datastore.System, datastore.Request{ID: r.RequestId, Actor: callerOf(ctx).name, Reason: r.Reason, DeleteStore: r.Store})
	if err != nil {
		return nil, err
	}
	return &pembav1.DeleteStoreResponse{Zookie: o.Zookie}, nil
}

func (s *stores) VerifyStore(r *pembav1.VerifyStoreRequest, out grpc.ServerStreamingServer[pembav1.VerifyStoreResponse]) error {
	st, err := s.store(out.Context(), r.Store)
	if err != nil {
		return err
	}
	message := func(v datastore.Verification, complete bool) *pembav1.VerifyStoreResponse {
		return &pembav1.VerifyStoreResponse{
			Zookie: v.Head.Zookie(st.ID).String(), Oldest: uint64(v.Anchor.Revision) + 1, Verified: uint64(v.Verified),
			Head: uint64(v.Head.Revision), Hash: v.Hash[:], Complete: complete,
			Rows: uint64(v.Rows), OlderRows: uint64(v.Older), OlderSchema: v.OlderSchema,
		}
	}
	last := time.Now()
	v, err := s.ds.Verify(out.Context(), st.ID, func(v datastore.Verification) error {
		if time.Since(last) < verifyEvery {
			return nil
		}
		last = time.Now()
		return out.Send(message(v, false))
	})
	if err != nil {
		return err
	}
	return out.Send(message(v, true))
}

// verifyEvery is how often a verification tells how far it has come.
const verifyEvery = 100 * time.Millisecond

func (s *tokens) CreateToken(ctx context.Context, r *pembav1.CreateTokenRequest) (*pembav1.CreateTokenResponse, error) {
	if r.Name == "" {
		return nil, missing("name")
	}
	if r.Role == pembav1.Role_ROLE_UNSPECIFIED {
		return nil, missing("role")
	}
	if pembav1.Role_name[int32(r.Role)] == "" {
		return nil, withReason(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_TOKEN, fmt.Sprintf("role %d does not exist", r.Role), "token", r.Name)
	}
	if r.AllStores && r.Store != "" {
		return nil, withReason(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_TOKEN, "a token is for one store or for all: give store or all_stores", "token", r.Name)
	}
	if err := checkRequest(r.RequestId, r.Reason, maxRequestID); err != nil {
		return nil, err
	}
	store := r.Store
	if store == "" && !r.AllStores {
		store = "default"
	}
	expires, err := endOf(r.Expires)
	if err != nil {
		return nil, err
	}
	if err := s.narrowing(ctx, r, store); err != nil {
		return nil, err
	}
	text, hash := newSecret()
	t := &datastore.Token{Name: r.Name, Role: roleName(r.Role), Store: store, Hash: hash, Types: r.Types}
	if expires != nil {
		t.Expires = *expires
	}
	o, err := s.ds.Write(ctx, datastore.System, datastore.Request{ID: r.RequestId, Actor: callerOf(ctx).name, Reason: r.Reason, CreateToken: t})
	if err != nil {
		return nil, registryError(err, pembav1.ErrorReason_ERROR_REASON_TOKEN_EXISTS, pembav1.ErrorReason_ERROR_REASON_INVALID_TOKEN)
	}
	if o.Repeated {
		return nil, withReason(codes.AlreadyExists, pembav1.ErrorReason_ERROR_REASON_TOKEN_EXISTS,
			fmt.Sprintf("this request made token %q before, and showed its secret then, which is kept nowhere; if it is lost, revoke the token and make another", r.Name), "token", r.Name)
	}
	made, err := s.token(ctx, *o.Token)
	return &pembav1.CreateTokenResponse{Zookie: o.Zookie, Token: made, Secret: text}, err
}

// narrowing refuses types that a token's role cannot be narrowed to.
func (s *tokens) narrowing(ctx context.Context, r *pembav1.CreateTokenRequest, store string) error {
	if len(r.Types) == 0 {
		return nil
	}
	bad := func(text string) error {
		return withReason(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_TOKEN, text, "token", r.Name)
	}
	if store == "" {
		return bad("a token for all stores cannot be narrowed to types, which are those of one store's schema; name the store")
	}
	for _, t := range r.Types {
		g := datastore.Grant{Caller: datastore.Caller{Kind: datastore.CallerToken, Name: r.Name}, Role: roleName(r.Role), Store: store, Type: t}
		if t == "" {
			return bad("types holds an empty name; leave it out")
		}
		if err := g.Check(); err != nil {
			return bad(err.Error())
		}
	}
	if _, err := s.store(ctx, store); err != nil {
		return err
	}
	return s.typesExist(ctx, store, r.Types...)
}

// token is a token with the types that its role is narrowed to, which its grants
// tell.
func (s *tokens) token(ctx context.Context, t datastore.Token) (*pembav1.Token, error) {
	if t.Role != "" {
		return tokenProto(t), nil
	}
	system, err := s.ds.At(ctx, datastore.System, datastore.Consistency{})
	if err != nil {
		return nil, err
	}
	defer system.Close()
	all, err := s.allGrants(ctx, system, func(g datastore.Grant) bool {
		return g.Caller == datastore.Caller{Kind: datastore.CallerToken, Name: t.Name}
	})
	return narrowed(t, all), err
}

// narrowed is a token without a role of its own: its grants on types of its store
// tell which it was made with.
func narrowed(t datastore.Token, grants []listed) *pembav1.Token {
	out := tokenProto(t)
	for _, g := range grants {
		if g.Caller.Name == t.Name && g.Caller.Kind == datastore.CallerToken && g.StoreID == t.StoreID && g.Type != "" {
			out.Role = max(out.Role, roleOf(g.Role))
			out.Types = append(out.Types, g.Type)
		}
	}
	out.Types = slices.Compact(out.Types)
	return out
}

// newSecret draws a token's secret of 256 bits, and its hash.
func newSecret() (text string, hash [32]byte) {
	var secret [32]byte
	rand.Read(secret[:]) // never fails
	text = "pemba_" + base64.RawURLEncoding.EncodeToString(secret[:])
	return text, sha256.Sum256([]byte(text))
}

// endOf is when a token ends; nil: a request does not say.
func endOf(t *timestamppb.Timestamp) (*time.Time, error) {
	if t == nil {
		return nil, nil
	}
	if err := t.CheckValid(); err != nil {
		return nil, invalidField("expires", "expires is no time: %v", err)
	}
	at := tuple.Micros(t.AsTime())
	return &at, nil
}

// longestOverlap bounds how long two secrets of a token are valid.
const longestOverlap = 366 * 24 * time.Hour

// RotateToken implements [pembav1.TokenServiceServer].
func (s *tokens) RotateToken(ctx context.Context, r *pembav1.RotateTokenRequest) (*pembav1.RotateTokenResponse, error) {
	if r.Name == "" {
		return nil, missing("name")
	}
	if err := checkRequest(r.RequestId, r.Reason, maxRequestID); err != nil {
		return nil, err
	}
	rotation := &datastore.Rotation{Name: r.Name}
	if r.Overlap != nil {
		rotation.Overlap = r.Overlap.AsDuration()
		if r.Overlap.CheckValid() != nil || rotation.Overlap < 0 || rotation.Overlap > longestOverlap {
			return nil, invalidField("overlap", "an overlap of %s is not between 0 and a year", rotation.Overlap)
		}
	}
	var err error
	if rotation.Expires, err = endOf(r.Expires); err != nil {
		return nil, err
	}
	var text string
	text, rotation.Hash = newSecret()
	o, err := s.ds.Write(ctx, datastore.System, datastore.Request{ID: r.RequestId, Actor: callerOf(ctx).name, Reason: r.Reason, RotateToken: rotation})
	if err != nil {
		return nil, registryError(err, pembav1.ErrorReason_ERROR_REASON_TOKEN_EXISTS, pembav1.ErrorReason_ERROR_REASON_INVALID_TOKEN)
	}
	if o.Repeated {
		return nil, withReason(codes.AlreadyExists, pembav1.ErrorReason_ERROR_REASON_TOKEN_EXISTS,
			fmt.Sprintf("this request gave token %q another secret before, and showed it then; it is kept nowhere; if it is lost, rotate the token once more", r.Name), "token", r.Name)
	}
	made, err := s.token(ctx, *o.Token)
	return &pembav1.RotateTokenResponse{Zookie: o.Zookie, Token: made, Secret: text}, err
}

func tokenProto(t datastore.Token) *pembav1.Token {
	out := &pembav1.Token{Name: t.Name, Role: roleOf(t.Role), Store: t.Store, Created: timestamppb.New(t.Created), Creator: t.Actor, Expires: timeProto(t.Expires)}
	if time.Now().Before(t.OlderUntil) {
		out.OverlapUntil = timestamppb.New(t.OlderUntil)
	}
	return out
}

func (s *tokens) ListTokens(ctx context.Context, r *pembav1.ListTokensRequest) (*pembav1.ListTokensResponse, error) {
	zookie, err := s.systemZookie(ctx, r.Consistency)
	if err != nil {
		return nil, err
	}
	var only datastore.StoreID
	if r.Store != nil {
		st, err := s.store(ctx, *r.Store)
		if err != nil {
			return nil, err
		}
		only = st.ID
	}
	all, err := s.ds.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	list := names(all, func(t datastore.Token) string { return t.Name }, func(t datastore.Token) bool {
		return only == 0 || t.StoreID == 0 || t.StoreID == only
	})
	list, next, err := s.window(list, "tokens", &pembav1.ListTokensRequest{Store: r.Store}, r.Cursor, r.Limit)
	if err != nil {
		return nil, err
	}
	out := &pembav1.ListTokensResponse{Zookie: zookie, Cursor: next, Complete: next == ""}
	grants, err := s.narrowGrants(ctx, all)
	if err != nil {
		return nil, err
	}
	for _, n := range list {
		t := tokenProto(all[n.at])
		if all[n.at].Role == "" {
			t = narrowed(all[n.at], grants)
		}
		out.Tokens = append(out.Tokens, t)
	}
	return out, nil
}

// narrowGrants are the grants to tokens, where one of them needs them.
func (s *tokens) narrowGrants(ctx context.Context, all []datastore.Token) ([]listed, error) {
	if !slices.ContainsFunc(all, func(t datastore.Token) bool { return t.Role == "" }) {
		return nil, nil
	}
	system, err := s.ds.At(ctx, datastore.System, datastore.Consistency{})
	if err != nil {
		return nil, err
	}
	defer system.Close()
	return s.allGrants(ctx, system, func(g datastore.Grant) bool { return g.Caller.Kind == datastore.CallerToken })
}

func (s *tokens) RevokeToken(ctx context.Context, r *pembav1.RevokeTokenRequest) (*pembav1.RevokeTokenResponse, error) {
	if r.Name == "" {
		return nil, missing("name")
	}
	if err := checkRequest(r.RequestId, r.Reason, maxRequestID); err != nil {
		return nil, err
	}
	o, err := s.ds.Write(ctx, datastore.System, datastore.Request{ID: r.RequestId, Actor: callerOf(ctx).name, Reason: r.Reason, RevokeToken: r.Name})
	if err != nil {
		return nil, err
	}
	return &pembav1.RevokeTokenResponse{Zookie: o.Zookie}, nil
}
