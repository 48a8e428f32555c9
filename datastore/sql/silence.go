package sql

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// bounded is a connection on which nothing waits for ever: a read that brings
// nothing, or a write that takes nothing, for as long as silence fails. A database
// that hangs, or a network that swallows, would hold its callers otherwise. A
// deadline that is set explicitly, as the end of a context does, goes before.
type bounded struct {
	net.Conn
	silence time.Duration

	mu          sync.Mutex
	read, write time.Time // explicit deadlines; zero: none
}

// within sets a deadline for what begins now, and reports whether it is that of
// silence.
func (b *bounded) within(explicit *time.Time, set func(time.Time) error) (silence bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !explicit.IsZero() {
		return false, set(*explicit)
	}
	return true, set(time.Now().Add(b.silence))
}

func (b *bounded) Read(p []byte) (int, error) {
	silence, err := b.within(&b.read, b.Conn.SetReadDeadline)
	if err != nil {
		return 0, err
	}
	n, err := b.Conn.Read(p)
	return n, b.named(silence, &b.read, err)
}

func (b *bounded) Write(p []byte) (int, error) {
	silence, err := b.within(&b.write, b.Conn.SetWriteDeadline)
	if err != nil {
		return 0, err
	}
	n, err := b.Conn.Write(p)
	return n, b.named(silence, &b.write, err)
}

// named gives the end of patience its name.
func (b *bounded) named(silence bool, explicit *time.Time, err error) error {
	if !silence || !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !explicit.IsZero() {
		return err // it was set while this waited
	}
	return fmt.Errorf("no answer in %s", b.silence)
}

// SetDeadline implements [net.Conn].
func (b *bounded) SetDeadline(t time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.read, b.write = t, t
	return b.Conn.SetDeadline(t)
}

// SetReadDeadline implements [net.Conn].
func (b *bounded) SetReadDeadline(t time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.read = t
	return b.Conn.SetReadDeadline(t)
}

// SetWriteDeadline implements [net.Conn].
func (b *bounded) SetWriteDeadline(t time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.write = t
	return b.Conn.SetWriteDeadline(t)
}
