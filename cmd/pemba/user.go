package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
)

func (a *app) userCommand() *cobra.Command {
	return group("user", "Keep users: create, show, list, update, suspend, reactivate, delete, erase",
		a.userCreateCommand(),
		a.userShowCommand(),
		a.userListCommand(),
		a.userUpdateCommand(),
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
	Created    string         `json:"created,omitempty"`
	Updated    string         `json:"updated,omitempty"`
	Attributes map[string]any `json:"attributes,omitempty"`
}

func userDocument(u *pb.User) userJSON {
	return userJSON{User: "user:" + u.GetId(), State: userStateText(u.GetState()), Revision: u.GetRevision(),
		Created: optionalClock(u.GetCreated()), Updated: optionalClock(u.GetUpdated()), Attributes: u.GetAttributes().AsMap()}
}

func optionalClock(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return clock(t.AsTime())
}

// textOf is an attribute that is text; empty where it is none.
func textOf(attributes map[string]any, name string) string {
	text, _ := attributes[name].(string)
	return text
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
		id, err := c.parseUser(ctx, args[0])
		if err != nil {
			return err
		}
		r, err := c.users.GetUser(ctx, &pb.GetUserRequest{Store: c.store, Consistency: c.at, Id: id})
		if err != nil {
			return err
		}
		return a.printUser(r.User)
	})
	return a.backward(a.remote(cmd, true, true))
}

func (a *app) printUser(u *pb.User) error {
	j := userDocument(u)
	if a.json() {
		return document(a.out, j)
	}
	a.printf("%s is %s since revision %d\n", j.User, j.State, j.Revision)
	if len(j.Attributes) > 0 {
		return document(a.out, j.Attributes)
	}
	return nil
}

const filterHelp = `The filter is in SCIM's language (RFC 7644 §3.4.2.2): attributes compared by eq,
ne, co, sw, ew, gt, ge, lt, le or pr, joined by and, or, not and parentheses.`

func (a *app) userListCommand() *cobra.Command {
	var filter string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the users that are not removed",
		Long:  "List the users that are not removed, or those that match --filter, in the order\nof their ids.\n\n" + filterHelp,
		Example: `  pemba user list
  pemba user list --filter 'userName ew "@example.com" and active eq false'`,
		Args: takes(),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, _ []string) error {
		r := &pb.ListUsersRequest{Store: c.store, Consistency: c.at, Filter: filter}
		out := a.buffered()
		for {
			page, err := c.users.ListUsers(ctx, r)
			if err != nil {
				return errors.Join(err, out.Flush())
			}
			for _, u := range page.Users {
				j := userDocument(u)
				if a.json() {
					err = document(out, j)
				} else {
					_, err = fmt.Fprintln(out, tabbed(j.User, j.State, textOf(j.Attributes, "userName"), textOf(j.Attributes, "displayName")))
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
	cmd.Flags().StringVar(&filter, "filter", "", "only the users that match this")
	return a.backward(a.remote(cmd, true, true))
}

// tabbed joins what is not empty by tabs.
func tabbed(cells ...string) string {
	for i, c := range cells {
		cells[i] = shown(c)
	}
	return strings.TrimRight(strings.Join(cells, "\t"), "\t")
}

func (a *app) userCreateCommand() *cobra.Command {
	r := &pb.CreateUserRequest{}
	var given attributeFlags
	cmd := &cobra.Command{
		Use:   "create USER",
		Short: "Create a user",
		Long:  "Create a user, active, or one anew who was removed, which restores no membership.\nThe id never changes.",
		Example: `  pemba user create user:ada --user-name ada@example.com --display-name 'Ada Lovelace'
  pemba user create user:bob --user-name bob --email bob@example.com --attribute title=Clerk --attribute 'name={"givenName":"Bob"}'`,
		Args: takes("USER"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) (err error) {
		if given.userName == "" {
			return usagef("give the name that the user signs in with: --user-name NAME")
		}
		if r.Id, err = c.parseUser(ctx, args[0]); err != nil {
			return err
		}
		if r.Attributes, err = given.wire(cmd.Flags()); err != nil {
			return err
		}
		r.Store = c.store
		done, err := c.users.CreateUser(ctx, r)
		if err != nil {
			return err
		}
		return a.printZookie(done.Zookie)
	})
	given.addUser(cmd.Flags())
	addRequest(cmd.Flags(), &r.RequestId, &r.Reason)
	return a.remote(cmd, true, false)
}

func (a *app) userUpdateCommand() *cobra.Command {
	r := &pb.UpdateUserRequest{}
	var given attributeFlags
	cmd := &cobra.Command{
		Use:   "update USER",
		Short: "Change attributes of a user",
		Long:  "Change the attributes of a user that are given, and take away those of --unset.\nOthers stay, or with --replace go. To suspend a user: pemba user suspend.",
		Example: `  pemba user update user:ada --display-name 'Ada King' --unset title
  pemba user update user:ada --email ada@example.org --expected-revision 17`,
		Args: takes("USER"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) (err error) {
		if r.Id, err = c.parseUser(ctx, args[0]); err != nil {
			return err
		}
		if r.Attributes, err = given.wire(cmd.Flags()); err != nil {
			return err
		}
		if len(r.Attributes.Fields) == 0 && !r.Replace {
			return usagef("say what changes: --display-name, --email, --attribute NAME=VALUE, --unset NAME, ...")
		}
		r.Store = c.store
		done, err := c.users.UpdateUser(ctx, r)
		if err != nil {
			return err
		}
		return a.printUser(done.User)
	})
	f := cmd.Flags()
	given.addUser(f)
	given.addUnset(f)
	f.BoolVar(&r.Replace, "replace", false, "take away all attributes that are not given")
	f.Uint64Var(&r.ExpectedRevision, "expected-revision", 0, "refuse if it changed since this revision, which show tells; 0: whatever it is")
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
		user, err := c.parseUser(ctx, args[0])
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
