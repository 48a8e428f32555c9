package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/provisioning"
)

func (a *app) userCommand() *cobra.Command {
	return group("user", "Create users, look at them, suspend, reactivate, delete and erase them",
		a.userCreateCommand(),
		a.userShowCommand(),
		a.userChangeCommand("suspend", "Deny a user everything at once, and keep its relationships",
			"Deny a user everything at once, and keep its relationships. One who is suspended\nalready stays so.",
			func(ctx context.Context, c *connection, user, id, reason string) (string, error) {
				r, err := c.users.SuspendUser(ctx, &pb.SuspendUserRequest{Store: c.store, Id: user, RequestId: id, Reason: reason})
				return r.GetZookie(), err
			}),
		a.userChangeCommand("reactivate", "Give a suspended user everything back",
			"Give a suspended user everything back. One who was removed must be created again.",
			func(ctx context.Context, c *connection, user, id, reason string) (string, error) {
				r, err := c.users.ReactivateUser(ctx, &pb.ReactivateUserRequest{Store: c.store, Id: user, RequestId: id, Reason: reason})
				return r.GetZookie(), err
			}),
		a.userChangeCommand("delete", "Remove a user and its memberships in groups",
			"Remove a user and its memberships in groups. It is denied everything until it is\ncreated again. Other relationships stay; see `pemba offboard`.",
			func(ctx context.Context, c *connection, user, id, reason string) (string, error) {
				r, err := c.users.DeleteUser(ctx, &pb.DeleteUserRequest{Store: c.store, Id: user, RequestId: id, Reason: reason})
				return r.GetZookie(), err
			}),
		a.userChangeCommand("erase", "Destroy the personal attributes of a removed user",
			"Destroy the personal attributes of a removed user, those of all times. The\nhistory holds their digests only, and still verifies.",
			func(ctx context.Context, c *connection, user, id, reason string) (string, error) {
				r, err := c.users.EraseUser(ctx, &pb.EraseUserRequest{Store: c.store, Id: user, RequestId: id, Reason: reason})
				return r.GetZookie(), err
			}))
}

// parseUser is the id of a user written as user:ID.
func parseUser(text string) (string, error) {
	id, ok := strings.CutPrefix(text, provisioning.UserType+":")
	if !ok {
		return "", usagef("%q is no user; write %s:ID", text, provisioning.UserType)
	}
	if _, err := provisioning.UserObject(id); err != nil {
		return "", usage(err)
	}
	return id, nil
}

func userStateText(s pb.UserState) string {
	if s == pb.UserState_USER_STATE_UNSPECIFIED {
		return "unknown"
	}
	return strings.ToLower(strings.TrimPrefix(s.String(), "USER_STATE_"))
}

type userJSON struct {
	User       string         `json:"user"`
	State      string         `json:"state"`
	Revision   uint64         `json:"revision"`
	Attributes map[string]any `json:"attributes,omitempty"`
}

func (a *app) userShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show USER",
		Short:   "Show a user's state and attributes",
		Long:    "Show a user's state (active, suspended or removed) and attributes, by their\nnames in SCIM.",
		Example: `  pemba user show user:ada`,
		Args:    takes("USER"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		id, err := parseUser(args[0])
		if err != nil {
			return err
		}
		r, err := c.users.GetUser(ctx, &pb.GetUserRequest{Store: c.store, Consistency: c.at, Id: id})
		if err != nil {
			return err
		}
		j := userJSON{User: args[0], State: userStateText(r.User.State), Revision: r.User.Revision, Attributes: r.User.Attributes.AsMap()}
		if a.json() {
			return document(a.out, j)
		}
		a.printf("%s is %s since revision %d\n", j.User, j.State, j.Revision)
		if len(j.Attributes) > 0 {
			return document(a.out, j.Attributes)
		}
		return nil
	})
	return a.backward(a.remote(cmd, true, true))
}

func (a *app) userCreateCommand() *cobra.Command {
	r := &pb.CreateUserRequest{}
	cmd := &cobra.Command{
		Use:     "create USER",
		Short:   "Create a user",
		Long:    "Create a user, active, or one anew who was removed, which restores no membership.\nThe id never changes.",
		Example: `  pemba user create user:ada --user-name ada@example.com --display-name 'Ada Lovelace'`,
		Args:    takes("USER"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) (err error) {
		if r.UserName == "" {
			return usagef("give the name that the user signs in with: --user-name NAME")
		}
		if r.Id, err = parseUser(args[0]); err != nil {
			return err
		}
		r.Store = c.store
		done, err := c.users.CreateUser(ctx, r)
		if err != nil {
			return err
		}
		return a.printZookie(done.Zookie)
	})
	f := cmd.Flags()
	f.StringVar(&r.UserName, "user-name", "", "the name that the user signs in with; no two users share one")
	f.StringVar(&r.DisplayName, "display-name", "", "the name to show")
	f.StringVar(&r.ExternalId, "external-id", "", "the user's id where it comes from; no two users share one")
	addRequest(f, &r.RequestId, &r.Reason)
	return a.remote(cmd, true, false)
}

func (a *app) printZookie(zookie string) error {
	if a.json() {
		return document(a.out, struct {
			Zookie string `json:"zookie"`
		}{zookie})
	}
	a.printf("zookie %s\n", zookie)
	return nil
}

func (a *app) userChangeCommand(verb, short, long string, change func(ctx context.Context, c *connection, user, id, reason string) (string, error)) *cobra.Command {
	var id, reason string
	cmd := &cobra.Command{
		Use:     verb + " USER",
		Short:   short,
		Long:    long,
		Example: fmt.Sprintf("  pemba user %s user:ada --reason 'ticket 4711'", verb),
		Args:    takes("USER"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		user, err := parseUser(args[0])
		if err != nil {
			return err
		}
		zookie, err := change(ctx, c, user, id, reason)
		if err != nil {
			return err
		}
		return a.printZookie(zookie)
	})
	addRequest(cmd.Flags(), &id, &reason)
	return a.remote(cmd, true, false)
}

// offboardJSON is the end of an offboarding as JSON; the relationships come before
// it, a line each.
type offboardJSON struct {
	Operation string `json:"operation_id"`
	Zookie    string `json:"zookie"`
	State     string `json:"state"`
	Removed   int    `json:"removed"`
	Complete  bool   `json:"complete"`
	DryRun    bool   `json:"dry_run,omitempty"`
}

func (a *app) offboardCommand() *cobra.Command {
	r := &pb.OffboardRequest{}
	cmd := &cobra.Command{
		Use:   "offboard USER",
		Short: "Suspend a user at once, then remove every relationship that names it",
		Long: `Suspend a user at once, then remove every relationship that names it, and print
each. Where it breaks off, run it again with the same --operation-id: it goes on,
and tells what went before once more. What the user could do before:
pemba access-report --user USER --at TIME.`,
		Example: `  pemba offboard user:ada --dry-run
  pemba offboard user:ada --operation-id leaver-4711 --reason 'left the company'`,
		Args: takes("USER"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		id, err := parseUser(args[0])
		if err != nil {
			return err
		}
		r.Store, r.Id = c.store, id
		stream, err := c.users.Offboard(ctx, r)
		if err != nil {
			return err
		}
		end := offboardJSON{}
		out := a.buffered()
		err = receive(stream, func(m *pb.OffboardResponse) error {
			end.Operation, end.Zookie, end.State, end.Complete = m.OperationId, m.Zookie, userStateText(m.State), m.Complete
			for _, gone := range m.Removed {
				end.Removed++
				if !a.json() {
					fmt.Fprintln(out, relationshipFromWire(gone))
				} else if err := document(out, relationshipDocument(relationshipFromWire(gone))); err != nil {
					return err
				}
			}
			return out.Flush()
		})
		if err != nil {
			if end.Operation != "" && !r.DryRun {
				a.complain("the user is %s, and %s were removed before what follows; go on with\n  %s", end.State, plural(uint64(end.Removed), "relationship"),
					again(cmd, args, map[string]string{"operation-id": end.Operation}))
			}
			return err
		}
		return a.printOffboard(args[0], end, r.DryRun)
	})
	f := cmd.Flags()
	f.BoolVar(&r.DryRun, "dry-run", false, "change nothing, and print what would be removed")
	f.StringVar(&r.OperationId, "operation-id", "", "the id of the whole, to go on with where it breaks off; Pemba draws one where it is absent")
	f.StringVar(&r.Reason, "reason", "", "why, for the history")
	return a.remote(cmd, true, false)
}

func (a *app) printOffboard(user string, end offboardJSON, dry bool) error {
	if end.DryRun = dry; a.json() {
		return document(a.out, end)
	}
	n := plural(uint64(end.Removed), "relationship")
	if dry {
		fmt.Fprintf(a.err, "dry run: %s is %s; %s would be removed\n", user, end.State, n)
		return nil
	}
	fmt.Fprintf(a.err, "%s is %s; %s removed; zookie %s\n", user, end.State, n, end.Zookie)
	return nil
}
