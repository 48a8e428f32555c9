package scim

import (
	"context"
	"time"
)

// Object is a JSON object: values are string, bool, json.Number, []any and
// map[string]any.
type Object = map[string]any

// Resource is a user or a group.
type Resource struct {
	Kind Kind
	ID   string
	// Version is another after every change of the resource, members included.
	Version string
	// Created and Modified are zero where they are not known.
	Created, Modified time.Time
	// Attributes are named and typed as their schema says. Those of an extension
	// stand in an object under its URI. The id, meta, schemas, the members of a
	// group and the groups of a user are not among them, nor any password. Whoever
	// receives a Resource does not change it.
	Attributes Object
	// Own is what the Directory wants to keep with it; nothing here reads it.
	Own any
}

// Member is a direct member of a group.
type Member struct {
	ID   string
	Kind Kind // empty where a client did not say: the user of that id, else the group
	// Display is the member's name; a Directory may leave it empty, and clients'
	// are ignored.
	Display string
}

// Key is a value that resources are looked up by. Attribute is one of
//
//	User:  userName (in any case of letters), externalId
//	Group: displayName (in any case of letters), externalId,
//	       members.value (groups with that user or group as a direct member)
type Key struct{ Attribute, Value string }

// Query asks for resources of a kind, in the order of their ids' bytes.
type Query struct {
	Kind  Kind
	Key   *Key   // nil: all
	After string // ids up to and including it are left out
	Limit int
}

// View is one state of a directory. It is used by one goroutine.
type View interface {
	// Get returns a resource; an [Error] of status 404 if there is none.
	Get(ctx context.Context, k Kind, id string) (*Resource, error)
	// List returns up to q.Limit resources; fewer tell that there are no more.
	List(ctx context.Context, q Query) ([]*Resource, error)
	// Count is how many resources of a kind there are.
	Count(ctx context.Context, k Kind) (int, error)
	// Members returns up to limit direct members of a group in an order of its own,
	// those after a member; nil: from the first. Fewer tell that there are no more.
	Members(ctx context.Context, group string, after *Member, limit int) ([]Member, error)
	// HasMember reports whether a user or group with an id is a direct member.
	HasMember(ctx context.Context, group, id string) (bool, error)
	// Version tells states apart: two Views with one version are of one state.
	Version() string
	Close()
}

// Draft is a resource to be created.
type Draft struct {
	Attributes Object
	Members    []Member
}

// Change is what an update makes of a resource.
type Change struct {
	// Version is what the change was made of; [ErrVersion] if it is no longer the
	// resource's. Empty: any.
	Version string
	// Attributes are the new ones, all of them; nil leaves them as they are.
	// "active" left out leaves that as it is, too.
	Attributes Object
	// Members is nil if they stay.
	Members *MemberChange
}

// MemberChange is who goes, and then who comes.
type MemberChange struct {
	// Replace takes all members away who are not in Add.
	Replace     bool
	Add, Remove []Member
}

// Directory keeps users and groups. Its methods may be called concurrently. What
// they return for clients to read is an [Error]: 404 for a resource that does not
// exist, 409 for one that would have the userName or externalId of another (see
// [NotFound], [Duplicate], [Invalid]).
type Directory interface {
	// View returns the newest state: all that a change that has returned did, on
	// whatever node, is part of it. The caller closes it.
	View(ctx context.Context) (View, error)
	// Create makes resources of a kind: all, or none.
	Create(ctx context.Context, k Kind, drafts []Draft) ([]*Resource, error)
	// Update changes a resource. Adding who is a member and removing who is none
	// changes nothing.
	Update(ctx context.Context, k Kind, id string, c Change) (*Resource, error)
	// Delete removes a resource and its memberships; version is as in [Change].
	Delete(ctx context.Context, k Kind, id, version string) error
}
