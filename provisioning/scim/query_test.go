package scim

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// filtered are the user names, in order, that a filter finds.
func (s *service) filtered(endpoint, filter string) []string {
	s.t.Helper()
	o := s.want(200, "GET", endpoint+"?filter="+url.QueryEscape(filter), "")
	names := []string{}
	list, _ := o["Resources"].([]any)
	for _, r := range list {
		name, ok := r.(Object)["userName"].(string)
		if !ok {
			name, _ = r.(Object)["displayName"].(string)
		}
		names = append(names, name)
	}
	is(s.t, o, "totalResults", fmt.Sprint(len(names)))
	slices.Sort(names)
	return names
}

// crowd makes users and a group to filter.
func crowd(s *service) (ids []string, group string) {
	ids = []string{
		s.user("ada", `,"externalId":"X-1","title":"Countess","active":true,"emails":[{"value":"ada@work.example","type":"work","primary":true},{"value":"ada@home.example","type":"home"}],"name":{"familyName":"Lovelace"}`),
		s.user("bob", `,"externalId":"x-2","active":false,"emails":[{"value":"bob@home.example","type":"home"}],"`+EnterpriseSchema+`":{"department":"R&D","manager":"user-0001"}`),
		s.user("Cy", `,"title":"Say \"hi\""`),
	}
	return ids, s.group("Friends", ids[0], ids[2])
}

var queryRules = []rule{
	{"§3.4.2.2", "every operator, on every type", func(t *testing.T, s *service) {
		ids, group := crowd(s)
		for filter, want := range map[string]string{
			`userName eq "ADA"`: "ada", `userName ne "ada"`: "Cy bob", `userName co "D"`: "ada", `userName sw "c"`: "Cy", `userName ew "OB"`: "bob",
			`userName gt "bob"`: "Cy", `userName ge "BOB"`: "Cy bob", `userName lt "bob"`: "ada", `userName le "bob"`: "ada bob",
			`title pr`: "Cy ada", `not (title pr)`: "bob", `title eq null`: "bob", `title ne null`: "Cy ada", `title ne "Countess"`: "Cy bob",
			`title eq "say \"hi\""`: "Cy", `title eq "\u0043ountess"`: "ada",
			`externalId eq "X-1"`: "ada", `externalId eq "x-1"`: "", `externalId sw "x"`: "bob",
			`active eq true`: "ada", `active eq FALSE`: "bob", `active ne true`: "Cy bob", `active eq "False"`: "bob",
			`id eq "` + ids[1] + `"`: "bob", `id eq "nobody"`: "",
			`emails eq "bob@home.example"`: "bob", `emails co "home"`: "ada bob", `emails.type eq "work"`: "ada", `emails pr`: "ada bob",
			`emails[type eq "work" and value co "@home"]`: "", `emails.type eq "work" and emails.value co "@home"`: "ada",
			`emails[type eq "home" and not (value sw "bob")]`: "ada", `emails[primary eq true]`: "ada", `emails ne "bob@home.example"`: "Cy ada",
			`meta.created eq "2026-01-02T04:04:05+01:00"`: "Cy ada bob", `meta.lastModified gt "2026-01-02T03:04:05Z"`: "", `meta.resourceType eq "User"`: "Cy ada bob",
			`meta.created lt "2027-01-01T00:00:00Z" and meta.created ge "2026-01-02T03:04:05Z"`: "Cy ada bob",
			`schemas eq "` + EnterpriseSchema + `"`:                                             "bob", EnterpriseSchema + ` pr`: "bob",
			EnterpriseSchema + `:department eq "r&d"`: "bob", strings.ToUpper(EnterpriseSchema) + `:MANAGER.value eq "user-0001"`: "bob",
			UserSchema + `:userName eq "ada"`: "ada", UserSchema + `:name.familyName sw "love"`: "ada",
			`groups.value eq "` + group + `"`: "Cy ada", `groups pr`: "Cy ada", `groups[display eq "friends"]`: "Cy ada",
		} {
			if got := strings.Join(s.filtered("/Users", filter), " "); got != want {
				t.Errorf("%s found %q, want %q", filter, got, want)
			}
		}
	}},
	{"§3.4.2.2", "and binds more tightly than or, parentheses most; words and names are in any case", func(t *testing.T, s *service) {
		crowd(s)
		for filter, want := range map[string]string{
			`userName eq "bob" or userName eq "ada" and title eq "none"`:               "bob",
			`(userName eq "bob" or userName eq "ada") and title pr`:                    "ada",
			`USERNAME EQ "bob" OR username Eq "ADA" AND NOT (title Pr)`:                "bob",
			`not (userName eq "bob" or userName eq "ada")`:                             "Cy",
			`userName eq "ada" or userName eq "bob" or externalId eq "X-1"`:            "ada bob",
			"userName\tpr   and  title pr":                                             "Cy ada",
			`title pr and userName eq "bob"`:                                           "",
			`((userName eq "ada"))`:                                                    "ada",
			`userName eq "ada" and active eq false or userName eq "bob" and emails pr`: "bob",
		} {
			if got := strings.Join(s.filtered("/Users", filter), " "); got != want {
				t.Errorf("%s found %q, want %q", filter, got, want)
			}
		}
	}},
	{"§3.4.2.2", "groups are found by name and by member", func(t *testing.T, s *service) {
		ids, group := crowd(s)
		s.group("Others", ids[1], group)
		for filter, want := range map[string]string{
			`displayName eq "FRIENDS"`: "Friends", `members eq "` + ids[0] + `"`: "Friends", `members.value eq "` + ids[1] + `"`: "Others",
			`members[value eq "` + group + `"]`: "Others", `members[type eq "Group"]`: "Others", `members.type eq "user"`: "Friends Others", `members pr`: "Friends Others",
			`id eq "` + group + `" and members eq "` + ids[0] + `"`: "Friends", `id eq "` + group + `" and members eq "` + ids[1] + `"`: "",
			`not (members eq "` + ids[0] + `")`: "Others", `displayName co "r" and members eq "` + ids[1] + `"`: "Others",
			`members.value sw "user-0001"`: "Friends", `externalId eq "none"`: "",
		} {
			if got := strings.Join(s.filtered("/Groups", filter), " "); got != want {
				t.Errorf("%s found %q, want %q", filter, got, want)
			}
		}
	}},
	{"§3.4.2.2", "what is no filter is 400 invalidFilter and names the column", func(t *testing.T, s *service) {
		for filter, column := range map[string]int{
			`userName`: 9, `userName eq`: 12, `userName eq ada`: 13, `userName is "a"`: 10, `userName eq "a`: 13, `(userName pr`: 13, `userName pr)`: 12,
			`not userName pr`: 5, `userName pr and`: 16, `shoeSize eq "a"`: 1, `name.shoe pr`: 1, `name eq "a"`: 6, `emails[type eq "work"`: 22, `userName[value eq "a"]`: 1,
			`emails[shoe eq "a"]`: 8, `active gt true`: 8, `active eq "perhaps"`: 11, `userName eq 1`: 13, `userName eq true`: 13, `meta.created gt "soon"`: 17,
			`userName gt null`: 10, `emails[type eq "a" and x[b pr]]`: 24, `emails[addresses[type pr]]`: 8, `& pr`: 1, `userName eq "\x"`: 13, `urn:x:y pr`: 1, EnterpriseSchema + ` eq "x"`: 60,
			`x509Certificates gt "a"`: 18, `emails.value[type pr]`: 1, `emails[type[value pr]]`: 12, `userName eq null null`: 18, strings.Repeat("(", 40): 33,
		} {
			detail := s.refused(400, "invalidFilter", "GET", "/Users?filter="+url.QueryEscape(filter), "")
			if !strings.Contains(detail, fmt.Sprintf("column %d of", column)) {
				t.Errorf("%s: %s; want column %d", filter, detail, column)
			}
		}
		s.refused(400, "invalidFilter", "POST", "/Users/.search", `{"filter":"`+strings.Repeat("a", 20<<10)+`"}`)
		s.refused(400, "invalidFilter", "POST", "/Users/.search", `{"filter":"title pr`+strings.Repeat(" or title pr", 600)+`"}`)
	}},
	{"§3.4.2.1", "a query of everything finds users and groups; what a kind lacks has no value there", func(t *testing.T, s *service) {
		crowd(s)
		for filter, want := range map[string]string{`meta.resourceType pr`: "Cy Friends ada bob", `members pr`: "Friends", `userName eq "ada" or displayName eq "friends"`: "Friends ada",
			`not (userName pr)`: "Friends", `emails[type eq "work"]`: "ada", `members[type eq "User"] or active eq false`: "Friends bob"} {
			if got := strings.Join(s.filtered("/", filter), " "); got != want {
				t.Errorf("%s found %q, want %q", filter, got, want)
			}
		}
		s.refused(400, "invalidFilter", "GET", "/?filter="+url.QueryEscape("shoeSize pr"), "")
		is(t, s.want(200, "GET", "/?startIndex=4&count=5", ""), "Resources.0.displayName", `"Friends"`)
		is(t, s.want(200, "POST", "/.search", `{"sortBy":"displayName"}`), "Resources.0.displayName", `"Friends"`)
	}},
	{"§3.4.2.3", "results are sorted, without regard to case; those without a value last, or first descending", func(t *testing.T, s *service) {
		ids, _ := crowd(s)
		a, b, c := ids[0], ids[1], ids[2]
		for query, want := range map[string][]string{
			"sortBy=userName": {a, b, c}, "sortBy=userName&sortOrder=descending": {c, b, a}, "sortBy=title": {a, c, b}, "sortBy=title&sortOrder=descending": {b, c, a},
			"sortBy=emails": {a, b, c}, "sortBy=emails.type": {b, a, c}, "sortBy=name": {a, b, c}, "sortBy=" + EnterpriseSchema + ":department": {b, a, c}, "sortBy=active": {b, a, c}, "sortBy=meta.created": {a, b, c},
			"sortBy=userName&startIndex=2&count=1": {b}, "sortBy=userName&startIndex=3&sortOrder=ascending": {c}, "sortBy=userName&startIndex=9": {}, "sortBy=id&sortOrder=descending&count=2": {c, b},
		} {
			o := s.want(200, "GET", "/Users?"+query, "")
			if got := found(o); !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", query, got, want)
			}
			is(t, o, "totalResults", `3`)
		}
		s.refused(400, "invalidValue", "GET", "/Users?sortBy=shoeSize", "")
		s.refused(400, "invalidValue", "GET", "/Users?sortBy=userName&sortOrder=sideways", "")
		s.refused(400, "tooMany", "GET", "/Users?sortBy=userName&startIndex=10001", "")
	}},
	{"§3.4.2.4", "pages cover a list exactly; indexes below one are one, counts below nought nought", func(t *testing.T, s *service) {
		for i := range 25 {
			s.user(fmt.Sprintf("u%02d", i), `,"active":`+fmt.Sprint(i%2 == 0))
		}
		for _, filter := range []string{"", "active eq true", `userName sw "u"`, `userName eq "u03" or userName eq "u04"`} {
			all := found(s.want(200, "GET", "/Users?count=1000&filter="+url.QueryEscape(filter), ""))
			var paged []string
			for start := 1; ; {
				o := s.want(200, "GET", fmt.Sprintf("/Users?startIndex=%d&count=4&filter=%s", start, url.QueryEscape(filter)), "")
				page := found(o)
				is(t, o, "totalResults", fmt.Sprint(len(all)))
				is(t, o, "itemsPerPage", fmt.Sprint(len(page)))
				is(t, o, "startIndex", fmt.Sprint(start))
				if len(page) == 0 {
					break
				}
				paged, start = append(paged, page...), start+len(page)
			}
			if !slices.Equal(all, paged) {
				t.Errorf("%q: pages have %v of %v", filter, paged, all)
			}
		}
		is(t, s.want(200, "GET", "/Users?startIndex=-3&count=2", ""), "startIndex", `1`)
		for _, count := range []string{"0", "-1"} {
			o := s.want(200, "GET", "/Users?count="+count, "")
			is(t, o, "totalResults", `25`)
			is(t, o, "Resources", `[]`)
		}
		is(t, s.want(200, "GET", "/Users?startIndex=99999999", ""), "itemsPerPage", `0`)
		s.refused(400, "invalidValue", "GET", "/Users?count=many", "")
		s.refused(400, "invalidValue", "GET", "/Users?startIndex=1.5", "")
	}},
	{"§3.4.2.4", "a page that is read again after a change is one of the list as it is then", func(t *testing.T, s *service) {
		for i := range 6 {
			s.user(fmt.Sprintf("u%d", i), `,"active":true`)
		}
		active := "&filter=" + url.QueryEscape("active eq true")
		for _, filter := range []string{"", active} {
			is(t, s.want(200, "GET", "/Users?startIndex=1&count=3"+filter, ""), "totalResults", `6`)
		}
		last := found(s.want(200, "GET", "/Users?startIndex=6", ""))[0]
		s.want(204, "DELETE", "/Users/"+last, "")
		for _, filter := range []string{"", active} {
			o := s.want(200, "GET", "/Users?startIndex=4&count=3"+filter, "")
			is(t, o, "totalResults", `5`)
			is(t, o, "itemsPerPage", `2`)
		}
	}},
	{"§3.4.3", "POST to .search asks the same as GET", func(t *testing.T, s *service) {
		ids, _ := crowd(s)
		o := s.want(200, "POST", "/Users/.search", `{"schemas":["`+searchMessage+`"],"attributes":["title"],"filter":"title pr","sortBy":"userName","sortOrder":"descending","startIndex":1,"count":1}`)
		is(t, o, "Resources.0.id", `"`+ids[2]+`"`)
		is(t, o, "Resources.0.meta", `null`)
		is(t, o, "totalResults", `2`)
		is(t, s.want(200, "POST", "/Groups/.search", `{"excludedAttributes":["members"]}`), "Resources.0.members", `null`)
		for _, body := range []string{`{"schemas":["x"]}`, `{"filter":1}`, `{"attributes":"id"}`, `{"attributes":[1]}`} {
			s.refused(400, "invalidSyntax", "POST", "/Users/.search", body)
		}
		s.refused(400, "invalidValue", "POST", "/Users/.search", `{"count":"1"}`)
	}},
}
