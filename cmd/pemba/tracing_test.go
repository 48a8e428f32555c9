package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestTracesGoWhereTheEnvironmentSays, the last of them when the server ends.
func TestTracesGoWhereTheEnvironmentSays(t *testing.T) {
	var mu sync.Mutex
	var received bytes.Buffer
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		received.WriteString(r.URL.Path)
		received.Write(body)
	}))
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL) // which the exporter reads itself
	env := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out, in := io.Pipe()
	var told bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"serve", "--grpc-addr", "127.0.0.1:0"}, streams{in: strings.NewReader(""), out: in, err: &told, getenv: func(name string) string { return env[name] }})
		in.Close()
	}()
	addr, _, _ := strings.Cut(strings.TrimPrefix(ready(t, out), "pemba: serving gRPC on "), ",")
	if _, text, code := pemba(addr, "", nil, "store", "list"); code != exitOK {
		t.Fatal(text)
	}
	stop()
	select {
	case c := <-code:
		if c != exitOK {
			t.Fatalf("exit code %d: %s", c, told.String())
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the server does not end")
	}
	mu.Lock()
	defer mu.Unlock()
	for _, want := range []string{"/v1/traces", "pemba.v1.StoreService/ListStores", "service.name"} {
		if !strings.Contains(received.String(), want) {
			t.Errorf("%q was not sent", want)
		}
	}
}

func TestTracesAreSentInAProtocolThatThereIs(t *testing.T) {
	env := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "pigeon"}
	for _, args := range [][]string{{"serve", "--grpc-addr", "127.0.0.1:0"}, {"serve", "--grpc-addr", "127.0.0.1:0", "--check-config"}} {
		if _, told, code := pemba("", "", env, args...); code != exitUsage || !strings.Contains(told, "pigeon") {
			t.Errorf("%v: exit code %d: %s", args, code, told)
		}
	}
}
