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
//
// Of messages it sends one after the other, which together have that time.
func (s *callerStream) SendMsg(m any) error {
	if err := context.Cause(s.ctx); err != nil {
		return err
	}
	if err := s.server.stillValid(s.ctx); err != nil {
		s.cancel(err)
		return err
	}
	sent := make(chan error, 1)
	go func() { sent <- s.send(m) }()
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

// messages are several for one SendMsg: where an API has a message for each small
// thing, what it takes to watch over a message is more than to send it. They are
// few enough to be a page of a list together.
type messages []any

func (s *callerStream) send(m any) error {
	each, ok := m.(messages)
	if !ok {
		return s.ServerStream.SendMsg(m)
	}
	for _, m := range each {
		if err := s.ServerStream.SendMsg(m); err != nil {
			return err
		}
	}
	return nil
}
