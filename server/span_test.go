package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc/metadata"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/dispatch"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

// TestCallsAreTraced within the trace that the caller tells, over gRPC and HTTP,
// down to the reads of the datastore, and without naming anybody.
func TestCallsAreTraced(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	n := launch(t, memory.New(), keeper.Options{ResidentMaxRelationships: 1, Cache: dispatch.New(dispatch.Options{})}, server.Config{Tracer: provider.Tracer("test")})
	n.apply(t, peopleSchema)
	n.write(t, "document:plan#viewer@user:ada", "document:plan#viewer@user:bea", "document:plan#viewer@user:cleo")
	w := listenHTTP(t, n, "")
	const id, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	const told = "00-" + id + "-" + parent + "-01"
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", told)

	spans.Reset()
	question := &pembav1.CheckRequest{Resource: obj("document", "plan"), Permission: "view", Subject: user("ada"), Consistency: fully()}
	if _, err := n.permissions.Check(ctx, question); err != nil {
		t.Fatal(err)
	}
	if _, err := all(n.permissions.LookupSubjects(ctx, &pembav1.LookupSubjectsRequest{Resource: obj("document", "none"), Permission: "none", SubjectType: "user"})); err == nil {
		t.Fatal("a permission that nobody knows")
	}
	r, err := http.NewRequest("GET", w.url+"/v1/schema", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Traceparent", told)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()

	seen := map[string]tracetest.SpanStub{}
	for _, s := range spans.GetSpans() {
		seen[s.Name] = s
		if s.SpanContext.TraceID().String() != id {
			t.Errorf("%s is in another trace", s.Name)
		}
		if text := fmt.Sprint(s.Name, s.Attributes, s.Events, s.Status); strings.Contains(text, "ada") || strings.Contains(text, "plan") {
			t.Errorf("%s tells %s", s.Name, text)
		}
	}
	for _, name := range []string{"pemba.v1.PermissionService/Check", "pemba.v1.PermissionService/LookupSubjects", "pemba.v1.SchemaService/GetSchema"} {
		if s, ok := seen[name]; !ok || s.Parent.SpanID().String() != parent {
			t.Errorf("%s: its parent is %s", name, s.Parent.SpanID())
		}
	}
	if s := seen["pemba.v1.PermissionService/LookupSubjects"]; s.Status.Code != codes.Error {
		t.Errorf("a call that failed: %v", s.Status)
	}
	if read, check := seen["read the datastore"], seen["pemba.v1.PermissionService/Check"]; read.Parent.SpanID() != check.SpanContext.SpanID() {
		t.Errorf("the read's parent is %s, and the check is %s", read.Parent.SpanID(), check.SpanContext.SpanID())
	}
}
