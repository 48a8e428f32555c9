package tuple

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
)

// maxJSONDepth bounds how deeply a context may nest.
const maxJSONDepth = 64

// CanonicalJSON returns a JSON object in the one form in which Pemba stores it:
// keys sorted, no white space, numbers as written; the empty text for an object
// without fields. The empty text is an empty object. Of a key given twice the
// last value stays. Errors are of type *[Error].
func CanonicalJSON(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := checkDepth(text); err != nil {
		return "", err
	}
	var fields map[string]any
	if err := d.Decode(&fields); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return "", invalid("caveat context", text, "is not a JSON object; write one such as {\"day\":\"monday\"}")
		}
		return "", invalid("caveat context", text, "is not JSON: %v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return "", invalid("caveat context", text, "has something after the JSON object")
	}
	return EncodeJSON(fields)
}

// EncodeJSON prints fields in the form of [CanonicalJSON].
func EncodeJSON(fields map[string]any) (string, error) {
	if len(fields) == 0 {
		return "", nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(fields); err != nil {
		return "", invalid("caveat context", "", "cannot be written as JSON: %v", err)
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// checkDepth refuses nesting that would cost a deep recursion to read.
func checkDepth(text string) error {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxJSONDepth {
				return invalid("caveat context", text, "nests deeper than %d levels", maxJSONDepth)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}
