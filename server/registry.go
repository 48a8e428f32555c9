package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

type stores struct {
	pembav1.UnimplementedStoreServiceServer
	*Server
}

type tokens struct {
	pembav1.UnimplementedTokenServiceServer
	*Server
}

// registryPage is how many stores or tokens one answer lists where the caller
// does not say.
const registryPage = 1000

// existing gives "already exists" the reason of a store or token.
func existing(err error, reason pembav1.ErrorReason) error {
	if errors.Is(err, datastore.ErrAlreadyExists) {
		return withReason(codes.AlreadyExists, reason, err.Error())
	}
	return err
}

func (s *stores) CreateStore(ctx context.Context, r *pembav1.CreateStoreRequest) (*pembav1.CreateStoreResponse, error) {
	o, err := s.ds.Write(ctx, datastore.System, datastore.Request{
		ID: r.RequestId, Actor: callerOf(ctx).name, Reason: r.Reason, CreateStore: &datastore.Store{Name: r.Store},
	})
	if err != nil {
		return nil, existing(err, pembav1.ErrorReason_ERROR_REASON_STORE_EXISTS)
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

// window cuts a sorted list to what follows a cursor, the last name given, and
// to a limit.
func window[T any](all []T, name func(T) string, cursor string, limit uint32) (page []T, next string, complete bool) {
	all = slices.DeleteFunc(slices.Clone(all), func(t T) bool { return cursor != "" && name(t) <= cursor })
	if limit == 0 {
		limit = registryPage
	}
	if uint64(len(all)) <= uint64(limit) {
		return all, "", true
	}
	return all[:limit], name(all[limit-1]), false
}

func (s *stores) ListStores(ctx context.Context, r *pembav1.ListStoresRequest) (*pembav1.ListStoresResponse, error) {
	system, err := s.at(ctx, "system", r.Consistency)
	if err != nil {
		return nil, err
	}
	defer system.Close()
	all, err := s.ds.Stores(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(st datastore.Store) bool { return !strings.HasPrefix(st.Name, r.Prefix) })
	page, next, complete := window(all, func(st datastore.Store) string { return st.Name }, r.Cursor, r.Limit)
	out := &pembav1.ListStoresResponse{Zookie: system.Zookie(), Cursor: next, Complete: complete}
	for _, st := range page {
		head, err := s.start(ctx, st)
		if err != nil {
			return nil, err
		}
		out.Stores = append(out.Stores, storeProto(st, head.Revision))
	}
	return out, nil
}

func (s *stores) DeleteStore(ctx context.Context, r *pembav1.DeleteStoreRequest) (*pembav1.DeleteStoreResponse, error) {
	if r.Store == "" {
		return nil, missing("store")
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
	head, err := s.ds.Verify(out.Context(), st.ID)
	if err != nil {
		return err
	}
	return out.Send(&pembav1.VerifyStoreResponse{
		Zookie: head.Zookie(st.ID).String(), Oldest: 1, Verified: uint64(head.Revision), Head: uint64(head.Revision), Complete: true, Hash: head.Hash[:],
	})
}

func (s *tokens) CreateToken(ctx context.Context, r *pembav1.CreateTokenRequest) (*pembav1.CreateTokenResponse, error) {
	if r.Role == pembav1.Role_ROLE_UNSPECIFIED || pembav1.Role_name[int32(r.Role)] == "" {
		return nil, missing("role")
	}
	if r.AllStores == (r.Store != "") {
		return nil, problem(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_TOKEN, "a token is for one store or for all: give store or all_stores")
	}
	var secret [32]byte
	rand.Read(secret[:])
	text := "pemba_" + base64.RawURLEncoding.EncodeToString(secret[:])
	t := &datastore.Token{Name: r.Name, Role: roleName(r.Role), Store: r.Store, Hash: sha256.Sum256([]byte(text))}
	o, err := s.ds.Write(ctx, datastore.System, datastore.Request{ID: r.RequestId, Actor: callerOf(ctx).name, Reason: r.Reason, CreateToken: t})
	if err != nil {
		return nil, existing(err, pembav1.ErrorReason_ERROR_REASON_TOKEN_EXISTS)
	}
	t.Created, t.Actor = o.Time, callerOf(ctx).name
	return &pembav1.CreateTokenResponse{Zookie: o.Zookie, Token: tokenProto(*t), Secret: text}, nil
}

func tokenProto(t datastore.Token) *pembav1.Token {
	return &pembav1.Token{Name: t.Name, Role: roleOf(t.Role), Store: t.Store, Created: timestamppb.New(t.Created), Creator: t.Actor}
}

func (s *tokens) ListTokens(ctx context.Context, r *pembav1.ListTokensRequest) (*pembav1.ListTokensResponse, error) {
	system, err := s.at(ctx, "system", r.Consistency)
	if err != nil {
		return nil, err
	}
	defer system.Close()
	all, err := s.ds.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	if r.Store != nil {
		all = slices.DeleteFunc(all, func(t datastore.Token) bool { return t.Store != *r.Store })
	}
	page, next, complete := window(all, func(t datastore.Token) string { return t.Name }, r.Cursor, r.Limit)
	out := &pembav1.ListTokensResponse{Zookie: system.Zookie(), Cursor: next, Complete: complete}
	for _, t := range page {
		out.Tokens = append(out.Tokens, tokenProto(t))
	}
	return out, nil
}

func (s *tokens) RevokeToken(ctx context.Context, r *pembav1.RevokeTokenRequest) (*pembav1.RevokeTokenResponse, error) {
	if r.Name == "" {
		return nil, missing("name")
	}
	o, err := s.ds.Write(ctx, datastore.System, datastore.Request{ID: r.RequestId, Actor: callerOf(ctx).name, Reason: r.Reason, RevokeToken: r.Name})
	if err != nil {
		return nil, err
	}
	return &pembav1.RevokeTokenResponse{Zookie: o.Zookie}, nil
}
