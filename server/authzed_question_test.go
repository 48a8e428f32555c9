//lint:file-ignore SA1019 existing clients send and read the deprecated fields

package server_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	"google.golang.org/grpc/codes"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

func createStore(name string) *pembav1.CreateStoreRequest {
	return &pembav1.CreateStoreRequest{Store: name}
}

func tokenFor(name, store string) *pembav1.CreateTokenRequest {
	return &pembav1.CreateTokenRequest{Name: name, Store: store, Role: pembav1.Role_ROLE_READER}
}

func readHistory(store string) *pembav1.ReadHistoryRequest {
	return &pembav1.ReadHistoryRequest{Store: store}
}

func acheck(resource, permission, subject string) *authzedv1.CheckPermissionRequest {
	return &authzedv1.CheckPermissionRequest{Resource: aobject(resource), Permission: permission, Subject: asubject(subject)}
}

// world is what the questions below are asked about.
var world = []string{
	"document:d#parent@folder:f",
	"document:d#viewer@user:ada[in_office:{\"since\":9}]",
	"document:d#viewer@group:eng#member",
	"document:d#banned@user:eve",
	"document:open#viewer@user:*",
	"document:open#banned@user:eve",
	"document:soon#viewer@user:bob[expiration:2999-01-01T00:00:00Z]",
	"document:late#viewer@user:bob[expiration:2001-01-01T00:00:00Z]",
	"folder:f#viewer@user:cyd",
	"group:eng#member@user:dan",
	"group:eng#member@user:eve",
}

const (
	has         = authzedv1.CheckPermissionResponse_PERMISSIONSHIP_HAS_PERMISSION
	hasNot      = authzedv1.CheckPermissionResponse_PERMISSIONSHIP_NO_PERMISSION
	conditional = authzedv1.CheckPermissionResponse_PERMISSIONSHIP_CONDITIONAL_PERMISSION
)

func TestAStockClientChecks(t *testing.T) {
	_, c := compatible(t)
	ctx := t.Context()
	before := touch(t, c, world[0])
	at := touch(t, c, world...)
	items := []*authzedv1.CheckBulkPermissionsRequestItem{}
	old := []*authzedv1.BulkCheckPermissionRequestItem{}
	var wants []authzedv1.CheckPermissionResponse_Permissionship
	for _, q := range []struct {
		resource, permission, subject, context string
		want                                   authzedv1.CheckPermissionResponse_Permissionship
		missing                                string
	}{
		{"document:d", "view", "user:cyd", "", has, ""},
		{"document:d", "view", "user:dan", "", has, ""},
		{"document:d", "viewer", "group:eng#member", "", has, ""},
		{"document:d", "view", "user:eve", "", hasNot, ""},
		{"document:d", "view", "user:ada", "", conditional, "hour"},
		{"document:d", "view", "user:ada", `{"hour":10}`, has, ""},
		{"document:d", "view", "user:ada", `{"hour":8}`, hasNot, ""},
		{"document:open", "view", "user:zoe", "", has, ""},
		{"document:open", "view", "user:eve", "", hasNot, ""},
		{"document:soon", "view", "user:bob", "", has, ""},
		{"document:late", "view", "user:bob", "", hasNot, ""},
		{"document:none", "view", "user:bob", "", hasNot, ""},
		{"document:d", "nobody", "user:cyd", "", hasNot, ""},
	} {
		r := acheck(q.resource, q.permission, q.subject)
		if q.context != "" {
			r.Context = astruct(q.context)
		}
		for _, consistency := range []*authzedv1.Consistency{fresh(at), exact(at), afully(), fastest(), nil} {
			r.Consistency = consistency
			got, err := c.CheckPermission(ctx, r)
			if err != nil || got.Permissionship != q.want || got.CheckedAt.GetToken() == "" || strings.Join(got.GetPartialCaveatInfo().GetMissingRequiredContext(), ",") != q.missing {
				t.Errorf("%v: %v, %v; want %v %s", r, got, err, q.want, q.missing)
			}
		}
		items = append(items, &authzedv1.CheckBulkPermissionsRequestItem{Resource: r.Resource, Permission: r.Permission, Subject: r.Subject, Context: r.Context})
		old = append(old, &authzedv1.BulkCheckPermissionRequestItem{Resource: r.Resource, Permission: r.Permission, Subject: r.Subject, Context: r.Context})
		wants = append(wants, q.want)
	}
	r := acheck("document:d", "view", "user:dan")
	r.Consistency = exact(before)
	if got, err := c.CheckPermission(ctx, r); err != nil || got.Permissionship != hasNot {
		t.Errorf("before the write: %v, %v", got, err)
	}

	wrong := &authzedv1.CheckBulkPermissionsRequestItem{Resource: aobject("document:d"), Permission: "veiw", Subject: asubject("user:ada")}
	everybody := &authzedv1.CheckBulkPermissionsRequestItem{Resource: aobject("document:d"), Permission: "view", Subject: asubject("user:*")}
	bulk, err := c.CheckBulkPermissions(ctx, &authzedv1.CheckBulkPermissionsRequest{Consistency: fresh(at), Items: append(slices.Clone(items), wrong, everybody)})
	if err != nil || len(bulk.Pairs) != len(items)+2 || bulk.CheckedAt.GetToken() == "" {
		t.Fatalf("in bulk: %v, %v", bulk, err)
	}
	for i, want := range wants {
		if p := bulk.Pairs[i]; p.GetItem().GetPermissionship() != want || p.Request.Permission != items[i].Permission || (want == conditional) != (p.GetItem().PartialCaveatInfo != nil) {
			t.Errorf("in bulk: %v, want %v", p, want)
		}
	}
	aexpect(t, "one unknown permission in bulk", status.ErrorProto(bulk.Pairs[len(items)].GetError()), codes.FailedPrecondition,
		authzedv1.ErrorReason_ERROR_REASON_UNKNOWN_RELATION_OR_PERMISSION, "definition_name", "document", "relation_or_permission_name", "veiw")
	aexpect(t, "one wildcard in bulk", status.ErrorProto(bulk.Pairs[len(items)+1].GetError()), codes.InvalidArgument,
		authzedv1.ErrorReason_ERROR_REASON_WILDCARD_NOT_ALLOWED, "disallowed_field", "subject_id")
	was, err := c.BulkCheckPermission(ctx, &authzedv1.BulkCheckPermissionRequest{Consistency: fresh(at), Items: old}) //nolint:staticcheck // clients still call it
	if err != nil || len(was.Pairs) != len(wants) {
		t.Fatalf("in bulk, as it was called before: %v, %v", was, err)
	}
	for i, want := range wants {
		if p := was.Pairs[i]; p.GetItem().GetPermissionship() != want {
			t.Errorf("in bulk, as it was called before: %v, want %v", p, want)
		}
	}
}

func TestAStockClientLooksUpResources(t *testing.T) {
	_, c := compatible(t)
	at := touch(t, c, world...)
	ask := func(subject, context string) *authzedv1.LookupResourcesRequest {
		r := &authzedv1.LookupResourcesRequest{Consistency: fresh(at), ResourceObjectType: "document", Permission: "view", Subject: asubject(subject)}
		if context != "" {
			r.Context = astruct(context)
		}
		return r
	}
	look := func(r *authzedv1.LookupResourcesRequest) (out []string, cursors []*authzedv1.Cursor) {
		t.Helper()
		found, err := all(c.LookupResources(t.Context(), r))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			text := f.ResourceObjectId
			if f.Permissionship == authzedv1.LookupPermissionship_LOOKUP_PERMISSIONSHIP_CONDITIONAL_PERMISSION {
				text += "?" + strings.Join(f.PartialCaveatInfo.MissingRequiredContext, ",")
			}
			out, cursors = append(out, text), append(cursors, f.AfterResultCursor)
			if f.LookedUpAt.GetToken() == "" {
				t.Error("a result has no token")
			}
		}
		return out, cursors
	}
	sorted := func(texts []string, _ []*authzedv1.Cursor) []string {
		slices.Sort(texts)
		return texts
	}
	equal(t, "of ada", sorted(look(ask("user:ada", ""))), []string{"d?hour", "open"})
	equal(t, "of ada at ten", sorted(look(ask("user:ada", `{"hour":10}`))), []string{"d", "open"})
	equal(t, "of eve", sorted(look(ask("user:eve", ""))), nil)
	equal(t, "of bob", sorted(look(ask("user:bob", ""))), []string{"open", "soon"})
	equal(t, "of a userset", sorted(look(ask("group:eng#member", ""))), []string{"d"})

	many := []string{}
	for _, id := range "abcdefghij" {
		many = append(many, "document:"+string(id)+string(id)+"#viewer@user:fay")
	}
	at = touch(t, c, many...)
	var paged []string
	r := ask("user:fay", "")
	r.OptionalLimit, r.WithDebug = 3, true
	for {
		page, cursors := look(r)
		if len(page) == 0 {
			break
		}
		if len(page) > 3 {
			t.Fatalf("a page of %d", len(page))
		}
		paged, r.OptionalCursor = append(paged, page...), cursors[len(cursors)-1]
		touch(t, c, "document:ab#viewer@user:fay", "document:zz#viewer@user:fay") // after the list began
	}
	equal(t, "pages", paged, []string{"aa", "bb", "cc", "dd", "ee", "ff", "gg", "hh", "ii", "jj", "open"})

	r = ask("user:fay", "")
	unlimited, cursors := look(r)
	r.OptionalCursor = cursors[len(cursors)-1]
	if rest, _ := look(r); len(rest) > 0 {
		t.Errorf("behind the last of a list without a limit: %q", rest)
	}
	r.OptionalCursor = cursors[2]
	again := append(sorted(look(r)), unlimited[:3]...)
	for _, id := range unlimited {
		if !slices.Contains(again, id) {
			t.Errorf("a list that goes on in the middle misses %s", id)
		}
	}
	r.Permission = "viewer"
	_, err := all(c.LookupResources(t.Context(), r))
	aexpect(t, "the cursor of another question", err, codes.FailedPrecondition, authzedv1.ErrorReason_ERROR_REASON_INVALID_CURSOR)
}

func TestAStockClientLooksUpSubjects(t *testing.T) {
	_, c := compatible(t)
	at := touch(t, c, append(world, "document:open#viewer@user:ada[in_office:{\"since\":9}]")...)
	ask := func(resource, typ, relation string) *authzedv1.LookupSubjectsRequest {
		return &authzedv1.LookupSubjectsRequest{
			Consistency: fresh(at), Resource: aobject(resource), Permission: "view", SubjectObjectType: typ, OptionalSubjectRelation: relation,
			OptionalCursor: &authzedv1.Cursor{Token: "ignored, as documented"},
		}
	}
	look := func(r *authzedv1.LookupSubjectsRequest) (out []string) {
		t.Helper()
		found, err := all(c.LookupSubjects(t.Context(), r))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			text := f.Subject.SubjectObjectId
			if f.Subject.Permissionship == authzedv1.LookupPermissionship_LOOKUP_PERMISSIONSHIP_CONDITIONAL_PERMISSION {
				text += "?" + strings.Join(f.Subject.PartialCaveatInfo.MissingRequiredContext, ",")
			}
			for _, e := range f.ExcludedSubjects {
				text += " but " + e.SubjectObjectId
			}
			out = append(out, text)
			//nolint:staticcheck // older clients read these
			if f.SubjectObjectId != f.Subject.SubjectObjectId || f.Permissionship != f.Subject.Permissionship || len(f.ExcludedSubjectIds) != len(f.ExcludedSubjects) {
				t.Errorf("the fields of older clients differ: %v", f)
			}
			if f.LookedUpAt.GetToken() == "" {
				t.Error("a result has no token")
			}
		}
		slices.Sort(out)
		return out
	}
	equal(t, "of d", look(ask("document:d", "user", "")), []string{"ada?hour", "cyd", "dan"})
	r := ask("document:d", "user", "")
	r.Context = astruct(`{"hour":12}`)
	equal(t, "of d at noon", look(r), []string{"ada", "cyd", "dan"})
	equal(t, "of d, usersets", look(ask("document:d", "group", "member")), []string{"eng"})
	open := look(ask("document:open", "user", ""))
	if !slices.Contains(open, "* but eve") {
		t.Errorf("of open: %q", open)
	}
	r = ask("document:open", "user", "")
	r.WildcardOption = authzedv1.LookupSubjectsRequest_WILDCARD_OPTION_EXCLUDE_WILDCARDS
	for _, s := range look(r) {
		if strings.HasPrefix(s, "*") || s == "eve" {
			t.Errorf("without wildcards: %q", s)
		}
	}
}

// tree is the text of an expansion.
func tree(n *authzedv1.PermissionRelationshipTree) string {
	name := n.ExpandedObject.ObjectType + ":" + n.ExpandedObject.ObjectId + "#" + n.ExpandedRelation
	var parts []string
	if leaf := n.GetLeaf(); leaf != nil {
		for _, s := range leaf.Subjects {
			text := s.Object.ObjectType + ":" + s.Object.ObjectId
			if s.OptionalRelation != "" {
				text += "#" + s.OptionalRelation
			}
			parts = append(parts, text)
		}
		return name + "{" + strings.Join(parts, " ") + "}"
	}
	for _, c := range n.GetIntermediate().Children {
		parts = append(parts, tree(c))
	}
	sign := map[authzedv1.AlgebraicSubjectSet_Operation]string{
		authzedv1.AlgebraicSubjectSet_OPERATION_UNION: " + ", authzedv1.AlgebraicSubjectSet_OPERATION_INTERSECTION: " & ", authzedv1.AlgebraicSubjectSet_OPERATION_EXCLUSION: " - ",
	}[n.GetIntermediate().Operation]
	return name + "(" + strings.Join(parts, sign) + ")"
}

func TestAStockClientExpands(t *testing.T) {
	_, c := compatible(t)
	at := touch(t, c, world...)
	for permission, want := range map[string]string{
		"viewer": "document:d#viewer{group:eng#member user:ada}",
		"view": "document:d#view(document:d#view(document:d#viewer{group:eng#member user:ada} + document:d#view(folder:f#view(folder:f#viewer{user:cyd})))" +
			" - document:d#banned{user:eve})",
		"all_view": "document:d#all_view(document:d#all_view(folder:f#view(folder:f#viewer{user:cyd})) & document:d#viewer{group:eng#member user:ada})",
		"nobody":   "document:d#nobody{}",
	} {
		got, err := c.ExpandPermissionTree(t.Context(), &authzedv1.ExpandPermissionTreeRequest{Consistency: fresh(at), Resource: aobject("document:d"), Permission: permission})
		if err != nil || got.ExpandedAt.GetToken() == "" {
			t.Errorf("%s: %v, %v", permission, got, err)
			continue
		}
		if text := tree(got.TreeRoot); text != want {
			t.Errorf("%s:\n got %s\nwant %s", permission, text, want)
		}
	}
	_, err := c.ExpandPermissionTree(t.Context(), &authzedv1.ExpandPermissionTreeRequest{Resource: aobject("document:d"), Permission: "veiw"})
	aexpect(t, "an unknown permission", err, codes.FailedPrecondition, authzedv1.ErrorReason_ERROR_REASON_UNKNOWN_RELATION_OR_PERMISSION, "relation_or_permission_name", "veiw")
}

// traceText is the text of a trace.
func traceText(c *authzedv1.CheckDebugTrace) string {
	text := c.Resource.ObjectType + ":" + c.Resource.ObjectId + "#" + c.Permission
	if c.PermissionType == authzedv1.CheckDebugTrace_PERMISSION_TYPE_PERMISSION {
		text += "()"
	}
	text += " " + strings.ToLower(strings.TrimPrefix(c.Result.String(), "PERMISSIONSHIP_"))
	if i := c.CaveatEvaluationInfo; i != nil {
		text += " [" + i.CaveatName + " " + strings.TrimPrefix(i.Result.String(), "RESULT_")
		for name, v := range i.Context.AsMap() {
			text += fmt.Sprintf(" %s=%v", name, v)
		}
		if missing := i.PartialCaveatInfo.GetMissingRequiredContext(); len(missing) > 0 {
			text += " " + strings.Join(missing, ",")
		}
		text += "]"
	}
	if c.OptionalExpiresAt != nil {
		text += " until " + c.OptionalExpiresAt.AsTime().Format("2006")
	}
	if c.GetWasCachedResult() {
		text += " known"
	}
	var parts []string
	for _, sub := range c.GetSubProblems().GetTraces() {
		parts = append(parts, traceText(sub))
	}
	if len(parts) > 0 {
		text += " {" + strings.Join(parts, "; ") + "}"
	}
	return text
}

func TestATraceShowsWhatAnAnswerRestsOn(t *testing.T) {
	_, c := compatible(t)
	ctx := t.Context()
	at := touch(t, c, world...)
	items := []*authzedv1.CheckBulkPermissionsRequestItem{}
	var wants []string
	for _, q := range []struct{ resource, subject, context, want string }{
		{"document:d", "user:cyd", "", "document:d#view() has_permission {folder:f#view() has_permission {folder:f#viewer has_permission}; document:d#banned no_permission}"},
		{"document:d", "user:dan", "", "document:d#view() has_permission {document:d#viewer has_permission {group:eng#member has_permission}; document:d#banned no_permission}"},
		{"document:d", "user:eve", "", "document:d#view() no_permission {document:d#banned has_permission}"},
		{"document:d", "user:ada", `{"hour":10,"other":1}`, "document:d#view() has_permission {document:d#viewer has_permission [in_office TRUE hour=10]; document:d#banned no_permission}"},
		{"document:d", "user:ada", "", "document:d#view() conditional_permission {document:d#viewer conditional_permission [in_office MISSING_SOME_CONTEXT hour]}"},
		{"document:soon", "user:bob", "", "document:soon#view() has_permission until 2999 {document:soon#viewer has_permission until 2999; document:soon#banned no_permission}"},
	} {
		r := acheck(q.resource, "view", q.subject)
		r.Consistency, r.WithTracing = fresh(at), true
		if q.context != "" {
			r.Context = astruct(q.context)
		}
		got, err := c.CheckPermission(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		if text := traceText(got.DebugTrace.Check); text != q.want {
			t.Errorf("%s of %s:\n got %s\nwant %s", q.resource, q.subject, text, q.want)
		}
		root := got.DebugTrace.Check
		if got.DebugTrace.SchemaUsed != authzedSchema || root.Duration.AsDuration() <= 0 || root.TraceOperationId == "" || root.Source == "" || root.Subject.Object.ObjectId == "" {
			t.Errorf("the trace lacks something: %v", root)
		}
		items = append(items, &authzedv1.CheckBulkPermissionsRequestItem{Resource: r.Resource, Permission: r.Permission, Subject: r.Subject, Context: r.Context})
		wants = append(wants, q.want)
		r.WithTracing = false
		if plain, err := c.CheckPermission(ctx, r); err != nil || plain.DebugTrace != nil || plain.Permissionship != got.Permissionship ||
			!proto.Equal(plain.OptionalExpiresAt, got.OptionalExpiresAt) || (plain.OptionalExpiresAt != nil) != strings.Contains(q.want, "until") {
			t.Errorf("without a trace: %v, %v", plain, err)
		}
	}
	bulk, err := c.CheckBulkPermissions(ctx, &authzedv1.CheckBulkPermissionsRequest{Consistency: fresh(at), Items: items, WithTracing: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range wants {
		if text := traceText(bulk.Pairs[i].GetItem().DebugTrace.Check); text != want {
			t.Errorf("in bulk:\n got %s\nwant %s", text, want)
		}
	}
}

// Of random worlds, what a client makes of the lookups of this API is what the
// checks of it and of pemba.v1 say of everybody and everything.
func TestLookupsOfTheCompatibleAPIAgreeWithItsChecks(t *testing.T) {
	n, c := compatible(t)
	ctx := t.Context()
	wider := strings.Replace(authzedSchema, "user with expiration", "user with expiration | user:* with in_office", 1)
	if _, err := c.WriteSchema(ctx, &authzedv1.WriteSchemaRequest{Schema: wider}); err != nil {
		t.Fatal(err)
	}
	users, docs := []string{"a1", "b2", "c3", "d4", "e5"}, []string{"d1", "d2", "d3"}
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 7))
		one := func(of []string) string { return of[r.IntN(len(of))] }
		texts := map[string]bool{}
		for range 14 {
			texts[one([]string{
				"document:" + one(docs) + "#viewer@user:" + one(users),
				"document:" + one(docs) + "#viewer@user:" + one(users) + `[in_office:{"since":` + fmt.Sprint(r.IntN(20)) + "}]",
				"document:" + one(docs) + "#viewer@user:*",
				"document:" + one(docs) + `#viewer@user:*[in_office:{"since":` + fmt.Sprint(r.IntN(20)) + "}]",
				"document:" + one(docs) + "#viewer@group:" + one([]string{"g1", "g2"}) + "#member",
				"document:" + one(docs) + "#banned@user:" + one(users),
				"document:" + one(docs) + "#parent@folder:" + one([]string{"f1", "f2"}),
				"folder:" + one([]string{"f1", "f2"}) + "#viewer@user:" + one(users),
				"group:" + one([]string{"g1", "g2"}) + "#member@user:" + one(users),
				"group:g1#member@group:g2#member", "group:g2#member@group:g1#member",
			})] = true
		}
		for _, typ := range []string{"document", "folder", "group"} {
			if _, err := c.DeleteRelationships(ctx, &authzedv1.DeleteRelationshipsRequest{RelationshipFilter: &authzedv1.RelationshipFilter{ResourceType: typ}}); err != nil {
				t.Fatal(err)
			}
		}
		var at *authzedv1.ZedToken
		for text := range texts { // one by one: the same may be there twice, with and without a caveat
			at = touch(t, c, text)
		}
		given := astruct("{}")
		if seed%2 == 0 {
			given = astruct(`{"hour":10}`)
		}
		for _, permission := range []string{"view", "all_view", "viewer"} {
			resources := map[string]authzedv1.CheckPermissionResponse_Permissionship{} // by user and document
			for _, user := range append(users, "nobody") {
				found, err := all(c.LookupResources(ctx, &authzedv1.LookupResourcesRequest{
					Consistency: exact(at), ResourceObjectType: "document", Permission: permission, Subject: asubject("user:" + user), Context: given}))
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range found {
					resources[user+" "+f.ResourceObjectId] = asCheck(f.Permissionship)
				}
			}
			for _, doc := range docs {
				found, err := all(c.LookupSubjects(ctx, &authzedv1.LookupSubjectsRequest{
					Consistency: exact(at), Resource: aobject("document:" + doc), Permission: permission, SubjectObjectType: "user", Context: given}))
				if err != nil {
					t.Fatal(err)
				}
				for _, user := range append(users, "nobody") {
					q := acheck("document:"+doc, permission, "user:"+user)
					q.Consistency, q.Context = exact(at), given
					want, err := c.CheckPermission(ctx, q)
					if err != nil {
						t.Fatal(err)
					}
					pemba, err := n.permissions.Check(ctx, &pembav1.CheckRequest{
						Resource: &pembav1.Object{Type: "document", Id: doc}, Permission: permission, Subject: &pembav1.Subject{Type: "user", Id: user}, Context: given,
						Consistency: &pembav1.Consistency{Requirement: &pembav1.Consistency_AtExactSnapshot{AtExactSnapshot: at.Token}},
					})
					if err != nil || fmt.Sprint(pemba.MissingFields) != fmt.Sprint(want.PartialCaveatInfo.GetMissingRequiredContext()) || strings.TrimPrefix(pemba.Answer.String(), "ANSWER_") !=
						strings.Replace(strings.TrimPrefix(want.Permissionship.String(), "PERMISSIONSHIP_"), "CONDITIONAL_PERMISSION", "CONDITIONAL", 1) {
						t.Errorf("seed %d, %s of %s for %s: %v, and pemba.v1 says %v, %v", seed, permission, doc, user, want, pemba, err)
					}
					if got := asSubject(found, user); got != want.Permissionship {
						t.Errorf("seed %d, %s of %s for %s: subjects say %v, check %v\n%v", seed, permission, doc, user, got, want.Permissionship, texts)
					}
					got, ok := resources[user+" "+doc]
					if !ok {
						got = hasNot
					}
					if got != want.Permissionship {
						t.Errorf("seed %d, %s of %s for %s: resources say %v, check %v\n%v", seed, permission, doc, user, got, want.Permissionship, texts)
					}
				}
			}
		}
	}
}

func asCheck(p authzedv1.LookupPermissionship) authzedv1.CheckPermissionResponse_Permissionship {
	if p == authzedv1.LookupPermissionship_LOOKUP_PERMISSIONSHIP_CONDITIONAL_PERMISSION {
		return conditional
	}
	return has
}

// asSubject is what a client makes of a list of subjects: what the list says of
// somebody, but for the wildcard what it says of those it does not exclude.
func asSubject(found []*authzedv1.LookupSubjectsResponse, user string) authzedv1.CheckPermissionResponse_Permissionship {
	out := hasNot
	for _, f := range found {
		switch f.Subject.SubjectObjectId {
		case user:
			return asCheck(f.Subject.Permissionship)
		case "*":
			out = asCheck(f.Subject.Permissionship)
			for _, e := range f.ExcludedSubjects {
				if e.SubjectObjectId == user && asCheck(e.Permissionship) == has {
					out = hasNot
				} else if e.SubjectObjectId == user {
					out = conditional
				}
			}
		}
	}
	return out
}

func TestReflectionListsTheServices(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Token: "secret"})
	stream, err := reflectionv1.NewServerReflectionClient(n.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	got, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range got.GetListServicesResponse().Service {
		if strings.HasPrefix(s.Name, "authzed.") {
			names = append(names, strings.TrimPrefix(s.Name, "authzed.api.v1."))
		}
	}
	slices.Sort(names)
	equal(t, "services", names, []string{"ExperimentalService", "PermissionsService", "SchemaService", "WatchService"})
}
