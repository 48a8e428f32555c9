package main

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/dispatch"
	"github.com/pembadb/pemba/server"
)

func TestBytesAreWrittenWithOrWithoutAUnit(t *testing.T) {
	for text, want := range map[string]string{"0": "0", "1000": "1000", "2GiB": "2GiB", "2048MiB": "2GiB", "1536KiB": "1536KiB", "1048576": "1MiB"} {
		var b byteSize
		if err := b.Set(text); err != nil || b.String() != want {
			t.Errorf("%s is %s, %v; want %s", text, &b, err, want)
		}
	}
	for _, text := range []string{"", "-1", "2GB", "GiB", "9999999TiB", "1.5GiB"} {
		var b byteSize
		if err := b.Set(text); err == nil {
			t.Errorf("%q is taken as %s", text, &b)
		}
	}
}

// TestEveryLimitIsDocumentedWithItsFlag: docs/limits.md and the flags name the
// same limits.
func TestEveryLimitIsDocumentedWithItsFlag(t *testing.T) {
	guide, err := os.ReadFile("../../docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	f := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	addLimits(f, &server.Limits{}, &keeper.Options{}, &dispatch.Options{})
	flags := 0
	f.VisitAll(func(flag *pflag.Flag) {
		if !strings.HasPrefix(flag.Name, "max-") {
			return
		}
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
