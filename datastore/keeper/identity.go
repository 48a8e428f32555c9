package keeper

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// Bounds of an identity: its attributes and each key in bytes, and its keys in
// number.
const (
	maxAttributes  = 64 << 10
	maxKeyBytes    = 1024
	maxKeysOfOne   = 64
	maxIdentifiers = 1000 // identities of one change
)

// checkIdentities refuses identities that are wrong whatever the store holds.
func checkIdentities(id datastore.StoreID, r *datastore.Request) error {
	if len(r.Identities) == 0 && r.Erase == nil && len(r.Detach) == 0 {
		return nil
	}
	if id == datastore.System {
		return fmt.Errorf("%w; name another store", datastore.ErrReadOnlySystem)
	}
	if r.Schema != nil || r.DeleteWhere != nil {
		return fmt.Errorf("%w: one request writes users and groups, or deletes by a filter, or applies a schema; send several", datastore.ErrInvalid)
	}
	if len(r.Identities) > maxIdentifiers {
		return tooMany(len(r.Identities), maxIdentifiers, "on users and groups in one request", "split it")
	}
	for _, f := range r.Detach {
		if f.IsZero() {
			return fmt.Errorf("%w: a filter that detaches needs at least one field", datastore.ErrInvalid)
		}
		if err := f.Check(); err != nil {
			return fmt.Errorf("%w: %w", datastore.ErrInvalid, err)
		}
	}
	seen := map[tuple.Object]bool{}
	for i := range r.Identities {
		u := &r.Identities[i]
		if err := checkIdentity(u); err != nil {
			return fmt.Errorf("%w: %w", datastore.ErrInvalid, err)
		}
		if seen[u.Object] {
			return fmt.Errorf("%w: %s is %w; name it once", datastore.ErrInvalid, u.Object, datastore.ErrDuplicate)
		}
		seen[u.Object] = true
	}
	if r.Erase != nil {
		if err := r.Erase.Check(); err != nil {
			return fmt.Errorf("%w: %w", datastore.ErrInvalid, err)
		}
	}
	return nil
}

func checkIdentity(u *datastore.IdentityUpdate) error {
	if err := u.Object.Check(); err != nil {
		return err
	}
	switch {
	case u.Object.ID == tuple.Wildcard:
		return fmt.Errorf("%s stands for everybody", u.Object)
	case u.Kind != datastore.User && u.Kind != datastore.Group:
		return fmt.Errorf("%s is neither a user nor a group", u.Object)
	case u.State < datastore.Active || u.State > datastore.Removed:
		return fmt.Errorf("%s has no state", u.Object)
	case u.State == datastore.Removed && (u.Attributes != "" || len(u.Keys) > 0):
		return fmt.Errorf("%s is removed and has attributes", u.Object)
	case len(u.Attributes) > maxAttributes:
		return datastore.OverLimit("attributes-bytes", maxAttributes, fmt.Sprintf("attributes of %s of %d bytes", u.Object, len(u.Attributes)), "keep them elsewhere")
	case len(u.Keys) > maxKeysOfOne:
		return datastore.OverLimit("identity-keys", maxKeysOfOne, fmt.Sprintf("%d keys of %s", len(u.Keys), u.Object), "give fewer")
	}
	if canonical, err := tuple.CanonicalJSON(u.Attributes); err != nil || canonical != u.Attributes {
		return fmt.Errorf("the attributes of %s are no JSON object in canonical form", u.Object)
	}
	for _, k := range u.Keys {
		if k.Name == "" || k.Value == "" || len(k.Value) > maxKeyBytes || !utf8.ValidString(k.Value) || strings.ContainsRune(k.Value, 0) {
			return fmt.Errorf("%s of %s must be valid UTF-8 of 1 to %d bytes, without the character NUL", k.Name, u.Object, maxKeyBytes)
		}
	}
	return nil
}

// identities reads what is committed. A request that writes identities is the
// last of its batch, so that none before it in the same transaction does.
func (j *judgement) identities(q datastore.IdentityQuery, f func(datastore.Identity) bool) error {
	return j.keeper.log.Identities(j.keeper.ctx, j.state.store, j.committed, q, f)
}

// putIdentities judges the new versions of users and groups that a request writes.
func (j *judgement) putIdentities(list []datastore.IdentityUpdate) error {
	if len(list) == 0 {
		return nil
	}
	if j.state.schema == nil {
		return fmt.Errorf("%w; apply one first, with `pemba schema apply FILE`", datastore.ErrNoSchema)
	}
	objects := make([]tuple.Object, len(list))
	coming := make(map[tuple.Object]*datastore.IdentityUpdate, len(list))
	for i := range list {
		objects[i] = list[i].Object
		coming[list[i].Object] = &list[i]
	}
	there := make(map[tuple.Object]datastore.Identity, len(list))
	if err := j.identities(datastore.IdentityQuery{Objects: objects}, func(i datastore.Identity) bool {
		there[i.Object] = i
		return true
	}); err != nil {
		return err
	}
	holders, err := j.holders(list)
	if err != nil {
		return err
	}
	for i := range list {
		u := &list[i]
		writes, err := j.putIdentity(u, there[u.Object])
		if err == nil && writes {
			err = unique(u, holders, coming)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// keyed is a key of identities of a type.
type keyed struct{ typ, name, value string }

// holders finds who has the keys that may be one's alone: before the request, and
// by it.
func (j *judgement) holders(list []datastore.IdentityUpdate) (map[keyed][]tuple.Object, error) {
	found := map[keyed][]tuple.Object{}
	asked := map[string][]datastore.IdentityKey{}
	for i := range list {
		for _, k := range list[i].Keys {
			if o := list[i].Object; k.Unique {
				at := keyed{o.Type, k.Name, k.Value}
				found[at] = append(found[at], o)
				asked[o.Type] = append(asked[o.Type], k)
			}
		}
	}
	for typ, keys := range asked {
		if err := j.keeper.log.Holders(j.keeper.ctx, j.state.store, typ, keys, func(k datastore.IdentityKey, id string) {
			at := keyed{typ, k.Name, k.Value}
			found[at] = append(found[at], tuple.Object{Type: typ, ID: id})
		}); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// putIdentity judges a new version of a user or group, of which now is the newest,
// but for its keys. false if it writes nothing.
func (j *judgement) putIdentity(u *datastore.IdentityUpdate, now datastore.Identity) (bool, error) {
	if j.state.schema.Definition(u.Object.Type) == nil {
		return false, datastore.NoDefinition(u.Kind, u.Object)
	}
	if want := typeOfKind(j.state.schema.Directory, u.Kind); u.Object.Type != want && u.State != datastore.Removed {
		return false, datastore.With(fmt.Errorf("%w: %s is of another type than %s, which the schema now has for it; read the schema again", datastore.ErrPrecondition, u.Object, want), "object", u.Object.String(), "type", want)
	}
	exists := now.State != 0 && now.State != datastore.Removed
	switch {
	case u.Expected != nil && *u.Expected == 0 && exists:
		return false, datastore.With(fmt.Errorf("%s: %w", u.Object, datastore.ErrAlreadyExists), "object", u.Object.String())
	case u.Expected != nil && *u.Expected != 0 && now.Revision != *u.Expected:
		return false, datastore.With(fmt.Errorf("%w: %s is of revision %d, not %d; read it again", datastore.ErrPrecondition, u.Object, now.Revision, *u.Expected),
			"object", u.Object.String(), "revision", strconv.FormatUint(uint64(now.Revision), 10))
	case exists && now.Kind != u.Kind:
		return false, fmt.Errorf("%w: %s is a user or a group already, and cannot be the other", datastore.ErrInvalid, u.Object)
	case now.State == u.State && now.Attributes == u.Attributes && (u.State == datastore.Removed || len(now.Salt) > 0):
		return false, nil
	case u.State == datastore.Removed && !exists:
		return false, nil
	}
	next := datastore.Identity{Object: u.Object, Kind: u.Kind, State: u.State, Revision: j.state.head.Revision + 1, Attributes: u.Attributes, Keys: u.Keys}
	if u.State != datastore.Removed {
		next.Salt = datastore.NewSalt()
	}
	j.versions = append(j.versions, next)
	j.operations = append(j.operations, datastore.Operation{Kind: datastore.PutIdentity, Identity: &datastore.IdentityPut{
		Object: u.Object, Kind: u.Kind, State: u.State, Before: now.State, Digest: datastore.IdentityDigest(next.Salt, next.Attributes)}})
	j.size += len(u.Attributes)
	return true, nil
}

func typeOfKind(d schema.Directory, k datastore.IdentityKind) string {
	if k == datastore.Group {
		return d.Group
	}
	return d.User
}

// directoryStays refuses a schema by which there would be other users, groups or
// members than there are.
func (j *judgement) directoryStays(next schema.Directory) error {
	if j.state.schema == nil {
		return nil
	}
	now := j.state.schema.Directory
	if err := j.noneOf(now.User, now.User != next.User); err != nil {
		return err
	}
	return j.noneOf(now.Group, now.Group != next.Group || now.Member != next.Member)
}

// otherPeople is a [datastore.ErrOrphans] about users and groups, not about
// relationships.
type otherPeople struct{ error }

func (e otherPeople) Unwrap() []error { return []error{datastore.ErrOrphans, e.error} }

// noneOf refuses a schema while there are identities of a type.
func (j *judgement) noneOf(typ string, changes bool) error {
	if !changes {
		return nil
	}
	var one *tuple.Object
	if err := j.identities(datastore.IdentityQuery{Type: typ}, func(i datastore.Identity) bool {
		if i.State != datastore.Removed {
			one = &i.Object
		}
		return one == nil
	}); err != nil || one == nil {
		return err
	}
	return datastore.With(otherPeople{fmt.Errorf("the schema says otherwise than before which types and relation stand for users, groups and their members, and there are some, for example %s; delete them first, or keep the marks `// pemba:users` and `// pemba:groups` as they are", one)},
		"count", "1", "example", one.String())
}

// unique refuses a key that another identity has once the request is written. So
// two can exchange what they have.
func unique(u *datastore.IdentityUpdate, holders map[keyed][]tuple.Object, coming map[tuple.Object]*datastore.IdentityUpdate) error {
	for _, k := range u.Keys {
		if !k.Unique {
			continue
		}
		for _, by := range holders[keyed{u.Object.Type, k.Name, k.Value}] {
			if next := coming[by]; by != u.Object && (next == nil || slices.Contains(next.Keys, k)) {
				return datastore.With(fmt.Errorf("%s of %s is that of %s: %w", k.Name, u.Object, by, datastore.ErrAlreadyExists), "object", by.String(), "attribute", k.Name)
			}
		}
	}
	return nil
}

// detach deletes everything that filters match, each relationship once.
func (j *judgement) detach(filters []tuple.Filter) {
	gone := map[tuple.Key]bool{}
	for _, f := range filters {
		j.state.match(f, func(r tuple.Relationship) bool {
			if !gone[r.Key] {
				gone[r.Key] = true
				j.add(datastore.Operation{Kind: datastore.Delete, Relationship: r})
			}
			return true
		})
	}
}

// erase takes the attributes of a removed identity away.
func (j *judgement) erase(o tuple.Object) error {
	state := datastore.IdentityState(0)
	if err := j.identities(datastore.IdentityQuery{Objects: []tuple.Object{o}}, func(i datastore.Identity) bool {
		state = i.State
		return true
	}); err != nil {
		return err
	}
	for _, i := range j.versions {
		if i.Object == o {
			state = i.State
		}
	}
	switch state {
	case datastore.Removed:
		j.operations = append(j.operations, datastore.Operation{Kind: datastore.Erase, Erased: &o})
		return nil
	case 0:
		return datastore.With(fmt.Errorf("%s: %w", o, datastore.ErrNoIdentity), "object", o.String())
	}
	return fmt.Errorf("%w: %s is not removed; remove it first", datastore.ErrPrecondition, o)
}

// sameIdentities refuses a repeated request whose attributes are not those of
// the first: they are no part of its digest. What was erased is not compared.
func (s *store) sameIdentities(p *pending, earlier datastore.Change) error {
	digests := map[tuple.Object][32]byte{}
	for _, o := range earlier.Operations {
		if o.Kind == datastore.PutIdentity {
			digests[o.Identity.Object] = o.Identity.Digest
		}
	}
	for i := range p.request.Identities {
		u := &p.request.Identities[i]
		digest, ok := digests[u.Object]
		if !ok {
			continue
		}
		differs := false
		err := s.log.Identities(s.keeper.ctx, s.id, 0, datastore.IdentityQuery{Objects: []tuple.Object{u.Object}, Versions: true}, func(i datastore.Identity) bool {
			differs = differs || i.Revision == earlier.Revision && len(i.Salt) > 0 && datastore.IdentityDigest(i.Salt, u.Attributes) != digest
			return true
		})
		if err != nil {
			return err
		}
		if differs {
			return reused(p, earlier)
		}
	}
	return nil
}

// loadWithheld reads who is denied everything at a state's revision.
func (s *store) loadWithheld(ctx context.Context, st *state) error {
	st.withheld = datastore.NewWithheld()
	return s.log.Identities(ctx, s.id, st.head.Revision, datastore.IdentityQuery{Withheld: true}, func(i datastore.Identity) bool {
		st.withheld.Set(i.Object, true)
		return true
	})
}

// compareIdentities compares the versions of users and groups of a page of the
// history with what it says of them.
func (v *verifier) compareIdentities(ctx context.Context, page []identityAt) error {
	for ; len(page) > 0; page = page[min(len(page), verifiedIdentities):] {
		part := page[:min(len(page), verifiedIdentities)]
		objects := make([]tuple.Object, len(part))
		for i, p := range part {
			objects[i] = p.put.Object
		}
		kept := map[identityVersion]datastore.Identity{}
		if err := v.log.Identities(ctx, v.store, v.Head.Revision, datastore.IdentityQuery{Objects: objects, Versions: true}, func(i datastore.Identity) bool {
			kept[identityVersion{i.Object, i.Revision}] = i
			return true
		}); err != nil {
			return err
		}
		for _, p := range part {
			i, ok := kept[identityVersion{p.put.Object, p.at}]
			what := ""
			switch {
			case !ok:
				what = "is missing"
			case i.State != p.put.State || i.Kind != p.put.Kind:
				what = "has another state than in the history"
			case len(i.Salt) > 0 && datastore.IdentityDigest(i.Salt, i.Attributes) != p.put.Digest:
				what = "has other attributes than the history gives the digest of"
			case len(i.Salt) == 0 && i.Attributes != "":
				what = "has attributes and no salt"
			default:
				continue
			}
			return datastore.BrokenAt(p.at, datastore.With(fmt.Errorf("%w: the version of %s of revision %d %s", datastore.ErrCorrupt, p.put.Object, p.at, what), "object", p.put.Object.String()))
		}
	}
	return nil
}

// countIdentities finds versions that no change wrote.
func (v *verifier) countIdentities(ctx context.Context) error {
	kept := 0
	if err := v.log.Identities(ctx, v.store, v.Head.Revision, datastore.IdentityQuery{Versions: true}, func(i datastore.Identity) bool {
		if i.Revision > v.Anchor.Revision && i.Revision <= v.Head.Revision {
			kept++
		}
		return true
	}); err != nil {
		return err
	}
	if kept != v.identities {
		return datastore.BrokenAt(v.Head.Revision, fmt.Errorf("%w: there are %d versions of users and groups, and the history wrote %d", datastore.ErrCorrupt, kept, v.identities))
	}
	return nil
}

// verifiedIdentities bounds the identities whose versions are read at once.
const verifiedIdentities = 1000

// identityAt is what the change at a revision says of an identity.
type identityAt struct {
	at  datastore.Revision
	put *datastore.IdentityPut
}

type identityVersion struct {
	object tuple.Object
	at     datastore.Revision
}
