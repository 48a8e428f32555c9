package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/provisioning"
	"github.com/pembadb/pemba/provisioning/scim"
	"github.com/pembadb/pemba/tuple"
)

type provisionings struct {
	pembav1.UnimplementedProvisioningServiceServer
	*permissions
}

// maxOperationID leaves room for what the ids of an operation's changes add.
const maxOperationID = 100

// directory is what a request that changes users or groups needs.
func (s *provisionings) directory(ctx context.Context, store, requestID, reason string) (*provisioning.Directory, error) {
	if err := checkRequest(requestID, reason, maxRequestID); err != nil {
		return nil, err
	}
	st, err := s.store(ctx, store)
	if err != nil {
		return nil, err
	}
	return &provisioning.Directory{Datastore: s.ds, Store: st.ID, Actor: callerOf(ctx).name, Reason: reason}, nil
}

// checkOperationID checks the id of a whole of several changes.
func checkOperationID(id string) error {
	if len(id) > maxOperationID {
		return invalidField("operation_id", "operation_id has %d bytes, more than %d", len(id), maxOperationID)
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] >= 0x7f {
			return invalidField("operation_id", "operation_id %q holds something else than printable ASCII at byte %d", id, i)
		}
	}
	return nil
}

// of is directory for a request about one user or group.
func (s *provisionings) of(ctx context.Context, store, id, requestID, reason string) (*provisioning.Directory, error) {
	if err := checkID("id", id); err != nil {
		return nil, err
	}
	return s.directory(ctx, store, requestID, reason)
}

// checkID refuses what no user or group can have for its id, whatever its type.
func checkID(field, id string) error {
	if id == "" {
		return missing(field)
	}
	if id == tuple.Wildcard {
		return badField(pembav1.ErrorReason_ERROR_REASON_INVALID_OBJECT, field, errors.New("* stands for everybody, and is nobody's id"))
	}
	if err := (tuple.Object{Type: "user", ID: id}).Check(); err != nil {
		return badField(pembav1.ErrorReason_ERROR_REASON_INVALID_OBJECT, field, err)
	}
	return nil
}

// provisioningError gives errors about users or groups their reasons.
func provisioningError(k scim.Kind, err error) error {
	exists, absent := pembav1.ErrorReason_ERROR_REASON_USER_EXISTS, pembav1.ErrorReason_ERROR_REASON_USER_NOT_FOUND
	if k == scim.Group {
		exists, absent = pembav1.ErrorReason_ERROR_REASON_GROUP_EXISTS, pembav1.ErrorReason_ERROR_REASON_GROUP_NOT_FOUND
	}
	switch {
	case err == nil || errors.Is(err, provisioning.ErrNoMember):
		return err
	case errors.Is(err, datastore.ErrAlreadyExists):
		return withFacts(codes.AlreadyExists, exists, err.Error(), datastore.Facts(err))
	case errors.Is(err, datastore.ErrNoIdentity):
		return withFacts(codes.NotFound, absent, err.Error(), datastore.Facts(err))
	}
	return err
}

// objectOf is a struct as SCIM has it; nil for none.
func objectOf(given *structpb.Struct) scim.Object {
	if given == nil {
		return nil
	}
	return given.AsMap()
}

// attributesOf are attributes as the wire has them.
func attributesOf(r *scim.Resource) (*structpb.Struct, error) {
	kept := maps.Clone(r.Attributes)
	delete(kept, "active") // the state says so
	return structpb.NewStruct(kept)
}

// revisionOf is the revision that made a version of a resource.
func revisionOf(r *scim.Resource) uint64 {
	n, _ := strconv.ParseUint(r.Version, 10, 64)
	return n
}

func timeProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func userProto(r *scim.Resource, state datastore.IdentityState) (u *pembav1.User, err error) {
	u = &pembav1.User{Id: r.ID, State: userState(state), Revision: revisionOf(r), Created: timeProto(r.Created), Updated: timeProto(r.Modified)}
	if r.Attributes != nil {
		u.Attributes, err = attributesOf(r)
	}
	return u, err
}

func userState(s datastore.IdentityState) pembav1.UserState { return pembav1.UserState(s) }

func (s *provisionings) GetUser(ctx context.Context, r *pembav1.GetUserRequest) (*pembav1.GetUserResponse, error) {
	if err := checkID("id", r.Id); err != nil {
		return nil, err
	}
	snapshot, _, err := s.people(ctx, r.Store, r.Consistency)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	found, state, err := provisioning.ViewOf(snapshot).Get(ctx, scim.User, r.Id)
	if err != nil {
		return nil, provisioningError(scim.User, err)
	}
	u, err := userProto(found, state)
	return &pembav1.GetUserResponse{Zookie: snapshot.Zookie(), User: u}, err
}

// people is the snapshot of a question about users and groups. One about a time
// before the store had a schema is refused, as nobody can have been there: it is
// surely mistaken.
func (s *provisionings) people(ctx context.Context, store string, c *pembav1.Consistency) (datastore.Snapshot, time.Time, error) {
	snapshot, now, err := s.at(ctx, store, c)
	if err != nil {
		return nil, now, err
	}
	if _, past := c.GetRequirement().(*pembav1.Consistency_AtTime); past && snapshot.Schema() == nil {
		defer snapshot.Close()
		return nil, now, noSchemaAt(snapshot)
	}
	return snapshot, now, nil
}

// noSchemaAt is the error of a question about a store as it was before its first
// schema.
func noSchemaAt(s datastore.Snapshot) error {
	return fmt.Errorf("%w at revision %d; apply one, or ask about a later time", datastore.ErrNoSchema, s.Head().Revision)
}

// identityPage is a page of users, groups or members being made.
type identityPage struct {
	snapshot datastore.Snapshot
	limit    int
	after    string
	now      time.Time
	question [16]byte
}

// pageRequest is what requests for such a page have in common.
type pageRequest interface {
	proto.Message
	GetStore() string
	GetConsistency() *pembav1.Consistency
	GetLimit() uint32
	GetCursor() string
}

// page opens the snapshot of a page: at its consistency, or where its cursor says.
// filter is the request without store, consistency, limit and cursor.
func (s *provisionings) page(ctx context.Context, r, filter pageRequest) (*identityPage, error) {
	st, err := s.store(ctx, r.GetStore())
	if err != nil {
		return nil, err
	}
	p := &identityPage{limit: s.limits.ListResults, now: time.Now(), question: question(string(filter.ProtoReflect().Descriptor().Name()), st.ID, filter)}
	if n := int(r.GetLimit()); n > 0 {
		p.limit = min(n, p.limit)
	}
	if r.GetCursor() == "" {
		p.snapshot, p.now, err = s.people(ctx, r.GetStore(), r.GetConsistency())
		return p, err
	}
	c, err := parseCursor(r.GetCursor(), p.question)
	if err != nil {
		return nil, err
	}
	p.after, p.now = c.position, c.time
	if past, ok := r.GetConsistency().GetRequirement().(*pembav1.Consistency_AtTime); ok {
		p.snapshot, p.now, err = s.past(ctx, st.ID, past.AtTime, c)
		return p, err
	}
	p.snapshot, err = s.snapshot(ctx, st.ID, datastore.Consistency{Level: datastore.AtExactSnapshot, Zookie: c.zookie})
	return p, err
}

// next is the cursor behind a position.
func (p *identityPage) next(position string) string {
	return cursor{zookie: p.snapshot.Zookie(), time: p.now, position: position, question: p.question}.String()
}

// find is the page of the users or groups that a filter matches, and the cursor
// behind it.
func (p *identityPage) find(ctx context.Context, k scim.Kind, text string) (found []*scim.Resource, next string, err error) {
	var filter *scim.Filter
	if text != "" {
		if filter, err = scim.ParseFilter(scim.TypeOf(k), text); err != nil {
			return nil, "", badField(pembav1.ErrorReason_ERROR_REASON_INVALID_FIELD, "filter", err)
		}
	}
	err = provisioning.ViewOf(p.snapshot).Find(ctx, k, filter, p.after, func(r *scim.Resource) bool {
		if len(found) == p.limit {
			next = p.next(found[len(found)-1].ID)
			return false
		}
		found = append(found, r)
		return true
	})
	return found, next, err
}

func (s *provisionings) ListUsers(ctx context.Context, r *pembav1.ListUsersRequest) (*pembav1.ListUsersResponse, error) {
	p, err := s.page(ctx, r, &pembav1.ListUsersRequest{Filter: r.Filter})
	if err != nil {
		return nil, err
	}
	defer p.snapshot.Close()
	found, next, err := p.find(ctx, scim.User, r.Filter)
	if err != nil {
		return nil, err
	}
	out := &pembav1.ListUsersResponse{Zookie: p.snapshot.Zookie(), Cursor: next, Complete: next == ""}
	for _, f := range found {
		u, err := userProto(f, provisioning.StateOf(f))
		if err != nil {
			return nil, err
		}
		out.Users = append(out.Users, u)
	}
	return out, nil
}

// draft is what a user or group is created with.
func draft(k scim.Kind, id string, given *structpb.Struct) (provisioning.Draft, error) {
	required := "userName"
	if k == scim.Group {
		required = "displayName"
	}
	if given.GetFields()[required].GetStringValue() == "" && !slices.ContainsFunc(slices.Collect(maps.Keys(given.GetFields())), func(name string) bool { return scim.Fold(name) == scim.Fold(required) }) {
		return provisioning.Draft{}, missing("attributes." + required)
	}
	attributes, err := scim.Merge(k, nil, objectOf(given), true)
	return provisioning.Draft{ID: id, Attributes: attributes}, err
}

func (s *provisionings) CreateUser(ctx context.Context, r *pembav1.CreateUserRequest) (*pembav1.CreateUserResponse, error) {
	d, err := s.of(ctx, r.Store, r.Id, r.RequestId, r.Reason)
	if err != nil {
		return nil, err
	}
	u, err := draft(scim.User, r.Id, r.Attributes)
	if err != nil {
		return nil, err
	}
	made, err := d.Create(ctx, scim.User, []provisioning.Draft{u}, r.RequestId)
	if err != nil {
		return nil, provisioningError(scim.User, err)
	}
	return &pembav1.CreateUserResponse{Zookie: made[0].Zookie}, nil
}

// change is an update of attributes.
func change(k scim.Kind, given *structpb.Struct, replace bool, expected uint64, requestID string) (provisioning.Change, error) {
	if given == nil {
		return provisioning.Change{}, missing("attributes")
	}
	return provisioning.Change{Revision: datastore.Revision(expected), RequestID: requestID, Attributes: func(now scim.Object) (scim.Object, error) {
		return scim.Merge(k, now, objectOf(given), replace)
	}}, nil
}

func (s *provisionings) UpdateUser(ctx context.Context, r *pembav1.UpdateUserRequest) (*pembav1.UpdateUserResponse, error) {
	d, err := s.of(ctx, r.Store, r.Id, r.RequestId, r.Reason)
	if err != nil {
		return nil, err
	}
	c, err := change(scim.User, r.Attributes, r.Replace, r.ExpectedRevision, r.RequestId)
	if err != nil {
		return nil, err
	}
	w, err := d.Update(ctx, scim.User, r.Id, c)
	if err != nil {
		return nil, provisioningError(scim.User, err)
	}
	u, err := userProto(w.Resource, provisioning.StateOf(w.Resource))
	return &pembav1.UpdateUserResponse{Zookie: w.Zookie, User: u}, err
}

func (s *provisionings) set(ctx context.Context, k scim.Kind, store, id, requestID, reason string, state datastore.IdentityState) (string, error) {
	d, err := s.of(ctx, store, id, requestID, reason)
	if err != nil {
		return "", err
	}
	zookie, err := d.Set(ctx, k, id, state, requestID)
	return zookie, provisioningError(k, err)
}

func (s *provisionings) SuspendUser(ctx context.Context, r *pembav1.SuspendUserRequest) (*pembav1.SuspendUserResponse, error) {
	zookie, err := s.set(ctx, scim.User, r.Store, r.Id, r.RequestId, r.Reason, datastore.Suspended)
	return &pembav1.SuspendUserResponse{Zookie: zookie}, err
}

func (s *provisionings) ReactivateUser(ctx context.Context, r *pembav1.ReactivateUserRequest) (*pembav1.ReactivateUserResponse, error) {
	zookie, err := s.set(ctx, scim.User, r.Store, r.Id, r.RequestId, r.Reason, datastore.Active)
	return &pembav1.ReactivateUserResponse{Zookie: zookie}, err
}

func (s *provisionings) DeleteUser(ctx context.Context, r *pembav1.DeleteUserRequest) (*pembav1.DeleteUserResponse, error) {
	zookie, err := s.set(ctx, scim.User, r.Store, r.Id, r.RequestId, r.Reason, datastore.Removed)
	return &pembav1.DeleteUserResponse{Zookie: zookie}, err
}

func (s *provisionings) erase(ctx context.Context, k scim.Kind, store, id, requestID, reason string) (string, error) {
	d, err := s.of(ctx, store, id, requestID, reason)
	if err != nil {
		return "", err
	}
	zookie, err := d.Erase(ctx, k, id, requestID)
	return zookie, provisioningError(k, err)
}

func (s *provisionings) EraseUser(ctx context.Context, r *pembav1.EraseUserRequest) (*pembav1.EraseUserResponse, error) {
	zookie, err := s.erase(ctx, scim.User, r.Store, r.Id, r.RequestId, r.Reason)
	return &pembav1.EraseUserResponse{Zookie: zookie}, err
}

func (s *provisionings) Offboard(r *pembav1.OffboardRequest, out grpc.ServerStreamingServer[pembav1.OffboardResponse]) error {
	ctx := out.Context()
	if err := checkOperationID(r.OperationId); err != nil {
		return err
	}
	d, err := s.of(ctx, r.Store, r.Id, "", r.Reason)
	if err != nil {
		return err
	}
	operation := requestID(r.OperationId)
	tell := func(part provisioning.Offboarded) error {
		m := &pembav1.OffboardResponse{OperationId: operation, Zookie: part.Zookie, State: userState(part.State), Unknown: part.Unknown, Complete: part.Complete}
		for i := range part.Removed {
			m.Removed = append(m.Removed, relationshipProto(&part.Removed[i]))
		}
		return out.Send(m)
	}
	if r.DryRun {
		return d.OffboardDry(ctx, r.Id, tell)
	}
	return d.Offboard(ctx, r.Id, operation, tell)
}
