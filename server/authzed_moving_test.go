package server_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	authzedv1 "github.com/authzed/authzed-go/proto/authzed/api/v1"
	"google.golang.org/grpc/metadata"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/server"
)

// fenced are the blocks of a language in a Markdown text.
func fenced(text, language string) (out []string) {
	var block []string
	inside := false
	for _, line := range strings.Split(text, "\n") {
		switch trimmed := strings.TrimSpace(line); {
		case !inside && trimmed == "```"+language:
			inside, block = true, nil
		case inside && trimmed == "```":
			inside, out = false, append(out, strings.Join(block, "\n"))
		case inside:
			block = append(block, line)
		}
	}
	return out
}

// The guide's steps are run as they stand there, from one server of the API to
// another.
func TestTheStepsOfTheMigrationGuideMoveEverything(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles two programs")
	}
	guide, err := os.ReadFile("../docs/migrating-from-spicedb.md")
	if err != nil {
		t.Fatal(err)
	}
	programs, steps := fenced(string(guide), "go"), fenced(string(guide), "sh")
	if len(programs) != 1 || len(steps) != 4 {
		t.Fatalf("the guide has %d programs and %d steps", len(programs), len(steps))
	}
	from := launch(t, memory.New(), keeper.Options{}, server.Config{Token: "there"})
	to := launch(t, memory.New(), keeper.Options{}, server.Config{Token: "here"})
	if _, err := to.stores.CreateStore(bearer(t, "here"), createStore("moved")); err != nil {
		t.Fatal(err)
	}
	c := stock(t, from)
	ctx := bearer(t, "there")
	if _, err := c.WriteSchema(ctx, &authzedv1.WriteSchemaRequest{Schema: authzedSchema}); err != nil {
		t.Fatal(err)
	}
	texts := []string{}
	for _, text := range world {
		if !strings.Contains(text, "2001") {
			texts = append(texts, text)
		}
	}
	for i := range 1500 {
		texts = append(texts, fmt.Sprintf("document:m%d#viewer@user:u%d", i, i%7))
	}
	for len(texts) > 0 {
		n := min(len(texts), 1000)
		if _, err := c.WriteRelationships(ctx, update(t, atouch, texts[:n]...)); err != nil {
			t.Fatal(err)
		}
		texts = texts[n:]
	}

	folder := t.TempDir()
	module, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "move.go"), []byte(programs[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	build := func(name, what string) {
		t.Helper()
		cmd := exec.Command("go", "build", "-o", filepath.Join(folder, "bin", name), what)
		cmd.Dir = module
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
	}
	build("move", filepath.Join(folder, "move.go"))
	build("pemba", "./cmd/pemba")
	run := func(step string) (string, error) {
		cmd := exec.Command("sh", "-ec", strings.ReplaceAll(step, "go run move.go", "move"))
		cmd.Dir = folder
		cmd.Env = append(os.Environ(), "PATH="+filepath.Join(folder, "bin")+string(os.PathListSeparator)+os.Getenv("PATH"),
			"FROM_ADDR="+from.addr, "FROM_TOKEN=there", "TO_ADDR="+to.addr, "TO_TOKEN=here", "TO_STORE=moved")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	want := []string{"exported 1510 relationships", "", "imported 1510 relationships", "1510 relationships; 0 missing, 0 too many"}
	for round := range 2 { // an import can be repeated
		for i, step := range steps {
			out, err := run(step)
			if err != nil || !strings.Contains(out, want[i]) {
				t.Fatalf("round %d, step %d: %v\n%s\n%s", round, i+1, err, step, out)
			}
		}
	}
	moved := stock(t, to)
	other := metadata.AppendToOutgoingContext(bearer(t, "here"), "pemba-store", "moved")
	if _, err := moved.WriteRelationships(other, update(t, adelete, "document:d#banned@user:eve")); err != nil {
		t.Fatal(err)
	}
	out, err := run(steps[3])
	if err == nil || !strings.Contains(out, "1 missing, 0 too many") || !strings.Contains(out, "differs:") {
		t.Errorf("a difference is not found: %v\n%s", err, out)
	}
}
