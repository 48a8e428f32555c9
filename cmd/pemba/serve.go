package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.opentelemetry.io/otel/trace"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/dispatch"
	"github.com/pembadb/pemba/server"
)

// drainTime is how long calls under way may take once the server was told to
// stop.
const drainTime = 10 * time.Second

// serving is what a server is started with.
type serving struct {
	place            place
	addr             string
	token, tokenFile string
	keeper           keeper.Options
	dispatch         dispatch.Options
	metricsAddr      string
	pprof            bool // on metricsAddr wherever it is
	httpAddr         string
	httpURL          string
	origins          []string
	cluster          cluster
	encryption       encryption
	oidc             identityProvider
	verifier         *server.OIDC // nil: no identity provider
	tls              *server.TLS  // nil: plain text
	tracer           trace.Tracer // nil: nothing is traced
	checkOnly        bool         // say whether the server would start
	limits           server.Limits
	log              *slog.Logger
}

func (a *app) serveCommand() *cobra.Command {
	var s serving
	var f *pflag.FlagSet
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Start a server",
		Long: `Starts a server that answers over gRPC until SIGTERM or Ctrl-C, which lets calls
under way finish.

The datastore memory: is gone with the process; file:PATH is one file, where
what was acknowledged stays; postgres:// and cockroachdb:// name a database that
many servers share, and that ` + "`pemba migrate`" + ` has prepared.

When the server is ready it prints one line; what it has to tell after that goes
to standard error.

Without a certificate (--tls-cert, --tls-key) traffic is plain text, and the
server listens on loopback only, unless --insecure says otherwise; so it does
without a token, and then whoever reaches it may do everything.`,
		Example: `  pemba serve
  pemba serve --datastore file:pemba.db
  pemba serve --check-config --datastore postgres://pemba@127.0.0.1:5432/pemba
  PEMBA_TOKEN=secret pemba serve --datastore file:/var/lib/pemba/pemba.db --grpc-addr 127.0.0.1:50051`,
		Args: takes(),
		RunE: a.do(func(ctx context.Context, _ []string) error {
			if err := checkLimits(f, &s.limits, &s.keeper); err != nil {
				return err
			}
			s.log = slog.New(slog.NewTextHandler(a.err, nil))
			return a.serve(ctx, s)
		}),
	}
	f = cmd.Flags()
	addLimits(f, &s.limits, &s.keeper, &s.dispatch)
	s.place.add(f)
	s.cluster.add(f)
	s.encryption.add(f)
	s.oidc.add(f)
	f.BoolVar(&s.checkOnly, "check-config", false, "say whether the server would start, and why not, and end: flags, files, certificates, addresses, the datastore and its tables")
	f.StringVar(&s.metricsAddr, "metrics-addr", "", "where Prometheus metrics are served, over HTTP at /metrics, and on loopback profiles at /debug/pprof; empty: nowhere")
	withEnv(f, "metrics-addr", "PEMBA_METRICS_ADDR")
	f.BoolVar(&s.pprof, "pprof", false, "serve profiles at --metrics-addr even where other machines reach it")
	withEnv(f, "pprof", "PEMBA_PPROF")
	f.StringVar(&s.httpAddr, "http-addr", "", "where HTTP is served: the API as JSON at /v1, SCIM 2.0 at /scim/v2 and /stores/STORE/scim/v2; empty: nowhere")
	withEnv(f, "http-addr", "PEMBA_HTTP_ADDR")
	f.StringVar(&s.httpURL, "http-url", "", "the URL at which clients reach --http-addr, such as https://pemba.example, for the links in answers; empty: http and the host that they name")
	withEnv(f, "http-url", "PEMBA_HTTP_URL")
	f.StringSliceVar(&s.origins, "http-cors-origin", nil, "a web origin whose pages may call over HTTP, such as https://app.example; may be repeated")
	withEnv(f, "http-cors-origin", "PEMBA_HTTP_CORS_ORIGIN")
	f.StringVar(&s.addr, "grpc-addr", "127.0.0.1:50051", "where gRPC listens")
	withEnv(f, "grpc-addr", "PEMBA_GRPC_ADDR")
	f.StringVar(&s.token, "token", "", "an admin token for every store, any text; pemba token create makes others")
	withEnv(f, "token", "PEMBA_TOKEN")
	f.StringVar(&s.tokenFile, "token-file", "", "a file with the token")
	withEnv(f, "token-file", "PEMBA_TOKEN_FILE")
	f.DurationVar(&s.keeper.MaxStaleness, "max-staleness", time.Second, "how old an answer at minimize_latency may be")
	withEnv(f, "max-staleness", "PEMBA_MAX_STALENESS")
	f.DurationVar(&s.keeper.Retention, "retention", 24*time.Hour, "how far back at_exact_snapshot can ask")
	withEnv(f, "retention", "PEMBA_RETENTION")
	f.DurationVar(&s.keeper.HistoryRetention, "history-retention", 0, "how long changes are kept; 0 keeps them for ever")
	withEnv(f, "history-retention", "PEMBA_HISTORY_RETENTION")
	return cmd
}

// prepare checks what the server is started with, before anything is opened, and
// reads its files.
func (s *serving) prepare(getenv func(string) string) error {
	if err := s.check(); err != nil {
		return err
	}
	if _, err := s.place.embedded(); err != nil {
		return err
	}
	if err := s.place.readPassword(getenv); err != nil {
		return err
	}
	var err error
	if s.token, err = readToken(s.token, s.tokenFile); err != nil {
		return err
	}
	if err := s.checkAddresses(); err != nil {
		return err
	}
	if s.dispatch.Bytes == 0 {
		s.dispatch.Bytes = -1 // who says so wants nothing remembered
	}
	if s.tls, err = s.encryption.open(s.log); err != nil {
		return err
	}
	if s.verifier, err = s.oidc.open(); err != nil {
		return err
	}
	return s.cluster.read()
}

// checkAddresses refuses addresses that are none, and listeners that other
// machines reach and nothing protects.
func (s *serving) checkAddresses() error {
	if _, _, err := net.SplitHostPort(s.addr); err != nil {
		return usagef("--grpc-addr %q is no address to listen on; write HOST:PORT, such as 127.0.0.1:50051", s.addr)
	}
	if err := s.cluster.check(); err != nil {
		return err
	}
	if err := s.checkHTTP(); err != nil {
		return err
	}
	for _, l := range []struct{ flag, addr string }{{"grpc-addr", s.addr}, {"http-addr", s.httpAddr}, {"metrics-addr", s.metricsAddr}} {
		if err := s.encryption.plainText(l.flag, l.addr, s.log); err != nil {
			return err
		}
	}
	return nil
}

// checkGuarded refuses a server that other machines reach and that lets in
// everybody: nothing guards it, and no token or grant was ever made in its
// datastore.
func (s *serving) checkGuarded(ctx context.Context, log datastore.Log) error {
	if s.token != "" || s.verifier != nil {
		return nil
	}
	for _, addr := range []string{s.addr, s.httpAddr} {
		if addr == "" || loopback(addr) {
			continue
		}
		guarded, err := keeper.Guarded(ctx, log)
		if err == nil && !guarded {
			made := ""
			if s.place.uri != "memory:" {
				made = fmt.Sprintf("make one with `pemba token create NAME --role admin --all-stores --datastore %s`, ", &s.place)
			}
			err = usagef("without a token the server listens on loopback only, and %s is not; %sgive --token, PEMBA_TOKEN or a file, or listen on 127.0.0.1", addr, made)
		}
		return err
	}
	return nil
}

func (a *app) serve(ctx context.Context, s serving) error {
	if err := s.prepare(a.getenv); err != nil {
		return err
	}
	traces, err := a.trace(ctx)
	if err != nil {
		return err
	}
	if s.checkOnly {
		return errors.Join(a.checkConfig(ctx, &s), traces.close(ctx))
	}
	if s.limits.Memory > 0 {
		debug.SetMemoryLimit(server.SoftMemoryLimit(s.limits.Memory))
	}
	s.tracer = traces.tracer()
	node, err := start(ctx, s, s.token)
	if err != nil {
		return err
	}
	also := ""
	if node.web != nil {
		also = ", HTTP on " + node.web.addr
	}
	fmt.Fprintf(a.out, "pemba: serving gRPC on %s%s, datastore %s\n", node.addr, also, &s.place)
	err = node.until(ctx)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	return errors.Join(err, traces.close(last))
}

// listenTo listens for a kind of calls at the address that a flag gave.
func listenTo(kind, flag, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return nil, fmt.Errorf("listen for %s on %s: %w; stop what listens there, or choose another --%s", kind, addr, err, flag)
	}
	return l, nil
}

// check refuses settings that make no sense.
func (s *serving) check() error {
	switch k := s.keeper; {
	case k.ResidentMaxRelationships < 0:
		return usagef("--resident-max-relationships %d is below 0; 0 is no bound", k.ResidentMaxRelationships)
	case k.MaxStaleness <= 0:
		return usagef("--max-staleness %s is not more than 0; leave it out for 1s", k.MaxStaleness)
	case k.Retention <= 0:
		return usagef("--retention %s is not more than 0; leave it out for 24h", k.Retention)
	case k.HistoryRetention < 0:
		return usagef("--history-retention %s is below 0; 0 keeps all changes", k.HistoryRetention)
	}
	return nil
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
	addr     string
	server   *server.Server
	keeper   *keeper.Keeper
	cache    *dispatch.Cache
	meeting  *meeting // nil: no cluster
	observed *observed
	web      *web // nil: no HTTP
	log      *slog.Logger
	ended    chan error
	failed   chan error // the datastore can no longer be served from
}

func start(ctx context.Context, s serving, token string) (*node, error) {
	n := &node{log: s.log, ended: make(chan error, 1), failed: make(chan error, 1)}
	log, err := s.place.open(ctx, func(err error) { n.failed <- err })
	if err != nil {
		return nil, err
	}
	if s.token == "" {
		s.token = token
	}
	if err := s.checkGuarded(ctx, log); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	if n.observed, err = observe(&s); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	n.cache = dispatch.New(s.dispatch)
	if err := n.meet(&s.cluster); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	s.keeper.Cache = n.cache
	if n.keeper, err = keeper.Open(log, s.keeper); err != nil {
		n.leave()
		return nil, fmt.Errorf("open datastore %s: %w", &s.place, errors.Join(err, log.Close()))
	}
	if n.server, err = server.New(server.Config{Datastore: n.keeper, Token: token, OIDC: s.verifier, Limits: s.limits, TLS: s.tls, Origins: s.origins, Tracer: s.tracer, Logger: s.log, Metrics: n.observed.registerer()}); err != nil {
		n.leave()
		return nil, errors.Join(err, n.keeper.Close())
	}
	lis, err := listenTo("gRPC", "grpc-addr", s.addr)
	if err != nil {
		n.leave()
		return nil, errors.Join(err, n.keeper.Close())
	}
	n.addr = lis.Addr().String()
	if n.web, err = listenHTTP(&s, n.server); err != nil {
		lis.Close()
		n.leave()
		return nil, errors.Join(err, n.keeper.Close())
	}
	n.meeting.serve()
	n.observed.serve(log, n.keeper, n.cache, n.log)
	n.web.serve(n.failed)
	go func() { n.ended <- n.server.Serve(lis) }()
	return n, nil
}

// until serves until ctx ends or the datastore fails, drains, and closes the
// datastore.
func (n *node) until(ctx context.Context) error {
	var err error
	select {
	case err = <-n.ended:
		n.drain(ctx)
	case failure := <-n.failed:
		n.drain(ctx)
		err = errors.Join(failure, <-n.ended)
	case <-ctx.Done():
		n.drain(ctx)
		err = <-n.ended
	}
	n.leave()
	return errors.Join(err, n.keeper.Close())
}

// leave closes what the node listens on besides gRPC.
func (n *node) leave() {
	n.meeting.leave()
	n.observed.close()
}

func (n *node) drain(ctx context.Context) {
	n.log.Info("draining", "limit", drainTime)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	var both sync.WaitGroup
	both.Go(func() { n.web.drain(limit) })
	n.server.GracefulStop(limit)
	both.Wait()
}
