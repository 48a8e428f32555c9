package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	file string
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t, file: filepath.Join(t.TempDir(), name+".pem")}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.key = newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	writePEM(t, a.file, "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// sign writes a certificate for hosts and its key to path.crt and path.key.
func (a *authority) sign(path string, serial int64, until time.Time, hosts ...string) {
	a.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	key := newKey(a.t)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	writePEM(a.t, path+".key", "PRIVATE KEY", secret)
	writePEM(a.t, path+".crt", "CERTIFICATE", der)
}

// pool trusts the authority.
func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// soon is when the certificates of a test end.
func soon() time.Time { return time.Now().Add(time.Hour) }

// encrypted starts a node whose listeners speak TLS, and ends it with the test.
func encrypted(t *testing.T, e encryption, log *slog.Logger) *node {
	t.Helper()
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := serving{place: place{uri: "memory:"}, addr: "127.0.0.1:0", httpAddr: "127.0.0.1:0", encryption: e, log: log}
	var err error
	if s.tls, err = e.open(log); err != nil {
		t.Fatal(err)
	}
	n, err := start(t.Context(), s, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.until(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return n
}

func TestAClientIsToldWhyItCannotTalk(t *testing.T) {
	folder := t.TempDir()
	in := func(name string) string { return filepath.Join(folder, name) }
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	ours.sign(in("server"), 2, soon(), "127.0.0.1")
	ours.sign(in("named"), 3, soon(), "pemba.example")
	ours.sign(in("client"), 4, soon())
	ours.sign(in("old"), 5, time.Now().Add(-time.Minute))
	theirs.sign(in("stranger"), 6, soon())
	plain := startServer(t, "memory:", "")
	secure := encrypted(t, encryption{cert: in("server.crt"), key: in("server.key")}, nil).addr
	named := encrypted(t, encryption{cert: in("named.crt"), key: in("named.key")}, nil).addr
	mutual := encrypted(t, encryption{cert: in("server.crt"), key: in("server.key"), clientCA: ours.file}, nil).addr
	certificate := func(name string) string { return " --tls-cert " + in(name+".crt") + " --tls-key " + in(name+".key") }
	for _, c := range []struct {
		name, addr, args string
		code             int
		says             string
	}{
		{"TLS", secure, "--tls-ca " + ours.file, exitOK, ""},
		{"plain to TLS", secure, "", exitError, "give --tls"},
		{"TLS to plain", plain, "--tls", exitError, "leave out --tls"},
		{"machine's authorities", secure, "--tls", exitError, "--tls-ca"},
		{"another authority", secure, "--tls-ca " + theirs.file, exitError, "--tls-ca"},
		{"another name", named, "--tls-ca " + ours.file, exitError, "--tls-server-name"},
		{"another name that is given", named, "--tls-server-name pemba.example --tls-ca " + ours.file, exitOK, ""},
		{"a wrong name given", named, "--tls-server-name pemba.test --tls-ca " + ours.file, exitError, "--tls-server-name"},
		{"mutual", mutual, "--tls-ca " + ours.file + certificate("client"), exitOK, ""},
		{"mutual without", mutual, "--tls-ca " + ours.file, exitError, "--tls-cert and --tls-key"},
		{"mutual by a stranger", mutual, "--tls-ca " + ours.file + certificate("stranger"), exitError, "--tls-cert and --tls-key"},
		{"mutual, expired", mutual, "--tls-ca " + ours.file + certificate("old"), exitError, "--tls-cert and --tls-key"},
		{"half a pair", secure, "--tls-cert " + in("client.crt"), exitUsage, "go together"},
		{"no authority", secure, "--tls-ca " + in("client.key"), exitError, "holds no certificate"},
		{"no file", secure, "--tls-ca " + in("none"), exitError, "cannot read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, complaints, code := pemba(c.addr, "", nil, strings.Fields("store list "+c.args)...)
			if code != c.code || !strings.Contains(complaints, c.says) {
				t.Errorf("exit code %d: %s", code, complaints)
			}
		})
	}
	if _, complaints, code := pemba(secure, "", map[string]string{"PEMBA_TLS": "true", "PEMBA_TLS_CA": ours.file}, "store", "list"); code != exitOK {
		t.Errorf("from the environment: exit code %d: %s", code, complaints)
	}
}

// Both listeners refuse what is older than TLS 1.2, and requests in plain text.
func TestOldTLSIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "server")
	ca := newAuthority(t, "ours")
	ca.sign(path, 2, soon(), "127.0.0.1")
	n := encrypted(t, encryption{cert: path + ".crt", key: path + ".key"}, nil)
	for _, addr := range []string{n.addr, n.web.addr} {
		for version, good := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
			c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: ca.pool(), MinVersion: tls.VersionTLS10, MaxVersion: version, NextProtos: []string{"h2"}})
			if err == nil {
				c.Close()
			}
			if (err == nil) != good {
				t.Errorf("%s, %s: %v", addr, tls.VersionName(version), err)
			}
		}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool()}, DisableKeepAlives: true}}
	answer, err := client.Get("https://" + n.web.addr + "/scim/v2/ServiceProviderConfig")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Errorf("over HTTPS: %s", answer.Status)
	}
	if answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + n.web.addr + "/scim/v2/ServiceProviderConfig"); err == nil {
		answer.Body.Close()
		if answer.StatusCode != http.StatusBadRequest {
			t.Errorf("over HTTP: %s", answer.Status)
		}
	}
}

// TestClientsShowCertificatesOverHTTPToo: who has none, or another authority's, is
// not answered at all.
func TestClientsShowCertificatesOverHTTPToo(t *testing.T) {
	folder := t.TempDir()
	in := func(name string) string { return filepath.Join(folder, name) }
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	ours.sign(in("server"), 2, soon(), "127.0.0.1")
	ours.sign(in("client"), 3, soon())
	theirs.sign(in("stranger"), 4, soon())
	n := encrypted(t, encryption{cert: in("server.crt"), key: in("server.key"), clientCA: ours.file}, nil)
	for name, good := range map[string]bool{"": false, "stranger": false, "client": true} {
		config := &tls.Config{RootCAs: ours.pool()}
		if name != "" {
			own, err := tls.LoadX509KeyPair(in(name+".crt"), in(name+".key"))
			if err != nil {
				t.Fatal(err)
			}
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, ForceAttemptHTTP2: true}}
		answer, err := client.Get("https://" + n.web.addr + "/v1/stores")
		if err == nil {
			answer.Body.Close()
		}
		if (err == nil && answer.StatusCode == http.StatusOK) != good {
			t.Errorf("%q: %v %v", name, answer, err)
		}
		if good && (answer.ProtoMajor != 2 || answer.Header.Get("Strict-Transport-Security") == "") {
			t.Errorf("%s %v", answer.Proto, answer.Header)
		}
	}
}

func TestServeRefusesCertificatesThatCannotBe(t *testing.T) {
	folder := t.TempDir()
	in := func(name string) string { return filepath.Join(folder, name) }
	ca := newAuthority(t, "ours")
	ca.sign(in("good"), 2, soon(), "127.0.0.1")
	ca.sign(in("other"), 3, soon(), "127.0.0.1")
	ca.sign(in("old"), 4, time.Now().Add(-time.Minute), "127.0.0.1")
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"--tls-cert " + in("good.crt"), exitUsage, "go together"},
		{"--tls-client-ca " + ca.file, exitUsage, "--tls-client-ca needs"},
		{"--tls-cert " + in("none.crt") + " --tls-key " + in("good.key"), exitError, in("none.crt")},
		{"--tls-cert " + in("good.crt") + " --tls-key " + in("other.key"), exitError, "does not match"},
		{"--tls-cert " + in("old.crt") + " --tls-key " + in("old.key"), exitError, "expired on"},
		{"--tls-cert " + in("good.crt") + " --tls-key " + in("good.key") + " --tls-client-ca " + in("good.key"), exitError, "holds no certificate"},
		{"--grpc-addr 0.0.0.0:0 --token secret", exitUsage, "--insecure"},
		{"--http-addr 0.0.0.0:0 --token secret", exitUsage, "--insecure"},
		{"--metrics-addr 0.0.0.0:0 --token secret", exitUsage, "--insecure"},
	} {
		args := append([]string{"serve", "--grpc-addr", "127.0.0.1:0"}, strings.Fields(c.args)...)
		if _, complaints, code := pemba("", "", nil, args...); code != c.code || !strings.Contains(complaints, c.says) {
			t.Errorf("%s: exit code %d: %s", c.args, code, complaints)
		}
	}
}

// lines keeps what is logged.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestACertificateIsRenewedUnderLoad: calls on a connection that stands do not
// fail, new connections are shown the new certificate, and a broken one changes
// nothing but the log.
func TestACertificateIsRenewedUnderLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "server")
	ca := newAuthority(t, "ours")
	ca.sign(path, 10, soon(), "127.0.0.1")
	logged := &lines{}
	n := encrypted(t, encryption{cert: path + ".crt", key: path + ".key"}, slog.New(slog.NewTextHandler(logged, nil)))
	shown := func() int64 {
		t.Helper()
		c, err := tls.Dial("tcp", n.addr, &tls.Config{RootCAs: ca.pool(), NextProtos: []string{"h2"}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	until := func(what string, done func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: not within 30 s; the log says\n%s", what, logged)
			}
		}
	}
	conn, err := grpc.NewClient("passthrough:///"+n.addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: ca.pool()})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var calls, failed atomic.Int64
	var load sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := pb.NewStoreServiceClient(conn).ListStores(context.Background(), &pb.ListStoresRequest{}); err != nil {
					failed.Add(1)
					t.Error(err)
					return
				}
				calls.Add(1)
			}
		})
	}
	until("the load", func() bool { return calls.Load() > 10 })
	if got := shown(); got != 10 {
		t.Errorf("shown is certificate %d", got)
	}
	if err := os.WriteFile(path+".crt", []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	until("a broken certificate is told", func() bool {
		if got := shown(); got != 10 {
			t.Fatalf("with a broken file, shown is certificate %d", got)
		}
		return strings.Contains(logged.String(), "the new certificate cannot be used")
	})
	ca.sign(path, 11, soon(), "127.0.0.1")
	until("the new certificate", func() bool { return shown() == 11 })
	before := calls.Load()
	until("calls after it", func() bool { return calls.Load() > before+10 || failed.Load() > 0 })
	close(stop)
	load.Wait()
}

// TestALoadIsDrivenOverTLS with the flags of every other command, and refused
// without them.
func TestALoadIsDrivenOverTLS(t *testing.T) {
	path := filepath.Join(t.TempDir(), "server")
	ca := newAuthority(t, "ours")
	ca.sign(path, 2, soon(), "127.0.0.1")
	addr := encrypted(t, encryption{cert: path + ".crt", key: path + ".key"}, nil).addr
	run := "loadtest run --floor=false --size 2000 --warm 10ms --duration 200ms --callers 2 --addr " + addr
	for args, want := range map[string]int{" --tls-ca " + ca.file: exitOK, "": exitError} {
		if out, told, code := pemba("", "", nil, strings.Fields(run+args)...); code != want {
			t.Errorf("%q: exit code %d: %s%s", args, code, out, told)
		}
	}
	if _, told, code := pemba("", "", nil, "loadtest", "run", "--tls"); code != exitUsage || !strings.Contains(told, "--addr") {
		t.Errorf("TLS with servers of its own: exit code %d: %s", code, told)
	}
}
