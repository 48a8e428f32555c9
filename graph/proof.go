package graph

import (
	"container/heap"
	"errors"
	"slices"
)

// prove chooses for each claim what it rests on, so that no yes rests on itself.
// The strongly connected parts are taken from the bottom up; in each, grants are
// proved by the fewest relationships first (Knuth 1977, a generalization of
// Dijkstra's algorithm), and denials as the largest set in which each needs only
// others of the set or what is proved. Where grants and denials of one part need
// each other, that alternates, as the well-founded model does.
func (x *explainer) prove() error {
	turn := 0
	for _, part := range x.parts() {
		left := slices.DeleteFunc(slices.Clone(part), func(i int) bool {
			c := &x.claims[i]
			if c.value != isYes && c.value != isNo {
				c.proved = true // conditional and open ones prove nothing
			}
			return c.proved
		})
		for len(left) > 0 {
			before := len(left)
			turn = x.grant(left, turn)
			left = slices.DeleteFunc(left, func(i int) bool { return x.claims[i].proved })
			turn = x.deny(left, turn)
			left = slices.DeleteFunc(left, func(i int) bool { return x.claims[i].proved })
			if len(left) == before {
				return errors.New("graph: an answer has no proof; this is a fault of pemba, please report it")
			}
		}
	}
	return nil
}

// parts returns the strongly connected parts of the claims, each before those
// that need it (Tarjan 1972, without recursion).
func (x *explainer) parts() [][]int {
	needed := make([][]int, len(x.claims))
	for i := range x.claims {
		for _, o := range x.claims[i].options {
			for _, n := range o.needs {
				if n.claim >= 0 {
					needed[i] = append(needed[i], n.claim)
				}
			}
		}
	}
	type frame struct{ claim, next int }
	index, low := make([]int, len(x.claims)), make([]int, len(x.claims))
	onStack := make([]bool, len(x.claims))
	var stack []int
	var out [][]int
	count := 0
	enter := func(i int) frame {
		count++
		index[i], low[i], onStack[i] = count, count, true
		stack = append(stack, i)
		return frame{claim: i}
	}
	for frames := []frame{enter(0)}; len(frames) > 0; {
		f := &frames[len(frames)-1]
		if f.next < len(needed[f.claim]) {
			to := needed[f.claim][f.next]
			f.next++
			if index[to] == 0 {
				frames = append(frames, enter(to))
			} else if onStack[to] {
				low[f.claim] = min(low[f.claim], index[to])
			}
			continue
		}
		i := f.claim
		frames = frames[:len(frames)-1]
		if len(frames) > 0 {
			parent := frames[len(frames)-1].claim
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

// offer is an option whose needs are all proved.
type offer struct{ cost, claim, option int }

type cheapestFirst []offer

func (h cheapestFirst) Len() int { return len(h) }
func (h cheapestFirst) Less(i, j int) bool {
	if h[i].cost != h[j].cost {
		return h[i].cost < h[j].cost
	}
	if h[i].claim != h[j].claim {
		return h[i].claim < h[j].claim
	}
	return h[i].option < h[j].option
}
func (h cheapestFirst) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *cheapestFirst) Push(v any)   { *h = append(*h, v.(offer)) }
func (h *cheapestFirst) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// grant proves the grants among some claims whose needs are, or become, proved.
func (x *explainer) grant(claims []int, turn int) int {
	type place struct{ claim, option int }
	waiting := map[int][]place{} // by the claim they wait for
	lacks := map[place]int{}
	var offers cheapestFirst
	for _, i := range claims {
		if x.claims[i].value != isYes {
			continue
		}
		for j, o := range x.claims[i].options {
			p := place{i, j}
			for _, n := range o.needs {
				if n.claim >= 0 && !x.claims[n.claim].proved {
					waiting[n.claim] = append(waiting[n.claim], p)
					lacks[p]++
				}
			}
			if lacks[p] == 0 {
				heap.Push(&offers, offer{x.price(&o), i, j})
			}
		}
	}
	for len(offers) > 0 {
		best := heap.Pop(&offers).(offer)
		c := &x.claims[best.claim]
		if c.proved {
			continue
		}
		turn++
		c.proved, c.turn, c.cost, c.chosen = true, turn, best.cost, best.option
		for _, p := range waiting[best.claim] {
			if lacks[p]--; lacks[p] == 0 {
				heap.Push(&offers, offer{x.price(&x.claims[p.claim].options[p.option]), p.claim, p.option})
			}
		}
	}
	return turn
}

// priceless is what a proof costs at most, so that sums stay sums.
const priceless = 1 << 30

// price counts the relationships of an option's proof. Denials are free: what is
// not there is no relationship.
func (x *explainer) price(o *option) int {
	cost := 0
	for _, n := range o.needs {
		if n.step >= 0 {
			cost++
		}
		if n.claim >= 0 && x.claims[n.claim].value == isYes {
			cost += x.claims[n.claim].cost
		}
	}
	return min(cost, priceless)
}

// deny proves the largest set of denials in which each needs only others of the
// set or what is proved.
func (x *explainer) deny(claims []int, turn int) int {
	in := map[int]bool{}
	for _, i := range claims {
		in[i] = x.claims[i].value == isNo
	}
	bears := func(o *option) bool {
		return !slices.ContainsFunc(o.needs, func(n need) bool { return n.claim >= 0 && !x.claims[n.claim].proved && !in[n.claim] })
	}
	for changed := true; changed; {
		changed = false
		for _, i := range claims {
			if in[i] && !slices.ContainsFunc(x.claims[i].options, func(o option) bool { return bears(&o) }) {
				in[i], changed = false, true
			}
		}
	}
	turn++
	for _, i := range claims {
		if !in[i] {
			continue
		}
		c := &x.claims[i]
		best := -1
		for j := range c.options {
			if o := &c.options[j]; bears(o) && (best < 0 || x.size(o) < x.size(&c.options[best])) {
				best = j
			}
		}
		c.chosen, c.turn, c.cost = best, turn, min(1+x.size(&c.options[best]), priceless)
	}
	for _, i := range claims {
		if in[i] {
			x.claims[i].proved = true
		}
	}
	return turn
}

// size is how much there is to read of an option.
func (x *explainer) size(o *option) int {
	size := len(o.needs)
	for _, n := range o.needs {
		if n.claim >= 0 {
			size = min(size+x.claims[n.claim].cost, priceless)
		}
	}
	return size
}
