package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
)

func (a *app) groupCommand() *cobra.Command {
	return group("group", "Keep groups of users, and who belongs to them",
		a.groupCreateCommand(),
		a.groupShowCommand(),
		a.groupListCommand(),
		a.groupUpdateCommand(),
		a.groupChangeCommand("suspend", "Deny a group everything, where it is a subject itself", "Deny a group, where it is a subject itself, everything. Its members keep what they\nhave, through the group, too: to end that, take them out.",
			func(ctx context.Context, c *connection, of, id, reason string) (string, error) {
				r, err := c.users.SuspendGroup(ctx, &pb.SuspendGroupRequest{Store: c.store, Id: of, RequestId: id, Reason: reason})
				return r.GetZookie(), err
			}),
		a.groupChangeCommand("reactivate", "Give a suspended group everything back", "Give a suspended group everything back.",
			func(ctx context.Context, c *connection, of, id, reason string) (string, error) {
				r, err := c.users.ReactivateGroup(ctx, &pb.ReactivateGroupRequest{Store: c.store, Id: of, RequestId: id, Reason: reason})
				return r.GetZookie(), err
			}),
		a.groupChangeCommand("delete", "Remove a group and all memberships of it and in it", "Remove a group, its members' memberships in it and its own in other groups.\nOther relationships that name it stay, and give nobody anything.",
			func(ctx context.Context, c *connection, of, id, reason string) (string, error) {
				r, err := c.users.DeleteGroup(ctx, &pb.DeleteGroupRequest{Store: c.store, Id: of, RequestId: id, Reason: reason})
				return r.GetZookie(), err
			}),
		a.groupChangeCommand("erase", "Destroy the attributes of a removed group", "Destroy the attributes of a removed group, those of all times. The history holds\ntheir digests only, and still verifies.",
			func(ctx context.Context, c *connection, of, id, reason string) (string, error) {
				r, err := c.users.EraseGroup(ctx, &pb.EraseGroupRequest{Store: c.store, Id: of, RequestId: id, Reason: reason})
				return r.GetZookie(), err
			}),
		a.groupMembersCommand(),
		a.groupJoinCommand("add", "Add members to a group", "Add users and groups to a group. Who belongs to it already changes nothing.",
			func(ctx context.Context, c *connection, of string, members []*pb.Member, id, reason string) (string, error) {
				r, err := c.users.AddMembers(ctx, &pb.AddMembersRequest{Store: c.store, Id: of, Members: members, RequestId: id, Reason: reason})
				return r.GetZookie(), err
			}),
		a.groupJoinCommand("remove", "Take members out of a group", "Take users and groups out of a group. Who does not belong to it changes nothing.",
			func(ctx context.Context, c *connection, of string, members []*pb.Member, id, reason string) (string, error) {
				r, err := c.users.RemoveMembers(ctx, &pb.RemoveMembersRequest{Store: c.store, Id: of, Members: members, RequestId: id, Reason: reason})
				return r.GetZookie(), err
			}),
		a.groupJoinCommand("set", "Make a group's members these and no others", "Make a group's members these and no others; who is not named goes.",
			func(ctx context.Context, c *connection, of string, members []*pb.Member, id, reason string) (string, error) {
				r, err := c.users.ReplaceMembers(ctx, &pb.ReplaceMembersRequest{Store: c.store, Id: of, Members: members, RequestId: id, Reason: reason})
				return r.GetZookie(), err
			}))
}

func memberText(m *pb.Member) string {
	if id := m.GetGroup(); id != "" {
		return "group:" + id
	}
	return "user:" + m.GetUser()
}

type groupJSON struct {
	Group      string         `json:"group"`
	State      string         `json:"state"`
	Revision   uint64         `json:"revision"`
	Created    string         `json:"created,omitempty"`
	Updated    string         `json:"updated,omitempty"`
	Attributes map[string]any `json:"attributes"`
}

func groupDocument(g *pb.Group) groupJSON {
	return groupJSON{Group: "group:" + g.GetId(), State: strings.ToLower(strings.TrimPrefix(g.GetState().String(), "GROUP_STATE_")), Revision: g.GetRevision(), Created: optionalClock(g.GetCreated()),
		Updated: optionalClock(g.GetUpdated()), Attributes: g.GetAttributes().AsMap()}
}

func (a *app) printGroup(g *pb.Group) error {
	j := groupDocument(g)
	if a.json() {
		return document(a.out, j)
	}
	a.printf("%s is %s since revision %d\n", j.Group, j.State, j.Revision)
	return document(a.out, j.Attributes)
}

func (a *app) groupCreateCommand() *cobra.Command {
	r := &pb.CreateGroupRequest{}
	var given attributeFlags
	cmd := &cobra.Command{
		Use:   "create GROUP [MEMBER...]",
		Short: "Create a group",
		Long:  "Create a group, with members from the start: users and groups of the store. The\nid never changes.",
		Example: `  pemba group create group:eng --display-name Engineering user:ada user:bob
  pemba group create group:all --display-name Everybody group:eng`,
		Args: takes("GROUP", "[MEMBER...]"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) (err error) {
		if given.displayName == "" {
			return usagef("give the name to show: --display-name NAME")
		}
		if r.Id, err = c.parseGroup(ctx, args[0]); err != nil {
			return err
		}
		if r.Members, err = c.parseMembers(ctx, args[1:]); err != nil {
			return err
		}
		if r.Attributes, err = given.wire(cmd.Flags()); err != nil {
			return err
		}
		r.Store = c.store
		done, err := c.users.CreateGroup(ctx, r)
		if err != nil {
			return err
		}
		return a.printZookie(done.Zookie)
	})
	given.addGroup(cmd.Flags())
	addRequest(cmd.Flags(), &r.RequestId, &r.Reason)
	return a.remote(cmd, true, false)
}

func (a *app) groupUpdateCommand() *cobra.Command {
	r := &pb.UpdateGroupRequest{}
	var given attributeFlags
	cmd := &cobra.Command{
		Use:     "update GROUP",
		Short:   "Change attributes of a group",
		Long:    "Change the attributes of a group that are given, and take away those of --unset.",
		Example: `  pemba group update group:eng --display-name 'Research and Engineering' --unset externalId`,
		Args:    takes("GROUP"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) (err error) {
		if r.Id, err = c.parseGroup(ctx, args[0]); err != nil {
			return err
		}
		if r.Attributes, err = given.wire(cmd.Flags()); err != nil {
			return err
		}
		if len(r.Attributes.Fields) == 0 {
			return usagef("say what changes: --display-name, --external-id or --unset NAME")
		}
		r.Store = c.store
		done, err := c.users.UpdateGroup(ctx, r)
		if err != nil {
			return err
		}
		return a.printGroup(done.Group)
	})
	f := cmd.Flags()
	given.addGroup(f)
	given.addUnset(f)
	f.Uint64Var(&r.ExpectedRevision, "expected-revision", 0, "refuse if it changed since this revision, which show tells; 0: whatever it is")
	addRequest(f, &r.RequestId, &r.Reason)
	return a.remote(cmd, true, false)
}

func (a *app) groupShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show GROUP",
		Short:   "Show a group's attributes",
		Long:    "Show a group's attributes, by their names in SCIM. Who belongs to it: pemba group\nmembers.",
		Example: `  pemba group show group:eng`,
		Args:    takes("GROUP"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		id, err := c.parseGroup(ctx, args[0])
		if err != nil {
			return err
		}
		r, err := c.users.GetGroup(ctx, &pb.GetGroupRequest{Store: c.store, Consistency: c.at, Id: id})
		if err != nil {
			return err
		}
		return a.printGroup(r.Group)
	})
	return a.backward(a.remote(cmd, true, true))
}

func (a *app) groupListCommand() *cobra.Command {
	var filter string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the groups",
		Long:  "List the groups, or those that match --filter, in the order of their ids.\n\n" + filterHelp,
		Example: `  pemba group list
  pemba group list --filter 'members[value eq "ada"]'`,
		Args: takes(),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, _ []string) error {
		r := &pb.ListGroupsRequest{Store: c.store, Consistency: c.at, Filter: filter}
		out := a.buffered()
		for {
			page, err := c.users.ListGroups(ctx, r)
			if err != nil {
				return errors.Join(err, out.Flush())
			}
			for _, g := range page.Groups {
				j := groupDocument(g)
				if a.json() {
					err = document(out, j)
				} else {
					_, err = fmt.Fprintln(out, tabbed(j.Group, textOf(j.Attributes, "displayName")))
				}
				if err != nil {
					return err
				}
			}
			if r.Cursor = page.Cursor; page.Complete {
				return out.Flush()
			}
		}
	})
	cmd.Flags().StringVar(&filter, "filter", "", "only the groups that match this")
	return a.backward(a.remote(cmd, true, true))
}

func (a *app) groupMembersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "members GROUP",
		Short:   "List who belongs to a group directly",
		Long:    "List the users and groups that belong to a group directly. Who belongs to it\nthrough other groups, too: pemba lookup subjects.",
		Example: `  pemba group members group:eng`,
		Args:    takes("GROUP"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		id, err := c.parseGroup(ctx, args[0])
		if err != nil {
			return err
		}
		r := &pb.ListMembersRequest{Store: c.store, Consistency: c.at, Id: id}
		out := a.buffered()
		for {
			page, err := c.users.ListMembers(ctx, r)
			if err != nil {
				return errors.Join(err, out.Flush())
			}
			for _, m := range page.Members {
				if a.json() {
					err = document(out, map[string]string{"member": memberText(m)})
				} else {
					_, err = fmt.Fprintln(out, memberText(m))
				}
				if err != nil {
					return err
				}
			}
			if r.Cursor = page.Cursor; page.Complete {
				return out.Flush()
			}
		}
	})
	return a.backward(a.remote(cmd, true, true))
}

func (a *app) groupChangeCommand(verb, short, long string, change func(ctx context.Context, c *connection, of, id, reason string) (string, error)) *cobra.Command {
	var id, reason string
	cmd := &cobra.Command{
		Use:     verb + " GROUP",
		Short:   short,
		Long:    long,
		Example: fmt.Sprintf("  pemba group %s group:eng --reason 'ticket 4711'", verb),
		Args:    takes("GROUP"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		of, err := c.parseGroup(ctx, args[0])
		if err != nil {
			return err
		}
		zookie, err := change(ctx, c, of, id, reason)
		if err != nil {
			return err
		}
		return a.printZookie(zookie)
	})
	addRequest(cmd.Flags(), &id, &reason)
	return a.remote(cmd, true, false)
}

func (a *app) groupJoinCommand(verb, short, long string, join func(ctx context.Context, c *connection, of string, members []*pb.Member, id, reason string) (string, error)) *cobra.Command {
	var id, reason string
	takesMembers := takes("GROUP", "MEMBER...")
	use := verb + " GROUP MEMBER..."
	if verb == "set" {
		takesMembers, use = takes("GROUP", "[MEMBER...]"), verb+" GROUP [MEMBER...]"
	}
	cmd := &cobra.Command{
		Use:     use,
		Short:   short,
		Long:    long,
		Example: fmt.Sprintf("  pemba group %s group:eng user:ada group:interns", verb),
		Args:    takesMembers,
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		of, err := c.parseGroup(ctx, args[0])
		if err != nil {
			return err
		}
		members, err := c.parseMembers(ctx, args[1:])
		if err != nil {
			return err
		}
		zookie, err := join(ctx, c, of, members, id, reason)
		if err != nil {
			return err
		}
		return a.printZookie(zookie)
	})
	addRequest(cmd.Flags(), &id, &reason)
	return a.remote(cmd, true, false)
}
