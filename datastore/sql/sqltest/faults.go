package sqltest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/sql"
	"github.com/pembadb/pemba/tuple"
)

// Target is a kind of database under test.
type Target struct {
	// Scheme is how a datastore's URI begins: postgres, cockroachdb.
	Scheme string
	// Empty gives the URI of an empty, migrated database.
	Empty func(t testing.TB) string
	Open  func(ctx context.Context, uri string, o sql.Options) (*sql.Log, error)
}

// RunFaults tests what several nodes promise while the database is cut off, is
// away, or comes back with an older past.
func RunFaults(t *testing.T, target Target) {
	t.Run("NothingIsLostOrDoneTwiceWhenConnectionsAreCut", target.connectionsAreCut)
	t.Run("WithoutTheDatabaseAnswersEndAndComeBack", target.databaseIsAway)
	t.Run("ADatabaseThatSaysNothingIsGivenUp", target.databaseIsSilent)
	t.Run("ARestoredDatabaseIsNoticed", target.databaseIsRestored)
}

const schemaText = "definition user {}\ndefinition document {\n\trelation viewer: user\n\trelation owner: user\n}"

// staleness is that of the nodes under test.
const staleness = 200 * time.Millisecond

func (target Target) node(t testing.TB, uri string) *keeper.Keeper {
	t.Helper()
	log, err := target.Open(bg, uri, sql.Options{Wait: 500 * time.Millisecond, Commit: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	k, err := keeper.Open(log, keeper.Options{MaxStaleness: staleness})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

func applySchema(t testing.TB, k *keeper.Keeper) datastore.Outcome {
	t.Helper()
	o, err := k.Write(bg, datastore.Default, datastore.Request{Actor: "ada", Schema: &datastore.SchemaUpdate{Text: schemaText}})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func touch(id, text string) datastore.Request {
	r, err := tuple.Parse(text)
	if err != nil {
		panic(err)
	}
	return datastore.Request{ID: id, Actor: "ada", Updates: []datastore.Update{{Kind: datastore.Touch, Relationship: r}}}
}

// connectionsAreCut lets writers on two nodes write while answers get lost and
// connections are cut. Then the history must hold each acknowledged request
// once, no request twice, and be whole.
func (target Target) connectionsAreCut(t *testing.T) {
	const writers = 6
	length := 3 * time.Second
	if *Soak {
		length = time.Minute
	}
	uri := target.Empty(t)
	calm := target.node(t, uri)
	applySchema(t, calm)
	var proxies [2]*Proxy
	var nodes [2]*keeper.Keeper
	for i := range nodes {
		proxies[i] = NewProxy(t, uri)
		nodes[i] = target.node(t, proxies[i].URI())
	}
	var ended atomic.Bool
	var chaos, work sync.WaitGroup
	chaos.Go(func() {
		for !ended.Load() {
			p := proxies[rand.IntN(len(proxies))]
			switch rand.IntN(6) {
			case 0:
				p.Cut()
			case 1:
				p.Delay(time.Duration(rand.IntN(20)) * time.Millisecond)
			case 2:
				p.Delay(0)
			default:
				p.Swallow()
			}
			time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
		}
		for _, p := range proxies {
			p.Delay(0)
		}
	})
	var mu sync.Mutex
	acknowledged, failed := map[string]datastore.Revision{}, 0
	for w := range writers {
		work.Go(func() {
			zookie := ""
			for i := 0; !ended.Load(); i++ {
				id := fmt.Sprintf("w%d-%d", w, i)
				k := nodes[rand.IntN(len(nodes))]
				o, err := k.Write(bg, datastore.Default, touch(id, fmt.Sprintf("document:%d#viewer@user:%d", i, w)))
				mu.Lock()
				if err == nil {
					acknowledged[id], zookie = o.Revision, o.Zookie
				} else {
					failed++
				}
				mu.Unlock()
				if err != nil || zookie == "" {
					continue
				}
				// An answer is never older than its zookie, on any node.
				s, err := nodes[rand.IntN(len(nodes))].At(bg, datastore.Default, datastore.Consistency{Level: datastore.AtLeastAsFresh, Zookie: zookie})
				if err != nil {
					continue
				}
				if s.Head().Revision < o.Revision {
					t.Errorf("an answer at revision %d to the zookie of %d", s.Head().Revision, o.Revision)
				}
				s.Close()
			}
		})
	}
	time.Sleep(length)
	ended.Store(true)
	chaos.Wait()
	work.Wait()
	seen := map[string]datastore.Revision{}
	for c, err := range calm.History(bg, datastore.Default, 1) {
		if err != nil {
			t.Fatal(err)
		}
		if earlier, found := seen[c.RequestID]; found {
			t.Errorf("request %s is in the history twice, at %d and %d", c.RequestID, earlier, c.Revision)
		}
		seen[c.RequestID] = c.Revision
	}
	for id, r := range acknowledged {
		if seen[id] != r {
			t.Errorf("request %s was acknowledged at revision %d and is at %d", id, r, seen[id])
		}
	}
	if len(acknowledged) < 10 {
		t.Errorf("only %d requests were acknowledged", len(acknowledged))
	}
	t.Logf("%d acknowledged, %d failed, %d changes", len(acknowledged), failed, len(seen))
}

// databaseIsAway takes the database away: answers at minimize_latency end when
// the staleness bound has passed, everything fails with a clear error and soon,
// and all comes back by itself.
func (target Target) databaseIsAway(t *testing.T) {
	uri := target.Empty(t)
	p := NewProxy(t, uri)
	k := target.node(t, p.URI())
	applySchema(t, k)
	at := func(level datastore.Level) error {
		limit, cancel := context.WithTimeout(bg, 10*time.Second)
		defer cancel()
		s, err := k.At(limit, datastore.Default, datastore.Consistency{Level: level})
		if err == nil {
			s.Close()
		}
		return err
	}
	if err := at(datastore.MinimizeLatency); err != nil {
		t.Fatal(err)
	}
	p.Down(true)
	time.Sleep(staleness)
	for name, f := range map[string]func() error{
		"minimize_latency": func() error { return at(datastore.MinimizeLatency) },
		"fully_consistent": func() error { return at(datastore.FullyConsistent) },
		"a write": func() error {
			_, err := k.Write(bg, datastore.Default, touch("", "document:1#viewer@user:ada"))
			return err
		},
	} {
		began := time.Now()
		if err := f(); !errors.Is(err, datastore.ErrUnavailable) {
			t.Errorf("%s without the database: %v", name, err)
		}
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("%s without the database took %s", name, took)
		}
	}
	p.Down(false)
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := at(datastore.FullyConsistent)
		if err == nil {
			_, err = k.Write(bg, datastore.Default, touch("", "document:1#viewer@user:ada"))
		}
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the database is back, and still: %v", err)
		}
	}
}

// databaseIsSilent lets the database take questions and answer none: what has no
// deadline of its own ends all the same, and all comes back by itself.
func (target Target) databaseIsSilent(t *testing.T) {
	const silence = 500 * time.Millisecond
	uri := target.Empty(t)
	p := NewProxy(t, uri)
	log, err := target.Open(bg, p.URI(), sql.Options{Silence: silence})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	if err := log.CreateLine(bg, 7, datastore.Incarnation{7}); err != nil {
		t.Fatal(err)
	}
	if _, err := log.Head(bg, 7); err != nil {
		t.Fatal(err)
	}
	p.Mute(true)
	for name, f := range map[string]func() error{
		"a read": func() error { _, err := log.Head(bg, 7); return err },
		"a page": func() error {
			return log.Rows(bg, 7, 0, datastore.RowQuery{}, func(datastore.Row) bool { return true })
		},
		"a change of the line": func() error { return log.SetFloor(bg, 7, 0) },
	} {
		ended := make(chan error, 1)
		go func() { ended <- f() }()
		select {
		case err := <-ended:
			if !errors.Is(err, datastore.ErrUnavailable) {
				t.Errorf("%s of a silent database: %v", name, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s of a silent database does not end", name)
		}
	}
	p.Mute(false)
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, err := log.Head(bg, 7)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the database speaks again, and still: %v", err)
		}
	}
}

// databaseIsRestored puts an older backup under running nodes: they serve what it
// holds, refuse zookies of what was lost, and go on from there.
func (target Target) databaseIsRestored(t *testing.T) {
	uri := target.Empty(t)
	nodes := []*keeper.Keeper{target.node(t, uri), target.node(t, uri)}
	applySchema(t, nodes[0])
	write := func(k *keeper.Keeper, text string) datastore.Outcome {
		t.Helper()
		o, err := k.Write(bg, datastore.Default, touch("", text))
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	kept := write(nodes[0], "document:1#viewer@user:ada")
	restore := backup(t, uri)
	lost := write(nodes[1], "document:1#viewer@user:bob")
	write(nodes[0], "document:2#viewer@user:bob")
	count := func(k *keeper.Keeper, c datastore.Consistency) (int, error) {
		s, err := k.At(bg, datastore.Default, c)
		if err != nil {
			return 0, err
		}
		defer s.Close()
		n := 0
		err = s.Rows(bg, datastore.RowQuery{}, time.Now(), func(datastore.Row) bool { n++; return true })
		return n, err
	}
	for i, k := range nodes {
		if n, err := count(k, datastore.Consistency{Level: datastore.FullyConsistent}); err != nil || n != 3 {
			t.Fatalf("node %d before: %d, %v", i, n, err)
		}
	}
	restore()
	for i, k := range nodes {
		if n, err := count(k, datastore.Consistency{Level: datastore.FullyConsistent}); err != nil || n != 1 {
			t.Errorf("node %d after the restore: %d relationships, %v", i, n, err)
		}
		if _, err := count(k, datastore.Consistency{Level: datastore.AtLeastAsFresh, Zookie: lost.Zookie}); err == nil {
			t.Errorf("node %d takes a zookie of the lost line", i)
		}
		if n, err := count(k, datastore.Consistency{Level: datastore.AtLeastAsFresh, Zookie: kept.Zookie}); err != nil || n != 1 {
			t.Errorf("node %d and a zookie of before the backup: %d, %v", i, n, err)
		}
	}
	// The same revisions come again, with another content.
	again := write(nodes[0], "document:3#viewer@user:eve")
	write(nodes[1], "document:4#viewer@user:eve")
	if again.Revision != lost.Revision {
		t.Fatalf("revision %d, want %d again", again.Revision, lost.Revision)
	}
	for i, k := range nodes {
		if _, err := count(k, datastore.Consistency{Level: datastore.AtLeastAsFresh, Zookie: lost.Zookie}); !errors.Is(err, datastore.ErrForeignZookie) {
			t.Errorf("node %d and a zookie of the lost line: %v", i, err)
		}
		if n, err := count(k, datastore.Consistency{Level: datastore.AtExactSnapshot, Zookie: again.Zookie}); err != nil || n != 2 {
			t.Errorf("node %d and a zookie of the new line: %d, %v", i, n, err)
		}
	}
}

// backup copies the tables and returns how to put them back.
func backup(t *testing.T, uri string) (restore func()) {
	t.Helper()
	tables := []string{"pemba_head", "pemba_change", "pemba_relationship", "pemba_name", "pemba_schema"}
	c, err := pgx.Connect(bg, uri)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(bg) })
	for _, table := range tables {
		if _, err := c.Exec(bg, "CREATE TABLE backup_"+table+" AS SELECT * FROM "+table); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		err := pgx.BeginFunc(bg, c, func(tx pgx.Tx) error {
			for _, table := range tables {
				if _, err := tx.Exec(bg, "DELETE FROM "+table); err != nil {
					return err
				}
				if _, err := tx.Exec(bg, "INSERT INTO "+table+" SELECT * FROM backup_"+table); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
