package main

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"
)

// Profiles are there where only this machine asks, or where the operator says so;
// never the command line, with its secrets.
func TestProfilesAreForTheOperator(t *testing.T) {
	for _, c := range []struct {
		may  bool
		path string
		code int
	}{
		{true, "/debug/pprof/", 200}, {true, "/debug/pprof/heap", 200}, {true, "/debug/pprof/goroutine?debug=1", 200}, {true, "/debug/pprof/cmdline", 404},
		{false, "/debug/pprof/", 404}, {false, "/debug/pprof/heap", 404}, {false, "/debug/pprof/cmdline", 404}, {false, "/metrics", 200},
	} {
		answer := httptest.NewRecorder()
		(&observed{registry: prometheus.NewRegistry(), pprof: c.may}).handler().ServeHTTP(answer, httptest.NewRequest("GET", c.path, nil))
		if answer.Code != c.code {
			t.Errorf("%v %s: %d", c.may, c.path, answer.Code)
		}
	}
	n, err := observe(&serving{metricsAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	if !n.pprof {
		t.Error("there are none on loopback")
	}
}

// What a node counts is served, documented, and what the alert rules speak of.
func TestMetricsAreServedAndDocumented(t *testing.T) {
	n, err := start(t.Context(), serving{place: place{uri: "memory:"}, addr: "127.0.0.1:0", metricsAddr: "127.0.0.1:0", log: slog.New(slog.DiscardHandler)}, "")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- n.until(t.Context()) }()
	t.Cleanup(func() { <-ended })
	client := func(args ...string) (int, string) {
		var out, told bytes.Buffer
		code := run(t.Context(), append(args, "--addr", n.addr), streams{in: strings.NewReader(""), out: &out, err: &told, getenv: func(string) string { return "" }})
		return code, out.String() + told.String()
	}
	if code, text := client("schema", "apply", "testdata/documents.zed"); code != exitOK {
		t.Fatal(text)
	}
	if code, text := client("check", "document:readme", "view", "user:ada", "--debug"); code != exitNo || !strings.Contains(text, "read from: memory") {
		t.Errorf("exit code %d: %s", code, text)
	}
	answer, err := http.Get("http://" + n.observed.listen.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`pemba_calls_total{code="OK",method="pemba.v1.PermissionService/Check"} 1`, `pemba_answers_total{answer="no"} 1`,
		`pemba_snapshots_total{consistency="minimize_latency",path="memory"} 1`, `pemba_stores_in_memory 2`, `pemba_call_seconds_count{method="pemba.v1.SchemaService/ApplySchema"} 1`,
	} {
		if !strings.Contains(string(body), "\n"+want+"\n") {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	guide, err := os.ReadFile("../../docs/operations/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := os.ReadFile("../../docs/operations/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(rules, new(any)); err != nil {
		t.Error(err)
	}
	served := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (pemba_\w+) `).FindAllStringSubmatch(string(body), -1) {
		served[m[1]] = true
		if !strings.Contains(string(guide), "`"+m[1]) {
			t.Errorf("docs/operations/monitoring.md lacks %s", m[1])
		}
	}
	if len(served) < 20 {
		t.Errorf("%d metrics", len(served))
	}
	for _, name := range regexp.MustCompile(`pemba_\w+`).FindAllString(string(rules)+string(guide), -1) {
		if name = strings.TrimSuffix(name, "_bucket"); !served[name] {
			t.Errorf("%s is spoken of and not served", name)
		}
	}
}
