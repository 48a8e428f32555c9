package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

// maxLine bounds a line of a file of questions or relationships, in bytes: ids and a context at their limits fit.
const maxLine = 1 << 20

// bulkCheck asks a file of questions: batches in flight at once, answers printed in the order of the questions. Memory
// is bounded by size × parallel questions.
type bulkCheck struct {
	app      *app
	c        *connection
	size     int
	parallel int
	summary  bool
	given    circumstances
}

// questions is a batch on its way.
type questions struct {
	texts    []string
	request  *pb.BulkCheckRequest
	answered chan struct{} // closed when response or err is there
	response *pb.BulkCheckResponse
	err      error
}

// tally counts answers.
type tally struct {
	Questions   uint64  `json:"questions"`
	Yes         uint64  `json:"yes"`
	No          uint64  `json:"no"`
	Conditional uint64  `json:"conditional"`
	Errors      uint64  `json:"errors"`
	Seconds     float64 `json:"seconds"`
}

func (t *tally) count(j answerJSON) {
	t.Questions++
	switch j.Answer {
	case "yes":
		t.Yes++
	case "no":
		t.No++
	case "conditional":
		t.Conditional++
	default:
		t.Errors++
	}
}

func (t *tally) String() string {
	return fmt.Sprintf("%s: %s yes, %s no, %s conditional, %s; %.1f s, %s a second", plural(t.Questions, "question"),
		thousands(t.Yes), thousands(t.No), thousands(t.Conditional), plural(t.Errors, "error"), t.Seconds,
		thousands(uint64(float64(t.Questions)/max(t.Seconds, 1e-6))))
}

func (a *app) bulkCheckCommand() *cobra.Command {
	b := &bulkCheck{app: a}
	cmd := &cobra.Command{
		Use:   "bulk-check FILE",
		Short: "Ask many questions from a file",
		Example: `  pemba bulk-check questions.list
  pemba bulk-check questions.list --summary
  echo "document:readme#view@user:ada" | pemba bulk-check -`,
		Long: `Ask the questions of a file, or of standard input for "-": one a line,

  document:readme#view@user:ada
  document:plan#view@user:bea with {"day":"monday"}

Empty lines and lines that begin with // or # are passed over. Answers come in
the order of the questions, a summary goes to standard error. The exit code is 0
if every question was answered, whatever the answers; 1 if any was not.`,
		Args: takes("FILE"),
	}
	f := cmd.Flags()
	f.BoolVar(&b.summary, "summary", false, "print how many answers of each kind there are instead of the answers")
	f.IntVar(&b.size, "batch", 1000, "how many questions a call asks")
	f.IntVar(&b.parallel, "parallel", 8, "how many calls are under way at once")
	b.given.add(f)
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		b.c = c
		if b.size < 1 || b.parallel < 1 {
			return usagef("--batch and --parallel must be 1 at least")
		}
		return b.run(ctx, args[0])
	})
	return a.backward(a.remote(cmd, true, true))
}

func (b *bulkCheck) run(ctx context.Context, path string) error {
	in, err := b.app.open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var workers sync.WaitGroup
	defer workers.Wait() // after cancel: what is still under way is given up
	defer cancel()

	work := make(chan *questions)
	ordered := make(chan *questions, b.parallel)
	for range b.parallel {
		workers.Go(func() {
			for q := range work {
				q.response, q.err = b.c.permissions.BulkCheck(ctx, q.request)
				close(q.answered)
			}
		})
	}
	var readErr error
	workers.Go(func() {
		defer close(ordered)
		defer close(work)
		readErr = b.read(ctx, path, in, func(q *questions) error {
			for _, to := range []chan *questions{ordered, work} {
				select {
				case to <- q:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
	})
	return b.print(ordered, &readErr)
}

// read parses questions and hands them on batch by batch.
func (b *bulkCheck) read(ctx context.Context, path string, in io.Reader, send func(*questions) error) error {
	values, with, err := b.given.toWire()
	if err != nil {
		return err
	}
	start := func() *questions {
		return &questions{answered: make(chan struct{}), request: &pb.BulkCheckRequest{
			Store: b.c.store, Consistency: b.c.at, Context: values, ContextualRelationships: with,
		}}
	}
	batch := start()
	err = eachLine(path, in, func(n int, line string) error {
		item, err := parseQuestionLine(line)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
		batch.texts = append(batch.texts, line)
		batch.request.Items = append(batch.request.Items, item)
		if len(batch.texts) < b.size {
			return ctx.Err()
		}
		full := batch
		batch = start()
		return send(full)
	})
	if err != nil || len(batch.texts) == 0 {
		return err
	}
	return send(batch)
}

// print prints batches in their order. readErr is set once ordered is closed.
func (b *bulkCheck) print(ordered <-chan *questions, readErr *error) error {
	out := b.app.buffered()
	defer out.Flush()
	var t tally
	progress := b.app.progress()
	for q := range ordered {
		<-q.answered
		if q.err != nil {
			return q.err
		}
		if len(q.response.Results) != len(q.texts) {
			return fmt.Errorf("the server gave %d answers to %d questions; is it as new as this command?", len(q.response.Results), len(q.texts))
		}
		for i, r := range q.response.Results {
			j := answer(r.Answer, r.MissingFields, r.Error)
			t.count(j)
			if !b.summary {
				if err := b.printOne(out, q.texts[i], j); err != nil {
					return err
				}
			}
		}
		progress.at(t.Questions, "question")
	}
	t.Seconds = progress.done().Seconds()
	if *readErr != nil {
		return *readErr
	}
	return b.finish(out, &t)
}

func (b *bulkCheck) printOne(out *bufio.Writer, question string, j answerJSON) error {
	if b.app.json() {
		j.Question = question
		return document(out, j)
	}
	pad := strings.Repeat(" ", max(0, len("conditional")-len(j.Answer)))
	_, err := fmt.Fprintf(out, "%s%s  %s", b.app.paint(b.app.out, j.colour(), j.Answer), pad, question)
	if note := j.note(); note != "" {
		fmt.Fprintf(out, "  (%s)", note)
	}
	out.WriteByte('\n')
	return err
}

// finish prints the summary: to standard output if it was asked for, else beside the answers.
func (b *bulkCheck) finish(out *bufio.Writer, t *tally) error {
	switch {
	case b.summary && b.app.json():
		if err := document(out, t); err != nil {
			return err
		}
	case b.summary:
		fmt.Fprintln(out, t)
	default:
		if err := out.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(b.app.err, t)
	}
	if t.Errors > 0 {
		return answered(exitError)
	}
	return nil
}

// parseQuestionLine reads `document:1#view@user:ada`, optionally followed by ` with ` and a context.
func parseQuestionLine(line string) (*pb.BulkCheckItem, error) {
	text, values, hasContext := strings.Cut(line, " with ")
	r, err := tuple.Parse(strings.TrimSpace(text))
	if err != nil {
		return nil, err
	}
	if r.Caveat.Name != "" || !r.Expiration.IsZero() {
		return nil, fmt.Errorf("question %q: it has a caveat or an expiration, as only relationships do; give values for caveats behind ` with `", text)
	}
	item := &pb.BulkCheckItem{Resource: objectToWire(r.Object), Permission: r.Relation, Subject: subjectToWire(r.Subject)}
	if hasContext {
		if item.Context, err = contextToWire(strings.TrimSpace(values)); err != nil {
			return nil, err
		}
	}
	return item, nil
}

// eachLine calls f with every line that says something, and its number from 1. Lines that begin with // or # are
// comments.
func eachLine(path string, in io.Reader, f func(n int, line string) error) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	n := 0
	for lines.Scan() {
		n++
		line := strings.TrimSpace(lines.Text())
		if n == 1 {
			line = strings.TrimPrefix(line, "\ufeff") // some editors begin a file with it
		}
		if line == "" || strings.HasPrefix(line, "//") || strings.HasPrefix(line, "#") {
			continue
		}
		if err := f(n, line); err != nil {
			return err
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("%s:%d: the line is longer than %s; is this a file of text lines?", path, n+1, plural(maxLine, "byte"))
	}
	if lines.Err() != nil {
		return fileError("read", lines.Err())
	}
	return nil
}

// seconds prints a duration for people.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
