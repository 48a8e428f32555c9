package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/pembadb/pemba/datastore"
	pb "github.com/pembadb/pemba/proto/pemba/v1"
)

// backupJSON is a backup, or a restored store, as JSON.
type backupJSON struct {
	Store  string `json:"store"`
	Source string `json:"source,omitempty"`
	File   string `json:"file,omitempty"`
	Bytes  int64  `json:"bytes,omitempty"`
	Made   string `json:"made"`
	Oldest uint64 `json:"oldest"`
	Head   uint64 `json:"head"`
	Hash   string `json:"hash"`
	Zookie string `json:"zookie,omitempty"`
}

// backupCommandLine is what `pemba store backup` is told.
type backupCommandLine struct {
	out, at, recipientFile string
	recipients             []string
	revision               uint64
}

func (a *app) storeBackupCommand() *cobra.Command {
	var l backupCommandLine
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Write a store's history, and all it takes to restore it, to a file",
		Long: `Write a backup of a store to a file: its history as it is stored, and what else it
takes to restore it. What arrives is verified, and the file gets its name once it is
whole and on disk. With a recipient the file is encrypted with age, on this machine:
nothing plain is ever written, and the server never has the key.`,
		Example: `  pemba store backup --out default.backup
  pemba store backup --store crm --out crm.age --recipient-file operators.txt`,
		Args: takes(),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, _ []string) error {
		request := &pb.BackupStoreRequest{Store: c.store}
		if at, err := parseTime("at", l.at); err != nil {
			return err
		} else if at != nil {
			request.Until = &pb.BackupStoreRequest_Time{Time: at}
		} else if cmd.Flags().Changed("revision") {
			request.Until = &pb.BackupStoreRequest_Revision{Revision: l.revision}
		}
		recipients, err := l.readRecipients()
		if err != nil {
			return err
		}
		return a.backup(ctx, c, request, l.out, recipients)
	})
	f := cmd.Flags()
	f.StringVar(&l.out, "out", "", "the file to write, which must not exist")
	f.Uint64Var(&l.revision, "revision", 0, "back up to this revision instead of the head")
	f.StringVar(&l.at, "at", "", "back up to this time: "+timeForms)
	f.StringArrayVar(&l.recipients, "recipient", nil, "encrypt to this age recipient; may be repeated")
	f.StringVar(&l.recipientFile, "recipient-file", "", "encrypt to the age recipients in this file, one a line")
	cmd.MarkFlagsMutuallyExclusive("revision", "at")
	if err := cmd.MarkFlagRequired("out"); err != nil {
		panic(err) // the flag is there
	}
	return a.remote(cmd, true, false)
}

// readRecipients returns to whom a backup is encrypted; nobody where it is not.
func (l *backupCommandLine) readRecipients() ([]age.Recipient, error) {
	var all []age.Recipient
	for _, text := range l.recipients {
		list, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil {
			return nil, usagef("--recipient %q is no age recipient, such as age1…: %v", text, err)
		}
		all = append(all, list...)
	}
	if l.recipientFile == "" {
		return all, nil
	}
	f, err := os.Open(l.recipientFile)
	if err != nil {
		return nil, fileError("read", err)
	}
	defer f.Close()
	list, err := age.ParseRecipients(f)
	if err != nil {
		return nil, fmt.Errorf("the recipients in %s: %w", l.recipientFile, err)
	}
	return append(all, list...), nil
}

func (a *app) backup(ctx context.Context, c *connection, request *pb.BackupStoreRequest, path string, recipients []age.Recipient) error {
	if _, err := os.Lstat(path); err == nil {
		return usagef("--out %s exists; choose another name, or remove it", path)
	}
	file, err := newBackupFile(path, recipients)
	if err != nil {
		return err
	}
	defer file.discard()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.stores.BackupStore(ctx, request)
	if err != nil {
		return err
	}
	progress, received := a.progress(), uint64(0)
	err = receive(stream, func(m *pb.BackupStoreResponse) error {
		received += uint64(len(m.Data))
		progress.at(received, "byte")
		_, err := file.Write(m.Data)
		return err
	})
	progress.done()
	if err != nil {
		return err
	}
	b, err := file.finish()
	if err != nil {
		return err
	}
	j := backupJSON{Store: b.Store.Name, File: path, Bytes: file.size, Made: clock(b.Made), Head: uint64(b.Head.Revision), Hash: hex.EncodeToString(b.Head.Hash[:])}
	if b.Head.Revision > b.Anchor.Revision {
		j.Oldest = uint64(b.Anchor.Revision) + 1
	}
	if a.json() {
		return document(a.out, j)
	}
	encrypted := ""
	if n := uint64(len(recipients)); n > 0 {
		encrypted = ", encrypted to " + plural(n, "recipient")
	}
	a.printf("store %s is backed up in %s: %s%s\n", j.Store, path, j.span(), encrypted)
	return nil
}

// span says which revisions there are.
func (j *backupJSON) span() string {
	if j.Head == 0 {
		return "nothing was ever changed in it"
	}
	if j.Oldest == 0 {
		return fmt.Sprintf("revision %d, hash %s", j.Head, j.Hash)
	}
	return fmt.Sprintf("revisions %d to %d, hash %s", j.Oldest, j.Head, j.Hash)
}

// backupFile is a backup on its way to disk, under another name until it is whole.
// What is written to it is verified.
type backupFile struct {
	path    string
	part    *os.File
	plain   io.WriteCloser // encrypts, or passes on
	buffer  *bufio.Writer
	size    int64 // once it is whole
	checks  *io.PipeWriter
	checked chan error // of the verification, once
	backup  datastore.Backup
}

type passOn struct{ io.Writer }

func (passOn) Close() error { return nil }

func newBackupFile(path string, recipients []age.Recipient) (*backupFile, error) {
	part, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.part") // readable by its owner only
	if err != nil {
		return nil, fileError("write", err)
	}
	f := &backupFile{path: path, part: part, buffer: bufio.NewWriterSize(part, 1<<20), checked: make(chan error, 1)}
	f.plain = passOn{f.buffer}
	if len(recipients) > 0 {
		if f.plain, err = age.Encrypt(f.buffer, recipients...); err != nil {
			f.discard()
			return nil, fmt.Errorf("encrypt the backup: %w", err)
		}
	}
	in, out := io.Pipe()
	f.checks = out
	go func() {
		err := f.verify(in)
		in.CloseWithError(err)
		f.checked <- err
	}()
	return f, nil
}

// verify reads a backup to its end.
func (f *backupFile) verify(in io.Reader) error {
	r, err := datastore.NewBackupReader(in)
	for err == nil {
		_, err = r.Next()
	}
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("what the server sent: %w", err)
	}
	f.backup = r.Backup
	return nil
}

func (f *backupFile) Write(p []byte) (int, error) {
	if _, err := f.checks.Write(p); err != nil {
		return 0, err
	}
	n, err := f.plain.Write(p)
	if err != nil {
		err = fileError("write", err)
	}
	return n, err
}

// finish gives the file its name.
func (f *backupFile) finish() (datastore.Backup, error) {
	f.checks.Close()
	if err := <-f.checked; err != nil {
		f.checked <- err
		return f.backup, err
	}
	f.checked <- nil
	if err := errors.Join(f.plain.Close(), f.buffer.Flush(), f.part.Sync()); err != nil {
		return f.backup, fileError("write", err)
	}
	info, err := f.part.Stat()
	if err != nil {
		return f.backup, fileError("write", err)
	}
	f.size = info.Size()
	if err := f.part.Close(); err != nil {
		return f.backup, fileError("write", err)
	}
	if err := os.Rename(f.part.Name(), f.path); err != nil {
		return f.backup, fmt.Errorf("cannot give the backup its name: %w", err)
	}
	folder, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return f.backup, fileError("read", err)
	}
	// Not every file system can sync a folder; the file itself is on disk.
	_ = folder.Sync()
	return f.backup, folder.Close()
}

// discard removes what has not got its name.
func (f *backupFile) discard() {
	if f.checks != nil {
		f.checks.CloseWithError(errors.New("the backup was broken off"))
		<-f.checked
	}
	f.part.Close()
	os.Remove(f.part.Name())
}

// restoreCommandLine is what `pemba store restore` is told.
type restoreCommandLine struct {
	store, at, reason string
	identities        []string
	revision          uint64
}

func (a *app) storeRestoreCommand() *cobra.Command {
	var l restoreCommandLine
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a store from a backup",
		Long: `Make a store from a file that "pemba store backup" wrote, or from standard input for
"-". It has the same history, with the same hashes, and gives the same answers; its
zookies are new, and those of the store that was backed up are refused. It appears
when everything is written and verified. It may take the place of a store that is
empty, such as default in a new installation.`,
		Example: `  pemba store restore default.backup --store default
  pemba store restore crm.age --store crm-monday --identity key.txt --at 2026-01-31T12:00:00Z`,
		Args: takes("FILE"),
	}
	cmd.RunE = a.call(func(ctx context.Context, c *connection, args []string) error {
		start := &pb.RestoreStart{Store: l.store, Reason: l.reason}
		if at, err := parseTime("at", l.at); err != nil {
			return err
		} else if at != nil {
			start.Until = &pb.RestoreStart_Time{Time: at}
		} else if cmd.Flags().Changed("revision") {
			start.Until = &pb.RestoreStart_Revision{Revision: l.revision}
		}
		in, err := a.open(args[0])
		if err != nil {
			return err
		}
		defer in.Close()
		plain, err := l.decrypted(args[0], in)
		if err != nil {
			return err
		}
		return a.restore(ctx, c, start, plain)
	})
	f := cmd.Flags()
	f.StringVar(&l.store, "store", "", "the new store's name")
	f.StringArrayVar(&l.identities, "identity", nil, "a file with the age identity that the backup is encrypted to; may be repeated")
	f.Uint64Var(&l.revision, "revision", 0, "restore up to this revision instead of all")
	f.StringVar(&l.at, "at", "", "restore up to this time: "+timeForms)
	f.StringVar(&l.reason, "reason", "", "why, for the history of the store system")
	cmd.MarkFlagsMutuallyExclusive("revision", "at")
	if err := cmd.MarkFlagRequired("store"); err != nil {
		panic(err)
	}
	return a.remote(cmd, false, false)
}

// decrypted returns the bytes of a backup, which may be encrypted.
func (l *restoreCommandLine) decrypted(path string, in io.Reader) (io.Reader, error) {
	source := &countedReader{in: bufio.NewReaderSize(in, 1<<20)}
	beginning, err := source.in.Peek(64)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fileError("read", err)
	}
	encrypted := strings.HasPrefix(string(beginning), "age-encryption.org/")
	switch {
	case !encrypted && !datastore.IsBackup(beginning):
		return nil, fmt.Errorf("%s is no backup of a store: it does not begin as one", path)
	case !encrypted && len(l.identities) > 0:
		return nil, usagef("%s is not encrypted; leave out --identity", path)
	case !encrypted:
		return source, nil
	case len(l.identities) == 0:
		return nil, usagef("%s is encrypted; name the file of the age identity with --identity", path)
	}
	var identities []age.Identity
	for _, name := range l.identities {
		f, err := os.Open(name)
		if err != nil {
			return nil, fileError("read", err)
		}
		list, err := age.ParseIdentities(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("the age identities in %s: %w", name, err)
		}
		identities = append(identities, list...)
	}
	plain, err := age.Decrypt(source, identities...)
	var other *age.NoIdentityMatchError
	if errors.As(err, &other) {
		return nil, fmt.Errorf("%s is encrypted to others than the identities in %s", path, strings.Join(l.identities, ", "))
	}
	if err != nil {
		return nil, fmt.Errorf("%s cannot be decrypted: %w", path, err)
	}
	return &decryptedReader{path: path, source: source, plain: plain}, nil
}

// countedReader counts what is read.
type countedReader struct {
	in *bufio.Reader
	n  int64
}

func (r *countedReader) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	r.n += int64(n)
	return n, err
}

// decryptedReader says where an encrypted file is damaged.
type decryptedReader struct {
	path   string
	source *countedReader
	plain  io.Reader
}

func (r *decryptedReader) Read(p []byte) (int, error) {
	n, err := r.plain.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%s was cut off or altered before byte %d: %w", r.path, r.source.n, err)
	}
	return n, err
}

func (a *app) restore(ctx context.Context, c *connection, start *pb.RestoreStart, in io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // without an end, the server undoes what it did
	stream, err := c.stores.RestoreStore(ctx)
	if err != nil {
		return err
	}
	progress, sent := a.progress(), uint64(0)
	err = stream.Send(&pb.RestoreStoreRequest{Message: &pb.RestoreStoreRequest_Start{Start: start}})
	for err == nil {
		data := make([]byte, 60<<10)
		n, failed := io.ReadFull(in, data)
		if n > 0 {
			err = stream.Send(&pb.RestoreStoreRequest{Message: &pb.RestoreStoreRequest_Data{Data: data[:n]}})
			sent += uint64(n)
			progress.at(sent, "byte")
		}
		if failed == io.EOF || failed == io.ErrUnexpectedEOF {
			break
		}
		if failed != nil {
			return failed
		}
	}
	// io.EOF says that the server has given up; its answer says why.
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	r, err := stream.CloseAndRecv()
	progress.done()
	if err != nil {
		return err
	}
	j := backupJSON{Store: r.Store.GetName(), Source: r.Source, Made: clock(r.Made.AsTime()), Oldest: r.Oldest, Head: r.Store.GetHead(), Hash: hex.EncodeToString(r.Hash), Zookie: r.Zookie}
	if a.json() {
		return document(a.out, j)
	}
	a.printf("store %s is restored from a backup of store %s of %s: %s\n", j.Store, j.Source, j.Made, j.span())
	return nil
}
