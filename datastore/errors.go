package datastore

import "errors"

// Errors with which a request is refused; each comes wrapped in a sentence that
// names the input and what to do.
var (
	ErrInvalid        = errors.New("invalid request")
	ErrNoSchema       = errors.New("the store has no schema")
	ErrSchema         = errors.New("the schema does not allow it")
	ErrOrphans        = errors.New("the schema would orphan stored relationships")
	ErrHashMismatch   = errors.New("the schema in force is not the expected one")
	ErrAlreadyExists  = errors.New("already exists")
	ErrNotFound       = errors.New("does not exist")
	ErrPrecondition   = errors.New("a precondition does not hold")
	ErrRequestReused  = errors.New("the request id was used before for another request")
	ErrTooLarge       = errors.New("over a limit")
	ErrReadOnlySystem = errors.New("the store system holds only stores and tokens")
)
