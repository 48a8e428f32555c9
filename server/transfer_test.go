package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"

	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

func batch(t *testing.T, offset int, texts ...string) *pembav1.ImportRelationshipsRequest {
	b := &pembav1.ImportBatch{Offset: uint64(offset)}
	for _, text := range texts {
		b.Relationships = append(b.Relationships, rel(t, text))
	}
	return &pembav1.ImportRelationshipsRequest{Part: &pembav1.ImportRelationshipsRequest_Batch{Batch: b}}
}

func start(s *pembav1.ImportStart) *pembav1.ImportRelationshipsRequest {
	return &pembav1.ImportRelationshipsRequest{Part: &pembav1.ImportRelationshipsRequest_Start{Start: s}}
}

// importAll sends messages, closes, and returns the answers.
func importAll(ctx context.Context, n *node, ms ...*pembav1.ImportRelationshipsRequest) ([]*pembav1.ImportRelationshipsResponse, error) {
	stream, err := n.relationships.ImportRelationships(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range ms {
		if err := stream.Send(m); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	var out []*pembav1.ImportRelationshipsResponse
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, m)
	}
}

func someRows(from, to int) (out []string) {
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprintf("document:d%04d#viewer@user:u%d", i/3, i))
	}
	return out
}

func TestAnImportThatWasCutOffResumesAndWritesEachBatchOnce(t *testing.T) {
	n := documents(t, richSchema)
	ctx, cut := context.WithCancel(t.Context())
	stream, err := n.relationships.ImportRelationships(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(start(&pembav1.ImportStart{Reason: "moving in"})); err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil || first.RequestId == "" || first.Offset != 0 {
		t.Fatalf("the start is answered with %v, %v", first, err)
	}
	for i := range 3 {
		if err := stream.Send(batch(t, 100*i, someRows(100*i, 100*i+100)...)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if first, err = stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	if first.Offset != 200 || first.Created != 200 {
		t.Fatalf("after two batches: %v", first)
	}
	cut() // the third batch's answer is lost; it may be durable or not

	again, err := importAll(t.Context(), n, start(&pembav1.ImportStart{RequestId: first.RequestId, Reason: "moving in"}),
		batch(t, 200, someRows(200, 300)...), batch(t, 300, someRows(300, 350)...))
	if err != nil {
		t.Fatal(err)
	}
	if last := again[len(again)-1]; len(again) != 3 || last.Offset != 350 || last.Created != 150 {
		t.Errorf("the rest is answered with %v", again)
	}
	// All of it once more: nothing is written.
	before := last(again).Revision
	once, err := importAll(t.Context(), n, start(&pembav1.ImportStart{RequestId: first.RequestId, Reason: "moving in"}), batch(t, 0, someRows(0, 100)...))
	if err != nil {
		t.Fatal(err)
	}
	if head, err := n.keeper.Head(t.Context(), 2); err != nil || uint64(head.Revision) != before {
		t.Errorf("a repeated import moved the head from %d to %d, %v", before, head.Revision, err)
	}
	if last(once).Created != 100 {
		t.Errorf("a repeated batch is answered with %v", last(once))
	}
	if got, _ := read(t, n, &pembav1.ReadRelationshipsRequest{}); !sameSet(got, someRows(0, 350)) {
		t.Errorf("%d relationships were imported, want 350", len(got))
	}
	_, err = importAll(t.Context(), n, start(&pembav1.ImportStart{RequestId: first.RequestId, Reason: "moving in"}), batch(t, 0, "document:x#viewer@user:y"))
	expect(t, "another batch at an offset", err, codes.AlreadyExists, "REQUEST_ID_REUSED")
	if fact(err, "offset") != "0" {
		t.Errorf("the offset is missing in %v", err)
	}
}

func last[T any](list []T) T { return list[len(list)-1] }

func TestAnImportRefusesWhatBreaksItsRules(t *testing.T) {
	n := documents(t, richSchema)
	one := "document:d#viewer@user:u"
	begin := start(&pembav1.ImportStart{})
	for name, c := range map[string]struct {
		ms     []*pembav1.ImportRelationshipsRequest
		code   codes.Code
		reason string
	}{
		"nothing at all":  {nil, codes.InvalidArgument, "MISSING_FIELD"},
		"no start":        {[]*pembav1.ImportRelationshipsRequest{batch(t, 0, one)}, codes.InvalidArgument, "MISSING_FIELD"},
		"an empty part":   {[]*pembav1.ImportRelationshipsRequest{begin, {}}, codes.InvalidArgument, "MISSING_FIELD"},
		"an empty batch":  {[]*pembav1.ImportRelationshipsRequest{begin, batch(t, 0)}, codes.InvalidArgument, "MISSING_FIELD"},
		"a second start":  {[]*pembav1.ImportRelationshipsRequest{begin, begin}, codes.InvalidArgument, "MISSING_FIELD"},
		"a gap":           {[]*pembav1.ImportRelationshipsRequest{begin, batch(t, 0, one), batch(t, 2, one)}, codes.InvalidArgument, "INVALID_FIELD"},
		"an unknown mode": {[]*pembav1.ImportRelationshipsRequest{start(&pembav1.ImportStart{Mode: 99})}, codes.InvalidArgument, "INVALID_FIELD"},
		"a long id":       {[]*pembav1.ImportRelationshipsRequest{start(&pembav1.ImportStart{RequestId: string(make([]byte, 97))})}, codes.InvalidArgument, "INVALID_FIELD"},
		"one twice":       {[]*pembav1.ImportRelationshipsRequest{begin, batch(t, 0, "document:e#viewer@user:u", "document:e#viewer@user:u")}, codes.InvalidArgument, "DUPLICATE_OPERATION"},
		"too many":        {[]*pembav1.ImportRelationshipsRequest{begin, batch(t, 0, someRows(0, 1001)...)}, codes.InvalidArgument, "LIMIT_EXCEEDED"},
		"create over one": {[]*pembav1.ImportRelationshipsRequest{start(&pembav1.ImportStart{Mode: pembav1.ImportMode_IMPORT_MODE_CREATE}),
			batch(t, 0, "document:f#viewer@user:u"), batch(t, 1, "document:f#viewer@user:u")}, codes.AlreadyExists, "RELATIONSHIP_EXISTS"},
		"an unknown type": {[]*pembav1.ImportRelationshipsRequest{begin, batch(t, 0, "planet:f#viewer@user:u")}, codes.FailedPrecondition, "UNKNOWN_TYPE"},
	} {
		_, err := importAll(t.Context(), n, c.ms...)
		expect(t, name, err, c.code, c.reason)
	}
}

func TestAnExportThatWasCutOffResumesAtItsRevision(t *testing.T) {
	n := documents(t, richSchema)
	for i := 0; i < 3000; i += 1000 {
		n.write(t, someRows(i, i+1000)...)
	}
	whole, err := all(n.relationships.ExportRelationships(t.Context(), &pembav1.ExportRelationshipsRequest{}))
	if err != nil || len(whole) < 3 {
		t.Fatalf("%d messages, %v", len(whole), err)
	}
	var want, got []string
	for i, m := range whole {
		for _, r := range m.Relationships {
			want = append(want, text(r))
		}
		if m.Complete != (i == len(whole)-1) {
			t.Errorf("message %d of %d has complete %t", i, len(whole), m.Complete)
		}
	}
	for _, r := range whole[0].Relationships {
		got = append(got, text(r))
	}
	n.write(t, "document:after#viewer@user:late", "document:d0999#viewer@user:late")
	rest, err := all(n.relationships.ExportRelationships(t.Context(), &pembav1.ExportRelationshipsRequest{Cursor: whole[0].Cursor}))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range rest {
		if m.Zookie != whole[0].Zookie {
			t.Errorf("the rest is of another revision")
		}
		for _, r := range m.Relationships {
			got = append(got, text(r))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("cut and resumed: %d relationships, want the same %d", len(got), len(want))
	}
}

func TestADeletionByFilterTakesAsManyChangesAsItNeedsAndIsRepeatedSafely(t *testing.T) {
	n := documents(t, richSchema)
	for i := 0; i < 3000; i += 1000 {
		n.write(t, someRows(i, i+1000)...)
	}
	n.write(t, "folder:stays#viewer@user:u1")
	request := &pembav1.DeleteRelationshipsRequest{Filter: &pembav1.RelationshipFilter{ResourceType: "document"}, RequestId: "clean-up", Limit: 2500}
	got, err := all(n.relationships.DeleteRelationships(t.Context(), request))
	if err != nil {
		t.Fatal(err)
	}
	if l := last(got); len(got) != 3 || l.Deleted != 2500 || l.Complete || l.RequestId != "clean-up" {
		t.Errorf("the first 2,500: %v", got)
	}
	request.Limit, request.RequestId = 0, "clean-up-all"
	if got, err = all(n.relationships.DeleteRelationships(t.Context(), request)); err != nil || last(got).Deleted != 500 || !last(got).Complete {
		t.Errorf("the rest: %v, %v", got, err)
	}
	n.write(t, "document:new#viewer@user:u")
	before, _ := n.keeper.Head(t.Context(), 2)
	if got, err = all(n.relationships.DeleteRelationships(t.Context(), request)); err != nil || last(got).Deleted != 500 || !last(got).Complete {
		t.Errorf("repeated: %v, %v", got, err)
	}
	if after, _ := n.keeper.Head(t.Context(), 2); after != before {
		t.Errorf("a repeated deletion moved the head from %d to %d", before.Revision, after.Revision)
	}
	if left, _ := read(t, n, &pembav1.ReadRelationshipsRequest{}); !slices.Equal(left, []string{"document:new#viewer@user:u", "folder:stays#viewer@user:u1"}) {
		t.Errorf("left are %v", left)
	}
	none, err := all(n.relationships.DeleteRelationships(t.Context(), &pembav1.DeleteRelationshipsRequest{Filter: &pembav1.RelationshipFilter{ResourceType: "group"}}))
	if err != nil || len(none) != 1 || none[0].Deleted != 0 || !none[0].Complete || none[0].Zookie == "" {
		t.Errorf("nothing matches: %v, %v", none, err)
	}
	_, err = all(n.relationships.DeleteRelationships(t.Context(), &pembav1.DeleteRelationshipsRequest{}))
	expect(t, "without a filter", err, codes.InvalidArgument, "INVALID_FILTER")
	_, err = all(n.relationships.DeleteRelationships(t.Context(), &pembav1.DeleteRelationshipsRequest{Filter: request.Filter, Preconditions: []*pembav1.Precondition{
		{Condition: &pembav1.Precondition_MustNotMatch{MustNotMatch: &pembav1.RelationshipFilter{ResourceType: "folder"}}},
	}}))
	expect(t, "a precondition that fails", err, codes.FailedPrecondition, "PRECONDITION_FAILED")
	if fact(err, "precondition") != "0" {
		t.Errorf("the failed precondition is not named: %v", err)
	}
}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}
