package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
)

// offboardJSON is the end of an offboarding as JSON; the relationships come before
// it, a line each.
type offboardJSON struct {
	Operation string `json:"operation_id"`
	Zookie    string `json:"zookie"`
	State     string `json:"state"`
	Removed   int    `json:"removed"`
	Complete  bool   `json:"complete"`
	DryRun    bool   `json:"dry_run,omitempty"`
	Unknown   bool   `json:"unknown,omitempty"`
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
		id, err := c.parseUser(ctx, args[0])
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
			end.Operation, end.Zookie, end.State, end.Complete, end.Unknown = m.OperationId, m.Zookie, userStateText(m.State), m.Complete, m.Unknown
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
	if end.Unknown {
		what := "; it is denied everything until it is created"
		if dry {
			what = ""
		}
		a.warn("nobody knows %s, so look whether the id is right%s", user, what)
	}
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
