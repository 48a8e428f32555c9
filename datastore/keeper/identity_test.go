package keeper_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/tuple"
)

// tampered is a Log whose identities somebody edited; edit gives what is left of
// one.
type tampered struct {
	datastore.Log
	edit func(datastore.Identity) []datastore.Identity
}

func (l *tampered) Identities(ctx context.Context, store datastore.StoreID, at datastore.Revision, q datastore.IdentityQuery, f func(datastore.Identity) bool) error {
	more := true
	return l.Log.Identities(ctx, store, at, q, func(i datastore.Identity) bool {
		for _, left := range l.edit(i) {
			more = more && f(left)
		}
		return more
	})
}

func TestAVerificationFindsAnEditedIdentity(t *testing.T) {
	ada := tuple.Object{Type: "user", ID: "a"}
	untouched := func(i datastore.Identity) []datastore.Identity { return []datastore.Identity{i} }
	for name, edit := range map[string]func(datastore.Identity) []datastore.Identity{
		"gone":             func(datastore.Identity) []datastore.Identity { return nil },
		"other attributes": func(i datastore.Identity) []datastore.Identity { i.Attributes = `{"x":1}`; return untouched(i) },
		"another salt":     func(i datastore.Identity) []datastore.Identity { i.Salt = datastore.NewSalt(); return untouched(i) },
		"without salt":     func(i datastore.Identity) []datastore.Identity { i.Salt = nil; return untouched(i) },
		"reactivated":      func(i datastore.Identity) []datastore.Identity { i.State = datastore.Active; return untouched(i) },
		"another kind":     func(i datastore.Identity) []datastore.Identity { i.Kind = datastore.Group; return untouched(i) },
		"invented": func(i datastore.Identity) []datastore.Identity {
			other := i
			other.Object.ID = "b"
			return []datastore.Identity{i, other}
		},
	} {
		t.Run(name, func(t *testing.T) {
			log := &tampered{memory.New(), untouched}
			k := open(t, log, keeper.Options{})
			write(t, k, applying(testSchema))
			write(t, k, datastore.Request{Identities: []datastore.IdentityUpdate{{Object: ada, Kind: datastore.User, State: datastore.Suspended, Attributes: `{"userName":"ada"}`}}})
			if _, err := k.Verify(bg, datastore.Default, nil); err != nil {
				t.Fatalf("untouched: %v", err)
			}
			log.edit = edit
			if _, err := k.Verify(bg, datastore.Default, nil); !errors.Is(err, datastore.ErrCorrupt) {
				t.Errorf("a verification says %v", err)
			}
		})
	}
}

func TestARequestIsNoneWithOtherAttributes(t *testing.T) {
	k := open(t, memory.New(), keeper.Options{})
	write(t, k, applying(testSchema))
	ada := tuple.Object{Type: "user", ID: "a"}
	put := func(attributes string) datastore.Request {
		return datastore.Request{ID: "put", Identities: []datastore.IdentityUpdate{{Object: ada, Kind: datastore.User, State: datastore.Active, Attributes: attributes}}}
	}
	first := write(t, k, put(`{"userName":"ada"}`))
	if again := write(t, k, put(`{"userName":"ada"}`)); !again.Repeated || again.Revision != first.Revision {
		t.Errorf("the same request again gives %+v", again)
	}
	if _, err := k.Write(bg, datastore.Default, put(`{"userName":"eve"}`)); !errors.Is(err, datastore.ErrRequestReused) {
		t.Errorf("the id with other attributes gives %v", err)
	}
}

// A schema that makes others of users and groups is refused in words about them.
func TestASchemaThatRenamesUsersIsRefused(t *testing.T) {
	k := openWithSchema(t, memory.New(), keeper.Options{})
	apply := func(text string) error {
		_, err := k.Write(bg, datastore.Default, datastore.Request{Schema: &datastore.SchemaUpdate{Text: text}})
		return err
	}
	const both = "definition user {}\ndefinition group { relation member: user }\n"
	if err := apply(both + "definition person {}"); err != nil {
		t.Fatal(err)
	}
	write(t, k, datastore.Request{Identities: []datastore.IdentityUpdate{{Object: tuple.Object{Type: "user", ID: "ada"}, Kind: datastore.User, State: datastore.Active, Attributes: `{"userName":"ada"}`}}})
	err := apply(both + "// pemba:users\ndefinition person {}")
	if !errors.Is(err, datastore.ErrOrphans) || strings.Contains(err.Error(), "relationships") || !strings.Contains(err.Error(), "user:ada") || !strings.Contains(err.Error(), "pemba:users") {
		t.Errorf("users become persons: %v", err)
	}
}
