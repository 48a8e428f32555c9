package loadtest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Freshness is how long after a write was acknowledged a node showed it at
// minimize_latency.
type Freshness struct {
	Writer  string  `json:"writer"`
	Reader  string  `json:"reader"`
	Samples int64   `json:"samples"`
	Time    Latency `json:"time"`
	Curve   []Point `json:"curve"`
	// Late is how many writes were not seen within the load's timeout.
	Late int64 `json:"late"`
}

// freshnessWrites is how many writes are looked for, on every node each.
const freshnessWrites = 200

// freshness writes on one node after the other and looks on every node until the
// write is seen, as a caller who knows no zookie would.
func (d *drive) freshness(ctx context.Context) ([]Freshness, error) {
	closed := -1
	for i, p := range d.places {
		if !p.Everybody {
			closed = i
			break
		}
	}
	if closed < 0 {
		return nil, nil
	}
	histograms := map[[2]int]*hdrhistogram.Histogram{}
	late := map[[2]int]int64{}
	var mu sync.Mutex
	for i := range freshnessWrites {
		writer := i % len(d.apis)
		place, guest := d.places[closed], Stranger(d.guests+d.Callers+i)
		if _, err := d.apis[writer].Share(ctx, place, guest); err != nil {
			return nil, fmt.Errorf("measure freshness: write on %s: %w", d.Nodes[writer].Addr, err)
		}
		acknowledged := time.Now()
		var wg sync.WaitGroup
		for reader, api := range d.apis {
			wg.Go(func() {
				took, seen := d.look(ctx, api, place, guest.ID, acknowledged)
				mu.Lock()
				defer mu.Unlock()
				key := [2]int{writer, reader}
				if histograms[key] == nil {
					histograms[key] = newHistogram()
				}
				if !seen {
					late[key]++
					return
				}
				_ = histograms[key].RecordValue(max(1, int64(took/time.Microsecond)))
			})
		}
		wg.Wait()
		if _, err := d.apis[writer].Unshare(ctx, place, guest); err != nil {
			return nil, fmt.Errorf("measure freshness: write on %s: %w", d.Nodes[writer].Addr, err)
		}
	}
	var out []Freshness
	for writer := range d.apis {
		for reader := range d.apis {
			if h := histograms[[2]int{writer, reader}]; h != nil {
				out = append(out, Freshness{Writer: d.Nodes[writer].Addr, Reader: d.Nodes[reader].Addr, Samples: h.TotalCount(),
					Time: latency(h), Curve: curve(h), Late: late[[2]int{writer, reader}]})
			}
		}
	}
	return out, ctx.Err()
}

// look asks until the stranger has the place.
func (d *drive) look(ctx context.Context, api API, p Place, guest string, since time.Time) (time.Duration, bool) {
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	q := Question{Resource: p.Resource, Permission: p.Permission}
	q.Subject.Type, q.Subject.ID = "user", guest
	for ctx.Err() == nil {
		if has, _, err := api.Check(ctx, Consistency{Level: MinimizeLatency}, q); err == nil && has {
			return time.Since(since), true
		}
	}
	return 0, false
}
