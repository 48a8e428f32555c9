package file_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/file"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/tuple"
)

var size = flag.Int("relationships", 100_000, "how many relationships the benchmarks write")

const benchSchema = "definition user {}\ndefinition document { relation viewer: user }"

// fill writes relationships in changes of 1,000, as an import does.
func fill(b *testing.B, path string) {
	b.Helper()
	k := openKeeper(b, path)
	if _, err := k.Write(bg, datastore.Default, datastore.Request{Actor: "ada", Schema: &datastore.SchemaUpdate{Text: benchSchema}}); err != nil {
		b.Fatal(err)
	}
	for n := 0; n < *size; {
		r := datastore.Request{Actor: "ada"}
		for ; n < *size && len(r.Updates) < 1000; n++ {
			r.Updates = append(r.Updates, datastore.Update{Kind: datastore.Touch, Relationship: tuple.Relationship{Key: tuple.Key{
				Object: tuple.Object{Type: "document", ID: fmt.Sprintf("document-%011d", n*7919%*size/3)}, Relation: "viewer",
				Subject: tuple.Subject{Object: tuple.Object{Type: "user", ID: fmt.Sprintf("user-%015d", n%(*size/10))}}}}})
		}
		if _, err := k.Write(bg, datastore.Default, r); err != nil {
			b.Fatal(err)
		}
	}
	if err := k.Close(); err != nil {
		b.Fatal(err)
	}
}

func openKeeper(b *testing.B, path string) *keeper.Keeper {
	b.Helper()
	log, err := file.Open(path, file.Options{})
	if err != nil {
		b.Fatal(err)
	}
	k, err := keeper.Open(log, keeper.Options{})
	if err != nil {
		b.Fatal(err)
	}
	return k
}

func BenchmarkImport(b *testing.B) {
	for range b.N {
		path := filepath.Join(b.TempDir(), "pemba.db")
		fill(b, path)
		if info, err := os.Stat(path); err == nil {
			b.ReportMetric(float64(info.Size())/float64(*size), "file-B/relationship")
		}
	}
	b.ReportMetric(float64(*size*b.N)/b.Elapsed().Seconds(), "relationships/s")
}

// BenchmarkStart opens a file and takes its first snapshot.
func BenchmarkStart(b *testing.B) {
	path := filepath.Join(b.TempDir(), "pemba.db")
	fill(b, path)
	for b.Loop() {
		k := openKeeper(b, path)
		s, err := k.At(bg, datastore.Default, datastore.Consistency{})
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
		b.StopTimer()
		if err := k.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkDirectReads reads the edges of many objects at once from a store that
// is not in memory, as a check does a level at a time.
func BenchmarkDirectReads(b *testing.B) {
	path := filepath.Join(b.TempDir(), "pemba.db")
	fill(b, path)
	log, err := file.Open(path, file.Options{})
	if err != nil {
		b.Fatal(err)
	}
	k, err := keeper.Open(log, keeper.Options{ResidentMaxRelationships: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	for _, width := range []int{1, 4, 16, 64} {
		b.Run(fmt.Sprint("queries=", width), func(b *testing.B) {
			read := 0
			for n := 0; b.Loop(); n++ {
				s, err := k.At(bg, datastore.Default, datastore.Consistency{})
				if err != nil {
					b.Fatal(err)
				}
				viewer, _ := s.Names().ID("viewer")
				queries := make([]datastore.Query, width)
				for i := range queries {
					id, _ := s.ID(tuple.Object{Type: "document", ID: fmt.Sprintf("document-%011d", (n*width+i)*104729%(*size/3))})
					queries[i] = datastore.Query{Object: id, Relation: viewer}
				}
				if err := s.Read(bg, queries, func(int, datastore.Edge) bool { read++; return true }); err != nil {
					b.Fatal(err)
				}
				s.Close()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*width), "ns/query")
			b.ReportMetric(float64(read)/float64(b.N*width), "edges/query")
		})
	}
}
