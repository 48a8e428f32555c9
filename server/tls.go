package server

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// TLS is how the listeners of a server encrypt: TLS 1.2 or later, with a
// certificate whose files are read again when they change. Connections that stand
// go on with what they began with.
type TLS struct {
	cert, key, clientCA string // paths of PEM files
	log                 *slog.Logger

	mu     sync.Mutex
	looked time.Time
	seen   [sha256.Size]byte // of the files as they were last looked at, good or bad
	good   *identity
}

// identity is the last good content of the files.
type identity struct {
	cert    *tls.Certificate
	clients *x509.CertPool // nil: clients need no certificate
}

// rereadEvery is how often new connections look whether the files have changed.
const rereadEvery = time.Second

// NewTLS reads a certificate with its chain, and its key, from PEM files. With
// clientCA, the PEM file of an authority, every client must show a certificate that
// the authority signed. log takes what is wrong with files that change later; nil
// is slog.Default.
func NewTLS(cert, key, clientCA string, log *slog.Logger) (*TLS, error) {
	if log == nil {
		log = slog.Default()
	}
	t := &TLS{cert: cert, key: key, clientCA: clientCA, log: log, looked: time.Now()}
	files, err := t.read()
	if err != nil {
		return nil, err
	}
	t.seen = files.digest()
	t.good, err = files.identity(t)
	return t, err
}

// Leaf is the certificate that new connections are shown.
func (t *TLS) Leaf() *x509.Certificate { return t.current().cert.Leaf }

// Config is the configuration of a listener whose connections speak one of
// protocols (RFC 7301).
func (t *TLS) Config(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			now := t.current()
			c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protocols, Certificates: []tls.Certificate{*now.cert}}
			if now.clients != nil {
				c.ClientCAs, c.ClientAuth = now.clients, tls.RequireAndVerifyClientCert
				// A resumed session would let in a client whose authority has gone since.
				c.SessionTicketsDisabled = true
			}
			return c, nil
		},
	}
}

// current is the identity for a new connection: the files' content if it is good,
// else what was good last.
func (t *TLS) current() *identity {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.looked) < rereadEvery {
		return t.good
	}
	t.looked = time.Now()
	files, err := t.read()
	if err == nil {
		digest := files.digest()
		if digest == t.seen {
			return t.good
		}
		t.seen = digest
		var renewed *identity
		if renewed, err = files.identity(t); err == nil {
			t.good = renewed
			t.log.Info("the certificate was renewed", "file", t.cert, "until", renewed.cert.Leaf.NotAfter)
			return t.good
		}
	} else if t.seen == [sha256.Size]byte{} {
		return t.good // that they cannot be read was told already
	} else {
		t.seen = [sha256.Size]byte{}
	}
	t.log.Error("the new certificate cannot be used; the one before goes on", "error", err, "until", t.good.cert.Leaf.NotAfter)
	return t.good
}

// pemFiles are the contents of the files.
type pemFiles struct{ cert, key, clientCA []byte }

func (t *TLS) read() (f pemFiles, err error) {
	if f.cert, err = os.ReadFile(t.cert); err != nil {
		return f, fmt.Errorf("the certificate (--tls-cert): %w", err)
	}
	if f.key, err = os.ReadFile(t.key); err != nil {
		return f, fmt.Errorf("the certificate's key (--tls-key): %w", err)
	}
	if t.clientCA != "" {
		if f.clientCA, err = os.ReadFile(t.clientCA); err != nil {
			return f, fmt.Errorf("the authority of clients' certificates (--tls-client-ca): %w", err)
		}
	}
	return f, nil
}

func (f pemFiles) digest() [sha256.Size]byte {
	h := sha256.New()
	for _, part := range [][]byte{f.cert, f.key, f.clientCA} {
		fmt.Fprintf(h, "%d:", len(part))
		h.Write(part)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// identity is what the files hold, if it can be used now.
func (f pemFiles) identity(t *TLS) (*identity, error) {
	cert, err := tls.X509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, fmt.Errorf("the certificate (--tls-cert %s, --tls-key %s): %w", t.cert, t.key, err)
	}
	if cert.Leaf == nil {
		return nil, fmt.Errorf("the certificate (--tls-cert %s) cannot be read", t.cert)
	}
	switch now := time.Now(); {
	case now.After(cert.Leaf.NotAfter):
		return nil, fmt.Errorf("the certificate (--tls-cert %s) expired on %s; renew it", t.cert, cert.Leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(cert.Leaf.NotBefore):
		return nil, fmt.Errorf("the certificate (--tls-cert %s) is valid only from %s on; look at this machine's clock", t.cert, cert.Leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	out := &identity{cert: &cert}
	if t.clientCA != "" {
		out.clients = x509.NewCertPool()
		if !out.clients.AppendCertsFromPEM(f.clientCA) {
			return nil, errors.New("the authority of clients' certificates (--tls-client-ca " + t.clientCA + ") holds no certificate in PEM form")
		}
	}
	return out, nil
}
