package scim

import (
	"fmt"
	"strings"
	"testing"
)

// TestTextHasNoControlCharacters: by whatever way it comes, of whatever attribute,
// what breaks out of a line or steers a terminal is refused; only postal addresses
// have lines.
func TestTextHasNoControlCharacters(t *testing.T) {
	s := serve(t, Config{})
	ada := s.user("ada")
	group := s.group("Readers")
	for _, c := range []string{`\n`, `\r`, `\t`, `\u0000`, `\u001b[31m`, `\u007f`, `\u009b31m`, `\u2028`, `\u2029`} {
		for _, name := range []string{"userName", "displayName", "externalId", "title", "nickName"} {
			detail := s.refused(400, invalidValue, "POST", "/Users", fmt.Sprintf(`{"userName":"x%s","title":"%s"}`, c, c))
			if !strings.Contains(detail, "control character U+") {
				t.Error(detail)
			}
			value := fmt.Sprintf(`"a%sb"`, c)
			s.refused(400, invalidValue, "PATCH", "/Users/"+ada, patchBody(fmt.Sprintf(`{"op":"replace","path":%q,"value":%s}`, name, value)))
			s.refused(400, invalidValue, "PATCH", "/Users/"+ada, patchBody(fmt.Sprintf(`{"op":"add","value":{%q:%s}}`, name, value)))
		}
		s.refused(400, invalidValue, "PUT", "/Users/"+ada, fmt.Sprintf(`{"userName":"ada","name":{"givenName":"A%s"}}`, c))
		s.refused(400, invalidValue, "PUT", "/Users/"+ada, fmt.Sprintf(`{"userName":"ada","emails":[{"value":"a@b%s"}]}`, c))
		s.refused(400, invalidValue, "POST", "/Groups", fmt.Sprintf(`{"displayName":"G%s"}`, c))
		s.refused(400, invalidValue, "PATCH", "/Groups/"+group, patchBody(fmt.Sprintf(`{"op":"replace","path":"displayName","value":"G%s"}`, c)))
	}
	s.patch("/Users/"+ada, `{"op":"add","path":"addresses","value":[{"streetAddress":"1 Way\nHouse","formatted":"1 Way\r\nTown","type":"work"}]}`)
	s.refused(400, invalidValue, "PATCH", "/Users/"+ada, patchBody(`{"op":"add","path":"addresses","value":[{"streetAddress":"\u001b[2J"}]}`))
	s.refused(400, invalidValue, "PATCH", "/Users/"+ada, patchBody(`{"op":"add","path":"addresses","value":[{"locality":"a\nb"}]}`))
	is(t, s.want(200, "GET", "/Users/"+ada, ""), "userName", `"ada"`)
	for _, fine := range []string{"Zoë  Müller-O'Neil", "김 철수", "👩‍💻", "שלום"} {
		s.user(fine)
	}
}

// TestABodyGivesANameOnce: of a name that is there twice in one object no reader
// would know which counts (RFC 8259 §4).
func TestABodyGivesANameOnce(t *testing.T) {
	s := serve(t, Config{})
	ada := s.user("ada")
	for _, body := range []string{
		`{"userName":"bob","userName":"eve"}`,
		`{"userName":"bob","user\u004eame":"eve"}`,
		`{"userName":"bob","name":{"givenName":"a","familyName":"b","givenName":"c"}}`,
		`{"userName":"bob","emails":[{"value":"a"},{"value":"b","type":"work","value":"c"}]}`,
		`{"userName":"bob","active":true,"x":[[{"a":{},"a":[]}]],"title":"t"}`,
	} {
		if detail := s.refused(400, invalidSyntax, "POST", "/Users", body); !strings.Contains(detail, "twice") {
			t.Errorf("%s: %s", body, detail)
		}
		s.refused(400, invalidSyntax, "PUT", "/Users/"+ada, body)
	}
	s.refused(400, invalidSyntax, "PATCH", "/Users/"+ada, patchBody(`{"op":"replace","path":"active","value":true,"value":false}`))
	s.refused(400, invalidSyntax, "POST", "/Bulk", `{"schemas":["`+bulkRequestMessage+`"],"Operations":[{"method":"POST","path":"/Users","bulkId":"1","data":{"userName":"a","userName":"b"}}]}`)
	s.want(201, "POST", "/Users", `{"userName":"bob","name":{"givenName":"value"},"emails":[{"value":"value"},{"value":"value2"}],"title":"userName"}`)
}
