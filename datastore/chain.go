package datastore

import (
	"errors"
	"fmt"
)

// What a verification against a checkpoint finds.
var (
	// ErrCut says that a history ends before its checkpoint: its tail was cut off.
	ErrCut = fmt.Errorf("%w: the history ends before its checkpoint", ErrCorrupt)
	// ErrOtherLine says that a history is not the one of the checkpoint.
	ErrOtherLine = errors.New("the history is not the one of the checkpoint")
)

// Chain verifies entries one by one: that each follows the one before and that
// its bytes are those that were hashed. It needs nothing but the entries.
type Chain struct {
	// At is the last entry verified, or what the first must follow.
	At Head
	// Checkpoint, if set, must be met on the way.
	Checkpoint *Checkpoint

	met bool
}

// NewChain returns a chain that begins behind a position of a store's history. If
// a checkpoint is given, ErrOtherLine where it is of another store or line, and
// ErrCompacted where it lies before the start.
func NewChain(store StoreID, start Head, c *Checkpoint) (*Chain, error) {
	n := &Chain{At: start, Checkpoint: c}
	switch {
	case c == nil:
		return n, nil
	case c.ID != store:
		return nil, fmt.Errorf("%w: it is of store %d, the checkpoint of store %s, %d", ErrOtherLine, store, c.Store, c.ID)
	case c.Head.Incarnation != start.Incarnation:
		return nil, fmt.Errorf("%w: the store was restored, or made anew: its incarnation is %x, that of the checkpoint %x", ErrOtherLine, start.Incarnation, c.Head.Incarnation)
	case c.Head.Revision < start.Revision:
		return nil, fmt.Errorf("the history begins behind revision %d, and the checkpoint is of revision %d; use a newer one: %w", start.Revision, c.Head.Revision, ErrCompacted)
	}
	return n, n.meet()
}

// meet compares the checkpoint with where the chain stands.
func (n *Chain) meet() error {
	if n.Checkpoint == nil || n.At.Revision != n.Checkpoint.Head.Revision {
		return nil
	}
	n.met = true
	if n.At.Hash != n.Checkpoint.Head.Hash {
		return BrokenAt(n.At.Revision, fmt.Errorf("%w: change %d has the hash %x, and the checkpoint says %x: it, or one before it, was rewritten", ErrCorrupt,
			n.At.Revision, n.At.Hash, n.Checkpoint.Head.Hash))
	}
	return nil
}

// Next verifies an entry and returns its change. Errors wrap ErrCorrupt, or
// ErrUnknownOperation, and have the revision as a fact.
func (n *Chain) Next(e Entry) (Change, error) {
	want := n.At.Revision + 1
	fail := func(err error) (Change, error) {
		return Change{}, BrokenAt(want, err)
	}
	if e.Revision != want {
		return fail(fmt.Errorf("%w: change %d is missing; in its place stands %d", ErrCorrupt, want, e.Revision))
	}
	if err := VerifyLink(n.At.Hash, e); err != nil {
		return fail(err)
	}
	c, err := Open(e)
	if err != nil {
		return fail(err)
	}
	if c.Time.Before(n.At.Time) {
		return fail(fmt.Errorf("%w: change %d was made before the change before it", ErrCorrupt, want))
	}
	n.At.Revision, n.At.Hash, n.At.Time = e.Revision, e.Hash, c.Time
	return c, n.meet()
}

// End verifies that the chain reached the checkpoint.
func (n *Chain) End() error {
	if n.Checkpoint == nil || n.met {
		return nil
	}
	return BrokenAt(n.At.Revision+1, fmt.Errorf("%w: its last change is %d, and the checkpoint was made at %d, %s", ErrCut,
		n.At.Revision, n.Checkpoint.Head.Revision, n.Checkpoint.Head.Time.Format(checkpointTime)))
}
