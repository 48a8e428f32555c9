package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

const offboardSchema = `definition user { relation manager: user }
definition group { relation member: user | group#member }
definition document { relation viewer: user | user:* | group#member  permission view = viewer }`

// created makes a user as SCIM does.
func (n *node) created(t testing.TB, id string) {
	t.Helper()
	attributes := fmt.Sprintf(`{"meta":{"created":"2026-01-01T00:00:00Z","lastModified":"2026-01-01T00:00:00Z"},"userName":"%s@example.com"}`, id)
	_, err := n.keeper.Write(t.Context(), datastore.Default, datastore.Request{Identities: []datastore.IdentityUpdate{{
		Object: tuple.Object{Type: "user", ID: id}, Kind: datastore.User, State: datastore.Active, Attributes: attributes,
		Keys: []datastore.IdentityKey{{Name: "userName", Value: id + "@example.com", Unique: true}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
}

// views answers whether a user may view a document at a zookie.
func (n *node) views(t testing.TB, user, document, zookie string) bool {
	t.Helper()
	r, err := n.permissions.Check(t.Context(), &pembav1.CheckRequest{
		Consistency: &pembav1.Consistency{Requirement: &pembav1.Consistency_AtLeastAsFresh{AtLeastAsFresh: zookie}},
		Resource:    &pembav1.Object{Type: "document", Id: document}, Permission: "view", Subject: &pembav1.Subject{Type: "user", Id: user},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r.Answer == pembav1.Answer_ANSWER_HAS_PERMISSION
}

func TestAUserIsSuspendedReactivatedDeletedAndErased(t *testing.T) {
	n := documents(t, offboardSchema)
	users, ctx := pembav1.NewProvisioningServiceClient(n.conn), t.Context()
	n.created(t, "ada")
	n.write(t, "group:eng#member@user:ada", "document:d#viewer@group:eng#member", "document:open#viewer@user:*", "document:own#viewer@user:ada")
	show := func(want pembav1.UserState, name string) {
		t.Helper()
		r, err := users.GetUser(ctx, &pembav1.GetUserRequest{Id: "ada", Consistency: &pembav1.Consistency{Requirement: &pembav1.Consistency_FullyConsistent{FullyConsistent: true}}})
		if err != nil || r.User.State != want || r.User.Attributes.GetFields()["userName"].GetStringValue() != name {
			t.Errorf("the user is %v, %v; want %v, %q", r, err, want, name)
		}
	}
	for range 2 { // the second time nothing is written
		r, err := users.SuspendUser(ctx, &pembav1.SuspendUserRequest{Id: "ada", RequestId: "s1", Reason: "on leave"})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range []string{"d", "open", "own"} {
			if n.views(t, "ada", d, r.Zookie) {
				t.Errorf("suspended, she views %s", d)
			}
		}
	}
	show(pembav1.UserState_USER_STATE_SUSPENDED, "ada@example.com")
	back, err := users.ReactivateUser(ctx, &pembav1.ReactivateUserRequest{Id: "ada"})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"d", "open", "own"} {
		if !n.views(t, "ada", d, back.Zookie) {
			t.Errorf("reactivated, she does not view %s", d)
		}
	}
	show(pembav1.UserState_USER_STATE_ACTIVE, "ada@example.com")
	_, err = users.SuspendUser(ctx, &pembav1.SuspendUserRequest{Id: "ada", RequestId: "s1", Reason: "on leave"})
	expect(t, "suspending a later version under an id that was used", err, codes.AlreadyExists, "REQUEST_ID_REUSED")
	if text := err.Error(); !strings.Contains(text, `request id "s1" was used for user:ada in revision 4: what was asked then was done then`) || strings.Contains(text, "another request") || fact(err, "revision") != "4" {
		t.Errorf("a retry that comes late is told %v", err)
	}
	_, err = users.CreateUser(ctx, &pembav1.CreateUserRequest{Id: "bob", RequestId: "s1", Attributes: attributes(t, `{"userName":"bob"}`)})
	expect(t, "another user under an id that was used", err, codes.AlreadyExists, "REQUEST_ID_REUSED")
	if !strings.Contains(err.Error(), "another request") {
		t.Errorf("another request is told %v", err)
	}
	_, err = users.EraseUser(ctx, &pembav1.EraseUserRequest{Id: "ada"})
	expect(t, "erasing an active user", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	gone, err := users.DeleteUser(ctx, &pembav1.DeleteUserRequest{Id: "ada"})
	if err != nil {
		t.Fatal(err)
	}
	if n.views(t, "ada", "d", gone.Zookie) || n.views(t, "ada", "open", gone.Zookie) {
		t.Error("removed, she views documents")
	}
	show(pembav1.UserState_USER_STATE_REMOVED, "")
	_, err = users.ReactivateUser(ctx, &pembav1.ReactivateUserRequest{Id: "ada"})
	expect(t, "reactivating a removed user", err, codes.NotFound, "USER_NOT_FOUND")
	if _, err = users.EraseUser(ctx, &pembav1.EraseUserRequest{Id: "ada"}); err != nil {
		t.Error(err)
	}
	n.created(t, "ada") // which restores no membership, and leaves what else was hers
	again := n.write(t, "document:x#viewer@user:bob").Zookie
	if n.views(t, "ada", "d", again) || !n.views(t, "ada", "own", again) {
		t.Error("created again, she has her membership back, or lost what is her own")
	}
	for what, id := range map[string]string{"a user who never was": "nobody"} {
		_, err = users.SuspendUser(ctx, &pembav1.SuspendUserRequest{Id: id})
		expect(t, what, err, codes.NotFound, "USER_NOT_FOUND")
	}
	_, err = users.SuspendUser(ctx, &pembav1.SuspendUserRequest{})
	expect(t, "no id", err, codes.InvalidArgument, "MISSING_FIELD")
	for _, id := range []string{"*", "a b"} {
		_, err = users.GetUser(ctx, &pembav1.GetUserRequest{Id: id})
		expect(t, "the id "+id, err, codes.InvalidArgument, "INVALID_OBJECT")
	}
}

// offboard returns what went, its end, and the error that broke it off.
func offboard(ctx context.Context, n *node, r *pembav1.OffboardRequest) (removed []string, end *pembav1.OffboardResponse, err error) {
	stream, err := pembav1.NewProvisioningServiceClient(n.conn).Offboard(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return removed, end, nil
		}
		if err != nil {
			return removed, end, err
		}
		for _, gone := range m.Removed {
			removed = append(removed, gone.Resource.Type+":"+gone.Resource.Id+"#"+gone.Relation+"@"+gone.Subject.Type+":"+gone.Subject.Id)
		}
		end = m
	}
}

func TestOffboardingEndsAllAccessAndTellsOfIt(t *testing.T) {
	const many = 2500
	for _, known := range []bool{true, false} {
		n := documents(t, offboardSchema)
		if known {
			n.created(t, "eve")
		}
		fill(t, n, many, func(i int) *pembav1.Relationship {
			return relationship("document", fmt.Sprintf("d%04d", i), "viewer", "user", "eve")
		})
		wrote := n.write(t, "group:eng#member@user:eve", "user:eve#manager@user:ada", "user:bob#manager@user:eve", "document:open#viewer@user:*", "document:d1#viewer@user:bob").Zookie
		before, _, err := offboard(t.Context(), n, &pembav1.OffboardRequest{Id: "eve", DryRun: true})
		if err != nil || len(before) != many+3 || !n.views(t, "eve", "d0001", wrote) {
			t.Fatalf("a dry run tells of %d, %v", len(before), err)
		}
		removed, end, err := offboard(t.Context(), n, &pembav1.OffboardRequest{Id: "eve", OperationId: "op", Reason: "left"})
		want := pembav1.UserState_USER_STATE_SUSPENDED
		if !known {
			want = pembav1.UserState_USER_STATE_REMOVED
		}
		if err != nil || !end.Complete || end.State != want || len(removed) != many+3 {
			t.Fatalf("known %t: %d removed, %v, %v", known, len(removed), end, err)
		}
		for _, d := range []string{"d0001", "open"} {
			if n.views(t, "eve", d, end.Zookie) {
				t.Errorf("known %t: offboarded, she views %s", known, d)
			}
		}
		if !n.views(t, "bob", "d1", end.Zookie) {
			t.Error("another lost access")
		}
		same, end, err := offboard(t.Context(), n, &pembav1.OffboardRequest{Id: "eve", OperationId: "op", Reason: "left"})
		if err != nil || len(same) != len(removed) || end.State != want {
			t.Errorf("known %t: repeated, it tells of %d, %v, %v", known, len(same), end, err)
		}
		_, _, err = offboard(t.Context(), n, &pembav1.OffboardRequest{Id: "bob", OperationId: "op", Reason: "left"})
		expect(t, "the id of another operation", err, codes.AlreadyExists, "REQUEST_ID_REUSED")
	}
}
