package server

import (
	"errors"
	"strings"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// authzedPrefix begins the methods of the compatible API.
const authzedPrefix = "/authzed.api.v1."

func isAuthzed(method string) bool { return strings.HasPrefix(method, authzedPrefix) }

const authzedDomain = "authzed.com"

// statusError is an error that has its code already.
type statusError interface{ GRPCStatus() *status.Status }

// authzedProblem makes an error of authzed.api.v1 with facts: keys and values in
// turn, those that the comments of its ErrorReason name.
func authzedProblem(code codes.Code, reason authzedv1.ErrorReason, text string, facts ...string) error {
	m := map[string]string{}
	for i := 0; i+1 < len(facts); i += 2 {
		m[facts[i]] = shortened(facts[i+1], longestFact)
	}
	text = shortened(text, longestText)
	st, err := status.New(code, text).WithDetails(&errdetails.ErrorInfo{Reason: reason.String(), Domain: authzedDomain, Metadata: m})
	if err != nil {
		return status.Error(code, text)
	}
	return st.Err()
}

// counterpart is what authzed.api.v1 calls an error that pemba.v1 calls otherwise.
type counterpart struct {
	code   codes.Code
	reason authzedv1.ErrorReason
	facts  func(err error, facts map[string]string) []string
}

// counterparts are the errors of pemba.v1 that authzed.api.v1 documents. The rest
// reaches its clients as it is, under the domain `pemba`.
var counterparts = map[pembav1.ErrorReason]counterpart{
	pembav1.ErrorReason_ERROR_REASON_UNKNOWN_TYPE: {codes.FailedPrecondition, authzedv1.ErrorReason_ERROR_REASON_UNKNOWN_DEFINITION,
		func(err error, f map[string]string) []string {
			return []string{"definition_name", namedType(err, f).typ}
		}},
	pembav1.ErrorReason_ERROR_REASON_UNKNOWN_RELATION: {codes.FailedPrecondition, authzedv1.ErrorReason_ERROR_REASON_UNKNOWN_RELATION_OR_PERMISSION,
		func(err error, f map[string]string) []string {
			n := namedType(err, f)
			return []string{"definition_name", n.typ, "relation_or_permission_name", n.relation}
		}},
	pembav1.ErrorReason_ERROR_REASON_PERMISSION_NOT_WRITABLE: {codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_CANNOT_UPDATE_PERMISSION,
		func(err error, f map[string]string) []string {
			n := namedType(err, f)
			return []string{"definition_name", n.typ, "permission_name", n.relation}
		}},
	pembav1.ErrorReason_ERROR_REASON_SUBJECT_NOT_ALLOWED: {codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_INVALID_SUBJECT_TYPE,
		func(err error, f map[string]string) []string {
			n := namedType(err, f)
			return []string{"definition_name", n.typ, "relation_name", n.relation, "subject_type", subjectType(err)}
		}},
	pembav1.ErrorReason_ERROR_REASON_UNKNOWN_CAVEAT: {codes.FailedPrecondition, authzedv1.ErrorReason_ERROR_REASON_UNKNOWN_CAVEAT,
		func(_ error, f map[string]string) []string { return []string{"caveat_name", f["caveat"]} }},
	pembav1.ErrorReason_ERROR_REASON_CAVEAT_FIELD: {codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_CAVEAT_PARAMETER_TYPE_ERROR, caveatField},
	pembav1.ErrorReason_ERROR_REASON_CAVEAT_FAILED: {codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_CAVEAT_EVALUATION_ERROR,
		func(err error, _ map[string]string) []string { return []string{"caveat_name", caveatOf(err).Caveat} }},
	pembav1.ErrorReason_ERROR_REASON_CAVEAT_COST: {codes.ResourceExhausted, authzedv1.ErrorReason_ERROR_REASON_CAVEAT_EVALUATION_ERROR,
		func(err error, _ map[string]string) []string { return []string{"caveat_name", caveatOf(err).Caveat} }},
	pembav1.ErrorReason_ERROR_REASON_CYCLE_THROUGH_EXCLUSION: {codes.FailedPrecondition, authzedv1.ErrorReason_ERROR_REASON_MAXIMUM_DEPTH_EXCEEDED, nil},
	pembav1.ErrorReason_ERROR_REASON_RELATIONSHIP_EXISTS:     {codes.AlreadyExists, authzedv1.ErrorReason_ERROR_REASON_ATTEMPT_TO_RECREATE_RELATIONSHIP, existing},
	pembav1.ErrorReason_ERROR_REASON_DUPLICATE_OPERATION: {codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_UPDATES_ON_SAME_RELATIONSHIP,
		func(_ error, f map[string]string) []string {
			r, _ := tuple.Parse(f["relationship"])
			return []string{"definition_name", r.Object.Type, "relationship", f["relationship"]}
		}},
	pembav1.ErrorReason_ERROR_REASON_INVALID_CURSOR: {codes.FailedPrecondition, authzedv1.ErrorReason_ERROR_REASON_INVALID_CURSOR, nil},
	pembav1.ErrorReason_ERROR_REASON_INVALID_FILTER: {codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_INVALID_FILTER,
		func(_ error, f map[string]string) []string { return []string{"filter", f["filter"]} }},
	pembav1.ErrorReason_ERROR_REASON_SCHEMA_ORPHANS: {codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_SCHEMA_TYPE_ERROR,
		func(_ error, f map[string]string) []string {
			r, _ := tuple.Parse(f["example"])
			return []string{"definition_name", r.Object.Type, "relation_name", r.Relation, "relationship", f["example"]}
		}},
}

// overLimits are the counterparts of errors over a limit, by the limit's name.
var overLimits = map[string]counterpart{
	"max-operations": {codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_TOO_MANY_UPDATES_IN_REQUEST,
		counted("update_count", "maximum_updates_allowed")},
	"max-preconditions": {codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_TOO_MANY_PRECONDITIONS_IN_REQUEST,
		counted("precondition_count", "maximum_preconditions_allowed")},
	"max-bulk-items": {codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_TOO_MANY_CHECKS_IN_REQUEST,
		counted("check_count", "maximum_checks_allowed")},
	"max-lookup-page": {codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_EXCEEDS_MAXIMUM_ALLOWABLE_LIMIT,
		counted("limit_provided", "maximum_limit_allowed")},
	"metadata-bytes": {codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_TRANSACTION_METADATA_TOO_LARGE,
		counted("metadata_byte_size", "maximum_allowed_metadata_byte_size")},
	"max-context-bytes": {codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_MAX_RELATIONSHIP_CONTEXT_SIZE,
		func(_ error, f map[string]string) []string {
			return []string{"relationship", f["relationship"], "max_allowed_size", f["maximum"], "context_size", f["context_size"]}
		}},
	"max-graph-nodes":    tooDeep,
	"max-expand-results": tooDeep,
}

var tooDeep = counterpart{codes.ResourceExhausted, authzedv1.ErrorReason_ERROR_REASON_MAXIMUM_DEPTH_EXCEEDED,
	func(_ error, f map[string]string) []string { return []string{"maximum_depth_allowed", f["maximum"]} }}

func counted(count, maximum string) func(error, map[string]string) []string {
	return func(_ error, f map[string]string) []string { return []string{count, f["count"], maximum, f["maximum"]} }
}

// authzedStatus turns an error's status into the one that authzed.api.v1
// documents for it. err is the error itself, for the facts that it holds.
func authzedStatus(st, err error) error {
	for _, d := range status.Convert(st).Details() {
		info, ok := d.(*errdetails.ErrorInfo)
		if !ok || info.Domain != errorDomain {
			continue
		}
		reason := pembav1.ErrorReason(pembav1.ErrorReason_value["ERROR_REASON_"+info.Reason])
		c, ok := counterparts[reason]
		if over, found := overLimits[info.Metadata["limit"]]; found && overLimit(reason, info.Metadata) {
			c, ok = over, true
		}
		if !ok {
			return st
		}
		var facts []string
		if c.facts != nil {
			facts = c.facts(err, info.Metadata)
		}
		return authzedProblem(c.code, c.reason, status.Convert(st).Message(), facts...)
	}
	return st
}

// overLimit reports whether an error is of a limit. That of a context is named
// wherever something is wrong with a context; it counts where a relationship's is
// larger.
func overLimit(reason pembav1.ErrorReason, facts map[string]string) bool {
	if facts["limit"] == "max-context-bytes" {
		return facts["relationship"] != "" && number(facts["context_size"]) > number(facts["maximum"])
	}
	return reason == pembav1.ErrorReason_ERROR_REASON_LIMIT_EXCEEDED
}

// namedType is the type, and the relation of it, that an error is about.
func namedType(err error, facts map[string]string) name {
	if facts["type"] != "" {
		return name{facts["type"], facts["relation"]}
	}
	var broken *schema.RelationshipError
	if errors.As(err, &broken) {
		if r, err := tuple.Parse(broken.Relationship); err == nil {
			return name{r.Object.Type, r.Relation}
		}
	}
	return name{}
}

// subjectType is the subject of a relationship that its relation does not allow,
// as a schema names it: `user`, `group#member`, `user:*`.
func subjectType(err error) string {
	var broken *schema.RelationshipError
	if !errors.As(err, &broken) {
		return ""
	}
	r, failed := tuple.Parse(broken.Relationship)
	switch {
	case failed != nil:
		return ""
	case r.Subject.IsWildcard():
		return r.Subject.Type + ":*"
	case r.Subject.Relation != "":
		return r.Subject.Type + "#" + r.Subject.Relation
	}
	return r.Subject.Type
}

func caveatOf(err error) schema.CaveatError {
	var broken *schema.CaveatError
	if errors.As(err, &broken) {
		return *broken
	}
	return schema.CaveatError{}
}

func caveatField(err error, facts map[string]string) []string {
	n, c := namedType(err, facts), caveatOf(err)
	return []string{"definition_name", n.typ, "relation_name", n.relation, "caveat_name", c.Caveat, "parameter_name", c.Field, "expected_type", c.Want}
}

// existing are the facts of a relationship that exists already.
func existing(_ error, facts map[string]string) []string {
	r, _ := tuple.Parse(facts["relationship"])
	return []string{
		"relationship", facts["relationship"], "resource_type", r.Object.Type, "resource_object_id", r.Object.ID, "resource_relation", r.Relation,
		"subject_type", r.Subject.Type, "subject_object_id", r.Subject.ID, "subject_relation", r.Subject.Relation,
	}
}

// preconditionFailed names the precondition that a request failed on, by its
// filter; any other error is returned as it is.
func preconditionFailed(err error, ps []*authzedv1.Precondition) error {
	if !errors.Is(err, datastore.ErrPrecondition) {
		return err
	}
	i := number(datastore.Facts(err)["precondition"])
	if i >= len(ps) {
		return err
	}
	operation := "MUST_NOT_EXIST"
	if ps[i].Operation == authzedv1.Precondition_OPERATION_MUST_MATCH {
		operation = "MUST_EXIST"
	}
	facts := append(filterFacts("precondition_", ps[i].Filter), "precondition_operation", operation)
	return authzedProblem(codes.FailedPrecondition, authzedv1.ErrorReason_ERROR_REASON_WRITE_OR_DELETE_PRECONDITION_FAILURE, err.Error(), facts...)
}

// filterFacts are the fields of a filter that are set, as metadata of an error.
func filterFacts(prefix string, f *authzedv1.RelationshipFilter) []string {
	var out []string
	add := func(key, value string) {
		if value != "" {
			out = append(out, prefix+key, value)
		}
	}
	add("resource_type", f.GetResourceType())
	add("resource_id", f.GetOptionalResourceId())
	add("resource_id_prefix", f.GetOptionalResourceIdPrefix())
	add("relation", f.GetOptionalRelation())
	add("subject_type", f.GetOptionalSubjectFilter().GetSubjectType())
	add("subject_id", f.GetOptionalSubjectFilter().GetOptionalSubjectId())
	add("subject_relation", f.GetOptionalSubjectFilter().GetOptionalRelation().GetRelation())
	return out
}
