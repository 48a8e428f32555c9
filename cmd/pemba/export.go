package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/pembadb/pemba/datastore"
	pb "github.com/pembadb/pemba/proto/pemba/v1"
	"github.com/pembadb/pemba/server"
)

// exportFormat is the version of exports that is written and read. It rises when
// changeJSON says more or otherwise, for a line must be what its bytes say.
const exportFormat = 1

// exportStart is the first line of an export: whose history follows, and what its
// first change follows.
type exportStart struct {
	Format       int    `json:"pemba_history"`
	Store        string `json:"store"`
	StoreID      uint64 `json:"store_id"`
	Incarnation  string `json:"incarnation"`
	Previous     uint64 `json:"previous"`
	PreviousHash string `json:"previous_hash"`
}

// exportChange is a line for each change: what it was, and the bytes of which its
// hash is made.
type exportChange struct {
	changeJSON
	Header  []byte `json:"header"`
	Payload []byte `json:"payload"`
}

// exportEnd is the last line: without it the export was cut.
type exportEnd struct {
	End  uint64 `json:"end"`
	Hash string `json:"end_hash"`
}

func (a *app) historyExportCommand() *cobra.Command {
	var from, to uint64
	cmd := &cobra.Command{
		Use:   "export [FILE]",
		Short: "Write a store's history as JSON lines that can be verified offline",
		Long: `Write a store's history to a file, or to standard output: a line that says whose it
is, one for each change with what it did and with the bytes of which its hash is
made, and a last one. The chain is verified while it is written. "pemba history
verify --file FILE" verifies the file later, without a server.`,
		Example: `  pemba history export history.jsonl
  pemba history export --from 1001 --to 2000 | gzip > 1001-2000.jsonl.gz`,
		Args: takes("[FILE]"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		if to > 0 && from > to {
			return usagef("--from %d lies after --to %d", from, to)
		}
		if len(args) == 0 {
			out := a.buffered()
			_, err := a.export(ctx, c, from, to, out)
			return errors.Join(err, out.Flush())
		}
		file, err := os.Create(args[0])
		if err != nil {
			return fileError("write", err)
		}
		out := bufio.NewWriterSize(file, 64<<10)
		chain, err := a.export(ctx, c, from, to, out)
		if err := errors.Join(err, out.Flush(), file.Sync(), file.Close()); err != nil {
			return err
		}
		a.printf("exported up to revision %d, hash %x\n", chain.At.Revision, chain.At.Hash)
		return nil
	})
	f := cmd.Flags()
	f.Uint64Var(&from, "from", 0, "the first revision; 0 is the oldest that is kept")
	f.Uint64Var(&to, "to", 0, "the last revision; 0 is the head")
	return a.remote(cmd, true, false)
}

func (a *app) export(ctx context.Context, c *connection, from, to uint64, out io.Writer) (*datastore.Chain, error) {
	if from == 0 {
		now, _, err := c.position(ctx, nil)
		if err != nil {
			return nil, err
		}
		from = now.Oldest
	}
	before := from - 1
	p, start, err := c.position(ctx, &before)
	if err != nil {
		return nil, err
	}
	if to == 0 || to > p.Head {
		to = max(p.Head, before) // what is there now
	}
	chain, err := datastore.NewChain(datastore.StoreID(p.StoreId), start, nil)
	if err != nil {
		return nil, err
	}
	if err := document(out, exportStart{exportFormat, p.Store, p.StoreId, hex.EncodeToString(p.Incarnation), before, hex.EncodeToString(p.Hash)}); err != nil {
		return nil, err
	}
	if to >= from {
		err = a.sealed(ctx, c, &pb.ReadHistoryRequest{Store: c.store, FromRevision: from, ToRevision: to, Sealed: true}, func(change *pb.Change) error {
			if err := verifyChange(chain, datastore.StoreID(p.StoreId), change); err != nil {
				return err
			}
			return document(out, exportChange{changeDocument(change), change.Sealed.Header, change.Sealed.Payload})
		})
	}
	if err == nil && uint64(chain.At.Revision) != to {
		err = fmt.Errorf("the export ends at revision %d, before %d; try again", chain.At.Revision, to)
	}
	if err != nil {
		return nil, err
	}
	return chain, document(out, exportEnd{to, hex.EncodeToString(chain.At.Hash[:])})
}

// verifyFile verifies an export.
func (a *app) verifyFile(path string, point *datastore.Checkpoint) error {
	in, err := a.open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	v := &exportVerifier{in: bufio.NewReaderSize(in, 1<<20)}
	if err := v.run(point); err != nil {
		return fmt.Errorf("%s, line %d: %w", path, v.line, err)
	}
	return a.printVerified(fmt.Sprintf("store %s in %s", v.start.Store, path), v.first, v.chain, nil)
}

// exportVerifier verifies an export line by line.
type exportVerifier struct {
	in    *bufio.Reader
	line  int
	start exportStart
	first datastore.Revision
	chain *datastore.Chain
}

// next reads a line; io.EOF where there is none.
func (v *exportVerifier) next() ([]byte, error) {
	line, err := v.in.ReadBytes('\n')
	if err == io.EOF && len(line) > 0 {
		err = nil
	}
	v.line++
	return line, err
}

func (v *exportVerifier) run(point *datastore.Checkpoint) error {
	line, err := v.next()
	if err == nil {
		err = v.begin(line, point)
	}
	if err == io.EOF {
		err = fmt.Errorf("%w: the file is empty", datastore.ErrCorrupt)
	}
	if err != nil {
		return err
	}
	for {
		line, err := v.next()
		if err == io.EOF {
			if err := v.chain.End(); err != nil {
				return err
			}
			return fmt.Errorf("%w: the file was cut: its last line is missing, which says where the history ended", datastore.ErrCorrupt)
		}
		if err != nil {
			return err
		}
		if bytes.HasPrefix(line, []byte(`{"end":`)) {
			return v.end(line)
		}
		if err := v.change(line); err != nil {
			return err
		}
	}
}

// decode reads a line.
func decode(line []byte, v any) error {
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("%w: it cannot be read: %w", datastore.ErrCorrupt, err)
	}
	return nil
}

// same refuses a line that is not what an export would write.
func same(line []byte, want any) error {
	var b bytes.Buffer
	if err := document(&b, want); err != nil {
		return err
	}
	if !bytes.Equal(bytes.TrimRight(b.Bytes(), "\n"), bytes.TrimRight(line, "\n")) {
		return fmt.Errorf("%w: it is not what its bytes say", datastore.ErrCorrupt)
	}
	return nil
}

func (v *exportVerifier) begin(line []byte, point *datastore.Checkpoint) error {
	if err := decode(line, &v.start); err != nil {
		return err
	}
	if v.start.Format != exportFormat {
		return fmt.Errorf("it is no export of a history that this command knows: it has format %d, not %d", v.start.Format, exportFormat)
	}
	head := datastore.Head{Revision: datastore.Revision(v.start.Previous)}
	incarnation, err := hex.DecodeString(v.start.Incarnation)
	hash, err2 := hex.DecodeString(v.start.PreviousHash)
	if err := errors.Join(err, err2); err != nil || copy(head.Incarnation[:], incarnation) < 8 || copy(head.Hash[:], hash) < 32 {
		return fmt.Errorf("%w: its incarnation or hash cannot be read", datastore.ErrCorrupt)
	}
	if head.Revision == 0 && head.Hash != (datastore.Hash{}) {
		return fmt.Errorf("%w: it begins with the first change, and names one before it", datastore.ErrCorrupt)
	}
	v.first = head.Revision + 1
	if v.chain, err = datastore.NewChain(datastore.StoreID(v.start.StoreID), head, point); err != nil {
		return err
	}
	return same(line, v.start)
}

// change verifies the line of a change, its readable part included.
func (v *exportVerifier) change(line []byte) error {
	var told exportChange
	if err := decode(line, &told); err != nil {
		return err
	}
	e := datastore.Entry{Revision: datastore.Revision(told.Revision), RequestID: told.RequestID, Header: told.Header, Payload: told.Payload}
	hash, err := hex.DecodeString(told.Hash)
	if err != nil || copy(e.Hash[:], hash) < len(e.Hash) {
		return fmt.Errorf("%w: the hash of change %d cannot be read", datastore.ErrCorrupt, told.Revision)
	}
	c, err := v.chain.Next(e)
	if err != nil {
		return err
	}
	change := server.ChangeProto(&c, datastore.StoreID(v.start.StoreID), v.chain.At.Incarnation)
	return same(line, exportChange{changeDocument(change), told.Header, told.Payload})
}

func (v *exportVerifier) end(line []byte) error {
	var end exportEnd
	if err := decode(line, &end); err != nil {
		return err
	}
	if err := v.chain.End(); err != nil {
		return err
	}
	if err := same(line, exportEnd{uint64(v.chain.At.Revision), hex.EncodeToString(v.chain.At.Hash[:])}); err != nil {
		return fmt.Errorf("it says that the history ends at revision %d, and it ends at %d: %w", end.End, v.chain.At.Revision, err)
	}
	if rest, err := v.next(); err != io.EOF {
		return errors.Join(fmt.Errorf("%w: after its last line stands %q", datastore.ErrCorrupt, rest[:min(len(rest), 40)]), err)
	}
	return nil
}
