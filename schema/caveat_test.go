package schema

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// mustCaveat compiles an expression over parameters written like
// "day string, hour int".
func mustCaveat(t testing.TB, params, expression string) *Caveat {
	t.Helper()
	c, fault := newCaveat("allowed", "", parameters(params), expression)
	if fault != nil {
		t.Fatalf("compile %q: %v", expression, fault)
	}
	return c
}

func parameters(text string) []Parameter {
	var out []Parameter
	for p := range strings.SplitSeq(text, ", ") {
		name, typ, _ := strings.Cut(p, " ")
		out = append(out, Parameter{Name: name, Type: typ})
	}
	return out
}

func mustContext(t testing.TB, text string) Context {
	t.Helper()
	c, err := ParseContext(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCaveatAnswers(t *testing.T) {
	for _, tt := range []struct {
		name, params, expression string
		written, request         string
		want                     string // true, false, or the missing fields
	}{
		{"a field of the request decides", "day string", `day == "monday"`, ``, `{"day":"monday"}`, "true"},
		{"a field of another value decides", "day string", `day == "monday"`, ``, `{"day":"sunday"}`, "false"},
		{"a missing field is named", "day string", `day == "monday"`, ``, ``, "day"},
		{"the written context wins", "day string", `day == "monday"`, `{"day":"monday"}`, `{"day":"sunday"}`, "true"},
		{"a hidden field of the request may be of any type", "n int", `n == 1`, `{"n":1}`, `{"n":"x"}`, "true"},
		{"written and request combine", "a int, b int", `a < b`, `{"a":1}`, `{"b":2}`, "true"},
		{"a field that no parameter declares is ignored", "a int", `a == 1`, ``, `{"a":1,"zz":[]}`, "true"},
		{"a written field no longer declared is ignored", "a int", `a == 1`, `{"a":1,"zz":[]}`, ``, "true"},
		{"or is true with one true side", "a bool, b bool", `a || b`, ``, `{"a":true}`, "true"},
		{"or is true whichever side is unknown", "a bool, b bool", `a || b`, ``, `{"b":true}`, "true"},
		{"and is false with one false side", "a bool, b bool", `a && b`, ``, `{"b":false}`, "false"},
		{"or waits for the other side", "a bool, b bool", `a || b`, ``, `{"b":false}`, "a"},
		{"both sides are missing, sorted", "z bool, a bool", `z && a`, ``, ``, "a,z"},
		{"a condition hides its other branch", "c bool, x bool, y bool", `c ? x : y`, ``, `{"c":true}`, "x"},
		{"negation keeps unknown", "a bool", `!a`, ``, ``, "a"},
		{"a field of a missing map is missing", "m map<any>", `m.role == "x"`, ``, ``, "m"},
		{"has() of a missing map is missing", "m map<any>", `has(m.role)`, ``, ``, "m"},
		{"has() of a given map decides", "m map<any>", `has(m.role)`, ``, `{"m":{}}`, "false"},
		{"a macro over a missing list waits for it", "l list<int>", `l.all(x, x > 0)`, ``, ``, "l"},
		{"a macro stops at a decisive element", "l list<int>, y int", `l.exists(x, x == 1 || x == y)`, ``, `{"l":[0,1]}`, "true"},
		{"a macro's variable hides a missing parameter", "x int, b bool", `b && [1,2].all(x, x > 0) || x == 7`, ``, `{"b":true}`, "true"},
		{"a macro's variable hides a parameter elsewhere missing", "x int", `[1,2].all(x, x > 5) || x == 7`, ``, ``, "x"},
		{"an error beside a decisive side is no error", "n int, a bool", `a || 1 / n == 1`, ``, `{"a":true,"n":0}`, "true"},
		{"an address lies in a range", "ip ipaddress", `ip.in_cidr("10.0.0.0/8")`, ``, `{"ip":"10.1.2.3"}`, "true"},
		{"an address lies outside", "ip ipaddress", `ip.in_cidr("10.0.0.0/8")`, ``, `{"ip":"192.168.0.1"}`, "false"},
		{"an IPv6 address lies in a range", "ip ipaddress, net string", `ip.in_cidr(net)`, `{"net":"2001:db8::/32"}`, `{"ip":"2001:db8::1"}`, "true"},
		{"addresses compare by value", "a ipaddress, b ipaddress", `a == b`, ``, `{"a":"2001:db8::1","b":"2001:0db8:0::1"}`, "true"},
		{"a subtree is found", "a map<any>, b map<any>", `a.isSubtreeOf(b)`, `{"a":{"x":{"y":1}}}`, `{"b":{"x":{"y":1,"z":2},"w":3}}`, "true"},
		{"a subtree differs below", "a map<any>, b map<any>", `a.isSubtreeOf(b)`, `{"a":{"x":{"y":1}}}`, `{"b":{"x":{"y":2}}}`, "false"},
		{"a subtree lacks a key", "a map<any>, b map<any>", `a.isSubtreeOf(b)`, `{"a":{"x":1}}`, `{"b":{}}`, "false"},
		{"a list in a subtree must be equal", "a map<any>, b map<any>", `a.isSubtreeOf(b)`, `{"a":{"x":[1,2]}}`, `{"b":{"x":[1,2]}}`, "true"},
		{"typed maps have subtrees", "a map<int>, b map<int>", `a.isSubtreeOf(b)`, `{"a":{"x":1}}`, `{"b":{"x":1}}`, "true"},
		{"times compare", "now timestamp, end timestamp", `now < end`, `{"end":"2026-01-01T00:00:00Z"}`, `{"now":"2025-12-31T23:59:59.999Z"}`, "true"},
		{"times are read in UTC", "now timestamp", `now.getHours() == 22`, ``, `{"now":"2026-01-01T00:30:00+02:00"}`, "true"},
		{"durations add to times", "at timestamp, d duration, now timestamp", `now < at + d`, `{"at":"2026-01-01T00:00:00Z","d":"1h30m"}`, `{"now":"2026-01-01T01:00:00Z"}`, "true"},
		{"integers of 64 bits survive", "n int", `n == 9223372036854775807`, ``, `{"n":9223372036854775807}`, "true"},
		{"integers of 64 bits survive as any", "n any", `n == 9007199254740993`, ``, `{"n":9007199254740993}`, "true"},
		{"unsigned integers survive as any", "n any", `n == 18446744073709551615u`, ``, `{"n":18446744073709551615}`, "true"},
		{"numbers of type any are doubles", "n any", `type(n) == double && n + 1.5 == 4.5`, ``, `{"n":3}`, "true"},
		{"integers may be strings", "n int", `n == -42`, ``, `{"n":"-42"}`, "true"},
		{"unsigned integers may be strings", "n uint", `n == 18446744073709551615u`, ``, `{"n":"18446744073709551615"}`, "true"},
		{"integers may have a zero fraction", "n int", `n == 42`, ``, `{"n":42.0}`, "true"},
		{"integers may have an exponent", "n int", `n == 1200`, ``, `{"n":1.2e3}`, "true"},
		{"numbers of different types compare", "n int, d double", `n < d`, ``, `{"n":1,"d":1.5}`, "true"},
		{"bytes are base64", "b bytes", `b == b"hi" && size(b) == 2`, ``, `{"b":"aGk="}`, "true"},
		{"null is a value of type any", "v any", `v == null`, ``, `{"v":null}`, "true"},
		{"lists nest", "l list<list<int>>", `l[1][0] == 3`, ``, `{"l":[[1,2],[3]]}`, "true"},
		{"maps of lists nest", "m map<list<string>>", `"b" in m.x`, ``, `{"m":{"x":["a","b"]}}`, "true"},
		{"strings match patterns", "s string", `s.matches("^a.*z$") && s.startsWith("a")`, ``, `{"s":"abcz"}`, "true"},
		{"a broken pattern that is never reached is harmless", "s string", `s == "a" || s.matches("(")`, ``, `{"s":"a"}`, "true"},
		{"a parameter may be called like a type", "string string", `string == "x"`, ``, `{"string":"x"}`, "true"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := mustCaveat(t, tt.params, tt.expression)
			got, err := c.Eval(t.Context(), tt.written, mustContext(t, tt.request), 0)
			if err != nil {
				t.Fatal(err)
			}
			text := got.Truth.String()
			if got.Truth == Unknown {
				text = strings.Join(got.Missing, ",")
			}
			if text != tt.want || (got.Truth != Unknown && got.Missing != nil) {
				t.Errorf("got %v %v, want %s", got.Truth, got.Missing, tt.want)
			}
		})
	}
}

func TestCaveatFieldErrors(t *testing.T) {
	for _, tt := range []struct{ name, typ, value, want string }{
		{"a number is no string", "string", `7`, "field `v` must be string, got number: write a string"},
		{"a string is no bool", "bool", `"true"`, "must be bool, got string"},
		{"null is no int", "int", `null`, "must be int, got null"},
		{"a fraction is no int", "int", `1.5`, "must be int, got a number that is not a whole number"},
		{"an int is bounded", "int", `9223372036854775808`, "that is out of the range of 64 bits"},
		{"a huge exponent costs nothing", "int", `1e999999999999`, "that is out of the range of 64 bits"},
		{"a tiny exponent is no int", "int", `1e-999999999`, "that is not a whole number"},
		{"a uint is not negative", "uint", `-1`, "that is negative"},
		{"a uint is not negative as a string", "uint", `"-1"`, "that is negative"},
		{"a text is no int", "int", `"secret"`, "must be int, got a string that is not a number"},
		{"a double is bounded", "double", `1e999`, "that is out of the range of a double"},
		{"infinity is no double", "double", `"Inf"`, "not a number"},
		{"bytes are base64", "bytes", `"secret?"`, "that is not base64"},
		{"a duration has a unit", "duration", `"30"`, "that is not a duration"},
		{"a timestamp is RFC 3339", "timestamp", `"tomorrow"`, "that is not a timestamp"},
		{"an address is one", "ipaddress", `"300.1.1.1"`, "that is not an IP address"},
		{"a list is no object", "map<int>", `[1]`, "must be map<int>, got list"},
		{"an element has its type", "list<int>", `[1,"secret"]`, "field `v[1]` must be int"},
		{"a value in a map has its type", "map<list<bool>>", `{"secret":[1]}`, "field `v.*[0]` must be bool, got number"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := mustCaveat(t, "v "+tt.typ, `v == v`)
			text := `{"v":` + tt.value + `}`
			_, requestErr := c.Eval(t.Context(), "", mustContext(t, text), 0)
			_, writtenErr := c.Eval(t.Context(), text, Context{}, 0)
			for i, err := range []error{requestErr, writtenErr, c.CheckContext(text)} {
				var e *CaveatError
				if !errors.Is(err, ErrCaveatField) || !errors.As(err, &e) || e.Field != "v" || e.Stored != (i == 1) {
					t.Fatalf("case %d: got %v", i, err)
				}
				if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
					t.Errorf("case %d: %q, want %q and no secret", i, err, tt.want)
				}
			}
		})
	}
}

func TestCaveatCheckContextRefusesUndeclaredFields(t *testing.T) {
	c := mustCaveat(t, "day string, hour int", `day == "monday" && hour > 7`)
	err := c.CheckContext(`{"hour":8,"dya":"monday"}`)
	want := "caveat `allowed`: no parameter `dya`; its parameters are `day`, `hour`: remove the field, or declare it in the schema"
	if err == nil || err.Error() != want || !errors.Is(err, ErrCaveatField) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	for _, ok := range []string{``, `{}`, `{"hour":8}`, `{"hour":"8","day":"x"}`} {
		if err := c.CheckContext(ok); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
}

func TestCaveatRuntimeErrors(t *testing.T) {
	for _, tt := range []struct{ name, params, expression, context, want string }{
		{"a division by zero", "n int", "n > 3 ||\n 10 / n == 1", `{"n":0}`, "division by zero: test the divisor first (line 2, column 5 of the expression)"},
		{"a key that is not there", "m map<any>, k string", `m[k] == 1`, `{"m":{},"k":"secret"}`, "a map lacks a key"},
		{"an index out of its list", "l list<int>", `l[3] == 1`, `{"l":[]}`, "an index lies outside"},
		{"a range that is none", "ip ipaddress, net string", `ip.in_cidr(net)`, `{"ip":"1.2.3.4","net":"secret"}`, "in_cidr() met a string that is no address range"},
		{"a string that is no number", "s string", `int(s) == 1`, `{"s":"secret"}`, "cannot be converted"},
		{"a pattern that is none", "s string, p string", `s.matches(p)`, `{"s":"x","p":"(secret"}`, "no regular expression"},
		{"a constant pattern that is none", "s string", `s.matches("(")`, `{"s":"x"}`, "no regular expression"},
		{"an overflow", "n int", `n + 1 > 0`, `{"n":9223372036854775807}`, "out of range"},
		{"an operand of another type", "v any", `v < 3`, `{"v":"secret"}`, "does not take"},
		{"an any that is no boolean", "v any", `v || v`, `{"v":"secret"}`, "does not take"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := mustCaveat(t, tt.params, tt.expression)
			_, err := c.Eval(t.Context(), "", mustContext(t, tt.context), 0)
			if !errors.Is(err, ErrCaveatRuntime) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want %q and no secret", err, tt.want)
			}
		})
	}
}

func TestCaveatCompileErrors(t *testing.T) {
	for _, tt := range []struct {
		name, params, expression string
		want                     string
		parameter, line, column  int
	}{
		{"an unknown name", "day string", "day == \"x\" &&\n  dya == \"y\"", "caveat `allowed` has no parameter `dya`", -1, 2, 3},
		{"an unknown function", "day string", `lower(day) == "x"`, "`lower` is no function that a caveat may call", -1, 1, 6},
		{"operands that do not match", "day string", `day == 1`, "`==` does not take operands of the types (string, int)", -1, 1, 5},
		{"a syntax error", "day string", `day == `, "is not valid CEL", -1, 1, 8},
		{"an expression that is not boolean", "day string", `day + "x"`, "is of type string, not bool", -1, 1, 1},
		{"an expression of type any", "day any", `day`, "is of type any, not bool", -1, 1, 1},
		{"an empty expression", "day string", ` `, "has no expression", -1, 1, 1},
		{"an unused parameter", "day string, hour int", `day == "x"`, "parameter `hour` of caveat `allowed` is not used", 1, 0, 0},
		{"a parameter hidden by a macro's variable", "x int", `[1].all(x, x > 0)`, "parameter `x` of caveat `allowed` is not used", 0, 0, 0},
		{"a parameter declared twice", "day string, day int", `day == "x"`, "declares parameter `day` twice", 1, 0, 0},
		{"a reserved word", "in string", `in == "x"`, "is a reserved word of CEL", 0, 0, 0},
		{"an unknown type", "day text", `day == "x"`, "unknown type `text`", 0, 0, 0},
		{"a list of nothing", "l list", `l == []`, "needs the type of its elements", 0, 0, 0},
		{"an open bracket", "l list<int", `l == []`, "lacks its closing `>`", 0, 0, 0},
		{"a basic type with a parameter", "n int<string>", `n == 1`, "takes no type in angle brackets", 0, 0, 0},
		{"a bottomless type", "n " + strings.Repeat("list<", 40) + "int" + strings.Repeat(">", 40), `n == []`, "nests at most", 0, 0, 0},
		{"a bottomless expression", "b bool", strings.Repeat("(", 2000) + "b" + strings.Repeat(")", 2000), "is not valid CEL", -1, 1, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, fault := newCaveat("allowed", "", parameters(tt.params), tt.expression)
			if fault == nil {
				t.Fatal("compiled")
			}
			if !strings.Contains(fault.Message, tt.want) || fault.Hint == "" {
				t.Errorf("got %q, hint %q, want %q", fault.Message, fault.Hint, tt.want)
			}
			if fault.Parameter != tt.parameter || fault.Line != tt.line || fault.Column != tt.column {
				t.Errorf("at parameter %d, %d:%d, want %d, %d:%d", fault.Parameter, fault.Line, fault.Column,
					tt.parameter, tt.line, tt.column)
			}
		})
	}
	if _, fault := newCaveat("allowed", "", nil, "true"); fault == nil {
		t.Error("compiled without parameters")
	}
}

func TestCaveatThatWouldRunForEverHitsItsCostLimit(t *testing.T) {
	c := mustCaveat(t, "l list<int>",
		`l.all(a, l.all(b, l.all(c, l.all(d, l.all(e, a + b + c + d + e >= 0)))))`)
	request := mustContext(t, `{"l":[`+strings.Repeat("1,", 999)+`1]}`)
	_, err := c.Eval(t.Context(), "", request, 0)
	if !errors.Is(err, ErrCaveatCost) || !strings.Contains(err.Error(), "cost limit of 100000") {
		t.Fatalf("got %v", err)
	}
	small := mustContext(t, `{"l":[1,1]}`)
	if r, err := c.Eval(t.Context(), "", small, 0); err != nil || r.Truth != True {
		t.Errorf("two elements: %v, %v", r, err)
	}
	if _, err := c.Eval(t.Context(), "", small, 10); !errors.Is(err, ErrCaveatCost) {
		t.Errorf("limit 10: %v", err)
	}
	for limit := uint64(1000); limit < 1010; limit++ { // more limits than programs are kept
		if r, err := c.Eval(t.Context(), "", small, limit); err != nil || r.Truth != True {
			t.Errorf("limit %d: %v, %v", limit, r, err)
		}
	}
	tree := mustCaveat(t, "a map<any>, b map<any>", `a.isSubtreeOf(b)`)
	m := `{"k":"` + strings.Repeat("x", 3000) + `"}`
	if _, err := tree.Eval(t.Context(), "", mustContext(t, `{"a":`+m+`,"b":`+m+`}`), 100); !errors.Is(err, ErrCaveatCost) {
		t.Errorf("isSubtreeOf is free: %v", err)
	}
}

// TestAPatternOfTheRequestIsBounded in its length, and any pattern in what it may
// cost, before anything is matched.
func TestAPatternOfTheRequestIsBounded(t *testing.T) {
	long := strings.Repeat("a{0,9}", 86) // 516 bytes
	for _, tt := range []struct {
		expression, context string
		want                error // nil: it holds
	}{
		{"s.matches(p)", `{"s":"abc","p":"^a.c$"}`, nil},
		{"s.matches(p)", `{"s":"","p":"` + long + `"}`, ErrCaveatRuntime},
		{"s.matches('" + long + "') && p == ''", `{"s":"aaa","p":""}`, nil},
		{"s.matches(p)", `{"s":"` + strings.Repeat("x", 60_000) + `","p":"` + strings.Repeat("x", 200) + `"}`, ErrCaveatCost},
		{"s.matches('" + strings.Repeat("x", 200) + "') && p == ''", `{"s":"` + strings.Repeat("x", 60_000) + `","p":""}`, ErrCaveatCost},
		{"[s].exists(x, x.matches(p))", `{"s":"` + strings.Repeat("x", 60_000) + `","p":"` + strings.Repeat("x", 200) + `"}`, ErrCaveatCost},
	} {
		c := mustCaveat(t, "s string, p string", tt.expression)
		r, err := c.Eval(t.Context(), "", mustContext(t, tt.context), 0)
		if tt.want == nil && (err != nil || r.Truth != True) || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%.40s of %.40s: %v, %v, want %v", tt.expression, tt.context, r, err, tt.want)
		}
	}
	c := mustCaveat(t, "s string, p string", "s.matches(p)")
	if r, err := c.Eval(t.Context(), "", mustContext(t, `{"s":"abc"}`), 0); err != nil || r.Truth != Unknown || len(r.Missing) != 1 || r.Missing[0] != "p" {
		t.Errorf("without a pattern: %v, %v", r, err)
	}
}

func TestCaveatThatDoublesItsValuesIsStopped(t *testing.T) {
	text := strings.Repeat("x", 30_000)
	for _, tt := range []struct{ name, params, expression, context string }{
		{"lists of lists", "l list<int>", "[dyn(l)]" + strings.Repeat(".map(x, dyn([x, x]))", 60) + ".all(y, y == y)", `{"l":[1]}`},
		{"longer lists", "l list<int>", "[l]" + strings.Repeat(".map(x, x + x)", 60) + ".all(y, 7 in y)", `{"l":[1]}`},
		{"longer strings", "s string", "[s]" + strings.Repeat(".map(x, x + x)", 60) + `.all(y, y == "")`, `{"s":"x"}`},
		{"comparing large lists over and over", "l list<int>", "[l]" + strings.Repeat(".map(x, x + x)", 12) +
			".all(y, l.all(a, l.all(b, y == y)))", `{"l":[` + strings.Repeat("1,", 9) + `1]}`},
		{"a pattern of the request", "s string, p string", "s.matches(p)",
			`{"s":"` + text + `","p":"` + strings.Repeat("(x+x+)+", 4000) + `y"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := mustCaveat(t, tt.params, tt.expression)
			start := time.Now()
			_, err := c.Eval(t.Context(), "", mustContext(t, tt.context), 0)
			if took := time.Since(start); err == nil || took > 5*time.Second {
				t.Errorf("%v after %v", err, took)
			}
			t.Log(err, time.Since(start))
		})
	}
}

func TestCaveatStopsWhenItsContextIsCancelled(t *testing.T) {
	c := mustCaveat(t, "l list<int>", `l.all(a, l.all(b, l.all(c, a + b + c >= 0)))`)
	request := mustContext(t, `{"l":[`+strings.Repeat("1,", 999)+`1]}`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Eval(ctx, "", request, 1<<60); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Eval(ctx, "", request, 1<<60); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cancelled during: %v", err)
	}
}

func TestCaveatEvaluatesConcurrently(t *testing.T) {
	c := mustCaveat(t, "day string, n int, l list<int>", `day == "monday" && n in l`)
	request := mustContext(t, `{"n":3,"day":"monday"}`)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				written := fmt.Sprintf(`{"l":[%d,%d]}`, i%7, g)
				want := False
				if i%7 == 3 || g == 3 {
					want = True
				}
				r, err := c.Eval(t.Context(), written, request, uint64(1000+g))
				if err != nil || r.Truth != want {
					t.Errorf("%s: %v, %v", written, r, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestContextErrors(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)
	for _, tt := range []struct{ name, text, want string }{
		{"a list", `[1]`, "not a JSON object"},
		{"a broken object", `{"a":}`, "not valid JSON near byte"},
		{"a trailing comma", `{"a":1,}`, "not valid JSON near byte"},
		{"an open object", `{"a":1`, "not valid JSON near byte"},
		{"two objects", `{} {}`, "something follows"},
		{"a key twice", `{"a":1,"a":2}`, "a key occurs twice"},
		{"a key twice, escaped", `{"a":1,"\u0061":2}`, "a key occurs twice"},
		{"too deep", deep, "deeper than the limit of 32"},
		{"too long", `{"a":"` + strings.Repeat("x", 70_000) + `"}`, "70008 bytes long, the limit is 65536"},
		{"not UTF-8", "{\"a\":\"\xff\"}", "not valid UTF-8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseContext(tt.text)
			if !errors.Is(err, ErrContext) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	c := mustCaveat(t, "a int", "a == 1")
	if _, err := c.Eval(t.Context(), `{"a":`, Context{}, 0); !errors.Is(err, ErrContext) {
		t.Errorf("broken written context: %v", err)
	}
}

func TestContextFromMap(t *testing.T) {
	c := mustCaveat(t, "i int, f double, l list<uint>, m map<any>", `i == 3 && f == 0.5 && l == [1u, 2u] && m.x == null`)
	inner := []any{uint8(1), 2.0}
	request, err := ContextFromMap(map[string]any{"i": 3, "f": float32(0.5), "l": inner, "m": map[string]any{"x": nil}})
	if err != nil {
		t.Fatal(err)
	}
	inner[0] = "changed by the caller"
	if r, err := c.Eval(t.Context(), "", request, 0); err != nil || r.Truth != True {
		t.Errorf("got %v, %v", r, err)
	}
	nested := map[string]any{}
	nested["self"] = nested
	for _, bad := range []map[string]any{
		{"x": struct{}{}}, {"x": nested}, {"x": "\xff"}, {"\xff": 1}, {"x": strings.Repeat("x", 70_000)},
		{"x": []any{make(chan int)}},
	} {
		if _, err := ContextFromMap(bad); !errors.Is(err, ErrContext) {
			t.Errorf("got %v", err)
		}
	}
}

func TestWrittenContextsAreForgotten(t *testing.T) {
	c := mustCaveat(t, "n int", "n >= 0")
	for i := range 2 * writtenEntries {
		if r, err := c.Eval(t.Context(), fmt.Sprintf(`{"n":%d}`, i), Context{}, 0); err != nil || r.Truth != True {
			t.Fatal(r, err)
		}
	}
	if n := c.written.Len(); n != writtenEntries {
		t.Errorf("remembers %d", n)
	}
	long := `{"n":1` + strings.Repeat(" ", writtenBytes) + `}`
	if r, err := c.Eval(t.Context(), long, Context{}, 0); err != nil || r.Truth != True || slices.Contains(c.written.Keys(), long) {
		t.Error(r, err)
	}
}
