package schema

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
	lru "github.com/hashicorp/golang-lru/v2"
)

// Caveat is a compiled caveat: a boolean CEL expression over typed parameters.
// It is immutable and safe for concurrent use.
//
// The language is the standard library of CEL with its macros (has, all,
// exists, exists_one, map, filter), ipaddress.in_cidr(string) and
// map.isSubtreeOf(map). Numbers of different types compare with each other;
// timestamps are read in UTC unless an expression names a time zone.
//
// Parameters have these types; a context gives their values in JSON:
//
//	any        any value; its numbers are doubles, save whole ones that a double cannot hold
//	int, uint  a whole number of 64 bits, or its digits as a string
//	double     a number, or its digits as a string
//	bool       true or false
//	string     a string
//	bytes      a string in base64, with padding
//	duration   a string such as "1h30m"
//	timestamp  a string in RFC 3339
//	ipaddress  a string, IPv4 or IPv6
//	list<T>    a list of T
//	map<T>     an object whose values are T
type Caveat struct {
	Name       string
	Doc        string
	Parameters []Parameter // in the order written
	Expression string      // CEL, as written

	params []param // like Parameters
	ast    *cel.Ast
	loops  bool // the expression has macros that walk lists or maps
	plans  atomic.Pointer[[]caveatPlan]
	// written remembers parsed contexts of relationships by their whole text.
	writtenOnce sync.Once
	written     *lru.Cache[string, *writtenContext]
}

// Parameter is a named, typed parameter of a caveat.
type Parameter struct {
	Name string
	Type string // as written: `int`, `list<string>`, …
}

// param is a compiled parameter.
type param struct {
	name    string
	typ     *paramType
	unknown *interpreter.AttributePattern
}

// caveatPlan is a caveat's program for one cost limit.
type caveatPlan struct {
	limit   uint64
	program cel.Program
}

const (
	// DefaultCostLimit is the cost an evaluation may reach when Eval is given
	// none. Cost is counted as CEL does: about one for each operator, call and
	// variable, a tenth for each character a string function reads. The default
	// is some ten milliseconds of work.
	DefaultCostLimit = 100_000

	// Each caveat in use remembers this many written contexts, none longer than
	// that many bytes.
	writtenEntries = 512
	writtenBytes   = 2 << 10

	// interruptEvery is how many steps of a macro pass between two looks at the
	// context's cancellation.
	interruptEvery = 256
	// maxElements is how many elements a list or map may come to hold, those of
	// its elements included.
	maxElements = 1 << 17
	// sampleEvery is how many rounds of a macro pass between two measurements of
	// what it gathers.
	sampleEvery = 64
	// maxPattern is how many instructions the program of a regular expression may
	// have: with a context of 64 KiB, matching one takes a second at most.
	maxPattern = 2000
	// maxGivenPattern is how many bytes a pattern may have that is no constant of
	// the expression: a few repetitions make a program of megabytes of one, before
	// anybody can look at its size.
	maxGivenPattern = 512
	// maxPlans bounds the cost limits for which a caveat keeps a program.
	maxPlans = 4
)

// Truth is an answer of three-valued logic. The zero value is False, so that a
// forgotten answer allows nothing.
type Truth uint8

const (
	False Truth = iota
	True
	Unknown // fields are missing that decide the answer
)

func (t Truth) String() string {
	switch t {
	case False:
		return "false"
	case True:
		return "true"
	}
	return "unknown"
}

// Result is what a caveat says of a context.
type Result struct {
	Truth Truth
	// Missing are the sorted names of the fields that an Unknown answer waits
	// for; nil otherwise. A field that no longer matters is not among them.
	Missing []string
}

// CheckContext reports whether a context may be written with a relationship:
// it is a JSON object whose fields are parameters of c with values of their
// types. The empty text is no context. Errors match [ErrContext] or
// [ErrCaveatField]. The length of the text is the caller's to limit.
func (c *Caveat) CheckContext(text string) error {
	m, err := decodeContext(text, DefaultContextLimits.Depth)
	if err != nil {
		return err
	}
	for _, name := range sortedKeys(m) {
		i := c.param(name)
		if i < 0 {
			return &CaveatError{Caveat: c.Name, Field: name, kind: ErrCaveatField, detail: fmt.Sprintf(
				"no parameter `%s`; its parameters are %s: remove the field, or declare it in the schema",
				name, c.parameterNames())}
		}
		if _, e := c.params[i].typ.value(m[name]); e != nil {
			return c.wrongField(i, e, false)
		}
	}
	return nil
}

// Eval says whether the caveat holds. The fields come from written, the JSON
// object stored with the relationship ("" is none), and from request; where
// both have a field, written wins. Fields that c does not declare are ignored.
// Every field that c declares must have the declared type, whether or not it
// would have been decisive: an answer never depends on the order of evaluation.
//
// A limit of zero is [DefaultCostLimit]. Errors match [ErrContext] (written is
// no JSON object), [ErrCaveatField], [ErrCaveatRuntime], [ErrCaveatCost] or the
// error of a cancelled ctx.
func (c *Caveat) Eval(ctx context.Context, written string, request Context, limit uint64) (Result, error) {
	if ctx.Err() != nil {
		return Result{}, c.cancelled(context.Cause(ctx))
	}
	if limit == 0 {
		limit = DefaultCostLimit
	}
	program, err := c.program(limit)
	if err != nil {
		return Result{}, err
	}
	a := activations.Get().(*activation)
	defer a.release()
	if err := a.fill(c, written, request); err != nil {
		return Result{}, err
	}
	// A context costs allocations and locks; without loops there is nothing to
	// interrupt.
	var out ref.Val
	if c.loops {
		out, _, err = program.ContextEval(ctx, a)
	} else {
		out, _, err = program.Eval(a)
	}
	if err != nil {
		return Result{}, c.failed(ctx, err, limit)
	}
	switch v := out.(type) {
	case types.Bool:
		if v {
			return Result{Truth: True}, nil
		}
		return Result{Truth: False}, nil
	case *types.Unknown:
		return Result{Truth: Unknown, Missing: missingFields(v)}, nil
	}
	return Result{}, &CaveatError{Caveat: c.Name, kind: ErrCaveatRuntime,
		detail: "the expression gave no boolean for these values: compare the value of type any with something"}
}

// missingFields lists the fields an unknown value waits for.
func missingFields(u *types.Unknown) []string {
	var names []string
	for _, id := range u.IDs() {
		trails, _ := u.GetAttributeTrails(id)
		for _, t := range trails {
			names = append(names, strings.TrimPrefix(t.Variable(), "."))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// program returns the program that stops at limit, planned on first use.
func (c *Caveat) program(limit uint64) (cel.Program, error) {
	plans := c.plans.Load()
	if plans != nil {
		for i := range *plans {
			if p := &(*plans)[i]; p.limit == limit {
				return p.program, nil
			}
		}
	}
	program, err := planProgram(c.ast, c.loops, limit)
	if err != nil {
		return nil, &CaveatError{Caveat: c.Name, kind: ErrCaveatRuntime, detail: "the expression cannot be evaluated: " + err.Error()}
	}
	var next []caveatPlan
	if plans != nil && len(*plans) < maxPlans {
		next = slices.Clone(*plans)
	}
	next = append(next, caveatPlan{limit, program})
	c.plans.CompareAndSwap(plans, &next)
	return program, nil
}

// param returns the index of a parameter, or -1.
func (c *Caveat) param(name string) int {
	for i := range c.params {
		if c.params[i].name == name {
			return i
		}
	}
	return -1
}

func (c *Caveat) parameterNames() string {
	names := make([]string, len(c.params))
	for i, p := range c.params {
		names[i] = "`" + p.name + "`"
	}
	return strings.Join(names, ", ")
}

// wrongField is the error for parameter i given a value of another type.
func (c *Caveat) wrongField(i int, e *fieldError, stored bool) error {
	p := c.params[i]
	var b strings.Builder
	fmt.Fprintf(&b, "field `%s%s` must be %s, got ", p.name, e.path, e.want)
	if e.reason != "" {
		fmt.Fprintf(&b, "a %s that is %s", e.got, e.reason)
	} else {
		b.WriteString(e.got)
	}
	if e.hint != "" {
		b.WriteString(": " + e.hint)
	}
	return &CaveatError{Caveat: c.Name, Field: p.name, Want: p.typ.name, Got: e.got, Stored: stored,
		kind: ErrCaveatField, detail: b.String()}
}

func (c *Caveat) cancelled(cause error) error {
	return &CaveatError{Caveat: c.Name, kind: cause, detail: "evaluation stopped: " + cause.Error()}
}

// failed translates an error of the CEL interpreter. Its own texts may quote
// values, so only their kind is told, and where in the expression it happened.
func (c *Caveat) failed(ctx context.Context, err error, limit uint64) error {
	var stopped interpreter.EvalCancelledError
	switch {
	case errors.As(err, &stopped) && stopped.Cause == interpreter.CostLimitExceeded:
		return &CaveatError{Caveat: c.Name, kind: ErrCaveatCost, detail: fmt.Sprintf(
			"the expression exceeds the cost limit of %d on this context: "+
				"send shorter lists and strings, or nest fewer macros", limit)}
	case errors.As(err, &stopped) && stopped.Cause == interpreter.MemoryLimitExceeded:
		return &CaveatError{Caveat: c.Name, kind: ErrCaveatCost, detail: fmt.Sprintf(
			"a list or map grows beyond %d elements on this context: "+
				"send shorter lists, or gather less with map()", maxElements)}
	case errors.Is(err, interpreter.InterruptError{}):
		cause := context.Cause(ctx)
		if cause == nil {
			cause = context.Canceled
		}
		return c.cancelled(cause)
	}
	return &CaveatError{Caveat: c.Name, kind: ErrCaveatRuntime, detail: runtimeFault(err) + c.place(err)}
}

// place says where in the expression a runtime error arose.
func (c *Caveat) place(err error) string {
	var e *types.Err
	if !errors.As(err, &e) || e.NodeID() == 0 {
		return ""
	}
	info := c.ast.NativeRep().SourceInfo()
	if _, ok := info.GetOffsetRange(e.NodeID()); !ok {
		return ""
	}
	at := info.GetStartLocation(e.NodeID())
	return fmt.Sprintf(" (line %d, column %d of the expression)", at.Line(), at.Column()+1)
}

var (
	errNoCIDR = errors.New("in_cidr: not an address range")

	// faults explain the interpreter's errors, found by a part of their text.
	faults = []struct{ part, detail string }{
		{"no such key", "a map lacks a key that the expression reads: test it with has() first"},
		{"no such attribute", "a value lacks what the expression reads: test it with has() first"},
		{"no such overload", "an operator or function met a value of a type it does not take: convert it, or declare its type"},
		{"unsupported overload", "an operator or function met a value of a type it does not take: convert it, or declare its type"},
		{"divi", "division by zero: test the divisor first"},
		{"modulus by zero", "division by zero: test the divisor first"},
		{"overflow", "a number, duration or timestamp is out of range: test its size first"},
		{"out of bounds", "an index lies outside its list: test size() first"},
		{"out of range", "an index or number is out of range: test size() first"},
		{"range", "a value is out of range: test its size first"},
		{"regex", "a pattern given to matches() is no regular expression of RE2, or too large a one: it may have 512 bytes"},
		{"missing closing", "a pattern given to matches() is no regular expression of RE2"},
		{"error parsing regexp", "a pattern given to matches() is no regular expression of RE2"},
		{"conver", "a value cannot be converted to the type the expression asks for"},
		{"pars", "a string cannot be converted to the type the expression asks for"},
		{"unknown time zone", "a time zone is not known: use UTC, an offset such as +02:00, or a name of the IANA database"},
	}
)

func runtimeFault(err error) string {
	if errors.Is(err, errNoCIDR) {
		return `in_cidr() met a string that is no address range: write one such as "10.0.0.0/8"`
	}
	text := err.Error()
	for _, f := range faults {
		if strings.Contains(text, f.part) {
			return f.detail
		}
	}
	return "the expression failed on these values: check their types and sizes"
}
