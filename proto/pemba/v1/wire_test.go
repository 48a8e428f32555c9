package pembav1

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
)

// The detail of a failed bulk check item has to survive the wire inside google.rpc.Status.
func TestABulkCheckResultKeepsTheDetailsOfItsError(t *testing.T) {
	detail, err := anypb.New(&SchemaErrors{Errors: []*SchemaProblem{{Line: 3, Column: 7, Message: "unknown type"}}})
	if err != nil {
		t.Fatal(err)
	}
	want := &BulkCheckResponse{Zookie: "z", Results: []*BulkCheckResult{
		{Answer: Answer_ANSWER_CONDITIONAL, MissingFields: []string{"day"}},
		{Error: &rpcstatus.Status{Code: 9, Message: "no such type", Details: []*anypb.Any{detail}}},
	}}
	wire, err := proto.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got := new(BulkCheckResponse)
	if err := proto.Unmarshal(wire, got); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, want) {
		t.Errorf("after the wire: %v, want %v", got, want)
	}
}
