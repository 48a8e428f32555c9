package loadtest

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Row is one line of the table of what Pemba should reach.
type Row struct {
	Datastore string `json:"datastore"`
	World     Shape  `json:"world"`
	Size      int    `json:"size"`
	What      string `json:"what"`
	Goal      string `json:"goal"`
	Measured  string `json:"measured"`
	// Ratio is the measured value in proportion to the goal: 1 or more is reached.
	Ratio float64 `json:"ratio"`
	// Bound says what kept a row from being measured.
	Bound string `json:"bound,omitempty"`
}

// Goals of the table. The floor is the health RPC of a bare gRPC server in another
// process, driven by the same client in turn.
const (
	goalResident   = 0.7     // of the floor, checks at minimize_latency
	goalConsistent = 0.5     // of the floor, checks at fully_consistent over a database
	goalBulk       = 300_000 // answers a second in bulk checks of 100
	goalGrowth     = 1.5     // CPU of a check in the largest world in that of the smallest
	goalFirst      = 5 * time.Millisecond
	goalResults    = 500_000 // results a second of a lookup after the first
	goalSeen       = 50 * time.Millisecond
	goalStart      = 3 * time.Second
	goalWrites     = 0.7 // of the callers divided by the time of an update of one row
	goalImport     = 0.6 // of a COPY of the same rows
)

// Table collects rows.
type Table struct {
	Machine string            `json:"machine"`
	Rows    []Row             `json:"rows"`
	Costs   []Cost            `json:"costs"`
	Reports []*Report         `json:"reports"`
	cpu     map[string]growth // by datastore and world
}

// Cost is what a world of a size takes; zero is not measured.
type Cost struct {
	Datastore string        `json:"datastore"`
	World     Shape         `json:"world"`
	Size      int           `json:"size"`
	CPU       time.Duration `json:"check_cpu_ns"` // of client and server, of a check
	Check     time.Duration `json:"check_p50_ns"` // of 64 callers at once
	Heap      int64         `json:"live_heap_bytes"`
	First     time.Duration `json:"lookup_first_ns"`
	// Result is how long a lookup takes for each result after the first.
	Result time.Duration `json:"lookup_result_ns"`
}

// cost is that of a world; the last one, for a world is measured as a whole before
// the next.
func (t *Table) cost(datastore string, world Shape, size int) *Cost {
	if n := len(t.Costs); n > 0 && t.Costs[n-1].Datastore == datastore && t.Costs[n-1].World == world && t.Costs[n-1].Size == size {
		return &t.Costs[n-1]
	}
	t.Costs = append(t.Costs, Cost{Datastore: datastore, World: world, Size: size})
	return &t.Costs[len(t.Costs)-1]
}

type growth struct {
	size int
	cpu  time.Duration
}

func (t *Table) add(datastore string, r *Report, what, goal, measured string, ratio float64) {
	t.Rows = append(t.Rows, Row{Datastore: datastore, World: r.World, Size: r.Size, What: what, Goal: goal, Measured: measured, Ratio: ratio})
}

// Checks adds what a load of checks with a floor beside it reached.
func (t *Table) Checks(datastore string, r *Report) {
	t.Reports = append(t.Reports, r)
	goal := goalResident
	if r.Level == FullyConsistent {
		goal = goalConsistent
	}
	if f := r.Floor; f != nil {
		t.add(datastore, r, fmt.Sprintf("check, %s, %d callers", r.Level, r.Callers), fmt.Sprintf("%.1f of the floor", goal),
			fmt.Sprintf("%.2f (%.0f/s of %.0f/s)", f.Ratio, r.PerSecond(CheckOperation), f.PerSecond), f.Ratio/goal)
	}
	cpu := r.cpuPerCall()
	if r.Level == FullyConsistent || cpu == 0 {
		return
	}
	c := t.cost(datastore, r.World, r.Size)
	c.CPU, c.Check = cpu, r.Time(CheckOperation).Median
	if t.cpu == nil {
		t.cpu = map[string]growth{}
	}
	key := datastore + " " + string(r.World)
	if before, ok := t.cpu[key]; ok && before.size < r.Size {
		grown := float64(cpu) / float64(before.cpu)
		t.add(datastore, r, "client and server CPU of a check", fmt.Sprintf("%.1f of that at %d", goalGrowth, before.size), fmt.Sprintf("%.2f (%s)", grown, short(cpu)), goalGrowth/grown)
	} else if !ok {
		t.cpu[key] = growth{r.Size, cpu}
	}
}

// Memory adds the live heap that the world takes of a server.
func (t *Table) Memory(datastore string, w *World, heap int64) {
	t.cost(datastore, w.shape, w.size).Heap = heap
	each := float64(heap) / float64(w.size)
	t.Rows = append(t.Rows, Row{Datastore: datastore, World: w.shape, Size: w.size, What: "live heap a relationship", Goal: "100 bytes", Measured: fmt.Sprintf("%.0f bytes", each), Ratio: 100 / each})
}

// Unmeasured adds a world that was not measured, and why.
func (t *Table) Unmeasured(datastore string, world Shape, size int, why string) {
	t.Rows = append(t.Rows, Row{Datastore: datastore, World: world, Size: size, What: "everything", Measured: "not measured: " + why, Bound: why})
}

// Bulk adds what a load of bulk checks reached.
func (t *Table) Bulk(datastore string, r *Report) {
	t.Reports = append(t.Reports, r)
	rate := r.PerSecond(BulkOperation) * float64(r.BulkSize)
	t.add(datastore, r, fmt.Sprintf("bulk check of %d", r.BulkSize), fmt.Sprintf("%d answers/s", goalBulk), fmt.Sprintf("%.0f/s", rate), rate/goalBulk)
}

// Lookups adds what wide lookups reached.
func (t *Table) Lookups(datastore string, r *Report, w *Wide) {
	r.Wide = w
	c := t.cost(datastore, r.World, r.Size)
	if c.First = w.First.Median; w.PerSecond > 0 {
		c.Result = time.Duration(float64(time.Second) / w.PerSecond)
	}
	t.add(datastore, r, "first result of a lookup", short(goalFirst), short(w.First.Median), float64(goalFirst)/float64(max(1, w.First.Median)))
	t.add(datastore, r, fmt.Sprintf("lookup of %d", w.Results), fmt.Sprintf("%d results/s", goalResults), fmt.Sprintf("%.0f/s", w.PerSecond), w.PerSecond/goalResults)
}

// Writes adds what a load of single writes reached, beside what the datastore does
// by itself; most is how many changes a second are enough.
func (t *Table) Writes(datastore string, r *Report, b *Baseline, most float64) {
	t.Reports = append(t.Reports, r)
	rate, goal, text := r.PerSecond(WriteOperation), most, fmt.Sprintf("%.0f/s", most)
	if alone := b.RowUpdate.Median; alone > 0 {
		if share := goalWrites * float64(r.Callers) / alone.Seconds(); share < most {
			goal, text = share, fmt.Sprintf("%.1f × %d / %s = %.0f/s", goalWrites, r.Callers, short(alone), share)
		}
	}
	t.add(datastore, r, fmt.Sprintf("single writes, %d callers", r.Callers), text, fmt.Sprintf("%.0f/s, p50 %s", rate, short(r.Time(WriteOperation).Median)), rate/goal)
	for _, f := range r.Freshness {
		if f.Writer != f.Reader && f.Samples > 0 {
			t.add(datastore, r, "a write, seen on another node, p99", short(goalSeen), short(f.Time.P99), float64(goalSeen)/float64(max(1, f.Time.P99)))
		}
	}
}

// Filled adds how fast the world came in.
func (t *Table) Filled(datastore string, w *World, f Filled, b *Baseline) {
	if f.Found {
		return
	}
	rate := float64(f.Relationships) / f.Took.Seconds()
	row := Row{Datastore: datastore, World: w.shape, Size: w.size, What: "import", Goal: "(no COPY to compare with)", Measured: fmt.Sprintf("%.0f/s", rate)}
	if b.Copied > 0 {
		row.Goal, row.Ratio = fmt.Sprintf("%.1f of a COPY", goalImport), rate/b.Copied/goalImport
		row.Measured = fmt.Sprintf("%.2f (%.0f/s of %.0f/s)", rate/b.Copied, rate, b.Copied)
	}
	t.Rows = append(t.Rows, row)
}

// Started adds how long a server took from its start to its first answer, and until
// it had all in memory; before, it answers from the datastore.
func (t *Table) Started(datastore string, w *World, took, resident time.Duration) {
	t.Rows = append(t.Rows, Row{Datastore: datastore, World: w.shape, Size: w.size, What: "start, to the first answer", Goal: fmt.Sprintf("%s at 1 million", goalStart), Measured: fmt.Sprintf("%s (all in memory: %s)", short(took), short(resident)), Ratio: float64(goalStart) / float64(took)})
}

// Print writes the table.
func (t *Table) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "datastore\tworld\trelationships\twhat\tgoal\tmeasured\tof the goal")
	for _, r := range t.Rows {
		ratio := ""
		if r.Ratio > 0 {
			ratio = fmt.Sprintf("%.2f", r.Ratio)
		}
		fmt.Fprintln(w, strings.Join([]string{r.Datastore, string(r.World), fmt.Sprint(r.Size), r.What, r.Goal, r.Measured, ratio}, "\t"))
	}
	return w.Flush()
}
