// Package file is the Log that is one durable file: a bbolt database, synced
// before a change is acknowledged.
//
// The file holds, for each store, its head, its history and its rows in both
// orders. A row carries the revision that created it and the one that closed it,
// so that every revision above the floor can be read.
package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/pembadb/pemba/datastore"
)

// Errors that only a file has; test with errors.Is.
var (
	// ErrInUse says that another process has the file open.
	ErrInUse = errors.New("the file is in use by another process")
	// ErrNotPemba says that the file holds something else.
	ErrNotPemba = errors.New("the file is not a Pemba datastore")
	// ErrFailed says that the disk failed, so that nobody knows what of the last
	// change is on it. Nothing is read or written any more until the process
	// starts again.
	ErrFailed = fmt.Errorf("%w: the disk failed; restart the process once it is mended", datastore.ErrUnavailable)
)

// format is the newest version of the layout that this code reads and writes. A
// file is of the first until a store has an identity.
const (
	firstFormat = 1
	format      = 2
)

// lockWait is how long to wait for another process that is just about to end.
const lockWait = 200 * time.Millisecond

// smallest is the size of bbolt's smallest file, four pages of the smallest size.
const smallest = 4 * 4096

// Options are the settings of a file; zero fields take the defaults.
type Options struct {
	// Failed, if set, is called once, when the disk fails: with an error that wraps
	// [ErrFailed]. The process should stop then.
	Failed func(error)
}

// Log is a [datastore.Log] in one file.
type Log struct {
	path    string
	db      *bbolt.DB
	file    *os.File                                  // bbolt's
	writeAt func(b []byte, offset int64) (int, error) // of file, for notes
	options Options

	mu     sync.Mutex
	heads  map[datastore.StoreID]*sync.Mutex // held while a store's head is held
	failed error                             // why nothing is served any more
	closed bool
	stuck  bool // bbolt's locks are held for ever; guarded by queue

	queue commitQueue
}

var (
	_ datastore.Log         = (*Log)(nil)
	_ datastore.ManyReader  = (*Log)(nil)
	_ datastore.HeadsReader = (*Log)(nil)
)

// Open opens the file at path, and makes it, readable by its owner only, if it
// does not exist. Errors wrap [ErrInUse], [ErrNotPemba] or
// [datastore.ErrCorrupt].
func Open(path string, o Options) (_ *Log, err error) {
	_, missing := os.Stat(path)
	l := &Log{path: path, options: o, heads: map[datastore.StoreID]*sync.Mutex{}}
	defer func() {
		if err != nil && l.file != nil {
			l.letGo()
		}
	}()
	if err := l.guarded(func() (err error) {
		l.db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout:      lockWait,
			FreelistType: bbolt.FreelistMapType,
			OpenFile: func(name string, flag int, mode fs.FileMode) (_ *os.File, err error) {
				l.file, err = os.OpenFile(name, flag, mode)
				return l.file, err
			},
		})
		return err
	}); err != nil {
		return nil, explain(path, err)
	}
	l.writeAt = l.file.WriteAt
	if err := l.guarded(l.checkMetas); err != nil {
		return nil, err
	}
	if err := l.prepare(errors.Is(missing, fs.ErrNotExist)); err != nil {
		return nil, err
	}
	return l, nil
}

// explain says what to do about a file that does not open.
func explain(path string, err error) error {
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return fmt.Errorf("open %s: %w; stop that one, or choose another file", path, ErrInUse)
	case errors.Is(err, bbolterrors.ErrInvalid), errors.Is(err, bbolterrors.ErrVersionMismatch):
		return fmt.Errorf("open %s: %w; choose another path, or move that file away", path, ErrNotPemba)
	case errors.Is(err, bbolterrors.ErrChecksum):
		return fmt.Errorf("open %s: %w; restore it from a backup", path, datastore.ErrCorrupt)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("open %s: the folder %s does not exist; make it first", path, filepath.Dir(path))
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("open %s: %w", path, p.Err)
	}
	if info, stat := os.Stat(path); stat == nil && info.Size() < smallest {
		return fmt.Errorf("open %s: %w, or it was cut off; choose another path, or restore it from a backup", path, ErrNotPemba)
	}
	return fmt.Errorf("open %s: %w", path, err)
}

var (
	bucketMeta   = []byte("pemba")
	bucketStores = []byte("stores")
	keyFormat    = []byte("format")
)

// prepare checks that the file is one of ours, or makes it one.
func (l *Log) prepare(created bool) error {
	info, err := os.Stat(l.path)
	if err != nil {
		return explain(l.path, err)
	}
	empty := false
	err = l.guarded(func() error {
		return l.db.View(func(tx *bbolt.Tx) error {
			if info.Size() < tx.Size() {
				return fmt.Errorf("open %s: %w: it was cut off at %d bytes of %d; restore it from a backup",
					l.path, datastore.ErrCorrupt, info.Size(), tx.Size())
			}
			meta := tx.Bucket(bucketMeta)
			if meta == nil {
				if first, _ := tx.Cursor().First(); first != nil {
					return fmt.Errorf("open %s: %w; choose another path, or move that file away", l.path, ErrNotPemba)
				}
				empty = true
				return nil
			}
			version, err := parseUint(meta.Get(keyFormat))
			if err != nil {
				return fmt.Errorf("open %s: its format: %w", l.path, err)
			}
			if version > format {
				return fmt.Errorf("open %s: it has format %d, and this version of pemba knows %d; use a newer pemba", l.path, version, format)
			}
			return nil
		})
	})
	if err != nil || !empty {
		return err
	}
	if err := l.commit(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucket(bucketMeta)
		if err != nil {
			return err
		}
		if _, err := tx.CreateBucket(bucketStores); err != nil {
			return err
		}
		return meta.Put(keyFormat, appendUint(nil, firstFormat))
	}); err != nil {
		return err
	}
	if created {
		return syncFolder(filepath.Dir(l.path))
	}
	return nil
}

// syncFolder makes the name of a new file durable.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync the folder %s: %w", path, err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// guarded turns what bbolt makes of a damaged file, panics and page faults, into
// errors.
func (l *Log) guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: %w: %v; restore it from a backup", l.path, datastore.ErrCorrupt, p)
		}
	}()
	return f()
}

// serving returns why nothing is served any more, or nil.
func (l *Log) serving() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return datastore.ErrClosed
	}
	return l.failed
}

// fail stops everything: what the disk holds is not known.
func (l *Log) fail(err error) error {
	l.mu.Lock()
	first := l.failed == nil
	if first {
		l.failed = fmt.Errorf("%s: %w: %w", l.path, ErrFailed, err)
	}
	err = l.failed
	l.mu.Unlock()
	if first && l.options.Failed != nil {
		l.options.Failed(err)
	}
	return err
}

// view reads in one transaction. It must be short: a transaction that stays open
// keeps the file from growing, and with it every write.
func (l *Log) view(ctx context.Context, f func(*bbolt.Tx) error) error {
	if err := l.serving(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err := l.guarded(func() error { return l.db.View(f) })
	if errors.Is(err, bbolterrors.ErrDatabaseNotOpen) {
		return datastore.ErrClosed
	}
	return err
}

// Close waits for what is under way and closes the file.
func (l *Log) Close() error {
	l.mu.Lock()
	closed := l.closed
	l.closed = true
	l.mu.Unlock()
	if closed {
		return nil
	}
	l.queue.drain()
	if l.stuck {
		l.letGo()
		return nil
	}
	return l.db.Close()
}

// letGo closes the file without bbolt, whose locks a transaction that met damage
// may hold for ever. The memory map it leaves would hold the file's lock.
func (l *Log) letGo() {
	unlock(l.file)
	l.file.Close()
}
