package server

import (
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/pembadb/pemba/datastore"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/provisioning"
	"github.com/pembadb/pemba/provisioning/scim"
)

// defaultRemovals is how many users, groups and memberships an application of a directory may
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
	d, err := s.directory(stream.Context(), start.Store, "", start.Reason)
	if err != nil {
		return err
	}
	o := provisioning.Application{DryRun: start.DryRun, RemoveOrphans: start.RemoveOrphans, RemoveMost: start.RemoveMost, MaxRemovals: defaultRemovals}
	if start.MaxRemovals != nil {
		o.MaxRemovals = int(*start.MaxRemovals)
	}
	in := &incomingDirectory{stream: stream, empty: start.Empty}
	err = d.Apply(stream.Context(), o, in.entries, func(a provisioning.Applied) error {
		m := &pembav1.ApplyDirectoryResponse{Zookie: a.Zookie, Complete: a.Complete, Refusal: a.Refusal}
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

// incomingDirectory is a directory as a client sends it.
type incomingDirectory struct {
	stream directoryStream
	empty  bool // the client says that it has no entries
	n      int  // how many came
}

// entries reads the entries up to the end that the client declares. A stream that
// ends without one was cut off, as a file or a body can be, and is an error: what
// it lacks must not be taken for what is to go.
func (in *incomingDirectory) entries(yield func(provisioning.Entry, error) bool) {
	for {
		entries, err := in.next()
		if err != nil {
			yield(provisioning.Entry{}, err)
			return
		}
		if entries == nil {
			return
		}
		for _, e := range entries.Entries {
			entry, err := directoryEntry(e, fmt.Sprintf("entries[%d]", in.n))
			if !yield(entry, err) || err != nil {
				return
			}
			in.n++
		}
	}
}

// next are the entries of one message; nil at the end.
func (in *incomingDirectory) next() (*pembav1.DirectoryEntries, error) {
	m, err := in.stream.Recv()
	switch {
	case errors.Is(err, io.EOF):
		return nil, withReason(codes.InvalidArgument, pembav1.ErrorReason_ERROR_REASON_MISSING_FIELD,
			fmt.Sprintf("the field end is missing: the directory broke off after %d entries; send all of it, and last the end", in.n), "field", "end")
	case err != nil:
		return nil, err
	case m.GetEnd() != nil:
		return nil, in.checkEnd(m.GetEnd().Entries)
	case m.GetEntries() == nil:
		return nil, missing("entries")
	case in.empty && len(m.GetEntries().Entries) > 0:
		return nil, badField(pembav1.ErrorReason_ERROR_REASON_INVALID_FIELD, "start.empty", errors.New("the directory has entries, and says that it has none"))
	}
	return m.GetEntries(), nil
}

// checkEnd compares what came with what the client says there was.
func (in *incomingDirectory) checkEnd(declared uint64) error {
	switch {
	case declared != uint64(in.n):
		return badField(pembav1.ErrorReason_ERROR_REASON_INVALID_FIELD, "end.entries", fmt.Errorf("%d entries came, not %d; send all of it again", in.n, declared))
	case in.n == 0 && !in.empty:
		return badField(pembav1.ErrorReason_ERROR_REASON_INVALID_FIELD, "start.empty", errors.New("the directory has no entries, which would remove all users and groups; if that is meant, set empty"))
	}
	return nil
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
