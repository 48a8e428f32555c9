package server

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

// tapTime bounds how long a connection waits for a caller to be known before it
// reads on.
const tapTime = time.Second

// tap finds out who calls when a call's headers are there, and refuses strangers
// before anything of their request is read. It runs on the connection's own
// goroutine: what it cannot tell at once, for want of the datastore, the call
// itself tells.
func (s *Server) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	if _, known := methods[info.FullMethodName]; !known {
		return ctx, nil // no service has it, which gRPC says
	}
	began := time.Now()
	timed := newCall(ctx, nil, tapTime)
	defer timed.end()
	c, err := s.admitCaller(timed, info.FullMethodName, info.Header.Get("authorization"))
	switch status.Code(err) {
	case codes.OK:
		return s.arriving(ctx, c, info.FullMethodName), nil
	case codes.Unauthenticated, codes.PermissionDenied, codes.ResourceExhausted:
		s.ended(ctx, info.FullMethodName, began, err)
		return nil, err
	}
	return ctx, nil
}

// incoming is a message on its way from a client into message. It takes the place
// of message where gRPC decodes, so that what goes wrong there gets its reason,
// and so that the memory of large requests under way is bounded.
type incoming struct {
	*Server
	ctx     context.Context
	message any
	weight  int64
	err     error
}

// smallMessage is up to how many bytes a message is not worth counting.
const smallMessage = 64 << 10

// read decodes data into the message.
func (in *incoming) read(codec encoding.CodecV2, data mem.BufferSlice) error {
	n := data.Len()
	if n > in.limits.RequestBytes {
		return withReason(codes.ResourceExhausted, pembav1.ErrorReason_ERROR_REASON_LIMIT_EXCEEDED,
			fmt.Sprintf("the request has %d bytes, more than the limit of %d (max-request-bytes); split it", n, in.limits.RequestBytes),
			"limit", "max-request-bytes", "maximum", strconv.Itoa(in.limits.RequestBytes))
	}
	if n > smallMessage {
		var err error
		if in.weight, err = in.admit(in.ctx, n); err != nil {
			return err
		}
	}
	if err := codec.Unmarshal(data, in.message); err != nil {
		return problem(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_FIELD, "the request is no message of this method: %v", err)
	}
	return nil
}

// admit waits until a large message has its share of what they may take together,
// and returns the share.
func (s *Server) admit(ctx context.Context, n int) (int64, error) {
	weight := int64(min(n, s.limits.InflightBytes))
	wait := newCall(ctx, nil, s.limits.CallTime)
	defer wait.end()
	if err := s.inflight.Acquire(wait, weight); err != nil {
		return 0, withReason(codes.ResourceExhausted, pembav1.ErrorReason_ERROR_REASON_LIMIT_EXCEEDED,
			fmt.Sprintf("large requests under way fill the %d bytes for them (max-inflight-bytes); try again later", s.limits.InflightBytes),
			"limit", "max-inflight-bytes", "maximum", strconv.Itoa(s.limits.InflightBytes))
	}
	return weight, nil
}

// done gives back what the message took.
func (in *incoming) done() {
	if in.weight > 0 {
		in.inflight.Release(in.weight)
		in.weight = 0
	}
}

// RegisterService implements [grpc.ServiceRegistrar]: requests of the service are
// decoded as incoming messages.
func (s *Server) RegisterService(d *grpc.ServiceDesc, service any) {
	counted := *d
	counted.Methods = slices.Clone(d.Methods)
	for i, m := range d.Methods {
		counted.Methods[i].Handler = func(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			in := incoming{Server: s, ctx: ctx}
			defer in.done()
			return m.Handler(srv, ctx, func(message any) error {
				in.message = message
				if err := dec(&in); err != nil {
					return err
				}
				return in.err
			}, interceptor)
		}
	}
	for _, m := range counted.Methods {
		s.registered["/"+d.ServiceName+"/"+m.MethodName] = insideMethod{service: service, unary: m.Handler}
	}
	for i, m := range counted.Streams {
		s.registered["/"+d.ServiceName+"/"+m.StreamName] = insideMethod{service: service, stream: &counted.Streams[i]}
	}
	s.grpc.RegisterService(&counted, service)
}

// incomingStream decodes what a stream brings as incoming messages.
type incomingStream struct {
	grpc.ServerStream
	in      incoming
	arrival *arrival
}

// RecvMsg receives the next message; the one before no longer counts.
func (s *incomingStream) RecvMsg(message any) error {
	s.in.done()
	s.in.message, s.in.err = message, nil
	err := s.ServerStream.RecvMsg(&s.in)
	s.arrival.came()
	if err != nil {
		if context.Cause(s.in.ctx) == errLate {
			return errLate
		}
		return err
	}
	s.arrival.awaits()
	return s.in.err
}
