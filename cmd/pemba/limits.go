package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/dispatch"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/server"
)

// addLimits registers a flag for every limit, each with its environment
// variable: --max-bulk-items and PEMBA_MAX_BULK_ITEMS. Errors name limits by
// these flags.
func addLimits(f *pflag.FlagSet, l *server.Limits, k *keeper.Options, d *dispatch.Options) {
	*l = server.DefaultLimits()
	count := func(v *int, name string, standard int, usage string) {
		f.IntVar(v, name, standard, usage)
		withEnv(f, name, limitVariable(name))
	}
	count(&l.RequestBytes, "max-request-bytes", l.RequestBytes, "bytes of a message from a client")
	count(&l.BulkItems, "max-bulk-items", l.BulkItems, "questions of a bulk check")
	count(&l.Contextual, "max-contextual", l.Contextual, "contextual relationships of a request")
	count(&l.Preconditions, "max-preconditions", l.Preconditions, "preconditions of a write")
	count(&l.ContextBytes, "max-context-bytes", l.ContextBytes, "bytes of a caveat context, given or written")
	count(&l.ContextDepth, "max-context-depth", l.ContextDepth, "how deep a caveat context nests")
	count(&l.GraphNodes, "max-graph-nodes", l.GraphNodes, "objects' relations and permissions that one question visits")
	count(&l.ExpandResults, "max-expand-results", l.ExpandResults, "nodes, and subjects, of an expansion")
	count(&l.LookupPage, "max-lookup-page", l.LookupPage, "results in a page of a lookup")
	count(&l.ListResults, "max-list-results", l.ListResults, "stores or tokens in one answer")
	count(&l.Streams, "max-streams", l.Streams, "calls under way on one connection")
	count(&l.OpenStreams, "max-open-streams", l.OpenStreams, "streams of all connections together")
	count(&l.Connections, "max-connections", l.Connections, "connections of clients, over gRPC and HTTP together; more are closed")
	count(&l.InflightBytes, "max-inflight-bytes", l.InflightBytes, "bytes of requests over 64 KiB under way at once; more wait")
	f.Uint64Var(&l.CaveatCost, "max-caveat-cost", l.CaveatCost, "cost of one caveat's evaluation, in units of CEL")
	withEnv(f, "max-caveat-cost", limitVariable("max-caveat-cost"))
	f.DurationVar(&l.CallTime, "max-call-time", l.CallTime, "how long a call that is not a stream may take")
	withEnv(f, "max-call-time", limitVariable("max-call-time"))
	f.DurationVar(&l.SlowConsumer, "max-slow-consumer", l.SlowConsumer, "how long a stream waits for its client to read")
	withEnv(f, "max-slow-consumer", limitVariable("max-slow-consumer"))
	f.IntVar(&l.TokenRate, "token-rate", 0, "calls a second of each token, on this node; 0 is no bound")
	withEnv(f, "token-rate", limitVariable("token-rate"))
	f.IntVar(&l.StoreRate, "store-rate", 0, "calls a second about each store, on this node; 0 is no bound")
	withEnv(f, "store-rate", limitVariable("store-rate"))
	f.Var((*byteSize)(&l.Memory), "memory-limit", "memory that the process may take, such as 2GiB; calls are refused while nearly all is in use; 0 is no bound")
	withEnv(f, "memory-limit", limitVariable("memory-limit"))
	addResidency(f, k, d)
	count(&d.Reads, "max-datastore-reads", dispatch.DefaultReads, "reads of the datastore at once, for stores out of memory")
	count(&d.Waiting, "max-waiting-reads", dispatch.DefaultWaiting, "reads of the datastore that wait for their turn; those beyond are refused")
	count(&k.MaxOperations, "max-operations", keeper.DefaultMaxOperations, "operations of one change")
	count(&k.MaxChangeBytes, "max-change-bytes", keeper.DefaultMaxChangeBytes, "bytes of one change, with what it replaces")
	count(&k.MaxSchemaBytes, "max-schema-bytes", schema.DefaultMaxBytes, "bytes of a schema")
}

// addResidency registers what may be in memory.
func addResidency(f *pflag.FlagSet, k *keeper.Options, d *dispatch.Options) {
	f.Var((*byteSize)(&k.ResidentMemory), "resident-memory", "memory for stores, such as 2GiB; what does not fit is read from the datastore; 0 is no bound")
	withEnv(f, "resident-memory", "PEMBA_RESIDENT_MEMORY")
	f.IntVar(&k.ResidentMaxRelationships, "resident-max-relationships", 0, "relationships of a store in memory; a larger one is read from the datastore; 0 is no bound")
	withEnv(f, "resident-max-relationships", "PEMBA_RESIDENT_MAX_RELATIONSHIPS")
	k.ReplayMemory = keeper.DefaultReplayMemory
	f.Var((*byteSize)(&k.ReplayMemory), "replay-memory", "memory for a store as it was before the retention window, which is made from its history")
	withEnv(f, "replay-memory", "PEMBA_REPLAY_MEMORY")
	d.Bytes = dispatch.DefaultBytes
	f.Var((*byteSize)(&d.Bytes), "cache-memory", "memory for what was read of stores that are not in memory; 0 remembers nothing")
	withEnv(f, "cache-memory", "PEMBA_CACHE_MEMORY")
}

// byteSize is a number of bytes, written as one or with a unit: 512MiB, 2GiB.
type byteSize int64

var units = []struct {
	name string
	size int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

func (b *byteSize) Type() string { return "bytes" }

func (b *byteSize) String() string {
	for _, u := range units {
		if n := int64(*b); n >= u.size && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(*b), 10)
}

func (b *byteSize) Set(text string) error {
	number, unit := text, int64(1)
	for _, u := range units {
		if rest, found := strings.CutSuffix(text, u.name); found {
			number, unit = rest, u.size
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return fmt.Errorf("%q is not a number of bytes; write one such as 2GiB, 512MiB or 1000000", text)
	}
	*b = byteSize(n * unit)
	return nil
}

func limitVariable(flag string) string {
	return "PEMBA_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// leastMemory is the least that a process may be told to take, in bytes.
const leastMemory = 64 << 20

// checkLimits refuses limits under which nothing could be asked. What may be
// compared is what may be applied.
func checkLimits(f *pflag.FlagSet, l *server.Limits, k *keeper.Options) error {
	l.SchemaBytes = k.MaxSchemaBytes
	var failed error
	for flag, value := range map[string]int{"token-rate": l.TokenRate, "store-rate": l.StoreRate} {
		if value < 0 {
			return usagef("--%s %d is below 0; 0 is no bound", flag, value)
		}
	}
	if l.Memory > 0 && l.Memory < leastMemory {
		return usagef("--memory-limit %d is less than a server needs; give 64MiB or more", l.Memory)
	}
	if l.Memory > 0 && k.ResidentMemory > l.Memory/2 {
		return usagef("--resident-memory %s is more than half of --memory-limit %s; requests and garbage need the rest", (*byteSize)(&k.ResidentMemory), (*byteSize)(&l.Memory))
	}
	f.VisitAll(func(flag *pflag.Flag) {
		value := flag.Value.String()
		if strings.HasPrefix(flag.Name, "max-") && (strings.HasPrefix(value, "-") || value == "0" || value == "0s") && failed == nil {
			failed = usagef("--%s %s is below 1; leave it out for its default", flag.Name, value)
		}
	})
	return failed
}
