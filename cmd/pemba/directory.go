package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
)

func (a *app) directoryCommand() *cobra.Command {
	return group("directory", "Make users, groups and memberships those of a file", a.directoryApplyCommand(true), a.directoryApplyCommand(false))
}

const directoryHelp = `The file is YAML or JSON, with the attributes by SCIM's names:

  users:
    ada: {userName: ada@example.com, displayName: Ada, title: Countess}
    bob: {userName: bob@example.com, active: false}
  groups:
    eng: {displayName: Engineering, members: [user:ada, group:ops]}
    ops: {displayName: Operations, members: [user:bob]}

A key is the id alone; a member is user:ID or group:ID. What the file leaves out
goes: attributes, memberships, and users and groups, whoever made them. So both
parts must be there, "users: {}" for none.`

// directoryRun is a directory being applied, or planned.
type directoryRun struct {
	app   *app
	start *pb.DirectoryStart
	out   *bufio.Writer
	count map[pb.DirectoryAction]uint64
	end   *pb.ApplyDirectoryResponse
}

func (a *app) directoryApplyCommand(plan bool) *cobra.Command {
	var most uint32
	start := &pb.DirectoryStart{DryRun: plan}
	cmd := &cobra.Command{
		Use:     "apply FILE",
		Short:   "Make the users, groups and memberships of a store those of a file",
		Long:    "Make the users, groups and memberships of a store those of a file, or of standard\ninput for \"-\", and print what was done. The same again changes nothing; where it\nbreaks off, run it again. What it would do is found out first, as by `pemba\ndirectory plan`: what could not be done, or would remove too much, is refused\nbefore anything is changed.\n\n" + directoryHelp,
		Example: "  pemba directory apply people.yaml\n  pemba directory apply people.yaml --max-removals 500 --remove-most --remove-orphans",
		Args:    takes("FILE"),
	}
	f := cmd.Flags()
	f.Uint32Var(&most, "max-removals", 100, "refuse if more users, groups and memberships, together, would go")
	f.BoolVar(&start.RemoveMost, "remove-most", false, "do not refuse if more than half of ten or more users, groups or memberships would go")
	f.BoolVar(&start.RemoveOrphans, "remove-orphans", false, "remove the relationships, too, that would go on naming who is removed")
	if plan {
		cmd.Use, cmd.Short = "plan FILE", "Print what applying a file would do, and change nothing"
		cmd.Long = "Print what `pemba directory apply` would do, and change nothing: + comes, ~ changes,\n- goes, ! stays and names somebody who goes.\n\n" + directoryHelp
		cmd.Example = "  pemba directory plan people.yaml"
	} else {
		f.StringVar(&start.Reason, "reason", "", "why, for the history")
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		entries, err := a.readDirectory(args[0], sync.OnceValue(c.identityTypes(ctx)))
		if err != nil {
			return err
		}
		start.Empty = len(entries) == 0
		start.Store, start.MaxRemovals = c.store, proto.Uint32(most)
		if !plan {
			if err := a.rehearse(ctx, c, start, entries); err != nil {
				return err
			}
		}
		d := &directoryRun{app: a, start: start, out: a.buffered(), count: map[pb.DirectoryAction]uint64{}}
		return d.run(ctx, c, entries)
	})
	return a.remote(cmd, true, false)
}

// rehearse finds out whether a directory can be applied, so that it is not broken
// off in the middle for what could be known before.
func (a *app) rehearse(ctx context.Context, c *connection, start *pb.DirectoryStart, entries []*pb.DirectoryEntry) error {
	plan := proto.CloneOf(start)
	plan.DryRun = true
	d := &directoryRun{app: a, start: plan}
	if err := d.stream(ctx, c, entries, func(*pb.DirectoryStep) error { return nil }); err != nil {
		return err
	}
	if d.end.Refusal != "" {
		return fmt.Errorf("%s; nothing was changed; look at `pemba directory plan FILE`, then allow it with %s", d.end.Refusal, allowing(d.end.Refusal))
	}
	return nil
}

// allowing is the flag that allows what was refused.
func allowing(refusal string) string {
	if strings.Contains(refusal, "more than half") {
		return "--remove-most"
	}
	return "--max-removals"
}

// directoryBatch is how many entries are sent at once.
const directoryBatch = 500

func (d *directoryRun) run(ctx context.Context, c *connection, entries []*pb.DirectoryEntry) error {
	err := d.stream(ctx, c, entries, func(s *pb.DirectoryStep) error {
		d.count[s.Action]++
		return d.print(s)
	})
	if err != nil {
		if n := d.total(); n > 0 && !d.start.DryRun {
			d.app.complain("%s were done before what follows; the same command goes on", plural(n, "step"))
		}
		return err
	}
	if d.end.Refusal != "" {
		d.app.warn("apply would refuse this: %s; if it is meant, allow it with %s", d.end.Refusal, allowing(d.end.Refusal))
	}
	return d.summary()
}

// stream sends a directory and gives the steps of the answer to each. The last
// message is the end.
func (d *directoryRun) stream(ctx context.Context, c *connection, entries []*pb.DirectoryEntry, each func(*pb.DirectoryStep) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var sender sync.WaitGroup
	defer sender.Wait()
	defer cancel()
	stream, err := c.users.ApplyDirectory(ctx)
	if err != nil {
		return err
	}
	sender.Go(func() {
		// The receiver learns why the server ended the stream.
		if stream.Send(&pb.ApplyDirectoryRequest{Part: &pb.ApplyDirectoryRequest_Start{Start: d.start}}) != nil {
			return
		}
		for batch := range slices.Chunk(entries, directoryBatch) {
			if stream.Send(&pb.ApplyDirectoryRequest{Part: &pb.ApplyDirectoryRequest_Entries{Entries: &pb.DirectoryEntries{Entries: batch}}}) != nil {
				return
			}
		}
		end := &pb.DirectoryEnd{Entries: uint64(len(entries))}
		if stream.Send(&pb.ApplyDirectoryRequest{Part: &pb.ApplyDirectoryRequest_End{End: end}}) == nil {
			stream.CloseSend()
		}
	})
	err = receive(stream, func(m *pb.ApplyDirectoryResponse) error {
		d.end = m
		for _, s := range m.Steps {
			if err := each(s); err != nil {
				return err
			}
		}
		if d.out == nil {
			return nil
		}
		return d.out.Flush()
	})
	if err == nil && !d.end.GetComplete() {
		err = errors.New("the server ended before all was done; run the same again")
	}
	return err
}

func (d *directoryRun) total() (n uint64) {
	for _, of := range d.count {
		n += of
	}
	return n
}

// directoryStepJSON is a step as JSON.
type directoryStepJSON struct {
	Action       string   `json:"action"`
	User         string   `json:"user,omitempty"`
	Group        string   `json:"group,omitempty"`
	Member       string   `json:"member,omitempty"`
	Relationship string   `json:"relationship,omitempty"`
	Changed      []string `json:"changed,omitempty"`
}

func stepDocument(s *pb.DirectoryStep) directoryStepJSON {
	j := directoryStepJSON{Action: strings.ToLower(strings.TrimPrefix(s.Action.String(), "DIRECTORY_ACTION_")), Changed: s.Changed}
	switch about := s.Subject.(type) {
	case *pb.DirectoryStep_User:
		j.User = "user:" + about.User
	case *pb.DirectoryStep_Group:
		j.Group = "group:" + about.Group
	case *pb.DirectoryStep_Membership:
		j.Group, j.Member = "group:"+about.Membership.GetGroup(), memberText(about.Membership.GetMember())
	case *pb.DirectoryStep_Relationship:
		j.Relationship = relationshipFromWire(about.Relationship).String()
	}
	return j
}

func (d *directoryRun) print(s *pb.DirectoryStep) error {
	j := stepDocument(s)
	if d.app.json() {
		return document(d.out, j)
	}
	mark := map[pb.DirectoryAction]string{
		pb.DirectoryAction_DIRECTORY_ACTION_CREATE: "+", pb.DirectoryAction_DIRECTORY_ACTION_UPDATE: "~", pb.DirectoryAction_DIRECTORY_ACTION_REMOVE: "-",
		pb.DirectoryAction_DIRECTORY_ACTION_ADD_MEMBER: "+", pb.DirectoryAction_DIRECTORY_ACTION_REMOVE_MEMBER: "-",
		pb.DirectoryAction_DIRECTORY_ACTION_ORPHAN: "!", pb.DirectoryAction_DIRECTORY_ACTION_REMOVE_ORPHAN: "-",
	}[s.Action]
	text := j.User + j.Group + j.Relationship
	if j.Member != "" {
		text += " member " + j.Member
	}
	if len(j.Changed) > 0 {
		text += " (" + strings.Join(j.Changed, ", ") + ")"
	}
	_, err := fmt.Fprintf(d.out, "%s %s\n", mark, text)
	return err
}

// directoryJSON is the end of an application as JSON; the steps come before it, a
// line each.
type directoryJSON struct {
	Zookie  string            `json:"zookie"`
	Counts  map[string]uint64 `json:"counts"`
	DryRun  bool              `json:"dry_run,omitempty"`
	Changed bool              `json:"changed"`
	Refusal string            `json:"refusal,omitempty"`
}

func (d *directoryRun) summary() error {
	if d.app.json() {
		j := directoryJSON{Zookie: d.end.Zookie, Counts: map[string]uint64{}, DryRun: d.start.DryRun, Changed: d.total() > 0, Refusal: d.end.Refusal}
		for action, n := range d.count {
			j.Counts[strings.ToLower(strings.TrimPrefix(action.String(), "DIRECTORY_ACTION_"))] = n
		}
		return document(d.app.out, j)
	}
	if d.total() == 0 {
		fmt.Fprintln(d.app.err, "nothing changes")
		return nil
	}
	what := []struct {
		action     pb.DirectoryAction
		noun, verb string
	}{
		{pb.DirectoryAction_DIRECTORY_ACTION_CREATE, "user or group", "created"},
		{pb.DirectoryAction_DIRECTORY_ACTION_UPDATE, "user or group", "updated"},
		{pb.DirectoryAction_DIRECTORY_ACTION_REMOVE, "user or group", "removed"},
		{pb.DirectoryAction_DIRECTORY_ACTION_ADD_MEMBER, "membership", "added"},
		{pb.DirectoryAction_DIRECTORY_ACTION_REMOVE_MEMBER, "membership", "removed"},
		{pb.DirectoryAction_DIRECTORY_ACTION_ORPHAN, "relationship", "orphaned"},
		{pb.DirectoryAction_DIRECTORY_ACTION_REMOVE_ORPHAN, "orphaned relationship", "removed"},
	}
	var parts []string
	for _, w := range what {
		if n := d.count[w.action]; n > 0 {
			noun := plural(n, w.noun)
			if w.noun == "user or group" {
				noun = thousands(n)
			}
			parts = append(parts, noun+" "+w.verb)
		}
	}
	text := strings.Join(parts, ", ")
	if d.start.DryRun {
		fmt.Fprintf(d.app.err, "plan: %s\n", text)
		return nil
	}
	fmt.Fprintf(d.app.err, "%s; zookie %s\n", text, d.end.Zookie)
	return nil
}
