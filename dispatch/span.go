package dispatch

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	oteltrace "go.opentelemetry.io/otel/trace"
)

// Span begins a part of a trace, about some queries, where the call is traced, and
// nothing where it is not. end takes the error of the part.
func Span(ctx context.Context, kind oteltrace.SpanKind, name string, queries int) (_ context.Context, end func(error)) {
	parent := oteltrace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, func(error) {}
	}
	ctx, span := parent.TracerProvider().Tracer("github.com/pembadb/pemba").Start(ctx, name,
		oteltrace.WithSpanKind(kind), oteltrace.WithAttributes(attribute.Int("pemba.queries", queries)))
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, "") // the text may name people
		}
		span.End()
	}
}
