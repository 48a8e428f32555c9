package server

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

// caller is who makes a request.
type caller struct {
	name   string // the actor in the history
	person person // zero for who needs no rights: the server's own token, and anonymous
	rights *rights
	needs  powers // what the method called takes
	proof  proof
	// store is what the call works in, once that was found.
	store datastore.StoreID
	// cleared is the store in which the request is one that the caller's types allow.
	cleared datastore.StoreID
	// judged tells that every message of the request is judged as it comes.
	judged bool
	used   *used // of a stream; nil otherwise
}

// proof is how a caller showed who they are: a secret, by its hash, the claims of an
// identity provider's token, or a certificate.
type proof struct {
	token  *[32]byte
	role   string // the token's own
	claims *claims
}

// used is what a stream is about, so that it ends when its caller may no longer.
type used struct{ types []string }

func (u *used) add(types []string) {
	const most = 100 // of an import nobody waits for an end
	if u != nil && len(u.types) < most {
		u.types = append(u.types, types...)
	}
}

type callerKey struct{}

func callerOf(ctx context.Context) caller {
	if c, ok := ctx.Value(callerKey{}).(*caller); ok {
		return *c
	}
	return caller{}
}

// what is the caller as errors name them.
func (c *caller) what() string {
	switch c.person.caller.Kind {
	case datastore.CallerToken:
		return fmt.Sprintf("token %q", c.name)
	case "":
		return "caller " + c.name
	}
	return fmt.Sprintf("caller %q", c.name)
}

// may reports whether the caller may do something with a store as a whole.
func (c *caller) may(store datastore.StoreID, p powers) bool { return c.rights.on(store)&p == p }

// known is the caller whom tap found, or finds him.
func (s *Server) known(ctx context.Context, method string) (*caller, error) {
	if c, ok := ctx.Value(callerKey{}).(*caller); ok {
		return c, nil
	}
	return s.admitCaller(ctx, method, metadata.ValueFromIncomingContext(ctx, "authorization"))
}

// authenticate finds out who calls, from the values of the authorization metadata
// or the connection's certificate, and whether they may call method anywhere.
func (s *Server) authenticate(ctx context.Context, method string, given []string) (*caller, error) {
	needs, listed := methods[method]
	if listed && needs == open {
		return &caller{}, nil
	}
	c, err := s.caller(ctx, given)
	if err != nil {
		return nil, s.status(ctx, method, err)
	}
	c.needs = needs
	if needs == known {
		return c, nil
	}
	if !listed || c.rights.any&needs == 0 {
		return nil, tooWeak(c, method, needs)
	}
	if acrossStores[method] && c.rights.all&needs == 0 {
		return nil, problem(codes.PermissionDenied, pembav1.ErrorReason_ERROR_REASON_STORE_NOT_GRANTED,
			"%s may do this in some stores only, and %s is about all; use a caller with a role on all stores", c.what(), method)
	}
	return c, nil
}

func tooWeak(c *caller, method string, needs powers) error {
	roles := rolesThat(needs)
	text := fmt.Sprintf("%s has role %s, which may not call %s", c.what(), c.proof.role, method)
	if c.proof.role == "" {
		text = fmt.Sprintf("%s may not call %s", c.what(), method)
	}
	if len(roles) > 0 {
		text += "; it takes one of the roles " + strings.Join(roles, ", ")
	}
	if c.rights != nil && c.rights.any == 0 {
		text = fmt.Sprintf("%s is known, and was granted nothing; an admin does with `pemba grant add %s --role ROLE`", c.what(), c.person.caller)
	}
	return withReason(codes.PermissionDenied, pembav1.ErrorReason_ERROR_REASON_ROLE_TOO_WEAK, text, "role", strings.Join(roles, ","), "method", method)
}

// stillValid returns nil unless the caller may no longer do what the call does:
// their token was revoked or has expired, or a grant was taken back.
func (s *Server) stillValid(ctx context.Context) error {
	c, _ := ctx.Value(callerKey{}).(*caller)
	if c == nil || c.person.caller.Kind == "" {
		return nil
	}
	now := *c
	if err := s.prove(ctx, &now); err != nil {
		return err
	}
	if now.needs == known || c.used == nil || c.store == 0 {
		return nil
	}
	if now.rights.on(c.store)&now.needs != 0 {
		return nil
	}
	if c.cleared == 0 && !c.judged || !now.rights.forTypes(c.store, c.used.types, now.needs) {
		return tooWeak(&now, "this any longer", now.needs)
	}
	return nil
}

// prove looks again whether a caller's proof holds, and what they may do now.
func (s *Server) prove(ctx context.Context, c *caller) error {
	var own *datastore.Grant
	switch {
	case c.proof.token != nil:
		t, ok, err := s.ds.TokenByHash(ctx, *c.proof.token)
		switch {
		case err != nil:
			return err
		case !ok:
			return problem(codes.Unauthenticated, pembav1.ErrorReason_ERROR_REASON_UNKNOWN_TOKEN, "the token was revoked")
		case !t.Valid(*c.proof.token, time.Now()):
			return expired(&t)
		}
		own = ownGrant(&t)
	case c.proof.claims != nil:
		if err := c.proof.claims.valid(time.Now()); err != nil {
			return err
		}
	}
	var err error
	c.rights, err = s.rightsOf(ctx, c.person, own)
	return err
}

// ownGrant is the role that a token was made with; nil: it was made with none.
func ownGrant(t *datastore.Token) *datastore.Grant {
	if t.Role == "" {
		return nil
	}
	return &datastore.Grant{Caller: datastore.Caller{Kind: datastore.CallerToken, Name: t.Name}, Role: t.Role, Store: t.Store, StoreID: t.StoreID}
}

// expired is the error of a secret whose time is over.
func expired(t *datastore.Token) error {
	text := fmt.Sprintf("token %q got another secret, and the time of this one is over; use the new one", t.Name)
	if !t.Expires.IsZero() && !time.Now().Before(t.Expires) {
		text = fmt.Sprintf("token %q expired at %s; an admin gives it another secret and a later end with `pemba token rotate %s`", t.Name, t.Expires.Format(time.RFC3339), t.Name)
	}
	return withReason(codes.Unauthenticated, pembav1.ErrorReason_ERROR_REASON_EXPIRED_TOKEN, text, "token", t.Name)
}

func (s *Server) caller(ctx context.Context, given []string) (*caller, error) {
	if len(given) == 0 {
		return s.withoutToken(ctx)
	}
	scheme, secret, _ := strings.Cut(given[0], " ")
	if !strings.EqualFold(scheme, "bearer") || secret == "" || len(given) > 1 {
		return nil, problem(codes.Unauthenticated, pembav1.ErrorReason_ERROR_REASON_NO_TOKEN, "the authorization metadata must be one `Bearer TOKEN`")
	}
	hash := sha256.Sum256([]byte(secret))
	if s.config.Token != "" && subtle.ConstantTimeCompare(hash[:], s.token[:]) == 1 {
		return &caller{name: "admin", rights: everything, proof: proof{role: "admin"}}, nil
	}
	t, ok, err := s.ds.TokenByHash(ctx, hash)
	if err != nil {
		return nil, err
	}
	if ok {
		c := &caller{name: t.Name, person: person{caller: datastore.Caller{Kind: datastore.CallerToken, Name: t.Name}}, proof: proof{token: &hash, role: t.Role}}
		if !t.Valid(hash, time.Now()) {
			return nil, expired(&t)
		}
		c.rights, err = s.rightsOf(ctx, c.person, ownGrant(&t))
		return c, err
	}
	if s.config.OIDC != nil && looksLikeJWT(secret) {
		return s.oidcCaller(ctx, hash, secret)
	}
	if s.config.Token == "" {
		if c, err := s.anonymous(ctx); err == nil {
			return c, nil // nobody needs a token here, so one too many does no harm
		}
	}
	return nil, problem(codes.Unauthenticated, pembav1.ErrorReason_ERROR_REASON_UNKNOWN_TOKEN, "the token is unknown or revoked")
}

// oidcCaller is the caller whom an identity provider's token names.
func (s *Server) oidcCaller(ctx context.Context, hash [32]byte, secret string) (*caller, error) {
	claims, err := s.config.OIDC.verify(ctx, hash, secret)
	if err != nil {
		return nil, err
	}
	who := datastore.Caller{Kind: datastore.CallerOIDC, Name: claims.subject}
	c := &caller{name: who.String(), person: person{caller: who, groups: claims.groups}, proof: proof{claims: claims}}
	c.rights, err = s.rightsOf(ctx, c.person, nil)
	return c, err
}

// withoutToken is the caller whom the connection's certificate names, or the
// anonymous one.
func (s *Server) withoutToken(ctx context.Context) (*caller, error) {
	identity, ok := certified(ctx)
	if !ok {
		return s.anonymous(ctx)
	}
	who := datastore.Caller{Kind: datastore.CallerCertificate, Name: identity}
	c := &caller{name: who.String(), person: person{caller: who}}
	var err error
	if c.rights, err = s.rightsOf(ctx, c.person, nil); err != nil || c.rights.any != 0 {
		return c, err
	}
	if anonymous, err := s.anonymous(ctx); err == nil {
		return anonymous, nil
	}
	return nil, problem(codes.Unauthenticated, pembav1.ErrorReason_ERROR_REASON_NO_TOKEN,
		"a token is needed, for nothing was granted to the certificate; pass one as `authorization: Bearer TOKEN`, or have an admin say `pemba grant add '%s' --role ROLE`", who)
}

// anonymous is the caller without a token: an admin where the server was started
// without one and none was ever made, nor anything granted, for then it listens on
// loopback only. Where all were revoked, a start with a token of the server's own
// lets an admin in.
func (s *Server) anonymous(ctx context.Context) (*caller, error) {
	if s.config.Token == "" && s.config.OIDC == nil {
		guarded, err := s.ds.Guarded(ctx)
		if err != nil {
			return nil, err
		}
		if !guarded {
			return &caller{name: "anonymous", rights: everything, proof: proof{role: "admin"}}, nil
		}
	}
	return nil, problem(codes.Unauthenticated, pembav1.ErrorReason_ERROR_REASON_NO_TOKEN, "a token is needed; pass one as `authorization: Bearer TOKEN`")
}

// certified is the identity that the client's certificate gives it, on a
// connection where certificates are verified.
func certified(ctx context.Context) (string, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", false
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 || len(info.State.VerifiedChains[0]) == 0 {
		return "", false
	}
	identity := identityOf(info.State.VerifiedChains[0][0])
	return identity, identity != ""
}

// identityOf is whom a certificate is for: its first URI (as SPIFFE's are), DNS
// name, e-mail address, or else its common name.
func identityOf(cert *x509.Certificate) string {
	switch {
	case len(cert.URIs) > 0:
		return cert.URIs[0].String()
	case len(cert.DNSNames) > 0:
		return cert.DNSNames[0]
	case len(cert.EmailAddresses) > 0:
		return cert.EmailAddresses[0]
	}
	return cert.Subject.CommonName
}

// withCertificate gives the context of an HTTP request the client's certificate,
// as gRPC does.
func withCertificate(r *http.Request) context.Context {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return r.Context()
	}
	return withTLS(r.Context(), *r.TLS)
}

func withTLS(ctx context.Context, state tls.ConnectionState) context.Context {
	return peer.NewContext(ctx, &peer.Peer{AuthInfo: credentials.TLSInfo{State: state}})
}

func isNoStore(err error) bool { return errors.Is(err, datastore.ErrNoStore) }

// roleName is a role as people write it: `schema-admin`.
func roleName(r pembav1.Role) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(r.String(), "ROLE_")), "_", "-")
}

func roleOf(name string) pembav1.Role {
	return pembav1.Role(pembav1.Role_value["ROLE_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))])
}
