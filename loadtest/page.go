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
	type section struct {
		*Report
		Remarks []string
		Charts  []template.HTML
	}
	data := struct {
		Sections []section
		Sizes    []template.HTML
	}{}
	for _, r := range reports {
		data.Sections = append(data.Sections, section{Report: r, Remarks: r.remarks(), Charts: r.charts()})
	}
	if len(reports) > 1 {
		data.Sizes = bySize(reports)
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

// bySize draws what calls cost in worlds of several sizes.
func bySize(reports []*Report) []template.HTML {
	cpu := chart{title: "CPU time of server and client a call", x: sizeAxis, y: timeAxis}
	memory := chart{title: "Memory of the server, MiB", x: sizeAxis, y: countAxis}
	times := chart{title: "Median time of a call", x: sizeAxis, y: timeAxis}
	add := func(c *chart, name string, p xy) {
		for i := range c.series {
			if c.series[i].name == name {
				c.series[i].points = append(c.series[i].points, p)
				return
			}
		}
		c.series = append(c.series, series{name, []xy{p}})
	}
	for _, r := range reports {
		size := float64(r.Size)
		if p := r.cpuPerCall(); p > 0 {
			add(&cpu, string(r.World), xy{size, microseconds(p)})
		}
		for _, p := range r.Servers[:min(1, len(r.Servers))] {
			add(&memory, string(r.World), xy{size, float64(p.Memory >> 20)})
		}
		for _, c := range r.Calls {
			add(&times, fmt.Sprintf("%s, %s", r.World, c.Operation), xy{size, microseconds(c.Time.Median)})
		}
	}
	var out []template.HTML
	for _, c := range []chart{cpu, memory, times} {
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
