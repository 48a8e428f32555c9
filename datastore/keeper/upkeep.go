package keeper

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"time"

	"github.com/pembadb/pemba/datastore"
)

// SweeperActor is the actor of changes that sweep expired relationships.
const SweeperActor = "pemba:sweeper"

// collectBatch is how many rows are collected in one transaction.
const collectBatch = 1000

// upkeep sweeps and collects until the Keeper closes.
func (k *Keeper) upkeep() {
	tick := time.NewTicker(k.opts.SweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			ours, err := k.lease(k.ctx)
			if ours {
				err = k.Tidy(k.ctx)
			}
			if err != nil && k.ctx.Err() == nil {
				slog.Error("upkeep of stores failed; it is tried again", "error", err)
			}
		case <-k.ctx.Done():
			return
		}
	}
}

// lease reports whether upkeep is this node's, where several share the Log. It
// passes to another when this one does not renew it three times.
func (k *Keeper) lease(ctx context.Context) (bool, error) {
	l, shared := k.log.(datastore.Leaser)
	if !shared {
		return true, nil
	}
	return l.Lease(ctx, "upkeep", k.node, 3*k.opts.SweepEvery)
}

// Tidy does at once, for every store, what otherwise happens every SweepEvery:
// expired relationships become changes, the floor is raised to the start of the
// retention window, and what lies below it is collected.
func (k *Keeper) Tidy(ctx context.Context) error {
	stores, err := k.Stores(ctx)
	if err != nil {
		return err
	}
	failed := []error{k.settleAll(ctx)}
	for _, st := range stores {
		s, err := k.open(st.ID)
		if err != nil {
			return err
		}
		if err := s.tidy(ctx); err != nil && !errors.Is(err, datastore.ErrNoStore) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func (s *store) tidy(ctx context.Context) error {
	st, err := s.unasked(ctx)
	if err != nil {
		return err
	}
	for due := s.due(st); due; {
		p := &pending{sweep: true, done: make(chan struct{}), request: datastore.Request{
			ID: rand.Text(), Actor: SweeperActor, Reason: "expired",
		}}
		o, err := s.submit(ctx, p)
		if err != nil {
			return err
		}
		due = o.More
	}
	return s.collect(ctx)
}

// due reports whether relationships of a state have expired.
func (s *store) due(st *state) bool {
	now := s.keeper.opts.Now()
	if st.far == nil {
		first, ok := st.expiring.Min()
		return ok && first.at <= now.UnixMicro()
	}
	if last := s.swept.Load(); last != 0 && sinceStart()-last < int64(sweepFarEvery) {
		return false
	}
	s.swept.Store(sinceStart())
	return s.copy(st).expired(now)
}

// collect raises the floor to the state in force when the retention window
// begins, and removes what lies below; then it trims the history.
func (s *store) collect(ctx context.Context) error {
	head, err := s.log.Head(ctx, s.id)
	if err != nil {
		return err
	}
	now := s.keeper.opts.Now()
	floor, err := s.lastBefore(ctx, head.Floor, now.Add(-s.keeper.opts.Retention))
	if err != nil {
		return err
	}
	if floor > head.Floor {
		if err := s.log.SetFloor(ctx, s.id, floor); err != nil {
			return err
		}
	}
	for {
		n, err := s.log.Collect(ctx, s.id, collectBatch)
		if err != nil {
			return err
		}
		if n < collectBatch {
			break
		}
	}
	if s.keeper.opts.HistoryRetention == 0 {
		return nil
	}
	anchor, err := s.log.Anchor(ctx, s.id)
	if err != nil {
		return err
	}
	upTo, err := s.lastBefore(ctx, anchor.Revision, now.Add(-s.keeper.opts.HistoryRetention))
	if err != nil {
		return err
	}
	if upTo = min(upTo, floor); upTo > anchor.Revision {
		return s.log.Trim(ctx, s.id, upTo)
	}
	return nil
}

// lastBefore returns the last revision, from or later, whose change is not
// younger than a time.
func (s *store) lastBefore(ctx context.Context, from datastore.Revision, at time.Time) (datastore.Revision, error) {
	anchor, err := s.log.Anchor(ctx, s.id)
	if err != nil {
		return from, err
	}
	from = max(from, anchor.Revision)
	for {
		_, entries, err := s.log.After(ctx, s.id, from, historyPage)
		if err != nil || len(entries) == 0 {
			return from, err
		}
		for _, e := range entries {
			c, err := datastore.Open(e)
			if err != nil {
				return from, err
			}
			if c.Time.After(at) {
				return from, nil
			}
			from = c.Revision
		}
	}
}
