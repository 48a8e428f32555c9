// Package loadtest makes the worlds in which Pemba's speed is measured.
package loadtest

import (
	"fmt"
	"iter"
	"math/rand/v2"

	"github.com/pembadb/pemba/tuple"
)

// Schema is the schema of every world: documents in folders, shared with people
// and groups, some public, some people banned.
const Schema = `
definition user {}

definition group {
  relation member: user | group#member
}

definition folder {
  relation parent: folder
  relation viewer: user | group#member
  relation editor: user | group#member

  permission edit = editor + parent->edit
  permission view = viewer + edit + parent->view
}

definition document {
  relation parent: folder
  relation owner: user
  relation viewer: user | user:* | group#member
  relation banned: user

  permission edit = (owner + parent->edit) - banned
  permission view = (owner + viewer + parent->view) - banned
}
`

// Shape is how folders and groups nest.
type Shape string

const (
	// Flat has three levels of folders, and groups of 5 to 30 people.
	Flat Shape = "flat"
	// Deep has a random tree of folders, about ten deep, and groups that each hold
	// up to three others besides their people: a graph many levels deep.
	Deep Shape = "deep"
)

// World is a random world, the same for the same arguments.
type World struct {
	shape                            Shape
	size                             int
	seed                             uint64
	users, groups, folders, branches int
	// grants are documents with somebody they were shared with directly.
	grants []grant
}

type grant struct{ document, user int32 }

// NewWorld makes a world of about size relationships, 1,000 or more.
func NewWorld(shape Shape, size int, seed uint64) *World {
	w := &World{shape: shape, size: size, seed: seed,
		users: size / 10, groups: size/100 + 1, folders: size/50 + 1, branches: max(2, size/5000)}
	for r := range w.Relationships() {
		if r.Object.Type == "document" && r.Subject.Type == "user" && !r.Subject.IsWildcard() && r.Relation != "banned" {
			var g grant
			fmt.Sscanf(r.Object.ID, documentID, &g.document)
			fmt.Sscanf(r.Subject.ID, userID, &g.user)
			w.grants = append(w.grants, g)
		}
	}
	return w
}

// Ids have 20 bytes.
const (
	userID     = "user-%015d"
	groupID    = "group-%014d"
	folderID   = "folder-%013d"
	documentID = "document-%011d"
)

func user(i int) tuple.Subject {
	return tuple.Subject{Object: tuple.Object{Type: "user", ID: fmt.Sprintf(userID, i)}}
}

func group(i int) tuple.Object  { return tuple.Object{Type: "group", ID: fmt.Sprintf(groupID, i)} }
func folder(i int) tuple.Object { return tuple.Object{Type: "folder", ID: fmt.Sprintf(folderID, i)} }
func document(i int) tuple.Object {
	return tuple.Object{Type: "document", ID: fmt.Sprintf(documentID, i)}
}

func members(i int) tuple.Subject { return tuple.Subject{Object: group(i), Relation: "member"} }

// Relationships yields all relationships of the world, each once.
func (w *World) Relationships() iter.Seq[tuple.Relationship] {
	return func(yield func(tuple.Relationship) bool) {
		m := &maker{world: w, r: rand.New(rand.NewPCG(w.seed, 1)), yield: yield, seen: map[tuple.Key]bool{}}
		for g := 0; g < w.groups && !m.done; g++ {
			m.group(g)
		}
		for f := 0; f < w.folders && !m.done; f++ {
			m.folder(f)
		}
		for d := 0; m.made < w.size && !m.done; d++ {
			m.document(d)
		}
	}
}

// maker writes the relationships of one object after the other.
type maker struct {
	world *World
	r     *rand.Rand
	yield func(tuple.Relationship) bool
	seen  map[tuple.Key]bool // of the object under way
	made  int
	done  bool
}

func (m *maker) put(o tuple.Object, relation string, s tuple.Subject) {
	k := tuple.Key{Object: o, Relation: relation, Subject: s}
	if m.done || m.seen[k] {
		return
	}
	m.seen[k] = true
	m.made++
	m.done = !m.yield(tuple.Relationship{Key: k})
}

func (m *maker) user() tuple.Subject { return user(m.r.IntN(m.world.users)) }

// share grants a relation to a person or a group.
func (m *maker) share(o tuple.Object, relation string) {
	if m.r.IntN(2) == 0 {
		m.put(o, relation, m.user())
	} else {
		m.put(o, relation, members(m.r.IntN(m.world.groups)))
	}
}

func (m *maker) group(g int) {
	clear(m.seen)
	for range 5 + m.r.IntN(26) {
		m.put(group(g), "member", m.user())
	}
	if m.world.shape == Deep && g > 0 {
		for range m.r.IntN(4) {
			m.put(group(g), "member", members(m.r.IntN(g)))
		}
	}
}

func (m *maker) folder(f int) {
	clear(m.seen)
	w := m.world
	if w.shape == Deep {
		if f > 0 {
			m.put(folder(f), "parent", tuple.Subject{Object: folder(m.r.IntN(f))})
		}
	} else if roots := max(1, w.branches/10); f >= roots {
		above := m.r.IntN(roots) // of the second level
		if f >= w.branches {
			above = roots + m.r.IntN(w.branches-roots)
		}
		m.put(folder(f), "parent", tuple.Subject{Object: folder(above)})
	}
	m.share(folder(f), "viewer")
	if m.r.IntN(4) == 0 {
		m.share(folder(f), "editor")
	}
}

func (m *maker) document(d int) {
	clear(m.seen)
	m.put(document(d), "parent", tuple.Subject{Object: folder(m.r.IntN(m.world.folders))})
	m.put(document(d), "owner", m.user())
	m.share(document(d), "viewer")
	switch m.r.IntN(20) {
	case 0:
		m.put(document(d), "viewer", tuple.Subject{Object: tuple.Object{Type: "user", ID: tuple.Wildcard}})
	case 1, 2:
		m.put(document(d), "banned", m.user())
	}
}

// Question asks whether somebody may view a document: two times of three about
// any two of them, so that most answers are no, and once about somebody with
// whom it was shared directly.
func (w *World) Question(r *rand.Rand) (resource tuple.Object, permission string, subject tuple.Subject) {
	g := w.grants[r.IntN(len(w.grants))]
	if r.IntN(3) > 0 {
		g.user = int32(r.IntN(w.users))
	}
	return document(int(g.document)), "view", user(int(g.user))
}
