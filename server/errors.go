package server

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/graph"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/provisioning"
	"github.com/pembadb/pemba/provisioning/scim"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

const errorDomain = "pemba"

// Why the server itself ends a stream.
var (
	errStopping = errors.New("the server is stopping; ask again where this ended")
	errSlow     = errors.New("the client reads its stream too slowly (max-slow-consumer); go on where this ended")
)

// problems says which code and reason an error gets. The first that matches
// counts, so causes stand before what they are wrapped in.
var problems = []struct {
	is     error
	code   codes.Code
	reason pembav1.ErrorReason
}{
	{datastore.ErrBackup, codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_BACKUP},
	{errStopping, codes.Unavailable, pembav1.ErrorReason_ERROR_REASON_UNAVAILABLE},
	{errSlow, codes.ResourceExhausted, pembav1.ErrorReason_ERROR_REASON_SLOW_CONSUMER},
	{errLate, codes.DeadlineExceeded, pembav1.ErrorReason_ERROR_REASON_DEADLINE_EXCEEDED},
	{context.Canceled, codes.Canceled, pembav1.ErrorReason_ERROR_REASON_CANCELLED},
	{context.DeadlineExceeded, codes.DeadlineExceeded, pembav1.ErrorReason_ERROR_REASON_DEADLINE_EXCEEDED},
	{datastore.ErrOrphans, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_SCHEMA_ORPHANS},
	{datastore.ErrHashMismatch, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_SCHEMA_HASH_MISMATCH},
	{datastore.ErrPrecondition, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_PRECONDITION_FAILED},
	{datastore.ErrRequestReused, codes.AlreadyExists, pembav1.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED},
	{datastore.ErrDuplicate, codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_DUPLICATE_OPERATION},
	{datastore.ErrAlreadyExists, codes.AlreadyExists, pembav1.ErrorReason_ERROR_REASON_RELATIONSHIP_EXISTS},
	{datastore.ErrTooLarge, codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_LIMIT_EXCEEDED},
	{graph.ErrTooManyNodes, codes.ResourceExhausted, pembav1.ErrorReason_ERROR_REASON_LIMIT_EXCEEDED},
	{schema.ErrUnknownType, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_UNKNOWN_TYPE},
	{schema.ErrUnknownRelation, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_UNKNOWN_RELATION},
	{schema.ErrPermission, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_PERMISSION_NOT_WRITABLE},
	{schema.ErrSubjectNotAllowed, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_SUBJECT_NOT_ALLOWED},
	{schema.ErrUnknownCaveat, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_UNKNOWN_CAVEAT},
	{schema.ErrCaveatCost, codes.ResourceExhausted, pembav1.ErrorReason_ERROR_REASON_CAVEAT_COST},
	{schema.ErrCaveatField, codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_CAVEAT_FIELD},
	{schema.ErrCaveatRuntime, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_CAVEAT_FAILED},
	{schema.ErrContext, codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_CONTEXT},
	{datastore.ErrSchema, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_SUBJECT_NOT_ALLOWED},
	{graph.ErrRecursion, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_CYCLE_THROUGH_EXCLUSION},
	{graph.ErrNoSchema, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_UNKNOWN_TYPE},
	{datastore.ErrNoSchema, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_UNKNOWN_TYPE},
	{graph.ErrUnknownType, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_UNKNOWN_TYPE},
	{graph.ErrUnknown, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_UNKNOWN_RELATION},
	{datastore.ErrForeignZookie, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_FOREIGN_ZOOKIE},
	{datastore.ErrZookie, codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_ZOOKIE},
	{datastore.ErrReplay, codes.ResourceExhausted, pembav1.ErrorReason_ERROR_REASON_LIMIT_EXCEEDED},
	{datastore.ErrAhead, codes.OutOfRange, pembav1.ErrorReason_ERROR_REASON_BEYOND_HEAD},
	{datastore.ErrCompacted, codes.OutOfRange, pembav1.ErrorReason_ERROR_REASON_COMPACTED},
	{datastore.ErrForked, codes.Aborted, pembav1.ErrorReason_ERROR_REASON_HISTORY_FORKED},
	{datastore.ErrCorrupt, codes.DataLoss, pembav1.ErrorReason_ERROR_REASON_CHAIN_BROKEN},
	{datastore.ErrNoStore, codes.NotFound, pembav1.ErrorReason_ERROR_REASON_UNKNOWN_STORE},
	{provisioning.ErrNoMember, codes.NotFound, pembav1.ErrorReason_ERROR_REASON_MEMBER_NOT_FOUND},
	{provisioning.ErrRemovals, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_TOO_MANY_REMOVALS},
	{datastore.ErrNoIdentity, codes.NotFound, pembav1.ErrorReason_ERROR_REASON_USER_NOT_FOUND},
	{datastore.ErrNotFound, codes.NotFound, pembav1.ErrorReason_ERROR_REASON_TOKEN_NOT_FOUND},
	{datastore.ErrProtected, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_STORE_PROTECTED},
	{datastore.ErrAmbiguous, codes.Unavailable, pembav1.ErrorReason_ERROR_REASON_UNAVAILABLE},
	{datastore.ErrClosed, codes.Unavailable, pembav1.ErrorReason_ERROR_REASON_UNAVAILABLE},
	{datastore.ErrFull, codes.ResourceExhausted, pembav1.ErrorReason_ERROR_REASON_UNAVAILABLE},
	{datastore.ErrUnknownOperation, codes.Unavailable, pembav1.ErrorReason_ERROR_REASON_UNAVAILABLE},
	{datastore.ErrOverloaded, codes.ResourceExhausted, pembav1.ErrorReason_ERROR_REASON_LIMIT_EXCEEDED},
	{datastore.ErrUnavailable, codes.Unavailable, pembav1.ErrorReason_ERROR_REASON_UNAVAILABLE},
	{datastore.ErrInvalid, codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_FIELD},
	{graph.ErrInvalid, codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_FIELD},
}

// facts are the metadata of an error: those it carries, and of limits that other
// packages enforce their names in the configuration.
func (s *Server) facts(err, kind error) map[string]string {
	facts := datastore.Facts(err)
	limit := func(name string, maximum uint64) {
		facts["limit"], facts["maximum"] = name, strconv.FormatUint(maximum, 10)
	}
	switch kind {
	case graph.ErrTooManyNodes:
		if facts["limit"] == "" {
			limit("max-graph-nodes", uint64(s.limits.GraphNodes))
		}
	case schema.ErrCaveatCost:
		limit("max-caveat-cost", s.limits.CaveatCost)
	}
	return facts
}

// problem makes an error with a code and a reason.
func problem(code codes.Code, reason pembav1.ErrorReason, format string, args ...any) error {
	return withReason(code, reason, fmt.Sprintf(format, args...))
}

// withReason is problem with facts: keys and values in turn.
func withReason(code codes.Code, reason pembav1.ErrorReason, text string, facts ...string) error {
	m := map[string]string{}
	for i := 0; i+1 < len(facts); i += 2 {
		m[facts[i]] = facts[i+1]
	}
	return withFacts(code, reason, text, m)
}

// longestFact bounds each value of an error's metadata, and longestText its
// message: both travel in HTTP/2 headers, which clients bound.
const (
	longestFact = 256
	longestText = 2048
)

func shortened(text string, limit int) string {
	text = strings.ToValidUTF8(text, "?")
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
}

func withFacts(code codes.Code, reason pembav1.ErrorReason, text string, facts map[string]string) error {
	const prefix = len("ERROR_REASON_")
	text = shortened(text, longestText)
	for k, v := range facts {
		facts[k] = shortened(v, longestFact)
	}
	st, err := status.New(code, text).WithDetails(&errdetails.ErrorInfo{Reason: reason.String()[prefix:], Domain: errorDomain, Metadata: facts})
	if err != nil {
		return status.Error(code, text)
	}
	return st.Err()
}

// withFact adds one fact to an error that withFacts made.
func withFact(err error, key, value string) error {
	p := status.Convert(err).Proto()
	for i, d := range p.GetDetails() {
		info := &errdetails.ErrorInfo{}
		if d.UnmarshalTo(info) != nil {
			continue
		}
		if info.Metadata == nil {
			info.Metadata = map[string]string{}
		}
		info.Metadata[key] = value
		if changed, err := anypb.New(info); err == nil {
			p.Details[i] = changed
		}
	}
	return status.ErrorProto(p)
}

// overloadedFor is how long a client does well to wait when too many reads of the
// database do.
const overloadedFor = 250 * time.Millisecond

// withRetry adds to an error how long to wait before the same is tried again.
func withRetry(err error, after time.Duration) error {
	st, failed := status.Convert(err).WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	if failed != nil {
		return err
	}
	return st.Err()
}

// status gives an error its code and reason. What is not known is logged and
// told to the caller as INTERNAL only.
func (s *Server) status(ctx context.Context, method string, err error) error {
	st := s.pembaStatus(ctx, method, err)
	if st != nil && isAuthzed(method) {
		return authzedStatus(st, err)
	}
	return st
}

func (s *Server) pembaStatus(ctx context.Context, method string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		return err
	}
	var broken schema.Errors
	if errors.As(err, &broken) && !errors.Is(err, datastore.ErrCorrupt) && !errors.Is(err, datastore.ErrBackup) {
		return schemaErrors(broken)
	}
	for _, p := range problems {
		if errors.Is(err, p.is) {
			facts := s.facts(err, p.is)
			if p.is == datastore.ErrUnknownOperation {
				s.stepAside(facts["store"], err)
			}
			problem := withFacts(p.code, p.reason, err.Error(), facts)
			if p.is == datastore.ErrOverloaded {
				problem = withRetry(problem, overloadedFor)
			}
			return problem
		}
	}
	var attributes *scim.Error
	if errors.As(err, &attributes) {
		return withReason(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_FIELD, err.Error())
	}
	var noun *tuple.Error
	if errors.As(err, &noun) {
		return withReason(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_FIELD, err.Error())
	}
	s.log.ErrorContext(ctx, "a request failed", "method", method, "error", err)
	return withReason(codes.Internal, pembav1.ErrorReason_ERROR_REASON_INTERNAL, "an internal error; the server's log has the details")
}

func schemaErrors(errs schema.Errors) error {
	detail := &pembav1.SchemaErrors{}
	for _, e := range errs[:min(len(errs), 20)] {
		detail.Errors = append(detail.Errors, &pembav1.SchemaProblem{
			Line: uint32(e.Pos.Line), Column: uint32(e.Pos.Column), Token: e.Token, Message: e.Message, Hint: e.Hint,
		})
	}
	err := withReason(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_SCHEMA, errs.Error())
	if st, err := status.Convert(err).WithDetails(detail); err == nil {
		return st.Err()
	}
	return err
}

// itemStatus is an error of one item of a bulk request.
func (s *Server) itemStatus(ctx context.Context, method string, err error) *status.Status {
	return status.Convert(s.status(ctx, method, err))
}
