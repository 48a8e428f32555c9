package provisioning

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/provisioning/scim"
	"github.com/pembadb/pemba/tuple"
)

// live reports whether an identity is a resource of a kind that is not removed.
func live(i *datastore.Identity, k scim.Kind) bool {
	return i.Kind == kindOf(k) && (i.State == datastore.Active || i.State == datastore.Suspended)
}

func versionOf(r datastore.Revision) string { return strconv.FormatUint(uint64(r), 10) }

// resource is an identity as SCIM has it.
func resource(i *datastore.Identity, k scim.Kind) (*scim.Resource, error) {
	r := &scim.Resource{Kind: k, ID: i.Object.ID, Version: versionOf(i.Revision), Attributes: scim.Object{}, Own: i.State}
	if i.Attributes != "" {
		if err := json.Unmarshal([]byte(i.Attributes), &r.Attributes); err != nil {
			return nil, fmt.Errorf("%w: the attributes of %s: %w", datastore.ErrCorrupt, i.Object, err)
		}
	}
	meta, _ := r.Attributes["meta"].(scim.Object)
	delete(r.Attributes, "meta")
	r.Created, r.Modified = timeOf(meta["created"]), timeOf(meta["lastModified"])
	if k == scim.User {
		r.Attributes["active"] = i.State == datastore.Active
	}
	return r, nil
}

// StateOf is the state of a resource that is not removed.
func StateOf(r *scim.Resource) datastore.IdentityState {
	active, said := r.Attributes["active"].(bool)
	state, _ := r.Own.(datastore.IdentityState)
	switch {
	case said && !active:
		return datastore.Suspended
	case said || state == 0:
		return datastore.Active
	}
	return state
}

func timeOf(v any) time.Time {
	s, _ := v.(string)
	t, _ := time.Parse(time.RFC3339Nano, s)
	return t
}

// identity is a resource as the history has it, without the revision that it must
// replace. SCIM has no word for a suspended group: its state is the one given.
func (s shape) identity(r *scim.Resource, state datastore.IdentityState) (datastore.IdentityUpdate, error) {
	u := datastore.IdentityUpdate{Object: s.objectOf(r.Kind, r.ID), Kind: kindOf(r.Kind), State: state}
	kept := scim.Object{"meta": scim.Object{"created": r.Created.Format(time.RFC3339Nano), "lastModified": r.Modified.Format(time.RFC3339Nano)}}
	for name, v := range r.Attributes {
		if name != "active" {
			kept[name] = v
		}
	}
	if active, said := r.Attributes["active"].(bool); said {
		u.State = datastore.Suspended
		if active {
			u.State = datastore.Active
		}
	}
	text, err := json.Marshal(kept)
	if err != nil {
		return u, err
	}
	if u.Attributes, err = tuple.CanonicalJSON(string(text)); err != nil {
		return u, err
	}
	u.Keys = attributeKeys(r.Kind, r.Attributes)
	return u, nil
}

// KeysOf is what a version of a user or group is found by. ErrCorrupt if its
// attributes are not what a Directory writes.
func KeysOf(i datastore.Identity) ([]datastore.IdentityKey, error) {
	var attributes map[string]any
	if i.Attributes != "" {
		if err := json.Unmarshal([]byte(i.Attributes), &attributes); err != nil {
			return nil, fmt.Errorf("%w: the attributes of %s: %w", datastore.ErrCorrupt, i.Object, err)
		}
	}
	kind := scim.User
	if i.Kind == datastore.Group {
		kind = scim.Group
	}
	return attributeKeys(kind, attributes), nil
}

func attributeKeys(k scim.Kind, attributes map[string]any) (keys []datastore.IdentityKey) {
	for _, name := range keysOf(k) {
		if v, _ := attributes[name].(string); v != "" {
			keys = append(keys, key(name, v))
		}
	}
	return keys
}

func keysOf(k scim.Kind) []string {
	if k == scim.Group {
		return []string{"displayName", "externalId"}
	}
	return []string{"userName", "externalId"}
}

// key is what an identity is found by. externalId is compared exactly, other texts
// without regard to case (RFC 7643 §3.1, §4.1.1, §4.2).
func key(name, value string) datastore.IdentityKey {
	if name != "externalId" {
		value = scim.Fold(value)
	}
	return datastore.IdentityKey{Name: name, Value: value, Unique: name != "displayName"}
}

// newID draws a random UUID (RFC 9562 §5.4).
func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
