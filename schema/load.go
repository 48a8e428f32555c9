package schema

import (
	"fmt"
	"path"
	"sort"
	"strings"
)

const (
	maxImportDepth  = 100
	maxPartialDepth = 100
	// maxStatements bounds what partials expand to, all definitions together.
	maxStatements = 1_000_000
)

// program is a schema with imports followed and partials put in their places.
type program struct {
	root        *File
	files       []*File // an imported file stands before the one that imports it
	definitions []*expandedDefinition
	caveats     []*CaveatDecl
	partials    []*DefinitionDecl
	used        map[*DefinitionDecl]bool // partials
	// composed reports that the root alone is not the whole schema, or that it
	// has partials: what a server takes is the expanded text.
	composed bool
}

// expandedDefinition is a definition with the statements of its partials.
type expandedDefinition struct {
	*DefinitionDecl
	statements []Statement
}

// load parses a source and all it imports, and expands partials.
func load(src Source, opts Options, r *report) *program {
	l := &loader{opts: opts, report: r, left: opts.maxBytes(), done: map[string]bool{},
		folder: path.Dir(strings.ReplaceAll(src.Name, `\`, "/"))}
	p := &program{used: map[*DefinitionDecl]bool{}}
	l.program = p
	p.root = l.file(src, path.Base(strings.ReplaceAll(src.Name, `\`, "/")))
	if !r.incomplete {
		p.expand(r)
		p.checkFlags(r)
	}
	return p
}

type loader struct {
	opts    Options
	report  *report
	program *program
	folder  string // of the root source
	left    int    // bytes that may still be read
	done    map[string]bool
	trail   []string // files being read, the root first; relative to folder
}

// file parses a source and what it imports. name is relative to the folder.
func (l *loader) file(src Source, name string) *File {
	l.trail = append(l.trail, name)
	f := parseFile(src, l.left, l.report)
	l.left -= len(src.Text)
	for _, d := range f.Declarations {
		if i, ok := d.(*Import); ok {
			l.program.composed = true
			l.importFile(i, name)
		}
	}
	l.trail = l.trail[:len(l.trail)-1]
	l.done[name] = true
	l.program.files = append(l.program.files, f)
	return f
}

func (l *loader) importFile(i *Import, from string) {
	fail := func(message, hint string) {
		l.report.incomplete = true
		l.report.add(i.Pos, "import", message, hint)
	}
	name := path.Join(path.Dir(from), i.Path)
	switch {
	case i.Path == "":
		fail("the import names no file", "write `import \"./other.zed\"`")
		return
	case path.IsAbs(i.Path) || name == ".." || strings.HasPrefix(name, "../"):
		fail("the import "+quote(i.Path)+" lies outside the folder of the schema", "import files of that folder or below it only")
		return
	case l.opts.Open == nil:
		fail("imports cannot be followed here", "expand the schema into one text first")
		return
	}
	for at, open := range l.trail {
		if open == name {
			fail("imports go round in a circle: "+strings.Join(append(l.trail[at:len(l.trail):len(l.trail)], name), " → "),
				"move what both need into a third file")
			return
		}
	}
	if l.done[name] || l.report.full() {
		return
	}
	if len(l.trail) >= maxImportDepth {
		fail(fmt.Sprintf("imports nest more than %d deep", maxImportDepth), "import files more directly")
		return
	}
	full := path.Join(l.folder, name)
	text, err := l.opts.Open(full)
	if err != nil {
		fail("cannot read the import "+quote(i.Path)+": "+err.Error(), "the path is relative to the importing file")
		return
	}
	if len(text) > l.left {
		fail(fmt.Sprintf("the schema and its imports have more than %d bytes", l.opts.maxBytes()),
			"make them smaller or raise the limit of schema bytes")
		return
	}
	l.file(Source{Name: full, Text: text}, name)
}

// expand gathers the declarations of all files and expands partials.
func (p *program) expand(r *report) {
	partials := map[string]*DefinitionDecl{}
	others := map[string]bool{} // definitions and caveats
	for _, f := range p.files {
		for _, d := range f.Declarations {
			switch d := d.(type) {
			case *CaveatDecl:
				p.caveats = append(p.caveats, d)
				others[d.Name] = true
			case *DefinitionDecl:
				if !d.Partial {
					others[d.Name] = true
					p.definitions = append(p.definitions, &expandedDefinition{DefinitionDecl: d})
					continue
				}
				p.composed = true
				if first := partials[d.Name]; first != nil {
					r.add(d.NamePos, d.Name, "partial "+quote(d.Name)+" is declared twice",
						"the first is at "+first.NamePos.String()+"; rename or remove one")
					continue
				}
				partials[d.Name] = d
				p.partials = append(p.partials, d)
			}
		}
	}
	e := &expander{program: p, report: r, partials: partials, others: others, expanded: map[*DefinitionDecl][]Statement{}}
	for _, d := range p.definitions {
		d.statements = e.statements(d.DefinitionDecl)
	}
	for _, d := range p.partials { // for their errors, also when nothing uses them
		e.statements(d)
	}
}

type expander struct {
	*program
	report   *report
	partials map[string]*DefinitionDecl
	others   map[string]bool
	expanded map[*DefinitionDecl][]Statement // of partials
	trail    []*DefinitionDecl
	total    int
}

// statements returns those of a definition or partial with partials expanded.
// A name that occurs twice is reported and left out, so that partials that
// include each other twice cannot grow without bound.
func (e *expander) statements(d *DefinitionDecl) []Statement {
	if done, ok := e.expanded[d]; ok {
		return done
	}
	e.trail = append(e.trail, d)
	out := make([]Statement, 0, len(d.Statements))
	names := make(map[string]Position, len(d.Statements))
	add := func(s Statement, at Position) {
		e.total++
		name, pos := declared(s)
		if first, ok := names[name]; ok {
			message := fmt.Sprintf("%s is declared twice in %s", quote(name), quote(d.Name))
			hint := "the first is at " + first.String() + "; rename or remove one"
			if at != (Position{}) {
				e.report.add(at, "...", message+", here by including a partial", hint)
			} else {
				e.report.add(pos, name, message, hint)
			}
			return
		}
		names[name] = pos
		out = append(out, s)
	}
	for _, s := range d.Statements {
		ref, ok := s.(*PartialRef)
		if !ok {
			add(s, Position{})
			continue
		}
		e.composed = true
		for _, inner := range e.partial(ref) {
			if e.total > maxStatements {
				e.report.add(ref.Pos, "...", fmt.Sprintf("partials expand to more than %d statements", maxStatements), "use fewer")
				break
			}
			add(inner, ref.Pos)
		}
	}
	e.trail = e.trail[:len(e.trail)-1]
	if d.Partial {
		e.expanded[d] = out
	}
	return out
}

// partial returns the statements that a reference stands for.
func (e *expander) partial(ref *PartialRef) []Statement {
	fail := func(message, hint string) []Statement {
		e.report.incomplete = true
		e.report.add(ref.Pos, "..."+ref.Name, message, hint)
		return nil
	}
	d := e.partials[ref.Name]
	if d == nil {
		if e.others[ref.Name] {
			return fail(quote(ref.Name)+" is not a partial", "only what is declared with `partial` can be included")
		}
		names := make([]string, 0, len(e.partials))
		for name := range e.partials {
			names = append(names, name)
		}
		sort.Strings(names)
		return fail("there is no partial "+quote(ref.Name), didYouMean(ref.Name, names, "declare `partial "+ref.Name+" { … }`"))
	}
	e.used[d] = true
	for i, open := range e.trail {
		if open == d {
			var names []string
			for _, t := range e.trail[i:] {
				names = append(names, t.Name)
			}
			return fail("partials include each other in a circle: "+strings.Join(append(names, d.Name), " → "), "break the circle")
		}
	}
	if len(e.trail) > maxPartialDepth {
		return fail(fmt.Sprintf("partials nest more than %d deep", maxPartialDepth), "include them more directly")
	}
	return e.statements(d)
}

// declared returns the name that a relation or permission declares.
func declared(s Statement) (string, Position) {
	switch s := s.(type) {
	case *RelationDecl:
		return s.Name, s.NamePos
	case *PermissionDecl:
		return s.Name, s.NamePos
	}
	return "", s.node().Pos
}

// checkFlags refuses files of one schema of which one makes a word special that
// another uses as a name: their common text would have another meaning.
func (p *program) checkFlags(r *report) {
	uses := map[string]string{}
	for _, f := range p.files {
		for flag := range f.flags {
			uses[flag] = f.Name
		}
	}
	conflict := func(pos Position, name, flag string) {
		r.add(pos, name, fmt.Sprintf("%s is a name here, and a keyword in %s by `use %s`", quote(name), uses[flag], flag),
			"choose another name")
	}
	if uses[flagExpiration] != "" {
		for _, c := range p.caveats {
			if c.Name == flagExpiration {
				conflict(c.NamePos, c.Name, flagExpiration)
			}
		}
	}
	if uses[flagSelf] != "" {
		for _, d := range p.definitions {
			for _, s := range d.statements {
				if name, pos := declared(s); name == "self" {
					conflict(pos, name, flagSelf)
				}
			}
		}
	}
}

// file returns the whole program as one file without imports and partials.
func (p *program) file() *File {
	if !p.composed {
		return p.root
	}
	out := &File{Name: p.root.Name}
	for _, flag := range []string{flagExpiration, flagSelf, flagTypechecking} {
		for _, f := range p.files {
			if f.flags[flag] {
				out.Declarations = append(out.Declarations, &Use{Flag: flag})
				break
			}
		}
	}
	expanded := map[*DefinitionDecl][]Statement{}
	for _, d := range p.definitions {
		expanded[d.DefinitionDecl] = d.statements
	}
	for _, f := range p.files {
		for _, d := range f.Declarations {
			switch d := d.(type) {
			case *CaveatDecl:
				out.Declarations = append(out.Declarations, d)
			case *DefinitionDecl:
				if !d.Partial {
					whole := *d
					whole.Statements = expanded[d]
					out.Declarations = append(out.Declarations, &whole)
				}
			}
		}
	}
	return out
}

// Expand returns a schema with its imports and partials resolved: one text that
// stands alone, in canonical form. The error is an [Errors].
func Expand(src Source, opts Options) (string, error) {
	var r report
	p := load(src, opts, &r)
	if err := r.err(); err != nil {
		return "", err
	}
	return formatFile(p.file()), nil
}
