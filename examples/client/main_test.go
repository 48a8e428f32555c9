package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	pemba "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

func Example() {
	k, err := keeper.Open(memory.New(), keeper.Options{})
	if err != nil {
		panic(err)
	}
	defer k.Close()
	s, err := server.New(server.Config{Datastore: k, Token: "secret"})
	if err != nil {
		panic(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	conn, err := connect(l.Addr().String())
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	if err := walk(withToken(context.Background(), "secret"), conn); err != nil {
		panic(err)
	}
	s.GracefulStop(context.Background())
	if err := <-served; err != nil {
		panic(err)
	}
	// Output:
	// revision 2, repeated false
	// revision 2, repeated true
	// ANSWER_CONDITIONAL [hour]
	// ANSWER_HAS_PERMISSION []
	// ANSWER_HAS_PERMISSION <nil>
	// ANSWER_NO_PERMISSION <nil>
	// invoice-7 ANSWER_HAS_PERMISSION
	// ANSWER_NO_PERMISSION because of 2 things
	// it would be yes if bob were owner of invoice-7
	// 1 admin  1
	// 2 admin ticket 4711 2
	// relation or permission "veiw" of type "document" is unknown to the schema; did you mean "view"?
	// pemba UNKNOWN_RELATION map[relation:veiw type:document]
}

// TestTheGuideShowsThisProgram: what docs/api.md shows in Go is what runs above,
// and it names every method and every reason of an error.
func TestTheGuideShowsThisProgram(t *testing.T) {
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	guide, program := read("../../docs/api.md"), read("main.go")
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(guide, -1)
	for _, b := range blocks {
		if !strings.Contains(program, b[1]) {
			t.Errorf("docs/api.md shows what examples/client does not do:\n%s", b[1])
		}
	}
	if len(blocks) < 8 {
		t.Errorf("docs/api.md has %d pieces of Go", len(blocks))
	}
	reasons := pemba.ErrorReason(0).Descriptor().Values()
	for i := range reasons.Len() {
		name := strings.TrimPrefix(string(reasons.Get(i).Name()), "ERROR_REASON_")
		if named := strings.Contains(guide, "\n| `"+name+"` |"); named != (reasons.Get(i).Number() != 0) {
			t.Errorf("reason %s stands in docs/api.md: %t", name, named)
		}
	}
	protoregistry.GlobalFiles.RangeFilesByPackage("pemba.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				if row := fmt.Sprintf("\n| %s | `%s`", s.Name(), s.Methods().Get(j).Name()); !strings.Contains(guide, row) {
					t.Errorf("docs/api.md lacks %s.%s", s.Name(), s.Methods().Get(j).Name())
				}
			}
		}
		return true
	})
}
