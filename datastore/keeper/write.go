package keeper

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// maxBatch is how many requests one transaction commits at most.
const maxBatch = 512

// commitRetries bounds how often a batch is tried again after its base turned
// out to be another line, or its outcome unknown.
const commitRetries = 3

// pending is a request that waits for its commit.
type pending struct {
	request datastore.Request
	digest  [32]byte
	named   bool     // the caller gave the request id
	sweep   bool     // expire what has expired, rather than what the request says
	asked   []string // the request ids to look up, rather than carry out a request
	found   map[string]datastore.Change
	done    chan struct{}
	outcome datastore.Outcome
	err     error
}

// Write implements [datastore.Datastore]. A caller whose context ends first does
// not know the outcome; the same request under the same id tells it.
func (k *Keeper) Write(ctx context.Context, id datastore.StoreID, r datastore.Request) (datastore.Outcome, error) {
	if err := k.checkRequest(id, &r); err != nil {
		return datastore.Outcome{}, err
	}
	if r.Schema != nil {
		if err := k.checkSchema(ctx, id, r.Schema); err != nil {
			return datastore.Outcome{}, err
		}
	}
	s, err := k.open(id)
	if err != nil {
		return datastore.Outcome{}, err
	}
	p := &pending{request: r, digest: r.Digest(), named: r.ID != "", done: make(chan struct{})}
	if !p.named {
		p.request.ID = rand.Text()
	}
	outcome, err := s.submit(ctx, p)
	if errors.Is(err, datastore.ErrNoStore) && id != datastore.System {
		k.forget(id)
	}
	return outcome, err
}

// Requested implements [datastore.Datastore]. It takes the head like a write, so
// that no write of this node or another is in flight meanwhile.
func (k *Keeper) Requested(ctx context.Context, id datastore.StoreID, requests ...string) (map[string]datastore.Change, error) {
	s, err := k.open(id)
	if err != nil {
		return nil, err
	}
	p := &pending{asked: requests, done: make(chan struct{})}
	if _, err := s.submit(ctx, p); err != nil {
		return nil, err
	}
	return p.found, nil
}

// lookUp finds the changes that were committed under request ids.
func lookUp(tail datastore.Tail, committed map[string]datastore.Change, requests []string) (map[string]datastore.Change, error) {
	found := map[string]datastore.Change{}
	for _, id := range requests {
		c, ok := committed[id]
		if !ok {
			e, known, err := tail.Request(id)
			if err != nil {
				return nil, err
			}
			if ok = known; ok {
				if c, err = datastore.Open(e); err != nil {
					return nil, err
				}
			}
		}
		if ok {
			found[id] = c
		}
	}
	return found, nil
}

func (s *store) submit(ctx context.Context, p *pending) (datastore.Outcome, error) {
	s.use(sinceStart())
	s.mu.Lock()
	if s.keeper.ctx.Err() != nil {
		s.mu.Unlock()
		return datastore.Outcome{}, datastore.ErrClosed
	}
	if !s.committing {
		if !s.keeper.begin(s.commitQueue) {
			s.mu.Unlock()
			return datastore.Outcome{}, datastore.ErrClosed
		}
		s.committing = true
	}
	s.queue = append(s.queue, p)
	s.mu.Unlock()
	select {
	case <-p.done:
		return p.outcome, p.err
	case <-ctx.Done():
		return datastore.Outcome{}, ctx.Err()
	}
}

// batchLen is how many of the requests that wait go into one transaction. A
// schema ends it, so that no relationship enters the dictionary under names that
// may yet fail to be committed; so does whatever reads users and groups, which
// are judged by what is committed.
func batchLen(queue []*pending) int {
	n := min(len(queue), maxBatch)
	for i, p := range queue[:n] {
		if p.request.Schema != nil || len(p.request.Identities) > 0 || p.request.Erase != nil {
			return i + 1
		}
	}
	return n
}

// commitQueue commits what waits, in batches, until nothing does.
func (s *store) commitQueue() {
	for {
		s.mu.Lock()
		batch := s.queue[:batchLen(s.queue)]
		s.queue = s.queue[len(batch):]
		if len(batch) == 0 {
			s.queue, s.committing = nil, false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		err := s.keeper.closing(s.commit(batch))
		for _, p := range batch {
			if err != nil {
				p.err = err // what was judged against changes that never were is void
			}
			// Not left to the caller, whose context may have ended.
			if p.err == nil && p.outcome.Store != nil {
				// A repeated request may speak of a store that was deleted since.
				p.err = s.keeper.closing(s.keeper.settle(s.keeper.ctx, p.outcome.Store.ID))
			}
			if p.err != nil {
				p.outcome = datastore.Outcome{}
			}
			close(p.done)
		}
	}
}

// commit judges and commits a batch in one transaction. Its error is that of the
// transaction; each request's own is in its pending.
func (s *store) commit(batch []*pending) error {
	ctx := s.keeper.ctx
	ambiguous := false
	for try := 0; ; try++ {
		if s.current.Load() == nil {
			if err := s.renew(nil); err != nil {
				return err
			}
		}
		base, begun := s.current.Load(), sinceStart()
		working := base.state
		var entries []datastore.Entry
		_, err := s.log.Update(ctx, s.id, base.head, func(tail datastore.Tail) ([]datastore.Entry, error) {
			// A Log may call more than once, should its transaction have to be retried.
			working = s.copy(base.state)
			if err := working.follow(tail.Changes); err != nil {
				return nil, err
			}
			working.head.Floor = tail.Head.Floor
			if working.far != nil {
				working.far.prefetch(batch)
			}
			var err error
			entries, err = s.judge(working, batch, tail, ambiguous)
			return entries, err
		})
		if err == nil {
			if p := s.publish(working); p.head.Revision >= working.head.Revision {
				p.confirm(begun)
				s.remember(p, entries)
			} else {
				s.join() // it entered or left memory meanwhile
			}
			return nil
		}
		switch {
		case try == commitRetries || ctx.Err() != nil:
			return err
		case errors.Is(err, datastore.ErrAmbiguous):
			// The request ids tell which were committed: the next transaction holds
			// the head, so nothing can follow before that is known.
			ambiguous = true
			time.Sleep(time.Duration(try+1) * 10 * time.Millisecond)
		case anotherLine(err):
			if err := s.renew(base); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// judge decides each request of a batch alone, in order, and returns the changes
// of those that are carried out. working follows them.
func (s *store) judge(working *state, batch []*pending, tail datastore.Tail, ambiguous bool) ([]datastore.Entry, error) {
	var entries []datastore.Entry
	committed := map[string]datastore.Change{}
	for _, p := range batch {
		p.outcome, p.err = datastore.Outcome{}, nil
		if p.asked != nil {
			var err error
			if p.found, err = lookUp(tail, committed, p.asked); err != nil {
				return nil, err
			}
			continue
		}
		earlier, found := committed[p.request.ID]
		if !found && (p.named || ambiguous) {
			e, ok, err := tail.Request(p.request.ID)
			if err != nil {
				return nil, err
			}
			if found = ok; ok {
				if earlier, err = datastore.Open(e); err != nil {
					return nil, err
				}
			}
		}
		if found {
			p.outcome, p.err = s.repeat(working, p, earlier)
			p.outcome.Repeated = p.outcome.Repeated && !ambiguous
			continue
		}
		j := judgement{state: working, keeper: s.keeper, now: s.keeper.later(working.head.Time), committed: tail.Head.Revision}
		p.err = j.decide(p)
		if working.far != nil && working.far.err != nil {
			return nil, working.far.err // what was decided means nothing
		}
		if p.err != nil {
			continue
		}
		if p.err = j.sized(&p.request); p.err != nil {
			continue
		}
		if j.nothing {
			p.outcome = j.outcome(working.head, working.store)
			continue
		}
		change := datastore.Change{
			Revision: working.head.Revision + 1, Time: j.now, Actor: p.request.Actor, Reason: p.request.Reason,
			RequestID: p.request.ID, Metadata: p.request.Metadata, BodyDigest: p.digest, Operations: j.operations,
		}
		e, err := datastore.Seal(working.head.Hash, change)
		if p.err = err; err != nil {
			continue
		}
		change.Hash, e.Identities = e.Hash, j.versions
		if err := working.apply(change); err != nil {
			return nil, err
		}
		committed[change.RequestID] = change
		entries = append(entries, e)
		p.outcome = j.outcome(working.head, working.store)
	}
	return entries, nil
}

// repeat answers a request whose id was committed before.
func (s *store) repeat(working *state, p *pending, earlier datastore.Change) (datastore.Outcome, error) {
	if earlier.BodyDigest != p.digest {
		return datastore.Outcome{}, reused(p, earlier)
	}
	if err := s.sameIdentities(p, earlier); err != nil {
		return datastore.Outcome{}, err
	}
	j := judgement{keeper: s.keeper, now: earlier.Time}
	for _, o := range earlier.Operations {
		j.add(o)
	}
	j.more = p.request.DeleteWhere != nil && j.filled(&p.request)
	o := j.outcome(datastore.Head{Incarnation: working.head.Incarnation, Revision: earlier.Revision, Hash: earlier.Hash, Time: earlier.Time}, working.store)
	o.Repeated = true
	return o, nil
}

// reused is the error of a request id that stands for another request.
func reused(p *pending, earlier datastore.Change) error {
	return datastore.With(fmt.Errorf("request id %q: %w (revision %d); use a new id for a new request", p.request.ID, datastore.ErrRequestReused, earlier.Revision),
		"request_id", p.request.ID, "revision", strconv.FormatUint(uint64(earlier.Revision), 10))
}

// later is the time of a change that follows one of time t.
func (k *Keeper) later(t time.Time) time.Time {
	now := tuple.Micros(k.opts.Now())
	if now.Before(t) {
		return t
	}
	return now
}
