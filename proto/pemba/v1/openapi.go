package pembav1

import _ "embed" // for the document

// OpenAPI is the OpenAPI 2.0 document of this API over HTTP, in JSON.
//
//go:embed openapi.swagger.json
var OpenAPI []byte
