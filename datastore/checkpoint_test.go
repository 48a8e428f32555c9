package datastore_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/tuple"
)

func signer(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func checkpointAt(h datastore.Head) *datastore.Checkpoint {
	c := &datastore.Checkpoint{Store: "default", ID: 2, Head: h}
	c.Sign(signer(1))
	return c
}

// The text is a promise: what an auditor keeps must be readable by every version.
func TestACheckpointIsWrittenInOneWay(t *testing.T) {
	c := checkpointAt(datastore.Head{Incarnation: datastore.Incarnation{0x5d, 1, 2, 3, 4, 5, 6, 7}, Revision: 42,
		Hash: datastore.Hash{0xab}, Time: time.Date(2026, 1, 31, 12, 0, 0, 120_000, time.UTC)})
	want := `pemba checkpoint 1
store: default
store-id: 2
incarnation: 5d01020304050607
revision: 42
hash: ab00000000000000000000000000000000000000000000000000000000000000
time: 2026-01-31T12:00:00.000120Z
signature: `
	if got := c.String(); got[:strings.Index(got, "signature")] != want[:strings.Index(want, "signature")] {
		t.Errorf("got\n%s", got)
	}
	body, _, _ := strings.Cut(c.String(), "signature: ")
	if !ed25519.Verify(public(signer(1)), []byte(body), c.Signature) {
		t.Error("the signature is not over the lines before it")
	}
	back, err := datastore.ParseCheckpoint([]byte(c.String()))
	if err != nil || fmt.Sprint(*back) != fmt.Sprint(*c) || back.Verify(public(signer(1))) != nil {
		t.Fatalf("read back: %+v, %v", back, err)
	}
	if err := back.Verify(public(signer(2))); !errors.Is(err, datastore.ErrCheckpoint) {
		t.Errorf("with another key: %v", err)
	}
}

func TestNoByteOfACheckpointCanBeChanged(t *testing.T) {
	text := []byte(checkpointAt(datastore.Head{Revision: 42, Time: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)}).String())
	refused := func(what string, text []byte) {
		c, err := datastore.ParseCheckpoint(text)
		if err == nil {
			err = c.Verify(public(signer(1)))
		}
		if !errors.Is(err, datastore.ErrCheckpoint) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range text {
		for _, b := range []byte{text[i] ^ 1, text[i] ^ 0x20, '\n', '0'} {
			if b != text[i] {
				changed := bytes.Clone(text)
				changed[i] = b
				refused(fmt.Sprintf("byte %d as %q", i, b), changed)
			}
		}
		refused(fmt.Sprintf("cut before byte %d", i), text[:i])
	}
	refused("something behind it", append(bytes.Clone(text), '\n'))
	refused("a carriage return", bytes.Replace(text, []byte("\n"), []byte("\r\n"), 1))
}

func FuzzParseCheckpoint(f *testing.F) {
	f.Add([]byte(checkpointAt(datastore.Head{Revision: 42, Time: time.Unix(1, 0)}).String()))
	f.Add([]byte("pemba checkpoint 1\nstore: a\nstore-id: 1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if c, err := datastore.ParseCheckpoint(text); err == nil && c.String() != string(text) {
			t.Errorf("%q is read as %q", text, c)
		}
	})
}

// sealed is a history of that many changes.
func sealed(t *testing.T, n int) []datastore.Entry {
	var entries []datastore.Entry
	var prev datastore.Hash
	for i := range n {
		e, err := datastore.Seal(prev, datastore.Change{Revision: datastore.Revision(i + 1), Time: time.Unix(int64(i), 0).UTC(), Actor: "ada", RequestID: fmt.Sprint(i),
			Operations: []datastore.Operation{{Kind: datastore.Erase, Erased: &tuple.Object{Type: "user", ID: fmt.Sprint(i)}}}})
		if err != nil {
			t.Fatal(err)
		}
		entries, prev = append(entries, e), e.Hash
	}
	return entries
}

// follow verifies entries behind a start and returns the revision at which it
// fails.
func follow(start datastore.Head, entries []datastore.Entry, c *datastore.Checkpoint) (string, error) {
	n, err := datastore.NewChain(2, start, c)
	for i := 0; err == nil && i < len(entries); i++ {
		_, err = n.Next(entries[i])
	}
	if err == nil {
		err = n.End()
	}
	return datastore.Facts(err)["revision"], err
}

func TestAChainFindsWhatIsNotAsItWasAndTheCheckpointWhatIsGone(t *testing.T) {
	all := sealed(t, 6)
	at := func(r int) datastore.Head {
		return datastore.Head{Revision: datastore.Revision(r), Hash: all[r-1].Hash, Time: time.Unix(int64(r-1), 0).UTC()}
	}
	var zero datastore.Head
	with := func(i int, e datastore.Entry) []datastore.Entry {
		out := append([]datastore.Entry(nil), all...)
		out[i] = e
		return out
	}
	flipped := all[2]
	flipped.Payload = bytes.Clone(flipped.Payload)
	flipped.Payload[len(flipped.Payload)-1] ^= 1
	swapped := with(2, all[3])
	swapped[3] = all[2]
	rewritten, err := datastore.Seal(all[4].Hash, datastore.Change{Revision: 6, Time: time.Unix(9, 0), Actor: "eve", RequestID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	other := checkpointAt(at(4))
	other.ID = 3
	anew := checkpointAt(datastore.Head{Revision: 4, Hash: all[3].Hash, Incarnation: datastore.Incarnation{9}})
	for name, c := range map[string]struct {
		start   datastore.Head
		entries []datastore.Entry
		point   *datastore.Checkpoint
		at      string
		err     error
	}{
		"as it was":                        {zero, all, nil, "", nil},
		"as it was, by a checkpoint":       {zero, all, checkpointAt(at(4)), "", nil},
		"up to the checkpoint":             {zero, all[:4], checkpointAt(at(4)), "", nil},
		"from the checkpoint on":           {at(4), all[4:], checkpointAt(at(4)), "", nil},
		"a byte of a payload":              {zero, with(2, flipped), nil, "3", datastore.ErrCorrupt},
		"a change gone":                    {zero, append(with(2, all[3])[:3:3], all[4:]...), nil, "3", datastore.ErrCorrupt},
		"two changes swapped":              {zero, swapped, nil, "3", datastore.ErrCorrupt},
		"the end gone, unnoticed":          {zero, all[:3], nil, "", nil},
		"the end gone, by a checkpoint":    {zero, all[:3], checkpointAt(at(4)), "4", datastore.ErrCut},
		"the end rewritten, unnoticed":     {zero, with(5, rewritten), checkpointAt(at(4)), "", nil},
		"the end rewritten, by one":        {zero, with(5, rewritten), checkpointAt(at(6)), "6", datastore.ErrCorrupt},
		"another store":                    {zero, all, other, "", datastore.ErrOtherLine},
		"another line":                     {zero, all, anew, "", datastore.ErrOtherLine},
		"a start behind the checkpoint":    {at(5), all[5:], checkpointAt(at(4)), "", datastore.ErrCompacted},
		"a start that is not the one told": {at(4), all[5:], nil, "5", datastore.ErrCorrupt},
	} {
		place, err := follow(c.start, c.entries, c.point)
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) || place != c.at {
			t.Errorf("%s: at %q, %v", name, place, err)
		}
	}
}
