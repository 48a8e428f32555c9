package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

func (a *app) relationshipCommand() *cobra.Command {
	g := group("relationship", "Write and read relationships",
		a.relationshipWriteCommand(), a.relationshipSetCommand(), a.relationshipDeleteCommand(),
		a.relationshipReadCommand(), a.importCommand(), a.exportCommand())
	g.Aliases = []string{"rel"}
	return g
}

// writeFlags are what every write can carry.
type writeFlags struct {
	requestID, reason string
	must, mustNot     []string
}

func (w *writeFlags) add(flags *pflag.FlagSet) {
	addRequest(flags, &w.requestID, &w.reason)
	flags.StringArrayVar(&w.must, "must-match", nil, "only if a relationship matches this pattern; may be repeated")
	flags.StringArrayVar(&w.mustNot, "must-not-match", nil, "only if no relationship matches this pattern; may be repeated")
}

// addRequest adds what the history remembers of a write.
func addRequest(flags *pflag.FlagSet, id, reason *string) {
	flags.StringVar(id, "request-id", "", "an id that makes a repeated request harmless; Pemba draws one where it is absent")
	flags.StringVar(reason, "reason", "", "why, for the history")
}

func (w *writeFlags) preconditions() ([]*pb.Precondition, error) {
	var all []*pb.Precondition
	for _, text := range w.must {
		f, err := parsePattern(text)
		if err != nil {
			return nil, usage(err)
		}
		all = append(all, &pb.Precondition{Condition: &pb.Precondition_MustMatch{MustMatch: filterToWire(f)}})
	}
	for _, text := range w.mustNot {
		f, err := parsePattern(text)
		if err != nil {
			return nil, usage(err)
		}
		all = append(all, &pb.Precondition{Condition: &pb.Precondition_MustNotMatch{MustNotMatch: filterToWire(f)}})
	}
	return all, nil
}

// writeJSON is what a write did, as JSON.
type writeJSON struct {
	Revision  uint64 `json:"revision"`
	Zookie    string `json:"zookie"`
	RequestID string `json:"request_id"`
	Created   uint64 `json:"created"`
	Replaced  uint64 `json:"replaced"`
	Deleted   uint64 `json:"deleted"`
	Repeated  bool   `json:"repeated,omitempty"`
	Complete  *bool  `json:"complete,omitempty"`
}

func (a *app) printWrite(w writeJSON) error {
	if a.json() {
		return document(a.out, w)
	}
	var parts []string
	for _, p := range []struct {
		n    uint64
		what string
	}{{w.Created, "created"}, {w.Replaced, "replaced"}, {w.Deleted, "deleted"}} {
		if p.n > 0 {
			parts = append(parts, thousands(p.n)+" "+p.what)
		}
	}
	if len(parts) == 0 {
		parts = []string{"nothing to change"}
	}
	if w.Repeated {
		parts = append(parts, "by the same request before")
	}
	a.printf("%s (revision %d, zookie %s)\n", strings.Join(parts, ", "), w.Revision, w.Zookie)
	if w.Complete != nil && !*w.Complete {
		a.printf("more match than the limit\n")
	}
	return nil
}

func (a *app) relationshipWriteCommand() *cobra.Command {
	var w writeFlags
	var create bool
	var deletes []string
	cmd := &cobra.Command{
		Use:   "write RELATIONSHIP...",
		Short: "Write relationships, in one change",
		Long: `Write relationships, all or none, in one change. One that exists gets the caveat
and expiration given here; with --create it is an error instead. "-" reads
relationships from standard input, one a line.`,
		Example: `  pemba relationship write 'document:readme#viewer@user:ada'
  pemba relationship write 'document:plan#viewer@user:bea[on_day:{"day":"monday"}]'
  pemba relationship write 'document:plan#viewer@user:cid[expiration:2030-01-01T00:00:00Z]'
  pemba relationship write --delete 'document:readme#viewer@user:ada' 'document:readme#editor@user:ada'`,
		Args: takes("[RELATIONSHIP...]"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		if len(args)+len(deletes) == 0 {
			return usagef("relationship write takes RELATIONSHIP..., none was given")
		}
		written, err := a.relationshipArguments(args)
		if err != nil {
			return err
		}
		var operations []*pb.WriteOperation
		for _, r := range written {
			if create {
				operations = append(operations, &pb.WriteOperation{Operation: &pb.WriteOperation_Create{Create: r}})
			} else {
				operations = append(operations, &pb.WriteOperation{Operation: &pb.WriteOperation_Touch{Touch: r}})
			}
		}
		deleted, err := deleteOperations(deletes)
		if err != nil {
			return err
		}
		return a.write(ctx, c, append(operations, deleted...), &w)
	})
	cmd.Flags().BoolVar(&create, "create", false, "refuse relationships that exist")
	cmd.Flags().StringArrayVar(&deletes, "delete", nil, "delete this relationship in the same change; may be repeated")
	w.add(cmd.Flags())
	return a.remote(cmd, true, false)
}

// relationshipArguments parses relationships given as arguments, and those of standard input for "-".
func (a *app) relationshipArguments(args []string) ([]*pb.Relationship, error) {
	var all []*pb.Relationship
	add := func(text string) error {
		r, err := tuple.Parse(text)
		if err != nil {
			return err
		}
		w, err := relationshipToWire(r)
		all = append(all, w)
		return err
	}
	for _, text := range args {
		if text != "-" {
			if err := add(text); err != nil {
				return nil, usage(err)
			}
			continue
		}
		before := len(all)
		err := eachLine("-", a.in, func(n int, line string) error {
			if err := add(line); err != nil {
				return fmt.Errorf("standard input, line %d: %w", n, err)
			}
			return nil
		})
		if err == nil && len(all) == before {
			err = errors.New("standard input holds no relationships; write one a line")
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func deleteOperations(texts []string) ([]*pb.WriteOperation, error) {
	var operations []*pb.WriteOperation
	for _, text := range texts {
		r, err := tuple.Parse(text)
		if err != nil {
			return nil, usage(err)
		}
		// Caveat and expiration are no part of what is deleted.
		w, err := relationshipToWire(tuple.Relationship{Key: r.Key})
		if err != nil {
			return nil, usage(err)
		}
		operations = append(operations, &pb.WriteOperation{Operation: &pb.WriteOperation_Delete{Delete: w}})
	}
	return operations, nil
}

// write sends operations as one request.
func (a *app) write(ctx context.Context, c *connection, operations []*pb.WriteOperation, w *writeFlags) error {
	preconditions, err := w.preconditions()
	if err != nil {
		return err
	}
	r, err := c.relationships.WriteRelationships(ctx, &pb.WriteRelationshipsRequest{
		Store: c.store, Operations: operations, Preconditions: preconditions, RequestId: w.requestID, Reason: w.reason,
	})
	if err != nil {
		return err
	}
	return a.printWrite(writeJSON{Revision: r.Revision, Zookie: r.Zookie, RequestID: r.RequestId, Repeated: r.Repeated,
		Created: uint64(r.Created), Replaced: uint64(r.Replaced), Deleted: uint64(r.Deleted)})
}

func (a *app) relationshipSetCommand() *cobra.Command {
	var w writeFlags
	var none bool
	cmd := &cobra.Command{
		Use:   "set RESOURCE#RELATION SUBJECT...",
		Short: "Replace all subjects of one relation of a resource",
		Long: `Make these the subjects of a relation of a resource, and nobody else, in one
change. A subject may carry a caveat and an expiration, as in a relationship.`,
		Example: `  pemba relationship set 'document:readme#viewer' user:ada user:bea 'team:core#member'
  pemba relationship set 'document:readme#viewer' --none`,
		Args: takes("RESOURCE#RELATION", "[SUBJECT...]"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		if len(args) == 1 && !none {
			return usagef("no subjects were given; give --none to remove them all")
		}
		if len(args) > 1 && none {
			return usagef("--none and subjects exclude each other; give one")
		}
		set, err := parseSet(args[0], args[1:])
		if err != nil {
			return usage(err)
		}
		return a.write(ctx, c, []*pb.WriteOperation{{Operation: &pb.WriteOperation_Set{Set: set}}}, &w)
	})
	cmd.Flags().BoolVar(&none, "none", false, "remove all subjects")
	w.add(cmd.Flags())
	return a.remote(cmd, true, false)
}

// parseSet reads `document:readme#viewer` and subjects.
func parseSet(relation string, subjects []string) (*pb.SetSubjects, error) {
	resource, name, ok := strings.Cut(relation, "#")
	if !ok {
		return nil, fmt.Errorf("%q is no relation of a resource; write RESOURCE#RELATION, such as document:readme#viewer", relation)
	}
	o, err := tuple.ParseObject(resource)
	if err != nil {
		return nil, err
	}
	if err := tuple.CheckRelation(name); err != nil {
		return nil, err
	}
	set := &pb.SetSubjects{Resource: objectToWire(o), Relation: name}
	for _, s := range subjects {
		r, err := tuple.Parse(relation + "@" + s)
		if err != nil {
			return nil, err
		}
		w, err := relationshipToWire(r)
		if err != nil {
			return nil, err
		}
		set.Subjects = append(set.Subjects, &pb.SetSubject{Subject: w.Subject, Caveat: w.Caveat, Expiration: w.Expiration})
	}
	return set, nil
}

func (a *app) relationshipDeleteCommand() *cobra.Command {
	var w writeFlags
	var pattern string
	var limit uint64
	var filter filterFlags
	cmd := &cobra.Command{
		Use:   "delete RELATIONSHIP... | --filter PATTERN",
		Short: "Delete relationships, or all that match a pattern",
		Long: `Delete relationships in one change, or with --filter all that match a pattern,
of whatever number, in as many changes as it takes.

` + patternHelp,
		Example: `  pemba relationship delete 'document:readme#viewer@user:ada'
  pemba relationship delete --filter '@user:ada' --reason 'left the company'`,
		Args: takes("[RELATIONSHIP...]"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		byFilter := pattern != "" || filter != filterFlags{}
		if byFilter == (len(args) > 0) {
			return usagef("relationship delete takes either RELATIONSHIP... or --filter PATTERN")
		}
		if byFilter {
			return a.deleteByFilter(ctx, cmd, c, pattern, &filter, limit, &w)
		}
		if limit > 0 {
			return usagef("--limit goes with --filter only")
		}
		operations, err := deleteOperations(args)
		if err != nil {
			return err
		}
		return a.write(ctx, c, operations, &w)
	})
	cmd.Flags().StringVar(&pattern, "filter", "", "delete everything that matches this pattern")
	cmd.Flags().Uint64Var(&limit, "limit", 0, "with --filter: how many at most; 0 is all")
	filter.add(cmd.Flags())
	w.add(cmd.Flags())
	return a.remote(cmd, true, false)
}

func (a *app) deleteByFilter(ctx context.Context, cmd *cobra.Command, c *connection, pattern string, flags *filterFlags, limit uint64, w *writeFlags) error {
	filter, err := flags.toWire(pattern)
	if err != nil {
		return err
	}
	preconditions, err := w.preconditions()
	if err != nil {
		return err
	}
	stream, err := c.relationships.DeleteRelationships(ctx, &pb.DeleteRelationshipsRequest{
		Store: c.store, Filter: filter, Preconditions: preconditions, Limit: limit, RequestId: w.requestID, Reason: w.reason,
	})
	if err != nil {
		return err
	}
	var last *pb.DeleteRelationshipsResponse
	progress := a.progress()
	err = receive(stream, func(r *pb.DeleteRelationshipsResponse) error {
		last = r
		progress.at(r.Deleted, "relationship")
		return nil
	})
	progress.done()
	if err != nil {
		if last != nil {
			a.complain("%s were deleted before what follows; go on with\n  %s", plural(last.Deleted, "relationship"), again(cmd, nil, map[string]string{"request-id": last.RequestId}))
		}
		return err
	}
	if last == nil {
		return fmt.Errorf("the server ended the deletion without an answer; look at `pemba history`, then try again")
	}
	return a.printWrite(writeJSON{Revision: last.Revision, Zookie: last.Zookie, RequestID: last.RequestId,
		Deleted: last.Deleted, Complete: &last.Complete})
}

func (a *app) relationshipReadCommand() *cobra.Command {
	var filter filterFlags
	var limit uint64
	cmd := &cobra.Command{
		Use:   "read [PATTERN]",
		Short: "List the relationships that match a pattern",
		Long:  "List the relationships that match a pattern, one a line; without one, all.\n\n" + patternHelp,
		Example: `  pemba relationship read document:readme
  pemba relationship read '@user:ada'`,
		Args: takes("[PATTERN]"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		f, err := filter.toWire(strings.Join(args, ""))
		if err != nil {
			return err
		}
		stream, err := c.relationships.ReadRelationships(ctx, &pb.ReadRelationshipsRequest{
			Store: c.store, Consistency: c.at, Filter: f, Limit: limit,
		})
		if err != nil {
			return err
		}
		complete := false
		out := a.buffered()
		defer out.Flush()
		n := uint64(0)
		err = receive(stream, func(r *pb.ReadRelationshipsResponse) error {
			complete = r.Complete
			n += uint64(len(r.Relationships))
			for _, w := range r.Relationships {
				if a.json() {
					if err := document(out, relationshipDocument(relationshipFromWire(w))); err != nil {
						return err
					}
				} else if _, err := fmt.Fprintln(out, relationshipFromWire(w)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || complete {
			return err
		}
		if limit == 0 || n < limit {
			return fmt.Errorf("the list is not complete: the server stopped after %s; try again", plural(n, "relationship"))
		}
		fmt.Fprintf(a.err, "there are more than these %s; raise --limit to see them\n", thousands(n))
		return nil
	})
	cmd.Flags().Uint64Var(&limit, "limit", 0, "how many at most; 0 is all")
	filter.add(cmd.Flags())
	return a.remote(cmd, true, true)
}

// relationshipJSON is a relationship as JSON: its text, and its parts.
type relationshipJSON struct {
	Relationship string `json:"relationship"`
	Resource     string `json:"resource"`
	Relation     string `json:"relation"`
	Subject      string `json:"subject"`
	Caveat       string `json:"caveat,omitempty"`
	Context      any    `json:"context,omitempty"`
	Expiration   string `json:"expiration,omitempty"`
}

func relationshipDocument(r tuple.Relationship) relationshipJSON {
	j := relationshipJSON{Relationship: r.String(), Resource: r.Object.String(), Relation: r.Relation,
		Subject: r.Subject.String(), Caveat: r.Caveat.Name}
	if r.Caveat.Context != "" {
		j.Context = rawJSON(r.Caveat.Context)
	}
	if !r.Expiration.IsZero() {
		j.Expiration = clock(r.Expiration)
	}
	return j
}

// rawJSON is JSON that is printed as it is.
type rawJSON string

func (r rawJSON) MarshalJSON() ([]byte, error) { return []byte(r), nil }
