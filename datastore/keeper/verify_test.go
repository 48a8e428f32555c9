package keeper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/memory"
	"github.com/pembadb/pemba/tuple"
)

// lossy is a Log that has lost rows of one of its orders.
type lossy struct {
	datastore.Log
	bySubject bool
	lost      []tuple.Key
}

func (l *lossy) Rows(ctx context.Context, store datastore.StoreID, at datastore.Revision, q datastore.RowQuery, f func(datastore.Row) bool) error {
	return l.Log.Rows(ctx, store, at, q, func(r datastore.Row) bool {
		return q.BySubject == l.bySubject && slices.Contains(l.lost, r.Key) || f(r)
	})
}

// A verification that holds few relationships at once goes through the history
// in parts, and comes to the same.
func TestAVerificationInPartsFindsWhatIsLost(t *testing.T) {
	log := memory.New()
	k, err := Open(log, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	bg := context.Background()
	write := func(r datastore.Request) {
		t.Helper()
		if _, err := k.Write(bg, datastore.Default, r); err != nil {
			t.Fatal(err)
		}
	}
	write(datastore.Request{Schema: &datastore.SchemaUpdate{Text: "definition user {}\ndefinition document { relation viewer: user }"}})
	const documents, trimmed = 60, 25
	var keys []tuple.Key
	for i := range documents {
		r, err := tuple.Parse(fmt.Sprintf("document:%02d#viewer@user:%02d", i, documents-i))
		if err != nil {
			t.Fatal(err)
		}
		write(datastore.Request{Updates: []datastore.Update{{Kind: datastore.Touch, Relationship: r}}})
		if i%5 == 4 {
			write(datastore.Request{Updates: []datastore.Update{{Kind: datastore.Delete, Relationship: r}}})
		} else {
			keys = append(keys, r.Key)
		}
	}
	verify := func(log datastore.Log, most int) (datastore.Verification, error) {
		v := &verifier{log: log, store: datastore.Default, most: most, report: func(datastore.Verification) error { return nil }}
		err := v.run(bg)
		return v.Verification, err
	}
	check := func(t *rapid.T) {
		most := rapid.IntRange(1, 80).Draw(t, "at once")
		whole, err := verify(log, most)
		if err != nil || whole.Rows != len(keys) {
			t.Fatalf("%d rows, %v; want %d", whole.Rows, err, len(keys))
		}
		lost := rapid.SliceOfNDistinct(rapid.SampledFrom(keys), 1, 3, func(k tuple.Key) tuple.Key { return k }).Draw(t, "lost")
		_, err = verify(&lossy{log, rapid.Bool().Draw(t, "by subject"), lost}, most)
		first := slices.MinFunc(lost, tuple.Key.Compare).String()
		named := datastore.Facts(err)["relationship"]
		if !errors.Is(err, datastore.ErrCorrupt) || most > documents && named != first || !slices.ContainsFunc(lost, func(k tuple.Key) bool { return k.String() == named }) {
			t.Fatalf("lost %v, and %q is named: %v", lost, named, err)
		}
	}
	t.Run("whole", func(t *testing.T) { rapid.Check(t, check) })
	if err := errors.Join(log.SetFloor(bg, datastore.Default, trimmed), log.Trim(bg, datastore.Default, trimmed)); err != nil {
		t.Fatal(err)
	}
	t.Run("trimmed", func(t *testing.T) { rapid.Check(t, check) })
}
