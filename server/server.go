// Package server is the process: the gRPC services of pemba.v1, and those of
// authzed.api.v1 for clients that speak it (the files authzed_*), each a
// translation to the packages that decide, and who may call them.
package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/dispatch"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

// Config is what a Server needs; Datastore must be set.
type Config struct {
	Datastore datastore.Datastore
	// Token is the static admin token; empty for none.
	Token string
	// OIDC, if set, verifies the tokens of an identity provider.
	OIDC *OIDC
	// Limits bound what one request may bring and cost.
	Limits Limits
	// TLS encrypts what the server and its HTTP listener serve; nil is plain text.
	TLS *TLS
	// Tracer, if set, traces calls.
	Tracer trace.Tracer
	// Origins are the web origins whose pages may call over HTTP, such as
	// https://app.example; none by default.
	Origins []string
	// Metrics, if set, takes what the server counts.
	Metrics prometheus.Registerer
	// Logger takes what goes wrong; nil is slog.Default.
	Logger *slog.Logger
}

// Server serves pemba.v1 and authzed.api.v1.
type Server struct {
	config  Config
	limits  Limits
	ds      datastore.Datastore
	log     *slog.Logger
	grpc    *grpc.Server
	api     http.Handler // pemba.v1 over HTTP
	health  *health.Server
	metrics *metrics
	ctx     context.Context // ends when the server stops, and with it streams that never end
	stop    context.CancelFunc
	token   [32]byte // hash of the static token
	// expiring remembers on what relationships that expire can bear: see mayExpire.
	expiring *lru.Cache[expiryKey, bool]
	// registered are the methods of the services, for calls within the process.
	registered             map[string]insideMethod
	tokenRates, storeRates *rates
	guard                  memoryGuard
	grants                 atomic.Pointer[grants] // of the newest revision seen of the store system
	// inflight are the bytes of large requests under way; streams how many streams
	// are open.
	inflight *semaphore.Weighted
	streams  atomic.Int64
	// strangers are the open streams of those who need no token.
	strangers   atomic.Int64
	connections connections
	refusals    *refusals
	aside       sync.Map // names of stores that this version does not understand
}

// handshakeTime is how long a connection may take to be one: TLS, and the
// settings of HTTP/2.
const handshakeTime = 10 * time.Second

// workers are goroutines that stay for the next call, with the stack that calls
// need. More calls than that at a time get goroutines of their own.
const workers = 64

// New makes a Server that does not listen yet.
func New(c Config) (*Server, error) {
	if c.Datastore == nil {
		return nil, errors.New("server: no datastore")
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	s := &Server{config: c, limits: c.Limits.withDefaults(), ds: c.Datastore, log: slog.New(namingHandler{c.Logger.Handler()}),
		health: health.NewServer(), registered: map[string]insideMethod{}}
	if c.Token != "" {
		s.token = sha256.Sum256([]byte(c.Token))
	}
	var err error
	if s.refusals, err = newRefusals(s.log, c.Metrics); err != nil {
		return nil, err
	}
	s.connections = connections{max: int64(s.limits.Connections), refusals: s.refusals}
	if c.Metrics != nil {
		if s.metrics, err = newMetrics(c.Metrics); err != nil {
			return nil, err
		}
		if err := errors.Join(s.connections.register(c.Metrics), s.guard.register(c.Metrics)); err != nil {
			return nil, err
		}
	}
	if s.expiring, err = lru.New[expiryKey, bool](10_000); err != nil {
		return nil, err
	}
	if s.tokenRates, err = newRates("token-rate", "token", s.limits.TokenRate); err != nil {
		return nil, err
	}
	if s.storeRates, err = newRates("store-rate", "store", s.limits.StoreRate); err != nil {
		return nil, err
	}
	s.guard.limit = uint64(max(s.limits.Memory, 0))
	s.inflight = semaphore.NewWeighted(int64(s.limits.InflightBytes))
	s.ctx, s.stop = context.WithCancel(context.Background())
	// Handlers end before Stop returns, so that nobody uses a closed datastore.
	s.grpc = grpc.NewServer(
		grpc.Creds(s.credentials()),
		grpc.InTapHandle(s.tap),
		// What is over the limit, but not by far, is refused with its reason.
		grpc.MaxRecvMsgSize(2*s.limits.RequestBytes),
		grpc.MaxConcurrentStreams(uint32(s.limits.Streams)),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.ConnectionTimeout(handshakeTime),
		grpc.WaitForHandlers(true),
		grpc.ForceServerCodecV2(exactCodec{encoding.GetCodecV2("proto")}),
		grpc.NumStreamWorkers(workers),
		// A peer that is gone without a word is noticed, and its streams end.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(s.unary),
		grpc.ChainStreamInterceptor(s.stream),
	)
	pembav1.RegisterPermissionServiceServer(s, &permissions{Server: s})
	pembav1.RegisterRelationshipServiceServer(s, &relationships{Server: s})
	pembav1.RegisterSchemaServiceServer(s, &schemas{Server: s})
	pembav1.RegisterWatchServiceServer(s, &watches{Server: s})
	pembav1.RegisterHistoryServiceServer(s, &histories{Server: s})
	pembav1.RegisterAuditServiceServer(s, &audits{permissions: &permissions{Server: s}})
	pembav1.RegisterProvisioningServiceServer(s, &provisionings{permissions: &permissions{Server: s}})
	pembav1.RegisterStoreServiceServer(s, &stores{Server: s})
	pembav1.RegisterTokenServiceServer(s, &tokens{Server: s})
	pembav1.RegisterGrantServiceServer(s, &grantings{Server: s})
	authzed := &authzedPermissions{Server: s}
	authzedv1.RegisterPermissionsServiceServer(s, authzed)
	authzedv1.RegisterSchemaServiceServer(s, &authzedSchemas{Server: s})
	authzedv1.RegisterWatchServiceServer(s, &authzedWatches{Server: s})
	authzedv1.RegisterExperimentalServiceServer(s, &authzedExperiments{permissions: authzed, schemas: &authzedSchemas{Server: s}})
	healthv1.RegisterHealthServer(s, s.health)
	reflection.Register(s.grpc)
	if s.api, err = s.gateway(); err != nil {
		return nil, err
	}
	return s, nil
}

// credentials are how gRPC's connections are encrypted, if at all.
func (s *Server) credentials() credentials.TransportCredentials {
	kind := insecure.NewCredentials()
	if s.config.TLS != nil {
		kind = credentials.NewTLS(s.config.TLS.Config("h2"))
	}
	return watchedCredentials{kind, s.refusals}
}

// Serve answers on lis until the Server stops; it returns nil then.
func (s *Server) Serve(lis net.Listener) error {
	var watch sync.WaitGroup
	watch.Go(s.watchHealth)
	watch.Go(func() { s.guard.watch(s.ctx.Done(), s.log) })
	defer watch.Wait()
	defer s.stop()
	return s.grpc.Serve(listener{lis, &s.connections})
}

// GracefulStop lets calls under way finish, ends watches, and when ctx ends first
// cuts off what is left.
func (s *Server) GracefulStop(ctx context.Context) {
	s.health.Shutdown()
	s.stop()
	done := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.grpc.Stop()
		<-done
	}
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	began := time.Now()
	defer func() { s.ended(ctx, info.FullMethod, began, err) }()
	if s.config.Tracer != nil {
		traced, end := s.span(ctx, info.FullMethod)
		ctx = traced
		defer func() { end(err) }()
	}
	defer s.recovered(ctx, info.FullMethod, &err)
	c, err := s.known(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	if isAuthzed(info.FullMethod) {
		if err := validateAuthzed(req); err != nil {
			return nil, err
		}
	}
	if explains(req) {
		c.needs = mayRead
	}
	call := newCall(ctx, c, s.limits.CallTime)
	defer call.end()
	if err := s.narrow(call, info.FullMethod, req); err != nil {
		return nil, s.status(call, info.FullMethod, err)
	}
	resp, err = handler(call, req)
	call.debug(ctx)
	return resp, s.status(call, info.FullMethod, err)
}

func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	ctx, began := ss.Context(), time.Now()
	defer func() { s.ended(ctx, info.FullMethod, began, err) }()
	if s.config.Tracer != nil {
		traced, end := s.span(ctx, info.FullMethod)
		ctx = traced
		defer func() { end(err) }()
	}
	defer s.recovered(ctx, info.FullMethod, &err)
	c, err := s.known(ctx, info.FullMethod)
	if err != nil {
		return err
	}
	leave, err := s.admitStream(c)
	if err != nil {
		return err
	}
	defer leave()
	received := &incomingStream{ServerStream: ss, in: incoming{Server: s, ctx: ctx}, arrival: arrivalOf(ctx)}
	defer received.arrival.came()
	defer received.in.done()
	ss = received
	if isAuthzed(info.FullMethod) {
		ss = validatingStream{ss}
	}
	c.used, c.judged = &used{}, info.IsClientStream
	ctx, cancel := context.WithCancelCause(dispatch.WithRequest(context.WithValue(ctx, callerKey{}, c)))
	defer cancel(nil)
	ss = narrowStream{ss, s, ctx, info.FullMethod}
	err = handler(srv, &callerStream{ServerStream: ss, server: s, ctx: ctx, cancel: cancel})
	if cause := context.Cause(ctx); cause != nil && err != nil {
		err = cause
	}
	return s.status(ctx, info.FullMethod, err)
}

// ended counts a call that ended, and tells of it if it was refused.
func (s *Server) ended(ctx context.Context, method string, began time.Time, err error) {
	s.metrics.called(method, began, err)
	if err != nil {
		s.refusals.call(ctx, method, err)
	}
}

// recovered turns a panic into an INTERNAL error: no request ends the server.
func (s *Server) recovered(ctx context.Context, method string, err *error) {
	if p := recover(); p != nil {
		s.log.ErrorContext(ctx, "a request panicked", "method", method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		*err = problem(codes.Internal, pembav1.ErrorReason_ERROR_REASON_INTERNAL, "an internal error; the server's log has the details")
	}
}

// store finds the store a request names, and checks that the caller may use it.
func (s *Server) store(ctx context.Context, name string) (datastore.Store, error) {
	if name == "" {
		name = "default"
	}
	if err := datastore.CheckName("store", name); err != nil {
		return datastore.Store{}, withFacts(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_STORE, err.Error(), datastore.Facts(err))
	}
	found, err := s.ds.StoreByName(ctx, name)
	if err == nil || isNoStore(err) {
		if denied := s.granted(ctx, found, name, isNoStore(err)); denied != nil {
			return found, denied
		}
	}
	if err == nil {
		err = s.storeRates.take(name)
	}
	return found, err
}

// granted refuses a store to a caller who may not do in it what the call does.
func (s *Server) granted(ctx context.Context, st datastore.Store, name string, unknown bool) error {
	c, _ := ctx.Value(callerKey{}).(*caller)
	if c == nil {
		c = &caller{} // who may nothing
	}
	if !unknown {
		c.store = st.ID
	}
	if c.rights == nil {
		c.rights = &rights{}
	}
	switch {
	case c.rights.all&c.needs != 0:
		return nil
	case unknown || !c.rights.knows(st.ID):
		return withReason(codes.PermissionDenied, pembav1.ErrorReason_ERROR_REASON_STORE_NOT_GRANTED,
			fmt.Sprintf("%s may do nothing in store %q; use a caller with a role there", c.what(), name), "store", name)
	case c.rights.on(st.ID)&c.needs != 0 || c.cleared == st.ID || c.needs == known:
		return nil
	case c.judged && c.rights.forTypes(st.ID, nil, c.needs):
		return nil
	case len(c.rights.types[st.ID]) > 0:
		return notOfType(c, st, "this", "")
	}
	return tooWeak(c, "this in store "+name, c.needs)
}

// at returns a snapshot of the store a request names, and the time at which its
// question is asked.
func (s *Server) at(ctx context.Context, name string, c *pembav1.Consistency) (datastore.Snapshot, time.Time, error) {
	st, err := s.store(ctx, name)
	if err != nil {
		return nil, time.Time{}, err
	}
	if p, ok := c.GetRequirement().(*pembav1.Consistency_AtTime); ok {
		return s.past(ctx, st.ID, p.AtTime, cursor{})
	}
	level, err := consistency(c)
	if err != nil {
		return nil, time.Time{}, err
	}
	snapshot, err := s.snapshot(ctx, st.ID, level)
	return snapshot, time.Now(), err
}

// snapshot returns a snapshot of a store, and counts it.
func (s *Server) snapshot(ctx context.Context, store datastore.StoreID, c datastore.Consistency) (datastore.Snapshot, error) {
	snapshot, err := s.ds.At(ctx, store, c)
	if err == nil {
		s.metrics.read(c.Level, snapshot)
	}
	return snapshot, err
}
