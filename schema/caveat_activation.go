package schema

import (
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
	lru "github.com/hashicorp/golang-lru/v2"
)

// writtenContext is the parsed context of relationships that share its text.
type writtenContext struct {
	vals []ref.Val // by parameter; nil where the context has no such field
	err  error
}

// parseWritten parses the context stored with a relationship and remembers the
// result. Fields that c does not declare, or no longer, are ignored.
func (c *Caveat) parseWritten(text string) *writtenContext {
	c.writtenOnce.Do(func() {
		c.written, _ = lru.New[string, *writtenContext](writtenEntries) // fails for sizes below 1 only
	})
	if w, ok := c.written.Get(text); ok {
		return w
	}
	w := &writtenContext{}
	m, err := decodeContext(text, DefaultContextLimits.Depth)
	if err != nil {
		w.err = &CaveatError{Caveat: c.Name, Stored: true, kind: ErrContext, detail: err.Error()}
	}
	if len(m) > 0 {
		w.vals = make([]ref.Val, len(c.params))
	}
	for i, p := range c.params {
		raw, ok := m[p.name]
		if !ok {
			continue
		}
		val, e := p.typ.value(raw)
		if e != nil && w.err == nil {
			w.err = c.wrongField(i, e, true)
		}
		w.vals[i] = val
	}
	if len(text) <= writtenBytes {
		c.written.Add(text, w)
	}
	return w
}

// activation holds the values of one evaluation. The interpreter asks it for
// names, and which of them are unknown.
type activation struct {
	caveat  *Caveat
	vals    []ref.Val
	unknown []*interpreter.AttributePattern
}

var activations = sync.Pool{New: func() any { return new(activation) }}

// fill gathers the value of each parameter.
func (a *activation) fill(c *Caveat, written string, request Context) error {
	a.caveat = c
	a.vals = append(a.vals, make([]ref.Val, len(c.params))...)
	if written != "" {
		w := c.parseWritten(written)
		if w.err != nil {
			return w.err
		}
		copy(a.vals, w.vals)
	}
	for i := range c.params {
		if a.vals[i] != nil {
			continue
		}
		p := &c.params[i]
		field, ok := request.fields[p.name]
		if !ok {
			a.unknown = append(a.unknown, p.unknown)
			continue
		}
		val, e := field.as(p.typ)
		if e != nil {
			return c.wrongField(i, e, false)
		}
		a.vals[i] = val
	}
	return nil
}

// release forgets the values, which may be secret or large, and keeps the room.
func (a *activation) release() {
	a.caveat = nil
	clear(a.vals)
	clear(a.unknown)
	a.vals, a.unknown = a.vals[:0], a.unknown[:0]
	activations.Put(a)
}

// ResolveName implements interpreter.Activation.
func (a *activation) ResolveName(name string) (any, bool) {
	for i := range a.caveat.params {
		if a.caveat.params[i].name == name {
			return a.vals[i], a.vals[i] != nil
		}
	}
	return nil, false
}

// Parent implements interpreter.Activation.
func (a *activation) Parent() cel.Activation { return nil }

// AsPartialActivation implements interpreter.PartialActivation. Complete
// contexts skip the matching of patterns.
func (a *activation) AsPartialActivation() (interpreter.PartialActivation, bool) {
	if len(a.unknown) == 0 {
		return nil, false
	}
	return a, true
}

// UnknownAttributePatterns implements interpreter.PartialActivation.
func (a *activation) UnknownAttributePatterns() []*interpreter.AttributePattern { return a.unknown }
