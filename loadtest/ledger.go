package loadtest

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"
	"time"
)

// ledger compares the changes that writers were told of with those that watchers
// saw. It remembers a change until everybody has named it, and then for a while,
// to see it named twice.
type ledger struct {
	mu       sync.Mutex
	watchers int
	seed     maphash.Seed
	open     map[uint64]*entry
	// done and older hold the changes that everybody has named.
	done, older map[uint64]bool
	result      WatchResult
	failed      []string
}

type entry struct {
	acknowledged bool
	seen         []bool
	count        int
}

// WatchResult is what watchers saw of the writes of a load.
type WatchResult struct {
	Watchers int      `json:"watchers"`
	Writes   int64    `json:"writes"` // acknowledged
	Seen     int64    `json:"seen"`   // by all watchers together
	Missed   int64    `json:"missed"`
	Doubled  int64    `json:"doubled"`
	Errors   []string `json:"errors,omitempty"`
}

// remembered is how many finished changes are kept at least.
const remembered = 100_000

func newLedger(watchers int) *ledger {
	return &ledger{watchers: watchers, seed: maphash.MakeSeed(), open: map[uint64]*entry{}, done: map[uint64]bool{}, result: WatchResult{Watchers: watchers}}
}

// acknowledged notes a write that was told to have happened.
func (l *ledger) acknowledged(zookie string) {
	if l.watchers == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.result.Writes++
	key := maphash.String(l.seed, zookie)
	e := l.entry(key)
	e.acknowledged = true
	l.close(key, e)
}

// saw notes that a watcher was sent a change.
func (l *ledger) saw(watcher int, zookie string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.result.Seen++
	key := maphash.String(l.seed, zookie)
	if l.done[key] || l.older[key] {
		l.result.Doubled++
		return
	}
	e := l.entry(key)
	if e.seen[watcher] {
		l.result.Doubled++
		return
	}
	e.seen[watcher] = true
	e.count++
	l.close(key, e)
}

func (l *ledger) entry(key uint64) *entry {
	e := l.open[key]
	if e == nil {
		e = &entry{seen: make([]bool, l.watchers)}
		l.open[key] = e
	}
	return e
}

func (l *ledger) close(key uint64, e *entry) {
	if !e.acknowledged || e.count < l.watchers {
		return
	}
	delete(l.open, key)
	if len(l.done) >= remembered {
		l.done, l.older = map[uint64]bool{}, l.done
	}
	l.done[key] = true
}

// missing counts the acknowledged writes that a watcher has not seen, once for
// each watcher.
func (l *ledger) missing() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var n int64
	for _, e := range l.open {
		if e.acknowledged {
			n += int64(l.watchers - e.count)
		}
	}
	return n
}

// settle waits until watchers have seen everything, or for some time, and returns
// what they saw; nil without watchers.
func (l *ledger) settle(ctx context.Context, length time.Duration) *WatchResult {
	if l.watchers == 0 {
		return nil
	}
	for end := time.Now().Add(length); l.missing() > 0 && time.Now().Before(end) && ctx.Err() == nil; {
		time.Sleep(10 * time.Millisecond)
	}
	missed := l.missing()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.result.Missed, l.result.Errors = missed, l.failed
	out := l.result
	return &out
}

// watch starts the watchers and returns when nothing can escape them.
func (d *drive) watch(ctx context.Context) error {
	var started sync.WaitGroup
	for n, api := range d.apis {
		for i := range d.Watchers {
			started.Add(1)
			begun := sync.OnceFunc(started.Done)
			go func() {
				defer begun()
				for zookie, err := range api.Watch(ctx, begun) {
					if err != nil {
						d.ledger.mu.Lock()
						d.ledger.failed = append(d.ledger.failed, fmt.Sprintf("%s: %v", d.Nodes[n].Addr, err))
						d.ledger.mu.Unlock()
						return
					}
					d.ledger.saw(n*d.Watchers+i, zookie)
				}
			}()
		}
	}
	started.Wait()
	d.ledger.mu.Lock()
	defer d.ledger.mu.Unlock()
	if len(d.ledger.failed) > 0 {
		return fmt.Errorf("watch %s", d.ledger.failed[0])
	}
	return ctx.Err()
}
