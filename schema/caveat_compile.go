package schema

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
)

// baseEnv knows everything but the parameters. Its checker is built once;
// caveats extend it, which costs little.
var baseEnv = sync.OnceValue(func() *cel.Env {
	options := append(caveatFunctions(),
		cel.EagerlyValidateDeclarations(true),
		cel.DefaultUTCTimeZone(true),
		cel.CrossTypeNumericComparisons(true),
		// The schema's own limit bounds an expression, in bytes.
		cel.ParserExpressionSizeLimit(-1),
		cel.RegexProgramSizeLimit(maxPattern),
	)
	env, err := cel.NewEnv(options...)
	if err != nil {
		panic("schema: the CEL environment is inconsistent: " + err.Error())
	}
	return env
})

// celReserved are the words that CEL keeps to itself (specification, "Syntax").
var celReserved = []string{
	"as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let",
	"loop", "namespace", "null", "package", "return", "true", "var", "void", "while",
}

// newCaveat compiles a caveat. The expression must be boolean and use each
// parameter, of which there is at least one.
func newCaveat(name, doc string, params []Parameter, expression string) (*Caveat, *caveatError) {
	c := &Caveat{Name: name, Doc: doc, Parameters: params, Expression: expression}
	if len(params) == 0 {
		return nil, &caveatError{Parameter: -1,
			Message: fmt.Sprintf("caveat `%s` has no parameters", name),
			Hint:    "declare at least one, like `(day string)`"}
	}
	variables, fault := c.compileParams()
	if fault != nil {
		return nil, fault
	}
	if strings.TrimSpace(expression) == "" {
		return nil, &caveatError{Parameter: -1, Line: 1, Column: 1,
			Message: fmt.Sprintf("caveat `%s` has no expression", name),
			Hint:    "write a boolean expression in the braces, like `day == \"monday\"`"}
	}
	env, err := baseEnv().Extend(variables...)
	if err != nil {
		return nil, &caveatError{Parameter: -1,
			Message: fmt.Sprintf("caveat `%s` cannot be compiled: %v", name, err),
			Hint:    "rename its parameters"}
	}
	checked, issues := env.Compile(expression)
	if issues.Err() != nil {
		return nil, c.issue(issues.Errors()[0])
	}
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) {
		return nil, &caveatError{Parameter: -1, Line: 1, Column: 1,
			Message: fmt.Sprintf("the expression of caveat `%s` is of type %s, not bool", name, celTypeName(t.String())),
			Hint:    "compare it with something, like `… == …`"}
	}
	c.ast = checked
	uses := caveatUsage{names: map[string]bool{}}
	uses.walk(checked.NativeRep().Expr(), nil)
	c.loops = uses.loops
	for i, p := range params {
		if !uses.names[p.Name] {
			return nil, &caveatError{Parameter: i,
				Message: fmt.Sprintf("parameter `%s` of caveat `%s` is not used", p.Name, name),
				Hint:    "use it in the expression, or remove it"}
		}
	}
	return c, nil
}

// compileParams fills c.params and declares the parameters to CEL.
func (c *Caveat) compileParams() ([]cel.EnvOption, *caveatError) {
	var variables []cel.EnvOption
	for i, p := range c.Parameters {
		if c.param(p.Name) >= 0 {
			return nil, &caveatError{Parameter: i,
				Message: fmt.Sprintf("caveat `%s` declares parameter `%s` twice", c.Name, p.Name),
				Hint:    "remove or rename one"}
		}
		if slices.Contains(celReserved, p.Name) {
			return nil, &caveatError{Parameter: i,
				Message: fmt.Sprintf("parameter `%s` of caveat `%s` is a reserved word of CEL", p.Name, c.Name),
				Hint:    "rename it"}
		}
		t, err := parseType(p.Type)
		if err != nil {
			return nil, &caveatError{Parameter: i,
				Message: fmt.Sprintf("parameter `%s` of caveat `%s`: %v", p.Name, c.Name, err),
				Hint:    "correct the type"}
		}
		c.params = append(c.params, param{name: p.Name, typ: t, unknown: cel.AttributePattern(p.Name)})
		variables = append(variables, cel.Variable(p.Name, t.cel))
	}
	return variables, nil
}

// planProgram plans an expression for one cost limit. Optimising compiles
// constant patterns and fails on a broken one; such an expression is legal, and
// fails when it gets there.
//
// Only loops can make a value much larger than its context, by doubling lists
// in place: cost is counted after an operation, too late to stop one over such
// a value. So loops also have the size of their values watched.
func planProgram(checked *cel.Ast, loops bool, limit uint64) (cel.Program, error) {
	options := func(eval cel.EvalOption) []cel.ProgramOption {
		o := []cel.ProgramOption{
			cel.EvalOptions(eval, cel.OptPartialEval, cel.OptTrackCost),
			cel.CostTracking(callCosts{}),
			cel.CostLimit(limit),
			cel.CustomDecoratorV2(func(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
				return boundMatch(i, limit), nil
			}),
		}
		if loops {
			o = append(o, cel.InterruptCheckFrequency(interruptEvery), cel.EvalOptions(eval, cel.OptPartialEval,
				cel.OptTrackCost, cel.OptTrackMemory), cel.MemoryTracking(types.MemoryTrackerSampleInterval(sampleEvery)),
				cel.MemoryLimit(maxElements))
		}
		return o
	}
	program, err := baseEnv().Program(checked, options(cel.OptOptimize)...)
	if err != nil {
		program, err = baseEnv().Program(checked, options(cel.OptPartialEval)...)
	}
	return program, err
}

// match is a call of matches() that is refused when it would cost more than the
// limit: cost is counted after a call, too late for one that is all there is.
type match struct {
	interpreter.InterpretableCall
	text, pattern interpreter.InterpretableV2
	constant      bool // the pattern
	limit         uint64
}

// boundMatch bounds a call of matches(); it leaves anything else as it is.
func boundMatch(i interpreter.InterpretableV2, limit uint64) interpreter.InterpretableV2 {
	call, ok := i.(interpreter.InterpretableCall)
	if !ok || call.Function() != "matches" || len(call.Args()) != 2 {
		return i
	}
	m := match{InterpretableCall: call, text: call.Args()[0], pattern: call.Args()[1], limit: limit}
	_, m.constant = m.pattern.(interpreter.InterpretableConst)
	return m
}

// Eval implements [interpreter.Interpretable].
func (m match) Eval(a interpreter.Activation) ref.Val { return interpreter.EvalActivation(a, m.Exec) }

// Exec implements [interpreter.InterpretableV2].
func (m match) Exec(f *interpreter.ExecutionFrame) ref.Val {
	text, isText := m.text.Exec(f).(types.String)
	pattern, isPattern := m.pattern.Exec(f).(types.String)
	if isText && isPattern {
		if !m.constant && len(pattern) > maxGivenPattern {
			return types.NewErr("regex: a pattern of %d bytes", len(pattern))
		}
		// As CEL counts it: a tenth for each character read, times a quarter for
		// each of the pattern.
		if cost := (uint64(len(text))/10 + 1) * (uint64(len(pattern))/4 + 1); cost > m.limit {
			return types.WrapErr(interpreter.EvalCancelledError{Cause: interpreter.CostLimitExceeded, Message: "matches"})
		}
	}
	return m.InterpretableCall.Exec(f)
}

// caveatUsage finds which names an expression reads, and whether it loops.
type caveatUsage struct {
	names map[string]bool
	loops bool
}

// walk visits e; bound are the variables of the macros around it, which hide
// parameters of the same name.
func (u *caveatUsage) walk(e ast.Expr, bound []string) {
	switch e.Kind() {
	case ast.IdentKind:
		name := e.AsIdent()
		if global, ok := strings.CutPrefix(name, "."); ok {
			u.names[global] = true
		} else if !slices.Contains(bound, name) {
			u.names[name] = true
		}
	case ast.SelectKind:
		u.walk(e.AsSelect().Operand(), bound)
	case ast.CallKind:
		call := e.AsCall()
		if call.IsMemberFunction() {
			u.walk(call.Target(), bound)
		}
		for _, arg := range call.Args() {
			u.walk(arg, bound)
		}
	case ast.ListKind:
		for _, elem := range e.AsList().Elements() {
			u.walk(elem, bound)
		}
	case ast.MapKind:
		for _, entry := range e.AsMap().Entries() {
			u.walk(entry.AsMapEntry().Key(), bound)
			u.walk(entry.AsMapEntry().Value(), bound)
		}
	case ast.StructKind:
		for _, field := range e.AsStruct().Fields() {
			u.walk(field.AsStructField().Value(), bound)
		}
	case ast.ComprehensionKind:
		u.loops = true
		loop := e.AsComprehension()
		u.walk(loop.IterRange(), bound)
		u.walk(loop.AccuInit(), bound)
		inner := append(slices.Clip(bound), loop.IterVar(), loop.IterVar2(), loop.AccuVar())
		u.walk(loop.LoopCondition(), inner)
		u.walk(loop.LoopStep(), inner)
		u.walk(loop.Result(), append(slices.Clip(bound), loop.AccuVar()))
	}
}

var (
	undeclared = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
	noOverload = regexp.MustCompile(`^found no matching overload for '([^']*)' applied to '(.*)'`)
	celTypes   = strings.NewReplacer("google.protobuf.Timestamp", "timestamp", "google.protobuf.Duration", "duration",
		"dyn", "any", "map(string, ", "map(")
)

// celTypeName writes a CEL type as the schema language does.
func celTypeName(celName string) string { return celTypes.Replace(celName) }

// issue translates an error of the CEL parser or checker.
func (c *Caveat) issue(e *cel.Error) *caveatError {
	fault := &caveatError{Parameter: -1, Line: max(e.Location.Line(), 1), Column: max(e.Location.Column(), 0) + 1}
	if m := undeclared.FindStringSubmatch(e.Message); m != nil {
		fault.Message = fmt.Sprintf("caveat `%s` has no parameter `%s`, and CEL no such name", c.Name, m[1])
		if _, ok := baseEnv().Functions()[m[1]]; ok || strings.Contains(c.Expression, m[1]+"(") {
			fault.Message = fmt.Sprintf("`%s` is no function that a caveat may call", m[1])
			fault.Hint = "caveats have the standard functions of CEL, in_cidr and isSubtreeOf"
			return fault
		}
		fault.Hint = "its parameters are " + c.parameterNames() + "; declare it with a type, or correct the name"
		return fault
	}
	if m := noOverload.FindStringSubmatch(e.Message); m != nil {
		operation := m[1] + "()"
		if op, ok := operators.FindReverse(m[1]); ok && op != "" {
			operation = op
		}
		fault.Message = fmt.Sprintf("`%s` does not take operands of the types %s", operation, celTypeName(m[2]))
		fault.Hint = "convert one of them, or change the type of a parameter"
		return fault
	}
	fault.Message = "the expression of caveat `" + c.Name + "` is not valid CEL: " + strings.TrimPrefix(celTypeName(e.Message), "Syntax error: ")
	fault.Hint = "correct the expression"
	return fault
}

// sortedKeys makes errors independent of the order of a map.
func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }
