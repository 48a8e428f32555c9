package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"

	pb "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/tuple"
)

// importer sends a file of relationships in batches, each its own change, without waiting for one answer before it sends
// the next batch; gRPC's flow control bounds what is on its way.
type importer struct {
	app       *app
	cmd       *cobra.Command
	c         *connection
	format    string
	size      int
	create    bool
	requestID string
	reason    string
	sent      sentLines
	from      uint64 // relationships at the start of the file that an earlier run wrote
}

func (a *app) importCommand() *cobra.Command {
	i := &importer{app: a}
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Write the relationships of a file, of any number",
		Long: `Write the relationships of a file, or of standard input for "-": one a line, or
with --format yaml those of a validation file. Each batch is a change of its own.
An import that broke off says how to go on where it ended.`,
		Example: `  pemba relationship import relationships.txt
  pemba relationship import examples/github-orgs.yaml`,
		Args: takes("FILE"),
	}
	i.cmd = cmd
	f := cmd.Flags()
	f.StringVar(&i.format, "format", "", "text or yaml; absent, the file's name decides")
	f.IntVar(&i.size, "batch", 1000, "how many relationships make one change")
	f.BoolVar(&i.create, "create", false, "refuse relationships that exist; else they get the caveat and expiration of the file")
	f.Uint64Var(&i.from, "from", 0, "how many relationships of the file were written before, to resume")
	addRequest(f, &i.requestID, &i.reason)
	suggest(cmd, "format", "text", "yaml")
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		i.c = c
		if i.size < 1 {
			return usagef("--batch must be 1 at least")
		}
		if err := resolveFormat(&i.format, args[0]); err != nil {
			return err
		}
		return i.run(ctx, args[0])
	})
	return a.remote(cmd, true, false)
}

// resolveFormat takes the format from a file's name where it is not given.
func resolveFormat(format *string, path string) error {
	switch *format {
	case "text", "yaml":
		return nil
	case "":
		*format = "text"
		if ext := filepath.Ext(path); ext == ".yaml" || ext == ".yml" {
			*format = "yaml"
		}
		return nil
	}
	return usagef("--format %q is not known; write text or yaml", *format)
}

func (i *importer) run(ctx context.Context, path string) error {
	in, err := i.app.open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	ctx, cancel := context.WithCancel(ctx)
	var sender sync.WaitGroup
	defer sender.Wait()
	defer cancel()
	stream, err := i.c.relationships.ImportRelationships(ctx)
	if err != nil {
		return err
	}
	start := &pb.ImportStart{Store: i.c.store, Mode: pb.ImportMode_IMPORT_MODE_TOUCH, RequestId: i.requestID, Reason: i.reason}
	if i.create {
		start.Mode = pb.ImportMode_IMPORT_MODE_CREATE
	}
	var sendErr error
	var sent uint64
	sender.Go(func() {
		sent, sendErr = i.send(stream, start, path, in)
		if sendErr == nil {
			sendErr = stream.CloseSend()
		} else if sendErr != io.EOF {
			cancel() // a fault of the file: what was sent is answered or not, and the receiver says how far it came
		}
	})
	var last *pb.ImportRelationshipsResponse
	progress := i.app.progress()
	err = receive(stream, func(r *pb.ImportRelationshipsResponse) error {
		last = r
		i.sent.answered(r.Offset)
		progress.at(r.Created+r.Replaced, "relationship")
		return nil
	})
	took := progress.done()
	if err != nil {
		cancel()
	}
	sender.Wait()
	if err != nil {
		err = i.sent.locate(path, err)
	}
	if sendErr != nil && sendErr != io.EOF {
		err = sendErr // the cancelled stream is only what followed
	}
	if err == nil && (last == nil || last.Offset < sent) {
		err = errors.New("the server ended the import before it answered every batch")
	}
	if err != nil {
		i.resume(path, last)
		return err
	}
	if !i.app.json() {
		fmt.Fprintf(i.app.err, "%s in %s\n", plural(sent-i.from, "relationship"), seconds(took))
	}
	return i.app.printWrite(writeJSON{Revision: last.Revision, Zookie: last.Zookie, RequestID: last.RequestId,
		Created: last.Created, Replaced: last.Replaced})
}

// resume says how to go on after an import that broke off.
func (i *importer) resume(path string, last *pb.ImportRelationshipsResponse) {
	if last == nil || last.Offset <= i.from {
		return
	}
	i.app.complain("%s were written before what follows; go on with\n  %s", plural(last.Offset, "relationship"),
		again(i.cmd, []string{path}, map[string]string{"request-id": last.RequestId, "from": strconv.FormatUint(last.Offset, 10), "batch": strconv.Itoa(i.size)}))
}

// send sends the start and all batches, and returns the offset behind the last one. io.EOF says that the server ended
// the stream; the receiver learns why.
func (i *importer) send(stream grpc.BidiStreamingClient[pb.ImportRelationshipsRequest, pb.ImportRelationshipsResponse],
	start *pb.ImportStart, path string, in io.Reader) (uint64, error) {
	if err := stream.Send(&pb.ImportRelationshipsRequest{Part: &pb.ImportRelationshipsRequest_Start{Start: start}}); err != nil {
		return 0, err
	}
	batch := &pb.ImportBatch{Offset: i.from}
	flush := func() error {
		if len(batch.Relationships) == 0 {
			return nil
		}
		err := stream.Send(&pb.ImportRelationshipsRequest{Part: &pb.ImportRelationshipsRequest_Batch{Batch: batch}})
		batch = &pb.ImportBatch{Offset: batch.Offset + uint64(len(batch.Relationships))}
		return err
	}
	seen := uint64(0)
	err := i.each(path, in, func(n int, line string) error {
		r, err := tuple.Parse(line)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
		if seen++; seen <= i.from {
			return nil
		}
		w, err := relationshipToWire(r)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
		batch.Relationships = append(batch.Relationships, w)
		i.sent.add(batch.Offset, n, r.Key.String())
		if len(batch.Relationships) < i.size {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err == nil && seen < i.from {
		err = fmt.Errorf("%s has %s, fewer than --from %d passes over", path, plural(seen, "relationship"), i.from)
	}
	return batch.Offset, err
}

// each calls f with each relationship of a file and its line.
func (i *importer) each(path string, in io.Reader, f func(n int, line string) error) error {
	if i.format == "text" {
		return eachLine(path, in, f)
	}
	data, err := io.ReadAll(in)
	if err != nil {
		return fileError("read", err)
	}
	var file struct {
		Relationships yaml.Node `yaml:"relationships"`
	}
	if err := yaml.Unmarshal(data, &file); err != nil {
		return fmt.Errorf("%s is not YAML: %w", path, err)
	}
	n := file.Relationships
	if n.Kind != yaml.ScalarNode {
		return fmt.Errorf("%s has no `relationships: |` with a relationship a line; with --format text a file is read as lines", path)
	}
	first := n.Line
	if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		first++ // the text begins below the `|`
	}
	return eachLine(path, strings.NewReader(n.Value), func(at int, line string) error { return f(first+at-1, line) })
}

// exporter writes the relationships of a store to a file.
type exporter struct {
	app    *app
	c      *connection
	format string
	filter filterFlags
}

func (a *app) exportCommand() *cobra.Command {
	e := &exporter{app: a}
	var pattern string
	cmd := &cobra.Command{
		Use:   "export [FILE]",
		Short: "Write the relationships of a store to a file",
		Example: `  pemba relationship export relationships.list
  pemba relationship export | grep "@user:ada"`,
		Long: `Write the relationships of a store, or those that match --filter, at one revision
to a file, or without one to standard output: one a line, or with --format yaml
as a validation file with the schema. The file appears when it is complete.

` + patternHelp,
		Args: takes("[FILE]"),
	}
	cmd.Flags().StringVar(&e.format, "format", "", "text or yaml; absent, the file's name decides")
	cmd.Flags().StringVar(&pattern, "filter", "", "only what matches this pattern")
	e.filter.add(cmd.Flags())
	suggest(cmd, "format", "text", "yaml")
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		e.c = c
		path := strings.Join(args, "")
		if err := resolveFormat(&e.format, path); err != nil {
			return err
		}
		filter, err := e.filter.toWire(pattern)
		if err != nil {
			return err
		}
		if path == "" || path == "-" {
			out := a.buffered()
			_, err := e.run(ctx, filter, out)
			return errors.Join(err, out.Flush())
		}
		return e.toFile(ctx, filter, path)
	})
	return a.remote(cmd, true, true)
}

// toFile writes beside the file and renames, so that a list that was cut is never taken for the whole.
func (e *exporter) toFile(ctx context.Context, filter *pb.RelationshipFilter, path string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		var cause *os.PathError
		if errors.As(err, &cause) {
			err = &os.PathError{Op: cause.Op, Path: path, Err: cause.Err}
		}
		return fileError("write", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	out := bufio.NewWriterSize(f, 64<<10)
	n, err := e.run(ctx, filter, out)
	if err != nil {
		return err
	}
	for _, step := range []func() error{out.Flush, f.Sync, f.Close, func() error { return os.Rename(f.Name(), path) }} {
		if err := step(); err != nil {
			return fileError("write "+path, err)
		}
	}
	fmt.Fprintf(e.app.err, "%s in %s\n", plural(n, "relationship"), path)
	return nil
}

// run writes everything and returns how many relationships that were.
func (e *exporter) run(ctx context.Context, filter *pb.RelationshipFilter, out *bufio.Writer) (uint64, error) {
	stream, err := e.c.relationships.ExportRelationships(ctx, &pb.ExportRelationshipsRequest{
		Store: e.c.store, Consistency: e.c.at, Filter: filter,
	})
	if err != nil {
		return 0, err
	}
	n, complete, begun := uint64(0), false, false
	progress := e.app.progress()
	indent := ""
	err = receive(stream, func(r *pb.ExportRelationshipsResponse) error {
		if !begun && e.format == "yaml" {
			indent = "  "
			if err := e.schema(ctx, r.Zookie, out); err != nil {
				return err
			}
		}
		begun, complete = true, r.Complete
		n += uint64(len(r.Relationships))
		for _, w := range r.Relationships {
			relationship := relationshipFromWire(w)
			if e.app.json() {
				if err := document(out, relationshipDocument(relationship)); err != nil {
					return err
				}
			} else if _, err := fmt.Fprintf(out, "%s%s\n", indent, relationship); err != nil {
				return err
			}
		}
		progress.at(n, "relationship")
		return nil
	})
	progress.done()
	if err == nil && !complete {
		err = fmt.Errorf("the list is not complete: the server stopped after %s; try again", plural(n, "relationship"))
	}
	return n, err
}

// schema writes the head of a validation file: the schema at the revision that is exported.
func (e *exporter) schema(ctx context.Context, zookie string, out *bufio.Writer) error {
	if e.app.json() {
		return usagef("--format yaml and --output json exclude each other; give one")
	}
	r, err := e.c.schemas.GetSchema(ctx, &pb.GetSchemaRequest{Store: e.c.store,
		Consistency: &pb.Consistency{Requirement: &pb.Consistency_AtExactSnapshot{AtExactSnapshot: zookie}}})
	if err != nil {
		return err
	}
	text, err := yaml.Marshal(map[string]string{"schema": r.Text})
	if err != nil {
		return err
	}
	// The indentation is given, so that a list that begins with white space, or is empty, is read back as it is.
	_, err = fmt.Fprintf(out, "%srelationships: |2\n", text)
	return err
}
