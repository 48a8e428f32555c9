package schema

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

func mustCompile(t testing.TB, text string) *Schema {
	t.Helper()
	s, _, err := Compile(Source{Name: "test.zed", Text: text}, nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOperatorsBindAsInZedFiles(t *testing.T) {
	for _, c := range []struct{ written, meaning string }{
		{"a + b & c", "(a + b) & c"},
		{"a & b + c", "a & (b + c)"},
		{"a - b + c", "a - (b + c)"},
		{"a + b - c & d", "(a + b) - (c & d)"},
		{"a & b - c & d", "(a & b) - (c & d)"},
		{"a - b - c", "(a - b) - c"},
		{"a + (b & c)", "a + (b & c)"},
		{"(a + b) + c", "a + b + c"},
		{"a + nil & self", "(a + nil) & self"},
		{"a.any(b) + a.all(c) - a->d", "(a->b + a.all(c)) - a->d"},
		{"((a))", "a"},
	} {
		t.Run(c.written, func(t *testing.T) {
			s := mustCompile(t, "use self\ndefinition t {\n relation a: t\n relation b: t\n relation c: t\n relation d: t\n permission p = "+c.written+"\n}")
			if got := s.Definition("t").Relation("p").Expr.String(); got != c.meaning {
				t.Errorf("%s means %s, want %s", c.written, got, c.meaning)
			}
		})
	}
}

func TestACompiledSchemaHoldsWhatWasWritten(t *testing.T) {
	names := NewNames()
	s, warnings, err := Compile(Source{Name: "s.zed", Text: `use expiration
/** weekday lets some days pass. */
caveat weekday(day string, days list<string>) { day in days }
/**
 * user is a person.
 *
 * Or a robot.
 */
definition user {}
definition acme/group {
	relation member: user | user:* with weekday and expiration | document#view
}
definition document {
	relation folder: acme/group
	/** see */
	permission view = folder->member
	permission all = folder.all(nothing) + view
}`}, names, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 1 || warnings[0].Code != "arrow-to-nothing" {
		t.Errorf("warnings: %v", warnings)
	}
	if d := s.Definition("user"); d.Doc != "user is a person.\n\nOr a robot." || s.DefinitionByName(d.Name) != d {
		t.Errorf("user: %+v", d)
	}
	group := s.Definition("acme/group").Relation("member")
	if a := group.Allowed; len(a) != 3 || !a[1].Wildcard || !a[1].Expiration || a[1].Caveat != s.Caveat("weekday") ||
		a[2].Relation != s.Definition("document").Relation("view") || a[0].Caveat != nil {
		t.Errorf("group#member allows %v", a)
	}
	document := s.Definition("document")
	view := document.Relation("view")
	if view.Doc != "see" || view.Expr.Kind != Arrow || view.Expr.TargetName != group.Name || document.RelationByName(view.Name) != view {
		t.Errorf("view: %+v", view)
	}
	if all := document.Relation("all").Expr.Children[0]; all.Kind != ArrowAll || all.TargetName != 0 {
		t.Errorf("all: %+v", all)
	}
	if p := view.Expr.Pos; p != (Position{"s.zed", 16, 20}) {
		t.Errorf("the expression of view is at %v", p)
	}
	for _, text := range []string{"weekday", "user", "acme/group", "member", "document", "folder", "view", "all"} {
		if id, ok := names.ID(text); !ok || names.Text(id) != text {
			t.Errorf("%q has no name", text)
		}
	}
	if s.Definition("nobody") != nil || s.DefinitionByName(60000) != nil || document.RelationByName(0) != nil {
		t.Error("found what does not exist")
	}
}

func TestNamesKeepTheirIDsWhateverSchemasCome(t *testing.T) {
	names := NewNames()
	if _, _, err := Compile(Source{Text: "definition a { relation r: a }"}, names, Options{}); err != nil {
		t.Fatal(err)
	}
	before := names.Clone()
	if _, _, err := Compile(Source{Text: "definition z {} definition a { relation q: nothing }"}, names, Options{}); err == nil {
		t.Fatal("compiled")
	}
	if names.Len() != before.Len() {
		t.Error("a schema with errors added names")
	}
	if _, _, err := Compile(Source{Text: "definition z {} definition b { relation r: z }"}, names, Options{}); err != nil {
		t.Fatal(err)
	}
	for id, text := range before.All() {
		if names.Text(id) != text {
			t.Errorf("name %d was %q and is %q", id, text, names.Text(id))
		}
	}
	rebuilt := NewNames()
	for id, text := range names.All() {
		if got, err := rebuilt.Add(text); err != nil || got != id {
			t.Errorf("adding %q again gives %d, %v; want %d", text, got, err, id)
		}
	}
}

func TestAStoreHoldsAtMost65535Names(t *testing.T) {
	names := NewNames()
	for i := range MaxNames - 1 {
		if _, err := names.Add(fmt.Sprint("n", i)); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := Compile(Source{Text: "definition a { relation b: a }"}, names, Options{})
	if err == nil || !strings.Contains(err.Error(), "65535") {
		t.Errorf("error: %v", err)
	}
	if names.Len() != MaxNames-1 {
		t.Error("a failed schema added names")
	}
	if id, err := names.Add("last"); err != nil || id != MaxNames {
		t.Errorf("the last name: %d, %v", id, err)
	}
	if _, err := names.Add("more"); err == nil {
		t.Error("added one name too many")
	}
	if _, err := names.Add("last"); err != nil {
		t.Errorf("a name that exists: %v", err)
	}
}

func TestHostileSchemasEndInAnErrorOrAPlanWithinSeconds(t *testing.T) {
	repeat := func(n int, f func(b *strings.Builder, i int)) string {
		var b strings.Builder
		for i := range n {
			f(&b, i)
		}
		return b.String()
	}
	for _, c := range []struct {
		name, text string
		want       string // in the error; empty if it compiles
	}{
		{"100,000 nested parentheses", "definition a { permission p = " + strings.Repeat("(", 100_000), "nest at most"},
		{"100,000 nested braces", strings.Repeat("definition a {", 100_000), "`relation`, `permission` or `}`"},
		{"100,000 nested parameter types", "caveat c(a " + strings.Repeat("list<", 100_000), "nest at most"},
		{"100,000 exclusions", "definition a { relation r: a permission p = r" + strings.Repeat(" - r", 100_000) + "}", "nests more than 1000 deep"},
		{"100,000 operands", "definition a { relation r: a permission p = r" + strings.Repeat(" + r", 100_000) + "}", ""},
		{"100 MB", strings.Repeat("// comment\n", 100<<20/11), "at most 4194304 are read"},
		{"a chain of 50,000 permissions", "definition a { permission p0 = nil " + repeat(50_000, func(b *strings.Builder, i int) {
			fmt.Fprintf(b, "permission p%d = p%d ", i+1, i)
		}) + "}", ""},
		{"a circle of 50,000 permissions", "definition a { permission p0 = p50000 " + repeat(50_000, func(b *strings.Builder, i int) {
			fmt.Fprintf(b, "permission p%d = p%d ", i+1, i)
		}) + "}", ""},
		{"20,000 arrows over 20,000 types", repeat(20_000, func(b *strings.Builder, i int) {
			fmt.Fprintf(b, "definition t%d {}\n", i)
		}) + "definition z { relation a: t0" + repeat(19_999, func(b *strings.Builder, i int) { fmt.Fprintf(b, "|t%d", i+1) }) +
			repeat(20_000, func(b *strings.Builder, i int) { fmt.Fprintf(b, " permission p%d = a->x", i) }) + "}", ""},
		{"partials that include each other twice", "use partial\npartial p0 { relation r: a }\n" + repeat(90, func(b *strings.Builder, i int) {
			fmt.Fprintf(b, "partial p%d { ...p%d ...p%d }\n", i+1, i, i)
		}) + "definition a { ...p90 }", "declared twice"},
		{"a partial that is included everywhere", "use partial\npartial p {" + repeat(2_000, func(b *strings.Builder, i int) {
			fmt.Fprintf(b, "relation r%d: x ", i)
		}) + "}" + repeat(2_000, func(b *strings.Builder, i int) { fmt.Fprintf(b, "definition t%d { ...p }\n", i) }), "more than 1000000 statements"},
		{"types of 3,000 chained permissions", "use typechecking\ndefinition a { relation r: a permission p0: a = r " + repeat(30_000, func(b *strings.Builder, i int) {
			fmt.Fprintf(b, "permission p%d: a = p%d ", i+1, i)
		}) + "}", "too complex"},
		{"only errors", "definition a { " + strings.Repeat("relation x: b ", 50_000) + "}", "declared twice"},
		{"1,001 caveats", repeat(1001, func(b *strings.Builder, i int) { fmt.Fprintf(b, "caveat c%d(x int) { x == %d }\n", i, i) }) + "definition a {}", "may have 1000"},
		{"30,000 caveats", repeat(30_000, func(b *strings.Builder, i int) { fmt.Fprintf(b, "caveat c%d(x int) { x == %d }\n", i, i) }) + "definition a {}", "may have 1000"},
		{"two million operands", "definition a { relation r: a permission p = r" + strings.Repeat("+r", 2_000_000) + "}", "more than 300000 operands"},
		{"mixed operators at every depth", "definition a { relation r: a permission p = " + strings.Repeat("r + r & (", 199) + "r" +
			strings.Repeat(")", 199) + strings.Repeat(" & r + r", 100_000) + "}", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			_, _, err := Compile(Source{Text: c.text}, nil, Options{})
			if took := time.Since(start); took > 10*time.Second && !raceEnabled {
				t.Errorf("took %v", took)
			}
			switch {
			case c.want == "" && err != nil:
				t.Errorf("error: %.300v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error %.300v does not say %q", err, c.want)
			}
		})
	}
}

// TestACompileThatNobodyWaitsForEnds with the error of its context.
func TestACompileThatNobodyWaitsForEnds(t *testing.T) {
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, "caveat c%d(x int) { x == %d }\n", i, i)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Compile(Source{Text: b.String()}, nil, Options{Context: ctx}); !errors.Is(err, context.Canceled) {
		t.Errorf("it ends with %v", err)
	}
	if _, _, err := Compile(Source{Text: b.String() + "caveat more(x int) { x == 1 }"}, nil, Options{Stored: true}); err != nil {
		t.Errorf("a schema that was accepted before: %v", err)
	}
}

func TestTheNameThatIsMeantIsFound(t *testing.T) {
	names := []string{"viewer", "editor", "owner", "parent"}
	for text, want := range map[string]string{"veiwer": "viewer", "eidtor": "editor", "viewers": "viewer", "wner": "owner", "paernt": "parent", "x": "", "folder": ""} {
		if got := Nearest(text, names); got != want {
			t.Errorf("%q is taken for %q, not %q", text, got, want)
		}
	}
}

func TestAtMostTwentyErrorsAreReported(t *testing.T) {
	_, _, err := Compile(Source{Text: "definition a {" + strings.Repeat("relation !", 100) + "}"}, nil, Options{})
	if n := len(err.(Errors)); n != 20 {
		t.Errorf("%d errors", n)
	}
}

func TestImportsAreRefusedWhereNoFilesAre(t *testing.T) {
	_, _, err := Compile(Source{Text: "use import\nimport \"a.zed\""}, nil, Options{})
	if err == nil || !strings.Contains(err.Error(), "expand the schema into one text first") {
		t.Errorf("error: %v", err)
	}
}

func TestImportsAreOpenedBesideTheRoot(t *testing.T) {
	var opened []string
	opts := Options{Open: func(path string) (string, error) {
		opened = append(opened, path)
		return "use import\nimport \"./b.zed\"\ndefinition d" + fmt.Sprint(len(opened)) + " {}", nil
	}, MaxBytes: 200}
	_, _, err := Compile(Source{Name: "schemas/root.zed", Text: "use import\nimport \"sub/a.zed\""}, nil, opts)
	if want := "[schemas/sub/a.zed schemas/sub/b.zed]"; fmt.Sprint(opened) != want {
		t.Errorf("opened %v, want %v (%v)", opened, want, err)
	}
}

func TestTheLimitOfBytesCountsImports(t *testing.T) {
	opts := Options{MaxBytes: 100, Open: func(string) (string, error) { return strings.Repeat(" ", 80), nil }}
	_, _, err := Compile(Source{Text: "use import\nimport \"a.zed\""}, nil, opts)
	if err == nil || !strings.Contains(err.Error(), "more than 100 bytes") {
		t.Errorf("error: %v", err)
	}
}

// The schema is that of teams, repositories and grants of public organisations.
func TestASchemaFromPracticeIsAlreadyCanonical(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "organizations.zed"))
	if err != nil {
		t.Fatal(err)
	}
	s, warnings, err := Compile(Source{Text: string(text)}, nil, Options{})
	if err != nil || len(warnings) != 0 {
		t.Fatal(warnings, err)
	}
	if f, err := Format(Source{Text: string(text)}); err != nil || f != string(text) {
		t.Errorf("formatted (%v):\n%s", err, f)
	}
	if got := s.Definition("repository").Relation("read").Signature(); got != "triage + reader + owner->belong" {
		t.Errorf("read is %s", got)
	}
}

// It reads larger files, where they are at hand.
func TestValidationFilesAtHandCompile(t *testing.T) {
	dir := os.Getenv("PEMBA_TEST_DATA")
	if dir == "" {
		t.Skip("set PEMBA_TEST_DATA to a folder of validation files (*.yaml)")
	}
	paths, _ := filepath.Glob(filepath.Join(dir, "*.yaml"))
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var file struct{ Schema string }
		if err := yaml.Unmarshal(b, &file); err != nil || file.Schema == "" {
			continue
		}
		if _, warnings, err := Compile(Source{Name: filepath.Base(path), Text: file.Schema}, nil, Options{}); err != nil || len(warnings) > 0 {
			t.Errorf("%s: %v %v", path, warnings, err)
		}
	}
}

func largeSchema(definitions int) string {
	var b strings.Builder
	b.WriteString("definition user {}\n\n")
	for i := range definitions {
		fmt.Fprintf(&b, "/** resource %d */\ndefinition resource%d {\n\trelation parent: resource%d\n\trelation owner: user\n"+
			"\trelation viewer: user | user:* | resource%d#owner\n\tpermission edit = owner + parent->edit\n\tpermission view = (viewer + edit) - parent->blocked\n}\n\n",
			i, i, (i+7)%definitions, (i+1)%definitions)
	}
	return b.String()
}

func BenchmarkCompile5000DefinitionsOf5Relations(b *testing.B) {
	src := Source{Name: "large.zed", Text: largeSchema(5000)}
	b.SetBytes(int64(len(src.Text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Compile(src, nil, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
