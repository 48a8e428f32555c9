package loadtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

// caller makes one call after the other.
type caller struct {
	*drive
	number int
	guest  int // the stranger that only this caller shares things with
	random *rand.Rand
	record *recorder
	calls  int
	// shared are the places that the stranger has; doubtful those where a write
	// failed, which he may have or not. They are not used again.
	shared, doubtful []Place
	zookie           string // the newest seen
}

// maxShared is how many places a stranger has at most.
const maxShared = 100

// run calls from start to end. At a rate it takes the next of the times at which
// calls begin, which next counts.
func (c *caller) run(ctx context.Context, start, end time.Time, next *atomic.Int64) {
	for ctx.Err() == nil {
		begin := time.Now()
		if c.Rate > 0 {
			if begin.After(end.Add(c.Timeout)) {
				return // the servers are so late that this would go on for ever
			}
			begin = start.Add(time.Duration(float64(next.Add(1)-1) / c.Rate * float64(time.Second)))
			if wait := time.Until(begin); wait > 0 && begin.Before(end) {
				select {
				case <-time.After(wait):
				case <-ctx.Done():
					return
				}
			}
		}
		if !begin.Before(end) {
			return
		}
		c.call(ctx, begin)
	}
}

// api is the next node's.
func (c *caller) api() API {
	c.calls++
	return c.apis[(c.number+c.calls)%len(c.apis)]
}

func (c *caller) at() Consistency { return Consistency{Level: c.Level, Zookie: c.zookie} }

// call makes a call of the mix. Its time counts from begin.
func (c *caller) call(ctx context.Context, begin time.Time) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	switch c.mix[c.random.IntN(len(c.mix))] {
	case CheckOperation:
		c.check(ctx, begin)
	case BulkOperation:
		c.bulk(ctx, begin)
	case LookupOperation:
		c.lookup(ctx, begin)
	case WriteOperation:
		c.write(ctx, begin)
	}
}

func (c *caller) question() Question { return c.questions[c.random.IntN(len(c.questions))] }

func (c *caller) check(ctx context.Context, begin time.Time) {
	q := c.question()
	has, zookie, err := c.api().Check(ctx, c.at(), q)
	c.record.done(CheckOperation, time.Since(begin), err)
	if err == nil {
		c.zookie = zookie
		c.judge(q, has)
	}
}

func (c *caller) judge(q Question, has bool) {
	if has != q.Has {
		c.record.isWrong(fmt.Sprintf("%s#%s@%s: %s, and should be %s", q.Resource, q.Permission, q.Subject, yes(has), yes(q.Has)))
	}
}

func yes(has bool) string {
	if has {
		return "yes"
	}
	return "no"
}

func (c *caller) bulk(ctx context.Context, begin time.Time) {
	qs := make([]Question, c.BulkSize)
	for i := range qs {
		qs[i] = c.question()
	}
	has, err := c.api().Bulk(ctx, c.at(), qs)
	c.record.done(BulkOperation, time.Since(begin), err)
	if err != nil {
		return
	}
	if len(has) != len(qs) {
		c.record.isWrong(fmt.Sprintf("%d answers to %d questions", len(has), len(qs)))
		return
	}
	for i, q := range qs {
		c.judge(q, has[i])
	}
}

func (c *caller) lookup(ctx context.Context, begin time.Time) {
	l := c.lookups[c.random.IntN(len(c.lookups))]
	ids, err := c.api().Lookup(ctx, c.at(), l, func() { c.record.done(FirstOperation, time.Since(begin), nil) })
	c.record.done(LookupOperation, time.Since(begin), err)
	if err != nil {
		return
	}
	c.record.results(len(ids))
	if slices.Sort(ids); !slices.Equal(ids, l.Resources) {
		c.record.isWrong(fmt.Sprintf("a lookup of %s on which %s has %s found %d, and should find %d", l.ResourceType, l.Subject, l.Permission, len(ids), len(l.Resources)))
	}
}

// write shares a place with this caller's stranger, or takes that back, and asks
// the next node with the write's zookie whether it is so.
func (c *caller) write(ctx context.Context, begin time.Time) {
	p := c.places[c.random.IntN(len(c.places))]
	i := slices.Index(c.shared, p)
	if i < 0 && len(c.shared) > 0 && (c.random.IntN(2) == 0 || len(c.shared) >= maxShared) {
		i = c.random.IntN(len(c.shared))
	}
	write := c.api().Share
	if i >= 0 {
		p, write = c.shared[i], c.api().Unshare
		c.shared = slices.Delete(c.shared, i, i+1)
	}
	zookie, err := write(ctx, p, Stranger(c.guest))
	c.record.done(WriteOperation, time.Since(begin), err)
	if err != nil {
		c.doubtful = append(c.doubtful, p) // it may have happened
		return
	}
	c.ledger.acknowledged(zookie)
	if i < 0 {
		c.shared = append(c.shared, p)
	}
	if c.OneWay {
		c.zookie = zookie
		return
	}
	asked := time.Now()
	q := Question{Resource: p.Resource, Permission: p.Permission, Subject: Stranger(c.guest), Has: i < 0 || p.Everybody}
	has, _, err := c.api().Check(ctx, Consistency{Level: AtLeastAsFresh, Zookie: zookie}, q)
	c.record.done(ReadBackOperation, time.Since(asked), err)
	if err == nil {
		c.zookie = zookie
		c.judge(q, has)
	}
}
