package loadtest

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
)

// WriteRelationships writes the world's relationships, one a line.
func (w *World) WriteRelationships(out io.Writer) error {
	b := bufio.NewWriter(out)
	for r := range w.Relationships() {
		if _, err := fmt.Fprintln(b, r); err != nil {
			return err
		}
	}
	return b.Flush()
}

// WriteQuestions writes n questions with their answers, one a line:
// resource#permission@subject yes, or no.
func (w *World) WriteQuestions(out io.Writer, n int) error {
	b := bufio.NewWriter(out)
	r := rand.New(rand.NewPCG(w.seed, 2))
	for range n {
		q := w.Question(r)
		if _, err := fmt.Fprintf(b, "%s#%s@%s %s\n", q.Resource, q.Permission, q.Subject, yes(q.Has)); err != nil {
			return err
		}
	}
	return b.Flush()
}
