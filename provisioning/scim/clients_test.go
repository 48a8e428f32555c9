package scim

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// TestEntra follows what Microsoft Entra's provisioning service sends, in the order
// of a provisioning cycle, written from its public documentation.
func TestEntra(t *testing.T) {
	s := serve(t, Config{})
	is(t, s.want(200, "GET", `/Users?filter=userName+eq+%22non-existent%22`, ""), "totalResults", `0`)
	o := s.want(201, "POST", "/Users", `{"schemas":["`+UserSchema+`","`+EnterpriseSchema+`"],"externalId":"0a21f0f2-8d2a-4f8e","userName":"grace@contoso.example","active":true,
		"addresses":null,"displayName":"Grace","emails":[{"primary":true,"type":"work","value":"grace@contoso.example"}],"meta":{"resourceType":"User"},
		"name":{"formatted":"Grace H","familyName":"H","givenName":"Grace"},"roles":[]}`)
	user := "/Users/" + o["id"].(string)
	is(t, s.want(200, "GET", "/Users?filter="+url.QueryEscape(`externalId eq "0a21f0f2-8d2a-4f8e"`), ""), "Resources.0.userName", `"grace@contoso.example"`)

	o = s.patch(user, `{"op":"Replace","path":"emails[type eq \"work\"].value","value":"g@contoso.example"},{"op":"Replace","path":"name.familyName","value":"Hopper"}`)
	is(t, o, "emails.0.value", `"g@contoso.example"`)
	o = s.patch(user, `{"op":"Add","path":"emails[type eq \"other\"].value","value":"g@home.example"},{"op":"Add","path":"phoneNumbers[type eq \"mobile\"].value","value":"+1 555"},
		{"op":"Add","path":"addresses[type eq \"work\"].country","value":"US"},{"op":"Add","path":"roles[primary eq \"True\"].value","value":"admin"}`)
	is(t, o, "emails.1", `{"type":"other","value":"g@home.example"}`)
	is(t, o, "phoneNumbers", `[{"type":"mobile","value":"+1 555"}]`)
	is(t, o, "addresses", `[{"country":"US","type":"work"}]`)
	is(t, o, "roles", `[{"primary":true,"value":"admin"}]`)

	o = s.patch(user, `{"op":"Replace","value":{"displayName":"Grace Hopper","name.givenName":"G","emails[type eq \"home\"].value":"g@sea.example","`+EnterpriseSchema+`:department":"Navy","`+EnterpriseSchema+`":{"division":"V"},"shoeSize":"37"}}`)
	is(t, o, "name.givenName", `"G"`)
	is(t, o, "emails.2.value", `"g@sea.example"`)
	if e := o[EnterpriseSchema].(Object); e["department"] != "Navy" || e["division"] != "V" {
		t.Fatal(e)
	}
	o = s.patch(user, `{"op":"Add","path":"`+EnterpriseSchema+`:manager","value":"boss-1"}`)
	if m := o[EnterpriseSchema].(Object)["manager"]; at(m, "value") != "boss-1" {
		t.Fatal(m)
	}
	s.patch(user, `{"op":"Remove","path":"`+EnterpriseSchema+`:manager"}`)

	is(t, s.patch(user, `{"op":"Replace","path":"active","value":"False"}`), "active", `false`)
	is(t, s.patch(user, `{"op":"Add","path":"active","value":"True"}`), "active", `true`)
	is(t, s.patch(user, `{"op":"replace","value":{"active":"false"}}`), "active", `false`)

	id := strings.TrimPrefix(user, "/Users/")
	g := s.want(201, "POST", "/Groups", `{"schemas":["`+GroupSchema+`"],"externalId":"8aa1a0c0","displayName":"Admirals","members":[],"meta":{"resourceType":"Group"}}`)
	group := "/Groups/" + g["id"].(string)
	is(t, s.want(200, "GET", "/Groups?excludedAttributes=members&filter="+url.QueryEscape(`displayName eq "Admirals"`), ""), "totalResults", `1`)
	s.want(204, "PATCH", group, patchBody(`{"op":"Add","path":"members","value":[{"$ref":null,"value":"`+id+`"}]}`))
	is(t, s.want(200, "GET", group+"?excludedAttributes=members", ""), "members", `null`)
	is(t, s.want(200, "GET", "/Groups?excludedAttributes=members&filter="+url.QueryEscape(fmt.Sprintf(`id eq "%s" and members eq "%s"`, g["id"], id)), ""), "totalResults", `1`)
	s.want(204, "PATCH", group, patchBody(`{"op":"Replace","path":"displayName","value":"Rear Admirals"}`))
	s.want(204, "PATCH", group, patchBody(`{"op":"Remove","path":"members","value":[{"$ref":null,"value":"`+id+`"}]}`))
	is(t, s.want(200, "GET", group, ""), "members", `null`)
	s.want(204, "DELETE", group, "")
	s.want(204, "DELETE", user, "")
}

// TestOkta follows what Okta's provisioning sends, written from its public
// documentation.
func TestOkta(t *testing.T) {
	s := serve(t, Config{})
	okta := []string{"Content-Type", "application/scim+json; charset=utf-8", "Accept", "application/scim+json", "User-Agent", "Okta SCIM Client 1.0.0"}
	is(t, s.want(200, "GET", `/Users?filter=userName%20eq%20%22kay%40okta.example%22&startIndex=1&count=100`, "", okta...), "totalResults", `0`)
	o := s.want(201, "POST", "/Users", `{"schemas":["`+UserSchema+`"],"userName":"kay@okta.example","name":{"givenName":"Kay","familyName":"M"},"emails":[{"primary":true,"value":"kay@okta.example","type":"work"}],
		"displayName":"Kay M","locale":"en-US","externalId":"00u1","groups":[],"password":"1mz050nq","active":true}`, okta...)
	is(t, o, "password", `null`)
	user, id := "/Users/"+o["id"].(string), o["id"].(string)
	s.refused(409, "uniqueness", "POST", "/Users", `{"schemas":["`+UserSchema+`"],"userName":"kay@okta.example"}`, okta...)
	o["name"].(Object)["familyName"] = "McNulty"
	body := fmt.Sprintf(`{"schemas":[%q],"id":%q,"userName":"kay@okta.example","name":{"givenName":"Kay","middleName":"","familyName":"McNulty"},"emails":[{"primary":true,"value":"kay@okta.example","type":"work","display":"kay"}],"active":true,"groups":[],"meta":{"resourceType":"User"}}`, UserSchema, id)
	o = s.want(200, "PUT", user, body, okta...)
	is(t, o, "name", `{"familyName":"McNulty","givenName":"Kay"}`)
	is(t, s.want(200, "PATCH", user, patchBody(`{"op":"replace","value":{"active":false}}`), okta...), "active", `false`)
	is(t, s.want(200, "PATCH", user, patchBody(`{"op":"replace","value":{"active":true}}`), okta...), "active", `true`)
	is(t, s.want(200, "PATCH", user, patchBody(`{"op":"replace","value":{"password":"new"}}`), okta...), "password", `null`)

	g := s.want(201, "POST", "/Groups", `{"schemas":["`+GroupSchema+`"],"displayName":"ENIAC","members":[]}`, okta...)["id"].(string)
	group := "/Groups/" + g
	is(t, s.want(200, "GET", "/Groups?startIndex=1&count=100", "", okta...), "Resources.0.displayName", `"ENIAC"`)
	s.want(204, "PATCH", group, patchBody(`{"op":"replace","value":{"id":"`+g+`","displayName":"ENIAC team"}}`), okta...)
	s.want(204, "PATCH", group, patchBody(`{"op":"add","path":"members","value":[{"value":"`+id+`","display":"kay@okta.example"}]}`), okta...)
	o = s.want(200, "GET", group, "", okta...)
	is(t, o, "displayName", `"ENIAC team"`)
	is(t, o, "members.0.value", `"`+id+`"`)
	s.want(204, "PATCH", group, patchBody(`{"op":"remove","path":"members[value eq \"`+id+`\"]"},{"op":"add","path":"members","value":[{"value":"`+s.user("betty")+`"}]}`), okta...)
	is(t, s.want(200, "GET", group, "", okta...), "members.0.display", `null`)
	o = s.want(200, "PUT", group, `{"schemas":["`+GroupSchema+`"],"id":"`+g+`","displayName":"ENIAC","members":[{"value":"`+id+`","display":"kay"}]}`, okta...)
	is(t, o, "members.0.value", `"`+id+`"`)
	s.want(204, "DELETE", group, "", okta...)
}

// TestLargeGroups has a group of many members changed and asked about without its
// members being read.
func TestLargeGroups(t *testing.T) {
	s := serve(t, Config{})
	const many = 3 * memberPage
	drafts := make([]Draft, many+1)
	for i := range drafts {
		drafts[i].Attributes = Object{"userName": fmt.Sprintf("u%d", i)}
	}
	ids := []string{}
	for i := range drafts { // one by one: memory compares each with all others
		r := &Resource{Kind: User, ID: fmt.Sprintf("user-%05d", i), Attributes: drafts[i].Attributes}
		s.put(r)
		ids = append(ids, r.ID)
	}
	group := "/Groups/" + s.group("all", ids[:many]...)
	s.read = 0
	last := ids[many]
	s.want(204, "PATCH", group, patchBody(`{"op":"add","path":"members","value":[{"value":"`+last+`"}]}`))
	s.want(204, "PATCH", group, patchBody(`{"op":"remove","path":"members[value eq \"`+last+`\"]"}`))
	s.want(204, "PATCH", group, patchBody(`{"op":"remove","path":"members","value":[{"value":"`+last+`"}]},{"op":"replace","path":"displayName","value":"everybody"}`))
	s.want(200, "GET", group+"?excludedAttributes=members", "")
	s.want(200, "GET", "/Groups?excludedAttributes=members", "")
	for _, filter := range []string{`members eq "` + ids[7] + `"`, `displayName eq "everybody" and members[value eq "` + ids[7] + `"]`, `not (members.value eq "` + last + `")`, `members pr and displayName pr`} {
		s.want(200, "GET", "/Groups?attributes=displayName&filter="+url.QueryEscape(filter), "")
	}
	if s.read > memberPage { // members pr looks at the first page
		t.Fatalf("%d members were read", s.read)
	}
	o := s.want(200, "GET", group+"?attributes=members.value", "")
	list := o["members"].([]any)
	got := []string{}
	for _, m := range list {
		got = append(got, m.(Object)["value"].(string))
	}
	if !slices.Equal(got, ids[:many]) || len(list[0].(Object)) != 1 {
		t.Fatalf("%d members, the first of them %v", len(got), list[0])
	}
}
