package loadtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pembadb/pemba/tuple"
)

// Filled is how a world came into a store.
type Filled struct {
	Relationships int           `json:"relationships"`
	Found         bool          `json:"found"` // it was there already
	Took          time.Duration `json:"took_ns"`
}

// StoreName is the store that a world lies in, one for each world.
func (w *World) StoreName() string {
	return fmt.Sprintf("loadtest-%s-%d-%d", w.shape, w.size, w.seed)
}

// Fill writes the world into the store, unless it is there, and tells progress how
// many relationships it has written.
func (l *Load) Fill(ctx context.Context, progress func(written int)) (Filled, error) {
	api := l.api(l.Nodes[0])
	if err := api.Prepare(ctx, l.World.Schema()); err != nil {
		return Filled{}, err
	}
	// They are written in order: where the last one is, all are.
	var out Filled
	var last tuple.Relationship
	for last = range l.World.Relationships() {
		out.Relationships++
	}
	there, err := api.Holds(ctx, last)
	if err != nil {
		return Filled{}, fmt.Errorf("look whether the world is there: %w", err)
	}
	if out.Found = there; there {
		return out, nil
	}
	start := time.Now()
	if err := api.Import(ctx, l.World.Relationships(), progress); err != nil {
		return Filled{}, fmt.Errorf("import the world: %w", err)
	}
	out.Took = time.Since(start)
	return out, nil
}

// Ask asks the first node one question of the world.
func (l *Load) Ask(ctx context.Context) error {
	q := l.World.Question(rand.New(rand.NewPCG(l.Seed, 2)))
	has, _, err := l.api(l.Nodes[0]).Check(ctx, Consistency{Level: FullyConsistent}, q)
	if err == nil && has != q.Has {
		err = fmt.Errorf("%s#%s@%s is answered with %s", q.Resource, q.Permission, q.Subject, yes(has))
	}
	return err
}
