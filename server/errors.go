package server

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/graph"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

const errorDomain = "pemba"

// problems says which code and reason an error gets. The first that matches
// counts, so causes stand before what they are wrapped in.
var problems = []struct {
	is     error
	code   codes.Code
	reason pembav1.ErrorReason
}{
	{context.Canceled, codes.Canceled, pembav1.ErrorReason_ERROR_REASON_CANCELLED},
	{context.DeadlineExceeded, codes.DeadlineExceeded, pembav1.ErrorReason_ERROR_REASON_DEADLINE_EXCEEDED},
	{datastore.ErrOrphans, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_SCHEMA_ORPHANS},
	{datastore.ErrHashMismatch, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_SCHEMA_HASH_MISMATCH},
	{datastore.ErrPrecondition, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_PRECONDITION_FAILED},
	{datastore.ErrRequestReused, codes.AlreadyExists, pembav1.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED},
	{datastore.ErrAlreadyExists, codes.AlreadyExists, pembav1.ErrorReason_ERROR_REASON_RELATIONSHIP_EXISTS},
	{datastore.ErrTooLarge, codes.ResourceExhausted, pembav1.ErrorReason_ERROR_REASON_LIMIT_EXCEEDED},
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
	{graph.ErrUnknown, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_UNKNOWN_RELATION},
	{datastore.ErrZookie, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_FOREIGN_ZOOKIE},
	{datastore.ErrAhead, codes.OutOfRange, pembav1.ErrorReason_ERROR_REASON_BEYOND_HEAD},
	{datastore.ErrCompacted, codes.OutOfRange, pembav1.ErrorReason_ERROR_REASON_COMPACTED},
	{datastore.ErrForked, codes.Aborted, pembav1.ErrorReason_ERROR_REASON_HISTORY_FORKED},
	{datastore.ErrCorrupt, codes.DataLoss, pembav1.ErrorReason_ERROR_REASON_CHAIN_BROKEN},
	{datastore.ErrNoStore, codes.NotFound, pembav1.ErrorReason_ERROR_REASON_UNKNOWN_STORE},
	{datastore.ErrNotFound, codes.NotFound, pembav1.ErrorReason_ERROR_REASON_TOKEN_NOT_FOUND},
	{datastore.ErrReadOnlySystem, codes.FailedPrecondition, pembav1.ErrorReason_ERROR_REASON_STORE_PROTECTED},
	{datastore.ErrAmbiguous, codes.Unavailable, pembav1.ErrorReason_ERROR_REASON_UNAVAILABLE},
	{datastore.ErrClosed, codes.Unavailable, pembav1.ErrorReason_ERROR_REASON_UNAVAILABLE},
	{datastore.ErrInvalid, codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_FIELD},
	{graph.ErrInvalid, codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_FIELD},
}

// problem makes an error with a code and a reason.
func problem(code codes.Code, reason pembav1.ErrorReason, format string, args ...any) error {
	return withReason(code, reason, fmt.Sprintf(format, args...))
}

func withReason(code codes.Code, reason pembav1.ErrorReason, text string) error {
	const prefix = len("ERROR_REASON_")
	st, err := status.New(code, text).WithDetails(&errdetails.ErrorInfo{Reason: reason.String()[prefix:], Domain: errorDomain})
	if err != nil {
		return status.Error(code, text)
	}
	return st.Err()
}

// status gives an error its code and reason. What is not known is logged and
// told to the caller as INTERNAL only.
func (s *Server) status(ctx context.Context, method string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	var broken schema.Errors
	if errors.As(err, &broken) && !errors.Is(err, datastore.ErrCorrupt) {
		return schemaErrors(broken)
	}
	for _, p := range problems {
		if errors.Is(err, p.is) {
			return withReason(p.code, p.reason, err.Error())
		}
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
	for _, e := range errs {
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
