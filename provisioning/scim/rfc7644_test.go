package scim

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// TestRules has a test for each rule of RFC 7644 (and of RFC 7643 where it says how
// the former works), named by its section.
func TestRules(t *testing.T) {
	for _, rule := range slices.Concat(protocolRules, queryRules) {
		t.Run(rule.section+" "+rule.promise, func(t *testing.T) { rule.test(t, serve(t, Config{MaxBody: 64 << 10, MaxOperations: 20})) })
	}
}

type rule struct {
	section, promise string
	test             func(t *testing.T, s *service)
}

var protocolRules = []rule{
	{"§2", "without a token the answer is 401 in SCIM's form, and says which scheme", func(t *testing.T, s *service) {
		a := s.send("GET", "/Users", "", "Authorization", "")
		is(t, a.body, "status", `"401"`)
		is(t, a.body, "schemas", `["`+errorMessage+`"]`)
		if a.Code != 401 || !strings.HasPrefix(a.Header().Get("WWW-Authenticate"), "Bearer") {
			t.Fatal(a.Code, a.Header())
		}
	}},
	{"§3.1", "answers are application/scim+json, or application/json for who accepts only that", func(t *testing.T, s *service) {
		for accept, want := range map[string]string{"": "application/scim+json", "*/*": "application/scim+json",
			"application/scim+json, application/json": "application/scim+json", "application/json": "application/json"} {
			if got := s.send("GET", "/Users", "", "Accept", accept).Header().Get("Content-Type"); !strings.HasPrefix(got, want+";") {
				t.Errorf("Accept %q: %s", accept, got)
			}
		}
	}},
	{"§3.1", "bodies are application/scim+json or application/json, and nothing else", func(t *testing.T, s *service) {
		s.want(201, "POST", "/Users", `{"userName":"a"}`, "Content-Type", "application/json; charset=utf-8")
		s.refused(415, "", "POST", "/Users", `{"userName":"b"}`, "Content-Type", "text/xml")
		s.refused(415, "", "POST", "/Users", `{"userName":"b"}`, "Content-Encoding", "gzip")
	}},
	{"§3.2", "what is no endpoint is 404, and a method that an endpoint lacks 405 with those it has", func(t *testing.T, s *service) {
		s.refused(404, "", "GET", "/Printers", "")
		s.refused(404, "", "GET", "/Users/a/b", "")
		a := s.send("DELETE", "/Users", "")
		if a.Code != 405 || a.Header().Get("Allow") != "GET, POST" {
			t.Fatal(a.Code, a.Header())
		}
	}},
	{"§3.3", "POST answers 201 with Location, meta and ETag; the client's id is ignored", func(t *testing.T, s *service) {
		a := s.send("POST", "/Users", `{"schemas":["`+UserSchema+`"],"id":"mine","userName":"ada","meta":{"resourceType":"X"}}`)
		id := a.body["id"].(string)
		if a.Code != 201 || id == "mine" || a.Header().Get("Location") != "https://pemba.example/scim/v2/Users/"+id || a.Header().Get("ETag") != at(a.body, "meta.version") {
			t.Fatal(a.Code, a.Header(), a.body)
		}
		is(t, a.body, "meta.resourceType", `"User"`)
		is(t, a.body, "meta.created", `"2026-01-02T03:04:05.000Z"`)
		is(t, a.body, "meta.location", `"https://pemba.example/scim/v2/Users/`+id+`"`)
	}},
	{"§3.3", "a duplicate is 409 uniqueness", func(t *testing.T, s *service) {
		s.user("ada", `,"externalId":"x"`)
		s.refused(409, "uniqueness", "POST", "/Users", `{"userName":"ADA"}`)
		s.refused(409, "uniqueness", "POST", "/Users", `{"userName":"bob","externalId":"x"}`)
	}},
	{"§3.3", "what is required must be there, and of its type", func(t *testing.T, s *service) {
		for _, body := range []string{`{}`, `{"userName":""}`, `{"userName":" "}`, `{"userName":null}`, `{"userName":1}`, `{"userName":"a","active":"perhaps"}`,
			`{"userName":"a","name":"Ada"}`, `{"userName":"a","emails":[1]}`, `{"userName":"a","x509Certificates":[{"value":"%"}]}`,
			`{"userName":"a","emails":[{"value":"b","primary":true},{"value":"c","primary":true}]}`} {
			s.refused(400, "invalidValue", "POST", "/Users", body)
		}
		s.refused(400, "invalidValue", "POST", "/Groups", `{"members":[]}`)
		s.refused(400, "invalidValue", "POST", "/Groups", `{"displayName":"g","members":[{"display":"x"}]}`)
		s.refused(400, "invalidValue", "POST", "/Groups", `{"displayName":"g","members":[{"value":"x","type":"Robot"}]}`)
	}},
	{"§3.3", "names are in any case, and what is null or unknown is left out (RFC 7643 §2.1, §2.5)", func(t *testing.T, s *service) {
		o := s.want(201, "POST", "/Users", `{"USERNAME":"ada","Name":{"GIVENNAME":"Ada","shoe":"37"},"title":null,"emails":[],"shoeSize":37}`)
		is(t, o, "userName", `"ada"`)
		is(t, o, "name", `{"givenName":"Ada"}`)
		for _, name := range []string{"title", "emails", "shoeSize"} {
			is(t, o, name, `null`)
		}
		s.refused(400, "invalidSyntax", "POST", "/Users", `{"userName":"a","USERNAME":"b"}`)
	}},
	{"§3.3", "a body of another kind, or no JSON object, is refused", func(t *testing.T, s *service) {
		for _, body := range []string{`{"schemas":["` + GroupSchema + `"],"userName":"a"}`, `{"schemas":"x","userName":"a"}`, `[]`, `{`, `{"userName":"a"} x`,
			"{\"userName\":\"\xff\"}", `{"userName":"a","x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`} {
			s.refused(400, "invalidSyntax", "POST", "/Users", body)
		}
	}},
	{"§3.4.1", "GET answers the resource, HEAD its head, and 404 what does not exist", func(t *testing.T, s *service) {
		id := s.user("ada")
		is(t, s.want(200, "GET", "/Users/"+id, ""), "userName", `"ada"`)
		if a := s.send("HEAD", "/Users/"+id, ""); a.Code != 200 || a.Header().Get("ETag") == "" {
			t.Fatal(a.Code)
		}
		s.refused(404, "", "GET", "/Users/nobody", "")
		s.refused(404, "", "GET", "/Groups/"+id, "")
	}},
	{"§3.5.1", "PUT replaces everything that can be written; what is left out is cleared", func(t *testing.T, s *service) {
		id := s.user("ada", `,"title":"Countess","name":{"givenName":"Ada","familyName":"L"},"externalId":"x"`)
		o := s.want(200, "PUT", "/Users/"+id, `{"id":"other","userName":"ada.l","name":{"givenName":"A"}}`)
		is(t, o, "id", `"`+id+`"`)
		is(t, o, "userName", `"ada.l"`)
		is(t, o, "name", `{"givenName":"A"}`)
		is(t, o, "title", `null`)
		is(t, o, "externalId", `null`)
		s.refused(404, "", "PUT", "/Users/nobody", `{"userName":"x"}`)
		s.refused(400, "invalidValue", "PUT", "/Users/"+id, `{"title":"x"}`)
		s.user("bob")
		s.refused(409, "uniqueness", "PUT", "/Users/"+id, `{"userName":"bob"}`)
	}},
	{"§3.5.1", "a PUT that leaves active out brings nobody back who is suspended", func(t *testing.T, s *service) {
		id := s.user("ada", `,"active":false`)
		is(t, s.want(200, "PUT", "/Users/"+id, `{"userName":"ada"}`), "active", `false`)
		is(t, s.want(200, "PUT", "/Users/"+id, `{"userName":"ada","active":true}`), "active", `true`)
	}},
	{"§3.5.1", "a PUT of a group replaces its members", func(t *testing.T, s *service) {
		a, b := s.user("a"), s.user("b")
		g := s.group("g", a)
		o := s.want(200, "PUT", "/Groups/"+g, fmt.Sprintf(`{"displayName":"h","members":[{"value":%q}]}`, b))
		is(t, o, "members.0.value", `"`+b+`"`)
		is(t, o, "members.1", `null`)
		is(t, s.want(200, "PUT", "/Groups/"+g, `{"displayName":"h"}`), "members", `null`)
	}},
	{"§3.6", "DELETE answers 204, and after that 404 to everything; memberships go too", func(t *testing.T, s *service) {
		id := s.user("ada")
		g := s.group("g", id)
		if a := s.send("DELETE", "/Users/"+id, ""); a.Code != 204 || a.Body.Len() > 0 {
			t.Fatal(a.Code, a.Body)
		}
		for _, m := range []string{"GET", "DELETE"} {
			s.refused(404, "", m, "/Users/"+id, "")
		}
		is(t, s.want(200, "GET", "/Groups/"+g, ""), "members", `null`)
		is(t, s.want(200, "GET", "/Users?filter="+url.QueryEscape(`userName eq "ada"`), ""), "totalResults", `0`)
		s.user("ada") // the name is free again
	}},
	{"§3.9", "attributes asks for less, id and schemas always come", func(t *testing.T, s *service) {
		id := s.user("ada", `,"title":"C","name":{"givenName":"Ada","familyName":"L"},"`+EnterpriseSchema+`":{"department":"D","division":"V"}`)
		o := s.want(200, "GET", "/Users/"+id+"?attributes=name.GIVENNAME,"+EnterpriseSchema+":department", "")
		is(t, o, "name", `{"givenName":"Ada"}`)
		is(t, o, EnterpriseSchema+".x", `null`)
		if got := o[EnterpriseSchema].(Object); len(got) != 1 || got["department"] != "D" {
			t.Fatal(got)
		}
		is(t, o, "id", `"`+id+`"`)
		is(t, o, "userName", `"ada"`) // returned: always
		for _, name := range []string{"title", "meta"} {
			is(t, o, name, `null`)
		}
		is(t, o, "schemas.0", `"`+UserSchema+`"`)
		is(t, s.want(200, "PUT", "/Users/"+id+"?attributes=userName", `{"userName":"ada","title":"C"}`), "title", `null`)
	}},
	{"§3.9", "excludedAttributes leaves out what is not returned always", func(t *testing.T, s *service) {
		id := s.user("ada", `,"title":"C","emails":[{"value":"a@b","type":"work"}]`)
		o := s.want(200, "GET", "/Users/"+id+"?excludedAttributes=id,title,meta,emails.type", "")
		is(t, o, "id", `"`+id+`"`)
		is(t, o, "title", `null`)
		is(t, o, "meta", `null`)
		is(t, o, "emails", `[{"value":"a@b"}]`)
		s.refused(400, "invalidValue", "GET", "/Users?attributes=id&excludedAttributes=id", "")
	}},
	{"§3.9", "the groups of a user come when asked for", func(t *testing.T, s *service) {
		id := s.user("ada")
		g := s.group("g", id)
		is(t, s.want(200, "GET", "/Users/"+id, ""), "groups", `null`)
		is(t, s.want(200, "GET", "/Users/"+id+"?attributes=groups", ""), "groups",
			`[{"$ref":"https://pemba.example/scim/v2/Groups/`+g+`","display":"g","type":"direct","value":"`+g+`"}]`)
	}},
	{"§3.11", "/Me is 501 where a caller is no user, and else that user", func(t *testing.T, s *service) {
		s.refused(501, "", "GET", "/Me", "")
		s.refused(501, "", "PATCH", "/Me", "{}")
		s.me = s.user("ada")
		is(t, s.want(200, "GET", "/Me", ""), "userName", `"ada"`)
		is(t, s.want(200, "PATCH", "/Me", patchBody(`{"op":"add","path":"title","value":"C"}`)), "title", `"C"`)
	}},
	{"§3.12", "a body that is too large is 413", func(t *testing.T, s *service) {
		s.refused(413, "", "POST", "/Users", `{"userName":"`+strings.Repeat("a", 70<<10)+`"}`)
	}},
	{"§3.12", "an error inside the service is 500 and tells nothing of it", func(t *testing.T, s *service) {
		s.fail = fmt.Errorf("password of the database is hunter2")
		if detail := s.refused(500, "", "POST", "/Users", `{"userName":"a"}`); strings.Contains(detail, "hunter2") {
			t.Fatal(detail)
		}
	}},
	{"§3.14", "If-None-Match answers 304 for the version that the client has", func(t *testing.T, s *service) {
		id := s.user("ada")
		etag := s.send("GET", "/Users/"+id, "").Header().Get("ETag")
		if a := s.send("GET", "/Users/"+id, "", "If-None-Match", `W/"zzz", `+etag); a.Code != 304 || a.Body.Len() > 0 {
			t.Fatal(a.Code)
		}
		s.patch("/Users/"+id, `{"op":"add","path":"title","value":"C"}`)
		s.want(200, "GET", "/Users/"+id, "", "If-None-Match", etag)
	}},
	{"§3.14", "If-Match lets a change through only of that version, else 412", func(t *testing.T, s *service) {
		id := s.user("ada")
		old := s.send("GET", "/Users/"+id, "").Header().Get("ETag")
		change := patchBody(`{"op":"add","path":"title","value":"C"}`)
		s.want(200, "PATCH", "/Users/"+id, change, "If-Match", old)
		s.refused(412, "", "PATCH", "/Users/"+id, change, "If-Match", old)
		s.refused(412, "", "PUT", "/Users/"+id, `{"userName":"x"}`, "If-Match", old)
		s.refused(412, "", "DELETE", "/Users/"+id, "", "If-Match", old)
		s.want(200, "PUT", "/Users/"+id, `{"userName":"y"}`, "If-Match", "*")
		s.want(204, "DELETE", "/Users/"+id, "", "If-Match", s.send("GET", "/Users/"+id, "").Header().Get("ETag"))
	}},
	{"§3.14", "a change that another one overtook is 412 with If-Match, and judged anew without", func(t *testing.T, s *service) {
		id := s.user("ada")
		etag := s.send("GET", "/Users/"+id, "").Header().Get("ETag")
		once := func(m *memory) {
			m.meddle = nil
			m.Update(t.Context(), User, id, Change{Attributes: Object{"userName": "ada", "nickName": "A"}})
		}
		s.meddle = once
		s.refused(412, "", "PATCH", "/Users/"+id, patchBody(`{"op":"add","path":"title","value":"C"}`), "If-Match", etag)
		s.meddle = once
		o := s.want(200, "PATCH", "/Users/"+id, patchBody(`{"op":"add","path":"title","value":"C"}`))
		is(t, o, "title", `"C"`)
		is(t, o, "nickName", `"A"`)
	}},
	{"§4", "the service tells its configuration, resource types and schemas; a filter on them is 403", func(t *testing.T, s *service) {
		o := s.want(200, "GET", "/ServiceProviderConfig", "")
		for _, what := range []string{"patch", "bulk", "filter", "sort", "etag"} {
			is(t, o, what+".supported", `true`)
		}
		is(t, o, "changePassword.supported", `false`)
		is(t, o, "bulk.maxOperations", `20`)
		is(t, o, "bulk.maxPayloadSize", `65536`)
		is(t, o, "authenticationSchemes.0.type", `"oauthbearertoken"`)
		is(t, s.want(200, "GET", "/ResourceTypes", ""), "totalResults", `2`)
		is(t, s.want(200, "GET", "/ResourceTypes/User", ""), "schemaExtensions.0.schema", `"`+EnterpriseSchema+`"`)
		is(t, s.want(200, "GET", "/Schemas?startIndex=2&count=1", ""), "totalResults", `3`)
		is(t, s.want(200, "GET", "/Schemas/"+strings.ToLower(GroupSchema), ""), "name", `"Group"`)
		s.refused(404, "", "GET", "/Schemas/urn:none", "")
		for _, path := range []string{"/Schemas", "/ResourceTypes", "/ServiceProviderConfig"} {
			s.refused(403, "", "GET", path+"?filter=x", "")
			s.refused(405, "", "POST", path, "{}")
		}
	}},
	{"§7.6 and RFC 7643 §9.2", "a password is accepted, and never kept, told or asked for", func(t *testing.T, s *service) {
		a := s.send("POST", "/Users?attributes=password,userName", `{"userName":"ada","password":"hunter2"}`)
		id := a.body["id"].(string)
		s.want(200, "PUT", "/Users/"+id, `{"userName":"ada","password":"hunter2"}`)
		s.patch("/Users/"+id, `{"op":"replace","path":"password","value":"hunter2"},{"op":"replace","value":{"password":"hunter2"}},{"op":"remove","path":"password"}`)
		if kept := fmt.Sprint(*s.kept[User][id]); a.Code != 201 || strings.Contains(kept+a.Body.String(), "hunter2") {
			t.Fatal(kept, a.Body)
		}
		s.refused(400, "invalidFilter", "GET", "/Users?filter="+url.QueryEscape(`password sw "h"`), "")
		s.refused(400, "invalidValue", "GET", "/Users?sortBy=password", "")
		s.refused(400, "invalidValue", "POST", "/Users", `{"userName":"b","password":1}`)
	}},
}
