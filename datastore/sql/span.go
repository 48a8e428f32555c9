package sql

import (
	"context"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// spans makes statements a part of the trace of a call, where it is traced: their
// text, never their values.
type spans struct{ system string }

var (
	_ pgx.QueryTracer    = spans{}
	_ pgx.BatchTracer    = spans{}
	_ pgx.CopyFromTracer = spans{}
)

// spanKey is where a statement's span is, which must not be taken for that of its
// call.
type spanKey struct{}

func (s spans) start(ctx context.Context, name, text string, n int) context.Context {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx
	}
	attributes := []attribute.KeyValue{attribute.String("db.system.name", s.system)}
	if text != "" {
		attributes = append(attributes, attribute.String("db.query.text", text))
	}
	if n > 0 {
		attributes = append(attributes, attribute.Int("db.operation.batch.size", n))
	}
	ctx, span := parent.TracerProvider().Tracer("github.com/pembadb/pemba").Start(ctx, name,
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...))
	return context.WithValue(ctx, spanKey{}, span)
}

func (s spans) end(ctx context.Context, err error) {
	span, ok := ctx.Value(spanKey{}).(trace.Span)
	if !ok {
		return
	}
	if err != nil {
		span.SetStatus(codes.Error, "") // the text may hold values
	}
	span.End()
}

// TraceQueryStart implements [pgx.QueryTracer].
func (s spans) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	return s.start(ctx, "sql query", d.SQL, 0)
}

// TraceQueryEnd implements [pgx.QueryTracer].
func (s spans) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryEndData) {
	s.end(ctx, d.Err)
}

// TraceBatchStart implements [pgx.BatchTracer].
func (s spans) TraceBatchStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceBatchStartData) context.Context {
	return s.start(ctx, "sql batch", "", d.Batch.Len())
}

// TraceBatchQuery implements [pgx.BatchTracer]: a batch is one round trip, and one
// span.
func (spans) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd implements [pgx.BatchTracer].
func (s spans) TraceBatchEnd(ctx context.Context, _ *pgx.Conn, d pgx.TraceBatchEndData) {
	s.end(ctx, d.Err)
}

// TraceCopyFromStart implements [pgx.CopyFromTracer].
func (s spans) TraceCopyFromStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceCopyFromStartData) context.Context {
	return s.start(ctx, "sql copy", "", 0)
}

// TraceCopyFromEnd implements [pgx.CopyFromTracer].
func (s spans) TraceCopyFromEnd(ctx context.Context, _ *pgx.Conn, d pgx.TraceCopyFromEndData) {
	s.end(ctx, d.Err)
}
