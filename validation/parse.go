package validation

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// Parse reads a validation file. name appears in positions. open reads the
// schema file and the imports: it is given slash-separated paths that start
// with the folder of name; nil refuses both. The error is [Errors].
func Parse(name string, data []byte, open func(name string) ([]byte, error)) (*File, error) {
	p := &parser{
		source: newSource(name, string(data)),
		open:   open,
		file:   &File{Name: name},
		texts:  map[string]string{},
	}
	if root := p.document(data); root != nil {
		p.root(root)
	}
	if len(p.errors) > 0 {
		return nil, p.errors
	}
	return p.file, nil
}

type parser struct {
	*source
	open  func(string) ([]byte, error)
	file  *File
	texts map[string]string // of the schema files, by name
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?(?s:(.*))$`)

// document returns the one mapping that the file holds, or nil after reporting
// why there is none.
func (p *parser) document(data []byte) *yaml.Node {
	start := schema.Position{File: p.name, Line: 1, Column: 1}
	if len(data) > MaxBytes {
		p.addAt(start, "", fmt.Sprintf("the file has %d bytes, more than %d", len(data), MaxBytes), "split it", "")
		return nil
	}
	if !utf8.Valid(data) {
		p.addAt(start, "", "the file is not UTF-8 text", "save it as UTF-8", "")
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := decode(decoder, &doc); err != nil {
		if errors.Is(err, io.EOF) {
			p.addAt(start, "", "the file is empty", "write `schema`, `relationships` and `assertions`", p.text)
			return nil
		}
		p.yamlError(err)
		return nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		p.add(root, "a validation file is a mapping", "write `schema:`, `relationships:` and `assertions:`, each at the start of a line")
		return nil
	}
	switch err := decode(decoder, &second); {
	case err == nil:
		p.add(&second, "the file holds a second YAML document", "put each into a file of its own")
		return nil
	case !errors.Is(err, io.EOF):
		p.yamlError(err)
		return nil
	}
	return root
}

// decode reads one YAML document. The decoder promises no freedom from panics
// on hostile input, and a test file must not end its reader.
func decode(d *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: cannot be read: %v", r)
		}
	}()
	if err := d.Decode(n); err != nil {
		return err
	}
	if len(n.Content) == 0 {
		return io.EOF
	}
	return nil
}

func (p *parser) yamlError(err error) {
	m := yamlLine.FindStringSubmatch(err.Error())
	line, _ := strconv.Atoi(m[1]) // none given: 0, which shows the first line
	line = min(max(line, 1), len(p.lines))
	written := p.lines[line-1]
	column := 1 + len(written) - len(strings.TrimLeft(written, " "))
	p.addAt(schema.Position{File: p.name, Line: line, Column: column}, "",
		"this is not YAML: "+m[2], "texts that hold `: ` or ` #` need quotes; indent with spaces", p.text)
}

// fields yields the keys and values of a mapping, having refused keys given
// twice and those not among the known.
func (p *parser) fields(n *yaml.Node, known ...string) map[string]*yaml.Node {
	fields := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode:
			p.add(key, "the key is not a name", "write one of "+strings.Join(known, ", "))
		case fields[key.Value] != nil:
			p.add(key, fmt.Sprintf("`%s` is given twice", shorten(key.Value)), "join the two")
		case !slices.Contains(known, key.Value):
			p.add(key, fmt.Sprintf("there is no key `%s` here", shorten(key.Value)), "write one of "+strings.Join(known, ", "))
		default:
			fields[key.Value] = value
		}
	}
	return fields
}

func (p *parser) root(n *yaml.Node) {
	fields := p.fields(n, "schema", "schemaFile", "relationships", "assertions", "validation")
	src, lines, ok := p.schemaSource(n, fields["schema"], fields["schemaFile"])
	if !ok || !p.compile(src, fields["schema"], lines) {
		return
	}
	p.relationships(fields["relationships"])
	p.assertions(fields["assertions"])
	p.expected(fields["validation"])
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// scalar returns the text of a value; an absent or empty one is the empty text.
func (p *parser) scalar(n *yaml.Node, what, hint string) (string, bool) {
	switch {
	case n == nil || isNull(n):
		return "", true
	case n.Kind == yaml.AliasNode:
		p.add(n, what+" is a YAML alias", "write the text itself")
	case n.Kind != yaml.ScalarNode:
		p.add(n, what+" is not a text", hint)
	default:
		return n.Value, true
	}
	return "", false
}

func (p *parser) schemaSource(root, inline, file *yaml.Node) (src schema.Source, lines []string, ok bool) {
	text, ok := p.scalar(inline, "the schema", "write `schema: |-` and the schema indented below it")
	if !ok {
		return src, nil, false
	}
	name, ok := p.scalar(file, "the name of the schema file", "write `schemaFile: schema.zed`")
	if !ok {
		return src, nil, false
	}
	switch {
	case text != "" && name != "":
		p.add(file, "the file has both `schema` and `schemaFile`", "keep one of them")
	case text != "":
		return schema.Source{Name: p.name, Text: text}, strings.Split(text, "\n"), true
	case name == "":
		p.add(root, "the file has no schema", "write `schema: |-` with its text, or `schemaFile:` with the name of its file")
	default:
		return p.schemaFile(file, name)
	}
	return src, nil, false
}

func (p *parser) schemaFile(at *yaml.Node, written string) (schema.Source, []string, bool) {
	full, ok := beside(p.name, written)
	if !ok {
		p.add(at, fmt.Sprintf("the schema file `%s` lies outside the folder of this file", shorten(written)),
			"name a file of that folder, relative to it")
		return schema.Source{}, nil, false
	}
	text, err := p.read(full)
	if err != nil {
		p.add(at, fmt.Sprintf("cannot read the schema file `%s`: %v", shorten(written), err), "the name is relative to this file")
		return schema.Source{}, nil, false
	}
	return schema.Source{Name: full, Text: text}, nil, true
}

func (p *parser) read(name string) (string, error) {
	if p.open == nil {
		return "", errors.New("other files cannot be read here")
	}
	data, err := p.open(name)
	if err != nil {
		return "", err
	}
	p.texts[name] = string(data)
	return string(data), nil
}

// compile compiles the schema; inline and lines, its value and the lines of it,
// are nil for a schema in a file of its own.
func (p *parser) compile(src schema.Source, inline *yaml.Node, lines []string) bool {
	place := func(pos schema.Position) (schema.Position, string) {
		if lines != nil && pos.File == p.name {
			return p.within(inline, lines, pos.Line-1, pos.Column-1), p.text
		}
		return pos, p.texts[pos.File]
	}
	compiled, warnings, err := schema.Compile(src, nil, schema.Options{Open: p.read})
	var all schema.Errors
	if errors.As(err, &all) {
		for _, e := range all {
			pos, text := place(e.Pos)
			p.addAt(pos, e.Token, e.Message, e.Hint, text)
		}
	}
	if err != nil {
		return false
	}
	for _, w := range warnings {
		w.Pos, _ = place(w.Pos)
		p.file.Warnings = append(p.file.Warnings, w)
	}
	p.file.Schema = compiled
	return true
}

// relationships reads one relationship a line. One written twice counts once;
// two that differ only in caveat or expiration contradict one another.
func (p *parser) relationships(n *yaml.Node) {
	text, ok := p.scalar(n, "`relationships`", "write `relationships: |-` and one relationship a line, indented below it")
	if !ok || text == "" {
		return
	}
	lines := strings.Split(text, "\n")
	type place struct{ index, line int }
	seen := make(map[tuple.Key]place, len(lines))
	for i, line := range lines {
		written := strings.TrimSpace(line)
		if written == "" || strings.HasPrefix(written, "//") || strings.HasPrefix(written, "#") {
			continue
		}
		if p.full() {
			return
		}
		r, err := tuple.Parse(written)
		if err == nil {
			err = p.file.Schema.CheckRelationship(r)
		}
		column := utf8.RuneCountInString(line[:strings.Index(line, written)])
		if err == nil {
			if first, ok := seen[r.Key]; !ok {
				seen[r.Key] = place{len(p.file.Relationships), i}
				p.file.Relationships = append(p.file.Relationships, r)
			} else if !p.file.Relationships[first.index].Equal(r) {
				p.addAt(p.within(n, lines, i, column), written, "the relationship is given twice with different caveats or expirations",
					fmt.Sprintf("keep this one or that of line %d", p.within(n, lines, first.line, 0).Line), p.text)
			}
			continue
		}
		message, hint := explain(err)
		p.addAt(p.within(n, lines, i, column), written, message, hint, p.text)
	}
}

// explain takes an error of tuple or schema apart.
func explain(err error) (message, hint string) {
	var r *schema.RelationshipError
	if errors.As(err, &r) {
		return r.Message, r.Hint
	}
	return err.Error(), ""
}
