package server_test

import (
	"context"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"
)

// unserved is the table of the migration guide: what is not served, by its first
// column, with the answer to it, the second.
func unserved() (map[string]string, error) {
	guide, err := os.ReadFile("../docs/migrating-from-spicedb.md")
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(string(guide), "\n## What is not served\n")
	rows := map[string]string{}
	for line := range strings.Lines(rest) {
		if cells := strings.Split(line, "|"); len(cells) == 5 && !strings.HasPrefix(line, "| ---") && !strings.HasPrefix(line, "| what |") {
			rows[strings.TrimSpace(cells[1])] = strings.TrimSpace(cells[2])
		}
	}
	return rows, nil
}

var quoted = regexp.MustCompile("`([^`]+)`")

// unservedMethods are the methods that the table names as UNIMPLEMENTED.
func unservedMethods() (map[string]bool, error) {
	rows, err := unserved()
	methods := map[string]bool{}
	for what, answer := range rows {
		if !strings.HasPrefix(answer, "`UNIMPLEMENTED`") {
			continue
		}
		for _, name := range quoted.FindAllStringSubmatch(what, -1) {
			if !strings.Contains(name[1], ".") {
				methods[name[1]] = true
			}
		}
	}
	return methods, err
}

// TestWhatIsNotServedIsAnsweredAsTheGuideSays tries each row of the guide's table.
func TestWhatIsNotServedIsAnsweredAsTheGuideSays(t *testing.T) {
	n, c := compatible(t)
	touch(t, c, "document:d#viewer@user:ada", "document:e#viewer@user:ada", "document:d#viewer@user:bob")
	ctx := t.Context()
	subjects := func(change func(*authzedv1.LookupSubjectsRequest)) ([]string, error) {
		r := &authzedv1.LookupSubjectsRequest{Consistency: afully(), Resource: aobject("document:d"), Permission: "view", SubjectObjectType: "user"}
		change(r)
		found, err := all(c.LookupSubjects(ctx, r))
		var ids []string
		for _, f := range found {
			ids = append(ids, f.Subject.SubjectObjectId)
		}
		slices.Sort(ids)
		return ids, err
	}
	code := func(want codes.Code) func(error) {
		return func(err error) {
			t.Helper()
			if status.Code(err) != want {
				t.Errorf("%v, want %v", err, want)
			}
		}
	}
	tries := map[string]func(t *testing.T, answer string){
		"relationship counters": func(t *testing.T, _ string) {
			_, err := c.ExperimentalRegisterRelationshipCounter(ctx, &authzedv1.ExperimentalRegisterRelationshipCounterRequest{
				Name: "some", RelationshipFilter: &authzedv1.RelationshipFilter{ResourceType: "folder"}})
			code(codes.Unimplemented)(err)
			_, err = c.ExperimentalCountRelationships(ctx, &authzedv1.ExperimentalCountRelationshipsRequest{Name: "some"})
			code(codes.Unimplemented)(err)
			_, err = c.ExperimentalUnregisterRelationshipCounter(ctx, &authzedv1.ExperimentalUnregisterRelationshipCounterRequest{Name: "some"})
			code(codes.Unimplemented)(err)
		},
		"LookupSubjectsRequest.optional_concrete_limit": func(t *testing.T, _ string) {
			_, err := subjects(func(r *authzedv1.LookupSubjectsRequest) { r.OptionalConcreteLimit = 1 })
			code(codes.Unimplemented)(err)
		},
		"LookupSubjectsRequest.optional_cursor": func(t *testing.T, answer string) {
			ids, err := subjects(func(r *authzedv1.LookupSubjectsRequest) { r.OptionalCursor = &authzedv1.Cursor{Token: "any"} })
			if err != nil || !strings.HasPrefix(answer, "ignored") {
				t.Fatal(err)
			}
			equal(t, "subjects", ids, []string{"ada", "bob"})
		},
		"DeleteRelationshipsRequest.optional_cursor": func(t *testing.T, answer string) {
			_, err := c.DeleteRelationships(ctx, &authzedv1.DeleteRelationshipsRequest{
				RelationshipFilter: &authzedv1.RelationshipFilter{ResourceType: "document"}, OptionalCursor: &authzedv1.Cursor{Token: "any"}})
			aexpect(t, "the cursor of a delete", err, codes.InvalidArgument, authzedv1.ErrorReason_ERROR_REASON_INVALID_CURSOR)
			if !strings.Contains(answer, "`INVALID_ARGUMENT`, `INVALID_CURSOR`") {
				t.Errorf("the table says %s", answer)
			}
		},
		"LookupResourcesRequest.with_debug": func(t *testing.T, _ string) {
			found, err := all(c.LookupResources(ctx, &authzedv1.LookupResourcesRequest{
				Consistency: afully(), ResourceObjectType: "document", Permission: "view", Subject: asubject("user:ada"), WithDebug: true}))
			if err != nil || len(found) != 2 {
				t.Errorf("%v, %v", found, err)
			}
			_, err = all(c.LookupResources(ctx, &authzedv1.LookupResourcesRequest{
				Consistency: afully(), ResourceObjectType: "document", Permission: "veiw", Subject: asubject("user:ada"), WithDebug: true}))
			if details := status.Convert(err).Details(); len(details) != 1 {
				t.Errorf("the error has the details %v", details)
			}
		},
		"the metadata keys": func(t *testing.T, _ string) {
			var header, trailer metadata.MD
			ctx := metadata.AppendToOutgoingContext(ctx, "io.spicedb.requestdebuginfo", "1", "io.spicedb.requestoverlapkey", "x")
			if _, err := c.CheckPermission(ctx, acheck("document:d", "view", "user:ada"), grpc.Header(&header), grpc.Trailer(&trailer)); err != nil {
				t.Error(err)
			}
			for key := range header {
				if strings.Contains(key, "spicedb") {
					t.Errorf("a header %s", key)
				}
			}
		},
		"the trailers": func(t *testing.T, _ string) {
			var trailer metadata.MD
			if _, err := c.CheckPermission(ctx, acheck("document:d", "view", "user:ada"), grpc.Trailer(&trailer)); err != nil {
				t.Error(err)
			}
			for key := range trailer {
				if strings.Contains(key, "count") {
					t.Errorf("a trailer %s", key)
				}
			}
		},
		"HTTP and JSON": func(t *testing.T, _ string) {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+n.addr+"/v1/permissions/check", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			if answer, err := http.DefaultClient.Do(r); err == nil {
				answer.Body.Close()
				t.Errorf("HTTP is answered with %s", answer.Status)
			}
		},
		"Materialize": func(t *testing.T, _ string) {
			err := n.conn.Invoke(context.Background(), "/authzed.api.materialize.v0.WatchPermissionsService/WatchPermissions", &emptypb.Empty{}, &emptypb.Empty{})
			code(codes.Unimplemented)(err)
		},
	}
	rows, err := unserved()
	if err != nil {
		t.Fatal(err)
	}
	for what, answer := range rows {
		found := false
		for start, try := range tries {
			if strings.HasPrefix(strings.TrimPrefix(what, "`"), start) {
				t.Run(start, func(t *testing.T) { try(t, answer) })
				found = true
				delete(tries, start)
				break
			}
		}
		if !found {
			t.Errorf("no test tries what the guide says of %s", what)
		}
		for _, name := range quoted.FindAllStringSubmatch(what, -1) {
			if message, field, is := strings.Cut(name[1], "."); is && strings.HasSuffix(message, "Request") {
				d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName("authzed.api.v1." + message + "." + field))
				if err != nil || d == nil {
					t.Errorf("the guide names the field %s: %v", name[1], err)
				}
			}
		}
	}
	for start := range maps.Keys(tries) {
		t.Errorf("the guide's table does not say that %s is not served", start)
	}
}
