package loadtest

import (
	"math/rand/v2"

	"github.com/pembadb/pemba/tuple"
)

const documentsSchema = `
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

// documents are the flat and the deep world.
type documents struct {
	people            int
	members, children lists // users and groups of each group
	above, within     lists // groups of each user; groups that hold each group
	folders           []folder
	all               []document
	groups            groupsOf
}

// sharee is a user, or a group as its complement; nobody is none.
type sharee int32

const nobody = sharee(1<<31 - 1)

type folder struct {
	parent         int32 // -1: none
	viewer, editor sharee
}

type document struct {
	parent, owner int32
	viewer        sharee
	banned        int32 // -1: none
	public        bool
}

func newDocuments(shape Shape, size int, r *rand.Rand) *documents {
	d := &documents{people: size / 10}
	made := 0
	for g := range size/100 + 1 {
		made += d.group(g, shape, r)
	}
	folders, branches := size/50+1, max(2, size/5000)
	for f := range folders {
		made += d.folder(f, branches, shape, r)
	}
	for made < size {
		made += d.document(folders, r)
	}
	d.above, d.within = d.members.inverted(d.people), d.children.inverted(d.children.len())
	d.groups = groupsOf{user: -1, in: make([]int32, d.members.len())}
	return d
}

// sharee draws a person or a group.
func (d *documents) sharee(r *rand.Rand) sharee {
	if r.IntN(2) == 0 {
		return sharee(r.IntN(d.people))
	}
	return ^sharee(r.IntN(d.members.len()))
}

// group draws a group and returns how many relationships it has.
func (d *documents) group(g int, shape Shape, r *rand.Rand) int {
	var people, groups []int32
	for range 5 + r.IntN(26) {
		people = append(people, int32(r.IntN(d.people)))
	}
	if shape == Deep && g > 0 {
		for range r.IntN(4) {
			groups = append(groups, int32(r.IntN(g)))
		}
	}
	d.members.add(people)
	d.children.add(groups)
	return len(d.members.at(g)) + len(d.children.at(g))
}

func (d *documents) folder(n, branches int, shape Shape, r *rand.Rand) int {
	f, made := folder{parent: -1, editor: nobody}, 1
	if shape == Deep {
		if n > 0 {
			f.parent = int32(r.IntN(n))
		}
	} else if roots := max(1, branches/10); n >= roots {
		f.parent = int32(r.IntN(roots)) // of the second level
		if n >= branches {
			f.parent = int32(roots + r.IntN(branches-roots))
		}
	}
	if f.parent >= 0 {
		made++
	}
	f.viewer = d.sharee(r)
	if r.IntN(4) == 0 {
		f.editor = d.sharee(r)
		made++
	}
	d.folders = append(d.folders, f)
	return made
}

func (d *documents) document(folders int, r *rand.Rand) int {
	x, made := document{parent: int32(r.IntN(folders)), owner: int32(r.IntN(d.people)), banned: -1}, 3
	x.viewer = d.sharee(r)
	switch r.IntN(20) {
	case 0:
		x.public = true
		made++
	case 1, 2:
		x.banned = int32(r.IntN(d.people))
		made++
	}
	d.all = append(d.all, x)
	return made
}

func (d *documents) Schema() string { return documentsSchema }

func (d *documents) relationships(put func(tuple.Object, string, tuple.Subject) bool) {
	to := func(s sharee) tuple.Subject {
		if s < 0 {
			return of(object("group", int(^s)), "member")
		}
		return person(int(s))
	}
	for g := range d.members.len() {
		for _, u := range d.members.at(g) {
			if !put(object("group", g), "member", person(int(u))) {
				return
			}
		}
		for _, child := range d.children.at(g) {
			if !put(object("group", g), "member", of(object("group", int(child)), "member")) {
				return
			}
		}
	}
	for n, f := range d.folders {
		o := object("folder", n)
		if f.parent >= 0 && !put(o, "parent", tuple.Subject{Object: object("folder", int(f.parent))}) ||
			!put(o, "viewer", to(f.viewer)) ||
			f.editor != nobody && !put(o, "editor", to(f.editor)) {
			return
		}
	}
	for n, x := range d.all {
		o := d.resource(n)
		if !put(o, "parent", tuple.Subject{Object: object("folder", int(x.parent))}) ||
			!put(o, "owner", person(int(x.owner))) || !put(o, "viewer", to(x.viewer)) ||
			x.public && !put(o, "viewer", everybody) ||
			x.banned >= 0 && !put(o, "banned", person(int(x.banned))) {
			return
		}
	}
}

func (d *documents) users() int                  { return d.people }
func (d *documents) resources() int              { return len(d.all) }
func (d *documents) resource(i int) tuple.Object { return object("document", i) }
func (d *documents) permissions() []string       { return []string{"view"} }
func (d *documents) share() string               { return "viewer" }

func (d *documents) shared(i int, r *rand.Rand) int {
	if x := d.all[i]; x.viewer >= 0 && r.IntN(2) == 0 {
		return int(x.viewer)
	}
	return int(d.all[i].owner)
}

// neighbour is anybody: the questions of these worlds are two times of three about
// people at random.
func (d *documents) neighbour(_ int, r *rand.Rand) int { return r.IntN(d.people) }

func (d *documents) has(i, _, u int) bool {
	x := d.all[i]
	if int(x.banned) == u {
		return false
	}
	if x.public || int(x.owner) == u || d.is(u, x.viewer) {
		return true
	}
	for f := x.parent; f >= 0; f = d.folders[f].parent {
		if d.is(u, d.folders[f].viewer) || d.is(u, d.folders[f].editor) {
			return true
		}
	}
	return false
}

// is reports whether u is s or in it.
func (d *documents) is(u int, s sharee) bool {
	if s >= 0 {
		return int(s) == u
	}
	if u >= d.people {
		return false
	}
	return d.groups.of(u, &d.above, &d.within)[^s] == d.groups.epoch
}

// groupsOf remembers the groups of the user asked about last: in holds the epoch
// for each of them.
type groupsOf struct {
	user  int
	epoch int32
	in    []int32
	queue []int32
}

// of marks the groups that user u is in: above are those that name it, within
// those that hold a group.
func (g *groupsOf) of(u int, above, within *lists) []int32 {
	if g.user == u {
		return g.in
	}
	g.user = u
	g.epoch++
	g.queue = append(g.queue[:0], above.at(u)...)
	for len(g.queue) > 0 {
		x := g.queue[len(g.queue)-1]
		g.queue = g.queue[:len(g.queue)-1]
		if g.in[x] != g.epoch {
			g.in[x] = g.epoch
			g.queue = append(g.queue, within.at(int(x))...)
		}
	}
	return g.in
}
