package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pembadb/pemba/loadtest"
)

// tableRun is a run of the table: every row, for each datastore and size.
type tableRun struct {
	app        *app
	datastores []string
	sizes      []int
	each       time.Duration
	seed       uint64
	table      loadtest.Table
}

func (a *app) loadtestTableCommand() *cobra.Command {
	var t trial
	r := tableRun{app: a}
	cmd := &cobra.Command{
		Use:   "table",
		Short: "Measure everything that Pemba should reach, as one table",
		Long: `Starts servers on each datastore and measures, in worlds of each size, what Pemba
should reach, each beside its goal. Goals that are a share of the floor are
measured in turn with it. The file: datastore without a path is a temporary file.

Rows of writes and of the import stand beside what the datastore does by itself:
committed updates of one row, and a COPY of the same rows. Memory is the bound of
the sizes: each server holds the world, and the load test once more. A world for
which the machine has no memory is left out, with a row that says so.`,
		Example: `  pemba loadtest table
  pemba loadtest table --datastore file: --datastore postgres://pemba@127.0.0.1/pemba --size 100000,1000000 --html table.html`,
		Args: takes(),
		RunE: a.do(func(ctx context.Context, _ []string) error {
			if len(r.sizes) == 0 || r.each <= 0 {
				return usagef("--size and --each need something to measure")
			}
			r.table.Machine = machine()
			for _, d := range r.datastores {
				if err := r.on(ctx, d); err != nil {
					return err
				}
			}
			var err error
			if a.json() {
				err = json.NewEncoder(a.out).Encode(r.table.Rows)
			} else {
				err = r.table.Print(a.out)
			}
			return errors.Join(err, t.writeTable(&r.table))
		}),
	}
	f := cmd.Flags()
	f.StringArrayVar(&r.datastores, "datastore", []string{"file:"}, "where to keep the data, once for each datastore: "+placeForms)
	f.IntSliceVar(&r.sizes, "size", []int{100_000, 1_000_000}, "relationships in the worlds, smallest first")
	f.DurationVar(&r.each, "each", 10*time.Second, "how long each measurement takes")
	f.Uint64Var(&r.seed, "seed", 1, "draws the worlds")
	f.StringVar(&t.jsonFile, "json-file", "", "a file to write all reports to as JSON")
	f.StringVar(&t.htmlFile, "html", "", "a file to write all reports to as a page with plots")
	return cmd
}

// on measures one datastore.
func (r *tableRun) on(ctx context.Context, datastore string) error {
	uri := datastore
	name, _, _ := strings.Cut(datastore, ":")
	for _, shape := range []loadtest.Shape{loadtest.Flat, loadtest.Deep} {
		for _, size := range r.sizes {
			if datastore == "file:" {
				dir, err := os.MkdirTemp("", "pemba-loadtest-")
				if err != nil {
					return err
				}
				defer os.RemoveAll(dir)
				uri = "file:" + dir + "/pemba.db"
			}
			if err := r.world(ctx, name, uri, shape, size); err != nil {
				return fmt.Errorf("%s, %s world of %d: %w", name, shape, size, err)
			}
		}
	}
	return nil
}

// world measures one world on one datastore.
func (r *tableRun) world(ctx context.Context, name, uri string, shape loadtest.Shape, size int) error {
	if why := tooLarge(uri, size); why != "" {
		r.table.Unmeasured(name, shape, size, why)
		return nil
	}
	w, err := loadtest.NewWorld(shape, size, r.seed)
	if err != nil {
		return err
	}
	s := setting{datastore: uri, nodes: 1, floor: true}
	shared := strings.Contains(uri, "://")
	if shared {
		s.nodes = 2
	}
	b, err := r.app.newBench(ctx, s)
	if err != nil {
		return err
	}
	defer func() { b.close() }()
	load := loadtest.Load{World: w, Nodes: b.nodes[:1], Floor: b.floor, API: "pemba", Store: w.StoreName(), Level: loadtest.MinimizeLatency,
		Mix: map[loadtest.Operation]int{loadtest.CheckOperation: 1}, Callers: 64, Warm: min(2*time.Second, r.each), Duration: r.each, BulkSize: 100, Seed: r.seed}
	r.app.complain("%s, %s world of %d relationships", name, shape, size)
	empty, err := b.nodes[0].LiveHeap(ctx)
	if err != nil {
		return err
	}
	alone, err := loadtest.MeasureBaseline(ctx, uri, w)
	if err != nil {
		return err
	}
	filled, err := r.app.fill(ctx, &load)
	if err != nil {
		return err
	}
	r.table.Filled(name, w, filled, alone)
	if strings.HasPrefix(uri, "file:") {
		if err := r.restart(ctx, name, b, s, &load); err != nil {
			return err
		}
	}
	everywhere := load
	everywhere.Nodes = b.nodes
	if err := everywhere.Resident(ctx); err != nil {
		return err
	}
	heap, err := load.Nodes[0].LiveHeap(ctx)
	if err != nil {
		return err
	}
	if !filled.Found {
		r.table.Memory(name, w, heap-empty)
	}
	return r.measure(ctx, name, load, b, alone, shared)
}

// Bytes that a relationship takes while a world is measured, with room for what a
// collection has not freed: of a server, and of the load test.
const (
	serverBytes = 300
	clientBytes = 250
)

// tooLarge says why a world of a size is not measured; empty: it is.
func tooLarge(uri string, size int) string {
	need, free := int64(size)*(serverBytes+clientBytes), loadtest.MemoryFree()
	if strings.Contains(uri, "://") {
		need += int64(size) * serverBytes // a second server
	}
	if free == 0 || need <= free {
		return ""
	}
	return fmt.Sprintf("it takes about %.1f GiB of memory, and %.1f GiB are free", float64(need)/(1<<30), float64(free)/(1<<30))
}

// machine is what figures were measured on.
func machine() string {
	out := fmt.Sprintf("%s/%s, %d processors", runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	if free := loadtest.MemoryFree(); free > 0 {
		out += fmt.Sprintf(", %.1f GiB of memory free", float64(free)/(1<<30))
	}
	return out + ", " + runtime.Version() + ", pemba " + version()
}

// restart starts the server anew, and measures how long it takes to answer.
func (r *tableRun) restart(ctx context.Context, name string, b *bench, s setting, load *loadtest.Load) error {
	last := b.own[len(b.own)-1]
	last.stop()
	b.own = b.own[:len(b.own)-1]
	b.nodes = nil
	began := time.Now()
	if err := b.start(ctx, s); err != nil {
		return err
	}
	load.Nodes = b.nodes
	if err := load.Ask(ctx); err != nil {
		return err
	}
	answered := time.Since(began)
	if err := load.Resident(ctx); err != nil {
		return err
	}
	r.table.Started(name, load.World, answered, time.Since(began))
	return nil
}

func (r *tableRun) measure(ctx context.Context, name string, load loadtest.Load, b *bench, alone *loadtest.Baseline, shared bool) error {
	run := func(l loadtest.Load) (*loadtest.Report, error) {
		report, err := l.Run(ctx)
		if err == nil && report.Failed() {
			err = errors.Join(errors.New("not everything was as it should be"), report.Print(r.app.err))
		}
		return report, err
	}
	checks, err := run(load)
	if err != nil {
		return err
	}
	r.table.Checks(name, checks)
	if shared {
		l := load
		l.Level, l.Callers = loadtest.FullyConsistent, 128
		report, err := run(l)
		if err != nil {
			return err
		}
		r.table.Checks(name, report)
	}
	l := load
	l.Floor, l.Mix, l.Callers = nil, map[loadtest.Operation]int{loadtest.BulkOperation: 1}, 8
	report, err := run(l)
	if err != nil {
		return err
	}
	r.table.Bulk(name, report)
	l.Mix, l.Nodes = map[loadtest.Operation]int{loadtest.WriteOperation: 1}, b.nodes
	for _, callers := range []int{1, 16, 128} {
		l.Callers, l.OneWay, l.Freshness = callers, true, shared && callers == 16
		if report, err = run(l); err != nil {
			return err
		}
		most := 8000.0
		if name == "cockroachdb" {
			most = 4000
		}
		r.table.Writes(name, report, alone, most)
	}
	wide, err := load.Wide(ctx, 100_000, r.each)
	if err != nil {
		return err
	}
	r.table.Lookups(name, checks, wide)
	return nil
}
