package loadtest

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what a load saw. Its JSON is the form for machines: times are in
// nanoseconds, memory in bytes.
type Report struct {
	Started  time.Time         `json:"started"`
	World    Shape             `json:"world"`
	Size     int               `json:"size"` // relationships
	Seed     uint64            `json:"seed"`
	API      string            `json:"api"`
	Nodes    []string          `json:"nodes"`
	Level    Level             `json:"consistency"`
	Mix      map[Operation]int `json:"mix"`
	Callers  int               `json:"callers"`
	Rate     float64           `json:"rate,omitempty"`
	BulkSize int               `json:"bulk_size"`
	Took     time.Duration     `json:"took_ns"`
	Fill     *Filled           `json:"fill,omitempty"`
	Calls    []Calls           `json:"calls"`
	Results  int64             `json:"lookup_results"`
	Wrong    int64             `json:"wrong_answers"`
	Wrongs   []string          `json:"wrong_answers_quoted,omitempty"`
	Errors   map[string]int64  `json:"errors,omitempty"` // by gRPC code
	// Unbegun are calls that the rate asked for and that were not made, because the
	// servers were too late with those before.
	Unbegun   int64        `json:"calls_not_begun,omitempty"`
	Seconds   []Second     `json:"seconds"`
	Servers   []Process    `json:"servers,omitempty"`
	Client    *Process     `json:"client,omitempty"`
	Floor     *Floor       `json:"floor,omitempty"`
	Freshness []Freshness  `json:"freshness,omitempty"`
	Watch     *WatchResult `json:"watch,omitempty"`
	Wide      *Wide        `json:"wide_lookup,omitempty"`
	Goal      *Goal        `json:"goal,omitempty"`
}

// Calls is what all calls of an operation took.
type Calls struct {
	Operation Operation `json:"operation"`
	Count     int64     `json:"count"`
	PerSecond float64   `json:"per_second"`
	Time      Latency   `json:"time"`
	Curve     []Point   `json:"curve"`
}

// Second is one second of a load.
type Second struct {
	At     time.Duration       `json:"at_ns"` // its end, from the start of what is measured
	Calls  map[Operation]int64 `json:"calls"`
	Median time.Duration       `json:"p50_ns"` // of the operation called most
	P99    time.Duration       `json:"p99_ns"`
	Errors int64               `json:"errors"`
}

// Process is what a process used.
type Process struct {
	Name   string        `json:"name"`
	PID    int           `json:"pid"`
	CPU    time.Duration `json:"cpu_ns"`
	Memory int64         `json:"memory_bytes"`
	// PerCall is the CPU time in proportion to all calls of the load.
	PerCall time.Duration `json:"cpu_per_call_ns"`
}

// Floor is the health call of a bare gRPC server, made in turn with the load by
// as many callers.
type Floor struct {
	PerSecond float64 `json:"per_second"`
	Time      Latency `json:"time"`
	// Ratio is the calls a second of the load in those of the floor.
	Ratio float64 `json:"ratio"`
}

func (l *Load) newReport() *Report {
	r := &Report{Started: time.Now().UTC(), World: l.World.shape, Size: l.World.size, Seed: l.World.seed, API: l.API,
		Level: l.Level, Mix: l.Mix, Callers: l.Callers, Rate: l.Rate, BulkSize: l.BulkSize, Errors: map[string]int64{}}
	for _, n := range l.Nodes {
		r.Nodes = append(r.Nodes, n.Addr)
	}
	return r
}

// second adds what was seen in a second that ends at a time.
func (r *Report) second(at time.Duration, seen *recorder) {
	s := Second{At: at, Calls: map[Operation]int64{}, Errors: seen.failures()}
	var most int64
	for _, op := range reported {
		n := seen.count(op)
		if n == 0 {
			continue
		}
		s.Calls[op] = n
		if n > most && op != FirstOperation {
			most = n
			t := latency(seen.times[op])
			s.Median, s.P99 = t.Median, t.P99
		}
	}
	r.Seconds = append(r.Seconds, s)
}

// reported are the operations of a report, in order.
var reported = []Operation{CheckOperation, BulkOperation, LookupOperation, FirstOperation, WriteOperation, ReadBackOperation}

// fill takes over everything that was seen.
func (r *Report) fill(total *recorder, took time.Duration, servers, client *meter) {
	r.Took = took
	for _, op := range reported {
		if total.count(op) == 0 {
			continue
		}
		h := total.times[op]
		r.Calls = append(r.Calls, Calls{Operation: op, Count: h.TotalCount(), PerSecond: float64(h.TotalCount()) / took.Seconds(), Time: latency(h), Curve: curve(h)})
	}
	for code, n := range total.errors {
		r.Errors[code.String()] = n
	}
	r.Results, r.Wrong, r.Wrongs = total.found, total.wrongs, total.wrong
	calls := max(1, r.calls())
	process := func(name string, m *meter, i int) Process {
		return Process{Name: name, PID: m.pids[i], CPU: m.cpu[i], Memory: m.memory[i], PerCall: m.cpu[i] / time.Duration(calls)}
	}
	for i := range servers.pids {
		r.Servers = append(r.Servers, process("server", servers, i))
	}
	if len(client.pids) > 0 {
		p := process("client", client, 0)
		r.Client = &p
	}
}

// calls is how many calls the load made that went well.
func (r *Report) calls() int64 {
	var n int64
	for _, c := range r.Calls {
		if c.Operation != FirstOperation {
			n += c.Count
		}
	}
	return n
}

// PerSecond is how many calls of an operation went well in a second.
func (r *Report) PerSecond(op Operation) float64 {
	for _, c := range r.Calls {
		if c.Operation == op {
			return c.PerSecond
		}
	}
	return 0
}

// Time is what calls of an operation took.
func (r *Report) Time(op Operation) Latency {
	for _, c := range r.Calls {
		if c.Operation == op {
			return c.Time
		}
	}
	return Latency{}
}

// Failed reports whether anything was not as it should be: a wrong answer, a call
// that failed or could not begin, a change that a watcher missed or saw twice.
func (r *Report) Failed() bool {
	return r.Wrong > 0 || len(r.Errors) > 0 || r.Unbegun > 0 || r.Watch != nil && (r.Watch.Missed > 0 || r.Watch.Doubled > 0 || len(r.Watch.Errors) > 0)
}

func (r *Report) beside(seen *recorder, took time.Duration) {
	h := seen.times[floorOperation]
	if h == nil || took == 0 {
		return
	}
	f := &Floor{PerSecond: float64(h.TotalCount()) / took.Seconds(), Time: latency(h)}
	f.Ratio = float64(r.calls()) / r.Took.Seconds() / f.PerSecond
	r.Floor = f
}

// Print writes the report as tables.
func (r *Report) Print(out io.Writer) error {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	how := fmt.Sprintf("%d callers", r.Callers)
	if r.Rate > 0 {
		how = fmt.Sprintf("%.0f calls/s by %d callers", r.Rate, r.Callers)
	}
	fmt.Fprintf(&text, "%s world of %d relationships, %s, %s, %s on %s for %s\n\n", r.World, r.Size, r.API, r.Level, how, strings.Join(r.Nodes, " and "), r.Took.Round(time.Millisecond))
	fmt.Fprintln(w, "operation\tcalls\tper second\tp50\tp90\tp99\tp99.9\tmax\t")
	row := func(name string, count string, rate float64, t Latency) {
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%s\t%s\t%s\t%s\t%s\t\n", name, count, rate, short(t.Median), short(t.P90), short(t.P99), short(t.P999), short(t.Max))
	}
	for _, c := range r.Calls {
		row(string(c.Operation), fmt.Sprint(c.Count), c.PerSecond, c.Time)
	}
	if r.Floor != nil {
		row("floor", "", r.Floor.PerSecond, r.Floor.Time)
	}
	for _, f := range r.Freshness {
		row(fmt.Sprintf("seen on %s, written on %s", f.Reader, f.Writer), fmt.Sprint(f.Samples), 0, f.Time)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(&text)
	for _, line := range r.remarks() {
		fmt.Fprintln(&text, line)
	}
	_, err := io.WriteString(out, text.String())
	return err
}

// remarks are the report's findings, a line each.
func (r *Report) remarks() []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	say("wrong answers: %d", r.Wrong)
	for _, w := range r.Wrongs {
		say("  %s", w)
	}
	codes := make([]string, 0, len(r.Errors))
	for code := range r.Errors {
		codes = append(codes, code)
	}
	slices.Sort(codes)
	for _, code := range codes {
		say("failed calls: %d with %s", r.Errors[code], code)
	}
	if len(codes) == 0 {
		say("failed calls: 0")
	}
	if r.Unbegun > 0 {
		say("calls not begun: %d; the servers did not keep the rate", r.Unbegun)
	}
	if bulk := r.PerSecond(BulkOperation); bulk > 0 {
		say("bulk checks: %.0f answers/s", bulk*float64(r.BulkSize))
	}
	if r.Results > 0 {
		say("lookups: %.0f results/s", float64(r.Results)/r.Took.Seconds())
	}
	if r.Floor != nil {
		say("of the floor: %.2f", r.Floor.Ratio)
	}
	for _, p := range append(slices.Clone(r.Servers), deref(r.Client)...) {
		say("%s %d: %s of CPU, %s a call; %d MiB resident", p.Name, p.PID, p.CPU.Round(time.Millisecond), short(p.PerCall), p.Memory>>20)
	}
	if r.Watch != nil {
		say("%d watchers: %d writes, %d missed, %d seen twice", r.Watch.Watchers, r.Watch.Writes, r.Watch.Missed, r.Watch.Doubled)
		for _, e := range r.Watch.Errors {
			say("  %s", e)
		}
	}
	if w := r.Wide; w != nil {
		say("lookup of %d: first result after %s, then %.0f/s", w.Results, short(w.First.Median), w.PerSecond)
	}
	if g := r.Goal; g != nil {
		say("highest rate that keeps %s at p99: %.0f calls/s", g.P99, g.Rate)
	}
	if f := r.Fill; f != nil && !f.Found {
		say("import: %d relationships in %s, %.0f/s", f.Relationships, f.Took.Round(time.Millisecond), float64(f.Relationships)/f.Took.Seconds())
	}
	return out
}

func deref[T any](p *T) []T {
	if p == nil {
		return nil
	}
	return []T{*p}
}

// short is a time with three digits.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(100 * time.Nanosecond).String()
}
