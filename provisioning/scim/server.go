package scim

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"unicode/utf8"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/semaphore"
)

// Config is what a Server needs; Open must be set. Limits that are zero are the
// defaults.
type Config struct {
	// Open says who a request is from and which directory it is about. An [Error]
	// is told as it is: 401, 403 or 404.
	Open func(*http.Request) (*Session, error)
	// MaxBody bounds the bytes of a body (8 MiB), and MaxInflight those of all
	// bodies over 64 KiB that are being worked on; more wait (32 MiB).
	MaxBody, MaxInflight int64
	// MaxResults bounds a page (1,000), MaxSorted how far into a sorted list it may
	// lie (10,000), and MaxOperations a bulk request (1,000). MaxBatch bounds what a
	// bulk request creates by one call of the directory (1,000).
	MaxResults, MaxSorted, MaxOperations, MaxBatch int
	// Documentation is a URI of help for people; empty for none.
	Documentation string
	// Logger takes errors whose text no client is told; nil is slog.Default.
	Logger *slog.Logger
}

// defaultResults is the size of a page where the client names none.
const defaultResults = 100

// Session is the directory that a request is about.
type Session struct {
	Directory Directory
	// Base is the URI under which clients reach the directory, such as
	// https://example.com/scim/v2, and Path what the request asks below it, in its
	// escaped form: "/Users/ada".
	Base, Path string
	// Scope is a name of the directory that no other one has.
	Scope string
	// Me is the id of the user that the caller is (RFC 7644 §3.11); empty: none.
	Me string
}

// Server answers SCIM requests. It is an [http.Handler].
type Server struct {
	config   Config
	log      *slog.Logger
	inflight *semaphore.Weighted
	marks    *lru.Cache[markKey, mark]
}

// New makes a Server.
func New(c Config) *Server {
	c.MaxBody = cmp.Or(c.MaxBody, 8<<20)
	c.MaxInflight = max(cmp.Or(c.MaxInflight, 32<<20), c.MaxBody)
	c.MaxResults = cmp.Or(c.MaxResults, 1000)
	c.MaxSorted = cmp.Or(c.MaxSorted, 10_000)
	c.MaxOperations = cmp.Or(c.MaxOperations, 1000)
	c.MaxBatch = cmp.Or(c.MaxBatch, 1000)
	s := &Server{config: c, log: c.Logger, inflight: semaphore.NewWeighted(c.MaxInflight)}
	if s.log == nil {
		s.log = slog.Default()
	}
	s.marks, _ = lru.New[markKey, mark](10_000) // fails for sizes below one only
	return s
}

// exchange is one request under way.
type exchange struct {
	*Server
	*Session
	w     http.ResponseWriter
	r     *http.Request
	ctx   context.Context
	view  View // see newest
	began bool // the answer is being written
	held  int64
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{Server: s, w: w, r: r, ctx: r.Context()}
	defer x.end()
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			s.log.Error("SCIM request panicked", "method", r.Method, "panic", p, "stack", string(debug.Stack()))
			x.fail(errors.New("panic"))
		}
	}()
	session, err := s.config.Open(r)
	if err == nil {
		x.Session = session
		err = x.route()
	}
	if err != nil {
		x.fail(err)
	}
}

func (x *exchange) end() {
	if x.view != nil {
		x.view.Close()
	}
	x.inflight.Release(x.held)
}

// newest is the state of the directory that the exchange reads: opened when first
// asked for, and again after a change.
func (x *exchange) newest() (View, error) {
	if x.view != nil {
		return x.view, nil
	}
	v, err := x.Directory.View(x.ctx)
	x.view = v
	return v, err
}

// changed lets go of a state that is no longer the newest.
func (x *exchange) changed() {
	if x.view != nil {
		x.view.Close()
		x.view = nil
	}
}

// handlers are what a resource answers to, by method.
type handlers map[string]func() error

func (h handlers) allowed() string {
	var list []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if h[m] != nil {
			list = append(list, m)
		}
	}
	return strings.Join(list, ", ")
}

// route finds what a request asks for (RFC 7644 §3.2).
func (x *exchange) route() error {
	var parts []string
	for _, p := range strings.Split(strings.Trim(x.Path, "/"), "/") {
		p, err := url.PathUnescape(p)
		if err != nil {
			return problem(http.StatusNotFound, "", "the path is not well formed")
		}
		if p != "" {
			parts = append(parts, p)
		}
	}
	h := x.find(parts)
	if h == nil {
		return problem(http.StatusNotFound, "", "there is nothing at %s", shorten(x.Path))
	}
	method := x.r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	f := h[method]
	if f == nil {
		x.w.Header().Set("Allow", h.allowed())
		return problem(http.StatusMethodNotAllowed, "", "%s is not possible here; %s is", shorten(method), h.allowed())
	}
	return f()
}

func (x *exchange) find(parts []string) handlers {
	if len(parts) == 0 {
		return handlers{"GET": func() error { return x.query(types) }}
	}
	switch first, rest := parts[0], parts[1:]; {
	case first == ".search" && len(rest) == 0:
		return handlers{"POST": func() error { return x.search(types) }}
	case first == "Bulk" && len(rest) == 0:
		return handlers{"POST": x.bulk}
	case first == "Me" && len(rest) == 0:
		if x.Me == "" {
			return handlers{"GET": x.noMe, "POST": x.noMe, "PUT": x.noMe, "PATCH": x.noMe, "DELETE": x.noMe}
		}
		return x.resource(types[0], x.Me)
	case first == "ServiceProviderConfig" && len(rest) == 0:
		return handlers{"GET": x.serviceProviderConfig}
	case first == "Schemas" && len(rest) < 2:
		return handlers{"GET": func() error { return x.discover(x.schemas(), "id", rest) }}
	case first == "ResourceTypes" && len(rest) < 2:
		return handlers{"GET": func() error { return x.discover(x.resourceTypes(), "name", rest) }}
	default:
		for _, t := range types {
			if t.Endpoint[1:] == first {
				return x.resources(t, rest)
			}
		}
	}
	return nil
}

// resources are the handlers of a type's endpoint.
func (x *exchange) resources(t *ResourceType, rest []string) handlers {
	switch {
	case len(rest) == 0:
		return handlers{
			"GET":  func() error { return x.query([]*ResourceType{t}) },
			"POST": func() error { return x.create(t) },
		}
	case len(rest) > 1:
		return nil
	case rest[0] == ".search":
		return handlers{"POST": func() error { return x.search([]*ResourceType{t}) }}
	}
	return x.resource(t, rest[0])
}

func (x *exchange) resource(t *ResourceType, id string) handlers {
	return handlers{
		"GET":    func() error { return x.get(t, id) },
		"PUT":    func() error { return x.replace(t, id) },
		"PATCH":  func() error { return x.modify(t, id) },
		"DELETE": func() error { return x.remove(t, id) },
	}
}

func (x *exchange) noMe() error {
	return problem(http.StatusNotImplemented, "", "a caller here is no user (RFC 7644 §3.11)")
}

// maxJSONDepth bounds how deep a body nests.
const maxJSONDepth = 32

// body reads the JSON object of a request (RFC 7644 §3.1, §8.1).
func (x *exchange) body() (Object, error) {
	if t := x.r.Header.Get("Content-Type"); t != "" {
		media, _, err := mime.ParseMediaType(t)
		if err != nil || media != "application/scim+json" && media != "application/json" {
			return nil, problem(http.StatusUnsupportedMediaType, "", "the Content-Type must be application/scim+json or application/json")
		}
	}
	if e := x.r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, problem(http.StatusUnsupportedMediaType, "", "a compressed body is not supported; send it as it is")
	}
	if x.r.ContentLength > x.config.MaxBody {
		return nil, x.tooLarge()
	}
	if err := x.hold(); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(http.MaxBytesReader(x.w, x.r.Body, x.config.MaxBody))
	if err != nil {
		if e := (*http.MaxBytesError)(nil); errors.As(err, &e) {
			return nil, x.tooLarge()
		}
		return nil, bad("", "the body could not be read")
	}
	return parseBody(data)
}

func (x *exchange) tooLarge() error {
	return problem(http.StatusRequestEntityTooLarge, "", "the body is larger than %d bytes; send several requests", x.config.MaxBody)
}

// hold waits until the memory that a large body takes is free.
func (x *exchange) hold() error {
	n := x.r.ContentLength
	if n < 0 {
		n = x.config.MaxBody
	}
	if n <= 64<<10 {
		return nil
	}
	if err := x.inflight.Acquire(x.ctx, n); err != nil {
		return err
	}
	x.held = n
	return nil
}

func parseBody(data []byte) (Object, error) {
	if !utf8.Valid(data) {
		return nil, bad(invalidSyntax, "the body is not UTF-8")
	}
	if depth(data) > maxJSONDepth {
		return nil, bad(invalidSyntax, "the body nests deeper than %d", maxJSONDepth)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, bad(invalidSyntax, "the body is no JSON: %v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, bad(invalidSyntax, "the body goes on after its JSON object")
	}
	if name := repeated(data); name != "" {
		return nil, bad(invalidSyntax, "the body gives %q twice in one object", shorten(name))
	}
	return asObject(v, "the body")
}

// repeated is a name that a JSON text gives twice in one object, of which a decoder
// would take the last (RFC 8259 §4); empty if there is none.
func repeated(data []byte) string {
	d := json.NewDecoder(bytes.NewReader(data))
	type level struct {
		names map[string]bool // nil: of an array
		name  bool            // a name comes next
	}
	var open []level
	for {
		token, err := d.Token()
		if err != nil {
			return ""
		}
		if delim, ok := token.(json.Delim); ok && (delim == '}' || delim == ']') {
			open = open[:len(open)-1]
			continue
		}
		if n := len(open); n > 0 && open[n-1].names != nil {
			at := &open[n-1]
			if at.name = !at.name; !at.name {
				name, _ := token.(string)
				if at.names[name] {
					return name
				}
				at.names[name] = true
				continue
			}
		}
		switch token {
		case json.Delim('{'):
			open = append(open, level{map[string]bool{}, true})
		case json.Delim('['):
			open = append(open, level{})
		}
	}
}

// depth is how deep a JSON text nests.
func depth(data []byte) int {
	deepest, now, quoted := 0, 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}

// location is the URI of a resource.
func location(base string, k Kind, id string) string {
	return base + TypeOf(k).Endpoint + "/" + url.PathEscape(id)
}
