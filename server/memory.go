package server

import (
	"fmt"
	"log/slog"
	"runtime"
	gometrics "runtime/metrics"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

// memoryGuard refuses calls while the process needs nearly all the memory that it
// may take, so that those under way finish and the kernel ends nothing.
type memoryGuard struct {
	limit uint64 // bytes; 0: nothing is guarded
	full  atomic.Bool
}

// The guard looks every guardEvery. It closes when what is in use, garbage left
// out, passes closeAt of the limit, or all that is taken passes fullAt of it; it
// opens below openAt. Between, it has garbage collected every collectEvery: what is
// in use is known only then.
const (
	guardEvery   = 100 * time.Millisecond
	collectEvery = time.Second
	closeAt      = 0.85
	fullAt       = 0.98
	openAt       = 0.80
)

// SoftMemoryLimit is what Go's collector should keep to (debug.SetMemoryLimit) in a
// process that may take limit bytes.
func SoftMemoryLimit(limit int64) int64 { return limit / 10 * 9 }

// register shows whether calls are refused for want of memory.
func (g *memoryGuard) register(r prometheus.Registerer) error {
	return r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "pemba_memory_full", Help: "1 while calls are refused because nearly all of --memory-limit is in use, else 0.",
	}, func() float64 {
		if g.full.Load() {
			return 1
		}
		return 0
	}))
}

// watch guards until done is closed.
func (g *memoryGuard) watch(done <-chan struct{}, log *slog.Logger) {
	if g.limit == 0 {
		return
	}
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	var collected time.Time
	for {
		select {
		case <-tick.C:
		case <-done:
			return
		}
		used, taken := memoryInUse()
		limit := float64(g.limit)
		switch full := g.full.Load(); {
		case !full && (float64(used) > closeAt*limit || float64(taken) > fullAt*limit):
			g.full.Store(true)
			log.Warn("memory is nearly full; calls are refused until some is free", "used", used, "taken", taken, "limit", g.limit)
		case full && float64(used) < openAt*limit && float64(taken) < fullAt*limit:
			g.full.Store(false)
			log.Info("memory is free again; calls are taken", "used", used, "taken", taken, "limit", g.limit)
		case full && time.Since(collected) > collectEvery:
			runtime.GC()
			collected = time.Now()
		}
	}
}

// memoryInUse is what the last collection found alive, with stacks, and all that
// the runtime holds of the system's memory, in bytes.
func memoryInUse() (used, taken uint64) {
	samples := []gometrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"},
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
	}
	gometrics.Read(samples)
	at := func(i int) uint64 {
		if samples[i].Value.Kind() != gometrics.KindUint64 {
			return 0
		}
		return samples[i].Value.Uint64()
	}
	return at(0) + at(1), at(2) - at(3)
}

// refusal is what a call is told while memory is full.
func (g *memoryGuard) refusal() error {
	return withRetry(withReason(codes.ResourceExhausted, pembav1.ErrorReason_ERROR_REASON_LIMIT_EXCEEDED,
		fmt.Sprintf("the server's memory is nearly full, of %d bytes (memory-limit); try again later", g.limit),
		"limit", "memory-limit", "maximum", strconv.FormatUint(g.limit, 10)), time.Second)
}
