package schema

import (
	"fmt"
	"testing"
)

func BenchmarkCaveatEval(b *testing.B) {
	for _, bm := range []struct{ name, params, expression, written, request string }{
		{"string from the request", "day string", `day == "monday"`, ``, `{"day":"monday"}`},
		{"string, written and request", "day string, today string", `day == today`, `{"day":"monday"}`, `{"today":"monday"}`},
		{"field missing", "day string", `day == "monday"`, ``, ``},
		{"address range", "ip ipaddress", `ip.in_cidr("10.0.0.0/8")`, ``, `{"ip":"10.1.2.3"}`},
		{"window of time", "now timestamp, from timestamp, to timestamp", `from <= now && now < to`,
			`{"from":"2026-01-01T00:00:00Z","to":"2027-01-01T00:00:00Z"}`, `{"now":"2026-06-01T00:00:00Z"}`},
		{"macro over ten", "l list<int>, n int", `l.exists(x, x == n)`, `{"l":[0,1,2,3,4,5,6,7,8,9]}`, `{"n":9}`},
	} {
		b.Run(bm.name, func(b *testing.B) {
			c := mustCaveat(b, bm.params, bm.expression)
			request := mustContext(b, bm.request)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Eval(b.Context(), bm.written, request, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCaveatWritten meets a new written context each time.
func BenchmarkCaveatWritten(b *testing.B) {
	c := mustCaveat(b, "day string, today string", `day == today`)
	request := mustContext(b, `{"today":"monday"}`)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := c.Eval(b.Context(), fmt.Sprintf(`{"day":"%d"}`, i), request, 0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCaveatCompile(b *testing.B) {
	params := parameters("day string, hour int, ip ipaddress")
	b.ReportAllocs()
	for b.Loop() {
		if _, fault := newCaveat("allowed", "", params, `day == "monday" && hour > 7 || ip.in_cidr("10.0.0.0/8")`); fault != nil {
			b.Fatal(fault)
		}
	}
}
