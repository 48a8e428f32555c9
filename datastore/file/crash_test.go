package file_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/file"
	"github.com/pembadb/pemba/datastore/sql/sqltest"
	"github.com/pembadb/pemba/tuple"
)

// soak asks for a hundred kills.
var soak = sqltest.Soak

var bg = context.Background()

// crashFile names the file that a child process writes to until it is killed.
const crashFile = "PEMBA_TEST_CRASH_FILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(crashFile); path != "" {
		writeUntilKilled(path)
		return
	}
	os.Exit(m.Run())
}

// writeUntilKilled commits changes to two stores and prints each one that was
// acknowledged: "store revision".
func writeUntilKilled(path string) {
	log, err := file.Open(path, file.Options{})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var group sync.WaitGroup
	var out sync.Mutex
	for store := range datastore.StoreID(2) {
		if err := log.CreateLine(bg, store, datastore.Incarnation{1}); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		group.Go(func() {
			for i := 0; ; i++ {
				head, err := log.Head(bg, store)
				if err == nil {
					head, err = log.Update(bg, store, head, func(tail datastore.Tail) ([]datastore.Entry, error) { return nextEntries(tail.Head) })
				}
				if err == nil && i%10 == 9 {
					if err = log.SetFloor(bg, store, head.Revision-2); err == nil {
						_, err = log.Collect(bg, store, 10)
					}
				}
				out.Lock()
				if err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				fmt.Println(store, head.Revision)
				out.Unlock()
			}
		})
	}
	group.Wait()
}

// nextEntries are two changes whose content follows from their revisions: change
// r touches object r modulo 50, with a caveat that names r.
func nextEntries(head datastore.Head) (entries []datastore.Entry, err error) {
	for range 2 {
		e, err := datastore.Seal(head.Hash, datastore.Change{
			Revision: head.Revision + 1, RequestID: fmt.Sprint("request ", head.Revision+1),
			Operations: []datastore.Operation{{Kind: datastore.Touch, Relationship: expected(head.Revision + 1)}},
		})
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
		head.Revision, head.Hash = e.Revision, e.Hash
	}
	return entries, nil
}

const objects = 50

func expected(r datastore.Revision) tuple.Relationship {
	rel, err := tuple.Parse(fmt.Sprintf(`document:%d#viewer@user:a[since:{"revision":%d,"padding":%q}]`, r%objects, r, strings.Repeat("x", int(r%700))))
	if err != nil {
		panic(err)
	}
	return rel
}

// verify checks that a store holds exactly the changes up to its head, which is
// at least acknowledged.
func verify(t testing.TB, log datastore.Log, store datastore.StoreID, acknowledged datastore.Revision) {
	t.Helper()
	head, entries, err := log.After(bg, store, 0, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	if head.Revision < acknowledged || int(head.Revision) != len(entries) || head.Revision%2 != 0 {
		t.Fatalf("store %d: head %d with %d changes, acknowledged %d", store, head.Revision, len(entries), acknowledged)
	}
	var previous datastore.Hash
	for _, e := range entries {
		if err := datastore.VerifyLink(previous, e); err != nil {
			t.Fatal(err)
		}
		previous = e.Hash
	}
	if previous != head.Hash {
		t.Fatalf("store %d: the head's hash is not that of the last change", store)
	}
	live := map[string]bool{}
	for r := max(head.Revision, objects) - objects + 1; r <= head.Revision; r++ {
		live[fmt.Sprintf("%s since %d", expected(r), r)] = true
	}
	for _, bySubject := range []bool{false, true} {
		n := 0
		err := log.Rows(bg, store, head.Revision, datastore.RowQuery{BySubject: bySubject}, func(r datastore.Row) bool {
			if n++; !live[fmt.Sprintf("%s since %d", r.Relationship, r.Created)] {
				t.Fatalf("store %d: row %s since %d at head %d", store, r.Relationship, r.Created, head.Revision)
			}
			return true
		})
		if err != nil || n != len(live) {
			t.Fatalf("store %d: %d rows, %v; want %d", store, n, err, len(live))
		}
	}
}

// What was acknowledged is there after kill -9, and what is there is whole.
func TestNothingAcknowledgedIsLostWhenTheProcessIsKilled(t *testing.T) {
	kills := 10
	if *soak {
		kills = 100
	}
	path := filepath.Join(t.TempDir(), "pemba.db")
	var acknowledged [2]datastore.Revision
	for range kills {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), crashFile+"="+path)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		before := acknowledged[0] + acknowledged[1]
		kill := sync.OnceFunc(func() { child.Process.Kill() })
		watchdog := time.AfterFunc(time.Minute, kill)
		wait := time.Duration(rand.IntN(60)) * time.Millisecond
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			store, revision, ok := strings.Cut(lines.Text(), " ")
			s, err1 := strconv.Atoi(store)
			r, err2 := strconv.Atoi(revision)
			if !ok || err1 != nil || err2 != nil || s > 1 {
				t.Fatalf("the child says %q", lines.Text())
			}
			acknowledged[s] = datastore.Revision(r)
			time.AfterFunc(wait, kill) // from the first acknowledgement on
		}
		child.Wait()
		watchdog.Stop()
		if acknowledged[0]+acknowledged[1] == before {
			t.Fatal("the child acknowledged nothing")
		}
		log, err := file.Open(path, file.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for store, r := range acknowledged {
			verify(t, log, datastore.StoreID(store), r)
		}
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills, %d changes", kills, acknowledged[0]+acknowledged[1])
}

func TestASecondProcessIsToldAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pemba.db")
	open(t, path, file.Options{})
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), crashFile+"="+path)
	began := time.Now()
	out, err := child.Output()
	want := "error open " + path + ": the file is in use by another process; stop that one, or choose another file\n"
	if err == nil || string(out) != want {
		t.Errorf("%v, %q; want %q", err, out, want)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
}
