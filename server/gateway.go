package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

// gateway serves pemba.v1 as JSON over HTTP: the paths of http.yaml, each a call
// of the same service, with the same callers, limits, counts and errors as over
// gRPC.
func (s *Server) gateway() (http.Handler, error) {
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, jsonLines{&runtime.JSONPb{
			MarshalOptions: protojson.MarshalOptions{EmitDefaultValues: true},
		}}),
		runtime.WithMetadata(func(ctx context.Context, r *http.Request) metadata.MD {
			if method, ok := runtime.RPCMethod(ctx); ok {
				exchangeOf(ctx).arrive(ctx, method)
			}
			return nil
		}),
		runtime.WithIncomingHeaderMatcher(func(name string) (string, bool) {
			name = strings.ToLower(name)
			return name, slices.Contains(forwarded, name)
		}),
		runtime.WithOutgoingHeaderMatcher(func(name string) (string, bool) {
			return textproto.CanonicalMIMEHeaderKey(name), name == debugKey
		}),
		runtime.WithErrorHandler(writeHTTPError),
		runtime.WithStreamErrorHandler(func(ctx context.Context, err error) *status.Status {
			return status.Convert(httpError(exchangeOf(ctx), err))
		}),
		runtime.WithRoutingErrorHandler(unrouted),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
	)
	conn := inside{s}
	for _, register := range []func(context.Context, *runtime.ServeMux, grpc.ClientConnInterface) error{
		registered(pembav1.NewPermissionServiceClient, pembav1.RegisterPermissionServiceHandlerClient),
		registered(pembav1.NewRelationshipServiceClient, pembav1.RegisterRelationshipServiceHandlerClient),
		registered(pembav1.NewSchemaServiceClient, pembav1.RegisterSchemaServiceHandlerClient),
		registered(pembav1.NewWatchServiceClient, pembav1.RegisterWatchServiceHandlerClient),
		registered(pembav1.NewHistoryServiceClient, pembav1.RegisterHistoryServiceHandlerClient),
		registered(pembav1.NewAuditServiceClient, pembav1.RegisterAuditServiceHandlerClient),
		registered(pembav1.NewProvisioningServiceClient, pembav1.RegisterProvisioningServiceHandlerClient),
		registered(pembav1.NewStoreServiceClient, pembav1.RegisterStoreServiceHandlerClient),
		registered(pembav1.NewTokenServiceClient, pembav1.RegisterTokenServiceHandlerClient),
		registered(pembav1.NewGrantServiceClient, pembav1.RegisterGrantServiceHandlerClient),
	} {
		if err := register(s.ctx, mux, conn); err != nil {
			return nil, fmt.Errorf("server: register the HTTP paths: %w", err)
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r.Context())
		if s.crossOrigin(w, r) {
			return
		}
		r.Body = x.body
		mux.ServeHTTP(w, r)
	}), nil
}

// forwarded are the HTTP headers that a call sees as metadata, besides
// Authorization.
var forwarded = append([]string{debugKey}, traceContext.Fields()...)

// registered joins what is generated for a service.
func registered[C any](client func(grpc.ClientConnInterface) C, register func(context.Context, *runtime.ServeMux, C) error) func(context.Context, *runtime.ServeMux, grpc.ClientConnInterface) error {
	return func(ctx context.Context, mux *runtime.ServeMux, conn grpc.ClientConnInterface) error {
		return register(ctx, mux, client(conn))
	}
}

// jsonLines reads and writes messages as JSON, those of a stream one a line.
// Fields that a message lacks are errors: a misspelt one must not be ignored.
type jsonLines struct{ *runtime.JSONPb }

// ContentType implements [runtime.Marshaler].
func (jsonLines) ContentType(any) string { return "application/json" }

// StreamContentType implements [runtime.StreamContentType].
func (jsonLines) StreamContentType(any) string { return "application/x-ndjson" }

// NewDecoder implements [runtime.Marshaler]: each message of a body is bounded by
// itself, and errors are told to the exchange, for the runtime drops some.
func (j jsonLines) NewDecoder(r io.Reader) runtime.Decoder {
	from, ok := r.(*body)
	if !ok {
		return j.JSONPb.NewDecoder(r)
	}
	d := json.NewDecoder(from)
	return runtime.DecoderFunc(func(message any) error {
		from.next()
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return from.exchange.read(err)
		}
		if err := j.Unmarshal(raw, message); err != nil {
			return from.exchange.read(err)
		}
		return nil
	})
}

// httpError is an error as it is told over HTTP: what the exchange met before, or
// else what a call answered; what the runtime refuses gets its reason.
func httpError(x *exchange, err error) error {
	if met := x.problem(); met != nil {
		return met
	}
	st := status.Convert(err)
	if st.Code() == codes.InvalidArgument && len(st.Details()) == 0 {
		return problem(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_FIELD, "%s", st.Message())
	}
	return err
}

// writeHTTPError writes an error as a google.rpc.Status in JSON.
func writeHTTPError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	answerError(w, httpError(exchangeOf(r.Context()), err), 0)
}

// answerError writes an error with an HTTP status; 0 is that of its code.
func answerError(w http.ResponseWriter, err error, code int) {
	st := status.Convert(err)
	if code == 0 {
		code = runtime.HTTPStatusFromCode(st.Code())
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.Metadata["limit"] == "max-request-bytes" {
			code = http.StatusRequestEntityTooLarge
		}
	}
	retryAfter(w.Header(), st)
	if code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="pemba"`)
	}
	w.Header().Del("Transfer-Encoding")
	w.Header().Set("Content-Type", "application/json")
	data, failed := protojson.Marshal(st.Proto())
	if failed != nil { // a detail of a kind that this program lacks
		data, _ = json.Marshal(map[string]any{"code": st.Code(), "message": st.Message()})
	}
	w.WriteHeader(code)
	_, _ = w.Write(append(data, '\n'))
}

// retryAfter says in a header when to try again (RFC 9110 §10.2.3), if an error
// does.
func retryAfter(header http.Header, st *status.Status) {
	for _, d := range st.Details() {
		if retry, ok := d.(*errdetails.RetryInfo); ok {
			header.Set("Retry-After", strconv.Itoa(int(math.Ceil(retry.RetryDelay.AsDuration().Seconds()))))
		}
	}
}

// unrouted answers requests that no path and method match.
func unrouted(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
	switch code {
	case http.StatusNotFound:
		answerError(w, status.Errorf(codes.NotFound, "there is nothing at %s; /openapi.json tells what there is", shortened(r.URL.Path, longestFact)), code)
	case http.StatusMethodNotAllowed:
		answerError(w, status.Errorf(codes.Unimplemented, "%s does not take %s; /openapi.json tells what it takes", shortened(r.URL.Path, longestFact), shortened(r.Method, 16)), code)
	default:
		answerError(w, problem(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_FIELD, "the path %s is not well formed", shortened(r.URL.Path, longestFact)), code)
	}
}

// crossOrigin answers the requests of web pages that are not listed, and the
// questions of browsers whether one may call; it reports whether it did.
func (s *Server) crossOrigin(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	w.Header().Add("Vary", "Origin")
	listed := slices.Contains(s.config.Origins, origin)
	if !listed {
		if u, err := url.Parse(origin); err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host) {
			return false
		}
		answerError(w, status.Errorf(codes.PermissionDenied, "pages of %s may not call this server; list it with --http-cors-origin", shortened(origin, longestFact)), 0)
		return true
	}
	w.Header().Set("Access-Control-Allow-Origin", origin)
	w.Header().Set("Access-Control-Expose-Headers", "X-Request-Id, Retry-After, Pemba-Debug")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	w.Header().Set("Access-Control-Allow-Methods", "GET, POST")
	w.Header().Set("Access-Control-Allow-Headers", "Authorization, Content-Type, X-Request-Id, Grpc-Timeout, Pemba-Debug")
	w.Header().Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// openAPI answers with the document of the paths.
func (s *Server) openAPI(w http.ResponseWriter, r *http.Request) {
	if s.crossOrigin(w, r) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(pembav1.OpenAPI)
}

// healthz answers what the health service says: 200 if the server can answer, 503
// if not.
func (s *Server) healthz(w http.ResponseWriter, r *http.Request) {
	answer, err := s.health.Check(r.Context(), &healthv1.HealthCheckRequest{})
	w.Header().Set("Content-Type", "application/json")
	if err != nil || answer.Status != healthv1.HealthCheckResponse_SERVING {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = fmt.Fprintf(w, "{\"status\":%q}\n", answer.GetStatus().String())
}
