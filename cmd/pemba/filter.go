package main

import (
	"strings"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

// patternHelp explains parsePattern in the help of commands that take one.
const patternHelp = `A PATTERN is a relationship with parts left out:

  document                     every relationship of documents
  document:readme              of one document
  document:2024-*              of documents whose id begins so
  document:readme#viewer       of one relation
  document#viewer@user:ada     viewers of any document that are user:ada
  @user:ada                    whatever is granted to user:ada itself
  @user                        to any user
  @user:*                      to everybody of the type (the wildcard itself)
  @team:core#member            to the members of a team
  @team:core#*                 to a team, whatever the relation

Quote patterns: the shell reads # and *.`

// parsePattern reads a filter from its pattern. An empty pattern is every relationship.
func parsePattern(text string) (tuple.Filter, error) {
	var f tuple.Filter
	resource, subject, hasSubject := text, "", false
	if strings.HasPrefix(text, "@") {
		resource, subject, hasSubject = "", text[1:], true
	} else if object, rest, ok := strings.Cut(text, "#"); ok {
		// Ids may contain @, relations may not.
		resource = object
		f.Relation, subject, hasSubject = strings.Cut(rest, "@")
		if f.Relation == "*" {
			f.Relation = ""
		}
	}
	typ, id, _ := strings.Cut(resource, ":")
	if typ != "*" {
		f.ObjectType = typ
	}
	f.ObjectID, f.ObjectIDPrefix = splitPrefix(id)
	if hasSubject {
		f.Subject = parseSubjectPattern(subject)
	}
	if err := f.Check(); err != nil {
		return tuple.Filter{}, err
	}
	return f, nil
}

func parseSubjectPattern(text string) tuple.SubjectFilter {
	var f tuple.SubjectFilter
	object, relation, hasRelation := strings.Cut(text, "#")
	typ, id, hasID := strings.Cut(object, ":")
	if typ != "*" {
		f.Type = typ
	}
	switch {
	case id == tuple.Wildcard:
		f.ID = id
	default:
		f.ID, f.IDPrefix = splitPrefix(id)
	}
	switch {
	case relation == "*":
	case hasRelation:
		f.Relation = relation
	case hasID:
		f.Relation = tuple.Ellipsis // a subject without a relation, as in a relationship
	}
	return f
}

// splitPrefix tells an id from a prefix, which ends in *.
func splitPrefix(id string) (exact, prefix string) {
	if p, ok := strings.CutSuffix(id, "*"); ok {
		return "", p
	}
	return id, ""
}

// filterFlags are what a pattern cannot say.
type filterFlags struct {
	caveat           string
	expires, forever bool
}

func (f *filterFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.caveat, "caveat", "", "only relationships with the caveat of this name")
	flags.BoolVar(&f.expires, "expires", false, "only relationships with an expiration")
	flags.BoolVar(&f.forever, "forever", false, "only relationships without an expiration")
}

// toWire makes the filter of a pattern and the flags.
func (f *filterFlags) toWire(pattern string) (*pb.RelationshipFilter, error) {
	t, err := parsePattern(pattern)
	if err != nil {
		return nil, usage(err)
	}
	t.Caveat = f.caveat
	if err := t.Check(); err != nil {
		return nil, usage(err)
	}
	if f.expires && f.forever {
		return nil, usagef("--expires and --forever exclude each other; give one")
	}
	w := filterToWire(t)
	if f.expires || f.forever {
		w.Expires = proto.Bool(f.expires)
	}
	return w, nil
}

func filterToWire(f tuple.Filter) *pb.RelationshipFilter {
	w := &pb.RelationshipFilter{
		ResourceType: f.ObjectType, ResourceId: f.ObjectID, ResourceIdPrefix: f.ObjectIDPrefix,
		Relation: f.Relation, Caveat: f.Caveat,
	}
	if f.Subject != (tuple.SubjectFilter{}) {
		w.Subject = &pb.SubjectFilter{Type: f.Subject.Type, Id: f.Subject.ID, IdPrefix: f.Subject.IDPrefix}
		if f.Subject.Relation != "" {
			w.Subject.Relation = proto.String(f.Subject.Relation)
		}
	}
	return w
}
