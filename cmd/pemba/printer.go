package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/term"
)

// colour is an ANSI escape for one colour.
type colour string

const (
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
	bold   colour = "1"
	dim    colour = "2"
)

// terminal reports whether a stream is a terminal.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// paint colours text if the stream it goes to is a terminal that wants colour (https://no-color.org).
func (a *app) paint(w io.Writer, c colour, text string) string {
	if a.getenv("NO_COLOR") != "" || a.getenv("TERM") == "dumb" || !terminal(w) {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// printf prints to standard output.
func (a *app) printf(format string, args ...any) { fmt.Fprintf(a.out, format, args...) }

// json reports whether results are printed as JSON.
func (a *app) json() bool { return a.output == "json" }

// document prints one JSON document on a line of its own. What would steer a
// terminal is escaped.
func document(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	text := b.Bytes()
	if bytes.ContainsFunc(text[:len(text)-1], unprintable) {
		text = escaped(text[:len(text)-1])
	}
	_, err := w.Write(text)
	return err
}

// unprintable tells of a character whether it is none to show.
func unprintable(r rune) bool { return !strconv.IsPrint(r) }

// escaped is a JSON text on a line, with what is unprintable as JSON escapes it.
func escaped(text []byte) []byte {
	var b []byte
	for _, r := range string(text) {
		if !unprintable(r) {
			b = utf8.AppendRune(b, r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			b = fmt.Appendf(b, "\\u%04x", unit)
		}
	}
	return append(b, '\n')
}

// shown is text on one line, in quotes if it has what is unprintable.
func shown(text string) string {
	if strings.ContainsFunc(text, unprintable) {
		return strconv.Quote(text)
	}
	return text
}

// table prints rows in columns that are as wide as they must be.
func (a *app) table(header []string, rows [][]string) {
	widths := make([]int, len(header))
	for _, row := range append([][]string{header}, rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	line := func(row []string) string {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(cell)
			b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		return strings.TrimRight(b.String(), " ")
	}
	a.printf("%s\n", a.paint(a.out, bold, line(header)))
	for _, row := range rows {
		a.printf("%s\n", line(row))
	}
}

// plural says how many of a noun there are.
func plural(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if strings.HasSuffix(noun, "y") {
		noun = noun[:len(noun)-1] + "ie"
	}
	return thousands(n) + " " + noun + "s"
}

// thousands prints a number with commas.
func thousands(n uint64) string {
	s := fmt.Sprint(n)
	for at := len(s) - 3; at > 0; at -= 3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}

// clock prints a time as RFC 3339 in UTC, as exactly as Pemba keeps it.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.999999Z") }

// progress tells standard error how far long work has come: a line that is overwritten on a terminal, else a line
// every ten seconds.
type progress struct {
	w           io.Writer
	overwriting bool
	start, last time.Time
	shown       bool
}

func (a *app) progress() *progress {
	now := time.Now()
	return &progress{w: a.err, overwriting: terminal(a.err), start: now, last: now}
}

// at reports that n nouns are done.
func (p *progress) at(n uint64, noun string) {
	every := 10 * time.Second
	if p.overwriting {
		every = 200 * time.Millisecond
	}
	now := time.Now()
	if now.Sub(p.last) < every {
		return
	}
	p.last, p.shown = now, true
	rate := float64(n) / now.Sub(p.start).Seconds()
	text := fmt.Sprintf("%s, %s a second", plural(n, noun), thousands(uint64(rate)))
	if p.overwriting {
		fmt.Fprintf(p.w, "\r\x1b[K%s", text)
	} else {
		fmt.Fprintln(p.w, text)
	}
}

// done removes the overwritten line and returns how long the work took.
func (p *progress) done() time.Duration {
	if p.overwriting && p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	return time.Since(p.start).Round(time.Millisecond)
}
