package loadtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// Node is a server under load.
type Node struct {
	Addr string
	Conn *grpc.ClientConn
	// PID is its process on this machine, whose CPU time and memory are measured;
	// zero: unknown.
	PID int
	// Metrics is where it serves profiles on this machine; empty: nowhere.
	Metrics string
}

// Load is what to drive servers with.
type Load struct {
	World *World
	Nodes []Node
	API   string // a key of Dialects
	Store string
	Level Level
	// Mix is how often each operation is called, in proportion to one another.
	Mix map[Operation]int
	// Pick draws the resources that calls are about; nil is Uniform.
	Pick Picker
	// Callers call at once. Each waits for its answer before its next call, unless
	// Rate is set: then that many calls a second begin at times fixed beforehand,
	// and each takes from its time on, so that a server that stalls is not spared
	// the calls that would have come meanwhile.
	Callers int
	Rate    float64
	// Warm goes before what is measured, for Duration.
	Warm, Duration time.Duration
	BulkSize       int // questions a bulk check
	// OneWay leaves out the check that follows a write: what it takes to write alone.
	OneWay bool
	// Watchers watch each node; every write must come to each of them once.
	Watchers int
	// Freshness measures how soon each node shows, at minimize_latency, a write
	// acknowledged by another.
	Freshness bool
	// Floor is a bare gRPC server in another process, whose health call is measured
	// between slices of the load, as the floor for what such a call takes; nil:
	// not measured. It needs a load without Rate.
	Floor *grpc.ClientConn
	// Timeout ends a call; zero is 30 s. Calls that a rate asks for and that could not
	// even begin so long after the load's end are not made, and reported.
	Timeout time.Duration
	// Minutely, if not nil, is told each minute how the load is doing.
	Minutely func(Progress)
	// Patience is how long after the load watchers may take to see everything; zero
	// is 10 s.
	Patience time.Duration
	Seed     uint64
}

// Progress is how a load is doing, for so much of the time that it takes.
type Progress struct {
	Took, Of             time.Duration
	Calls, Failed, Wrong int64
}

const (
	questions = 50_000 // that a load draws beforehand; they go round
	places    = 10_000
	lookups   = 16
	slicesOf  = 5 // a load with a floor comes in slices
)

// Check says what is wrong with l, if anything.
func (l *Load) Check() error {
	weights := 0
	for op, n := range l.Mix {
		if !slices.Contains(mixable, op) {
			return fmt.Errorf("a load cannot be mixed of %q; choose from %s", op, names(mixable))
		}
		if n < 0 {
			return fmt.Errorf("the share of %s is negative", op)
		}
		weights += n
	}
	switch {
	case weights == 0:
		return errors.New("the mix is empty")
	case len(l.Nodes) == 0:
		return errors.New("no server to load")
	case Dialects[l.API] == nil:
		return fmt.Errorf("there is no API %q; choose from %s", l.API, names(slices.Sorted(maps.Keys(Dialects))))
	case !slices.Contains(Levels, l.Level):
		return fmt.Errorf("there is no consistency %q; choose from %s", l.Level, names(Levels))
	case l.Callers < 1:
		return errors.New("a load has one caller at least")
	case l.Rate < 0 || l.Rate > 0 && l.Floor != nil:
		return errors.New("a rate is positive, and a load at a rate has no floor beside it")
	case l.Duration <= 0 || l.Warm < 0:
		return errors.New("a load takes some time")
	case l.BulkSize < 1 || l.Watchers < 0:
		return errors.New("a bulk check has one question at least, and watchers are not negative")
	}
	return nil
}

var mixable = []Operation{CheckOperation, BulkOperation, LookupOperation, WriteOperation}

func names[T ~string](list []T) string {
	texts := make([]string, len(list))
	for i, x := range list {
		texts[i] = string(x)
	}
	return strings.Join(texts, ", ")
}

// drive is a load under way.
type drive struct {
	*Load
	apis      []API
	questions []Question
	lookups   []Lookup
	places    []Place
	mix       []Operation // drawn from
	callers   []*caller
	guests    int // strangers of this run begin here
	unbegun   int64
	ledger    *ledger
}

// Run drives the servers and reports what it saw. The world must be in the store
// (see [Load.Fill]). An error is a fault of the set-up: failing calls and wrong
// answers are in the report.
func (l *Load) Run(ctx context.Context) (*Report, error) {
	if err := l.Check(); err != nil {
		return nil, err
	}
	if l.Timeout == 0 {
		l.Timeout = 30 * time.Second
	}
	if l.Patience == 0 {
		l.Patience = 10 * time.Second
	}
	d := l.prepare()
	if err := d.firstCall(ctx); err != nil {
		return nil, err
	}
	report := l.newReport()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	if err := d.watch(watching); err != nil {
		return nil, err
	}
	if l.Warm > 0 {
		d.slice(ctx, l.Warm, nil)
		d.collect(newRecorder())
	}
	if err := d.measure(ctx, report); err != nil {
		return nil, err
	}
	d.tidy(ctx)
	report.Watch = d.ledger.settle(ctx, l.Patience)
	stop()
	if l.Freshness {
		var err error
		if report.Freshness, err = d.freshness(ctx); err != nil {
			return nil, err
		}
	}
	return report, ctx.Err()
}

func (l *Load) api(n Node) API { return Dialects[l.API](n.Conn, l.Store) }

func (l *Load) prepare() *drive {
	d := &drive{Load: l, ledger: newLedger(l.Watchers * len(l.Nodes))}
	r := rand.New(rand.NewPCG(l.Seed, 2))
	d.guests = int(rand.Uint64N(1e13)) // another run's strangers are not this one's
	pick := l.Pick
	if pick == nil {
		pick = Uniform
	}
	for _, n := range l.Nodes {
		d.apis = append(d.apis, l.api(n))
	}
	for _, op := range mixable {
		for range l.Mix[op] {
			d.mix = append(d.mix, op)
		}
	}
	for range questions {
		d.questions = append(d.questions, l.World.QuestionAbout(r, pick))
	}
	if l.Mix[LookupOperation] > 0 {
		for range lookups {
			d.lookups = append(d.lookups, l.World.Lookup(r))
		}
	}
	for range places {
		d.places = append(d.places, l.World.Place(r, pick))
	}
	for i := range l.Callers {
		d.callers = append(d.callers, &caller{
			drive: d, number: i, guest: d.guests + i, record: newRecorder(),
			random: rand.New(rand.NewPCG(l.Seed, uint64(i)+3)),
		})
	}
	return d
}

// firstCall asks each node one question, so that a load that cannot work ends
// before it starts.
func (d *drive) firstCall(ctx context.Context) error {
	for i, api := range d.apis {
		call, cancel := context.WithTimeout(ctx, d.Timeout)
		_, _, err := api.Check(call, Consistency{Level: FullyConsistent}, d.questions[0])
		cancel()
		if err != nil {
			return fmt.Errorf("ask %s a first question: %w", d.Nodes[i].Addr, err)
		}
	}
	return nil
}

// measure runs the slices of the load, with the floor between them.
func (d *drive) measure(ctx context.Context, report *Report) error {
	n, each := 1, d.Duration
	if d.Floor != nil {
		n, each = slicesOf, d.Duration/slicesOf
	}
	var pids []int
	for _, node := range d.Nodes {
		if node.PID != 0 {
			pids = append(pids, node.PID)
		}
	}
	servers, client := newMeter(pids), newMeter([]int{os.Getpid()})
	total, floor := newRecorder(), newRecorder()
	d.unbegun = 0 // in the warm-up
	minute := time.Now()
	var loaded, floored time.Duration
	for range n {
		if client.start() != nil {
			client = newMeter(nil) // this system does not tell
		}
		if err := servers.start(); err != nil {
			return err
		}
		loaded += d.slice(ctx, each, func(took time.Duration, r *recorder) {
			report.second(loaded+took, r)
			r.empty(total)
			if d.Minutely != nil && time.Since(minute) >= time.Minute {
				minute = time.Now()
				d.Minutely(Progress{Took: loaded + took, Of: d.Duration, Calls: total.calls(), Failed: total.failures(), Wrong: total.wrongs})
			}
		})
		if err := errors.Join(servers.stop(), client.stop()); err != nil {
			return err
		}
		if d.Floor != nil {
			floored += d.floor(ctx, each/2, floor)
		}
	}
	report.fill(total, loaded, servers, client)
	report.Unbegun = d.unbegun
	if d.Floor != nil {
		report.beside(floor, floored)
	}
	return nil
}

// slice lets the callers call for some time, and tells tick each second what they
// saw in it. It returns how long it took.
func (d *drive) slice(ctx context.Context, length time.Duration, tick func(took time.Duration, r *recorder)) time.Duration {
	start := time.Now()
	end := start.Add(length)
	var next atomic.Int64
	var wg sync.WaitGroup
	for _, c := range d.callers {
		wg.Go(func() { c.run(ctx, start, end, &next) })
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for going := true; going; {
		select {
		case <-second.C:
		case <-done:
			going = false
		}
		if tick != nil {
			r := newRecorder()
			d.collect(r)
			tick(time.Since(start), r)
		}
	}
	if d.Rate > 0 {
		d.unbegun += max(0, d.due(length)-next.Load())
	}
	return time.Since(start)
}

// due is how many calls a rate asks for in a time: those that begin before its end.
func (d *drive) due(length time.Duration) int64 {
	return int64(math.Ceil(d.Rate * length.Seconds()))
}

func (d *drive) collect(into *recorder) {
	for _, c := range d.callers {
		c.record.empty(into)
	}
}

// tidy takes back what strangers were given.
func (d *drive) tidy(ctx context.Context) {
	for _, c := range d.callers {
		for _, p := range c.shared {
			call, cancel := context.WithTimeout(ctx, d.Timeout)
			zookie, err := c.api().Unshare(call, p, Stranger(c.guest))
			cancel()
			if err == nil {
				d.ledger.acknowledged(zookie)
			}
		}
		for _, p := range c.doubtful {
			call, cancel := context.WithTimeout(ctx, d.Timeout)
			_, _ = c.api().Unshare(call, p, Stranger(c.guest))
			cancel()
		}
		c.shared, c.doubtful = nil, nil
	}
}

// floor calls the bare server for some time with as many callers.
func (d *drive) floor(ctx context.Context, length time.Duration, into *recorder) time.Duration {
	bare := healthv1.NewHealthClient(d.Floor)
	start := time.Now()
	var wg sync.WaitGroup
	for _, c := range d.callers {
		wg.Go(func() {
			for time.Since(start) < length && ctx.Err() == nil {
				began := time.Now()
				call, cancel := context.WithTimeout(ctx, d.Timeout)
				_, err := bare.Check(call, &healthv1.HealthCheckRequest{})
				cancel()
				c.record.done(floorOperation, time.Since(began), err)
			}
		})
	}
	wg.Wait()
	d.collect(into)
	return time.Since(start)
}
