package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

func (a *app) accessReportCommand() *cobra.Command {
	var user, resource, values string
	r := &pb.ReportAccessRequest{}
	cmd := &cobra.Command{
		Use:   "access-report",
		Short: "Report what a user may do, or who may do what with a resource, now or at a time of the past",
		Long: `Report everything that a user (or any other subject) may do, or who may do what
with a resource; with --at, what was so then. The subject TYPE:* stands for every
one of its type who is not listed with "not". The report says whether it is
complete; if not, it names what is missing, and the exit code is 1.`,
		Example: `  pemba access-report --user user:ada
  pemba access-report --resource document:readme --at 2026-01-31
  pemba access-report --user user:ada --type document --permission view --output json`,
		Args: takes(),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, _ []string) error {
		r.Store, r.Consistency = c.store, c.at
		about, err := reportAbout(r, user, resource)
		if err != nil {
			return err
		}
		if r.Context, err = contextToWire(values); err != nil {
			return usage(err)
		}
		stream, err := c.audits.ReportAccess(ctx, r)
		if err != nil {
			return err
		}
		p := &accessPrinter{app: a, about: about, byResource: r.GetResource() == nil, named: map[string]int{}}
		if err := receive(stream, p.print); err != nil {
			return err
		}
		return p.close()
	})
	f := cmd.Flags()
	f.StringVar(&user, "user", "", "the subject: what may it do, and with what?")
	f.StringVar(&resource, "resource", "", "the resource: who may do what with it?")
	f.StringSliceVar(&r.Permissions, "permission", nil, "only these permissions")
	f.StringSliceVar(&r.Types, "type", nil, "only resources, or subjects, of these types")
	f.BoolVar(&r.IncludeRelations, "relations", false, "report relations too, not only permissions")
	f.StringVar(&values, "context", "", `values for caveats, a JSON object such as '{"day":"monday"}'`)
	cmd.MarkFlagsMutuallyExclusive("user", "resource")
	cmd.MarkFlagsOneRequired("user", "resource")
	return a.backward(a.remote(cmd, true, true))
}

// reportAbout sets what a report is about, and returns its name.
func reportAbout(r *pb.ReportAccessRequest, user, resource string) (string, error) {
	if user != "" {
		s, err := tuple.ParseSubject(user)
		if err != nil {
			return "", usage(err)
		}
		r.About = &pb.ReportAccessRequest_Subject{Subject: subjectToWire(s)}
		return s.String(), nil
	}
	o, err := tuple.ParseObject(resource)
	if err != nil {
		return "", usage(err)
	}
	r.About = &pb.ReportAccessRequest_Resource{Resource: objectToWire(o)}
	return o.String(), nil
}

// accessPrinter prints a report: as a table once it is there, as JSON while it
// comes.
type accessPrinter struct {
	app        *app
	about      string
	byResource bool // the rows are resources, not subjects

	rows  [][]string     // name, permissions
	named map[string]int // the row of a name
	last  *pb.ReportAccessResponse
}

// accessJSON is a line of a report as JSON.
type accessJSON struct {
	Resource   string   `json:"resource"`
	Permission string   `json:"permission"`
	Subject    string   `json:"subject"`
	Answer     string   `json:"answer"`
	Missing    []string `json:"missing,omitempty"`
}

// accessEndJSON is the last line of a report as JSON.
type accessEndJSON struct {
	Complete      bool            `json:"complete"`
	HasPermission uint64          `json:"has_permission"`
	Conditional   uint64          `json:"conditional"`
	NoPermission  uint64          `json:"no_permission"`
	Withheld      bool            `json:"withheld,omitempty"`
	Gaps          []accessGapJSON `json:"gaps,omitempty"`
	Revision      uint64          `json:"revision"`
	Time          string          `json:"time"`
	Zookie        string          `json:"zookie"`
}

type accessGapJSON struct {
	Type       string `json:"type"`
	Permission string `json:"permission"`
	Error      string `json:"error"`
}

func (p *accessPrinter) print(m *pb.ReportAccessResponse) error {
	p.last = m
	for _, line := range m.Access {
		resource, who := objectFromWire(line.Resource).String(), subjectFromWire(line.Subject).String()
		j := answer(line.Answer, line.MissingFields, nil)
		if p.app.json() {
			if err := document(p.app.out, accessJSON{resource, line.Permission, who, j.Answer, j.Missing}); err != nil {
				return err
			}
			continue
		}
		name, text := who, line.Permission
		if p.byResource {
			name = resource
		}
		switch {
		case j.Answer == "no":
			text = "not " + text
		case j.Answer != "yes":
			text += " (" + j.note() + ")"
		}
		if i, ok := p.named[name]; ok {
			p.rows[i][1] += ", " + text
			continue
		}
		p.named[name] = len(p.rows)
		p.rows = append(p.rows, []string{name, text})
	}
	return nil
}

// close prints how the report ended.
func (p *accessPrinter) close() error {
	if p.last == nil || p.last.End == nil {
		return fmt.Errorf("the server ended the report without saying that it is whole; ask again")
	}
	m, end := p.last, p.last.End
	if p.app.json() {
		j := accessEndJSON{Complete: end.Complete, HasPermission: end.HasPermission, Conditional: end.Conditional, NoPermission: end.NoPermission,
			Withheld: end.Withheld, Revision: m.Revision, Time: clock(m.Time.AsTime()), Zookie: m.Zookie}
		for _, g := range end.Gaps {
			j.Gaps = append(j.Gaps, accessGapJSON{g.Type, g.Permission, answer(0, nil, g.Error).Error})
		}
		if err := document(p.app.out, j); err != nil {
			return err
		}
	} else {
		p.table()
	}
	if !end.Complete {
		return answered(exitError)
	}
	return nil
}

// table prints the report as one.
func (p *accessPrinter) table() {
	m, end := p.last, p.last.End
	title, header := "who may do what with "+p.about, "SUBJECT"
	if p.byResource {
		title, header = "what "+p.about+" may do", "RESOURCE"
	}
	p.app.printf("%s\n", p.app.paint(p.app.out, bold, fmt.Sprintf("%s, at revision %d, %s", title, m.Revision, clock(m.Time.AsTime()))))
	if len(p.rows) > 0 {
		p.app.table([]string{header, "PERMISSIONS"}, p.rows)
	}
	if end.Withheld {
		p.app.printf("%s is suspended or removed, and may do nothing\n", p.about)
	}
	counts := []string{plural(end.HasPermission, "permission")}
	if end.Conditional > 0 {
		counts = append(counts, thousands(end.Conditional)+" conditional")
	}
	if end.NoPermission > 0 {
		counts = append(counts, plural(end.NoPermission, "exception"))
	}
	if end.Complete {
		p.app.printf("complete: %s\n", strings.Join(counts, ", "))
		return
	}
	p.app.printf("%s: %s; missing:\n", p.app.paint(p.app.out, red, "not complete"), strings.Join(counts, ", "))
	for _, g := range end.Gaps {
		p.app.printf("  %s of %s: %s\n", g.Permission, g.Type, answer(0, nil, g.Error).Error)
	}
}
