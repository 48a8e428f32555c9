package sqltest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/datastore/keeper"
	"github.com/pembadb/pemba/datastore/sql"
	"github.com/pembadb/pemba/graph"
	"github.com/pembadb/pemba/tuple"
)

const folders = `definition user {}
definition folder { relation viewer: user  permission view = viewer }
definition document { relation parent: folder  relation viewer: user  permission view = viewer + parent->view }
`

// RunNewEnemy tests the two examples of the Zanzibar paper (Pang et al., 2019,
// §2.2), on nodes that hear of one another late: whoever lost access must not see
// what was made after that. Each runs many times, on nodes drawn at random, while
// others write.
func (target Target) RunNewEnemy(t *testing.T) {
	uri := target.Empty(t)
	var nodes []*keeper.Keeper
	for range 3 {
		log, err := target.Open(bg, uri, sql.Options{})
		if err != nil {
			t.Fatal(err)
		}
		// Nodes that poll seldom, and hear no hints: as far apart as they can be.
		k, err := keeper.Open(alone{log}, keeper.Options{MaxStaleness: time.Minute, SweepEvery: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { k.Close() })
		nodes = append(nodes, k)
	}
	if _, err := nodes[0].Write(bg, datastore.Default, datastore.Request{Actor: "ada", Schema: &datastore.SchemaUpdate{Text: folders}}); err != nil {
		t.Fatal(err)
	}
	rounds := 40
	if *Soak {
		rounds = 2000
	}
	e := &enemy{t: t, nodes: nodes}
	var noise sync.WaitGroup
	stop := make(chan struct{})
	for n := range 2 {
		noise.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					e.write(datastore.Touch, fmt.Sprintf("document:noise-%d#viewer@user:%d", n, i%100))
				}
			}
		})
	}
	t.Run("NeglectingTheOrderOfUpdates", func(t *testing.T) {
		for i := range rounds {
			e.removedBeforeMoved(t, i)
		}
	})
	t.Run("MisapplyingOldPermissionsToNewContent", func(t *testing.T) {
		for i := range rounds {
			e.removedBeforeWritten(t, i)
		}
	})
	close(stop)
	noise.Wait()
}

type enemy struct {
	t     *testing.T
	nodes []*keeper.Keeper
}

func (e *enemy) node() *keeper.Keeper { return e.nodes[rand.IntN(len(e.nodes))] }

// write makes one change on some node and returns its zookie.
func (e *enemy) write(kind datastore.Kind, texts ...string) string {
	request := datastore.Request{Actor: "ada"}
	for _, text := range texts {
		r, err := tuple.Parse(text)
		if err != nil {
			panic(err)
		}
		request.Updates = append(request.Updates, datastore.Update{Kind: kind, Relationship: r})
	}
	o, err := e.node().Write(bg, datastore.Default, request)
	if err != nil {
		e.t.Error(err)
	}
	return o.Zookie
}

// may asks some node.
func (e *enemy) may(t *testing.T, c datastore.Consistency, question string) bool {
	t.Helper()
	r, err := tuple.Parse(question)
	if err != nil {
		panic(err)
	}
	s, err := e.node().At(bg, datastore.Default, c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a, err := graph.Check(bg, s, graph.Question{Resource: r.Object, Permission: r.Relation, Subject: r.Subject}, time.Now(), graph.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return a.Outcome == graph.Yes
}

// removedBeforeMoved is the paper's example A: Alice removes Bob from the folder's
// viewers, then Charlie moves new documents into the folder. Bob must not see
// them: at no revision are both the old viewer and the new document there.
func (e *enemy) removedBeforeMoved(t *testing.T, i int) {
	folder := fmt.Sprintf("folder:a%d", i)
	e.write(datastore.Touch, folder+"#viewer@user:bob")
	e.may(t, datastore.Consistency{}, folder+"#view@user:bob") // a node remembers
	e.write(datastore.Delete, folder+"#viewer@user:bob")
	document := fmt.Sprintf("document:a%d", i)
	e.write(datastore.Touch, document+"#parent@"+folder)
	for _, c := range []datastore.Consistency{{}, {Level: datastore.FullyConsistent}} {
		for range 3 {
			if e.may(t, c, document+"#view@user:bob") {
				t.Fatalf("round %d: Bob, removed before, sees what was moved in after that", i)
			}
		}
	}
}

// removedBeforeWritten is the paper's example B: Alice removes Bob from the
// document's viewers, then asks Charlie to add new content. The content is stored
// with a zookie from before it; a check of Bob at that zookie must say no.
func (e *enemy) removedBeforeWritten(t *testing.T, i int) {
	document := fmt.Sprintf("document:b%d", i)
	e.write(datastore.Touch, document+"#viewer@user:bob", document+"#viewer@user:charlie")
	e.may(t, datastore.Consistency{}, document+"#view@user:bob") // a node remembers
	e.write(datastore.Delete, document+"#viewer@user:bob")
	// Charlie's client checks that he may write, at the head: its zookie is the
	// content's.
	s, err := e.node().At(bg, datastore.Default, datastore.Consistency{Level: datastore.FullyConsistent})
	if err != nil {
		t.Fatal(err)
	}
	content := s.Zookie()
	s.Close()
	for range 3 {
		if e.may(t, datastore.Consistency{Level: datastore.AtLeastAsFresh, Zookie: content}, document+"#view@user:bob") {
			t.Fatalf("round %d: Bob, removed before, sees the new content", i)
		}
		if !e.may(t, datastore.Consistency{Level: datastore.AtLeastAsFresh, Zookie: content}, document+"#view@user:charlie") {
			t.Fatalf("round %d: Charlie does not see his own content", i)
		}
	}
}
