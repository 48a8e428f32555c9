// Command client walks through the API pemba.v1 as a Go program does: it is what
// docs/api.md shows. It needs a server: `pemba serve`.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	pemba "github.com/pembadb/pemba/proto/pemba/v1"
)

func main() {
	addr := "127.0.0.1:50051"
	if len(os.Args) > 1 {
		addr = os.Args[1]
	}
	conn, err := connect(addr)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	if err := walk(withToken(context.Background(), os.Getenv("PEMBA_TOKEN")), conn); err != nil {
		log.Fatal(err)
	}
}

// connect speaks TLS where PEMBA_TLS_CA names the authority of the server's
// certificate, and else plain text.
func connect(addr string) (*grpc.ClientConn, error) {
	ca := os.Getenv("PEMBA_TLS_CA")
	if ca == "" {
		return grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	encrypted, err := credentials.NewClientTLSFromFile(ca, os.Getenv("PEMBA_TLS_SERVER_NAME"))
	if err != nil {
		return nil, fmt.Errorf("read the authority (PEMBA_TLS_CA): %w", err)
	}
	return grpc.NewClient(addr, grpc.WithTransportCredentials(encrypted))
}

func withToken(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

func object(typ, id string) *pemba.Object { return &pemba.Object{Type: typ, Id: id} }

func user(id string) *pemba.Subject { return &pemba.Subject{Type: "user", Id: id} }

const schema = `use expiration

definition user {}

caveat office_hours(hour int) { hour >= 8 && hour < 18 }

definition document {
	relation owner: user
	relation viewer: user | user with office_hours | user with expiration
	permission edit = owner
	permission view = viewer + edit
}
`

func walk(ctx context.Context, conn *grpc.ClientConn) error {
	for _, step := range []func(context.Context, *grpc.ClientConn) error{applySchema, write, check, lookup, explain, watch, mistakes} {
		limit, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := step(limit, conn)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

func applySchema(ctx context.Context, conn *grpc.ClientConn) error {
	applied, err := pemba.NewSchemaServiceClient(conn).ApplySchema(ctx, &pemba.ApplySchemaRequest{Text: schema})
	if err != nil {
		return err
	}
	for _, w := range applied.Warnings {
		fmt.Printf("line %d: %s\n", w.Line, w.Message)
	}
	return nil
}

func write(ctx context.Context, conn *grpc.ClientConn) error {
	client := pemba.NewRelationshipServiceClient(conn)
	request := &pemba.WriteRelationshipsRequest{
		RequestId: "invoice-7-created", // the same request again changes nothing
		Reason:    "ticket 4711",
		Operations: []*pemba.WriteOperation{
			{Operation: &pemba.WriteOperation_Touch{Touch: &pemba.Relationship{
				Resource: object("document", "invoice-7"), Relation: "owner", Subject: user("ada")}}},
			{Operation: &pemba.WriteOperation_Touch{Touch: &pemba.Relationship{
				Resource: object("document", "invoice-7"), Relation: "viewer", Subject: user("bob"),
				Caveat: &pemba.Caveat{Name: "office_hours"}}}},
		},
		Preconditions: []*pemba.Precondition{{Condition: &pemba.Precondition_MustNotMatch{MustNotMatch: &pemba.RelationshipFilter{
			ResourceType: "document", ResourceId: "invoice-7", Relation: "owner", Subject: &pemba.SubjectFilter{Type: "user", Id: "mallory"}}}}},
	}
	for range 2 {
		written, err := client.WriteRelationships(ctx, request)
		if err != nil {
			return err
		}
		fmt.Printf("revision %d, repeated %t\n", written.Revision, written.Repeated)
		zookie = written.Zookie // keep it beside the document
	}
	return nil
}

// zookie is where the application keeps what the last write returned.
var zookie string

func check(ctx context.Context, conn *grpc.ClientConn) error {
	client := pemba.NewPermissionServiceClient(conn)
	fresh := &pemba.Consistency{Requirement: &pemba.Consistency_AtLeastAsFresh{AtLeastAsFresh: zookie}}
	now, err := structpb.NewStruct(map[string]any{"hour": 9})
	if err != nil {
		return err
	}
	for _, given := range []*structpb.Struct{nil, now} {
		answer, err := client.Check(ctx, &pemba.CheckRequest{
			Consistency: fresh, Resource: object("document", "invoice-7"), Permission: "view", Subject: user("bob"), Context: given,
		})
		if err != nil {
			return err
		}
		fmt.Println(answer.Answer, answer.MissingFields)
	}
	many, err := client.BulkCheck(ctx, &pemba.BulkCheckRequest{Consistency: fresh, Items: []*pemba.BulkCheckItem{
		{Resource: object("document", "invoice-7"), Permission: "edit", Subject: user("ada")},
		{Resource: object("document", "invoice-7"), Permission: "edit", Subject: user("bob")},
	}})
	if err != nil {
		return err
	}
	for _, r := range many.Results {
		fmt.Println(r.Answer, r.Error) // in the order of the items; one that fails does not fail the others
	}
	return nil
}

func lookup(ctx context.Context, conn *grpc.ClientConn) error {
	client := pemba.NewPermissionServiceClient(conn)
	for cursor, complete := "", false; !complete; {
		page, err := client.LookupResources(ctx, &pemba.LookupResourcesRequest{
			ResourceType: "document", Permission: "edit", Subject: user("ada"), Limit: 100, Cursor: cursor,
		})
		if err != nil {
			return err
		}
		for {
			message, err := page.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			for _, r := range message.Results {
				fmt.Println(r.Id, r.Answer)
			}
			if end := message.End; end != nil { // the last message says whether that was all
				cursor, complete = end.Cursor, end.Complete
			}
		}
	}
	return nil
}

func explain(ctx context.Context, conn *grpc.ClientConn) error {
	why, err := pemba.NewPermissionServiceClient(conn).Explain(ctx, &pemba.ExplainRequest{
		Resource: object("document", "invoice-7"), Permission: "edit", Subject: user("bob"), MaxSuggestions: 1,
	})
	if err != nil {
		return err
	}
	fmt.Println(why.Answer, "because of", len(why.Nodes), "things")
	for _, s := range why.Suggestions {
		for _, w := range s.Writes {
			fmt.Println("it would be yes if", w.Subject.Id, "were", w.Relation, "of", w.Resource.Id)
		}
	}
	return nil
}

func watch(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pemba.NewWatchServiceClient(conn).Watch(ctx, &pemba.WatchRequest{Start: &pemba.WatchRequest_FromRevision{FromRevision: 1}})
	if err != nil {
		return err
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return err // go on after the last revision that was handled
		}
		if c := message.GetChange(); c != nil { // otherwise it is a sign of life
			fmt.Println(c.Revision, c.Actor, c.Reason, len(c.Operations))
			if c.Zookie == zookie {
				return nil
			}
		}
	}
}

func mistakes(ctx context.Context, conn *grpc.ClientConn) error {
	_, err := pemba.NewPermissionServiceClient(conn).Check(ctx, &pemba.CheckRequest{
		Resource: object("document", "invoice-7"), Permission: "veiw", Subject: user("bob"),
	})
	st := status.Convert(err)
	if st.Code() != codes.FailedPrecondition {
		return fmt.Errorf("a permission that does not exist gives %w", err)
	}
	fmt.Println(st.Message())
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			fmt.Println(info.Domain, info.Reason, info.Metadata)
		}
	}
	return nil
}
