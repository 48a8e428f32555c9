package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
)

const callerForms = "token:NAME, oidc:SUBJECT, certificate:IDENTITY or group:NAME"

func (a *app) grantCommand() *cobra.Command {
	return group("grant", "Say which callers may do what in which store",
		a.grantAddCommand(), a.grantRemoveCommand(), a.grantListCommand())
}

// grantFlags say which role is granted on what.
type grantFlags struct {
	role, typ, id, reason string
	all                   bool
}

func (g *grantFlags) add(cmd *cobra.Command, f *pflag.FlagSet) {
	f.StringVar(&g.role, "role", "", "what is granted: "+strings.Join(roles, ", "))
	f.BoolVar(&g.all, "all-stores", false, "on all stores, those made later included")
	f.StringVar(&g.typ, "type", "", "on the objects of this type only, with the roles checker, reader and writer")
	suggest(cmd, "role", roles...)
	addRequest(f, &g.id, &g.reason)
}

// read checks the flags together.
func (g *grantFlags) read(cmd *cobra.Command, c *connection) (role pb.Role, store string, err error) {
	if g.role == "" {
		return 0, "", usagef("--role is needed: one of %s", strings.Join(roles, ", "))
	}
	if role, err = parseRole(g.role); err != nil {
		return 0, "", err
	}
	if store = c.store; g.all {
		if cmd.Flags().Changed("store") {
			return 0, "", usagef("--store and --all-stores exclude each other; give one")
		}
		store = ""
	}
	return role, store, nil
}

func (a *app) grantAddCommand() *cobra.Command {
	var g grantFlags
	var end string
	cmd := &cobra.Command{
		Use:   "add CALLER --role ROLE",
		Short: "Grant a role to a caller",
		Long: `Grant a role to a caller: token:NAME, oidc:SUBJECT, certificate:IDENTITY, or
group:NAME, which is everybody in whose token the identity provider names the
group. The role is granted on one store (--store), on one type of its objects
(--type), or on all stores (--all-stores). Roles add up.`,
		Example: `  pemba grant add group:platform --role admin --all-stores
  pemba grant add oidc:ada@example.com --role reader --store acme --expires-in 8h
  pemba grant add certificate:spiffe://acme/shop --role checker --type document`,
		Args: takes("CALLER"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		role, store, err := g.read(cmd, c)
		if err != nil {
			return err
		}
		expires, err := parseEnd("expires-in", end)
		if err != nil {
			return err
		}
		r, err := c.grants.AddGrant(ctx, &pb.AddGrantRequest{Caller: args[0], Role: role, Store: store, AllStores: g.all, Type: g.typ, Expires: expires, RequestId: g.id, Reason: g.reason})
		if err != nil {
			return err
		}
		return a.granted(grantJSON{Caller: args[0], Role: g.role, Store: store, Type: g.typ, Zookie: r.Zookie, Expires: optionalClock(expires)}, "is granted to")
	})
	g.add(cmd, cmd.Flags())
	cmd.Flags().StringVar(&end, "expires-in", "", "when the grant ends, from now, such as 8h; absent: when it is taken back")
	a.direct(cmd)
	return a.remote(cmd, true, false)
}

func (a *app) grantRemoveCommand() *cobra.Command {
	var g grantFlags
	cmd := &cobra.Command{
		Use:   "remove CALLER --role ROLE",
		Short: "Take a role back that was granted to a caller",
		Long: `Take back what ` + "`pemba grant add`" + ` granted, in the same words. The role that a token
was made with ends with the token: see pemba token revoke.`,
		Example: `  pemba grant remove group:platform --role admin --all-stores`,
		Args:    takes("CALLER"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		role, store, err := g.read(cmd, c)
		if err != nil {
			return err
		}
		r, err := c.grants.RemoveGrant(ctx, &pb.RemoveGrantRequest{Caller: args[0], Role: role, Store: store, AllStores: g.all, Type: g.typ, RequestId: g.id, Reason: g.reason})
		if err != nil {
			return err
		}
		return a.granted(grantJSON{Caller: args[0], Role: g.role, Store: store, Type: g.typ, Zookie: r.Zookie}, "is no longer granted to")
	})
	g.add(cmd, cmd.Flags())
	a.direct(cmd)
	return a.remote(cmd, true, false)
}

// grantJSON is a grant as JSON.
type grantJSON struct {
	Caller  string `json:"caller"`
	Role    string `json:"role"`
	Store   string `json:"store,omitempty"` // absent: all
	Type    string `json:"type,omitempty"`  // absent: all
	Expires string `json:"expires,omitempty"`
	OfToken bool   `json:"of_token,omitempty"` // it ends with the token
	Zookie  string `json:"zookie,omitempty"`   // of a change
}

func grantDocument(g *pb.Grant) grantJSON {
	return grantJSON{Caller: g.GetCaller(), Role: roleText(g.GetRole()), Store: g.GetStore(), Type: g.GetType(), Expires: optionalClock(g.GetExpires()), OfToken: g.GetOfToken()}
}

// on says what a grant is on.
func (g *grantJSON) on() string {
	if g.Type != "" {
		return "type " + g.Type + " of " + scope(g.Store)
	}
	return scope(g.Store)
}

func (a *app) granted(g grantJSON, what string) error {
	if a.json() {
		return document(a.out, g)
	}
	end := ""
	if g.Expires != "" {
		end = " until " + g.Expires
	}
	a.printf("%s of %s %s %s%s\n", g.Role, g.on(), what, g.Caller, end)
	return nil
}

func (a *app) grantListCommand() *cobra.Command {
	var caller string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List what callers may do, with the roles of tokens",
		Long:    "List what is granted, with the roles that tokens were made with; with --store\nwhat counts in it.",
		Example: "  pemba grant list\n  pemba grant list --caller oidc:ada@example.com",
		Args:    takes(),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, _ []string) error {
		request := &pb.ListGrantsRequest{Caller: caller, Consistency: c.at}
		if cmd.Flags().Changed("store") {
			request.Store = proto.String(c.store)
		}
		var all []*pb.Grant
		for {
			r, err := c.grants.ListGrants(ctx, request)
			if err != nil {
				return err
			}
			if all = append(all, r.Grants...); r.Complete || r.Cursor == "" {
				break
			}
			request.Cursor = r.Cursor
		}
		return a.printGrants(all)
	})
	cmd.Flags().StringVar(&caller, "caller", "", "only those to this caller: "+callerForms)
	a.direct(cmd)
	return a.remote(cmd, true, true)
}

func (a *app) printGrants(all []*pb.Grant) error {
	var rows [][]string
	for _, g := range all {
		j := grantDocument(g)
		if a.json() {
			if err := document(a.out, j); err != nil {
				return err
			}
			continue
		}
		by := "grant"
		if j.OfToken {
			by = "token"
		}
		rows = append(rows, []string{j.Caller, j.Role, strings.TrimPrefix(scope(j.Store), "store "), j.Type, by, j.Expires})
	}
	if !a.json() {
		a.table([]string{"CALLER", "ROLE", "STORE", "TYPE", "BY", "EXPIRES"}, rows)
	}
	return nil
}

func (a *app) whoamiCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "whoami",
		Short:   "Who the server takes you for, and what you may do",
		Example: "  pemba whoami --token-file admin.token",
		Args:    takes(),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, _ []string) error {
		r, err := c.grants.GetCaller(ctx, &pb.GetCallerRequest{})
		if err != nil {
			return err
		}
		if a.json() {
			grants := make([]grantJSON, len(r.Grants))
			for i, g := range r.Grants {
				grants[i] = grantDocument(g)
			}
			return document(a.out, struct {
				Actor  string      `json:"actor"`
				Groups []string    `json:"groups,omitempty"`
				Grants []grantJSON `json:"grants"`
			}{r.Actor, r.Groups, grants})
		}
		a.printf("%s\n", r.Actor)
		if len(r.Groups) > 0 {
			a.printf("groups: %s\n", strings.Join(slices.Sorted(slices.Values(r.Groups)), ", "))
		}
		if len(r.Grants) == 0 {
			a.printf("nothing is granted to you\n")
			return nil
		}
		return a.printGrants(r.Grants)
	})
	return a.remote(cmd, false, false)
}
