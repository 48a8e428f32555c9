package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"cel.dev/cel-go/common/types/ref"
)

// ContextLimits bounds a caveat context.
type ContextLimits struct {
	// Bytes is the longest JSON text; FromMap counts keys, strings and eight
	// bytes for any other value.
	Bytes int
	// Depth is how deep lists and objects nest; the context itself is the first
	// level.
	Depth int
}

// DefaultContextLimits is what [ParseContext] and [ContextFromMap] enforce.
var DefaultContextLimits = ContextLimits{Bytes: 64 << 10, Depth: 32}

// Context is what a request tells the caveats: named values. It is parsed once
// and serves every caveat the request meets, from any goroutine; a value is
// converted when the first caveat needs it, and remembered. The zero Context is
// empty.
type Context struct {
	fields map[string]*contextField
}

// Len is the number of fields.
func (c Context) Len() int { return len(c.fields) }

// Without returns c without the fields of those names.
func (c Context) Without(names []string) Context {
	out := Context{fields: make(map[string]*contextField, len(c.fields))}
	for name, f := range c.fields {
		if !slices.Contains(names, name) {
			out.fields[name] = f
		}
	}
	return out
}

// contextField is one value and the CEL values made of it so far.
type contextField struct {
	raw       any // as [decodeContext] makes it
	converted atomic.Pointer[conversion]
}

// conversion is a value of one type, in a list of those for the other types.
// Caveats rarely disagree on the type of a field, so the list is short.
type conversion struct {
	typ  string
	val  ref.Val
	err  *fieldError
	next *conversion
}

// as returns the field as a value of type t. Concurrent first calls may both
// convert; either result is as good.
func (f *contextField) as(t *paramType) (ref.Val, *fieldError) {
	head := f.converted.Load()
	for c := head; c != nil; c = c.next {
		if c.typ == t.name {
			return c.val, c.err
		}
	}
	val, err := t.value(f.raw)
	f.converted.CompareAndSwap(head, &conversion{typ: t.name, val: val, err: err, next: head})
	return val, err
}

// ParseContext reads a request's context, a JSON object, within the default
// limits. The empty text is the empty context. Errors match [ErrContext].
func ParseContext(text string) (Context, error) { return DefaultContextLimits.Parse(text) }

// ContextFromMap is [ParseContext] for values already decoded: nil, booleans,
// strings, numbers of any Go type, json.Number, []any and map[string]any.
func ContextFromMap(m map[string]any) (Context, error) { return DefaultContextLimits.FromMap(m) }

// Parse is [ParseContext] within l.
func (l ContextLimits) Parse(text string) (Context, error) {
	if len(text) > l.Bytes {
		return Context{}, &contextError{fmt.Sprintf("%d bytes long, the limit is %d: send only the fields that caveats need",
			len(text), l.Bytes)}
	}
	m, err := decodeContext(text, l.Depth)
	if err != nil {
		return Context{}, err
	}
	return newContext(m), nil
}

// FromMap is [ContextFromMap] within l.
func (l ContextLimits) FromMap(m map[string]any) (Context, error) {
	c := mapCopier{limits: l}
	if len(m) == 0 {
		return Context{}, nil
	}
	out, err := c.object(m, 1)
	if err != nil {
		return Context{}, err
	}
	return newContext(out), nil
}

func newContext(m map[string]any) Context {
	if len(m) == 0 {
		return Context{}
	}
	cells := make([]contextField, len(m))
	fields := make(map[string]*contextField, len(m))
	i := 0
	for name, raw := range m {
		cells[i].raw = raw
		fields[name] = &cells[i]
		i++
	}
	return Context{fields: fields}
}

// decodeContext decodes a JSON object to nil, bool, string, json.Number, []any
// and map[string]any. Unlike encoding/json it refuses duplicate keys, whose
// meaning readers disagree on, and bytes that are not UTF-8.
func decodeContext(text string, depth int) (map[string]any, error) {
	if text == "" {
		return nil, nil
	}
	if !utf8.ValidString(text) {
		return nil, &contextError{"not valid UTF-8: send JSON text in UTF-8"}
	}
	d := contextDecoder{json.NewDecoder(strings.NewReader(text)), depth}
	d.UseNumber()
	token, err := d.Token()
	if err != nil {
		return nil, d.malformed(err)
	}
	if token != json.Delim('{') {
		return nil, &contextError{`not a JSON object: write one such as {"field": "value"}`}
	}
	m, err := d.object(1)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, &contextError{"something follows the JSON object: send one object only"}
	}
	return m, nil
}

type contextDecoder struct {
	*json.Decoder
	depth int
}

// malformed says where the JSON breaks, without quoting it.
func (d contextDecoder) malformed(err error) error {
	offset := d.InputOffset()
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		offset = max(offset, syntax.Offset)
	}
	return &contextError{"not valid JSON near byte " + strconv.FormatInt(offset, 10) + ": check commas, quotes and brackets"}
}

func (d contextDecoder) value(level int) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, d.malformed(err)
	}
	switch token {
	case json.Delim('{'):
		return d.object(level + 1)
	case json.Delim('['):
		return d.list(level + 1)
	}
	return token, nil
}

// object reads what follows an opening brace.
func (d contextDecoder) object(level int) (map[string]any, error) {
	if level > d.depth {
		return nil, tooDeep(d.depth)
	}
	m := map[string]any{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, d.malformed(err)
		}
		key, ok := token.(string)
		if !ok {
			return nil, d.malformed(nil)
		}
		if _, double := m[key]; double {
			return nil, &contextError{"a key occurs twice in an object, the second time before byte " +
				strconv.FormatInt(d.InputOffset(), 10) + ": send each key once"}
		}
		if m[key], err = d.value(level); err != nil {
			return nil, err
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, d.malformed(err)
	}
	return m, nil
}

// list reads what follows an opening bracket.
func (d contextDecoder) list(level int) ([]any, error) {
	if level > d.depth {
		return nil, tooDeep(d.depth)
	}
	list := []any{}
	for d.More() {
		v, err := d.value(level)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	if _, err := d.Token(); err != nil {
		return nil, d.malformed(err)
	}
	return list, nil
}

func tooDeep(limit int) error {
	return &contextError{fmt.Sprintf("lists and objects nest deeper than the limit of %d: send a flatter context", limit)}
}

// mapCopier copies decoded values, so that a caller may change its own.
type mapCopier struct {
	limits ContextLimits
	bytes  int
}

func (c *mapCopier) count(n int) error {
	if c.bytes += n; c.bytes > c.limits.Bytes {
		return &contextError{fmt.Sprintf("longer than the limit of %d bytes: send only the fields that caveats need",
			c.limits.Bytes)}
	}
	return nil
}

func (c *mapCopier) object(m map[string]any, level int) (map[string]any, error) {
	if level > c.limits.Depth {
		return nil, tooDeep(c.limits.Depth)
	}
	out := make(map[string]any, len(m))
	for key, v := range m {
		if !utf8.ValidString(key) {
			return nil, &contextError{"a key is not valid UTF-8: send text in UTF-8"}
		}
		if err := c.count(len(key)); err != nil {
			return nil, err
		}
		copied, err := c.value(v, level)
		if err != nil {
			return nil, err
		}
		out[key] = copied
	}
	return out, nil
}

func (c *mapCopier) value(v any, level int) (any, error) {
	switch v := v.(type) {
	case string:
		if !utf8.ValidString(v) {
			return nil, &contextError{"a string is not valid UTF-8: send bytes as base64"}
		}
		return v, c.count(len(v))
	case map[string]any:
		return c.object(v, level+1)
	case []any:
		if level >= c.limits.Depth {
			return nil, tooDeep(c.limits.Depth)
		}
		out := make([]any, len(v))
		for i := range v {
			copied, err := c.value(v[i], level+1)
			if err != nil {
				return nil, err
			}
			out[i] = copied
		}
		return out, c.count(1)
	}
	if err := c.count(8); err != nil {
		return nil, err
	}
	return copyScalar(v)
}

// copyScalar turns every kind of number into a json.Number.
func copyScalar(v any) (any, error) {
	switch n := v.(type) {
	case nil, bool:
		return v, nil
	case json.Number:
		if _, err := parseDouble(string(n)); err != nil {
			return nil, &contextError{"a number is " + err.Error() + ": send a JSON number"}
		}
		return n, nil
	}
	switch r := reflect.ValueOf(v); {
	case r.CanInt():
		return json.Number(strconv.FormatInt(r.Int(), 10)), nil
	case r.CanUint():
		return json.Number(strconv.FormatUint(r.Uint(), 10)), nil
	case r.CanFloat():
		f := r.Float()
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, &contextError{"a number is not finite: JSON has no such number"}
		}
		return json.Number(strconv.FormatFloat(f, 'g', -1, 64)), nil
	}
	return nil, &contextError{fmt.Sprintf("a value of Go type %T is no JSON value: send null, booleans, numbers, strings, lists and objects", v)}
}
