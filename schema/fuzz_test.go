package schema

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// seed adds the inputs of all golden files.
func seed(f *testing.F) {
	paths, _ := filepath.Glob(filepath.Join("testdata", "*.txt"))
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, c := range strings.Split("\n"+string(b), "\n=== ")[1:] {
			_, rest, _ := strings.Cut(c, "\n")
			input, _, _ := strings.Cut(rest, "\n---\n")
			f.Add(input)
		}
	}
}

// FuzzCompile: any text compiles or is refused with errors that can be shown.
func FuzzCompile(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, text string) {
		root, files := texts(text)
		s, warnings, err := Compile(Source{Name: "root.zed", Text: root}, nil, opening(files))
		for _, w := range warnings {
			w.Render(root)
		}
		if err != nil {
			errs := err.(Errors)
			if len(errs) == 0 || len(errs) > maxErrors {
				t.Fatalf("%d errors", len(errs))
			}
			for _, e := range errs {
				e.Render(files[e.Pos.File])
			}
			return
		}
		again, _, err := Compile(Source{Text: s.Text}, nil, Options{})
		if err != nil {
			t.Fatalf("the text of a schema does not compile: %v\n%s", err, s.Text)
		}
		if again.Hash != s.Hash {
			t.Fatal("the text of a schema has another hash")
		}
		if d := Diff(s, again); len(d) > 0 {
			t.Fatalf("the text of a schema differs from it: %v", d)
		}
	})
}

// FuzzFormat: what can be read is formatted into a text that means the same and
// stays as it is.
func FuzzFormat(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, text string) {
		once, err := Format(Source{Text: text})
		if err != nil {
			return
		}
		twice, err := Format(Source{Text: once})
		if err != nil {
			t.Fatalf("formatted text is refused: %v\n%s", err, once)
		}
		if once != twice {
			t.Fatalf("formatted:\n%q\nand again:\n%q", once, twice)
		}
		s, _, err := Compile(Source{Text: text}, nil, Options{})
		if err != nil {
			return
		}
		formatted, _, err := Compile(Source{Text: once}, nil, Options{})
		if err != nil {
			t.Fatalf("a valid schema is not valid when formatted: %v\n%s", err, once)
		}
		if a, b := planText(s), planText(formatted); a != b {
			t.Fatalf("plan of the source:\n%s\nof the formatted text:\n%s", a, b)
		}
	})
}
