package sqltest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/sql"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/tuple"
)

// RunBenchmarks measures writes, imports and reads through a node, each next to
// the floor that the database sets.
func RunBenchmarks(b *testing.B, target Target) {
	b.Run("Writes", target.writes)
	b.Run("Import", target.imports)
	b.Run("Snapshots", target.snapshots)
	b.Run("Latency", target.latencies)
	b.Run("Load", target.loads)
	b.Run("CatchUp", target.catchUps)
}

// parallel runs f n times in all by callers and returns the rate per second.
func parallel(b *testing.B, callers, n int, f func(caller, i int) error) float64 {
	b.Helper()
	var next atomic.Int64
	var work sync.WaitGroup
	began := time.Now()
	for c := range callers {
		work.Go(func() {
			for {
				i := int(next.Add(1))
				if i > n {
					return
				}
				if err := f(c, i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	work.Wait()
	return float64(n) / time.Since(began).Seconds()
}

func (target Target) benchNode(b *testing.B, uri string) *keeper.Keeper {
	b.Helper()
	log, err := target.Open(bg, uri, sql.Options{})
	if err != nil {
		b.Fatal(err)
	}
	k, err := keeper.Open(log, keeper.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { k.Close() })
	return k
}

// writes compares single writes, each its own change, with n divided by the
// latency of an update of one row.
func (target Target) writes(b *testing.B) {
	uri := target.Empty(b)
	k := target.benchNode(b, uri)
	applySchema(b, k)
	c, err := pgx.Connect(bg, uri)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close(bg)
	if _, err := c.Exec(bg, "CREATE TABLE floor (id INT8 PRIMARY KEY, n INT8)"); err != nil {
		b.Fatal(err)
	}
	if _, err := c.Exec(bg, "INSERT INTO floor VALUES (1, 0)"); err != nil {
		b.Fatal(err)
	}
	for _, callers := range []int{1, 16, 128} {
		b.Run(fmt.Sprint("callers=", callers), func(b *testing.B) {
			for range b.N {
				floor := parallel(b, 1, 300, func(int, int) error {
					_, err := c.Exec(bg, "UPDATE floor SET n = n + 1 WHERE id = 1")
					return err
				})
				rate := parallel(b, callers, 300*min(callers, 32), func(c, i int) error {
					_, err := k.Write(bg, datastore.Default, touch("", fmt.Sprintf("document:%d#viewer@user:%d", i, c)))
					return err
				})
				b.ReportMetric(floor, "row-updates/s")
				b.ReportMetric(rate, "writes/s")
				b.ReportMetric(rate/(float64(callers)*floor), "of-floor×callers")
			}
		})
	}
}

const importSize = 50_000

func importRelationship(i int) tuple.Relationship {
	r, err := tuple.Parse(fmt.Sprintf("document:d%018d#viewer@user:u%018d", i*7919%importSize, i%1000))
	if err != nil {
		panic(err)
	}
	return r
}

// imports compares writing in changes of 1,000 with a COPY of the same rows.
func (target Target) imports(b *testing.B) {
	for range b.N {
		uri := target.Empty(b)
		k := target.benchNode(b, uri)
		applySchema(b, k)
		began := time.Now()
		for i := 0; i < importSize; {
			r := datastore.Request{Actor: "ada"}
			for range 1000 {
				r.Updates = append(r.Updates, datastore.Update{Kind: datastore.Touch, Relationship: importRelationship(i)})
				i++
			}
			if _, err := k.Write(bg, datastore.Default, r); err != nil {
				b.Fatal(err)
			}
		}
		rate := importSize / time.Since(began).Seconds()
		pool, err := pgxpool.New(bg, uri)
		if err != nil {
			b.Fatal(err)
		}
		defer pool.Close()
		began = time.Now()
		columns := []string{"store", "object_type", "object_id", "relation", "subject_type", "subject_id", "subject_relation", "created", "deleted", "caveat", "context"}
		if _, err := pool.CopyFrom(bg, pgx.Identifier{"pemba_relationship"}, columns, pgx.CopyFromSlice(importSize, func(i int) ([]any, error) {
			r := importRelationship(i)
			return []any{int64(99), r.Object.Type, r.Object.ID, r.Relation, r.Subject.Type, r.Subject.ID, "", int64(1), int64(1) << 62, "", ""}, nil
		})); err != nil {
			b.Fatal(err)
		}
		copied := importSize / time.Since(began).Seconds()
		b.ReportMetric(rate, "relationships/s")
		b.ReportMetric(copied, "copied-rows/s")
		b.ReportMetric(rate/copied, "of-copy")
	}
}

// snapshots compares taking a snapshot at the head with a read of one row.
func (target Target) snapshots(b *testing.B) {
	uri := target.Empty(b)
	k := target.benchNode(b, uri)
	applySchema(b, k)
	pool, err := pgxpool.New(bg, uri)
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	const callers, n = 128, 20_000
	for range b.N {
		floor := parallel(b, 4, n/4, func(int, int) error {
			var one int
			return pool.QueryRow(bg, "SELECT 1").Scan(&one)
		})
		rate := parallel(b, callers, n, func(int, int) error {
			s, err := k.At(bg, datastore.Default, datastore.Consistency{Level: datastore.FullyConsistent})
			if err == nil {
				s.Close()
			}
			return err
		})
		b.ReportMetric(floor, "select-1/s")
		b.ReportMetric(rate, "fully-consistent/s")
	}
}

// latencies measures a check by one caller at each consistency, beside a round
// trip that asks nothing.
func (target Target) latencies(b *testing.B) {
	uri := target.Empty(b)
	k := target.benchNode(b, uri)
	applySchema(b, k)
	o, err := k.Write(bg, datastore.Default, touch("", "document:1#viewer@user:ada"))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := k.Write(bg, datastore.Default, touch("", "document:2#viewer@user:ada")); err != nil {
		b.Fatal(err)
	}
	pool, err := pgxpool.New(bg, uri)
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	question := graph.Question{Resource: tuple.Object{Type: "document", ID: "1"}, Permission: "viewer", Subject: tuple.Subject{Object: tuple.Object{Type: "user", ID: "ada"}}}
	ask := func(c datastore.Consistency) func() error {
		return func() error {
			s, err := k.At(bg, datastore.Default, c)
			if err != nil {
				return err
			}
			defer s.Close()
			a, err := graph.Check(bg, s, question, time.Now(), graph.Limits{})
			if err == nil && a.Outcome != graph.Yes {
				err = errors.New("the answer is no")
			}
			return err
		}
	}
	for range b.N {
		for name, f := range map[string]func() error{
			"select-1": func() error {
				var one int
				return pool.QueryRow(bg, "SELECT 1").Scan(&one)
			},
			"minimize-latency":  ask(datastore.Consistency{}),
			"at-least-as-fresh": ask(datastore.Consistency{Level: datastore.AtLeastAsFresh, Zookie: o.Zookie}),
			"at-exact-snapshot": ask(datastore.Consistency{Level: datastore.AtExactSnapshot, Zookie: o.Zookie}),
			"fully-consistent":  ask(datastore.Consistency{Level: datastore.FullyConsistent}),
		} {
			var took []time.Duration
			for range 500 {
				start := time.Now()
				if err := f(); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1000, name+"-µs")
		}
	}
}
