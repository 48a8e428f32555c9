package schema

import "fmt"

// maxSteps bounds the work of each analysis that walks the whole schema, so that
// a schema made to be expensive to judge is refused, or judged less, in well
// under a second. Real schemas need a thousandth of it.
const maxSteps = 20_000_000

// checkAnnotations compares the type annotations of permissions with the types
// that their expressions reach. All reachable types must be named; one named and
// never reached is a warning.
func (c *compiler) checkAnnotations() {
	walk := typeWalk{left: maxSteps, seen: map[*Relation]int{}}
	for _, r := range c.order {
		d := c.permissions[r]
		if d == nil || d.Annotation == nil || c.full() {
			continue
		}
		declared := map[*Definition]bool{}
		for _, t := range d.Annotation {
			def := c.definition(t.Type, t.Pos)
			if declared[def] {
				c.add(t.Pos, t.Type, fmt.Sprintf("permission %s names the type %s twice", quote(r.Text), quote(t.Type)), "remove one")
			}
			declared[def] = true
		}
		reached := map[*Definition]bool{}
		complete := walk.from(r, func(def *Definition) bool {
			if !reached[def] && !declared[def] {
				c.add(r.Pos, r.Text, fmt.Sprintf("permission %s can be held by %s, which its type does not name", quote(r.Text), quote(def.Type)),
					"add `| "+def.Type+"` to the type, or change the expression")
			}
			reached[def] = true
			return !c.full()
		})
		if !complete {
			if !c.full() {
				c.add(r.Pos, r.Text, "the schema is too complex to check the type of permission "+quote(r.Text), "remove the type annotation")
			}
			return
		}
		for _, t := range d.Annotation {
			if def := c.schema.byType[t.Type]; def != nil && !reached[def] {
				c.warn(d, t.Pos, t.Type, "unreached-type", fmt.Sprintf("permission %s can never be held by %s", quote(r.Text), quote(t.Type)), "remove the type")
			}
		}
	}
}

// typeWalk finds the types of the subjects that may hold a relation or
// permission. Operators do not matter: all operands count.
type typeWalk struct {
	left  int // steps
	seen  map[*Relation]int
	round int
	stack []*Relation
}

// from calls found for every type reached from r, some more than once. It
// returns false if found did, or if there are no steps left.
func (w *typeWalk) from(r *Relation, found func(*Definition) bool) bool {
	w.round++
	w.stack = append(w.stack[:0], r)
	w.seen[r] = w.round
	for len(w.stack) > 0 {
		r := w.stack[len(w.stack)-1]
		w.stack = w.stack[:len(w.stack)-1]
		for _, a := range r.Allowed {
			if w.left--; w.left < 0 {
				return false
			}
			if a.Relation != nil {
				w.push(a.Relation)
			} else if !found(a.Definition) {
				return false
			}
		}
		if r.Expr != nil && !w.expression(r, r.Expr, found) {
			return false
		}
	}
	return true
}

func (w *typeWalk) push(r *Relation) {
	if w.seen[r] != w.round {
		w.seen[r] = w.round
		w.stack = append(w.stack, r)
	}
}

func (w *typeWalk) expression(r *Relation, e *Expr, found func(*Definition) bool) bool {
	if w.left--; w.left < 0 {
		return false
	}
	switch e.Kind {
	case Self:
		return found(r.Definition)
	case Ref:
		w.push(e.Relation)
	case Arrow, ArrowAll:
		for _, a := range e.Tupleset.Allowed {
			if w.left--; w.left < 0 {
				return false
			}
			if target := a.Definition.Relation(e.Target); target != nil {
				w.push(target)
			}
		}
	case Exclusion: // what is taken away adds nobody
		return w.expression(r, e.Children[0], found)
	default:
		for _, child := range e.Children {
			if !w.expression(r, child, found) {
				return false
			}
		}
	}
	return true
}
