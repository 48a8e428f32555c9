package server_test

import (
	"io"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"

	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

func directoryUser(t testing.TB, id, given string) *pembav1.DirectoryEntry {
	return &pembav1.DirectoryEntry{Entry: &pembav1.DirectoryEntry_User{User: &pembav1.DirectoryUser{Id: id, Attributes: attributes(t, given)}}}
}

func directoryGroup(t testing.TB, id, given string) *pembav1.DirectoryEntry {
	return &pembav1.DirectoryEntry{Entry: &pembav1.DirectoryEntry_Group{Group: &pembav1.DirectoryGroup{Id: id, Attributes: attributes(t, given)}}}
}

func directoryMembership(group string, m *pembav1.Member) *pembav1.DirectoryEntry {
	return &pembav1.DirectoryEntry{Entry: &pembav1.DirectoryEntry_Membership{Membership: &pembav1.Membership{Group: group, Member: m}}}
}

// applyDirectory applies a directory and returns the actions, and the last message.
func (n *node) applyDirectory(t testing.TB, start *pembav1.DirectoryStart, entries ...*pembav1.DirectoryEntry) (actions []string, last *pembav1.ApplyDirectoryResponse, err error) {
	t.Helper()
	stream, err := pembav1.NewProvisioningServiceClient(n.conn).ApplyDirectory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&pembav1.ApplyDirectoryRequest{Part: &pembav1.ApplyDirectoryRequest_Start{Start: start}}); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries { // each alone: how they are packed means nothing
		if stream.Send(&pembav1.ApplyDirectoryRequest{Part: &pembav1.ApplyDirectoryRequest_Entries{Entries: &pembav1.DirectoryEntries{Entries: []*pembav1.DirectoryEntry{e}}}}) != nil {
			break // Recv tells why
		}
	}
	stream.CloseSend()
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			return actions, last, nil
		}
		if err != nil {
			return actions, last, err
		}
		last = m
		for _, s := range m.Steps {
			actions = append(actions, s.Action.String()[len("DIRECTORY_ACTION_"):])
		}
	}
}

// A directory is planned, applied, and found to be there; what it leaves out goes,
// and what would go on naming that is told.
func TestADirectoryIsApplied(t *testing.T) {
	n := documents(t, offboardSchema)
	first := []*pembav1.DirectoryEntry{
		directoryUser(t, "ada", `{"userName":"ada"}`), directoryUser(t, "bob", `{"userName":"bob"}`),
		directoryGroup(t, "eng", `{"displayName":"Engineering"}`), directoryGroup(t, "ops", `{"displayName":"Operations"}`),
		directoryMembership("eng", groupMember("ops")), directoryMembership("eng", userMember("ada")), directoryMembership("ops", userMember("bob")),
	}
	want := []string{"CREATE", "CREATE", "CREATE", "CREATE", "ADD_MEMBER", "ADD_MEMBER", "ADD_MEMBER"}
	for _, dry := range []bool{true, false} {
		got, last, err := n.applyDirectory(t, &pembav1.DirectoryStart{DryRun: dry, Reason: "the first of the month"}, first...)
		if err != nil || !last.GetComplete() || !slices.Equal(got, want) {
			t.Fatalf("dry run %v: %v, complete %v, %v", dry, got, last.GetComplete(), err)
		}
	}
	zookie := n.write(t, "document:d#viewer@group:eng#member", "document:own#viewer@user:bob").Zookie
	if !n.views(t, "bob", "d", zookie) {
		t.Error("bob does not view what the group of his group does")
	}
	second := []*pembav1.DirectoryEntry{
		directoryUser(t, "ada", `{"userName":"ada","title":"Countess"}`), directoryUser(t, "cy", `{"userName":"bob"}`),
		directoryGroup(t, "eng", `{"displayName":"Engineering"}`), directoryMembership("eng", userMember("ada")), directoryMembership("eng", userMember("cy")),
	}
	got, last, err := n.applyDirectory(t, &pembav1.DirectoryStart{}, second...)
	if want := []string{"UPDATE", "ORPHAN", "REMOVE", "REMOVE", "CREATE", "ADD_MEMBER"}; err != nil || !slices.Equal(got, want) {
		t.Fatalf("%v, %v, want %v", got, err, want)
	}
	if n.views(t, "bob", "d", last.Zookie) || !n.views(t, "cy", "d", last.Zookie) {
		t.Error("who left views it, or who came does not")
	}
	if got, last, err := n.applyDirectory(t, &pembav1.DirectoryStart{}, second...); err != nil || len(got) > 0 || !last.GetComplete() {
		t.Errorf("the same again did %v, %v", got, err)
	}
	for what, c := range map[string]struct {
		entries []*pembav1.DirectoryEntry
		code    codes.Code
		reason  string
	}{
		"out of order":   {[]*pembav1.DirectoryEntry{second[1], second[0]}, codes.InvalidArgument, "INVALID_FIELD"},
		"no entry":       {[]*pembav1.DirectoryEntry{{}}, codes.InvalidArgument, "MISSING_FIELD"},
		"no id":          {[]*pembav1.DirectoryEntry{directoryUser(t, "", `{}`)}, codes.InvalidArgument, "MISSING_FIELD"},
		"no user name":   {[]*pembav1.DirectoryEntry{directoryUser(t, "x", `{}`)}, codes.InvalidArgument, "INVALID_FIELD"},
		"no member":      {[]*pembav1.DirectoryEntry{second[0], second[2], directoryMembership("eng", nil)}, codes.InvalidArgument, "MISSING_FIELD"},
		"one name twice": {[]*pembav1.DirectoryEntry{directoryUser(t, "x", `{"userName":"n"}`), directoryUser(t, "y", `{"userName":"N"}`)}, codes.AlreadyExists, "USER_EXISTS"},
	} {
		_, _, err := n.applyDirectory(t, &pembav1.DirectoryStart{}, c.entries...)
		expect(t, what, err, c.code, c.reason)
	}
}
