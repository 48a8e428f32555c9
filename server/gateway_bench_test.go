package server_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

// BenchmarkCheckOverHTTP compares a check as JSON with the same over gRPC, each by
// as many callers as there are processors, on connections that stay.
func BenchmarkCheckOverHTTP(b *testing.B) {
	n := documents(b, peopleSchema)
	n.write(b, "document:plan#viewer@user:ada")
	w := listenHTTP(b, n, "")
	const question = `{"resource": {"type": "document", "id": "plan"}, "permission": "view", "subject": {"type": "user", "id": "ada"}}`
	b.Run("HTTP", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				answer, err := http.Post(w.url+"/v1/check", "application/json", strings.NewReader(question))
				if err != nil {
					b.Error(err)
					return
				}
				text, err := io.ReadAll(answer.Body)
				answer.Body.Close()
				if err != nil || !strings.Contains(string(text), "ANSWER_HAS_PERMISSION") {
					b.Errorf("%s: %s %v", answer.Status, text, err)
				}
			}
		})
	})
	b.Run("gRPC", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				answer, err := n.permissions.Check(b.Context(), &pembav1.CheckRequest{Resource: obj("document", "plan"), Permission: "view", Subject: user("ada")})
				if err != nil || answer.Answer != pembav1.Answer_ANSWER_HAS_PERMISSION {
					b.Error(answer, err)
				}
			}
		})
	})
}
