package graph

import "slices"

// level is one of the three answers, ordered for three-valued logic: a union is
// the highest of its parts, an intersection the lowest.
type level uint8

const (
	no    level = iota
	maybe       // conditional
	yes
)

func not(l level) level { return yes - l }

// value is what is known of an answer: it lies between lo and hi. Before
// anything is known that is everything; a value whose ends meet is decided; one
// that stays open when all is known is an error, by a caveat that failed or a
// recursion through exclusion. A decisive branch closes the interval whatever
// stays open elsewhere.
type value struct{ lo, hi level }

var (
	unknown = value{no, yes}
	isNo    = value{no, no}
	isMaybe = value{maybe, maybe}
	isYes   = value{yes, yes}
)

func (v value) decided() bool { return v.lo == v.hi }

func (v value) or(w value) value  { return value{max(v.lo, w.lo), max(v.hi, w.hi)} }
func (v value) and(w value) value { return value{min(v.lo, w.lo), min(v.hi, w.hi)} }

// without is v but not w.
func (v value) without(w value) value {
	return value{min(v.lo, not(w.hi)), min(v.hi, not(w.lo))}
}

// settled reports whether nothing more that is learned can change v or what it
// lacks: a conditional answer is complete only when every part was looked at.
func (v value) settled() bool { return v == isNo || v == isYes }

// merge returns the sorted union of two sorted lists; it changes neither.
func merge(a, b []string) []string {
	if len(a) == 0 {
		return b
	}
	for _, s := range b {
		if i, found := slices.BinarySearch(a, s); !found {
			a = slices.Insert(slices.Clone(a), i, s)
		}
	}
	return a
}
