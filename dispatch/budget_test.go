package dispatch

import (
	"context"
	"sync"
	"testing"
	"time"
)

// A request that wants much does not hold up one that wants little, and gets its
// turn all the same.
func TestTheBudgetIsDividedFairly(t *testing.T) {
	b := newBudget(1, 10_000)
	var mu sync.Mutex
	var order []string
	var wg sync.WaitGroup
	hold, err := b.acquire(context.Background(), 1)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(ctx context.Context, name string, queries int64) {
		_, before := b.counts()
		wg.Go(func() {
			done, err := b.acquire(ctx, queries)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
			done(queries)
		})
		for _, n := b.counts(); n == before; _, n = b.counts() {
			time.Sleep(10 * time.Microsecond)
		}
	}
	greedy := WithRequest(context.Background())
	for range 100 {
		ask(greedy, "greedy", 1000)
	}
	for range 20 {
		ask(WithRequest(context.Background()), "modest", 2)
	}
	hold(0)
	wg.Wait()
	last, firstGreedy := 0, 0
	for i, name := range order {
		if name == "modest" {
			last = i
		} else if firstGreedy == 0 {
			firstGreedy = i + 1
		}
	}
	if len(order) != 120 || last > 21 {
		t.Errorf("the last of 20 modest reads came %d of %d", last+1, len(order))
	}
	// While modest ones come without end, the greedy one's turn comes.
	b = newBudget(1, 10_000)
	if hold, err = b.acquire(context.Background(), 1); err != nil {
		t.Fatal(err)
	}
	own := new(Request)
	var second *waiter
	for range 2 {
		if second, err = b.enter(own, 10); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		b.enter(new(Request), 10)
	}
	served := 0
	for ; second.index >= 0; served++ {
		if served > 500 {
			t.Fatal("the greedy request's second read does not get its turn")
		}
		b.enter(new(Request), 10)
		b.leave(new(Request), 0)
	}
	if served < 5 {
		t.Errorf("the greedy request's second read came after %d, before those that want little", served)
	}
	hold(0)
}

func TestWhoLeavesTheQueueOfTheBudgetTakesNoTurn(t *testing.T) {
	b := newBudget(1, 10)
	hold, err := b.acquire(context.Background(), 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
	defer cancel()
	if _, err := b.acquire(ctx, 1); err == nil {
		t.Fatal("two turns at once")
	}
	hold(0)
	for range 3 {
		done, err := b.acquire(context.Background(), 1)
		if err != nil {
			t.Fatal(err)
		}
		done(5)
	}
	if busy, waiting := b.counts(); busy+waiting != 0 {
		t.Errorf("%d run and %d wait", busy, waiting)
	}
}
