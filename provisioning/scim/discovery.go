package scim

import (
	"encoding/json"
	"net/http"
	"strings"
)

// discover answers with what the service is like (RFC 7644 §4): a list, or the one
// that rest names. Paging and sorting are ignored, and a filter is refused.
func (x *exchange) discover(list []Object, name string, rest []string) error {
	if x.r.URL.Query().Has("filter") {
		return problem(http.StatusForbidden, "", "filters are not possible here (RFC 7644 §4)")
	}
	if len(rest) == 1 {
		for _, o := range list {
			if s, _ := o[name].(string); strings.EqualFold(s, rest[0]) {
				x.answer(http.StatusOK, o)
				return nil
			}
		}
		return problem(http.StatusNotFound, "", "there is no %q", shorten(rest[0]))
	}
	resources := make([]any, len(list))
	for i, o := range list {
		resources[i] = o
	}
	x.answer(http.StatusOK, Object{"schemas": []any{listMessage}, "totalResults": len(list), "itemsPerPage": len(list), "startIndex": 1, "Resources": resources})
	return nil
}

// schemas are the schemas that the service knows (RFC 7643 §7).
func (x *exchange) schemas() []Object {
	var list []Object
	for _, t := range types {
		for _, s := range append([]*Schema{t.Schema}, t.Extensions...) {
			o := Object{}
			data, _ := json.Marshal(s) // of strings and booleans
			json.Unmarshal(data, &o)
			o["schemas"] = []any{schemaSchema}
			o["meta"] = Object{"resourceType": "Schema", "location": x.Base + "/Schemas/" + s.ID}
			list = append(list, o)
		}
	}
	return list
}

// resourceTypes are the kinds of resources (RFC 7643 §6).
func (x *exchange) resourceTypes() []Object {
	var list []Object
	for _, t := range types {
		extensions := []any{}
		for _, e := range t.Extensions {
			extensions = append(extensions, Object{"schema": e.ID, "required": false})
		}
		list = append(list, Object{
			"schemas": []any{resourceTypeSchema}, "id": string(t.Kind), "name": string(t.Kind), "description": t.Description,
			"endpoint": t.Endpoint, "schema": t.Schema.ID, "schemaExtensions": extensions,
			"meta": Object{"resourceType": "ResourceType", "location": x.Base + "/ResourceTypes/" + string(t.Kind)},
		})
	}
	return list
}

// serviceProviderConfig is what the service supports (RFC 7643 §5).
func (x *exchange) serviceProviderConfig() error {
	if x.r.URL.Query().Has("filter") {
		return problem(http.StatusForbidden, "", "filters are not possible here (RFC 7644 §4)")
	}
	yes, no := Object{"supported": true}, Object{"supported": false}
	o := Object{
		"schemas":        []any{configSchema},
		"patch":          yes,
		"bulk":           Object{"supported": true, "maxOperations": x.config.MaxOperations, "maxPayloadSize": x.config.MaxBody},
		"filter":         Object{"supported": true, "maxResults": x.config.MaxResults},
		"changePassword": no,
		"sort":           yes,
		"etag":           yes,
		"authenticationSchemes": []any{Object{
			"type": "oauthbearertoken", "name": "Bearer token", "primary": true,
			"description": "The header Authorization: Bearer TOKEN", "specUri": "https://www.rfc-editor.org/info/rfc6750",
		}},
		"meta": Object{"resourceType": "ServiceProviderConfig", "location": x.Base + "/ServiceProviderConfig"},
	}
	set(o, "documentationUri", x.config.Documentation)
	x.answer(http.StatusOK, o)
	return nil
}
