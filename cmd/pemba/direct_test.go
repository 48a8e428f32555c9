package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The first admin is made on the datastore, without a server or a secret of its
// own; then a server may listen where others reach it, and lets nobody else in.
func TestTheFirstAdminIsMadeOnTheDatastore(t *testing.T) {
	uri := "file:" + filepath.Join(t.TempDir(), "pemba.db")
	open := serving{place: place{uri: uri}, addr: "0.0.0.0:0", log: slog.New(slog.DiscardHandler)}
	open.encryption.insecure = true
	for what, begin := range map[string]func() (string, int){
		"serve": func() (string, int) {
			_, complaint, code := pemba("", "", nil, "serve", "--datastore", uri, "--grpc-addr", "0.0.0.0:0", "--insecure")
			return complaint, code
		},
		"serve --check-config": func() (string, int) {
			_, complaint, code := pemba("", "", nil, "serve", "--check-config", "--datastore", uri, "--grpc-addr", "0.0.0.0:0", "--insecure")
			return complaint, code
		},
	} {
		if complaint, code := begin(); code != exitUsage || !strings.Contains(complaint, "pemba token create NAME --role admin --all-stores --datastore "+uri) {
			t.Errorf("%s on an address that others reach, without a token: %d %s", what, code, complaint)
		}
	}
	secret, complaint, code := pemba("", "", nil, "token", "create", "root", "--role", "admin", "--all-stores", "--datastore", uri)
	if code != 0 || !strings.HasPrefix(secret, "pemba_") {
		t.Fatalf("token create --datastore: %d %s", code, complaint)
	}
	if out, complaint, code := pemba("", "", nil, "grant", "add", "group:ops", "--role", "admin", "--all-stores", "--datastore", uri); code != 0 {
		t.Fatalf("grant add --datastore: %d %s%s", code, out, complaint)
	}
	if out, complaint, code := pemba("", "", nil, "serve", "--check-config", "--datastore", uri, "--grpc-addr", "0.0.0.0:0", "--insecure"); code != 0 {
		t.Errorf("serve --check-config once there is a token: %d %s%s", code, out, complaint)
	}
	ctx, stop := context.WithCancel(t.Context())
	node, err := start(ctx, open, "")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- node.until(ctx) }()
	_, port, _ := strings.Cut(strings.TrimPrefix(node.addr, "[::]"), ":")
	addr := "127.0.0.1:" + port
	if _, complaint, code := pemba(addr, "", nil, "store", "list"); code == 0 || !strings.Contains(complaint, "a token is needed") {
		t.Errorf("without a token: %d %s", code, complaint)
	}
	if out, complaint, code := pemba(addr, "", map[string]string{"PEMBA_TOKEN": strings.TrimSpace(secret)}, "grant", "list"); code != 0 || !strings.Contains(out, "group:ops") {
		t.Errorf("with the token: %d %s%s", code, out, complaint)
	}
	if _, complaint, code := pemba(addr, "", nil, "grant", "list", "--datastore", uri); code == 0 || !strings.Contains(complaint, uri[len("file:"):]) {
		t.Errorf("on a file that a server has open: %d %s", code, complaint)
	}
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the server does not end")
	}
}
