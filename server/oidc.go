package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	lru "github.com/hashicorp/golang-lru/v2"
	"google.golang.org/grpc/codes"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

// OIDCOptions say whose tokens name callers (OpenID Connect Core 1.0 §2, RFC 7519).
type OIDCOptions struct {
	// Issuer is the identity provider's URL: the claim iss, and where its
	// configuration is found (OpenID Connect Discovery 1.0 §4). https, or http on
	// loopback.
	Issuer string
	// Audience is what the claim aud must hold.
	Audience string
	// SubjectClaim names the caller; empty is `sub`. GroupsClaim names the groups;
	// empty is `groups`. Dots go into objects: `realm_access.roles`.
	SubjectClaim, GroupsClaim string
	// CAFile is a PEM file with the authority of the issuer's certificate; empty: the
	// machine's.
	CAFile string
}

// OIDC verifies the tokens of one identity provider. Its keys are fetched when they
// are first needed, and again when a token names one that is not known.
type OIDC struct {
	options OIDCOptions
	client  *http.Client
	known   *lru.Cache[[32]byte, *claims]

	mu       sync.Mutex
	verifier *oidc.IDTokenVerifier // nil until the issuer answered
	asking   chan struct{}         // closed when the question under way is over; nil: none is
	failed   error                 // of the last question
	asked    time.Time             // when that was over
}

const (
	rememberedTokens = 10_000
	// trustFor is how long a token that was verified is not verified again.
	trustFor = 5 * time.Minute
	// askIssuerEvery is how often a failing issuer is asked, and how often at most its
	// keys are fetched, whatever callers send.
	askIssuerEvery = 5 * time.Second
	issuerTime     = 5 * time.Second
	issuerBytes    = 4 << 20
	maxGroups      = 1000
	maxJWT         = 64 << 10
)

// NewOIDC makes a verifier; the issuer need not answer yet.
func NewOIDC(o OIDCOptions) (*OIDC, error) {
	if o.SubjectClaim == "" {
		o.SubjectClaim = "sub"
	}
	if o.GroupsClaim == "" {
		o.GroupsClaim = "groups"
	}
	u, err := url.Parse(o.Issuer)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("the issuer %q is no URL; write one such as https://login.example/realms/acme (--oidc-issuer)", o.Issuer)
	case u.Scheme == "http" && !onLoopback(u.Hostname()):
		return nil, fmt.Errorf("the issuer %q is not reached over https: whoever is on the way could make callers up (--oidc-issuer)", o.Issuer)
	case o.Audience == "":
		return nil, errors.New("without an audience every token of the issuer, for whatever service, would open this one; name it with --oidc-audience")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("the authority of the issuer (--oidc-ca): %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the authority of the issuer (--oidc-ca %s) holds no certificate in PEM form", o.CAFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	known, err := lru.New[[32]byte, *claims](rememberedTokens)
	if err != nil {
		return nil, err
	}
	return &OIDC{options: o, known: known, client: &http.Client{Timeout: issuerTime, Transport: &sparing{base: transport, last: map[string]fetched{}}}}, nil
}

func onLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// Ask asks the issuer for its configuration, and says what is wrong with it.
func (o *OIDC) Ask(ctx context.Context) error {
	_, err := o.verifierFor(ctx)
	return err
}

// verifierFor is the verifier, once the issuer has told its configuration. Those
// who wait for it share one question.
func (o *OIDC) verifierFor(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	for {
		o.mu.Lock()
		verifier, failed, asking := o.verifier, o.failed, o.asking
		fresh := failed != nil && time.Since(o.asked) < askIssuerEvery
		if verifier == nil && !fresh && asking == nil {
			asking = make(chan struct{})
			o.asking = asking
			go o.discover(asking)
		}
		o.mu.Unlock()
		switch {
		case verifier != nil:
			return verifier, nil
		case fresh:
			return nil, o.unavailable(failed)
		}
		select {
		case <-asking:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (o *OIDC) discover(done chan struct{}) {
	ctx, cancel := context.WithTimeout(oidc.ClientContext(context.Background(), o.client), issuerTime)
	defer cancel()
	provider, err := oidc.NewProvider(ctx, o.options.Issuer)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked, o.failed, o.asking = time.Now(), err, nil
	if err == nil {
		o.verifier = provider.Verifier(&oidc.Config{ClientID: o.options.Audience})
	}
	close(done)
}

func (o *OIDC) unavailable(err error) error {
	var network *url.Error
	why := "its answer is not what it should be"
	switch {
	case errors.As(err, &network):
		why = network.Err.Error()
	case err != nil:
		why = strings.TrimPrefix(err.Error(), "oidc: ")
	}
	return problem(codes.Unavailable, pembav1.ErrorReason_ERROR_REASON_UNAVAILABLE,
		"the identity provider %s cannot be asked whether the token is its own: %s; try again", o.options.Issuer, shortened(why, 300))
}

// claims are what a token says of its caller.
type claims struct {
	subject  string
	groups   string // as joinGroups writes them
	expires  time.Time
	verified time.Time
}

func (c *claims) valid(now time.Time) error {
	if now.Before(c.expires) {
		return nil
	}
	return expiredClaims(c.expires)
}

func expiredClaims(at time.Time) error {
	return withReason(codes.Unauthenticated, pembav1.ErrorReason_ERROR_REASON_EXPIRED_TOKEN,
		fmt.Sprintf("the identity provider's token expired at %s; get another from it", at.UTC().Format(time.RFC3339)), "token", "oidc")
}

// looksLikeJWT reports whether a secret has the form of a signed token (RFC 7515 §7.1).
func looksLikeJWT(secret string) bool {
	return len(secret) <= maxJWT && strings.Count(secret, ".") == 2 && !strings.HasPrefix(secret, "pemba_")
}

// verify finds out whom a token names.
func (o *OIDC) verify(ctx context.Context, hash [32]byte, secret string) (*claims, error) {
	now := time.Now()
	if c, ok := o.known.Get(hash); ok && now.Sub(c.verified) < trustFor {
		return c, c.valid(now)
	}
	verifier, err := o.verifierFor(ctx)
	if err != nil {
		return nil, err
	}
	token, err := verifier.Verify(oidc.ClientContext(ctx, o.client), secret)
	var late *oidc.TokenExpiredError
	switch {
	case err == nil:
	case errors.As(err, &late):
		return nil, expiredClaims(late.Expiry)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case strings.Contains(err.Error(), "fetching keys"):
		return nil, o.unavailable(err)
	default:
		return nil, refusedToken(strings.TrimPrefix(err.Error(), "oidc: "))
	}
	c, err := o.read(token)
	if err != nil {
		return nil, refusedToken(err.Error())
	}
	c.verified = now
	o.known.Add(hash, c)
	return c, nil
}

func refusedToken(why string) error {
	return problem(codes.Unauthenticated, pembav1.ErrorReason_ERROR_REASON_UNKNOWN_TOKEN, "the identity provider's token is refused: %s", shortened(why, 300))
}

// read takes from a verified token who the caller is.
func (o *OIDC) read(token *oidc.IDToken) (*claims, error) {
	var all map[string]any
	if err := token.Claims(&all); err != nil {
		return nil, errors.New("its claims are no JSON object")
	}
	c := &claims{expires: token.Expiry}
	var ok bool
	if c.subject, ok = claim(all, o.options.SubjectClaim).(string); !ok || c.subject == "" {
		return nil, fmt.Errorf("it has no claim %s that is a text", o.options.SubjectClaim)
	}
	if verified, told := all["email_verified"].(bool); o.options.SubjectClaim == "email" && told && !verified {
		return nil, errors.New("its e-mail address is not verified")
	}
	if (datastore.Caller{Kind: datastore.CallerOIDC, Name: c.subject}).Object().Check() != nil {
		return nil, fmt.Errorf("its claim %s is too long", o.options.SubjectClaim)
	}
	var groups []string
	switch list := claim(all, o.options.GroupsClaim).(type) {
	case string:
		groups = []string{list}
	case []any:
		for _, g := range list {
			if text, ok := g.(string); ok {
				groups = append(groups, text)
			}
		}
	}
	if len(groups) > maxGroups {
		return nil, fmt.Errorf("it names %d groups, more than %d; let the identity provider put only those into it that Pemba is to know", len(groups), maxGroups)
	}
	usable := groups[:0]
	for _, g := range groups {
		// Nothing can be granted to a group without a name, or with one too long.
		if !strings.Contains(g, "\x00") && (datastore.Caller{Kind: datastore.CallerGroup, Name: g}).Object().Check() == nil {
			usable = append(usable, g)
		}
	}
	c.groups = joinGroups(usable)
	return c, nil
}

// claim finds a claim by its name, or by a path of names with dots between.
func claim(all map[string]any, name string) any {
	if v, ok := all[name]; ok {
		return v
	}
	head, rest, dotted := strings.Cut(name, ".")
	if inner, ok := all[head].(map[string]any); ok && dotted {
		return claim(inner, rest)
	}
	return nil
}

// sparing fetches what the issuer publishes, each document once in askIssuerEvery:
// callers who send tokens with keys that do not exist cannot make it ask more often.
type sparing struct {
	base http.RoundTripper
	mu   sync.Mutex
	last map[string]fetched
}

type fetched struct {
	at     time.Time
	status int
	header http.Header
	body   []byte
}

// RoundTrip implements [http.RoundTripper].
func (s *sparing) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := r.URL.String()
	if f, ok := s.last[key]; ok && time.Since(f.at) < askIssuerEvery {
		return f.response(r), nil
	}
	answer, err := s.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := readAtMost(answer.Body, issuerBytes)
	if err != nil {
		return nil, err
	}
	f := fetched{time.Now(), answer.StatusCode, answer.Header, body}
	if answer.StatusCode == http.StatusOK {
		if len(s.last) > 16 { // an issuer whose documents move
			clear(s.last)
		}
		s.last[key] = f
	}
	return f.response(r), nil
}

func (f fetched) response(r *http.Request) *http.Response {
	return &http.Response{
		Status: http.StatusText(f.status), StatusCode: f.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: f.header.Clone(), Body: io.NopCloser(bytes.NewReader(f.body)), ContentLength: int64(len(f.body)), Request: r,
	}
}

func readAtMost(body io.ReadCloser, most int64) ([]byte, error) {
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("its answer has more than %d bytes", most)
	}
	return b, err
}
