// Package loadtest measures Pemba: it makes worlds of any size whose answers are
// known, drives servers with them, checks every answer, and reports what it took.
package loadtest

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"

	"github.com/pembadb/pemba/tuple"
)

// Shape names a kind of world.
type Shape string

const (
	// Flat is documents in three levels of folders, shared with people and with
	// groups of 5 to 30 people, some public, some people banned.
	Flat Shape = "flat"
	// Deep is the same with a random tree of folders, about ten deep, and groups
	// that each hold up to three others besides their people: a graph many levels
	// deep.
	Deep Shape = "deep"
	// Organizations is organizations with nested teams, repositories, and people
	// from outside who work on some of them.
	Organizations Shape = "organizations"
	// Social is people who follow and block one another, and posts for followers,
	// friends, everybody, or communities, a few of which hold a tenth of all people.
	Social Shape = "social"
	// Tenants is many small tenants that share nothing.
	Tenants Shape = "tenants"
)

// Shapes are all there are.
var Shapes = []Shape{Flat, Deep, Organizations, Social, Tenants}

// minSize is the fewest relationships that give every world each of its parts.
const minSize = 1000

// World is a random world, the same for the same arguments. It answers questions
// about itself in its own terms, by looking into the lists it was drawn as,
// without a schema and without a graph. Its methods are not safe for concurrent
// use.
type World struct {
	domain
	shape Shape
	size  int
	seed  uint64
}

// domain is what differs between worlds. Resources and users are counted from 0.
type domain interface {
	// Schema is the schema of the world, in the language of .zed files.
	Schema() string
	// relationships calls put for each relationship once, until it returns false.
	relationships(put func(o tuple.Object, relation string, s tuple.Subject) bool)
	users() int
	resources() int
	resource(i int) tuple.Object
	// permissions are those that questions ask about; share is the relation that
	// gives a user the first of them.
	permissions() []string
	share() string
	// shared is somebody to whom resource i gives something without a detour.
	shared(i int, r *rand.Rand) int
	// has reports whether user u has permission p of permissions on resource i.
	// Users beyond users() are strangers of whom nothing is written.
	has(i, p, u int) bool
	// forms relates users who have much in common to resource i: one of them.
	neighbour(i int, r *rand.Rand) int
}

// NewWorld makes a world of about size relationships; fewer than 1,000 are 1,000.
// The seed draws it.
func NewWorld(shape Shape, size int, seed uint64) (*World, error) {
	w := &World{shape: shape, size: max(size, minSize), seed: seed}
	r := rand.New(rand.NewPCG(seed, 1))
	switch shape {
	case Flat, Deep:
		w.domain = newDocuments(shape, w.size, r)
	case Organizations:
		w.domain = newOrganizations(w.size, r)
	case Social:
		w.domain = newSocial(w.size, r)
	case Tenants:
		w.domain = newTenants(w.size, r)
	default:
		return nil, fmt.Errorf("there is no world %q; choose one of %v", shape, Shapes)
	}
	return w, nil
}

// Shape is the kind of world.
func (w *World) Shape() Shape { return w.shape }

// Relationships yields all relationships of the world, each once, always in the
// same order.
func (w *World) Relationships() iter.Seq[tuple.Relationship] {
	return func(yield func(tuple.Relationship) bool) {
		w.relationships(func(o tuple.Object, relation string, s tuple.Subject) bool {
			return yield(tuple.Relationship{Key: tuple.Key{Object: o, Relation: relation, Subject: s}})
		})
	}
}

// Question asks whether a subject has a permission on a resource.
type Question struct {
	Resource   tuple.Object
	Permission string
	Subject    tuple.Subject
	Has        bool // what is right
}

// Picker draws one of n things: 0 to n-1.
type Picker func(r *rand.Rand, n int) int

// Uniform picks each thing equally often.
func Uniform(r *rand.Rand, n int) int { return r.IntN(n) }

// Zipf picks the i-th most popular of n things in proportion to i^-s; s is
// greater than 1. Which things are popular has nothing to do with their number.
func Zipf(s float64) Picker {
	var last *rand.Zipf
	var of *rand.Rand
	var size int
	return func(r *rand.Rand, n int) int {
		if last == nil || of != r || size != n {
			last, of, size = rand.NewZipf(r, s, 1, uint64(n-1)), r, n
		}
		// A multiplier without a factor in common with n scatters the popular ones.
		const prime = 2654435761
		return int(last.Uint64() * prime % uint64(n))
	}
}

// Question draws a question: two times of three about anybody, so that most
// answers are no, and once about somebody with whom the resource was shared
// directly.
func (w *World) Question(r *rand.Rand) Question { return w.QuestionAbout(r, Uniform) }

// QuestionAbout is Question with a choice of which resources are asked about.
func (w *World) QuestionAbout(r *rand.Rand, pick Picker) Question {
	i := pick(r, w.resources())
	var u int
	switch r.IntN(3) {
	case 0:
		u = w.shared(i, r)
	case 1:
		u = w.neighbour(i, r)
	default:
		u = r.IntN(w.users())
	}
	p := r.IntN(len(w.permissions()))
	return Question{Resource: w.resource(i), Permission: w.permissions()[p], Subject: person(u), Has: w.has(i, p, u)}
}

// Lookup asks for the resources on which a subject has a permission.
type Lookup struct {
	ResourceType string
	Permission   string
	Subject      tuple.Subject
	Resources    []string // what is right: ids in order of their bytes
}

// Lookup draws a lookup and finds what is right by asking about every resource.
func (w *World) Lookup(r *rand.Rand) Lookup {
	u := w.shared(r.IntN(w.resources()), r)
	l := Lookup{ResourceType: w.resource(0).Type, Permission: w.permissions()[0], Subject: person(u)}
	for i := range w.resources() {
		if w.has(i, 0, u) {
			l.Resources = append(l.Resources, w.resource(i).ID)
		}
	}
	slices.Sort(l.Resources)
	return l
}

// Place is a resource that can be shared with a stranger.
type Place struct {
	Resource   tuple.Object
	Relation   string // shares it
	Permission string // that it gives
	Everybody  bool   // has the permission already
}

// Place draws a place. Sharing it with a stranger changes no answer about others.
func (w *World) Place(r *rand.Rand, pick Picker) Place {
	i := pick(r, w.resources())
	return Place{Resource: w.resource(i), Relation: w.share(), Permission: w.permissions()[0], Everybody: w.has(i, 0, w.users())}
}

// Stranger is a user of whom the world says nothing.
func Stranger(n int) tuple.Subject {
	return tuple.Subject{Object: tuple.Object{Type: "user", ID: fmt.Sprintf("guest-%014d", n)}}
}

// person is a user as a subject. Ids have 20 bytes.
func person(u int) tuple.Subject {
	return tuple.Subject{Object: tuple.Object{Type: "user", ID: fmt.Sprintf("user-%015d", u)}}
}

// everybody is all users.
var everybody = tuple.Subject{Object: tuple.Object{Type: "user", ID: tuple.Wildcard}}

// object is the i-th object of a type; with types of a few letters its id has 20
// bytes.
func object(typ string, i int) tuple.Object {
	return tuple.Object{Type: typ, ID: fmt.Sprintf("%s-%0*d", typ, max(1, 19-len(typ)), i)}
}

// of is a userset.
func of(o tuple.Object, relation string) tuple.Subject {
	return tuple.Subject{Object: o, Relation: relation}
}

// lists are lists of numbers, one behind the other.
type lists struct {
	ends []int32
	all  []int32
}

// add appends a list; what it holds twice it keeps once.
func (l *lists) add(list []int32) {
	from := len(l.all)
	for _, x := range list {
		if !slices.Contains(l.all[from:], x) {
			l.all = append(l.all, x)
		}
	}
	l.ends = append(l.ends, int32(len(l.all)))
}

func (l *lists) len() int { return len(l.ends) }

func (l *lists) at(i int) []int32 {
	if i == 0 {
		return l.all[:l.ends[0]]
	}
	return l.all[l.ends[i-1]:l.ends[i]]
}

// inverted lists, for each number below n, the lists that hold it.
func (l *lists) inverted(n int) lists {
	counts := make([]int32, n)
	for _, x := range l.all {
		counts[x]++
	}
	out := lists{ends: make([]int32, n), all: make([]int32, len(l.all))}
	next := make([]int32, n)
	var sum int32
	for x, c := range counts {
		next[x] = sum
		sum += c
		out.ends[x] = sum
	}
	for i := range l.len() {
		for _, x := range l.at(i) {
			out.all[next[x]] = int32(i)
			next[x]++
		}
	}
	return out
}
