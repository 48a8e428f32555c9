package schema

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// golden runs the cases of testdata/name. A case is a line `=== sentence`, its
// input, a line `---` and the expected output. An input may hold several texts,
// parted by lines `+++ name`.
func golden(t *testing.T, name string, run func(t *testing.T, input string) string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, c := range strings.Split("\n"+string(b), "\n=== ")[1:] {
		title, rest, _ := strings.Cut(c, "\n")
		input, want, _ := strings.Cut("\n"+rest, "\n---\n")
		if input = strings.TrimPrefix(input, "\n"); input != "" {
			input += "\n"
		}
		var got string
		t.Run(title, func(t *testing.T) {
			got = run(t, input)
			if w := strings.TrimRight(want, "\n"); !*update && strings.TrimRight(got, "\n") != w {
				t.Errorf("got:\n%s\nwant:\n%s", got, w)
			}
		})
		out.WriteString("=== " + title + "\n" + input + "---\n" + strings.TrimLeft(strings.TrimRight(got, "\n")+"\n\n", "\n"))
		if strings.TrimSpace(got) == "" {
			out.WriteString("\n")
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(strings.TrimRight(out.String(), "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// texts parts an input at its lines `+++ name`. The text before the first is
// named root.zed.
func texts(input string) (root string, files map[string]string) {
	files = map[string]string{}
	name := "root.zed"
	for _, line := range strings.SplitAfter(input, "\n") {
		if after, ok := strings.CutPrefix(line, "+++ "); ok {
			name = strings.TrimSpace(after)
			continue
		}
		files[name] += line
	}
	return files["root.zed"], files
}

// opening makes Options that read imports from a map.
func opening(files map[string]string) Options {
	return Options{Open: func(path string) (string, error) {
		text, ok := files[path]
		if !ok {
			return "", os.ErrNotExist
		}
		return text, nil
	}}
}

func TestErrorsPointAtTheTokenAndSayWhatToDo(t *testing.T) {
	golden(t, "errors.txt", func(t *testing.T, input string) string {
		root, files := texts(input)
		s, _, err := Compile(Source{Name: "root.zed", Text: root}, nil, opening(files))
		if err == nil {
			t.Fatalf("compiled: %v", s.Text)
		}
		var out strings.Builder
		for _, e := range err.(Errors) {
			out.WriteString(e.Render(files[e.Pos.File]))
		}
		return out.String()
	})
}

func TestWarningsNameWhatIsLegalButSurelyAMistake(t *testing.T) {
	golden(t, "warnings.txt", func(t *testing.T, input string) string {
		root, files := texts(input)
		_, warnings, err := Compile(Source{Name: "root.zed", Text: root}, nil, opening(files))
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		for _, w := range warnings {
			out.WriteString(w.Render(files[w.Pos.File]))
		}
		return out.String()
	})
}

func TestFormatGivesTheCanonicalText(t *testing.T) {
	golden(t, "format.txt", func(t *testing.T, input string) string {
		out, err := Format(Source{Text: input})
		if err != nil {
			t.Fatal(err)
		}
		again, err := Format(Source{Text: out})
		if err != nil {
			t.Fatalf("formatted text is not valid: %v", err)
		}
		if again != out {
			t.Errorf("formatting again changes the text to:\n%s", again)
		}
		return out
	})
}

func TestExpandGivesOneTextThatStandsAlone(t *testing.T) {
	golden(t, "expand.txt", func(t *testing.T, input string) string {
		root, files := texts(input)
		src := Source{Name: "root.zed", Text: root}
		out, err := Expand(src, opening(files))
		if err != nil {
			return err.Error()
		}
		whole, _, err := Compile(src, nil, opening(files))
		if err != nil {
			t.Fatal(err)
		}
		alone, _, err := Compile(Source{Text: out}, nil, Options{})
		if err != nil {
			t.Fatalf("the expanded text does not compile: %v", err)
		}
		if whole.Hash != alone.Hash {
			t.Error("the schema and its expanded text have different hashes")
		}
		if d := Diff(whole, alone); len(d) > 0 {
			t.Errorf("the expanded text differs: %v", d)
		}
		return out
	})
}

func TestDiffSaysWhatBreaksAndWhy(t *testing.T) {
	golden(t, "diff.txt", func(t *testing.T, input string) string {
		root, files := texts(input)
		compile := func(text string) *Schema {
			s, _, err := Compile(Source{Text: text}, nil, Options{})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		var out strings.Builder
		for _, d := range Diff(compile(root), compile(files["new.zed"])) {
			out.WriteString(d.String() + "\n")
		}
		return out.String()
	})
}
