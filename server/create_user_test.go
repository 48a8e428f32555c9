package server_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

// attributes reads a JSON object.
func attributes(t testing.TB, text string) *structpb.Struct {
	t.Helper()
	s := &structpb.Struct{}
	if err := s.UnmarshalJSON([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestACreatedUserIsThereOnceUnderItsNames(t *testing.T) {
	n := documents(t, offboardSchema)
	users, ctx := pembav1.NewProvisioningServiceClient(n.conn), t.Context()
	ada := &pembav1.CreateUserRequest{Id: "ada", Attributes: attributes(t, `{"userName":"Ada@example.com","displayName":"Ada","externalId":"E1"}`), RequestId: "c1"}
	var zookie string
	for range 2 { // the second is a retry
		r, err := users.CreateUser(ctx, ada)
		if err != nil || zookie != "" && r.Zookie != zookie {
			t.Fatalf("created at %v, %v; before at %q", r, err, zookie)
		}
		zookie = r.Zookie
	}
	r, err := users.GetUser(ctx, &pembav1.GetUserRequest{Id: "ada", Consistency: &pembav1.Consistency{Requirement: &pembav1.Consistency_AtLeastAsFresh{AtLeastAsFresh: zookie}}})
	if err != nil || r.User.State != pembav1.UserState_USER_STATE_ACTIVE {
		t.Fatalf("the user is %v, %v", r, err)
	}
	for name, want := range map[string]string{"userName": "Ada@example.com", "displayName": "Ada", "externalId": "E1"} {
		if got := r.User.Attributes.GetFields()[name].GetStringValue(); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for what, second := range map[string]*pembav1.CreateUserRequest{
		"the same id":                    {Id: "ada", Attributes: attributes(t, `{"userName":"other"}`)},
		"the user name in other letters": {Id: "eve", Attributes: attributes(t, `{"username":"aDA@EXAMPLE.com"}`)},
		"the external id":                {Id: "eve", Attributes: attributes(t, `{"userName":"eve","externalId":"E1"}`)},
	} {
		_, err := users.CreateUser(ctx, second)
		expect(t, what, err, codes.AlreadyExists, "USER_EXISTS")
	}
	_, err = users.CreateUser(ctx, &pembav1.CreateUserRequest{Id: "eve"})
	expect(t, "no user name", err, codes.InvalidArgument, "MISSING_FIELD")
	_, err = users.CreateUser(ctx, &pembav1.CreateUserRequest{Id: "*", Attributes: attributes(t, `{"userName":"all"}`)})
	expect(t, "everybody", err, codes.InvalidArgument, "INVALID_OBJECT")

	own := n.write(t, "group:eng#member@user:ada", "document:d#viewer@group:eng#member").Zookie
	if !n.views(t, "ada", "d", own) {
		t.Fatal("she does not view what her group does")
	}
	if _, err := users.DeleteUser(ctx, &pembav1.DeleteUserRequest{Id: "ada"}); err != nil {
		t.Fatal(err)
	}
	ada.RequestId = ""
	anew, err := users.CreateUser(ctx, ada)
	if err != nil {
		t.Fatal(err)
	}
	if n.views(t, "ada", "d", anew.Zookie) {
		t.Error("created again, she has her membership back")
	}
}

// A name with a line break, or with what steers a terminal, is refused.
func TestANameHasNoControlCharacters(t *testing.T) {
	n := documents(t, offboardSchema)
	users, ctx := pembav1.NewProvisioningServiceClient(n.conn), t.Context()
	for _, bad := range []string{`{"userName":"a\nb"}`, `{"userName":"a","displayName":"\u001b[2J"}`, `{"userName":"a\u0000"}`, `{"userName":"a","title":"x\ty"}`} {
		_, err := users.CreateUser(ctx, &pembav1.CreateUserRequest{Id: "a", Attributes: attributes(t, bad)})
		expect(t, bad, err, codes.InvalidArgument, "INVALID_FIELD")
		for _, dry := range []bool{true, false} {
			_, _, err = n.applyDirectory(t, &pembav1.DirectoryStart{DryRun: dry}, directoryUser(t, "a", bad))
			expect(t, bad, err, codes.InvalidArgument, "INVALID_FIELD")
		}
	}
}
