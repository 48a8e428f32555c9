package keeper

import (
	"fmt"
	"testing"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

// BenchmarkApply makes the next snapshot of a store of 100,000 relationships by
// changes of one relationship and of 1,000, without reading, judging or writing
// them: what each change costs every node that keeps the store in memory.
func BenchmarkApply(b *testing.B) {
	made := func(kind datastore.Kind, document, n int) (o datastore.Operation) {
		o.Kind = kind
		o.Relationship.Key = tuple.Key{Object: tuple.Object{Type: "document", ID: fmt.Sprintf("document-%011d", document)}, Relation: "viewer",
			Subject: tuple.Subject{Object: tuple.Object{Type: "user", ID: fmt.Sprintf("user-%015d", n)}}}
		return o
	}
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n, " relationships"), func(b *testing.B) {
			s := newState(datastore.Default, datastore.Head{})
			if err := s.applySchema(&datastore.SchemaText{Text: "definition user {}\ndefinition document {\n\trelation viewer: user\n}\n",
				Names: []string{"document", "user", "viewer"}}); err != nil {
				b.Fatal(err)
			}
			for i := range 100_000 {
				r := made(datastore.Touch, i/5, i*7919%10_000).Relationship
				if err := s.put(&r); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			var change datastore.Change
			for i := 0; b.Loop(); i++ {
				change.Operations = change.Operations[:0]
				kind := []datastore.Kind{datastore.Touch, datastore.Delete}[i%2] // what one adds the next removes
				for j := range n {
					change.Operations = append(change.Operations, made(kind, (i/2*n+j)*31%20_000, 10_000+j))
				}
				s = s.copy()
				change.Revision = s.head.Revision + 1
				if err := s.apply(change); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
