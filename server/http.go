package server

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pembadb/pemba/dispatch"
	"github.com/pembadb/pemba/provisioning"
	"github.com/pembadb/pemba/provisioning/scim"
)

// HTTP is the listener for what speaks HTTP: pemba.v1 at /v1, its OpenAPI document
// at /openapi.json, /healthz, and SCIM 2.0 at /scim/v2 for the store default, and
// at /stores/{store}/scim/v2 for any.
type HTTP struct {
	server      *http.Server
	connections *connections
	cancel      context.CancelFunc // ends what is under way
	// underWay is held for reading by every request, and for writing for ever once
	// the listener has stopped.
	underWay sync.RWMutex
	stopped  sync.Once
}

// scimMethod is what the table of roles calls SCIM.
const scimMethod = "/scim"

// maxHeaders bounds the headers of a request in bytes; idleTime how long a
// connection waits for the next one.
const (
	maxHeaders = 16 << 10
	idleTime   = 2 * time.Minute
)

// HTTP makes the listener. external is the URL at which clients reach it, such as
// https://pemba.example, which answers refer to; empty: as their requests say.
func (s *Server) HTTP(external string) *HTTP {
	ctx, cancel := context.WithCancel(context.Background())
	h := &HTTP{connections: &s.connections, cancel: cancel}
	users := scim.New(scim.Config{
		Open:          s.scimSession(strings.TrimSuffix(external, "/"), provisioning.NewCounts()),
		MaxBody:       int64(s.limits.RequestBytes),
		MaxInflight:   int64(s.limits.InflightBytes),
		MaxBatch:      provisioning.MaxCreated,
		Documentation: "https://github.com/pembadb/pemba/blob/main/docs/scim.md",
		Logger:        s.log,
	})
	h.server = &http.Server{
		Handler:           h.guarded(s, s.routes(timed(users, s.limits.CallTime))),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       s.limits.CallTime,
		WriteTimeout:      2 * s.limits.CallTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeaders,
		ErrorLog:          s.httpComplaints(),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: min(s.limits.Streams, 250)},
	}
	if s.config.TLS != nil {
		h.server.TLSConfig = s.config.TLS.Config("h2", "http/1.1")
	}
	return h
}

// routes sends each request where it belongs; users has all that is nobody else's.
func (s *Server) routes(users http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case partOf(path) == "api":
			s.api.ServeHTTP(w, r)
		case path == "/openapi.json" && r.Method == http.MethodGet:
			s.openAPI(w, r)
		case path == "/healthz" && r.Method == http.MethodGet:
			s.healthz(w, r)
		default:
			users.ServeHTTP(w, r)
		}
	})
}

// guarded counts requests under way, names them, and keeps browsers from making
// more of answers than they are.
func (h *HTTP) guarded(s *Server, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.underWay.TryRLock() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		defer h.underWay.RUnlock()
		x, w, r := s.newExchange(w, r)
		defer x.end()
		header := w.Header()
		header.Set("X-Request-Id", x.id)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cache-Control", "no-store")
		if r.TLS != nil {
			header.Set("Strict-Transport-Security", "max-age=31536000")
		}
		began := time.Now()
		defer func() { s.metrics.requested(partOf(r.URL.Path), x.status, began) }()
		next.ServeHTTP(w, r)
	})
}

// partOf is what a request is for, as metrics call it.
func partOf(path string) string {
	if strings.HasPrefix(path, "/v1/") || strings.HasPrefix(path, "/pemba.v1.") {
		return "api"
	}
	if _, _, _, ok := scimPath(path); ok {
		return "scim"
	}
	return "other"
}

// timed ends requests that take longer than a call may.
func timed(next http.Handler, limit time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(dispatch.WithRequest(r.Context()), limit)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// Serve answers on lis until GracefulStop; it returns nil then.
func (h *HTTP) Serve(lis net.Listener) error {
	err := error(nil)
	lis = listener{lis, h.connections}
	if h.server.TLSConfig != nil {
		err = h.server.ServeTLS(lis, "", "")
	} else {
		err = h.server.Serve(lis)
	}
	if err != http.ErrServerClosed {
		return err
	}
	return nil
}

// GracefulStop lets requests under way finish, and when ctx ends first cuts off
// what is left. When it returns, none is under way.
func (h *HTTP) GracefulStop(ctx context.Context) {
	if h.server.Shutdown(ctx) != nil {
		h.cancel()
		h.server.Close()
	}
	h.cancel()
	h.stopped.Do(h.underWay.Lock) // requests that were cut off end soon: their context has
}

// scimSession finds out who sends a SCIM request and which store it is about.
func (s *Server) scimSession(external string, counts *provisioning.Counts) func(*http.Request) (*scim.Session, error) {
	return func(r *http.Request) (*scim.Session, error) {
		store, prefix, rest, ok := scimPath(r.URL.EscapedPath())
		if !ok {
			return nil, &scim.Error{Status: http.StatusNotFound, Detail: "there is nothing here; SCIM is at /scim/v2 and /stores/STORE/scim/v2, and /openapi.json tells what is at /v1"}
		}
		c, err := s.admitCaller(withCertificate(r), scimMethod, r.Header.Values("Authorization"))
		if err == nil {
			err = fromHere(c, r)
		}
		if err != nil {
			s.refusals.call(r.Context(), scimMethod, err)
			return nil, scimError(r, err)
		}
		ctx := context.WithValue(r.Context(), callerKey{}, c)
		st, err := s.store(ctx, store)
		if err != nil {
			err = s.status(ctx, scimMethod, err)
			s.refusals.call(ctx, scimMethod, err)
			return nil, scimError(r, err)
		}
		base := external
		if base == "" {
			base = "http://" + r.Host
			if r.TLS != nil {
				base = "https://" + r.Host
			}
		}
		return &scim.Session{
			Directory: provisioning.SCIM{Directory: &provisioning.Directory{Datastore: s.ds, Store: st.ID, Actor: c.name, Reason: "SCIM", Counts: counts}},
			Base:      base + prefix, Path: rest, Scope: strconv.FormatUint(uint64(st.ID), 10),
		}, nil
	}
}

// scimPath splits the path of a request: the store, which is empty for the
// default, what comes before the endpoint, and the rest.
func scimPath(path string) (store, prefix, rest string, ok bool) {
	const base = "/scim/v2"
	if after, found := strings.CutPrefix(path, "/stores/"); found {
		name, _, _ := strings.Cut(after, "/")
		prefix = "/stores/" + name
		var err error
		if store, err = url.PathUnescape(name); err != nil || store == "" {
			return "", "", "", false
		}
	}
	rest, ok = strings.CutPrefix(path, prefix+base)
	return store, prefix + base, rest, ok && (rest == "" || rest[0] == '/')
}

// scimError is an error of a call as SCIM tells it (RFC 7644 §3.12).
func scimError(r *http.Request, err error) error {
	st := status.Convert(err)
	retryAfter(exchangeOf(r.Context()).header, st)
	e := &scim.Error{Status: http.StatusInternalServerError, Detail: st.Message()}
	switch st.Code() {
	case codes.Unauthenticated:
		e.Status = http.StatusUnauthorized
	case codes.PermissionDenied:
		e.Status = http.StatusForbidden
	case codes.NotFound, codes.InvalidArgument: // of a store's name
		e.Status = http.StatusNotFound
	case codes.ResourceExhausted:
		e.Status = http.StatusTooManyRequests
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		e.Status = http.StatusServiceUnavailable
	default:
		return err
	}
	return e
}
