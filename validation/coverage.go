package validation

import "github.com/pembadb/pemba/schema"

// Coverage tells which relations and permissions the assertions of a file
// exercise: those they ask for, and all those from which these are computed.
type Coverage struct {
	Exercised, Total int
	// Missing are the relations and permissions that no assertion exercised, in
	// the order of types, then as written.
	Missing []*schema.Relation
}

func coverage(s *schema.Schema, assertions []Assertion) Coverage {
	reached := map[*schema.Relation]bool{}
	var open []*schema.Relation
	reach := func(r *schema.Relation) {
		if r != nil && !reached[r] {
			reached[r] = true
			open = append(open, r)
		}
	}
	for _, a := range assertions {
		reach(s.Definition(a.Resource.Type).Relation(a.Permission))
	}
	for len(open) > 0 {
		r := open[len(open)-1]
		open = open[:len(open)-1]
		for _, allowed := range r.Allowed {
			reach(allowed.Relation)
		}
		follow(r.Expr, reach)
	}
	var c Coverage
	for _, d := range s.Definitions {
		c.Total += len(d.Relations)
		for _, r := range d.Relations {
			if reached[r] {
				c.Exercised++
			} else {
				c.Missing = append(c.Missing, r)
			}
		}
	}
	return c
}

// follow calls reach for each relation and permission that e is computed from.
// An expression nests no deeper than the parser of schemas allows.
func follow(e *schema.Expr, reach func(*schema.Relation)) {
	if e == nil {
		return
	}
	reach(e.Relation)
	if e.Tupleset != nil {
		reach(e.Tupleset)
		for _, allowed := range e.Tupleset.Allowed {
			reach(allowed.Definition.Relation(e.Target))
		}
	}
	for _, child := range e.Children {
		follow(child, reach)
	}
}
