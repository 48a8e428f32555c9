package schema

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// gap draws the white space and comments between two tokens.
func gap(t *rapid.T) string {
	return rapid.SampledFrom([]string{" ", " ", " ", "\n", "\t", "\n\n\n", " // note\n", " /* aside */ ", "\n/** doc */\n",
		"\n// one\n\n// two\n", "/* two\n lines */", "\r\n"}).Draw(t, "gap")
}

// sprinkle joins tokens with gaps.
func sprinkle(t *rapid.T, tokens []string) string {
	var b strings.Builder
	for _, token := range tokens {
		b.WriteString(token)
		b.WriteString(gap(t))
	}
	return b.String()
}

// drawExpression gives the tokens of an expression over relations r0 … r2 and
// permissions p0 … p2.
func drawExpression(t *rapid.T, depth int) []string {
	if depth == 0 || rapid.IntRange(0, 2).Draw(t, "leaf") == 0 {
		name := rapid.SampledFrom([]string{"r0", "r1", "r2", "p0", "p1", "p2"}).Draw(t, "name")
		target := rapid.SampledFrom([]string{"r0", "p1", "missing"}).Draw(t, "target")
		walked := rapid.SampledFrom([]string{"r0", "r1"}).Draw(t, "walked")
		switch rapid.IntRange(0, 6).Draw(t, "term") {
		case 0:
			return []string{"nil"}
		case 1:
			return []string{"self"}
		case 2:
			return []string{walked, "->", target}
		case 3:
			return []string{walked, ".", "any", "(", target, ")"}
		case 4:
			return []string{walked, ".", "all", "(", target, ")"}
		}
		return []string{name}
	}
	var out []string
	for i := range rapid.IntRange(1, 3).Draw(t, "operands") {
		if i > 0 {
			out = append(out, rapid.SampledFrom([]string{"+", "&", "-"}).Draw(t, "operator"))
		}
		inner := drawExpression(t, depth-1)
		if rapid.Bool().Draw(t, "parens") {
			inner = append(append([]string{"("}, inner...), ")")
		}
		out = append(out, inner...)
	}
	return out
}

// drawSchema gives a valid schema with everything in odd places.
func drawSchema(t *rapid.T) string {
	tokens := []string{"use", "self", "use", "expiration", "use", "typechecking", "definition", "user", "{", "}",
		"caveat", "c", "(", "a", "int", ",", "b", "list", "<", "string", ">", ")",
		rapid.SampledFrom([]string{"{ a == 1 && b == [] }", "{\n\n  a == 1 &&\n      b == [\"}\"] // }\n\n\t|| a == 2 }", "{ b == ['''x\n  y'''] || a == 1\n\t\t}"}).Draw(t, "cel")}
	for d := range rapid.IntRange(1, 3).Draw(t, "definitions") {
		tokens = append(tokens, "definition", fmt.Sprintf("d%d", d), "{")
		for r := range 3 {
			tokens = append(tokens, "relation", fmt.Sprintf("r%d", r), ":")
			subjects := []string{"d0", "d0#r0", "d0 with c", "d0 with expiration", "d0#... with c and expiration"}
			if r == 2 {
				subjects = append(subjects, "user:*", "user:* with c")
			}
			for i, s := range rapid.SliceOfNDistinct(rapid.SampledFrom(subjects), 1, 3, rapid.ID).Draw(t, "subjects") {
				if i > 0 {
					tokens = append(tokens, "|")
				}
				tokens = append(tokens, s)
			}
		}
		for p := range 3 {
			tokens = append(tokens, "permission", fmt.Sprintf("p%d", p))
			tokens = append(append(tokens, "="), drawExpression(t, 3)...)
		}
		tokens = append(tokens, "}")
	}
	return sprinkle(t, tokens)
}

// planText gives all that a schema means.
func planText(s *Schema) string {
	var b strings.Builder
	for _, c := range s.Caveats {
		fmt.Fprintf(&b, "caveat %s %q %v %q\n", c.Name, c.Doc, c.Parameters, c.Expression)
	}
	for _, d := range s.Definitions {
		fmt.Fprintf(&b, "definition %s %d %q\n", d.Type, d.Name, d.Doc)
		for _, r := range d.Relations {
			fmt.Fprintf(&b, "\t%s %d %q %v %s\n", r.Text, r.Name, r.Doc, r.Allowed, r.Signature())
		}
	}
	return b.String()
}

// commentCount counts the comments of a source, whatever their layout.
func commentCount(s string) int { return strings.Count(s, "//") + strings.Count(s, "/*") }

func TestFormattingIsIdempotentAndKeepsMeaningAndComments(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := drawSchema(t)
		s, _, err := Compile(Source{Text: text}, nil, Options{})
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		once, err := Format(Source{Text: text})
		if err != nil {
			t.Fatal(err)
		}
		twice, err := Format(Source{Text: once})
		if err != nil {
			t.Fatalf("%v\n%s", err, once)
		}
		if once != twice {
			t.Fatalf("formatted:\n%s\nand again:\n%s", once, twice)
		}
		formatted, _, err := Compile(Source{Text: once}, nil, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if a, b := planText(s), planText(formatted); a != b {
			t.Fatalf("plan of the source:\n%s\nof the formatted text:\n%s", a, b)
		}
		if s.Hash != formatted.Hash {
			t.Fatal("the hash changed")
		}
		if a, b := commentCount(text), commentCount(once); a != b {
			t.Fatalf("%d comments became %d:\n%s", a, b, once)
		}
		if d := Diff(s, formatted); len(d) > 0 {
			t.Fatalf("differences: %v", d)
		}
	})
}

func TestASchemaDiffersFromAnotherOnlyIfTheirPlansDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := mustDraw(t), mustDraw(t)
		forth, back := Diff(a, b), Diff(b, a)
		if len(forth) != len(back) {
			t.Fatalf("%d differences one way, %d the other", len(forth), len(back))
		}
		if same := planText(a) == planText(b); same && len(forth) > 0 {
			t.Fatalf("equal plans differ: %v", forth)
		}
	})
}

func mustDraw(t *rapid.T) *Schema {
	s, _, err := Compile(Source{Text: drawSchema(t)}, nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
