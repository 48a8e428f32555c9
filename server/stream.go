package server

import (
	"context"
	"time"

	"google.golang.org/grpc"
)

// callerStream is a stream whose context knows the caller, and which ends when
// the caller's token is revoked or the client does not read.
type callerStream struct {
	grpc.ServerStream
	server *Server
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (s *callerStream) Context() context.Context { return s.ctx }

// SendMsg sends a message, and gives up when the client leaves it unread for
// Limits.SlowConsumer. Then the sending goes on in the background until the
// stream ends, which its handler's return brings about; nothing is sent after.
func (s *callerStream) SendMsg(m any) error {
	if err := context.Cause(s.ctx); err != nil {
		return err
	}
	if err := s.server.stillValid(s.ctx); err != nil {
		s.cancel(err)
		return err
	}
	sent := make(chan error, 1)
	go func() { sent <- s.ServerStream.SendMsg(m) }()
	slow := time.NewTimer(s.server.limits.SlowConsumer)
	defer slow.Stop()
	select {
	case err := <-sent:
		return err
	case <-slow.C:
		s.cancel(errSlow)
		return errSlow
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}
