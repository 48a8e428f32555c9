package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
)

// A server with --http-addr answers SCIM there, and nowhere once it is told to stop.
func TestServeAnswersSCIM(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	n, err := start(ctx, serving{place: place{uri: "memory:"}, addr: "127.0.0.1:0", httpAddr: "127.0.0.1:0", httpURL: "https://pemba.example", log: slog.New(slog.DiscardHandler)}, "")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- n.until(ctx) }()
	answer, err := http.Get("http://" + n.web.addr + "/scim/v2/ServiceProviderConfig")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK || !strings.Contains(string(body), `"https://pemba.example/scim/v2/ServiceProviderConfig"`) {
		t.Fatalf("status %d: %s %v", answer.StatusCode, body, err)
	}
	http.DefaultClient.CloseIdleConnections()
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", n.web.addr); err == nil {
		c.Close()
		t.Fatal("it listens on")
	}
}

func TestServeRefusesHTTPThatCannotBe(t *testing.T) {
	for _, args := range [][]string{
		{"--http-addr", "8080"}, {"--http-addr", "0.0.0.0:0"}, {"--http-url", "https://pemba.example"},
		{"--http-addr", "127.0.0.1:0", "--http-url", "pemba.example"}, {"--http-addr", "127.0.0.1:0", "--http-url", "ftp://pemba.example"},
		{"--http-addr", "127.0.0.1:0", "--http-url", "https://pemba.example?x"},
		{"--http-addr", "127.0.0.1:0", "--http-cors-origin", "https://app.example/"}, {"--http-addr", "127.0.0.1:0", "--http-cors-origin", "*"},
		{"--http-cors-origin", "https://app.example"},
	} {
		var out, told bytes.Buffer
		code := run(t.Context(), append([]string{"serve", "--grpc-addr", "127.0.0.1:0"}, args...), streams{in: strings.NewReader(""), out: &out, err: &told, getenv: func(string) string { return "" }})
		if code != exitUsage || !strings.Contains(told.String(), args[len(args)-2]) && !strings.Contains(told.String(), "without a token") {
			t.Errorf("%v: exit code %d: %s", args, code, told.String())
		}
	}
}
