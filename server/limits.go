package server

import (
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/graph"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/schema"
)

// Limits bound what one request may bring and cost; zero fields take the
// defaults. Each is enforced before the work is done, and an error over one names
// it as the configuration does: RequestBytes is `max-request-bytes`.
// The limits of writing (operations, bytes of a change and of a schema) are
// those of the datastore: see keeper.Options.
type Limits struct {
	// RequestBytes bounds a message from a client (8 MiB).
	RequestBytes int
	// BulkItems bounds the questions of a bulk check (10,000).
	BulkItems int
	// Contextual bounds the contextual relationships of a request (500).
	Contextual int
	// Preconditions bounds the preconditions of a write (100).
	Preconditions int
	// ContextBytes bounds a caveat context, a question's or a written one (64 KiB
	// of JSON).
	ContextBytes int
	// ContextDepth bounds how deep the values of a context nest (32).
	ContextDepth int
	// SchemaBytes bounds a schema that is compared (4 MiB). What may be applied is
	// bounded by the datastore.
	SchemaBytes int
	// GraphNodes bounds the objects' relations and permissions that one question
	// visits (500,000).
	GraphNodes int
	// CaveatCost bounds the evaluation of one caveat, in units of CEL (100,000).
	CaveatCost uint64
	// ExpandResults bounds the nodes and the subjects of an expansion (10,000).
	ExpandResults int
	// LookupPage bounds the limit of a lookup (100,000).
	LookupPage int
	// ListResults bounds the stores or tokens of one answer (1,000).
	ListResults int
	// Streams bounds the calls under way on one connection (1,000).
	Streams int
	// OpenStreams bounds the streams of all connections together (5,000).
	OpenStreams int
	// Connections bounds the connections of clients, over gRPC and HTTP together
	// (10,000).
	Connections int
	// InflightBytes bounds the bytes of requests over 64 KiB that are under way at
	// once, which take up to fifty times that in memory (32 MiB); more wait, up to
	// CallTime.
	InflightBytes int
	// CallTime bounds a call that is not a stream (60 s).
	CallTime time.Duration
	// TokenRate bounds the calls a second of each token, on this node; 0 is no bound.
	TokenRate int
	// StoreRate bounds the calls a second about each store, on this node; 0 is no
	// bound.
	StoreRate int
	// Memory is how many bytes the process may take: when nearly all are in use,
	// calls are refused; 0 is no bound. See [SoftMemoryLimit].
	Memory int64
	// SlowConsumer is how long a stream waits for its client to read (30 s).
	SlowConsumer time.Duration
}

// DefaultLimits are the limits where nothing is configured.
func DefaultLimits() Limits { return Limits{}.withDefaults() }

func (l Limits) withDefaults() Limits {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&l.RequestBytes, 8<<20)
	set(&l.BulkItems, 10_000)
	set(&l.Contextual, 500)
	set(&l.Preconditions, 100)
	set(&l.ContextBytes, schema.DefaultContextLimits.Bytes)
	set(&l.ContextDepth, schema.DefaultContextLimits.Depth)
	set(&l.SchemaBytes, schema.DefaultMaxBytes)
	set(&l.GraphNodes, 500_000)
	set(&l.ExpandResults, 10_000)
	set(&l.LookupPage, 100_000)
	set(&l.ListResults, 1000)
	set(&l.Streams, 1000)
	set(&l.OpenStreams, 5000)
	set(&l.Connections, 10_000)
	set(&l.InflightBytes, 32<<20)
	if l.CaveatCost == 0 {
		l.CaveatCost = schema.DefaultCostLimit
	}
	if l.CallTime == 0 {
		l.CallTime = 60 * time.Second
	}
	if l.SlowConsumer == 0 {
		l.SlowConsumer = 30 * time.Second
	}
	return l
}

// graph is the part that package graph enforces.
func (l Limits) graph() graph.Limits {
	return graph.Limits{Nodes: l.GraphNodes, CaveatCost: l.CaveatCost}
}

// expand is graph for expansions.
func (l Limits) expand() graph.Limits {
	return graph.Limits{Nodes: min(l.GraphNodes, l.ExpandResults), CaveatCost: l.CaveatCost}
}

// context is the part that package schema enforces.
func (l Limits) context() schema.ContextLimits {
	return schema.ContextLimits{Bytes: l.ContextBytes, Depth: l.ContextDepth}
}

// atMost refuses more than a limit allows of what a request brings.
func atMost(n, limit int, name, what, advice string) error {
	if n <= limit {
		return nil
	}
	return datastore.OverLimit(name, limit, fmt.Sprintf("%d %s", n, what), advice)
}

// Bounds of what a caller says of a write, in bytes.
const (
	maxRequestID       = 128
	maxImportRequestID = 96 // offsets are written behind it
	maxReason          = datastore.MaxReason
)

// checkRequest refuses a request id or reason that breaks its rule.
func checkRequest(id, reason string, longest int) error {
	if len(id) > longest {
		return invalidField("request_id", "request_id has %d bytes, more than %d", len(id), longest)
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] >= 0x7f {
			return invalidField("request_id", "request_id %q holds something else than printable ASCII at byte %d", id, i)
		}
	}
	if len(reason) > maxReason {
		return invalidField("reason", "reason has %d bytes, more than %d", len(reason), maxReason)
	}
	for i, r := range reason {
		if r < ' ' || r == 0x7f {
			return invalidField("reason", "reason holds a control character at byte %d", i)
		}
	}
	return nil
}

func invalidField(field, format string, args ...any) error {
	return withReason(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_INVALID_FIELD, fmt.Sprintf(format, args...), "field", field)
}
