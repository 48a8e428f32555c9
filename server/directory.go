package server

import (
	"errors"
	"fmt"
	"io"
	"iter"

	"google.golang.org/grpc"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/provisioning"
	"github.com/pembadb/pemba/provisioning/scim"
)

// defaultRemovals is how many users and groups an application of a directory may
// remove where its caller does not say: an empty or cut off directory must not
// remove everybody.
const defaultRemovals = 100

type directoryStream = grpc.BidiStreamingServer[pembav1.ApplyDirectoryRequest, pembav1.ApplyDirectoryResponse]

func (s *provisionings) ApplyDirectory(stream directoryStream) error {
	first, err := stream.Recv()
	start := first.GetStart()
	if errors.Is(err, io.EOF) || err == nil && start == nil {
		return missing("start")
	}
	if err != nil {
		return err
	}
	d, err := s.directory(stream.Context(), start.Store, "", start.Reason, maxRequestID)
	if err != nil {
		return err
	}
	o := provisioning.Application{DryRun: start.DryRun, RemoveOrphans: start.RemoveOrphans, MaxRemovals: defaultRemovals}
	if start.MaxRemovals != nil {
		o.MaxRemovals = int(*start.MaxRemovals)
	}
	err = d.Apply(stream.Context(), o, directoryEntries(stream), func(a provisioning.Applied) error {
		m := &pembav1.ApplyDirectoryResponse{Zookie: a.Zookie, Complete: a.Complete}
		for i := range a.Steps {
			m.Steps = append(m.Steps, stepProto(&a.Steps[i]))
		}
		return stream.Send(m)
	})
	var about *provisioning.EntryError
	if errors.As(err, &about) && about.Kind != "" && errors.Is(err, datastore.ErrAlreadyExists) {
		return provisioningError(about.Kind, err)
	}
	return err
}

// directoryEntries reads the entries that a client sends.
func directoryEntries(stream directoryStream) iter.Seq2[provisioning.Entry, error] {
	return func(yield func(provisioning.Entry, error) bool) {
		for n := 0; ; {
			m, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return
			}
			if err == nil && m.GetEntries() == nil {
				err = missing("entries")
			}
			if err != nil {
				yield(provisioning.Entry{}, err)
				return
			}
			for _, e := range m.GetEntries().Entries {
				entry, err := directoryEntry(e, fmt.Sprintf("entries[%d]", n))
				if !yield(entry, err) || err != nil {
					return
				}
				n++
			}
		}
	}
}

// directoryEntry reads an entry; field names it by its place in the whole.
func directoryEntry(e *pembav1.DirectoryEntry, field string) (out provisioning.Entry, err error) {
	switch is := e.GetEntry().(type) {
	case *pembav1.DirectoryEntry_User:
		return provisioning.Entry{Kind: scim.User, ID: is.User.GetId(), Attributes: objectOf(is.User.GetAttributes())}, checkID(field+".user.id", is.User.GetId())
	case *pembav1.DirectoryEntry_Group:
		return provisioning.Entry{Kind: scim.Group, ID: is.Group.GetId(), Attributes: objectOf(is.Group.GetAttributes())}, checkID(field+".group.id", is.Group.GetId())
	case *pembav1.DirectoryEntry_Membership:
		m, err := member(is.Membership.GetMember(), field+".membership.member")
		if err != nil {
			return out, err
		}
		return provisioning.Entry{ID: is.Membership.GetGroup(), Member: &m}, checkID(field+".membership.group", is.Membership.GetGroup())
	}
	return out, missing(field + ".user, group or membership")
}

func stepProto(s *provisioning.Step) *pembav1.DirectoryStep {
	out := &pembav1.DirectoryStep{Action: pembav1.DirectoryAction(s.Action), Changed: s.Changed}
	switch {
	case s.Action == provisioning.Orphan || s.Action == provisioning.RemoveOrphan:
		out.Subject = &pembav1.DirectoryStep_Relationship{Relationship: relationshipProto(&s.Relationship)}
	case s.Entry.Member != nil:
		out.Subject = &pembav1.DirectoryStep_Membership{Membership: &pembav1.Membership{Group: s.Entry.ID, Member: memberProto(*s.Entry.Member)}}
	case s.Entry.Kind == scim.Group:
		out.Subject = &pembav1.DirectoryStep_Group{Group: s.Entry.ID}
	default:
		out.Subject = &pembav1.DirectoryStep_User{User: s.Entry.ID}
	}
	return out
}
