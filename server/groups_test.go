package server_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

func userMember(id string) *pembav1.Member {
	return &pembav1.Member{Member: &pembav1.Member_User{User: id}}
}

func groupMember(id string) *pembav1.Member {
	return &pembav1.Member{Member: &pembav1.Member_Group{Group: id}}
}

func atLeast(zookie string) *pembav1.Consistency {
	return &pembav1.Consistency{Requirement: &pembav1.Consistency_AtLeastAsFresh{AtLeastAsFresh: zookie}}
}

// people creates users of the ids.
func (n *node) people(t testing.TB, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if _, err := pembav1.NewProvisioningServiceClient(n.conn).CreateUser(t.Context(), &pembav1.CreateUserRequest{Id: id, Attributes: attributes(t, fmt.Sprintf(`{"userName":%q}`, id+"@example.com"))}); err != nil {
			t.Fatal(err)
		}
	}
}

// membersOf lists a group's members in pages.
func (n *node) membersOf(t testing.TB, group, zookie string, limit uint32) (list []string) {
	t.Helper()
	r := &pembav1.ListMembersRequest{Id: group, Consistency: atLeast(zookie), Limit: limit}
	for {
		page, err := pembav1.NewProvisioningServiceClient(n.conn).ListMembers(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if limit > 0 && len(page.Members) > int(limit) || !page.Complete && len(page.Members) == 0 {
			t.Fatalf("a page of %d, complete %v", len(page.Members), page.Complete)
		}
		for _, m := range page.Members {
			list = append(list, m.GetUser()+"/"+m.GetGroup())
		}
		if r.Cursor = page.Cursor; page.Complete {
			return list
		}
	}
}

// What belongs to a group gives access at once, and what leaves it ends it; a retry
// changes nothing twice.
func TestWhoBelongsToAGroupHasItsAccess(t *testing.T) {
	n := documents(t, offboardSchema)
	users, ctx := pembav1.NewProvisioningServiceClient(n.conn), t.Context()
	n.people(t, "ada", "bob", "cy")
	n.write(t, "document:d#viewer@group:eng#member")
	made, err := users.CreateGroup(ctx, &pembav1.CreateGroupRequest{Id: "eng", Attributes: attributes(t, `{"displayName":"Engineering","externalId":"E"}`), Members: []*pembav1.Member{userMember("ada")}, RequestId: "g1"})
	if err != nil {
		t.Fatal(err)
	}
	again, err := users.CreateGroup(ctx, &pembav1.CreateGroupRequest{Id: "eng", Attributes: attributes(t, `{"displayName":"Engineering","externalId":"E"}`), Members: []*pembav1.Member{userMember("ada")}, RequestId: "g1"})
	if err != nil || again.Zookie != made.Zookie {
		t.Errorf("the retry gave %v, %v", again, err)
	}
	if _, err := users.CreateGroup(ctx, &pembav1.CreateGroupRequest{Id: "ops", Attributes: attributes(t, `{"displayName":"Operations"}`)}); err != nil {
		t.Fatal(err)
	}
	expectViews := func(zookie string, want ...string) {
		t.Helper()
		for _, who := range []string{"ada", "bob", "cy"} {
			if got := n.views(t, who, "d", zookie); got != slices.Contains(want, who) {
				t.Errorf("%s views it: %v", who, got)
			}
		}
	}
	expectViews(made.Zookie, "ada")
	for range 2 {
		added, err := users.AddMembers(ctx, &pembav1.AddMembersRequest{Id: "eng", Members: []*pembav1.Member{groupMember("ops"), userMember("bob"), userMember("ada")}, RequestId: "a1"})
		if err != nil {
			t.Fatal(err)
		}
		expectViews(added.Zookie, "ada", "bob")
	}
	nested, err := users.AddMembers(ctx, &pembav1.AddMembersRequest{Id: "ops", Members: []*pembav1.Member{userMember("cy")}})
	if err != nil {
		t.Fatal(err)
	}
	expectViews(nested.Zookie, "ada", "bob", "cy")
	if got := n.membersOf(t, "eng", nested.Zookie, 2); !slices.Equal(got, []string{"/ops", "ada/", "bob/"}) {
		t.Errorf("the members are %v", got)
	}
	removed, err := users.RemoveMembers(ctx, &pembav1.RemoveMembersRequest{Id: "eng", Members: []*pembav1.Member{userMember("ada"), userMember("nobody")}})
	if err != nil {
		t.Fatal(err)
	}
	expectViews(removed.Zookie, "bob", "cy")
	replaced, err := users.ReplaceMembers(ctx, &pembav1.ReplaceMembersRequest{Id: "eng", Members: []*pembav1.Member{userMember("ada")}})
	if err != nil {
		t.Fatal(err)
	}
	expectViews(replaced.Zookie, "ada")
	suspended, err := users.SuspendGroup(ctx, &pembav1.SuspendGroupRequest{Id: "eng"})
	if err != nil {
		t.Fatal(err)
	}
	expectViews(suspended.Zookie, "ada") // members are not affected
	if _, err := users.AddMembers(ctx, &pembav1.AddMembersRequest{Id: "eng", Members: []*pembav1.Member{userMember("bob")}}); err != nil {
		t.Fatal(err)
	}
	renamed, err := users.UpdateGroup(ctx, &pembav1.UpdateGroupRequest{Id: "eng", Attributes: attributes(t, `{"displayName":"E"}`)})
	if err != nil || renamed.Group.State != pembav1.GroupState_GROUP_STATE_SUSPENDED {
		t.Errorf("changed, a suspended group is %v, %v", renamed, err)
	}
	n.write(t, "document:own#viewer@group:eng#member")
	if _, err := users.ReactivateGroup(ctx, &pembav1.ReactivateGroupRequest{Id: "eng"}); err != nil {
		t.Fatal(err)
	}
	all, err := users.ListGroups(ctx, &pembav1.ListGroupsRequest{Consistency: &pembav1.Consistency{Requirement: &pembav1.Consistency_FullyConsistent{FullyConsistent: true}}})
	if err != nil || len(all.Groups) != 2 || all.Groups[0].State != pembav1.GroupState_GROUP_STATE_ACTIVE {
		t.Errorf("the groups are %v, %v", all, err)
	}
	gone, err := users.DeleteGroup(ctx, &pembav1.DeleteGroupRequest{Id: "eng"})
	if err != nil {
		t.Fatal(err)
	}
	expectViews(gone.Zookie)
	_, err = users.GetGroup(ctx, &pembav1.GetGroupRequest{Id: "eng", Consistency: atLeast(gone.Zookie)})
	expect(t, "a removed group", err, codes.NotFound, "GROUP_NOT_FOUND")
	if _, err := users.EraseGroup(ctx, &pembav1.EraseGroupRequest{Id: "eng"}); err != nil {
		t.Error(err)
	}
	_, err = users.EraseGroup(ctx, &pembav1.EraseGroupRequest{Id: "ops"})
	expect(t, "erasing a group that is there", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	back, err := users.CreateGroup(ctx, &pembav1.CreateGroupRequest{Id: "eng", Attributes: attributes(t, `{"displayName":"Anew"}`)})
	if err != nil {
		t.Fatal(err)
	}
	expectViews(back.Zookie)
}

// Attributes are set one by one, or all; what is read is what was set, and what
// changed since is not overwritten.
func TestAttributesAreUpdated(t *testing.T) {
	n := documents(t, offboardSchema)
	users, ctx := pembav1.NewProvisioningServiceClient(n.conn), t.Context()
	n.people(t, "ada", "bob")
	update := func(r *pembav1.UpdateUserRequest, given string) *pembav1.User {
		t.Helper()
		r.Id, r.Attributes = "ada", attributes(t, given)
		out, err := users.UpdateUser(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		read, err := users.GetUser(ctx, &pembav1.GetUserRequest{Id: "ada", Consistency: atLeast(out.Zookie)})
		if err != nil || !proto.Equal(read.User, out.User) {
			t.Errorf("read %v, %v; updated to %v", read, err, out.User)
		}
		return out.User
	}
	u := update(&pembav1.UpdateUserRequest{}, `{"displayName":"Ada","EMAILS":[{"value":"a@example.com","primary":true}],"title":"Countess"}`)
	if f := u.Attributes.Fields; len(f) != 4 || f["displayName"].GetStringValue() != "Ada" || len(f["emails"].GetListValue().GetValues()) != 1 {
		t.Errorf("the user is %v", u)
	}
	same := update(&pembav1.UpdateUserRequest{ExpectedRevision: u.Revision}, `{"title":"Countess"}`)
	if same.Revision != u.Revision {
		t.Error("an update that changes nothing was written")
	}
	if u = update(&pembav1.UpdateUserRequest{}, `{"title":null}`); u.Attributes.Fields["title"] != nil || u.Attributes.Fields["displayName"] == nil {
		t.Errorf("the user is %v", u)
	}
	if u = update(&pembav1.UpdateUserRequest{Replace: true}, `{"userName":"countess","active":false}`); len(u.Attributes.Fields) != 1 || u.State != pembav1.UserState_USER_STATE_SUSPENDED {
		t.Errorf("the user is %v", u)
	}
	if u = update(&pembav1.UpdateUserRequest{Replace: true}, `{"userName":"ada"}`); u.State != pembav1.UserState_USER_STATE_SUSPENDED {
		t.Error("who was suspended came back by being left out")
	}
	for what, c := range map[string]struct {
		request *pembav1.UpdateUserRequest
		given   string
		code    codes.Code
		reason  string
	}{
		"another's name":        {&pembav1.UpdateUserRequest{}, `{"userName":"BOB@example.com"}`, codes.AlreadyExists, "USER_EXISTS"},
		"an older revision":     {&pembav1.UpdateUserRequest{ExpectedRevision: 2}, `{"title":"x"}`, codes.FailedPrecondition, "PRECONDITION_FAILED"},
		"an unknown attribute":  {&pembav1.UpdateUserRequest{}, `{"shoeSize":"9"}`, codes.InvalidArgument, "INVALID_FIELD"},
		"an unknown part":       {&pembav1.UpdateUserRequest{}, `{"name":{"nick":"x"}}`, codes.InvalidArgument, "INVALID_FIELD"},
		"a part alone":          {&pembav1.UpdateUserRequest{}, `{"name.givenName":"x"}`, codes.InvalidArgument, "INVALID_FIELD"},
		"what cannot be set":    {&pembav1.UpdateUserRequest{}, `{"meta":{}}`, codes.InvalidArgument, "INVALID_FIELD"},
		"a number for text":     {&pembav1.UpdateUserRequest{}, `{"title":7}`, codes.InvalidArgument, "INVALID_FIELD"},
		"no user name":          {&pembav1.UpdateUserRequest{}, `{"userName":null}`, codes.InvalidArgument, "INVALID_FIELD"},
		"a user of another id":  {&pembav1.UpdateUserRequest{Id: "nobody"}, `{"title":"x"}`, codes.NotFound, "USER_NOT_FOUND"},
		"no attributes at all":  {&pembav1.UpdateUserRequest{}, ``, codes.InvalidArgument, "MISSING_FIELD"},
		"a password":            {&pembav1.UpdateUserRequest{}, `{"password":"secret"}`, codes.InvalidArgument, "INVALID_FIELD"},
		"the same name twice":   {&pembav1.UpdateUserRequest{}, `{"title":"x","TITLE":"y"}`, codes.InvalidArgument, "INVALID_FIELD"},
		"an id with a space":    {&pembav1.UpdateUserRequest{Id: "a b"}, `{"title":"x"}`, codes.InvalidArgument, "INVALID_OBJECT"},
		"groups, which are not": {&pembav1.UpdateUserRequest{}, `{"groups":[]}`, codes.InvalidArgument, "INVALID_FIELD"},
	} {
		if c.request.Id == "" {
			c.request.Id = "ada"
		}
		if c.given != "" {
			c.request.Attributes = attributes(t, c.given)
		}
		_, err := users.UpdateUser(ctx, c.request)
		expect(t, what, err, c.code, c.reason)
	}
}

// Lists are complete, in order, each once, whatever the size of their pages, and of
// one revision, whatever is written between the pages.
func TestUsersAndGroupsAreListed(t *testing.T) {
	n := documents(t, offboardSchema)
	users, ctx := pembav1.NewProvisioningServiceClient(n.conn), t.Context()
	var ids []string
	for i := range 23 {
		ids = append(ids, fmt.Sprintf("u%02d", i))
	}
	n.people(t, ids...)
	suspended, err := users.SuspendUser(ctx, &pembav1.SuspendUserRequest{Id: "u07"})
	if err != nil {
		t.Fatal(err)
	}
	list := func(filter string, limit uint32, between func(page int)) (got []string) {
		t.Helper()
		r := &pembav1.ListUsersRequest{Filter: filter, Limit: limit, Consistency: atLeast(suspended.Zookie)}
		for page := 0; ; page++ {
			p, err := users.ListUsers(ctx, r)
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range p.Users {
				got = append(got, u.Id)
			}
			if r.Cursor = p.Cursor; p.Complete {
				return got
			}
			between(page)
		}
	}
	extra := 0
	for _, limit := range []uint32{0, 1, 5, 23, 24} {
		got := list("", limit, func(page int) {
			if page < 2 {
				extra++
				n.people(t, fmt.Sprintf("u05-%d", extra))
				if _, err := users.DeleteUser(ctx, &pembav1.DeleteUserRequest{Id: fmt.Sprintf("u05-%d", extra)}); err != nil {
					t.Fatal(err)
				}
			}
		})
		if !slices.Equal(got, ids) {
			t.Errorf("in pages of %d: %v", limit, got)
		}
	}
	if got := list(`active eq false`, 0, nil); !slices.Equal(got, []string{"u07"}) {
		t.Errorf("suspended are %v", got)
	}
	if got := list(`userName eq "U11@EXAMPLE.COM" or id eq "u03"`, 1, func(int) {}); !slices.Equal(got, []string{"u03", "u11"}) {
		t.Errorf("those two are %v", got)
	}
	_, err = users.ListUsers(ctx, &pembav1.ListUsersRequest{Filter: "userName is x"})
	expect(t, "a filter that is none", err, codes.InvalidArgument, "INVALID_FIELD")
	page, err := users.ListUsers(ctx, &pembav1.ListUsersRequest{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = users.ListUsers(ctx, &pembav1.ListUsersRequest{Limit: 1, Filter: "active eq true", Cursor: page.Cursor})
	expect(t, "a cursor of another filter", err, codes.InvalidArgument, "INVALID_CURSOR")

	for _, id := range []string{"b", "a"} {
		if _, err := users.CreateGroup(ctx, &pembav1.CreateGroupRequest{Id: id, Attributes: attributes(t, `{"displayName":"Group"}`), Members: []*pembav1.Member{userMember("u0" + map[string]string{"a": "1", "b": "2"}[id])}}); err != nil {
			t.Fatal(err)
		}
	}
	groups, err := users.ListGroups(ctx, &pembav1.ListGroupsRequest{Consistency: &pembav1.Consistency{Requirement: &pembav1.Consistency_FullyConsistent{FullyConsistent: true}}})
	if err != nil || len(groups.Groups) != 2 || groups.Groups[0].Id != "a" || !groups.Complete {
		t.Errorf("the groups are %v, %v", groups, err)
	}
	groups, err = users.ListGroups(ctx, &pembav1.ListGroupsRequest{Filter: `members[value eq "u02"]`, Consistency: atLeast(groups.Zookie)})
	if err != nil || len(groups.Groups) != 1 || groups.Groups[0].Id != "b" {
		t.Errorf("the groups of u02 are %v, %v", groups, err)
	}
}

// A store whose schema says so keeps its users as objects of another type, and
// SCIM takes their ids from where the schema says.
func TestAnotherTypeStandsForUsers(t *testing.T) {
	n := documents(t, `// pemba:users id=userName
definition person {}
// pemba:groups member=belongs id=displayName
definition team { relation belongs: person | team#belongs }
definition document { relation viewer: person | team#belongs  permission view = viewer }`)
	users, ctx := pembav1.NewProvisioningServiceClient(n.conn), t.Context()
	w := listenHTTP(t, n, "")
	if got := w.send(http.StatusCreated, "POST", "/scim/v2/Users", `{"userName":"ada@example.com"}`); got["id"] != "ada@example.com" {
		t.Fatal(got)
	}
	if got := w.send(http.StatusBadRequest, "POST", "/scim/v2/Users", `{"userName":"two words"}`); got["scimType"] != "invalidValue" {
		t.Error(got)
	}
	w.send(http.StatusConflict, "POST", "/scim/v2/Users", `{"userName":"ada@example.com"}`)
	if got := w.send(http.StatusCreated, "POST", "/scim/v2/Groups", `{"displayName":"eng","members":[{"value":"ada@example.com"}]}`); got["id"] != "eng" {
		t.Fatal(got)
	}
	zookie := n.write(t, "document:d#viewer@team:eng#belongs").Zookie
	check := func(zookie string) pembav1.Answer {
		t.Helper()
		r, err := n.permissions.Check(ctx, &pembav1.CheckRequest{Consistency: atLeast(zookie), Resource: &pembav1.Object{Type: "document", Id: "d"}, Permission: "view", Subject: &pembav1.Subject{Type: "person", Id: "ada@example.com"}})
		if err != nil {
			t.Fatal(err)
		}
		return r.Answer
	}
	if got := check(zookie); got != pembav1.Answer_ANSWER_HAS_PERMISSION {
		t.Errorf("a member has %v", got)
	}
	if got := n.membersOf(t, "eng", zookie, 0); !slices.Equal(got, []string{"ada@example.com/"}) {
		t.Errorf("the members are %v", got)
	}
	gone, err := users.SuspendUser(ctx, &pembav1.SuspendUserRequest{Id: "ada@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	if got := check(gone.Zookie); got != pembav1.Answer_ANSWER_NO_PERMISSION {
		t.Errorf("suspended, a member has %v", got)
	}
	_, err = n.schemas.ApplySchema(ctx, &pembav1.ApplySchemaRequest{Text: `definition person {}
definition team { relation belongs: person | team#belongs }
definition document { relation viewer: person | team#belongs  permission view = viewer }`})
	expect(t, "a schema by which there are no users any more", err, codes.FailedPrecondition, "SCHEMA_ORPHANS")
}
