package main

import (
	"context"
	"strings"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// identityTypes gives what the schema of a store calls users and groups.
type identityTypes func() schema.Directory

// identityTypes asks the server; who may not read the schema hears the usual names.
func (c *connection) identityTypes(ctx context.Context) identityTypes {
	return func() schema.Directory {
		r, err := c.schemas.GetSchema(ctx, &pb.GetSchemaRequest{Store: c.store, Consistency: &pb.Consistency{Requirement: &pb.Consistency_FullyConsistent{FullyConsistent: true}}})
		if err != nil {
			return schema.UsualDirectory()
		}
		s, _, err := schema.Compile(schema.Source{Name: "schema", Text: r.Text}, nil, schema.Options{})
		if err != nil {
			return schema.UsualDirectory()
		}
		return s.Directory
	}
}

// parseUser is the id of a user, written as user:ID, or with the type that stands
// for users in the schema.
func (c *connection) parseUser(ctx context.Context, text string) (string, error) {
	return parseIdentity("user", text, c.identityTypes(ctx))
}

// parseGroup is parseUser for a group.
func (c *connection) parseGroup(ctx context.Context, text string) (string, error) {
	return parseIdentity("group", text, c.identityTypes(ctx))
}

// parseMembers reads users and groups.
func (c *connection) parseMembers(ctx context.Context, texts []string) ([]*pb.Member, error) {
	return parseMembers(texts, c.identityTypes(ctx))
}

// parseIdentity is the id of a user or group. A noun before the id always means
// that noun; the schema is asked for other types only.
func parseIdentity(noun, text string, types identityTypes) (string, error) {
	typ, id, typed := strings.Cut(text, ":")
	write := noun + ":ID"
	if typed && typ != noun {
		d := types()
		own := d.User
		if noun == "group" {
			own = d.Group
		}
		if own != noun {
			write += " or " + own + ":ID"
		}
		typed = typ == own && own != "user" && own != "group"
	}
	if !typed {
		return "", usagef("%q is no %s; write %s", text, noun, write)
	}
	if id == tuple.Wildcard {
		return "", usagef("%s stands for everybody, and is no %s; write %s", text, noun, write)
	}
	if err := (tuple.Object{Type: noun, ID: id}).Check(); err != nil {
		return "", usage(err)
	}
	return id, nil
}

// parseMembers reads users and groups.
func parseMembers(texts []string, types identityTypes) (list []*pb.Member, err error) {
	for _, text := range texts {
		typ, _, typed := strings.Cut(text, ":")
		noun, write := typ, "user:ID or group:ID"
		if typed && typ != "user" && typ != "group" {
			d := types()
			switch typ {
			case d.User:
				noun = "user"
			case d.Group:
				noun = "group"
			}
		}
		if !typed || noun != "user" && noun != "group" {
			return nil, usagef("%q is no member; write %s", text, write)
		}
		id, err := parseIdentity(noun, text, types)
		if err != nil {
			return nil, err
		}
		m := &pb.Member{Member: &pb.Member_User{User: id}}
		if noun == "group" {
			m.Member = &pb.Member_Group{Group: id}
		}
		list = append(list, m)
	}
	return list, nil
}
