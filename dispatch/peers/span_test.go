package peers

import (
	"context"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// TestATraceGoesThroughTheNodes: what a call has a peer answer, and what that has
// the database answer, is in the trace of the call, one below the other.
func TestATraceGoesThroughTheNodes(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	before := otel.GetTracerProvider()
	otel.SetTracerProvider(provider)
	defer otel.SetTracerProvider(before)
	nodes := cluster(t, 2, Config{Timeout: 5 * time.Second})
	for _, n := range nodes { // as the tracer of the database's connections does
		n.log.seen = func(ctx context.Context) {
			_, span := trace.SpanFromContext(ctx).TracerProvider().Tracer("sql").Start(ctx, "a statement")
			span.End()
		}
	}
	ctx, call := provider.Tracer("test").Start(t.Context(), "the call")
	var qs []datastore.RowQuery
	for _, id := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"} {
		qs = append(qs, datastore.RowQuery{Filter: tuple.Filter{ObjectType: "document", ObjectID: id, Relation: "viewer"}})
	}
	if err := nodes[0].line.Read(ctx, nodes[0].at, qs, func(int, datastore.Row) bool { return true }); err != nil {
		t.Fatal(err)
	}
	call.End()
	byID := map[trace.SpanID]tracetest.SpanStub{}
	for _, s := range spans.GetSpans() {
		byID[s.SpanContext.SpanID()] = s
		if s.SpanContext.TraceID() != call.SpanContext().TraceID() {
			t.Errorf("%q is in another trace", s.Name)
		}
	}
	through := func(s tracetest.SpanStub, name string) bool {
		for ; s.Name != ""; s = byID[s.Parent.SpanID()] {
			if s.Name == name {
				return true
			}
		}
		return false
	}
	own, peers := 0, 0
	for _, s := range byID {
		if s.Name != "a statement" {
			continue
		}
		if !through(s, "the call") {
			t.Errorf("a statement hangs below %q and not below the call", byID[s.Parent.SpanID()].Name)
		}
		if through(s, "answer a peer") {
			peers++
		} else {
			own++
		}
	}
	if own == 0 || peers == 0 {
		t.Errorf("of 12 questions %d statements are the node's own and %d the peer's", own, peers)
	}
}
