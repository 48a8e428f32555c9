package server

import (
	"context"
	"fmt"
	"strconv"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"

	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

// rates bound how often something may be done, for each of many who do it; nil
// bounds nothing. Each may do at once what a second allows.
type rates struct {
	name      string // of the limit
	what      string // whose it is: "token", or "store"
	perSecond int
	buckets   *lru.Cache[string, *rate.Limiter]
}

// maxBuckets bounds for how many one node remembers what they have used: the
// others have used nothing.
const maxBuckets = 100_000

func newRates(name, what string, perSecond int) (*rates, error) {
	if perSecond == 0 {
		return nil, nil
	}
	buckets, err := lru.New[string, *rate.Limiter](maxBuckets)
	return &rates{name, what, perSecond, buckets}, err
}

// take counts one call of who, or refuses it and says when to try again.
func (r *rates) take(who string) error {
	if r == nil {
		return nil
	}
	bucket, ok := r.buckets.Get(who)
	if !ok {
		bucket = rate.NewLimiter(rate.Limit(r.perSecond), r.perSecond)
		if was, found, _ := r.buckets.PeekOrAdd(who, bucket); found {
			bucket = was
		}
	}
	now := time.Now()
	turn := bucket.ReserveN(now, 1)
	wait := turn.DelayFrom(now)
	if wait == 0 {
		return nil
	}
	turn.CancelAt(now)
	return withRetry(withReason(codes.ResourceExhausted, pembav1.ErrorReason_ERROR_REASON_LIMIT_EXCEEDED,
		fmt.Sprintf("%s %q makes more than %d calls a second (%s); try again in %s", r.what, who, r.perSecond, r.name, wait.Round(time.Millisecond)),
		"limit", r.name, "maximum", strconv.Itoa(r.perSecond)), wait)
}

// admitCaller finds out who calls and whether they may, and then whether they may
// now: the server has the memory, and their token calls left.
func (s *Server) admitCaller(ctx context.Context, method string, given []string) (*caller, error) {
	c, err := s.authenticate(ctx, method, given)
	if err != nil || c.name == "" { // the health service and its like
		return c, err
	}
	if s.guard.full.Load() {
		return nil, s.guard.refusal()
	}
	return c, s.tokenRates.take(c.name)
}
