package datastore

import (
	_ "embed" // for SystemSchema
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pembadb/pemba/tuple"
)

// SystemSchema is the schema of the store system. Its relationships are grants: see
// [Grant].
//
//go:embed system.zed
var SystemSchema string

// Roles are what a caller can be granted, as people write them: those that may do
// least first.
var Roles = []string{"checker", "reader", "writer", "schema-admin", "provisioner", "auditor", "admin"}

// rolesOfTypes are those that can be granted for one type of objects: what the
// others allow is about a store as a whole.
var rolesOfTypes = []string{"checker", "reader", "writer"}

// Kinds of callers.
const (
	CallerToken       = "token"
	CallerOIDC        = "oidc"
	CallerCertificate = "certificate"
	CallerGroup       = "group" // of callers, as an identity provider names it
)

// Caller is who is granted a role: kind and name, written `kind:name`.
type Caller struct{ Kind, Name string }

func (c Caller) String() string { return c.Kind + ":" + c.Name }

// ParseCaller reads a caller. Errors wrap ErrName.
func ParseCaller(text string) (Caller, error) {
	kind, name, _ := strings.Cut(text, ":")
	c := Caller{kind, name}
	if !slices.Contains([]string{CallerToken, CallerOIDC, CallerCertificate, CallerGroup}, kind) || name == "" {
		return c, With(fmt.Errorf("%w: caller %q; write token:NAME, oidc:SUBJECT, certificate:IDENTITY or group:NAME", ErrName, shorten(text)), "caller", shorten(text))
	}
	return c, c.check()
}

// check refuses a caller that no object of the store system can stand for.
func (c Caller) check() error {
	if err := c.Object().Check(); err != nil {
		return With(fmt.Errorf("%w: caller %q: %w", ErrName, shorten(c.String()), err), "caller", shorten(c.String()))
	}
	return nil
}

func shorten(text string) string {
	text = strings.ToValidUTF8(text, "?")
	if len(text) > 80 {
		text = strings.ToValidUTF8(text[:80], "") + "…"
	}
	return text
}

// Object is the caller in the store system. What an id cannot hold is written
// there as in a URL: `group:Domain%20Admins`.
func (c Caller) Object() tuple.Object {
	if c.Kind == CallerGroup {
		return tuple.Object{Type: "group", ID: escapeID(c.Name)}
	}
	return tuple.Object{Type: "caller", ID: c.Kind + ":" + escapeID(c.Name)}
}

// Subject is whom a grant to the caller is for.
func (c Caller) Subject() tuple.Subject {
	if c.Kind == CallerGroup {
		return tuple.Subject{Object: c.Object(), Relation: "member"}
	}
	return tuple.Subject{Object: c.Object()}
}

// Within is the relationship that puts a caller into a group.
func (c Caller) Within(group string) tuple.Relationship {
	return tuple.Relationship{Key: tuple.Key{Object: Caller{CallerGroup, group}.Object(), Relation: "member", Subject: c.Subject()}}
}

func callerOf(s tuple.Subject) Caller {
	if s.Type == "group" {
		return Caller{CallerGroup, unescapeID(s.ID)}
	}
	kind, name, _ := strings.Cut(s.ID, ":")
	return Caller{kind, unescapeID(name)}
}

// escapeID writes what an id cannot hold as % and two hexadecimal digits.
func escapeID(text string) string {
	var out strings.Builder
	for i, r := range text {
		// An invalid byte is a rune of its own, and is written as what it is.
		size := len(string(r))
		if r == '\uFFFD' && !strings.HasPrefix(text[i:], "\uFFFD") {
			size = 1
		}
		part := text[i : i+size]
		if r != '%' && part != "*" && tuple.CheckID(part) == nil {
			out.WriteString(part)
			continue
		}
		for _, b := range []byte(part) {
			fmt.Fprintf(&out, "%%%02X", b)
		}
	}
	return out.String()
}

func unescapeID(id string) string {
	var out strings.Builder
	for i := 0; i < len(id); i++ {
		if id[i] == '%' && i+2 < len(id) {
			if b, err := strconv.ParseUint(id[i+1:i+3], 16, 8); err == nil {
				out.WriteByte(byte(b))
				i += 2
				continue
			}
		}
		out.WriteByte(id[i])
	}
	return out.String()
}

// Grant gives a caller a role: on all stores, on one, or on one's objects of a
// type.
type Grant struct {
	Caller Caller
	Role   string // one of Roles
	// Store is empty, and StoreID zero, for all stores, those made later included.
	Store   string
	StoreID StoreID
	// Type, where a store is given, is that of the objects; empty: all types.
	Type string
	// Expires is when the grant ends; zero: when it is taken back.
	Expires time.Time `json:",omitzero"`
}

// ScopeType is the type of the objects in the store system on which callers have
// roles.
const ScopeType = "scope"

// everywhere is the id of the scope of all stores.
const everywhere = "all"

// Scope is the object in the store system that the grant is on.
func (g Grant) Scope() tuple.Object {
	id := everywhere
	if g.StoreID != 0 {
		id = strconv.FormatUint(uint64(g.StoreID), 10)
		if g.Type != "" {
			id += "/" + g.Type
		}
	}
	return tuple.Object{Type: ScopeType, ID: id}
}

// ParseScope reads the id of a scope: the store, zero for all, and the type, empty
// for all.
func ParseScope(id string) (StoreID, string) {
	store, typ, _ := strings.Cut(id, "/")
	n, _ := strconv.ParseUint(store, 10, 64)
	return StoreID(n), typ
}

// Relationship is the grant as the store system keeps it.
func (g Grant) Relationship() tuple.Relationship {
	return tuple.Relationship{
		Key:        tuple.Key{Object: g.Scope(), Relation: strings.ReplaceAll(g.Role, "-", "_"), Subject: g.Caller.Subject()},
		Expiration: g.Expires,
	}
}

// GrantOf reads a relationship of the store system; its store has no name yet.
func GrantOf(r tuple.Relationship) Grant {
	g := Grant{Caller: callerOf(r.Subject), Role: strings.ReplaceAll(r.Relation, "_", "-"), Expires: r.Expiration}
	g.StoreID, g.Type = ParseScope(r.Object.ID)
	return g
}

// Check refuses a grant that is wrong whatever the store system holds. Errors wrap
// ErrName or ErrInvalid.
func (g Grant) Check() error {
	if err := g.Caller.check(); err != nil {
		return err
	}
	if !slices.Contains(Roles, g.Role) {
		return With(fmt.Errorf("%w: role %q; it is one of %s", ErrName, shorten(g.Role), strings.Join(Roles, ", ")), "role", shorten(g.Role))
	}
	if g.Type == "" {
		return nil
	}
	if g.Store == "" {
		return fmt.Errorf("%w: a grant for the type %s needs a store; types are those of a store's schema", ErrInvalid, shorten(g.Type))
	}
	if !slices.Contains(rolesOfTypes, g.Role) {
		return With(fmt.Errorf("%w: the role %s is about a store as a whole, and cannot be granted for the type %s alone; those for a type are %s", ErrInvalid, g.Role, shorten(g.Type), strings.Join(rolesOfTypes, ", ")), "role", g.Role)
	}
	if err := tuple.CheckType(g.Type); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}
