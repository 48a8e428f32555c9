package server_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
	pembav1 "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

func TestStoresAreTenantsOfTheirOwn(t *testing.T) {
	n := documents(t, richSchema)
	ctx := t.Context()
	made, err := n.stores.CreateStore(ctx, &pembav1.CreateStoreRequest{Store: "acme", RequestId: "make-acme"})
	if err != nil || made.Store.Name != "acme" || made.Store.Id == 0 || made.Store.Created == nil {
		t.Fatalf("made %v, %v", made, err)
	}
	again, err := n.stores.CreateStore(ctx, &pembav1.CreateStoreRequest{Store: "acme", RequestId: "make-acme"})
	if err != nil || again.Store.Id != made.Store.Id || again.Zookie != made.Zookie {
		t.Errorf("the same request again: %v, %v", again, err)
	}
	_, err = n.stores.CreateStore(ctx, &pembav1.CreateStoreRequest{Store: "acme"})
	expect(t, "a taken name", err, codes.AlreadyExists, "STORE_EXISTS")
	if fact(err, "store") != "acme" {
		t.Errorf("the store is not named: %v", err)
	}
	n.write(t, "document:1#viewer@user:a")
	_, err = n.permissions.Check(ctx, &pembav1.CheckRequest{Store: "acme", Resource: &pembav1.Object{Type: "document", Id: "1"}, Permission: "view", Subject: &pembav1.Subject{Type: "user", Id: "a"}})
	expect(t, "the schema of another store", err, codes.FailedPrecondition, "UNKNOWN_TYPE")
	old, err := n.schemas.ApplySchema(ctx, &pembav1.ApplySchemaRequest{Store: "acme", Text: richSchema})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.stores.DeleteStore(ctx, &pembav1.DeleteStoreRequest{Store: "acme"}); err != nil {
		t.Fatal(err)
	}
	_, err = n.schemas.GetSchema(ctx, &pembav1.GetSchemaRequest{Store: "acme"})
	expect(t, "a deleted store", err, codes.NotFound, "UNKNOWN_STORE")
	remade, err := n.stores.CreateStore(ctx, &pembav1.CreateStoreRequest{Store: "acme"})
	if err != nil || remade.Store.Id == made.Store.Id {
		t.Errorf("made anew: %v, %v", remade, err)
	}
	_, err = n.schemas.GetSchema(ctx, &pembav1.GetSchemaRequest{Store: "acme", Consistency: &pembav1.Consistency{Requirement: &pembav1.Consistency_AtLeastAsFresh{AtLeastAsFresh: old.Zookie}}})
	expect(t, "a zookie of the store that had the name", err, codes.InvalidArgument, "INVALID_ZOOKIE")
	for _, name := range []string{"default", "system"} {
		_, err := n.stores.DeleteStore(ctx, &pembav1.DeleteStoreRequest{Store: name})
		expect(t, "deleting "+name, err, codes.FailedPrecondition, "STORE_PROTECTED")
	}
}

func TestStoresAndTokensAreListedInPages(t *testing.T) {
	n := launch(t, memory.New(), keeper.Options{}, server.Config{Token: "root", Limits: server.Limits{ListResults: 4}})
	root := bearer(t, "root")
	want := []string{"default", "system"}
	for i := range 5 {
		name := fmt.Sprintf("tenant-%d", i)
		want = append(want, name)
		if _, err := n.stores.CreateStore(root, &pembav1.CreateStoreRequest{Store: name}); err != nil {
			t.Fatal(err)
		}
		if _, err := n.tokens.CreateToken(root, &pembav1.CreateTokenRequest{Name: name, Store: name, Role: pembav1.Role_ROLE_READER}); err != nil {
			t.Fatal(err)
		}
	}
	for limit := range uint32(9) {
		var got, named []string
		for cursor, done := "", false; !done; {
			r, err := n.stores.ListStores(root, &pembav1.ListStoresRequest{Limit: limit, Cursor: cursor})
			if err != nil {
				t.Fatal(err)
			}
			if most := 4; len(r.Stores) > most || limit > 0 && len(r.Stores) > int(limit) {
				t.Errorf("a page of %d has %d stores", limit, len(r.Stores))
			}
			for _, s := range r.Stores {
				got = append(got, s.Name)
			}
			if cursor, done = r.Cursor, r.Complete; done != (cursor == "") {
				t.Errorf("complete %t with cursor %q", done, cursor)
			}
		}
		for cursor, done := "", false; !done; {
			r, err := n.tokens.ListTokens(root, &pembav1.ListTokensRequest{Limit: limit, Cursor: cursor})
			if err != nil {
				t.Fatal(err)
			}
			for _, token := range r.Tokens {
				named = append(named, token.Name)
			}
			cursor, done = r.Cursor, r.Complete
		}
		if !slices.Equal(got, want) || !slices.Equal(named, want[2:]) {
			t.Errorf("pages of %d give the stores %v and the tokens %v", limit, got, named)
		}
	}
	page, err := n.stores.ListStores(root, &pembav1.ListStoresRequest{Limit: 1, Prefix: "tenant"})
	if err != nil || page.Stores[0].Name != "tenant-0" {
		t.Fatalf("by prefix: %v, %v", page, err)
	}
	_, err = n.stores.ListStores(root, &pembav1.ListStoresRequest{Cursor: page.Cursor})
	expect(t, "a cursor of another list", err, codes.InvalidArgument, "INVALID_CURSOR")
	_, err = n.tokens.ListTokens(root, &pembav1.ListTokensRequest{Cursor: "tenant-3"})
	expect(t, "a name for a cursor", err, codes.InvalidArgument, "INVALID_CURSOR")
	only := "tenant-2"
	if r, err := n.tokens.ListTokens(root, &pembav1.ListTokensRequest{Store: &only}); err != nil || len(r.Tokens) != 1 || r.Tokens[0].Name != only {
		t.Errorf("the tokens of one store: %v, %v", r, err)
	}
	made, err := n.tokens.CreateToken(root, &pembav1.CreateTokenRequest{Name: "scoped", Store: "tenant-1", Role: pembav1.Role_ROLE_WRITER})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := n.stores.ListStores(bearer(t, made.Secret), &pembav1.ListStoresRequest{}); err != nil || len(r.Stores) != 1 || r.Stores[0].Name != "tenant-1" {
		t.Errorf("a token for one store sees %v, %v", r, err)
	}
	standard, err := n.tokens.CreateToken(root, &pembav1.CreateTokenRequest{Name: "unsaid", Role: pembav1.Role_ROLE_READER})
	if err != nil || standard.Token.Store != "default" {
		t.Errorf("a token without a store is for %v, %v", standard, err)
	}
}

// tampered gives some entries back with a byte changed, as a damaged disk or a
// forger would.
type tampered struct {
	datastore.Log
	store datastore.StoreID
	at    datastore.Revision
}

func (l *tampered) After(ctx context.Context, store datastore.StoreID, from datastore.Revision, limit int) (datastore.Head, []datastore.Entry, error) {
	head, entries, err := l.Log.After(ctx, store, from, limit)
	entries = slices.Clone(entries)
	for i := range entries {
		if store == l.store && entries[i].Revision == l.at {
			entries[i].Payload = slices.Clone(entries[i].Payload)
			entries[i].Payload[len(entries[i].Payload)-1] ^= 1
		}
	}
	return head, entries, err
}

func TestVerificationNamesTheFirstRevisionThatDoesNotFit(t *testing.T) {
	log := &tampered{Log: memory.New(), store: datastore.Default}
	n := launch(t, log, keeper.Options{}, server.Config{})
	empty, err := all(n.stores.VerifyStore(t.Context(), &pembav1.VerifyStoreRequest{}))
	if err != nil || !last(empty).Complete || last(empty).Head != 0 {
		t.Errorf("an empty store: %v, %v", empty, err)
	}
	n.apply(t, richSchema)
	for i := range 50 {
		n.write(t, fmt.Sprintf("document:%d#viewer@user:a", i))
	}
	vs, err := all(n.stores.VerifyStore(t.Context(), &pembav1.VerifyStoreRequest{}))
	if v := last(vs); err != nil || !v.Complete || v.Oldest != 1 || v.Verified != 51 || v.Head != 51 || len(v.Hash) != 32 {
		t.Errorf("verified: %v, %v", v, err)
	}
	log.at = 40
	_, err = all(n.stores.VerifyStore(t.Context(), &pembav1.VerifyStoreRequest{}))
	expect(t, "a damaged change", err, codes.DataLoss, "CHAIN_BROKEN")
	if fact(err, "revision") != "40" || !strings.Contains(err.Error(), "change 40") {
		t.Errorf("the revision is not named: %v (%q)", err, fact(err, "revision"))
	}
}

func TestApplyingASchemaTellsWhatItChangedItself(t *testing.T) {
	n := documents(t, "definition user {}")
	request := &pembav1.ApplySchemaRequest{Text: "definition user {}\ndefinition group { relation member: user }", RequestId: "add-groups"}
	request.DryRun = true
	dry, err := n.schemas.ApplySchema(t.Context(), &pembav1.ApplySchemaRequest{Text: request.Text, DryRun: true})
	if err != nil || !dry.Changed || dry.Revision != 1 || len(dry.Differences) == 0 || dry.RequestId != "" {
		t.Errorf("a dry run: %v, %v", dry, err)
	}
	request.DryRun = false
	applied, err := n.schemas.ApplySchema(t.Context(), request)
	if err != nil || !applied.Changed || applied.Revision != 2 || applied.RequestId != "add-groups" || applied.Hash != dry.Hash {
		t.Fatalf("applied: %v, %v", applied, err)
	}
	n.apply(t, "definition user {}\ndefinition team {}")
	again, err := n.schemas.ApplySchema(t.Context(), request)
	if err != nil || !again.Changed || again.Revision != 2 || len(again.Differences) != len(applied.Differences) {
		t.Errorf("the same request again, after another schema: %v, %v; want what it did then, %v", again, err, applied)
	}
	if same := n.apply(t, "definition user {}\ndefinition team {}"); same.Changed || same.RequestId != "" || len(same.Differences) != 0 {
		t.Errorf("the schema in force: %v", same)
	}
	wrong := strings.Repeat("0", 64)
	_, err = n.schemas.ApplySchema(t.Context(), &pembav1.ApplySchemaRequest{Text: "definition user {}", ExpectedHash: &wrong})
	expect(t, "another schema in force", err, codes.FailedPrecondition, "SCHEMA_HASH_MISMATCH")
	if fact(err, "hash") == "" || fact(err, "expected") != wrong {
		t.Errorf("the hashes are not named: %v", err)
	}
}
