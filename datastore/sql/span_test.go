package sql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// TestStatementsAreTracedWithinCallsOnly: their text, and never their values; a
// statement outside a traced call ends no span of others.
func TestStatementsAreTracedWithinCallsOnly(t *testing.T) {
	exporter := tracetest.NewInMemoryExporter()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter)).Tracer("test")
	s := spans{"postgres"}
	query := pgx.TraceQueryStartData{SQL: "SELECT $1", Args: []any{"ada"}}

	s.TraceQueryEnd(s.TraceQueryStart(context.Background(), nil, query), nil, pgx.TraceQueryEndData{})
	if len(exporter.GetSpans()) != 0 {
		t.Error("a statement is traced outside a call")
	}
	call, span := tracer.Start(context.Background(), "call")
	s.TraceQueryEnd(call, nil, pgx.TraceQueryEndData{}) // one that began before the trace
	if len(exporter.GetSpans()) != 0 || !span.IsRecording() {
		t.Error("a statement ended the span of its call")
	}
	s.TraceQueryEnd(s.TraceQueryStart(call, nil, query), nil, pgx.TraceQueryEndData{Err: errors.New("ada is there already")})
	batch := &pgx.Batch{}
	batch.Queue("SELECT 1")
	batch.Queue("SELECT 2")
	s.TraceBatchEnd(s.TraceBatchStart(call, nil, pgx.TraceBatchStartData{Batch: batch}), nil, pgx.TraceBatchEndData{})
	s.TraceCopyFromEnd(s.TraceCopyFromStart(call, nil, pgx.TraceCopyFromStartData{}), nil, pgx.TraceCopyFromEndData{})
	span.End()
	got := exporter.GetSpans()
	if len(got) != 4 {
		t.Fatalf("%d spans", len(got))
	}
	for _, part := range got[:3] {
		if part.Parent.SpanID() != span.SpanContext().SpanID() {
			t.Errorf("%s is no part of its call", part.Name)
		}
		if strings.Contains(fmt.Sprint(part.Attributes, part.Status, part.Events), "ada") {
			t.Errorf("%s tells a value: %v %v", part.Name, part.Attributes, part.Status)
		}
	}
	if got[0].Status.Code != codes.Error || !strings.Contains(fmt.Sprint(got[0].Attributes), "SELECT $1") {
		t.Errorf("the statement that failed: %v %v", got[0].Status, got[0].Attributes)
	}
}
