package graph

import (
	"fmt"
	"slices"
	"strings"
)

// resolve settles what goes in circles. Everything the root needs has been
// looked at, and what is still open depends on itself. The strongly connected
// parts are taken from the bottom up; each gets the least fixpoint of its
// equations, and where exclusions take part in the circle, their well-founded
// model (Van Gelder, Ross, Schlipf 1991) by alternating fixpoints.
func (e *engine) resolve(root int32) {
	for _, part := range e.components(root) {
		part = slices.DeleteFunc(part, func(i int32) bool { return e.nodes[i].state == final })
		if len(part) > 0 {
			e.fixpoint(part)
		}
		if e.nodes[root].state == final {
			return
		}
	}
}

// components returns the strongly connected components of the open nodes that
// root needs, each before those that depend on it (Tarjan 1972, without
// recursion).
func (e *engine) components(root int32) [][]int32 {
	type frame struct{ node, link int32 }
	index, low := map[int32]int32{}, map[int32]int32{}
	onStack := map[int32]bool{}
	var stack []int32
	var out [][]int32
	enter := func(i int32) frame {
		index[i] = int32(len(index))
		low[i] = index[i]
		stack = append(stack, i)
		onStack[i] = true
		return frame{node: i}
	}
	for frames := []frame{enter(root)}; len(frames) > 0; {
		f := &frames[len(frames)-1]
		n := &e.nodes[f.node]
		if f.link < n.links.count {
			l := &e.linksOf(n)[f.link]
			f.link++
			if l.counted || e.nodes[l.to].state == final {
				continue
			}
			if _, seen := index[l.to]; !seen {
				frames = append(frames, enter(l.to))
			} else if onStack[l.to] {
				low[f.node] = min(low[f.node], index[l.to])
			}
			continue
		}
		i := f.node
		frames = frames[:len(frames)-1]
		if len(frames) > 0 {
			parent := frames[len(frames)-1].node
			low[parent] = min(low[parent], low[i])
		}
		if low[i] == index[i] {
			at := slices.Index(stack, i)
			part := slices.Clone(stack[at:])
			stack = stack[:at]
			for _, j := range part {
				onStack[j] = false
			}
			out = append(out, part)
		}
	}
	return out
}

// system is the equations of one component.
type system struct {
	e     *engine
	part  []int32
	local map[int32]int // node to its place in part
	users map[int][]int // place to the places that depend on it
	bound [2][]level    // bounds found so far: lower and upper
}

func (e *engine) fixpoint(part []int32) {
	s := &system{e: e, part: part, local: make(map[int32]int, len(part)), users: make(map[int][]int, len(part))}
	for p, i := range part {
		s.local[i] = p
	}
	for p, i := range part {
		links := e.linksOf(&e.nodes[i])
		for j := range links {
			l := &links[j]
			if q, ok := s.local[l.to]; ok && !l.counted {
				s.users[q] = append(s.users[q], p)
			}
		}
	}
	s.bound = [2][]level{make([]level, len(part)), make([]level, len(part))}
	for p := range part {
		s.bound[1][p] = yes
	}
	for {
		lower := s.least(0, s.bound[1])
		upper := s.least(1, lower)
		same := slices.Equal(lower, s.bound[0]) && slices.Equal(upper, s.bound[1])
		s.bound = [2][]level{lower, upper}
		if same {
			break
		}
	}
	s.settle()
}

// least is the least fixpoint of one end of the intervals, with what stands
// behind a minus fixed at the other end.
func (s *system) least(end int, excluded []level) []level {
	at := make([]level, len(s.part))
	work := make([]int, len(s.part))
	for p := range work {
		work[p] = p
	}
	queued := make([]bool, len(s.part))
	for p := range queued {
		queued[p] = true
	}
	for len(work) > 0 {
		p := work[len(work)-1]
		work = work[:len(work)-1]
		queued[p] = false
		v := s.eval(p, end, at, excluded)
		if v == at[p] {
			continue
		}
		at[p] = v
		for _, u := range s.users[p] {
			if !queued[u] {
				queued[u] = true
				work = append(work, u)
			}
		}
	}
	return at
}

func end(v value, which int) level {
	if which == 0 {
		return v.lo
	}
	return v.hi
}

func (s *system) eval(p, which int, at, excluded []level) level {
	n := &s.e.nodes[s.part[p]]
	links := s.e.linksOf(n)
	// of is one end of a link's value; below a minus the other end counts.
	of := func(l *link, which int, at []level) level {
		var v level
		if q, ok := s.local[l.to]; ok && !l.counted {
			v = at[q]
		} else {
			v = end(s.e.nodes[l.to].value, which)
		}
		if l.guard != nil {
			v = min(v, end(l.guard.value, which))
		}
		return v
	}
	if n.op == butNot {
		return min(of(&links[0], which, at), not(of(&links[1], 1-which, excluded)))
	}
	v := end(n.sum, which)
	for j := range links {
		l := &links[j]
		if l.counted {
			continue // part of the sum
		}
		if n.op == anyOf {
			v = max(v, of(l, which, at))
		} else {
			v = min(v, of(l, which, at))
		}
	}
	return v
}

// settle makes the component's nodes final, with the fields that conditional
// ones lack and the reason why open ones stay open.
func (s *system) settle() {
	e := s.e
	values := make([]value, len(s.part))
	missing := make([][]string, len(s.part))
	var cause error
	for p, i := range s.part {
		n := &e.nodes[i]
		values[p] = value{s.bound[0][p], s.bound[1][p]}
		missing[p] = n.missing
		cause = first(cause, n.err)
		for _, l := range e.linksOf(n) {
			if !l.counted && l.guard != nil {
				cause = first(cause, l.guard.err)
			}
		}
	}
	for changed := true; changed; {
		changed = false
		for p, i := range s.part {
			before := len(missing[p])
			for _, l := range e.linksOf(&e.nodes[i]) {
				q, inside := s.local[l.to]
				if !inside || l.counted {
					continue
				}
				v, lacks := values[q], missing[q]
				if v.settled() {
					lacks = nil
				}
				if l.guard != nil {
					if v = v.and(l.guard.value); v.settled() {
						continue
					}
					lacks = merge(lacks, l.guard.missing)
				}
				missing[p] = merge(missing[p], lacks)
			}
			changed = changed || len(missing[p]) != before
		}
	}
	if cause == nil {
		cause = s.recursion(values)
	}
	for p, i := range s.part {
		if e.nodes[i].state != final {
			e.settle(i, values[p], missing[p], cause)
		}
	}
	for _, i := range s.part {
		e.announce(i)
	}
}

// recursion names the circle that leaves values open.
func (s *system) recursion(values []value) error {
	const shown = 5
	var names []string
	for p, i := range s.part {
		if n := &s.e.nodes[i]; !values[p].decided() && n.part.relation != nil {
			names = append(names, s.e.view.Object(n.object).String()+"#"+n.part.relation.Text)
		}
	}
	slices.Sort(names)
	more := ""
	if len(names) > shown {
		more = fmt.Sprintf(" and %d more", len(names)-shown)
		names = names[:shown]
	}
	return fmt.Errorf("%w: %s%s; take the exclusion out of the circle", ErrRecursion, strings.Join(names, ", "), more)
}
