package loadtest

import (
	"fmt"
	"html/template"
	"math"
	"strings"
	"time"
)

// chart is a line chart, drawn as SVG that takes its colours from the page.
type chart struct {
	title  string
	x, y   axis
	series []series
}

type series struct {
	name   string
	points []xy
}

type xy struct{ x, y float64 }

// axis is how numbers become places and texts.
type axis struct {
	name  string
	log   bool
	ticks []float64 // nil: chosen
	text  func(float64) string
}

// The drawing's measures, in its own units.
const (
	chartWidth, chartHeight                    = 560.0, 300.0
	chartLeft, chartRight, chartTop, chartFoot = 64.0, 16.0, 16.0, 44.0
)

// span is the stretch of an axis that is drawn.
type span struct{ low, high float64 }

func (a axis) place(v float64, s span) float64 {
	if a.log {
		v, s.low, s.high = math.Log10(v), math.Log10(s.low), math.Log10(s.high)
	}
	if s.high == s.low {
		return 0.5
	}
	return (v - s.low) / (s.high - s.low)
}

// spans are the stretches that hold all points.
func (c *chart) spans() (x, y span) {
	x, y = span{math.Inf(1), math.Inf(-1)}, span{math.Inf(1), math.Inf(-1)}
	for _, s := range c.series {
		for _, p := range s.points {
			x.low, x.high = min(x.low, p.x), max(x.high, p.x)
			y.low, y.high = min(y.low, p.y), max(y.high, p.y)
		}
	}
	if c.y.log {
		y.low, y.high = math.Pow(10, math.Floor(math.Log10(y.low))), math.Pow(10, math.Ceil(math.Log10(y.high)))
	} else {
		y.low = 0
		y.high *= 1.05
	}
	if y.high <= y.low {
		y.high = y.low + 1
	}
	return x, y
}

// marks are the places on an axis that get a text.
func (a axis) marks(s span) []float64 {
	var out []float64
	if a.ticks != nil {
		for _, v := range a.ticks {
			if v >= s.low && v <= s.high {
				out = append(out, v)
			}
		}
		return out
	}
	if a.log {
		for v := math.Pow(10, math.Ceil(math.Log10(s.low)-1e-9)); v <= s.high*1.0001; v *= 10 {
			out = append(out, v)
		}
		return out
	}
	step := math.Pow(10, math.Floor(math.Log10((s.high-s.low)/4)))
	for _, m := range []float64{1, 2, 5, 10} {
		if (s.high-s.low)/(step*m) <= 5 {
			step *= m
			break
		}
	}
	for v := math.Ceil(s.low/step) * step; v <= s.high*1.0001; v += step {
		out = append(out, v)
	}
	return out
}

// SVG draws the chart; nothing if there is nothing to draw.
func (c *chart) SVG() template.HTML {
	drawn := 0
	for _, s := range c.series {
		drawn += len(s.points)
	}
	if drawn == 0 {
		return ""
	}
	xs, ys := c.spans()
	x := func(v float64) float64 {
		return chartLeft + c.x.place(v, xs)*(chartWidth-chartLeft-chartRight)
	}
	y := func(v float64) float64 {
		return chartHeight - chartFoot - c.y.place(v, ys)*(chartHeight-chartTop-chartFoot)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<figure><figcaption>%s</figcaption><svg viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">`,
		template.HTMLEscapeString(c.title), chartWidth, chartHeight, template.HTMLEscapeString(c.title))
	for _, v := range c.y.marks(ys) {
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/><text class="y" x="%.1f" y="%.1f">%s</text>`,
			chartLeft, chartWidth-chartRight, y(v), y(v), chartLeft-6, y(v)+4, template.HTMLEscapeString(c.y.text(v)))
	}
	for _, v := range c.x.marks(xs) {
		fmt.Fprintf(&b, `<text class="x" x="%.1f" y="%.1f">%s</text>`, x(v), chartHeight-chartFoot+18, template.HTMLEscapeString(c.x.text(v)))
	}
	fmt.Fprintf(&b, `<text class="x name" x="%.1f" y="%.1f">%s</text>`, (chartLeft+chartWidth-chartRight)/2, chartHeight-6, template.HTMLEscapeString(c.x.name))
	for i, s := range c.series {
		var points []string
		for _, p := range s.points {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(p.x), y(p.y)))
			if len(s.points) <= 30 {
				fmt.Fprintf(&b, `<circle class="s%d" cx="%.1f" cy="%.1f" r="2.5"><title>%s: %s, %s</title></circle>`, i%6, x(p.x), y(p.y),
					template.HTMLEscapeString(s.name), template.HTMLEscapeString(c.x.text(p.x)), template.HTMLEscapeString(c.y.text(p.y)))
			}
		}
		fmt.Fprintf(&b, `<polyline class="s%d" points="%s"/>`, i%6, strings.Join(points, " "))
	}
	b.WriteString(`</svg><div class="legend">`)
	for i, s := range c.series {
		fmt.Fprintf(&b, `<span class="s%d">%s</span>`, i%6, template.HTMLEscapeString(s.name))
	}
	b.WriteString(`</div></figure>`)
	return template.HTML(b.String())
}

// Axes that charts share.
var (
	timeAxis  = axis{log: true, text: func(us float64) string { return short(time.Duration(us * float64(time.Microsecond))) }}
	clockAxis = axis{name: "seconds", text: func(v float64) string { return fmt.Sprintf("%.3g", v) }}
	countAxis = axis{text: thousands}
	sizeAxis  = axis{name: "relationships", log: true, text: thousands}
	shareAxis = axis{name: "percentile", log: true, ticks: []float64{2, 10, 100, 1000, 10000}, text: percentile}
)

// percentile is the text of a place on shareAxis, which is one in so many calls
// that took longer.
func percentile(one float64) string { return fmt.Sprintf("%.6g", 100-100/one) }

func thousands(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.4g M", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%.4g k", v/1e3)
	}
	return fmt.Sprintf("%.3g", v)
}

func microseconds(d time.Duration) float64 { return max(1, float64(d)/float64(time.Microsecond)) }

// percentiles is a distribution as a line; its end, which no call exceeded, lies
// as far again.
func percentiles(name string, curve []Point) series {
	s := series{name: name}
	for _, p := range curve {
		if p.Percent < 100 {
			s.points = append(s.points, xy{100 / (100 - p.Percent), microseconds(p.Time)})
		} else if n := len(s.points); n > 0 {
			s.points = append(s.points, xy{s.points[n-1].x * 2, microseconds(p.Time)})
		}
	}
	return s
}
