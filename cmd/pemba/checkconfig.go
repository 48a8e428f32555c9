package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pembadb/pemba/datastore/memory"
)

// checkPatience is how long the datastore may take to answer a check of the
// configuration.
const checkPatience = 15 * time.Second

// checkConfig does what starting a server does, as far as it changes nothing, and
// prints what it found. Its mistakes are those of starting, word for word.
func (a *app) checkConfig(ctx context.Context, s *serving) error {
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	found, err := s.probe(ctx)
	if err != nil {
		return err
	}
	a.printf("datastore %s: %s\n", &s.place, found)
	for _, l := range []struct{ kind, flag, addr string }{
		{"metrics", "metrics-addr", s.metricsAddr}, {"peers", "peer-addr", s.cluster.addr}, {"gRPC", "grpc-addr", s.addr}, {"HTTP", "http-addr", s.httpAddr},
	} {
		if l.addr == "" {
			continue
		}
		listener, err := listenTo(l.kind, l.flag, l.addr)
		if err != nil {
			return err
		}
		if err := listener.Close(); err != nil {
			return err
		}
		a.printf("%s on %s: %s\n", l.kind, l.addr, s.protection(l.kind, l.addr))
	}
	if s.tls != nil {
		leaf := s.tls.Leaf()
		names := append([]string(nil), leaf.DNSNames...)
		for _, ip := range leaf.IPAddresses {
			names = append(names, ip.String())
		}
		a.printf("certificate %s: for %s, until %s\n", s.encryption.cert, strings.Join(names, ", "), leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if err := a.askIssuer(ctx, s); err != nil {
		return err
	}
	switch {
	case s.token != "":
		a.printf("token: an admin token for every store is given\n")
	case s.verifier != nil:
		a.printf("token: none; callers are known by the identity provider's tokens and by those in the datastore\n")
	default:
		a.printf("token: none; on loopback, everybody is let in until a token is made\n")
	}
	a.printf("the server would start\n")
	return nil
}

// protection says how what listens at an address is protected.
func (s *serving) protection(kind, addr string) string {
	switch {
	case kind == "peers" && s.cluster.cert != "":
		return "TLS with certificates on both sides"
	case kind == "metrics" && loopback(addr), s.tls == nil || kind == "peers":
		return "plain text"
	case s.encryption.clientCA != "":
		return "TLS, and clients show certificates"
	}
	return "TLS"
}

// probe finds out whether the datastore can be served from, and changes nothing.
func (s *serving) probe(ctx context.Context) (found string, err error) {
	p := &s.place
	_, path, _ := strings.Cut(p.uri, ":")
	if p.dialect() == nil {
		if path == "" {
			return "what is written is gone with the process", s.checkGuarded(ctx, memory.New())
		}
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return "the file will be made", errors.Join(writable(filepath.Dir(path)), s.checkGuarded(ctx, memory.New()))
		}
	}
	log, err := p.open(ctx, func(error) {})
	if err != nil {
		return "", err
	}
	found = "it answers, and its tables are those of this version"
	if p.dialect() == nil {
		found = "the file can be opened, and nobody else has it open"
	}
	return found, errors.Join(s.checkGuarded(ctx, log), log.Close())
}

// writable finds out whether a file can be made in a folder.
func writable(folder string) error {
	f, err := os.CreateTemp(folder, ".pemba-check-")
	if err != nil {
		return fileError("make the datastore's file in "+folder, errors.Unwrap(err))
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}
