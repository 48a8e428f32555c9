package file

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"syscall"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/pembadb/pemba/datastore"
)

// commitQueue gathers what is to be written while a transaction is under way, so
// that many stores share one sync.
type commitQueue struct {
	mu      sync.Mutex
	idle    sync.Cond // signalled when nobody commits
	waiting []*commit
	busy    bool
}

type commit struct {
	apply func(*bbolt.Tx) error
	done  chan error
}

// drain waits until nothing is being committed.
func (q *commitQueue) drain() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.idle.L = &q.mu
	for q.busy {
		q.idle.Wait()
	}
}

// commit runs apply in a transaction, perhaps together with others, and returns
// once it is on disk. An error of apply leaves nothing of it, and does not touch
// the others.
func (l *Log) commit(apply func(*bbolt.Tx) error) error {
	c := &commit{apply: apply, done: make(chan error, 1)}
	q := &l.queue
	q.mu.Lock()
	if err := l.serving(); err != nil {
		q.mu.Unlock()
		return err
	}
	q.waiting = append(q.waiting, c)
	if !q.busy {
		q.busy = true
		go l.commitAll()
	}
	q.mu.Unlock()
	return <-c.done
}

// commitAll commits until nobody waits.
func (l *Log) commitAll() {
	q := &l.queue
	for {
		q.mu.Lock()
		batch := q.waiting
		q.waiting = nil
		if len(batch) == 0 {
			q.busy = false
			if q.idle.L != nil {
				q.idle.Broadcast()
			}
			q.mu.Unlock()
			return
		}
		q.mu.Unlock()
		l.commitBatch(batch)
	}
}

// refused is an error of one commit of a batch, before anything was written.
type refused struct{ error }

func (r refused) Unwrap() error { return r.error }

func (l *Log) commitBatch(batch []*commit) {
	err := l.transact(batch)
	if r := (refused{}); errors.As(err, &r) && len(batch) > 1 {
		for _, c := range batch { // find the one, and commit the others
			l.commitBatch([]*commit{c})
		}
		return
	}
	for _, c := range batch {
		c.done <- err
	}
}

// transact applies and commits a batch.
func (l *Log) transact(batch []*commit) error {
	if l.failure() != nil {
		return l.failure()
	}
	var tx *bbolt.Tx
	err := l.guarded(func() (err error) {
		if tx, err = l.db.Begin(true); err != nil {
			return refused{err}
		}
		for _, c := range batch {
			if err := c.apply(tx); err != nil {
				return refused{errors.Join(err, tx.Rollback())}
			}
		}
		return nil
	})
	if r := (refused{}); errors.As(err, &r) {
		if errors.Is(err, bbolterrors.ErrDatabaseNotOpen) {
			return datastore.ErrClosed
		}
		return err
	}
	if err != nil { // a panic: the file is damaged
		l.stuck = true
		return l.fail(err)
	}
	transaction := uint64(tx.ID())
	if err := l.guarded(tx.Commit); err != nil {
		l.stuck = errors.Is(err, datastore.ErrCorrupt)
		if diskFull(err) {
			return fmt.Errorf("write %s: %w (%w); nothing of this change was written; make room and try again", l.path, datastore.ErrFull, err)
		}
		return l.fail(err)
	}
	l.note(transaction)
	return nil
}

func (l *Log) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// diskFull reports whether a commit failed before anything of it could matter:
// no room for a page, or for the file to grow. A sync that fails is never that,
// whatever its reason: then nobody knows what is on disk.
func diskFull(err error) bool {
	if strings.HasPrefix(err.Error(), "file resize error") {
		return true
	}
	var p *fs.PathError
	return errors.As(err, &p) && p.Op == "write" &&
		(errors.Is(p.Err, syscall.ENOSPC) || errors.Is(p.Err, syscall.EDQUOT) || errors.Is(p.Err, syscall.EFBIG))
}
