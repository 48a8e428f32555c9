package main

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/server"
)

// TestEveryLimitIsDocumentedWithItsFlag: docs/limits.md and the flags name the
// same limits.
func TestEveryLimitIsDocumentedWithItsFlag(t *testing.T) {
	guide, err := os.ReadFile("../../docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	f := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	addLimits(f, &server.Limits{}, &keeper.Options{})
	flags := 0
	f.VisitAll(func(flag *pflag.Flag) {
		flags++
		if !strings.Contains(string(guide), "| `"+flag.Name+"` |") {
			t.Errorf("docs/limits.md lacks %s", flag.Name)
		}
		if flag.DefValue == "0" || flag.DefValue == "0s" {
			t.Errorf("%s has no default", flag.Name)
		}
	})
	if rows := strings.Count(string(guide), "| `max-"); rows != flags {
		t.Errorf("docs/limits.md has %d limits, and serve %d", rows, flags)
	}
}
