package scim

import "strings"

// Path is what a PATCH operation works on (RFC 7644 §3.5.2): an attribute, a part
// of one, those of its values that a filter matches, or a part of these.
type Path struct {
	ref    ref
	filter *Filter // on the values of a complex attribute; nil: none
}

// String is the path in one canonical way of writing.
func (p *Path) String() string {
	if p.filter == nil {
		return p.ref.String()
	}
	whole := p.ref
	whole.sub = nil
	text := whole.String() + "[" + p.filter.String() + "]"
	if p.ref.sub != nil {
		text += "." + p.ref.sub.Name
	}
	return text
}

// ParsePath reads a path of resources of a type. An error is an [Error] of type
// invalidPath, or invalidFilter for what stands in brackets.
func ParsePath(t *ResourceType, text string) (*Path, error) {
	if len(text) > maxFilterBytes {
		return nil, bad(invalidPath, "a path of %d bytes is longer than %d", len(text), maxFilterBytes)
	}
	p := &parser{lexer: lexer{text: text}, find: t.resolve, scimType: invalidPath}
	p.advance()
	name := p.token
	if name.kind != wordToken {
		return nil, p.unexpected("an attribute")
	}
	r, ok := t.resolve(name.text)
	if !ok {
		return nil, p.fail(name.at, "there is no attribute %q of a %s", shorten(name.text), t.Kind)
	}
	p.advance()
	path := &Path{ref: r}
	if p.mark("[") {
		p.scimType = invalidFilter
		n, err := p.element(name, r, true)
		if err != nil {
			return nil, err
		}
		p.scimType = invalidPath
		path.filter = &Filter{n.(*element).inner}
		if !r.attribute.MultiValued {
			return nil, p.fail(name.at, "%s has one value, and needs no filter", r)
		}
		if sub, dotted := strings.CutPrefix(p.token.text, "."); dotted && p.token.kind == wordToken {
			if path.ref.sub = r.attribute.Sub(sub); path.ref.sub == nil {
				return nil, p.fail(p.token.at, "%s has no part %q", r, shorten(sub))
			}
			p.advance()
		}
	}
	if p.token.kind != endToken {
		return nil, p.unexpected("the end of the path")
	}
	return path, nil
}
