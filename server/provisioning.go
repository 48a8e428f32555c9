package server

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/provisioning"
	"github.com/pembadb/pemba/tuple"
)

type provisionings struct {
	pembav1.UnimplementedProvisioningServiceServer
	*permissions
}

// maxOperationID leaves room for what the ids of an operation's changes add.
const maxOperationID = 100

// lifecycle is what a request about a user needs.
func (s *provisionings) lifecycle(ctx context.Context, store, id, requestID, reason string, longest int) (*provisioning.Lifecycle, tuple.Object, error) {
	if err := checkRequest(requestID, reason, longest); err != nil {
		return nil, tuple.Object{}, err
	}
	o, err := userObject(id)
	if err != nil {
		return nil, o, err
	}
	st, err := s.store(ctx, store)
	if err != nil {
		return nil, o, err
	}
	return &provisioning.Lifecycle{Datastore: s.ds, Store: st.ID, Actor: callerOf(ctx).name, Reason: reason}, o, nil
}

func userObject(id string) (tuple.Object, error) {
	if id == "" {
		return tuple.Object{}, missing("id")
	}
	o, err := provisioning.UserObject(id)
	if err != nil {
		return o, badField(pembav1.ErrorReason_ERROR_REASON_INVALID_OBJECT, "id", err)
	}
	return o, nil
}

func (s *provisionings) GetUser(ctx context.Context, r *pembav1.GetUserRequest) (*pembav1.GetUserResponse, error) {
	o, err := userObject(r.Id)
	if err != nil {
		return nil, err
	}
	snapshot, _, err := s.at(ctx, r.Store, r.Consistency)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	i, err := provisioning.User(ctx, snapshot, o)
	if err != nil {
		return nil, err
	}
	u := &pembav1.User{Id: o.ID, State: userState(i.State), Revision: uint64(i.Revision)}
	if i.Attributes != "" {
		u.Attributes = jsonStruct(i.Attributes)
	}
	return &pembav1.GetUserResponse{Zookie: snapshot.Zookie(), User: u}, nil
}

func userState(s datastore.IdentityState) pembav1.UserState { return pembav1.UserState(s) }

func (s *provisionings) CreateUser(ctx context.Context, r *pembav1.CreateUserRequest) (*pembav1.CreateUserResponse, error) {
	l, o, err := s.lifecycle(ctx, r.Store, r.Id, r.RequestId, r.Reason, maxRequestID)
	if err != nil {
		return nil, err
	}
	if r.UserName == "" {
		return nil, missing("user_name")
	}
	zookie, err := l.Create(ctx, o, provisioning.Draft{UserName: r.UserName, DisplayName: r.DisplayName, ExternalID: r.ExternalId}, r.RequestId)
	if errors.Is(err, datastore.ErrAlreadyExists) {
		return nil, withFacts(codes.AlreadyExists, pembav1.ErrorReason_ERROR_REASON_USER_EXISTS, err.Error(), datastore.Facts(err))
	}
	if err != nil {
		return nil, err
	}
	return &pembav1.CreateUserResponse{Zookie: zookie}, nil
}

func (s *provisionings) set(ctx context.Context, store, id, requestID, reason string, state datastore.IdentityState) (string, error) {
	l, o, err := s.lifecycle(ctx, store, id, requestID, reason, maxRequestID)
	if err != nil {
		return "", err
	}
	return l.Set(ctx, o, state, requestID)
}

func (s *provisionings) SuspendUser(ctx context.Context, r *pembav1.SuspendUserRequest) (*pembav1.SuspendUserResponse, error) {
	zookie, err := s.set(ctx, r.Store, r.Id, r.RequestId, r.Reason, datastore.Suspended)
	if err != nil {
		return nil, err
	}
	return &pembav1.SuspendUserResponse{Zookie: zookie}, nil
}

func (s *provisionings) ReactivateUser(ctx context.Context, r *pembav1.ReactivateUserRequest) (*pembav1.ReactivateUserResponse, error) {
	zookie, err := s.set(ctx, r.Store, r.Id, r.RequestId, r.Reason, datastore.Active)
	if err != nil {
		return nil, err
	}
	return &pembav1.ReactivateUserResponse{Zookie: zookie}, nil
}

func (s *provisionings) DeleteUser(ctx context.Context, r *pembav1.DeleteUserRequest) (*pembav1.DeleteUserResponse, error) {
	zookie, err := s.set(ctx, r.Store, r.Id, r.RequestId, r.Reason, datastore.Removed)
	if err != nil {
		return nil, err
	}
	return &pembav1.DeleteUserResponse{Zookie: zookie}, nil
}

func (s *provisionings) EraseUser(ctx context.Context, r *pembav1.EraseUserRequest) (*pembav1.EraseUserResponse, error) {
	l, o, err := s.lifecycle(ctx, r.Store, r.Id, r.RequestId, r.Reason, maxRequestID)
	if err != nil {
		return nil, err
	}
	zookie, err := l.Erase(ctx, o, r.RequestId)
	if err != nil {
		return nil, err
	}
	return &pembav1.EraseUserResponse{Zookie: zookie}, nil
}

func (s *provisionings) Offboard(r *pembav1.OffboardRequest, out grpc.ServerStreamingServer[pembav1.OffboardResponse]) error {
	ctx := out.Context()
	l, o, err := s.lifecycle(ctx, r.Store, r.Id, r.OperationId, r.Reason, maxOperationID)
	if err != nil {
		return err
	}
	operation := requestID(r.OperationId)
	tell := func(part provisioning.Offboarded) error {
		m := &pembav1.OffboardResponse{OperationId: operation, Zookie: part.Zookie, State: userState(part.State), Complete: part.Complete}
		for i := range part.Removed {
			m.Removed = append(m.Removed, relationshipProto(&part.Removed[i]))
		}
		return out.Send(m)
	}
	if r.DryRun {
		return l.OffboardDry(ctx, o, tell)
	}
	return l.Offboard(ctx, o, operation, tell)
}
