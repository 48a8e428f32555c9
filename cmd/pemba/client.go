package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
)

// defaultAddr is where a server listens and a client looks, unless told otherwise.
const defaultAddr = "127.0.0.1:50051"

// maxMessage bounds the answers a client takes, in bytes: larger than any page a server sends.
const maxMessage = 256 << 20

// clientFlags say which server, as whom, which store, at which revision.
type clientFlags struct {
	addr, token, tokenFile, store, consistency, past string
	timeout                                          time.Duration
	tls                                              clientTLS
	place                                            place // of a command that works without a server; zero: none
}

// remote gives a command the flags of a client. Which of store and consistency mean something to it, it says itself.
func (a *app) remote(cmd *cobra.Command, store, consistency bool) *cobra.Command {
	f := cmd.Flags()
	f.StringVar(&a.client.addr, "addr", defaultAddr, "the server's gRPC address")
	withEnv(f, "addr", "PEMBA_ADDR")
	f.StringVar(&a.client.token, "token", "", "the token to call with")
	withEnv(f, "token", "PEMBA_TOKEN")
	f.StringVar(&a.client.tokenFile, "token-file", "", "a file with the token to call with")
	withEnv(f, "token-file", "PEMBA_TOKEN_FILE")
	a.client.tls.add(f)
	f.DurationVar(&a.client.timeout, "timeout", 0, "give up after this time; 0 waits as long as it takes")
	if store {
		f.StringVar(&a.client.store, "store", "default", "the store's name")
		withEnv(f, "store", "PEMBA_STORE")
	}
	if consistency {
		f.StringVar(&a.client.consistency, "consistency", "minimize_latency",
			"which revision answers: minimize_latency, fully_consistent, at_least_as_fresh:ZOOKIE or at_exact_snapshot:ZOOKIE")
		withEnv(f, "consistency", "PEMBA_CONSISTENCY")
		suggest(cmd, "consistency", "minimize_latency", "fully_consistent", "at_least_as_fresh:", "at_exact_snapshot:")
	}
	return cmd
}

// backward gives a command that asks at a consistency the flag to ask about the past instead.
func (a *app) backward(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&a.client.past, "at", "", "ask about the store as it was at this time: "+timeForms)
	cmd.MarkFlagsMutuallyExclusive("at", "consistency")
	return cmd
}

// call makes the body of a command that talks to a server. Errors of the server become remoteErrors.
func (a *app) call(body func(ctx context.Context, c *connection, args []string) error) func(*cobra.Command, []string) error {
	return a.do(func(ctx context.Context, args []string) (err error) {
		if a.client.place.uri != "" {
			stop, err := a.serveItself(ctx)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, stop()) }()
		}
		c, err := a.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		if a.client.timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, a.client.timeout)
			defer cancel()
		}
		return c.explain(body(ctx, c, args))
	})
}

// connection is a client's way to one server.
type connection struct {
	*grpc.ClientConn
	addr    string
	timeout time.Duration // of the command; zero: none
	store   string
	// at is the consistency that was asked for; nil where the command has none.
	at *pb.Consistency

	permissions   pb.PermissionServiceClient
	relationships pb.RelationshipServiceClient
	schemas       pb.SchemaServiceClient
	watches       pb.WatchServiceClient
	histories     pb.HistoryServiceClient
	audits        pb.AuditServiceClient
	users         pb.ProvisioningServiceClient
	stores        pb.StoreServiceClient
	tokens        pb.TokenServiceClient
	grants        pb.GrantServiceClient
}

// dial prepares a connection; nothing is sent before the first call.
func (a *app) dial() (*connection, error) {
	if _, _, err := net.SplitHostPort(a.client.addr); err != nil {
		return nil, usagef("--addr %q is no address: write HOST:PORT, such as %s", a.client.addr, defaultAddr)
	}
	if a.client.timeout < 0 {
		return nil, usagef("--timeout %s is below 0; leave it out to wait as long as it takes", a.client.timeout)
	}
	at, err := parseConsistency(a.client.consistency)
	if err != nil {
		return nil, usage(err)
	}
	if past, err := parseTime("at", a.client.past); err != nil {
		return nil, err
	} else if past != nil {
		at = &pb.Consistency{Requirement: &pb.Consistency_AtTime{AtTime: past}}
	}
	secret, err := readToken(a.client.token, a.client.tokenFile)
	if err != nil {
		return nil, err
	}
	encrypted, err := a.client.tls.credentials()
	if err != nil {
		return nil, err
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(encrypted),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithUserAgent("pemba/" + version()),
	}
	if secret != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer(secret)))
	}
	// passthrough: the address is dialled as given, without a resolver's detours and its environment.
	conn, err := grpc.NewClient("passthrough:///"+a.client.addr, options...)
	if err != nil {
		return nil, usagef("--addr %q is no address: %v", a.client.addr, err)
	}
	return &connection{
		ClientConn: conn, addr: a.client.addr, timeout: a.client.timeout, store: a.client.store, at: at,
		permissions:   pb.NewPermissionServiceClient(conn),
		relationships: pb.NewRelationshipServiceClient(conn),
		schemas:       pb.NewSchemaServiceClient(conn),
		watches:       pb.NewWatchServiceClient(conn),
		histories:     pb.NewHistoryServiceClient(conn),
		audits:        pb.NewAuditServiceClient(conn),
		stores:        pb.NewStoreServiceClient(conn),
		tokens:        pb.NewTokenServiceClient(conn),
		grants:        pb.NewGrantServiceClient(conn),
		users:         pb.NewProvisioningServiceClient(conn),
	}, nil
}

// explain turns an error of a call into a remoteError and leaves others alone.
func (c *connection) explain(err error) error {
	var e interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &e) {
		return err
	}
	remote := remoteError{status: e.GRPCStatus(), addr: c.addr}
	if c.timeout > 0 && remote.status.Code() == codes.DeadlineExceeded && remote.reason() == "" {
		return fmt.Errorf("no answer from the server at %s within --timeout %s", c.addr, c.timeout)
	}
	return remote
}

// bearer sends a token with every call (RFC 6750 §2.1).
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity is false: plain text is what is served on loopback.
func (b bearer) RequireTransportSecurity() bool { return false }

// readToken returns the token given itself or by a file, which is trimmed of white space.
func readToken(token, file string) (string, error) {
	if token != "" || file == "" {
		return token, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fileError("read the token in", err)
	}
	token = strings.TrimSpace(string(data))
	if token == "" {
		return "", fmt.Errorf("the token file %s is empty; write the token into it", file)
	}
	return token, nil
}

// parseConsistency reads a level, with the zookie it needs behind a colon. The empty text is no consistency.
func parseConsistency(text string) (*pb.Consistency, error) {
	level, zookie, given := strings.Cut(text, ":")
	needs := level == "at_least_as_fresh" || level == "at_exact_snapshot"
	if needs && zookie == "" {
		return nil, fmt.Errorf("the consistency %s needs a zookie: write %s:ZOOKIE, with the zookie of an earlier answer", level, level)
	}
	if given && !needs {
		return nil, fmt.Errorf("the consistency %q takes no zookie, if it is one: write minimize_latency, fully_consistent, at_least_as_fresh:ZOOKIE or at_exact_snapshot:ZOOKIE", level)
	}
	switch level {
	case "":
		return nil, nil
	case "minimize_latency":
		return &pb.Consistency{Requirement: &pb.Consistency_MinimizeLatency{MinimizeLatency: true}}, nil
	case "fully_consistent":
		return &pb.Consistency{Requirement: &pb.Consistency_FullyConsistent{FullyConsistent: true}}, nil
	case "at_least_as_fresh":
		return &pb.Consistency{Requirement: &pb.Consistency_AtLeastAsFresh{AtLeastAsFresh: zookie}}, nil
	case "at_exact_snapshot":
		return &pb.Consistency{Requirement: &pb.Consistency_AtExactSnapshot{AtExactSnapshot: zookie}}, nil
	}
	return nil, fmt.Errorf("there is no consistency %q; write minimize_latency, fully_consistent, at_least_as_fresh:ZOOKIE or at_exact_snapshot:ZOOKIE", text)
}

// receive calls f with each message of a stream up to its end.
func receive[M any](stream interface{ Recv() (*M, error) }, f func(*M) error) error {
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(m); err != nil {
			return err
		}
	}
}

// gone reports whether a server went away, so that it is worth trying again.
func gone(err error) bool { return status.Code(err) == codes.Unavailable }
