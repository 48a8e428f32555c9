package server

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestACallEndsAtItsDeadlineWhetherOrNotSomebodyWaits(t *testing.T) {
	waits := newCall(t.Context(), &caller{name: "ada"}, 20*time.Millisecond)
	defer waits.end()
	asks := newCall(t.Context(), &caller{}, 20*time.Millisecond)
	defer asks.end()
	if waits.Err() != nil || asks.Err() != nil {
		t.Fatalf("before the deadline: %v, %v", waits.Err(), asks.Err())
	}
	derived, cancel := context.WithCancel(waits)
	defer cancel()
	if name := callerOf(derived).name; name != "ada" {
		t.Errorf("the caller is %q", name)
	}
	select {
	case <-derived.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("nobody was told of the deadline")
	}
	for _, c := range []context.Context{waits, asks, derived} {
		if !errors.Is(c.Err(), context.DeadlineExceeded) {
			t.Errorf("behind the deadline: %v", c.Err())
		}
	}
	if d, ok := asks.Deadline(); !ok || time.Since(d) < 0 {
		t.Errorf("the deadline is %v", d)
	}
}

func TestACallEndsWithItsClientAndItsHandler(t *testing.T) {
	client, leave := context.WithCancel(t.Context())
	asks, waits := newCall(client, &caller{}, time.Hour), newCall(client, &caller{}, time.Hour)
	done := waits.Done()
	leave()
	<-done
	if !errors.Is(asks.Err(), context.Canceled) || !errors.Is(waits.Err(), context.Canceled) {
		t.Errorf("the client left: %v, %v", asks.Err(), waits.Err())
	}
	asks.end()
	waits.end()

	before, behind := newCall(t.Context(), &caller{}, time.Hour), newCall(t.Context(), &caller{}, time.Hour)
	done = before.Done()
	before.end()
	behind.end()
	<-done
	<-behind.Done()
	if before.Err() == nil || behind.Err() == nil {
		t.Errorf("the handler returned: %v, %v", before.Err(), behind.Err())
	}
}

func TestACallHonoursAnEarlierDeadlineOfItsClient(t *testing.T) {
	client, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := newCall(client, &caller{}, time.Hour)
	defer c.end()
	want, _ := client.Deadline()
	if got, ok := c.Deadline(); !ok || !got.Equal(want) {
		t.Errorf("the deadline is %v, want %v", got, want)
	}
}
