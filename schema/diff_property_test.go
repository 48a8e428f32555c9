package schema

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestWhatIsSaidToWidenTakesNothingAway: over random pairs of expressions, one
// that is said to widen the other admits everybody whom the other does, whoever
// is in the relations they name; and enough that widen are found.
func TestWhatIsSaidToWidenTakesNothingAway(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	said, widened := 0, 0
	for range 20_000 {
		old := randomExpression(r, 3)
		next := randomExpression(r, 3)
		if r.IntN(2) == 0 {
			next = fmt.Sprintf("(%s) + (%s)", next, old) // which surely widens
		}
		s, _, err := Compile(Source{Text: fmt.Sprintf("definition u {} definition d { relation a: u relation b: u relation c: u permission old = %s permission new = %s }", old, next)}, nil, Options{})
		if err != nil {
			t.Fatal(err)
		}
		d := s.Definition("d")
		before, after := d.Relation("old").Expr, d.Relation("new").Expr
		truly := true
		for members := range 8 {
			truly = truly && (!admits(before, members) || admits(after, members))
		}
		is := widens(before, after)
		if is && !truly {
			t.Fatalf("%s is said to widen %s", next, old)
		}
		if is {
			said++
		}
		if truly {
			widened++
		}
	}
	if said < widened*2/3 {
		t.Errorf("of %d that widen, %d were found", widened, said)
	}
}

// randomExpression writes an expression over the relations a, b and c.
func randomExpression(r *rand.Rand, depth int) string {
	if depth == 0 || r.IntN(3) == 0 {
		return []string{"a", "b", "c", "nil"}[r.IntN(4)]
	}
	return fmt.Sprintf("(%s %c %s)", randomExpression(r, depth-1), "+&-"[r.IntN(3)], randomExpression(r, depth-1))
}

// admits says whether somebody has e who is in the relations of members: 1 for a,
// 2 for b, 4 for c.
func admits(e *Expr, members int) bool {
	switch e.Kind {
	case Ref:
		return members&(1<<(e.Relation.Text[0]-'a')) != 0
	case Union:
		for _, c := range e.Children {
			if admits(c, members) {
				return true
			}
		}
		return false
	case Intersection:
		for _, c := range e.Children {
			if !admits(c, members) {
				return false
			}
		}
		return true
	case Exclusion:
		return admits(e.Children[0], members) && !admits(e.Children[1], members)
	}
	return false // nil
}
