package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestACheckOfTheConfigurationSaysWhatServeWould: the same mistakes in the same
// words, and nothing is changed.
func TestACheckOfTheConfigurationSaysWhatServeWould(t *testing.T) {
	folder := t.TempDir()
	in := func(name string) string { return filepath.Join(folder, name) }
	ca := newAuthority(t, "ours")
	ca.sign(in("good"), 2, soon(), "127.0.0.1", "pemba.example")
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	startServer(t, "file:"+in("open.db"), "")
	if err := os.WriteFile(in("empty"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in("text.db"), []byte(strings.Repeat("this is no database\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{
		"--datastore nothing:",
		"--datastore file:",
		"--datastore file:" + in("open.db"),
		"--datastore file:" + in("text.db"),
		"--datastore postgres://nobody@127.0.0.1:1/none?connect_timeout=2",
		"--grpc-addr 50051",
		"--grpc-addr " + busy.Addr().String(),
		"--http-addr " + busy.Addr().String(),
		"--metrics-addr " + busy.Addr().String(),
		"--peer-addr " + busy.Addr().String() + " --peers 127.0.0.1:1",
		"--peer-addr 127.0.0.1:0",
		"--peer-addr 127.0.0.1:0 --peers 127.0.0.1:1 --peer-cert " + in("none") + " --peer-key " + in("none") + " --peer-ca " + in("none"),
		"--tls-cert " + in("none") + " --tls-key " + in("none"),
		"--token-file " + in("none"),
		"--token-file " + in("empty"),
		"--datastore-password-file " + in("none"),
		"--retention 0s",
		"--max-operations 0",
	} {
		given := append([]string{"serve", "--grpc-addr", "127.0.0.1:0"}, strings.Fields(args)...)
		_, told, code := pemba("", "", nil, append(given, "--check-config")...)
		_, served, same := pemba("", "", nil, given...)
		if code == exitOK || code != same || told != served {
			t.Errorf("%s: exit codes %d and %d\ncheck: %sserve: %s", args, code, same, told, served)
		}
	}
	out, told, code := pemba("", "", nil, "serve", "--check-config", "--datastore", "file:"+in("new.db"), "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0",
		"--metrics-addr", "127.0.0.1:0", "--tls-cert", in("good.crt"), "--tls-key", in("good.key"), "--tls-client-ca", ca.file, "--token", "hush")
	if code != exitOK || strings.Contains(out+told, "hush") {
		t.Fatalf("exit code %d: %s%s", code, out, told)
	}
	for _, want := range []string{"the file will be made", "gRPC on 127.0.0.1:0: TLS, and clients show certificates", "metrics on 127.0.0.1:0: plain text", "pemba.example", "an admin token", "the server would start\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %s:\n%s", want, out)
		}
	}
	if _, err := os.Stat(in("new.db")); err == nil {
		t.Error("it made the file")
	}
	if _, told, code := pemba("", "", nil, "serve", "--check-config", "--datastore", "file:"+in("no/folder.db")); code != exitError || !strings.Contains(told, in("no")) {
		t.Errorf("a folder that is not there: exit code %d: %s", code, told)
	}
	if out, told, code := pemba("", "", nil, "serve", "--check-config", "--grpc-addr", "127.0.0.1:0"); code != exitOK || !strings.Contains(out, "gone with the process") || !strings.Contains(out, "everybody is let in") {
		t.Errorf("in memory: exit code %d: %s%s", code, out, told)
	}
}
