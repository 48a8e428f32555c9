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
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

// changeFlags choose operations of the history.
type changeFlags struct {
	types, relations, subjectTypes, kinds, actors, objects, subjects []string
	reason                                                           string
}

// kinds of operations, as the command line names them.
var kinds = []string{"create", "touch", "delete", "expire", "apply-schema", "create-store", "delete-store", "create-token", "revoke-token", "put-identity", "erase"}

func (f *changeFlags) add(cmd *cobra.Command) {
	var flags *pflag.FlagSet = cmd.Flags()
	flags.StringSliceVar(&f.types, "type", nil, "only relationships of resources of these types")
	flags.StringSliceVar(&f.relations, "relation", nil, "only relationships of these relations")
	flags.StringSliceVar(&f.subjectTypes, "subject-type", nil, "only relationships of subjects of these types")
	flags.StringSliceVar(&f.kinds, "operation", nil, "only these operations: "+strings.Join(kinds, ", "))
	flags.StringSliceVar(&f.actors, "actor", nil, "only what these actors did")
	flags.StringArrayVar(&f.objects, "object", nil, "only what is about this resource, user or group; may be repeated")
	flags.StringArrayVar(&f.subjects, "subject", nil, "only relationships of this subject; may be repeated")
	flags.StringVar(&f.reason, "reason", "", "only changes whose reason holds this")
	suggest(cmd, "operation", kinds...)
}

func (f *changeFlags) toWire() (*pb.ChangeFilter, error) {
	w := &pb.ChangeFilter{ResourceTypes: f.types, Relations: f.relations, SubjectTypes: f.subjectTypes, Actors: f.actors, ReasonContains: f.reason}
	for _, text := range f.objects {
		o, err := tuple.ParseObject(text)
		if err != nil {
			return nil, usage(err)
		}
		w.Objects = append(w.Objects, objectToWire(o))
	}
	for _, text := range f.subjects {
		s, err := tuple.ParseSubject(text)
		if err != nil {
			return nil, usage(err)
		}
		w.Subjects = append(w.Subjects, subjectToWire(s))
	}
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
	StateBefore  string `json:"state_before,omitempty"`
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
			e.Token, e.Store = t.Name, t.Store
			if t.Role != pb.Role_ROLE_UNSPECIFIED {
				e.Role = roleText(t.Role)
			}
		}
		if i := o.Identity; i != nil {
			e.Identity, e.State, e.StateBefore = objectFromWire(i.Object).String(), stateText(i.After), stateText(i.Before)
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
		text := "token " + o.Token.Name + ", " + roleText(o.Token.Role) + " of " + scope(o.Token.Store)
		if o.Token.Role == pb.Role_ROLE_UNSPECIFIED { // it has what its grants say
			text = "token " + o.Token.Name + " of " + scope(o.Token.Store)
		}
		if o.Token.OverlapUntil != nil {
			return "~", yellow, text + ", another secret"
		}
		return "+", green, text
	case o.Kind == pb.OperationKind_OPERATION_KIND_ERASE:
		return "-", red, "attributes of " + objectFromWire(o.Identity.GetObject()).String()
	case o.Identity != nil && o.Identity.After == pb.IdentityState_IDENTITY_STATE_REMOVED:
		return "-", red, "identity " + objectFromWire(o.Identity.Object).String()
	case o.Identity != nil && o.Identity.Before != o.Identity.After && o.Identity.Before != pb.IdentityState_IDENTITY_STATE_UNSPECIFIED:
		return "~", yellow, "identity " + objectFromWire(o.Identity.Object).String() + ", " + stateText(o.Identity.After) + "  (was " + stateText(o.Identity.Before) + ")"
	case o.Identity != nil && o.Identity.Before == o.Identity.After:
		return "~", yellow, "identity " + objectFromWire(o.Identity.Object).String() + ", " + stateText(o.Identity.After)
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
	var l historyList
	cmd := &cobra.Command{
		Use:   "history",
		Short: "List what happened in a store, oldest first: its audit trail",
		Example: `  pemba history
  pemba history --from 100 --limit 10
  pemba history --actor crm --since 2026-01-01 --until 2026-02-01
  pemba history --object document:readme --subject user:ada
  pemba history --type document --relation viewer --output json`,
		Args: takes(),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, _ []string) error {
		r, err := l.request(c)
		if err != nil {
			return err
		}
		return a.listHistory(ctx, c, r)
	})
	f := cmd.Flags()
	f.Uint64Var(&l.from, "from", 0, "the first revision; 0 is the oldest that is kept")
	f.Uint64Var(&l.to, "to", 0, "the last revision; 0 is the head")
	f.StringVar(&l.since, "since", "", "only changes made at this time or later: "+timeForms)
	f.StringVar(&l.until, "until", "", "only changes made at this time or earlier")
	f.Uint64Var(&l.limit, "limit", 0, "how many changes at most; 0 is all")
	l.filter.add(cmd)
	cmd.AddCommand(a.historyExportCommand(), a.historyVerifyCommand(), a.historyCheckpointCommand())
	return a.remote(cmd, true, false)
}

// historyList says what of a history to list.
type historyList struct {
	from, to, limit uint64
	since, until    string
	filter          changeFlags
}

func (l *historyList) request(c *connection) (*pb.ReadHistoryRequest, error) {
	if l.to > 0 && l.from > l.to {
		return nil, usagef("--from %d lies after --to %d", l.from, l.to)
	}
	r := &pb.ReadHistoryRequest{Store: c.store, FromRevision: l.from, ToRevision: l.to, Limit: l.limit}
	var err error
	if r.Filter, err = l.filter.toWire(); err != nil {
		return nil, err
	}
	if r.FromTime, err = parseTime("since", l.since); err != nil {
		return nil, err
	}
	r.ToTime, err = parseTime("until", l.until)
	return r, err
}

// timeForms are the ways to write a time.
const timeForms = "2006-01-02T15:04:05Z, with fractions or another zone if need be, or a day, which begins at midnight UTC"

// parseTime reads a time given by a flag; nil where there is none.
func parseTime(flag, text string) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return timestamppb.New(t), nil
		}
	}
	return nil, usagef("--%s %q is no time; write %s", flag, text, timeForms)
}

func (a *app) listHistory(ctx context.Context, c *connection, r *pb.ReadHistoryRequest) error {
	stream, err := c.histories.ReadHistory(ctx, r)
	if err != nil {
		return err
	}
	out := a.buffered()
	defer out.Flush()
	var last *pb.ReadHistoryResponse
	n := uint64(0)
	err = receive(stream, func(m *pb.ReadHistoryResponse) error {
		last = m
		n += uint64(len(m.Changes))
		for _, change := range m.Changes {
			if err := a.printChange(out, change); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || last != nil && last.Complete {
		return err
	}
	if last == nil {
		return fmt.Errorf("the history is not complete: the server ended it without a word; try again")
	}
	if r.Limit == 0 || n < r.Limit {
		return fmt.Errorf("the history is not complete: the server stopped before revision %d; go on with --from %d", last.NextRevision, last.NextRevision)
	}
	out.Flush()
	fmt.Fprintf(a.err, "there are more; go on with --from %d\n", last.NextRevision)
	return nil
}
