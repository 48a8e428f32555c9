package provisioning

import "github.com/pembadb/pemba/datastore"

// ErrCrash is what a write on a crashing node ends with.
var ErrCrash = errCrash

// Crashing is a datastore whose node crashes in the write after so many others,
// before it is carried out or after it.
func Crashing(d datastore.Datastore, others int, after bool) datastore.Datastore {
	return &crashing{Datastore: d, in: others + 1, after: after}
}
