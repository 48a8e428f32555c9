package graph

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pembadb/pemba/schema"
)

// Many arrows over many types must not be planned as what the two multiply to.
func TestABlueprintIsNoLargerThanItsSchema(t *testing.T) {
	const n = 500
	for _, target := range []string{"x", "x%d"} {
		var b strings.Builder
		b.WriteString("definition user {}\n")
		for i := range n {
			fmt.Fprintf(&b, "definition t%d { relation x: user relation x%d: user }\n", i, i)
		}
		b.WriteString("definition z { relation a: t0")
		for i := 1; i < n; i++ {
			fmt.Fprintf(&b, "|t%d", i)
		}
		for i := range n {
			fmt.Fprintf(&b, " permission p%d = a->%s", i, strings.ReplaceAll(target, "%d", fmt.Sprint(i)))
		}
		b.WriteString("}")
		s, _, err := schema.Compile(schema.Source{Text: b.String()}, schema.NewNames(), schema.Options{})
		if err != nil {
			t.Fatal(err)
		}
		p := newBlueprint(s)
		size := len(p.parts)
		for _, a := range p.parts[1:] {
			if size += len(a.users); a.form != arrow { // arrows share those of their meeting
				size += len(a.targets)
			}
		}
		if size > 20*n {
			t.Errorf("a->%s: the blueprint has %d parts and links", target, size)
		}
		if k := p.kind(subjectKind{typ: s.Definition("user")}); !k.can(p.atoms[s.Definition("z").Relation("p7")]) {
			t.Errorf("a->%s: nobody can have it", target)
		}
	}
}
