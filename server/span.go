package server

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// traceContext reads the W3C Trace Context that a caller sends.
var traceContext = propagation.TraceContext{}

var serverSpan = trace.WithSpanKind(trace.SpanKindServer)

// span makes a span of a call that somebody may want to see; end takes the
// call's error. There must be a tracer.
func (s *Server) span(ctx context.Context, method string) (_ context.Context, end func(error)) {
	// Most calls are in no trace that anybody samples: what is said of a call is
	// said only where it is kept.
	ctx, span := s.config.Tracer.Start(traceContext.Extract(ctx, carrier{ctx}), strings.TrimPrefix(method, "/"), serverSpan)
	return ctx, func(err error) {
		if !span.IsRecording() {
			span.End()
			return
		}
		code := status.Code(err)
		service, short, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
		span.SetAttributes(attribute.String("rpc.system", "grpc"), attribute.String("rpc.service", service), attribute.String("rpc.method", short))
		span.SetAttributes(attribute.Int("rpc.grpc.status_code", int(code)))
		if err != nil {
			span.SetStatus(codes.Error, code.String()) // its text may name people
		}
		span.End()
	}
}

// carrier is the metadata of a call as package propagation reads them.
type carrier struct{ ctx context.Context }

var _ propagation.TextMapCarrier = carrier{}

// Get implements [propagation.TextMapCarrier].
func (c carrier) Get(key string) string {
	if v := metadata.ValueFromIncomingContext(c.ctx, key); len(v) == 1 {
		return v[0]
	}
	return ""
}

// Set implements [propagation.TextMapCarrier]: what came is only read.
func (carrier) Set(string, string) {}

// Keys implements [propagation.TextMapCarrier].
func (carrier) Keys() []string { return traceContext.Fields() }
