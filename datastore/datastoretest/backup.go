package datastoretest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/tuple"
)

// RunBackup checks that a backup of a store on one Log, restored on another, is the
// same store, whole and at each of its revisions.
func RunBackup(t *testing.T, from, to func(t *testing.T) datastore.Log) {
	for _, trimmed := range []bool{false, true} {
		name := "whole"
		if trimmed {
			name = "of trimmed history"
		}
		t.Run(name, func(t *testing.T) { restoresTheSame(t, newOriginal(t, from(t), trimmed), to(t)) })
	}
}

// original is a store with all that stores have, on a keeper with a clock.
type original struct {
	log   datastore.Log
	k     *keeper.Keeper
	clock *clock
	store datastore.Store
	times []time.Time // by revision
}

const backupRetention = 40 * time.Second

func newOriginal(t *testing.T, log datastore.Log, trimmed bool) *original {
	t.Helper()
	v := &original{log: log, clock: &clock{start}, times: []time.Time{start}}
	options := keeper.Options{SweepEvery: time.Hour, MaxStaleness: time.Millisecond, Now: v.clock.Now}
	if trimmed {
		options.Retention, options.HistoryRetention = backupRetention, 3*backupRetention/2
	}
	k, err := keeper.Open(keptOpen{log}, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	v.k = k
	o, err := k.Write(bg, datastore.System, datastore.Request{Actor: "ada", CreateStore: &datastore.Store{Name: "original"}})
	if err != nil {
		t.Fatal(err)
	}
	v.store = *o.Store
	v.write(t, datastore.Request{Schema: &datastore.SchemaUpdate{Text: testSchema}})
	r := rand.New(rand.NewPCG(7, 11))
	for n := range 60 {
		v.write(t, v.request(r, n))
	}
	v.write(t, datastore.Request{Schema: &datastore.SchemaUpdate{Text: testSchema + "\ndefinition folder {\n\trelation owner: user\n}\n"}})
	v.write(t, datastore.Request{Updates: []datastore.Update{{Kind: datastore.Touch, Relationship: create("folder:1#owner@user:ada").Relationship}}})
	for n := range 20 {
		v.write(t, v.request(r, 100+n))
	}
	if err := k.Tidy(bg); err != nil {
		t.Fatal(err)
	}
	if anchor, err := log.Anchor(bg, v.store.ID); err != nil || (anchor.Revision > 0) != trimmed {
		t.Fatalf("the anchor is %+v, %v", anchor, err)
	}
	return v
}

// write writes a change, a second after the one before; refusals are passed over.
func (v *original) write(t *testing.T, r datastore.Request) {
	t.Helper()
	v.clock.add(time.Second)
	r.Actor, r.Reason, r.ID = "ada", "test", fmt.Sprintf("request-%d", len(v.times))
	o, err := v.k.Write(bg, v.store.ID, r)
	if err != nil {
		t.Fatalf("%+v: %v", r, err)
	}
	for len(v.times) <= int(o.Revision) {
		v.times = append(v.times, o.Time)
	}
}

// request is the nth of a random history that no request of is refused.
func (v *original) request(r *rand.Rand, n int) datastore.Request {
	user := tuple.Object{Type: "user", ID: fmt.Sprintf("u%d", r.IntN(6))}
	put := func(u tuple.Object, state datastore.IdentityState) datastore.IdentityUpdate {
		p := datastore.IdentityUpdate{Object: u, Kind: datastore.User, State: state}
		if state != datastore.Removed {
			p.Attributes, p.Keys = attributesOf(fmt.Sprintf("%s of %d", u.ID, n))
		}
		return p
	}
	switch r.IntN(8) {
	case 0:
		return datastore.Request{Identities: []datastore.IdentityUpdate{put(user, datastore.Active), put(tuple.Object{Type: "user", ID: "other"}, datastore.Suspended)}}
	case 1:
		return datastore.Request{Identities: []datastore.IdentityUpdate{put(user, datastore.Suspended)}}
	case 2:
		gone := tuple.Object{Type: "user", ID: fmt.Sprintf("gone%d", r.IntN(3))}
		state := datastore.Active
		if r.IntN(2) == 0 {
			state = datastore.Removed
		}
		return datastore.Request{Identities: []datastore.IdentityUpdate{put(gone, state)}}
	case 3:
		return datastore.Request{DeleteWhere: &tuple.Filter{ObjectType: "document", ObjectID: fmt.Sprint(r.IntN(4))}}
	case 4:
		erased := tuple.Object{Type: "user", ID: fmt.Sprintf("erased%d", n)}
		return datastore.Request{Identities: []datastore.IdentityUpdate{put(erased, datastore.Active)}}
	}
	var list []datastore.Update
	for i := range 3 {
		text := fmt.Sprintf("document:%d#viewer@user:u%d", r.IntN(4), 3*i+r.IntN(3))
		switch r.IntN(4) {
		case 0:
			text += `[on_day:{"day":"monday"}]`
		case 1:
			text += "[expiration:2026-01-01T00:01:00Z]"
		}
		list = append(list, datastore.Update{Kind: datastore.Touch, Relationship: create(text).Relationship})
	}
	return datastore.Request{Updates: list}
}

// eraseSome removes and erases users, so that their attributes are nowhere.
func (v *original) eraseSome(t *testing.T) (erased []tuple.Object) {
	t.Helper()
	if err := v.log.Identities(bg, v.store.ID, datastore.Revision(len(v.times)-1), datastore.IdentityQuery{Type: "user"}, func(i datastore.Identity) bool {
		if strings.HasPrefix(i.Object.ID, "erased") {
			erased = append(erased, i.Object)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	for _, o := range erased {
		v.write(t, datastore.Request{Identities: []datastore.IdentityUpdate{{Object: o, Kind: datastore.User, State: datastore.Removed}}})
		v.write(t, datastore.Request{Erase: &o})
	}
	if len(erased) == 0 {
		t.Fatal("nobody was erased")
	}
	return erased
}

// nameKeys finds users by the name in their attributes.
func nameKeys(i datastore.Identity) ([]datastore.IdentityKey, error) {
	var a struct {
		UserName string `json:"userName"`
	}
	if err := json.Unmarshal([]byte(i.Attributes), &a); err != nil {
		return nil, err
	}
	_, keys := attributesOf(a.UserName)
	return keys, nil
}

func (v *original) backup(t *testing.T) ([]byte, datastore.Backup) {
	t.Helper()
	var out bytes.Buffer
	b, _, err := v.k.Backup(bg, v.store, nil, &out)
	if err != nil {
		t.Fatalf("backup: %v", err)
	}
	return out.Bytes(), b
}

func restoresTheSame(t *testing.T, v *original, log datastore.Log) {
	erased := v.eraseSome(t)
	image, b := v.backup(t)
	for _, o := range erased {
		if name := o.ID + " of "; bytes.Contains(image, []byte(name)) {
			t.Fatalf("the backup holds %q of somebody who was erased", name)
		}
	}
	k, err := keeper.Open(keptOpen{log}, keeper.Options{SweepEvery: time.Hour, MaxStaleness: time.Millisecond, Now: v.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	restored, err := k.Restore(bg, iotest.OneByteReader(bytes.NewReader(image)), datastore.RestoreOptions{Name: "again", Actor: "eve", Keys: nameKeys})
	if err != nil {
		t.Fatalf("restore: %v", err)
	}
	head, err := log.Head(bg, restored.Store.ID)
	if err != nil || head.Revision != b.Head.Revision || head.Hash != b.Head.Hash || !head.Time.Equal(b.Head.Time) || head.Incarnation == b.Incarnation {
		t.Fatalf("the head is %+v, %v; the backup's %+v", head, err, b.Head)
	}
	v.compare(t, log, restored.Store.ID, max(b.Base, 1), b.Head.Revision)
	if _, err := k.Verify(bg, restored.Store.ID, nil); err != nil {
		t.Errorf("verify: %v", err)
	}
	v.findsEverybody(t, k, restored.Store.ID)
	if st, err := k.StoreByName(bg, "again"); err != nil || st.ID != restored.Store.ID {
		t.Errorf("the name finds %+v, %v", st, err)
	}
	// A zookie of before is of another line.
	if _, err := k.At(bg, restored.Store.ID, datastore.Consistency{Level: datastore.AtLeastAsFresh, Zookie: b.Head.Zookie(restored.Store.ID).String()}); !errors.Is(err, datastore.ErrForeignZookie) {
		t.Errorf("a zookie of the original gives %v", err)
	}
	// The history goes on where it ended, and a request of before is known.
	o, err := k.Write(bg, restored.Store.ID, datastore.Request{Actor: "eve", Updates: []datastore.Update{{Kind: datastore.Touch, Relationship: create("folder:2#owner@user:eve").Relationship}}})
	if err != nil || o.Revision != b.Head.Revision+1 {
		t.Errorf("a write gives %+v, %v", o, err)
	}
	// A backup of the copy, up to where it came from, says the same.
	var out bytes.Buffer
	if _, _, err := k.Backup(bg, restored.Store, &b.Head.Revision, &out); err != nil {
		t.Fatalf("back up the copy: %v", err)
	}
	if got, want := changesOf(t, out.Bytes()), changesOf(t, image); !slices.Equal(got, want) {
		t.Errorf("the backup of the copy has other changes")
	}
	v.restoresThePast(t, k, log, image, b)
}

// changesOf are the stored bytes of the changes of a backup.
func changesOf(t *testing.T, image []byte) (list []string) {
	t.Helper()
	r, err := datastore.NewBackupReader(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		if p.Change != nil {
			list = append(list, fmt.Sprintf("%x %x %x", p.Change.Header, p.Change.Payload, p.Change.Hash))
		}
	}
}

// compare compares the history up to a revision, and what both stores hold at each
// that both can be read at.
func (v *original) compare(t *testing.T, log datastore.Log, store datastore.StoreID, from, to datastore.Revision) {
	t.Helper()
	entries := func(log datastore.Log, store datastore.StoreID) (list []datastore.Entry) {
		anchor, err := log.Anchor(bg, store)
		if err != nil {
			t.Fatal(err)
		}
		for at := anchor.Revision; at < to; {
			_, page, err := log.After(bg, store, at, int(to-at))
			if err != nil {
				t.Fatal(err)
			}
			list, at = append(list, page...), page[len(page)-1].Revision
		}
		return list
	}
	if diff := sameEntries(entries(log, store), entries(v.log, v.store.ID)); diff != "" {
		t.Fatal(diff)
	}
	for at := from; at <= to; at++ {
		if got, want := holdings(t, log, store, at), holdings(t, v.log, v.store.ID, at); got != want {
			t.Fatalf("at revision %d the copy holds\n%s\nwhere the original holds\n%s", at, got, want)
		}
	}
}

// holdings are what a store holds at a revision, as text; nothing where the
// revision is no longer kept.
func holdings(t *testing.T, log datastore.Log, store datastore.StoreID, at datastore.Revision) string {
	t.Helper()
	text := ""
	for _, bySubject := range []bool{false, true} {
		found, err := rows(log, store, at, datastore.RowQuery{BySubject: bySubject})
		if err != nil {
			t.Fatalf("rows of store %d at %d: %v", store, at, err)
		}
		text += render(found) + "\n"
	}
	s, err := log.Schema(bg, store, at)
	if err != nil {
		t.Fatal(err)
	}
	text += fmt.Sprintf("schema %+v\n", *s)
	for _, versions := range []bool{false, true} {
		if err := log.Identities(bg, store, at, datastore.IdentityQuery{Type: "user", Versions: versions}, func(i datastore.Identity) bool {
			if i.Revision <= at {
				text += fmt.Sprintf("%s %d %d since %d: %x %s\n", i.Object, i.Kind, i.State, i.Revision, i.Salt, i.Attributes)
			}
			return true
		}); err != nil {
			t.Fatal(err)
		}
	}
	return text
}

// findsEverybody finds each user by the name that the newest version has.
func (v *original) findsEverybody(t *testing.T, k *keeper.Keeper, store datastore.StoreID) {
	t.Helper()
	s, err := k.At(bg, store, datastore.Consistency{Level: datastore.FullyConsistent})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var list []datastore.Identity
	if err := s.Identities(bg, datastore.IdentityQuery{Type: "user"}, func(i datastore.Identity) bool {
		list = append(list, i)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, i := range list {
		if i.Attributes == "" {
			continue
		}
		keys, err := nameKeys(i)
		if err != nil {
			t.Fatal(err)
		}
		var by []tuple.Object
		if err := s.Identities(bg, datastore.IdentityQuery{Type: "user", Key: &keys[0]}, func(i datastore.Identity) bool {
			by = append(by, i.Object)
			return true
		}); err != nil || !slices.Equal(by, []tuple.Object{i.Object}) {
			t.Errorf("%v finds %v, %v; not %s", keys[0], by, err, i.Object)
		}
		found++
	}
	if found == 0 {
		t.Error("nobody has attributes")
	}
}

// restoresThePast restores a backup to revisions and to times, and compares.
func (v *original) restoresThePast(t *testing.T, k *keeper.Keeper, log datastore.Log, image []byte, b datastore.Backup) {
	first := max(b.Base, 1)
	for n, at := range []datastore.Revision{first, first + 1, (first + b.Head.Revision) / 2, b.Head.Revision - 1} {
		o := datastore.RestoreOptions{Name: fmt.Sprintf("past-%d", n), Actor: "eve", Keys: nameKeys, Revision: &at}
		if n%2 == 1 {
			o.Revision, o.At = nil, v.times[at]
		}
		restored, err := k.Restore(bg, bytes.NewReader(image), o)
		if err != nil || restored.Head.Revision != at {
			t.Fatalf("restore to %d: %+v, %v", at, restored.Head, err)
		}
		if _, err := k.Verify(bg, restored.Store.ID, nil); err != nil {
			t.Errorf("verify revision %d: %v", at, err)
		}
		v.compare(t, log, restored.Store.ID, at, at)
	}
	before, beyond := b.Base-1, b.Head.Revision+1
	if b.Base > 0 {
		for _, o := range []datastore.RestoreOptions{{Name: "older", Revision: &before}, {Name: "older", At: v.times[before]}} {
			if _, err := k.Restore(bg, bytes.NewReader(image), o); !errors.Is(err, datastore.ErrCompacted) {
				t.Errorf("a restore to before the base gives %v", err)
			}
		}
	} else if _, err := k.Restore(bg, bytes.NewReader(image), datastore.RestoreOptions{Name: "older", At: start}); !errors.Is(err, datastore.ErrInvalid) {
		t.Errorf("a restore to before the first change gives %v", err)
	}
	if _, err := k.Restore(bg, bytes.NewReader(image), datastore.RestoreOptions{Name: "newer", Revision: &beyond}); !errors.Is(err, datastore.ErrAhead) {
		t.Errorf("a restore to beyond the head gives %v", err)
	}
	if _, err := k.Restore(bg, bytes.NewReader(image), datastore.RestoreOptions{Name: "again"}); !errors.Is(err, datastore.ErrAlreadyExists) {
		t.Errorf("a restore over a store gives %v", err)
	}
}
