package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
)

// roles, as the command line names them.
var roles = []string{"checker", "reader", "writer", "schema-admin", "provisioner", "auditor", "admin"}

func roleText(r pb.Role) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(r.String(), "ROLE_")), "_", "-")
}

func parseRole(text string) (pb.Role, error) {
	if !slices.Contains(roles, text) {
		return 0, usagef("--role %q is none; write one of %s", text, strings.Join(roles, ", "))
	}
	return pb.Role(pb.Role_value["ROLE_"+strings.ToUpper(strings.ReplaceAll(text, "-", "_"))]), nil
}

func (a *app) tokenCommand() *cobra.Command {
	return group("token", "Make, list, rotate and revoke the tokens of callers",
		a.tokenCreateCommand(), a.tokenListCommand(), a.tokenRotateCommand(), a.tokenRevokeCommand())
}

// parseSpan reads a length of time: days such as 90d, or as Go writes it.
func parseSpan(flag, text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	span, err := time.ParseDuration(text)
	if err != nil || span < 0 {
		return 0, usagef("--%s %q is no length of time; write one such as 90d, 36h or 15m", flag, text)
	}
	return span, nil
}

// parseEnd is when something ends that lasts as long as a flag says; nil where it
// does not.
func parseEnd(flag, text string) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	span, err := parseSpan(flag, text)
	if err != nil {
		return nil, err
	}
	return timestamppb.New(time.Now().Add(span)), nil
}

// printSecret shows a token's secret, this once.
func (a *app) printSecret(t *pb.Token, secret string) error {
	if a.json() {
		j := tokenDocument(t)
		j.Secret = secret
		return document(a.out, j)
	}
	end := ""
	if t.GetExpires() != nil {
		end = ", expires " + clock(t.GetExpires().AsTime())
	}
	of := scope(t.GetStore())
	if len(t.GetTypes()) > 0 {
		of = strings.Join(t.GetTypes(), ", ") + " in " + of
	}
	fmt.Fprintf(a.err, "token %s, %s of %s%s; keep its secret, it is shown this once:\n", t.GetName(), roleText(t.GetRole()), of, end)
	a.printf("%s\n", secret)
	return nil
}

func (a *app) tokenRotateCommand() *cobra.Command {
	var id, reason, overlap, end string
	cmd := &cobra.Command{
		Use:   "rotate NAME",
		Short: "Give a token another secret and print it, this once",
		Long: `Give a token another secret. The one that it has stays valid for --overlap, so that
it can be exchanged everywhere without a gap. The secret goes to standard output,
alone, and is kept nowhere.`,
		Example: `  pemba token rotate web-shop --overlap 24h --expires-in 90d
  pemba token rotate leaked`,
		Args: takes("NAME"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		span, err := parseSpan("overlap", overlap)
		if err != nil {
			return err
		}
		expires, err := parseEnd("expires-in", end)
		if err != nil {
			return err
		}
		made, err := c.tokens.RotateToken(ctx, &pb.RotateTokenRequest{Name: args[0], Overlap: durationpb.New(span), Expires: expires, RequestId: id, Reason: reason})
		if err != nil {
			return err
		}
		return a.printSecret(made.Token, made.Secret)
	})
	f := cmd.Flags()
	f.StringVar(&overlap, "overlap", "0s", "how long the secret that it has stays valid, such as 24h or 7d")
	f.StringVar(&end, "expires-in", "", "when the token ends, from now, such as 90d; absent: when it would have")
	addRequest(f, &id, &reason)
	a.direct(cmd)
	return a.remote(cmd, false, false)
}

// tokenJSON is a token as JSON. Secret is there only when the token was made.
type tokenJSON struct {
	Token string `json:"token"`
	Role  string `json:"role"`
	Store string `json:"store,omitempty"` // absent: all
	// Types are those that the role is narrowed to; absent: all.
	Types   []string `json:"types,omitempty"`
	Created string   `json:"created,omitempty"`
	Creator string   `json:"creator,omitempty"`
	Expires string   `json:"expires,omitempty"` // absent: when it is revoked
	// Overlap is until when the secret before is valid.
	Overlap string `json:"overlap_until,omitempty"`
	Secret  string `json:"secret,omitempty"`
}

func tokenDocument(t *pb.Token) tokenJSON {
	j := tokenJSON{Token: t.GetName(), Role: roleText(t.GetRole()), Store: t.GetStore(), Creator: t.GetCreator(), Types: t.GetTypes()}
	if t.GetCreated() != nil {
		j.Created = clock(t.GetCreated().AsTime())
	}
	j.Expires, j.Overlap = optionalClock(t.GetExpires()), optionalClock(t.GetOverlapUntil())
	return j
}

func (a *app) tokenCreateCommand() *cobra.Command {
	var id, reason, role, end string
	var all bool
	var types []string
	cmd := &cobra.Command{
		Use:   "create NAME --role ROLE",
		Short: "Make a token and print its secret, this once",
		Long: `Make a token for one store (--store) or all (--all-stores). Its name is the actor
in the history. The secret goes to standard output, alone, and is kept nowhere.

The first token of a server is made on its datastore: --datastore.`,
		Example: `  pemba token create web-shop --role checker --types product,order
  pemba token create root --role admin --all-stores --datastore file:pemba.db
  pemba token create backup --role reader --all-stores --expires-in 90d > backup.token`,
		Args: takes("NAME"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		if role == "" {
			return usagef("--role is needed: one of %s", strings.Join(roles, ", "))
		}
		r, err := parseRole(role)
		if err != nil {
			return err
		}
		request := &pb.CreateTokenRequest{Store: c.store, Name: args[0], Role: r, RequestId: id, Reason: reason}
		if all {
			if cmd.Flags().Changed("store") {
				return usagef("--store and --all-stores exclude each other; give one")
			}
			request.Store, request.AllStores = "", true
		}
		request.Types = types
		if request.Expires, err = parseEnd("expires-in", end); err != nil {
			return err
		}
		made, err := c.tokens.CreateToken(ctx, request)
		if err != nil {
			return err
		}
		return a.printSecret(made.Token, made.Secret)
	})
	f := cmd.Flags()
	f.StringVar(&role, "role", "", "what the token allows: "+strings.Join(roles, ", "))
	f.BoolVar(&all, "all-stores", false, "the token is for all stores, those made later included")
	f.StringVar(&end, "expires-in", "", "when the token ends, from now, such as 90d; absent: when it is revoked")
	f.StringSliceVar(&types, "types", nil, "narrow the role to objects of these types: checker, reader and writer can be")
	a.direct(cmd)
	suggest(cmd, "role", roles...)
	addRequest(f, &id, &reason)
	return a.remote(cmd, true, false)
}

func (a *app) tokenListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the tokens, without their secrets",
		Example: `  pemba token list`,
		Long:    "List the tokens, without their secrets; with --store those that are valid for it.",
		Args:    takes(),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, _ []string) error {
		request := &pb.ListTokensRequest{Consistency: c.at}
		if cmd.Flags().Changed("store") {
			request.Store = proto.String(c.store)
		}
		var rows [][]string
		for {
			r, err := c.tokens.ListTokens(ctx, request)
			if err != nil {
				return err
			}
			for _, t := range r.Tokens {
				j := tokenDocument(t)
				if !a.json() {
					rows = append(rows, []string{j.Token, j.Role, strings.TrimPrefix(scope(j.Store), "store "), strings.Join(j.Types, " "), j.Created, j.Creator, j.Expires})
				} else if err := document(a.out, j); err != nil {
					return err
				}
			}
			if r.Complete || r.Cursor == "" {
				break
			}
			request.Cursor = r.Cursor
		}
		if !a.json() {
			a.table([]string{"TOKEN", "ROLE", "STORE", "TYPES", "CREATED", "BY", "EXPIRES"}, rows)
		}
		return nil
	})
	a.direct(cmd)
	return a.remote(cmd, true, true)
}

func (a *app) tokenRevokeCommand() *cobra.Command {
	var id, reason string
	cmd := &cobra.Command{
		Use:     "revoke NAME",
		Short:   "Make a token invalid, for good",
		Example: `  pemba token revoke gateway`,
		Args:    takes("NAME"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		r, err := c.tokens.RevokeToken(ctx, &pb.RevokeTokenRequest{Name: args[0], RequestId: id, Reason: reason})
		if err != nil {
			return err
		}
		if a.json() {
			return document(a.out, struct {
				Token  string `json:"token"`
				Zookie string `json:"zookie"`
			}{args[0], r.Zookie})
		}
		a.printf("token %s is revoked\n", args[0])
		return nil
	})
	addRequest(cmd.Flags(), &id, &reason)
	a.direct(cmd)
	return a.remote(cmd, false, false)
}
