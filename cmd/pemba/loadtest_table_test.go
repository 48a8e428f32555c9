package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pembadb/pemba/loadtest"
)

// The table has a row for everything that a file should reach, in both worlds and
// sizes, and says so as a table, as JSON and as a page.
func TestTheTableIsMeasured(t *testing.T) {
	t.Setenv(asPemba, "1") // the servers are processes of their own
	dir := t.TempDir()
	data, page := filepath.Join(dir, "table.json"), filepath.Join(dir, "table.html")
	out, complaint, code := pemba("", "", nil, "loadtest", "table", "--size", "1000,2000", "--each", "100ms", "--json-file", data, "--html", page)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, complaint)
	}
	text, err := os.ReadFile(data)
	if err != nil {
		t.Fatal(err)
	}
	var table loadtest.Table
	if err := json.Unmarshal(text, &table); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"import", "start, to the first answer", "live heap a relationship", "check, minimize_latency, 64 callers", "client and server CPU of a check",
		"bulk check of 100", "single writes, 1 callers", "single writes, 128 callers", "first result of a lookup", "lookup of"} {
		rows := 0
		for _, r := range table.Rows {
			if strings.HasPrefix(r.What, what) {
				rows++
				if r.Measured == "" || r.Ratio <= 0 && what != "import" {
					t.Errorf("%s: %+v", what, r)
				}
			}
		}
		if want := 4; rows != want && what != "client and server CPU of a check" || rows == 0 {
			t.Errorf("%d rows of %s", rows, what)
		}
		if !strings.Contains(out, what) {
			t.Errorf("%s is not printed", what)
		}
	}
	html, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(html); !strings.Contains(got, "Cost against size") || strings.Contains(got, "NaN") || !strings.Contains(got, table.Machine) {
		t.Error("the page lacks the plots of sizes, or the machine, or has a number that is none")
	}
}

// A world for which there is no memory is left out, and a row says so.
func TestAWorldThatIsTooLargeIsLeftOut(t *testing.T) {
	if loadtest.MemoryFree() == 0 {
		t.Skip("the system does not tell how much memory is free")
	}
	out, complaint, code := pemba("", "", nil, "loadtest", "table", "--size", "100000000000", "--each", "100ms")
	if code != 0 || !strings.Contains(out, "not measured: it takes about") {
		t.Errorf("exit %d: %s%s", code, out, complaint)
	}
}
