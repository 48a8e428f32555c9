package server

import (
	"testing"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
)

// FuzzPlain: what is taken for plain breaks no rule of the stubs.
func FuzzPlain(f *testing.F) {
	for _, name := range []string{"document", "a/b", "abc_", "ab", "Abc", "a1_", "a__b", ""} {
		for _, id := range []string{"readme", "*", "a b", "ada@example.com", "a/b|c-d=e+f", "é", ""} {
			f.Add(name, id, name, name, id, name, "token")
		}
	}
	f.Add("document", "readme", "view", "user", "ada", "", "")
	f.Fuzz(func(t *testing.T, typ, id, permission, subjectType, subjectID, relation, token string) {
		r := &authzedv1.CheckPermissionRequest{
			Consistency: &authzedv1.Consistency{Requirement: &authzedv1.Consistency_AtLeastAsFresh{AtLeastAsFresh: &authzedv1.ZedToken{Token: token}}},
			Resource:    &authzedv1.ObjectReference{ObjectType: typ, ObjectId: id}, Permission: permission,
			Subject: &authzedv1.SubjectReference{Object: &authzedv1.ObjectReference{ObjectType: subjectType, ObjectId: subjectID}, OptionalRelation: relation},
		}
		bulk := &authzedv1.CheckBulkPermissionsRequest{Consistency: r.Consistency, Items: []*authzedv1.CheckBulkPermissionsRequestItem{
			{Resource: r.Resource, Permission: permission, Subject: r.Subject},
		}}
		if plain(r) && (r.Validate() != nil || r.HandwrittenValidate() != nil) {
			t.Errorf("%v is taken for plain: %v", r, r.Validate())
		}
		if plain(bulk) && bulk.Validate() != nil {
			t.Errorf("%v is taken for plain: %v", bulk, bulk.Validate())
		}
	})
}

func TestMostChecksArePlain(t *testing.T) {
	r := &authzedv1.CheckPermissionRequest{
		Resource: &authzedv1.ObjectReference{ObjectType: "document", ObjectId: "4f1c-9"}, Permission: "can_view",
		Subject: &authzedv1.SubjectReference{Object: &authzedv1.ObjectReference{ObjectType: "user", ObjectId: "ada"}},
	}
	if !plain(r) || !plain(&authzedv1.CheckBulkPermissionsRequest{Items: []*authzedv1.CheckBulkPermissionsRequestItem{{Resource: r.Resource, Permission: r.Permission, Subject: r.Subject}}}) {
		t.Error("a check with nothing unusual is not plain")
	}
}
