package sqltest

import (
	"cmp"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/cockroach-go/v2/testserver"
)

// cockroach is a CockroachDB node that the tests of a package share.
var cockroach struct {
	once   sync.Once
	skip   string
	err    error
	server testserver.TestServer
}

// Cockroach returns the URI of an empty database on a node that the package's
// tests share. Without a program named by COCKROACH_BINARY or found on the PATH
// the test is skipped, and says so; nothing is downloaded.
func Cockroach(t testing.TB) string {
	t.Helper()
	c := &cockroach
	c.once.Do(func() {
		binary := os.Getenv("COCKROACH_BINARY")
		if binary == "" {
			binary = "cockroach"
		}
		path, err := exec.LookPath(binary)
		if err != nil {
			c.skip = "there is no cockroach on the PATH or in COCKROACH_BINARY"
			return
		}
		if c.server, c.err = testserver.NewTestServer(testserver.CockroachBinaryPathOpt(path)); c.err == nil {
			c.err = settle(c.server.PGURL().String())
		}
	})
	switch {
	case c.skip != "":
		t.Skip(c.skip)
	case c.err != nil:
		t.Fatal(c.err)
	}
	server := *c.server.PGURL()
	name := fmt.Sprintf("pemba_%d", databases.Add(1))
	if err := execute(server.String(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := execute(server.String(), "DROP DATABASE "+name+" CASCADE"); err != nil {
			t.Log(err)
		}
	})
	uri := url.URL{Scheme: "postgres", User: server.User, Host: server.Host, Path: name, RawQuery: server.RawQuery}
	return uri.String()
}

// settle makes changefeeds possible, and turns off the queues by which a node
// holds back work while its processor is busy: beside a whole test run it always
// is, and what waits there may wait for minutes.
func settle(uri string) error {
	for _, setting := range []string{
		"kv.rangefeed.enabled = true", "admission.kv.enabled = false", "admission.sql_kv_response.enabled = false", "admission.sql_sql_response.enabled = false",
	} {
		if err := execute(uri, "SET CLUSTER SETTING "+setting); err != nil {
			return err
		}
	}
	return nil
}

func stopCockroach() {
	if cockroach.server != nil {
		cockroach.server.Stop()
	}
}

// RunProcessesOnThreeNodes is RunProcesses on a cluster of three database nodes,
// one of which is killed and started again. It takes a minute, so only -soak runs
// it.
func (target Target) RunProcessesOnThreeNodes(t *testing.T, migrate func(uri string) error) {
	if !*Soak {
		t.Skip("it starts three database nodes; run it with -soak")
	}
	path, err := exec.LookPath(cmp.Or(os.Getenv("COCKROACH_BINARY"), "cockroach"))
	if err != nil {
		t.Skip("there is no cockroach on the PATH or in COCKROACH_BINARY")
	}
	s, err := testserver.NewTestServer(testserver.CockroachBinaryPathOpt(path), testserver.ThreeNodeOpt(), testserver.StoreOnDiskOpt())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	var hosts []string
	for i := range 3 {
		if err := s.WaitForInitFinishForNode(i); err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, s.PGURLForNode(i).Host)
	}
	first := s.PGURLForNode(0)
	if err := settle(first.String()); err != nil {
		t.Fatal(err)
	}
	if err := execute(first.String(), "CREATE DATABASE pemba"); err != nil {
		t.Fatal(err)
	}
	uri := fmt.Sprintf("postgres://root@%s/pemba?sslmode=disable", strings.Join(hosts, ","))
	if err := migrate(uri); err != nil {
		t.Fatal(err)
	}
	target.runProcesses(t, uri, nil, func() error {
		if err := s.StopNode(1); err != nil {
			return err
		}
		time.Sleep(3 * time.Second)
		return s.StartNode(1)
	})
}
