package peers

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"
)

// traceKey is the metadata by which a peer is told the trace that it is asked in
// (W3C Trace Context).
const traceKey = "traceparent"

// sendTrace tells the trace of a call, if it is traced, to the peer that is asked.
func sendTrace(ctx context.Context) context.Context {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return metadata.AppendToOutgoingContext(ctx, traceKey, carrier[traceKey])
}

// receiveTrace goes on with the trace that a peer asks in, if there is one.
func receiveTrace(ctx context.Context) (_ context.Context, end func()) {
	given := metadata.ValueFromIncomingContext(ctx, traceKey)
	if len(given) != 1 {
		return ctx, func() {}
	}
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{traceKey: given[0]})
	ctx, span := otel.Tracer("github.com/pembadb/pemba").Start(ctx, "answer a peer", trace.WithSpanKind(trace.SpanKindServer))
	return ctx, func() { span.End() }
}
