package loadtest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// What a node tells of itself where it serves metrics and profiles.

// fetch reads a page of the node's.
func (n Node) fetch(ctx context.Context, path string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Metrics+path, nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("it answers %s", answer.Status)
	}
	return string(text), err
}

// number finds what stands behind a word that begins a line.
func number(text, word string) (float64, error) {
	_, rest, found := strings.Cut("\n"+text, "\n"+word)
	line, _, _ := strings.Cut(rest, "\n")
	if !found {
		return 0, fmt.Errorf("its page has no line with %q", word)
	}
	return strconv.ParseFloat(strings.TrimSpace(line), 64)
}

// LiveHeap is the bytes of a node's heap that are in use, after a collection.
func (n Node) LiveHeap(ctx context.Context) (int64, error) {
	text, err := n.fetch(ctx, "/debug/pprof/heap?gc=1&debug=1")
	if err == nil {
		var bytes float64
		if bytes, err = number(text, "# HeapAlloc = "); err == nil {
			return int64(bytes), nil
		}
	}
	return 0, fmt.Errorf("measure the heap of %s: %w", n.Addr, err)
}

// Resident asks each node a question and waits until all stores that it uses are in
// its memory.
func (l *Load) Resident(ctx context.Context) error {
	for _, n := range l.Nodes {
		one := *l
		one.Nodes = []Node{n}
		for {
			if err := one.Ask(ctx); err != nil {
				return err
			}
			text, err := n.fetch(ctx, "/metrics")
			if err != nil {
				return fmt.Errorf("wait until %s has all in memory: %w", n.Addr, err)
			}
			loading, err := number(text, "pemba_stores_loading ")
			if err != nil {
				return fmt.Errorf("wait until %s has all in memory: %w", n.Addr, err)
			}
			direct, err := number(text, "pemba_stores_direct ")
			if err != nil {
				return fmt.Errorf("wait until %s has all in memory: %w", n.Addr, err)
			}
			if loading == 0 && direct == 0 {
				break
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}
