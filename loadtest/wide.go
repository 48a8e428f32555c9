package loadtest

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/pembadb/pemba/tuple"
)

// wideGuest is the stranger of wide lookups.
const wideGuest = 99_999_999_999_999

// Wide measures lookups with very many results.
type Wide struct {
	Results   int           `json:"results"`
	First     Latency       `json:"first"`
	Whole     Latency       `json:"whole"`
	PerSecond float64       `json:"results_per_second"` // after the first one
	Took      time.Duration `json:"took_ns"`
}

// Wide shares up to n resources with one stranger and looks them up, one lookup
// after the other, for some time. An answer that is not right is an error.
func (l *Load) Wide(ctx context.Context, n int, length time.Duration) (*Wide, error) {
	api := l.api(l.Nodes[0])
	n = min(n, l.World.resources())
	guest := Stranger(wideGuest)
	place := Place{Relation: l.World.share(), Permission: l.World.permissions()[0]}
	want := map[string]bool{}
	var all iter.Seq[tuple.Relationship] = func(yield func(tuple.Relationship) bool) {
		for i := range n {
			place.Resource = l.World.resource(i)
			if !yield(place.relationship(guest)) {
				return
			}
		}
	}
	for i := range l.World.resources() {
		if i < n || l.World.has(i, 0, l.World.users()) {
			want[l.World.resource(i).ID] = true
		}
	}
	if err := api.Import(ctx, all, func(int) {}); err != nil {
		return nil, fmt.Errorf("share %d resources with a stranger: %w", n, err)
	}
	q := Lookup{ResourceType: l.World.resource(0).Type, Permission: place.Permission, Subject: guest}
	first, whole := newHistogram(), newHistogram()
	out := &Wide{Results: len(want)}
	var rest time.Duration
	var results int
	for start := time.Now(); time.Since(start) < length && ctx.Err() == nil; {
		began := time.Now()
		var firstAt time.Time
		ids, err := api.Lookup(ctx, Consistency{Level: FullyConsistent}, q, func() { firstAt = time.Now() })
		if err != nil {
			return nil, fmt.Errorf("look up %d resources: %w", n, err)
		}
		took := time.Since(began)
		if err := rightly(ids, want); err != nil {
			return nil, err
		}
		_ = first.RecordValue(max(1, int64(firstAt.Sub(began)/time.Microsecond)))
		_ = whole.RecordValue(max(1, int64(took/time.Microsecond)))
		rest += took - firstAt.Sub(began)
		results += len(ids)
		out.Took += took
	}
	out.First, out.Whole = latency(first), latency(whole)
	if rest > 0 {
		out.PerSecond = float64(results) / rest.Seconds()
	}
	return out, ctx.Err()
}

// rightly compares what a lookup found with what it should have found.
func rightly(ids []string, want map[string]bool) error {
	slices.Sort(ids)
	if n := len(slices.Compact(slices.Clone(ids))); n != len(want) || n != len(ids) {
		return fmt.Errorf("a lookup found %d resources, %d of them twice, and should find %d", len(ids), len(ids)-n, len(want))
	}
	for _, id := range ids {
		if !want[id] {
			return fmt.Errorf("a lookup found %s, which it should not", id)
		}
	}
	return nil
}
