// Package examples holds schemas with relationships and assertions. Each YAML
// file here is a validation file: `pemba schema test FILE` runs it, and so does
// this package's test.
package examples

import _ "embed"

// Quickstart is the schema of `pemba quickstart`.
//
//go:embed quickstart.zed
var Quickstart string
