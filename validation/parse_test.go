package validation

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pembadb/pemba/schema"
)

const smallSchema = `schema: |-
  definition user {}
  definition document {
    relation viewer: user
    permission view = viewer
  }
`

func TestMistakesAreShownWhereTheyStand(t *testing.T) {
	for name, c := range map[string]struct{ text, at, message string }{
		"an empty file":              {"", "1:1", "is empty"},
		"a comment only":             {"# nothing\n", "1:1", "is empty"},
		"a list":                     {"- a\n", "1:1", "is a mapping"},
		"no schema":                  {"relationships: ''\n", "1:1", "has no schema"},
		"broken YAML":                {"schema: [\n", "", "is not YAML"},
		"two documents":              {smallSchema + "---\na: b\n", "7:1", "second YAML document"},
		"not UTF-8":                  {"\xff", "1:1", "not UTF-8"},
		"a misspelt key":             {smallSchema + "asertions: {}\n", "7:1", "no key `asertions`"},
		"a key twice":                {smallSchema + "schema: x\n", "7:1", "given twice"},
		"a misspelt list":            {smallSchema + "assertions:\n  assertTru: []\n", "8:3", "no key `assertTru`"},
		"a schema and a file":        {smallSchema + "schemaFile: a.zed\n", "7:13", "both"},
		"a file elsewhere":           {"schemaFile: ../a.zed\n", "1:13", "outside the folder"},
		"a file that is not there":   {"schemaFile: a.zed\n", "1:13", "cannot read the schema file"},
		"a mistake in the schema":    {"schema: |-\n  definition user {}\n  definition d { relation r: usr }\n", "3:30", "usr"},
		"a mistake in a plain text":  {"schema: definition d { relation r }\n", "1:35", "expected"},
		"a list as relationships":    {smallSchema + "relationships:\n  - a\n", "8:3", "is not a text"},
		"a malformed relationship":   {smallSchema + "relationships: |-\n\n  // ok\n    document:1#viewer@user\n", "10:5", "has no colon"},
		"a relationship not allowed": {smallSchema + "relationships: |-\n  document:1#owner@user:a\n", "8:3", "owner"},
		"a contradiction": {`schema: |-
  use expiration
  definition user {}
  definition d { relation r: user | user with expiration }
relationships: |-
  d:1#r@user:a
  d:1#r@user:a[expiration:2020-01-01T00:00:00Z]
`, "7:3", "given twice"},
		"an unknown permission":        {smallSchema + "assertions:\n  assertTrue:\n    - document:1#veiw@user:a\n", "9:7", "no relation or permission `veiw`"},
		"an unknown type":              {smallSchema + "assertions:\n  assertTrue:\n    - doc:1#view@user:a\n", "9:7", "no type `doc`"},
		"an unknown subject relation":  {smallSchema + "assertions:\n  assertTrue:\n    - \"document:1#view@user:a#m\"\n", "9:8", "no relation or permission `m`"},
		"a wildcard in a question":     {smallSchema + "assertions:\n  assertTrue:\n    - document:1#view@user:*\n", "9:7", "one subject"},
		"a caveat in a question":       {smallSchema + "assertions:\n  assertTrue:\n    - document:1#view@user:a[c]\n", "9:7", "no caveat"},
		"an unquoted context":          {smallSchema + "assertions:\n  assertTrue:\n    - document:1#view@user:a with {\"a\": 1}\n", "9:7", "as a mapping"},
		"a context that is not JSON":   {smallSchema + "assertions:\n  assertTrue:\n    - 'document:1#view@user:a with {a}'\n", "9:8", "not JSON"},
		"something after the question": {smallSchema + "assertions:\n  assertTrue:\n    - 'document:1#view@user:a if {}'\n", "9:8", "after the question"},
		"an assertion as a text":       {smallSchema + "assertions:\n  assertTrue: document:1#view@user:a\n", "8:15", "is not a list"},
		"assertions as a list":         {smallSchema + "assertions:\n  - a\n", "8:3", "is not a mapping"},
		"an alias":                     {smallSchema + "assertions:\n  assertTrue:\n    - &a document:1#view@user:a\n    - *a\n", "10:7", "alias"},
		"expected subjects":            {smallSchema + "validation:\n  document:1#view: [user:a]\n", "8:21", "no subject in brackets"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("x.yaml", []byte(c.text), nil)
			var first *Error
			if !errors.As(err, &first) {
				t.Fatalf("got %v, want an error", err)
			}
			if !strings.Contains(err.Error(), c.message) {
				t.Errorf("got\n%v\nwant one with %q", err, c.message)
			}
			if c.at != "" && !strings.HasPrefix(first.Error(), "x.yaml:"+c.at+": ") {
				t.Errorf("got %v, want it at %s", first, c.at)
			}
		})
	}
}

func TestAnErrorShowsTheLineWithACaret(t *testing.T) {
	_, err := Parse("x.yaml", []byte(smallSchema+"relationships: |-\n  document:1#viewer@usr:a\n"), nil)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"x.yaml:8:3: error: ", "8 |   document:1#viewer@usr:a\n", "|   ^^^^^"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got\n%v\nwithout %q", err, want)
		}
	}
}

func TestManyMistakesAreCutOff(t *testing.T) {
	_, err := Parse("x.yaml", []byte(smallSchema+"relationships: |-\n"+strings.Repeat("  nonsense\n", 1000)), nil)
	var all Errors
	if !errors.As(err, &all) || len(all) != maxErrors {
		t.Fatalf("got %d errors, want %d", len(all), maxErrors)
	}
}

func TestEveryPartOfAFileIsRead(t *testing.T) {
	files := map[string]string{
		"dir/sub/a.zed": "use import\nimport \"./b.zed\"\ncaveat c(x int) { x > 1 }\ndefinition d { relation r: user with c }",
		"dir/sub/b.zed": "definition user {}",
	}
	open := func(name string) ([]byte, error) {
		text, ok := files[name]
		if !ok {
			return nil, os.ErrNotExist
		}
		return []byte(text), nil
	}
	f, err := Parse("dir/x.yaml", []byte(`# comment
---
schemaFile: sub/a.zed
relationships: |
  # one

  // two
  d:1#r@user:a[c:{"x": 2}]
  d:1#r@user:a[c:{"x":2}]
assertions:
  assertTrue: [ "d:1#r@user:a" ]
  assertFalse:
    - d:1#r@user:b
  assertCaveated:
    - 'd:2#r@user:b   with{"x" : 1, "y": {}}'
`), open)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Relationships) != 1 || len(f.Assertions) != 3 {
		t.Fatalf("got %v and %v", f.Relationships, f.Assertions)
	}
	a := f.Assertions[2]
	if a.ContextText != `{"x":1,"y":{}}` || a.Want != Conditional || a.Pos != (schema.Position{File: "dir/x.yaml", Line: 15, Column: 8}) {
		t.Errorf("got %+v", a)
	}
}

func TestAMistakeInAnImportIsShownInItsFile(t *testing.T) {
	open := func(string) ([]byte, error) { return []byte("definition user {\n  relation r: nobody\n}\n"), nil }
	_, err := Parse("x.yaml", []byte("schema: |-\n  use import\n  import \"b.zed\"\n"), open)
	if err == nil || !strings.Contains(err.Error(), "b.zed:2:15") || !strings.Contains(err.Error(), "2 |   relation r: nobody") {
		t.Fatalf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(smallSchema + "relationships: |-\n  document:1#viewer@user:a\nassertions:\n  assertTrue:\n    - document:1#view@user:a\n"))
	f.Add([]byte("schema: definition user {}\nassertions: {assertFalse: ['user:a#b@user:c with {\"a\": [1]}']}\n"))
	f.Add([]byte("schemaFile: a.zed\nvalidation:\n  a: &x [*x]\n"))
	f.Add([]byte("schema: >\n  definition\n\n  user {}\nrelationships: \"a\\nb\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse("x.yaml", data, nil)
		if err != nil {
			var all Errors
			if !errors.As(err, &all) || len(all) == 0 || all.Error() == "" || all[0].Pos.Line < 1 || all[0].Pos.Column < 1 {
				t.Fatalf("the error has no place: %v", err)
			}
			return
		}
		for _, r := range file.Relationships {
			if err := r.Check(); err != nil {
				t.Fatal(err)
			}
		}
		coverage(file.Schema, file.Assertions)
	})
}

func TestHostileFilesEndInAnErrorSoon(t *testing.T) {
	for name, text := range map[string]string{
		"brackets":       strings.Repeat("[", 200_000),
		"braces":         strings.Repeat("{a: ", 200_000),
		"deep blocks":    strings.Repeat("- ", 100_000),
		"a bomb":         "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nschema: *c\n",
		"itself":         "&a schema: *a\n",
		"merge":          "<<: {schema: x}\n",
		"long lines":     smallSchema + "relationships: |-\n  " + strings.Repeat("a", 5_000_000) + "\n",
		"long key":       strings.Repeat("k", 1_000_000) + ": 1\n",
		"deep context":   smallSchema + "assertions:\n  assertTrue:\n    - 'document:1#view@user:a with " + strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000) + "'\n",
		"too many bytes": strings.Repeat("# padding padding\n", MaxBytes/18+1),
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			if _, err := Parse("x.yaml", []byte(text), nil); err == nil || len(err.Error()) > 20_000 {
				t.Errorf("want a short error, got %.200v", err)
			}
			if took := time.Since(start); took > 5*time.Second && !raceEnabled {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestLinesMayEndAsOnWindows(t *testing.T) {
	text := strings.ReplaceAll(smallSchema+"relationships: |-\n  document:1#viewer@user:a\n  document:1#owner@user:a\n", "\n", "\r\n")
	_, err := Parse("x.yaml", []byte(text), nil)
	var first *Error
	if !errors.As(err, &first) || first.Pos.Line != 9 || first.Pos.Column != 3 {
		t.Errorf("got %v", err)
	}
}
