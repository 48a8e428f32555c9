package server

import (
	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pembadb/pemba/tuple"
)

// validated is what the stubs generate for each message.
type validated interface{ Validate() error }

// handValidated is what the stubs' authors wrote by hand for some.
type handValidated interface{ HandwrittenValidate() error }

// validateAuthzed applies the rules that come with the stubs of authzed.api.v1,
// as clients of that API are used to: some are narrower than Pemba's own.
func validateAuthzed(m any) error {
	if plain(m) {
		return nil
	}
	if err := wildcardResource(m); err != nil {
		return err
	}
	if v, ok := m.(validated); ok {
		if err := v.Validate(); err != nil {
			return status.Error(codes.InvalidArgument, shortened(err.Error(), longestText))
		}
	}
	if v, ok := m.(handValidated); ok {
		if err := v.HandwrittenValidate(); err != nil {
			return status.Error(codes.InvalidArgument, shortened(err.Error(), longestText))
		}
	}
	return nil
}

func wildcardResource(m any) error {
	if r, ok := m.(*authzedv1.CheckPermissionRequest); ok && r.GetResource().GetObjectId() == tuple.Wildcard {
		return wildcardRefused("resource_id")
	}
	return nil
}

func wildcardRefused(field string) error {
	return authzedProblem(codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_WILDCARD_NOT_ALLOWED,
		"the wildcard stands for everybody or everything; ask about one", "disallowed_field", field)
}

// validatingStream applies validateAuthzed to what a client streams.
type validatingStream struct{ grpc.ServerStream }

func (s validatingStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return validateAuthzed(m)
}

// plain reports whether a message is one of the checks that are most of the
// traffic, and of that nothing can be wrong: its names and ids are of the plainest
// kind. It looks at each byte once, where the stubs' patterns take longer than the
// check does. What is not plain may still be right.
func plain(m any) bool {
	switch r := m.(type) {
	case *authzedv1.CheckPermissionRequest:
		return plainConsistency(r.Consistency) && plainQuestion(r)
	case *authzedv1.CheckBulkPermissionsRequest:
		for _, item := range r.Items {
			if item == nil || !plainQuestion(item) {
				return false
			}
		}
		return len(r.Items) > 0 && plainConsistency(r.Consistency)
	}
	return false
}

func plainConsistency(c *authzedv1.Consistency) bool { return c == nil || c.Validate() == nil }

func plainQuestion(q asking) bool {
	o, s := q.GetResource(), q.GetSubject()
	relation := s.GetOptionalRelation()
	return plainName(o.GetObjectType()) && plainID(o.GetObjectId()) && plainName(q.GetPermission()) &&
		plainName(s.GetObject().GetObjectType()) && plainID(s.GetObject().GetObjectId()) && (relation == "" || plainName(relation))
}

// plainName tells of a name of a type or relation that has no prefix and no
// underscore at its end.
func plainName(name string) bool {
	if len(name) < 3 || len(name) > 63 || name[0] < 'a' || name[0] > 'z' || name[len(name)-1] == '_' {
		return false
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

func plainID(id string) bool {
	if id == "" || len(id) > tuple.MaxID {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '/', c == '_', c == '|', c == '-', c == '=', c == '+':
		default:
			return false
		}
	}
	return true
}
