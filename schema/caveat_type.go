package schema

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// maxTypeDepth bounds how deep list<…> and map<…> nest.
const maxTypeDepth = 16

// paramType is the type of a parameter: its name, its type in CEL, and how a
// JSON value becomes a value of it.
type paramType struct {
	name string // canonical: no white space
	cel  *cel.Type
	elem *paramType // of list and map; nil otherwise
	// convert takes a value as [decodeContext] makes it. A nil result is of
	// another type; an error says more than "another type" does.
	convert func(t *paramType, v any) (ref.Val, error)
	// hint says how to write a value of the type in JSON.
	hint string
}

// basicTypes are the types without a type parameter, by name. The names are
// those of `.zed` files.
var basicTypes = map[string]*paramType{}

func init() {
	for _, t := range []*paramType{
		{name: "any", cel: cel.DynType, convert: toAny},
		{name: "bool", cel: cel.BoolType, convert: toBool, hint: "write true or false"},
		{name: "int", cel: cel.IntType, convert: toInt,
			hint: "write a whole number of 64 bits, or its digits as a string"},
		{name: "uint", cel: cel.UintType, convert: toUint,
			hint: "write a whole number of 64 bits that is not negative, or its digits as a string"},
		{name: "double", cel: cel.DoubleType, convert: toDouble, hint: "write a number"},
		{name: "string", cel: cel.StringType, convert: toString, hint: "write a string"},
		{name: "bytes", cel: cel.BytesType, convert: toBytes, hint: "write a string in base64"},
		{name: "duration", cel: cel.DurationType, convert: toDuration, hint: `write a string like "1h30m"`},
		{name: "timestamp", cel: cel.TimestampType, convert: toTimestamp,
			hint: `write a string in RFC 3339, like "2026-01-31T12:00:00Z"`},
		{name: "ipaddress", cel: ipAddressType, convert: toIPAddress,
			hint: `write a string like "192.0.2.1" or "2001:db8::1"`},
	} {
		basicTypes[t.name] = t
	}
}

// parseType reads the type of a parameter as written, white space allowed.
func parseType(text string) (*paramType, error) {
	compact := strings.Map(func(r rune) rune {
		if r == ' ' || r == '\t' || r == '\n' || r == '\r' {
			return -1
		}
		return r
	}, text)
	return parseCompactType(compact, 0)
}

func parseCompactType(text string, depth int) (*paramType, error) {
	if depth > maxTypeDepth {
		return nil, fmt.Errorf("a type nests at most %d deep", maxTypeDepth)
	}
	if t, ok := basicTypes[text]; ok {
		return t, nil
	}
	outer, rest, generic := strings.Cut(text, "<")
	switch {
	case outer != "list" && outer != "map":
		if _, ok := basicTypes[outer]; ok && generic {
			return nil, fmt.Errorf("type `%s` takes no type in angle brackets", outer)
		}
		return nil, fmt.Errorf("unknown type `%s`; the types are any, int, uint, bool, string, double, bytes, "+
			"duration, timestamp, ipaddress, list<…> and map<…>", text)
	case !generic:
		return nil, fmt.Errorf("type `%s` needs the type of its elements, like `%s<string>` or `%s<any>`",
			outer, outer, outer)
	case !strings.HasSuffix(rest, ">"):
		return nil, fmt.Errorf("type `%s` lacks its closing `>`", text)
	}
	elem, err := parseCompactType(strings.TrimSuffix(rest, ">"), depth+1)
	if err != nil {
		return nil, err
	}
	name := outer + "<" + elem.name + ">"
	if outer == "list" {
		return &paramType{name: name, cel: cel.ListType(elem.cel), elem: elem, convert: toList, hint: "write a list"}, nil
	}
	return &paramType{name: name, cel: cel.MapType(cel.StringType, elem.cel), elem: elem, convert: toMap,
		hint: "write an object"}, nil
}

// fieldError says that a value, or one inside it, has another type than
// declared. It never holds the value.
type fieldError struct {
	path      string // from the field: "", `[3]`, `.a[0]`; keys of objects are shown as `.*`
	want, got string
	reason    string // more than "wrong type"; may be empty
	hint      string
}

func (e *fieldError) Error() string {
	if e.reason != "" {
		return e.reason
	}
	return "wrong type"
}

// value converts a decoded JSON value to the CEL value of type t.
func (t *paramType) value(v any) (ref.Val, *fieldError) {
	out, err := t.convert(t, v)
	if err == nil && out != nil {
		return out, nil
	}
	var inner *fieldError
	if errors.As(err, &inner) {
		return nil, inner
	}
	e := &fieldError{want: t.name, got: jsonType(v), hint: t.hint}
	if err != nil {
		e.reason = err.Error()
	}
	return nil, e
}

// jsonType names the JSON type of a decoded value.
func jsonType(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "bool"
	case string:
		return "string"
	case json.Number:
		return "number"
	case []any:
		return "list"
	default:
		return "object"
	}
}

// toAny keeps the JSON value. A number is a double, as everywhere in this
// field, unless it is a whole one that a double cannot hold exactly.
func toAny(_ *paramType, v any) (ref.Val, error) {
	switch v := v.(type) {
	case nil:
		return types.NullValue, nil
	case bool:
		return types.Bool(v), nil
	case string:
		return types.String(v), nil
	case json.Number:
		return anyNumber(v)
	case []any:
		return listOf(basicTypes["any"], v)
	case map[string]any:
		return mapOf(basicTypes["any"], v)
	}
	return nil, nil
}

func anyNumber(n json.Number) (ref.Val, error) {
	if i, err := strconv.ParseInt(string(n), 10, 64); err == nil {
		if f := float64(i); f >= -1<<63 && f < 1<<63 && int64(f) == i {
			return types.Double(f), nil
		}
		return types.Int(i), nil
	}
	if u, err := strconv.ParseUint(string(n), 10, 64); err == nil {
		if f := float64(u); f >= 1<<64 || uint64(f) != u {
			return types.Uint(u), nil
		}
	}
	f, err := parseDouble(string(n))
	if err != nil {
		return nil, err
	}
	return types.Double(f), nil
}

func toBool(_ *paramType, v any) (ref.Val, error) {
	if b, ok := v.(bool); ok {
		return types.Bool(b), nil
	}
	return nil, nil
}

func toString(_ *paramType, v any) (ref.Val, error) {
	if s, ok := v.(string); ok {
		return types.String(s), nil
	}
	return nil, nil
}

// numberText returns the digits of a number, written as one or as a string.
func numberText(v any) (string, bool) {
	switch v := v.(type) {
	case json.Number:
		return string(v), true
	case string:
		return v, true
	}
	return "", false
}

func toInt(_ *paramType, v any) (ref.Val, error) {
	text, ok := numberText(v)
	if !ok {
		return nil, nil
	}
	i, err := strconv.ParseInt(text, 10, 64)
	if err == nil {
		return types.Int(i), nil
	}
	digits, err := wholeNumber(text)
	if err != nil {
		return nil, err
	}
	if i, err = strconv.ParseInt(digits, 10, 64); err != nil {
		return nil, errors.New("out of the range of 64 bits")
	}
	return types.Int(i), nil
}

func toUint(_ *paramType, v any) (ref.Val, error) {
	text, ok := numberText(v)
	if !ok {
		return nil, nil
	}
	u, err := strconv.ParseUint(text, 10, 64)
	if err == nil {
		return types.Uint(u), nil
	}
	digits, err := wholeNumber(text)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(digits, "-") {
		return nil, errors.New("negative")
	}
	if u, err = strconv.ParseUint(digits, 10, 64); err != nil {
		return nil, errors.New("out of the range of 64 bits")
	}
	return types.Uint(u), nil
}

// wholeNumber rewrites a decimal number such as 12.0 or 1e3 without fraction
// and exponent, exactly. Huge exponents cost nothing.
func wholeNumber(text string) (string, error) {
	mantissa, exp := text, 0
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		mantissa = text[:i]
		var err error
		if exp, err = strconv.Atoi(text[i+1:]); err != nil {
			exp = math.MaxInt32 // no number, or far beyond every type
		}
	}
	sign := ""
	if strings.HasPrefix(mantissa, "-") {
		sign, mantissa = "-", mantissa[1:]
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := whole + fraction
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return "", errors.New("not a number")
	}
	zeros := len(digits) - len(strings.TrimRight(digits, "0"))
	if zeros == len(digits) {
		return "0", nil
	}
	exp = exp - len(fraction) + zeros
	digits = strings.TrimLeft(digits[:len(digits)-zeros], "0")
	switch {
	case exp < 0:
		return "", errors.New("not a whole number")
	case exp+len(digits) > 20:
		return "", errors.New("out of the range of 64 bits")
	}
	return sign + digits + strings.Repeat("0", exp), nil
}

func toDouble(_ *paramType, v any) (ref.Val, error) {
	text, ok := numberText(v)
	if !ok {
		return nil, nil
	}
	f, err := parseDouble(text)
	if err != nil {
		return nil, err
	}
	return types.Double(f), nil
}

func parseDouble(text string) (float64, error) {
	if text == "" || strings.Trim(text, "0123456789+-.eE") != "" {
		return 0, errors.New("not a number") // also no hexadecimals, no infinities
	}
	f, err := strconv.ParseFloat(text, 64)
	if errors.Is(err, strconv.ErrRange) {
		return 0, errors.New("out of the range of a double")
	}
	if err != nil {
		return 0, errors.New("not a number")
	}
	return f, nil
}

func toBytes(_ *paramType, v any) (ref.Val, error) {
	s, ok := v.(string)
	if !ok {
		return nil, nil
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, errors.New("not base64")
	}
	return types.Bytes(b), nil
}

func toDuration(_ *paramType, v any) (ref.Val, error) {
	s, ok := v.(string)
	if !ok {
		return nil, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return nil, errors.New("not a duration")
	}
	return types.Duration{Duration: d}, nil
}

func toTimestamp(_ *paramType, v any) (ref.Val, error) {
	s, ok := v.(string)
	if !ok {
		return nil, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.UTC().Year() < 1 || t.UTC().Year() > 9999 {
		return nil, errors.New("not a timestamp of the years 1 to 9999")
	}
	return types.Timestamp{Time: t.UTC()}, nil
}

func toIPAddress(_ *paramType, v any) (ref.Val, error) {
	s, ok := v.(string)
	if !ok {
		return nil, nil
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return nil, errors.New("not an IP address")
	}
	return ipAddress(addr), nil
}

func toList(t *paramType, v any) (ref.Val, error) {
	if list, ok := v.([]any); ok {
		return listOf(t.elem, list)
	}
	return nil, nil
}

func listOf(elem *paramType, list []any) (ref.Val, error) {
	vals := make([]ref.Val, len(list))
	for i, v := range list {
		val, err := elem.value(v)
		if err != nil {
			err.path = "[" + strconv.Itoa(i) + "]" + err.path
			return nil, err
		}
		vals[i] = val
	}
	return types.NewRefValList(types.DefaultTypeAdapter, vals), nil
}

func toMap(t *paramType, v any) (ref.Val, error) {
	if object, ok := v.(map[string]any); ok {
		return mapOf(t.elem, object)
	}
	return nil, nil
}

// mapOf converts an object. An error shows no key: keys may be secrets too.
func mapOf(elem *paramType, object map[string]any) (ref.Val, error) {
	vals := make(map[string]any, len(object))
	for key, v := range object {
		val, err := elem.value(v)
		if err != nil {
			err.path = ".*" + err.path
			return nil, err
		}
		vals[key] = val
	}
	return types.NewStringInterfaceMap(types.DefaultTypeAdapter, vals), nil
}
