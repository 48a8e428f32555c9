package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"sync"

	"google.golang.org/grpc/status"
)

// sentLines remembers on which lines of a file the relationships stand that a
// server has not answered for, so that what it refuses is named by its line.
type sentLines struct {
	mu      sync.Mutex
	batches []sentBatch // in order
}

type sentBatch struct {
	offset uint64
	lines  []int
	keys   []string
}

// add notes a relationship of the batch that begins at an offset.
func (s *sentLines) add(offset uint64, line int, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.batches); n == 0 || s.batches[n-1].offset != offset {
		s.batches = append(s.batches, sentBatch{offset: offset})
	}
	b := &s.batches[len(s.batches)-1]
	b.lines, b.keys = append(b.lines, line), append(b.keys, key)
}

// answered forgets the batches below an offset.
func (s *sentLines) answered(offset uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.batches) > 0 && s.batches[0].offset < offset {
		s.batches = s.batches[1:]
	}
}

// inBatch is how the server names a relationship of a batch.
var inBatch = regexp.MustCompile(`batch\.relationships\[(\d+)\]`)

// locate puts the place in the file before an error of the server about a batch:
// the line, or the lines of the batch where it does not say which relationship.
func (s *sentLines) locate(path string, err error) error {
	var e interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &e) {
		return err
	}
	remote := remoteError{status: e.GRPCStatus()}
	info := remote.info()
	if info == nil {
		return err
	}
	offset, failed := strconv.ParseUint(info.Metadata["offset"], 10, 64)
	if failed != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.batches {
		if b.offset != offset {
			continue
		}
		if m := inBatch.FindStringSubmatch(remote.status.Message()); m != nil {
			if i, _ := strconv.Atoi(m[1]); i < len(b.lines) {
				return fmt.Errorf("%s:%d: %w", path, b.lines[i], remote)
			}
		}
		for i, key := range b.keys {
			if key == info.Metadata["relationship"] {
				return fmt.Errorf("%s:%d: %w", path, b.lines[i], remote)
			}
		}
		return fmt.Errorf("%s, lines %d to %d: %w", path, b.lines[0], b.lines[len(b.lines)-1], remote)
	}
	return err
}
