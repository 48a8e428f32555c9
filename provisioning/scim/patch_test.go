package scim

import (
	"fmt"
	"testing"
)

// TestPatchRules has a test for each rule of RFC 7644 §3.5.2.
func TestPatchRules(t *testing.T) {
	for _, rule := range patchRules {
		t.Run(rule.section+" "+rule.promise, func(t *testing.T) { rule.test(t, serve(t, Config{})) })
	}
}

// full is what the user that patches work on has besides the name.
const full = `,"title":"Countess","name":{"givenName":"Ada","familyName":"L"},"emails":[{"value":"a@work","type":"work","primary":true},{"value":"a@home","type":"home"}],"` + EnterpriseSchema + `":{"department":"D","manager":{"value":"m"}}`

// patched tells what stands at a path of a user once operations were carried out.
type patched struct{ operations, path, want string }

func patchedTo(list ...patched) func(*testing.T, *service) {
	return func(t *testing.T, s *service) {
		for i, p := range list {
			id := s.user(fmt.Sprintf("ada%d", i), full)
			o := s.patch("/Users/"+id, p.operations)
			if p.path != "" {
				is(t, o, p.path, p.want)
			}
		}
	}
}

// refusedAs has operations refused, and nothing of them done.
func refusedAs(scimType string, list ...string) func(*testing.T, *service) {
	return func(t *testing.T, s *service) {
		id := s.user("ada", full)
		before := s.want(200, "GET", "/Users/"+id, "")
		for _, operations := range list {
			s.refused(400, scimType, "PATCH", "/Users/"+id, patchBody(`{"op":"replace","path":"nickName","value":"changed"},`+operations))
		}
		if after := s.want(200, "GET", "/Users/"+id, ""); !same(before, after) {
			t.Fatalf("was %v\nis %v", before, after)
		}
	}
}

var patchRules = []rule{
	{"§3.5.2", "operations are carried out in order", patchedTo(
		patched{`{"op":"add","path":"title","value":"A"},{"op":"replace","path":"title","value":"B"}`, "title", `"B"`},
		patched{`{"op":"remove","path":"title"},{"op":"add","path":"title","value":"C"}`, "title", `"C"`})},
	{"§3.5.2", "one that fails undoes all", refusedAs("invalidPath", `{"op":"add","path":"shoeSize","value":1}`, `{"op":"add","path":"name.shoe","value":1}`,
		`{"op":"add","path":"emails[type eq \"work\"].shoe","value":1}`, `{"op":"add","path":"title x","value":"1"}`, `{"op":"add","path":"[]","value":"1"}`, `{"op":"add","path":1,"value":"1"}`,
		`{"op":"add","path":"urn:x:y:title","value":"1"}`, `{"op":"add","path":"manager","value":"1"}`, `{"op":"replace","path":"name[givenName pr]","value":{}}`)},
	{"§3.5.2", "a body that is no PATCH is invalidSyntax", func(t *testing.T, s *service) {
		id := s.user("ada")
		for _, body := range []string{`{}`, `{"Operations":[]}`, `{"Operations":[1]}`, `{"Operations":[{"op":"move","path":"title"}]}`, `{"Operations":[{"path":"title"}]}`,
			`{"schemas":["` + UserSchema + `"],"Operations":[{"op":"remove","path":"title"}]}`, `{"Operations":[{"op":"add","value":"x"}]}`} {
			s.refused(400, "invalidSyntax", "PATCH", "/Users/"+id, body)
		}
		s.refused(404, "", "PATCH", "/Users/nobody", patchBody(`{"op":"remove","path":"title"}`))
	}},
	{"§3.5.2", "what makes a value primary makes the others not", patchedTo(
		patched{`{"op":"add","path":"emails","value":[{"value":"x","primary":true}]}`, "emails.0.primary", `false`},
		patched{`{"op":"replace","path":"emails[type eq \"home\"].primary","value":true}`, "emails.0.primary", `false`})},
	{"§3.5.2", "a filter in a path is judged like one of a query", refusedAs("invalidFilter", `{"op":"remove","path":"emails[type eq]"}`, `{"op":"remove","path":"emails[shoe pr]"}`, `{"op":"remove","path":"title[value pr]"}`, `{"op":"remove","path":"emails[type pr"}`)},
	{"§3.5.2.1", "add sets what is not there, replaces a single value, and joins the parts of a complex one", patchedTo(
		patched{`{"op":"add","path":"nickName","value":"A"}`, "nickName", `"A"`},
		patched{`{"op":"add","path":"title","value":"B"}`, "title", `"B"`},
		patched{`{"op":"add","path":"name","value":{"familyName":"X"}}`, "name", `{"familyName":"X","givenName":"Ada"}`},
		patched{`{"op":"add","path":"name.middleName","value":"M"}`, "name.middleName", `"M"`},
		patched{`{"op":"add","value":{"nickName":"A","name":{"familyName":"X"}}}`, "name.familyName", `"X"`},
	)},
	{"§3.5.2.1", "add appends to a list what it does not have", patchedTo(
		patched{`{"op":"add","path":"emails","value":[{"value":"x","type":"other"}]}`, "emails.2", `{"type":"other","value":"x"}`},
		patched{`{"op":"add","path":"emails","value":{"value":"x"}}`, "emails.2", `{"value":"x"}`},
		patched{`{"op":"add","path":"emails","value":[{"value":"a@home","type":"home"}]}`, "emails.2", `null`},
		patched{`{"op":"add","path":"emails[type eq \"home\"]","value":{"display":"H"}}`, "emails.1", `{"display":"H","type":"home","value":"a@home"}`},
		patched{`{"op":"add","path":"roles","value":["admin"]}`, "roles", `[{"value":"admin"}]`})},
	{"§3.5.2.1", "a PATCH that changes nothing makes no new version", func(t *testing.T, s *service) {
		id := s.user("ada", full)
		etag := s.send("GET", "/Users/"+id, "").Header().Get("ETag")
		s.want(200, "GET", "/Users/"+id, "")
		a := s.send("PATCH", "/Users/"+id, patchBody(`{"op":"add","path":"title","value":"Countess"},{"op":"add","path":"emails","value":{"value":"a@home","type":"home"}},{"op":"replace","path":"active","value":null}`))
		if a.Code != 200 || a.Header().Get("ETag") != etag {
			t.Fatal(a.Code, a.Header(), a.Body)
		}
	}},
	{"§3.5.2.2", "remove takes a value away, a part of it, all of a list, or those that a filter matches", patchedTo(
		patched{`{"op":"remove","path":"title"}`, "title", `null`},
		patched{`{"op":"remove","path":"name.givenName"}`, "name", `{"familyName":"L"}`},
		patched{`{"op":"remove","path":"name.givenName"},{"op":"remove","path":"name.familyName"}`, "name", `null`},
		patched{`{"op":"remove","path":"emails"}`, "emails", `null`},
		patched{`{"op":"remove","path":"emails[type eq \"work\" or value sw \"a@home\"]"}`, "emails", `null`},
		patched{`{"op":"remove","path":"emails[type eq \"work\"]"}`, "emails", `[{"type":"home","value":"a@home"}]`},
		patched{`{"op":"remove","path":"emails[type eq \"home\"].type"}`, "emails.1", `{"value":"a@home"}`},
		patched{`{"op":"remove","path":"emails[type eq \"none\"]"}`, "emails.1.value", `"a@home"`},
		patched{`{"op":"remove","path":"` + EnterpriseSchema + `"}`, "schemas", `["` + UserSchema + `"]`})},
	{"§3.5.2.2", "remove needs a path", refusedAs("noTarget", `{"op":"remove"}`, `{"op":"remove","value":{"title":"x"}}`)},
	{"§3.5.2.2", "what is required or read-only cannot be removed, nor changed", refusedAs("mutability", `{"op":"remove","path":"userName"}`, `{"op":"replace","path":"userName","value":null}`,
		`{"op":"remove","path":"id"}`, `{"op":"replace","path":"id","value":"x"}`, `{"op":"replace","value":{"id":"other"}}`, `{"op":"add","path":"groups","value":[{"value":"g"}]}`,
		`{"op":"add","path":"meta.version","value":"1"}`, `{"op":"replace","path":"`+EnterpriseSchema+`:manager.displayName","value":"1"}`)},
	{"§3.5.2.3", "replace sets single values and whole lists, adds what is not there, and leaves other parts alone", patchedTo(
		patched{`{"op":"replace","path":"title","value":"B"}`, "title", `"B"`},
		patched{`{"op":"replace","path":"nickName","value":"B"}`, "nickName", `"B"`},
		patched{`{"op":"replace","path":"emails","value":[{"value":"x"}]}`, "emails", `[{"value":"x"}]`},
		patched{`{"op":"replace","path":"emails","value":[]}`, "emails", `null`},
		patched{`{"op":"replace","path":"name","value":{"givenName":"X"}}`, "name", `{"familyName":"L","givenName":"X"}`},
		patched{`{"op":"replace","path":"name","value":{"givenName":null}}`, "name", `{"familyName":"L"}`},
		patched{`{"op":"replace","value":{"title":"B","emails":[{"value":"x"}]}}`, "emails", `[{"value":"x"}]`})},
	{"§3.5.2.3", "replace through a filter replaces every value that matches, or a part of each", patchedTo(
		patched{`{"op":"replace","path":"emails[type eq \"work\"]","value":{"value":"x","type":"other"}}`, "emails.0", `{"type":"other","value":"x"}`},
		patched{`{"op":"replace","path":"emails[type eq \"work\"].value","value":"x"}`, "emails.0", `{"primary":true,"type":"work","value":"x"}`},
		patched{`{"op":"replace","path":"emails[value sw \"a\"].display","value":"x"}`, "emails.1.display", `"x"`},
		patched{`{"op":"replace","path":"emails[type eq \"\"].value","value":"x"}`, "emails.2", `{"value":"x"}`},
		patched{`{"op":"replace","path":"emails.display","value":"x"}`, "emails.1.display", `"x"`})},
	{"§3.5.2.3", "a filter that matches nothing and describes nothing is noTarget", refusedAs("noTarget",
		`{"op":"replace","path":"emails[type co \"none\"].value","value":"x"}`, `{"op":"replace","path":"emails[type eq \"none\" or type eq \"x\"].value","value":"x"}`)},
	{"§3.5.2", "values of the wrong type are invalidValue", refusedAs("invalidValue", `{"op":"add","path":"title","value":{"a":"b"}}`, `{"op":"add","path":"title","value":[1]}`,
		`{"op":"add","path":"active","value":"perhaps"}`, `{"op":"replace","path":"emails","value":[{"value":1}]}`, `{"op":"add","path":"emails","value":[{"value":"x","primary":true},{"value":"y","primary":true}]}`)},
	{"§3.5.2", "members come and go by value, by filter and all at once; their parts are immutable", membersComeAndGo},
}

func membersComeAndGo(t *testing.T, s *service) {
	a, b, c := s.user("a"), s.user("b"), s.user("c")
	inner := s.group("inner")
	g := s.group("g", a, inner)
	group := "/Groups/" + g
	members := func(operations string, want ...string) {
		t.Helper()
		o := s.patch(group, operations)
		list, _ := o["members"].([]any)
		if len(list) != len(want) {
			t.Fatalf("%s: members %v, want %v", operations, list, want)
		}
		for i, id := range want { // groups come before users by their ids here
			is(t, o, fmt.Sprintf("members.%d.value", i), `"`+id+`"`)
		}
	}
	add := func(ids ...string) string {
		text := ""
		for _, id := range ids {
			text += fmt.Sprintf(`,{"value":%q}`, id)
		}
		return `{"op":"add","path":"members","value":[` + text[1:] + `]}`
	}
	members(add(a, b, b), inner, a, b)
	is(t, s.want(200, "GET", group, ""), "members.0", fmt.Sprintf(`{"$ref":"https://pemba.example/scim/v2/Groups/%s","display":"inner","type":"Group","value":"%s"}`, inner, inner))
	members(`{"op":"remove","path":"members[value eq \"`+b+`\"]"}`, inner, a)
	members(`{"op":"remove","path":"members[value eq \"`+b+`\"]"}`, inner, a)
	members(`{"op":"remove","path":"members","value":[{"value":"`+a+`"}]},`+add(c), inner, c)
	members(add(a)+`,{"op":"remove","path":"members[type eq \"User\"]"}`, inner)
	members(add(a)+`,{"op":"remove","path":"members[value eq \"`+inner+`\" and type eq \"User\"]"}`, inner, a)
	members(`{"op":"replace","path":"members","value":[{"value":"`+b+`","type":"User"}]}`, b)
	members(`{"op":"replace","value":{"members":[{"value":"`+c+`"}],"displayName":"g2"}}`, c)
	members(`{"op":"replace","path":"members[value eq \"`+c+`\"]","value":{"value":"`+a+`"}}`, a)
	members(`{"op":"add","path":"members[value eq \"`+b+`\"]","value":{}}`, a, b)
	members(`{"op":"remove","path":"members","value":[]}`, a, b)
	members(`{"op":"remove","path":"members"}`)
	members(add(a) + `,{"op":"remove","path":"members"},` + add(b) + `,{"op":"remove","path":"members","value":[{"value":"` + b + `"}]}`)
	s.refused(400, "mutability", "PATCH", group, patchBody(`{"op":"replace","path":"members[value eq \"x\"].value","value":"y"}`))
	s.refused(400, "mutability", "PATCH", group, patchBody(`{"op":"remove","path":"displayName"}`))
	s.refused(400, "noTarget", "PATCH", group, patchBody(`{"op":"add","path":"members[value sw \"x\"]","value":{}}`))
	s.refused(400, "invalidValue", "PATCH", group, patchBody(add("nobody")))
	if s.send("PATCH", group, patchBody(add(a))).Code != 204 {
		t.Fatal("a PATCH of a group answers without a body")
	}
	is(t, s.want(200, "PATCH", group+"?attributes=displayName", patchBody(add(a))), "displayName", `"g2"`)
}
