package schema

import (
	"fmt"
	"iter"
	"slices"
)

// MaxNames is how many names a store can ever have: types, relations,
// permissions and caveats of all its schemas, each text once.
const MaxNames = 65_535

// Names gives names their small ids: the append-only table of a store. It is
// not safe for concurrent use while it is added to; [Names.Clone] it to add.
type Names struct {
	texts []string // by Name, from 1
	ids   map[string]Name
}

// NewNames returns an empty table.
func NewNames() *Names { return &Names{texts: []string{""}, ids: map[string]Name{}} }

// ID returns the Name of a text, if it has one.
func (n *Names) ID(text string) (Name, bool) {
	id, ok := n.ids[text]
	return id, ok
}

// Text returns the text of a Name; empty if there is no such Name.
func (n *Names) Text(name Name) string {
	if int(name) < len(n.texts) {
		return n.texts[name]
	}
	return ""
}

// Add returns the Name of a text, giving it the next free one if it has none.
// It fails when the table is full, and then adds nothing.
func (n *Names) Add(text string) (Name, error) {
	if id, ok := n.ids[text]; ok {
		return id, nil
	}
	if text == "" {
		return 0, fmt.Errorf("an empty text cannot be a name")
	}
	if n.Len() >= MaxNames {
		return 0, errNamesFull(text)
	}
	id := Name(len(n.texts))
	n.texts = append(n.texts, text)
	n.ids[text] = id
	return id, nil
}

func errNamesFull(text string) error {
	return fmt.Errorf("no room for the name %s: a store holds at most %d names of types, relations, "+
		"permissions and caveats over its life; use fewer names, or start a new store", quote(text), MaxNames)
}

// Clone returns a copy that can be added to without changing n.
func (n *Names) Clone() *Names {
	c := &Names{texts: slices.Clone(n.texts), ids: make(map[string]Name, len(n.ids))}
	for text, id := range n.ids {
		c.ids[text] = id
	}
	return c
}

// Len returns how many names there are. Names run from 1 to Len.
func (n *Names) Len() int { return len(n.texts) - 1 }

// All yields every Name with its text, in order: adding the texts to an empty
// table in this order gives the same table.
func (n *Names) All() iter.Seq2[Name, string] {
	return func(yield func(Name, string) bool) {
		for i := 1; i < len(n.texts); i++ {
			if !yield(Name(i), n.texts[i]) {
				return
			}
		}
	}
}
