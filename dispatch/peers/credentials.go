package peers

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Credentials are a node's certificate and the authority that signs those of all
// nodes. They are read again with each connection, so that they can be renewed in
// place.
type Credentials struct {
	// Cert and Key are PEM files of this node; its certificate names the host by which
	// others know it, and is good for servers and clients.
	Cert, Key string
	// CA is a PEM file with the authority.
	CA string
}

// Check reads the files, to tell at once what is wrong with them.
func (c *Credentials) Check() error {
	if _, err := c.certificate(); err != nil {
		return err
	}
	_, err := c.authority()
	return err
}

func (c *Credentials) certificate() (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("the certificate of this node for its peers (--peer-cert %s, --peer-key %s): %w", c.Cert, c.Key, err)
	}
	return &cert, nil
}

func (c *Credentials) authority() (*x509.CertPool, error) {
	pem, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, fmt.Errorf("the authority of the peers' certificates (--peer-ca): %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("the authority of the peers' certificates (--peer-ca %s) holds no certificate in PEM form", c.CA)
	}
	return pool, nil
}

// dial is how a peer is reached that has a host's name; without credentials in
// plain text.
func (c *Credentials) dial(host string) grpc.DialOption {
	if c == nil {
		return grpc.WithTransportCredentials(insecure.NewCredentials())
	}
	return grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: host,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.certificate() },
		// The chain is verified below, against the authority as it is now.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			return c.verify(s, host, x509.ExtKeyUsageServerAuth)
		},
	}))
}

// serve is how peers are let in.
func (c *Credentials) serve() grpc.ServerOption {
	if c == nil {
		return grpc.Creds(insecure.NewCredentials())
	}
	return grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.certificate() },
		ClientAuth:     tls.RequireAnyClientCert,
		VerifyConnection: func(s tls.ConnectionState) error {
			return c.verify(s, "", x509.ExtKeyUsageClientAuth)
		},
	}))
}

// verify checks the other side's certificate: signed by the authority, in force,
// good for its use, and, of a server, for its host.
func (c *Credentials) verify(s tls.ConnectionState, host string, use x509.ExtKeyUsage) error {
	roots, err := c.authority()
	if err != nil {
		return err
	}
	if len(s.PeerCertificates) == 0 {
		return fmt.Errorf("the peer shows no certificate")
	}
	between := x509.NewCertPool()
	for _, cert := range s.PeerCertificates[1:] {
		between.AddCert(cert)
	}
	_, err = s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: host, KeyUsages: []x509.ExtKeyUsage{use}})
	return err
}
