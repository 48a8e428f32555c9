package server

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

// refusals tell the operator of what the server refused: each is counted, and of
// each kind one a while is logged, with how many there were. Nothing of what a
// caller sent is in either: it may hold a secret, and whoever sends much of it
// must not fill the log.
type refusals struct {
	log   *slog.Logger
	count *prometheus.CounterVec // nil counts nothing

	mu    sync.Mutex
	kinds map[string]*refused
}

// refused is what the log was not yet told of a kind.
type refused struct {
	more   int
	logged time.Time
}

// tellEvery is how often a kind of refusal is logged.
const tellEvery = 10 * time.Second

// Kinds of refusals that no call is there for yet.
const (
	refusedHandshake  = "handshake"
	refusedConnection = "max-connections"
)

func newRefusals(log *slog.Logger, r prometheus.Registerer) (*refusals, error) {
	out := &refusals{log: log, kinds: map[string]*refused{}}
	if r == nil {
		return out, nil
	}
	out.count = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pemba_refused_total", Help: "Calls, requests and connections that were refused for who made them or for how much they are, by the error's reason, or the limit's name.",
	}, []string{"reason"})
	for _, reason := range []pembav1.ErrorReason{
		pembav1.ErrorReason_ERROR_REASON_NO_TOKEN, pembav1.ErrorReason_ERROR_REASON_UNKNOWN_TOKEN, pembav1.ErrorReason_ERROR_REASON_EXPIRED_TOKEN,
		pembav1.ErrorReason_ERROR_REASON_ROLE_TOO_WEAK, pembav1.ErrorReason_ERROR_REASON_STORE_NOT_GRANTED,
	} {
		out.count.WithLabelValues(strings.TrimPrefix(reason.String(), "ERROR_REASON_"))
	}
	for _, kind := range []string{refusedHandshake, refusedConnection, "token-rate", "store-rate", "memory-limit", "max-open-streams", "max-request-bytes"} {
		out.count.WithLabelValues(kind) // a rate needs to see them before the first
	}
	return out, r.Register(out.count)
}

// call tells of a call that ended in err, if that refuses it.
func (r *refusals) call(ctx context.Context, method string, err error) {
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.ResourceExhausted:
		r.tell(ctx, refusalOf(err), "method", strings.TrimPrefix(method, "/"))
	}
}

// refusalOf is the reason of an error, or for a limit its name.
func refusalOf(err error) string {
	st := status.Convert(err)
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			if limit := info.Metadata["limit"]; limit != "" {
				return limit
			}
			return info.Reason
		}
	}
	return st.Code().String()
}

// tell counts a refusal, and logs it unless one of its kind was just logged.
func (r *refusals) tell(ctx context.Context, kind string, about ...any) {
	if r.count != nil {
		r.count.WithLabelValues(kind).Inc()
	}
	now := time.Now()
	r.mu.Lock()
	k := r.kinds[kind]
	if k == nil {
		k = &refused{}
		r.kinds[kind] = k
	}
	k.more++
	more, due := k.more, now.Sub(k.logged) >= tellEvery
	if due {
		k.more, k.logged = 0, now
	}
	r.mu.Unlock()
	if due {
		r.log.WarnContext(ctx, "refused", append([]any{"reason", kind, "times", more}, about...)...)
	}
}
