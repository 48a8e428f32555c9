package server

import (
	"context"
	"sync"
	"time"

	"github.com/pembadb/pemba/dispatch"
)

// call is the context of a call that is not a stream: it knows the caller, and
// ends at its deadline. Most calls are over before anybody asks for a channel to
// wait on, so the timer is made when one does.
type call struct {
	context.Context
	caller   *caller
	deadline time.Time
	account  dispatch.Request

	mu     sync.Mutex
	timed  context.Context // nil until somebody waits
	cancel context.CancelFunc
	ended  bool
	traced bool // the caller asked where its answer was read
}

var _ context.Context = (*call)(nil)

func newCall(ctx context.Context, c *caller, limit time.Duration) *call {
	out := &call{Context: ctx, caller: c, deadline: time.Now().Add(limit)}
	if out.traced = wantsDebug(ctx); out.traced {
		out.account.Trace()
	}
	return out
}

// end frees what the call holds; what still waits on it is told.
func (c *call) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended = true; c.cancel != nil {
		c.cancel()
	}
}

func (c *call) Deadline() (time.Time, bool) {
	if d, ok := c.Context.Deadline(); ok && d.Before(c.deadline) {
		return d, true
	}
	return c.deadline, true
}

func (c *call) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timed == nil {
		if c.timed, c.cancel = context.WithDeadline(c.Context, c.deadline); c.ended {
			c.cancel()
		}
	}
	return c.timed.Done()
}

func (c *call) Err() error {
	c.mu.Lock()
	timed, ended := c.timed, c.ended
	c.mu.Unlock()
	if timed != nil {
		return timed.Err() // which says the same as Done
	}
	if err := c.Context.Err(); err != nil {
		return err
	}
	switch {
	case ended:
		return context.Canceled
	case !time.Now().Before(c.deadline):
		return context.DeadlineExceeded
	}
	return nil
}

func (c *call) Value(key any) any {
	switch key {
	case callerKey{}:
		return c.caller
	case dispatch.RequestKey{}:
		return &c.account
	}
	return c.Context.Value(key)
}
