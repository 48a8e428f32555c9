package provisioning

import (
	"fmt"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/provisioning/scim"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// shape is what stands for users, groups and members in the graph of a store.
type shape struct{ schema.Directory }

// shapeOf is the shape that the schema of a snapshot gives, or the usual one where
// there is no schema.
func shapeOf(s datastore.Snapshot) shape {
	if compiled := s.Schema(); compiled != nil {
		return shape{compiled.Directory}
	}
	return shape{schema.UsualDirectory()}
}

// UserObject is the object that stands for a user in the graph of a snapshot's
// store; its error says what is wrong with the id.
func UserObject(s datastore.Snapshot, id string) (tuple.Object, error) {
	return shapeOf(s).checked(scim.User, id)
}

func (s shape) typeOf(k scim.Kind) string {
	if k == scim.Group {
		return s.Group
	}
	return s.User
}

func (s shape) objectOf(k scim.Kind, id string) tuple.Object {
	return tuple.Object{Type: s.typeOf(k), ID: id}
}

// checked is the object of a user or group; its error says what is wrong with the
// id.
func (s shape) checked(k scim.Kind, id string) (tuple.Object, error) {
	o := s.objectOf(k, id)
	if err := o.Check(); err != nil {
		return o, err
	}
	if id == tuple.Wildcard {
		return o, fmt.Errorf("%w: %s stands for everybody, and is no %s", datastore.ErrInvalid, o, nounOf(k))
	}
	return o, nil
}

// subjectOf is a member as the subject of its membership.
func (s shape) subjectOf(k scim.Kind, id string) tuple.Subject {
	sub := tuple.Subject{Object: s.objectOf(k, id)}
	if k == scim.Group {
		sub.Relation = s.Member
	}
	return sub
}

// memberOf is the member that a subject stands for; false for subjects that are
// none, such as everybody.
func (s shape) memberOf(sub tuple.Subject) (scim.Member, bool) {
	for _, k := range []scim.Kind{scim.User, scim.Group} {
		if sub == s.subjectOf(k, sub.Object.ID) && sub.Object.ID != tuple.Wildcard {
			return scim.Member{ID: sub.Object.ID, Kind: k}, true
		}
	}
	return scim.Member{}, false
}

// membersOf selects the memberships of a group.
func (s shape) membersOf(group string) tuple.Filter {
	return tuple.Filter{ObjectType: s.Group, ObjectID: group, Relation: s.Member}
}

// groupsOf selects the memberships of a user or group in groups.
func (s shape) groupsOf(k scim.Kind, id string) tuple.Filter {
	sub := s.subjectOf(k, id)
	f := tuple.Filter{ObjectType: s.Group, Relation: s.Member, Subject: tuple.SubjectFilter{Type: sub.Type, ID: id, Relation: sub.Relation}}
	if k == scim.User {
		f.Subject.Relation = tuple.Ellipsis
	}
	return f
}

// membership is the relationship by which a member belongs to a group, as an
// update.
func (s shape) membership(kind datastore.Kind, group string, m scim.Member) datastore.Update {
	return datastore.Update{Kind: kind, Relationship: tuple.Relationship{Key: tuple.Key{
		Object: s.objectOf(scim.Group, group), Relation: s.Member, Subject: s.subjectOf(m.Kind, m.ID)}}}
}

// idFor is the id of one whom an identity provider creates.
func (s shape) idFor(k scim.Kind, attributes scim.Object) (string, error) {
	source := s.UserID
	if k == scim.Group {
		source = s.GroupID
	}
	if source == schema.RandomID {
		return newID(), nil
	}
	id, _ := attributes[string(source)].(string)
	if id == "" {
		article := "a"
		if source == schema.ExternalID {
			article = "an"
		}
		return "", scim.Invalid("a %s needs %s %s here: its id is taken from it", k, article, source)
	}
	if _, err := s.checked(k, id); err != nil {
		return "", scim.Invalid("the id of a %s is its %s here, and %q cannot be one: %v", k, source, id, err)
	}
	if id == "." || id == ".." || id == ".search" { // parts of paths that mean something else (RFC 3986 §5.2.4, RFC 7644 §3.4.3)
		return "", scim.Invalid("the id of a %s is its %s here, and %q cannot be one: no request could name it", k, source, id)
	}
	return id, nil
}

func kindOf(k scim.Kind) datastore.IdentityKind {
	if k == scim.Group {
		return datastore.Group
	}
	return datastore.User
}

func kindName(k datastore.IdentityKind) scim.Kind {
	if k == datastore.Group {
		return scim.Group
	}
	return scim.User
}

func nounOf(k scim.Kind) string {
	if k == scim.Group {
		return "group"
	}
	return "user"
}
