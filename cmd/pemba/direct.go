package main

import (
	"context"
	"crypto/rand"
	"log/slog"

	"github.com/spf13/cobra"
)

// direct gives a command of admins the flag to work on a datastore itself, without a
// server: who can open the datastore needs no token. It has no variable: what is
// meant for `pemba serve` is not taken for it.
func (a *app) direct(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&a.client.place.uri, "datastore", "", "work on this datastore itself, without a server and without a token: "+placeForms[len("memory:, "):])
	f.StringVar(&a.client.place.passwordFile, "datastore-password-file", "", "a file with that database's password; PEMBA_DATASTORE_PASSWORD and the URI may give it too")
	withEnv(f, "datastore-password-file", "PEMBA_DATASTORE_PASSWORD_FILE")
}

// serveItself starts a server on the datastore that a command names, for that
// command alone, and makes it the one to call. A random token keeps others out.
func (a *app) serveItself(ctx context.Context) (stop func() error, err error) {
	p := a.client.place
	if p.uri == "memory:" {
		return nil, usagef("--datastore memory: is empty, and gone with the command; name a file or a database")
	}
	if _, err := p.embedded(); err != nil {
		return nil, err
	}
	if err := p.readPassword(a.getenv); err != nil {
		return nil, err
	}
	secret := rand.Text()
	n, err := start(ctx, serving{place: p, addr: "127.0.0.1:0", log: slog.New(slog.DiscardHandler)}, secret)
	if err != nil {
		return nil, err
	}
	a.client.addr, a.client.token, a.client.tokenFile, a.client.tls = n.addr, secret, "", clientTLS{}
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- n.until(running) }()
	return func() error {
		cancel()
		return <-ended
	}, nil
}
