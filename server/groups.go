package server

import (
	"context"
	"fmt"
	"strings"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/provisioning"
	"github.com/pembadb/pemba/provisioning/scim"
)

// maxMembers bounds the members of one AddMembers or RemoveMembers, which is one
// change.
const maxMembers = 500

func groupProto(r *scim.Resource, state datastore.IdentityState) (*pembav1.Group, error) {
	attributes, err := attributesOf(r)
	return &pembav1.Group{Id: r.ID, State: pembav1.GroupState(state), Attributes: attributes, Revision: revisionOf(r), Created: timeProto(r.Created), Updated: timeProto(r.Modified)}, err
}

// member reads a member of a request.
func member(m *pembav1.Member, field string) (scim.Member, error) {
	switch is := m.GetMember().(type) {
	case *pembav1.Member_User:
		return scim.Member{Kind: scim.User, ID: is.User}, checkID(field+".user", is.User)
	case *pembav1.Member_Group:
		return scim.Member{Kind: scim.Group, ID: is.Group}, checkID(field+".group", is.Group)
	}
	return scim.Member{}, missing(field + ".user, or " + field + ".group,")
}

func members(given []*pembav1.Member) ([]scim.Member, error) {
	list := make([]scim.Member, len(given))
	for n, m := range given {
		var err error
		if list[n], err = member(m, fmt.Sprintf("members[%d]", n)); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func memberProto(m scim.Member) *pembav1.Member {
	if m.Kind == scim.Group {
		return &pembav1.Member{Member: &pembav1.Member_Group{Group: m.ID}}
	}
	return &pembav1.Member{Member: &pembav1.Member_User{User: m.ID}}
}

func (s *provisionings) GetGroup(ctx context.Context, r *pembav1.GetGroupRequest) (*pembav1.GetGroupResponse, error) {
	if err := checkID("id", r.Id); err != nil {
		return nil, err
	}
	snapshot, _, err := s.people(ctx, r.Store, r.Consistency)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	found, state, err := provisioning.ViewOf(snapshot).Get(ctx, scim.Group, r.Id)
	if err != nil {
		return nil, provisioningError(scim.Group, err)
	}
	g, err := groupProto(found, state)
	return &pembav1.GetGroupResponse{Zookie: snapshot.Zookie(), Group: g}, err
}

func (s *provisionings) ListGroups(ctx context.Context, r *pembav1.ListGroupsRequest) (*pembav1.ListGroupsResponse, error) {
	p, err := s.page(ctx, r, &pembav1.ListGroupsRequest{Filter: r.Filter})
	if err != nil {
		return nil, err
	}
	defer p.snapshot.Close()
	found, next, err := p.find(ctx, scim.Group, r.Filter)
	if err != nil {
		return nil, err
	}
	out := &pembav1.ListGroupsResponse{Zookie: p.snapshot.Zookie(), Cursor: next, Complete: next == ""}
	for _, f := range found {
		g, err := groupProto(f, provisioning.StateOf(f))
		if err != nil {
			return nil, err
		}
		out.Groups = append(out.Groups, g)
	}
	return out, nil
}

func (s *provisionings) ListMembers(ctx context.Context, r *pembav1.ListMembersRequest) (*pembav1.ListMembersResponse, error) {
	if err := checkID("id", r.Id); err != nil {
		return nil, err
	}
	p, err := s.page(ctx, r, &pembav1.ListMembersRequest{Id: r.Id})
	if err != nil {
		return nil, err
	}
	defer p.snapshot.Close()
	var after *scim.Member
	if p.after != "" {
		kind, id, _ := strings.Cut(p.after, " ")
		after = &scim.Member{Kind: scim.Kind(kind), ID: id}
	}
	list, err := provisioning.ViewOf(p.snapshot).Members(ctx, r.Id, after, p.limit+1)
	if err != nil {
		return nil, provisioningError(scim.Group, err)
	}
	out := &pembav1.ListMembersResponse{Zookie: p.snapshot.Zookie(), Complete: len(list) <= p.limit}
	if !out.Complete {
		list = list[:p.limit]
		last := list[len(list)-1]
		out.Cursor = p.next(string(last.Kind) + " " + last.ID)
	}
	for _, m := range list {
		out.Members = append(out.Members, memberProto(m))
	}
	return out, nil
}

func (s *provisionings) CreateGroup(ctx context.Context, r *pembav1.CreateGroupRequest) (*pembav1.CreateGroupResponse, error) {
	d, err := s.of(ctx, r.Store, r.Id, r.RequestId, r.Reason)
	if err != nil {
		return nil, err
	}
	g, err := draft(scim.Group, r.Id, r.Attributes)
	if err != nil {
		return nil, err
	}
	if g.Members, err = members(r.Members); err != nil {
		return nil, err
	}
	made, err := d.Create(ctx, scim.Group, []provisioning.Draft{g}, r.RequestId)
	if err != nil {
		return nil, provisioningError(scim.Group, err)
	}
	return &pembav1.CreateGroupResponse{Zookie: made[0].Zookie}, nil
}

func (s *provisionings) UpdateGroup(ctx context.Context, r *pembav1.UpdateGroupRequest) (*pembav1.UpdateGroupResponse, error) {
	d, err := s.of(ctx, r.Store, r.Id, r.RequestId, r.Reason)
	if err != nil {
		return nil, err
	}
	c, err := change(scim.Group, r.Attributes, r.Replace, r.ExpectedRevision, r.RequestId)
	if err != nil {
		return nil, err
	}
	w, err := d.Update(ctx, scim.Group, r.Id, c)
	if err != nil {
		return nil, provisioningError(scim.Group, err)
	}
	g, err := groupProto(w.Resource, provisioning.StateOf(w.Resource))
	return &pembav1.UpdateGroupResponse{Zookie: w.Zookie, Group: g}, err
}

func (s *provisionings) SuspendGroup(ctx context.Context, r *pembav1.SuspendGroupRequest) (*pembav1.SuspendGroupResponse, error) {
	zookie, err := s.set(ctx, scim.Group, r.Store, r.Id, r.RequestId, r.Reason, datastore.Suspended)
	return &pembav1.SuspendGroupResponse{Zookie: zookie}, err
}

func (s *provisionings) ReactivateGroup(ctx context.Context, r *pembav1.ReactivateGroupRequest) (*pembav1.ReactivateGroupResponse, error) {
	zookie, err := s.set(ctx, scim.Group, r.Store, r.Id, r.RequestId, r.Reason, datastore.Active)
	return &pembav1.ReactivateGroupResponse{Zookie: zookie}, err
}

func (s *provisionings) DeleteGroup(ctx context.Context, r *pembav1.DeleteGroupRequest) (*pembav1.DeleteGroupResponse, error) {
	zookie, err := s.set(ctx, scim.Group, r.Store, r.Id, r.RequestId, r.Reason, datastore.Removed)
	return &pembav1.DeleteGroupResponse{Zookie: zookie}, err
}

func (s *provisionings) EraseGroup(ctx context.Context, r *pembav1.EraseGroupRequest) (*pembav1.EraseGroupResponse, error) {
	zookie, err := s.erase(ctx, scim.Group, r.Store, r.Id, r.RequestId, r.Reason)
	return &pembav1.EraseGroupResponse{Zookie: zookie}, err
}

// join adds or removes the members of a request.
func (s *provisionings) join(ctx context.Context, store, id, requestID, reason string, given []*pembav1.Member, add bool) (string, error) {
	d, err := s.of(ctx, store, id, requestID, reason)
	if err != nil {
		return "", err
	}
	if len(given) == 0 {
		return "", missing("members")
	}
	if err := atMost(len(given), maxMembers, "max-members", "members in one request", "send several"); err != nil {
		return "", err
	}
	list, err := members(given)
	if err != nil {
		return "", err
	}
	var w provisioning.Written
	if add {
		w, err = d.Join(ctx, id, list, nil, requestID)
	} else {
		w, err = d.Join(ctx, id, nil, list, requestID)
	}
	return w.Zookie, provisioningError(scim.Group, err)
}

func (s *provisionings) AddMembers(ctx context.Context, r *pembav1.AddMembersRequest) (*pembav1.AddMembersResponse, error) {
	zookie, err := s.join(ctx, r.Store, r.Id, r.RequestId, r.Reason, r.Members, true)
	return &pembav1.AddMembersResponse{Zookie: zookie}, err
}

func (s *provisionings) RemoveMembers(ctx context.Context, r *pembav1.RemoveMembersRequest) (*pembav1.RemoveMembersResponse, error) {
	zookie, err := s.join(ctx, r.Store, r.Id, r.RequestId, r.Reason, r.Members, false)
	return &pembav1.RemoveMembersResponse{Zookie: zookie}, err
}

func (s *provisionings) ReplaceMembers(ctx context.Context, r *pembav1.ReplaceMembersRequest) (*pembav1.ReplaceMembersResponse, error) {
	d, err := s.of(ctx, r.Store, r.Id, r.RequestId, r.Reason)
	if err != nil {
		return nil, err
	}
	list, err := members(r.Members)
	if err != nil {
		return nil, err
	}
	w, err := d.Update(ctx, scim.Group, r.Id, provisioning.Change{Members: &scim.MemberChange{Replace: true, Add: list}, RequestID: r.RequestId})
	return &pembav1.ReplaceMembersResponse{Zookie: w.Zookie}, provisioningError(scim.Group, err)
}
