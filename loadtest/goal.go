package loadtest

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Goal is the highest rate at which 99 of 100 calls take no longer than a time.
type Goal struct {
	P99  time.Duration `json:"p99_ns"`
	Rate float64       `json:"rate"` // calls a second
	// Tries are the rates that were tried, in order.
	Tries []Try `json:"tries"`
}

// Try is one rate and what came of it.
type Try struct {
	Rate   float64       `json:"rate"`
	P99    time.Duration `json:"p99_ns"` // of the slowest operation
	Failed bool          `json:"failed"` // calls failed or fell behind
	Kept   bool          `json:"kept"`
}

// Seek finds the highest rate, to a twentieth, at which the load keeps p99: it
// doubles until one does not, and then halves the stretch between. Each try takes
// the load's duration.
func (l *Load) Seek(ctx context.Context, p99 time.Duration, told func(Try)) (*Goal, *Report, error) {
	if p99 <= 0 {
		return nil, nil, errors.New("the latency to keep is positive")
	}
	g := &Goal{P99: p99}
	var best *Report
	low, high := 0.0, 0.0
	for rate := 100.0; ; {
		try, report, err := l.try(ctx, rate, p99)
		if err != nil {
			return nil, nil, err
		}
		told(try)
		g.Tries = append(g.Tries, try)
		if try.Kept {
			low, best = rate, report
		} else {
			high = rate
		}
		switch {
		case high == 0:
			rate *= 2
		case high-low <= low/20 || high < 1:
			if best == nil {
				return nil, nil, fmt.Errorf("the load does not keep %s at p99 even at %.1f calls/s", p99, high)
			}
			g.Rate = low
			return g, best, nil
		default:
			rate = (low + high) / 2
		}
	}
}

func (l *Load) try(ctx context.Context, rate float64, p99 time.Duration) (Try, *Report, error) {
	at := *l
	at.Rate, at.Floor, at.Freshness = rate, nil, false
	report, err := at.Run(ctx)
	if err != nil {
		return Try{}, nil, err
	}
	t := Try{Rate: rate, Failed: len(report.Errors) > 0 || float64(report.calls()) < 0.9*rate*at.Duration.Seconds()}
	for _, c := range report.Calls {
		t.P99 = max(t.P99, c.Time.P99)
	}
	t.Kept = !t.Failed && t.P99 <= p99
	return t, report, nil
}
