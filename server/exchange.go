package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

// exchange is one HTTP request and its answer.
type exchange struct {
	server   *Server
	id       string // names it in the log
	request  *http.Request
	control  *http.ResponseController
	header   http.Header // of the answer
	status   int         // of the answer
	body     *body
	method   string // known once it has arrived, as is
	caller   *caller
	began    time.Time
	handlers sync.WaitGroup // of streams under way

	mu        sync.Mutex
	err       error // why the request is refused, or could not be read
	streaming bool
}

type exchangeKey struct{}

// exchangeOf is the exchange that a context belongs to; nil for calls over gRPC.
func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// newExchange begins an exchange; what it returns stands in for what net/http
// gave. It must end.
func (s *Server) newExchange(w http.ResponseWriter, r *http.Request) (*exchange, http.ResponseWriter, *http.Request) {
	x := &exchange{server: s, id: callName(r.Header.Get(requestIDKey)), control: http.NewResponseController(w), header: w.Header(), status: http.StatusOK}
	from := &peer.Peer{Addr: httpAddr(r.RemoteAddr)}
	if r.TLS != nil {
		from.AuthInfo = credentials.TLSInfo{State: *r.TLS, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
	}
	x.request = r.WithContext(peer.NewContext(context.WithValue(r.Context(), exchangeKey{}, x), from))
	x.body = &body{exchange: x, from: r.Body}
	return x, &exchangeWriter{w, x}, x.request
}

// httpAddr is a remote address as net/http tells it.
type httpAddr string

var _ net.Addr = httpAddr("")

// Network implements [net.Addr].
func (httpAddr) Network() string { return "tcp" }

// String implements [net.Addr].
func (a httpAddr) String() string { return string(a) }

// end waits for handlers under way, whose context has ended, and gives back what
// the request took.
func (x *exchange) end() {
	x.handlers.Wait()
	x.body.end()
}

// arrive finds out, before anything of the body is read, who calls, and whether
// they may.
func (x *exchange) arrive(ctx context.Context, method string) {
	x.method, x.began = method, time.Now()
	if r := x.request; r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		ctx = withTLS(ctx, *r.TLS)
	}
	timed := newCall(ctx, nil, x.server.limits.CallTime)
	defer timed.end()
	c, err := x.server.admitCaller(timed, method, x.request.Header.Values("Authorization"))
	if err == nil {
		err = fromHere(c, x.request)
	}
	if err != nil {
		x.fail(err)
		return
	}
	x.caller = c
	if x.server.registered[method].unary != nil && x.request.ContentLength > int64(x.server.limits.RequestBytes) {
		x.fail(x.server.tooLarge()) // before any of it is read
	}
}

// fromHere refuses those who need no token because the server listens on loopback
// only, if they name the server as somebody elsewhere would: a web page that had
// its own name point here.
func fromHere(c *caller, r *http.Request) error {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if _, err := netip.ParseAddr(host); c.name != "anonymous" || err == nil || host == "localhost" || host == "" {
		return nil
	}
	return problem(codes.Unauthenticated, pembav1.ErrorReason_ERROR_REASON_NO_TOKEN,
		"without a token the server answers to its address or localhost only, and not to %q; pass one as `Authorization: Bearer TOKEN`", host)
}

// fail notes the first reason why the exchange cannot be.
func (x *exchange) fail(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err != nil {
		return
	}
	x.err = err
	if !x.streaming && x.method != "" { // no call that would count it was made
		x.server.ended(x.request.Context(), x.method, x.began, err)
	}
}

// problem is what fail noted.
func (x *exchange) problem() error {
	if x == nil {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}

// streams takes the time limits of a request that is not a stream off the
// connection; those of each step are set as it goes. With duplex, requests may
// follow while answers are sent; what of them is left then ends the connection.
func (x *exchange) streams(duplex bool) {
	if x == nil {
		return
	}
	x.mu.Lock()
	x.streaming = true
	x.mu.Unlock()
	if duplex && x.request.ProtoMajor == 1 {
		_ = x.control.EnableFullDuplex()
		x.header.Set("Connection", "close")
	}
	_ = x.control.SetReadDeadline(time.Time{})
	_ = x.control.SetWriteDeadline(time.Time{})
}

func (x *exchange) isStream() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.streaming
}

// exchangeWriter gives each part of a stream its time to be written.
type exchangeWriter struct {
	http.ResponseWriter
	exchange *exchange
}

// WriteHeader implements [http.ResponseWriter].
func (w *exchangeWriter) WriteHeader(code int) {
	w.exchange.status = code
	w.ResponseWriter.WriteHeader(code)
}

// Write implements [http.ResponseWriter].
func (w *exchangeWriter) Write(b []byte) (int, error) {
	if w.exchange.isStream() {
		_ = w.exchange.control.SetWriteDeadline(time.Now().Add(w.exchange.server.limits.SlowConsumer))
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for [http.ResponseController].
func (w *exchangeWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// body is a request's body, bounded message by message. One goroutine reads it,
// which may be another than the exchange's.
type body struct {
	exchange *exchange
	from     io.ReadCloser
	ended    atomic.Bool

	mu     sync.Mutex // held while it is read
	read   int        // bytes of this message
	err    error      // why nothing is left, or can be read
	weight int64      // what this message holds of the budget for large ones
}

// next begins another message.
func (b *body) next() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.release()
}

func (b *body) release() {
	if b.weight > 0 {
		b.exchange.server.inflight.Release(b.weight)
	}
	b.read, b.weight = 0, 0
}

// errEnded is for who still reads a body when its exchange has ended.
var errEnded = errors.New("the request has ended")

// end waits until nobody reads; nobody will. What a stream did not read is not
// waited for either.
func (b *body) end() {
	b.ended.Store(true)
	free := b.mu.TryLock()
	if !free || b.exchange.isStream() && b.err != io.EOF {
		_ = b.exchange.control.SetReadDeadline(time.Unix(1, 0))
	}
	if !free {
		b.mu.Lock()
	}
	b.release()
	b.mu.Unlock()
}

// Read implements [io.Reader].
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	x := b.exchange
	if err := x.problem(); err != nil {
		return 0, err
	}
	if err := b.bound(); err != nil {
		x.fail(err)
		return 0, err
	}
	stream := x.isStream()
	if stream && !b.ended.Load() {
		_ = x.control.SetReadDeadline(time.Now().Add(x.server.limits.CallTime))
	}
	if b.ended.Load() {
		return 0, errEnded
	}
	n, err := b.from.Read(p)
	b.read += n
	b.err = err
	if stream && err == io.EOF && !b.ended.Load() {
		_ = x.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// tooLarge is the error of a request over HTTP that is larger than it may be.
func (s *Server) tooLarge() error {
	limit := s.limits.RequestBytes
	return withReason(codes.ResourceExhausted, pembav1.ErrorReason_ERROR_REASON_LIMIT_EXCEEDED,
		fmt.Sprintf("the request has more bytes than the limit of %d (max-request-bytes); split it", limit),
		"limit", "max-request-bytes", "maximum", strconv.Itoa(limit))
}

// bound refuses a message that is too large, and has a large one wait for its
// share.
func (b *body) bound() error {
	limit := b.exchange.server.limits.RequestBytes
	if b.read > limit {
		return b.exchange.server.tooLarge()
	}
	if b.read <= smallMessage || b.weight > 0 {
		return nil
	}
	return b.weigh()
}

// weigh takes a message's share of the budget for large ones.
func (b *body) weigh() error {
	x := b.exchange
	most := x.server.limits.RequestBytes
	if n := x.request.ContentLength; n > 0 && n < int64(most) {
		most = int(n)
	}
	weight, err := x.server.admit(x.request.Context(), most)
	b.weight = weight
	return err
}

// Close implements [io.Closer].
func (b *body) Close() error { return b.from.Close() }

// read tells what was wrong with a message of the body: what the exchange met, or
// that it is no JSON of its kind.
func (x *exchange) read(err error) error {
	if err == io.EOF {
		return err
	}
	var late net.Error
	switch {
	case errors.As(err, &late) && late.Timeout():
		x.fail(problem(codes.DeadlineExceeded, pembav1.ErrorReason_ERROR_REASON_DEADLINE_EXCEEDED, "the request did not arrive in time (max-call-time)"))
	default:
		x.fail(problem(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_FIELD, "the request is no JSON of this method's request: %s", decoding(err)))
	}
	return x.problem()
}

// decoding is what a decoder says, without its own name.
func decoding(err error) string {
	var kind *json.SyntaxError
	if errors.As(err, &kind) {
		return fmt.Sprintf("%v, at byte %d", err, kind.Offset)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return "it breaks off"
	}
	return err.Error()
}
