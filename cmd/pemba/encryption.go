package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/pembadb/pemba/server"
)

// encryption says how a server's listeners for clients encrypt.
type encryption struct {
	cert, key, clientCA string
	insecure            bool
}

func (e *encryption) add(f *pflag.FlagSet) {
	f.StringVar(&e.cert, "tls-cert", "", "the certificate of the gRPC and HTTP listeners, with its chain, a PEM file; read again when it changes; empty: plain text")
	withEnv(f, "tls-cert", "PEMBA_TLS_CERT")
	f.StringVar(&e.key, "tls-key", "", "the key of --tls-cert, a PEM file")
	withEnv(f, "tls-key", "PEMBA_TLS_KEY")
	f.StringVar(&e.clientCA, "tls-client-ca", "", "the authority whose certificates clients must show, a PEM file; empty: clients need none")
	withEnv(f, "tls-client-ca", "PEMBA_TLS_CLIENT_CA")
	f.BoolVar(&e.insecure, "insecure", false, "speak plain text on addresses that other machines reach")
	withEnv(f, "insecure", "PEMBA_INSECURE")
}

// open reads the certificate; nil where none is given.
func (e *encryption) open(log *slog.Logger) (*server.TLS, error) {
	switch {
	case (e.cert == "") != (e.key == ""):
		return nil, usagef("--tls-cert and --tls-key go together; give both")
	case e.cert == "" && e.clientCA != "":
		return nil, usagef("--tls-client-ca needs --tls-cert and --tls-key: clients show certificates only over TLS")
	case e.cert == "":
		return nil, nil
	}
	return server.NewTLS(e.cert, e.key, e.clientCA, log)
}

// plainText refuses to speak plain text where other machines hear it, unless told
// to.
func (e *encryption) plainText(flag, addr string, log *slog.Logger) error {
	switch {
	case e.cert != "" || addr == "" || loopback(addr):
		return nil
	case !e.insecure:
		return usagef("without TLS the server listens on loopback only, and --%s %s is not; give --tls-cert and --tls-key, or --insecure where the network or a proxy encrypts", flag, addr)
	}
	log.Warn("tokens and answers cross the network in plain text (--insecure); put a TLS proxy in front, or give --tls-cert", "address", addr)
	return nil
}

// clientTLS says how a client encrypts.
type clientTLS struct {
	on                  bool
	ca, cert, key, name string
}

func (c *clientTLS) add(f *pflag.FlagSet) {
	f.BoolVar(&c.on, "tls", false, "speak TLS with the server; the flags --tls-... turn it on too")
	withEnv(f, "tls", "PEMBA_TLS")
	f.StringVar(&c.ca, "tls-ca", "", "the authority that signed the server's certificate, a PEM file; empty: those that this machine trusts")
	withEnv(f, "tls-ca", "PEMBA_TLS_CA")
	f.StringVar(&c.cert, "tls-cert", "", "a certificate to show the server, a PEM file")
	withEnv(f, "tls-cert", "PEMBA_CLIENT_CERT")
	f.StringVar(&c.key, "tls-key", "", "the key of --tls-cert, a PEM file")
	withEnv(f, "tls-key", "PEMBA_CLIENT_KEY")
	f.StringVar(&c.name, "tls-server-name", "", "the name in the server's certificate, where it is not the host of --addr")
	withEnv(f, "tls-server-name", "PEMBA_TLS_SERVER_NAME")
}

// wanted reports whether anything says that the client speaks TLS.
func (c *clientTLS) wanted() bool {
	return c.on || c.ca != "" || c.cert != "" || c.key != "" || c.name != ""
}

// credentials are what a client connects with.
func (c *clientTLS) credentials() (credentials.TransportCredentials, error) {
	if !c.wanted() {
		return insecure.NewCredentials(), nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.name}
	if c.ca != "" {
		pem, err := os.ReadFile(c.ca)
		if err != nil {
			return nil, fileError("read the authority (--tls-ca) in", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the file %s (--tls-ca) holds no certificate in PEM form", c.ca)
		}
	}
	if (c.cert == "") != (c.key == "") {
		return nil, usagef("--tls-cert and --tls-key go together; give both")
	}
	if c.cert != "" {
		cert, err := tls.LoadX509KeyPair(c.cert, c.key)
		if err != nil {
			return nil, fmt.Errorf("the client's certificate (--tls-cert %s, --tls-key %s): %w", c.cert, c.key, err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return credentials.NewTLS(config), nil
}

// handshakes say what to do about connections that fail where they begin to be
// encrypted, by what Go's crypto/tls and gRPC tell.
var handshakes = []struct{ tells, advice string }{
	{"first record does not look like a TLS handshake", "it speaks plain text; leave out --tls, or start it with --tls-cert and --tls-key"},
	{"signed by unknown authority", "its certificate is not signed by an authority that is trusted here; give that authority with --tls-ca or PEMBA_TLS_CA"},
	{"certificate has expired or is not yet valid", "its certificate is not valid now; renew it on the server, or set this machine's clock"},
	{"certificate is valid for", "its certificate is for another name; give that name with --tls-server-name, or the right --addr"},
	{"doesn't contain any", "its certificate is for another name; give that name with --tls-server-name, or the right --addr"},
	{"not valid for any names", "its certificate is for another name; give that name with --tls-server-name, or the right --addr"},
	{"certificate required", "it wants a certificate of this client, signed by an authority that it knows; give one with --tls-cert and --tls-key"},
	{"remote error: tls: unknown certificate authority", "it does not know the authority of this client's certificate; give one of its authority with --tls-cert and --tls-key"},
	{"remote error: tls: expired certificate", "this client's certificate has expired; give another with --tls-cert and --tls-key"},
	{"remote error: tls: bad certificate", "it does not take this client's certificate; give another with --tls-cert and --tls-key"},
	{"protocol version not supported", "it does not speak TLS 1.2 or later"},
	// Who is refused may find the connection closed before the reason arrives.
	{"broken pipe", "it closed the connection at once; if it speaks TLS, give --tls, and if it wants a certificate of this client, --tls-cert and --tls-key"},
	{"connection reset", "it closed the connection at once; if it speaks TLS, give --tls, and if it wants a certificate of this client, --tls-cert and --tls-key"},
	{"reading server preface", "it seems to speak TLS; give --tls, and --tls-ca for an authority of your own"},
}

// handshake is why a connection to a server could not begin, and what to do; empty
// if that is not why.
func handshake(text string) string {
	for _, h := range handshakes {
		if strings.Contains(text, h.tells) {
			_, told, found := strings.Cut(text, "transport: ")
			if !found {
				_, told, _ = strings.Cut(text, "desc = ")
			}
			return strings.Trim(told, `"`) + ": " + h.advice
		}
	}
	return ""
}
