package examples_test

import (
	"path/filepath"
	"testing"

	"github.com/pembadb/pemba/examples"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/validation"
)

func TestExamplesAreWithoutMistakesAndWarnings(t *testing.T) {
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("found %v, %v", files, err)
	}
	for _, name := range files {
		f, err := validation.Load(name)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		for _, w := range f.Warnings {
			t.Error(w)
		}
		if len(f.Assertions) == 0 {
			t.Errorf("%s asserts nothing", name)
		}
	}
}

func TestTheQuickstartSchemaIsInCanonicalForm(t *testing.T) {
	formatted, err := schema.Format(schema.Source{Name: "quickstart.zed", Text: examples.Quickstart})
	if err != nil || formatted != examples.Quickstart {
		t.Errorf("run pemba schema fmt --write examples/quickstart.zed; %v\n%s", err, formatted)
	}
}
