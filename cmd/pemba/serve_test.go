package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// ready waits for the ready line of `pemba serve` and returns it.
func ready(t *testing.T, out io.Reader) string {
	t.Helper()
	line := make([]byte, 512)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	return string(line[:n])
}

func TestServeSaysWhenItIsReadyAndEndsWithZero(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pemba.db")
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	out, in := io.Pipe()
	var complaints bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"serve", "--grpc-addr", "127.0.0.1:0", "--datastore", "file:" + path},
			streams{in: strings.NewReader(""), out: in, err: &complaints, getenv: func(string) string { return "" }})
		in.Close()
	}()
	line := ready(t, out)
	addr, found := strings.CutPrefix(line, "pemba: serving gRPC on ")
	addr, rest, _ := strings.Cut(addr, ",")
	if !found || rest != " datastore file:"+path+"\n" {
		t.Fatalf("ready line: %q", line)
	}
	if _, text, code := pemba(addr, "", nil, "schema", "apply", "testdata/documents.zed"); code != exitOK {
		t.Errorf("apply: %s", text)
	}
	_, text, second := pemba("", "", nil, "serve", "--grpc-addr", "127.0.0.1:0", "--datastore", "file:"+path)
	if second != exitError || !strings.Contains(text, path) {
		t.Errorf("a second server of the same file: exit code %d, %s", second, text)
	}
	_, text, third := pemba("", "", nil, "serve", "--grpc-addr", addr, "--datastore", "memory:")
	if third != exitError || !strings.Contains(text, "listen for gRPC on "+addr) {
		t.Errorf("a second server at the same address: exit code %d, %s", third, text)
	}
	stop()
	select {
	case c := <-code:
		if c != exitOK {
			t.Errorf("exit code %d, %s", c, complaints.String())
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the server does not end")
	}
	again := startServer(t, "file:"+path, "")
	if out, text, code := pemba(again, "", nil, "schema", "show"); code != exitOK || !strings.Contains(out, "definition document") {
		t.Errorf("what was acknowledged is gone: %s%s", out, text)
	}
}

func TestTheStaticTokenComesFromAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := startServer(t, "memory:", "hush")
	if _, text, code := pemba(addr, "", map[string]string{"PEMBA_TOKEN_FILE": path}, "store", "list"); code != exitOK {
		t.Errorf("exit code %d, %s", code, text)
	}
	if _, text, code := pemba(addr, "", nil, "store", "list"); code != exitError || !strings.Contains(text, "PEMBA_TOKEN") {
		t.Errorf("without a token: exit code %d, %s", code, text)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, text, code := pemba(addr, "", nil, "store", "list", "--token-file", path); code != exitError || !strings.Contains(text, "empty") {
		t.Errorf("an empty token file: exit code %d, %s", code, text)
	}
}

func TestTheQuickstartLeavesNothingBehind(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	out, complaints, code := pemba("", "", nil, "quickstart")
	if code != exitOK || complaints != "" {
		t.Fatalf("exit code %d, %s\n%s", code, complaints, out)
	}
	if left, _ := os.ReadDir(os.TempDir()); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestExportedRelationshipsImportAgain(t *testing.T) {
	addr := startServer(t, "memory:", "")
	folder := t.TempDir()
	must := func(stdin string, args ...string) string {
		t.Helper()
		out, complaints, code := pemba(addr, stdin, nil, args...)
		if code != exitOK {
			t.Fatalf("%v: exit code %d, %s%s", args, code, out, complaints)
		}
		return out
	}
	must("", "schema", "apply", "testdata/documents.zed")
	must("", "relationship", "import", "testdata/relationships.list")
	want := must("", "relationship", "export")
	for _, name := range []string{"all.list", "all.yaml"} {
		path := filepath.Join(folder, name)
		must("", "relationship", "export", path)
		must("", "store", "create", "copy-"+strings.TrimPrefix(filepath.Ext(name), "."))
		store := "copy-" + strings.TrimPrefix(filepath.Ext(name), ".")
		must("", "schema", "apply", "testdata/documents.zed", "--store", store)
		must("", "relationship", "import", path, "--store", store)
		if got := must("", "relationship", "export", "--store", store, "--consistency", "fully_consistent"); got != want {
			t.Errorf("%s: exported\n%snow\n%s", name, want, got)
		}
	}
	must("", "schema", "test", filepath.Join(folder, "all.yaml"))
}
