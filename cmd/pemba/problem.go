package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// answered ends a command with an exit code and nothing more to say.
type answered int

func (e answered) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// usageError is a mistake in the command line, found while a command was running.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usage(err error) error { return usageError{err} }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// remoteError is what a server answered, or that none did.
type remoteError struct {
	status *status.Status
	addr   string
}

func (e remoteError) Error() string {
	text := e.status.Message()
	if e.status.Code() == codes.Unavailable && e.reason() == "" {
		if why := handshake(text); why != "" {
			return fmt.Sprintf("cannot talk to the server at %s: %s", e.addr, why)
		}
		return fmt.Sprintf("cannot reach a Pemba server at %s: %s; start one with `pemba serve`, or name another with --addr or PEMBA_ADDR",
			e.addr, lastCause(text))
	}
	if e.status.Code() == codes.Unimplemented {
		return fmt.Sprintf("the server at %s does not know this call: %s; is it a Pemba server, and as new as this command?", e.addr, text)
	}
	if hint := hints[e.reason()]; hint != "" && !strings.Contains(text, hint) {
		if reason := e.reason(); reason == "RELATIONSHIP_EXISTS" {
			text, _, _ = strings.Cut(text, "; use touch") // as the API says it
		}
		return text + "; " + hint
	}
	if e.reason() == "" {
		return fmt.Sprintf("%s (%s, from the server at %s)", text, e.status.Code(), e.addr)
	}
	return text
}

// hints say what to do on the command line, where the server's text cannot know.
var hints = map[string]string{
	"NO_TOKEN":             "on the command line: --token, --token-file or PEMBA_TOKEN",
	"UNKNOWN_TOKEN":        "look at --token, --token-file and PEMBA_TOKEN",
	"RELATIONSHIP_EXISTS":  "leave out --create to replace it",
	"TOO_MANY_REMOVALS":    "look at `pemba directory plan FILE`, then allow it with --max-removals or --remove-most",
	"SCHEMA_HASH_MISMATCH": "look at `pemba schema diff FILE`, then apply with its hash",
}

// reason returns the ErrorReason that Pemba gave, or nothing if the error is not Pemba's.
func (e remoteError) reason() string {
	if info := e.info(); info != nil {
		return info.Reason
	}
	return ""
}

func (e remoteError) info() *errdetails.ErrorInfo {
	for _, d := range e.status.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && strings.HasPrefix(info.Domain, "pemba") {
			return info
		}
	}
	return nil
}

// lastCause cuts what gRPC tells about its own layers off a connection error: `connection error: desc = "transport: Error
// while dialing: dial tcp 127.0.0.1:1: connect: connection refused"` is `connection refused`.
func lastCause(text string) string {
	text = strings.TrimSuffix(text, `"`)
	for _, mark := range []string{"connect: ", "lookup ", "desc = \"transport: "} {
		if at := strings.LastIndex(text, mark); at >= 0 {
			if mark == "lookup " {
				return text[at:]
			}
			return text[at+len(mark):]
		}
	}
	return text
}

// exit prints what went wrong, if anything did, and returns the exit code.
func (a *app) exit(ctx context.Context, cmd *cobra.Command, err error) int {
	var code answered
	var mistake usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &mistake) || a.running == "":
		path := "pemba"
		if cmd != nil {
			path = cmd.CommandPath()
		}
		a.complain("%s\nSee `%s --help`.", flagGroup(firstLine(err.Error())), path)
		return exitUsage
	case ctx.Err() != nil:
		a.complain("%s was interrupted", strings.TrimPrefix(a.running, "pemba "))
		return exitError
	}
	a.complain("%s", err)
	return exitError
}

// complain prints to standard error.
func (a *app) complain(format string, args ...any) {
	fmt.Fprintf(a.err, "%s %s\n", a.paint(a.err, red, "pemba:"), strings.TrimRight(fmt.Sprintf(format, args...), "\n"))
}

// warn prints to standard error what is no failure, and perhaps not meant.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.err, "%s %s\n", a.paint(a.err, yellow, "warning:"), fmt.Sprintf(format, args...))
}

// firstLine leaves out what cobra appends about suggestions over several lines.
func firstLine(text string) string {
	head, rest, many := strings.Cut(text, "\n")
	if !many {
		return head
	}
	if fields := strings.Fields(rest); len(fields) > 4 && strings.HasPrefix(strings.TrimSpace(rest), "Did you mean this?") {
		return head + "; did you mean " + fields[4] + "?"
	}
	return head
}
