package keeper

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// Bounds of what a caller says of a request, in bytes. Request ids that are part
// of a larger work carry its id and a number behind it, so they are longer than
// those of callers may be.
const (
	maxRequestID = 192
	maxMetadata  = 64 << 10
)

// tooMany is the error of more operations than a change may have.
func tooMany(n, limit int, what, advice string) error {
	return datastore.OverLimit("max-operations", limit, fmt.Sprintf("%d operations %s", n, what), advice)
}

// checkRequest refuses what is wrong whatever the store holds.
func (k *Keeper) checkRequest(id datastore.StoreID, r *datastore.Request) error {
	switch {
	case len(r.ID) > maxRequestID:
		return datastore.OverLimit("request-id-bytes", maxRequestID, fmt.Sprintf("request id of %d bytes", len(r.ID)), "choose a shorter one")
	case len(r.Reason) > datastore.MaxReason:
		return datastore.OverLimit("reason-bytes", datastore.MaxReason, fmt.Sprintf("reason of %d bytes", len(r.Reason)), "shorten it")
	case len(r.Metadata) > maxMetadata:
		return datastore.OverLimit("metadata-bytes", maxMetadata, fmt.Sprintf("metadata of %d bytes", len(r.Metadata)), "keep it elsewhere, and attach where")
	}
	if canonical, err := tuple.CanonicalJSON(r.Metadata); err != nil || canonical != r.Metadata {
		return fmt.Errorf("%w: the metadata is no JSON object in canonical form", datastore.ErrInvalid)
	}
	for _, text := range []struct{ name, value string }{{"request id", r.ID}, {"actor", r.Actor}, {"reason", r.Reason}} {
		if !utf8.ValidString(text.value) {
			return fmt.Errorf("%w: the %s %q is not valid UTF-8", datastore.ErrInvalid, text.name, text.value)
		}
	}
	registry := count(r.CreateStore != nil, r.DeleteStore != "", r.CreateToken != nil, r.RevokeToken != "", r.RotateToken != nil, r.AddGrant != nil, r.RemoveGrant != nil)
	writes := count(len(r.Updates)+len(r.Sets) > 0, r.Schema != nil, r.DeleteWhere != nil)
	if registry+writes > 1 {
		return fmt.Errorf("%w: one request updates relationships, or deletes by a filter, or applies a schema, or changes one store, token or grant; send several", datastore.ErrInvalid)
	}
	bootstrap := r.Schema != nil && r.Schema.Text == datastore.SystemSchema
	if id == datastore.System && writes+len(r.Preconditions) > 0 && !bootstrap {
		return fmt.Errorf("%w; name another store", datastore.ErrReadOnlySystem)
	}
	if id != datastore.System && registry > 0 {
		return fmt.Errorf("%w: stores, tokens and grants are kept in the store system", datastore.ErrInvalid)
	}
	for _, p := range r.Preconditions {
		if p.Filter.IsZero() {
			return fmt.Errorf("%w: a precondition needs a filter with at least one field", datastore.ErrInvalid)
		}
		if err := p.Filter.Check(); err != nil {
			return fmt.Errorf("%w: precondition: %w", datastore.ErrInvalid, err)
		}
	}
	if r.DeleteWhere != nil {
		if r.DeleteWhere.IsZero() {
			return fmt.Errorf("%w: a delete needs a filter with at least one field; to empty a store, delete it", datastore.ErrInvalid)
		}
		if err := r.DeleteWhere.Check(); err != nil {
			return fmt.Errorf("%w: %w", datastore.ErrInvalid, err)
		}
	}
	if err := checkIdentities(id, r); err != nil {
		return err
	}
	return k.checkUpdates(r)
}

func count(conditions ...bool) (n int) {
	for _, c := range conditions {
		if c {
			n++
		}
	}
	return n
}

func (k *Keeper) checkUpdates(r *datastore.Request) error {
	total := len(r.Updates)
	for _, s := range r.Sets {
		total += len(s.Relationships)
	}
	if total > k.opts.MaxOperations {
		return tooMany(total, k.opts.MaxOperations, "in one request", "split it")
	}
	seen := make(map[tuple.Key]bool, total)
	check := func(rel tuple.Relationship) error {
		if err := rel.Check(); err != nil {
			return fmt.Errorf("%w: %w", datastore.ErrInvalid, err)
		}
		if seen[rel.Key] {
			return datastore.With(fmt.Errorf("%w: relationship %s is %w; name it once", datastore.ErrInvalid, rel.Key, datastore.ErrDuplicate), "relationship", rel.Key.String())
		}
		seen[rel.Key] = true
		return nil
	}
	for _, u := range r.Updates {
		if u.Kind != datastore.Create && u.Kind != datastore.Touch && u.Kind != datastore.Delete {
			return fmt.Errorf("%w: update %s has no operation; use create, touch or delete", datastore.ErrInvalid, u.Relationship.Key)
		}
		if err := check(u.Relationship); err != nil {
			return err
		}
	}
	sets := map[string]bool{}
	for _, s := range r.Sets {
		target := s.Object.String() + "#" + s.Relation
		if err := s.Object.Check(); err != nil {
			return fmt.Errorf("%w: %w", datastore.ErrInvalid, err)
		}
		if sets[target] {
			return fmt.Errorf("%w: the subjects of %s are %w; set them once", datastore.ErrInvalid, target, datastore.ErrDuplicate)
		}
		sets[target] = true
		for _, rel := range s.Relationships {
			if rel.Object != s.Object || rel.Relation != s.Relation {
				return fmt.Errorf("%w: relationship %s is not one of %s", datastore.ErrInvalid, rel.Key, target)
			}
			if err := check(rel); err != nil {
				return err
			}
		}
	}
	for _, u := range r.Updates {
		if target := u.Relationship.Object.String() + "#" + u.Relationship.Relation; sets[target] {
			return datastore.With(fmt.Errorf("%w: relationship %s is %w, as itself and by setting the subjects of %s; do one of them",
				datastore.ErrInvalid, u.Relationship.Key, datastore.ErrDuplicate, target), "relationship", u.Relationship.Key.String())
		}
	}
	return nil
}

// judgement decides one request against a state.
type judgement struct {
	state      *state
	keeper     *Keeper
	now        time.Time
	operations []datastore.Operation
	size       int // about what the operations take when they are stored
	warnings   []schema.Warning
	more       bool
	nothing    bool // accepted, and nothing to write
	schema     *datastore.SchemaOutcome
	committed  datastore.Revision   // up to which the Log has what the state has
	versions   []datastore.Identity // that the operations write
}

func (j *judgement) add(o datastore.Operation) {
	j.operations = append(j.operations, o)
	j.size += relationshipBytes(&o.Relationship)
	if o.Previous != nil {
		j.size += relationshipBytes(o.Previous)
	}
}

func (j *judgement) outcome(head datastore.Head, store datastore.StoreID) datastore.Outcome {
	o := datastore.Outcome{Zookie: head.Zookie(store).String(), Revision: head.Revision, Time: head.Time, More: j.more, Warnings: j.warnings, Schema: j.schema}
	for _, op := range j.operations {
		switch op.Kind {
		case datastore.Create:
			o.Created++
		case datastore.Touch:
			if op.Previous == nil {
				o.Created++
			} else {
				o.Touched++
			}
		case datastore.Delete:
			o.Deleted++
		case datastore.ApplySchema:
			if o.Schema == nil { // a repeated request
				o.Schema = &datastore.SchemaOutcome{Hash: op.Schema.Hash, Changed: true}
			}
		case datastore.CreateStore, datastore.DeleteStore:
			s := *op.Store
			s.Created = head.Time
			o.Store = &s
		case datastore.CreateToken:
			o.Token = op.Token
		}
	}
	return o
}

func (j *judgement) decide(p *pending) error {
	if p.sweep {
		j.sweep()
		return nil
	}
	r := &p.request
	for i, c := range r.Preconditions {
		if err := j.precondition(c); err != nil {
			return datastore.With(err, "precondition", strconv.Itoa(i))
		}
	}
	if r.Schema != nil {
		return j.applySchema(r.Schema)
	}
	if (len(r.Updates) > 0 || len(r.Sets) > 0) && j.state.schema == nil {
		return fmt.Errorf("%w; apply one first, with `pemba schema apply FILE`", datastore.ErrNoSchema)
	}
	if err := j.putIdentities(r.Identities); err != nil {
		return err
	}
	for _, u := range r.Updates {
		if err := j.update(u); err != nil {
			return err
		}
	}
	for _, s := range r.Sets {
		if err := j.set(s); err != nil {
			return err
		}
	}
	if r.DeleteWhere != nil {
		if err := j.deleteWhere(r); err != nil {
			return err
		}
	}
	j.detach(r.Detach)
	if r.Erase != nil {
		if err := j.erase(*r.Erase); err != nil {
			return err
		}
	}
	if j.state.registry != nil {
		return j.registry(r)
	}
	j.nothing = len(r.Identities) > 0 && len(j.operations) == 0
	return nil
}

// sized refuses a change that is too large to be handed on in one piece, to
// whoever watches. A delete without a limit is one change however large it is.
func (j *judgement) sized(r *datastore.Request) error {
	if limit := j.keeper.opts.MaxChangeBytes; j.size > limit && (r.DeleteWhere == nil || r.DeleteLimit > 0) && len(r.Detach) == 0 && r.Schema == nil {
		return datastore.OverLimit("max-change-bytes", limit, fmt.Sprintf("a change of %d bytes, with what it replaces", j.size), "split it")
	}
	return nil
}

func (j *judgement) precondition(c datastore.Precondition) error {
	var example *tuple.Relationship
	j.state.match(c.Filter, func(r tuple.Relationship) bool {
		if !r.Expired(j.now) {
			example = &r
		}
		return example == nil
	})
	switch {
	case c.MustMatch && example == nil:
		return fmt.Errorf("%w: nothing matches %s, and something must", datastore.ErrPrecondition, c.Filter)
	case !c.MustMatch && example != nil:
		return fmt.Errorf("%w: %s matches %s, and nothing must", datastore.ErrPrecondition, example.Key, c.Filter)
	}
	return nil
}

func (j *judgement) allowed(r tuple.Relationship) error {
	if err := j.state.schema.CheckRelationship(r); err != nil {
		return notAllowed{err}
	}
	return nil
}

// notAllowed is a [datastore.ErrSchema] that says by itself what the schema does
// not allow.
type notAllowed struct{ error }

func (e notAllowed) Unwrap() []error { return []error{datastore.ErrSchema, e.error} }

// written refuses a relation that the schema lacks, or that is a permission.
func (j *judgement) written(typ, relation string) error {
	d := j.state.schema.Definition(typ)
	if d == nil {
		return datastore.With(fmt.Errorf("%w: %w: the schema has no definition %s", datastore.ErrSchema, schema.ErrUnknownType, typ), "type", typ)
	}
	switch r := d.Relation(relation); {
	case r == nil:
		return datastore.With(fmt.Errorf("%w: %w: %s has no relation %s", datastore.ErrSchema, schema.ErrUnknownRelation, typ, relation), "type", typ, "relation", relation)
	case r.IsPermission():
		return datastore.With(fmt.Errorf("%w: %w: %s of %s is computed; write the relations it is made of", datastore.ErrSchema, schema.ErrPermission, relation, typ), "type", typ, "relation", relation)
	}
	return nil
}

func (j *judgement) update(u datastore.Update) error {
	r := u.Relationship
	old, found := j.state.find(r.Key)
	if u.Kind == datastore.Delete {
		if err := j.written(r.Object.Type, r.Relation); err != nil {
			return err
		}
		if found {
			j.add(datastore.Operation{Kind: datastore.Delete, Relationship: old})
		}
		return nil
	}
	if err := j.allowed(r); err != nil {
		return datastore.With(err, "relationship", r.Key.String())
	}
	o := datastore.Operation{Kind: u.Kind, Relationship: r}
	if found {
		o.Previous = &old
		if u.Kind == datastore.Create && !old.Expired(j.now) {
			return datastore.With(fmt.Errorf("relationship %s: %w; use touch to replace its caveat or expiration", r.Key, datastore.ErrAlreadyExists), "relationship", r.Key.String())
		}
	}
	j.add(o)
	return nil
}

func (j *judgement) set(s datastore.Set) error {
	if err := j.written(s.Object.Type, s.Relation); err != nil {
		return err
	}
	keep := make(map[tuple.Key]bool, len(s.Relationships))
	for _, r := range s.Relationships {
		keep[r.Key] = true
		if old, found := j.state.find(r.Key); found && old.Equal(r) {
			continue
		}
		if err := j.update(datastore.Update{Kind: datastore.Touch, Relationship: r}); err != nil {
			return err
		}
	}
	j.state.match(tuple.Filter{ObjectType: s.Object.Type, ObjectID: s.Object.ID, Relation: s.Relation}, func(r tuple.Relationship) bool {
		if !keep[r.Key] {
			j.add(datastore.Operation{Kind: datastore.Delete, Relationship: r})
		}
		return true
	})
	if limit := j.keeper.opts.MaxOperations; len(j.operations) > limit {
		return tooMany(len(j.operations), limit, fmt.Sprintf("to set the subjects of %s#%s", s.Object, s.Relation), "delete by filter first")
	}
	return nil
}

func (j *judgement) deleteWhere(r *datastore.Request) error {
	j.state.match(*r.DeleteWhere, func(found tuple.Relationship) bool {
		j.add(datastore.Operation{Kind: datastore.Delete, Relationship: found})
		j.more = j.filled(r)
		return !j.more
	})
	if most := min(r.DeleteLimit, j.keeper.opts.MaxOperations); r.DeleteWhole && len(j.operations) > most && j.more {
		return fmt.Errorf("more than %d relationships match %s: %w of one delete; delete them in parts", most, r.DeleteWhere, datastore.ErrTooLarge)
	}
	return nil
}

// filled reports whether a delete of up to a limit of relationships ended before
// it had looked for all. It depends on the request and the operations alone, so
// that a repeated request is told the same. One that must delete the whole goes
// one further, which tells that there are too many; if its change is too large,
// sized refuses it.
func (j *judgement) filled(r *datastore.Request) bool {
	most := min(r.DeleteLimit, j.keeper.opts.MaxOperations)
	switch {
	case r.DeleteLimit == 0:
		return false
	case r.DeleteWhole:
		return len(j.operations) > most || j.size > j.keeper.opts.MaxChangeBytes
	}
	return len(j.operations) >= most || j.full()
}

// full reports whether a change that may end anywhere has enough of bytes.
func (j *judgement) full() bool { return j.size >= j.keeper.opts.MaxChangeBytes/2 }

// relationshipBytes is about what a relationship takes in a stored change.
func relationshipBytes(r *tuple.Relationship) int {
	const framing = 32 // tags and lengths
	return framing + len(r.Object.Type) + len(r.Object.ID) + len(r.Relation) + len(r.Subject.Type) + len(r.Subject.ID) +
		len(r.Subject.Relation) + len(r.Caveat.Name) + len(r.Caveat.Context)
}

// sweep turns what has expired into operations, up to a change's worth.
func (j *judgement) sweep() {
	if j.state.far != nil {
		j.sweepFar()
		return
	}
	j.state.expiring.Scan(func(e expiring) bool {
		if e.at > j.now.UnixMicro() || len(j.operations) == j.keeper.opts.MaxOperations || j.full() {
			j.more = e.at <= j.now.UnixMicro()
			return false
		}
		j.add(datastore.Operation{Kind: datastore.Expire, Relationship: j.state.relationship(e.edge)})
		return true
	})
	j.nothing = len(j.operations) == 0
}

// sweepFar is sweep for a store that is not in memory.
func (j *judgement) sweepFar() {
	yes := true
	j.state.match(tuple.Filter{Expires: &yes}, func(r tuple.Relationship) bool {
		if r.Expired(j.now) {
			j.add(datastore.Operation{Kind: datastore.Expire, Relationship: r})
		}
		j.more = len(j.operations) >= j.keeper.opts.MaxOperations || j.full()
		return !j.more
	})
	j.nothing = len(j.operations) == 0
}

func (j *judgement) applySchema(u *datastore.SchemaUpdate) error {
	var before [32]byte
	if j.state.text != nil {
		before = j.state.text.Hash
	}
	if u.Expected != nil && *u.Expected != before {
		return datastore.With(fmt.Errorf("%w: expected %x, in force is %x; read it again with `pemba schema show`", datastore.ErrHashMismatch, *u.Expected, before),
			"expected", hex.EncodeToString(u.Expected[:]), "hash", hex.EncodeToString(before[:]))
	}
	// As a rule this was done by checkSchema, over the same names.
	done, err := compile(u.Text, j.state.names, schema.Options{MaxBytes: j.keeper.opts.MaxSchemaBytes})
	if err != nil {
		return fmt.Errorf("%w: %w", datastore.ErrInvalid, err)
	}
	compiled, names := done.schema, done.names
	j.warnings = done.warnings
	j.schema = &datastore.SchemaOutcome{Hash: compiled.Hash, Changed: true, Before: j.state.schema, After: compiled}
	if j.state.text != nil && j.state.text.Text == compiled.Text {
		j.nothing, j.schema.Changed = true, false
		return nil
	}
	if err := j.directoryStays(compiled.Directory); err != nil {
		return err
	}
	if err := j.orphans(compiled); err != nil {
		return err
	}
	if u.DryRun {
		j.operations, j.nothing = nil, true
		return nil
	}
	text := &datastore.SchemaText{Text: compiled.Text, Hash: compiled.Hash, PreviousHash: before}
	for n, name := range names.All() {
		if int(n) > j.state.names.Len() {
			text.Names = append(text.Names, name)
		}
	}
	j.add(datastore.Operation{Kind: datastore.ApplySchema, Schema: text})
	return nil
}

// orphans refuses a schema that cannot hold what is stored. Of what it cannot
// hold, the expired is swept in the same change.
func (j *judgement) orphans(next *schema.Schema) error {
	kinds := next.Orphans(j.state.schema)
	if len(kinds) == 0 {
		return nil
	}
	count := 0
	var example tuple.Relationship
	var why error
	j.state.match(tuple.Filter{}, func(r tuple.Relationship) bool {
		err := next.CheckRelationship(r)
		switch {
		case err == nil:
		case r.Expired(j.now):
			j.add(datastore.Operation{Kind: datastore.Expire, Relationship: r})
		default:
			// The smallest is named, so that the text does not depend on the order.
			if count++; count == 1 || r.Key.Compare(example.Key) < 0 {
				example, why = r, err
			}
		}
		return true
	})
	if count == 0 {
		return nil
	}
	noun := "relationships"
	if count == 1 {
		noun = "relationship"
	}
	return datastore.With(fmt.Errorf("%w: %d stored %s would not fit it, for example %s: %w; delete them first, or keep what they need", datastore.ErrOrphans, count, noun, example.Key, why),
		"count", strconv.Itoa(count), "example", example.Key.String())
}
