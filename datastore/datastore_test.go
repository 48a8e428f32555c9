package datastore_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

func sample(t testing.TB) datastore.Change {
	var rels []tuple.Relationship
	for _, text := range []string{`d:1#v@u:a[c:{"x":1}]`, "d:1#v@g:1#m[expiration:2030-01-01T00:00:00Z]"} {
		r, err := tuple.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		rels = append(rels, r)
	}
	at := time.Date(2027, 1, 1, 0, 0, 0, 5000, time.UTC)
	return datastore.Change{
		Revision: 7, Time: at, Actor: "ada", Reason: "because", RequestID: "r1", Metadata: `{"ticket":7}`, BodyDigest: [32]byte{1},
		Operations: []datastore.Operation{
			{Kind: datastore.Create, Relationship: rels[0]},
			{Kind: datastore.Touch, Relationship: rels[1], Previous: &rels[0]},
			{Kind: datastore.Delete, Relationship: rels[0]},
			{Kind: datastore.Expire, Relationship: rels[1]},
			{Kind: datastore.ApplySchema, Schema: &datastore.SchemaText{Text: "definition u {}", Hash: [32]byte{2}, PreviousHash: [32]byte{3}, Names: []string{"u"}}},
			{Kind: datastore.CreateStore, Store: &datastore.Store{ID: 9, Name: "s", Created: at}},
			{Kind: datastore.DeleteStore, Store: &datastore.Store{ID: 9, Name: "s"}},
			{Kind: datastore.CreateToken, Token: &datastore.Token{Name: "t", Role: "reader", Store: "s", StoreID: 9, Hash: [32]byte{4}, Created: at, Actor: "ada"}},
			{Kind: datastore.RevokeToken, Token: &datastore.Token{Name: "t", Role: "reader"}},
		},
	}
}

func TestAChangeOpensAsItWasSealed(t *testing.T) {
	c := sample(t)
	e, err := datastore.Seal(datastore.Hash{8}, c)
	if err != nil {
		t.Fatal(err)
	}
	c.Hash = e.Hash
	got, err := datastore.Open(e)
	if err != nil || !reflect.DeepEqual(got, c) {
		t.Errorf("opened %+v, %v\nsealed %+v", got, err, c)
	}
}

func TestEveryByteOfAChangeIsUnderItsHash(t *testing.T) {
	e, err := datastore.Seal(datastore.Hash{8}, sample(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := datastore.VerifyLink(datastore.Hash{8}, e); err != nil {
		t.Fatal(err)
	}
	if err := datastore.VerifyLink(datastore.Hash{9}, e); !errors.Is(err, datastore.ErrCorrupt) {
		t.Errorf("behind another change: %v", err)
	}
	for _, bytes := range [][]byte{e.Header, e.Payload} {
		for i := range bytes {
			bytes[i] ^= 1
			if err := datastore.VerifyLink(datastore.Hash{8}, e); !errors.Is(err, datastore.ErrCorrupt) {
				t.Errorf("byte %d changed: %v", i, err)
			}
			bytes[i] ^= 1
		}
	}
}

func TestAnOperationFromTheFutureIsNotSkipped(t *testing.T) {
	e, err := datastore.Seal(datastore.Hash{}, datastore.Change{Revision: 1})
	if err != nil {
		t.Fatal(err)
	}
	e.Payload = []byte{0x0a, 0x03, 0x92, 0x3f, 0x00} // an operation of a kind nobody knows yet
	if _, err := datastore.Open(e); !errors.Is(err, datastore.ErrUnknownOperation) {
		t.Errorf("opened with %v", err)
	}
}

func TestARequestsDigestTellsItFromOthers(t *testing.T) {
	a := datastore.Request{ID: "1", Actor: "ada", DeleteStore: "s"}
	b := a
	b.ID = "2"
	if a.Digest() != b.Digest() {
		t.Error("the id is part of the digest")
	}
	if b.DeleteStore = "t"; a.Digest() == b.Digest() {
		t.Error("the body is not part of the digest")
	}
}

func FuzzParseZookie(f *testing.F) {
	f.Add(datastore.Zookie{Store: 2, Revision: 3, Tag: [8]byte{1}}.String())
	f.Add("")
	f.Add(datastore.Zookie{Store: 2}.String() + "\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		z, err := datastore.ParseZookie(text)
		if err != nil {
			if !errors.Is(err, datastore.ErrZookie) {
				t.Fatalf("ParseZookie(%q): %v", text, err)
			}
			return
		}
		if z.String() != text {
			t.Fatalf("%q prints as %q", text, z)
		}
	})
}

func FuzzOpen(f *testing.F) {
	e, err := datastore.Seal(datastore.Hash{}, sample(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.Header, e.Payload)
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, header, payload []byte) {
		_, err := datastore.Open(datastore.Entry{Header: header, Payload: payload})
		if err != nil && !errors.Is(err, datastore.ErrCorrupt) && !errors.Is(err, datastore.ErrUnknownOperation) {
			t.Fatalf("Open: %v", err)
		}
	})
}
