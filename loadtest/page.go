package loadtest

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"time"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"short": short,
	"count": func(n int64) string { return thousands(float64(n)) },
	"rate":  thousands,
	"when":  func(t time.Time) string { return t.Format("2006-01-02 15:04 UTC") },
}).Parse(pageText))

// WritePage writes reports as one page of HTML that needs nothing else.
func WritePage(out io.Writer, reports []*Report) error {
	return (&Table{Reports: reports}).WritePage(out)
}

// WritePage writes the table, what grows with the size, and all reports as one page
// of HTML that needs nothing else.
func (t *Table) WritePage(out io.Writer) error {
	type section struct {
		*Report
		Remarks []string
		Charts  []template.HTML
	}
	data := struct {
		Sections []section
		Sizes    []template.HTML
		Table    *Table
	}{Table: t, Sizes: t.bySize()}
	for _, r := range t.Reports {
		data.Sections = append(data.Sections, section{Report: r, Remarks: r.remarks(), Charts: r.charts()})
	}
	return page.Execute(out, data)
}

func (r *Report) charts() []template.HTML {
	latencies := chart{title: "Latency percentiles", x: shareAxis, y: timeAxis}
	for _, c := range r.Calls {
		latencies.series = append(latencies.series, percentiles(string(c.Operation), c.Curve))
	}
	rates := chart{title: "Calls a second", x: clockAxis, y: countAxis}
	times := chart{title: "Latency over time", x: clockAxis, y: timeAxis, series: []series{{name: "p50"}, {name: "p99"}}}
	before := time.Duration(0)
	points := map[Operation][]xy{}
	for _, s := range r.Seconds {
		took := (s.At - before).Seconds()
		before = s.At
		if took < 0.2 {
			continue // the rest of a slice: too short for a rate
		}
		at := s.At.Seconds()
		for op, n := range s.Calls {
			points[op] = append(points[op], xy{at, float64(n) / took})
		}
		if s.P99 > 0 {
			times.series[0].points = append(times.series[0].points, xy{at, microseconds(s.Median)})
			times.series[1].points = append(times.series[1].points, xy{at, microseconds(s.P99)})
		}
	}
	for _, op := range reported {
		if len(points[op]) > 0 {
			rates.series = append(rates.series, series{string(op), points[op]})
		}
	}
	fresh := chart{title: "A write, until a node shows it", x: shareAxis, y: timeAxis}
	for _, f := range r.Freshness {
		fresh.series = append(fresh.series, percentiles(fmt.Sprintf("%s → %s", f.Writer, f.Reader), f.Curve))
	}
	var out []template.HTML
	for _, c := range []chart{latencies, rates, times, fresh} {
		if svg := c.SVG(); svg != "" {
			out = append(out, svg)
		}
	}
	return out
}

// bySize draws what worlds of several sizes cost.
func (t *Table) bySize() []template.HTML {
	cpu := chart{title: "CPU time of client and server, a check", x: sizeAxis, y: timeAxis}
	heap := chart{title: "Live heap of the server, bytes a relationship", x: sizeAxis, y: countAxis}
	check := chart{title: "A check, median of 64 callers at once", x: sizeAxis, y: timeAxis}
	lookup := chart{title: "A lookup: its first result, and 1,000 more", x: sizeAxis, y: timeAxis}
	add := func(c *chart, name string, size int, v float64) {
		if v <= 0 {
			return
		}
		p := xy{float64(size), v}
		for i := range c.series {
			if c.series[i].name == name {
				c.series[i].points = append(c.series[i].points, p)
				return
			}
		}
		c.series = append(c.series, series{name, []xy{p}})
	}
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	sizes := map[int]bool{}
	for _, c := range t.Costs {
		sizes[c.Size] = true
		name := c.Datastore + ", " + string(c.World)
		add(&cpu, name, c.Size, us(c.CPU))
		add(&check, name, c.Size, us(c.Check))
		add(&heap, name, c.Size, float64(c.Heap)/float64(c.Size))
		add(&lookup, name+", first", c.Size, us(c.First))
		add(&lookup, name+", 1,000 more", c.Size, 1000*us(c.Result))
	}
	if len(sizes) < 2 {
		return nil
	}
	var out []template.HTML
	for _, c := range []chart{cpu, heap, check, lookup} {
		if svg := c.SVG(); svg != "" {
			out = append(out, svg)
		}
	}
	return out
}

// cpuPerCall is what servers and client used for a call; zero if not measured.
func (r *Report) cpuPerCall() time.Duration {
	if len(r.Servers) == 0 || r.Client == nil {
		return 0
	}
	sum := r.Client.PerCall
	for _, p := range r.Servers {
		sum += p.PerCall
	}
	return sum
}
