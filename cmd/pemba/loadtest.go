package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pembadb/pemba/loadtest"
)

// setting is where a load test runs.
type setting struct {
	addrs            []string
	pids             []int
	token, tokenFile string
	tls              clientTLS
	datastore        string
	nodes            int
	floor            bool
}

// trial is a load test as its flags say it.
type trial struct {
	setting
	world, mix, objects, level, api, store string
	size                                   int
	zipf                                   float64
	goal                                   time.Duration
	load                                   loadtest.Load
	jsonFile, htmlFile                     string
}

func (a *app) loadtestCommand() *cobra.Command {
	return group("loadtest", "Measure a server, and check every answer", a.loadtestRunCommand(), a.loadtestTableCommand(), a.loadtestWorldCommand(), a.loadtestFloorCommand())
}

func (a *app) loadtestRunCommand() *cobra.Command {
	var t trial
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Drive servers with a load and report what it took",
		Long: `Makes a world of relationships, imports it into a store of its own, and drives
the servers with calls whose answers it knows. Without --addr it starts servers
of its own on --datastore; databases are migrated.

With --callers alone each caller waits for its answer before it calls again.
With --rate calls begin at fixed times, however long the ones before take, and a
call that had to wait counts from the time it should have begun; those that
could not begin 30 s after the end are not made, and told. With --goal the
highest rate is sought at which 99 of 100 calls take no longer than that.

Between slices of a load without --rate as many callers call the health RPC of a
bare gRPC server in another process: the floor.

Exits with 1 if an answer was wrong, a call failed, or a watcher missed a write.`,
		Example: `  pemba loadtest run
  pemba loadtest run --world deep --size 1000000 --datastore file:load.db --html report.html
  pemba loadtest run --addr 127.0.0.1:50051,127.0.0.1:50052 --mix check=90,write=10 --watchers 2 --freshness
  pemba loadtest run --rate 2000 --duration 1m
  pemba loadtest run --api authzed --addr 127.0.0.1:50051 --token secret
  pemba loadtest run --addr pemba.example:50051 --tls-ca authority.pem --token-file token`,
		Args: takes(),
	}
	f := cmd.Flags()
	t.addSetting(f)
	t.addWorld(f)
	t.addLoad(f)
	cmd.RunE = a.do(func(ctx context.Context, _ []string) error {
		report, err := a.runTrial(ctx, &t)
		if err != nil {
			return err
		}
		if a.json() {
			err = json.NewEncoder(a.out).Encode(report)
		} else {
			err = report.Print(a.out)
		}
		if err = errors.Join(err, t.write([]*loadtest.Report{report})); err != nil {
			return err
		}
		if report.Failed() {
			return errors.New("not everything was as it should be; see the report")
		}
		return nil
	})
	suggest(cmd, "world", spelled(loadtest.Shapes)...)
	suggest(cmd, "consistency", spelled(loadtest.Levels)...)
	suggest(cmd, "objects", "uniform", "zipf")
	suggest(cmd, "api", "pemba", "authzed")
	return cmd
}

func spelled[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, x := range list {
		out[i] = string(x)
	}
	return out
}

func (t *trial) addSetting(f *pflag.FlagSet) {
	f.StringSliceVar(&t.addrs, "addr", nil, "servers that run already, with commas between; absent, servers are started")
	f.IntSliceVar(&t.pids, "pid", nil, "the processes of those servers on this machine, to measure their CPU and memory")
	f.StringVar(&t.token, "token", "", "the token to call with")
	withEnv(f, "token", "PEMBA_TOKEN")
	f.StringVar(&t.tokenFile, "token-file", "", "a file with the token to call with")
	withEnv(f, "token-file", "PEMBA_TOKEN_FILE")
	t.tls.add(f)
	f.StringVar(&t.datastore, "datastore", "memory:", "where the servers that are started keep their data: "+placeForms)
	withEnv(f, "datastore", "PEMBA_DATASTORE")
	f.IntVar(&t.nodes, "nodes", 1, "how many servers to start; more than one need a database")
}

func (t *trial) addWorld(f *pflag.FlagSet) {
	f.StringVar(&t.world, "world", "flat", "the kind of world: "+strings.Join(spelled(loadtest.Shapes), ", "))
	f.IntVar(&t.size, "size", 100_000, "relationships in the world")
	f.Uint64Var(&t.load.Seed, "seed", 1, "draws the world and the calls")
}

func (t *trial) addLoad(f *pflag.FlagSet) {
	f.StringVar(&t.api, "api", "pemba", "what is spoken: pemba, or authzed for servers of authzed.api.v1")
	f.StringVar(&t.store, "store", "", "the store; absent, one for this world (with --api authzed: default)")
	f.StringVar(&t.mix, "mix", "check=1", "operations and their shares: check, bulk, lookup, write")
	f.StringVar(&t.level, "consistency", "minimize_latency", "minimize_latency, fully_consistent, or at_least_as_fresh with the newest zookie a caller saw")
	f.StringVar(&t.objects, "objects", "uniform", "which objects are asked about: uniform, or zipf for a few popular ones")
	f.Float64Var(&t.zipf, "zipf-exponent", 1.1, "how steep zipf is, more than 1")
	f.IntVar(&t.load.Callers, "callers", 64, "calls at once")
	f.Float64Var(&t.load.Rate, "rate", 0, "calls a second that begin at fixed times; 0: as fast as answers come")
	f.DurationVar(&t.goal, "goal", 0, "seek the highest rate at which 99 of 100 calls take no longer than this; each try takes --duration")
	f.DurationVar(&t.load.Warm, "warm", 2*time.Second, "how long to load before measuring")
	f.DurationVar(&t.load.Duration, "duration", 10*time.Second, "how long to measure")
	f.IntVar(&t.load.BulkSize, "bulk-size", 100, "questions in a bulk check")
	f.IntVar(&t.load.Watchers, "watchers", 0, "watches on each server; every write must come to each of them once")
	f.BoolVar(&t.load.Freshness, "freshness", false, "measure how soon each server shows a write")
	f.BoolVar(&t.floor, "floor", true, "measure the health call of a bare gRPC server in turn with the load")
	f.StringVar(&t.jsonFile, "json-file", "", "a file to write the report to as JSON")
	f.StringVar(&t.htmlFile, "html", "", "a file to write the report to as a page with plots")
}

// resolve turns the flags' texts into a load.
func (t *trial) resolve() error {
	if t.size < 1 || t.nodes < 1 {
		return usagef("--size and --nodes are 1 at least")
	}
	if t.nodes > 1 && len(t.addrs) == 0 && !strings.Contains(t.datastore, "://") {
		return usagef("several servers share a database: give --datastore postgres://… or cockroachdb://…")
	}
	if len(t.addrs) == 0 && t.tls.wanted() {
		return usagef("the flags --tls and --tls-... say how the servers of --addr are spoken with, and that is not given")
	}
	if len(t.pids) > len(t.addrs) {
		return usagef("--pid names the processes of --addr, one each")
	}
	mix := map[loadtest.Operation]int{}
	for part := range strings.SplitSeq(t.mix, ",") {
		name, share, _ := strings.Cut(part, "=")
		n, err := strconv.Atoi(share)
		if err != nil {
			return usagef("--mix %q: write operations with their shares, such as check=90,write=10", t.mix)
		}
		mix[loadtest.Operation(name)] += n
	}
	t.load.Mix, t.load.API, t.load.Level = mix, t.api, loadtest.Level(t.level)
	switch t.objects {
	case "uniform":
	case "zipf":
		if t.zipf <= 1 {
			return usagef("--zipf-exponent must be more than 1")
		}
		t.load.Pick = loadtest.Zipf(t.zipf)
	default:
		return usagef("--objects %q is not known; write uniform or zipf", t.objects)
	}
	if t.load.Rate > 0 || t.goal > 0 {
		t.floor = false
	}
	if t.goal < 0 {
		return usagef("--goal is a time to keep, such as 5ms")
	}
	var err error
	if t.load.World, err = loadtest.NewWorld(loadtest.Shape(t.world), t.size, t.load.Seed); err != nil {
		return usage(err)
	}
	if t.load.Store = t.store; t.store == "" {
		if t.load.Store = t.load.World.StoreName(); t.api == "authzed" {
			t.load.Store = "default"
		}
	}
	// What the load itself refuses is a mistake on the command line, too.
	probe := t.load
	probe.Nodes = make([]loadtest.Node, 1)
	if err := probe.Check(); err != nil {
		return usage(err)
	}
	return nil
}

// runTrial runs one load test.
func (a *app) runTrial(ctx context.Context, t *trial) (*loadtest.Report, error) {
	if err := t.resolve(); err != nil {
		return nil, err
	}
	b, err := a.newBench(ctx, t.setting)
	if err != nil {
		return nil, err
	}
	defer b.close()
	t.load.Nodes, t.load.Floor = b.nodes, b.floor
	t.load.Minutely = func(p loadtest.Progress) {
		fmt.Fprintf(a.err, "%s of %s: %d calls, %d failed, %d wrong answers\n", p.Took.Round(time.Second), p.Of, p.Calls, p.Failed, p.Wrong)
	}
	filled, err := a.fill(ctx, &t.load)
	if err != nil {
		return nil, err
	}
	var report *loadtest.Report
	if t.goal > 0 {
		var goal *loadtest.Goal
		goal, report, err = t.load.Seek(ctx, t.goal, func(try loadtest.Try) {
			fmt.Fprintf(a.err, "%.0f calls/s: p99 %s\n", try.Rate, try.P99.Round(time.Microsecond))
		})
		if err == nil {
			report.Goal = goal
		}
	} else {
		report, err = t.load.Run(ctx)
	}
	if err != nil {
		return nil, err
	}
	report.Fill = &filled
	return report, nil
}

// fill imports the world, with its progress on a terminal.
func (a *app) fill(ctx context.Context, l *loadtest.Load) (loadtest.Filled, error) {
	progress := a.progress()
	filled, err := l.Fill(ctx, func(n int) { progress.at(uint64(n), "relationship") })
	progress.done()
	return filled, err
}

// write writes the report's files.
func (t *trial) write(reports []*loadtest.Report) error {
	return t.writeFiles(reports, func(out io.Writer) error { return loadtest.WritePage(out, reports) })
}

// writeTable writes the table's files.
func (t *trial) writeTable(table *loadtest.Table) error { return t.writeFiles(table, table.WritePage) }

func (t *trial) writeFiles(data any, page func(io.Writer) error) error {
	if t.jsonFile != "" {
		b, err := json.MarshalIndent(data, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(t.jsonFile, append(b, '\n'), 0o644); err != nil {
			return fileError("write", err)
		}
	}
	if t.htmlFile == "" {
		return nil
	}
	f, err := os.Create(t.htmlFile)
	if err != nil {
		return fileError("write", err)
	}
	return errors.Join(page(f), f.Close())
}

func (a *app) loadtestFloorCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "floor",
		Short:  "Serve the health RPC of a bare gRPC server, and print where",
		Hidden: true,
		Args:   takes(),
		RunE:   a.do(func(ctx context.Context, _ []string) error { return loadtest.ServeFloor(ctx, a.out) }),
	}
}

func (a *app) loadtestWorldCommand() *cobra.Command {
	var t trial
	var dir string
	cmd := &cobra.Command{
		Use:   "world",
		Short: "Write a world's schema and relationships to files",
		Long: `Writes schema.zed and relationships.txt of a world into a folder, and
questions.txt with questions and their answers, for tools of your own.`,
		Example: `  pemba loadtest world --world deep --size 100000 --dir world`,
		Args:    takes(),
		RunE: a.do(func(context.Context, []string) error {
			w, err := loadtest.NewWorld(loadtest.Shape(t.world), t.size, t.load.Seed)
			if err != nil {
				return usage(err)
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fileError("make", err)
			}
			for name, write := range map[string]func(*os.File) error{
				"schema.zed":        func(f *os.File) error { _, err := f.WriteString(w.Schema()); return err },
				"relationships.txt": func(f *os.File) error { return w.WriteRelationships(f) },
				"questions.txt":     func(f *os.File) error { return w.WriteQuestions(f, 10_000) },
			} {
				f, err := os.Create(filepath.Join(dir, name))
				if err != nil {
					return fileError("write", err)
				}
				if err := errors.Join(write(f), f.Close()); err != nil {
					return fileError("write", err)
				}
			}
			return nil
		}),
	}
	t.addWorld(cmd.Flags())
	cmd.Flags().StringVar(&dir, "dir", ".", "the folder to write to")
	suggest(cmd, "world", spelled(loadtest.Shapes)...)
	return cmd
}
