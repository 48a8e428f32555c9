package examples_test

import (
	"path/filepath"
	"testing"

	"github.com/pembadb/pemba/validation"
)

func TestEveryAssertionOfTheExamplesHolds(t *testing.T) {
	files, err := filepath.Glob("*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		t.Run(name, func(t *testing.T) {
			f, err := validation.Load(name)
			if err != nil {
				t.Fatal(err)
			}
			r, err := f.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, failed := range r.Failed {
				t.Error(failed)
			}
			if name == "github-orgs.yaml" {
				return // as it came: real data, not a lesson
			}
			for _, m := range r.Coverage.Missing {
				t.Errorf("%s: no assertion exercises %s#%s", m.Pos, m.Definition.Type, m.Text)
			}
		})
	}
}
