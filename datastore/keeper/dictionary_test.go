package keeper

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/schema"
	"github.com/pembadb/pemba/tuple"
)

// dictionaryObjects are objects whose ids have every length from 1 to 1024, in
// two types.
func dictionaryObjects() (objects []tuple.Object, types []schema.Name) {
	for i := range 6000 {
		typ := i % 2
		id := fmt.Sprint(i)
		if n := i % (tuple.MaxID + 1); n > len(id) {
			id += strings.Repeat("x", n-len(id))
		}
		objects = append(objects, tuple.Object{Type: []string{"user", "group"}[typ], ID: id}, tuple.Object{Type: []string{"group", "user"}[typ], ID: id})
		types = append(types, schema.Name(1+typ), schema.Name(2-typ))
	}
	return objects, types
}

func TestADictionaryIsReadWhileItGrows(t *testing.T) {
	d := newDictionary()
	objects, types := dictionaryObjects()
	var added atomic.Int64
	ids := make([]datastore.ID, len(objects))
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for n := added.Load(); n < int64(len(objects)); n = added.Load() {
				for i := max(0, n-50); i < n; i++ {
					id, ok := d.id(objects[i])
					if back, typ := d.object(ids[i]); !ok || id != ids[i] || back != objects[i] || typ != types[i] || d.typ(id) != typ {
						t.Errorf("object %d of %d: id %d %v, want %d; it is %.30s of %d", i, n, id, ok, ids[i], back, typ)
						return
					}
				}
				if id, ok := d.id(tuple.Object{Type: "user", ID: "nobody"}); ok {
					t.Errorf("what was never added has id %d", id)
					return
				}
			}
		})
	}
	for i, o := range objects {
		ids[i] = d.add(o, types[i])
		added.Store(int64(i + 1))
	}
	wg.Wait()
	seen := map[datastore.ID]bool{0: true}
	for i, o := range objects {
		if again := d.add(o, types[i]); again != ids[i] || seen[again] {
			t.Fatalf("object %d has id %d, then %d; given before: %v", i, ids[i], again, seen[again])
		}
		seen[ids[i]] = true
	}
}
