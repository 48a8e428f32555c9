// Package sqltest gives tests a real database of their own, on loopback, which
// is gone when they end.
package sqltest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Soak is the flag that raises the counts of random tests.
var Soak = flag.Bool("soak", false, "raise the counts of random tests")

var bg = context.Background()

// Main runs the tests of a package and stops the servers they started; call it
// from TestMain.
func Main(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("rapid.checks"); !*Soak && f != nil && f.Value.String() == f.DefValue {
		f.Value.Set("30") // each is a hundred statements
	}
	code := m.Run()
	postgres.stop()
	stopCockroach()
	os.Exit(code)
}

// cluster is a PostgreSQL server that the tests of a package share.
type cluster struct {
	once    sync.Once
	skip    string // why there is none
	err     error
	bin     string
	folder  string
	port    int
	process *exec.Cmd
	owner   *syscall.Credential
	data    string
}

var postgres cluster

var databases atomic.Int64

// Postgres returns the URI of an empty database on a server that the package's
// tests share. Without the programs of PostgreSQL the test is skipped, and says
// so.
func Postgres(t testing.TB) string {
	t.Helper()
	c := &postgres
	c.once.Do(c.start)
	switch {
	case c.skip != "":
		t.Skip(c.skip)
	case c.err != nil:
		t.Fatal(c.err)
	}
	name := fmt.Sprintf("pemba_%d", databases.Add(1))
	if err := execute(c.uri("postgres"), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := execute(c.uri("postgres"), "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			t.Log(err)
		}
	})
	return c.uri(name)
}

func (c *cluster) uri(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s", c.port, database)
}

func execute(uri, statement string) error {
	conn, err := pgx.Connect(bg, uri)
	if err != nil {
		return err
	}
	_, err = conn.Exec(bg, statement)
	return errors.Join(err, conn.Close(bg))
}

// programs finds the folder of PostgreSQL's server programs: Debian keeps them
// out of the PATH, by version.
func programs() (string, bool) {
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		if bin := strings.TrimSpace(string(out)); exists(filepath.Join(bin, "initdb")) {
			return bin, true
		}
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), true
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return "", false
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1]), true
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (c *cluster) start() {
	bin, found := programs()
	if !found {
		c.skip = "PostgreSQL is not installed; `apt-get install postgresql` brings it"
		return
	}
	c.bin = bin
	c.err = c.run()
}

func (c *cluster) run() (err error) {
	if c.folder, err = os.MkdirTemp("", "pemba-postgres-"); err != nil {
		return err
	}
	if c.port, err = freePort(); err != nil {
		return err
	}
	owner, err := unprivileged()
	if err != nil {
		return err
	}
	if owner != nil {
		if err := os.Chown(c.folder, int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	data := filepath.Join(c.folder, "data")
	initdb := c.command(owner, "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	c.owner, c.data = owner, data
	return c.serve()
}

// serve starts the server and waits until it answers.
func (c *cluster) serve() (err error) {
	c.process = c.command(c.owner, "postgres", "-D", c.data, "-k", c.folder, "-h", "127.0.0.1", "-p", strconv.Itoa(c.port),
		"-c", "max_connections=300", "-c", "shared_buffers=128MB")
	var log bytes.Buffer
	c.process.Stderr = &log
	if err := c.process.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err = execute(c.uri("postgres"), "SELECT 1"); err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			c.stop()
			return fmt.Errorf("PostgreSQL does not start: %w: %s", err, log.String())
		}
	}
}

func (c *cluster) command(owner *syscall.Credential, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir = c.folder
	// It ends with the tests, even if they are killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner, Pdeathsig: syscall.SIGQUIT}
	return cmd
}

// unprivileged is the user to run PostgreSQL as: it refuses root. Nil is the
// present one.
func unprivileged() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL refuses to run as root, and there is no other user for it: %w", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func (c *cluster) stop() {
	if c.process != nil {
		c.process.Process.Signal(syscall.SIGQUIT)
		c.process.Wait()
	}
	if c.folder != "" {
		os.RemoveAll(c.folder)
	}
}
