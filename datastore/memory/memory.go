// Package memory is the Log that forgets: everything is kept in memory and gone
// with the process.
package memory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/pembadb/pemba/datastore"
)

// Log is a [datastore.Log] in memory.
type Log struct {
	mu     sync.RWMutex
	lines  map[datastore.StoreID]*line
	closed bool
}

// New returns an empty Log.
func New() *Log { return &Log{lines: map[datastore.StoreID]*line{}} }

var (
	_ datastore.Log         = (*Log)(nil)
	_ datastore.ManyReader  = (*Log)(nil)
	_ datastore.HeadsReader = (*Log)(nil)
)

func (l *Log) line(store datastore.StoreID) (*line, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return nil, datastore.ErrClosed
	}
	n := l.lines[store]
	if n == nil {
		return nil, fmt.Errorf("store %d: %w", store, datastore.ErrNoStore)
	}
	return n, nil
}

// CreateLine implements [datastore.Log].
func (l *Log) CreateLine(_ context.Context, store datastore.StoreID, incarnation datastore.Incarnation) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return datastore.ErrClosed
	}
	if l.lines[store] == nil {
		l.lines[store] = newLine(incarnation)
	}
	return nil
}

// DropLine implements [datastore.Log].
func (l *Log) DropLine(_ context.Context, store datastore.StoreID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.lines, store)
	return nil
}

// Lines implements [datastore.Log].
func (l *Log) Lines(context.Context) ([]datastore.StoreID, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var ids []datastore.StoreID
	for id := range l.lines {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}

// Close implements [datastore.Log].
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	return nil
}

// Head implements [datastore.Log].
func (l *Log) Head(ctx context.Context, store datastore.StoreID) (datastore.Head, error) {
	n, err := l.line(store)
	if err != nil {
		return datastore.Head{}, err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.head, nil
}

// After implements [datastore.Log].
func (l *Log) After(ctx context.Context, store datastore.StoreID, from datastore.Revision, limit int) (datastore.Head, []datastore.Entry, error) {
	n, err := l.line(store)
	if err != nil {
		return datastore.Head{}, nil, err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	entries, err := n.after(from, limit)
	return n.head, entries, err
}

// Update implements [datastore.Log].
func (l *Log) Update(ctx context.Context, store datastore.StoreID, have datastore.Head, judge func(datastore.Tail) ([]datastore.Entry, error)) (datastore.Head, error) {
	n, err := l.line(store)
	if err != nil {
		return datastore.Head{}, err
	}
	if err := ctx.Err(); err != nil {
		return datastore.Head{}, err
	}
	n.update.Lock()
	defer n.update.Unlock()
	n.mu.RLock()
	tail, err := n.tail(have)
	n.mu.RUnlock()
	if err != nil {
		return datastore.Head{}, err
	}
	entries, err := judge(tail)
	if err != nil {
		return datastore.Head{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, e := range entries {
		if before := n.head.Revision + datastore.Revision(i); e.Revision != before+1 {
			return datastore.Head{}, fmt.Errorf("change %d does not follow the head %d", e.Revision, before)
		}
	}
	for _, e := range entries {
		n.append(e)
	}
	return n.head, nil
}

// Rows implements [datastore.Log].
func (l *Log) Rows(ctx context.Context, store datastore.StoreID, at datastore.Revision, q datastore.RowQuery, f func(datastore.Row) bool) error {
	n, err := l.line(store)
	if err != nil {
		return err
	}
	n.mu.Lock() // Copy marks the tree's nodes as shared
	err = datastore.Readable(n.head, at)
	rows := n.rows(q.BySubject).Copy()
	n.mu.Unlock()
	if err != nil {
		return err
	}
	return scan(ctx, rows, at, q, f)
}

// Read implements [datastore.ManyReader].
func (l *Log) Read(ctx context.Context, store datastore.StoreID, at datastore.Revision, qs []datastore.RowQuery, f func(q int, r datastore.Row) bool) error {
	n, err := l.line(store)
	if err != nil {
		return err
	}
	n.mu.Lock()
	err = datastore.Readable(n.head, at)
	forward, backward := n.byObject.Copy(), n.bySubject.Copy()
	n.mu.Unlock()
	if err != nil {
		return err
	}
	for i, q := range qs {
		rows := forward
		if q.BySubject {
			rows = backward
		}
		if err := scan(ctx, rows, at, q, func(r datastore.Row) bool { return f(i, r) }); err != nil {
			return err
		}
	}
	return nil
}

// Heads implements [datastore.HeadsReader].
func (l *Log) Heads(ctx context.Context, stores []datastore.StoreID) (map[datastore.StoreID]datastore.Head, error) {
	heads := make(map[datastore.StoreID]datastore.Head, len(stores))
	for _, id := range stores {
		h, err := l.Head(ctx, id)
		switch {
		case err == nil:
			heads[id] = h
		case !errors.Is(err, datastore.ErrNoStore):
			return nil, err
		}
	}
	return heads, nil
}

// Schema implements [datastore.Log].
func (l *Log) Schema(ctx context.Context, store datastore.StoreID, at datastore.Revision) (*datastore.SchemaText, error) {
	n, err := l.line(store)
	if err != nil {
		return nil, err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if err := datastore.Readable(n.head, at); err != nil {
		return nil, err
	}
	for _, s := range slices.Backward(n.schemas) {
		if s.revision <= at {
			return s.text, nil
		}
	}
	return nil, nil
}

// Names implements [datastore.Log].
func (l *Log) Names(ctx context.Context, store datastore.StoreID) ([]string, error) {
	n, err := l.line(store)
	if err != nil {
		return nil, err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	return slices.Clone(n.names), nil
}

// Anchor implements [datastore.Log].
func (l *Log) Anchor(ctx context.Context, store datastore.StoreID) (datastore.Anchor, error) {
	n, err := l.line(store)
	if err != nil {
		return datastore.Anchor{}, err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.anchor, nil
}

// SetFloor implements [datastore.Log].
func (l *Log) SetFloor(ctx context.Context, store datastore.StoreID, floor datastore.Revision) error {
	n, err := l.line(store)
	if err != nil {
		return err
	}
	n.update.Lock()
	defer n.update.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if floor > n.head.Revision {
		return fmt.Errorf("floor %d: %w", floor, datastore.ErrAhead)
	}
	n.head.Floor = max(n.head.Floor, floor)
	return nil
}

// Collect implements [datastore.Log].
func (l *Log) Collect(ctx context.Context, store datastore.StoreID, limit int) (int, error) {
	n, err := l.line(store)
	if err != nil {
		return 0, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.collect(limit), nil
}

// Trim implements [datastore.Log].
func (l *Log) Trim(ctx context.Context, store datastore.StoreID, upTo datastore.Revision) error {
	n, err := l.line(store)
	if err != nil {
		return err
	}
	n.update.Lock()
	defer n.update.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.trim(upTo)
}

// Plant implements [datastore.Log].
func (l *Log) Plant(ctx context.Context, store datastore.StoreID, s datastore.Seed) error {
	n, err := l.line(store)
	if err != nil {
		return err
	}
	n.update.Lock()
	defer n.update.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.plant(s)
}
