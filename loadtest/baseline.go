package loadtest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"go.etcd.io/bbolt"

	"github.com/pembadb/pemba/tuple"
)

// Baseline is what a datastore does by itself, measured beside a world.
type Baseline struct {
	// RowUpdate is how long a committed update of one row takes.
	RowUpdate Latency `json:"row_update"`
	// Copied is how many of the world's rows a second a COPY writes into a table like
	// that of relationships; zero for a datastore without one.
	Copied float64 `json:"copied_per_second,omitempty"`
}

const (
	updates    = 200
	copiedRows = 200_000
	copyBatch  = 50_000
)

// MeasureBaseline measures a datastore that has been migrated, in tables of its own,
// which it removes; of a file, in another file beside it.
func MeasureBaseline(ctx context.Context, uri string, w *World) (*Baseline, error) {
	scheme, rest, _ := strings.Cut(uri, ":")
	switch scheme {
	case "memory":
		return &Baseline{}, nil
	case "file":
		return fileBaseline(filepath.Dir(rest))
	}
	c, err := pgx.Connect(ctx, "postgres:"+rest)
	if err != nil {
		return nil, fmt.Errorf("measure the database: %w", err)
	}
	defer c.Close(context.WithoutCancel(ctx))
	b := &Baseline{}
	if b.RowUpdate, err = rowUpdates(ctx, c); err == nil {
		b.Copied, err = copies(ctx, c, w.Relationships())
	}
	if err != nil {
		return nil, fmt.Errorf("measure the database: %w", err)
	}
	return b, nil
}

// timed measures n runs of f.
func timed(n int, f func() error) (Latency, error) {
	h := newHistogram()
	for range n {
		began := time.Now()
		if err := f(); err != nil {
			return Latency{}, err
		}
		_ = h.RecordValue(max(1, int64(time.Since(began)/time.Microsecond)))
	}
	return latency(h), nil
}

func rowUpdates(ctx context.Context, c *pgx.Conn) (l Latency, err error) {
	for _, text := range []string{"DROP TABLE IF EXISTS pemba_loadtest_row", "CREATE TABLE pemba_loadtest_row (id INT8 PRIMARY KEY, n INT8)", "INSERT INTO pemba_loadtest_row VALUES (1, 0)"} {
		if _, err := c.Exec(ctx, text); err != nil {
			return l, err
		}
	}
	defer func() {
		_, dropped := c.Exec(context.WithoutCancel(ctx), "DROP TABLE pemba_loadtest_row")
		err = errors.Join(err, dropped)
	}()
	return timed(updates, func() error {
		_, err := c.Exec(ctx, "UPDATE pemba_loadtest_row SET n = n + 1 WHERE id = 1")
		return err
	})
}

// copies measures a COPY of up to copiedRows, a batch a transaction.
func copies(ctx context.Context, c *pgx.Conn, rows iter.Seq[tuple.Relationship]) (rate float64, err error) {
	for _, text := range []string{"DROP TABLE IF EXISTS pemba_loadtest_copy", "CREATE TABLE pemba_loadtest_copy (LIKE pemba_relationship INCLUDING ALL)"} {
		if _, err := c.Exec(ctx, text); err != nil {
			return 0, err
		}
	}
	defer func() {
		_, dropped := c.Exec(context.WithoutCancel(ctx), "DROP TABLE pemba_loadtest_copy")
		err = errors.Join(err, dropped)
	}()
	columns := []string{"store", "object_type", "object_id", "relation", "subject_type", "subject_id", "subject_relation", "created", "deleted", "caveat", "context"}
	var batch [][]any
	copied, took := 0, time.Duration(0)
	flush := func() error {
		began := time.Now()
		_, err := c.CopyFrom(ctx, pgx.Identifier{"pemba_loadtest_copy"}, columns, pgx.CopyFromRows(batch))
		took += time.Since(began)
		copied += len(batch)
		batch = batch[:0]
		return err
	}
	for r := range rows {
		batch = append(batch, []any{int64(1), r.Object.Type, r.Object.ID, r.Relation, r.Subject.Type, r.Subject.ID, r.Subject.Relation, int64(1), int64(1) << 62, r.Caveat.Name, ""})
		if len(batch) == copyBatch {
			if err := flush(); err != nil {
				return 0, err
			}
			if copied >= copiedRows {
				break
			}
		}
	}
	if len(batch) > 0 {
		if err := flush(); err != nil {
			return 0, err
		}
	}
	return float64(copied) / took.Seconds(), nil
}

// fileBaseline measures commits to a file of the kind that Pemba's is.
func fileBaseline(dir string) (b *Baseline, err error) {
	path := filepath.Join(dir, ".pemba-loadtest-row")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return nil, fmt.Errorf("measure the file system: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close(), os.Remove(path)) }()
	n := 0
	b = &Baseline{}
	b.RowUpdate, err = timed(updates, func() error {
		n++
		return db.Update(func(tx *bbolt.Tx) error {
			rows, err := tx.CreateBucketIfNotExists([]byte("row"))
			if err != nil {
				return err
			}
			return rows.Put([]byte("1"), []byte(strconv.Itoa(n)))
		})
	})
	return b, err
}

// MemoryFree is how much memory the machine can give without swapping, in bytes;
// zero where it does not tell (Linux does: proc(5), MemAvailable).
func MemoryFree() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "MemAvailable:")
	line, _, _ := strings.Cut(rest, "\n")
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return 0
	}
	kib, _ := strconv.ParseInt(fields[0], 10, 64)
	return kib << 10
}
