package keeper_test

import (
	"fmt"
	"testing"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/memory"
)

// TestStatsTellOfFollowing: a node that follows another's writes tells how many
// changes that brought, and that it is not behind once it has.
func TestStatsTellOfFollowing(t *testing.T) {
	log := memory.New()
	writer, err := keeper.Open(log, keeper.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	reader, err := keeper.Open(log, keeper.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	follow := func() {
		t.Helper()
		s, err := reader.At(t.Context(), datastore.Default, datastore.Consistency{Level: datastore.FullyConsistent})
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	follow()
	before := reader.Stats()
	const changes = 20
	for i := range changes {
		text := fmt.Sprintf("definition user {} definition t%d {}", i)
		if _, err := writer.Write(t.Context(), datastore.Default, datastore.Request{Schema: &datastore.SchemaUpdate{Text: text}}); err != nil {
			t.Fatal(err)
		}
	}
	follow()
	after := reader.Stats()
	if got := after.Followed - before.Followed; got != changes {
		t.Errorf("it followed %d changes of %d", got, changes)
	}
	if after.CatchUps <= before.CatchUps || after.Behind != 0 {
		t.Errorf("before %+v, after %+v", before, after)
	}
}
