package server

import (
	"context"
	"math/bits"
	"slices"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/tuple"
)

// powers are permissions of the store system's schema on a scope, each a bit.
type powers uint16

const (
	mayCheck powers = 1 << iota
	mayRead
	mayWrite
	mayApplySchema
	mayProvision
	mayReview
	mayAudit
	mayAdminister

	// known stands in the table of methods for what every caller may who is known,
	// open for what everybody may.
	known powers = 1 << 15
	open  powers = 0
)

// permissionOf names the permissions, in the order of their bits.
var permissionOf = []string{"check", "read", "write", "apply_schema", "provision", "review", "audit", "administer"}

// rights are what a caller may do where, as the graph of the store system says.
type rights struct {
	all    powers // on all stores
	stores map[datastore.StoreID]powers
	types  map[datastore.StoreID]map[string]powers
	any    powers // on anything
}

// everything are the rights of who holds the server's own token.
var everything = &rights{all: mayAdminister<<1 - 1, any: mayAdminister<<1 - 1}

// on is what may be done with a store as a whole.
func (r *rights) on(store datastore.StoreID) powers {
	if r == nil {
		return 0
	}
	return r.all | r.stores[store]
}

// onType is what may be done with a store's objects of a type.
func (r *rights) onType(store datastore.StoreID, typ string) powers {
	return r.on(store) | r.types[store][typ]
}

// forTypes reports whether something may be done with all of some types of a store,
// or of no types with any.
func (r *rights) forTypes(store datastore.StoreID, types []string, p powers) bool {
	if len(types) > 0 {
		return !slices.ContainsFunc(types, func(t string) bool { return r.onType(store, t)&p == 0 })
	}
	for _, may := range r.types[store] {
		if may&p != 0 {
			return true
		}
	}
	return false
}

// knows reports whether anything may be done with a store.
func (r *rights) knows(store datastore.StoreID) bool {
	return r.on(store) != 0 || len(r.types[store]) > 0
}

func (r *rights) add(scope string, p powers) {
	r.any |= p
	store, typ := datastore.ParseScope(scope)
	switch {
	case store == 0:
		r.all |= p
	case typ == "":
		if r.stores == nil {
			r.stores = map[datastore.StoreID]powers{}
		}
		r.stores[store] |= p
	default:
		if r.types == nil {
			r.types = map[datastore.StoreID]map[string]powers{}
		}
		if r.types[store] == nil {
			r.types[store] = map[string]powers{}
		}
		r.types[store][typ] |= p
	}
}

// person is whose rights are asked for.
type person struct {
	caller datastore.Caller
	groups string // as joinGroups writes them
}

// bringing is a person with what they bring along: a token's own role. A token that
// is revoked and made anew under its name brings another.
type bringing struct {
	person
	role  string
	store datastore.StoreID
}

// joinGroups writes groups so that the same ones are the same text.
func joinGroups(groups []string) string {
	groups = slices.Clone(groups)
	slices.Sort(groups)
	return strings.Join(slices.Compact(groups), "\x00")
}

func splitGroups(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, "\x00")
}

// grants remembers what callers may do by the grants of one revision of the store
// system.
type grants struct {
	hash  datastore.Hash // of the revision
	until time.Time      // when the next of its grants ends; zero: none does
	found *lru.Cache[bringing, *rights]
}

// rememberedCallers bounds for how many callers a node remembers what they may.
const rememberedCallers = 10_000

// rightsOf asks the graph of the store system what a caller may do. A token brings
// the role that it was made with; callers of an identity provider bring their
// groups. Both act as if they were written.
func (s *Server) rightsOf(ctx context.Context, p person, own *datastore.Grant) (*rights, error) {
	system, err := s.ds.At(ctx, datastore.System, datastore.Consistency{})
	if err != nil {
		return nil, err
	}
	defer system.Close()
	now := time.Now()
	g, err := s.grantsAt(ctx, system, now)
	if err != nil {
		return nil, err
	}
	key := bringing{person: p}
	if own != nil {
		key.role, key.store = own.Role, own.StoreID
	}
	if r, ok := g.found.Get(key); ok {
		return r, nil
	}
	r, err := askRights(ctx, system, p, own, now)
	if err == nil {
		g.found.Add(key, r)
	}
	return r, err
}

func askRights(ctx context.Context, system datastore.Snapshot, p person, own *datastore.Grant, now time.Time) (*rights, error) {
	var contextual []tuple.Relationship
	if own != nil {
		contextual = append(contextual, own.Relationship())
	}
	for _, group := range splitGroups(p.groups) {
		contextual = append(contextual, p.caller.Within(group))
	}
	r := &rights{}
	for n, permission := range permissionOf {
		_, err := graph.LookupResources(ctx, system, graph.ResourcesQuestion{
			Type: datastore.ScopeType, Permission: permission, Subject: p.caller.Subject(), Contextual: contextual,
		}, now, graph.Limits{}, graph.LookupOptions{}, func(f graph.Found) bool {
			r.add(f.ID, 1<<n)
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	return r, nil
}

// grantsAt is what is remembered of a revision of the store system.
func (s *Server) grantsAt(ctx context.Context, system datastore.Snapshot, now time.Time) (*grants, error) {
	hash := system.Head().Hash
	if g := s.grants.Load(); g != nil && g.hash == hash && (g.until.IsZero() || now.Before(g.until)) {
		return g, nil
	}
	found, err := lru.New[bringing, *rights](rememberedCallers)
	if err != nil {
		return nil, err
	}
	g := &grants{hash: hash, found: found}
	ending := true
	query := datastore.RowQuery{Filter: tuple.Filter{ObjectType: datastore.ScopeType, Expires: &ending}}
	err = system.Rows(ctx, query, now, func(row datastore.Row) bool {
		if at := row.Expiration; at.After(now) && (g.until.IsZero() || at.Before(g.until)) {
			g.until = at
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	s.grants.Store(g)
	return g, nil
}

// rolesThat are the roles that allow all of some powers, the weakest first.
func rolesThat(p powers) []string {
	if p == known || p == open {
		return datastore.Roles
	}
	var out []string
	for _, role := range datastore.Roles {
		if powersOf[role]&p == p {
			out = append(out, role)
		}
	}
	return out
}

// powersOf says what each role allows, for texts: what counts is the schema of the
// store system, which a test compares with it.
var powersOf = map[string]powers{
	"checker":      mayCheck,
	"reader":       mayCheck | mayRead,
	"writer":       mayCheck | mayRead | mayWrite,
	"schema-admin": mayCheck | mayRead | mayApplySchema,
	"provisioner":  mayCheck | mayRead | mayProvision | mayReview,
	"auditor":      mayCheck | mayRead | mayReview | mayAudit,
	"admin":        mayAdminister<<1 - 1,
}

func (p powers) String() string {
	var out []string
	for rest := p &^ known; rest != 0; rest &= rest - 1 {
		if n := bits.TrailingZeros16(uint16(rest)); n < len(permissionOf) {
			out = append(out, permissionOf[n])
		}
	}
	return strings.Join(out, "+")
}
