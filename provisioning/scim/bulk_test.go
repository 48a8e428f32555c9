package scim

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// bulk sends a bulk request and gives the results.
func (s *service) bulk(failOnErrors int, operations ...string) Object {
	s.t.Helper()
	return s.want(200, "POST", "/Bulk", fmt.Sprintf(`{"schemas":[%q],"failOnErrors":%d,"Operations":[%s]}`, bulkRequestMessage, failOnErrors, strings.Join(operations, ",")))
}

func post(path, bulkID, data string) string {
	return fmt.Sprintf(`{"method":"POST","path":%q,"bulkId":%q,"data":%s}`, path, bulkID, data)
}

// statuses are those of the results, in their order.
func statuses(o Object) string {
	var list []string
	for _, r := range o["Operations"].([]any) {
		list = append(list, r.(Object)["status"].(string))
	}
	return strings.Join(list, " ")
}

// TestBulkRules has a test for each rule of RFC 7644 §3.7.
func TestBulkRules(t *testing.T) {
	for _, rule := range bulkRules {
		t.Run(rule.section+" "+rule.promise, func(t *testing.T) {
			rule.test(t, serve(t, Config{MaxOperations: 200, MaxBody: 64 << 10}))
		})
	}
}

func member(ref string) string {
	return `{"displayName":"g","members":[{"value":"bulkId:` + ref + `"}]}`
}

var bulkRules = []rule{
	{"§3.7", "every operation has its result: method, bulkId, version, location and status", func(t *testing.T, s *service) {
		id := s.user("old")
		o := s.bulk(0, post("/Users", "a", `{"userName":"ada"}`), `{"method":"PUT","path":"/Users/`+id+`","data":{"userName":"older"}}`,
			`{"method":"patch","path":"/Users/`+id+`","data":{"Operations":[{"op":"add","path":"title","value":"T"}]}}`, `{"method":"DELETE","path":"/Users/`+id+`"}`)
		if got := statuses(o); got != "201 200 200 204" {
			t.Fatal(got)
		}
		is(t, o, "schemas", `["`+bulkResponseMessage+`"]`)
		is(t, o, "Operations.0.bulkId", `"a"`)
		is(t, o, "Operations.0.method", `"POST"`)
		is(t, o, "Operations.3.location", `"https://pemba.example/scim/v2/Users/`+id+`"`)
		made := strings.TrimPrefix(at(o, "Operations.0.location").(string), "https://pemba.example/scim/v2")
		is(t, s.want(200, "GET", made, ""), "meta.version", fmt.Sprintf("%q", at(o, "Operations.0.version")))
	}},
	{"§3.7", "what fails does not stop the rest, and says why", func(t *testing.T, s *service) {
		s.user("taken")
		o := s.bulk(0, post("/Users", "a", `{"userName":"a"}`), post("/Users", "b", `{"userName":"taken"}`), post("/Users", "c", `{}`), post("/Users", "d", `{"userName":"d"}`), `{"method":"DELETE","path":"/Users/nobody"}`)
		if got := statuses(o); got != "201 409 400 201 404" {
			t.Fatal(got)
		}
		is(t, o, "Operations.1.response.scimType", `"uniqueness"`)
		is(t, o, "Operations.1.response.status", `"409"`)
		is(t, o, "Operations.2.response.schemas", `["`+errorMessage+`"]`)
	}},
	{"§3.7", "failOnErrors ends the job after so many errors, and nothing after them is done", func(t *testing.T, s *service) {
		s.user("taken")
		bad := post("/Users", "b", `{"userName":"taken"}`)
		worse := post("/Users", "c", `{"userName":"taken"}`)
		if got := statuses(s.bulk(1, post("/Users", "a", `{"userName":"a"}`), bad, post("/Users", "z", `{"userName":"z"}`))); got != "201 409" {
			t.Fatal(got)
		}
		if got := statuses(s.bulk(2, bad, post("/Users", "x", `{"userName":"x"}`), worse, post("/Users", "z", `{"userName":"z"}`))); got != "409 201 409" {
			t.Fatal(got)
		}
		if len(s.kept[User]) != 3 {
			t.Fatal(len(s.kept[User]), "users")
		}
	}},
	{"§3.7", "a version is compared like If-Match", func(t *testing.T, s *service) {
		id := s.user("ada")
		o := s.bulk(0, `{"method":"DELETE","path":"/Users/`+id+`","version":"W/\"none\""}`, `{"method":"PUT","path":"/Users/`+id+`","version":"W/\"1\"","data":{"userName":"b"}}`)
		if got := statuses(o); got != "412 200" {
			t.Fatal(got)
		}
	}},
	{"§3.7.1", "a circle of references is made whole", func(t *testing.T, s *service) {
		o := s.bulk(0, post("/Groups", "a", member("b")), post("/Groups", "b", member("c")), post("/Groups", "c", member("a")), post("/Groups", "self", member("self")),
			post("/Users", "x", `{"userName":"x","`+EnterpriseSchema+`":{"manager":{"value":"bulkId:y"}}}`), post("/Users", "y", `{"userName":"y","`+EnterpriseSchema+`":{"manager":{"value":"bulkId:x"}}}`))
		if got := statuses(o); got != "201 201 201 201 201 201" {
			t.Fatal(got, o)
		}
		path := func(i int) string {
			return strings.TrimPrefix(at(o, fmt.Sprintf("Operations.%d.location", i)).(string), "https://pemba.example/scim/v2")
		}
		for group, inside := range []int{1, 2, 0, 3} {
			is(t, s.want(200, "GET", path(group), ""), "members.0.value", `"`+path(inside)[len("/Groups/"):]+`"`)
			is(t, s.want(200, "GET", path(group), ""), "meta.version", fmt.Sprintf("%q", at(o, fmt.Sprintf("Operations.%d.version", group))))
		}
		for user, boss := range map[int]int{4: 5, 5: 4} {
			e := s.want(200, "GET", path(user), "")[EnterpriseSchema]
			if at(e, "manager.value") != path(boss)[len("/Users/"):] {
				t.Fatal(e)
			}
		}
	}},
	{"§3.7.2", "a bulkId stands for what it names, wherever that is, in data and in paths", func(t *testing.T, s *service) {
		o := s.bulk(0, post("/Groups", "g", member("late")), post("/Users", "late", `{"userName":"late"}`),
			`{"method":"PATCH","path":"/Groups/bulkId:g","data":{"Operations":[{"op":"add","path":"members","value":[{"value":"bulkId:last"}]}]}}`, post("/Users", "last", `{"userName":"last"}`))
		if got := statuses(o); got != "201 201 200 201" {
			t.Fatal(got, o)
		}
		g := s.want(200, "GET", strings.TrimPrefix(at(o, "Operations.0.location").(string), "https://pemba.example/scim/v2"), "")
		if len(g["members"].([]any)) != 2 {
			t.Fatal(g)
		}
	}},
	{"§3.7.2", "what refers to nothing, or to what failed, fails", func(t *testing.T, s *service) {
		s.user("taken")
		o := s.bulk(0, post("/Groups", "g", member("none")), post("/Groups", "h", member("bad")), post("/Users", "bad", `{"userName":"taken"}`), `{"method":"DELETE","path":"/Users/bulkId:bad"}`)
		if got := statuses(o); got != "400 409 409 409" {
			t.Fatal(got, o)
		}
	}},
	{"§3.7.3", "more operations than the limit are 413, and so is a larger body", func(t *testing.T, s *service) {
		var list []string
		for i := range 201 {
			list = append(list, post("/Users", fmt.Sprint(i), `{"userName":"x"}`))
		}
		s.refused(413, "tooMany", "POST", "/Bulk", `{"Operations":[`+strings.Join(list, ",")+`]}`)
		s.refused(413, "", "POST", "/Bulk", `{"Operations":["`+strings.Repeat("x", 70<<10)+`"]}`)
	}},
	{"§3.7", "an operation that is none is invalidSyntax or invalidPath, and nothing is done", func(t *testing.T, s *service) {
		good := post("/Users", "good", `{"userName":"good"}`)
		for _, op := range []string{`1`, `{"method":"GET","path":"/Users/x"}`, `{"method":"POST","path":"/Users","data":{}}`, `{"method":"POST","path":"/Users","bulkId":"x"}`, `{"method":"PUT","path":"/Users/x"}`, good} {
			s.refused(400, "invalidSyntax", "POST", "/Bulk", `{"Operations":[`+good+`,`+op+`]}`)
		}
		for _, op := range []string{post("/Printers", "x", `{}`), post("/Users/x", "x", `{}`), `{"method":"DELETE","path":"/Users"}`} {
			s.refused(400, "invalidPath", "POST", "/Bulk", `{"Operations":[`+good+`,`+op+`]}`)
		}
		s.refused(400, "invalidSyntax", "POST", "/Bulk", `{"failOnErrors":"x","Operations":[]}`)
		if len(s.kept[User]) != 0 {
			t.Fatal(s.kept)
		}
	}},
	{"§3.7", "creates that follow each other are one call of the directory; one duplicate among them costs a few", func(t *testing.T, s *service) {
		var list []string
		for i := range 128 {
			list = append(list, post("/Users", fmt.Sprint(i), fmt.Sprintf(`{"userName":"u%d"}`, i)))
		}
		s.bulk(0, list...)
		if s.creates != 1 || len(s.kept[User]) != 128 {
			t.Fatal(s.creates, "calls", len(s.kept[User]), "users")
		}
		s.creates = 0
		for i := range list {
			if i != 77 {
				list[i] = post("/Users", fmt.Sprint(i), fmt.Sprintf(`{"userName":"v%d"}`, i))
			}
		}
		o := s.bulk(0, list...)
		is(t, o, "Operations.77.status", `"409"`)
		if s.creates > 20 || len(s.kept[User]) != 255 {
			t.Fatal(s.creates, "calls", len(s.kept[User]), "users")
		}
	}},
	{"§3.7", "one call of the directory creates no more than it takes", func(t *testing.T, s *service) {
		s.server.config.MaxBatch = 2
		if got := statuses(s.bulk(0, post("/Users", "a", `{"userName":"a"}`), post("/Users", "b", `{"userName":"b"}`), post("/Users", "c", `{"userName":"c"}`))); got != "201 201 201" || s.creates != 2 {
			t.Fatal(got, s.creates)
		}
	}},
	{"§3.7", "where the directory itself fails, nothing is tried again", func(t *testing.T, s *service) {
		s.fail = errors.New("the database is gone")
		o := s.bulk(0, post("/Users", "a", `{"userName":"a"}`), post("/Users", "b", `{"userName":"b"}`), post("/Users", "c", `{"userName":"c"}`))
		if got := statuses(o); got != "500 500 500" || s.creates != 1 {
			t.Fatal(got, s.creates)
		}
	}},
}
