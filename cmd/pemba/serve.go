package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/server"
)

// drainTime is how long calls under way may take once the server was told to
// stop.
const drainTime = 10 * time.Second

type serving struct {
	datastore, addr, token, tokenFile string
}

func (a *app) serveCommand() *cobra.Command {
	var s serving
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Start a server",
		Long: `Starts a server that answers over gRPC until SIGTERM or Ctrl-C, which lets calls
under way finish.

The datastore memory: is gone with the process. Traffic is plain text; without
a token the server listens on loopback only.`,
		Example: `  pemba serve
  pemba serve --grpc-addr 127.0.0.1:50051 --token "$(openssl rand -hex 32)"`,
		Args: takes(),
		RunE: a.do(func(ctx context.Context, _ []string) error { return a.serve(ctx, s) }),
	}
	f := cmd.Flags()
	f.StringVar(&s.datastore, "datastore", "memory:", "where the data lives: memory:")
	withEnv(f, "datastore", "PEMBA_DATASTORE")
	f.StringVar(&s.addr, "grpc-addr", "127.0.0.1:50051", "where gRPC listens")
	withEnv(f, "grpc-addr", "PEMBA_GRPC_ADDR")
	f.StringVar(&s.token, "token", "", "an admin token for every store, any text; `pemba token create` makes others")
	withEnv(f, "token", "PEMBA_TOKEN")
	f.StringVar(&s.tokenFile, "token-file", "", "a file with the token")
	withEnv(f, "token-file", "PEMBA_TOKEN_FILE")
	return cmd
}

func (a *app) serve(ctx context.Context, s serving) error {
	token, err := readToken(s.token, s.tokenFile)
	if err != nil {
		return err
	}
	if token == "" && !loopback(s.addr) {
		return usagef("without a token the server listens on loopback only, and %s is not; give --token, PEMBA_TOKEN or a file, or listen on 127.0.0.1", s.addr)
	}
	node, err := start(s, token)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "pemba: serving gRPC on %s, datastore %s\n", node.addr, s.datastore)
	return node.until(ctx)
}

// loopback reports whether a listening address is reached from this machine
// only.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// node is a running server with its datastore.
type node struct {
	addr   string
	server *server.Server
	keeper *keeper.Keeper
	ended  chan error
}

func start(s serving, token string) (*node, error) {
	if s.datastore != "memory:" {
		scheme, _, _ := strings.Cut(s.datastore, ":")
		return nil, usagef("datastore %q: %q is unknown; use memory:", s.datastore, scheme)
	}
	k, err := keeper.Open(memory.New(), keeper.Options{})
	if err != nil {
		return nil, fmt.Errorf("open datastore %s: %w", s.datastore, err)
	}
	srv, err := server.New(server.Config{Datastore: k, Token: token})
	if err != nil {
		return nil, errors.Join(err, k.Close())
	}
	lis, err := net.Listen("tcp", s.addr)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for gRPC on %s: %w; stop what listens there, or choose another --grpc-addr", s.addr, err), k.Close())
	}
	n := &node{addr: lis.Addr().String(), server: srv, keeper: k, ended: make(chan error, 1)}
	go func() { n.ended <- srv.Serve(lis) }()
	return n, nil
}

// until serves until ctx ends, drains, and closes the datastore.
func (n *node) until(ctx context.Context) error {
	var err error
	select {
	case err = <-n.ended:
	case <-ctx.Done():
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		n.server.GracefulStop(drain)
		err = <-n.ended
	}
	return errors.Join(err, n.keeper.Close())
}
