package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write what the commands print into the scripts of testdata")

// TestScripts runs every script of testdata against a server of its own: lines that begin with $ are command lines, what
// follows is what they print, to both streams, with the exit code where it is not 0. What differs from run to run is
// masked; $ZOOKIE is the last zookie that was printed, $SECRET the last secret.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts in testdata: %v", err)
	}
	for _, path := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			token := ""
			if bytes.HasPrefix(want, []byte("# token: ")) {
				line, _, _ := strings.Cut(string(want), "\n")
				token = strings.TrimPrefix(line, "# token: ")
			}
			s := &script{t: t, addr: startServer(t, "memory:", token), vars: map[string]string{}}
			got := s.play(string(want))
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(want) {
				t.Errorf("%s: differs at %s\nafter checking, `go test ./cmd/pemba -update` takes it over", path, firstDifference(string(want), got))
			}
		})
	}
}

// startServer serves over real gRPC until the test ends.
func startServer(t testing.TB, datastore, token string) string {
	t.Helper()
	node, err := start(context.Background(), serving{place: place{uri: datastore}, addr: "127.0.0.1:0", log: slog.New(slog.DiscardHandler)}, token)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- node.until(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("server: %v", err)
		}
	})
	return node.addr
}

type script struct {
	t    *testing.T
	addr string
	vars map[string]string
}

// play runs the commands of a script and returns it with what they print now.
func (s *script) play(text string) string {
	var b strings.Builder
	output := false
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "$ "):
			b.WriteString(line)
			b.WriteString(s.command(strings.TrimSpace(line[2:])))
			output = true
		case strings.HasPrefix(line, "# ") || line == "\n":
			if line == "\n" && output {
				output = false
			}
			b.WriteString(line)
		}
	}
	return b.String()
}

func (s *script) command(line string) string {
	for name, value := range s.vars {
		line = strings.ReplaceAll(line, "$"+name, value)
	}
	line, file, redirected := strings.Cut(line, " < ")
	stdin := ""
	if redirected {
		data, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			s.t.Fatal(err)
		}
		stdin = string(data)
	}
	words := split(line)
	env := map[string]string{}
	for len(words) > 0 && words[0] != "pemba" {
		name, value, _ := strings.Cut(words[0], "=")
		env[name] = value
		words = words[1:]
	}
	out, complaints, code := pemba(s.addr, stdin, env, words[1:]...)
	text := out + complaints
	if m := zookies.FindAllStringSubmatch(text, -1); m != nil {
		s.vars["ZOOKIE"] = m[len(m)-1][1]
	}
	if m := secrets.FindString(text); m != "" {
		s.vars["SECRET"] = m
	}
	if code != 0 {
		text += fmt.Sprintf("(exit code %d)\n", code)
	}
	return s.mask(text)
}

var (
	zookies   = regexp.MustCompile(`zookie"?[ :]"?([A-Za-z0-9_-]{20,})`)
	secrets   = regexp.MustCompile(`pemba_[A-Za-z0-9_-]{20,}`)
	hashes    = regexp.MustCompile(`\b[0-9a-f]{64}\b`)
	ids       = regexp.MustCompile(`"request_id":"[^"]*"|--request-id \S+`)
	times     = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`)
	columns   = regexp.MustCompile(`(NOW|CREATED) {2,}`)
	durations = regexp.MustCompile(`\d+\.\d s, [0-9,]+ a second|\d+\.\d s\b|"seconds":[0-9.e-]+`)
)

// mask replaces what differs from run to run, and ends lines without trailing blanks so that scripts stay editable.
func (s *script) mask(text string) string {
	text = strings.ReplaceAll(text, s.addr, "ADDRESS")
	text = zookies.ReplaceAllStringFunc(text, func(m string) string {
		return strings.Replace(m, zookies.FindStringSubmatch(m)[1], "ZOOKIE", 1)
	})
	text = secrets.ReplaceAllString(text, "SECRET")
	text = hashes.ReplaceAllString(text, "HASH")
	text = ids.ReplaceAllString(text, "REQUEST-ID")
	text = durations.ReplaceAllString(text, "TIME")
	text = times.ReplaceAllStringFunc(text, func(m string) string {
		if at, err := time.Parse(time.RFC3339Nano, m); err == nil && time.Since(at).Abs() < time.Hour {
			return "NOW"
		}
		return m
	})
	// A time without its last digits makes its column narrower.
	text = columns.ReplaceAllString(text, "$1  ")
	// An empty line ends the output of a command in a script.
	return strings.ReplaceAll(text, "\n\n", "\n.\n")
}

// split cuts a command line into words as a shell does, with single quotes only.
func split(line string) []string {
	var words []string
	var word strings.Builder
	quoted, begun := false, false
	for _, r := range line {
		switch {
		case r == '\'':
			quoted, begun = !quoted, true
		case r == ' ' && !quoted:
			if begun {
				words = append(words, word.String())
				word.Reset()
				begun = false
			}
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	if begun {
		words = append(words, word.String())
	}
	return words
}

// firstDifference shows the first line in which two texts differ.
func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d:\n want %s\n  got %s", i+1, w[i], g[i])
		}
	}
	return fmt.Sprintf("the end: %d lines wanted, %d printed", len(w), len(g))
}
