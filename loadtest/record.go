package loadtest

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Operation is one kind of call of a load.
type Operation string

const (
	CheckOperation Operation = "check"
	// BulkOperation is a bulk check of many questions.
	BulkOperation Operation = "bulk"
	// LookupOperation is a lookup of resources to its last result.
	LookupOperation Operation = "lookup"
	// WriteOperation shares something with a stranger or takes that back.
	WriteOperation Operation = "write"
	// ReadBackOperation is the check after a write, on the next node, with the
	// write's zookie.
	ReadBackOperation Operation = "read-back"
	// FirstOperation is the first result of a lookup.
	FirstOperation Operation = "first result"
	// floorOperation is the health call of a bare gRPC server.
	floorOperation Operation = "floor"
)

// newHistogram counts times from a microsecond to two minutes, to three digits.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(2*time.Minute/time.Microsecond), 3)
}

// recorder keeps what one caller saw since it was emptied last.
type recorder struct {
	mu     sync.Mutex
	times  map[Operation]*hdrhistogram.Histogram
	errors map[codes.Code]int64
	found  int64 // results of lookups
	wrong  []string
	wrongs int64
}

func newRecorder() *recorder {
	return &recorder{times: map[Operation]*hdrhistogram.Histogram{}, errors: map[codes.Code]int64{}}
}

// done records a call that took some time.
func (r *recorder) done(op Operation, took time.Duration, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.errors[status.Code(err)]++
		return
	}
	h := r.times[op]
	if h == nil {
		h = newHistogram()
		r.times[op] = h
	}
	us := max(1, int64(took/time.Microsecond))
	if h.RecordValue(us) != nil {
		_ = h.RecordValue(h.HighestTrackableValue())
	}
}

// maxWrong is how many wrong answers a report quotes.
const maxWrong = 20

func (r *recorder) isWrong(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrongs++
	if len(r.wrong) < maxWrong {
		r.wrong = append(r.wrong, what)
	}
}

func (r *recorder) results(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.found += int64(n)
}

// empty moves what r holds to the end of into.
func (r *recorder) empty(into *recorder) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for op, h := range r.times {
		if h.TotalCount() == 0 {
			continue
		}
		if into.times[op] == nil {
			into.times[op] = newHistogram()
		}
		into.times[op].Merge(h)
		h.Reset()
	}
	for code, n := range r.errors {
		into.errors[code] += n
	}
	clear(r.errors)
	into.found += r.found
	into.wrongs += r.wrongs
	into.wrong = append(into.wrong, r.wrong[:min(len(r.wrong), maxWrong-len(into.wrong))]...)
	r.found, r.wrongs, r.wrong = 0, 0, nil
}

// count is how many calls of op went well.
func (r *recorder) count(op Operation) int64 {
	if h := r.times[op]; h != nil {
		return h.TotalCount()
	}
	return 0
}

// calls is how many calls went well.
func (r *recorder) calls() (n int64) {
	for op, h := range r.times {
		if op != FirstOperation {
			n += h.TotalCount()
		}
	}
	return n
}

func (r *recorder) failures() int64 {
	var n int64
	for _, k := range r.errors {
		n += k
	}
	return n
}

// Latency is how long calls took.
type Latency struct {
	Median time.Duration `json:"p50_ns"`
	P90    time.Duration `json:"p90_ns"`
	P99    time.Duration `json:"p99_ns"`
	P999   time.Duration `json:"p999_ns"`
	Max    time.Duration `json:"max_ns"`
}

func latency(h *hdrhistogram.Histogram) Latency {
	at := func(q float64) time.Duration { return time.Duration(h.ValueAtQuantile(q)) * time.Microsecond }
	return Latency{Median: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: time.Duration(h.Max()) * time.Microsecond}
}

// Point is a percentile: this share of calls, in percent, took at most Time.
type Point struct {
	Percent float64       `json:"percent"`
	Time    time.Duration `json:"ns"`
}

// curve is the whole distribution, in few points.
func curve(h *hdrhistogram.Histogram) []Point {
	var out []Point
	for _, q := range []float64{1, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 99.999, 100} {
		if rest := float64(h.TotalCount()) * (100 - q) / 100; q < 100 && q > 99 && rest < 1 {
			continue // fewer calls than that were made
		}
		out = append(out, Point{q, time.Duration(h.ValueAtQuantile(q)) * time.Microsecond})
	}
	return out
}
