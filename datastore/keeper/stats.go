package keeper

import "time"

// Stats is what a Keeper is like at a moment.
type Stats struct {
	Resident, Direct int   // stores in memory, and stores in use that are not
	Loading          int   // stores that are being read into memory
	Loaded           int64 // relationships of those, read so far
	ResidentBytes    int64 // as of ResidentBytes
	// Staleness is how long ago the least recently confirmed store in use was known
	// to be current.
	Staleness time.Duration
	Changes   uint64 // the revisions of all stores that are followed, added up
	// Behind is how many changes the store that is furthest behind has to follow yet,
	// as far as this node knows: zero for one that caught up.
	Behind uint64
	// CatchUps are the reads of what is new that reached a head, and Followed the
	// changes that they brought, since the Keeper was opened.
	CatchUps, Followed uint64
}

// Stats returns what there is to tell.
func (k *Keeper) Stats() (out Stats) {
	now := sinceStart()
	k.stores.Range(func(_, v any) bool {
		s := v.(*store)
		p := s.current.Load()
		if p == nil {
			return true
		}
		if p.far == nil {
			out.Resident++
		} else {
			out.Direct++
		}
		out.Behind = max(out.Behind, s.behind.Load())
		out.Changes += uint64(p.head.Revision)
		// A store that nobody asks is not confirmed.
		if at := p.confirmed.Load(); at != 0 && time.Duration(now-s.used.Load()) < 2*k.opts.MaxStaleness {
			out.Staleness = max(out.Staleness, time.Duration(now-at))
		}
		return true
	})
	for _, l := range k.Loads() {
		out.Loading++
		out.Loaded += l.Relationships
	}
	out.CatchUps, out.Followed = k.catchUps.Load(), k.followed.Load()
	out.ResidentBytes = k.ResidentBytes()
	return out
}
