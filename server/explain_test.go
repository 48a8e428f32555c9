package server_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/types/known/structpb"

	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

func explain(user string) *pembav1.ExplainRequest {
	return &pembav1.ExplainRequest{
		Resource: &pembav1.Object{Type: "document", Id: "d"}, Permission: "view", Subject: &pembav1.Subject{Type: "user", Id: user}, MaxSuggestions: 3,
		Consistency: &pembav1.Consistency{Requirement: &pembav1.Consistency_FullyConsistent{FullyConsistent: true}},
	}
}

func TestAnExplanationTellsWhyAndKeepsSecrets(t *testing.T) {
	conn := serve(t, "")
	applySchema(t, conn, `
caveat vault(code string, secret string) { code == secret }
definition user {}
definition group { relation member: user | group#member }
definition document { relation viewer: user | group#member | user with vault  relation banned: user  permission view = viewer - banned }`)
	locked := relationship("document", "d", "viewer", "user", "eve")
	written, err := structpb.NewStruct(map[string]any{"secret": "xyzzy"})
	if err != nil {
		t.Fatal(err)
	}
	locked.Caveat = &pembav1.Caveat{Name: "vault", Context: written}
	grant := relationship("document", "d", "viewer", "group", "g")
	grant.Subject.Relation = "member"
	write(t, conn, locked, grant, relationship("group", "g", "member", "user", "ada"))
	asks := pembav1.NewPermissionServiceClient(conn)

	x, err := asks.Explain(t.Context(), explain("ada"))
	if err != nil || x.Answer != pembav1.Answer_ANSWER_HAS_PERMISSION || len(x.Suggestions) > 0 || x.Zookie == "" {
		t.Fatalf("ada: %v, %v", x, err)
	}
	path := ""
	for _, n := range x.Nodes {
		for _, s := range n.Steps {
			path += s.Relationship.Subject.Type + ":" + s.Relationship.Subject.Id + " "
		}
	}
	if path != "group:g user:ada " {
		t.Errorf("the proof goes by %s\n%s", path, prototext.Format(x))
	}

	for what, c := range map[string]struct {
		code   string
		answer pembav1.Answer
	}{"without the code": {"", pembav1.Answer_ANSWER_CONDITIONAL}, "with a wrong code": {"plugh", pembav1.Answer_ANSWER_NO_PERMISSION}} {
		r := explain("eve")
		if c.code != "" {
			if r.Context, err = structpb.NewStruct(map[string]any{"code": c.code}); err != nil {
				t.Fatal(err)
			}
		}
		x, err := asks.Explain(t.Context(), r)
		if err != nil || x.Answer != c.answer || len(x.Suggestions) == 0 {
			t.Errorf("%s: %v, %v", what, x, err)
		}
		if text := prototext.Format(x); strings.Contains(text, "xyzzy") {
			t.Errorf("%s: the explanation tells the secret\n%s", what, text)
		}
		fields := ""
		for _, s := range x.GetSuggestions() {
			for _, c := range s.Context {
				fields += c.Caveat + " " + strings.Join(c.Fields, " ")
			}
		}
		if !strings.Contains(fields, "vault code") {
			t.Errorf("%s: no suggestion asks for the code\n%s", what, prototext.Format(x))
		}
	}

	r := explain("ada")
	r.ContextualRelationships = []*pembav1.Relationship{relationship("document", "d", "banned", "user", "ada")}
	if x, err = asks.Explain(t.Context(), r); err != nil || x.Answer != pembav1.Answer_ANSWER_NO_PERMISSION || len(x.Suggestions) == 0 || len(x.Suggestions[0].Deletes) != 1 {
		t.Errorf("banned: %v, %v", x, err)
	}
	r = explain("ada")
	r.Subject = &pembav1.Subject{Type: "document", Id: "d"}
	if x, err = asks.Explain(t.Context(), r); err != nil || !x.Impossible || len(x.Suggestions) > 0 {
		t.Errorf("a document: %v, %v", x, err)
	}
	r = explain("ada")
	r.MaxSuggestions = 100
	_, err = asks.Explain(t.Context(), r)
	expect(t, "too many suggestions", err, codes.InvalidArgument, "INVALID_FIELD")
	r = explain("ada")
	r.Permission = ""
	_, err = asks.Explain(t.Context(), r)
	expect(t, "no permission", err, codes.InvalidArgument, "MISSING_FIELD")
}
