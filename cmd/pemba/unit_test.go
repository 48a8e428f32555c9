package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestTheUnitStartsWhatThereIs: each variable and each flag that the systemd unit
// names is one of `pemba serve`.
func TestTheUnitStartsWhatThereIs(t *testing.T) {
	unit, err := os.ReadFile("../../docs/operations/pemba.service")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"PEMBA_DATASTORE_PASSWORD": true}
	var serve *cobra.Command
	for _, c := range (&app{}).rootCommand().Commands() {
		if c.Name() == "serve" {
			serve = c
		}
	}
	serve.Flags().VisitAll(func(f *pflag.Flag) {
		known["--"+f.Name] = true
		for _, v := range f.Annotations["env"] {
			known[v] = true
		}
	})
	variables := regexp.MustCompile(`PEMBA_[A-Z_]+`).FindAllString(string(unit), -1)
	for line := range strings.Lines(string(unit)) {
		if strings.HasPrefix(line, "Exec") {
			variables = append(variables, regexp.MustCompile(`--[a-z-]+`).FindAllString(line, -1)...)
		}
	}
	if len(variables) < 8 {
		t.Errorf("only %d were found", len(variables))
	}
	for _, v := range variables {
		if !known[v] {
			t.Errorf("the unit names %s, which is nothing of pemba serve", v)
		}
	}
}
