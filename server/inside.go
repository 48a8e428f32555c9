package server

import (
	"context"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// insideMethod is a method as a Server registered it.
type insideMethod struct {
	service any
	unary   grpc.MethodHandler
	stream  *grpc.StreamDesc
}

// inside calls the services of a Server within the process, as if over gRPC: what
// a call meets between the wire and its handler, it meets here, except for the
// wire and the tap, whose work an exchange does.
type inside struct{ *Server }

var _ grpc.ClientConnInterface = inside{}

// insideContext is the context of a call as the server sees it: its metadata, its
// transport, and the caller, who is known already.
func insideContext(ctx context.Context, t *insideTransport) context.Context {
	sent, _ := metadata.FromOutgoingContext(ctx)
	if x := exchangeOf(ctx); x != nil {
		sent = metadata.Join(sent, metadata.Pairs(requestIDKey, x.id))
		if x.caller != nil {
			ctx = context.WithValue(ctx, callerKey{}, x.caller)
		}
	}
	return grpc.NewContextWithServerTransportStream(metadata.NewIncomingContext(ctx, sent), t)
}

// Invoke implements [grpc.ClientConnInterface].
func (in inside) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	m, ok := in.registered[method]
	if !ok || m.unary == nil {
		return status.Errorf(codes.Unimplemented, "there is no method %s", method)
	}
	if err := exchangeOf(ctx).problem(); err != nil {
		return err
	}
	t := &insideTransport{method: method}
	answer, err := m.unary(m.service, insideContext(ctx, t), func(message any) error {
		proto.Merge(decoded(message), args.(proto.Message))
		return nil
	}, in.unary)
	t.tell(opts)
	if err != nil {
		return err
	}
	proto.Merge(reply.(proto.Message), answer.(proto.Message))
	return nil
}

// NewStream implements [grpc.ClientConnInterface].
func (in inside) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	m, ok := in.registered[method]
	if !ok || m.stream == nil {
		return nil, status.Errorf(codes.Unimplemented, "there is no stream %s", method)
	}
	x := exchangeOf(ctx)
	if err := x.problem(); err != nil {
		return nil, err
	}
	t := &insideTransport{method: method}
	s := &insideStream{
		ctx: ctx, server: insideContext(ctx, t), transport: t, exchange: x, many: m.stream.ClientStreams,
		up: newHandoff(), down: newHandoff(), began: make(chan struct{}), ended: make(chan struct{}),
	}
	x.streams(m.stream.ClientStreams)
	run := func() {
		info := &grpc.StreamServerInfo{FullMethod: method, IsClientStream: m.stream.ClientStreams, IsServerStream: m.stream.ServerStreams}
		s.err = in.stream(m.service, insideServerStream{s}, info, m.stream.Handler)
		t.tell(opts)
		close(s.ended)
	}
	if x != nil {
		x.handlers.Go(run)
	} else {
		go run()
	}
	return s, nil
}

// decoded is where a message is decoded into.
func decoded(message any) proto.Message {
	if in, ok := message.(*incoming); ok {
		message = in.message
	}
	return message.(proto.Message)
}

// insideTransport takes the metadata that a handler sends.
type insideTransport struct {
	method string
	mu     sync.Mutex
	header metadata.MD
}

// Method implements [grpc.ServerTransportStream].
func (t *insideTransport) Method() string { return t.method }

// SetHeader implements [grpc.ServerTransportStream].
func (t *insideTransport) SetHeader(md metadata.MD) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.header = metadata.Join(t.header, md)
	return nil
}

// SendHeader implements [grpc.ServerTransportStream].
func (t *insideTransport) SendHeader(md metadata.MD) error { return t.SetHeader(md) }

// SetTrailer implements [grpc.ServerTransportStream]. HTTP clients seldom read
// trailers: what stands in them goes to the header.
func (t *insideTransport) SetTrailer(md metadata.MD) error { return t.SetHeader(md) }

// tell gives the metadata to whom it may interest.
func (t *insideTransport) tell(opts []grpc.CallOption) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range opts {
		if h, ok := o.(grpc.HeaderCallOption); ok {
			*h.HeaderAddr = t.header.Copy()
		}
	}
}

// handoff passes messages from one side of a stream to the other without keeping
// any: who receives says where to, who sends writes there.
type handoff struct {
	wanted chan proto.Message
	filled chan struct{}
	closed chan struct{}
	once   *sync.Once
}

func newHandoff() handoff {
	return handoff{wanted: make(chan proto.Message), filled: make(chan struct{}), closed: make(chan struct{}), once: new(sync.Once)}
}

// close tells the receiver that nothing more comes.
func (h handoff) close() { h.once.Do(func() { close(h.closed) }) }

// send passes a message on, unless the other side has ended.
func (h handoff) send(ctx context.Context, message proto.Message, ended <-chan struct{}) error {
	select {
	case to := <-h.wanted:
		proto.Merge(to, message)
		h.filled <- struct{}{}
		return nil
	case <-ended:
		return io.EOF
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

// receive waits for a message; io.EOF once the sender has closed.
func (h handoff) receive(ctx context.Context, message proto.Message, ended <-chan struct{}) error {
	select {
	case h.wanted <- message:
		<-h.filled
		return nil
	case <-h.closed:
		return io.EOF
	case <-ended:
		return io.EOF
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

// insideStream is the client's side of a stream within the process.
type insideStream struct {
	ctx, server context.Context
	transport   *insideTransport
	exchange    *exchange
	many        bool // the client sends more than one message
	up, down    handoff
	began       chan struct{} // closed at the first answer
	first       sync.Once
	ended       chan struct{} // closed when the handler has returned err
	err         error
}

// Context implements [grpc.ClientStream].
func (s *insideStream) Context() context.Context { return s.ctx }

// Header implements [grpc.ClientStream]: it waits for the first answer, so that a
// stream that fails before has an error and no beginning.
func (s *insideStream) Header() (metadata.MD, error) {
	select {
	case <-s.began:
	case <-s.ended:
		return nil, s.err
	case <-s.ctx.Done():
		return nil, status.FromContextError(s.ctx.Err()).Err()
	}
	s.transport.mu.Lock()
	defer s.transport.mu.Unlock()
	return s.transport.header.Copy(), nil
}

// Trailer implements [grpc.ClientStream].
func (s *insideStream) Trailer() metadata.MD { return nil }

// CloseSend implements [grpc.ClientStream].
func (s *insideStream) CloseSend() error {
	s.up.close()
	return nil
}

// SendMsg implements [grpc.ClientStream]. A stream that has ended tells its error
// where it is received from; who sends one message only is not told at all.
func (s *insideStream) SendMsg(m any) error {
	err := s.up.send(s.ctx, m.(proto.Message), s.ended)
	if err == io.EOF && !s.many {
		return nil
	}
	return err
}

// RecvMsg implements [grpc.ClientStream].
func (s *insideStream) RecvMsg(m any) error {
	err := s.down.receive(s.ctx, m.(proto.Message), s.ended)
	if err == io.EOF && s.err != nil {
		return s.err
	}
	return err
}

// insideServerStream is the server's side.
type insideServerStream struct{ s *insideStream }

// Context implements [grpc.ServerStream].
func (s insideServerStream) Context() context.Context { return s.s.server }

// SetHeader implements [grpc.ServerStream].
func (s insideServerStream) SetHeader(md metadata.MD) error { return s.s.transport.SetHeader(md) }

// SendHeader implements [grpc.ServerStream].
func (s insideServerStream) SendHeader(md metadata.MD) error { return s.s.transport.SetHeader(md) }

// SetTrailer implements [grpc.ServerStream].
func (s insideServerStream) SetTrailer(md metadata.MD) { _ = s.s.transport.SetTrailer(md) }

// SendMsg implements [grpc.ServerStream].
func (s insideServerStream) SendMsg(m any) error {
	s.s.first.Do(func() { close(s.s.began) })
	return s.s.down.send(s.s.server, m.(proto.Message), nil)
}

// RecvMsg implements [grpc.ServerStream]. A request that could not be read ends
// the stream with that error, and not as if it were complete.
func (s insideServerStream) RecvMsg(m any) error {
	err := s.s.up.receive(s.s.server, decoded(m), nil)
	if err == io.EOF {
		if broken := s.s.exchange.problem(); broken != nil {
			return broken
		}
	}
	return err
}
