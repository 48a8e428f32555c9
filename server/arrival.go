package server

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"

	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

// arrival is the context of a call over gRPC from its headers on: it knows the
// caller, and ends when the request does not come. What of a request is there
// already stays in memory until the rest is, so nobody may take his time with it.
type arrival struct {
	context.Context
	caller *caller
	cancel func()
	late   *time.Timer
	every  time.Duration // how long each message may take; 0: only the first is bounded
}

type arrivalKey struct{}

// Value implements [context.Context].
func (a *arrival) Value(key any) any {
	switch key.(type) {
	case callerKey:
		return a.caller
	case arrivalKey:
		return a
	}
	return a.Context.Value(key)
}

// Err implements [context.Context]. gRPC makes of it what it tells the client.
func (a *arrival) Err() error {
	err := a.Context.Err()
	if err == context.Canceled && context.Cause(a.Context) == errLate {
		return context.DeadlineExceeded
	}
	return err
}

// arrivalOf is the arrival of a stream; nil for calls within the process, whose
// exchange bounds them.
func arrivalOf(ctx context.Context) *arrival {
	a, _ := ctx.Value(arrivalKey{}).(*arrival)
	return a
}

// strangerTime is how long the request of somebody who needs no token may take:
// it is a question about health, of a few bytes.
const strangerTime = 3 * time.Second

// errLate ends a stream whose request does not come.
var errLate = errors.New("the request did not arrive in time (max-call-time)")

// arriving begins an arrival. A call that is not a stream is bounded as a whole, by
// twice its time: once for its request to come, once for its answer. gRPC ends the
// context with the call, and with it what bounds it.
func (s *Server) arriving(ctx context.Context, c *caller, method string) context.Context {
	a := &arrival{caller: c}
	patience := s.limits.CallTime
	if c.name == "" {
		patience = min(patience, strangerTime)
		a.every = s.limits.CallTime
	}
	if s.registered[method].unary != nil {
		a.Context, a.cancel = context.WithTimeout(ctx, 2*patience)
		return a
	}
	streaming, cancel := context.WithCancelCause(ctx)
	a.Context, a.cancel = streaming, func() { cancel(nil) }
	a.late = time.AfterFunc(patience, func() { cancel(errLate) })
	return a
}

// came says that a message of a stream has come.
func (a *arrival) came() {
	if a != nil && a.late != nil {
		a.late.Stop()
	}
}

// awaits says that another message is waited for.
func (a *arrival) awaits() {
	if a != nil && a.late != nil && a.every > 0 {
		a.late.Reset(a.every)
	}
}

// strangersShare is the share of max-open-streams that those have together who
// need no token: they must not take the places of those who have one.
const strangersShare = 10

// admitStream takes a place for a stream; leave gives it back.
func (s *Server) admitStream(c *caller) (leave func(), err error) {
	open, most := &s.streams, int64(s.limits.OpenStreams)
	if c.name == "" {
		open, most = &s.strangers, max(most/strangersShare, 1)
	}
	if open.Add(1) > most {
		open.Add(-1)
		return nil, withReason(codes.ResourceExhausted, pembav1.ErrorReason_ERROR_REASON_LIMIT_EXCEEDED,
			fmt.Sprintf("%d streams are open, as many as the server allows (max-open-streams); end some, or try again later", most),
			"limit", "max-open-streams", "maximum", strconv.FormatInt(most, 10))
	}
	return func() { open.Add(-1) }, nil
}
