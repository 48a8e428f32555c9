package validation

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

const assertionForm = "write `document:readme#view@user:ada`, and after it ` with {\"field\": 1}` where caveats need a context"

func (p *parser) assertions(n *yaml.Node) {
	if n == nil || isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.add(n, "`assertions` is not a mapping", "write `assertTrue:`, `assertFalse:` or `assertCaveated:` indented below it")
		return
	}
	fields := p.fields(n, "assertTrue", "assertFalse", "assertCaveated")
	for _, list := range []struct {
		key  string
		want Expectation
	}{{"assertTrue", Yes}, {"assertFalse", No}, {"assertCaveated", Conditional}} {
		entries := fields[list.key]
		if entries == nil || isNull(entries) {
			continue
		}
		if entries.Kind != yaml.SequenceNode {
			p.add(entries, fmt.Sprintf("`%s` is not a list", list.key), "write one assertion a line, each after `- `")
			continue
		}
		for _, entry := range entries.Content {
			if p.full() {
				return
			}
			if len(p.file.Assertions) == maxAssertions {
				p.add(entry, fmt.Sprintf("the file has more than %d assertions", maxAssertions), "split it")
				return
			}
			p.assertion(entry, list.want)
		}
	}
}

func (p *parser) assertion(n *yaml.Node, want Expectation) {
	if n.Kind == yaml.MappingNode {
		p.add(n, "YAML reads this assertion as a mapping, because it holds `: `", "put the whole assertion in single quotes")
		return
	}
	text, ok := p.scalar(n, "the assertion", assertionForm)
	if !ok {
		return
	}
	a, message, hint := parseAssertion(p.file.Schema, strings.TrimSpace(text))
	if message != "" {
		p.add(n, message, hint)
		return
	}
	a.Pos, a.Want = p.at(n), want
	p.file.Assertions = append(p.file.Assertions, a)
}

// parseAssertion reads `object#permission@subject`, optionally with a context,
// and checks it against the schema.
func parseAssertion(s *schema.Schema, text string) (a Assertion, message, hint string) {
	fail := func(message, hint string) (Assertion, string, string) { return Assertion{}, message, hint }
	a.Text = text
	question, rest := text, ""
	if i := strings.IndexAny(text, " \t\r\n"); i >= 0 {
		question, rest = text[:i], strings.TrimSpace(text[i:])
	}
	if rest != "" {
		context, ok := strings.CutPrefix(rest, "with")
		context = strings.TrimSpace(context)
		if !ok || context == "" || context[0] != '{' {
			return fail(fmt.Sprintf("after the question stands %q", shorten(rest)), assertionForm)
		}
		var err error
		if a.ContextText, err = tuple.CanonicalJSON(context); err != nil {
			return fail(err.Error(), "")
		}
		if a.Context, err = schema.ParseContext(a.ContextText); err != nil {
			return fail(err.Error(), "")
		}
	}
	r, err := tuple.Parse(question)
	if err != nil {
		return fail(err.Error(), assertionForm)
	}
	switch {
	case r.Caveat.Name != "" || !r.Expiration.IsZero():
		return fail("an assertion has no caveat and no expiration", assertionForm)
	case r.Subject.IsWildcard():
		return fail("an assertion asks about one subject, not about all of a type", "name a subject, such as "+r.Subject.Type+":ada")
	}
	a.Resource, a.Permission, a.Subject = r.Object, r.Relation, r.Subject
	if message, hint := known(s, r.Object.Type, r.Relation); message != "" {
		return fail(message, hint)
	}
	if message, hint := known(s, r.Subject.Type, r.Subject.Relation); message != "" {
		return fail(message, hint)
	}
	return a, "", ""
}

// known checks that the schema has a type and, unless it is empty, a relation or
// permission of it.
func known(s *schema.Schema, typ, relation string) (message, hint string) {
	d := s.Definition(typ)
	if d == nil {
		names := make([]string, len(s.Definitions))
		for i, d := range s.Definitions {
			names[i] = d.Type
		}
		return fmt.Sprintf("the schema has no type `%s`", typ), "it has " + few(names)
	}
	if relation == "" || d.Relation(relation) != nil {
		return "", ""
	}
	names := make([]string, len(d.Relations))
	for i, r := range d.Relations {
		names[i] = r.Text
	}
	return fmt.Sprintf("`%s` has no relation or permission `%s`", typ, relation), "it has " + few(names)
}

// few lists names, so many as a person reads.
func few(names []string) string {
	const most = 12
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

func shorten(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}
