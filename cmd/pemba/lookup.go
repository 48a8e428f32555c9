package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

func (a *app) lookupCommand() *cobra.Command {
	return group("lookup", "Find the resources of a subject, or the subjects of a resource", a.lookupResourcesCommand(), a.lookupSubjectsCommand())
}

// lookupFlags are what both lookups take.
type lookupFlags struct {
	circumstances
	prefix, cursor string
	limit          uint32
	count          bool
}

func (f *lookupFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.prefix, "prefix", "", "only those whose ids begin with this")
	flags.Uint32Var(&f.limit, "limit", 0, "how many at most, in order of their ids; 0 is all, as they are found")
	flags.StringVar(&f.cursor, "cursor", "", "go on behind a page of the same question")
	flags.BoolVar(&f.count, "count", false, "only say how many there are")
	f.circumstances.add(flags)
}

func (a *app) lookupResourcesCommand() *cobra.Command {
	var f lookupFlags
	var under string
	cmd := &cobra.Command{
		Use:   "resources TYPE PERMISSION SUBJECT",
		Short: "Find the objects of a type on which a subject has a permission",
		Example: `  pemba lookup resources document view user:ada
  pemba lookup resources document view user:ada --under folder:handbook
  pemba lookup resources document view team:core#member --limit 100`,
		Args: takes("TYPE", "PERMISSION", "SUBJECT"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		r := &pb.LookupResourcesRequest{Store: c.store, Consistency: c.at, ResourceType: args[0], Permission: args[1],
			ResourceIdPrefix: f.prefix, Limit: f.limit, Cursor: f.cursor, CountOnly: f.count}
		subject, err := tuple.ParseSubject(args[2])
		if err == nil {
			err = checkNames(args[0], args[1])
		}
		if err == nil && under != "" {
			var o tuple.Object
			o, err = tuple.ParseObject(under)
			r.Under = objectToWire(o)
		}
		if err != nil {
			return usage(err)
		}
		r.Subject = subjectToWire(subject)
		if r.Context, r.ContextualRelationships, err = f.toWire(); err != nil {
			return err
		}
		stream, err := c.permissions.LookupResources(ctx, r)
		if err != nil {
			return err
		}
		p := a.lookupPrinter(args[0], "")
		if err := receive(stream, func(m *pb.LookupResourcesResponse) error { return p.print(m.Results, m.End, m.Zookie) }); err != nil {
			return err
		}
		return p.close(f.count)
	})
	cmd.Flags().StringVar(&under, "under", "", "only those below this object, by the relations that arrows walk")
	f.add(cmd)
	return a.backward(a.remote(cmd, true, true))
}

func (a *app) lookupSubjectsCommand() *cobra.Command {
	var f lookupFlags
	cmd := &cobra.Command{
		Use:   "subjects RESOURCE PERMISSION TYPE[#RELATION]",
		Short: "Find the subjects of a type that have a permission on a resource",
		Long: `Find the subjects of a type that have a permission on a resource; with a
relation, usersets of it. The subject TYPE:* stands for everybody who is not
listed; where it stands, those who are left out are listed with "no".`,
		Example: `  pemba lookup subjects document:readme view user
  pemba lookup subjects document:readme view team#member`,
		Args: takes("RESOURCE", "PERMISSION", "TYPE[#RELATION]"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		typ, relation, userset := strings.Cut(args[2], "#")
		resource, err := tuple.ParseObject(args[0])
		if err == nil {
			err = checkNames(typ, args[1])
		}
		if err == nil && userset {
			err = tuple.CheckRelation(relation)
		}
		if err != nil {
			return usage(err)
		}
		r := &pb.LookupSubjectsRequest{Store: c.store, Consistency: c.at, Resource: objectToWire(resource), Permission: args[1],
			SubjectType: typ, SubjectRelation: relation, SubjectIdPrefix: f.prefix, Limit: f.limit, Cursor: f.cursor, CountOnly: f.count}
		if r.Context, r.ContextualRelationships, err = f.toWire(); err != nil {
			return err
		}
		stream, err := c.permissions.LookupSubjects(ctx, r)
		if err != nil {
			return err
		}
		p := a.lookupPrinter(typ, relation)
		if err := receive(stream, func(m *pb.LookupSubjectsResponse) error { return p.print(m.Results, m.End, m.Zookie) }); err != nil {
			return err
		}
		return p.close(f.count)
	})
	f.add(cmd)
	return a.backward(a.remote(cmd, true, true))
}

func checkNames(typ, permission string) error {
	if err := tuple.CheckType(typ); err != nil {
		return err
	}
	return tuple.CheckRelation(permission)
}

// lookupPrinter prints results as they come.
type lookupPrinter struct {
	app           *app
	out           *bufio.Writer
	typ, relation string
	end           *pb.LookupEnd
	zookie        string
}

func (a *app) lookupPrinter(typ, relation string) *lookupPrinter {
	return &lookupPrinter{app: a, out: a.buffered(), typ: typ, relation: relation}
}

// foundJSON is a result as JSON, on a line of its own.
type foundJSON struct {
	Found   string   `json:"found"`
	Answer  string   `json:"answer"`
	Missing []string `json:"missing,omitempty"`
}

// foundEndJSON is the last line of a lookup as JSON.
type foundEndJSON struct {
	Complete      bool   `json:"complete"`
	Cursor        string `json:"cursor,omitempty"`
	HasPermission uint64 `json:"has_permission"`
	Conditional   uint64 `json:"conditional"`
	NoPermission  uint64 `json:"no_permission,omitempty"`
	Zookie        string `json:"zookie"`
}

func (p *lookupPrinter) print(results []*pb.LookupResult, end *pb.LookupEnd, zookie string) error {
	if end != nil {
		p.end, p.zookie = end, zookie
	}
	for _, r := range results {
		name := tuple.Subject{Object: tuple.Object{Type: p.typ, ID: r.Id}, Relation: p.relation}.String()
		j := answer(r.Answer, r.MissingFields, nil)
		switch {
		case p.app.json():
			if err := document(p.out, foundJSON{name, j.Answer, j.Missing}); err != nil {
				return err
			}
		case j.Answer == "yes":
			fmt.Fprintln(p.out, name)
		case j.Answer == "no":
			fmt.Fprintf(p.out, "%s  %s\n", name, p.app.paint(p.app.out, j.colour(), "no"))
		default:
			fmt.Fprintf(p.out, "%s  %s: %s\n", name, p.app.paint(p.app.out, j.colour(), j.Answer), j.note())
		}
	}
	return p.out.Flush()
}

// close prints how the list ended.
func (p *lookupPrinter) close(count bool) error {
	end := p.end
	if end == nil {
		return fmt.Errorf("the server ended the list without saying that it is whole; ask again")
	}
	if p.app.json() {
		return document(p.app.out, foundEndJSON{end.Complete, end.Cursor, end.HasPermission, end.Conditional, end.NoPermission, p.zookie})
	}
	if count {
		p.app.printf("%s yes, %s conditional", thousands(end.HasPermission), thousands(end.Conditional))
		if end.NoPermission > 0 {
			p.app.printf(", %s excluded from %s:*", thousands(end.NoPermission), p.typ)
		}
		p.app.printf("\n")
		return nil
	}
	if !end.Complete {
		fmt.Fprintf(p.app.err, "there are more; go on with --cursor %s\n", end.Cursor)
	}
	return nil
}
