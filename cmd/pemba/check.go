package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

// circumstances are what a question brings besides itself.
type circumstances struct {
	context string
	with    []string
}

func (c *circumstances) add(flags *pflag.FlagSet) {
	flags.StringVar(&c.context, "context", "", `values for caveats, a JSON object such as '{"day":"monday"}'`)
	c.addWith(flags)
}

func (c *circumstances) addWith(flags *pflag.FlagSet) {
	flags.StringArrayVar(&c.with, "with", nil, "a relationship that counts as if it were written; may be repeated")
}

func (c *circumstances) toWire() (*structpb.Struct, []*pb.Relationship, error) {
	values, err := contextToWire(c.context)
	if err != nil {
		return nil, nil, usage(err)
	}
	with, err := contextualToWire(c.with)
	return values, with, err
}

// answerJSON is an answer as JSON. Answer is yes, no, conditional or error.
type answerJSON struct {
	Question   string   `json:"question,omitempty"`
	Permission string   `json:"permission,omitempty"`
	Answer     string   `json:"answer"`
	Missing    []string `json:"missing,omitempty"`
	Error      string   `json:"error,omitempty"`
	Zookie     string   `json:"zookie,omitempty"`
}

// answer names an answer of the wire.
func answer(a pb.Answer, missing []string, failed *rpcstatus.Status) answerJSON {
	switch {
	case failed != nil:
		return answerJSON{Answer: "error", Error: remoteError{status: status.FromProto(failed)}.status.Message()}
	case a == pb.Answer_ANSWER_HAS_PERMISSION:
		return answerJSON{Answer: "yes"}
	case a == pb.Answer_ANSWER_CONDITIONAL:
		return answerJSON{Answer: "conditional", Missing: missing}
	case a == pb.Answer_ANSWER_NO_PERMISSION:
		return answerJSON{Answer: "no"}
	}
	return answerJSON{Answer: "error", Error: "the server gave an answer that this command does not know: " + a.String()}
}

// note says what an answer needs, or why there is none.
func (j answerJSON) note() string {
	if j.Error != "" {
		return j.Error
	}
	if len(j.Missing) > 0 {
		return "needs " + strings.Join(j.Missing, ", ")
	}
	return ""
}

func (j answerJSON) colour() colour {
	switch j.Answer {
	case "yes":
		return green
	case "conditional":
		return yellow
	}
	return red
}

func (a *app) checkCommand() *cobra.Command {
	var given circumstances
	var why explainFlags
	var debug bool
	cmd := &cobra.Command{
		Use:   "check RESOURCE PERMISSION SUBJECT",
		Short: "Ask whether a subject has a permission on a resource",
		Long: `Ask whether a subject has a permission (or relation) on a resource. The answer is
yes (exit code 0), no (3), or conditional (4): it depends on caveat fields that
--context does not give.`,
		Example: `  pemba check document:readme view user:ada
  pemba check document:readme view team:core#member
  pemba check document:plan view user:bea --context '{"day":"monday"}'
  pemba check document:plan view user:bea --with 'document:plan#viewer@user:bea'
  pemba check document:plan view user:bea --explain --suggest
  pemba check document:plan view user:bea --at 2026-01-31T12:00:00Z`,
		Args: takes("RESOURCE", "PERMISSION", "SUBJECT"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		q, err := parseQuestion(args[0], args[1], args[2])
		if err != nil {
			return usage(err)
		}
		values, with, err := given.toWire()
		if err != nil {
			return err
		}
		if why.wanted() {
			return a.explain(ctx, c, &pb.ExplainRequest{
				Store: c.store, Consistency: c.at, Context: values, ContextualRelationships: with,
				Resource: q.Resource, Permission: q.Permission, Subject: q.Subject,
			}, &why)
		}
		var sources metadata.MD
		if debug {
			ctx = metadata.AppendToOutgoingContext(ctx, debugKey, "1")
		}
		r, err := c.permissions.Check(ctx, &pb.CheckRequest{
			Store: c.store, Consistency: c.at, Context: values, ContextualRelationships: with,
			Resource: q.Resource, Permission: q.Permission, Subject: q.Subject,
		}, grpc.Trailer(&sources))
		if err != nil {
			return err
		}
		if debug {
			fmt.Fprintf(a.err, "read from: %s\n", strings.Join(sources.Get(debugKey), " "))
			for _, query := range sources.Get(debugKey + "-read") {
				fmt.Fprintf(a.err, "  %s\n", query)
			}
		}
		return a.printAnswer(answer(r.Answer, r.MissingFields, nil), r.Zookie)
	})
	given.add(cmd.Flags())
	why.add(cmd)
	cmd.Flags().BoolVar(&debug, "debug", false, "tell on standard error where what the answer rests on was read: from memory, or how many queries were remembered, answered by peers and by the database, and each of them")
	return a.backward(a.remote(cmd, true, true))
}

// debugKey is the metadata that asks a server where it read what it answers from.
const debugKey = "pemba-debug"

// printAnswer prints one answer and ends with its exit code.
func (a *app) printAnswer(j answerJSON, zookie string) error {
	if a.json() {
		j.Zookie = zookie
		if err := document(a.out, j); err != nil {
			return err
		}
	} else {
		text := a.paint(a.out, j.colour(), j.Answer)
		if note := j.note(); note != "" {
			text += ": " + note
		}
		a.printf("%s\n", text)
	}
	return exitOf(j)
}

// exitOf is the exit code of an answer.
func exitOf(j answerJSON) error {
	switch j.Answer {
	case "yes":
		return nil
	case "no":
		return answered(exitNo)
	case "conditional":
		return answered(exitConditional)
	}
	return answered(exitError)
}

// parseQuestion reads a question from its three parts.
func parseQuestion(resource, permission, subject string) (*pb.BulkCheckItem, error) {
	o, err := tuple.ParseObject(resource)
	if err != nil {
		return nil, err
	}
	if err := tuple.CheckRelation(permission); err != nil {
		return nil, err
	}
	s, err := tuple.ParseSubject(subject)
	if err != nil {
		return nil, err
	}
	return &pb.BulkCheckItem{Resource: objectToWire(o), Permission: permission, Subject: subjectToWire(s)}, nil
}

func (a *app) permissionsCommand() *cobra.Command {
	var given circumstances
	cmd := &cobra.Command{
		Use:     "permissions RESOURCE SUBJECT",
		Short:   "List what a subject may do with a resource",
		Example: `  pemba permissions document:readme user:ada`,
		Args:    takes("RESOURCE", "SUBJECT"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		resource, err := tuple.ParseObject(args[0])
		if err != nil {
			return usage(err)
		}
		subject, err := tuple.ParseSubject(args[1])
		if err != nil {
			return usage(err)
		}
		values, with, err := given.toWire()
		if err != nil {
			return err
		}
		r, err := c.permissions.ListPermissions(ctx, &pb.ListPermissionsRequest{
			Store: c.store, Consistency: c.at, Context: values, ContextualRelationships: with,
			Resource: objectToWire(resource), Subject: subjectToWire(subject),
		})
		if err != nil {
			return err
		}
		return a.printPermissions(r)
	})
	given.add(cmd.Flags())
	return a.backward(a.remote(cmd, true, true))
}

func (a *app) printPermissions(r *pb.ListPermissionsResponse) error {
	answers := make([]answerJSON, len(r.Permissions))
	rows := make([][]string, len(r.Permissions))
	failed := false
	for i, p := range r.Permissions {
		answers[i] = answer(p.Answer, p.MissingFields, p.Error)
		answers[i].Permission = p.Permission
		rows[i] = []string{p.Permission, answers[i].Answer, answers[i].note()}
		failed = failed || answers[i].Answer == "error"
	}
	if a.json() {
		if err := document(a.out, struct {
			Permissions []answerJSON `json:"permissions"`
			Zookie      string       `json:"zookie"`
		}{answers, r.Zookie}); err != nil {
			return err
		}
	} else {
		a.table([]string{"PERMISSION", "ANSWER", ""}, rows)
	}
	if failed {
		return answered(exitError)
	}
	return nil
}
