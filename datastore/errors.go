package datastore

import (
	"errors"
	"fmt"
	"strconv"
)

// Errors with which a request is refused; each comes wrapped in a sentence that
// names the input and what to do.
var (
	ErrInvalid       = errors.New("invalid request")
	ErrNoSchema      = errors.New("the store has no schema")
	ErrSchema        = errors.New("the schema does not allow it")
	ErrOrphans       = errors.New("the schema would orphan stored relationships")
	ErrHashMismatch  = errors.New("the schema in force is not the expected one")
	ErrAlreadyExists = errors.New("already exists")
	// ErrNoIdentity says that there never was a user or group of that id.
	ErrNoIdentity     = errors.New("there is no such user or group")
	ErrNotFound       = errors.New("does not exist")
	ErrNoGrant        = errors.New("there is none")
	ErrPrecondition   = errors.New("a precondition does not hold")
	ErrRequestReused  = errors.New("the request id was used before for another request")
	ErrTooLarge       = errors.New("over the limit")
	ErrDuplicate      = errors.New("named twice in one request")
	ErrName           = fmt.Errorf("%w", ErrInvalid) // because of a name
	ErrProtected      = errors.New("the store is protected")
	ErrReadOnlySystem = fmt.Errorf("%w: the store system holds only stores, tokens and grants", ErrProtected)
)

// factual is an error with facts.
type factual struct {
	error
	facts []string
}

func (e *factual) Unwrap() error { return e.error }

// With adds facts to an error: keys and values in turn that name, for programs,
// what its text says to people. The keys are those of pemba.v1.ErrorReason.
func With(err error, facts ...string) error { return &factual{err, facts} }

// Facts returns the facts of an error and of all that it wraps; the outermost
// wins.
func Facts(err error) map[string]string {
	out := map[string]string{}
	var walk func(error)
	walk = func(err error) {
		if f, ok := err.(*factual); ok {
			for i := 0; i+1 < len(f.facts); i += 2 {
				if _, ok := out[f.facts[i]]; !ok {
					out[f.facts[i]] = f.facts[i+1]
				}
			}
		}
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			if inner := e.Unwrap(); inner != nil {
				walk(inner)
			}
		case interface{ Unwrap() []error }:
			for _, inner := range e.Unwrap() {
				walk(inner)
			}
		}
	}
	walk(err)
	return out
}

// Compacted is the error of a revision older than what is kept; it wraps
// ErrCompacted and names the oldest revision that is.
func Compacted(at, oldest Revision) error {
	return With(fmt.Errorf("revision %d, oldest %d: %w", at, oldest, ErrCompacted), "oldest", strconv.FormatUint(uint64(oldest), 10))
}

// BrokenAt adds to an error the revision at which a history is broken.
func BrokenAt(at Revision, err error) error {
	return With(err, "revision", strconv.FormatUint(uint64(at), 10))
}

// MissingChange is the error of a history that lacks a change; it wraps
// ErrCorrupt.
func MissingChange(store StoreID, at Revision) error {
	return BrokenAt(at, fmt.Errorf("store %d: %w: change %d is missing", store, ErrCorrupt, at))
}

// Ahead is the error of a revision beyond the head; it wraps ErrAhead.
func Ahead(at, head Revision) error {
	return With(fmt.Errorf("revision %d, head %d: %w", at, head, ErrAhead), "head", strconv.FormatUint(uint64(head), 10))
}

// OverLimit is the error of an input larger than a limit; it wraps ErrTooLarge.
// what says what was counted ("1,001 operations"), limit is the limit's name in
// the configuration, advice says what to do.
func OverLimit(limit string, maximum int, what, advice string) error {
	return With(fmt.Errorf("%s: %w of %d (%s); %s", what, ErrTooLarge, maximum, limit, advice),
		"limit", limit, "maximum", strconv.Itoa(maximum))
}

// PlantedLate is the error of a line that has a history where it should begin.
func PlantedLate(at Revision) error {
	return fmt.Errorf("a history cannot begin where one is: the head is at revision %d", at)
}
