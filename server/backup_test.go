package server_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/provisioning"
	"github.com/pembadb/pemba/server"
	"github.com/pembadb/pemba/tuple"
)

// backup asks for a backup and returns its bytes.
func (n *node) backup(t *testing.T, r *pembav1.BackupStoreRequest) ([]byte, error) {
	t.Helper()
	messages, err := all(n.stores.BackupStore(t.Context(), r))
	var image []byte
	for _, m := range messages {
		image = append(image, m.Data...)
	}
	return image, err
}

// restore sends a backup in messages of a size.
func (n *node) restore(t *testing.T, start *pembav1.RestoreStart, image []byte, size int) (*pembav1.RestoreStoreResponse, error) {
	t.Helper()
	stream, err := n.stores.RestoreStore(t.Context())
	if err != nil {
		return nil, err
	}
	err = stream.Send(&pembav1.RestoreStoreRequest{Message: &pembav1.RestoreStoreRequest_Start{Start: start}})
	for err == nil && len(image) > 0 {
		part := image[:min(size, len(image))]
		image = image[len(part):]
		err = stream.Send(&pembav1.RestoreStoreRequest{Message: &pembav1.RestoreStoreRequest_Data{Data: part}})
	}
	return stream.CloseAndRecv()
}

func TestAStoreIsBackedUpAndRestored(t *testing.T) {
	n := documents(t, richSchema)
	for i := range 200 {
		n.write(t, fmt.Sprintf("document:%d#viewer@user:%d", i, i%7))
	}
	halfway := time.Now()
	time.Sleep(2 * time.Millisecond)
	n.write(t, "document:late#viewer@user:0")
	image, err := n.backup(t, &pembav1.BackupStoreRequest{})
	if err != nil {
		t.Fatal(err)
	}
	other := launch(t, memory.New(), keeper.Options{}, server.Config{})
	restored, err := other.restore(t, &pembav1.RestoreStart{Store: "default", Reason: "the old one burned"}, image, 1000)
	if err != nil || restored.Source != "default" || restored.Oldest != 1 || restored.Store.Head != 202 {
		t.Fatalf("restored: %v, %v", restored, err)
	}
	was, err := ending(all(n.stores.VerifyStore(t.Context(), &pembav1.VerifyStoreRequest{})))
	if err != nil || !bytes.Equal(was.Hash, restored.Hash) {
		t.Errorf("the hash is %x, and was %x (%v)", restored.Hash, was.GetHash(), err)
	}
	is, err := ending(all(other.stores.VerifyStore(t.Context(), &pembav1.VerifyStoreRequest{})))
	if err != nil || !bytes.Equal(is.Hash, was.Hash) || is.Rows != was.Rows {
		t.Errorf("the copy is verified as %v, %v; the original %v", is, err, was)
	}
	ask := func(c *pembav1.Consistency, id string) (pembav1.Answer, error) {
		r, err := other.permissions.Check(t.Context(), &pembav1.CheckRequest{Consistency: c, Resource: &pembav1.Object{Type: "document", Id: id}, Permission: "view",
			Subject: &pembav1.Subject{Type: "user", Id: "0"}})
		return r.GetAnswer(), err
	}
	if p, err := ask(&pembav1.Consistency{Requirement: &pembav1.Consistency_AtLeastAsFresh{AtLeastAsFresh: restored.Zookie}}, "late"); err != nil || p != pembav1.Answer_ANSWER_HAS_PERMISSION {
		t.Errorf("at the zookie of the restore: %v, %v", p, err)
	}
	_, err = ask(&pembav1.Consistency{Requirement: &pembav1.Consistency_AtLeastAsFresh{AtLeastAsFresh: was.Zookie}}, "late")
	expect(t, "a zookie of the original", err, codes.InvalidArgument, "INVALID_ZOOKIE")

	// To a revision, and to a time, either way.
	early, err := n.backup(t, &pembav1.BackupStoreRequest{Until: &pembav1.BackupStoreRequest_Time{Time: timestamppb.New(halfway)}})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		image []byte
		start *pembav1.RestoreStart
		head  uint64
	}{
		"backed-up-to-a-time":    {early, &pembav1.RestoreStart{}, 201},
		"restored-to-a-time":     {image, &pembav1.RestoreStart{Until: &pembav1.RestoreStart_Time{Time: timestamppb.New(halfway)}}, 201},
		"restored-to-a-revision": {image, &pembav1.RestoreStart{Until: &pembav1.RestoreStart_Revision{Revision: 17}}, 17},
	} {
		c.start.Store = name
		if r, err := other.restore(t, c.start, c.image, 60<<10); err != nil || r.Store.Head != c.head {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	_, err = n.backup(t, &pembav1.BackupStoreRequest{Until: &pembav1.BackupStoreRequest_Revision{Revision: 999}})
	expect(t, "a backup beyond the head", err, codes.OutOfRange, "BEYOND_HEAD")
	_, err = n.backup(t, &pembav1.BackupStoreRequest{Store: "system"})
	expect(t, "a backup of system", err, codes.FailedPrecondition, "STORE_PROTECTED")
	_, err = other.restore(t, &pembav1.RestoreStart{Store: "default"}, image, 1000)
	expect(t, "a restore over a store", err, codes.AlreadyExists, "STORE_EXISTS")
	_, err = other.restore(t, &pembav1.RestoreStart{Store: "No"}, image, 1000)
	expect(t, "a restore without a name", err, codes.InvalidArgument, "INVALID_STORE")
	_, err = other.restore(t, &pembav1.RestoreStart{Store: "cut"}, image[:len(image)-1], 1000)
	expect(t, "a restore of half a backup", err, codes.InvalidArgument, "INVALID_BACKUP")
}

// ending is the last message of a stream.
func ending[T any](messages []*T, err error) (*T, error) {
	if len(messages) == 0 {
		return new(T), err
	}
	return messages[len(messages)-1], err
}

// A user who was provisioned is found by name in the restored store, and stays
// suspended.
func TestUsersAreRestored(t *testing.T) {
	n := documents(t, "definition user {}\ndefinition group { relation member: user }")
	o := tuple.Object{Type: "user", ID: "eve"}
	keys, err := provisioning.KeysOf(datastore.Identity{Object: o, Kind: datastore.User, Attributes: `{"userName":"Eve@Example.com"}`})
	if err != nil || len(keys) != 1 {
		t.Fatalf("keys %v, %v", keys, err)
	}
	if _, err := n.keeper.Write(t.Context(), datastore.Default, datastore.Request{Actor: "ada", Identities: []datastore.IdentityUpdate{
		{Object: o, Kind: datastore.User, State: datastore.Suspended, Attributes: `{"userName":"Eve@Example.com"}`, Keys: keys}}}); err != nil {
		t.Fatal(err)
	}
	image, err := n.backup(t, &pembav1.BackupStoreRequest{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := n.restore(t, &pembav1.RestoreStart{Store: "copy"}, image, 60<<10)
	if err != nil {
		t.Fatal(err)
	}
	s, err := n.keeper.At(t.Context(), datastore.StoreID(r.Store.Id), datastore.Consistency{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	withheld, err := s.Withheld(t.Context())
	if err != nil || !withheld.Has(o) {
		t.Errorf("a suspended user is not suspended in the copy (%v)", err)
	}
	found := false
	if err := s.Identities(t.Context(), datastore.IdentityQuery{Type: "user", Key: &keys[0]}, func(i datastore.Identity) bool {
		found = i.Object == o && i.Attributes == `{"userName":"Eve@Example.com"}`
		return true
	}); err != nil || !found {
		t.Errorf("a user is not found by name in the copy (%v)", err)
	}
}
