package server_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	"google.golang.org/grpc"

	"github.com/pembadb/pemba/loadtest"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
)

// BenchmarkTheCompatibleAPI compares the same questions through authzed.api.v1 and
// through pemba.v1, turn by turn. "×pemba" is the throughput of the first in that
// of the second.
func BenchmarkTheCompatibleAPI(b *testing.B) {
	w, err := loadtest.NewWorld(loadtest.Flat, *size, 1)
	if err != nil {
		b.Fatal(err)
	}
	conn := serveWorld(b, w)
	r := rand.New(rand.NewPCG(1, 2))
	const n = 10_000
	checks, compatible := make([]*pembav1.CheckRequest, n), make([]*authzedv1.CheckPermissionRequest, n)
	for i := range checks {
		q := w.Question(r)
		o, permission, s := q.Resource, q.Permission, q.Subject
		checks[i] = &pembav1.CheckRequest{Resource: &pembav1.Object{Type: o.Type, Id: o.ID}, Permission: permission, Subject: &pembav1.Subject{Type: s.Type, Id: s.ID}}
		compatible[i] = &authzedv1.CheckPermissionRequest{
			Resource: &authzedv1.ObjectReference{ObjectType: o.Type, ObjectId: o.ID}, Permission: permission,
			Subject: &authzedv1.SubjectReference{Object: &authzedv1.ObjectReference{ObjectType: s.Type, ObjectId: s.ID}},
		}
	}
	asks, stock := pembav1.NewPermissionServiceClient(conn), authzedv1.NewPermissionsServiceClient(conn)
	compare := func(b *testing.B, each int, pemba, authzed func(from int) time.Duration) {
		var p, a time.Duration
		turns := 0
		for done := 0; done < b.N; done += each {
			p += pemba(done)
			a += authzed(done)
			turns++
		}
		b.ReportMetric(float64(p)/float64(a), "×pemba")
		b.ReportMetric(float64(turns*each)/a.Seconds(), "authzed/s")
		b.ReportMetric(float64(turns*each)/p.Seconds(), "pemba/s")
	}
	b.Run("check", func(b *testing.B) {
		compare(b, turn, func(from int) time.Duration {
			return calls(b, callers, turn, func(i int) error {
				_, err := asks.Check(b.Context(), checks[(from+i)%n], token)
				return err
			})
		}, func(from int) time.Duration {
			return calls(b, callers, turn, func(i int) error {
				_, err := stock.CheckPermission(b.Context(), compatible[(from+i)%n], token)
				return err
			})
		})
	})
	b.Run("bulk of 100", func(b *testing.B) {
		bulk, items := make([]*pembav1.BulkCheckItem, n), make([]*authzedv1.CheckBulkPermissionsRequestItem, n)
		for i := range checks {
			bulk[i] = &pembav1.BulkCheckItem{Resource: checks[i].Resource, Permission: checks[i].Permission, Subject: checks[i].Subject}
			items[i] = &authzedv1.CheckBulkPermissionsRequestItem{Resource: compatible[i].Resource, Permission: compatible[i].Permission, Subject: compatible[i].Subject}
		}
		const some = n / 100
		compare(b, n, func(int) time.Duration {
			return calls(b, 4, some, func(i int) error {
				_, err := asks.BulkCheck(b.Context(), &pembav1.BulkCheckRequest{Items: bulk[(i-1)*100 : i*100]}, token)
				return err
			})
		}, func(int) time.Duration {
			return calls(b, 4, some, func(i int) error {
				_, err := stock.CheckBulkPermissions(b.Context(), &authzedv1.CheckBulkPermissionsRequest{Items: items[(i-1)*100 : i*100]}, token)
				return err
			})
		})
	})
	const found = 100_000
	rels := pembav1.NewRelationshipServiceClient(conn)
	for i := 0; i < found; i += 1000 {
		m := &pembav1.WriteRelationshipsRequest{}
		for j := range 1000 {
			m.Operations = append(m.Operations, create(relationship("document", fmt.Sprintf("of-everything-%07d", i+j), "viewer", "user", "omniscient")))
		}
		if _, err := rels.WriteRelationships(b.Context(), m, token); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("lookup", func(b *testing.B) {
		compare(b, found, func(int) time.Duration {
			start, got := time.Now(), 0
			s, err := asks.LookupResources(b.Context(), &pembav1.LookupResourcesRequest{
				ResourceType: "document", Permission: "view", Subject: &pembav1.Subject{Type: "user", Id: "omniscient"}}, token)
			drain(b, s, err, func(m *pembav1.LookupResourcesResponse) { got += len(m.Results) })
			enough(b, got, found)
			return time.Since(start)
		}, func(int) time.Duration {
			start, got := time.Now(), 0
			s, err := stock.LookupResources(b.Context(), &authzedv1.LookupResourcesRequest{
				ResourceObjectType: "document", Permission: "view",
				Subject: &authzedv1.SubjectReference{Object: &authzedv1.ObjectReference{ObjectType: "user", ObjectId: "omniscient"}}}, token)
			drain(b, s, err, func(*authzedv1.LookupResourcesResponse) { got++ })
			enough(b, got, found)
			return time.Since(start)
		})
	})
}

func enough(b *testing.B, got, want int) {
	if got < want {
		b.Fatalf("%d results, want %d or more", got, want)
	}
}

// drain receives a stream to its end.
func drain[T any](b *testing.B, s grpc.ServerStreamingClient[T], err error, f func(*T)) {
	for err == nil {
		var m *T
		if m, err = s.Recv(); err == nil {
			f(m)
		}
	}
	if !errors.Is(err, io.EOF) {
		b.Fatal(err)
	}
}
