package main

import (
	"context"
	"fmt"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// tracing sends traces as the standard variables of OpenTelemetry say; nil where
// they name no endpoint, and then nothing is traced.
type tracing struct {
	provider *sdktrace.TracerProvider
}

// trace begins to send traces, if the environment says where to.
// (OpenTelemetry Environment Variable Specification; OpenTelemetry Protocol
// Exporter.)
func (a *app) trace(ctx context.Context) (*tracing, error) {
	first := func(names ...string) string {
		for _, name := range names {
			if v := a.getenv(name); v != "" {
				return v
			}
		}
		return ""
	}
	if first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT") == "" ||
		strings.EqualFold(a.getenv("OTEL_SDK_DISABLED"), "true") || a.getenv("OTEL_TRACES_EXPORTER") == "none" {
		return nil, nil
	}
	var exporter *otlptrace.Exporter
	var err error
	switch protocol := first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); protocol {
	case "", "http/protobuf":
		exporter, err = otlptracehttp.New(ctx)
	case "grpc":
		exporter, err = otlptracegrpc.New(ctx)
	default:
		return nil, usagef("OTEL_EXPORTER_OTLP_PROTOCOL %q is not spoken; write http/protobuf or grpc", protocol)
	}
	if err != nil {
		return nil, fmt.Errorf("send traces as OTEL_EXPORTER_OTLP_ENDPOINT says: %w", err)
	}
	about, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "pemba"), attribute.String("service.version", version())),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("read OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))
	otel.SetTracerProvider(provider) // for what peers ask
	return &tracing{provider}, nil
}

// tracer is what the server traces with; nil for not at all.
func (t *tracing) tracer() trace.Tracer {
	if t == nil {
		return nil
	}
	return t.provider.Tracer("github.com/pembadb/pemba")
}

// close sends what is left, until ctx ends.
func (t *tracing) close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("send the last traces: %w", err)
	}
	return nil
}
