package server_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
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
	end := &pembav1.DirectoryEnd{Entries: uint64(len(entries))}
	return n.sendDirectory(t, start, entries, &pembav1.ApplyDirectoryRequest{Part: &pembav1.ApplyDirectoryRequest_End{End: end}})
}

// sendDirectory sends a directory and what follows it.
func (n *node) sendDirectory(t testing.TB, start *pembav1.DirectoryStart, entries []*pembav1.DirectoryEntry, more ...*pembav1.ApplyDirectoryRequest) (actions []string, last *pembav1.ApplyDirectoryResponse, err error) {
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
	for _, m := range more {
		if stream.Send(m) != nil {
			break
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
	if want := []string{"UPDATE", "ORPHAN", "REMOVE_MEMBER", "REMOVE", "REMOVE_MEMBER", "REMOVE", "CREATE", "ADD_MEMBER"}; err != nil || !slices.Equal(got, want) {
		t.Fatalf("%v, %v, want %v", got, err, want)
	}
	if n.views(t, "bob", "d", last.Zookie) || !n.views(t, "cy", "d", last.Zookie) {
		t.Error("who left views it, or who came does not")
	}
	if got, last, err := n.applyDirectory(t, &pembav1.DirectoryStart{}, second...); err != nil || len(got) > 0 || !last.GetComplete() {
		t.Errorf("the same again did %v, %v", got, err)
	}
	none := uint32(0)
	if _, last, err := n.applyDirectory(t, &pembav1.DirectoryStart{DryRun: true, MaxRemovals: &none}, first...); err != nil || !strings.Contains(last.Refusal, "1 user, 1 membership, and at most 0") {
		t.Errorf("the plan of what would be refused says %q, %v", last.GetRefusal(), err)
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
		for _, dry := range []bool{true, false} {
			_, _, err := n.applyDirectory(t, &pembav1.DirectoryStart{DryRun: dry}, c.entries...)
			expect(t, what, err, c.code, c.reason)
		}
	}
}

// A directory that is cut off, over gRPC or HTTP, in any place, or that is empty
// and does not say so, removes nobody.
func TestADirectoryThatIsCutOffRemovesNobody(t *testing.T) {
	n := documents(t, offboardSchema)
	all := []*pembav1.DirectoryEntry{
		directoryUser(t, "ada", `{"userName":"ada"}`), directoryUser(t, "bob", `{"userName":"bob"}`), directoryUser(t, "cy", `{"userName":"cy"}`),
		directoryGroup(t, "eng", `{"displayName":"Engineering"}`), directoryGroup(t, "ops", `{"displayName":"Operations"}`),
		directoryMembership("eng", groupMember("ops")), directoryMembership("eng", userMember("ada")), directoryMembership("ops", userMember("bob")),
	}
	if _, _, err := n.applyDirectory(t, &pembav1.DirectoryStart{}, all...); err != nil {
		t.Fatal(err)
	}
	whole := func(what string) {
		t.Helper()
		got, _, err := n.applyDirectory(t, &pembav1.DirectoryStart{DryRun: true}, all...)
		if err != nil || len(got) > 0 {
			t.Errorf("%s: the directory is no longer whole: %v, %v", what, got, err)
		}
	}
	for at := range len(all) + 1 {
		_, last, err := n.sendDirectory(t, &pembav1.DirectoryStart{}, all[:at])
		expect(t, fmt.Sprintf("cut off after %d", at), err, codes.InvalidArgument, "MISSING_FIELD")
		if last.GetComplete() {
			t.Error("what was cut off is complete")
		}
		whole(fmt.Sprintf("cut off after %d", at))
	}
	end := func(n uint64) *pembav1.ApplyDirectoryRequest {
		return &pembav1.ApplyDirectoryRequest{Part: &pembav1.ApplyDirectoryRequest_End{End: &pembav1.DirectoryEnd{Entries: n}}}
	}
	_, _, err := n.sendDirectory(t, &pembav1.DirectoryStart{}, all[:4], end(5))
	expect(t, "an entry is lacking", err, codes.InvalidArgument, "INVALID_FIELD")
	_, _, err = n.sendDirectory(t, &pembav1.DirectoryStart{Empty: true}, all[:1], end(1))
	expect(t, "an empty one with an entry", err, codes.InvalidArgument, "INVALID_FIELD")
	for _, dry := range []bool{true, false} {
		_, _, err = n.sendDirectory(t, &pembav1.DirectoryStart{DryRun: dry}, nil, end(0))
		expect(t, "an empty one that does not say so", err, codes.InvalidArgument, "INVALID_FIELD")
	}
	whole("refused")

	web := listenHTTP(t, n, "")
	const users = `{"start":{}}
{"entries":{"entries":[{"user":{"id":"ada","attributes":{"userName":"ada"}}}]}}
`
	for what, body := range map[string]string{
		"no end":                      users,
		"an empty one":                `{"start":{}}`,
		"an empty one with an end":    `{"start":{}}` + "\n" + `{"end":{}}`,
		"a line that is broken off":   users + `{"end":{"entr`,
		"a line that is nothing":      users + `{"ent":1}` + "\n" + `{"end":{"entries":1}}`,
		"fewer entries than declared": users + `{"end":{"entries":2}}`,
	} {
		r, err := http.Post(web.url+"/v1/directory/apply", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || !strings.Contains(string(text), `"error"`) && r.StatusCode == http.StatusOK {
			t.Errorf("%s: %d %s, %v", what, r.StatusCode, text, err)
		}
		whole(what)
	}
	got, _, err := n.sendDirectory(t, &pembav1.DirectoryStart{Empty: true}, nil, end(0))
	if err != nil || len(got) == 0 {
		t.Errorf("an empty one that says so: %v, %v", got, err)
	}
}
