package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

// changeFlags choose operations of the history.
type changeFlags struct {
	types, relations, subjectTypes, kinds []string
}

// kinds of operations, as the command line names them.
var kinds = []string{"create", "touch", "delete", "expire", "apply-schema", "create-store", "delete-store", "create-token", "revoke-token"}

func (f *changeFlags) add(cmd *cobra.Command) {
	var flags *pflag.FlagSet = cmd.Flags()
	flags.StringSliceVar(&f.types, "type", nil, "only relationships of resources of these types")
	flags.StringSliceVar(&f.relations, "relation", nil, "only relationships of these relations")
	flags.StringSliceVar(&f.subjectTypes, "subject-type", nil, "only relationships of subjects of these types")
	flags.StringSliceVar(&f.kinds, "operation", nil, "only these operations: "+strings.Join(kinds, ", "))
	suggest(cmd, "operation", kinds...)
}

func (f *changeFlags) toWire() (*pb.ChangeFilter, error) {
	w := &pb.ChangeFilter{ResourceTypes: f.types, Relations: f.relations, SubjectTypes: f.subjectTypes}
	for _, k := range f.kinds {
		name := "OPERATION_KIND_" + strings.ToUpper(strings.ReplaceAll(k, "-", "_"))
		kind, ok := pb.OperationKind_value[name]
		if !ok || kind == 0 {
			return nil, usagef("--operation %q is none; write one of %s", k, strings.Join(kinds, ", "))
		}
		w.Operations = append(w.Operations, pb.OperationKind(kind))
	}
	return w, nil
}

// changeJSON is a change as JSON.
type changeJSON struct {
	Revision   uint64          `json:"revision"`
	Time       string          `json:"time"`
	Actor      string          `json:"actor,omitempty"`
	Reason     string          `json:"reason,omitempty"`
	RequestID  string          `json:"request_id,omitempty"`
	Zookie     string          `json:"zookie"`
	Hash       string          `json:"hash"`
	Metadata   any             `json:"metadata,omitempty"`
	Operations []operationJSON `json:"operations"`
	Filtered   uint32          `json:"filtered,omitempty"`
}

type operationJSON struct {
	Operation    string `json:"operation"`
	Before       string `json:"before,omitempty"`
	After        string `json:"after,omitempty"`
	Schema       string `json:"schema,omitempty"`
	Hash         string `json:"hash,omitempty"`
	PreviousHash string `json:"previous_hash,omitempty"`
	Store        string `json:"store,omitempty"`
	StoreID      uint64 `json:"store_id,omitempty"`
	Token        string `json:"token,omitempty"`
	Role         string `json:"role,omitempty"`
	Identity     string `json:"identity,omitempty"`
	State        string `json:"state,omitempty"`
}

// metadataText is what a caller attached to a change, as JSON.
func metadataText(m *structpb.Struct) string {
	// What came as a Struct can always be written as JSON.
	text, _ := tuple.EncodeJSON(m.AsMap())
	return text
}

func kindText(k pb.OperationKind) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(k.String(), "OPERATION_KIND_")), "_", "-")
}

func changeDocument(c *pb.Change) changeJSON {
	j := changeJSON{Revision: c.Revision, Time: clock(c.Time.AsTime()), Actor: c.Actor, Reason: c.Reason,
		RequestID: c.RequestId, Zookie: c.Zookie, Hash: hex.EncodeToString(c.Hash), Filtered: c.Filtered,
		Operations: []operationJSON{}}
	if c.Metadata != nil {
		j.Metadata = rawJSON(metadataText(c.Metadata))
	}
	for _, o := range c.Operations {
		e := operationJSON{Operation: kindText(o.Kind)}
		if o.Before != nil {
			e.Before = relationshipFromWire(o.Before).String()
		}
		if o.After != nil {
			e.After = relationshipFromWire(o.After).String()
		}
		if s := o.Schema; s != nil {
			e.Schema, e.Hash, e.PreviousHash = s.Text, s.Hash, s.PreviousHash
		}
		if s := o.Store; s != nil {
			e.Store, e.StoreID = s.Store, s.Id
		}
		if t := o.Token; t != nil {
			e.Token, e.Role, e.Store = t.Name, roleText(t.Role), t.Store
		}
		if i := o.Identity; i != nil {
			e.Identity, e.State = objectFromWire(i.Object).String(), stateText(i.After)
		}
		j.Operations = append(j.Operations, e)
	}
	return j
}

// printChange prints a change: a line about it, then one for each operation.
func (a *app) printChange(out io.Writer, c *pb.Change) error {
	if a.json() {
		return document(out, changeDocument(c))
	}
	line := fmt.Sprintf("revision %d  %s  %s", c.Revision, clock(c.Time.AsTime()), c.Actor)
	if c.Reason != "" {
		line += "  " + c.Reason
	}
	if _, err := fmt.Fprintln(out, a.paint(a.out, bold, line)); err != nil {
		return err
	}
	if len(c.Operations) == 0 && c.Filtered == 0 {
		fmt.Fprintln(out, "    (nothing changed)")
	}
	if c.Metadata != nil {
		fmt.Fprintf(out, "    metadata %s\n", metadataText(c.Metadata))
	}
	for _, o := range c.Operations {
		mark, paint, text := operationText(o)
		fmt.Fprintf(out, "  %s %s\n", a.paint(a.out, paint, mark), text)
	}
	if c.Filtered > 0 {
		fmt.Fprintf(out, "    %s left out by the filter\n", plural(uint64(c.Filtered), "operation"))
	}
	return nil
}

// operationText says in a line what an operation did.
func operationText(o *pb.Operation) (mark string, paint colour, text string) {
	before, after := relationshipFromWire(o.Before).String(), relationshipFromWire(o.After).String()
	switch {
	case o.Schema != nil:
		return "=", yellow, "schema " + short(o.Schema.Hash)
	case o.Store != nil && o.Kind == pb.OperationKind_OPERATION_KIND_DELETE_STORE:
		return "-", red, "store " + o.Store.Store
	case o.Store != nil:
		return "+", green, "store " + o.Store.Store
	case o.Token != nil && o.Kind == pb.OperationKind_OPERATION_KIND_REVOKE_TOKEN:
		return "-", red, "token " + o.Token.Name
	case o.Token != nil:
		return "+", green, "token " + o.Token.Name + ", " + roleText(o.Token.Role) + " of " + scope(o.Token.Store)
	case o.Kind == pb.OperationKind_OPERATION_KIND_ERASE:
		return "-", red, "attributes of " + objectFromWire(o.Identity.GetObject()).String()
	case o.Identity != nil && o.Identity.After == pb.IdentityState_IDENTITY_STATE_REMOVED:
		return "-", red, "identity " + objectFromWire(o.Identity.Object).String()
	case o.Identity != nil:
		return "+", green, "identity " + objectFromWire(o.Identity.Object).String() + ", " + stateText(o.Identity.After)
	case o.Kind == pb.OperationKind_OPERATION_KIND_EXPIRE:
		return "-", red, before + "  (expired)"
	case o.After == nil:
		return "-", red, before
	case o.Before == nil:
		return "+", green, after
	case before == after:
		return "~", yellow, after
	}
	return "~", yellow, after + "  (was " + before + ")"
}

// stateText is the state of a user or group in a word; empty where it was
// erased.
func stateText(s pb.IdentityState) string {
	if s == pb.IdentityState_IDENTITY_STATE_UNSPECIFIED {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(s.String(), "IDENTITY_STATE_"))
}

// short is enough of a hash to tell two apart.
func short(hash string) string { return hash[:min(12, len(hash))] }

// scope names the stores that a token is for.
func scope(store string) string {
	if store == "" {
		return "all stores"
	}
	return "store " + store
}

func (a *app) historyCommand() *cobra.Command {
	var from, to, limit uint64
	var filter changeFlags
	cmd := &cobra.Command{
		Use:   "history",
		Short: "List what happened in a store, oldest first: its audit trail",
		Example: `  pemba history
  pemba history --from 100 --limit 10
  pemba history --type document --relation viewer --output json`,
		Args: takes(),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, _ []string) error {
		f, err := filter.toWire()
		if err != nil {
			return err
		}
		if to > 0 && from > to {
			return usagef("--from %d lies after --to %d", from, to)
		}
		stream, err := c.histories.ReadHistory(ctx, &pb.ReadHistoryRequest{
			Store: c.store, FromRevision: from, ToRevision: to, Filter: f, Limit: limit,
		})
		if err != nil {
			return err
		}
		out := a.buffered()
		defer out.Flush()
		var last *pb.ReadHistoryResponse
		n := uint64(0)
		err = receive(stream, func(r *pb.ReadHistoryResponse) error {
			last = r
			n += uint64(len(r.Changes))
			for _, change := range r.Changes {
				if err := a.printChange(out, change); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || last == nil || last.Complete {
			return err
		}
		if limit == 0 || n < limit {
			return fmt.Errorf("the history is not complete: the server stopped before revision %d; go on with --from %d", last.NextRevision, last.NextRevision)
		}
		out.Flush()
		fmt.Fprintf(a.err, "there are more; go on with --from %d\n", last.NextRevision)
		return nil
	})
	f := cmd.Flags()
	f.Uint64Var(&from, "from", 0, "the first revision; 0 is the oldest that is kept")
	f.Uint64Var(&to, "to", 0, "the last revision; 0 is the head")
	f.Uint64Var(&limit, "limit", 0, "how many changes at most; 0 is all")
	filter.add(cmd)
	return a.remote(cmd, true, false)
}

// watcher follows a history over the life of several servers.
type watcher struct {
	app       *app
	c         *connection
	request   *pb.WatchRequest
	limit     uint64
	delivered uint64 // changes
	messages  uint64 // changes and signs of life
}

// errEnough ends a watch that has delivered what was asked for.
var errEnough = fmt.Errorf("enough changes")

func (a *app) watchCommand() *cobra.Command {
	var from uint64
	var after string
	var limit uint64
	var heartbeat time.Duration
	var filter changeFlags
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Follow the changes of a store as they happen",
		Long: `Follow the changes of a store, without a gap: from now on, from a revision, or
after a zookie. When the server restarts, it goes on where it was. Ctrl-C ends it.`,
		Example: `  pemba watch
  pemba watch --from 1 --type document --output json`,
		Args: takes(),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, _ []string) error {
		f, err := filter.toWire()
		if err != nil {
			return err
		}
		if from > 0 && after != "" {
			return usagef("--from and --after exclude each other; give one")
		}
		w := &watcher{app: a, c: c, limit: limit, request: &pb.WatchRequest{Store: c.store, Filter: f}}
		if from > 0 {
			w.request.Start = &pb.WatchRequest_FromRevision{FromRevision: from}
		}
		if after != "" {
			w.request.Start = &pb.WatchRequest_AfterZookie{AfterZookie: after}
		}
		if heartbeat > 0 {
			w.request.Heartbeat = durationpb.New(heartbeat)
		}
		return w.run(ctx)
	})
	f := cmd.Flags()
	f.Uint64Var(&from, "from", 0, "the first revision; absent, what happens from now on")
	f.StringVar(&after, "after", "", "a zookie: what happened after it")
	f.Uint64Var(&limit, "limit", 0, "end after this many changes; 0 never ends")
	f.DurationVar(&heartbeat, "heartbeat", 0, "how often the server gives a sign of life; absent, it decides")
	filter.add(cmd)
	return a.remote(cmd, true, false)
}

// run watches, and again where a server goes away that was there before.
func (w *watcher) run(ctx context.Context) error {
	waiting := false
	for {
		before := w.messages
		err := w.once(ctx)
		switch {
		case err == errEnough || ctx.Err() != nil:
			return nil
		case err == nil:
			return fmt.Errorf("the server at %s ended the watch; go on with --after ZOOKIE, the zookie of the last change", w.c.addr)
		case !gone(err) || w.messages == 0:
			return err
		}
		if !waiting || w.messages > before {
			waiting = true
			fmt.Fprintf(w.app.err, "the server at %s went away; waiting for it\n", w.c.addr)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// once watches until the stream ends, and notes where to go on.
func (w *watcher) once(ctx context.Context) error {
	stream, err := w.c.watches.Watch(ctx, w.request)
	if err != nil {
		return err
	}
	return receive(stream, func(r *pb.WatchResponse) error {
		w.messages++
		if change := r.GetChange(); change != nil {
			if err := w.app.printChange(w.app.out, change); err != nil {
				return err
			}
			w.delivered++
		}
		w.request.Start = &pb.WatchRequest_AfterZookie{AfterZookie: r.Zookie}
		if w.limit > 0 && w.delivered >= w.limit {
			return errEnough
		}
		return nil
	})
}
