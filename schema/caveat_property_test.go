package schema

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// formula is a random boolean expression with the meaning it should have.
type formula struct {
	text string
	eval func(world map[string]Truth) Truth
}

var worldNames = []string{"a", "b", "c", "d"}

func drawFormula(t *rapid.T, depth int) formula {
	kind := 0
	if depth > 0 {
		kind = rapid.IntRange(0, 6).Draw(t, "kind")
	}
	switch kind {
	case 0:
		name := rapid.SampledFrom(worldNames).Draw(t, "name")
		return formula{name, func(w map[string]Truth) Truth { return w[name] }}
	case 1:
		x := drawFormula(t, depth-1)
		return formula{"!(" + x.text + ")", func(w map[string]Truth) Truth { return not(x.eval(w)) }}
	case 2:
		x, y := drawFormula(t, depth-1), drawFormula(t, depth-1)
		return formula{"(" + x.text + ") == (" + y.text + ")", func(w map[string]Truth) Truth {
			a, b := x.eval(w), y.eval(w)
			switch {
			case a == Unknown || b == Unknown:
				return Unknown
			case a == b:
				return True
			}
			return False
		}}
	case 3:
		c, x, y := drawFormula(t, depth-1), drawFormula(t, depth-1), drawFormula(t, depth-1)
		return formula{"(" + c.text + ") ? (" + x.text + ") : (" + y.text + ")", func(w map[string]Truth) Truth {
			switch c.eval(w) {
			case True:
				return x.eval(w)
			case False:
				return y.eval(w)
			}
			return Unknown
		}}
	case 4:
		x, y := drawFormula(t, depth-1), drawFormula(t, depth-1)
		return formula{"(" + x.text + ") && (" + y.text + ")", func(w map[string]Truth) Truth {
			return not(either(not(x.eval(w)), not(y.eval(w))))
		}}
	case 5: // a macro, whose variable hides the parameter d
		x, y := drawFormula(t, depth-1), drawFormula(t, 0)
		return formula{"[true, false].exists(d, (" + x.text + ") && " + y.text + ")", func(w map[string]Truth) Truth {
			out := False
			for _, d := range []Truth{True, False} {
				inner := map[string]Truth{"a": w["a"], "b": w["b"], "c": w["c"], "d": d}
				out = either(out, not(either(not(x.eval(inner)), not(y.eval(inner)))))
			}
			return out
		}}
	}
	x, y := drawFormula(t, depth-1), drawFormula(t, depth-1)
	return formula{"(" + x.text + ") || (" + y.text + ")", func(w map[string]Truth) Truth {
		return either(x.eval(w), y.eval(w))
	}}
}

func not(a Truth) Truth { return [...]Truth{False: True, True: False, Unknown: Unknown}[a] }

func either(a, b Truth) Truth {
	switch {
	case a == True || b == True:
		return True
	case a == Unknown || b == Unknown:
		return Unknown
	}
	return False
}

func worldJSON(world map[string]Truth, keep func(string) bool) string {
	m := map[string]bool{}
	for name, v := range world {
		if v != Unknown && keep(name) {
			m[name] = v == True
		}
	}
	text, _ := json.Marshal(m)
	return string(text)
}

// Kleene's logic is the reference; besides, whatever was decided stays decided
// as every completion of the context says, and what is missing was not given.
func TestPartialContextsAnswerAsThreeValuedLogic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFormula(t, 4)
		// A tautology in front uses each parameter without deciding anything.
		params := make([]Parameter, len(worldNames))
		var all []string
		for i, name := range worldNames {
			params[i] = Parameter{name, "bool"}
			all = append(all, name)
		}
		expression := "(" + f.text + ") || (false && (" + strings.Join(all, " || ") + "))"
		c, fault := newCaveat("allowed", "", params, expression)
		if fault != nil {
			t.Fatalf("%s: %v", expression, fault)
		}
		world := map[string]Truth{}
		var absent []string
		for _, name := range worldNames {
			world[name] = rapid.SampledFrom([]Truth{False, True, Unknown}).Draw(t, name)
			if world[name] == Unknown {
				absent = append(absent, name)
			}
		}
		stored := rapid.SliceOf(rapid.SampledFrom(worldNames)).Draw(t, "stored")
		written := worldJSON(world, func(n string) bool { return slices.Contains(stored, n) })
		request, err := ParseContext(worldJSON(world, func(n string) bool { return !slices.Contains(stored, n) }))
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Eval(t.Context(), written, request, 0)
		if err != nil {
			t.Fatal(err)
		}
		if want := f.eval(world); got.Truth != want {
			t.Fatalf("%s in %v: got %v, want %v", expression, world, got, want)
		}
		if (got.Truth == Unknown) != (len(got.Missing) > 0) {
			t.Fatalf("%v misses %v", got.Truth, got.Missing)
		}
		for _, name := range got.Missing {
			if !slices.Contains(absent, name) {
				t.Fatalf("%s is missing, though given or unheard of", name)
			}
		}
		for bits := range 1 << len(absent) {
			for i, name := range absent {
				world[name] = Truth(bits >> i & 1)
			}
			complete, err := ParseContext(worldJSON(world, func(string) bool { return true }))
			if err != nil {
				t.Fatal(err)
			}
			r, err := c.Eval(t.Context(), "", complete, 0)
			if err != nil || r.Truth == Unknown || got.Truth != Unknown && r.Truth != got.Truth {
				t.Fatalf("%s: %v became %v with %v, %v", expression, got, r, world, err)
			}
		}
	})
}

func FuzzCaveatContext(f *testing.F) {
	c, fault := newCaveat("allowed", "", parameters("a any, i int, u uint, b bool, s string, d double, y bytes, "+
		"w duration, t timestamp, l list<any>, m map<any>, p ipaddress"),
		`b || i / 2 == int(u) || s.matches("^x+$") || d > 0.5 || size(y) == 3 || t + w > timestamp("2026-01-01T00:00:00Z") ||
		l.exists(x, x == a || m.all(k, m[k] == x)) || m.isSubtreeOf({"k": a}) || p.in_cidr(s)`)
	if fault != nil {
		f.Fatal(fault)
	}
	for _, seed := range []string{
		``, `{}`, `[]`, `{"b":true}`, `{"i":1e3,"u":"18446744073709551615","d":-0.0}`, `{"i":1,"i":2}`,
		`{"l":[1,[2,{"k":null}]],"m":{"k":{}},"a":null}`, `{"t":"2026-01-01T00:00:00Z","w":"-1h","p":"::1","s":"::/0"}`,
		`{"y":"aGk=","s":"\ud800"}`, `{"i":1e-999999999999}`, strings.Repeat(`{"a":[`, 40),
	} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, request, written string) {
		parsed, err := ParseContext(request)
		if err == nil && request != "" && !json.Valid([]byte(request)) {
			t.Errorf("took what is no JSON: %q", request)
		}
		if checked := c.CheckContext(written); checked == nil {
			if _, err := c.Eval(t.Context(), written, Context{}, 0); err != nil && strings.Contains(err.Error(), "written with") {
				t.Errorf("%q passed its check, yet: %v", written, err)
			}
		}
		r, err := c.Eval(t.Context(), written, parsed, 0)
		if err != nil && r.Truth != False {
			t.Errorf("an error allowed something: %v, %v", r, err)
		}
		if err != nil && strings.Contains(err.Error(), "panic") || err != nil && strings.Contains(err.Error(), "internal error") {
			t.Error(err)
		}
	})
}
