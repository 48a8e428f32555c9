package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
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

Memory is the bound of the sizes: the world is held by the server, and once more,
smaller, by the load test.`,
		Example: `  pemba loadtest table
  pemba loadtest table --datastore file: --datastore postgres://pemba@127.0.0.1/pemba --size 100000,1000000 --html table.html`,
		Args: takes(),
		RunE: a.do(func(ctx context.Context, _ []string) error {
			if len(r.sizes) == 0 || r.each <= 0 {
				return usagef("--size and --each need something to measure")
			}
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
			return errors.Join(err, t.write(r.table.Reports))
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
		Mix: map[loadtest.Operation]int{loadtest.CheckOperation: 1}, Callers: 64, Warm: 2 * time.Second, Duration: r.each, BulkSize: 100, Seed: r.seed}
	r.app.complain("%s, %s world of %d relationships", name, shape, size)
	filled, err := r.app.fill(ctx, &load)
	if err != nil {
		return err
	}
	r.table.Filled(name, w, filled)
	if strings.HasPrefix(uri, "file:") {
		if err := r.restart(ctx, name, b, s, &load); err != nil {
			return err
		}
	}
	return r.measure(ctx, name, load, b, shared)
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
	r.table.Started(name, load.World, time.Since(began))
	return nil
}

func (r *tableRun) measure(ctx context.Context, name string, load loadtest.Load, b *bench, shared bool) error {
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
		l.Callers, l.Freshness = callers, shared && callers == 16
		if report, err = run(l); err != nil {
			return err
		}
		goal := 8000.0
		if name == "cockroachdb" {
			goal = 4000
		}
		r.table.Writes(name, report, goal)
	}
	wide, err := load.Wide(ctx, 100_000, r.each)
	if err != nil {
		return err
	}
	r.table.Lookups(name, checks, wide)
	return nil
}
