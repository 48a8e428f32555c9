package main

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/pembadb/pemba/server"
)

// identityProvider says whose tokens name callers.
type identityProvider struct{ server.OIDCOptions }

func (i *identityProvider) add(f *pflag.FlagSet) {
	f.StringVar(&i.Issuer, "oidc-issuer", "", "the URL of the identity provider whose tokens (JWT) name callers; empty: none")
	withEnv(f, "oidc-issuer", "PEMBA_OIDC_ISSUER")
	f.StringVar(&i.Audience, "oidc-audience", "", "what those tokens must be for: their claim aud")
	withEnv(f, "oidc-audience", "PEMBA_OIDC_AUDIENCE")
	f.StringVar(&i.SubjectClaim, "oidc-subject-claim", "sub", "the claim that names the caller, who is oidc:VALUE in grants and in the history")
	withEnv(f, "oidc-subject-claim", "PEMBA_OIDC_SUBJECT_CLAIM")
	f.StringVar(&i.GroupsClaim, "oidc-groups-claim", "groups", "the claim with the caller's groups, which are group:VALUE in grants; dots go into objects, as in realm_access.roles")
	withEnv(f, "oidc-groups-claim", "PEMBA_OIDC_GROUPS_CLAIM")
	f.StringVar(&i.CAFile, "oidc-ca", "", "a PEM file with the authority of the identity provider's certificate; empty: the machine's authorities")
	withEnv(f, "oidc-ca", "PEMBA_OIDC_CA")
}

// open makes the verifier; nil where there is no identity provider.
func (i *identityProvider) open() (*server.OIDC, error) {
	if i.Issuer == "" {
		if i.Audience != "" || i.CAFile != "" {
			return nil, usagef("--oidc-audience and --oidc-ca mean nothing without --oidc-issuer")
		}
		return nil, nil
	}
	verifier, err := server.NewOIDC(i.OIDCOptions)
	if err != nil {
		return nil, usage(err)
	}
	return verifier, nil
}

// ask finds out whether the identity provider answers, for --check-config.
func (a *app) askIssuer(ctx context.Context, s *serving) error {
	if s.verifier == nil {
		return nil
	}
	if err := s.verifier.Ask(ctx); err != nil {
		return err
	}
	a.printf("identity provider %s: it answers\n", s.oidc.Issuer)
	return nil
}
